//! Who may launch and who must stop. First the faces are spread until nothing changes, then services act;
//! each action may change faces again.

use super::{
    Effect, Machine, Outcome, ServiceId,
    event::Time,
    service::{After, Asked, Bounce, Face, Hold, Live, State, StateKind, Want},
    stop::LAUNCH_LIMIT,
};
use crate::plan::RunId;

impl Machine {
    pub(super) fn settle(&mut self) {
        loop {
            self.spread_all();
            if self.replaying {
                return;
            }
            if let Some(id) = self.queues.act.pop_front() {
                self.at_mut(id).queued.act = false;
                self.act(id);
            } else if !self.wake_one() {
                return;
            }
        }
    }

    /// Spreads faces until nothing changes. The graph has no cycle, so this ends.
    pub(super) fn spread_all(&mut self) {
        while let Some(id) = self.queues.spread.pop_front() {
            self.at_mut(id).queued.spread = false;
            self.spread(id);
        }
    }

    /// Everything that is due.
    pub(super) fn fire_due(&mut self) {
        while let Some(&(due, id)) = self.deadlines.first() {
            if due > self.now {
                break;
            }
            // One that changes nothing must not be met for ever; the next may be due at the same instant.
            self.deadlines.remove(&(due, id));
            self.at_mut(id).deadline = None;
            self.fire(id);
        }
        self.shutdown_due();
    }

    /// Derives the face of a service anew, and tells its neighbours if it changed.
    fn spread(&mut self, id: ServiceId) {
        self.notice_loss(id);
        let new = self.face_of(id);
        let svc = self.at_mut(id);
        let old = std::mem::replace(&mut svc.face, new);
        if old == new {
            return;
        }
        // Both show: in the reason, and in what a ticket is answered.
        if old.held != new.held || old.met != new.met {
            self.touch(id);
        }
        self.dirty(id);
        self.dirty_neighbours(id);
    }

    fn dirty_neighbours(&mut self, id: ServiceId) {
        // Dependents look at all of it; dependencies only ask whether it is still in their way.
        let edges = std::mem::take(&mut self.at_mut(id).edges);
        for to in [&edges.needed_by, &edges.followed_by, &edges.needs, &edges.follows].into_iter().flatten() {
            self.dirty(*to);
        }
        self.at_mut(id).edges = edges;
    }

    /// A service that lost what it is bound to must be replaced, even if that is back before it is down.
    fn notice_loss(&mut self, id: ServiceId) {
        let svc = self.at(id);
        let runs = match svc.rec.state.kind() {
            StateKind::Starting | StateKind::Running => true,
            StateKind::Stopped
            | StateKind::Waiting
            | StateKind::Stopping
            | StateKind::Backoff
            | StateKind::Exited
            | StateKind::Failed
            | StateKind::Stuck => false,
        };
        let lost = || svc.edges.bound.iter().any(|to| !self.at(*to).runs());
        if runs && svc.rec.bounce.is_none() && lost() {
            self.at_mut(id).rec.bounce = Some(Bounce::Bound);
            self.touch(id);
        }
    }

    fn face_of(&self, id: ServiceId) -> Face {
        let svc = self.at(id);
        let needs = || svc.edges.needs.iter().map(|to| self.at(*to));
        let held = !svc.wanted()
            || self.shutdown.is_some()
            || svc.rec.bounce.is_some()
            || svc.replace
            || needs().any(|d| d.face.held);
        let met = needs().all(|d| d.face.up || d.face.coming);
        let coming = match &svc.rec.state {
            State::Starting { .. } => !held || (svc.wanted() && met),
            State::Waiting { .. } => svc.wanted() && met && (!svc.scheduled() || svc.rec.due),
            // One that was ready and is not any more may stay so.
            State::Running { live, .. } => svc.wanted() && met && (held || live.first_ready.is_none()),
            State::Stopping { after, .. } => *after == After::Rest && svc.wanted() && met,
            State::Stopped
            | State::Backoff { .. }
            | State::Exited
            | State::Failed { .. }
            | State::Stuck { .. } => false,
        };
        Face { held, up: svc.ready() && !held, coming, met, kind: svc.rec.state.kind() }
    }

    fn act(&mut self, id: ServiceId) {
        let svc = self.at(id);
        match svc.rec.state {
            State::Stopped if svc.gone => self.queues.gone.push(id),
            State::Stopped if svc.wanted() => self.set(id, State::Waiting { auto: false }),
            State::Waiting { .. } | State::Backoff { .. } | State::Exited | State::Failed { .. }
                if !svc.wanted() =>
            {
                self.set(id, State::Stopped);
            }
            State::Waiting { auto } => self.launch_if_may(id, auto),
            State::Starting { .. } | State::Running { .. } if svc.face.held && self.free_to_stop(id) => {
                self.begin_stop(id);
            }
            State::Starting { .. } | State::Running { .. } => self.adjust(id),
            State::Stopped
            | State::Stopping { .. }
            | State::Backoff { .. }
            | State::Exited
            | State::Failed { .. }
            | State::Stuck { .. } => {}
        }
    }

    /// A live run is held to what its service's resources have become.
    fn adjust(&mut self, id: ServiceId) {
        let (generation, wanted) = (self.generation, self.at(id).spec.resources);
        let svc = self.at_mut(id);
        let Some(live) = svc.rec.state.live_mut().filter(|live| live.resources != wanted) else {
            return;
        };
        (live.resources, live.refused) = (wanted, None);
        let run = live.run;
        self.out.push(Effect::Adjust { service: id, run, generation });
        self.touch(id);
        self.sync_watch(id);
    }

