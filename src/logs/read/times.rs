//! When the bytes of a log were written, from the marks beside it, and where in it a time is. Marks are read in
//! order with a small window, so that their number costs no memory.

use super::{
    super::marks::{self, Mark},
    files::{Place, list},
};
use crate::sys::folder::Folder;
use std::{collections::VecDeque, fs::File, io, os::unix::fs::FileExt};

/// Marks that are read at once.
const WINDOW: usize = 256;

/// By so much the times that lines carry may differ from those of marks, in milliseconds.
const SLACK: u64 = 2_000;

/// A place in a log: the number of a file and an offset in it.
pub(in crate::logs) type Spot = (u64, u64);

/// Walks along the marks of one log, forwards.
#[derive(Debug)]
pub(in crate::logs) struct Times {
    place: Place,
    file: Option<File>,
    /// Of the next window, in marks.
    at: u64,
    window: VecDeque<Mark>,
    floor: Option<Mark>,
    /// There were no more when it was looked last.
    ended: bool,
}

impl Times {
    pub(in crate::logs) fn new(place: Place) -> Times {
        Times { place, file: None, at: 0, window: VecDeque::new(), floor: None, ended: false }
    }

    /// The log has grown: there may be more marks, or the sidecar is another.
    pub(super) fn refresh(&mut self) {
        if !self.ended && self.file.is_some() {
            return;
        }
        let opened = self.place.open().ok().flatten().and_then(|f| f.read_file(marks::NAME).ok());
        let same = match (&self.file, &opened) {
            (Some(old), Some(new)) => same_file(old, new),
            (None, None) => true,
            _ => false,
        };
        if !same {
            (self.file, self.at, self.floor) = (opened, 0, None);
            self.window.clear();
        }
        self.ended = false;
    }

    /// The last mark up to this place, and the next.
    pub(super) fn around(&mut self, spot: Spot) -> (Option<Mark>, Option<Mark>) {
        if self.floor.is_some_and(|m| m.place() > spot) {
            (self.at, self.floor, self.ended) = (0, None, false);
            self.window.clear();
        }
        loop {
            match self.peek() {
                Some(mark) if mark.place() <= spot => {
                    self.floor = Some(mark);
                    self.window.pop_front();
                }
                next => return (self.floor, next),
            }
        }
    }

    fn peek(&mut self) -> Option<Mark> {
        while self.window.is_empty() && !self.ended {
            let mut raw = [0; WINDOW * marks::SIZE];
            let read = self.file.as_ref().map(|f| f.read_at(&mut raw, self.at * marks::SIZE as u64));
            // A torn mark at the end is read again when it is whole.
            let n = read.and_then(Result::ok).unwrap_or(0) / marks::SIZE;
            self.ended = n == 0;
            self.at += n as u64;
            self.window.extend(marks::decode(&raw[..n * marks::SIZE]));
        }
        self.window.front().copied()
    }
}

fn same_file(a: &File, b: &File) -> bool {
    use std::os::unix::fs::MetadataExt;
    let id = |f: &File| f.metadata().map(|m| (m.dev(), m.ino())).ok();
    id(a) == id(b)
}

/// The highest number that a mark knows; 0: there are no marks.
pub(super) fn newest(folder: &Folder) -> u64 {
    let last = || -> io::Result<u64> {
        let file = folder.read_file(marks::NAME)?;
        let whole = file.metadata()?.len() / marks::SIZE as u64;
        let first = whole.saturating_sub(2);
        let mut raw = [0; 2 * marks::SIZE];
        let n = file.read_at(&mut raw, first * marks::SIZE as u64)?;
        Ok(marks::decode(&raw[..n]).last().map_or(0, |m| m.sequence))
    };
    last().unwrap_or(0)
}

/// Between which places everything is that was written from `since` until `until` (milliseconds since 1970), as far
/// as marks and names can tell: nothing of it is outside, but not everything inside need be of it. The clock may have
/// been set back at any time.
pub(super) fn bounds(
    place: &Place,
    since: Option<u64>,
    until: Option<u64>,
) -> io::Result<(Spot, Option<Spot>)> {
    let Some(folder) = place.open()? else { return Ok(((0, 0), None)) };
    let (mut begin, mut end, mut before) = (None, None, None::<Mark>);
    let mut first = None;
    let mut times = Times::new(place.clone());
    times.refresh();
    while let Some(mark) = times.peek() {
        times.window.pop_front();
        first = first.or(Some(mark));
        if begin.is_none() && since.is_some_and(|since| mark.wall_ms >= since) {
            // Lines that carry their own times may be a little older than the mark.
            begin = Some(before.map(Mark::place));
        }
        match until {
            // Here as well.
            Some(until) if mark.wall_ms <= until.saturating_add(SLACK) => end = None,
            Some(_) => end = end.or(Some(mark.place())),
            None => {}
        }
        before = Some(mark);
    }
    let begin = match (since, begin) {
        (None, _) => (0, 0),
        (Some(_), Some(Some(spot))) => spot,
        (Some(since), found) => {
            // No mark is older than that: what is before the first one is known by names alone.
            let end = first.filter(|_| found.is_some()).map_or(u64::MAX, |m| m.sequence);
            match (before, found) {
                (Some(last), None) => last.place(),
                _ => (by_name(&folder, since, end)?, 0),
            }
        }
    };
    Ok((begin, end))
}

