//! Waiting for many descriptors at once (epoll, level-triggered).

use super::{Errno, Result};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use std::os::fd::BorrowedFd;

/// What a descriptor is watched for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Interest {
    Read,
    Write,
    ReadWrite,
    /// Only that the other end is gone, which is always told.
    Hangup,
}

/// One descriptor that is ready; `token` is what it was added with.
#[derive(Debug, Clone, Copy)]
pub struct Ready {
    pub token: u64,
    pub readable: bool,
    pub writable: bool,
    pub hangup: bool,
}

/// A set of watched descriptors.
#[derive(Debug)]
pub struct Poll {
    epoll: Epoll,
    buffer: Vec<EpollEvent>,
}

impl Poll {
    /// An empty set that reports up to `batch` descriptors at once.
    pub fn new(batch: usize) -> Result<Poll> {
        Ok(Poll {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            buffer: vec![EpollEvent::empty(); batch],
        })
    }

    /// Watches a descriptor; it leaves the set by itself when its last copy is closed.
    pub fn add(&self, fd: BorrowedFd<'_>, interest: Interest, token: u64) -> Result<()> {
        self.epoll.add(fd, EpollEvent::new(flags(interest), token))
    }

    /// Watches it for something else.
    pub fn modify(&self, fd: BorrowedFd<'_>, interest: Interest, token: u64) -> Result<()> {
        self.epoll.modify(fd, &mut EpollEvent::new(flags(interest), token))
    }

    /// No longer watches it.
    pub fn remove(&self, fd: BorrowedFd<'_>) {
        // It may have left by being closed.
        let _ = self.epoll.delete(fd);
    }

    /// Waits, at most so many milliseconds (`None`: for ever); those that are ready, none where a signal
    /// interrupted it.
    pub fn wait(&mut self, timeout_ms: Option<u64>) -> Result<Vec<Ready>> {
        let timeout = match timeout_ms {
            None => EpollTimeout::NONE,
            Some(ms) => EpollTimeout::try_from(ms.min(86_400_000)).unwrap_or(EpollTimeout::ZERO),
        };
        let n = match self.epoll.wait(&mut self.buffer, timeout) {
            Ok(n) => n,
            Err(Errno::EINTR) => 0,
            Err(e) => return Err(e),
        };
        Ok(self.buffer.iter().take(n).map(ready).collect())
    }
}

fn ready(event: &EpollEvent) -> Ready {
    let has = |f| event.events().intersects(f);
    Ready {
        token: event.data(),
        readable: has(EpollFlags::EPOLLIN),
        writable: has(EpollFlags::EPOLLOUT),
        hangup: has(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR | EpollFlags::EPOLLRDHUP),
    }
}

fn flags(interest: Interest) -> EpollFlags {
    match interest {
        Interest::Read => EpollFlags::EPOLLIN,
        Interest::Write => EpollFlags::EPOLLOUT,
        Interest::ReadWrite => EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT,
        Interest::Hangup => EpollFlags::empty(),
    }
}
