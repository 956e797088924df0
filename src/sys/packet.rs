//! Packets with descriptors over a connected SOCK_SEQPACKET or SOCK_DGRAM socket. Nothing here ever waits, but for
//! [`wait`].

use super::{Errno, Result, process::SingleThread};
use nix::{
    fcntl::AtFlags,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        socket::{
            AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType,
            UnixAddr, accept4, bind, recvmsg, sendmsg, setsockopt, socket, socketpair, sockopt,
        },
        stat::{Mode, umask},
    },
    unistd::{Gid, Uid, fchownat},
};
use std::{
    io::{IoSlice, IoSliceMut},
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    path::Path,
};

/// Most descriptors that come with one packet.
pub const FDS_MAX: usize = 64;

/// A connected pair, non-blocking, close-on-exec, each end with room for `bytes` if the kernel allows it.
pub fn pair(bytes: usize) -> Result<(OwnedFd, OwnedFd)> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let (a, b) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
    for end in [&a, &b] {
        // Past the host's ceiling only with CAP_NET_ADMIN; what is granted is enough in either case.
        if setsockopt(end, sockopt::SndBufForce, &bytes).is_err() {
            let _ = setsockopt(end, sockopt::SndBuf, &bytes);
        }
        if setsockopt(end, sockopt::RcvBufForce, &bytes).is_err() {
            let _ = setsockopt(end, sockopt::RcvBuf, &bytes);
        }
    }
    Ok((a, b))
}

/// Listens at `path`, which nobody but this process' user can connect to; what was there before is replaced.
pub fn listen(_proof: SingleThread, path: &Path) -> Result<OwnedFd> {
    match nix::unistd::unlink(path) {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(e) => return Err(e),
    }
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let listener = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    // The mode is never wider, and is not changed by a path that may lead elsewhere by then. It is the whole
    // process' mask, and the process has one thread.
    let before = umask(Mode::from_bits_retain(0o177));
    let bound = bind(listener.as_raw_fd(), &UnixAddr::new(path)?);
    umask(before);
    bound?;
    nix::sys::socket::listen(&listener, Backlog::new(64)?)?;
    Ok(listener)
}

/// A datagram socket in the folder `dir`, called `name`, which only `owner` and root can send to. What comes has its
/// sender's credentials with it, by the kernel's word.
pub fn hear(_proof: SingleThread, dir: BorrowedFd<'_>, name: &str, owner: (u32, u32)) -> Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let ours = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
    setsockopt(&ours, sockopt::PassCred, &true)?;
    // As in `listen`. Through the folder's descriptor, so that it is that folder whatever has become of its path.
    let before = umask(Mode::from_bits_retain(0o177));
    let path = format!("/proc/self/fd/{}/{name}", dir.as_raw_fd());
    let bound = UnixAddr::new(path.as_str()).and_then(|at| bind(ours.as_raw_fd(), &at));
    umask(before);
    bound?;
    let (uid, gid) = (Uid::from_raw(owner.0), Gid::from_raw(owner.1));
    fchownat(dir, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)?;
    Ok(ours)
}

/// Most descriptors that the kernel sends with one message.
const SCM_MAX_FD: usize = 253;

/// What came with a datagram.
#[derive(Debug)]
pub struct Heard {
    pub len: usize,
    /// It was longer than the buffer, and the rest is gone.
    pub cut: bool,
    pub fds: Vec<OwnedFd>,
    /// Of the sender; 0 where it is in another pid namespace.
    pub pid: i32,
    pub uid: u32,
}

/// Receives one datagram of a socket that [`hear`] made. EAGAIN: there is none now.
pub fn hear_one(socket: BorrowedFd<'_>, buf: &mut [u8]) -> Result<Heard> {
    // Room for as many as the kernel lets anybody send: what did not fit would be hard to find and close.
    let mut control = nix::cmsg_space!([RawFd; SCM_MAX_FD], nix::sys::socket::UnixCredentials);
    let mut parts = [IoSliceMut::new(buf)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
    let cut = message.flags.contains(MsgFlags::MSG_TRUNC);
    let mut heard = Heard { len: message.bytes, cut, fds: Vec::new(), pid: 0, uid: u32::MAX };
    for c in message.cmsgs()? {
        match c {
            ControlMessageOwned::ScmRights(list) => {
                // SAFETY: the kernel has just installed these descriptors for us.
                heard.fds.extend(list.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
            ControlMessageOwned::ScmCredentials(who) => (heard.pid, heard.uid) = (who.pid(), who.uid()),
            _ => {}
        }
    }
    Ok(heard)
}

/// The next connection; `Ok(None)`: there is none now.
pub fn accept(listener: BorrowedFd<'_>) -> Result<Option<OwnedFd>> {
    match accept4(listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK) {
        // SAFETY: a new descriptor that nobody else owns.
        Ok(fd) => Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) })),
        Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNABORTED) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Connects to whoever listens at `path`.
