//! Signals of our own process: dispositions, the mask, and reading them from a descriptor.

use super::{Errno, Result};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::{
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd},
};

pub use libc::{
    SIGABRT, SIGCHLD, SIGCONT, SIGHUP, SIGINT, SIGKILL, SIGPIPE, SIGQUIT, SIGSEGV, SIGSTOP, SIGTERM, SIGUSR1,
};

/// Highest signal number.
pub const MAX: i32 = 64;

/// Gives every signal its default action. Those of SIGKILL, SIGSTOP and the C library's own cannot be set.
pub fn reset_all() {
    for signal in 1..=MAX {
        set_action(signal, libc::SIG_DFL);
    }
}

/// Ignores a signal.
pub fn ignore(signal: i32) {
    set_action(signal, libc::SIG_IGN);
}

fn set_action(signal: i32, action: libc::sighandler_t) {
    let mut new = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: an all-zero sigaction is valid; `action` is one of the two constants, so no handler of ours
    // will ever run.
    unsafe {
        (*new.as_mut_ptr()).sa_sigaction = action;
        libc::sigaction(signal, new.as_ptr(), std::ptr::null_mut());
    }
}

/// Lets every signal through.
pub fn unblock_all() -> Result<()> {
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
}

/// The name of a signal, "SIGTERM", or its number where it has none.
pub fn name(signal: i32) -> String {
    Signal::try_from(signal).map_or_else(|_| format!("signal {signal}"), |s| s.as_str().to_owned())
}

/// Signals that are read from a descriptor instead of interrupting.
#[derive(Debug)]
pub struct Inbox(SignalFd);

impl Inbox {
    /// Blocks these signals and opens the descriptor that brings them.
    pub fn new(signals: &[i32]) -> Result<Inbox> {
        let mut set = SigSet::empty();
        for s in signals {
            set.add(Signal::try_from(*s)?);
        }
        sigprocmask(SigmaskHow::SIG_BLOCK, Some(&set), None)?;
        // An ignored signal would never arrive, and an ignored SIGCHLD would reap children behind our back.
        for s in signals {
            set_action(*s, libc::SIG_DFL);
        }
        Ok(Inbox(SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?))
    }

    /// The next signal that has arrived, if any.
    pub fn next(&self) -> Option<i32> {
        loop {
            match self.0.read_signal() {
                Ok(found) => return found.map(|i| i.ssi_signo as i32),
                Err(Errno::EINTR) => {}
                Err(_) => return None,
            }
        }
    }
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
