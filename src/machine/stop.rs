//! How a run is ended: stop command, signal to the main process, signal to what it left behind, SIGKILL to
//! everything, and the name of what does not even heed that.

use super::{
    Effect, Machine, NoticeKind, Outcome, ServiceId,
    event::Time,
    service::{After, Asked, Because, Bounce, Live, Phase, State},
};
use crate::plan::{Job, Millis};

/// How long the keeper may take to say whether a command was exec'ed. Past that the launch counts as failed.
pub(super) const LAUNCH_LIMIT: Millis = Millis::secs(60);
/// How long after SIGKILL a process may still be there before it is called stuck.
pub(super) const STUCK_AFTER: Millis = Millis::secs(10);

impl Machine {
    /// Begins to end a run that starts or runs.
    pub(super) fn begin_stop(&mut self, id: ServiceId) {
        let because = self.why_held(id);
        let kill_at = self.now + self.stop_timeout(id);
        let svc = self.at_mut(id);
        svc.rec.because = because;
        let Some(live) = svc.rec.state.live().cloned() else { return };
        let known = live.pid.is_some();
        self.set(id, State::Stopping { live, phase: Phase::Launching, kill_at, after: After::Rest });
        if known {
            self.ask_to_end(id);
        }
    }

    /// The main process is there: the stop command, else the signal.
    pub(super) fn ask_to_end(&mut self, id: ServiceId) {
        let State::Stopping { live, kill_at, after, .. } = self.at(id).rec.state.clone() else { return };
        if live.stop.command.is_empty() {
            return self.signal_main(id, live, kill_at, after);
        }
        self.out.push(Effect::RunJob { run: live.run, job: Job::Stop });
        self.set(id, State::Stopping { live, phase: Phase::Command, kill_at, after });
    }

    pub(super) fn signal_main(&mut self, id: ServiceId, live: Live, kill_at: Time, after: After) {
        self.out.push(Effect::Signal { run: live.run, signal: live.stop.signal });
        self.set(id, State::Stopping { live, phase: Phase::Main, kill_at, after });
    }

    /// The main process has ended and left others behind.
    pub(super) fn sweep(&mut self, id: ServiceId, live: Live, kill_at: Time, after: After) {
        self.out.push(Effect::SignalTree { run: live.run, signal: live.stop.signal });
        self.set(id, State::Stopping { live, phase: Phase::Leftovers, kill_at, after });
    }

    /// SIGKILL to everything of the run, whatever it is doing; once.
    pub(super) fn kill(&mut self, id: ServiceId) {
        let stuck_at = self.now + STUCK_AFTER;
        let (live, after) = match &self.at(id).rec.state {
            State::Stopping { phase: Phase::Killed { .. }, .. } => return,
            State::Stopping { live, after, .. } => (live.clone(), *after),
            State::Starting { live, .. } | State::Running { live, .. } => {
                let live = live.clone();
                self.at_mut(id).rec.because = self.why_held(id);
                (live, After::Rest)
            }
            State::Stopped
            | State::Waiting { .. }
            | State::Backoff { .. }
            | State::Exited
            | State::Failed { .. }
            | State::Stuck { .. } => return,
        };
        self.kill_live(id, live, stuck_at, after);
    }

    fn kill_live(&mut self, id: ServiceId, live: Live, stuck_at: Time, after: After) {
        self.out.push(Effect::KillTree { run: live.run });
        let kill_at = self.now;
        self.set(id, State::Stopping { live, phase: Phase::Killed { stuck_at }, kill_at, after });
    }

