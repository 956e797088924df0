//! When a file is full, what rotated files are called and which of them go: decided from names and sizes
//! alone. Pure: no I/O, no clock. The sequence number alone says which of two files is older; the time in
//! a name is for people, and may jump as the clock does.

use jiff::Timestamp;
use std::collections::VecDeque;

/// A line longer than this may be cut by a rotation.
pub const LONGEST_LINE: u64 = 1 << 20;

/// How much a file is to hold and how many there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Rotate at the first line end at or past this many bytes; at least 1.
    pub max_size: u64,
    /// How many rotated files are kept.
    pub keep: u32,
    /// Rotated files and a full current one are to be at most this many bytes together.
    pub max_total: Option<u64>,
}

/// What may be added to a file of a certain size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// So many bytes, whatever they are: no line end among them is at or past the limit.
    Free(u64),
    /// Only up to the next line end; then the file is full.
    Line,
}

/// See [`Room`].
pub fn room(size: u64, max_size: u64) -> Room {
    match max_size.saturating_sub(1).saturating_sub(size) {
        0 => Room::Line,
        free => Room::Free(free),
    }
}

/// A rotated file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotated {
    /// Where it stands in the order of age; the oldest has the lowest.
    pub sequence: u64,
    /// Its name within the folder.
    pub name: String,
    /// Bytes.
    pub size: u64,
}

/// Names beyond this are not ours; so the next number always fits.
const LAST: u64 = 999_999_999_999_999;

/// `PREFIX2026-11-21T00-00-00.000001.log`: when the file was begun, in UTC, and its sequence number.
pub fn name(prefix: &str, started_ms: u64, sequence: u64) -> String {
    let started = i64::try_from(started_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let started = started.unwrap_or(Timestamp::UNIX_EPOCH).strftime("%Y-%m-%dT%H-%M-%S").to_string();
    format!("{prefix}{started}.{sequence:06}.log")
}

/// The sequence number in a name that [`name`] made; `None` for any other.
pub fn sequence(prefix: &str, name: &str) -> Option<u64> {
    const PATTERN: &[u8] = b"dddd-dd-ddTdd-dd-dd";
    let (time, digits) = name.strip_prefix(prefix)?.strip_suffix(".log")?.split_once('.')?;
    let timely = time.len() == PATTERN.len()
        && time.bytes().zip(PATTERN).all(|(c, p)| if *p == b'd' { c.is_ascii_digit() } else { c == *p });
    let plain = digits.bytes().all(|c| c.is_ascii_digit())
        && (digits.len() == 6 || digits.len() > 6 && !digits.starts_with('0'));
    if !timely || !plain {
        return None;
    }
    digits.parse().ok().filter(|n| *n <= LAST)
}

/// The time in a name that [`name`] made without a prefix, in milliseconds since 1970.
pub fn started(name: &str) -> Option<u64> {
    let time = name.split('.').next()?;
    let civil = jiff::civil::DateTime::strptime("%Y-%m-%dT%H-%M-%S", time).ok()?;
    let ms = civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_millisecond();
    u64::try_from(ms).ok()
}

/// The rotated files of one folder, and the number of the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ledger {
    prefix: String,
    rotated: VecDeque<Rotated>,
    bytes: u64,
    next: u64,
}

impl Ledger {
    /// From the names and sizes in a folder; what is not ours is left out.
    pub fn new(prefix: &str, listing: impl IntoIterator<Item = (String, u64)>) -> Ledger {
        let ours = |(name, size): (String, u64)| {
            sequence(prefix, &name).map(|sequence| Rotated { sequence, name, size })
        };
        let mut rotated: Vec<_> = listing.into_iter().filter_map(ours).collect();
        rotated.sort_by(|a, b| (a.sequence, &a.name).cmp(&(b.sequence, &b.name)));
        let next = rotated.last().map_or(1, |r| r.sequence + 1);
        let bytes = rotated.iter().map(|r| r.size).sum();
        Ledger { prefix: prefix.into(), rotated: rotated.into(), bytes, next }
    }

    /// What the current file is to be called when it is rotated now.
    pub fn next_name(&self, started_ms: u64) -> String {
        name(&self.prefix, started_ms, self.next)
    }

    /// The current file now bears [`Ledger::next_name`].
    pub fn rotated(&mut self, name: String, size: u64) {
        self.rotated.push_back(Rotated { sequence: self.next, name, size });
        self.bytes += size;
        self.next += 1;
    }

    /// The number of the file that is written now.
    pub fn current(&self) -> u64 {
        self.next
    }

    /// The newest rotated file.
    pub fn newest(&self) -> Option<&Rotated> {
        self.rotated.back()
    }

    /// The oldest rotated file, if it has to go. It stays on the list until [`Ledger::removed`].
    pub fn excess(&self, limits: Limits) -> Option<&str> {
        let oldest = self.rotated.front()?;
        let bytes = self.bytes.saturating_add(limits.max_size);
        let many = self.rotated.len() > limits.keep as usize;
        (many || limits.max_total.is_some_and(|most| bytes > most)).then_some(&*oldest.name)
    }

