//! DECIDES what happens next. Pure: no clock, no thread, no I/O; time is an argument and randomness is seeded.
//!
//! [`Machine::step`] takes what happened or is wanted and gives back what is to be done; between calls only
//! [`Machine::next_deadline`] matters. What a service is and how it moves is told in `service.rs`. The rest:
//! `facts` and `wishes` (the two kinds of news), `settle` (who may launch, who must stop), `stop` (how a run
//! is ended), `ending` (what an end means), `incident` (what is kept of one that nobody asked for), `shutdown`,
//! `apply`, `watch` (who uses too much), `ready` and `probe` (who works, and whom to ask), `save` (and restore),
//! `view` and `words`.

#![forbid(unsafe_code)]
#![deny(clippy::wildcard_enum_match_arm)]

mod apply;
mod backoff;
mod breaker;
mod ending;
pub mod event;
mod facts;
mod graph;
mod incident;
mod probe;
mod ready;
mod rng;
mod save;
mod service;
mod settle;
mod shutdown;
mod standin;
mod state;
mod stop;
mod tickets;
mod view;
mod watch;
mod window;
mod wishes;
mod words;

pub use event::{Effect, Event, Fact, Notice, NoticeKind, Outcome, Reading, ServiceId, Ticket, Time, Wish};
pub use incident::{Dependency, Incident, IncidentKind, Next, Probed as ProbedThen};
pub use probe::Seen;
pub use service::{Desired, LastExit, StateKind};
pub use view::{Probed, View};

use crate::plan::{Generation, Name, Plan, RunId, Which};
use service::{Record, Service, State, Want};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

/// The state of everything, and what it does next. A clone goes its own way from there.
#[derive(Debug, Clone)]
pub struct Machine {
    plan: Arc<Plan>,
    generation: Generation,
    next_run: RunId,
    /// By `ServiceId`.
    services: Vec<Service>,
    /// Slots of services that were removed.
    vacant: Vec<ServiceId>,
    names: BTreeMap<Name, ServiceId>,
    /// Runs of which something may be alive.
    runs: BTreeMap<RunId, ServiceId>,
    /// Runs that were released in the last step.
    released: Vec<(RunId, ServiceId)>,
    deadlines: BTreeSet<(Time, ServiceId)>,
    /// When the next reading of a watched service is due.
    readings: BTreeSet<(Time, ServiceId)>,
    /// When the next probe is due, or the answer to one is overdue.
    probes: BTreeSet<(Time, ServiceId, Which)>,
    /// The number of the next probe.
    next_probe: u64,
    /// Automatic starts lately, host-wide.
    spent: window::Window,
    rng: rng::Rng,
    shutdown: Option<shutdown::Shutdown>,
    /// Restored, and still hearing what happened meanwhile: listen, do not act.
    replaying: bool,
    /// Services by state, indexed by `StateKind`.
    counts: [u32; StateKind::ALL.len()],
    tickets: BTreeMap<Ticket, ServiceId>,
    queues: Queues,
    /// The instant of this step.
    now: Time,
    /// What this step wants done.
    out: Vec<Effect>,
}

/// Services that something is to be done about; see `settle`.
#[derive(Debug, Clone, Default)]
struct Queues {
    /// Their face may have changed.
    spread: VecDeque<ServiceId>,
    /// They may have to act.
    act: VecDeque<ServiceId>,
    /// They would launch if there were a start slot, first come first served.
    slot: VecDeque<ServiceId>,
    /// They would launch if the host's budget had room.
    budget: VecDeque<ServiceId>,
    /// No longer in the plan, and at rest.
    gone: Vec<ServiceId>,
    /// Changed in this step.
    touched: Vec<ServiceId>,
    /// Changed since `take_changed`.
    changed: Vec<ServiceId>,
}

