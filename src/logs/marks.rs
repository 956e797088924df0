//! When which bytes were written: raw files carry no times, so beside them lies `.times`, a sidecar of small marks.
//! A mark says "what follows this place of this file was written from this time on". There is at most one a second
//! and none while nothing is written. A log that has none yet gets its first two together: until then all of it was
//! written within a second of its file's last change, and most services that say a line and then nothing for weeks
//! need no sidecar.
//!
//! Marks are a convenience: what goes wrong with them is never seen by whoever writes the log. Each is one write of
//! fixed size at a multiple of that size and carries a check, so a kill at any byte leaves at most one that does not
//! count, and the next takes its place. Places only rise from mark to mark.

use super::{read::files, store::Store};
use crate::sys::{clock, folder::Folder};
use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt, MetadataExt},
};

/// The sidecar's name.
pub(super) const NAME: &str = ".times";
const FRESH: &str = ".times.new";
/// Bytes of one mark.
pub(super) const SIZE: usize = 32;
/// Between marks, in microseconds.
const EVERY: u64 = 1_000_000;
/// From so many on it is looked whether the files that they speak of are still there.
const PRUNE: usize = 1024;
/// So many at most, 1 MiB; then every second one of the older half goes.
const MOST: usize = 32 * 1024;

/// A place in a file of the log, and when it was reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    /// The sequence number that the file has or will have.
    pub(super) sequence: u64,
    /// Bytes from its beginning, uncompressed.
    pub(super) offset: u64,
    /// Milliseconds since 1970.
    pub(super) wall_ms: u64,
}

impl Mark {
    /// Where it is in the order of all bytes.
    pub(super) fn place(self) -> (u64, u64) {
        (self.sequence, self.offset)
    }

    fn check(self) -> u64 {
        let mix = |h: u64, n: u64| (h ^ n).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
        [self.sequence, self.offset, self.wall_ms].into_iter().fold(0x006b_6565_7064, mix)
    }

    /// `None`: it was never written to its end.
    fn decode(raw: &[u8]) -> Option<Mark> {
        let mut numbers = raw.chunks_exact(8).filter_map(|c| Some(u64::from_le_bytes(c.try_into().ok()?)));
        let mut next = || numbers.next();
        let mark = Mark { sequence: next()?, offset: next()?, wall_ms: next()? };
        (next()? == mark.check()).then_some(mark)
    }
}

/// The bytes of a mark.
pub(super) fn encode(mark: Mark) -> [u8; SIZE] {
    let mut out = [0; SIZE];
    let numbers = [mark.sequence, mark.offset, mark.wall_ms, mark.check()];
    for (to, n) in out.chunks_exact_mut(8).zip(numbers) {
        to.copy_from_slice(&n.to_le_bytes());
    }
    out
}

/// The marks in these bytes; a torn one at the end, or damaged ones, are left out.
pub(super) fn decode(raw: &[u8]) -> impl Iterator<Item = Mark> + '_ {
    raw.chunks_exact(SIZE).filter_map(Mark::decode)
}

/// The writing side, for one folder.
#[derive(Debug, Default)]
pub(super) struct Marks {
    open: Option<Open>,
    /// Of a log that has no sidecar yet.
    first: Option<Mark>,
    due: u64,
}

#[derive(Debug)]
struct Open {
    file: File,
    /// Marks in it.
    count: usize,
    last: Option<Mark>,
    /// See [`PRUNE`].
    prune_at: usize,
}

impl Marks {
    /// Bytes are about to be written to the end of the current file. Said before they are, so that no reader finds
    /// them with the time of what came before.
    pub(super) fn writing(&mut self, store: &mut Store) {
        let now = clock::monotonic_us();
        if now < self.due {
            return;
        }
        self.due = now + EVERY;
        if self.mark(store).is_err() {
            self.open = None;
        }
    }

    /// Lets go of the file; the next mark opens it by name.
    pub(super) fn close(&mut self) {
        (self.open, self.first) = (None, None);
    }

    fn mark(&mut self, store: &mut Store) -> io::Result<()> {
        let offset = store.ready()?.size;
        let mark = Mark { sequence: store.sequence()?, offset, wall_ms: clock::wall_ms() };
        self.take(|| store.folder(), mark)
    }

