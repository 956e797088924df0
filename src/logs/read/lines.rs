//! Lines of one log with the time of each, from its bytes and its marks.

use super::{
    own,
    reader::Reader,
    times::{Spot, Times},
};
use std::{collections::VecDeque, io};

/// A longer line comes in pieces of so many bytes.
pub(super) const LONGEST: usize = 64 * 1024;
/// A line's own time that is further from the marks around it is not when it was written, in milliseconds.
const TRUST: u64 = 60_000;

/// A line, or a piece of one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Line {
    /// Milliseconds since 1970; where it carries no time of its own, to the second.
    pub time_ms: u64,
    /// Without its end.
    pub text: Vec<u8>,
    /// It had no end: a piece of a longer one, or the last of the log.
    pub partial: bool,
    /// It is not from the service: it says what could not be read.
    pub note: bool,
    pub(in crate::logs) spot: Spot,
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::logs) enum Step {
    Line(Line),
    /// Bytes were read, but no line is whole yet.
    More,
    /// Everything that is written so far is read.
    End,
}

/// See the head of this file.
#[derive(Debug)]
pub(in crate::logs) struct Lines {
    reader: Reader,
    times: Times,
    block: Vec<u8>,
    size: usize,
    /// What of the block is not yet taken.
    rest: std::ops::Range<usize>,
    /// Of the byte at `rest.start`.
    spot: Spot,
    /// The beginning of a line.
    begun: Vec<u8>,
    begun_at: Spot,
    longest: usize,
    notes: VecDeque<String>,
    /// The file that `began_ms` speaks of.
    file: Option<u64>,
    began_ms: Option<u64>,
    last_ms: u64,
}

impl Lines {
    /// Reads `block` bytes at once.
    pub(in crate::logs) fn new(reader: Reader, times: Times, block: usize) -> Lines {
        Lines {
            reader,
            times,
            block: Vec::new(),
            size: block,
            rest: 0..0,
            spot: (0, 0),
            begun: Vec::new(),
            begun_at: (0, 0),
            longest: LONGEST,
            notes: VecDeque::new(),
            file: None,
            began_ms: None,
            last_ms: 0,
        }
    }

    /// Lines come in pieces only beyond so many bytes.
    pub(in crate::logs) fn longest(self, bytes: usize) -> Lines {
        Lines { longest: bytes, ..self }
    }

    /// The place behind what was read last.
    pub(in crate::logs) fn end(&self) -> Spot {
        self.spot
    }

    /// Reads at most one block.
    pub(in crate::logs) fn next(&mut self) -> io::Result<Step> {
        if let Some(text) = self.notes.pop_front() {
            let (time_ms, spot) = (self.last_ms, self.spot);
            return Ok(Step::Line(Line {
                time_ms,
                text: text.into_bytes(),
                partial: false,
                note: true,
                spot,
            }));
        }
        if self.rest.is_empty() {
            return self.fill();
        }
        if self.begun.is_empty() {
            self.begun_at = self.spot;
        }
        let rest = &self.block[self.rest.clone()];
        let room = self.longest - self.begun.len();
        let within = &rest[..rest.len().min(room)];
        let (taken, whole) = match memchr::memchr(b'\n', within) {
            Some(at) => (at + 1, true),
            None => (within.len(), false),
        };
        self.begun.extend_from_slice(&within[..taken - usize::from(whole)]);
        self.rest.start += taken;
        self.spot.1 += taken as u64;
        if whole || self.begun.len() == self.longest {
            Ok(Step::Line(self.take(!whole)))
        } else {
            Ok(Step::More)
        }
    }

    /// The last line where nothing ended it.
    pub(in crate::logs) fn last(&mut self) -> Option<Line> {
        (!self.begun.is_empty()).then(|| self.take(true))
    }

    fn fill(&mut self) -> io::Result<Step> {
        self.block.resize(self.size, 0);
        let n = self.reader.read(&mut self.block)?;
        if let Some(note) = self.reader.take_note() {
            self.notes.extend(note.lines().map(str::to_owned));
        }
        self.rest = 0..n;
        if n == 0 {
            // Those who wait for more wait without a buffer.
            self.block = Vec::new();
            return Ok(if self.notes.is_empty() { Step::End } else { Step::More });
        }
        let (sequence, behind) = self.reader.position().unwrap_or_default();
        self.spot = (sequence, behind - n as u64);
        self.times.refresh();
        Ok(Step::More)
    }

    fn take(&mut self, partial: bool) -> Line {
        let text = std::mem::take(&mut self.begun);
        // A line is about as long as the one before.
        self.begun.reserve(text.len().min(256));
        let spot = self.begun_at;
        let time_ms = self.time(spot, &text);
        self.last_ms = time_ms;
        Line { time_ms, text, partial, note: false, spot }
    }

    fn time(&mut self, spot: Spot, text: &[u8]) -> u64 {
        let (floor, next) = self.times.around(spot);
        let began = if floor.is_some_and(|m| m.sequence == spot.0) { None } else { self.began(spot.0) };
        // The mark of an earlier file holds until this one was begun.
        let base = floor.map(|m| m.wall_ms).max(began).unwrap_or(self.last_ms);
        let Some(own) = own::time(text) else { return base };
        let (low, high) = match next {
            Some(next) => (base.min(next.wall_ms), base.max(next.wall_ms)),
            None => (base, u64::MAX - TRUST),
        };
        if own + TRUST >= low && own <= high + TRUST { own } else { base }
    }

    fn began(&mut self, sequence: u64) -> Option<u64> {
        if self.file != Some(sequence) {
            self.began_ms = self.reader.began_ms();
            self.file = Some(sequence);
        }
        self.began_ms
    }
}
