//! Answers: every ticket gets exactly one, unless it is forgotten first.

use super::{
    Effect, Machine, Notice, NoticeKind, Outcome, ServiceId, Ticket,
    ending::succeeded,
    service::{Asked, StateKind},
};
use crate::plan::RunId;

impl Machine {
    pub(super) fn reply(&mut self, ticket: Ticket, outcome: Outcome) {
        self.out.push(Effect::Reply { ticket, outcome });
    }

    /// Keeps a ticket until there is an answer.
    pub(super) fn ask(&mut self, id: ServiceId, ticket: Ticket, asked: Asked) {
        self.tickets.insert(ticket, id);
        self.at_mut(id).tickets.push((ticket, asked));
        self.touch(id);
    }

    pub(super) fn forget(&mut self, ticket: Ticket) {
        if let Some(id) = self.tickets.remove(&ticket) {
            self.at_mut(id).tickets.retain(|(t, _)| *t != ticket);
        }
    }

    /// Answers all tickets of a service that wait for this.
    pub(super) fn answer(&mut self, id: ServiceId, asked: Asked, outcome: &Outcome) {
        let svc = self.at_mut(id);
        if svc.tickets.is_empty() {
            return;
        }
        let (now, later) = std::mem::take(&mut svc.tickets).into_iter().partition(|(_, a)| *a == asked);
        svc.tickets = later;
        let now: Vec<(Ticket, Asked)> = now;
        for (ticket, _) in now {
            self.tickets.remove(&ticket);
            self.reply(ticket, outcome.clone());
        }
    }

    /// Ends a step: tells the states that changed, and answers those whose wish has come true or cannot.
    pub(super) fn tell(&mut self) {
        for id in std::mem::take(&mut self.queues.touched) {
            let svc = self.at_mut(id);
            svc.queued.touched = false;
            if svc.free {
                continue;
            }
            let kind = svc.rec.state.kind();
            let run = svc.rec.state.live().map(|live| live.run);
            if std::mem::replace(&mut svc.told, kind) != kind {
                let message = self.state_sentence(id);
                self.notice(id, NoticeKind::State, message, run);
            }
            for asked in [Asked::Up, Asked::Down, Asked::Settled] {
                if self.at(id).tickets.iter().any(|(_, a)| *a == asked)
                    && let Some(outcome) = self.outcome(id, asked)
                {
                    self.answer(id, asked, &outcome);
                }
            }
            if !std::mem::replace(&mut self.at_mut(id).queued.changed, true) {
                self.queues.changed.push(id);
            }
        }
    }

    /// What a wish has come to by now; `None`: not yet known.
    fn outcome(&self, id: ServiceId, asked: Asked) -> Option<Outcome> {
        let svc = self.at(id);
        let sentence = || self.state_sentence(id);
        match (asked, svc.rec.state.kind()) {
            (Asked::Reloaded, _) => None,
            (_, StateKind::Stuck) => Some(Outcome::Failed(sentence())),
            (Asked::Down, StateKind::Stopped) => Some(Outcome::Done(sentence())),
            (Asked::Down, _) => None,
            (Asked::Up | Asked::Settled, StateKind::Running) if svc.face.up => {
                Some(Outcome::Done(sentence()))
            }
            (Asked::Settled, StateKind::Waiting) if svc.scheduled() && !svc.rec.due => {
                Some(Outcome::Done(sentence()))
            }
            (Asked::Up | Asked::Settled, StateKind::Waiting) if !svc.face.met => {
                Some(Outcome::Failed(sentence()))
            }
            (Asked::Up | Asked::Settled, StateKind::Exited) => {
                match svc.rec.last_exit.is_some_and(|last| succeeded(&svc.spec, last.exit)) {
                    true => Some(Outcome::Done(sentence())),
                    false => Some(Outcome::Failed(sentence())),
                }
            }
            (Asked::Up | Asked::Settled, StateKind::Backoff | StateKind::Failed) => {
                Some(Outcome::Failed(sentence()))
            }
            (Asked::Settled, StateKind::Stopped) => Some(Outcome::Done(sentence())),
            (Asked::Up, StateKind::Stopped) => Some(Outcome::Failed(sentence())),
            (
                Asked::Up | Asked::Settled,
                StateKind::Running | StateKind::Waiting | StateKind::Starting | StateKind::Stopping,
            ) => None,
        }
    }

    pub(super) fn notice(&mut self, id: ServiceId, kind: NoticeKind, message: String, run: Option<RunId>) {
        let svc = self.at(id);
        let exit = svc.rec.last_exit.filter(|_| kind == NoticeKind::Exit).map(|last| last.exit);
        let notice = Notice { service: Some(svc.name.clone()), kind, message, run, exit };
        self.out.push(Effect::Emit(notice));
    }
}
