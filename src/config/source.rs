//! Finds and reads the files of a configuration: the main file and the drop-ins that are not masked. It does
//! not look into them.

use super::{
    Options,
    diagnostic::{At, Problems},
};
use crate::plan::Mode;
use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File},
    io::{self, Read},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// The largest file that is read.
const MAX: u64 = 4 << 20;
/// What follows from a file or folder that everybody can write.
const SO: &str = "and so run anything as root";

/// One file of the configuration.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) path: PathBuf,
    /// As it is named to people.
    pub(super) shown: String,
    /// Relative paths inside resolve against this folder.
    pub(super) dir: PathBuf,
    /// Empty where it could not be read.
    pub(super) text: String,
    /// Offsets of the lines' beginnings.
    lines: Vec<u32>,
}

impl Source {
    pub(super) fn new(path: PathBuf, root: &Path, text: String) -> Source {
        let shown = path.strip_prefix(root).unwrap_or(&path).display().to_string();
        let dir = path.parent().unwrap_or(Path::new("/")).to_owned();
        let ends = text.match_indices('\n').map(|(at, _)| u32::try_from(at + 1).unwrap_or(u32::MAX));
        let lines = std::iter::once(0).chain(ends).collect();
        Source { path, shown, dir, text, lines }
    }

    /// Line and column of a byte offset, both from 1, the column in characters.
    pub(super) fn position(&self, offset: u32) -> (usize, usize) {
        let line = self.lines.partition_point(|&start| start <= offset);
        let start = self.lines[line.saturating_sub(1)] as usize;
        let end = boundary(&self.text, offset).max(start);
        (line, self.text[start..end].chars().count() + 1)
    }
}

/// The character boundary at or before a byte offset: a span from the parser is not trusted to be one.
pub(super) fn boundary(text: &str, offset: u32) -> usize {
    let mut at = (offset as usize).min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Reads every file that counts, in the order in which they apply; entry 0 is `built_in`.
pub(super) fn gather(options: &Options, built_in: &str, problems: &mut Problems) -> Vec<Source> {
    let root = options.main.parent().unwrap_or(Path::new("/"));
    let mut sources = vec![Source::new("/built-in".into(), Path::new("/"), built_in.into())];
    let missing = options.main.symlink_metadata().is_err_and(|e| e.kind() == io::ErrorKind::NotFound);
    if options.explicit || !missing {
        add(&options.main, root, options.mode, &mut sources, problems);
    }
    // The strongest folder first, so the first file of a name is the one that counts.
    let mut files: BTreeMap<OsString, PathBuf> = BTreeMap::new();
    for dir in &options.drop_ins {
        match names(dir) {
            Ok((found, writable)) => {
                if writable && options.mode == Mode::System {
                    sources.push(Source::new(dir.clone(), root, String::new()));
                    problems.warn(
                        At::file(last(&sources)),
                        format!("everybody on this host can write this folder, {SO}"),
                    );
                }
                found.into_iter().for_each(|n| {
                    files.entry(n.clone()).or_insert_with(|| dir.join(n));
                });
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => {
                sources.push(Source::new(dir.clone(), root, String::new()));
                problems.error(
                    At::file(last(&sources)),
                    format!("cannot read the folder {}: {e}", dir.display()),
                );
            }
        }
    }
    for path in files.into_values().filter(|path| !is_masked(path)) {
        add(&path, root, options.mode, &mut sources, problems);
    }
    sources
}

fn last(sources: &[Source]) -> u32 {
    u32::try_from(sources.len() - 1).unwrap_or(u32::MAX)
}

fn add(path: &Path, root: &Path, mode: Mode, sources: &mut Vec<Source>, problems: &mut Problems) {
    let read = read(path);
    let (text, error) = match read {
        Ok((text, writable)) => {
            if writable && mode == Mode::System {
                let at = At::file(last(sources) + 1);
                problems.warn(at, format!("everybody on this host can write this file, {SO}"));
            }
            (text, None)
        }
        Err(error) => (String::new(), Some(error)),
    };
    let source = Source::new(path.to_owned(), root, text);
    if let Some(why) = error {
        problems.error(At::file(last(sources) + 1), format!("cannot read {}: {why}", source.shown));
    }
    sources.push(source);
}

/// Names of the drop-ins in a folder, `*.toml`, hidden files apart; and whether everybody may write it.
fn names(dir: &Path) -> io::Result<(Vec<OsString>, bool)> {
    let writable = fs::metadata(dir)?.mode() & 0o002 != 0;
    let mut out = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let bytes = name.as_encoded_bytes();
        if bytes.ends_with(b".toml") && !bytes.starts_with(b".") {
            out.push(name);
        }
    }
    Ok((out, writable))
}

/// An empty file or a link to /dev/null hides the files of this name in weaker folders.
fn is_masked(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|m| m.is_file() && m.len() == 0)
        || fs::canonicalize(path).is_ok_and(|p| p == Path::new("/dev/null"))
}

/// The text, and whether everybody may write the file. The error is a clause.
fn read(path: &Path) -> Result<(String, bool), String> {
    let cannot = |e: io::Error| e.to_string();
    // Asked before it is opened: opening a FIFO would wait for a writer.
    if !fs::metadata(path).map_err(cannot)?.is_file() {
        return Err("it is not a regular file".into());
    }
    let file = File::open(path).map_err(cannot)?;
    let meta = file.metadata().map_err(cannot)?;
    let mut bytes = Vec::new();
    file.take(MAX + 1).read_to_end(&mut bytes).map_err(cannot)?;
    if bytes.len() as u64 > MAX {
        return Err("it is larger than 4 MiB".into());
    }
    let line = |at: usize| bytes[..at].iter().filter(|b| **b == b'\n').count() + 1;
    if let Some(at) = bytes.iter().position(|b| *b == 0) {
        return Err(format!("it has a NUL byte in line {}", line(at)));
    }
    match std::str::from_utf8(&bytes) {
        Ok(text) => Ok((text.to_owned(), meta.mode() & 0o002 != 0)),
        Err(e) => Err(format!("it is not UTF-8 in line {}", line(e.valid_up_to()))),
    }
}
