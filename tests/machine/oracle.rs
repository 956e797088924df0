//! What must hold at every step, told from outside: from the wishes, the effects and the fake kernel, never
//! from the machine's own bookkeeping where that could be avoided.

use super::kernel::Kernel;
use keepd::{
    machine::{
        Desired, Effect, Fact, Incident, Machine, Notice, NoticeKind, ServiceId, StateKind, Time, View,
    },
    plan::{Budget, Job, Millis, Name, Plan, Restart, RunId, ServiceSpec, Which},
};
use std::collections::{BTreeMap, BTreeSet};

/// One service as the oracle remembers it.
#[derive(Debug, Clone, Default)]
struct Past {
    /// Wanted up, by the wishes.
    up: bool,
    /// A wish or an apply has touched it, or what it depends on or what depends on it, since its last launch.
    touched: bool,
    /// Unplanned ends in a row.
    attempts: u32,
    /// Times of failures that count for the breaker, at least: as if every touch had forgiven them.
    failures: Vec<Time>,
    /// In a crash loop for certain.
    open: bool,
    /// Times of failures that may count: as if no touch had forgiven any.
    most: Vec<Time>,
    /// Perhaps in a crash loop.
    maybe_open: bool,
    /// The end of the last run, if it was by itself and nothing excuses an early start.
    ended: Option<Time>,
    /// The state before this step and since when it stops.
    stopping: Option<(RunId, Time)>,
    /// The runs of what it is bound to, as it was launched.
    bound: Vec<(Name, Option<RunId>)>,
    /// How long no manager was there since.
    down: Millis,
    restarts: u32,
}

#[derive(Debug, Default)]
pub struct Oracle {
    past: BTreeMap<Name, Past>,
    /// Exits that were reported, by run.
    exits: BTreeSet<RunId>,
    automatic: Vec<Time>,
    budget: Option<Budget>,
    kill_all_at: Option<Time>,
    /// A manager died between two packets: its wishes may be lost.
    pub resync: bool,
    /// The machine only listens yet.
    pub replaying: bool,
    /// A saved state was lost: counts of the past mean nothing.
    pub lost: bool,
    launched: BTreeMap<RunId, Time>,
    /// Runs whose start the machine has heard of.
    heard: BTreeSet<RunId>,
    /// Runs that were taken over without a saved state.
    claimed: BTreeSet<RunId>,
    shutting: bool,
    /// Runs that were declared to be of no use.
    unfit: BTreeSet<RunId>,
    /// Questions that have no answer yet, and how long that may take.
    asked: BTreeMap<(RunId, Which), Time>,
}

fn needs(spec: &ServiceSpec) -> impl Iterator<Item = &Name> {
    spec.requires.iter().chain(&spec.binds_to)
}

fn pulls(spec: &ServiceSpec) -> impl Iterator<Item = &Name> {
    needs(spec).chain(&spec.wants)
}

fn closure(plan: &Plan, from: &Name, next: impl Fn(&ServiceSpec) -> Vec<Name>) -> BTreeSet<Name> {
    let mut seen = BTreeSet::from([from.clone()]);
    let mut open = vec![from.clone()];
    while let Some(name) = open.pop() {
        for to in plan.find(name.as_str()).map(&next).unwrap_or_default() {
            if seen.insert(to.clone()) {
                open.push(to);
            }
        }
    }
    seen
}

fn below(plan: &Plan, name: &Name) -> BTreeSet<Name> {
    closure(plan, name, |s| pulls(s).cloned().collect())
}

impl Oracle {
    pub fn new(plan: &Plan) -> Oracle {
        Oracle { budget: Some(plan.daemon.restart_budget), ..Oracle::default() }
    }

    fn of(&mut self, name: &Name) -> &mut Past {
        self.past.entry(name.clone()).or_default()
    }

