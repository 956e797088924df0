//! Named regressions: the failures of other supervisors that made them necessary, each as a short story.

use super::plans::{names, plan, service};
use keepd::{
    machine::{Effect, Event, Fact, Machine, NoticeKind, Outcome, StateKind, Ticket, Time, View, Wish},
    plan::*,
};
use std::{collections::BTreeMap, sync::Arc};

/// A machine, its clock, and short names for what is done to it.
pub struct Host {
    pub m: Machine,
    pub now: Time,
    next_ticket: u64,
}

impl Host {
    /// Everything that starts by itself is launched.
    pub fn begun(plan: Arc<Plan>) -> (Host, Vec<Effect>) {
        let mut m = Machine::new(1, plan, Generation(1), RunId(1));
        let effects = m.begin(Time(1_000_000));
        (Host { m, now: Time(1_000_000), next_ticket: 1 }, effects)
    }

    /// Everything runs.
    pub fn up(plan: Arc<Plan>) -> Host {
        let (mut h, mut effects) = Host::begun(plan);
        while let Some(run) = launches(&effects).first() {
            effects.remove(effects.iter().position(|e| matches!(e, Effect::Launch { .. })).unwrap());
            effects.extend(h.started(*run));
        }
        h
    }

    pub fn fact(&mut self, fact: Fact) -> Vec<Effect> {
        self.m.step(self.now, Event::Fact(fact))
    }

    pub fn started(&mut self, run: u64) -> Vec<Effect> {
        self.fact(Fact::Started { run: RunId(run), pid: 4000 + run as u32, at: self.now })
    }

    pub fn exited(&mut self, run: u64, code: i32, leftovers: bool) -> Vec<Effect> {
        self.fact(Fact::Exited { run: RunId(run), exit: Exit::Code(code), leftovers, at: self.now })
    }

    pub fn emptied(&mut self, run: u64) -> Vec<Effect> {
        self.fact(Fact::Emptied { run: RunId(run) })
    }

    pub fn wish(
        &mut self,
        wish: impl Fn(Ticket, keepd::machine::ServiceId) -> Wish,
        name: &str,
    ) -> (Ticket, Vec<Effect>) {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        let id = self.m.id(name).unwrap();
        (ticket, self.m.step(self.now, Event::Wish(wish(ticket, id))))
    }

    pub fn start(&mut self, name: &str) -> (Ticket, Vec<Effect>) {
        self.wish(|ticket, service| Wish::Start { ticket, service }, name)
    }

    pub fn stop(&mut self, name: &str) -> (Ticket, Vec<Effect>) {
        self.wish(|ticket, service| Wish::Stop { ticket, service }, name)
    }

    pub fn restart(&mut self, name: &str) -> (Ticket, Vec<Effect>) {
        self.wish(|ticket, service| Wish::Restart { ticket, service }, name)
    }

    pub fn reload(&mut self, name: &str) -> (Ticket, Vec<Effect>) {
        self.wish(|ticket, service| Wish::Reload { ticket, service }, name)
    }

    pub fn pass(&mut self, ms: u64) -> Vec<Effect> {
        self.now.0 += ms;
        self.m.step(self.now, Event::Tick)
    }

    pub fn view(&self, name: &str) -> View<'_> {
        self.m.view(self.m.id(name).unwrap())
    }

    pub fn state(&self, name: &str) -> StateKind {
        self.view(name).state
    }

    pub fn run(&self, name: &str) -> u64 {
        self.view(name).run.unwrap().0
    }
}

pub fn launches(effects: &[Effect]) -> Vec<u64> {
    effects
        .iter()
        .filter_map(|e| if let Effect::Launch { run, .. } = e { Some(run.0) } else { None })
        .collect()
}

pub fn answer(effects: &[Effect], to: Ticket) -> Option<Outcome> {
    effects.iter().find_map(|e| match e {
        Effect::Reply { ticket, outcome } if *ticket == to => Some(outcome.clone()),
        _ => None,
    })
}

/// What is done to runs, without the news.
pub fn acts(effects: &[Effect]) -> Vec<Effect> {
    effects
        .iter()
        .filter(|e| !matches!(e, Effect::Emit(_) | Effect::Reply { .. } | Effect::Explain { .. }))
        .cloned()
        .collect()
}