impl Machine {
    /// All services of `plan`, stopped and not wanted. `seed` is for jitter; runs are numbered from `next_run`.
    pub fn new(seed: u64, plan: Arc<Plan>, generation: Generation, next_run: RunId) -> Machine {
        let mut machine = Machine {
            generation,
            next_run,
            services: Vec::new(),
            vacant: Vec::new(),
            names: BTreeMap::new(),
            runs: BTreeMap::new(),
            released: Vec::new(),
            deadlines: BTreeSet::new(),
            readings: BTreeSet::new(),
            probes: BTreeSet::new(),
            // Not those of an earlier manager: an answer to one of its may still come.
            next_probe: seed,
            spent: window::Window::default(),
            rng: rng::Rng::new(seed),
            shutdown: None,
            replaying: false,
            counts: [0; StateKind::ALL.len()],
            tickets: BTreeMap::new(),
            queues: Queues::default(),
            now: Time::default(),
            out: Vec::new(),
            plan: plan.clone(),
        };
        for spec in &plan.services {
            machine.add(Service::new(Arc::new(spec.clone()), Record::default()));
        }
        machine.link();
        machine
    }

    /// Wants everything up that starts by itself, with what it requires and wants.
    pub fn begin(&mut self, now: Time) -> Vec<Effect> {
        self.now = now;
        let own: Vec<ServiceId> = self.all().filter(|id| self.at(*id).spec.autostart).collect();
        for id in self.pulled_in(&own) {
            self.want_up(id, false);
        }
        self.finish_step()
    }

    /// Takes in one event.
    pub fn step(&mut self, now: Time, event: Event) -> Vec<Effect> {
        self.step_all(now, [event])
    }

    /// Takes in several events at once: services that are stopped together stop in order, and those that are
    /// started together start in order.
    pub fn step_all(&mut self, now: Time, events: impl IntoIterator<Item = Event>) -> Vec<Effect> {
        self.now = self.now.max(now);
        self.released.clear();
        for event in events {
            match event {
                Event::Fact(fact) => self.hear(fact),
                Event::Wish(wish) => {
                    self.replaying = false;
                    self.grant(wish);
                }
                Event::Tick => self.replaying = false,
            }
            self.spread_all();
        }
        if !self.replaying {
            self.fire_due();
            self.read_due();
            self.probe_due();
        }
        self.finish_step()
    }

    /// When `step(Tick)` is due if nothing else happens; may lie in the past.
    pub fn next_deadline(&self) -> Option<Time> {
        let first = self.deadlines.first().map(|(t, _)| *t);
        let shutdown = self.shutdown.as_ref().and_then(shutdown::Shutdown::deadline);
        let probe = self.probes.first().map(|(t, ..)| *t);
        let all = [first, shutdown, self.budget_deadline(), self.reading_deadline(), probe];
        all.into_iter().flatten().min()
    }

    /// Services whose visible or saved state changed since the last call; without those that were removed.
    pub fn take_changed(&mut self) -> Vec<ServiceId> {
        let ids = std::mem::take(&mut self.queues.changed);
        for id in &ids {
            self.at_mut(*id).queued.changed = false;
        }
        ids.into_iter().filter(|id| !self.at(*id).free).collect()
    }

    /// The service of this name, also while it is being removed.
    pub fn id(&self, name: &str) -> Option<ServiceId> {
        self.names.get(name).copied()
    }

    /// All services, by name.
    pub fn ids(&self) -> impl Iterator<Item = ServiceId> {
        self.names.values().copied()
    }

    /// The service that a live run, or one released in the last step, belongs to.
    pub fn run_owner(&self, run: RunId) -> Option<ServiceId> {
        let released = || self.released.iter().find(|(r, _)| *r == run).map(|(_, id)| *id);
        self.runs.get(&run).copied().or_else(released)
    }

    /// Whether something of this run may be alive and is accounted for.
    pub fn knows(&self, run: RunId) -> bool {
        self.runs.contains_key(&run)
    }

