//! Reading what was kept, in order, over any number of rotations, while it goes on being written.
//! Takes no part in writing: it opens files for reading and changes nothing.

use super::rotate::sequence;
use crate::sys::folder::Folder;
use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
};

/// Where to begin.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// With the oldest byte that is still kept.
    Start,
    /// With the last so many lines; an unfinished one counts.
    LastLines(u64),
    /// With what is written from now on.
    End,
}

/// Follows one folder of log files byte by byte.
#[derive(Debug)]
pub struct Reader {
    dir: PathBuf,
    open: Option<Open>,
    /// Every rotated file up to this number is read, or is older than what is being read.
    after: u64,
}

#[derive(Debug)]
struct Open {
    file: File,
    /// Its name is final, and so is what it holds: the number in it.
    rotated: Option<u64>,
    position: u64,
}

impl Reader {
    /// A folder that does not exist is one in which nothing was written yet.
    pub fn open(dir: &Path, from: From) -> io::Result<Reader> {
        let mut reader = Reader { dir: dir.into(), open: None, after: 0 };
        let lines = match from {
            From::Start => return Ok(reader),
            From::End => 0,
            From::LastLines(n) => n,
        };
        // Whatever is rotated while we look for the place is older than `current`, which is opened first.
        let current = reader.current()?;
        let mut files = Vec::new();
        let own = current.as_ref().map(File::metadata).transpose()?.map(|f| f.ino());
        for (number, name) in reader.rotated()? {
            match reader.folder()?.map(|f| f.read_file(&name)).transpose() {
                Ok(Some(file)) if Some(file.metadata()?.ino()) == own => break,
                Ok(Some(file)) => files.push((Some(number), file)),
                // Pruned a moment ago.
                Ok(None) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        files.extend(current.map(|file| (None, file)));
        reader.seek(files, lines)?;
        Ok(reader)
    }

    /// The next bytes. 0: everything that is written so far is read; ask again later.
    pub fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(open) = &mut self.open {
                let n = open.read(buf)?;
                if n > 0 || buf.is_empty() {
                    return Ok(n);
                }
            }
            if !self.advance()? {
                return Ok(0);
            }
        }
    }

    /// At the end of a file: finds out whether there is more to read, and where.
    fn advance(&mut self) -> io::Result<bool> {
        if let Some(Open { file, rotated: rotated @ None, .. }) = &mut self.open {
            let own = file.metadata()?.ino();
            let Some(folder) = folder(&self.dir)? else { return Ok(false) };
            if folder.facts("current").is_ok_and(|f| f.id.1 == own) {
                return Ok(false);
            }
            // It was rotated. Bytes may have come before that and after our last read: read on to its end.
            let named = list(&folder, 0)?;
            let mine = named.iter().find(|(_, name)| folder.facts(name).is_ok_and(|f| f.id.1 == own));
            // Pruned: what comes next is the oldest that is left. Where all numbers are lower than those that
            // were read, the folder was emptied and they began anew.
            let anew = named.last().is_some_and(|(number, _)| *number < self.after);
            *rotated = Some(mine.map_or(if anew { 0 } else { self.after }, |(number, _)| *number));
            return Ok(true);
        }
        if let Some(number) = self.open.as_ref().and_then(|open| open.rotated) {
            self.after = number;
        }
        // In this order: what `current` was before we opened it is among the rotated files afterwards.
        let current = self.current()?;
        for (number, name) in self.rotated()? {
            match self.folder()?.map(|f| f.read_file(&name)).transpose() {
                Ok(Some(file)) => {
                    self.open = Some(Open { file, rotated: Some(number), position: 0 });
                    return Ok(true);
                }
                Ok(None) => {}
                Err(e) if e.kind() == io::ErrorKind::NotFound => {}
                Err(e) => return Err(e),
            }
        }
        let found = current.is_some();
        if let Some(file) = current {
            self.open = Some(Open { file, rotated: None, position: 0 });
        }
        Ok(found)
    }

    /// Goes to the beginning of the last `lines` lines of these files, which are in order.
    fn seek(&mut self, mut files: Vec<(Option<u64>, File)>, lines: u64) -> io::Result<()> {
        let mut left = lines;
        let mut last = true;
        while let Some((rotated, file)) = files.pop() {
            self.after = files.last().and_then(|(number, _)| *number).unwrap_or(0);
            let position = last_lines(&file, &mut left, &mut last)?;
            self.open = Some(Open { file, rotated, position: position.unwrap_or(0) });
            if position.is_some() {
                break;
            }
        }
        Ok(())
    }

    fn folder(&self) -> io::Result<Option<Folder>> {
        folder(&self.dir)
    }

    fn current(&self) -> io::Result<Option<File>> {
        match self.folder()?.map(|f| f.read_file("current")).transpose() {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other,
        }
    }

    /// The rotated files that are still to be read.
    fn rotated(&self) -> io::Result<Vec<(u64, String)>> {
        self.folder()?.map_or(Ok(Vec::new()), |folder| list(&folder, self.after))
    }
}

impl Open {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut n = self.file.read_at(buf, self.position)?;
        if n == 0 && self.file.metadata()?.len() < self.position {
            // Somebody emptied it; the writer goes on from its new end.
            self.position = 0;
            n = self.file.read_at(buf, 0)?;
        }
        self.position += n as u64;
        Ok(n)
    }
}