fn told(effects: &[Effect], kind: NoticeKind) -> bool {
    effects.iter().any(|e| matches!(e, Effect::Emit(n) if n.kind == kind))
}

const RUN: RunId = RunId(1);

/// process-compose #520: `down` succeeded while a child that ignores SIGTERM lived, because the end of the
/// leader cancelled the SIGKILL timer.
#[test]
fn story_02_a_stop_is_not_over_while_a_child_lives() {
    let mut h = Host::up(plan(vec![service("web")]));
    let (ticket, e) = h.stop("web");
    assert_eq!(acts(&e), [Effect::Signal { run: RUN, signal: 15 }]);
    let e = h.exited(1, 0, true);
    assert_eq!(acts(&e), [Effect::SignalTree { run: RUN, signal: 15 }]);
    assert_eq!((answer(&e, ticket), h.state("web")), (None, StateKind::Stopping));
    assert_eq!(acts(&h.pass(9_999)), []);
    assert_eq!(acts(&h.pass(1)), [Effect::KillTree { run: RUN }]);
    let e = h.emptied(1);
    assert_eq!(acts(&e), [Effect::Release { run: RUN }]);
    assert_eq!(answer(&e, ticket), Some(Outcome::Done("web is stopped".into())));
    assert_eq!(h.state("web"), StateKind::Stopped);
}

/// pebble #149: an exit was not seen while a grandchild held stdout open.
#[test]
fn story_04_an_exit_is_told_at_once_whatever_is_left() {
    let mut h = Host::up(plan(vec![service("web")]));
    let e = h.exited(1, 3, true);
    assert!(told(&e, NoticeKind::Exit));
    assert_eq!(h.view("web").last_exit.unwrap().exit, Exit::Code(3));
    assert_eq!(h.view("web").consecutive_failures, 1);
    assert_eq!(h.view("web").pid, None);
}

/// supervisor 4.2.2: crashed when a child ended just before it was signalled.
#[test]
fn story_11_an_end_that_crosses_the_signal_is_a_stop() {
    let mut h = Host::up(plan(vec![service("web")]));
    let (ticket, _) = h.stop("web");
    let e = h.fact(Fact::Exited { run: RUN, exit: Exit::Code(1), leftovers: false, at: Time(999_999) });
    assert_eq!(answer(&e, ticket), Some(Outcome::Done("web is stopped".into())));
    assert_eq!(h.view("web").consecutive_failures, 0, "it was to end");
    assert_eq!(acts(&h.exited(1, 1, false)), []);
}

/// systemd #6608: the empty-cgroup event raced SIGCHLD, and the unit stayed in final-sigkill for ever.
#[test]
fn story_22_every_order_of_exit_emptied_and_timeout_ends_stopped() {
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut h = Host::up(plan(vec![service("web")]));
        let (ticket, _) = h.stop("web");
        let mut answered = None;
        for what in order {
            let e = match what {
                0 => h.exited(1, 0, true),
                1 => h.emptied(1),
                _ => h.pass(10_000),
            };
            answered = answered.or(answer(&e, ticket));
        }
        assert_eq!(h.state("web"), StateKind::Stopped, "{order:?}");
        assert_eq!(answered, Some(Outcome::Done("web is stopped".into())), "{order:?}");
    }
}

/// pm2 #2315: "still not killed, retrying" for ever, at a pid that was somebody else's by then.
#[test]
fn story_33_nothing_is_sent_to_a_run_that_is_over() {
    let mut h = Host::up(plan(vec![service("web")]));
    h.stop("web");
    h.exited(1, 0, false);
    for _ in 0..100 {
        assert_eq!(acts(&h.pass(60_000)), []);
    }
    assert_eq!(h.m.next_deadline(), None, "an idle daemon does not wake");
}

