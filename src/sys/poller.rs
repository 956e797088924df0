//! Waiting in one thread for descriptors, for a point in time and for a nudge from another thread.

use nix::{
    errno::Errno,
    sys::{
        epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
        eventfd::{EfdFlags, EventFd},
        time::TimeSpec,
        timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
    },
};
use std::{io, os::fd::BorrowedFd, sync::Arc, time::Duration};

/// An epoll instance with a timer and a nudge.
#[derive(Debug)]
pub struct Poller {
    epoll: Epoll,
    timer: TimerFd,
    nudge: Arc<EventFd>,
    alarm: Option<u64>,
    fired: bool,
    events: Vec<EpollEvent>,
}

/// Wakes the poller that it came from.
#[derive(Debug, Clone)]
pub struct Nudge(Arc<EventFd>);

impl Nudge {
    /// Makes [`Poller::wait`] return.
    pub fn nudge(&self) {
        // It can only fail while 2^64 - 2 nudges are pending, and then the poller is awake anyway.
        let _ = self.0.write(1);
    }
}

const TIMER: u64 = u64::MAX;
const NUDGE: u64 = u64::MAX - 1;

impl Poller {
    /// Tokens of descriptors must be below `u64::MAX - 1`.
    pub fn new() -> io::Result<Poller> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let timer =
            TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK)?;
        let nudge = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        epoll.add(&timer, EpollEvent::new(EpollFlags::EPOLLIN, TIMER))?;
        epoll.add(&*nudge, EpollEvent::new(EpollFlags::EPOLLIN, NUDGE))?;
        Ok(Poller { epoll, timer, nudge, alarm: None, fired: false, events: vec![EpollEvent::empty(); 256] })
    }

    /// A handle for other threads.
    pub fn nudge(&self) -> Nudge {
        Nudge(self.nudge.clone())
    }

    /// Reports `token` once, when the descriptor is readable or at its end; call it again for the next time.
    pub fn arm(&self, fd: BorrowedFd, token: u64, known: bool) -> io::Result<()> {
        let mut event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT, token);
        Ok(if known { self.epoll.modify(fd, &mut event) } else { self.epoll.add(fd, event) }?)
    }

    /// Takes a descriptor out. Needed even before closing it: where another process holds a duplicate, the
    /// kernel would go on reporting it.
    pub fn remove(&self, fd: BorrowedFd) {
        let _ = self.epoll.delete(fd);
    }

    /// Waits until something happens and appends the tokens of ready descriptors to `ready`. Returns at the
    /// latest at `alarm`, in microseconds of CLOCK_MONOTONIC.
    pub fn wait(&mut self, alarm: Option<u64>, ready: &mut Vec<u64>) -> io::Result<()> {
        // Setting it again, or off, is also what makes an expired timer quiet.
        if self.fired || alarm != self.alarm {
            match alarm {
                None => self.timer.unset()?,
                // Zero would switch the timer off.
                Some(us) => self.timer.set(
                    Expiration::OneShot(TimeSpec::from_duration(Duration::from_micros(us.max(1)))),
                    TimerSetTimeFlags::TFD_TIMER_ABSTIME,
                )?,
            }
            self.alarm = alarm;
            self.fired = false;
        }
        let count = match self.epoll.wait(&mut self.events, EpollTimeout::NONE) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(e) => return Err(e.into()),
        };
        for event in &self.events[..count] {
            match event.data() {
                TIMER => self.fired = true,
                NUDGE => drop(self.nudge.read()),
                token => ready.push(token),
            }
        }
        Ok(())
    }
}
