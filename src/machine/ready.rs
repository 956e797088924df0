//! Whether a run does its work: ready, ready no more, alive or not, and what it tells of that by itself. A run that
//! is of no use is ended as one that is stopped, and counts as one that has failed.

use super::{
    Machine, NoticeKind, ServiceId, Time,
    probe::LATE,
    service::{Because, Live, Phase, Service, State},
};
use crate::plan::{Check, LiveAction, Millis, RunId, Told, Which};

/// Bytes that are kept of what a service says of itself.
const STATUS_MAX: usize = 256;

impl Machine {
    /// The command of a run was exec'ed.
    pub(super) fn runs_now(&mut self, id: ServiceId, live: Live, at: Time) {
        if let Some(oneshot) = &self.at(id).spec.oneshot {
            // It is ready when it has succeeded.
            let ready_by = oneshot.timeout.map(|timeout| at + timeout);
            return self.set(id, State::Running { live, stable_at: None, ready_by });
        }
        match self.at(id).spec.ready.as_ref().map(|ready| ready.within) {
            Some(within) => {
                let ready_by = Some(self.now + within);
                self.set(id, State::Running { live, stable_at: None, ready_by });
            }
            None => self.ready_since(id, live, at),
        }
    }

    fn ready_since(&mut self, id: ServiceId, mut live: Live, at: Time) {
        let svc = self.at(id);
        let clean = svc.rec.failures == 0 && svc.rec.attempts == 0 && svc.rec.breaker.is_clean();
        live.ready = true;
        let first = *live.first_ready.get_or_insert(at);
        let stable_at = (!clean).then_some(first + svc.spec.backoff.reset_after);
        self.set(id, State::Running { live, stable_at, ready_by: None });
    }

    /// A run is ready. One that was before is so again; nothing changes for one that is.
    pub(super) fn become_ready(&mut self, id: ServiceId) {
        let State::Running { live, .. } = &self.at(id).rec.state else { return };
        if live.ready || live.leaving {
            return;
        }
        let (live, run) = (live.clone(), live.run);
        let again = if live.first_ready.is_some() { " again" } else { "" };
        self.ready_since(id, live, self.now);
        let message = format!("{} is ready{again}", self.at(id).name);
        self.notice(id, NoticeKind::Ready, message, Some(run));
    }

    /// A run is ready no more, and may become so again.
    pub(super) fn lose_ready(&mut self, id: ServiceId, why: &str) {
        let State::Running { live, .. } = &mut self.at_mut(id).rec.state else { return };
        if !std::mem::take(&mut live.ready) {
            return;
        }
        let run = live.run;
        self.touch(id);
        self.dirty(id);
        let message = format!("{} is not ready any more: {why}", self.at(id).name);
        self.notice(id, NoticeKind::Ready, message, Some(run));
    }

    /// The time is up in which a run was to be ready, or to end by itself.
    pub(super) fn too_late(&mut self, id: ServiceId, by: Time) {
        let (now, timeout) = (self.now, self.stop_timeout(id));
        let svc = self.at_mut(id);
        let held = svc.face.held;
        let timeout_of_oneshot = svc.spec.oneshot.as_ref().map(|oneshot| oneshot.timeout.unwrap_or_default());
        let within = svc.spec.ready.as_ref().map_or(Millis(0), |ready| ready.within);
        let within = timeout_of_oneshot.unwrap_or(within);
        let State::Running { live, ready_by, .. } = &mut svc.rec.state else { return };
        let (given, leaving) = if live.leaving { (timeout, true) } else { (within, false) };
        if held || now.since(by) > LATE {
            // Nobody was there to see it become ready; one that is to be stopped anyway is not waited for.
            *ready_by = (!held).then_some(now + given);
            return self.sync_deadline(id);
        }
        let why = match svc.probing[Which::Ready as usize].failure() {
            _ if leaving => format!("said that it was stopping, and did not end within {given}"),
            _ if timeout_of_oneshot.is_some() => format!("took longer than its timeout of {given}"),
            Some(why) => format!("was not ready within {given}: {why}"),
            None => format!("was not ready within {given}"),
        };
        self.unfit(id, NoticeKind::LaunchFailed, &why);
    }

    /// It is alive.
    pub(super) fn healthy(&mut self, id: ServiceId) {
        let svc = self.at_mut(id);
        if std::mem::take(&mut svc.probing[Which::Live as usize].alerted) {
            let (message, run) = (format!("{} is healthy again", svc.name), svc.run());
            self.touch(id);
            self.notice(id, NoticeKind::Recovered, message, run);
        }
    }

    /// It is not, as its `live` table says.
    pub(super) fn unhealthy(&mut self, id: ServiceId, why: &str) {
        let room = self.spent.room_at(self.now, self.plan.daemon.restart_budget) == Some(self.now);
        let svc = self.at_mut(id);
        let Some(action) = svc.spec.live.as_ref().map(|live| live.action) else { return };
        // What could not be started again at once is not stopped.
        if action == LiveAction::Restart && room {
            return self.unfit(id, NoticeKind::Unhealthy, &format!("is unhealthy: {why}"));
        }
        if !std::mem::replace(&mut svc.probing[Which::Live as usize].alerted, true) {
            let (message, run) = (format!("{} is unhealthy: {why}", svc.name), svc.run());
            self.touch(id);
            self.notice(id, NoticeKind::Unhealthy, message, run);
        }
    }