/// dinit 0.19.1 and 0.16.1: restarts hung, and a dependency was stopped before its dependents.
#[test]
fn story_34_a_restart_takes_dependents_along_in_order() {
    let mut web = service("web");
    web.requires = names(&["db"]);
    let mut h = Host::up(plan(vec![service("db"), web]));
    let (db, web) = (h.run("db"), h.run("web"));
    let (ticket, e) = h.restart("db");
    assert_eq!(acts(&e), [Effect::Signal { run: RunId(web), signal: 15 }]);
    let e = h.exited(web, 0, false);
    assert_eq!(
        acts(&e),
        [Effect::Release { run: RunId(web) }, Effect::Signal { run: RunId(db), signal: 15 }]
    );
    assert_eq!(h.view("web").reason, "waiting for db, which is stopping");
    let e = h.exited(db, 0, false);
    assert_eq!(launches(&e), [3]);
    let e = h.started(3);
    assert_eq!(answer(&e, ticket), Some(Outcome::Done("db is running, pid 4003".into())));
    assert_eq!(launches(&e), [4]);
    h.started(4);
    assert_eq!(h.state("web"), StateKind::Running);
    assert_eq!(h.view("web").restarts, 0, "nobody counts a planned restart");
}

/// systemd #6129: the restart delay never came down, so a monthly crash always paid the maximum.
#[test]
fn story_61_a_stable_run_forgets_earlier_failures() {
    let mut h = Host::up(plan(vec![service("web")]));
    for (n, delay) in [(1, 500), (2, 1000), (3, 2000)] {
        h.exited(n, 1, false);
        assert_eq!(h.view("web").next_start, Some(h.now + Millis(delay)));
        assert_eq!(launches(&h.pass(delay)), [n + 1]);
        h.started(n + 1);
    }
    h.pass(59_999);
    assert_eq!(h.view("web").consecutive_failures, 3);
    h.pass(1);
    assert_eq!(h.view("web").consecutive_failures, 0);
    h.exited(4, 1, false);
    assert_eq!(h.view("web").next_start, Some(h.now + Millis(500)));
}

/// trusty #3645: counters were reset by each start that worked, so a loop of start and die never gave up.
#[test]
fn story_62_dying_soon_after_each_start_is_a_crash_loop() {
    let mut h = Host::up(plan(vec![service("web")]));
    let mut loud = 0;
    for n in 1..=10 {
        h.now.0 += 2000;
        loud += u32::from(told(&h.exited(n, 1, false), NoticeKind::Failed));
        if n < 10 {
            let delay = h.view("web").next_start.unwrap().since(h.now);
            assert_eq!(delay.0, (500 << (n - 1)).min(30_000));
            h.pass(delay.0);
            h.started(n + 1);
        }
    }
    assert_eq!((h.state("web"), loud), (StateKind::Failed, 1));
    let reason = h.view("web").reason;
    assert!(reason.starts_with("crash loop: 10 failures within 10m; one retry every 5m"), "{reason}");
    assert!(launches(&h.pass(299_999)).is_empty());
    assert_eq!(launches(&h.pass(1)), [11], "half-open");
    h.started(11);
    h.exited(11, 1, false);
    assert_eq!(h.state("web"), StateKind::Failed, "one failure is enough now");
    h.pass(300_000);
    h.started(12);
    assert!(told(&h.pass(60_000), NoticeKind::Recovered));
}

/// supervisor #1285: startsecs=0 went round startretries.
#[test]
fn story_65_no_configuration_restarts_without_bound() {
    let mut s = service("web");
    s.backoff.delay = Millis(0);
    s.breaker.failures = u32::MAX;
    s.restart = Restart::Always;
    s.success_exit.push(ExitMatch::Code(1));
    let mut p = Arc::unwrap_or_clone(plan(vec![s]));
    p.daemon.restart_budget = Budget { starts: 100, within: Millis::secs(60) };
    let mut h = Host::up(Arc::new(p));
    let begin = h.now;
    let mut restarts = 0;
    while h.now.since(begin) < Millis::secs(60) && restarts < 1000 {
        match h.state("web") {
            StateKind::Running => {
                restarts += launches(&h.exited(h.run("web"), 1, false)).len();
            }
            StateKind::Starting => drop(h.started(h.run("web"))),
            StateKind::Waiting => {
                let reason = h.view("web").reason;
                assert_eq!(reason, "held back: the host's restart budget of 100 starts in 1m is used up");
                let due = h.m.next_deadline().unwrap();
                assert_eq!(h.view("web").next_start, Some(due));
                restarts += launches(&h.pass(due.since(h.now).0)).len();
            }
            other => panic!("{other:?}"),
        }
    }
    assert!((100..=200).contains(&restarts), "{restarts}");
}

