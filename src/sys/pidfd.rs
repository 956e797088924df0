//! Processes by descriptor: whatever happens to a pid's number, a pidfd means the one process.

use super::{Errno, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// A descriptor of process `pid`. The caller must check afterwards that this still is the process it meant,
/// unless it is its own unreaped child.
pub fn open(pid: i32) -> Result<OwnedFd> {
    // SAFETY: pidfd_open takes two numbers.
    let fd = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// Sends a signal. ESRCH: the process has ended and was reaped.
pub fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null siginfo is allowed and means: as kill(2) would.
    let r = unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), signal, none, 0) };
    Errno::result(r).map(drop)
}

/// Waits until the process has ended, at most so long; false if it has not.
pub fn wait_end(pidfd: BorrowedFd<'_>, ms: u64) -> Result<bool> {
    let timeout = PollTimeout::try_from(ms).unwrap_or(PollTimeout::MAX);
    let mut fds = [PollFd::new(pidfd, PollFlags::POLLIN)];
    match poll(&mut fds, timeout) {
        Ok(n) => Ok(n > 0),
        Err(Errno::EINTR) => Ok(false),
        Err(e) => Err(e),
    }
}
