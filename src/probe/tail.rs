//! A look at what a service has written to its log since it was started, line by line, for `ready.log`. It follows the
//! file that is written, and when that is rotated the next one.

use crate::plan::Verdict;
use regex::bytes::Regex;
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom},
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// A longer line is matched by its beginning.
const LINE_MAX: usize = 64 << 10;
/// Bytes that are read in one look at most; the next one goes on there.
const LOOK_MAX: u64 = 8 << 20;

/// Where a look goes on.
#[derive(Debug)]
pub struct Tail {
    path: PathBuf,
    file: Option<File>,
    line: Vec<u8>,
}

impl Tail {
    /// From the present end of the file on, or where there is none, from its beginning.
    pub fn at_end(path: PathBuf) -> Tail {
        let end = |path: &Path| -> io::Result<File> {
            let mut file = File::open(path)?;
            file.seek(SeekFrom::End(0))?;
            Ok(file)
        };
        Tail { file: end(&path).ok(), path, line: Vec::new() }
    }

    /// From the beginning of the file on, for a run that was there before.
    pub fn from_start(path: PathBuf) -> Tail {
        Tail { path, file: None, line: Vec::new() }
    }

    /// Whether a whole line that was written since the last look matches. Waits for the file system.
    pub fn look(&mut self, pattern: &str) -> Verdict {
        let regex = match Regex::new(pattern) {
            Ok(regex) => regex,
            Err(e) => return Verdict::Unasked(e.to_string()),
        };
        match self.search(&regex) {
            Ok(true) => Verdict::Passed,
            Ok(false) => Verdict::Failed(format!("no line of its log matches `{pattern}` yet")),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Verdict::Failed("it has no log yet".into()),
            Err(e) => Verdict::Unasked(format!("{}: {e}", self.path.display())),
        }
    }

    fn search(&mut self, regex: &Regex) -> io::Result<bool> {
        if self.file.is_none() {
            self.file = Some(File::open(&self.path)?);
        }
        loop {
            // Looked at before the old file is read to its end: nothing is written to that afterwards.
            let next = File::open(&self.path)?;
            let Some(file) = &mut self.file else { return Ok(false) };
            let mut bytes = Vec::new();
            file.take(LOOK_MAX).read_to_end(&mut bytes)?;
            if take(&mut self.line, regex, &bytes) {
                return Ok(true);
            }
            let same = |a: &File, b: &File| -> io::Result<bool> {
                let (a, b) = (a.metadata()?, b.metadata()?);
                Ok((a.dev(), a.ino()) == (b.dev(), b.ino()))
            };
            if bytes.len() as u64 >= LOOK_MAX || same(file, &next)? {
                return Ok(false);
            }
            self.file = Some(next);
        }
    }
}

/// Goes on with a line; whether a whole one matches.
fn take(line: &mut Vec<u8>, regex: &Regex, bytes: &[u8]) -> bool {
    for piece in bytes.split_inclusive(|b| *b == b'\n') {
        let (text, ended) = piece.strip_suffix(b"\n").map_or((piece, false), |text| (text, true));
        let room = LINE_MAX.saturating_sub(line.len());
        line.extend_from_slice(&text[..text.len().min(room)]);
        if ended {
            if regex.is_match(line) {
                return true;
            }
            line.clear();
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, io::Write};

    #[test]
    fn lines_are_found_once_they_are_whole_and_over_a_rotation() {
        let dir = tempfile::tempdir().unwrap();
        let (current, rotated) = (dir.path().join("current"), dir.path().join("old"));
        fs::write(&current, "listening on 80\n").unwrap();
        let mut tail = Tail::at_end(current.clone());
        let found = |tail: &mut Tail| tail.look("^listening on \\d+$") == Verdict::Passed;
        assert!(!found(&mut tail), "that was an earlier run");
        let mut file = File::options().append(true).open(&current).unwrap();
        write!(file, "list").unwrap();
        assert!(!found(&mut tail));
        fs::rename(&current, &rotated).unwrap();
        write!(file, "ening on 8").unwrap();
        fs::write(&current, "").unwrap();
        assert!(!found(&mut tail));
        fs::write(&current, "0\n").unwrap();
        assert!(found(&mut tail), "a line that goes on in the next file");
    }

    #[test]
    fn a_log_may_come_later() {
        let dir = tempfile::tempdir().unwrap();
        let current = dir.path().join("current");
        let mut tail = Tail::at_end(current.clone());
        assert_eq!(tail.look("up"), Verdict::Failed("it has no log yet".into()));
        fs::write(&current, "up\n").unwrap();
        assert_eq!(tail.look("up"), Verdict::Passed);
    }

    #[test]
    fn a_line_without_an_end_takes_no_memory() {
        let dir = tempfile::tempdir().unwrap();
        let current = dir.path().join("current");
        let mut tail = Tail::at_end(current.clone());
        fs::write(&current, vec![b'x'; 4 << 20]).unwrap();
        assert!(matches!(tail.look("up"), Verdict::Failed(_)));
        assert!(tail.line.capacity() <= 2 * LINE_MAX);
    }
}
