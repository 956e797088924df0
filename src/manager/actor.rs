//! The one actor: turns news and calls into events, steps the machine, and performs its effects in order.
//! It decides nothing itself.

use super::{
    dossiers::Dossiers,
    handover::{HandOver, RunPipes},
    hooks::Hooks,
    link::{Link, Packet},
    listen::Listener,
    pending::Pending,
    plans::Plans,
    probing::Prober,
    publish::{Publisher, event},
    schedules::Schedules,
};
use crate::{
    keeper::protocol::{Kept, News, NoteLevel, Request, Usage},
    logs,
    machine::{Effect, Event, Fact, Incident, Machine, Reading, ServiceId, Time, Wish},
    plan::{Exit, Generation, Name, RunId, hook::Hook},
    sys,
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

/// A run from its launch until the keeper has forgotten it.
#[derive(Debug)]
pub(super) struct LiveRun {
    pub(super) service: Name,
    pub(super) generation: Generation,
    /// The machine does not know it: it is killed and let go, or a hook's.
    pub(super) stray: bool,
    /// What it used, once its main process has ended.
    pub(super) usage: Option<Usage>,
    /// Its unplanned end, until that is written down.
    pub(super) incident: Option<Box<Incident>>,
}

impl LiveRun {
    pub(super) fn new(service: Name, generation: Generation) -> LiveRun {
        LiveRun { service, generation, stray: false, usage: None, incident: None }
    }
}

/// See the head of the file.
pub(super) struct Actor {
    pub(super) machine: Machine,
    pub(super) plans: Plans,
    pub(super) link: Link,
    pub(super) logs: Arc<logs::Engine>,
    pub(super) publisher: Publisher,
    pub(super) dossiers: Dossiers,
    pub(super) hooks: Hooks,
    pub(super) schedules: Schedules,
    pub(super) pending: Pending,
    pub(super) runs: HashMap<RunId, LiveRun>,
    /// What could not be stopped, at the end.
    pub(super) exiting: Option<Vec<Name>>,
    /// What the keeper is to be told at the end of this turn; see [`Link::send`].
    outbox: Vec<Vec<Request>>,
    pub(super) listener: Listener,
    pub(super) prober: Prober,
    /// What watched runs use, as read while effects were performed.
    pub(super) readings: Vec<Fact>,
    /// Services whose view is older than their state.
    pub(super) stale: BTreeSet<ServiceId>,
    /// Something changed since the last snapshot.
    pub(super) dirty: bool,
    /// Bytes of output that were dropped, as last told.
    pub(super) losses: HashMap<Name, u64>,
    pub(super) status_line: String,
}

/// Who does for the actor what it must not wait for.
pub(super) struct Helpers {
    pub(super) prober: Prober,
    pub(super) dossiers: Dossiers,
    pub(super) schedules: Schedules,
}

/// The present instant of the machine.
pub(super) fn now() -> Time {
    Time(sys::clock::boottime_ms())
}

impl Actor {
    pub(super) fn new(
        machine: Machine,
        plans: Plans,
        link: Link,
        logs: Arc<logs::Engine>,
        publisher: Publisher,
        helpers: Helpers,
    ) -> Actor {
        let Helpers { prober, dossiers, schedules } = helpers;
        let hooks = Hooks::after(publisher.events.last());
        let stale = machine.ids().collect();
        Actor {
            machine,
            plans,
            link,
            logs,
            publisher,
            dossiers,
            hooks,
            schedules,
            pending: Pending::default(),
            runs: HashMap::new(),
            exiting: None,
            outbox: Vec::new(),
            listener: Listener::default(),
            prober,
            readings: Vec::new(),
            stale,
            dirty: true,
            losses: HashMap::new(),
            status_line: String::new(),
        }
    }

    /// Takes over what the keeper holds, then starts what has never been started.
    pub(super) fn begin(&mut self, handed: HandOver) {
        for held in handed.runs {
            let (run, generation) = (held.run, held.generation);
            // A hook that was called by another manager is not waited for.
            let known = self.machine.knows(run)
                || !Hook::is_hook(&held.service) && self.machine.claim(now(), &held.service, run, generation);
            let stray = !known;
            if let Some(spec) = self.plans.spec(held.generation, &held.service) {
                let RunPipes { stdout, stderr } = held.pipes;
                self.logs.attach(&held.service, held.run, &spec.logs, stdout, stderr);
            }
            let live = LiveRun { stray, ..LiveRun::new(held.service, held.generation) };
            self.runs.insert(held.run, live);
        }
        let strays: Vec<RunId> = self.runs.iter().filter(|(_, r)| r.stray).map(|(id, _)| *id).collect();
        for run in strays {
            self.tell(Request::KillTree { run });
        }
        self.restore_dossiers();
        for fact in handed.facts {
            self.news(fact);
        }
        self.give_up_lost();
        if handed.hello.managers_before == 0 {
            let effects = self.machine.begin(now());
            self.perform(effects);
        }
        self.step(Event::Tick);
        if let Some(force) = handed.hello.shutdown {
            self.step(Event::Wish(Wish::Shutdown { force }));
        }
    }

    /// A run that the last manager knew and the keeper does not hold is over, and nobody can say how.
    fn give_up_lost(&mut self) {
        let run_of = |id| self.machine.view(id).run;
        let lost: Vec<RunId> =
            self.machine.ids().filter_map(run_of).filter(|run| !self.runs.contains_key(run)).collect();
        for run in lost {
            let exit = Exit::Unknown;
            self.step(Event::Fact(Fact::Exited { run, exit, leftovers: false, at: now() }));
        }
    }

    /// Handles one message of the keeper.
    pub(super) fn news(&mut self, packet: Packet) {
        let fds = packet.fds;
        match packet.news {
            News::Started { run, pid, pipes, at_ms } => {
                if let Some((live, spec)) = self
                    .runs
                    .get(&run)
                    .and_then(|live| Some((live, self.plans.spec(live.generation, &live.service)?)))
                    && !fds.is_empty()
                {
                    let RunPipes { stdout, stderr } = RunPipes::take(pipes, fds);
                    self.logs.attach(&live.service, run, &spec.logs, stdout, stderr);
                }
                self.fact(run, Fact::Started { run, pid, at: Time(at_ms) });
            }
            News::LaunchFailed { run, why, transient } => {
                self.hook_refused(run, &why);
                self.fact(run, Fact::LaunchFailed { run, why, transient });
                self.forget_run(run);
            }
            News::Exited { run, exit, leftovers, at_ms, usage } => {
                if let Some(live) = self.runs.get_mut(&run) {
                    live.usage = Some(usage);
                }
                self.hook_exited(run, exit, leftovers);
                self.fact(run, Fact::Exited { run, exit, leftovers, at: Time(at_ms) });
                if !leftovers {
                    self.release_stray(run);
                }
            }
            News::Emptied { run } => {
                self.fact(run, Fact::Emptied { run });
                self.release_stray(run);
            }
            News::Measured { run, at_ms, memory, cpu_us } => {
                let reading = Reading { at: Time(at_ms), memory, cpu_us };
                self.fact(run, Fact::Measured { run, reading });
            }
            News::Adjusted { run, why } => self.fact(run, Fact::Adjusted { run, why }),
            News::Told { run, told } => self.fact(run, Fact::Told { run, told }),
            News::Probed { run, which, number, verdict } => self.probed(run, which, number, verdict),
            News::JobEnded { run, job, why } => self.fact(run, Fact::JobEnded { run, job, why }),
            News::Loaded { generation } => self.loaded(generation, fds),
            News::Shutdown { force } => self.step(Event::Wish(Wish::Shutdown { force })),
            News::Apply => self.ask_apply(),
            News::Reopen => drop(self.logs.reopen()),
            News::Ping => self.tell(Request::Pong),
            News::Note { level, text } => {
                match level {
                    NoteLevel::Error => tracing::error!("{text}"),
                    NoteLevel::Warn => tracing::warn!("{text}"),
                    NoteLevel::Info => tracing::info!("{text}"),
                }
                self.publisher.tell(event("manager", None, text));
            }
            News::Hello(_)
            | News::Plan { .. }
            | News::Remembered { .. }
            | News::Kept { .. }
            | News::Run { .. }
            | News::HelloEnd => {
                tracing::error!("the keeper sent a hand-over twice; it is ignored");
            }
        }
    }

    pub(super) fn fact(&mut self, run: RunId, fact: Fact) {
        if self.machine.knows(run) {
            self.step(Event::Fact(fact));
        }
    }

    /// The end of a run that the machine does not know: its output is kept, then it is let go.
    fn release_stray(&mut self, run: RunId) {
        if self.runs.get(&run).is_some_and(|r| r.stray) {
            self.logs.finish(run);
        }
    }

    pub(super) fn forget_run(&mut self, run: RunId) {
        let Some(mut gone) = self.runs.remove(&run) else { return };
        self.file_dossier(&mut gone);
        self.hook_over(run);
        self.listener.remove(run);
        self.end_tail(run, &gone.service);
        let runs = &self.runs;
        let in_use = runs.values().any(|r| r.generation == gone.generation);
        if !in_use && self.plans.drop_unused(gone.generation) {
            self.tell(Request::DropPlan { generation: gone.generation });
        }
    }

    /// Steps the machine and performs what it wants.
    pub(super) fn step(&mut self, event: Event) {
        self.step_all([event]);
    }

    /// The same for events that belong together: what is stopped or started together is so in order.
    pub(super) fn step_all(&mut self, events: impl IntoIterator<Item = Event>) {
        let effects = self.machine.step_all(now(), events);
        self.perform(effects);
    }

    /// Performs the effects of one step; those of one service and the state they lead to go to the keeper in
    /// one packet.
    pub(super) fn perform(&mut self, effects: Vec<Effect>) {
        let mut groups: BTreeMap<Name, Vec<Request>> = BTreeMap::new();
        for effect in effects {
            self.perform_one(effect, &mut groups);
        }
        for id in self.machine.take_changed() {
            self.stale.insert(id);
            let service = self.machine.view(id).spec.name.clone();
            let request = match self.machine.save(id).and_then(|state| Kept::new(state).ok()) {
                Some(state) => Request::Remember { service: service.clone(), state },
                None => Request::Forget { service: service.clone() },
            };
            groups.entry(service).or_default().push(request);
        }
        self.outbox.extend(groups.into_values());
        if !self.readings.is_empty() {
            let facts = std::mem::take(&mut self.readings);
            self.step_all(facts.into_iter().map(Event::Fact));
        }
    }

    fn perform_one(&mut self, effect: Effect, groups: &mut BTreeMap<Name, Vec<Request>>) {
        match effect {
            Effect::Launch { service, run, generation } => {
                let name = self.machine.view(service).spec.name.clone();
                let Some(entry) = self.plans.entry(generation, &name) else {
                    return tracing::error!(
                        "{name}: plan {} has no such service; not launched",
                        generation.0
                    );
                };
                self.runs.insert(run, LiveRun::new(name.clone(), generation));
                self.begin_tail(run, generation);
                let request = Request::Launch { run, service: name.clone(), generation, entry, call: None };
                groups.entry(name).or_default().push(request);
            }
            effect @ Effect::Probe { .. } => self.probe(effect, groups),
            Effect::Listen { run, above } => self.listen(run, above),
            Effect::Measure { run, memory } => self.measure(run, memory),
            Effect::Adjust { service, run, generation } => {
                let name = self.machine.view(service).spec.name.clone();
                match self.plans.entry(generation, &name) {
                    Some(entry) => self.to_run(groups, run, Request::Adjust { run, generation, entry }),
                    None => {
                        tracing::error!("{name}: plan {} has no such service; not adjusted", generation.0)
                    }
                }
            }
            Effect::RunJob { run, job } => self.to_run(groups, run, Request::RunJob { run, job }),
            Effect::Signal { run, signal } => self.to_run(groups, run, Request::Signal { run, signal }),
            Effect::SignalTree { run, signal } => {
                self.to_run(groups, run, Request::SignalTree { run, signal })
            }
            Effect::KillTree { run } => self.to_run(groups, run, Request::KillTree { run }),
            Effect::Release { run } => self.logs.finish(run),
            Effect::Reply { ticket, outcome } => self.pending.answer(ticket, outcome),
            Effect::Explain { service, incident } => self.explain(service, incident),
            Effect::Emit(notice) => self.announce(notice),
            Effect::Removed { service, name } => {
                self.stale.remove(&service);
                self.publisher.remove(&name);
                self.logs.forget(&name);
                self.dossiers.remove(&name);
                groups.entry(name.clone()).or_default().push(Request::Forget { service: name });
                self.dirty = true;
            }
            Effect::Exit { left_behind } => self.exiting = Some(left_behind),
        }
    }

    pub(super) fn to_run(&self, groups: &mut BTreeMap<Name, Vec<Request>>, run: RunId, request: Request) {
        match self.runs.get(&run) {
            Some(live) => groups.entry(live.service.clone()).or_default().push(request),
            None => tracing::error!("run {run} is not held any more; left out: {request:?}"),
        }
    }

    /// Something for the keeper that belongs to no service.
    pub(super) fn tell(&mut self, request: Request) {
        self.outbox.push(vec![request]);
    }

    /// Ends a turn: the keeper is told, then readers see what changed.
    pub(super) fn end_turn(&mut self) {
        self.keep_time();
        self.call_hooks();
        self.link.send(std::mem::take(&mut self.outbox));
        self.publish();
        self.link.send(std::mem::take(&mut self.outbox));
    }

    /// The next instant at which something is due.
    pub(super) fn next_deadline(&self) -> Option<Time> {
        self.machine
            .next_deadline()
            .into_iter()
            .chain(self.pending.next_deadline())
            .chain(self.hooks.deadline())
            .min()
    }

    /// Does what is due.
    pub(super) fn on_deadline(&mut self) {
        self.step(Event::Tick);
        let machine = &self.machine;
        let reason = |name: &str| machine.id(name).map(|id| machine.view(id).reason).unwrap_or_default();
        for ticket in self.pending.expire(now(), reason) {
            self.step(Event::Wish(Wish::Forget { ticket }));
        }
    }
}