    pub fn begin(&mut self, plan: &Plan) {
        for s in plan.services.iter().filter(|s| s.autostart) {
            self.wants_up(plan, &s.name, false);
            self.touched(plan, &s.name);
        }
    }

    pub fn wants_up(&mut self, plan: &Plan, name: &Name, shutting: bool) {
        if !shutting && plan.find(name.as_str()).is_some() {
            for n in below(plan, name) {
                self.of(&n).up = true;
            }
        }
    }

    pub fn wants_down(&mut self, name: &Name) {
        self.of(name).up = false;
    }

    /// Somebody did something to it: what starts or stops around it may do so for that reason.
    pub fn touched(&mut self, plan: &Plan, name: &Name) {
        let mut near = below(plan, name);
        for s in &plan.services {
            if below(plan, &s.name).iter().any(|n| near.contains(n)) {
                near.insert(s.name.clone());
            }
        }
        for n in near {
            self.of(&n).touch();
        }
    }

    pub fn shutdown(&mut self, now: Time, timeout: Millis, force: bool) {
        let at = if force { now } else { now + timeout };
        self.kill_all_at = Some(self.kill_all_at.map_or(at, |t| t.min(at)));
        self.shutting = true;
        for past in self.past.values_mut() {
            past.up = false;
        }
    }

    pub fn apply(&mut self, old: &Plan, new: &Plan) {
        self.budget = Some(new.daemon.restart_budget);
        self.automatic.clear();
        for (name, past) in &mut self.past {
            past.touch();
            // What is bound anew is bound to what runs then.
            let still = |to: &Name| new.find(name.as_str()).is_some_and(|s| s.binds_to.contains(to));
            past.bound.retain(|(to, _)| still(to));
        }
        for s in &old.services {
            if new.find(s.name.as_str()).is_none() {
                self.of(&s.name).up = false;
            }
        }
        // Those that are brought back while they are being stopped are as new.
        for s in new.services.iter().filter(|s| old.find(s.name.as_str()).is_none()) {
            self.of(&s.name).up = false;
        }
        for s in &new.services {
            match old.find(s.name.as_str()) {
                None if s.autostart => self.wants_up(new, &s.name, false),
                Some(o) if self.past.get(&s.name).is_some_and(|p| p.up) => {
                    let before: BTreeSet<&Name> = pulls(o).collect();
                    let fresh: Vec<&Name> = pulls(s).filter(|n| !before.contains(n)).collect();
                    for n in fresh {
                        self.wants_up(new, n, false);
                    }
                }
                None | Some(_) => {}
            }
        }
    }

    /// Services that run and that this apply is no business of.
    pub fn undisturbed(&self, machine: &Machine, old: &Plan, new: &Plan) -> Vec<(Name, RunId)> {
        let same = |n: &Name| {
            let (a, b) = (old.find(n.as_str()), new.find(n.as_str()));
            let strip = |s: &ServiceSpec| {
                let mut s = s.clone();
                (s.description, s.stop.timeout) = (String::new(), Millis(0));
                s
            };
            a.map(strip) == b.map(strip)
        };
        let calm = |n: &Name| {
            machine.id(n.as_str()).is_some_and(|id| {
                let v = machine.view(id);
                v.state == StateKind::Running && v.desired == Desired::Up && v.reason.is_empty()
            })
        };
        let hard = |n: &Name| closure(new, n, |s| needs(s).cloned().collect());
        let all = new.services.iter().map(|s| s.name.clone());
        all.filter(|n| hard(n).iter().all(|m| same(m) && calm(m)))
            .filter_map(|n| Some((n.clone(), machine.view(machine.id(n.as_str())?).run?)))
            .collect()
    }

    /// There is no manager for so long.
    pub fn nobody_for(&mut self, ms: u64) {
        self.asked.clear();
        for past in self.past.values_mut() {
            past.down.0 += ms + 10_000;
        }
    }

    /// Nobody knows any more whether its end was told, nor how it wanted to be stopped when it was launched.
    pub fn claimed(&mut self, run: RunId) {
        self.claimed.insert(run);
    }

