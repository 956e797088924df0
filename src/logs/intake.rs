//! The pipe side of one stream: the pipes of its runs, oldest first, what was taken from them and waits for the
//! file, and what is dropped when nothing can be written. Held by the writer only while bytes move between
//! pipes, never while it writes: so the guard can do for a writer that is stuck what has to be done.
//!
//! The service's own pipe is the ring that holds its newest output. When it is more than half full, so that
//! the service would soon wait, the oldest lines are dropped and counted. The rest of a line whose beginning is
//! on its way to the file is not: it waits in a stage of its own.

use super::{
    format::Form,
    ledger::Count,
    scratch::{GLANCE, Look, Scratch},
    stage::Stage,
    vault::{Vault, line_ends},
};
use crate::{
    plan::{LogSpec, OnFull, RunId},
    sys::pipe,
};
use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, OwnedFd},
};

/// How long a finished run waits for the trouble to end before its rest is dropped, in microseconds.
pub(super) const PATIENCE: u64 = 10_000_000;

/// The pipe of one run.
#[derive(Debug)]
pub(super) struct Source {
    pub(super) run: RunId,
    pub(super) pipe: OwnedFd,
    /// The poller has it.
    pub(super) known: bool,
    /// And tells whenever more comes, not once.
    pub(super) growing: bool,
    pub(super) capacity: usize,
    /// Its run is over; when what is left is not waited for any more.
    pub(super) finishing: Option<u64>,
}

impl Source {
    pub(super) fn new(run: RunId, pipe: OwnedFd) -> Source {
        let capacity = pipe::capacity(pipe.as_fd()).unwrap_or(0).max(4096);
        Source { run, pipe, known: false, growing: false, capacity, finishing: None }
    }

    pub(super) fn fill(&self) -> io::Result<usize> {
        pipe::fill(self.pipe.as_fd())
    }

    /// How many of its first bytes are whole lines, or lines that are too long to wait for their end, and whether they
    /// end within a line; `None`: none.
    pub(super) fn lines(&self, form: &Form<'_>, scratch: &mut Scratch) -> io::Result<Option<(usize, bool)>> {
        let pipe = self.pipe.as_fd();
        let whole = self.finishing.is_some() || pipe::ended(pipe);
        let fill = self.fill()?;
        let Look::Bytes(seen) = scratch.look_at(pipe, GLANCE.max(form.max_line + 1))? else {
            return Ok(Some((0, false)));
        };
        if let Some(at) = seen.iter().rposition(|b| *b == b'\n') {
            return Ok(Some((at + 1, false)));
        }
        let long = seen.len() > form.max_line;
        // A pipe that can hold no more of it, or a look that shows no more of it, is as good as its end.
        let stuffed = fill >= self.capacity / 2 || seen.len() < fill;
        let most = if long { form.max_line } else { seen.len() };
        Ok((long || whole || stuffed).then_some((most, !(whole && seen.len() == fill))))
    }

    fn half_full(&self) -> bool {
        self.fill().is_ok_and(|n| n >= self.capacity / 2)
    }
}

/// What somebody needs to drop bytes.
#[derive(Debug)]
pub(super) struct Dropper {
    pub(super) scratch: Scratch,
    stage: Option<Stage>,
}

impl Dropper {
    /// What it looks with is kept like a stage: the next process gets it back, where it may not be granted
    /// another as large while many services' output waits.
    pub(super) fn new(vault: &Vault) -> io::Result<Dropper> {
        let stage = vault.stage(true)?;
        stage.label(&vault.ledger).clear();
        Ok(Dropper { scratch: Scratch::over(stage), stage: None })
    }
}

/// What became of an attempt to keep a service from waiting.
#[derive(Debug, Default)]
pub(super) struct Shed {
    pub(super) dropped: Count,
    pub(super) retired: Vec<Source>,
    /// Bytes that are left in the oldest pipe, and what it holds at most.
    pub(super) fill: usize,
    pub(super) capacity: usize,
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Intake {
    pub(super) queue: VecDeque<Source>,
    /// What was taken and is not in the file yet; older than all in the queue.
    pub(super) staged: VecDeque<Stage>,
    pub(super) spec: LogSpec,
    /// Its record in the ledger, from the first output on.
    pub(super) record: Option<u32>,
}

impl Intake {
    pub(super) fn new(spec: LogSpec) -> Intake {
        Intake { queue: VecDeque::new(), staged: VecDeque::new(), spec, record: None }
    }

    /// Marks the run's pipe: it is done once it is drained. False: it is not here (any more).
    pub(super) fn finish(&mut self, run: RunId, now: u64) -> bool {
        let mut sources = self.queue.iter_mut().filter(|s| s.run == run);
        sources.next().map(|s| s.finishing = s.finishing.or(Some(now + PATIENCE))).is_some()
    }

    /// The stream's record, and with it what an earlier process left.
    ///
    /// # Errors
    /// If there is no room for one.
    pub(super) fn record(
        &mut self,
        vault: &Vault,
        name: &crate::plan::Name,
        which: usize,
    ) -> io::Result<u32> {
        if let Some(record) = self.record {
            return Ok(record);
        }
        let Some((record, stages)) = vault.claim(name, which) else {
            return Err(io::Error::other("there are too many outputs"));
        };
        self.staged.extend(stages);
        self.record = Some(record);
        Ok(record)
    }

