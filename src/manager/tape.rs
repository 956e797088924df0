//! The events in memory that outlives this process: two memfds that the keeper keeps, one JSON object a line, written
//! in turn. When both are full, the older half goes. A manager that is killed while it writes leaves at most a torn
//! last line, of an event that nobody has seen.

use crate::{
    logs::Keep,
    sys::{Errno, memory},
    wire,
};
use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::FileExt,
    },
};

/// Under which name the keeper keeps it.
pub(super) const NAME: &str = "events";
/// Bytes of one side.
const SIDE: u64 = 1 << 20;

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Tape {
    sides: [File; 2],
    /// The side that is written, and how far it is.
    at: (usize, u64),
}

impl Tape {
    /// A new one, empty.
    ///
    /// # Errors
    /// If no memory is to be had or the keeper cannot be asked.
    pub(super) fn new(keeper: impl Fn(Keep<'_>) -> io::Result<()>) -> io::Result<Tape> {
        let side = || memory::create(c"keepd-events").map_err(|e: Errno| io::Error::from(e));
        let (a, b) = (side()?, side()?);
        keeper(Keep::Hold(NAME, &[a.as_fd(), b.as_fd()]))?;
        Ok(Tape { sides: [a.into(), b.into()], at: (0, 0) })
    }

    /// What an earlier manager left: the tape, and its events, oldest first. `None`: it is none.
    ///
    /// # Errors
    /// Of reading it.
    pub(super) fn found(fds: Vec<OwnedFd>) -> io::Result<Option<(Tape, Vec<wire::Event>)>> {
        let Ok([a, b]) = <[OwnedFd; 2]>::try_from(fds) else { return Ok(None) };
        let sides = [File::from(a), File::from(b)];
        let [first, second] = [read(&sides[0])?, read(&sides[1])?];
        let newest = |side: &(Vec<wire::Event>, u64)| side.0.last().map_or(0, |e| e.id);
        let at = if newest(&second) > newest(&first) { (1, second.1) } else { (0, first.1) };
        let mut events = first.0;
        events.extend(second.0);
        events.sort_by_key(|e| e.id);
        Ok(Some((Tape { sides, at }, events)))
    }

    /// Appends an event.
    ///
    /// # Errors
    /// If no memory is to be had.
    pub(super) fn push(&mut self, event: &wire::Event) -> io::Result<()> {
        let mut line = serde_json::to_vec(event)?;
        line.push(b'\n');
        if self.at.1 + line.len() as u64 > SIDE {
            self.at = (1 - self.at.0, 0);
            self.sides[self.at.0].set_len(0)?;
        }
        let (side, end) = self.at;
        self.sides[side].write_all_at(&line, end)?;
        self.at.1 = end + line.len() as u64;
        Ok(())
    }
}

/// The whole lines of a side, and where they end.
fn read(side: &File) -> io::Result<(Vec<wire::Event>, u64)> {
    let length = usize::try_from(side.metadata()?.len().min(SIDE)).unwrap_or(0);
    let mut text = vec![0; length];
    side.read_exact_at(&mut text, 0)?;
    let (mut events, mut end) = (Vec::new(), 0);
    for line in text.split_inclusive(|b| *b == b'\n') {
        match serde_json::from_slice(line) {
            Ok(event) if line.ends_with(b"\n") => events.push(event),
            Ok(_) | Err(_) => break,
        }
        end += line.len() as u64;
    }
    Ok((events, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(id: u64, message: &str) -> wire::Event {
        wire::Event { id, kind: "state".into(), message: message.into(), ..wire::Event::default() }
    }

    /// The tape as the next manager gets it.
    fn next(tape: &Tape) -> (Tape, Vec<u64>) {
        let fds = tape.sides.iter().map(|s| s.try_clone().unwrap().into()).collect();
        let (tape, events) = Tape::found(fds).unwrap().unwrap();
        (tape, events.iter().map(|e| e.id).collect())
    }

    #[test]
    fn the_next_manager_goes_on_behind_the_last_whole_event() {
        let mut tape = Tape::new(|_| Ok(())).unwrap();
        tape.push(&event(1, "a")).unwrap();
        tape.push(&event(2, "b")).unwrap();
        // The first byte of the third was written, no more.
        tape.sides[0].write_all_at(b"{", tape.at.1).unwrap();
        let (mut tape, ids) = next(&tape);
        assert_eq!(ids, [1, 2]);
        tape.push(&event(3, "c")).unwrap();
        assert_eq!(next(&tape).1, [1, 2, 3]);
    }

    #[test]
    fn the_newest_stay_when_it_is_full_and_memory_is_bounded() {
        let mut tape = Tape::new(|_| Ok(())).unwrap();
        let long = "x".repeat(100_000);
        for id in 1..=45 {
            tape.push(&event(id, &long)).unwrap();
        }
        let (tape, ids) = next(&tape);
        assert_eq!(ids.last(), Some(&45));
        assert!(ids.len() >= 10 && ids.windows(2).all(|w| w[0] + 1 == w[1]), "{ids:?}");
        assert!(tape.sides.iter().all(|s| s.metadata().unwrap().len() <= SIDE));
    }

    #[test]
    fn what_is_no_tape_is_none() {
        assert!(Tape::found(Vec::new()).unwrap().is_none());
    }
}
