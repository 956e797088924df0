//! Low descriptor numbers for what a child needs of the keeper's.
//!
//! The keeper holds descriptors of every run. A child that inherits them all pays for each of them twice, at
//! the fork and at the exec: with a thousand services a seventh of the time of a launch went into closing
//! alone (perf, Linux 6.18). So a child is forked with the keeper's table and at once takes a table of its own
//! with the low numbers only ([`process::spawn_narrow`]). Until it says so, the numbers that it needs must not
//! change: they are a slot, and the slot is free again once the child has said that it does not share any more.

#![forbid(unsafe_code)]

use crate::sys::{self, fd, process};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Launches that can be under way in this manner at once; more are forked in the ordinary way.
const SLOTS: usize = 16;
/// The keeper's own descriptors, those of no run, are below.
const FIRST: i32 = 32;

/// See the head of the file.
#[derive(Debug)]
pub(super) struct Slots {
    null: OwnedFd,
    slots: Vec<Slot>,
    /// Descriptors from this number on are for the keeper alone.
    pub(super) end: u32,
}

#[derive(Debug)]
struct Slot {
    /// Status pipe, stdout, stderr; /dev/null where there is none or the slot is free.
    fds: [OwnedFd; 3],
    busy: bool,
}

/// What a child finds in its slot.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lent<'a> {
    pub(super) status: BorrowedFd<'a>,
    pub(super) stdout: BorrowedFd<'a>,
    pub(super) stderr: BorrowedFd<'a>,
}

impl Slots {
    /// Takes the numbers; an error where the kernel has not what it takes.
    pub(super) fn new(proof: process::SingleThread) -> sys::Result<Slots> {
        process::can_spawn_narrow(proof)?;
        let null = fd::open_null()?;
        let mut slots = Vec::with_capacity(SLOTS);
        for _ in 0..SLOTS {
            let place = || fd::duplicate_from(null.as_fd(), FIRST);
            slots.push(Slot { fds: [place()?, place()?, place()?], busy: false });
        }
        let numbers = slots.iter().flat_map(|s| &s.fds).map(|f| f.as_raw_fd());
        let end = numbers.max().and_then(|n| u32::try_from(n + 1).ok()).unwrap_or(u32::MAX);
        Ok(Slots { null, slots, end })
    }

    /// Copies these into a free slot; `None` where none is free.
    pub(super) fn take(
        &mut self,
        status: BorrowedFd<'_>,
        pipes: [Option<BorrowedFd<'_>>; 2],
    ) -> sys::Result<Option<usize>> {
        let Some(index) = self.slots.iter().position(|s| !s.busy) else { return Ok(None) };
        let slot = &mut self.slots[index];
        slot.busy = true;
        let wanted = [Some(status), pipes[0], pipes[1]];
        for (place, from) in slot.fds.iter().zip(wanted) {
            if let Some(from) = from
                && let Err(e) = fd::replace(place, from)
            {
                self.release(index);
                return Err(e);
            }
        }
        Ok(Some(index))
    }

    /// What is in a slot.
    pub(super) fn lent(&self, index: usize) -> Lent<'_> {
        let [status, stdout, stderr] = &self.slots[index].fds;
        Lent { status: status.as_fd(), stdout: stdout.as_fd(), stderr: stderr.as_fd() }
    }

    /// The numbers of the other slots, which a child closes: they would keep other launches' pipes open.
    pub(super) fn others(&self, index: usize) -> [(u32, u32); 2] {
        let number = |f: &OwnedFd| u32::try_from(f.as_raw_fd()).unwrap_or(u32::MAX);
        let own = self.slots[index].fds.iter().map(number);
        let (low, high) = own.fold((u32::MAX, 0), |(low, high), n| (low.min(n), high.max(n)));
        let first = self.slots.iter().flat_map(|s| &s.fds).map(number).min().unwrap_or(low);
        [(first, low), (high + 1, self.end)]
    }

    /// The child has a table of its own, or has ended.
    pub(super) fn release(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        slot.busy = false;
        for place in &slot.fds {
            // It can only fail for want of memory, and then something harmless stays open.
            let _ = fd::replace(place, self.null.as_fd());
        }
    }
}