    fn launch_if_may(&mut self, id: ServiceId, auto: bool) {
        let hold = self.hold_of(id, auto);
        let svc = &mut self.services[id.0 as usize];
        match hold {
            Hold::None => return self.launch(id, auto),
            Hold::Slot if !std::mem::replace(&mut svc.queued.slot, true) => self.queues.slot.push_back(id),
            Hold::Budget if !std::mem::replace(&mut svc.queued.budget, true) => {
                self.queues.budget.push_back(id);
            }
            Hold::Slot | Hold::Budget | Hold::Schedule | Hold::Other { .. } => {}
        }
        if svc.hold != hold {
            svc.hold = hold;
            self.touch(id);
        }
    }

    fn hold_of(&mut self, id: ServiceId, auto: bool) -> Hold {
        if self.at(id).scheduled() && !self.at(id).rec.due {
            return Hold::Schedule;
        }
        let edges = &self.at(id).edges;
        let needed = edges.needs.iter().find(|to| !self.at(**to).face.up);
        let followed = || edges.follows.iter().find(|to| self.at(**to).face.coming);
        if let Some(to) = needed.or_else(followed) {
            let other = self.at(*to);
            let (name, state) = (other.name.clone(), other.rec.state.kind());
            return Hold::Other { name, state, leaving: other.face.held };
        }
        let budget = self.plan.daemon.restart_budget;
        if auto && self.spent.room_at(self.now, budget) != Some(self.now) {
            return Hold::Budget;
        }
        match self.counts[StateKind::Starting as usize] < self.plan.daemon.max_concurrent_starts.max(1) {
            true => Hold::None,
            false => Hold::Slot,
        }
    }

    fn launch(&mut self, id: ServiceId, auto: bool) {
        let run = self.next_run;
        self.next_run = RunId(run.0 + 1);
        let (now, within, generation) = (self.now, self.plan.daemon.restart_budget.within, self.generation);
        let svc = &mut self.services[id.0 as usize];
        svc.hold = Hold::None;
        (svc.rec.bounce, svc.replace, svc.rec.due) = (None, false, false);
        if auto {
            self.spent.add(now, within);
            svc.rec.spent.add(now, within);
            svc.rec.restarts = svc.rec.restarts.saturating_add(1);
        }
        let live = Live::new(run, generation, &svc.spec);
        self.runs.insert(run, id);
        self.out.push(Effect::Launch { service: id, run, generation });
        self.set(id, State::Starting { live, give_up_at: now + LAUNCH_LIMIT });
    }

    /// Lets one service that waits for a start slot or for the host's budget look again.
    fn wake_one(&mut self) -> bool {
        let slots = self.plan.daemon.max_concurrent_starts.max(1);
        if self.counts[StateKind::Starting as usize] < slots
            && let Some(id) = self.queues.slot.pop_front()
        {
            self.at_mut(id).queued.slot = false;
            self.dirty(id);
            return true;
        }
        if self.queues.budget.is_empty() {
            return false;
        }
        let room = self.spent.room_at(self.now, self.plan.daemon.restart_budget) == Some(self.now);
        match self.queues.budget.pop_front() {
            Some(id) if room => {
                self.at_mut(id).queued.budget = false;
                self.dirty(id);
                true
            }
            Some(id) => {
                self.queues.budget.push_front(id);
                false
            }
            None => false,
        }
    }

    /// When the budget has room again for those that wait for it.
    pub(super) fn budget_deadline(&self) -> Option<Time> {
        match self.queues.budget.is_empty() {
            true => None,
            false => self.spent.clone().room_at(self.now, self.plan.daemon.restart_budget),
        }
    }

    /// Wants a service up, and right now: whatever kept it down is forgotten unless it runs. `by_hand`: its schedule is
    /// not waited for either.
    pub(super) fn want_up(&mut self, id: ServiceId, by_hand: bool) {
        let svc = self.at_mut(id);
        if svc.gone {
            return;
        }
        self.set_want(id, Want::Up);
        if by_hand {
            self.at_mut(id).rec.due = true;
        } else if self.at(id).rec.state == State::Exited && self.at(id).ready() {
            // A oneshot that others need has done its work.
            return;
        }
        match self.at(id).rec.state.clone() {
            State::Stopped
            | State::Waiting { .. }
            | State::Backoff { .. }
            | State::Exited
            | State::Failed { .. } => {
                self.forgive(id);
                self.at_mut(id).rec.restarts = 0;
                self.set(id, State::Waiting { auto: false });
            }
            State::Stopping { live, phase, kill_at, .. } => {
                self.forgive(id);
                self.at_mut(id).rec.restarts = 0;
                self.set(id, State::Stopping { live, phase, kill_at, after: After::Rest });
            }
            State::Stuck { live, .. } => {
                self.forgive(id);
                self.set(id, State::Stuck { live, after: After::Rest });
            }
            // A stop that had not begun is called off; one for a restart goes on.
            State::Starting { .. } | State::Running { .. } if self.at(id).rec.bounce.is_none() => {
                let message = format!("{} was started again before it was stopped", self.at(id).name);
                self.answer(id, Asked::Down, &Outcome::Failed(message));
            }
            State::Starting { .. } | State::Running { .. } => {}
        }
    }
}
