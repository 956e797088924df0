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
