//! A new plan takes the place of the old one, whole. Services that do not differ see no action at all.

use super::{
    Effect, Machine, Notice, NoticeKind, Outcome, ServiceId, save,
    service::{Asked, Because, Record, Service, State, StateKind, Want},
};
use crate::plan::{Generation, Name, Plan, ServiceSpec};
use std::sync::Arc;

/// What an apply did, for its notice.
#[derive(Debug, Default)]
struct Tally {
    added: u32,
    removed: u32,
    changed: u32,
}

impl Machine {
    /// During a shutdown a new plan changes nothing: the shutdown goes on.
    pub(super) fn apply(&mut self, plan: &Arc<Plan>, generation: Generation) {
        if self.shutdown.is_some() {
            return;
        }
        let mut tally = Tally::default();
        (self.plan, self.generation) = (plan.clone(), generation);
        for id in self.all() {
            if plan.find(self.at(id).name.as_str()).is_none() && !self.at(id).gone {
                self.remove(id);
                tally.removed += 1;
            }
        }
        // Who is to come up, and is put there once all edges are known.
        let mut pulled: Vec<ServiceId> = Vec::new();
        let mut fresh: Vec<Name> = Vec::new();
        for spec in &plan.services {
            match self.id(spec.name.as_str()) {
                Some(id) if self.at(id).gone => {
                    self.bring_back(id, spec);
                    tally.added += 1;
                    pulled.extend(spec.autostart.then_some(id));
                }
                Some(id) if *self.at(id).spec != *spec => {
                    fresh.extend(self.change(id, spec));
                    tally.changed += 1;
                }
                Some(_) => {}
                None => {
                    let id = self.add(Service::new(Arc::new(spec.clone()), Record::default()));
                    self.touch(id);
                    tally.added += 1;
                    pulled.extend(spec.autostart.then_some(id));
                }
            }
        }
        pulled.extend(fresh.iter().filter_map(|name| self.id(name.as_str())));
        self.link();
        for id in self.pulled_in(&pulled) {
            if !self.at(id).wanted() {
                self.want_up(id, false);
            }
        }
        for id in self.all() {
            self.dirty(id);
        }
        self.announce(generation, &tally);
    }

    fn announce(&mut self, generation: Generation, tally: &Tally) {
        let message = format!(
            "configuration {} is in force: {} added, {} removed, {} changed",
            generation.0, tally.added, tally.removed, tally.changed
        );
        let notice = Notice { service: None, kind: NoticeKind::Applied, message, run: None, exit: None };
        self.out.push(Effect::Emit(notice));
    }

    fn remove(&mut self, id: ServiceId) {
        let svc = self.at_mut(id);
        svc.gone = true;
        svc.rec.because = Because::Removed;
        let message = format!("{} was removed from the configuration", svc.name);
        self.set_want(id, Want::Down);
        self.touch(id);
        self.answer(id, Asked::Up, &Outcome::Failed(message));
    }

    /// It was removed, is still being stopped, and is in the plan again.
    fn bring_back(&mut self, id: ServiceId, spec: &ServiceSpec) {
        let svc = self.at_mut(id);
        svc.gone = false;
        svc.spec = Arc::new(spec.clone());
        (svc.rec.want, svc.rec.because) = (Want::Unset, Because::Replaced);
        svc.replace = svc.rec.state.live().is_some_and(|live| live.fingerprint != save::fingerprint(spec));
        self.touch(id);
    }

    /// Takes over a differing spec, and gives the names that it newly pulls in.
    fn change(&mut self, id: ServiceId, spec: &ServiceSpec) -> Vec<Name> {
        let svc = self.at_mut(id);
        let old = std::mem::replace(&mut svc.spec, Arc::new(spec.clone()));
        let differs = save::fingerprint(spec);
        svc.replace = svc.rec.state.live().is_some_and(|live| live.fingerprint != differs);
        if let State::Running { live, stable_at: Some(at), .. } = &mut svc.rec.state
            && let Some(since) = live.first_ready
        {
            *at = since + spec.backoff.reset_after;
        }
        if svc.rec.want == Want::Unset {
            // `autostart` counts when a service is added; written later it must not be taken for that.
            svc.rec.want = Want::Down;
        }
        if spec.ready.is_none() {
            self.become_ready(id);
        }
        self.sync_deadline(id);
        self.touch(id);
        if !self.at(id).wanted() {
            return Vec::new();
        }
        let other_process = old.launch != spec.launch || old.logs.dir != spec.logs.dir;
        match self.at(id).rec.state.kind() {
            // It was failing with its old configuration: the new one gets a chance at once.
            StateKind::Backoff | StateKind::Failed if other_process => self.want_up(id, false),
            StateKind::Stopped
            | StateKind::Waiting
            | StateKind::Starting
            | StateKind::Running
            | StateKind::Stopping
            | StateKind::Backoff
            | StateKind::Exited
            | StateKind::Failed
            | StateKind::Stuck => {}
        }
        let names = |s: &ServiceSpec| -> Vec<Name> {
            [&s.requires, &s.binds_to, &s.wants].into_iter().flatten().cloned().collect()
        };
        let before = names(&old);
        names(spec).into_iter().filter(|name| !before.contains(name)).collect()
    }

    /// Forgets services of old plans of which nothing is left.
    pub(super) fn remove_gone(&mut self) {
        while let Some(id) = self.queues.gone.pop() {
            let svc = self.at_mut(id);
            if !svc.gone || svc.free || svc.rec.state != State::Stopped {
                continue;
            }
            svc.free = true;
            let name = svc.name.clone();
            for (ticket, _) in std::mem::take(&mut svc.tickets) {
                self.tickets.remove(&ticket);
                self.reply(ticket, Outcome::Failed(format!("{name} was removed from the configuration")));
            }
            self.counts[StateKind::Stopped as usize] -= 1;
            self.names.remove(name.as_str());
            self.vacant.push(id);
            self.out.push(Effect::Removed { service: id, name });
        }
    }
}