    /// Number of services by name of the state; all states are listed.
    pub fn counts(&self) -> BTreeMap<&'static str, u32> {
        StateKind::ALL.iter().map(|k| (k.as_str(), self.counts[*k as usize])).collect()
    }

    /// An orderly stop of everything has begun.
    pub fn shutting_down(&self) -> bool {
        self.shutdown.is_some()
    }

    /// The number of a run that is none of a service.
    pub fn lend_run(&mut self) -> RunId {
        let run = self.next_run;
        self.next_run = RunId(run.0 + 1);
        run
    }

    /// The plan in force.
    pub fn plan(&self) -> &Arc<Plan> {
        &self.plan
    }

    /// The number of the plan in force.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    fn at(&self, id: ServiceId) -> &Service {
        &self.services[id.0 as usize]
    }

    fn at_mut(&mut self, id: ServiceId) -> &mut Service {
        &mut self.services[id.0 as usize]
    }

    /// All services by number. The list is taken now: changes on the way do not disturb it.
    fn all(&self) -> impl Iterator<Item = ServiceId> + use<> {
        let ids: Vec<ServiceId> = self.names.values().copied().collect();
        ids.into_iter()
    }

    fn add(&mut self, svc: Service) -> ServiceId {
        let name = svc.name.clone();
        self.counts[svc.rec.state.kind() as usize] += 1;
        let id = match self.vacant.pop() {
            Some(id) => {
                *self.at_mut(id) = svc;
                id
            }
            None => {
                self.services.push(svc);
                ServiceId(u32::try_from(self.services.len() - 1).unwrap_or(u32::MAX))
            }
        };
        self.names.insert(name, id);
        if let Some(live) = self.at(id).rec.state.live() {
            self.runs.insert(live.run, id);
        }
        self.sync_deadline(id);
        self.dirty(id);
        id
    }

    /// Every change of state goes through here: counters, deadline and queues follow it.
    fn set(&mut self, id: ServiceId, state: State) {
        let svc = &mut self.services[id.0 as usize];
        self.counts[svc.rec.state.kind() as usize] -= 1;
        self.counts[state.kind() as usize] += 1;
        svc.rec.state = state;
        self.sync_deadline(id);
        self.touch(id);
        self.dirty(id);
    }

    fn sync_deadline(&mut self, id: ServiceId) {
        self.sync_watch(id);
        self.sync_probes(id);
        let svc = &mut self.services[id.0 as usize];
        let due = svc.rec.state.deadline();
        if due == svc.deadline {
            return;
        }
        if let Some(old) = std::mem::replace(&mut svc.deadline, due) {
            self.deadlines.remove(&(old, id));
        }
        if let Some(new) = due {
            self.deadlines.insert((new, id));
        }
    }

    /// Notes that something visible or saved of the service changed.
    fn touch(&mut self, id: ServiceId) {
        let svc = &mut self.services[id.0 as usize];
        if !std::mem::replace(&mut svc.queued.touched, true) {
            self.queues.touched.push(id);
        }
    }

    /// Notes that the service is to be looked at again before the step ends.
    fn dirty(&mut self, id: ServiceId) {
        let svc = &mut self.services[id.0 as usize];
        if !std::mem::replace(&mut svc.queued.spread, true) {
            self.queues.spread.push_back(id);
        }
        if !std::mem::replace(&mut svc.queued.act, true) {
            self.queues.act.push_back(id);
        }
    }

    /// Settles everything, then tells what changed and answers who waited for it.
    fn finish_step(&mut self) -> Vec<Effect> {
        self.settle();
        self.tell();
        if !self.replaying {
            self.remove_gone();
            self.exit_if_done();
        }
        std::mem::take(&mut self.out)
    }

    /// Says that a wish for the service made it wanted or not wanted.
    fn set_want(&mut self, id: ServiceId, want: Want) {
        let svc = self.at_mut(id);
        if svc.rec.want != want {
            svc.rec.want = want;
            self.touch(id);
            self.dirty(id);
        }
    }
}
