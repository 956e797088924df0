//! One timer on CLOCK_BOOTTIME: it goes off in time after a suspend too.

use super::Result;
use nix::sys::{
    time::TimeSpec,
    timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
};
use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    time::Duration,
};

/// Becomes readable when it goes off.
#[derive(Debug)]
pub struct Timer(TimerFd);

impl Timer {
    /// A timer that is not set.
    pub fn new() -> Result<Timer> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        Ok(Timer(TimerFd::new(ClockId::CLOCK_BOOTTIME, flags)?))
    }

    /// Sets it to an absolute time in milliseconds of CLOCK_BOOTTIME; one that is past goes off at once.
    /// `None` switches it off.
    pub fn set(&self, at_ms: Option<u64>) -> Result<()> {
        let Some(ms) = at_ms else { return self.0.unset() };
        // All zeros would switch it off.
        let at = TimeSpec::from_duration(Duration::from_millis(ms.max(1)));
        self.0.set(Expiration::OneShot(at), TimerSetTimeFlags::TFD_TIMER_ABSTIME)
    }

    /// Makes it unreadable again after it has gone off.
    pub fn clear(&self) {
        // EAGAIN if it has not, which is just as well.
        let _ = self.0.wait();
    }
}

impl AsFd for Timer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Timer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}
