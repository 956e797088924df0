//! Who is at the other end of a unix socket.

use super::{Errno, Result};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

/// The peer as it was when it connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Credentials {
    /// 0 where it is not visible from our pid namespace.
    pub pid: i32,
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups; empty where the kernel cannot tell (before Linux 4.13).
    pub groups: Vec<u32>,
}

/// Asks the kernel (SO_PEERCRED, SO_PEERGROUPS).
pub fn credentials(socket: BorrowedFd<'_>) -> Result<Credentials> {
    let cred = getsockopt(&socket.as_fd(), PeerCredentials)?;
    let groups = match groups(socket) {
        Ok(groups) => groups,
        Err(Errno::ENOPROTOOPT) => Vec::new(),
        Err(e) => return Err(e),
    };
    Ok(Credentials { pid: cred.pid(), uid: cred.uid(), gid: cred.gid(), groups })
}

fn groups(socket: BorrowedFd<'_>) -> Result<Vec<u32>> {
    let mut groups = vec![0u32; 64];
    loop {
        let mut bytes =
            libc::socklen_t::try_from(size_of_val(groups.as_slice())).map_err(|_| Errno::E2BIG)?;
        // SAFETY: the buffer is valid for `bytes` bytes, and `bytes` for writing the length back.
        let r = unsafe {
            libc::getsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut bytes,
            )
        };
        let count = bytes as usize / size_of::<u32>();
        match Errno::result(r) {
            Ok(_) => {
                groups.truncate(count);
                return Ok(groups);
            }
            // `bytes` says how much it takes.
            Err(Errno::ERANGE) if count > groups.len() => groups.resize(count, 0),
            Err(e) => return Err(e),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::identity;

    #[test]
    fn the_peer_of_our_own_socket_is_us() {
        let (a, _b) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut peer = credentials(a.as_fd()).unwrap();
        peer.groups.sort_unstable();
        assert_eq!(peer.pid, std::process::id() as i32);
        assert_eq!((peer.uid, peer.gid), (identity::effective_uid(), identity::effective_gid()));
        assert_eq!(peer.groups, identity::groups().unwrap());
    }
}
