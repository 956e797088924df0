//! The one timer for rotations by time of all files of a writer: it wakes a writer at the earliest of them, and when
//! the wall clock is set.

use crate::sys::{
    poller::{Arm, Poller},
    timer::WallTimer,
};
use std::{io, os::fd::AsFd};

/// What the poller says when it went off.
pub(super) const CALENDAR: u64 = u64::MAX - 2;

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Calendar {
    timer: WallTimer,
    /// Milliseconds since 1970.
    at: Option<u64>,
    armed: Option<u64>,
    known: bool,
}

impl Calendar {
    pub(super) fn new() -> io::Result<Calendar> {
        Ok(Calendar { timer: WallTimer::new()?, at: None, armed: None, known: false })
    }

    /// Somebody is due at this time.
    pub(super) fn not_later_than(&mut self, due_ms: Option<u64>) {
        self.at = self.at.into_iter().chain(due_ms).min();
    }

    /// It went off; everybody is asked again.
    pub(super) fn clear(&mut self) {
        self.at = None;
        self.armed = None;
        // Setting it, or off, is also what makes an expired timer quiet.
        let _ = self.timer.set(None);
    }

    /// Lets it go off at the earliest time that was named.
    pub(super) fn arm(&mut self, poller: &Poller) {
        if self.at == self.armed {
            return;
        }
        // Where that fails, files are rotated with the first write after their time.
        let set = self.timer.set(self.at).is_ok()
            && poller.watches().arm(self.timer.as_fd(), CALENDAR, self.known, Arm::Once).is_ok();
        self.known |= set;
        self.armed = self.at;
    }
}