/// opensvc: the start limit also refused the operator.
#[test]
fn story_66_an_operator_may_always_start_and_that_forgives() {
    let mut s = service("web");
    s.breaker = Breaker { failures: 1, within: Millis::secs(60), retry_every: None };
    let mut p = Arc::unwrap_or_clone(plan(vec![s]));
    p.daemon.restart_budget.starts = 0;
    let mut h = Host::up(Arc::new(p));
    h.exited(1, 1, false);
    assert_eq!((h.state("web"), h.view("web").next_start), (StateKind::Failed, None));
    let (ticket, e) = h.start("web");
    assert_eq!(launches(&e), [2]);
    assert_eq!(h.view("web").consecutive_failures, 0);
    let e = h.exited(2, 1, false);
    assert_eq!(answer(&e, ticket), Some(Outcome::Failed("web exited with status 1".into())));
}

/// dinit 0.17.1: the restart limit did not hold where a dependent did the restarting.
#[test]
fn story_67_a_dependent_does_not_restart_what_has_failed() {
    let (mut db, mut web) = (service("db"), service("web"));
    db.breaker = Breaker { failures: 2, within: Millis::secs(60), retry_every: None };
    web.binds_to = names(&["db"]);
    web.restart = Restart::Always;
    let mut h = Host::up(plan(vec![db, web]));
    h.exited(h.run("db"), 1, false);
    h.exited(h.run("web"), 1, false);
    assert_eq!(h.view("web").consecutive_failures, 0, "it was stopped along with db");
    h.pass(500);
    h.started(h.run("db"));
    h.started(h.run("web"));
    assert_eq!((h.view("db").restarts, h.view("web").restarts), (1, 1), "both count against the budget");
    h.exited(h.run("db"), 1, false);
    h.exited(h.run("web"), 0, false);
    for _ in 0..100 {
        assert!(launches(&h.pass(60_000)).is_empty());
    }
    assert_eq!((h.state("db"), h.state("web")), (StateKind::Failed, StateKind::Waiting));
    assert_eq!(h.view("web").reason, "waiting for db, which has failed");
}

/// supervisor 3.3.5: SIGHUP during a shutdown called it off.
#[test]
fn story_77_nothing_calls_a_shutdown_off() {
    let p = plan(vec![service("web")]);
    let mut h = Host::up(p.clone());
    h.m.step(h.now, Event::Wish(Wish::Shutdown { force: false }));
    let e = h.m.step(h.now, Event::Wish(Wish::Apply { plan: p, generation: Generation(2) }));
    assert_eq!(e, []);
    let (ticket, e) = h.start("web");
    assert_eq!(answer(&e, ticket), Some(Outcome::ShuttingDown));
    let e = h.exited(1, 0, false);
    assert_eq!(acts(&e), [Effect::Release { run: RUN }, Effect::Exit { left_behind: vec![] }]);
}

/// dinit before 0.21: a reload that was refused left the service's command damaged. Here a plan is whole: going
/// forth and back leaves everything as it was.
#[test]
fn story_79_an_apply_and_its_reverse_leave_no_trace() {
    let old = plan(vec![service("db"), service("web")]);
    let mut web = service("web");
    web.description = "new words".into();
    web.stop.timeout = Millis::secs(99);
    let new = plan(vec![service("db"), web]);
    let mut h = Host::up(old.clone());
    let before: BTreeMap<_, _> = ["db", "web"].map(|n| (n, h.m.save(h.m.id(n).unwrap()))).into();
    for (n, p) in [(2, &new), (3, &old)] {
        let e = h.m.step(h.now, Event::Wish(Wish::Apply { plan: p.clone(), generation: Generation(n) }));
        assert_eq!(acts(&e), []);
    }
    for (name, saved) in before {
        assert_eq!(h.m.save(h.m.id(name).unwrap()), saved);
    }
    let (_, e) = h.restart("web");
    assert_eq!(acts(&e), [Effect::Signal { run: RunId(2), signal: 15 }]);
    h.pass(9_999);
    assert_eq!(acts(&h.pass(1)), [Effect::KillTree { run: RunId(2) }], "stopped as it was launched");
    let e = h.exited(2, 0, false);
    assert!(matches!(acts(&e)[1], Effect::Launch { generation: Generation(3), .. }));
}

