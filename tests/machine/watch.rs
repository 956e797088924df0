//! Stories of resources and watches: what is held to what, what is too much for how long, and what follows.

use super::plans::{plan, service};
use keepd::{
    machine::{Effect, Event, Fact, Machine, NoticeKind, Reading, StateKind, Time, View, Wish},
    plan::*,
};
use std::sync::Arc;

const MIB: u64 = 1 << 20;
const RUN: RunId = RunId(1);

fn watched(action: WatchAction) -> ServiceSpec {
    let watch = Watch { memory: Some(100 * MIB), cpu: Some(90), lasting: Millis::secs(60), action };
    ServiceSpec { watch: Some(watch), ..service("web") }
}

fn one(spec: ServiceSpec) -> Arc<Plan> {
    plan(vec![spec])
}

/// One running service, and its clock.
struct Host {
    m: Machine,
    now: Time,
}

impl Host {
    fn up(plan: Arc<Plan>) -> Host {
        let now = Time(1_000_000);
        let mut m = Machine::new(1, plan, Generation(1), RUN);
        m.begin(now);
        m.step(now, Event::Fact(Fact::Started { run: RUN, pid: 4001, at: now }));
        Host { m, now }
    }

    fn fact(&mut self, fact: Fact) -> Vec<Effect> {
        self.m.step(self.now, Event::Fact(fact))
    }

    fn read(&mut self, run: RunId, memory: u64, cpu_us: u64) -> Vec<Effect> {
        let reading = Reading { at: self.now, memory: Some(memory), cpu_us: Some(cpu_us) };
        self.fact(Fact::Measured { run, reading })
    }

    /// Goes on to the machine's next deadline, and answers with a service that uses this much.
    fn next(&mut self, memory: u64, percent: u64) -> Vec<Effect> {
        self.now = self.m.next_deadline().unwrap();
        let asked = self.m.step(self.now, Event::Tick);
        let mut all = asked.clone();
        for effect in asked {
            if let Effect::Measure { run, .. } = effect {
                all.extend(self.read(run, memory, self.now.0 * 10 * percent));
            }
        }
        all
    }

    fn apply(&mut self, spec: ServiceSpec) -> Vec<Effect> {
        self.m.step(self.now, Event::Wish(Wish::Apply { plan: one(spec), generation: Generation(2) }))
    }

    fn view(&self) -> View<'_> {
        self.m.view(self.m.id("web").unwrap())
    }
}

fn told(effects: &[Effect], kind: NoticeKind) -> Vec<String> {
    let told = effects.iter().filter_map(|e| match e {
        Effect::Emit(n) if n.kind == kind => Some(n.message.clone()),
        _ => None,
    });
    told.collect()
}

#[test]
fn what_is_not_watched_wakes_nobody() {
    let mut spec = service("web");
    spec.backoff.reset_after = Millis::secs(1);
    assert_eq!(Host::up(one(spec)).m.next_deadline(), None);
    let h = Host::up(one(watched(WatchAction::Alert)));
    assert_eq!(h.m.next_deadline(), Some(Time(1_005_000)), "a quarter of `for`, by the clock");
}

#[test]
fn too_much_for_long_enough_is_restarted_in_order_and_as_an_automatic_start() {
    let mut h = Host::up(one(watched(WatchAction::Restart)));
    for _ in 0..4 {
        let e = h.next(101 * MIB, 10);
        assert!(told(&e, NoticeKind::Watch).is_empty(), "too early: {e:?}");
    }
    let e = h.next(101 * MIB, 10);
    let message = "web used more than 100MiB of memory for 1m, it is restarted";
    assert_eq!(told(&e, NoticeKind::Watch), [message]);
    assert!(e.contains(&Effect::Signal { run: RUN, signal: 15 }));
    let reason = "restarted because it used more than 100MiB of memory for 1m; SIGTERM was sent";
    assert_eq!((h.view().state, h.view().reason.as_str()), (StateKind::Stopping, reason));
    assert_eq!(h.m.next_deadline(), Some(h.now + Millis::secs(10)), "a run that goes is not measured");
    let exit = Exit::Signal { signal: 15, core: false };
    let e = h.fact(Fact::Exited { run: RUN, exit, leftovers: false, at: h.now });
    assert!(e.iter().any(|e| matches!(e, Effect::Launch { run: RunId(2), .. })), "{e:?}");
    assert_eq!((h.view().restarts, h.view().consecutive_failures), (1, 0));
}

#[test]
fn one_reading_below_begins_anew() {
    let mut h = Host::up(one(watched(WatchAction::Restart)));
    for round in 0..12 {
        let memory = if round % 4 == 3 { 100 * MIB } else { 200 * MIB };
        let e = h.next(memory, 10);
        assert!(told(&e, NoticeKind::Watch).is_empty(), "{round}: {e:?}");
    }
}

