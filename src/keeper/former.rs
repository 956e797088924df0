//! Managers of earlier keepers, which were killed. Each holds what it had not written yet, and nobody else does for
//! sure: so it is stopped, not ended, until a manager of ours has all of that and says that it is ready.

#![forbid(unsafe_code)]

use super::{
    protocol::NoteLevel,
    saved::{Identity, identity},
    state::Keeper,
};
use crate::sys::{
    clock,
    fd::{self, Kind},
    folder, pidfd,
    poll::Poll,
    process, signal,
};
use std::os::fd::{AsFd, OwnedFd};

/// How long one may take to stop, or to die of SIGKILL.
const STOP_MS: u64 = 1_000;
const KILL_MS: u64 = 5_000;
/// How often that is looked at.
const LOOK_MS: u64 = 1;

/// One of them: its number, when it began, and what it is.
#[derive(Debug)]
pub(super) struct Former {
    pub(super) pid: i32,
    pub(super) born: Option<u64>,
    pidfd: OwnedFd,
}

impl Keeper {
    /// Stops an earlier keeper's manager, and takes copies of what it holds.
    pub(super) fn unburden(&mut self, pid: i32, born: Option<u64>) -> Vec<(Identity, OwnedFd)> {
        let Some(manager) = same_process(pid, born) else { return Vec::new() };
        let _ = pidfd::send_signal(manager.as_fd(), signal::SIGSTOP);
        let until = clock::boottime_ms() + STOP_MS;
        while !process::is_stopped(pid) && clock::boottime_ms() < until {
            // The kernel tells nobody but its parent.
            let _ = Poll::new(1).and_then(|mut p| p.wait(Some(LOOK_MS)));
        }
        let held = pidfd::copies(manager.as_fd(), pid);
        if process::is_stopped(pid) {
            // The locks of its log files are the files', and these are the same.
            for file in held.iter().filter(|fd| matches!(fd::kind(fd.as_fd()), Ok(Kind::Regular { .. }))) {
                let _ = folder::release(file.as_fd());
            }
            self.formers.push(Former { pid, born, pidfd: manager });
        } else {
            // A file system holds it: it must not go on beside another.
            let _ = pidfd::send_signal(manager.as_fd(), signal::SIGKILL);
            if !matches!(pidfd::wait_end(manager.as_fd(), KILL_MS), Ok(true)) {
                let text = format!("the manager of an earlier keepd, pid {pid}, does not end");
                self.note(NoteLevel::Error, text);
            }
        }
        held.into_iter().filter_map(|fd| Some((identity(fd.as_fd())?, fd))).collect()
    }

    /// Ends them: whatever they held is in other hands, or nobody's business any more.
    pub(super) fn end_formers(&mut self) {
        for former in std::mem::take(&mut self.formers) {
            let _ = pidfd::send_signal(former.pidfd.as_fd(), signal::SIGKILL);
        }
    }
}

/// A process by number, if it still is the one that began then.
pub(super) fn same_process(pid: i32, born: Option<u64>) -> Option<OwnedFd> {
    let born = born?;
    let fd = pidfd::open(pid).ok()?;
    // Asked afterwards: the descriptor means one process, and this says which.
    (process::born(pid) == Some(born)).then_some(fd)
}