/// Where the last `left` lines of the file begin; `None`: before it, and `left` is what is still missing.
/// `last`: it is the end of everything, where a line end does not begin another line.
fn last_lines(file: &File, left: &mut u64, last: &mut bool) -> io::Result<Option<u64>> {
    let mut block = vec![0; 64 * 1024];
    let mut end = file.metadata()?.len();
    if *left == 0 {
        return Ok(Some(end));
    }
    while end > 0 {
        let len = usize::try_from(end).unwrap_or(block.len()).min(block.len());
        let begin = end - len as u64;
        file.read_exact_at(&mut block[..len], begin)?;
        for (i, _) in block[..len].iter().enumerate().rev().filter(|(_, b)| **b == b'\n') {
            if std::mem::take(last) && i + 1 == len {
                continue;
            }
            *left -= 1;
            if *left == 0 {
                return Ok(Some(begin + i as u64 + 1));
            }
        }
        *last = false;
        end = begin;
    }
    Ok(None)
}

fn folder(dir: &Path) -> io::Result<Option<Folder>> {
    match Folder::open(dir) {
        Ok(folder) => Ok(Some(folder)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

fn list(folder: &Folder, after: u64) -> io::Result<Vec<(u64, String)>> {
    let names = folder.names()?.into_iter();
    let mut found: Vec<_> = names.filter_map(|name| Some((sequence("", &name)?, name))).collect();
    found.retain(|(number, _)| *number > after);
    found.sort();
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::{super::rotate::name, *};
    use proptest::prelude::*;
    use std::{fs, io::Write};

    fn everything(reader: &mut Reader) -> Vec<u8> {
        let (mut all, mut buf) = (Vec::new(), [0; 7]);
        loop {
            match reader.read(&mut buf).unwrap() {
                0 => return all,
                n => all.extend_from_slice(&buf[..n]),
            }
        }
    }

    /// What `tail -n` would print of the files together.
    fn tail(all: &[u8], lines: usize) -> Vec<u8> {
        let split: Vec<_> = all.split_inclusive(|b| *b == b'\n').collect();
        split[split.len().saturating_sub(lines)..].concat()
    }

    proptest! {
        #[test]
        fn the_last_lines_span_files(
            files in prop::collection::vec("[a\n]{0,30}", 0..6),
            lines in 0..40usize,
            with_current: bool,
        ) {
            let dir = tempfile::tempdir().unwrap();
            for (n, content) in files.iter().enumerate() {
                let live = with_current && n + 1 == files.len();
                let name = if live { "current".into() } else { name("", 0, n as u64 + 1) };
                fs::write(dir.path().join(name), content).unwrap();
            }
            let all = files.concat();
            let mut reader = Reader::open(dir.path(), From::LastLines(lines as u64)).unwrap();
            prop_assert_eq!(everything(&mut reader), tail(all.as_bytes(), lines));
            let mut reader = Reader::open(dir.path(), From::Start).unwrap();
            prop_assert_eq!(everything(&mut reader), all.as_bytes());
        }
    }

    #[test]
    fn long_files_are_searched_block_by_block() {
        let dir = tempfile::tempdir().unwrap();
        let all: String = (0..50_000).map(|n| format!("line {n}\n")).collect();
        fs::write(dir.path().join("current"), &all).unwrap();
        for lines in [1, 10_000, 49_999, 50_000, 50_001] {
            let mut reader = Reader::open(dir.path(), From::LastLines(lines as u64)).unwrap();
            assert!(everything(&mut reader) == tail(all.as_bytes(), lines), "{lines}");
        }
    }

    #[test]
    fn a_reader_goes_on_over_rotations_deletions_and_a_missing_folder() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path().join("web");
        let path = |n: &str| dir.join(n);
        let rotated = |n| dir.join(name("", 0, n));
        let mut reader = Reader::open(&dir, From::End).unwrap();
        assert_eq!(everything(&mut reader), b"");
        fs::create_dir(&dir).unwrap();
        fs::write(path("current"), "one\n").unwrap();
        assert_eq!(everything(&mut reader), b"one\n");
        let mut file = fs::OpenOptions::new().append(true).open(path("current")).unwrap();
        file.write_all(b"two\n").unwrap();
        fs::rename(path("current"), rotated(1)).unwrap();
        // Between the rename and the new file.
        assert_eq!(everything(&mut reader), b"two\n");
        fs::write(rotated(2), "three\n").unwrap();
        fs::write(rotated(3), "four\n").unwrap();
        fs::write(path("current"), "five\n").unwrap();
        assert_eq!(everything(&mut reader), b"three\nfour\nfive\n");
        // What it reads is rotated and pruned, and more with it.
        fs::remove_file(path("current")).unwrap();
        fs::write(rotated(9), "six\n").unwrap();
        assert_eq!(everything(&mut reader), b"six\n");
        // Everything is deleted, and the numbers begin anew.
        fs::write(path("current"), "seven\n").unwrap();
        assert_eq!(everything(&mut reader), b"seven\n");
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!(everything(&mut reader), b"");
        fs::create_dir(&dir).unwrap();
        fs::write(rotated(1), "eight\n").unwrap();
        fs::write(path("current"), "nine\n").unwrap();
        assert_eq!(everything(&mut reader), b"eight\nnine\n");
        // Emptied and written again.
        fs::write(path("current"), "ten\n").unwrap();
        assert_eq!(everything(&mut reader), b"ten\n");
    }
}
