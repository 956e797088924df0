//! One output of one service: the pipes of its runs, oldest first, and the file they go to.
//! Decides when to move how much; waiting, and who else there is, is the business of `pump`.
//!
//! A pipe is read in batches. After a quiet time the first bytes move at once. Then the pipe fills for a
//! delay that aims at a quarter of it, so that a writer neither waits for us nor wakes us for every line.
//!
//! While the file cannot be written, bytes stay in the pipe. Only when it is half full, so that the service
//! would soon block, the oldest are dropped and counted, and a line in the file says so afterwards.

use super::{
    Counters, Housekeeper,
    marks::Marks,
    place::Place,
    rotate::{LONGEST_LINE, Limits, Room, room},
    scratch::{Look, Scratch},
    store::Store,
};
use crate::{
    plan::RunId,
    sys::{
        clock,
        pipe::{self, Moved},
    },
};
use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
};

/// Bytes that one stream may move before others have their turn.
const TURN: usize = 4 << 20;
/// Batches that one stream may move before others have their turn: each can take a rotation.
const STEPS: u32 = 64;
/// Bytes of one splice: the writer cannot write meanwhile.
const BATCH: usize = 1 << 20;
/// Bounds of the delay between batches, in microseconds.
const DELAY: (u64, u64) = (50, 4_000);
/// Between attempts to write again.
const RETRY: u64 = 1_000_000;
/// Between looks at the pipe while in trouble.
const LOOK: (u64, u64) = (5_000, 100_000);
/// How long a finished run waits for the trouble to end before its rest is dropped.
const PATIENCE: u64 = 10_000_000;

/// The pipe of one run.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) run: RunId,
    pub(super) pipe: OwnedFd,
    /// The poller has it.
    pub(super) known: bool,
    capacity: usize,
    finishing: Option<u64>,
}

impl Source {
    pub(super) fn new(run: RunId, pipe: OwnedFd) -> Source {
        let capacity = pipe::capacity(pipe.as_fd()).unwrap_or(0).max(4096);
        Source { run, pipe, known: false, capacity, finishing: None }
    }

    fn half_full(&self) -> bool {
        pipe::fill(self.pipe.as_fd()).is_ok_and(|n| n >= self.capacity / 2)
    }
}

#[derive(Debug)]
struct Trouble {
    message: String,
    retry: u64,
    look: u64,
    fill: usize,
}

/// Why it is a stream's turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    /// The oldest pipe became readable.
    Ready,
    /// The time came, or something changed.
    Due,
}

/// What a stream waits for after its turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Next {
    /// Nothing: it has no pipe.
    #[default]
    Nothing,
    /// Its oldest pipe becoming readable.
    Arm,
    /// This time, in microseconds of CLOCK_MONOTONIC.
    At(u64),
}

/// What happened in a turn.
#[derive(Debug, Default)]
pub(super) struct Turn {
    pub(super) next: Next,
    pub(super) bytes: u64,
    pub(super) rotated: Vec<PathBuf>,
    pub(super) retired: Vec<Source>,
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Stream {
    store: Store,
    marks: Marks,
    queue: VecDeque<Source>,
    trouble: Option<Trouble>,
    dropped: (u64, u64),
    delay: u64,
    last: u64,
}

impl Stream {
    pub(super) fn new(place: Place, limits: Limits, housekeeper: &Housekeeper) -> Stream {
        let store = Store::new(place, limits, housekeeper);
        let (marks, queue) = (Marks::default(), VecDeque::new());
        Stream { store, marks, queue, trouble: None, dropped: (0, 0), delay: DELAY.1, last: 0 }
    }

    /// For changes to it: what is known of its folder may no longer hold.
    pub(super) fn store(&mut self) -> &mut Store {
        self.marks.close();
        &mut self.store
    }

    pub(super) fn head(&mut self) -> Option<&mut Source> {
        self.queue.front_mut()
    }

    pub(super) fn push(&mut self, source: Source) {
        self.queue.push_back(source);
    }

    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_ref().map(|t| &*t.message)
    }