    /// Adds it, but keeps the very first until there is a second.
    fn take(&mut self, folder: impl Fn() -> io::Result<Folder>, mark: Mark) -> io::Result<()> {
        if let Some(first) = self.first.take() {
            self.add(&folder, first)?;
        } else if self.open.is_none() && is_missing(&folder()?) {
            self.first = Some(mark);
            return Ok(());
        }
        self.add(folder, mark)
    }

    fn add(&mut self, folder: impl Fn() -> io::Result<Folder>, mark: Mark) -> io::Result<()> {
        if let Some(open) = &self.open {
            match open.last.map(Mark::place) {
                Some(last) if last == mark.place() => return Ok(()),
                Some(last) if last > mark.place() => self.open = None,
                // Somebody deleted it.
                _ if open.file.metadata()?.nlink() == 0 => self.open = None,
                _ => {}
            }
        }
        let mut open = match self.open.take() {
            Some(open) => open,
            None => Open::new(&folder()?, mark)?,
        };
        if open.count >= open.prune_at {
            open.prune(&folder()?)?;
        }
        open.push(mark)?;
        self.open = Some(open);
        Ok(())
    }
}

impl Open {
    /// Opens or makes the sidecar. What is in it from the place of `mark` on speaks of files that are gone (numbers
    /// began anew, a file was emptied), and is cut off.
    fn new(folder: &Folder, mark: Mark) -> io::Result<Open> {
        let file = match folder.create_file(NAME) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => folder.open_file(NAME)?,
            other => other?,
        };
        let raw = read_all(&file)?;
        let slots = raw.chunks_exact(SIZE).map(Mark::decode);
        let good: Vec<Mark> = slots.map_while(|m| m.filter(|m| m.place() < mark.place())).collect();
        file.set_len((good.len() * SIZE) as u64)?;
        let prune_at = (good.len() * 2).clamp(PRUNE, MOST);
        Ok(Open { file, count: good.len(), last: good.last().copied(), prune_at })
    }

    fn push(&mut self, mark: Mark) -> io::Result<()> {
        self.file.write_all_at(&encode(mark), (self.count * SIZE) as u64)?;
        self.count += 1;
        self.last = Some(mark);
        Ok(())
    }

    /// Writes anew what is still worth it; the old file stays in place until then.
    fn prune(&mut self, folder: &Folder) -> io::Result<()> {
        let oldest = files::list(folder, 0)?.first().map_or(u64::MAX, |f| f.sequence);
        let newest = self.last.map_or(0, |m| m.sequence);
        let marks: Vec<Mark> = decode(&read_all(&self.file)?).collect();
        let left = thin(marks, oldest.min(newest), MOST);
        match folder.remove(FRESH) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
            _ => {}
        }
        let file = folder.create_file(FRESH)?;
        let raw: Vec<u8> = left.iter().flat_map(|m| encode(*m)).collect();
        file.write_all_at(&raw, 0)?;
        folder.replace(FRESH, NAME)?;
        let prune_at = (left.len() * 2).clamp(PRUNE, MOST);
        *self = Open { file, count: left.len(), last: left.last().copied(), prune_at };
        Ok(())
    }
}

fn is_missing(folder: &Folder) -> bool {
    folder.facts(NAME).is_err_and(|e| e.kind() == io::ErrorKind::NotFound)
}

/// Those of files from `oldest` on; where they are still more than three quarters of `most`, every second one of
/// the older half goes, so that old times get coarser before they are lost.
fn thin(mut marks: Vec<Mark>, oldest: u64, most: usize) -> Vec<Mark> {
    marks.retain(|m| m.sequence >= oldest);
    if marks.len() > most / 4 * 3 {
        let half = marks.len() / 2;
        let mut index = 0;
        marks.retain(|_| {
            index += 1;
            index > half || index % 2 == 1
        });
    }
    marks
}

