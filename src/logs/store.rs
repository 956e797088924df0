//! One growing file with its rotated predecessors beside it: opening, rotating, and noticing what others did to
//! it and to the clock. What is written, and from where, is the caller's business; what becomes of rotated
//! files that of `upkeep`.
//!
//! Every step can be the last before a SIGKILL: what the next process finds in the folder is enough to go on.
//! A file that is too large or too old is rotated, and a missing one is made.

use super::{
    Housekeeper,
    housekeeper::{Line, Written},
    place::Place,
    rotate::{Limits, name},
    schedule,
};
use crate::sys::{
    clock,
    folder::{Folder, lock, unlock},
};
use jiff::tz::TimeZone;
use std::{
    collections::BTreeSet,
    fs::{File, Metadata},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::PathBuf,
    sync::{Arc, atomic::AtomicBool},
    time::UNIX_EPOCH,
};

/// How often it is checked that the opened file still bears its name, in microseconds.
const CHECK_EVERY: u64 = 1_000_000;

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Store {
    place: Place,
    limits: Limits,
    housekeeper: Housekeeper,
    open: Option<Open>,
    /// The number of the next rotated file, once it is known.
    next: Option<u64>,
    /// See [`Housekeeper::reopened`].
    reopened: u64,
}

/// The current file.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) file: Arc<File>,
    /// Where the next byte goes.
    pub(super) size: u64,
    /// It is to hold at most this much, up to the next line end: `max-size`, or less where it is due.
    pub(super) limit: u64,
    /// It is full and ends with a line.
    pub(super) full: bool,
    /// So many bytes past the limit without a line end.
    pub(super) overlong: u64,
    id: (u64, u64),
    /// When it was begun, by the wall clock.
    began_ms: u64,
    checked: u64,
    /// When it is rotated whatever its size, and what the wall clock showed last.
    due_ms: Option<u64>,
    seen_ms: u64,
    written: Arc<Written>,
    line: Option<Arc<Line>>,
}

impl Store {
    /// Nothing is touched before the first [`Store::ready`].
    pub(super) fn new(place: Place, limits: Limits, housekeeper: &Housekeeper) -> Store {
        let reopened = housekeeper.reopened();
        Store { place, limits, housekeeper: housekeeper.clone(), open: None, next: None, reopened }
    }

    /// The file that is written.
    pub(super) fn path(&self) -> PathBuf {
        self.place.path().join(&self.place.live)
    }

    /// Where the files are.
    pub(super) fn folder(&self) -> io::Result<Folder> {
        self.place.open()
    }

    /// The number that the current file will have once it is rotated.
    pub(super) fn sequence(&mut self) -> io::Result<u64> {
        let next = match self.next {
            Some(next) => next,
            // Whatever is being compressed has its number all the same.
            None => self.place.history(&self.place.open()?, &BTreeSet::new())?.next(),
        };
        Ok(*self.next.insert(next))
    }

    /// The current file, if it is open.
    pub(super) fn opened(&self) -> Option<&Open> {
        self.open.as_ref()
    }

    /// Other limits, from the next write on, and another place.
    pub(super) fn update(&mut self, place: Place, limits: Limits) {
        if self.place != place {
            *self = Store::new(place, limits, &self.housekeeper);
        }
        let timed = self.limits.rotate != limits.rotate;
        let tell = self.limits != limits;
        self.limits = limits;
        if let Some(open) = &mut self.open {
            if timed {
                open.due_ms = open.plan(limits);
            }
            open.limit = limits.max_size;
            open.full = open.size >= open.limit && open.ends_line();
            if let Some(line) = open.line.as_ref().filter(|_| tell) {
                line.rotated(self.place.clone(), limits);
            }
        }
    }

    /// Lets go of the file and of what was known about the folder; the next write opens it by name.
    pub(super) fn close(&mut self) {
        self.open = None;
        self.next = None;
    }

    /// The current file, opened or made, at its end, and still the one that bears the name.
    pub(super) fn ready(&mut self) -> io::Result<&mut Open> {
        self.look();
        let open = match self.open.take() {
            Some(open) => open,
            None => Open::new(&self.place, self.limits, &self.housekeeper)?,
        };
        let open = self.open.insert(open);
        open.clock(self.limits, clock::wall_ms());
        Ok(open)
    }

    /// Rotates the file if its time has come while nothing is written, and it holds whole lines.
    pub(super) fn tick(&mut self) -> io::Result<Option<PathBuf>> {
        self.look();
        let Some(open) = &mut self.open else { return Ok(None) };
        open.clock(self.limits, clock::wall_ms());
        if open.full && open.size > 0 { self.rotate() } else { Ok(None) }
    }

    /// When [`Store::tick`] is wanted, in milliseconds since 1970.
    pub(super) fn due_ms(&self) -> Option<u64> {
        self.open.as_ref().filter(|open| open.size > 0).and_then(|open| open.due_ms)
    }

    fn look(&mut self) {
        let reopened = self.housekeeper.reopened();
        if std::mem::replace(&mut self.reopened, reopened) != reopened
            || self.open.as_mut().is_some_and(|open| !open.still_there(&self.place))
        {
            self.close();
        }
    }

