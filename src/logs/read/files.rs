//! The files of one log: where they are, in which order, and the bytes of one of them, compressed or not.
//! Everything is opened below an opened folder, never through a link, and only if it is a regular file.

use super::super::rotate;
use crate::sys::folder::Folder;
use flate2::bufread::MultiGzDecoder;
use std::{
    fs::File,
    io::{self, BufReader, Read, Seek},
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
};

/// What a compressed file is called beyond its name.
const PACKED: &str = ".gz";

/// The folder of one log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    dir: PathBuf,
    sub: Option<&'static str>,
}

impl Place {
    /// The log of a service: its stdout, and its stderr too where that is not kept apart.
    pub fn stdout(dir: &Path) -> Place {
        Place { dir: dir.into(), sub: None }
    }

    /// Its stderr that is kept apart.
    pub fn stderr(dir: &Path) -> Place {
        Place { dir: dir.into(), sub: Some("stderr") }
    }

    /// `None`: nothing was written yet.
    ///
    /// # Errors
    /// Of the file system; where something else than a folder is there.
    pub fn open(&self) -> io::Result<Option<Folder>> {
        let opened = Folder::open(&self.dir).and_then(|folder| match self.sub {
            Some(sub) => folder.sub(sub),
            None => Ok(folder),
        });
        absent(opened)
    }
}

fn absent<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(found) => Ok(Some(found)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// What is no regular file is no log, whatever its name says.
fn regular(result: io::Result<File>) -> io::Result<Option<File>> {
    match result {
        Err(e)
            if matches!(e.raw_os_error(), Some(libc::ELOOP | libc::EINVAL | libc::ENXIO | libc::EISDIR)) =>
        {
            Ok(None)
        }
        other => absent(other),
    }
}

/// A rotated file, which may be there as it was, compressed, or for a moment both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::logs) struct Rotated {
    pub(in crate::logs) sequence: u64,
    /// Its name without the ending of compressed ones.
    name: String,
}

impl Rotated {
    /// `None`: it is no longer there.
    pub(super) fn open(&self, folder: &Folder) -> io::Result<Option<Source>> {
        if let Some(file) = regular(folder.read_file(&self.name))? {
            return Source::plain(file).map(Some);
        }
        let packed = regular(folder.read_file(&format!("{}{PACKED}", self.name)))?;
        packed.map(Source::packed).transpose()
    }

    /// Bytes that it takes, compressed or not.
    pub(in crate::logs) fn size(&self, folder: &Folder) -> u64 {
        let facts = folder.facts(&self.name).or_else(|_| folder.facts(&format!("{}{PACKED}", self.name)));
        facts.map_or(0, |facts| facts.size)
    }

    /// Whether this is it.
    pub(super) fn is(&self, folder: &Folder, id: (u64, u64)) -> bool {
        folder.facts(&self.name).is_ok_and(|f| f.id == id)
    }

    /// Whether it is there as it was.
    pub(super) fn is_plain(&self, folder: &Folder) -> bool {
        folder.facts(&self.name).is_ok()
    }

    /// When it was begun, as its name tells, in milliseconds since 1970.
    pub(super) fn began_ms(&self) -> Option<u64> {
        rotate::started(&self.name)
    }
}

/// The rotated files with a number above `after`, oldest first, each once.
pub(in crate::logs) fn list(folder: &Folder, after: u64) -> io::Result<Vec<Rotated>> {
    let own = |name: String| {
        let name = name.strip_suffix(PACKED).map(str::to_owned).unwrap_or(name);
        Some(Rotated { sequence: rotate::sequence("", &name)?, name })
    };
    let mut found: Vec<Rotated> = folder.names()?.into_iter().filter_map(own).collect();
    found.retain(|f| f.sequence > after);
    found.sort_by(|a, b| (a.sequence, &a.name).cmp(&(b.sequence, &b.name)));
    found.dedup_by_key(|f| f.sequence);
    Ok(found)
}

/// The file that is being written.
pub(super) fn current(folder: &Folder) -> io::Result<Option<Source>> {
    absent(folder.read_file("current"))?.map(Source::plain).transpose()
}

/// The bytes of one file, in order.
#[derive(Debug)]
pub(super) struct Source {
    bytes: Bytes,
    /// How many of them were read.
    pub(super) position: u64,
    /// Device and inode.
    pub(super) id: (u64, u64),
}

#[derive(Debug)]
enum Bytes {
    Plain(File),
    Packed(Box<MultiGzDecoder<BufReader<File>>>),
}

impl Source {
    fn plain(file: File) -> io::Result<Source> {
        let facts = file.metadata()?;
        Ok(Source { bytes: Bytes::Plain(file), position: 0, id: (facts.dev(), facts.ino()) })
    }

    fn packed(file: File) -> io::Result<Source> {
        let facts = file.metadata()?;
        let decoder = MultiGzDecoder::new(BufReader::with_capacity(16 * 1024, file));
        Ok(Source { bytes: Bytes::Packed(Box::new(decoder)), position: 0, id: (facts.dev(), facts.ino()) })
    }

    /// The file itself where it is not compressed.
    pub(super) fn file(&self) -> Option<&File> {
        match &self.bytes {
            Bytes::Plain(file) => Some(file),
            Bytes::Packed(_) => None,
        }
    }

    /// The next bytes; 0: there are no more now.
    pub(super) fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = match &mut self.bytes {
            Bytes::Plain(file) => {
                let n = file.read_at(buf, self.position)?;
                if n == 0 && file.metadata()?.len() < self.position {
                    // Somebody emptied it; the writer goes on from its new end.
                    self.position = 0;
                    file.read_at(buf, 0)?
                } else {
                    n
                }
            }
            Bytes::Packed(decoder) => decoder.read(buf)?,
        };
        self.position += n as u64;
        Ok(n)
    }

    /// Goes to this place, as far as there is one; a compressed file only forwards.
    pub(super) fn seek(&mut self, to: u64) {
        match &mut self.bytes {
            Bytes::Plain(_) => self.position = to,
            Bytes::Packed(decoder) => {
                let ahead = to.saturating_sub(self.position);
                // What is damaged is found again by the next read.
                let skipped = io::copy(&mut decoder.by_ref().take(ahead), &mut io::sink());
                self.position += skipped.unwrap_or(0);
            }
        }
    }

    /// The same file at the same place; a compressed one can then only be read through that.
    pub(super) fn again(&self) -> io::Result<Source> {
        let mut again = match &self.bytes {
            Bytes::Plain(file) => Source::plain(file.try_clone()?)?,
            Bytes::Packed(decoder) => {
                let mut file = decoder.get_ref().get_ref().try_clone()?;
                file.rewind()?;
                Source::packed(file)?
            }
        };
        again.seek(self.position);
        Ok(again)
    }
}