    /// After a death between two packets the machine says what is wanted.
    pub fn take_over(&mut self, machine: &Machine, shutting: bool) {
        for id in machine.ids() {
            let v = machine.view(id);
            let (up, restarts) = (v.desired == Desired::Up && !shutting, v.restarts);
            let past = self.of(v.name);
            past.touch();
            (past.up, past.restarts) = (up, restarts);
        }
        if std::mem::take(&mut self.lost) {
            self.automatic.clear();
        }
    }

    /// Accounts for an unplanned end as the rules say, before the machine hears of it.
    pub fn before_fact(&mut self, machine: &Machine, fact: &Fact, now: Time) {
        let (run, failed, at, ran) = match fact {
            Fact::Exited { run, exit, at, .. } => {
                let Some(id) = machine.run_owner(*run) else { return };
                let v = machine.view(id);
                if v.last_exit.is_some_and(|l| l.run == *run) {
                    return;
                }
                let success = v.spec.success_exit.iter().any(|m| match (m, exit) {
                    (keepd::plan::ExitMatch::Code(a), keepd::plan::Exit::Code(b)) => a == b,
                    _ => false,
                });
                (*run, Some(!success), *at, v.first_ready.map(|t| at.since(t)))
            }
            Fact::LaunchFailed { run, transient, .. } => (*run, (!transient).then_some(true), now, None),
            Fact::Started { run, .. } => {
                self.heard.insert(*run);
                return;
            }
            Fact::Probed { run, which, .. } => {
                self.asked.remove(&(*run, *which));
                return;
            }
            Fact::Told { .. } => return,
            Fact::Emptied { .. } | Fact::JobEnded { .. } | Fact::Adjusted { .. } | Fact::Measured { .. } => {
                return;
            }
        };
        let Some(id) = machine.run_owner(run) else { return };
        let v = machine.view(id);
        let by_itself = matches!(v.state, StateKind::Starting | StateKind::Running)
            && v.desired == Desired::Up
            && !v.reason.starts_with("to be stopped");
        if !by_itself || v.run != Some(run) {
            return;
        }
        let spec = v.spec.clone();
        let seemed = v.first_ready.map(|t| now.since(t));
        let alone = needs(&spec).all(|to| {
            machine.id(to.as_str()).is_some_and(|id| {
                let d = machine.view(id);
                d.ready && d.reason.is_empty()
            })
        });
        let past = self.of(&spec.name);
        if seemed.is_some_and(|r| r >= spec.backoff.reset_after) {
            // News of the end came so late that the run may have been taken for a stable one.
            (past.attempts, past.open) = (0, false);
            past.failures.clear();
        }
        if ran.is_some_and(|r| r >= spec.backoff.reset_after) {
            *past = Past {
                up: past.up,
                touched: past.touched,
                stopping: past.stopping,
                bound: past.bound.clone(),
                restarts: past.restarts,
                ..Past::default()
            };
        }
        past.attempts += 1;
        past.ended = (!past.touched).then_some(at);
        if failed == Some(true) {
            let before = (self.of(&spec.name).failures.clone(), self.of(&spec.name).open);
            self.failure(&spec, at);
            if !alone {
                // What it needs was away: that may have been no failure.
                let past = self.of(&spec.name);
                (past.failures, past.open) = before;
            }
        }
    }

    fn failure(&mut self, spec: &ServiceSpec, at: Time) {
        let past = self.of(&spec.name);
        let (within, needed) = (spec.breaker.within, spec.breaker.failures as usize);
        past.failures.retain(|t| *t + within > at);
        past.failures.push(at);
        past.open |= past.failures.len() >= needed;
        past.most.retain(|t| *t + within > at);
        past.most.push(at);
        past.maybe_open |= past.most.len() >= needed;
    }