    /// Gives the current file its final name and returns that; the next [`Store::ready`] makes a new one.
    /// `None`: the current file was gone, so there was nothing to rotate.
    pub(super) fn rotate(&mut self) -> io::Result<Option<PathBuf>> {
        let Some(open) = &self.open else { return Ok(None) };
        let there = match self.place.open() {
            Ok(folder) => folder.facts(&self.place.live).map(|f| (folder, f.id)),
            Err(e) => Err(e),
        };
        let folder = match there {
            Ok((folder, id)) if id == open.id => folder,
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {
                self.close();
                return Ok(None);
            }
        };
        let look = || self.place.history(&folder, &BTreeSet::new()).map(|history| history.next());
        let mut next = self.next.map_or_else(look, Ok)?;
        let mut rotated = name(&self.place.prefix, open.began_ms, next);
        if let Err(e) = folder.rename(&self.place.live, &rotated) {
            if e.kind() != io::ErrorKind::AlreadyExists {
                return Err(e);
            }
            // Somebody put a file there; look again which number is free.
            next = look()?;
            rotated = name(&self.place.prefix, open.began_ms, next);
            folder.rename(&self.place.live, &rotated)?;
        }
        if let Some(line) = &open.line {
            line.rotated(self.place.clone(), self.limits);
        }
        self.next = Some(next + 1);
        self.open = None;
        Ok(Some(self.place.path().join(rotated)))
    }
}

impl Open {
    fn new(place: &Place, limits: Limits, housekeeper: &Housekeeper) -> io::Result<Open> {
        let folder = place.create()?;
        let now = clock::wall_ms();
        let (file, made) = match folder.create_file(&place.live) {
            Ok(file) => (file, true),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => (folder.open_file(&place.live)?, false),
            Err(e) => return Err(e),
        };
        // We write at an offset of our own, so two writers would overwrite each other.
        lock(&file)?;
        let facts = file.metadata()?;
        let began_ms = if made { now } else { began(&facts) };
        let (file, named) = (Arc::new(file), AtomicBool::new(!made));
        let written = Arc::new(Written {
            file: file.clone(),
            place: place.clone(),
            told: AtomicBool::new(false),
            named,
        });
        let line = housekeeper.line(facts.dev());
        if let Err(e) = &line {
            tracing::warn!("cannot start a thread: {e}; rotated logs are not pruned and compressed");
        }
        let mut open = Open {
            file,
            size: facts.len(),
            limit: limits.max_size,
            full: false,
            overlong: 0,
            id: (facts.dev(), facts.ino()),
            began_ms,
            checked: clock::monotonic_us(),
            due_ms: None,
            seen_ms: began_ms,
            written,
            line: line.ok(),
        };
        open.due_ms = open.plan(limits);
        open.full = open.size >= open.limit && open.ends_line();
        Ok(open)
    }

    /// Whether the file is empty or ends with a line end.
    pub(super) fn ends_line(&self) -> bool {
        let mut last = [0];
        self.size == 0 || self.file.read_exact_at(&mut last, self.size - 1).is_ok() && last == *b"\n"
    }

    /// So many bytes were written at the end.
    pub(super) fn wrote(&mut self, bytes: u64) {
        self.size += bytes;
        if let Some(line) = &self.line {
            line.written(&self.written);
        }
    }

    /// Writes all of `text` at the end, or nothing.
    pub(super) fn append(&mut self, text: &[u8]) -> io::Result<()> {
        if let Err(e) = self.file.write_all_at(text, self.size) {
            // What was written of it would stand there as a torn line.
            let _ = self.file.set_len(self.size);
            return Err(e);
        }
        self.wrote(text.len() as u64);
        Ok(())
    }

    fn plan(&self, limits: Limits) -> Option<u64> {
        let zone = TimeZone::system();
        schedule::due(limits.rotate, self.seen_ms, clock::wall_ms(), &zone)
    }

    /// Takes note of the time: where the file is due, it takes no more than the rest of its last line.
    fn clock(&mut self, limits: Limits, now_ms: u64) {
        if self.due_ms.is_some() && now_ms < self.seen_ms {
            self.due_ms = self.plan(limits);
        }
        self.seen_ms = now_ms;
        if self.due_ms.is_none_or(|at| now_ms < at) {
            return;
        }
        if self.size == 0 {
            // There is nothing to rotate.
            self.due_ms = self.plan(limits);
        } else {
            self.due_ms = None;
            self.limit = self.limit.min(self.size);
            self.full = self.ends_line();
        }
    }

    /// Takes note of a truncation; false if the file was deleted, or renamed or replaced in the last second.
    fn still_there(&mut self, place: &Place) -> bool {
        let Ok(facts) = self.file.metadata() else { return false };
        if facts.len() != self.size {
            self.size = facts.len();
            self.full = false;
        }
        let now = clock::monotonic_us();
        if facts.nlink() > 0 && now >= self.checked + CHECK_EVERY {
            self.checked = now;
            let there = place.open().and_then(|folder| folder.facts(&place.live));
            return there.is_ok_and(|there| there.id == self.id);
        }
        facts.nlink() > 0
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // Whoever brings it to the disk may hold it for another second, in which it may be opened again.
        let _ = unlock(&self.file);
    }
}

/// When a file was begun that an earlier process made: its birth, where the file system knows it, or else the
/// last write.
fn began(facts: &Metadata) -> u64 {
    let birth = facts.created().ok().and_then(|birth| birth.duration_since(UNIX_EPOCH).ok());
    birth.map_or_else(
        || u64::try_from(facts.mtime()).unwrap_or(0) * 1000,
        |since| u64::try_from(since.as_millis()).unwrap_or(0),
    )
}