#[test]
fn cpu_counts_as_the_share_between_readings() {
    let mut h = Host::up(one(watched(WatchAction::Restart)));
    // The first reading only says how much there was.
    for _ in 0..4 {
        assert!(told(&h.next(MIB, 91), NoticeKind::Watch).is_empty());
    }
    let e = h.next(MIB, 91);
    assert_eq!(told(&e, NoticeKind::Watch), ["web used more than 90% of a CPU for 1m, it is restarted"]);
    let mut calm = Host::up(one(watched(WatchAction::Restart)));
    for _ in 0..12 {
        assert!(told(&calm.next(MIB, 90), NoticeKind::Watch).is_empty());
    }
}

#[test]
fn the_kernel_wakes_a_watch_that_need_not_look() {
    let mut spec = watched(WatchAction::Restart);
    spec.resources.memory_high = Some(80 * MIB);
    spec.watch.as_mut().unwrap().cpu = None;
    let mut h = Host::up(one(spec.clone()));
    let e = h.next(80 * MIB, 0);
    assert!(e.contains(&Effect::Listen { run: RUN, above: 80 * MIB }), "{e:?}");
    assert_eq!(h.m.next_deadline(), None, "nothing is read");
    // Much later the kernel tells of more: from then on it is looked at, for as long as it is more.
    h.now.0 += 10_000_000;
    assert_eq!(h.read(RUN, 101 * MIB, 0), []);
    for _ in 0..3 {
        assert!(told(&h.next(101 * MIB, 0), NoticeKind::Watch).is_empty());
    }
    h.next(90 * MIB, 0);
    assert!(h.m.next_deadline().is_some(), "within the watch, and above what the kernel tells of");
    let e: Vec<Effect> = (0..5).flat_map(|_| h.next(101 * MIB, 0)).collect();
    assert_eq!(told(&e, NoticeKind::Watch).len(), 1, "{e:?}");

    // The kernel cannot tell of CPU time, nor of less memory than memory-high.
    let mut low = spec.clone();
    low.watch.as_mut().unwrap().memory = Some(79 * MIB);
    let mut busy = spec;
    busy.watch.as_mut().unwrap().cpu = Some(10);
    for spec in [low, busy] {
        let mut h = Host::up(one(spec));
        h.next(MIB, 0);
        assert!(h.m.next_deadline().is_some());
    }
}

#[test]
fn other_resources_are_looked_at_before_the_kernel_is_trusted_to_tell() {
    let mut spec = watched(WatchAction::Restart);
    spec.watch.as_mut().unwrap().cpu = None;
    spec.resources.memory_high = Some(80 * MIB);
    let mut h = Host::up(one(spec.clone()));
    h.next(MIB, 0);
    assert_eq!(h.m.next_deadline(), None);
    spec.resources.memory_high = Some(60 * MIB);
    h.apply(spec);
    assert!(h.m.next_deadline().is_some());
    h.next(MIB, 0);
    assert_eq!(h.m.next_deadline(), None);
    h.fact(Fact::Adjusted { run: RUN, why: String::new() });
    assert!(h.m.next_deadline().is_some(), "only now it holds");
    h.fact(Fact::Adjusted { run: RUN, why: "it cannot be had".into() });
    h.next(MIB, 0);
    assert!(h.m.next_deadline().is_some(), "who is not held to it is not told of either");
}

#[test]
fn an_alert_is_told_once_and_taken_back() {
    let mut h = Host::up(one(watched(WatchAction::Alert)));
    let alerts: Vec<String> = (0..9).flat_map(|_| told(&h.next(101 * MIB, 10), NoticeKind::Watch)).collect();
    assert_eq!(alerts, ["web used more than 100MiB of memory for 1m"]);
    let v = h.view();
    assert_eq!((v.state, v.reason.as_str()), (StateKind::Running, "used more than 100MiB of memory for 1m"));
    let e = h.next(MIB, 10);
    assert_eq!(told(&e, NoticeKind::Recovered), ["web is within its watch again"]);
    assert_eq!(h.view().reason, "");
}

#[test]
fn what_was_not_looked_at_does_not_count() {
    let mut h = Host::up(one(watched(WatchAction::Restart)));
    h.next(200 * MIB, 10);
    // The host slept, or the manager was stopped.
    h.now.0 += 3_600_000;
    let e = h.read(RUN, 200 * MIB, 0);
    assert!(told(&e, NoticeKind::Watch).is_empty(), "{e:?}");
    // Nor does what could not be found out.
    let mut h = Host::up(one(watched(WatchAction::Restart)));
    h.next(200 * MIB, 10);
    for after in [15_000, 15_000, 15_000, 15_000] {
        h.now.0 += after;
        h.fact(Fact::Measured { run: RUN, reading: Reading { at: h.now, memory: None, cpu_us: None } });
    }
    h.now.0 += 15_000;
    let e = h.read(RUN, 200 * MIB, 0);
    assert!(told(&e, NoticeKind::Watch).is_empty(), "{e:?}");
}

