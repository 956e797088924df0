//! Timers: on CLOCK_BOOTTIME, which goes off in time after a suspend too, and on the wall clock.

use super::{Errno, Result};
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
        let Some(ms) = at_ms else { return self.switch_off() };
        let at = |ms| Expiration::OneShot(TimeSpec::from_duration(Duration::from_millis(ms)));
        let flags = TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET;
        match self.0.set(at(ms.max(1)), flags) {
            // The clock was set a moment ago, which is told here and nowhere else: time to look.
            Err(Errno::ECANCELED) => self.0.set(at(1), TimerSetTimeFlags::TFD_TIMER_ABSTIME),
            done => done,
        }
    }

    fn switch_off(&self) -> Result<()> {
        // That the clock was set is told until it is read, by the next `set` too.
        let _ = self.0.wait();
        self.0.unset()
    }
}

impl AsRawFd for WallTimer {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::clock;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

    fn goes_off(timer: &WallTimer) -> bool {
        let mut fds = [PollFd::new(timer.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::from(20_000_u16)).unwrap() == 1
    }

    /// By a microsecond; false if we may not.
    fn set_the_clock(back: bool) -> bool {
        const ADJ_SETOFFSET: libc::c_uint = 0x0100;
        // SAFETY: all zeros is a timex, which asks for nothing.
        let mut by: libc::timex = unsafe { std::mem::zeroed() };
        by.modes = ADJ_SETOFFSET;
        (by.time.tv_sec, by.time.tv_usec) = if back { (-1, 999_999) } else { (0, 1) };
        // SAFETY: `by` is a timex that the kernel may write to.
        (unsafe { libc::adjtimex(&raw mut by) }) != -1
    }

    #[test]
    fn a_wall_timer_goes_on_after_the_clock_was_set() {
        let timer = WallTimer::new().unwrap();
        let far = || Some(clock::wall_ms() + 3_600_000);
        timer.set(far()).unwrap();
        if !set_the_clock(false) {
            return;
        }
        assert!(goes_off(&timer), "nobody is told that the clock was set");
        timer.set(None).unwrap();
        timer.set(Some(clock::wall_ms() + 20)).unwrap();
        assert!(goes_off(&timer));
        // Set while it is being set: whoever sets it must look again.
        timer.set(far()).unwrap();
        assert!(set_the_clock(true));
        timer.set(far()).unwrap();
        assert!(goes_off(&timer));
    }
}
