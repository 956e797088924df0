//! Descriptors: pipes, close-on-exec, standard streams, small reads and writes.

use super::{Errno, Result};
use nix::{
    fcntl::{FcntlArg, FdFlag, OFlag, fcntl, open, openat},
    sys::stat::{Mode, SFlag, fstat},
};
use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, IntoRawFd, OwnedFd, RawFd},
    path::Path,
};

/// A pipe, close-on-exec: (read end, write end).
pub fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    nix::unistd::pipe2(OFlag::O_CLOEXEC)
}

/// Asks for a pipe of so many bytes; the size that it has now.
pub fn set_pipe_size(fd: BorrowedFd<'_>, bytes: i32) -> Result<i32> {
    fcntl(fd, FcntlArg::F_SETPIPE_SZ(bytes))
}

/// Makes reads and writes return EAGAIN instead of waiting, or undoes it.
pub fn set_nonblocking(fd: BorrowedFd<'_>, on: bool) -> Result<()> {
    let mut flags = OFlag::from_bits_retain(fcntl(fd, FcntlArg::F_GETFL)?);
    flags.set(OFlag::O_NONBLOCK, on);
    fcntl(fd, FcntlArg::F_SETFL(flags)).map(drop)
}

/// Lets a descriptor survive exec, or not.
pub fn set_cloexec(fd: BorrowedFd<'_>, on: bool) -> Result<()> {
    let flags = if on { FdFlag::FD_CLOEXEC } else { FdFlag::empty() };
    fcntl(fd, FcntlArg::F_SETFD(flags)).map(drop)
}

/// Opens a file or folder, close-on-exec, without waiting (a FIFO) and without becoming a terminal's owner.
pub fn open_read(path: &Path) -> Result<OwnedFd> {
    open(path, OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY, Mode::empty())
}

/// Opens /dev/null for reading and writing.
pub fn open_null() -> Result<OwnedFd> {
    open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())
}

/// The write end of the pipe that `read_end` is the read end of.
pub fn reopen_write_end(read_end: BorrowedFd<'_>) -> Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", read_end.as_raw_fd());
    let fd = open(path.as_str(), OFlag::O_WRONLY | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK, Mode::empty())?;
    set_nonblocking(fd.as_fd(), false)?;
    Ok(fd)
}

/// Another write end of the pipe that `write_end` is one of, which can be read from as well: as long as it is open,
/// the pipe has a reader, so that whoever writes to it waits where nobody reads, and is never told that nobody will.
pub fn reopen_both_ways(write_end: BorrowedFd<'_>) -> Result<OwnedFd> {
    let path = format!("/proc/self/fd/{}", write_end.as_raw_fd());
    open(path.as_str(), OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())
}

/// Opens a path below a folder that we hold; `write` for writing only, else for reading only.
pub fn open_at(dir: BorrowedFd<'_>, path: &str, write: bool) -> Result<OwnedFd> {
    let how = if write { OFlag::O_WRONLY } else { OFlag::O_RDONLY };
    openat(dir, path, how | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK, Mode::empty())
}

/// Makes `to` a copy of `from` that survives exec; whatever was open there is closed.
///
/// For a child that is about to exec: it must not own `to` in any other way.
pub fn place(from: BorrowedFd<'_>, to: RawFd) -> Result<()> {
    if from.as_raw_fd() == to {
        return set_cloexec(from, false);
    }
    // SAFETY: dup2 takes two numbers; that nothing of ours is behind `to` is the caller's promise, and the
    // worst that a broken one does is to close a descriptor in a process that is about to exec.
    Errno::result(unsafe { libc::dup2(from.as_raw_fd(), to) }).map(drop)
}

/// Opens /dev/null on those of 0, 1 and 2 that are closed, so that no descriptor of ours ever lands there.
pub fn ensure_stdio() -> Result<()> {
    loop {
        let fd = open("/dev/null", OFlag::O_RDWR, Mode::empty())?;
        if fd.as_raw_fd() > 2 {
            return Ok(());
        }
        let _stays_open = fd.into_raw_fd();
    }
}