pub fn connect(path: &Path) -> Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let ours = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    nix::sys::socket::connect(ours.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(ours)
}

/// Waits until there is something to receive.
pub fn wait(socket: BorrowedFd<'_>) -> Result<()> {
    let mut fds = [PollFd::new(socket, PollFlags::POLLIN)];
    loop {
        match poll(&mut fds, PollTimeout::NONE) {
            Err(Errno::EINTR) => {}
            done => return done.map(drop),
        }
    }
}

/// Sends one packet whole. EAGAIN: no room now. ETOOMANYREFS: too many descriptors under way, as EAGAIN but
/// no event tells when there are fewer.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<()> {
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    let flags = MsgFlags::MSG_NOSIGNAL | MsgFlags::MSG_DONTWAIT;
    loop {
        match sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], control, flags, None) {
            Err(Errno::EINTR) => {}
            done => return done.map(drop),
        }
    }
}

/// Receives one packet into `buf`: its length and the descriptors that came with it, which are
/// close-on-exec. `Ok(None)`: the other end is closed. EMSGSIZE: it was larger than `buf`, and is gone.
pub fn receive(socket: BorrowedFd<'_>, buf: &mut [u8]) -> Result<Option<(usize, Vec<OwnedFd>)>> {
    let mut control = nix::cmsg_space!([RawFd; FDS_MAX]);
    let mut fds = Vec::new();
    let (len, cut) = loop {
        let mut parts = [IoSliceMut::new(buf)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_DONTWAIT;
        match recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags) {
            Err(Errno::EINTR) => {}
            Err(e) => return Err(e),
            Ok(message) => {
                for c in message.cmsgs()? {
                    if let ControlMessageOwned::ScmRights(list) = c {
                        // SAFETY: the kernel has just installed these descriptors for us.
                        fds.extend(list.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
                    }
                }
                break (message.bytes, message.flags.contains(MsgFlags::MSG_TRUNC));
            }
        }
    };
    if cut {
        return Err(Errno::EMSGSIZE);
    }
    Ok((len > 0).then_some((len, fds)))
}

/// No more packets will be sent from here.
pub fn finish(socket: &OwnedFd) {
    let _ = nix::sys::socket::shutdown(socket.as_fd().as_raw_fd(), nix::sys::socket::Shutdown::Write);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fd;

    #[test]
    fn packets_arrive_whole_with_their_descriptors() {
        let (a, b) = pair(1 << 20).unwrap();
        let (read, write) = fd::pipe().unwrap();
        send(a.as_fd(), b"one", &[read.as_fd()]).unwrap();
        send(a.as_fd(), b"two", &[]).unwrap();
        let mut buf = [0u8; 16];
        let (len, fds) = receive(b.as_fd(), &mut buf).unwrap().unwrap();
        assert_eq!((&buf[..len], fds.len()), (&b"one"[..], 1));
        fd::write(write.as_fd(), b"x").unwrap();
        assert_eq!(fd::read(fds[0].as_fd(), &mut buf).unwrap(), 1);
        assert_eq!(receive(b.as_fd(), &mut buf).unwrap().unwrap().0, 3);
        assert_eq!(receive(b.as_fd(), &mut buf).err(), Some(Errno::EAGAIN));
        send(a.as_fd(), &[0; 17], &[]).unwrap();
        assert_eq!(receive(b.as_fd(), &mut buf).err(), Some(Errno::EMSGSIZE));
        drop(a);
        assert!(receive(b.as_fd(), &mut buf).unwrap().is_none());
    }
}