#[test]
fn a_crash_with_no_delay_is_restarted_in_the_same_step() {
    let mut s = service("web");
    s.backoff.delay = Millis(0);
    let mut h = Host::up(plan(vec![s]));
    let e = h.exited(1, 1, false);
    assert!(matches!(acts(&e)[..], [Effect::Release { .. }, Effect::Launch { .. }]), "{e:?}");
}

#[test]
fn a_stop_command_runs_first_and_its_failure_does_not_matter() {
    let mut s = service("web");
    s.stop.command = vec!["/bin/drain".into()];
    let mut h = Host::up(plan(vec![s]));
    let (_, e) = h.stop("web");
    assert_eq!(acts(&e), [Effect::RunJob { run: RUN, job: Job::Stop }]);
    h.pass(5000);
    let (second, e) = h.stop("web");
    assert_eq!(acts(&e), []);
    let ended = Fact::JobEnded { run: RUN, job: Job::Stop, why: "exited with status 1".into() };
    assert_eq!(acts(&h.fact(ended)), [Effect::Signal { run: RUN, signal: 15 }]);
    assert_eq!(acts(&h.pass(5000)), [Effect::KillTree { run: RUN }], "the second wish did not extend it");
    let e = h.exited(1, 0, false);
    assert!(answer(&e, second).is_some());
}

#[test]
fn what_sigkill_does_not_end_is_stuck_and_blocks_nobody_else() {
    let mut web = service("web");
    web.requires = names(&["db"]);
    let mut h = Host::up(plan(vec![service("db"), web]));
    let (db, web) = (h.run("db"), h.run("web"));
    let (ticket, _) = h.stop("web");
    let (behind, _) = h.stop("db");
    h.pass(10_000);
    let e = h.pass(10_000);
    assert!(told(&e, NoticeKind::Stuck));
    assert!(
        matches!(answer(&e, ticket), Some(Outcome::Failed(m)) if m.contains("still alive after SIGKILL"))
    );
    assert!(acts(&e).contains(&Effect::Signal { run: RunId(db), signal: 15 }), "db goes on: {e:?}");
    assert!(answer(&h.exited(db, 0, false), behind).is_some());
    let (again, e) = h.start("web");
    assert!(matches!(answer(&e, again), Some(Outcome::Failed(_))), "never two at once");
    let e = h.exited(web, 0, false);
    assert_eq!(h.state("web"), StateKind::Waiting, "it is wanted again: {e:?}");
}

#[test]
fn a_shutdown_stops_in_reverse_order_and_kills_at_its_limit() {
    let (mut web, mut job) = (service("web"), service("job"));
    web.requires = names(&["db"]);
    web.stop.timeout = Millis::secs(1000);
    job.after = names(&["db"]);
    let mut h = Host::up(plan(vec![service("db"), web, job]));
    let (db, web, job) = (h.run("db"), h.run("web"), h.run("job"));
    let e = h.m.step(h.now, Event::Wish(Wish::Shutdown { force: false }));
    let signal = |run| Effect::Signal { run: RunId(run), signal: 15 };
    assert_eq!(acts(&e), [signal(job), signal(web)]);
    assert!(told(&e, NoticeKind::Shutdown));
    assert_eq!(acts(&h.exited(job, 0, false)), [Effect::Release { run: RunId(job) }]);
    let e = h.pass(90_000);
    assert_eq!(acts(&e), [Effect::KillTree { run: RunId(db) }, Effect::KillTree { run: RunId(web) }]);
    h.exited(db, 0, false);
    let e = h.pass(10_000);
    assert_eq!(acts(&e), [Effect::Exit { left_behind: names(&["web"]) }]);
}

