//! The bytes of one log, over any number of rotations, while it goes on being written and old files are compressed
//! or removed. Each byte once and in order; where files went before they were read, that is said.

use super::{
    files::{self, Place, Source, list},
    lines::Lines,
    tail,
    times::{Spot, Times, newest},
};
use crate::sys::folder::Folder;
use std::{fs::File, io, mem, path::Path};

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
    place: Place,
    open: Option<Open>,
    /// Every rotated file up to this number is read, or is older than what is being read.
    after: u64,
    note: Option<String>,
    /// There is nothing behind the file that it began with.
    pub(super) alone: bool,
    /// Nothing from this place on.
    end: Option<Spot>,
}

/// The file that is being read.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) source: Source,
    /// The number in its name, or that it will have there.
    pub(super) sequence: u64,
    /// Its name is final, and so is what it holds.
    pub(super) rotated: bool,
}

impl Open {
    fn spot(&self) -> Spot {
        (self.sequence, self.source.position)
    }

    /// The lines of this file alone, from where it stands; the file stays with whoever asks.
    pub(super) fn alone(&self, place: &Place) -> io::Result<Lines> {
        let open = Open { source: self.source.again()?, ..*self };
        let mut reader = Reader::with(place.clone(), open);
        reader.alone = true;
        Ok(Lines::new(reader, Times::new(place.clone()), 64 * 1024))
    }
}

impl Reader {
    /// A folder that does not exist is one in which nothing was written yet.
    pub fn open(dir: &Path, from: From) -> io::Result<Reader> {
        Reader::begin(Place::stdout(dir), from)
    }

    /// As [`Reader::open`].
    pub fn begin(place: Place, from: From) -> io::Result<Reader> {
        match from {
            From::Start => Ok(Reader::behind(place, 0)),
            From::End => tail::last_lines(place, 0),
            From::LastLines(n) => tail::last_lines(place, n),
        }
    }

    /// As [`Reader::open`], but what is written from now on is not read: a log may grow faster than it is read.
    pub fn until_now(place: Place, from: From) -> io::Result<Reader> {
        let reader = Reader::begin(place, from)?;
        // Only now: the place where it begins must not be behind that.
        Ok(Reader { end: now(&reader.place)?, ..reader })
    }

    /// Begins with the first file after this number.
    pub(super) fn behind(place: Place, after: u64) -> Reader {
        Reader { place, open: None, after, note: None, alone: false, end: None }
    }

    /// Begins with this file, where it stands.
    pub(super) fn with(place: Place, open: Open) -> Reader {
        let after = open.sequence.saturating_sub(1);
        Reader { place, open: Some(open), after, note: None, alone: false, end: None }
    }

    /// Goes to this place, or where its file is gone to the next that is there.
    pub(in crate::logs) fn to(place: Place, sequence: u64, offset: u64) -> io::Result<Reader> {
        let mut reader = Reader::behind(place, sequence.saturating_sub(1));
        if reader.advance()?
            && let Some(open) = &mut reader.open
            && open.sequence == sequence
        {
            open.source.seek(offset);
        }
        // Nobody was promised what is older.
        reader.note = None;
        Ok(reader)
    }

