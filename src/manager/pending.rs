//! Calls that wait for the machine: which tickets belong to which call, and by when it wants an answer.

use crate::{
    machine::{Outcome, Ticket, Time},
    plan::Name,
    wire::ActionResult,
};
use std::collections::HashMap;

/// What is to be done with the results of a call.
pub(super) type Finish = Box<dyn FnOnce(Vec<ActionResult>)>;

struct Call {
    results: Vec<ActionResult>,
    open: usize,
    until: Time,
    /// What an unanswered instance is reported as when the time is up.
    late: &'static str,
    finish: Finish,
}

/// All calls that wait.
#[derive(Default)]
pub(super) struct Pending {
    calls: HashMap<u64, Call>,
    tickets: HashMap<Ticket, (u64, usize)>,
    last_call: u64,
    last_ticket: u64,
}

impl Pending {
    /// A ticket that belongs to no call yet.
    pub(super) fn ticket(&mut self) -> Ticket {
        self.last_ticket += 1;
        Ticket(self.last_ticket)
    }

    /// Registers a call before its wishes are made. An empty call is finished at once.
    pub(super) fn add(
        &mut self,
        tickets: &[(Name, Ticket)],
        until: Time,
        late: &'static str,
        finish: Finish,
    ) {
        if tickets.is_empty() {
            return finish(Vec::new());
        }
        self.last_call += 1;
        for (i, (_, ticket)) in tickets.iter().enumerate() {
            self.tickets.insert(*ticket, (self.last_call, i));
        }
        let empty =
            |(name, _): &(Name, Ticket)| ActionResult { name: name.to_string(), ..Default::default() };
        let results = tickets.iter().map(empty).collect();
        self.calls.insert(self.last_call, Call { results, open: tickets.len(), until, late, finish });
    }

    /// Records an answer; the call is finished with the last of its answers.
    pub(super) fn answer(&mut self, ticket: Ticket, outcome: Outcome) {
        let Some((id, index)) = self.tickets.remove(&ticket) else { return };
        let Some(call) = self.calls.get_mut(&id) else { return };
        let (word, message) = match outcome {
            Outcome::Done(m) => ("done", m),
            Outcome::Failed(m) => ("failed", m),
            Outcome::Conflict(m) => ("conflict", m),
            Outcome::ShuttingDown => ("conflict", "keepd is shutting down".into()),
        };
        call.results[index].outcome = word.into();
        call.results[index].message = message;
        call.open -= 1;
        if call.open == 0
            && let Some(call) = self.calls.remove(&id)
        {
            (call.finish)(call.results);
        }
    }

    /// When the next call wants its answer at the latest.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.calls.values().map(|c| c.until).min()
    }

    /// Finishes the calls whose time is up; `reason` says where an instance stands. Returns the tickets that
    /// nobody waits for any more.
    pub(super) fn expire(&mut self, now: Time, reason: impl Fn(&str) -> String) -> Vec<Ticket> {
        let due: Vec<u64> = self.calls.iter().filter(|(_, c)| c.until <= now).map(|(id, _)| *id).collect();
        if due.is_empty() {
            return Vec::new();
        }
        for id in &due {
            let Some(mut call) = self.calls.remove(id) else { continue };
            for r in call.results.iter_mut().filter(|r| r.outcome.is_empty()) {
                r.outcome = call.late.into();
                r.message = reason(&r.name);
            }
            (call.finish)(call.results);
        }
        let stale: Vec<Ticket> =
            self.tickets.iter().filter(|(_, (id, _))| due.contains(id)).map(|(t, _)| *t).collect();
        for t in &stale {
            self.tickets.remove(t);
        }
        stale
    }
}
