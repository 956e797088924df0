//! One growing file with its rotated predecessors beside it: opening, rotating, pruning, and noticing what
//! others did to it. What is written, and from where, is the caller's business.
//!
//! Every step can be the last before a SIGKILL: what the next process finds in the folder is enough to go on.
//! A file that is too large is rotated, a missing one is made, and too many are pruned by the next rotation.

use super::rotate::{Ledger, Limits};
use crate::sys::{
    clock,
    folder::{Folder, lock},
};
use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    time::UNIX_EPOCH,
};

/// How often it is checked that the opened file still bears its name, in microseconds.
const CHECK_EVERY: u64 = 1_000_000;

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Store {
    dir: PathBuf,
    live: String,
    prefix: String,
    limits: Limits,
    open: Option<Open>,
    ledger: Option<Ledger>,
}

/// The current file.
#[derive(Debug)]
pub(super) struct Open {
    pub(super) file: File,
    /// Where the next byte goes.
    pub(super) size: u64,
    /// It is full and ends with a line.
    pub(super) full: bool,
    /// So many bytes past the limit without a line end.
    pub(super) overlong: u64,
    id: (u64, u64),
    began_ms: Option<u64>,
    checked: u64,
}

impl Store {
    /// Nothing is touched before the first [`Store::ready`]. The current file is `dir/live`, rotated ones
    /// are named `dir/PREFIX...`.
    pub(super) fn new(dir: &Path, live: &str, prefix: &str, limits: Limits) -> Store {
        Store { dir: dir.into(), live: live.into(), prefix: prefix.into(), limits, open: None, ledger: None }
    }

    /// The file that is written.
    pub(super) fn path(&self) -> PathBuf {
        self.dir.join(&self.live)
    }

    pub(super) fn limits(&self) -> Limits {
        self.limits
    }

    /// Where the files are.
    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    /// The number that the current file will have once it is rotated.
    pub(super) fn sequence(&mut self) -> io::Result<u64> {
        let ledger = match self.ledger.take() {
            Some(ledger) => ledger,
            None => list(&Folder::open(&self.dir)?, &self.prefix)?,
        };
        Ok(self.ledger.insert(ledger).current())
    }

    /// Other limits, from the next write on, and another folder.
    pub(super) fn update(&mut self, dir: &Path, limits: Limits) {
        self.limits = limits;
        if self.dir != dir {
            *self = Store::new(dir, &self.live, &self.prefix, limits);
        }
    }

    /// Lets go of the file and of what was known about the folder; the next write opens it by name.
    pub(super) fn close(&mut self) {
        self.open = None;
        self.ledger = None;
    }

    /// The current file, opened or made, at its end, and still the one that bears the name.
    pub(super) fn ready(&mut self) -> io::Result<&mut Open> {
        if self.open.as_mut().is_some_and(|open| !open.still_there(&self.dir, &self.live)) {
            self.close();
        }
        let open = match self.open.take() {
            Some(open) => open,
            None => Open::new(&self.dir, &self.live, self.limits.max_size)?,
        };
        Ok(self.open.insert(open))
    }