    /// The next bytes. 0: everything that is written so far is read; ask again later.
    pub fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            if let Some(open) = &mut self.open {
                let room = match self.end {
                    Some(end) if open.spot() >= end => return Ok(0),
                    Some((sequence, offset)) if open.sequence == sequence => offset - open.source.position,
                    _ => u64::MAX,
                };
                let most = usize::try_from(room).unwrap_or(usize::MAX).min(buf.len());
                match open.source.read(&mut buf[..most]) {
                    Ok(0) if !buf.is_empty() => {}
                    Ok(n) => return Ok(n),
                    Err(e) if open.source.file().is_none() => {
                        self.note = Some(format!(
                            "keepd: a compressed file (number {}) cannot be read to its end: {e}; \
                             the next file follows",
                            open.sequence
                        ));
                    }
                    Err(e) => return Err(e),
                }
            }
            if !self.advance()? {
                return Ok(0);
            }
        }
    }

    /// Something that belongs before the bytes that [`Reader::read`] gave last: what could not be read.
    pub fn take_note(&mut self) -> Option<String> {
        self.note.take()
    }

    /// The file and the offset behind what was read last; `None` before the first byte.
    pub(super) fn position(&self) -> Option<Spot> {
        self.open.as_ref().map(Open::spot)
    }

    /// When the file that is being read was begun, as far as its name tells, else when it was last written.
    pub(super) fn began_ms(&self) -> Option<u64> {
        let open = self.open.as_ref()?;
        if let Some(file) = open.source.file().filter(|_| !open.rotated) {
            let facts = file.metadata().ok()?;
            let since = facts.created().or_else(|_| facts.modified()).ok()?;
            let since = since.duration_since(std::time::UNIX_EPOCH).ok()?;
            return u64::try_from(since.as_millis()).ok();
        }
        let folder = self.place.open().ok()??;
        let found = list(&folder, open.sequence.saturating_sub(1)).ok()?;
        found.first().filter(|f| f.sequence == open.sequence)?.began_ms()
    }

    /// At the end of a file: finds out whether there is more to read, and where.
    fn advance(&mut self) -> io::Result<bool> {
        if self.alone {
            return Ok(false);
        }
        let Some(folder) = self.place.open()? else { return Ok(false) };
        if let Some(open) = self.open.as_mut().filter(|open| !open.rotated) {
            if folder.facts("current").is_ok_and(|f| f.id == open.source.id) {
                return Ok(false);
            }
            // It was rotated. Bytes may have come before that and after our last read: read on to its end.
            open.rotated = true;
            let named = list(&folder, 0)?;
            match named.iter().find(|f| f.is(&folder, open.source.id)) {
                Some(mine) => open.sequence = mine.sequence,
                // Where all numbers are lower than those that were read, the folder was emptied and they began anew.
                None if named.last().is_some_and(|f| f.sequence < self.after) => open.sequence = 0,
                // Another file has the number that was to be ours: they began anew with as many.
                None if named.iter().any(|f| f.sequence == open.sequence && f.is_plain(&folder)) => {
                    open.sequence -= 1;
                }
                // Compressed or pruned.
                None => {}
            }
            return Ok(true);
        }
        if let Some(open) = self.open.take() {
            self.after = open.sequence;
        }
        self.open = next(&folder, self.after)?;
        let Some(open) = &self.open else { return Ok(false) };
        if self.after > 0 && open.sequence > self.after + 1 {
            let (first, last) = (self.after + 1, open.sequence - 1);
            let files = if first == last {
                format!("file {first} was")
            } else {
                format!("files {first} to {last} were")
            };
            let note = format!("keepd: rotated {files} removed before they could be read");
            self.note = Some(mem::take(&mut self.note).map_or(note.clone(), |n| format!("{n}\n{note}")));
        }
        Ok(true)
    }
}

/// The oldest file after this number.
fn next(folder: &Folder, after: u64) -> io::Result<Option<Open>> {
    let mut seen = None;
    loop {
        let found = oldest(folder, after)?;
        let number = found.as_ref().map(|open| open.sequence);
        // A name that is given while the folder is read may not be seen: a gap is believed when it is seen twice.
        if number == Some(after + 1) || after == 0 || seen == Some(number) {
            return Ok(found);
        }
        seen = Some(number);
    }
}

fn oldest(folder: &Folder, after: u64) -> io::Result<Option<Open>> {
    // In this order: what `current` was before we opened it is among the rotated files afterwards.
    let current = current(folder, after)?;
    for rotated in list(folder, after)? {
        if let Some(source) = rotated.open(folder)? {
            return Ok(Some(Open { source, sequence: rotated.sequence, rotated: true }));
        }
    }
    Ok(current)
}

/// Where the log ends now; `None`: there is none.
pub(super) fn now(place: &Place) -> io::Result<Option<Spot>> {
    let Some(folder) = place.open()? else { return Ok(None) };
    let Some(open) = current(&folder, 0)? else {
        // Between the rename and the new file.
        return Ok(list(&folder, 0)?.last().map(|f| (f.sequence + 1, 0)));
    };
    let size = open.source.file().map(File::metadata).transpose()?.map_or(0, |facts| facts.len());
    Ok(Some((open.sequence, size)))
}

/// The file that is being written, with the number that it will have.
pub(super) fn current(folder: &Folder, after: u64) -> io::Result<Option<Open>> {
    let Some(source) = files::current(folder)? else { return Ok(None) };
    let named = list(folder, 0)?;
    let sequence = match named.iter().rev().take(2).find(|f| f.is(folder, source.id)) {
        // Rotated this moment.
        Some(mine) => mine.sequence,
        // More than the files that are left may be known to the marks, where every rotated file is removed at once.
        None => named.last().map_or(0, |f| f.sequence).max(after).saturating_add(1).max(newest(folder)),
    };
    Ok(Some(Open { source, sequence, rotated: false }))
}

#[cfg(test)]
mod tests {
    use super::{super::super::rotate::name, *};
    use flate2::{Compression, write::GzEncoder};
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

    fn gzip(path: &Path, content: &[u8]) {
        let mut packed = GzEncoder::new(fs::File::create(path).unwrap(), Compression::fast());
        packed.write_all(content).unwrap();
        packed.finish().unwrap();
    }