    /// Marks the run's pipe: it is done once it is drained. False: it is not here (any more).
    pub(super) fn finish(&mut self, run: RunId) -> bool {
        let deadline = clock::monotonic_us() + PATIENCE;
        let mut sources = self.queue.iter_mut().filter(|s| s.run == run);
        sources.next().map(|s| s.finishing = s.finishing.or(Some(deadline))).is_some()
    }

    /// Lets go of every pipe.
    pub(super) fn abandon(&mut self) -> Vec<Source> {
        self.queue.drain(..).collect()
    }

    /// Moves what is due. Bounded work; never waits for a pipe.
    pub(super) fn turn(&mut self, why: Why, scratch: &mut Scratch, counters: &Counters) -> Turn {
        let mut turn = Turn::default();
        let now = clock::monotonic_us();
        let outcome = match &self.trouble {
            Some(t) if now < t.retry => self.endure(now, scratch, counters, &mut turn),
            Some(_) => self.resume().and_then(|()| self.work(Why::Due, now, scratch, counters, &mut turn)),
            None => self.work(why, now, scratch, counters, &mut turn),
        };
        turn.next = match outcome {
            Ok(next) => next,
            Err(e) => self.fail(&e),
        };
        turn
    }

    fn work(
        &mut self,
        why: Why,
        now: u64,
        scratch: &mut Scratch,
        counters: &Counters,
        turn: &mut Turn,
    ) -> io::Result<Next> {
        let Some(source) = self.queue.front() else {
            self.trouble = None;
            return Ok(Next::Nothing);
        };
        let (capacity, finishing) = (source.capacity, source.finishing.is_some());
        let fill = pipe::fill(source.pipe.as_fd())?;
        if fill == 0 {
            let end = matches!(scratch.look(source.pipe.as_fd())?, Look::End);
            self.trouble = None;
            self.delay = DELAY.1;
            return Ok(if end || finishing { self.retire(now, turn) } else { Next::Arm });
        }
        let much = fill >= capacity / 4;
        if why == Why::Ready && !much && now < self.last + self.delay {
            return Ok(Next::At(self.last + self.delay));
        }
        let left = self.take(fill, scratch, counters, turn)?;
        self.trouble = None;
        self.last = clock::monotonic_us();
        if finishing && left == 0 {
            return Ok(self.retire(now, turn));
        }
        if left > 0 {
            return Ok(Next::At(self.last));
        }
        if why == Why::Ready && !much {
            return Ok(Next::Arm);
        }
        self.adapt(fill, capacity);
        Ok(Next::At(self.last + self.delay))
    }

    /// Aims the delay at a quarter of the pipe: so much stays in the processor's cache between the writer and
    /// us (measured: larger and smaller batches are slower). A full pipe says only that the delay was too
    /// long, not by how much.
    fn adapt(&mut self, fill: usize, capacity: usize) {
        let aim = self.delay * (capacity as u64 / 4) / fill as u64;
        let full = fill >= capacity / 16 * 15;
        self.delay = if full { self.delay / 8 } else { aim.clamp(self.delay / 2, self.delay * 2) };
        self.delay = self.delay.clamp(DELAY.0, DELAY.1);
    }

    /// Moves `fill` bytes, as far as they are there and a turn allows; returns what is left of them.
    fn take(
        &mut self,
        fill: usize,
        scratch: &mut Scratch,
        counters: &Counters,
        turn: &mut Turn,
    ) -> io::Result<usize> {
        let (mut taken, mut steps) = (0, 0);
        while taken < fill.min(TURN) && steps < STEPS {
            steps += 1;
            let Moved::Bytes(n) = self.step(fill - taken, scratch, turn)? else { return Ok(0) };
            counters.moved(n as u64);
            turn.bytes += n as u64;
            taken += n;
        }
        Ok(fill.saturating_sub(taken))
    }

