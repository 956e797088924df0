//! The plans a manager knows: the one in force, those that live runs were launched from, and the load that
//! is under way.

use super::{actor::Actor, actor::now, handle::Refusal, handover};
use crate::{
    keeper::protocol::{Request, Up},
    machine::{Event, Ticket, Wish},
    plan::{Generation, Millis, Name, Plan, ServiceSpec, diff},
    sys, wire,
};
use std::{
    collections::{BTreeMap, VecDeque},
    io::{Read, Seek},
    os::fd::OwnedFd,
    sync::Arc,
    time::Duration,
};
use tokio::sync::oneshot;

/// A call for the files to be read.
pub(super) struct PlanAsk {
    pub(super) apply: bool,
    pub(super) wait: Option<Duration>,
    pub(super) reply: Option<oneshot::Sender<Result<wire::PlanReport, Refusal>>>,
}

/// See the head of the file.
pub(super) struct Plans {
    held: BTreeMap<Generation, Arc<Plan>>,
    current: Generation,
    /// The first of these is being loaded.
    asks: VecDeque<PlanAsk>,
}

impl Plans {
    /// `None` if the plan in force is not among those held.
    pub(super) fn new(held: BTreeMap<Generation, Arc<Plan>>, current: Generation) -> Option<Plans> {
        held.contains_key(&current).then(|| Plans { held, current, asks: VecDeque::new() })
    }

    /// The plan in force.
    pub(super) fn current(&self) -> Arc<Plan> {
        self.held[&self.current].clone()
    }

    pub(super) fn generation(&self) -> Generation {
        self.current
    }

    pub(super) fn loading(&self) -> bool {
        !self.asks.is_empty()
    }

    /// A service as a plan has it.
    pub(super) fn spec(&self, generation: Generation, name: &Name) -> Option<&ServiceSpec> {
        let plan = self.held.get(&generation)?;
        plan.find(name.as_str()).or_else(|| plan.hook(name.as_str()).map(|(_, spec)| spec))
    }

    /// The index of a service in a plan.
    pub(super) fn entry(&self, generation: Generation, name: &Name) -> Option<u32> {
        let plan = self.held.get(&generation)?;
        match plan.services.binary_search_by(|s| s.name.cmp(name)) {
            Ok(index) => u32::try_from(index).ok(),
            Err(_) => plan.hook(name.as_str()).map(|(entry, _)| entry),
        }
    }

    /// Lets go of a plan that no run needs; true if it was held and is not the one in force.
    pub(super) fn drop_unused(&mut self, generation: Generation) -> bool {
        generation != self.current && self.held.remove(&generation).is_some()
    }
}

impl Actor {
    /// SIGHUP: apply, with the outcome in the log.
    pub(super) fn ask_apply(&mut self) {
        let (reply, answer) = oneshot::channel();
        self.ask_plan(PlanAsk { apply: true, wait: None, reply: Some(reply) });
        tokio::spawn(async move {
            if let Ok(Err(Refusal::Configuration(diagnostics))) = answer.await {
                for d in diagnostics {
                    tracing::error!("cannot apply: {}:{}:{}: {}", d.file, d.line, d.column, d.message);
                }
                tracing::error!("the configuration is refused as a whole; nothing was changed");
            }
        });
    }

    /// Begins to load, or queues behind the load under way.
    pub(super) fn ask_plan(&mut self, ask: PlanAsk) {
        if self.machine.shutting_down() {
            if let Some(reply) = ask.reply {
                let _ = reply.send(Err(Refusal::ShuttingDown));
            }
            return;
        }
        self.plans.asks.push_back(ask);
        if self.plans.asks.len() == 1 {
            self.load();
        }
    }

    fn load(&mut self) {
        let Some(ask) = self.plans.asks.front() else { return };
        if ask.apply {
            self.tell(Request::Notify(Up::Reloading));
        }
        self.tell(Request::Load);
    }

    /// The loader has answered.
    pub(super) fn loaded(&mut self, generation: Option<Generation>, fds: Vec<OwnedFd>) {
        let Some(ask) = self.plans.asks.pop_front() else {
            // Asked for by a manager that is gone.
            if let Some(generation) = generation {
                self.tell(Request::DropPlan { generation });
            }
            return;
        };
        let apply = ask.apply;
        match read_answer(generation, fds) {
            Ok((generation, plan)) => self.planned(ask, generation, plan),
            Err(refusal) => {
                if let Some(generation) = generation {
                    self.tell(Request::DropPlan { generation });
                }
                if let Some(reply) = ask.reply {
                    let _ = reply.send(Err(refusal));
                }
            }
        }
        if apply {
            self.tell(Request::Notify(Up::Ready));
        }
        self.load();
    }