#[test]
fn order_waits_for_what_comes_up_and_not_for_what_cannot() {
    let (mut setup, mut web) = (service("setup"), service("web"));
    setup.requires = names(&["disk"]);
    web.after = names(&["setup"]);
    let (mut h, e) = Host::begun(plan(vec![service("disk"), setup, web]));
    assert_eq!(launches(&e), [1], "web follows setup, which needs disk");
    assert_eq!(h.view("web").reason, "waiting for setup, which is waiting itself");
    let why = "cannot change directory to /srv: No such file or directory".to_string();
    let e = h.fact(Fact::LaunchFailed { run: RUN, why, transient: false });
    assert_eq!(launches(&e), [2], "setup cannot come, so web need not wait");
    assert_eq!(h.view("setup").reason, "waiting for disk, which is in backoff");
    assert_eq!(h.view("disk").reason, "cannot change directory to /srv: No such file or directory");
}

#[test]
fn a_transient_failure_to_launch_is_retried_and_not_held_against_it() {
    let mut s = service("web");
    s.breaker.failures = 1;
    let (mut h, _) = Host::begun(plan(vec![s]));
    for n in 1..20 {
        h.fact(Fact::LaunchFailed { run: RunId(n), why: "cannot fork: EAGAIN".into(), transient: true });
        assert_eq!(h.state("web"), StateKind::Backoff);
        assert_eq!(launches(&h.pass(30_000)), [n + 1]);
    }
}

#[test]
fn a_reload_command_is_answered_when_it_ends() {
    let mut s = service("web");
    s.reload = Reload::Command(vec!["/bin/reload".into()]);
    let mut h = Host::up(plan(vec![s]));
    let (ticket, e) = h.reload("web");
    assert_eq!((acts(&e), answer(&e, ticket)), (vec![Effect::RunJob { run: RUN, job: Job::Reload }], None));
    let (second, e) = h.reload("web");
    assert!(matches!(answer(&e, second), Some(Outcome::Conflict(_))));
    let e = h.fact(Fact::JobEnded { run: RUN, job: Job::Reload, why: "exited with status 1".into() });
    assert_eq!(answer(&e, ticket), Some(Outcome::Failed("cannot reload web: exited with status 1".into())));
    h.stop("web");
    let (ticket, e) = h.reload("web");
    assert_eq!(answer(&e, ticket), Some(Outcome::Conflict("web is not running".into())));
}

#[test]
fn exits_that_end_it_for_good_are_said_to() {
    for (restart, code, reason) in [
        (Restart::OnFailure, 0, "exited with status 0"),
        (Restart::Always, 78, "exited with status 78, which no-restart-exit lists"),
        (Restart::Never, 9, "exited with status 9, and is never restarted automatically"),
    ] {
        let mut s = service("job");
        s.restart = restart;
        let (mut h, _) = Host::begun(plan(vec![s]));
        let (ticket, _) = h.start("job");
        h.exited(1, code, false);
        assert_eq!((h.state("job"), h.view("job").reason.as_str()), (StateKind::Exited, reason));
        assert_eq!(h.m.next_deadline(), None);
        let _ = ticket;
    }
}

#[test]
fn a_start_of_a_job_is_answered_by_its_success() {
    let mut s = service("job");
    s.autostart = false;
    let (mut h, e) = Host::begun(plan(vec![s]));
    assert!(launches(&e).is_empty());
    let (ticket, e) = h.start("job");
    assert_eq!((launches(&e), answer(&e, ticket)), (vec![1], None));
    let e = h.exited(1, 0, false);
    assert_eq!(answer(&e, ticket), Some(Outcome::Done("job ran and exited with status 0".into())));
}

#[test]
fn a_changed_launch_replaces_and_a_removed_service_is_stopped_then_forgotten() {
    let mut web = service("web");
    web.requires = names(&["db"]);
    let mut h = Host::up(plan(vec![service("db"), service("old"), web.clone()]));
    let (db, old, run) = (h.run("db"), h.run("old"), h.run("web"));
    web.launch.argv.push("--new".into());
    let new = plan(vec![service("db"), service("fresh"), web]);
    let e = h.m.step(h.now, Event::Wish(Wish::Apply { plan: new.clone(), generation: Generation(2) }));
    let signal = |run| Effect::Signal { run: RunId(run), signal: 15 };
    let (mut did, mut want) = (acts(&e), vec![signal(old), signal(run)]);
    want.push(Effect::Launch { service: h.m.id("fresh").unwrap(), run: RunId(4), generation: Generation(2) });
    did.sort_by_key(|e| format!("{e:?}"));
    want.sort_by_key(|e| format!("{e:?}"));
    assert_eq!(did, want);
    assert_eq!(h.run("db"), db, "unchanged");
    let e = h.exited(old, 0, false);
    assert!(matches!(acts(&e)[..], [Effect::Release { .. }, Effect::Removed { .. }]), "{e:?}");
    assert_eq!(h.m.id("old"), None);
    let e = h.exited(run, 0, false);
    assert!(matches!(
        acts(&e)[..],
        [Effect::Release { .. }, Effect::Launch { generation: Generation(2), .. }]
    ));
}

