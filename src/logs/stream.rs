//! The file side of one stream: when how much of its output goes to its file, and what happens when that cannot
//! be written. Waiting, and who else there is, is the business of `writer`; the pipes are that of `intake`.
//!
//! A pipe is read in batches. After a quiet time the first bytes move at once. Then the pipe fills for a
//! delay that aims at a quarter of it, so that a writer neither waits for us nor wakes us for every line.

use super::{
    Housekeeper,
    feed::Feed,
    format::Form,
    intake::{Dropper, Intake, Source},
    ledger::Count,
    marks::Marks,
    pour::File,
    rotate::Limits,
    stage::Stage,
    store::Store,
    vault::Vault,
};
use crate::{
    plan::{LogFormat, LogSpec, OnFull},
    sys::{clock, pipe},
};
use std::{
    io,
    os::fd::AsFd,
    path::PathBuf,
    sync::{Arc, MutexGuard},
};

/// Rotations in one turn, about.
const STEPS: u64 = 64;
/// Bounds of the delay between batches, in microseconds: many services of a moderate rate cost little where each
/// is read a few dozen times a second.
const DELAY: (u64, u64) = (50, 16_000);
/// The delay after a quiet time.
const QUIET: u64 = 4_000;
/// Between attempts to write again.
const RETRY: u64 = 1_000_000;
/// Between looks at the pipe while in trouble.
const LOOK: (u64, u64) = (5_000, 100_000);

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
    /// More in its oldest pipe than now, or the end.
    Grow,
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

/// What a writer lends its streams.
pub(super) struct Tools<'a> {
    pub(super) vault: &'a Vault,
    pub(super) dropper: &'a mut Dropper,
    /// Empty between turns.
    pub(super) stage: &'a mut Option<Stage>,
    /// Says that something was done.
    pub(super) step: &'a dyn Fn(),
    /// Bytes to move in this turn; see [`super::fair`].
    pub(super) most: usize,
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) feed: Arc<Feed>,
    pub(super) due: Option<u64>,
    store: Store,
    marks: Marks,
    spec: LogSpec,
    trouble: Option<Trouble>,
    /// So many bytes were in the pipe when they were the beginning of a line, and nothing else.
    partial: usize,
    delay: u64,
    last: u64,
}

impl Stream {
    pub(super) fn new(feed: Arc<Feed>, housekeeper: &Housekeeper) -> Stream {
        let spec = feed.intake().spec.clone();
        let store = Store::new(feed.place(&spec), Limits::from(&spec), housekeeper);
        let (due, trouble, marks) = (None, None, Marks::default());
        Stream { feed, due, store, marks, spec, trouble, partial: 0, delay: QUIET, last: 0 }
    }

    /// Lets go of its files, and of what was known about their folder.
    pub(super) fn close(&mut self) {
        self.store.close();
        self.marks.close();
    }

    /// Rotates the file if its time has come while nothing is written. What cannot be rotated now is with the
    /// next write.
    pub(super) fn tick(&mut self) -> Option<PathBuf> {
        self.store.tick().ok().flatten()
    }

