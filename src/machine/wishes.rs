//! What people and clients want. A wish changes what is desired and leaves the doing to `settle`.

use super::{
    Effect, Machine, NoticeKind, Outcome, ServiceId, Ticket,
    event::Wish,
    service::{Asked, Because, Bounce, State, StateKind, Want},
};
use crate::plan::{Job, Reload, signal::signal_name};

impl Machine {
    pub(super) fn grant(&mut self, wish: Wish) {
        let (ticket, service) = match &wish {
            Wish::Forget { ticket } => return self.forget(*ticket),
            Wish::Due { service, at_ms, run } => return self.time_has_come(*service, *at_ms, *run),
            Wish::Apply { plan, generation } => return self.apply(plan, *generation),
            Wish::Shutdown { force } => return self.shut_down(*force),
            Wish::Start { ticket, service }
            | Wish::Stop { ticket, service }
            | Wish::Restart { ticket, service }
            | Wish::Reload { ticket, service }
            | Wish::Signal { ticket, service, .. }
            | Wish::Await { ticket, service } => (*ticket, *service),
        };
        if self.shutdown.is_some() {
            return self.reply(ticket, Outcome::ShuttingDown);
        }
        if self.services.get(service.0 as usize).is_none_or(|s| s.free) {
            return self.reply(ticket, Outcome::Conflict("there is no such service".into()));
        }
        match wish {
            Wish::Start { .. } => self.start(service, ticket),
            Wish::Stop { .. } => self.stop(service, ticket),
            Wish::Restart { .. } => self.restart(service, ticket),
            Wish::Reload { .. } => self.reload(service, ticket),
            Wish::Signal { signal, .. } => self.signal(service, ticket, signal),
            Wish::Await { .. } => self.ask(service, ticket, Asked::Settled),
            Wish::Due { .. } | Wish::Forget { .. } | Wish::Apply { .. } | Wish::Shutdown { .. } => {}
        }
    }

    /// See [`Wish::Due`].
    fn time_has_come(&mut self, id: ServiceId, at_ms: u64, run: bool) {
        let Some(svc) = self.services.get_mut(id.0 as usize).filter(|s| !s.free && s.scheduled()) else {
            return;
        };
        svc.rec.planned = Some(at_ms);
        self.touch(id);
        if !run || self.shutdown.is_some() || !self.at(id).wanted() {
            return;
        }
        let name = self.at(id).name.clone();
        match self.at(id).rec.state {
            State::Waiting { .. } => {
                self.at_mut(id).rec.due = true;
                self.dirty(id);
            }
            State::Exited | State::Failed { .. } => {
                self.at_mut(id).rec.due = true;
                self.set(id, State::Waiting { auto: false });
            }
            // Its retry comes, and stands for this one too.
            State::Backoff { .. } | State::Stopped => {}
            State::Starting { .. } | State::Running { .. } | State::Stopping { .. } | State::Stuck { .. } => {
                let message = format!("{name} is not run again now: its last run is not over");
                self.notice(id, NoticeKind::State, message, None);
            }
        }
    }

    /// When times of a scheduled service were last looked at, in milliseconds since 1970.
    pub fn looked_at(&self, id: ServiceId) -> Option<u64> {
        self.at(id).rec.planned
    }

    fn start(&mut self, id: ServiceId, ticket: Ticket) {
        let svc = self.at(id);
        let name = svc.name.clone();
        if svc.gone {
            let message = format!("{name} is no longer in the configuration");
            return self.reply(ticket, Outcome::Conflict(message));
        }
        let pid = svc.rec.state.live().and_then(|live| live.pid);
        let was_up = svc.wanted() && svc.face.up && svc.rec.bounce.is_none();
        for pulled in self.pulled_in(&[id]) {
            self.want_up(pulled, pulled == id);
        }
        self.forgive(id);
        match (was_up, pid) {
            (true, Some(pid)) => {
                self.reply(ticket, Outcome::Done(format!("{name} is already running, pid {pid}")));
            }
            (true, None) | (false, _) => self.ask(id, ticket, Asked::Up),
        }
    }

    fn stop(&mut self, id: ServiceId, ticket: Ticket) {
        let name = self.at(id).name.clone();
        if self.at(id).rec.state == State::Stopped {
            self.set_want(id, Want::Down);
            return self.reply(ticket, Outcome::Done(format!("{name} is already stopped")));
        }
        self.set_want(id, Want::Down);
        let svc = self.at_mut(id);
        if !svc.gone {
            svc.rec.because = Because::Operator;
        }
        self.touch(id);
        let message = format!("{name} was stopped by an operator before it came up");
        self.answer(id, Asked::Up, &Outcome::Failed(message));
        if self.at(id).rec.state.live().is_none() {
            self.set(id, State::Stopped);
            return self.reply(ticket, Outcome::Done(format!("{name} is stopped")));
        }
        self.ask(id, ticket, Asked::Down);
    }

    fn restart(&mut self, id: ServiceId, ticket: Ticket) {
        let kind = self.at(id).rec.state.kind();
        match kind {
            StateKind::Starting | StateKind::Running if !self.at(id).gone => {
                self.at_mut(id).rec.bounce = Some(Bounce::Asked);
                self.at_mut(id).rec.restarts = 0;
                self.touch(id);
                self.dirty(id);
            }
            StateKind::Starting
            | StateKind::Running
            | StateKind::Stopped
            | StateKind::Waiting
            | StateKind::Stopping
            | StateKind::Backoff
            | StateKind::Exited
            | StateKind::Failed
            | StateKind::Stuck => {}
        }
        self.start(id, ticket);
    }

    fn reload(&mut self, id: ServiceId, ticket: Ticket) {
        let svc = self.at_mut(id);
        let name = svc.name.clone();
        let State::Running { live, .. } = &svc.rec.state else {
            return self.reply(ticket, Outcome::Conflict(format!("{name} is not running")));
        };
        let run = live.run;
        match live.reload.clone() {
            Reload::Signal(signal) => {
                self.out.push(Effect::Signal { run, signal });
                self.reply(ticket, Outcome::Done(format!("{} was sent to {name}", signal_name(signal))));
            }
            Reload::Command(_) if svc.reloading => {
                let message = format!("the reload command of {name} is still running");
                self.reply(ticket, Outcome::Conflict(message));
            }
            Reload::Command(_) => {
                svc.reloading = true;
                self.out.push(Effect::RunJob { run, job: Job::Reload });
                self.ask(id, ticket, Asked::Reloaded);
            }
        }
    }

    fn signal(&mut self, id: ServiceId, ticket: Ticket, signal: i32) {
        let svc = self.at(id);
        let name = &svc.name;
        let target = svc.rec.state.live().filter(|live| !live.dead).map(|live| (live.run, live.pid));
        let outcome = match target {
            Some((run, Some(pid))) => {
                let message = format!("{} was sent to {name}, pid {pid}", signal_name(signal));
                self.out.push(Effect::Signal { run, signal });
                Outcome::Done(message)
            }
            Some((_, None)) | None => Outcome::Conflict(format!("{name} is not running")),
        };
        self.reply(ticket, outcome);
    }
}