fn read_all(file: &File) -> io::Result<Vec<u8>> {
    let len = usize::try_from(file.metadata()?.len()).unwrap_or(0).min(2 * MOST * SIZE);
    let mut raw = vec![0; len];
    file.read_exact_at(&mut raw, 0)?;
    Ok(raw)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::{fs, path::Path};

    fn mark(sequence: u64, offset: u64) -> Mark {
        Mark { sequence, offset, wall_ms: 1_000 * sequence + offset }
    }

    fn kept(dir: &Path) -> Vec<Mark> {
        decode(&fs::read(dir.join(NAME)).unwrap()).collect()
    }

    proptest! {
        #[test]
        fn a_mark_is_read_back_and_a_damaged_one_is_not(a: u64, b: u64, c: u64, at in 0..SIZE, bit in 0..8) {
            let mark = Mark { sequence: a, offset: b, wall_ms: c };
            let mut raw = encode(mark);
            prop_assert_eq!(Mark::decode(&raw), Some(mark));
            raw[at] ^= 1u8 << bit;
            prop_assert_eq!(Mark::decode(&raw), None);
        }
    }

    #[test]
    fn a_kill_at_any_byte_costs_one_mark_at_most() {
        for cut in 0..=2 * SIZE {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path();
            let mut marks = Marks::default();
            marks.add(|| Folder::open(path), mark(1, 0)).unwrap();
            marks.add(|| Folder::open(path), mark(1, 10)).unwrap();
            fs::File::options().write(true).open(path.join(NAME)).unwrap().set_len(cut as u64).unwrap();
            let mut next = Marks::default();
            next.add(|| Folder::open(path), mark(1, 20)).unwrap();
            let mut wanted = vec![mark(1, 0), mark(1, 10)];
            wanted.truncate(cut / SIZE);
            wanted.push(mark(1, 20));
            assert_eq!(kept(path), wanted, "cut at {cut}");
        }
    }

    #[test]
    fn places_only_rise() {
        let dir = tempfile::tempdir().unwrap();
        let mut marks = Marks::default();
        for (sequence, offset) in [(1, 0), (1, 5), (1, 5), (2, 0), (2, 900), (2, 40), (1, 3)] {
            marks.add(|| Folder::open(dir.path()), mark(sequence, offset)).unwrap();
        }
        assert_eq!(kept(dir.path()), [mark(1, 0), mark(1, 3)]);
    }

    #[test]
    fn marks_go_with_their_files() {
        let dir = tempfile::tempdir().unwrap();
        let file = super::super::rotate::name("", 0, 7);
        fs::write(dir.path().join(file + ".gz"), "").unwrap();
        let mut marks = Marks::default();
        for n in 0..PRUNE as u64 {
            marks.add(|| Folder::open(dir.path()), mark(n / 128, n)).unwrap();
        }
        assert_eq!(kept(dir.path()).len(), PRUNE);
        marks.add(|| Folder::open(dir.path()), mark(8, 0)).unwrap();
        let left = kept(dir.path());
        assert!(left.iter().all(|m| m.sequence >= 7) && left.len() == 129, "{}", left.len());
        marks.add(|| Folder::open(dir.path()), mark(8, 1)).unwrap();
        assert_eq!(kept(dir.path()).len(), 130);
    }

    #[test]
    fn old_times_get_coarser_and_the_sidecar_stays_small() {
        let mut marks = Vec::new();
        for n in 0..10_000 {
            marks.push(mark(1, n));
            if marks.len() >= 400 {
                marks = thin(marks, 1, 400);
            }
        }
        assert!(marks.len() <= 400 && marks.len() > 200);
        assert_eq!(marks.last(), Some(&mark(1, 9_999)));
        assert!(marks.windows(2).all(|w| w[0].place() < w[1].place()));
    }

    #[test]
    fn the_first_mark_waits_for_the_second() {
        let dir = tempfile::tempdir().unwrap();
        let folder = || Folder::open(dir.path());
        let mut marks = Marks::default();
        marks.take(folder, mark(1, 0)).unwrap();
        assert!(!dir.path().join(NAME).exists());
        marks.take(folder, mark(1, 5)).unwrap();
        assert_eq!(kept(dir.path()), [mark(1, 0), mark(1, 5)]);
        // Where there are some, none waits: what is written would seem as old as they are.
        marks.close();
        marks.take(folder, mark(1, 9)).unwrap();
        assert_eq!(kept(dir.path()), [mark(1, 0), mark(1, 5), mark(1, 9)]);
    }

    #[test]
    fn a_sidecar_that_is_no_file_harms_nothing() {
        let dir = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink("/dev/null", dir.path().join(NAME)).unwrap();
        assert!(Marks::default().add(|| Folder::open(dir.path()), mark(1, 0)).is_err());
    }
}
