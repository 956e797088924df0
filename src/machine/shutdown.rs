//! The orderly stop of everything, in reverse order of the start, and its end. Order is not made here: every
//! service is held, and a held one stops when nobody that depends on it is left (see `settle`).

use super::{
    Effect, Machine, Notice, NoticeKind, Outcome,
    event::Time,
    service::{Asked, Because, StateKind, Want},
};

/// That it was asked for, and how far it has got.
#[derive(Debug, Clone)]
pub(super) struct Shutdown {
    /// When everything left is killed.
    kill_at: Time,
    killed: bool,
    exited: bool,
}

impl Shutdown {
    pub(super) fn deadline(&self) -> Option<Time> {
        (!self.killed).then_some(self.kill_at)
    }
}

impl Machine {
    /// Begins to stop everything; asked again, or with `force`, kills what is left.
    pub(super) fn shut_down(&mut self, force: bool) {
        let again = self.shutdown.is_some();
        if !again {
            let kill_at = self.now + self.plan.daemon.shutdown_timeout;
            self.shutdown = Some(Shutdown { kill_at, killed: false, exited: false });
            let message = "keepd is shutting down: every service is being stopped".into();
            let notice = Notice { service: None, kind: NoticeKind::Shutdown, message, run: None, exit: None };
            self.out.push(Effect::Emit(notice));
            for id in self.all() {
                self.set_want(id, Want::Down);
                self.at_mut(id).rec.because = Because::Shutdown;
                for asked in [Asked::Up, Asked::Settled, Asked::Reloaded] {
                    self.answer(id, asked, &Outcome::ShuttingDown);
                }
                self.dirty(id);
            }
        }
        if again || force {
            self.kill_rest();
        }
    }

    pub(super) fn shutdown_due(&mut self) {
        let deadline = self.shutdown.as_ref().and_then(Shutdown::deadline);
        if deadline.is_some_and(|at| at <= self.now) {
            self.kill_rest();
        }
    }

    fn kill_rest(&mut self) {
        for id in self.all() {
            self.kill(id);
        }
        if let Some(s) = &mut self.shutdown {
            s.killed = true;
        }
    }

    /// Once nothing is alive but what is stuck, the daemon may exit.
    pub(super) fn exit_if_done(&mut self) {
        let alive = [StateKind::Starting, StateKind::Running, StateKind::Stopping];
        if alive.iter().any(|k| self.counts[*k as usize] > 0) {
            return;
        }
        let Some(s) = &mut self.shutdown else { return };
        if std::mem::replace(&mut s.exited, true) {
            return;
        }
        s.killed = true;
        let stuck = |id| self.at(id).rec.state.kind() == StateKind::Stuck;
        let left_behind = self.all().filter(|id| stuck(*id)).map(|id| self.at(id).name.clone()).collect();
        self.out.push(Effect::Exit { left_behind });
    }
}
