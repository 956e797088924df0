//! Namespaces of mounts and of the network: a view of the files, and a network, that only this process and what
//! comes from it have. For a child that is about to exec.

use super::{Errno, Result};
use nix::{
    mount::{MsFlags, mount},
    sys::stat::Mode,
};
use std::{
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
    path::Path,
};

const AT_EMPTY_PATH: libc::c_uint = 0x1000;
const AT_RECURSIVE: libc::c_uint = 0x8000;

fn flags(mounts: bool, network: bool) -> libc::c_int {
    (if mounts { libc::CLONE_NEWNS } else { 0 }) | (if network { libc::CLONE_NEWNET } else { 0 })
}

/// Opens a namespace of mounts of our own: they neither come from outside nor go there.
pub fn open() -> Result<()> {
    // SAFETY: unshare takes a number; memory and descriptors stay shared as they are.
    Errno::result(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
}

/// The network namespace that we are in.
pub fn own_network() -> Result<OwnedFd> {
    use nix::fcntl::{OFlag, open};
    open("/proc/self/ns/net", OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())
}

/// A network namespace that nobody is in yet, its loopback interface up. To make it we are in it for a moment, and
/// then in `own` again; the outer error is that we could not go back.
pub fn new_network(own: BorrowedFd<'_>) -> Result<Result<OwnedFd>> {
    // SAFETY: unshare takes a number; memory and descriptors stay shared as they are.
    let opened = Errno::result(unsafe { libc::unshare(libc::CLONE_NEWNET) });
    let made = opened.and_then(|_| loopback_up()).and_then(|()| own_network());
    join_network(own).map(|()| made)
}

/// Joins a network namespace.
pub fn join_network(network: BorrowedFd<'_>) -> Result<()> {
    // SAFETY: setns takes two numbers.
    Errno::result(unsafe { libc::setns(network.as_raw_fd(), libc::CLONE_NEWNET) }).map(drop)
}

/// Joins those of the process behind `pidfd`. ESRCH: it is gone.
pub fn join(pidfd: BorrowedFd<'_>, mounts: bool, network: bool) -> Result<()> {
    // SAFETY: setns takes two numbers.
    Errno::result(unsafe { libc::setns(pidfd.as_raw_fd(), flags(mounts, network)) }).map(drop)
}

/// Brings up the loopback interface of a network of our own.
fn loopback_up() -> Result<()> {
    // SAFETY: socket takes three numbers.
    let fd = Errno::result(unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) })?;
    // SAFETY: new, and nobody else's.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: all-zero is a value of this struct.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = libc::IFF_UP as libc::c_short;
    // SAFETY: this request reads an ifreq, and `request` is one.
    Errno::result(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &raw const request) })
        .map(drop)
}

/// Refers to a place, on the way to which there may be no symbolic link (ELOOP).
pub fn place(path: &Path) -> Result<OwnedFd> {
    use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
    let how =
        OpenHow::new().flags(OFlag::O_PATH | OFlag::O_CLOEXEC).resolve(ResolveFlag::RESOLVE_NO_SYMLINKS);
    openat2(nix::fcntl::AT_FDCWD, path, how)
}

/// A copy of the mounts from a place on, which is nowhere yet.
pub fn copy_tree(place: BorrowedFd<'_>) -> Result<OwnedFd> {
    const CLONE: libc::c_uint = 1;
    let flags = CLONE | AT_EMPTY_PATH | AT_RECURSIVE | libc::O_CLOEXEC as libc::c_uint;
    // SAFETY: open_tree takes a descriptor, an empty path and flags.
    let fd =
        Errno::result(unsafe { libc::syscall(libc::SYS_open_tree, place.as_raw_fd(), c"".as_ptr(), flags) })?;
    // SAFETY: new, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Puts a copy on a place.
pub fn put_tree(tree: BorrowedFd<'_>, place: BorrowedFd<'_>) -> Result<()> {
    const BOTH_EMPTY: libc::c_uint = 0x04 | 0x40;
    let (tree, place) = (tree.as_raw_fd(), place.as_raw_fd());
    // SAFETY: move_mount takes descriptors, empty paths and flags.
    Errno::result(unsafe {
        libc::syscall(libc::SYS_move_mount, tree, c"".as_ptr(), place, c"".as_ptr(), BOTH_EMPTY)
    })
    .map(drop)
}

/// Makes what is mounted at `place` read-only, with `below` all that is mounted below it too.
pub fn read_only(place: BorrowedFd<'_>, below: bool) -> Result<()> {
    #[repr(C)]
    struct Attributes {
        set: u64,
        clear: u64,
        propagation: u64,
        user_namespace: u64,
    }
    let attributes = Attributes { set: 1, clear: 0, propagation: 0, user_namespace: 0 };
    let flags = AT_EMPTY_PATH | if below { AT_RECURSIVE } else { 0 };
    // SAFETY: mount_setattr reads a struct of the size given.
    Errno::result(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            place.as_raw_fd(),
            c"".as_ptr(),
            flags,
            &raw const attributes,
            size_of::<Attributes>(),
        )
    })
    .map(drop)
}

/// What may be done in a file system in memory, besides reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Memory {
    /// Nothing.
    Empty,
    /// All but devices and set-user-ID programs.
    Files,
}

/// Mounts an empty file system in memory; `options` bound its size.
pub fn in_memory(at: &Path, what: Memory, options: &str) -> Result<()> {
    let flags = MsFlags::MS_NOSUID
        | match what {
            Memory::Empty => MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_RDONLY,
            Memory::Files => MsFlags::MS_NODEV,
        };
    mount(Some("tmpfs"), at, Some("tmpfs"), flags, Some(options))
}
