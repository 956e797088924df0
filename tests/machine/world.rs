//! A whole simulated host: the machine, the manager's way of performing its effects (one packet per service
//! and turn), the fake keeper, people with wishes, and a manager that dies at any moment.

use super::{
    kernel::{Kernel, Odds},
    oracle::Oracle,
    plans::{self, Rng},
};
use keepd::{
    machine::{Desired, Effect, Event, Fact, Machine, Outcome, StateKind, Ticket, Time, Wish},
    plan::{Generation, Name, Plan, RunId},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

pub struct World {
    pub rng: Rng,
    pub odds: Odds,
    pub now: Time,
    pub machine: Machine,
    pub plans: BTreeMap<Generation, Arc<Plan>>,
    pub generation: Generation,
    pub kernel: Kernel,
    pub oracle: Oracle,
    /// What the keeper remembers.
    pub saved: BTreeMap<Name, String>,
    pub manager: u64,
    /// Nobody is there until then.
    pub down_until: Option<Time>,
    /// Somebody was told to wait for these.
    pub tickets: BTreeSet<Ticket>,
    next_ticket: u64,
    pub shutdown: Option<bool>,
    pub exited: bool,
    pub steps: u64,
    last_run: u64,
    pub most: u64,
    same_instant: u32,
}

impl World {
    pub fn new(seed: u64) -> World {
        let mut rng = Rng(seed);
        let odds = Odds::draw(&mut rng);
        let most = rng.pick(&[1, 2, 4, 9]);
        let plan = plans::random(&mut rng, most);
        let generation = Generation(1);
        let now = Time(1_000_000);
        let machine = Machine::new(rng.next(), plan.clone(), generation, RunId(1));
        let mut world = World {
            rng,
            odds,
            now,
            machine,
            plans: [(generation, plan.clone())].into(),
            generation,
            kernel: Kernel::new(),
            oracle: Oracle::new(&plan),
            saved: BTreeMap::new(),
            manager: 1,
            down_until: None,
            tickets: BTreeSet::new(),
            next_ticket: 1,
            shutdown: None,
            exited: false,
            steps: 0,
            last_run: 0,
            most,
            same_instant: 0,
        };
        trace(
            now,
            &plan
                .services
                .iter()
                .map(|s| (&s.name, s.autostart, &s.requires, &s.binds_to, &s.wants, &s.after))
                .collect::<Vec<_>>(),
        );
        world.oracle.begin(&plan);
        let effects = world.machine.begin(now);
        world.perform(effects);
        world
    }

    /// Lives until `steps` turns are over or the daemon has exited, then heals and checks the end.
    pub fn live(&mut self, steps: u64) {
        while self.steps < steps && !self.exited {
            self.turn();
        }
        self.heal();
    }

    fn plan(&self) -> Arc<Plan> {
        self.plans[&self.generation].clone()
    }

    /// One thing happens: a wish, a death of the manager, or the next thing that is due.
    pub fn turn(&mut self) {
        self.steps += 1;
        if self.down_until.is_none() {
            if self.rng.chance(self.odds.manager_dies) {
                return self.manager_dies();
            }
            if self.rng.chance(self.odds.wish) {
                return self.wish();
            }
        }
        self.advance();
    }

    /// Goes on to the next instant at which anything happens.
    pub fn advance(&mut self) {
        let deadline = match self.down_until {
            Some(t) => Some(t),
            None => self.machine.next_deadline(),
        };
        let next = match (self.kernel.next(), deadline) {
            (Some(k), Some(d)) => k.min(d),
            (Some(t), None) | (None, Some(t)) => t,
            (None, None) => return self.idle(),
        };
        self.same_instant = if next > self.now { 0 } else { self.same_instant + 1 };
        assert!(self.same_instant < 20_000, "nothing moves on at {:?}", self.now);
        self.now = self.now.max(next);
        if self.kernel.next().is_some_and(|t| t <= self.now) {
            let fact = self.kernel.happen(self.now, &mut self.rng, &self.odds, self.manager);
            if let Some(fact) = fact.filter(|_| self.down_until.is_none()) {
                self.hear(fact);
            }
        } else if self.down_until.is_some() {
            self.manager_comes();
        } else {
            self.step(vec![Event::Tick]);
        }
    }

    /// Nothing is due at all: time passes.
    fn idle(&mut self) {
        self.now.0 += 1000;
        if self.odds.wish > 0 {
            return self.wish();
        }
        self.step(vec![Event::Tick]);
    }

    fn hear(&mut self, fact: Fact) {
        self.oracle.before_fact(&self.machine, &fact, self.now);
        let run = run_of(&fact);
        if !self.machine.knows(run) {
            assert!(self.kernel.runs[&run.0].released, "the machine forgot run {run}");
        }
        self.step(vec![Event::Fact(fact)]);
    }

    fn step(&mut self, events: Vec<Event>) {
        for event in &events {
            match event {
                Event::Wish(Wish::Apply { plan, generation }) => {
                    let list: Vec<_> = plan
                        .services
                        .iter()
                        .map(|s| (&s.name, &s.requires, &s.binds_to, &s.wants, &s.after))
                        .collect();
                    trace(self.now, &("apply", generation, list));
                }
                Event::Fact(_) | Event::Wish(_) | Event::Tick => trace(self.now, event),
            }
        }
        let effects = self.machine.step_all(self.now, events);
        self.perform(effects);
    }

    fn wish(&mut self) {
        if self.rng.chance(self.odds.shutdown) {
            let force = self.rng.chance(200);
            self.shutdown = Some(self.shutdown.is_some() || force);
            self.oracle.shutdown(self.now, self.plan().daemon.shutdown_timeout, self.shutdown == Some(true));
            return self.step(vec![Event::Wish(Wish::Shutdown { force })]);
        }
        if self.rng.chance(self.odds.apply) {
            return self.apply();
        }
        let ids: Vec<_> = self.machine.ids().collect();
        if ids.is_empty() {
            return self.advance();
        }
        let mut events = vec![];
        let batch = Ticket(self.next_ticket);
        for _ in 0..1 + self.rng.below(3) {
            let ticket = Ticket(self.next_ticket);
            self.next_ticket += 1;
            let service = self.rng.pick(&ids);
            let name = self.machine.view(service).name.clone();
            let plan = self.plan();
            let wish = match self.rng.below(16) {
                0..=4 => {
                    self.oracle.wants_up(&plan, &name, self.shutdown.is_some());
                    Wish::Start { ticket, service }
                }
                5..=7 => {
                    self.oracle.wants_down(&name);
                    Wish::Stop { ticket, service }
                }
                8 | 9 => {
                    self.oracle.wants_up(&plan, &name, self.shutdown.is_some());
                    Wish::Restart { ticket, service }
                }
                10 | 11 => Wish::Reload { ticket, service },
                12 => Wish::Signal { ticket, service, signal: 10 },
                13 => match self.tickets.first().copied().filter(|t| *t < batch) {
                    Some(ticket) => {
                        self.tickets.remove(&ticket);
                        events.insert(0, Event::Wish(Wish::Forget { ticket }));
                        continue;
                    }
                    None => continue,
                },
                _ => Wish::Await { ticket, service },
            };
            self.tickets.insert(ticket);
            self.oracle.touched(&plan, &name);
            events.push(Event::Wish(wish));
        }
        self.step(events);
    }

    fn apply(&mut self) {
        let old = self.plan();
        let new = match self.rng.chance(500) {
            true => plans::random(&mut self.rng, self.most),
            false => self.tweak(&old),
        };
        let generation = Generation(self.generation.0 + 1);
        self.plans.insert(generation, new.clone());
        if self.shutdown.is_none() {
            self.generation = generation;
            self.oracle.apply(&old, &new);
        }
        let same = self.oracle.undisturbed(&self.machine, &old, &new);
        self.step(vec![Event::Wish(Wish::Apply { plan: new, generation })]);
        if self.down_until.is_none() {
            for (name, run) in same {
                let view = self.machine.view(self.machine.id(name.as_str()).unwrap());
                assert_eq!((view.state, view.run), (StateKind::Running, Some(run)), "apply touched {name}");
            }
        }
    }

    /// One service differs a little.
    fn tweak(&mut self, old: &Plan) -> Arc<Plan> {
        let mut plan = old.clone();
        let at = self.rng.below(plan.services.len() as u64) as usize;
        let s = &mut plan.services[at];
        match self.rng.below(4) {
            0 => s.description.push('.'),
            1 => s.launch.argv.push("x".into()),
            2 => s.stop.timeout.0 += 10,
            _ => s.logs.dir.push("x"),
        }
        Arc::new(plan)
    }

    /// As the manager does: per service one packet with its effects and the state they lead to, then the
    /// answers. The manager may die between any two packets.
    fn perform(&mut self, effects: Vec<Effect>) {
        let mut packets: Vec<(Option<Name>, Vec<Effect>)> = vec![];
        let mut index: BTreeMap<Option<Name>, usize> = BTreeMap::new();
        let mut rest = vec![];
        for effect in effects {
            let owner = match &effect {
                Effect::Launch { service, .. }
                | Effect::Adjust { service, .. }
                | Effect::Probe { service, .. } => Some(self.machine.view(*service).name.clone()),
                Effect::RunJob { run, .. }
                | Effect::Signal { run, .. }
                | Effect::SignalTree { run, .. }
                | Effect::KillTree { run }
                | Effect::Measure { run, .. }
                | Effect::Listen { run, .. }
                | Effect::Release { run } => {
                    let owner = self.machine.run_owner(*run);
                    Some(self.machine.view(owner.expect("an effect on a run of nobody")).name.clone())
                }
                Effect::Explain { service, .. } => Some(self.machine.view(*service).name.clone()),
                Effect::Emit(notice) => notice.service.clone(),
                Effect::Removed { name, .. } => Some(name.clone()),
                Effect::Reply { .. } | Effect::Exit { .. } => {
                    rest.push(effect);
                    continue;
                }
            };
            let at = *index.entry(owner.clone()).or_insert_with(|| {
                packets.push((owner, vec![]));
                packets.len() - 1
            });
            packets[at].1.push(effect);
        }
        let mut states: BTreeMap<Name, Option<String>> = BTreeMap::new();
        for id in self.machine.take_changed() {
            let name = self.machine.view(id).name.clone();
            states.insert(name.clone(), self.machine.save(id));
            index.entry(Some(name.clone())).or_insert_with(|| {
                packets.push((Some(name), vec![]));
                packets.len() - 1
            });
        }
        let sent = match self.rng.chance(self.odds.manager_dies) && self.rng.chance(self.odds.dies_in_turn) {
            true => self.rng.below(packets.len() as u64 + 1) as usize,
            false => usize::MAX,
        };
        let cut = sent < packets.len();
        for (name, effects) in packets.into_iter().take(sent) {
            for effect in effects {
                self.execute(effect);
            }
            match name.map(|n| (states.get(&n).cloned(), n)) {
                Some((Some(Some(state)), name)) => drop(self.saved.insert(name, state)),
                Some((Some(None), name)) => drop(self.saved.remove(&name)),
                Some((None, _)) | None => {}
            }
        }
        if sent != usize::MAX {
            if cut {
                self.oracle.resync = true;
            }
            return self.manager_dies();
        }
        for effect in rest {
            self.execute(effect);
        }
        self.oracle.check(&self.machine, &self.kernel, self.now);
    }

    fn execute(&mut self, effect: Effect) {
        trace(self.now, &effect);
        self.oracle.effect(&self.machine, &self.kernel, &effect, self.now);
        let (now, rng, odds) = (self.now, &mut self.rng, &self.odds);
        match effect {
            Effect::Launch { service, run, generation } => {
                let name = self.machine.view(service).name.clone();
                assert!(run.0 > self.last_run, "run {run} is not new");
                self.last_run = run.0;
                let spec =
                    self.plans[&generation].find(name.as_str()).expect("launched from a plan without it");
                self.kernel.launch(now, rng, odds, run.0, generation, spec);
            }
            Effect::RunJob { run, job } => self.kernel.run_job(now, rng, odds, run.0, job),
            Effect::Adjust { service, run, generation } => {
                let name = self.machine.view(service).name.clone();
                let spec =
                    self.plans[&generation].find(name.as_str()).expect("adjusted to a plan without it");
                self.kernel.runs.get_mut(&run.0).unwrap().resources = spec.resources;
            }
            Effect::Probe { run, which, number, probe, .. } => {
                self.kernel.probe(now, rng, odds, run.0, which, number, probe.timeout);
            }
            Effect::Measure { run, .. } => self.kernel.measure(now, rng, odds, self.manager, run.0),
            Effect::Listen { run, above } => {
                assert!(above > 0, "every run uses memory");
                if rng.chance(odds.greedy) {
                    self.kernel.measure(now, rng, odds, self.manager, run.0);
                }
            }
            Effect::Signal { run, signal } => self.kernel.signal_main(now, rng, odds, run.0, signal),
            Effect::SignalTree { run, .. } => self.kernel.signal_tree(now, rng, odds, run.0),
            Effect::KillTree { run } => self.kernel.kill_tree(now, rng, run.0),
            Effect::Release { run } => self.kernel.runs.get_mut(&run.0).unwrap().released = true,
            Effect::Reply { ticket, outcome } => {
                assert!(self.tickets.remove(&ticket), "{ticket:?} was answered twice");
                if let Outcome::Failed(m) | Outcome::Done(m) | Outcome::Conflict(m) = outcome {
                    assert!(!m.is_empty());
                }
            }
            Effect::Emit(_) | Effect::Explain { .. } => {}
            Effect::Removed { name, .. } => {
                self.saved.remove(&name);
            }
            Effect::Exit { .. } => self.exited = true,
        }
    }

    fn manager_dies(&mut self) {
        trace(self.now, &"the manager dies");
        self.tickets.clear();
        self.manager += 1;
        let ms = self.rng.pick(&[0, 5, 500, 20_000]);
        self.oracle.nobody_for(ms);
        self.down_until = Some(self.now + keepd::plan::Millis(ms));
    }

    /// The next manager takes up what the keeper kept, hears all that is known of the runs, and goes on. It
    /// may die on the way.
    fn manager_comes(&mut self) {
        self.down_until = None;
        let mut saved = self.saved.clone();
        let mut unreadable = BTreeSet::new();
        for (name, text) in &mut saved {
            if self.rng.chance(self.odds.corrupt) && self.rng.chance(self.odds.corrupt) {
                text.truncate(self.rng.below(text.len() as u64) as usize);
                unreadable.insert(name.clone());
            }
        }
        let seed = self.rng.next();
        let next = RunId(self.last_run + 1);
        let (plan, generation) = (self.plan(), self.generation);
        self.machine = Machine::restore(seed, plan, generation, next, &saved, self.now);
        if !unreadable.is_empty() {
            (self.oracle.resync, self.oracle.lost) = (true, true);
        }
        self.oracle.replaying = true;
        let held: Vec<u64> = self.kernel.runs.iter().filter(|(_, r)| !r.released).map(|(n, _)| *n).collect();
        for run in &held {
            let r = self.kernel.runs[run].clone();
            if !self.machine.knows(RunId(*run)) {
                assert!(unreadable.contains(&r.name), "run {run} of {} is in no saved state", r.name);
                let claimed = self.machine.claim(self.now, &r.name, RunId(*run), r.generation);
                assert!(claimed, "run {run} of {} is not claimed", r.name);
                self.oracle.claimed(RunId(*run));
            }
        }
        for run in held {
            let r = self.kernel.runs[&run].clone();
            for fact in r.told {
                for _ in 0..1 + u32::from(self.rng.chance(self.odds.doubled)) {
                    if self.machine.knows(RunId(run)) {
                        self.oracle.before_fact(&self.machine, &fact, self.now);
                        self.step(vec![Event::Fact(fact.clone())]);
                        if self.down_until.is_some() {
                            return;
                        }
                    }
                }
            }
        }
        self.oracle.replaying = false;
        if std::mem::take(&mut self.oracle.resync) {
            self.oracle.take_over(&self.machine, self.shutdown.is_some());
        }
        match self.shutdown {
            Some(force) => {
                self.oracle.shutdown(self.now, self.plan().daemon.shutdown_timeout, force);
                self.step(vec![Event::Wish(Wish::Shutdown { force })]);
            }
            None => self.step(vec![Event::Tick]),
        }
    }

    /// The world becomes kind and time passes: everything must reach the end that was wished for.
    fn heal(&mut self) {
        self.odds.heal();
        self.kernel.heal(self.now);
        let end = self.now + keepd::plan::Millis(4_000_000);
        let mut healed_again = false;
        while !self.exited {
            let due = [self.kernel.next(), self.machine.next_deadline().or(Some(self.now))];
            let due =
                if self.down_until.is_some() { self.down_until } else { due.into_iter().flatten().min() };
            if self.now > end || (self.at_rest() && due.is_none_or(|t| t > end)) {
                break;
            }
            if self.kernel.next().is_none()
                && self.machine.next_deadline().is_none()
                && self.down_until.is_none()
            {
                if self.at_rest() || healed_again {
                    break;
                }
                healed_again = true;
                self.kernel.heal(self.now);
            }
            self.advance();
        }
        self.check_end();
    }

    fn at_rest(&self) -> bool {
        self.kernel.next().is_none() && self.machine.next_deadline().is_none() && self.down_until.is_none()
    }

    fn check_end(&self) {
        if self.exited {
            for (run, r) in &self.kernel.runs {
                assert!(!r.alive() || r.killed, "run {run} of {} was left behind without SIGKILL", r.name);
            }
            return;
        }
        assert!(self.shutdown.is_none(), "the shutdown never came to its end");
        for id in self.machine.ids() {
            let view = self.machine.view(id);
            if view.state == StateKind::Running {
                assert!(view.ready, "{} never became ready: {}", view.name, view.reason);
                let held = self.kernel.runs[&view.run.unwrap().0].resources;
                assert_eq!(held, view.spec.resources, "{} is not held to its resources", view.name);
            }
            let name = view.name;
            match (view.desired, view.state) {
                (Desired::Up, StateKind::Running) | (Desired::Down, StateKind::Stopped) => {}
                (Desired::Up, StateKind::Exited) => {}
                (Desired::Up, StateKind::Failed) if view.next_start.is_none() => {}
                (Desired::Up, StateKind::Waiting) => self.oracle.check_waits_for_good(&self.machine, id),
                (desired, state) => panic!("{name} ends up {desired:?} and {state:?}: {}", view.reason),
            }
        }
        for (run, r) in &self.kernel.runs {
            let owned = self.machine.knows(RunId(*run));
            assert!(r.released || owned, "run {run} was neither released nor kept");
        }
        assert!(self.tickets.is_empty(), "never answered: {:?}", self.tickets);
    }
}

pub fn run_of(fact: &Fact) -> RunId {
    match fact {
        Fact::Started { run, .. }
        | Fact::LaunchFailed { run, .. }
        | Fact::Exited { run, .. }
        | Fact::Emptied { run }
        | Fact::Measured { run, .. }
        | Fact::Adjusted { run, .. }
        | Fact::Told { run, .. }
        | Fact::Probed { run, .. }
        | Fact::JobEnded { run, .. } => *run,
    }
}

/// `KEEPD_SIM_TRACE=1` tells what happens.
pub fn trace(now: Time, what: &dyn std::fmt::Debug) {
    static ON: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    if *ON.get_or_init(|| std::env::var_os("KEEPD_SIM_TRACE").is_some()) {
        eprintln!("{:>10} {what:?}", now.0);
    }
}
