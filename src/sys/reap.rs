//! Waiting for children: the one place where processes are reaped.

use super::{Errno, Result};
use std::{
    mem::MaybeUninit,
    os::fd::{AsRawFd, BorrowedFd},
};

/// How a child ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    Code(i32),
    Signal { signal: i32, core: bool },
}

impl Ended {
    /// From a status as wait(2) has it.
    pub fn of_status(status: i32) -> Ended {
        match status & 0x7f {
            0 => Ended::Code(status >> 8 & 0xff),
            signal => Ended::Signal { signal, core: status & 0x80 != 0 },
        }
    }
}

/// What a child used, its own waited-for children included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    pub user_us: u64,
    pub system_us: u64,
    pub max_rss_kib: u64,
}

/// The pid of some child that has ended and was not reaped yet; `None` if there is none.
pub fn peek() -> Result<Option<i32>> {
    match wait(libc::P_ALL, 0, libc::WEXITED | libc::WNOHANG | libc::WNOWAIT) {
        Ok((info, _)) => Ok(pid_of(&info)),
        Err(Errno::ECHILD) => Ok(None),
        Err(e) => Err(e),
    }
}

/// Reaps the child behind `pidfd`; `None` if it has not ended.
pub fn reap(pidfd: BorrowedFd<'_>) -> Result<Option<(Ended, Used)>> {
    let (info, used) = wait(libc::P_PIDFD, pidfd.as_raw_fd() as u32, libc::WEXITED | libc::WNOHANG)?;
    Ok(pid_of(&info).map(|_| (ended(&info), used)))
}

/// Whether the child behind `pidfd` is stopped by a signal, as by SIGSTOP.
pub fn is_stopped(pidfd: BorrowedFd<'_>) -> bool {
    let options = libc::WSTOPPED | libc::WNOHANG | libc::WNOWAIT;
    wait(libc::P_PIDFD, pidfd.as_raw_fd() as u32, options).is_ok_and(|(info, _)| pid_of(&info).is_some())
}

/// Reaps a child that [`peek`] has named: until then its number is nobody else's.
pub fn reap_peeked(pid: i32) -> Result<Option<(Ended, Used)>> {
    let (info, used) = wait(libc::P_PID, pid as u32, libc::WEXITED | libc::WNOHANG)?;
    Ok(pid_of(&info).map(|_| (ended(&info), used)))
}

fn wait(kind: libc::idtype_t, id: u32, options: i32) -> Result<(libc::siginfo_t, Used)> {
    let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
    let mut usage = MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: both buffers are valid for writing and of the types that waitid fills in; all-zero is a value
    // of either, for the case that the kernel leaves them alone.
    let (info, usage) = unsafe {
        let r = libc::syscall(libc::SYS_waitid, kind, id, info.as_mut_ptr(), options, usage.as_mut_ptr());
        Errno::result(r)?;
        (info.assume_init(), usage.assume_init())
    };
    let us = |t: libc::timeval| t.tv_sec as u64 * 1_000_000 + t.tv_usec as u64;
    let used = Used {
        user_us: us(usage.ru_utime),
        system_us: us(usage.ru_stime),
        max_rss_kib: usage.ru_maxrss as u64,
    };
    Ok((info, used))
}

fn pid_of(info: &libc::siginfo_t) -> Option<i32> {
    // SAFETY: filled in by waitid (or zero), where this field is the pid.
    let pid = unsafe { info.si_pid() };
    (pid != 0).then_some(pid)
}

fn ended(info: &libc::siginfo_t) -> Ended {
    // SAFETY: filled in by waitid, where this field is the status.
    let status = unsafe { info.si_status() };
    match info.si_code {
        libc::CLD_EXITED => Ended::Code(status),
        code => Ended::Signal { signal: status, core: code == libc::CLD_DUMPED },
    }
}
