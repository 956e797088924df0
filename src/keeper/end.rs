//! The end: signals that ask for it, the keeper's own patience, and leaving the host as it was found.

#![forbid(unsafe_code)]

use super::{
    base::empty_within,
    protocol::News,
    state::{Keeper, Shutdown, complain},
};
use crate::sys::clock;

/// What a manager gets on top of `shutdown-timeout`.
const GRACE_MS: u64 = 5_000;
/// How long SIGKILL may take at the very end.
const KILL_MS: u64 = 5_000;
/// How long the manager may take to end after it said `Exit`.
const FAREWELL_MS: u64 = 5_000;
/// Status where the keeper had to end things itself.
const INTERNAL: i32 = 70;

impl Keeper {
    /// SIGTERM or SIGINT: the first asks for an orderly stop, the second for a quick one, the third is final.
    pub(super) fn on_stop_signal(&mut self) {
        let patience = self.spec.shutdown_timeout.0.saturating_add(GRACE_MS);
        match self.shutdown {
            None => {
                let deadline = clock::boottime_ms().saturating_add(patience);
                self.shutdown = Some(Shutdown { force: false, deadline });
                self.tell(News::Shutdown { force: false });
            }
            Some(Shutdown { force: false, deadline }) => {
                self.shutdown = Some(Shutdown { force: true, deadline });
                self.tell(News::Shutdown { force: true });
            }
            Some(Shutdown { force: true, .. }) => self.give_up(),
        }
    }

    /// Stops waiting for the manager: everything is killed.
    pub(super) fn give_up(&mut self) {
        self.exit = self.exit.or(Some(INTERNAL));
    }

    /// Leaves nothing behind: no process, no cgroup. Waits, as nothing else is to be done any more.
    pub(super) fn leave(&mut self) {
        self.close_sessions();
        self.end_formers();
        // One that has not said `Exit` would go on writing logs until it is killed.
        self.dismiss_manager(if self.exit == Some(INTERNAL) { 0 } else { FAREWELL_MS });
        self.dismiss_launchers();
        // All at once, then one by one.
        for run in self.runs.values().filter(|r| !r.over()) {
            let _ = run.tree.kill(run.reaped());
        }
        for (id, run) in &self.runs {
            if !run.over() && !empty_within(&run.tree, KILL_MS) {
                complain(&format!("{} (run {id}) does not die of SIGKILL; it is left behind", run.service));
            }
        }
        self.tidy_all();
        self.forget_record();
        self.runs.clear();
        self.reap();
        if let Some(base) = &self.base {
            base.close();
        }
    }
}