/// The newest file up to number `end` of whose predecessors all are finished before `since`.
fn by_name(folder: &Folder, since: u64, end: u64) -> io::Result<u64> {
    let mut begin = 0;
    for file in list(folder, 0)?.iter().take_while(|f| f.sequence <= end) {
        // The name has whole seconds.
        if file.began_ms().is_none_or(|ms| ms >= since) {
            break;
        }
        begin = file.sequence;
    }
    Ok(begin)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const T: u64 = 1_795_219_200_000;

    fn write(dir: &std::path::Path, marks: &[(u64, u64, u64)]) {
        let all = marks.iter().map(|&(sequence, offset, s)| Mark { sequence, offset, wall_ms: T + s * 1000 });
        fs::write(dir.join(marks::NAME), all.flat_map(marks::encode).collect::<Vec<u8>>()).unwrap();
    }

    #[test]
    fn a_place_has_the_time_of_the_last_mark_before_it() {
        let dir = tempfile::tempdir().unwrap();
        let many: Vec<_> = (0..1000).map(|n| (1 + n / 300, n % 300 * 10, n)).collect();
        write(dir.path(), &many);
        let mut times = Times::new(Place::stdout(dir.path()));
        times.refresh();
        let mut at = |spot| times.around(spot).0.map(|m| (m.wall_ms - T) / 1000);
        assert_eq!(at((0, 5)), None);
        assert_eq!(at((1, 0)), Some(0));
        assert_eq!(at((1, 19)), Some(1));
        assert_eq!(at((2, 0)), Some(300));
        assert_eq!(at((9, 0)), Some(999));
        // Back again.
        assert_eq!(at((1, 25)), Some(2));
    }

    #[test]
    fn torn_marks_are_ignored_until_they_are_whole() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &[(1, 0, 0), (1, 10, 1)]);
        let path = dir.path().join(marks::NAME);
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..whole.len() - 5]).unwrap();
        let mut times = Times::new(Place::stdout(dir.path()));
        times.refresh();
        assert_eq!(times.around((1, 15)).0.unwrap().offset, 0);
        fs::write(&path, &whole).unwrap();
        times.refresh();
        assert_eq!(times.around((1, 15)).0.unwrap().offset, 10);
        // The sidecar is pruned, which makes another file of it.
        write(dir.path(), &[(1, 12, 2)]);
        fs::rename(&path, dir.path().join("x")).unwrap();
        fs::copy(dir.path().join("x"), &path).unwrap();
        times.refresh();
        assert_eq!(times.around((1, 15)).0.unwrap().offset, 12);
    }

    #[test]
    fn bounds_hold_everything_of_that_time_whatever_the_clock_did() {
        let dir = tempfile::tempdir().unwrap();
        let place = Place::stdout(dir.path());
        let at = |s: u64| Some(T + s * 1000);
        // Set back by a hundred seconds at the third mark.
        write(dir.path(), &[(1, 0, 100), (1, 10, 200), (2, 0, 110), (2, 10, 190), (2, 20, 300)]);
        assert_eq!(bounds(&place, at(250), None).unwrap(), ((2, 10), None));
        assert_eq!(bounds(&place, at(150), None).unwrap(), ((1, 0), None));
        assert_eq!(bounds(&place, at(400), None).unwrap(), ((2, 20), None));
        assert_eq!(bounds(&place, at(50), None).unwrap(), ((0, 0), None));
        assert_eq!(bounds(&place, None, at(120)).unwrap(), ((0, 0), Some((2, 10))));
        assert_eq!(bounds(&place, None, at(50)).unwrap(), ((0, 0), Some((1, 0))));
        assert_eq!(bounds(&place, None, at(400)).unwrap(), ((0, 0), None));
    }

    #[test]
    fn without_marks_names_tell_where_to_begin() {
        let dir = tempfile::tempdir().unwrap();
        for n in 1..=4 {
            let name = crate::logs::rotate::name("", T + n * 100_000, n);
            fs::write(dir.path().join(name), "").unwrap();
        }
        let begin = |s: u64| bounds(&Place::stdout(dir.path()), Some(T + s * 1000), None).unwrap().0;
        assert_eq!([0, 100, 101, 250, 999].map(begin), [(0, 0), (0, 0), (1, 0), (2, 0), (4, 0)]);
    }
}