    proptest! {
        #[test]
        fn the_last_lines_span_files(
            files in prop::collection::vec(("[a\n]{0,30}", any::<bool>()), 0..6),
            lines in 0..40usize,
            with_current: bool,
        ) {
            let dir = tempfile::tempdir().unwrap();
            for (n, (content, packed)) in files.iter().enumerate() {
                let live = with_current && n + 1 == files.len();
                let name = if live { "current".into() } else { name("", 0, n as u64 + 1) };
                if *packed && !live {
                    gzip(&dir.path().join(name + ".gz"), content.as_bytes());
                } else {
                    fs::write(dir.path().join(name), content).unwrap();
                }
            }
            let all: String = files.iter().map(|(content, _)| content.as_str()).collect();
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

    #[test]
    fn whoever_does_not_follow_comes_to_an_end() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("current"), "one\ntwo\n").unwrap();
        let mut reader = Reader::until_now(Place::stdout(dir.path()), From::LastLines(1)).unwrap();
        let grow = |text: &str| {
            let mut file = fs::File::options().append(true).open(dir.path().join("current")).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        };
        grow("three\n");
        fs::rename(dir.path().join("current"), dir.path().join(name("", 0, 1))).unwrap();
        fs::write(dir.path().join("current"), "four\n").unwrap();
        assert_eq!(everything(&mut reader), b"two\n");
    }

    #[test]
    fn a_file_that_is_compressed_while_it_is_read_is_read_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = |n: &str| dir.path().join(n);
        let file = |n| path(&name("", 0, n));
        let packed = |n| path(&(name("", 0, n) + ".gz"));
        fs::write(path("current"), "one\n").unwrap();
        let mut reader = Reader::open(dir.path(), From::Start).unwrap();
        assert_eq!(everything(&mut reader), b"one\n");
        // Rotated and compressed before the reader looks again, and the plain one is still beside the second.
        gzip(&packed(1), b"one\n");
        fs::remove_file(path("current")).unwrap();
        gzip(&packed(2), b"two\n");
        fs::write(file(2), "two\n").unwrap();
        fs::write(path("2026-11-21T00-00-00.000003.log.gz~"), "half").unwrap();
        fs::write(path("current"), "three\n").unwrap();
        assert_eq!(everything(&mut reader), b"two\nthree\n");
        assert_eq!(reader.take_note(), None);
    }

    #[test]
    fn what_was_pruned_before_it_was_read_is_said() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("current"), "one\n").unwrap();
        let mut reader = Reader::open(dir.path(), From::Start).unwrap();
        assert_eq!(everything(&mut reader), b"one\n");
        fs::remove_file(dir.path().join("current")).unwrap();
        fs::write(dir.path().join(name("", 0, 4)), "four\n").unwrap();
        assert_eq!(everything(&mut reader), b"four\n");
        let note = reader.take_note().unwrap();
        assert_eq!(note, "keepd: rotated files 2 to 3 were removed before they could be read");
    }

    #[test]
    fn a_damaged_file_is_said_and_the_next_one_read() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(name("", 0, 1) + ".gz"), b"\x1f\x8b\x08 no gzip at all").unwrap();
        fs::write(dir.path().join(name("", 0, 2)), "two\n").unwrap();
        for from in [From::Start, From::LastLines(5)] {
            let mut reader = Reader::open(dir.path(), from).unwrap();
            assert_eq!(everything(&mut reader), b"two\n");
        }
        let mut reader = Reader::open(dir.path(), From::Start).unwrap();
        everything(&mut reader);
        assert!(reader.take_note().unwrap().contains("(number 1) cannot be read to its end"));
    }

    #[test]
    fn only_regular_files_of_the_folder_itself_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let (log, secret) = (dir.path().join("web"), dir.path().join("secret"));
        fs::create_dir(&log).unwrap();
        fs::write(&secret, "secret\n").unwrap();
        std::os::unix::fs::symlink(&secret, log.join(name("", 0, 1))).unwrap();
        std::os::unix::fs::symlink(&secret, log.join(name("", 0, 2) + ".gz")).unwrap();
        fs::create_dir(log.join(name("", 0, 3))).unwrap();
        nix::unistd::mkfifo(&log.join(name("", 0, 4)), nix::sys::stat::Mode::S_IRWXU).unwrap();
        fs::write(log.join(name("", 0, 5)), "fine\n").unwrap();
        let mut reader = Reader::open(&log, From::Start).unwrap();
        assert_eq!(everything(&mut reader), b"fine\n");
        std::os::unix::fs::symlink(&secret, log.join("current")).unwrap();
        assert!(Reader::open(&log, From::LastLines(9)).is_err());
        std::os::unix::fs::symlink(&log, dir.path().join("link")).unwrap();
        assert!(Reader::open(&dir.path().join("link"), From::LastLines(9)).is_err());
        std::os::unix::fs::symlink(dir.path(), log.join("stderr")).unwrap();
        assert!(Reader::begin(Place::stderr(&log), From::LastLines(9)).is_err());
    }
}