/// Lets go of whatever 0, 1 and 2 are: from now on they are /dev/null.
pub fn stdio_to_null() -> Result<()> {
    let null = open("/dev/null", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
    (0..=2).try_for_each(|number| place(null.as_fd(), number))
}

/// Marks every descriptor from `first` on close-on-exec.
pub fn cloexec_from(first: u32) -> Result<()> {
    const CLOSE_RANGE_CLOEXEC: u32 = 4;
    // SAFETY: close_range takes three numbers, and with this flag it closes nothing now.
    let r = unsafe { libc::syscall(libc::SYS_close_range, first, u32::MAX, CLOSE_RANGE_CLOEXEC) };
    match Errno::result(r) {
        Ok(_) => Ok(()),
        // Before Linux 5.11, or hidden by a filter.
        Err(Errno::ENOSYS | Errno::EINVAL | Errno::EPERM) => cloexec_one_by_one(first),
        Err(e) => Err(e),
    }
}

fn cloexec_one_by_one(first: u32) -> Result<()> {
    let io = |e: std::io::Error| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO));
    for entry in std::fs::read_dir("/proc/self/fd").map_err(io)? {
        let name = entry.map_err(io)?.file_name();
        let Some(n) = name.to_str().and_then(|n| n.parse::<u32>().ok()).filter(|n| *n >= first) else {
            continue;
        };
        // SAFETY: fcntl with F_SETFD takes numbers; a descriptor that is closed by now gives EBADF.
        unsafe { libc::fcntl(n as RawFd, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
    Ok(())
}

/// The number of the file behind a descriptor in its file system.
pub fn inode(fd: BorrowedFd<'_>) -> Result<u64> {
    Ok(fstat(fd)?.st_ino)
}

/// The device and inode behind a descriptor, and whether it was opened to read (0), to write (1) or for both (2).
pub fn identity(fd: BorrowedFd<'_>) -> Result<(u64, u64, i32)> {
    let st = fstat(fd)?;
    let mode = fcntl(fd, FcntlArg::F_GETFL)? & OFlag::O_ACCMODE.bits();
    Ok((st.st_dev, st.st_ino, mode))
}

/// What is behind a descriptor, as far as anybody here asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Regular { size: u64, uid: u32, links: u64 },
    Pipe,
    Other,
}

/// Looks at what is behind a descriptor.
pub fn kind(fd: BorrowedFd<'_>) -> Result<Kind> {
    let st = fstat(fd)?;
    Ok(match SFlag::from_bits_truncate(st.st_mode) & SFlag::S_IFMT {
        SFlag::S_IFREG => {
            Kind::Regular { size: u64::try_from(st.st_size).unwrap_or(0), uid: st.st_uid, links: st.st_nlink }
        }
        SFlag::S_IFIFO => Kind::Pipe,
        _ => Kind::Other,
    })
}

/// The uid that the file behind a descriptor belongs to.
pub fn owner(fd: BorrowedFd<'_>) -> Result<u32> {
    fstat(fd).map(|st| st.st_uid)
}

/// A copy of a descriptor, close-on-exec, that has this number or a higher one.
pub fn copy_above(fd: BorrowedFd<'_>, number: RawFd) -> Result<OwnedFd> {
    let copy = fcntl(fd, FcntlArg::F_DUPFD_CLOEXEC(number))?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Which file is behind a descriptor, and which state of it: whatever is written to it changes this, as far as its
/// file system's clock can tell two instants apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Version {
    file: (u64, u64),
    size: u64,
    modified_ns: (i64, i64),
    changed_ns: (i64, i64),
}

impl Version {
    /// Looks.
    pub fn of(fd: BorrowedFd<'_>) -> Result<Version> {
        let st = fstat(fd)?;
        Ok(Version {
            file: (st.st_dev, st.st_ino),
            size: u64::try_from(st.st_size).unwrap_or(0),
            modified_ns: (st.st_mtime, st.st_mtime_nsec),
            changed_ns: (st.st_ctime, st.st_ctime_nsec),
        })
    }

    /// Milliseconds since 1970 of its last change of any kind.
    pub fn changed_ms(&self) -> u64 {
        u64::try_from(self.changed_ns.0).unwrap_or(0).saturating_mul(1000)
    }
}

/// Reads once, again where a signal interrupts. 0: end of file.
pub fn read(fd: BorrowedFd<'_>, buf: &mut [u8]) -> Result<usize> {
    loop {
        match nix::unistd::read(fd, buf) {
            Err(Errno::EINTR) => {}
            done => return done,
        }
    }
}

/// Writes once, again where a signal interrupts.
pub fn write(fd: BorrowedFd<'_>, bytes: &[u8]) -> Result<usize> {
    loop {
        match nix::unistd::write(fd, bytes) {
            Err(Errno::EINTR) => {}
            done => return done,
        }
    }
}

/// Takes over a descriptor that another program left open for us at a number agreed on.
///
/// Called at most once per number, before anything else could have been opened there; EBADF if nothing is.
pub fn inherited(number: RawFd) -> Result<OwnedFd> {
    // SAFETY: fcntl with F_GETFD takes numbers only.
    Errno::result(unsafe { libc::fcntl(number, libc::F_GETFD) })?;
    // SAFETY: open, as just seen, and by the agreement nobody else's.
    let fd = unsafe { OwnedFd::from_raw_fd(number) };
    set_cloexec(fd.as_fd(), true)?;
    Ok(fd)
}