    /// Its watch restarts it: not before its time, and a run that has lasted has made up for earlier failures.
    fn watched(&mut self, machine: &Machine, kernel: &Kernel, name: &Name, run: RunId, now: Time) {
        let spec = machine.view(machine.id(name.as_str()).unwrap()).spec.clone();
        let started = kernel.runs[&run.0].started.expect("watched before it was started");
        let lasted = now.since(started);
        assert!(lasted >= spec.watch.unwrap().lasting, "{name} was watched for {lasted} only");
        if lasted >= spec.backoff.reset_after {
            let past = self.of(name);
            (past.attempts, past.open) = (0, false);
            past.failures.clear();
        }
    }

    /// A run is ended because it is of no use: that is a failure, and not of one that was not given its time.
    fn unfit(&mut self, machine: &Machine, kernel: &Kernel, name: &Name, run: RunId, now: Time) {
        let spec = machine.view(machine.id(name.as_str()).unwrap()).spec.clone();
        let r = &kernel.runs[&run.0];
        let ran = now.since(r.started.expect("of no use before it was started"));
        // A plan may have changed it before it was started.
        let given = r.spec.ready.iter().chain(&spec.ready).map(|ready| ready.within).min();
        let was_ready =
            given.is_none() || machine.view(machine.id(name.as_str()).unwrap()).first_ready.is_some();
        let leaving = r.sum.stopping;
        assert!(
            was_ready || leaving || given.is_some_and(|within| ran >= within) || self.resync,
            "{name} was given {ran} to become ready"
        );
        let first = self.unfit.insert(run);
        assert!(first || self.claimed.contains(&run), "{name} is ended twice");
        let since = machine.view(machine.id(name.as_str()).unwrap()).first_ready;
        let past = self.of(name);
        if since.is_some_and(|t| now.since(t) >= spec.backoff.reset_after) {
            (past.attempts, past.open) = (0, false);
            past.failures.clear();
        }
        past.attempts += 1;
        past.ended = (!past.touched).then_some(now);
        self.failure(&spec, now);
    }

    /// What one effect may be.
    pub fn effect(&mut self, machine: &Machine, kernel: &Kernel, effect: &Effect, now: Time) {
        match effect {
            Effect::Launch { service, run, .. } => self.launch(machine, kernel, *service, *run, now),
            Effect::RunJob { run, job } => {
                self.live_run(kernel, *run);
                if *job == Job::Stop {
                    self.may_stop(machine, *run);
                }
            }
            Effect::Signal { run, signal } => {
                self.live_run(kernel, *run);
                if *signal == kernel.runs[&run.0].stop.signal {
                    self.may_stop(machine, *run);
                }
            }
            Effect::Measure { run, .. } | Effect::Listen { run, .. } => {
                self.live_run(kernel, *run);
                assert!(
                    machine.view(machine.run_owner(*run).unwrap()).spec.watch.is_some(),
                    "{run} is not watched"
                );
            }
            Effect::Adjust { run, .. } => self.live_run(kernel, *run),
            Effect::Probe { run, which, probe, .. } => {
                self.live_run(kernel, *run);
                let under_way = self.asked.insert((*run, *which), now + probe.timeout);
                assert!(under_way.is_none_or(|until| until <= now), "{run} is asked twice at a time");
            }
            Effect::SignalTree { run, .. } => {
                self.live_run(kernel, *run);
                assert!(
                    kernel.runs[&run.0].exit.is_some(),
                    "the tree of {run} is signalled before its main process"
                );
            }
            Effect::KillTree { run } => {
                self.live_run(kernel, *run);
                self.may_kill(kernel, *run, now);
            }
            Effect::Release { run } => {
                self.live_run(kernel, *run);
                let r = &kernel.runs[&run.0];
                assert!(!r.alive(), "run {run} of {} was released alive: {r:?}", r.name);
                assert!(
                    r.ended.is_none() || self.exits.contains(run),
                    "the exit of run {run} was never reported"
                );
            }
            Effect::Emit(n) => self.notice(machine, kernel, n, now),
            Effect::Explain { service, incident } => explained(machine, kernel, *service, incident),
            Effect::Removed { name, .. } => {
                let alive = kernel.runs.values().any(|r| r.name == *name && !r.released);
                assert!(!alive, "{name} was removed with a live run");
                self.past.remove(name);
            }
            Effect::Exit { left_behind } => {
                for r in kernel.runs.values().filter(|r| r.alive()) {
                    assert!(left_behind.contains(&r.name), "{} was left behind without a word", r.name);
                }
            }
            Effect::Reply { .. } => {}
        }
    }