#[test]
fn an_old_reading_and_one_of_an_old_run_change_nothing() {
    let mut h = Host::up(one(watched(WatchAction::Restart)));
    h.next(MIB, 10);
    let late = Reading { at: Time(0), memory: Some(u64::MAX), cpu_us: Some(0) };
    for _ in 0..9 {
        assert_eq!(h.fact(Fact::Measured { run: RUN, reading: late }), []);
        let now = Reading { at: h.now, ..late };
        assert_eq!(h.fact(Fact::Measured { run: RunId(99), reading: now }), []);
    }
    // Too much, then not, then the first news again: the count began with what came after.
    let first = Reading { at: h.now + Millis(1), memory: Some(200 * MIB), cpu_us: None };
    h.now.0 += 15_000;
    h.fact(Fact::Measured { run: RUN, reading: first });
    h.read(RUN, MIB, 0);
    h.fact(Fact::Measured { run: RUN, reading: first });
    for _ in 0..3 {
        h.now.0 += 15_000;
        assert!(told(&h.read(RUN, 200 * MIB, 0), NoticeKind::Watch).is_empty());
    }
    h.now.0 += 2;
    assert!(told(&h.read(RUN, 200 * MIB, 0), NoticeKind::Watch).is_empty());
}

#[test]
fn nothing_is_stopped_that_the_budget_could_not_start_again() {
    let mut plan = Arc::unwrap_or_clone(one(watched(WatchAction::Restart)));
    plan.daemon.restart_budget = Budget { starts: 0, within: Millis::secs(60) };
    let mut h = Host::up(Arc::new(plan));
    for _ in 0..12 {
        h.next(200 * MIB, 99);
    }
    assert_eq!(h.view().state, StateKind::Running);
}

#[test]
fn a_watch_that_sees_nothing_says_so_once() {
    let mut h = Host::up(one(watched(WatchAction::Restart)));
    let mut all = Vec::new();
    for _ in 0..9 {
        h.now.0 += 15_000;
        let reading = Reading { at: h.now, memory: None, cpu_us: Some(1) };
        all.extend(told(&h.fact(Fact::Measured { run: RUN, reading }), NoticeKind::Watch));
    }
    assert_eq!(all, ["web cannot be watched: what it uses cannot be found out here"]);
}

#[test]
fn an_apply_changes_resources_of_what_runs_and_restarts_nothing() {
    let mut spec = service("web");
    let mut h = Host::up(one(spec.clone()));
    spec.resources.memory_max = Some(64 * MIB);
    let id = h.m.id("web").unwrap();
    let adjust = Effect::Adjust { service: id, run: RUN, generation: Generation(2) };
    let acts: Vec<Effect> =
        h.apply(spec.clone()).into_iter().filter(|e| !matches!(e, Effect::Emit(_))).collect();
    assert_eq!(acts, [adjust]);
    assert_eq!(h.apply(spec).len(), 1, "only the news of the apply");
}

#[test]
fn resources_that_cannot_be_had_are_told_and_shown_and_kill_nobody() {
    let mut h = Host::up(one(service("web")));
    let why = "cannot set resources.memory-max: there is no memory controller";
    let e = h.fact(Fact::Adjusted { run: RUN, why: why.into() });
    assert_eq!(told(&e, NoticeKind::State), [format!("web runs on with the resources that it had: {why}")]);
    assert_eq!((h.view().state, h.view().reason.as_str()), (StateKind::Running, why));
    assert_eq!(h.fact(Fact::Adjusted { run: RUN, why: why.into() }), [], "the same news again");
    h.fact(Fact::Adjusted { run: RUN, why: String::new() });
    assert_eq!(h.view().reason, "");
}

#[test]
fn a_lack_of_memory_is_the_reason_of_an_end() {
    let mut spec = service("web");
    spec.resources.memory_max = Some(64 * MIB);
    let mut h = Host::up(one(spec));
    let e = h.fact(Fact::Exited { run: RUN, exit: Exit::Oom, leftovers: false, at: h.now });
    assert_eq!(told(&e, NoticeKind::Exit), ["web was killed by the kernel: out of memory"]);
    assert_eq!(told(&e, NoticeKind::Oom), ["web ran out of memory: its memory-max is 64MiB"]);
    assert_eq!(h.view().state, StateKind::Backoff, "a failure like others");
    assert_eq!(h.view().reason, "was killed by the kernel: out of memory");
}