    /// Keeps the services from waiting while nothing can be written, where that is wanted.
    pub(super) fn shed(&mut self, now: u64, vault: &Vault, dropper: &mut Dropper) -> io::Result<Shed> {
        let mut shed = Shed::default();
        while let Some(source) = self.queue.front() {
            let fill = source.fill()?;
            (shed.fill, shed.capacity) = (fill, source.capacity);
            if self.spec.on_full == OnFull::Block {
                break;
            }
            let waited = source.finishing.is_some_and(|deadline| now >= deadline);
            let over =
                waited || source.finishing.is_some() && self.queue.iter().skip(1).any(Source::half_full);
            let target = match () {
                () if over => 0,
                () if fill > source.capacity / 2 => source.capacity / 4,
                () => fill,
            };
            let finishing = source.finishing.is_some();
            if fill > target {
                shed.fill = self.reduce(fill, target, vault, dropper, &mut shed.dropped)?;
            }
            let Some(source) = self.queue.front() else { break };
            let empty = shed.fill == 0;
            if !(empty && (finishing || pipe::ended(source.pipe.as_fd()) && source.fill()? == 0)) {
                break;
            }
            shed.retired.extend(self.queue.pop_front());
        }
        Ok(shed)
    }

    /// Drops from the oldest pipe until no more than `target` of its `fill` bytes are left; how many are.
    fn reduce(
        &mut self,
        fill: usize,
        target: usize,
        vault: &Vault,
        dropper: &mut Dropper,
        dropped: &mut Count,
    ) -> io::Result<usize> {
        let (Some(record), Some(source)) = (self.record, self.queue.front()) else { return Ok(fill) };
        let mut left = fill;
        if vault.ledger.stream(record).untold() == Count::default()
            && let Some((stage, rest)) = rest_of_line(source, record, vault, dropper)
        {
            self.staged.push_back(stage);
            left = left.saturating_sub(rest);
        }
        while left > target {
            let gone = discard(source, record, left, vault, dropper)?;
            if gone.bytes == 0 {
                break;
            }
            dropped.bytes += gone.bytes;
            dropped.lines += gone.lines;
            left = left.saturating_sub(usize::try_from(gone.bytes).unwrap_or(usize::MAX));
        }
        Ok(left)
    }
}

/// Saves the first line from being dropped: its beginning may be on its way to the file already. Where no stage
/// is to be had for it, the line is torn, and what is dropped of it is counted.
fn rest_of_line(
    source: &Source,
    record: u32,
    vault: &Vault,
    dropper: &mut Dropper,
) -> Option<(Stage, usize)> {
    let pipe = source.pipe.as_fd();
    let Look::Bytes(seen) = dropper.scratch.look(pipe).ok()? else { return None };
    let len = seen.iter().position(|b| *b == b'\n')? + 1;
    let mut stage = vault.stage(false).ok()?;
    stage.label(&vault.ledger).give(record);
    match stage.take_from(pipe, len) {
        Ok(taken @ 1..) => {
            stage.shrink();
            Some((stage, taken))
        }
        _ => {
            vault.give_back(stage);
            None
        }
    }
}

/// Drops the first `most` bytes of a pipe, or fewer so that a line ends there. The bytes go to a stage that is
/// labelled for it, are counted, and only then thrown away. Zero: the pipe is empty.
fn discard(
    source: &Source,
    record: u32,
    most: usize,
    vault: &Vault,
    dropper: &mut Dropper,
) -> io::Result<Count> {
    let pipe = source.pipe.as_fd();
    let stage = match dropper.stage.take() {
        Some(stage) => stage,
        None => vault.stage(true)?,
    };
    let stage = dropper.stage.insert(stage);
    let Look::Bytes(seen) = dropper.scratch.look_at(pipe, most.min(GLANCE))? else {
        return Ok(Count::default());
    };
    let cut = seen.iter().rposition(|b| *b == b'\n').map_or(seen.len(), |i| i + 1);
    let mut gone = Count::default();
    // In one step, unless the host keeps the stage small.
    while gone.bytes < cut as u64 {
        let rest = &seen[usize::try_from(gone.bytes).unwrap_or(cut)..cut];
        stage.label(&vault.ledger).condemn(record);
        let taken = stage.take_from(pipe, rest.len())?;
        let count = Count { bytes: taken as u64, lines: line_ends(&rest[..taken]) };
        vault.ledger.stream(record).dropped().add(count);
        stage.discard(vault.null(), taken)?;
        gone = Count { bytes: gone.bytes + count.bytes, lines: gone.lines + count.lines };
        if taken == 0 {
            break;
        }
    }
    Ok(gone)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs::File, io::Write};

    /// As where the user of the manager has as many pages in pipes as the host grants.
    #[test]
    fn no_line_is_torn_where_stages_are_small() {
        let vault = Vault::alone().unwrap();
        let (output, input) = pipe::pair().unwrap();
        let lines: String = (0..600).map(|n| format!("line {n} {}\n", "x".repeat(n % 90))).collect();
        File::from(input).write_all(lines.as_bytes()).unwrap();
        let source = Source::new(RunId(1), output);
        let stage = Stage::create(0, 4096).unwrap();
        assert_eq!(stage.capacity, 4096);
        let mut dropper = Dropper { scratch: Scratch::new().unwrap(), stage: Some(stage) };
        let gone = discard(&source, 0, lines.len() - 10, &vault, &mut dropper).unwrap();
        let (before, rest) = lines.split_at(usize::try_from(gone.bytes).unwrap());
        assert!(before.ends_with('\n') && rest.lines().count() == 1, "{gone:?}");
        assert_eq!((gone.lines, vault.ledger.stream(0).dropped().get()), (599, gone));
        assert_eq!(source.fill().unwrap(), rest.len());
    }
}