    /// What one notice may say.
    fn notice(&mut self, machine: &Machine, kernel: &Kernel, n: &Notice, now: Time) {
        match n.kind {
            _ if n.kind == NoticeKind::Exit => {
                let run = n.run.expect("an exit of no run");
                let first = self.exits.insert(run);
                assert!(first || self.claimed.contains(&run), "the exit of run {run} was reported twice");
                assert_eq!(n.exit, kernel.runs[&run.0].exit, "an invented exit of run {run}");
            }
            _ if n.kind == NoticeKind::LaunchFailed && n.message.contains("within 1m") => {
                // A launch that hangs is no fact but the machine's own conclusion.
                let run = n.run.expect("a launch of no run");
                assert!(self.launched[&run] + Millis::secs(60) <= now);
                let id = machine.run_owner(run).expect("a launch of nobody");
                self.failure(&machine.view(id).spec.clone(), now);
            }
            _ if n.message.ends_with("; it is stopped") => {
                let (name, run) = (n.service.clone().unwrap(), n.run.unwrap());
                self.unfit(machine, kernel, &name, run, now);
            }
            _ if n.kind == NoticeKind::Failed => {
                let name = n.service.clone().unwrap();
                assert!(
                    self.resync || self.of(&name).maybe_open,
                    "{name} is called a crash loop and is none"
                );
            }
            _ if n.kind == NoticeKind::Watch && n.message.ends_with("it is restarted") => {
                self.watched(machine, kernel, n.service.as_ref().unwrap(), n.run.unwrap(), now);
            }
            _ if n.kind == NoticeKind::State && n.message.contains(" is stopping: ") => {
                let (name, run) = (n.service.clone().unwrap(), n.run.unwrap());
                self.of(&name).stopping.get_or_insert((run, now));
            }
            _ => {}
        }
    }

    fn live_run(&self, kernel: &Kernel, run: RunId) {
        let r = kernel.runs.get(&run.0).expect("an effect on a run that never was");
        assert!(!r.released, "an effect on run {run}, which was released");
    }

    /// Its dependents are gone, and those that only follow it and have to go as well.
    fn may_stop(&mut self, machine: &Machine, run: RunId) {
        let id = machine.run_owner(run).expect("a signal to a run of nobody");
        let name = machine.view(id).name.clone();
        if self.unfit.contains(&run) || self.of(&name).stopping.is_some_and(|(old, _)| old == run) {
            // The stop had begun; a new plan may have brought dependents since.
            return;
        }
        for other in machine.ids() {
            let v = machine.view(other);
            let alive = matches!(v.state, StateKind::Starting | StateKind::Running | StateKind::Stopping);
            if !alive {
                continue;
            }
            assert!(!needs(v.spec).any(|n| *n == name), "{name} is stopped before {}", v.name);
            let follows = v.spec.wants.iter().chain(&v.spec.after).any(|n| *n == name);
            assert!(
                !(follows && v.desired == Desired::Down),
                "{name} is stopped before {}, which follows it",
                v.name
            );
        }
    }

