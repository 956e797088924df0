//! What the keeper saw. Each fact names a run: one that the machine no longer knows changes nothing, and a
//! fact that comes twice changes nothing the second time.

use super::{
    IncidentKind, LastExit, Machine, NoticeKind, ServiceId, StateKind, Time,
    event::Fact,
    service::{After, Asked, Because, Phase, State},
    words,
};
use crate::plan::{Exit, Job, Millis, RunId};

impl Machine {
    pub(super) fn hear(&mut self, fact: Fact) {
        match fact {
            Fact::Started { run, pid, at } => self.started(run, pid, at),
            Fact::LaunchFailed { run, why, transient } => self.launch_failed(run, &why, transient),
            Fact::Exited { run, exit, leftovers, at } => self.exited(run, exit, leftovers, at),
            Fact::Emptied { run } => self.emptied(run),
            Fact::Measured { run, reading } => self.measured(run, reading),
            Fact::Adjusted { run, why } => self.adjusted(run, why),
            Fact::Told { run, told } => self.told(run, told),
            Fact::Probed { run, which, number, verdict } => self.probed(run, which, number, verdict),
            Fact::JobEnded { run, job: Job::Stop, why } => self.stop_command_ended(run, &why),
            Fact::JobEnded { run, job: Job::Reload, why } => self.reload_command_ended(run, &why),
        }
    }

    fn started(&mut self, run: RunId, pid: u32, at: Time) {
        let Some(&id) = self.runs.get(&run) else { return };
        let svc = self.at_mut(id);
        let Some(live) = svc.rec.state.live_mut() else { return };
        if live.pid.is_some() {
            return;
        }
        (live.pid, live.started) = (Some(pid), Some(at));
        let live = live.clone();
        self.touch(id);
        match &self.at(id).rec.state {
            State::Starting { .. } => self.runs_now(id, live, at),
            State::Stopping { phase: Phase::Launching, .. } => self.ask_to_end(id),
            State::Stopping { phase: Phase::Command, .. }
            | State::Stopping { phase: Phase::Main, .. }
            | State::Stopping { phase: Phase::Leftovers, .. }
            | State::Stopping { phase: Phase::Killed { .. }, .. }
            | State::Stuck { .. }
            | State::Running { .. }
            | State::Stopped
            | State::Waiting { .. }
            | State::Backoff { .. }
            | State::Exited
            | State::Failed { .. } => {}
        }
    }

    fn launch_failed(&mut self, run: RunId, why: &str, transient: bool) {
        let Some(&id) = self.runs.get(&run) else { return };
        let svc = self.at(id);
        let name = svc.name.clone();
        if svc.rec.state.live().is_none_or(|live| live.pid.is_some() || live.dead) {
            return;
        }
        match svc.rec.state {
            State::Starting { .. } if svc.face.held => self.finish(id, After::Rest),
            State::Starting { .. } => {
                self.notice(id, NoticeKind::LaunchFailed, format!("{name} did not start: {why}"), Some(run));
                let after = self.judge_launch(id, why, transient);
                self.finish(id, after);
            }
            State::Stopping { after, .. } | State::Stuck { after, .. } => self.finish(id, after),
            State::Running { .. }
            | State::Stopped
            | State::Waiting { .. }
            | State::Backoff { .. }
            | State::Exited
            | State::Failed { .. } => {}
        }
    }

    fn exited(&mut self, run: RunId, exit: Exit, leftovers: bool, at: Time) {
        let Some(&id) = self.runs.get(&run) else { return };
        let Some(live) = self.at_mut(id).rec.state.live_mut() else { return };
        if live.dead {
            // The same news again, or a look at the run at a later time.
            if !leftovers {
                self.emptied(run);
            }
            return;
        }
        live.dead = true;
        let left = leftovers && !live.empty;
        let ran = live.started.map_or(Millis(0), |t| at.since(t));
        let lasted = live.first_ready.map_or(Millis(0), |t| at.since(t));
        let live = live.clone();
        if lasted >= self.at(id).spec.backoff.reset_after {
            self.at_mut(id).rec.good = Some(live.generation);
        }
        self.record_exit(id, LastExit { exit, at, run, ran });
        if self.at(id).rec.state.kind() == StateKind::Stopping {
            self.note_policy(id, exit, at);
        }
        if let Some(incident) = self.at_mut(id).rec.incident.as_mut().filter(|i| i.run == run) {
            // One that was noted when its stop began.
            incident.exit = Some(exit);
        }
        let svc = self.at(id);
        match svc.rec.state {
            State::Starting { .. } | State::Running { .. } => {
                let after = match svc.face.held {
                    true => self.planned(id, exit, at),
                    false => self.judge_exit(id, exit, lasted, at),
                };
                match left {
                    true => self.sweep(id, live, self.now + self.stop_timeout(id), after),
                    false => self.finish(id, after),
                }
            }
            State::Stopping { after, .. } | State::Stuck { after, .. } if !left => self.finish(id, after),
            State::Stopping { phase, kill_at, after, .. } => match phase {
                Phase::Launching | Phase::Main | Phase::Leftovers => self.sweep(id, live, kill_at, after),
                // The stop command may still have something to do.
                Phase::Command | Phase::Killed { .. } => {}
            },
            State::Stuck { .. }
            | State::Stopped
            | State::Waiting { .. }
            | State::Backoff { .. }
            | State::Exited
            | State::Failed { .. } => {}
        }
    }