    /// A run is of no use: it is ended in order, and has failed. `why` completes "web ...".
    fn unfit(&mut self, id: ServiceId, kind: NoticeKind, why: &str) {
        let State::Running { live, .. } = &self.at(id).rec.state else { return };
        let (live, message) = (live.clone(), format!("{} {why}", self.at(id).name));
        self.notice(id, kind, format!("{message}; it is stopped"), Some(live.run));
        let after = self.judge_failure(id, Because::Unfit(why.to_owned()), message, false);
        let kill_at = self.now + self.stop_timeout(id);
        self.set(id, State::Stopping { live, phase: Phase::Launching, kill_at, after });
        self.ask_to_end(id);
    }

    /// What a run tells of itself.
    pub(super) fn told(&mut self, run: RunId, told: Told) {
        let Some(&id) = self.runs.get(&run) else { return };
        let Some(live) = self.at_mut(id).rec.state.live_mut().filter(|live| !live.dead) else { return };
        let before = live.clone();
        if let Some(status) = &told.status {
            live.status = Some(shown(status)).filter(|s| !s.is_empty());
        }
        if told.main.is_some() {
            live.pid = told.main;
        }
        if told.watchdog.is_some() {
            live.watchdog = told.watchdog.filter(|time| time.0 > 0);
        }
        live.reloading = told.reloading || live.reloading && !told.ready;
        let rescheduled = live.watchdog != before.watchdog;
        if *live != before {
            self.touch(id);
        }
        if let Some(extra) = told.extend {
            self.extend(id, extra);
        }
        if told.alive || rescheduled {
            self.heard_of(id, told.alive);
        }
        let svc = self.at(id);
        if !matches!(svc.rec.state, State::Running { .. }) || svc.face.held {
            return;
        }
        let tells = |check: &Check| !check.is_asked();
        if told.stopping {
            self.leaves(id);
        } else if told.ready && svc.spec.ready.as_ref().is_some_and(|ready| tells(&ready.probe.check)) {
            self.become_ready(id);
        }
        if told.failing && watched(self.at(id)) {
            self.unhealthy(id, "it says so itself (WATCHDOG=trigger)");
        }
    }

    /// It takes longer, as the service says: to become ready, or to stop.
    fn extend(&mut self, id: ServiceId, extra: Millis) {
        let at = self.now + extra;
        match &mut self.at_mut(id).rec.state {
            State::Running { ready_by: Some(by), .. } => *by = at.max(*by),
            State::Stopping { phase: Phase::Killed { .. }, .. } => return,
            State::Stopping { kill_at, .. } => *kill_at = at.max(*kill_at),
            State::Stopped
            | State::Waiting { .. }
            | State::Starting { .. }
            | State::Running { .. }
            | State::Backoff { .. }
            | State::Exited
            | State::Failed { .. }
            | State::Stuck { .. } => return,
        }
        self.sync_deadline(id);
        self.touch(id);
    }

    /// It says that it is about to end, which it is then given the time of a stop for.
    fn leaves(&mut self, id: ServiceId) {
        let by = self.now + self.stop_timeout(id);
        let State::Running { live, ready_by, .. } = &mut self.at_mut(id).rec.state else { return };
        if std::mem::replace(&mut live.leaving, true) {
            return;
        }
        *ready_by = Some(by);
        self.lose_ready(id, "it says that it is stopping");
        self.touch(id);
        self.sync_deadline(id);
    }

    /// Why a running service is not ready.
    pub(super) fn unready(&self, svc: &Service, live: &Live) -> Option<String> {
        let failure = svc.probing[Which::Ready as usize].failure();
        match (live.ready, failure) {
            (true, _) if live.reloading => Some("it is reloading".into()),
            (true, _) => {
                let live = &svc.probing[Which::Live as usize];
                live.failure().filter(|_| live.alerted).map(|why| format!("unhealthy: {why}"))
            }
            (false, _) if svc.spec.oneshot.is_some() => Some("at work".into()),
            (false, _) if live.leaving => Some("not ready: it says that it is stopping".into()),
            (false, _) if live.first_ready.is_none() => Some(match failure {
                Some(why) => format!("not ready yet: {why}"),
                None => "not ready yet".into(),
            }),
            (false, why) => Some(format!("not ready any more: {}", why.unwrap_or("it has failed its probe"))),
        }
    }
}

/// Whether it is to tell that it is alive.
fn watched(svc: &Service) -> bool {
    svc.spec.live.as_ref().is_some_and(|live| live.probe.check == Check::Notify)
}

/// What a service says, as it can be shown: one line without control characters, and not too long.
fn shown(text: &str) -> String {
    let line = text.lines().next().unwrap_or("").trim();
    let mut out: String = line.chars().filter(|c| !c.is_control()).collect();
    while out.len() > STATUS_MAX {
        out.pop();
    }
    out
}
