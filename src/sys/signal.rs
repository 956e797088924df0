//! Signals of our own process: dispositions, the mask, and reading them from a descriptor.

use super::{Errno, Result};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::os::fd::{AsFd, BorrowedFd};

pub use libc::{
    SIGABRT, SIGCHLD, SIGCONT, SIGHUP, SIGINT, SIGKILL, SIGPIPE, SIGQUIT, SIGSEGV, SIGSTOP, SIGTERM, SIGUSR1,
};

/// Highest signal number.
pub const MAX: i32 = 64;

/// Gives every signal its default action.
pub fn reset_all() {
    for signal in 1..=MAX {
        set_action(signal, libc::SIG_DFL);
    }
}

/// Gives a signal its default action.
pub fn set_default(signal: i32) {
    set_action(signal, libc::SIG_DFL);
}

/// Ignores a signal.
pub fn ignore(signal: i32) {
    set_action(signal, libc::SIG_IGN);
}

fn set_action(signal: i32, action: libc::sighandler_t) {
    // The kernel's struct begins with the handler and is otherwise zero here: no flags, no restorer, an empty
    // mask. The C library's call would refuse the two real-time signals that it uses itself, which an
    // ignoring parent has passed on to us all the same.
    let new: [libc::sighandler_t; 8] = [action, 0, 0, 0, 0, 0, 0, 0];
    let none = std::ptr::null_mut::<libc::sighandler_t>();
    // SAFETY: `new` is larger than the kernel's struct, and `action` is one of the two constants, so no
    // handler will ever run. SIGKILL and SIGSTOP give EINVAL.
    unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, new.as_ptr(), none, 8) };
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