    fn may_kill(&self, kernel: &Kernel, run: RunId, now: Time) {
        if self.claimed.contains(&run) {
            return;
        }
        let r = &kernel.runs[&run.0];
        let at_once = self.kill_all_at.is_some_and(|t| t <= now);
        let begun = self.past.get(&r.name).and_then(|p| p.stopping).filter(|(n, _)| *n == run);
        let patient = begun.is_some_and(|(_, t)| t + r.stop.timeout <= now);
        let in_one_step = begun.is_none() && r.stop.timeout == Millis(0);
        let no_launch = begun.is_none() && self.launched[&run] + Millis::secs(60) <= now;
        assert!(
            at_once || patient || in_one_step || (no_launch && !self.heard.contains(&run)),
            "run {run} of {} is killed before its time: {begun:?} at {now:?}",
            r.name
        );
    }

    fn launch(&mut self, machine: &Machine, kernel: &Kernel, id: ServiceId, run: RunId, now: Time) {
        let v = machine.view(id);
        let (name, spec) = (v.name.clone(), v.spec.clone());
        let older = kernel.runs.iter().find(|(_, r)| r.name == name && (r.alive() || !r.released));
        assert!(older.is_none(), "{name} is launched again while run {older:?} is there");
        assert_eq!(v.desired, Desired::Up, "{name} is launched unwanted");
        assert!(!self.shutting, "{name} is launched in a shutdown");
        assert!(self.resync || self.of(&name).up, "{name} is launched although nobody wants it");
        for to in needs(&spec) {
            let d = machine.view(machine.id(to.as_str()).unwrap());
            assert_eq!(d.state, StateKind::Running, "{name} is launched without {to}: {}", d.reason);
            assert!(d.ready, "{name} is launched before {to} is ready: {}", d.reason);
        }
        for to in spec.after.iter().chain(&spec.wants) {
            let d = machine.view(machine.id(to.as_str()).unwrap());
            let starts = d.state == StateKind::Starting && !d.reason.starts_with("to be stopped");
            assert!(!starts, "{name} is launched before {to}");
            let could = d.state == StateKind::Waiting && self.could_launch(machine, &d);
            assert!(!could, "{name} is launched before {to}, which could be");
        }
        self.check_pace(machine, &v, now);
        self.launched.insert(run, now);
        let starting = machine.counts()["starting"];
        let most = machine.plan().daemon.max_concurrent_starts;
        assert!(starting <= most, "{starting} services are starting, {most} may");
        let run_of = |to: &Name| machine.id(to.as_str()).and_then(|id| machine.view(id).run);
        let bound = spec.binds_to.iter().map(|to| (to.clone(), run_of(to))).collect();
        let past = self.of(&name);
        (past.touched, past.ended, past.bound) = (false, None, bound);
    }

    fn could_launch(&self, machine: &Machine, v: &View<'_>) -> bool {
        let running = |n: &Name| {
            machine.id(n.as_str()).is_some_and(|id| {
                let d = machine.view(id);
                d.ready && d.reason.is_empty()
            })
        };
        v.desired == Desired::Up && needs(v.spec).all(running)
    }

    /// Backoff, breaker and the host's budget.
    fn check_pace(&mut self, machine: &Machine, v: &View<'_>, now: Time) {
        let spec = v.spec.clone();
        let auto = v.restarts > self.of(&spec.name).restarts;
        self.of(&spec.name).restarts = v.restarts;
        let budget = self.budget.unwrap();
        if auto && !self.resync {
            self.automatic.push(now);
            self.automatic.retain(|t| *t + budget.within > now);
            let n = self.automatic.len();
            assert!(n <= budget.starts as usize, "{n} automatic starts, the budget is {budget:?}");
        }
        let bound = closure(machine.plan(), &spec.name, |s| needs(s).cloned().collect())
            .iter()
            .any(|n| machine.plan().find(n.as_str()).is_some_and(|s| !s.binds_to.is_empty()));
        let past = self.of(&spec.name);
        let Some(ended) = past.ended.filter(|_| !bound) else { return };
        assert!(auto, "{} is started by nobody", spec.name);
        let waited = now.since(ended);
        let b = &spec.backoff;
        let mut base = b.delay.0;
        for _ in 1..past.attempts {
            base = (base * u64::from(b.factor_permille) / 1000).min(b.max.0);
        }
        let least = base.min(b.max.0) * u64::from(1000 - b.jitter_permille) / 1000;
        assert!(
            waited.0 + 1 >= least,
            "{} restarts after {waited}, not {}: attempt {}",
            spec.name,
            Millis(least),
            past.attempts
        );
        if past.open {
            let every = spec.breaker.retry_every;
            let every = every.unwrap_or_else(|| panic!("{} restarts, an operator should decide", spec.name));
            assert!(
                waited >= every.min(Millis(least.max(every.0)))
                    || past.failures.is_empty()
                    || past.last_was_soft(ended),
                "{} restarts after {waited} in a crash loop",
                spec.name
            );
        }
    }

