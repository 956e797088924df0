//! Processes by descriptor: whatever happens to a pid's number, a pidfd means the one process.

use super::{Errno, Result};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

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

/// Copies of all descriptors of another process, as far as we may have them.
pub fn copies(pidfd: BorrowedFd<'_>, pid: i32) -> Vec<OwnedFd> {
    let Ok(entries) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return Vec::new() };
    let numbers = entries.flatten().filter_map(|e| e.file_name().to_str()?.parse::<RawFd>().ok());
    numbers.filter_map(|number| copy(pidfd, number).ok()).collect()
}

fn copy(pidfd: BorrowedFd<'_>, number: RawFd) -> Result<OwnedFd> {
    // SAFETY: pidfd_getfd takes three numbers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_getfd, pidfd.as_raw_fd(), number, 0) };
    let fd = Errno::result(fd)?;
    // SAFETY: a new descriptor (close-on-exec) that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as RawFd) })
}

/// A new read end, which does not wait, of the pipe of this inode, if process `pid` has it open.
pub fn reopen_pipe(pid: i32, inode: u64) -> Option<OwnedFd> {
    let wanted = format!("pipe:[{inode}]");
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
    let is_it = |path: &std::path::Path| std::fs::read_link(path).is_ok_and(|to| to.as_os_str() == &*wanted);
    let path = entries.flatten().map(|e| e.path()).find(|path| is_it(path))?;
    let fd = super::fd::open_read(&path).ok()?;
    // The process may have closed it and opened another in between.
    let same =
        super::fd::inode(fd.as_fd()) == Ok(inode) && super::fd::kind(fd.as_fd()) == Ok(super::fd::Kind::Pipe);
    same.then_some(fd)
}

/// `struct pidfd_info` as of Linux 6.13.
#[repr(C)]
#[derive(Default)]
struct Info {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    exit: i32,
}

const PIDFD_INFO_EXIT: u64 = 1 << 3;
/// _IOWR(0xFF, 11, struct pidfd_info)
const PIDFD_GET_INFO: libc::c_ulong = 0xC040_FF0B;

/// How a process that is no child of ours has ended; `None` until its parent has reaped it. The error: this kernel
/// cannot tell (before Linux 6.15).
pub fn exit_status(pidfd: BorrowedFd<'_>) -> Result<Option<super::reap::Ended>> {
    let mut info = Info { mask: PIDFD_INFO_EXIT, ..Info::default() };
    // SAFETY: the request's size is that of `Info`, which the kernel fills in.
    Errno::result(unsafe { libc::ioctl(pidfd.as_raw_fd(), PIDFD_GET_INFO as _, &raw mut info) })?;
    if info.mask & PIDFD_INFO_EXIT == 0 {
        return Ok(None);
    }
    Ok(Some(super::reap::Ended::of_status(info.exit)))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "processes to look at")]
mod tests {
    use super::*;
    use std::{
        io::Write,
        process::{Command, Stdio},
    };

    #[test]
    fn a_pipe_is_found_again_by_the_process_that_has_it() {
        let mut child = Command::new("sleep").arg("1000").stdin(Stdio::piped()).spawn().unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let inode = super::super::fd::inode(stdin.as_fd()).unwrap();
        let pid = child.id() as i32;
        let again = reopen_pipe(pid, inode).unwrap();
        stdin.write_all(b"abc").unwrap();
        let mut got = [0; 8];
        assert_eq!(super::super::fd::read(again.as_fd(), &mut got), Ok(3));
        assert!(reopen_pipe(pid, inode + 1_000_000).is_none());
        child.kill().unwrap();
        child.wait().unwrap();
    }

    #[test]
    fn how_a_reaped_process_has_ended_is_known_where_the_kernel_can_tell() {
        let mut child = Command::new("/bin/sh").args(["-c", "exit 37"]).spawn().unwrap();
        let pidfd = open(child.id() as i32).unwrap();
        child.wait().unwrap();
        match exit_status(pidfd.as_fd()) {
            Ok(ended) => assert_eq!(ended, Some(super::super::reap::Ended::Code(37))),
            Err(e) => assert!(matches!(e, Errno::ENOTTY | Errno::EINVAL | Errno::ESRCH), "{e}"),
        }
    }
}
