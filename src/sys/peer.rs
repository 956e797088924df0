//! Who is at the other end of a unix socket, as the kernel recorded it when the connection was made.

use nix::sys::socket::{getsockopt, sockopt};
use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd},
};

/// Longest list of groups that is read; Linux knows at most 65,536 per process.
const GROUPS_MAX: usize = 65_536;

/// A process that has connected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Peer {
    /// 0 where it lives in another pid namespace.
    pub pid: u32,
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups.
    pub groups: Vec<u32>,
}

/// Asks the kernel (SO_PEERCRED, SO_PEERGROUPS).
///
/// # Errors
/// Of getsockopt; where it fails nothing is known about the peer and it must be refused.
pub fn credentials(fd: BorrowedFd<'_>) -> io::Result<Peer> {
    let cred = getsockopt(&fd, sockopt::PeerCredentials)?;
    let pid = u32::try_from(cred.pid()).unwrap_or(0);
    Ok(Peer { pid, uid: cred.uid(), gid: cred.gid(), groups: groups(fd)? })
}

fn groups(fd: BorrowedFd<'_>) -> io::Result<Vec<u32>> {
    let mut list = vec![0_u32; 64];
    loop {
        let mut bytes = libc::socklen_t::try_from(list.len() * size_of::<u32>()).unwrap_or(0);
        // SAFETY: `list` is writable for `bytes` bytes and gid_t is u32; the kernel writes at most `bytes`
        // bytes and stores in it how many there are.
        let done = unsafe {
            libc::getsockopt(
                fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                list.as_mut_ptr().cast(),
                &mut bytes,
            )
        };
        let count = bytes as usize / size_of::<u32>();
        if done == 0 {
            list.truncate(count);
            return Ok(list);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ERANGE) || count <= list.len() || count > GROUPS_MAX {
            return Err(error);
        }
        list.resize(count, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::{
        fd::AsFd,
        unix::{fs::MetadataExt, net::UnixStream},
    };

    #[test]
    fn a_peer_is_who_made_the_socket() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let peer = credentials(ours.as_fd()).unwrap();
        let me = std::fs::metadata("/proc/self").unwrap();
        assert_eq!((peer.pid, peer.uid, peer.gid), (std::process::id(), me.uid(), me.gid()));
        let status = std::fs::read_to_string("/proc/self/status").unwrap();
        let groups = status.lines().find_map(|l| l.strip_prefix("Groups:")).unwrap();
        let groups: Vec<u32> = groups.split_whitespace().map(|g| g.parse().unwrap()).collect();
        assert_eq!(peer.groups, groups);
    }
}