    /// What must hold whenever a turn is over.
    pub fn check(&mut self, machine: &Machine, kernel: &Kernel, now: Time) {
        for id in machine.ids() {
            let v = machine.view(id);
            self.check_one(machine, kernel, &v, now);
        }
        let counted: u32 = machine.counts().values().sum();
        assert_eq!(counted as usize, machine.ids().count());
        let starting = machine.ids().filter(|id| machine.view(*id).state == StateKind::Starting).count();
        assert_eq!(machine.counts()["starting"] as usize, starting);
    }

    fn check_one(&mut self, machine: &Machine, kernel: &Kernel, v: &View<'_>, now: Time) {
        let name = v.name;
        let wanted = v.desired == Desired::Up;
        if !self.resync {
            let up = self.of(name).up;
            assert_eq!(wanted, up, "{name} is wanted {:?}", v.desired);
        }
        if wanted != (v.state == StateKind::Running) && (wanted || v.state != StateKind::Stopped) {
            assert!(!v.reason.is_empty(), "{name} is {:?} and does not say why", v.state);
        }
        let run = v.run.and_then(|r| kernel.runs.get(&r.0));
        assert_eq!(v.run.is_some(), run.is_some_and(|r| !r.released), "{name}: {v:?}");
        match v.state {
            StateKind::Stopped
            | StateKind::Backoff
            | StateKind::Exited
            | StateKind::Failed
            | StateKind::Waiting => {
                let alive = kernel.runs.values().any(|r| r.name == *name && !r.released);
                assert!(!alive, "{name} is {:?} and has a live run", v.state);
                assert!(
                    wanted || self.replaying || v.state == StateKind::Stopped,
                    "{name} is unwanted and {:?}",
                    v.state
                );
            }
            StateKind::Starting | StateKind::Running | StateKind::Stopping | StateKind::Stuck => {}
        }
        match v.state {
            StateKind::Backoff => assert!(v.next_start.is_some()),
            StateKind::Failed => {
                let never = v.spec.breaker.retry_every.is_none() || v.spec.restart == Restart::Never;
                assert!(
                    v.next_start.is_some() || never || self.any_touched(name),
                    "{name} will never be retried"
                );
            }
            StateKind::Waiting if !self.replaying => {
                let slot = machine.counts()["starting"] >= machine.plan().daemon.max_concurrent_starts;
                let budget = v.reason.contains("restart budget") && v.next_start.is_some_and(|t| t > now);
                let could = self.could_launch(machine, v) && !self.follows_busy(machine, v);
                assert!(!could || slot || budget, "{name} waits for nothing: {}", v.reason);
            }
            StateKind::Running => {
                assert!(v.started.is_some() && (v.ready || !v.reason.is_empty()), "{v:?}");
                if v.reason.is_empty() && !self.replaying {
                    self.check_bound(machine, v);
                }
            }
            StateKind::Stopped
            | StateKind::Waiting
            | StateKind::Starting
            | StateKind::Stopping
            | StateKind::Exited
            | StateKind::Stuck => {}
        }
        self.check_stop_ends(v, run.map_or(v.spec.stop.timeout, |r| r.stop.timeout), now);
    }

