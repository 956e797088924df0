//! Launchers that come to rest: those that are not needed any more, all of them for an upgrade, and all at the end.

#![forbid(unsafe_code)]

use super::{
    errand::Errand,
    launchers::{Busy, Launcher, Launchers, USUAL},
    order::Kind,
    state::Keeper,
};
use crate::sys::{self, packet, pidfd, reap, signal};
use std::os::fd::AsFd;

/// How long launchers may take to end.
const FAREWELL_MS: u64 = 1_000;

impl Launchers {
    /// Lets errands wait, or not any more.
    pub(super) fn hold(&mut self, yes: bool) {
        self.held = yes;
    }

    /// Cgroups whose removal waits.
    pub(super) fn remains(&self) -> Vec<String> {
        let removals = self.waiting.iter().flatten().filter_map(|errand| match errand {
            Errand::Remove(folders) => Some(folders.clone()),
            _ => None,
        });
        removals.flatten().collect()
    }
}

impl Keeper {
    /// Ends those that were only needed because others hung.
    pub(super) fn retire_launchers(&mut self) {
        for kind in [Kind::Restricted, Kind::Free] {
            let free = self.launchers.all.values_mut().filter(|l| l.kind == kind && l.free());
            for launcher in free.skip(USUAL) {
                launcher.leaving = true;
                packet::finish(&launcher.socket);
            }
        }
    }

    /// Ends every launcher, so that nothing is born any more. Waits, as nothing else is to be done.
    pub(super) fn dismiss_launchers(&mut self) {
        self.launchers.waiting = Default::default();
        // They end with their sockets.
        let tell = |Launcher { child, record, busy, .. }| {
            if busy.is_some() {
                let _ = pidfd::send_signal(child.pidfd.as_fd(), signal::SIGKILL);
            }
            (child, record, busy)
        };
        let told: Vec<_> = std::mem::take(&mut self.launchers.all).into_values().map(tell).collect();
        for (child, record, busy) in told {
            let pidfd = child.pidfd.as_fd();
            if !matches!(pidfd::wait_end(pidfd, FAREWELL_MS), Ok(true)) {
                let _ = pidfd::send_signal(pidfd, signal::SIGKILL);
                let _ = pidfd::wait_end(pidfd, FAREWELL_MS);
            }
            let _: sys::Result<_> = reap::reap(pidfd);
            if let Some(Busy { ended: None, .. }) = busy
                && let pid @ 1.. = record.pid()
            {
                let _ = pidfd::open(pid).and_then(|fd| pidfd::send_signal(fd.as_fd(), signal::SIGKILL));
            }
        }
    }
}
