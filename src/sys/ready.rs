//! Descriptors that a tokio runtime waits for.

use super::{
    timer::{Timer, WallTimer},
    watch::Watches,
};
use std::{io, os::fd::OwnedFd};
use tokio::io::{Interest, unix::AsyncFd};

/// Waits for a socket; must be called within a runtime.
pub fn socket(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an OwnedFd is the same open descriptor for as long as it exists, and AsyncFd owns it.
    unsafe { AsyncFd::register_with_interest(fd, interest).map_err(Into::into) }
}

/// Waits for a timer; must be called within a runtime.
pub fn timer(timer: Timer) -> io::Result<AsyncFd<Timer>> {
    // SAFETY: a Timer owns its descriptor and never replaces it; AsyncFd owns the Timer.
    unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE).map_err(Into::into) }
}

/// Waits for a time of the wall clock, and for that to be set; must be called within a runtime.
pub fn wall_timer(timer: WallTimer) -> io::Result<AsyncFd<WallTimer>> {
    // SAFETY: a WallTimer owns its descriptor and never replaces it; AsyncFd owns the WallTimer.
    unsafe { AsyncFd::register_with_interest(timer, Interest::READABLE).map_err(Into::into) }
}

/// Waits for changes of watched files; must be called within a runtime.
pub fn watches(watches: Watches) -> io::Result<AsyncFd<Watches>> {
    // SAFETY: Watches own their descriptor and never replace it; AsyncFd owns the Watches.
    unsafe { AsyncFd::register_with_interest(watches, Interest::READABLE).map_err(Into::into) }
}
