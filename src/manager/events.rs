//! The last events, numbered, and a way to wait for the next. They outlive this manager where there is a tape.

use super::tape::Tape;
use crate::wire;
use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
};
use tokio::sync::watch;

/// How many events are kept for those who come late.
pub const KEPT: usize = 4096;

/// A bounded log of events. Readers hold a position, never a queue: one that stops reading costs nothing.
#[derive(Debug)]
pub struct EventLog {
    kept: Mutex<VecDeque<wire::Event>>,
    last: watch::Sender<u64>,
    tape: Mutex<Option<Tape>>,
}

impl EventLog {
    /// An empty log whose next event has the number `next`.
    pub fn new(next: u64) -> EventLog {
        EventLog {
            kept: Mutex::default(),
            last: watch::Sender::new(next.saturating_sub(1)),
            tape: Mutex::new(None),
        }
    }

    /// A log that goes on behind these events, oldest first, and is written to the tape.
    pub(super) fn taped(tape: Tape, mut events: Vec<wire::Event>) -> EventLog {
        events.drain(..events.len().saturating_sub(KEPT));
        let next = events.last().map_or(1, |e| e.id + 1);
        EventLog { kept: Mutex::new(events.into()), tape: Mutex::new(Some(tape)), ..EventLog::new(next) }
    }

    /// Appends; the event's `id` is set here.
    pub fn push(&self, mut event: wire::Event) {
        let id = *self.last.borrow() + 1;
        event.id = id;
        // Before anybody sees it.
        let mut tape = self.tape.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Err(e)) = tape.as_mut().map(|tape| tape.push(&event)) {
            tracing::error!("events will not outlive this manager: {e}");
            *tape = None;
        }
        drop(tape);
        let mut kept = self.kept.lock().unwrap_or_else(|p| p.into_inner());
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(event);
        drop(kept);
        self.last.send_replace(id);
    }

    /// The number of the newest event.
    pub fn last(&self) -> u64 {
        *self.last.borrow()
    }

    /// Those after number `after` that are still kept, at most `limit`, oldest first.
    pub fn after(&self, after: u64, limit: usize) -> Vec<wire::Event> {
        let kept = self.kept.lock().unwrap_or_else(|p| p.into_inner());
        let from = kept.partition_point(|e| e.id <= after);
        kept.iter().skip(from).take(limit).cloned().collect()
    }

    /// Changes whenever an event is appended.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.last.subscribe()
    }
}