    /// Moves one batch, at most to the end of the file's last line.
    fn step(&mut self, most: usize, scratch: &mut Scratch, turn: &mut Turn) -> io::Result<Moved> {
        let Some(source) = self.queue.front() else { return Ok(Moved::Empty) };
        if self.store.ready()?.full {
            turn.rotated.extend(self.store.rotate()?);
        }
        self.marks.writing(&mut self.store);
        let open = self.store.ready()?;
        let limit = open.limit;
        let (len, ends) = match room(open.size, limit) {
            Room::Free(free) => (most.min(BATCH).min(usize::try_from(free).unwrap_or(BATCH)), false),
            Room::Line => match scratch.look(source.pipe.as_fd())? {
                Look::Bytes(seen) => match seen.iter().position(|b| *b == b'\n') {
                    Some(at) => (at + 1, true),
                    None => (seen.len(), false),
                },
                Look::Empty => return Ok(Moved::Empty),
                Look::End => return Ok(Moved::End),
            },
        };
        let moved = pipe::splice(source.pipe.as_fd(), &open.file, open.size, len)?;
        if let Moved::Bytes(n) = moved {
            if open.size + 1 >= limit {
                open.overlong += n as u64;
                open.full = ends && n == len || open.overlong >= LONGEST_LINE;
            }
            open.wrote(n as u64);
        }
        Ok(moved)
    }

    /// The oldest pipe is done.
    fn retire(&mut self, now: u64, turn: &mut Turn) -> Next {
        turn.retired.extend(self.queue.pop_front());
        if self.queue.is_empty() && self.trouble.is_none() { Next::Nothing } else { Next::At(now) }
    }

    fn fail(&mut self, error: &io::Error) -> Next {
        let now = clock::monotonic_us();
        let message = format!(
            "cannot write {}: {error}; output waits in the pipe, and is dropped and counted when that is full",
            self.store.path().display()
        );
        let (look, fill) = self.trouble.as_ref().map_or((LOOK.0, 0), |t| (t.look, t.fill));
        self.trouble = Some(Trouble { message, retry: now + RETRY, look, fill });
        Next::At(now + look)
    }

    /// Tries to write again, first what was dropped.
    fn resume(&mut self) -> io::Result<()> {
        let open = self.store.ready()?;
        let (bytes, lines) = self.dropped;
        if bytes > 0 {
            let fresh = if open.ends_line() { "" } else { "\n" };
            open.append(format!("{fresh}keepd: dropped {lines} lines ({bytes} bytes) here\n").as_bytes())?;
            self.dropped = (0, 0);
        }
        Ok(())
    }

    /// Keeps the services from blocking while nothing can be written.
    fn endure(
        &mut self,
        now: u64,
        scratch: &mut Scratch,
        counters: &Counters,
        turn: &mut Turn,
    ) -> io::Result<Next> {
        let Some(trouble) = &mut self.trouble else { return Ok(Next::At(now)) };
        let Some(source) = self.queue.front() else { return Ok(Next::At(trouble.retry)) };
        let fill = pipe::fill(source.pipe.as_fd())?;
        trouble.look = if fill > trouble.fill + source.capacity / 8 { LOOK.0 } else { trouble.look * 2 };
        trouble.look = trouble.look.clamp(LOOK.0, LOOK.1);
        trouble.fill = fill;
        let next = Next::At(trouble.retry.min(now + trouble.look));
        let waited = source.finishing.is_some_and(|deadline| now >= deadline);
        let blocks = source.finishing.is_some() && self.queue.get(1).is_some_and(Source::half_full);
        let over = waited || blocks;
        let target = match () {
            () if over => 0,
            () if fill >= source.capacity / 2 => source.capacity / 4,
            () => fill,
        };
        let mut left = fill;
        while left > target {
            let (bytes, lines) = scratch.discard(source.pipe.as_fd(), left)?;
            if bytes == 0 {
                break;
            }
            counters.dropped(bytes, lines);
            self.dropped = (self.dropped.0 + bytes, self.dropped.1 + lines);
            left = left.saturating_sub(usize::try_from(bytes).unwrap_or(usize::MAX));
        }
        trouble.fill = left;
        let end = left == 0 && matches!(scratch.look(source.pipe.as_fd())?, Look::End);
        let done = end || left == 0 && source.finishing.is_some();
        Ok(if done { self.retire(now, turn) } else { next })
    }
}