    /// When [`Stream::tick`] is wanted, in milliseconds since 1970.
    pub(super) fn due_ms(&self) -> Option<u64> {
        self.store.due_ms()
    }

    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_ref().map(|t| &*t.message)
    }

    /// Tells whoever forwards it what a turn has brought; whether that is anything.
    pub(super) fn tell(&mut self, turn: &Turn) -> bool {
        if self.spec.forward.is_empty() {
            return false;
        }
        let told = &self.feed.told;
        told.moved(turn.bytes);
        let ended = self.spec.format == LogFormat::Raw && !turn.retired.is_empty();
        let end = self.store.opened().filter(|open| ended && !open.ends_line()).map(|open| open.size);
        if let (Some(end), Ok(sequence)) = (end, self.store.sequence()) {
            told.cut((sequence, end));
        }
        turn.bytes > 0 || !turn.retired.is_empty()
    }

    /// What is about to be written may have to be forwarded.
    fn announce(&mut self) {
        if self.spec.forward.is_empty() || self.feed.told.begun() {
            return;
        }
        // What fails here fails when it is written too.
        if let Ok(offset) = self.store.ready().map(|open| open.size)
            && let Ok(sequence) = self.store.sequence()
        {
            self.feed.told.begin(Some((sequence, offset)));
        }
    }

    /// Moves what is due. Bounded work; never waits for a pipe.
    pub(super) fn turn(&mut self, why: Why, tools: &mut Tools<'_>) -> Turn {
        let mut turn = Turn::default();
        let now = clock::monotonic_us();
        let outcome = match &self.trouble {
            Some(t) if now < t.retry => self.endure(now, tools, &mut turn),
            Some(_) => self.work(Why::Due, now, tools, &mut turn),
            None => self.work(why, now, tools, &mut turn),
        };
        turn.next = match outcome {
            Ok(next) => next,
            Err(e) => self.fail(&e),
        };
        turn
    }

    fn work(&mut self, why: Why, now: u64, tools: &mut Tools<'_>, turn: &mut Turn) -> io::Result<Next> {
        let feed = self.feed.clone();
        let mut intake = feed.intake();
        self.follow(&intake);
        let fresh = intake.record.is_none() && !tools.vault.has_left(&feed.service, feed.which);
        if !fresh {
            let record = intake.record(tools.vault, &feed.service, feed.which)?;
            intake = self.settle(&feed, intake, record, tools, turn)?;
        }
        let Some(source) = intake.queue.front() else {
            drop(intake);
            self.trouble = None;
            self.close();
            return Ok(Next::Nothing);
        };
        let (capacity, finishing) = (source.capacity, source.finishing.is_some());
        let fill = source.fill()?;
        if fill == 0 {
            let end = pipe::ended(source.pipe.as_fd()) && source.fill()? == 0;
            self.delay = QUIET;
            if !end && !finishing {
                return Ok(Next::Arm);
            }
            turn.retired.extend(intake.queue.pop_front());
            return Ok(Next::At(now));
        }
        if fill == self.partial && !finishing && !pipe::ended(source.pipe.as_fd()) {
            return Ok(Next::Grow);
        }
        let much = fill >= capacity / 4;
        if why == Why::Ready && !much && now < self.last + self.delay {
            return Ok(Next::At(self.last + self.delay));
        }
        let record = intake.record(tools.vault, &feed.service, feed.which)?;
        drop(intake);
        let left = self.take(fill, &feed, record, tools, turn)?;
        self.last = clock::monotonic_us();
        let Some(left) = left else {
            self.delay = QUIET;
            return Ok(Next::Grow);
        };
        if finishing && left == 0 {
            turn.retired.extend(feed.intake().queue.pop_front());
            return Ok(Next::At(now));
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

    /// Takes over what was changed from outside.
    fn follow(&mut self, intake: &Intake) {
        if intake.spec != self.spec {
            if self.spec.dir != intake.spec.dir {
                self.feed.told.begin(None);
            }
            self.spec = intake.spec.clone();
            self.store.update(self.feed.place(&self.spec), Limits::from(&self.spec));
            self.marks.close();
        }
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

    /// Writes what comes before anything that is still in a service's pipe: what was taken earlier, then the
    /// line that tells what was dropped. What it returns has neither.
    fn settle<'f>(
        &mut self,
        feed: &'f Feed,
        mut intake: MutexGuard<'f, Intake>,
        record: u32,
        tools: &mut Tools<'_>,
        turn: &mut Turn,
    ) -> io::Result<MutexGuard<'f, Intake>> {
        let stream = tools.vault.ledger.stream(record);
        loop {
            let (sound, untold) = (stream.doubtful().is_none(), stream.untold());
            if sound && intake.staged.is_empty() && untold == Count::default() && self.trouble.is_none() {
                return Ok(intake);
            }
            let staged = if sound { intake.staged.pop_front() } else { None };
            drop(intake);
            (tools.step)();
            self.announce();
            match staged {
                Some(stage) => {
                    let stage = self.pour((stage, false), feed, tools, turn)?;
                    tools.vault.give_back(stage);
                }
                None if !sound => self.file(turn).repair(tools.vault, record)?,
                None if untold != Count::default() => self.file(turn).tell(tools.vault, record, untold)?,
                // Nothing to write that would show whether it can be written again.
                None => drop(self.store.ready()?),
            }
            self.trouble = None;
            intake = feed.intake();
        }
    }

    fn file<'a>(&'a mut self, turn: &'a mut Turn) -> File<'a> {
        let form = Form::of(&self.spec, self.feed.which);
        File { store: &mut self.store, form, rotated: &mut turn.rotated }
    }

    /// Moves `fill` bytes, as far as they are there and a turn allows; returns what is left of them. `None`:
    /// only the beginning of a line is left, and its end has not come yet.
    fn take(
        &mut self,
        fill: usize,
        feed: &Feed,
        record: u32,
        tools: &mut Tools<'_>,
        turn: &mut Turn,
    ) -> io::Result<Option<usize>> {
        let batch =
            usize::try_from(self.spec.max_size.saturating_mul(STEPS)).unwrap_or(tools.most).min(tools.most);
        let mut taken = 0;
        while taken < fill.min(tools.most) {
            (tools.step)();
            // Before anything is taken: what cannot be written is better off in the service's pipe.
            self.store.ready()?;
            self.announce();
            self.marks.writing(&mut self.store);
            let intake = self.settle(feed, feed.intake(), record, tools, turn)?;
            let Some(source) = intake.queue.front() else { return Ok(Some(0)) };
            let (most, begun) = match self.spec.format {
                LogFormat::Raw => (batch.min(fill - taken), false),
                LogFormat::Timestamp | LogFormat::Json => {
                    let form = Form::of(&self.spec, feed.which);
                    match source.lines(&form, &mut tools.dropper.scratch)? {
                        Some(most) => most,
                        None => {
                            self.partial = source.fill()?;
                            return Ok((taken > 0).then_some(0));
                        }
                    }
                }
            };
            let stage = match tools.stage.take() {
                Some(stage) => stage,
                None => tools.vault.stage(true)?,
            };
            stage.label(&tools.vault.ledger).give(record);
            let got = stage.take_from(source.pipe.as_fd(), most);
            drop(intake);
            *tools.stage = Some(self.pour((stage, begun), feed, tools, turn)?);
            match got? {
                0 => return Ok(Some(0)),
                n => taken += n,
            }
        }
        Ok(Some(fill.saturating_sub(taken)))
    }

    /// Writes what is in the stage and gives it back empty. What cannot be written waits with the feed.
    fn pour(
        &mut self,
        (mut stage, begun): (Stage, bool),
        feed: &Feed,
        tools: &mut Tools<'_>,
        turn: &mut Turn,
    ) -> io::Result<Stage> {
        let mut moved = 0;
        let mut file = self.file(turn);
        let done =
            file.pour((&stage, begun), tools.vault, &mut tools.dropper.scratch, tools.step, &mut moved);
        feed.account.counters.moved(moved);
        turn.bytes += moved;
        match done {
            Ok(()) => Ok(stage),
            Err(e) => {
                stage.shrink();
                feed.intake().staged.push_front(stage);
                Err(e)
            }
        }
    }

    fn fail(&mut self, error: &io::Error) -> Next {
        let now = clock::monotonic_us();
        let path = self.store.path();
        // Whoever repairs a file system has to be able to unmount it.
        self.close();
        let full = match self.spec.on_full {
            OnFull::Drop => "output waits in the pipe, and is dropped and counted when that is full",
            OnFull::Block => "output waits in the pipe, and the service waits when that is full",
        };
        let message = format!("cannot write {}: {error}; {full}", path.display());
        let (look, fill) = self.trouble.as_ref().map_or((LOOK.0, 0), |t| (t.look, t.fill));
        self.trouble = Some(Trouble { message, retry: now + RETRY, look, fill });
        Next::At(now + look)
    }

    /// Keeps the services from waiting while nothing can be written.
    fn endure(&mut self, now: u64, tools: &mut Tools<'_>, turn: &mut Turn) -> io::Result<Next> {
        let shed = self.feed.shed(now, tools.vault, tools.dropper)?;
        turn.retired.extend(shed.retired);
        let Some(trouble) = &mut self.trouble else { return Ok(Next::At(now)) };
        let rises = shed.dropped.bytes > 0 || shed.fill > trouble.fill + shed.capacity / 8;
        trouble.look = if rises { LOOK.0 } else { trouble.look * 2 };
        trouble.look = trouble.look.clamp(LOOK.0, LOOK.1);
        trouble.fill = shed.fill;
        Ok(Next::At(trouble.retry.min(now + trouble.look)))
    }
}
