//! Waiting in one thread for descriptors, for a point in time and for a nudge from another thread.

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, ppoll},
    sys::{
        epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
        eventfd::{EfdFlags, EventFd},
        time::TimeSpec,
        timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
    },
};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
    time::Duration,
};

/// An epoll instance with a timer and a nudge.
#[derive(Debug)]
pub struct Poller {
    watches: Watches,
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

/// The descriptors that a poller watches; may be changed from other threads while it waits.
#[derive(Debug, Clone)]
pub struct Watches(Arc<Epoll>);

/// When a descriptor is reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arm {
    /// Once, when it is readable or at its end.
    Once,
    /// Once now if it is readable, and whenever more has come or its end.
    Growth,
    /// Once, when it takes more.
    Room,
}

impl Watches {
    /// Reports `token` as `arm` says. `known`: it is watched already, for something else or no longer.
    pub fn arm(&self, fd: BorrowedFd, token: u64, known: bool, arm: Arm) -> io::Result<()> {
        let how = match arm {
            Arm::Once => EpollFlags::EPOLLIN | EpollFlags::EPOLLONESHOT,
            Arm::Growth => EpollFlags::EPOLLIN | EpollFlags::EPOLLET,
            Arm::Room => EpollFlags::EPOLLOUT | EpollFlags::EPOLLONESHOT,
        };
        let mut event = EpollEvent::new(how, token);
        Ok(if known { self.0.modify(fd, &mut event) } else { self.0.add(fd, event) }?)
    }

    /// Takes a descriptor out. Needed even before closing it: where another process holds a duplicate, the
    /// kernel would go on reporting it.
    pub fn remove(&self, fd: BorrowedFd) {
        let _ = self.0.delete(fd);
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
        let watches = Watches(Arc::new(epoll));
        Ok(Poller {
            watches,
            timer,
            nudge,
            alarm: None,
            fired: false,
            events: vec![EpollEvent::empty(); 256],
        })
    }

    /// A handle for other threads.
    pub fn nudge(&self) -> Nudge {
        Nudge(self.nudge.clone())
    }

    /// What it watches.
    pub fn watches(&self) -> Watches {
        self.watches.clone()
    }

    /// Lets events gather for so many microseconds; returns early for a nudge.
    pub fn pause(&self, us: u64) {
        let mut fds = [PollFd::new(self.nudge.as_fd(), PollFlags::POLLIN)];
        // That a signal ends it early is just as well.
        let _ = ppoll(&mut fds, Some(TimeSpec::from_duration(Duration::from_micros(us))), None);
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
        let count = match self.watches.0.wait(&mut self.events, EpollTimeout::NONE) {
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