    /// It runs undisturbed: so do those that it is bound to, as they did when it was launched.
    fn check_bound(&self, machine: &Machine, v: &View<'_>) {
        let Some(past) = self.past.get(v.name).filter(|_| v.run.is_none_or(|r| !self.claimed.contains(&r)))
        else {
            return;
        };
        for (to, run) in past.bound.iter().filter(|(to, _)| v.spec.binds_to.contains(to)) {
            let now = machine.id(to.as_str()).and_then(|id| machine.view(id).run);
            assert_eq!(now, *run, "{} runs on without the {to} that it is bound to", v.name);
        }
    }

    fn any_touched(&self, name: &Name) -> bool {
        self.past.get(name).is_some_and(|p| p.touched)
    }

    fn follows_busy(&self, machine: &Machine, v: &View<'_>) -> bool {
        v.spec.after.iter().chain(&v.spec.wants).any(|n| {
            machine.id(n.as_str()).is_some_and(|id| {
                let d = machine.view(id);
                matches!(d.state, StateKind::Starting | StateKind::Waiting | StateKind::Stopping)
                    || (d.state == StateKind::Running && !d.reason.is_empty())
            })
        })
    }

    /// Every stop comes to an end: stop timeout, ten seconds for SIGKILL, one of slack.
    fn check_stop_ends(&mut self, v: &View<'_>, timeout: Millis, now: Time) {
        let past = self.of(v.name);
        match (v.state, v.run, past.stopping) {
            (StateKind::Stopping, Some(run), Some((old, since))) if run == old => {
                // Nobody can act while the manager is dead, and what a new one kills gets its ten seconds.
                let dead = past.down.0;
                // A service may ask for 700 ms more.
                let limit = timeout.0 + 11_700 + 40 + 2 * dead;
                let claimed = self.claimed.contains(&run);
                assert!(
                    claimed || now.since(since).0 <= limit,
                    "{} has been stopping since {since:?}",
                    v.name
                );
            }
            (StateKind::Stopping, Some(run), _) => (past.stopping, past.down) = (Some((run, now)), Millis(0)),
            _ => (past.stopping, past.down) = (None, Millis(0)),
        }
    }

    /// At the end of a healed world: somebody that it needs is down for a reason that only people can change.
    pub fn check_waits_for_good(&self, machine: &Machine, id: ServiceId) {
        let v = machine.view(id);
        let down = needs(v.spec).any(|n| !machine.view(machine.id(n.as_str()).unwrap()).ready);
        assert!(down, "{} waits for ever: {}", v.name, v.reason);
    }
}

impl Past {
    /// It may have been forgiven, and may start for other reasons than time.
    fn touch(&mut self) {
        (self.touched, self.ended, self.attempts, self.open) = (true, None, 0, false);
        self.failures.clear();
    }

    /// The last end did not count as a failure, so the ordinary delay applies.
    fn last_was_soft(&self, ended: Time) -> bool {
        self.failures.last() != Some(&ended)
    }
}

/// An incident says what the kernel says, and what the service's state says of the time to come.
fn explained(machine: &Machine, kernel: &Kernel, service: ServiceId, incident: &Incident) {
    let run = &kernel.runs[&incident.run.0];
    let view = machine.view(service);
    assert_eq!((incident.exit, &run.name), (run.exit, view.name), "{incident:?}");
    assert!(!run.alive(), "explained while something of it is alive: {incident:?}");
    assert!(!incident.cause.is_empty() && !incident.next.what.is_empty(), "{incident:?}");
    if incident.next.at.is_some() {
        assert_eq!(incident.next.at, view.next_start, "{incident:?}");
    }
    assert!(incident.good.is_none_or(|good| good <= incident.generation), "{incident:?}");
}
