//! Stages and records that outlive this process: makes them, has the keeper keep them, and takes over what an
//! earlier process left in them. Knows no service's pipes and no files.

use super::{
    ledger::{BYTES, Count, Ledger, STAGES, STREAMS},
    scratch::{Look, Scratch},
    stage::Stage,
};
use crate::{
    plan::Name,
    sys::{self, shared},
};
use std::{
    collections::HashMap,
    fmt, io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{Mutex, MutexGuard},
};

/// What somebody who outlives us is asked to do with descriptors of ours. It must be done, or certain to be
/// done, when the call returns.
#[derive(Debug, Clone, Copy)]
pub enum Keep<'a> {
    /// Keep these under a name, in place of what is kept under it.
    Hold(&'a str, &'a [BorrowedFd<'a>]),
    /// Let go of what is kept under a name.
    Release(&'a str),
}

type Keeper = Box<dyn Fn(Keep<'_>) -> io::Result<()> + Send + Sync>;

/// Bytes of a stage that carries what is written, as those of a service's pipe.
const LARGE: usize = 1 << 20;
/// Bytes of a stage for the rest of one line.
const SMALL: usize = 64 << 10;
/// Empty stages that are kept for the next who needs one.
const IDLE: usize = 4;
const LEDGER: &str = "ledger";

/// See the head of this file.
pub struct Vault {
    pub(super) ledger: Ledger,
    /// The same, for whoever finds this process without its keeper: mapped memory alone cannot be taken over.
    _memory: OwnedFd,
    null: OwnedFd,
    keeper: Keeper,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    idle: Vec<Stage>,
    /// Numbers of stages that nobody has.
    free: Vec<u32>,
    stages: u32,
    /// Records that nobody has.
    unused: Vec<u32>,
    /// What an earlier process left: records, and stages with the oldest first.
    left: HashMap<(String, usize), Left>,
}

/// What an earlier process left of one stream.
#[derive(Debug)]
pub(super) struct Left {
    record: u32,
    stages: Vec<Stage>,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Vault {
    /// From what an earlier process had kept, under the names it gave; nothing, the first time.
    ///
    /// # Errors
    /// If the keeper cannot be asked, or no memory is to be had.
    pub fn new(
        kept: Vec<(String, Vec<OwnedFd>)>,
        keeper: impl Fn(Keep<'_>) -> io::Result<()> + Send + Sync + 'static,
    ) -> io::Result<Vault> {
        let (mut memory, mut stages) = (None, Vec::new());
        for (name, fds) in kept {
            let number = name.strip_prefix("stage-").and_then(|n| n.parse().ok()).filter(|n| *n < STAGES);
            match (name.as_str(), number, <[OwnedFd; 2]>::try_from(fds)) {
                (LEDGER, _, Err(fds)) => memory = fds.into_iter().next(),
                (_, Some(number), Ok([output, input])) => stages.push(Stage::new(number, output, input)),
                _ => tracing::error!("cannot use what was kept as {name}; it is left alone"),
            }
        }
        let memory = match memory {
            Some(fd) => fd,
            None => {
                let fd = shared::create(c"keepd-ledger", BYTES)?;
                keeper(Keep::Hold(LEDGER, &[fd.as_fd()]))?;
                fd
            }
        };
        let words = shared::Words::new(memory.as_fd())?;
        let vault = Vault {
            ledger: Ledger::new(Box::new(words)),
            _memory: memory,
            null: sys::fd::open_null()?,
            keeper: Box::new(keeper),
            state: Mutex::default(),
        };
        vault.take_over(stages)?;
        Ok(vault)
    }

    /// One whose contents end with this process.
    ///
    /// # Errors
    /// If no memory is to be had.
    pub fn alone() -> io::Result<Vault> {
        Vault::new(Vec::new(), |_| Ok(()))
    }

    fn take_over(&self, mut stages: Vec<Stage>) -> io::Result<()> {
        stages.sort_by_key(|s| s.label(&self.ledger).sequence());
        let mut state = self.state();
        let taken: Vec<u32> = stages.iter().map(|s| s.number).collect();
        state.stages = taken.iter().max().map_or(0, |n| n + 1);
        state.free = (0..state.stages).filter(|n| !taken.contains(n)).collect();
        for stage in stages {
            let label = stage.label(&self.ledger);
            if label.condemned().is_some() {
                self.finish_drop(&stage)?;
            }
            let owner = label.stream().and_then(|n| Some((n, self.ledger.stream(n).owner()?)));
            match owner.filter(|_| stage.fill().is_ok_and(|n| n > 0)) {
                Some((record, owner)) => {
                    let left = state.left.entry(owner);
                    left.or_insert_with(|| Left { record, stages: Vec::new() }).stages.push(stage);
                }
                None => {
                    stage.discard(self.null(), stage.fill()?)?;
                    label.written();
                    state.idle.push(stage);
                }
            }
        }
        for record in 0..self.ledger.streams_used() {
            let stream = self.ledger.stream(record);
            match stream.owner() {
                Some(owner) if stream.matters() || state.left.contains_key(&owner) => {
                    state.left.entry(owner).or_insert_with(|| Left { record, stages: Vec::new() });
                }
                _ => {
                    stream.release();
                    state.unused.push(record);
                }
            }
        }
        Ok(())
    }

    /// Counts what lies in a condemned stage and was not counted when its process was killed, and throws all of
    /// it away: look by look, because the host may not grant a pipe for more than a few pages at a time.
    fn finish_drop(&self, stage: &Stage) -> io::Result<()> {
        let label = stage.label(&self.ledger);
        let Some(stream) = label.stream() else { return Ok(()) };
        let mut scratch = Scratch::new()?;
        loop {
            let fill = stage.fill()?;
            if label.condemned() == Some(true) {
                let left = usize::try_from(label.left_out()).unwrap_or(0).min(fill);
                stage.discard(self.null(), fill - left)?;
                if left == 0 {
                    return Ok(());
                }
                label.condemn_rest();
            }
            let Look::Bytes(seen) = scratch.look(stage.output())? else { return Ok(()) };
            label.count_all_but(stage.fill()?.saturating_sub(seen.len()) as u64);
            let count = Count { bytes: seen.len() as u64, lines: line_ends(seen) };
            self.ledger.stream(stream).dropped().add(count);
        }
    }

    pub(super) fn null(&self) -> BorrowedFd<'_> {
        self.null.as_fd()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|p| p.into_inner())
    }

    /// An empty stage, which the keeper has too.
    pub(super) fn stage(&self, large: bool) -> io::Result<Stage> {
        let mut state = self.state();
        let wanted = if large { LARGE } else { 0 };
        if let Some(at) = state.idle.iter().position(|s| s.capacity >= wanted) {
            return Ok(state.idle.swap_remove(at));
        }
        let number = match state.free.pop() {
            Some(number) => number,
            None if state.stages < STAGES => {
                state.stages += 1;
                state.stages - 1
            }
            None => return Err(io::Error::other("too many outputs wait for their files")),
        };
        drop(state);
        let made = Stage::create(number, if large { LARGE } else { SMALL }).and_then(|stage| {
            (self.keeper)(Keep::Hold(&stage_name(number), &stage.ends()))?;
            Ok(stage)
        });
        if made.is_err() {
            self.state().free.push(number);
        }
        made
    }

    /// Takes a stage back, which is empty.
    pub(super) fn give_back(&self, mut stage: Stage) {
        let mut state = self.state();
        if state.idle.len() < IDLE && (stage.capacity >= LARGE || stage.resize(LARGE)) {
            return state.idle.push(stage);
        }
        // If it cannot be asked, it goes on to keep an empty pipe, which this number then replaces.
        let _ = (self.keeper)(Keep::Release(&stage_name(stage.number)));
        state.free.push(stage.number);
    }

    /// Whether an earlier process left something of this stream.
    pub(super) fn has_left(&self, name: &Name, which: usize) -> bool {
        let state = self.state();
        !state.left.is_empty() && state.left.contains_key(&(name.as_str().to_owned(), which))
    }

    /// The record of a stream, and what an earlier process left of it. `None`: there is no room for one.
    pub(super) fn claim(&self, name: &Name, which: usize) -> Option<(u32, Vec<Stage>)> {
        let mut state = self.state();
        if let Some(left) = state.left.remove(&(name.as_str().to_owned(), which)) {
            return Some((left.record, left.stages));
        }
        let used = self.ledger.streams_used();
        let record = match state.unused.pop() {
            Some(record) => record,
            None if used < STREAMS => {
                self.ledger.set_streams_used(used + 1);
                used
            }
            None => return None,
        };
        if !self.ledger.stream(record).claim(name.as_str(), which) {
            state.unused.push(record);
            return None;
        }
        Some((record, Vec::new()))
    }

    /// Nothing of the stream matters any more.
    pub(super) fn release(&self, record: u32) {
        self.ledger.stream(record).release();
        self.state().unused.push(record);
    }
}

/// How many lines end in `bytes`.
pub(super) fn line_ends(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|b| **b == b'\n').count() as u64
}

fn stage_name(number: u32) -> String {
    format!("stage-{number}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs::File, io::Write};

    /// More than one look shows, as where the host grants only small pipes.
    #[test]
    fn all_of_a_condemned_stage_is_counted() {
        for done in [0, 3] {
            let vault = Vault::alone().unwrap();
            assert!(vault.ledger.stream(0).claim("web", 0));
            vault.ledger.set_streams_used(1);
            let stage = vault.stage(true).unwrap();
            stage.label(&vault.ledger).condemn(0);
            let (_, input) = (stage.output(), stage.ends()[1].try_clone_to_owned().unwrap());
            let lines: Vec<String> = (0..20_000).map(|n| format!("line {n}\n")).collect();
            let text = lines.concat();
            File::from(input).write_all(text.as_bytes()).unwrap();
            if done > 0 {
                // Killed between counting the first lines and throwing them away.
                let first: usize = lines[..done].iter().map(String::len).sum();
                stage.label(&vault.ledger).count_all_but((text.len() - first) as u64);
                let count = Count { bytes: first as u64, lines: done as u64 };
                vault.ledger.stream(0).dropped().add(count);
            }
            vault.take_over(vec![stage]).unwrap();
            let all = Count { bytes: text.len() as u64, lines: 20_000 };
            assert_eq!(vault.ledger.stream(0).dropped().get(), all);
            let idle = vault.state().idle.pop().unwrap();
            assert_eq!(idle.fill().unwrap(), 0);
        }
    }
}