    fn planned(&mut self, ask: PlanAsk, generation: Generation, plan: Plan) {
        let old = self.plans.current();
        let diff = diff::diff(&old, &plan);
        let report = report(&diff, &plan);
        if !ask.apply || diff.is_empty() {
            self.tell(Request::DropPlan { generation });
            if let Some(reply) = ask.reply {
                let _ = reply.send(Ok(report));
            }
            return;
        }
        let previous = self.plans.current;
        let plan = Arc::new(plan);
        self.plans.held.insert(generation, plan.clone());
        self.plans.current = generation;
        self.tell(Request::AdoptPlan { generation });
        for name in diff.changed.iter().map(|c| &c.name) {
            if let Some(spec) = plan.find(name.as_str()) {
                self.logs.update(name, &spec.logs);
            }
        }
        self.note_changes(&diff, generation);
        self.logs.host(&plan);
        self.step(Event::Wish(Wish::Apply { plan: plan.clone(), generation }));
        if !self.runs.values().any(|r| r.generation == previous) && self.plans.drop_unused(previous) {
            self.tell(Request::DropPlan { generation: previous });
        }
        self.answer_apply(ask, &diff, &plan, report);
    }

    /// For the dossiers of runs that fail with them.
    fn note_changes(&self, diff: &diff::Diff, generation: Generation) {
        let at = wire::timestamp(sys::clock::wall_ms());
        for changed in &diff.changed {
            let fields = changed.fields.iter().map(field).collect();
            let change = wire::why::Change { generation: generation.0, at: at.clone(), fields };
            self.dossiers.changed(&changed.name, change);
        }
    }

    /// Answers an apply once the services that it touched have settled, or the caller's time is up.
    fn answer_apply(&mut self, ask: PlanAsk, diff: &diff::Diff, plan: &Plan, mut report: wire::PlanReport) {
        let Some(reply) = ask.reply else { return };
        let started = diff.added.iter().filter(|n| plan.find(n.as_str()).is_some_and(|s| s.autostart));
        let replaced = diff.changed.iter().filter(|c| c.restart_needed).map(|c| &c.name);
        let tickets: Vec<(Name, Ticket)> =
            started.chain(replaced).map(|n| (n.clone(), self.pending.ticket())).collect();
        let wait = ask.wait.map_or(0, |w| u64::try_from(w.as_millis()).unwrap_or(u64::MAX));
        let late = if ask.wait.is_some() { "timeout" } else { "accepted" };
        let finish = Box::new(move |results| {
            report.results = results;
            let _ = reply.send(Ok(report));
        });
        self.pending.add(&tickets, now() + Millis(wait), late, finish);
        let awaits: Vec<Event> = tickets
            .into_iter()
            .filter_map(|(name, ticket)| Some((self.machine.id(name.as_str())?, ticket)))
            .map(|(service, ticket)| Event::Wish(Wish::Await { ticket, service }))
            .collect();
        self.step_all(awaits);
    }
}

fn read_answer(generation: Option<Generation>, fds: Vec<OwnedFd>) -> Result<(Generation, Plan), Refusal> {
    let unavailable =
        |e: std::io::Error| Refusal::Unavailable(format!("cannot read the loader's answer: {e}"));
    let Some(fd) = fds.into_iter().next() else {
        return Err(Refusal::Unavailable("the loader's answer came without its memfd".into()));
    };
    match generation {
        Some(generation) => Ok((generation, handover::read_plan(&fd).map_err(unavailable)?)),
        None => {
            let mut text = String::new();
            let mut file = std::fs::File::from(fd);
            // The loader wrote through the same open file: its position is the end.
            file.rewind().and_then(|()| file.read_to_string(&mut text)).map_err(unavailable)?;
            let report: wire::LoadReport = serde_json::from_str(&text)
                .map_err(|e| Refusal::Unavailable(format!("cannot read the loader's report: {e}")))?;
            Err(Refusal::Configuration(report.diagnostics))
        }
    }
}

fn field(f: &diff::Field) -> wire::ChangedField {
    wire::ChangedField { path: f.path.clone(), old: f.old.clone(), new: f.new.clone() }
}

fn report(diff: &diff::Diff, plan: &Plan) -> wire::PlanReport {
    let changed = |c: &diff::Changed| wire::ChangedService {
        name: c.name.to_string(),
        restarts: c.restart_needed,
        fields: c.fields.iter().map(field).collect(),
    };
    wire::PlanReport {
        added: diff.added.iter().map(ToString::to_string).collect(),
        removed: diff.removed.iter().map(ToString::to_string).collect(),
        changed: diff.changed.iter().map(changed).collect(),
        daemon: diff.daemon.iter().map(field).collect(),
        warnings: plan.warnings.clone(),
        results: Vec::new(),
    }
}
