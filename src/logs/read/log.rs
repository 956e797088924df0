//! What of one log is wanted: the last so many lines, those of a time, those that match.

use super::{
    files::Place,
    lines::{Line, Lines, Step},
    reader::{From, Reader, now},
    tail,
    times::{Spot, Times, bounds},
};
use regex::bytes::{Regex, RegexBuilder};
use std::{collections::VecDeque, io};

/// Bytes that a compiled pattern, and what it remembers while matching, may take.
const PATTERN: usize = 1 << 20;

/// A choice of lines; by default all.
#[derive(Debug, Clone, Default)]
pub struct Query {
    /// Only the last so many of those that the rest chooses; `None`: all.
    pub lines: Option<u64>,
    /// Milliseconds since 1970: not what was written before.
    pub since: Option<u64>,
    /// As `since`: not what was written after.
    pub until: Option<u64>,
    /// Only those in which this is found.
    pub grep: Option<Regex>,
}

/// Reads a regular expression; what is too large to match cheaply is refused.
///
/// # Errors
/// A sentence for people.
pub fn pattern(text: &str) -> Result<Regex, String> {
    let built = RegexBuilder::new(text).size_limit(PATTERN).dfa_size_limit(PATTERN).nest_limit(100).build();
    built.map_err(|e| match e {
        regex::Error::CompiledTooBig(_) => "it is too large; ask for less repetition".into(),
        e => e.to_string().lines().last().unwrap_or_default().trim_start_matches("error: ").into(),
    })
}

impl Query {
    /// Whether whole lines have to be looked at.
    pub fn filters(&self) -> bool {
        self.since.is_some() || self.until.is_some() || self.grep.is_some()
    }

    fn wants(&self, line: &Line) -> bool {
        self.since.is_none_or(|since| line.time_ms >= since)
            && self.until.is_none_or(|until| line.time_ms <= until)
            && self.grep.as_ref().is_none_or(|grep| grep.is_match(&line.text))
    }
}

/// The wanted lines of one log.
#[derive(Debug)]
pub(super) struct Log {
    lines: Lines,
    query: Query,
    end: Option<Spot>,
    over: bool,
}

impl Log {
    /// Finds the place to begin. `stop` is asked now and then whether anybody still waits for it.
    ///
    /// # Errors
    /// Of the file system; `Interrupted` where nobody does.
    pub(super) fn open(
        place: &Place,
        query: &Query,
        follow: bool,
        block: usize,
        stop: &dyn Fn() -> bool,
    ) -> io::Result<Log> {
        let (begin, end) = match (query.since, query.until) {
            (None, None) => ((0, 0), None),
            (since, until) => bounds(place, since, until)?,
        };
        let reader = match query.lines {
            Some(n) if !query.filters() => Reader::begin(place.clone(), From::LastLines(n))?,
            Some(0) => Reader::begin(place.clone(), From::End)?,
            Some(n) => last_wanted(place, query, begin, end, n, stop)?,
            None => Reader::to(place.clone(), begin.0, begin.1)?,
        };
        // Whoever does not follow must come to an end, however fast the log grows.
        let now = if follow { None } else { now(place)? };
        let end = match (end, now) {
            (Some(end), Some(now)) => Some(end.min(now)),
            (end, now) => end.or(now),
        };
        let lines = Lines::new(reader, Times::new(place.clone()), block);
        Ok(Log { lines, query: query.clone(), end, over: false })
    }

    /// Reads at most one block.
    pub(super) fn next(&mut self) -> io::Result<Step> {
        if self.over {
            return Ok(Step::End);
        }
        match self.lines.next()? {
            Step::Line(line) if self.end.is_some_and(|end| line.spot >= end) => {
                self.over = true;
                Ok(Step::End)
            }
            Step::Line(line) if !line.note && !self.query.wants(&line) => Ok(Step::More),
            step => Ok(step),
        }
    }

    /// The last line where nothing ended it.
    pub(super) fn last(&mut self) -> Option<Line> {
        let query = &self.query;
        if self.over { None } else { self.lines.last().filter(|line| query.wants(line)) }
    }
}

/// Begins with the last `n` lines of those between `begin` and `end` that the query wants.
fn last_wanted(
    place: &Place,
    query: &Query,
    begin: Spot,
    end: Option<Spot>,
    n: u64,
    stop: &dyn Fn() -> bool,
) -> io::Result<Reader> {
    let most = usize::try_from(n).unwrap_or(usize::MAX);
    let mut left = most;
    let found = tail::newest_first(place, begin.0, |open| {
        if end.is_some_and(|end| open.sequence > end.0) {
            return Ok(None);
        }
        if open.sequence == begin.0 {
            open.source.seek(begin.1);
        }
        let mut wanted = VecDeque::new();
        let mut log = Log { lines: open.alone(place)?, query: query.clone(), end, over: false };
        let mut steps = 0u32;
        loop {
            steps = steps.wrapping_add(1);
            if steps.is_multiple_of(1024) && stop() {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let line = match log.next()? {
                Step::Line(line) if !line.note => line,
                Step::Line(_) | Step::More => continue,
                Step::End => match log.last() {
                    Some(line) => line,
                    None => break,
                },
            };
            wanted.push_back(line.spot.1);
            if wanted.len() > left {
                wanted.pop_front();
            }
        }
        left -= wanted.len();
        Ok(if left == 0 { wanted.pop_front() } else { None })
    })?;
    match found {
        // So few are there: all of them.
        Some((_, None)) | None => Reader::to(place.clone(), begin.0, begin.1),
        found => tail::begin(place.clone(), found),
    }
}