    fn adjusted(&mut self, run: RunId, why: String) {
        let Some(&id) = self.runs.get(&run) else { return };
        let Some(live) = self.at_mut(id).rec.state.live_mut() else { return };
        let refused = (!why.is_empty()).then_some(why);
        if live.refused == refused {
            // A lower memory.high tells nothing of what was used before.
            return self.watch_anew(id);
        }
        live.refused.clone_from(&refused);
        self.touch(id);
        self.watch_anew(id);
        if let Some(why) = refused {
            let message = format!("{} runs on with the resources that it had: {why}", self.at(id).name);
            self.notice(id, NoticeKind::State, message, Some(run));
        }
    }

    fn planned(&mut self, id: ServiceId, exit: Exit, at: Time) -> After {
        let because = self.why_held(id);
        self.at_mut(id).rec.because = because;
        self.note_policy(id, exit, at);
        After::Rest
    }

    /// keepd itself ended it, but nobody asked for that.
    fn note_policy(&mut self, id: ServiceId, exit: Exit, at: Time) {
        if let Because::Watched(excess) = &self.at(id).rec.because {
            let why = format!("was stopped because it used {excess}: it {}", words::ended(exit));
            self.note_incident(id, IncidentKind::Watch, &why, Some(exit), at);
        }
    }

    fn emptied(&mut self, run: RunId) {
        let Some(&id) = self.runs.get(&run) else { return };
        let svc = self.at_mut(id);
        let Some(live) = svc.rec.state.live_mut() else { return };
        live.empty = true;
        let dead = live.dead;
        self.touch(id);
        match self.at(id).rec.state {
            State::Stopping { after, .. } | State::Stuck { after, .. } if dead => self.finish(id, after),
            // The end of its main process is still to be told; then nothing is left.
            State::Stopping { .. } | State::Stuck { .. } | State::Starting { .. } | State::Running { .. } => {
            }
            State::Stopped
            | State::Waiting { .. }
            | State::Backoff { .. }
            | State::Exited
            | State::Failed { .. } => {}
        }
    }

    fn record_exit(&mut self, id: ServiceId, last: LastExit) {
        let svc = self.at_mut(id);
        svc.rec.last_exit = Some(last);
        let message = format!("{} {}", svc.name, words::ended(last.exit));
        self.touch(id);
        self.notice(id, NoticeKind::Exit, message, Some(last.run));
        if last.exit == Exit::Oom {
            let svc = self.at(id);
            let message = format!("{} {}", svc.name, Machine::oom_sentence(svc));
            self.notice(id, NoticeKind::Oom, message, Some(last.run));
        }
    }

    fn stop_command_ended(&mut self, run: RunId, why: &str) {
        let Some(&id) = self.runs.get(&run) else { return };
        let svc = self.at(id);
        let State::Stopping { live, phase: Phase::Command, kill_at, after } = &svc.rec.state else { return };
        let (live, kill_at, after) = (live.clone(), *kill_at, *after);
        if !why.is_empty() {
            let message = format!("{}: its stop command failed ({why}), it is stopped without", svc.name);
            self.notice(id, NoticeKind::State, message, Some(run));
        }
        match live.dead {
            true => self.sweep(id, live, kill_at, after),
            false => self.signal_main(id, live, kill_at, after),
        }
    }

    fn reload_command_ended(&mut self, run: RunId, why: &str) {
        let Some(&id) = self.runs.get(&run) else { return };
        self.at_mut(id).reloading = false;
        let name = self.at(id).name.clone();
        let outcome = match why.is_empty() {
            true => super::Outcome::Done(format!("{name} was reloaded")),
            false => super::Outcome::Failed(format!("cannot reload {name}: {why}")),
        };
        self.answer(id, Asked::Reloaded, &outcome);
    }

    /// Says in `because` that the last run ended by itself.
    pub(super) fn ended_by_itself(&mut self, id: ServiceId) {
        self.at_mut(id).rec.because = Because::Exit;
        self.touch(id);
    }
}