    /// Gives the current file its final name and returns that; the next [`Store::ready`] makes a new one.
    /// `None`: the current file was gone, so there was nothing to rotate.
    pub(super) fn rotate(&mut self) -> io::Result<Option<PathBuf>> {
        let Some(open) = &self.open else { return Ok(None) };
        let there = match Folder::open(&self.dir) {
            Ok(folder) => folder.facts(&self.live).map(|f| (folder, f.id)),
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
        let mut ledger = match self.ledger.take() {
            Some(ledger) => ledger,
            None => list(&folder, &self.prefix)?,
        };
        let began = match open.began_ms {
            Some(ms) => ms,
            None => began(&folder, &open.file, &ledger),
        };
        let mut name = ledger.next_name(began);
        if let Err(e) = folder.rename(&self.live, &name) {
            if e.kind() != io::ErrorKind::AlreadyExists {
                return Err(e);
            }
            // Somebody put a file there; look again which number is free.
            ledger = list(&folder, &self.prefix)?;
            name = ledger.next_name(began);
            folder.rename(&self.live, &name)?;
        }
        let rotated = self.dir.join(&name);
        ledger.rotated(name, open.size);
        self.open = None;
        prune(&folder, &mut ledger, self.limits);
        self.ledger = Some(ledger);
        Ok(Some(rotated))
    }
}

impl Open {
    fn new(dir: &Path, live: &str, max_size: u64) -> io::Result<Open> {
        let folder = Folder::create(dir)?;
        let (file, began_ms) = match folder.create_file(live) {
            Ok(file) => (file, Some(clock::wall_ms())),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => (folder.open_file(live)?, None),
            Err(e) => return Err(e),
        };
        // We write at an offset of our own, so two writers would overwrite each other.
        lock(&file)?;
        let facts = file.metadata()?;
        let (size, id) = (facts.len(), (facts.dev(), facts.ino()));
        let checked = clock::monotonic_us();
        let mut open = Open { file, size, full: false, overlong: 0, id, began_ms, checked };
        open.full = size >= max_size && open.ends_line();
        Ok(open)
    }

    /// Whether the file is empty or ends with a line end.
    pub(super) fn ends_line(&self) -> bool {
        let mut last = [0];
        self.size == 0 || self.file.read_exact_at(&mut last, self.size - 1).is_ok() && last == *b"\n"
    }

    /// Writes all of `text` at the end, or nothing.
    pub(super) fn append(&mut self, text: &[u8]) -> io::Result<()> {
        if let Err(e) = self.file.write_all_at(text, self.size) {
            // What was written of it would stand there as a torn line.
            let _ = self.file.set_len(self.size);
            return Err(e);
        }
        self.size += text.len() as u64;
        Ok(())
    }

    /// Takes note of a truncation; false if the file was deleted, or renamed or replaced in the last second.
    fn still_there(&mut self, dir: &Path, live: &str) -> bool {
        let Ok(facts) = self.file.metadata() else { return false };
        if facts.len() != self.size {
            self.size = facts.len();
            self.full = false;
        }
        let now = clock::monotonic_us();
        if facts.nlink() > 0 && now >= self.checked + CHECK_EVERY {
            self.checked = now;
            let there = Folder::open(dir).and_then(|folder| folder.facts(live));
            return there.is_ok_and(|there| there.id == self.id);
        }
        facts.nlink() > 0
    }
}

fn list(folder: &Folder, prefix: &str) -> io::Result<Ledger> {
    let names = folder.names()?;
    let sizes = names.into_iter().filter_map(|name| {
        let facts = folder.facts(&name).ok().filter(|f| f.regular)?;
        Some((name, facts.size))
    });
    Ok(Ledger::new(prefix, sizes))
}

/// When a file was begun that an earlier process made: its birth, where the file system knows it; else the
/// file before was finished then; else the last write.
fn began(folder: &Folder, file: &File, ledger: &Ledger) -> u64 {
    let facts = file.metadata().ok();
    let birth = facts.as_ref().and_then(|f| f.created().ok());
    if let Some(since) = birth.and_then(|b| b.duration_since(UNIX_EPOCH).ok()) {
        return u64::try_from(since.as_millis()).unwrap_or(0);
    }
    if let Some(before) = ledger.newest().and_then(|r| folder.facts(&r.name).ok()) {
        return before.modified_ms;
    }
    facts.map_or(0, |f| u64::try_from(f.mtime()).unwrap_or(0) * 1000)
}

/// A file that cannot be removed stays on the list, and is tried again by the next rotation.
fn prune(folder: &Folder, ledger: &mut Ledger, limits: Limits) {
    while let Some(name) = ledger.excess(limits) {
        match folder.remove(name) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return,
            _ => ledger.removed(),
        }
    }
}
