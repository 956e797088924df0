//! The way to one receiver: a datagram socket that is connected anew whenever its other end has changed. Nothing
//! here ever waits.

use crate::{
    plan::Receiver,
    sys::{
        Errno, memory, packet,
        poller::{Arm, Watches},
    },
};
use std::{
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::net::UnixDatagram,
    },
    path::PathBuf,
};

/// Between attempts, in microseconds.
const RETRY: u64 = 1_000_000;
/// So long a receiver may be away or busy before anybody hears of it: it may only be restarted.
const GRACE: u64 = 3_000_000;

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Outlet {
    pub(super) receiver: Receiver,
    path: PathBuf,
    socket: Option<UnixDatagram>,
    /// Nothing is sent before.
    closed_until: Option<u64>,
    /// Since when nothing gets through, and why.
    failing: Option<(u64, io::Error)>,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    Yes,
    /// Later perhaps.
    NotNow,
    /// The receiver can never take it.
    Never,
}

impl Outlet {
    pub(super) fn new(receiver: Receiver, path: PathBuf) -> Outlet {
        Outlet { receiver, path, socket: None, closed_until: None, failing: None }
    }

    /// When it is worth trying again; `None`: now.
    pub(super) fn closed_until(&self) -> Option<u64> {
        self.closed_until
    }

    /// There may be room again.
    pub(super) fn freed(&mut self) {
        self.closed_until = None;
    }

    /// The time is this, in microseconds of CLOCK_MONOTONIC.
    pub(super) fn tick(&mut self, now: u64) {
        if self.closed_until.is_some_and(|at| now >= at) {
            self.closed_until = None;
            // Another may listen there by now, while this one still has a socket that nobody reads.
            self.socket = None;
        }
    }

    /// What is the matter, if it has been for a while.
    pub(super) fn trouble(&self, now: u64) -> Option<String> {
        let (_, error) = self.failing.as_ref().filter(|(since, _)| now >= since + GRACE)?;
        let what = match error.kind() {
            io::ErrorKind::WouldBlock => "it takes no more".to_owned(),
            _ => error.to_string(),
        };
        let (word, path) = (self.receiver.word(), self.path.display());
        Some(format!(
            "cannot forward to {word} ({path}): {what}; lines are in the file, and the newest 16 MiB wait"
        ))
    }

    pub(super) fn send(&mut self, bytes: &[u8], now: u64, watches: &Watches, token: u64) -> Sent {
        if self.closed_until.is_some() {
            return Sent::NotNow;
        }
        let mut last = None;
        for _ in 0..2 {
            let socket = match self.socket.take().map_or_else(|| self.connect(), Ok) {
                Ok(socket) => socket,
                Err(e) => {
                    last = Some(e);
                    break;
                }
            };
            match self.deliver(socket.as_fd(), bytes) {
                Ok(()) => {
                    self.socket = Some(socket);
                    self.failing = None;
                    return Sent::Yes;
                }
                Err(Errno::EAGAIN | Errno::ENOBUFS) => {
                    let known = watches.arm(socket.as_fd(), token, true, Arm::Room);
                    // It is watched already, or not yet; otherwise the next attempt has to do.
                    let _ = known.or_else(|_| watches.arm(socket.as_fd(), token, false, Arm::Room));
                    self.socket = Some(socket);
                    last = Some(io::ErrorKind::WouldBlock.into());
                    break;
                }
                Err(Errno::EMSGSIZE) => {
                    self.socket = Some(socket);
                    return Sent::Never;
                }
                // The other end is gone; there may be a new one.
                Err(e) => last = Some(e.into()),
            }
        }
        self.closed_until = Some(now + RETRY);
        if let Some(error) = last {
            let since = self.failing.as_ref().map_or(now, |(since, _)| *since);
            self.failing = Some((since, error));
        }
        Sent::NotNow
    }

    fn connect(&self) -> io::Result<UnixDatagram> {
        let socket = UnixDatagram::unbound()?;
        socket.connect(&self.path)?;
        Ok(socket)
    }