    /// What falls due: exactly what [`State::deadline`] stands for.
    pub(super) fn fire(&mut self, id: ServiceId) {
        match self.at(id).rec.state.clone() {
            // It was to be stopped anyway, and only waited for its dependents.
            State::Starting { .. } if self.at(id).face.held => self.kill(id),
            State::Starting { live, .. } => {
                let why = format!("its launch did not get as far as its command within {LAUNCH_LIMIT}");
                let message = format!("{} did not start: {why}", self.at(id).name);
                self.notice(id, NoticeKind::LaunchFailed, message, Some(live.run));
                let after = self.judge_launch(id, &why, false);
                self.kill_live(id, live, self.now + STUCK_AFTER, after);
            }
            State::Running { ready_by: Some(by), .. } if by <= self.now => self.too_late(id, by),
            State::Running { .. } => self.stable(id),
            State::Stopping { live, phase: Phase::Killed { .. }, after, .. } => self.give_up(id, live, after),
            State::Stopping { .. } => self.kill(id),
            State::Backoff { .. } | State::Failed { .. } => {
                self.at_mut(id).rec.due = true;
                self.set(id, State::Waiting { auto: true });
            }
            State::Stopped | State::Waiting { .. } | State::Exited | State::Stuck { .. } => {}
        }
    }

    fn give_up(&mut self, id: ServiceId, live: Live, after: After) {
        let run = live.run;
        self.set(id, State::Stuck { live, after });
        let message = format!("{}: {}", self.at(id).name, self.reason(id));
        self.notice(id, NoticeKind::Stuck, message.clone(), Some(run));
        for asked in [Asked::Down, Asked::Up, Asked::Settled, Asked::Reloaded] {
            self.answer(id, asked, &Outcome::Failed(message.clone()));
        }
    }

    /// Nothing of the run is left.
    pub(super) fn finish(&mut self, id: ServiceId, after: After) {
        let svc = self.at_mut(id);
        let Some(run) = svc.rec.state.live().map(|live| live.run) else { return };
        let bounce = svc.rec.bounce.take();
        (svc.replace, svc.reloading) = (false, false);
        let name = svc.name.clone();
        self.runs.remove(&run);
        self.released.push((run, id));
        self.out.push(Effect::Release { run });
        self.answer(id, Asked::Down, &Outcome::Done(format!("{name} is stopped")));
        let message = format!("{name} ended before its reload command did");
        self.answer(id, Asked::Reloaded, &Outcome::Failed(message));
        self.follow(id, after, matches!(bounce, Some(Bounce::Bound | Bounce::Watched(_))));
        self.explain(id, run);
    }

    /// Of the live run.
    pub(super) fn stop_timeout(&self, id: ServiceId) -> Millis {
        let svc = self.at(id);
        svc.rec.state.live().map_or(svc.spec.stop.timeout, |live| live.stop.timeout)
    }

    /// Why a held service is brought down.
    pub(super) fn why_held(&self, id: ServiceId) -> Because {
        let svc = self.at(id);
        if self.shutdown.is_some() {
            return Because::Shutdown;
        }
        if svc.gone {
            return Because::Removed;
        }
        if !svc.wanted() {
            return Because::Operator;
        }
        let down = |to: &&ServiceId| self.at(**to).face.held || !self.at(**to).runs();
        match (svc.rec.bounce, svc.edges.bound.iter().find(down), svc.edges.needs.iter().find(down)) {
            (Some(Bounce::Bound), Some(to), _) => Because::Dependency(self.at(*to).name.clone()),
            (Some(Bounce::Watched(meter)), _, _) => {
                let excess = svc.spec.watch.map(|watch| watch.excess(meter));
                Because::Watched(excess.unwrap_or_else(|| "more than its watch allowed".into()))
            }
            (Some(Bounce::Asked | Bounce::Bound), _, _) => Because::Restart,
            (None, _, _) if svc.replace => Because::Replaced,
            (None, _, Some(to)) => Because::Dependency(self.at(*to).name.clone()),
            (None, _, None) => Because::Operator,
        }
    }

    /// Nobody that depends on it and has to go before it is alive. Stuck ones are not waited for.
    pub(super) fn free_to_stop(&self, id: ServiceId) -> bool {
        let edges = &self.at(id).edges;
        let leaves_later = |by: &ServiceId| self.at(*by).face.held;
        !edges.needed_by.iter().any(|by| self.at(*by).alive())
            && !edges.followed_by.iter().any(|by| self.at(*by).alive() && leaves_later(by))
    }
}