    /// The file that [`Ledger::excess`] named is gone.
    pub fn removed(&mut self) {
        self.bytes -= self.rotated.pop_front().map_or(0, |r| r.size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{BTreeMap, BTreeSet};

    #[test]
    fn names_tell_time_and_sequence() {
        let made = name("", 1_795_219_200_000, 1);
        assert_eq!(made, "2026-11-21T00-00-00.000001.log");
        assert_eq!(sequence("", &made), Some(1));
        assert_eq!(started(&made), Some(1_795_219_200_000));
        assert_eq!(name("keepd-", 0, 1_234_567), "keepd-1970-01-01T00-00-00.1234567.log");
    }

    #[test]
    fn other_names_are_not_ours() {
        for foreign in [
            "current",
            "2026-11-21T00-00-00.000001.log.gz",
            "2026-11-21T00-00-00.1.log",
            "2026-11-21T00-00-00.0000001.log",
            "2026-11-21T00-00-00.+00001.log",
            "2026-11-21T00-00-00..log",
            "2026-11-21 00-00-00.000001.log",
            "x2026-11-21T00-00-00.000001.log",
            "2026-11-21T00-00-00.99999999999999999999.log",
        ] {
            assert_eq!(sequence("", foreign), None, "{foreign}");
        }
    }

    proptest! {
        #[test]
        fn a_name_is_read_back(ms in any::<u64>(), number in 1..=LAST, prefix in "(keepd-)?") {
            prop_assert_eq!(sequence(&prefix, &name(&prefix, ms, number)), Some(number));
        }

        #[test]
        fn reading_a_name_never_panics(prefix in ".{0,4}", text in ".{0,48}") {
            sequence(&prefix, &text);
        }

        #[test]
        fn a_file_passes_its_limit_by_one_line_at_most(
            max in 1..400u64,
            lines in prop::collection::vec(1..90u64, 1..120),
            batch in 1..200u64,
        ) {
            let ends: BTreeSet<u64> = lines.iter().scan(0, |at, n| { *at += n; Some(*at) }).collect();
            let (mut begin, mut at, total) = (0, 0, lines.iter().sum::<u64>());
            while at < total {
                match room(at - begin, max) {
                    Room::Free(free) => {
                        let step = free.min(batch).min(total - at);
                        prop_assert!(step > 0);
                        let passed = ends.range(at..=at + step).find(|e| **e - begin >= max);
                        prop_assert_eq!(passed, None);
                        at += step;
                    }
                    Room::Line => {
                        at = *ends.range(at + 1..).next().unwrap();
                        prop_assert!(at - begin >= max && at - begin < max + 90);
                        begin = at;
                    }
                }
            }
        }

        /// A folder, rotations and kills in between: what the next process finds is always enough.
        #[test]
        fn every_crash_point_is_recovered_from(
            foreign in prop::collection::btree_set("[a-z.0-9-]{1,20}", 0..5),
            keep in 0..5u32,
            max_total in prop::option::of(100..900u64),
            // (size of the file, milliseconds on the wall, steps until the kill, if there is one)
            rounds in prop::collection::vec(
                (1..200u64, 0..u64::from(u32::MAX) * 1000, prop::option::of(0..4u32)),
                1..60,
            ),
        ) {
            let limits = Limits { max_size: 100, keep, max_total };
            let mut folder: BTreeMap<String, u64> = foreign.iter().map(|n| (n.clone(), 7)).collect();
            let mut ledger = Ledger::new("", folder.clone());
            let (mut used, mut newest) = (BTreeSet::new(), 0);
            for (size, wall, kill) in rounds {
                let mut steps = kill.map_or(u32::MAX, |n| n);
                let mut step = || { let alive = steps > 0; steps = steps.saturating_sub(1); alive };
                let killed = 'life: {
                    if !step() { break 'life true }
                    let new = ledger.next_name(wall);
                    prop_assert!(!folder.contains_key(&new));
                    let number = sequence("", &new).unwrap();
                    // Only where everything was pruned, and that was forgotten, can a number come again.
                    prop_assert!(number > newest || folder.keys().all(|n| sequence("", n).is_none()));
                    newest = number;
                    folder.insert(new.clone(), size);
                    used.insert(new.clone());
                    if !step() { break 'life true }
                    ledger.rotated(new, size);
                    while let Some(old) = ledger.excess(limits) {
                        prop_assert!(folder.remove(old).is_some() && !foreign.contains(old));
                        ledger.removed();
                        if !step() { break 'life true }
                    }
                    false
                };
                if killed {
                    ledger = Ledger::new("", folder.clone());
                    continue;
                }
                let ours: Vec<_> = folder.iter().filter_map(|(n, s)| Some((sequence("", n)?, *s))).collect();
                prop_assert!(ours.len() <= keep as usize);
                let bytes: u64 = ours.iter().map(|(_, s)| s).sum();
                prop_assert!(max_total.is_none_or(|most| ours.is_empty() || bytes + 100 <= most));
                prop_assert_eq!(&ledger, &Ledger { next: ledger.next, ..Ledger::new("", folder.clone()) });
            }
            prop_assert!(foreign.iter().all(|n| folder.contains_key(n)));
        }

        #[test]
        fn the_oldest_go_first(numbers in prop::collection::btree_set(1..100_000u64, 1..30), keep in 0..30u32) {
            // Times in the names run backwards: only the number counts.
            let listing: Vec<_> = numbers.iter().map(|n| (name("", 1_000_000_000_000 - n * 1000, *n), 1)).collect();
            let mut ledger = Ledger::new("", listing);
            let limits = Limits { max_size: 1, keep, max_total: None };
            let mut gone = Vec::new();
            while let Some(old) = ledger.excess(limits) {
                gone.push(sequence("", old).unwrap());
                ledger.removed();
            }
            let expected: Vec<_> =
                numbers.iter().copied().take(numbers.len().saturating_sub(keep as usize)).collect();
            prop_assert_eq!(gone, expected);
        }
    }
}
