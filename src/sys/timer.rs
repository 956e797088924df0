//! Timers: on CLOCK_BOOTTIME, which goes off in time after a suspend too, and on the wall clock.

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

/// Becomes readable at a time of the wall clock, and when that is set.
#[derive(Debug)]
pub struct WallTimer(TimerFd);

impl WallTimer {
    /// A timer that is not set.
    pub fn new() -> Result<WallTimer> {
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        Ok(WallTimer(TimerFd::new(ClockId::CLOCK_REALTIME, flags)?))
    }

    /// Sets it to milliseconds since 1970; one that is past goes off at once. `None` switches it off, and then
    /// it does not notice that the clock is set either.
    pub fn set(&self, at_ms: Option<u64>) -> Result<()> {
        let Some(ms) = at_ms else { return self.0.unset() };
        let at = TimeSpec::from_duration(Duration::from_millis(ms.max(1)));
        let flags = TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET;
        self.0.set(Expiration::OneShot(at), flags)
    }
}

impl AsFd for WallTimer {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
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