    fn deliver(&self, socket: BorrowedFd<'_>, bytes: &[u8]) -> Result<(), Errno> {
        match packet::send(socket, bytes, &[]) {
            Err(Errno::EMSGSIZE) if self.receiver == Receiver::Journal => {
                let sealed = memory::create(c"keepd-message").and_then(|fd| {
                    memory::fill_and_seal(fd, bytes)
                        .map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(0)))
                })?;
                packet::send(socket, &[], &[sealed.as_fd()])
            }
            done => done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::poller::Poller;
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg, setsockopt, sockopt};
    use std::{
        fs::File,
        io::Read,
        os::fd::{AsRawFd, OwnedFd, RawFd},
    };

    #[test]
    fn what_is_too_large_for_a_datagram_comes_in_sealed_memory() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let poller = Poller::new().unwrap();
        let receiver = UnixDatagram::bind(&path).unwrap();
        let text = vec![b'x'; 100_000];
        for (kind, wanted) in [(Receiver::Journal, Sent::Yes), (Receiver::Syslog, Sent::Never)] {
            let mut outlet = Outlet::new(kind, path.clone());
            let socket = outlet.connect().unwrap();
            setsockopt(&socket, sockopt::SndBuf, &8192).unwrap();
            outlet.socket = Some(socket);
            assert_eq!(outlet.send(&text, 0, &poller.watches(), 0), wanted);
        }
        let mut control = nix::cmsg_space!([RawFd; 1]);
        let (raw, none) = (receiver.as_raw_fd(), MsgFlags::empty());
        let message = recvmsg::<()>(raw, &mut [], Some(&mut control), none).unwrap();
        let ControlMessageOwned::ScmRights(fds) = message.cmsgs().unwrap().next().unwrap() else { panic!() };
        let path = format!("/proc/self/fd/{}", fds[0]);
        let fd = OwnedFd::from(File::open(path).unwrap());
        assert!(memory::is_sealed(fd.as_fd()).unwrap());
        let mut file = File::from(fd);
        let mut got = Vec::new();
        file.read_to_end(&mut got).unwrap();
        assert_eq!(got, text);
    }

    #[test]
    fn only_what_lasts_is_told() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let poller = Poller::new().unwrap();
        let mut outlet = Outlet::new(Receiver::Journal, path.clone());
        let watches = poller.watches();
        assert_eq!(outlet.send(b"x", 10, &watches, 0), Sent::NotNow);
        assert_eq!((outlet.closed_until(), outlet.trouble(10)), (Some(10 + RETRY), None));
        let late = 10 + GRACE;
        outlet.tick(late);
        assert_eq!(outlet.send(b"x", late, &watches, 0), Sent::NotNow);
        let trouble = outlet.trouble(late).unwrap();
        assert!(trouble.starts_with("cannot forward to journal (/"), "{trouble}");
        assert!(trouble.contains("No such file or directory"), "{trouble}");
        let _receiver = UnixDatagram::bind(&path).unwrap();
        outlet.tick(late + RETRY);
        assert_eq!(outlet.send(b"x", late + RETRY, &watches, 0), Sent::Yes);
        assert_eq!(outlet.trouble(late + RETRY), None);
    }

    #[test]
    fn a_full_receiver_is_said_to_be_free_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("socket");
        let mut poller = Poller::new().unwrap();
        let receiver = UnixDatagram::bind(&path).unwrap();
        let mut outlet = Outlet::new(Receiver::Syslog, path.clone());
        let watches = poller.watches();
        for round in 0..3 {
            let sent = (0..100_000).take_while(|_| outlet.send(b"x", 0, &watches, 7) == Sent::Yes).count();
            assert!(sent > 0, "{round}");
            for _ in 0..sent {
                receiver.recv(&mut [0; 10]).unwrap();
            }
            let mut ready = Vec::new();
            while !ready.contains(&7) {
                poller.wait(None, &mut ready).unwrap();
            }
            outlet.freed();
        }
    }
}