#[test]
fn a_launch_that_hangs_is_killed_and_gives_its_slot_back() {
    let mut p = Arc::unwrap_or_clone(plan(vec![service("a"), service("b")]));
    p.daemon.max_concurrent_starts = 1;
    let (mut h, e) = Host::begun(Arc::new(p));
    assert_eq!(launches(&e), [1]);
    assert_eq!(h.view("b").reason, "waiting for a start slot");
    let e = h.pass(60_000);
    assert!(acts(&e).contains(&Effect::KillTree { run: RUN }));
    assert_eq!(launches(&e), [2]);
}

#[test]
fn the_next_manager_carries_on_where_the_last_one_died() {
    let mut web = service("web");
    web.requires = names(&["db"]);
    let p = plan(vec![service("db"), web]);
    let mut h = Host::up(p.clone());
    h.stop("db");
    let saved: BTreeMap<Name, String> =
        h.m.ids().filter_map(|id| Some((h.m.view(id).name.clone(), h.m.save(id)?))).collect();
    let mut m = Machine::restore(2, p, Generation(1), RunId(3), &saved, Time(1_004_000));
    let pid = |run: u64| Fact::Started { run: RunId(run), pid: 1, at: Time(1_000_000) };
    for fact in [pid(1), pid(2), pid(2)] {
        assert_eq!(m.step(Time(1_004_000), Event::Fact(fact)), []);
    }
    let exit = Fact::Exited { run: RunId(2), exit: Exit::Code(0), leftovers: false, at: Time(1_003_000) };
    let e = m.step(Time(1_004_000), Event::Fact(exit));
    assert_eq!(acts(&e), [Effect::Release { run: RunId(2) }], "it listens and does not act yet");
    let e = m.step(Time(1_004_000), Event::Tick);
    assert_eq!(acts(&e), [Effect::Signal { run: RUN, signal: 15 }]);
}

#[test]
fn thousands_of_services_start_and_stop_within_reason() {
    let mut services: Vec<ServiceSpec> = (0..5000).map(|n| service(&format!("s{n:04}"))).collect();
    for (n, s) in services.iter_mut().enumerate() {
        match n {
            0 => {}
            1..2500 => s.requires = names(&["s0000"]),
            _ => s.after = names(&[&format!("s{:04}", n - 1)]),
        }
    }
    let mut p = Arc::unwrap_or_clone(plan(services));
    p.daemon.max_concurrent_starts = 32;
    let (mut h, mut effects) = Host::begun(Arc::new(p));
    let mut live = vec![];
    while !effects.is_empty() {
        let mut next = vec![];
        for run in launches(&effects) {
            live.push(run);
            next.extend(h.started(run));
        }
        effects = next;
    }
    assert_eq!((live.len(), h.m.counts()["running"]), (5000, 5000));
    let mut effects = h.m.step(h.now, Event::Wish(Wish::Shutdown { force: false }));
    let mut stopped = 0;
    while !effects.iter().any(|e| matches!(e, Effect::Exit { .. })) {
        let signalled = |e: &Effect| if let Effect::Signal { run, .. } = e { Some(run.0) } else { None };
        let runs: Vec<u64> = effects.iter().filter_map(signalled).collect();
        assert!(!runs.is_empty(), "the shutdown goes on no more after {stopped}");
        effects.clear();
        for run in runs {
            stopped += 1;
            effects.extend(h.exited(run, 0, false));
        }
    }
    assert_eq!(stopped, 5000);
}
