//! The rotated files of one folder: the number of the next, which go, which is compressed next, and what a
//! killed keepd left half done. Decided from a listing alone. Pure: no I/O, no clock.
//!
//! Every step can be the last before a kill. A file is compressed under a temporary name, which is given its
//! final one when it is whole, and only then the original goes: so where both are there, the original is
//! superfluous, and a temporary file always is. A number is never used again, because before the file with the
//! highest one goes, an empty file takes note of it.

use super::rotate::{Form, Limits, mark, parse};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// So many files, or so many bytes, are compressed in one go.
const BATCH: (usize, u64) = (64, 8 << 20);

/// A file in the folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// When it was last written, milliseconds since 1970.
    pub modified_ms: u64,
}

/// A rotated file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rotated {
    /// Where it stands in the order of age; the oldest has the lowest.
    pub sequence: u64,
    /// As it is.
    pub file: Listed,
    /// It is compressed.
    pub gzip: bool,
}

/// One thing to do in the folder, in this order; what cannot be done ends the list for now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Remove this file.
    Remove(String),
    /// Make this empty file.
    Mark(String),
}

/// See the head of this file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct History {
    prefix: String,
    rotated: VecDeque<Rotated>,
    leftovers: Vec<String>,
    marks: Vec<u64>,
}

impl History {
    /// From what is in the folder; what is not ours is left out. `busy` are the names of files that are being
    /// compressed just now: they are there as they were, and their compressed forms are not.
    pub fn new(prefix: &str, listing: impl IntoIterator<Item = Listed>, busy: &BTreeSet<String>) -> History {
        let mut found: BTreeMap<(u64, String), Rotated> = BTreeMap::new();
        let (mut leftovers, mut marks) = (Vec::new(), Vec::new());
        for file in listing {
            let Some((sequence, form)) = parse(prefix, &file.name) else { continue };
            let original = file.name.trim_end_matches(".tmp").trim_end_matches(".gz").to_owned();
            let gzip = form == Form::Gzip;
            match form {
                Form::Mark => marks.push(sequence),
                _ if form != Form::Plain && busy.contains(&original) => {}
                Form::Partial => leftovers.push(file.name),
                Form::Plain | Form::Gzip => {
                    let key = (sequence, original);
                    match found.remove(&key) {
                        None => drop(found.insert(key, Rotated { sequence, file, gzip })),
                        Some(other) => {
                            let (whole, old) = if gzip { (file, other.file) } else { (other.file, file) };
                            leftovers.push(old.name);
                            found.insert(key, Rotated { sequence, file: whole, gzip: true });
                        }
                    }
                }
            }
        }
        History { prefix: prefix.into(), rotated: found.into_values().collect(), leftovers, marks }
    }

    /// The number of the next rotated file.
    pub fn next(&self) -> u64 {
        let newest = self.rotated.back().map(|r| r.sequence);
        newest.into_iter().chain(self.marks.iter().copied()).max().map_or(1, |n| n + 1)
    }

    /// The rotated files, oldest first.
    pub fn rotated(&self) -> &VecDeque<Rotated> {
        &self.rotated
    }

    /// Bytes of the rotated files.
    pub fn bytes(&self) -> u64 {
        self.rotated.iter().map(|r| r.file.size).sum()
    }

    /// What a kill left behind, and notes that are not needed any more.
    pub fn tidy(&mut self) -> Vec<Step> {
        let last = self.next() - 1;
        let noted = self.rotated.back().is_some_and(|r| r.sequence == last);
        let (stale, kept) = std::mem::take(&mut self.marks).into_iter().partition(|n| noted || *n < last);
        self.marks = kept;
        let stale: Vec<u64> = stale;
        let names = stale.into_iter().map(|n| mark(&self.prefix, n));
        names.chain(std::mem::take(&mut self.leftovers)).map(Step::Remove).collect()
    }

    /// How many of the oldest are beyond the limits.
    pub fn excess(&self, limits: Limits, now_ms: u64) -> usize {
        let mut bytes = self.bytes().saturating_add(limits.max_size);
        let mut count = self.rotated.len();
        for r in &self.rotated {
            let many = count > limits.keep as usize;
            let old = limits.keep_for.is_some_and(|age| r.file.modified_ms.saturating_add(age.0) < now_ms);
            let large = limits.max_total.is_some_and(|most| bytes > most);
            if !many && !old && !large {
                break;
            }
            bytes -= r.file.size;
            count -= 1;
        }
        self.rotated.len() - count
    }

    /// Lets go of the oldest so many.
    pub fn drop_oldest(&mut self, count: usize) -> Vec<Step> {
        let last = self.next() - 1;
        let gone: Vec<Rotated> = self.rotated.drain(..count.min(self.rotated.len())).collect();
        let mut steps = Vec::new();
        if self.rotated.is_empty() && !gone.is_empty() && !self.marks.contains(&last) {
            self.marks.push(last);
            steps.push(Step::Mark(mark(&self.prefix, last)));
        }
        steps.extend(gone.into_iter().map(|r| Step::Remove(r.file.name)));
        steps
    }

    /// What is to be compressed next, oldest first: one file, or some that are small.
    pub fn uncompressed(&self) -> BTreeSet<String> {
        let mut bytes = 0u64;
        let plain = self.rotated.iter().filter(|r| !r.gzip).take(BATCH.0);
        let fits = plain.take_while(|r| {
            let first = bytes == 0;
            bytes += r.file.size.max(1);
            first || bytes <= BATCH.1
        });
        fits.map(|r| r.file.name.clone()).collect()
    }
}
