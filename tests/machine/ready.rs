//! Stories of readiness and life: who is ready when, who waits for whom, and what follows where nobody answers.

use super::plans::{names, plan, probe, service, tcp};
use keepd::{
    machine::{Effect, Event, Fact, Machine, NoticeKind, StateKind, Ticket, Time, View, Wish},
    plan::*,
};
use std::collections::BTreeMap;

fn ready(check: Check) -> Option<Ready> {
    Some(Ready { probe: probe(check, 1000, 3, 1), within: Millis::secs(30) })
}

fn live(check: Check, action: LiveAction) -> Option<Live> {
    Some(Live { probe: probe(check, 10_000, 3, 1), action })
}

fn db() -> ServiceSpec {
    ServiceSpec { ready: ready(Check::Notify), ..service("db") }
}

/// A machine and its clock.
struct Host {
    m: Machine,
    plan: std::sync::Arc<Plan>,
    now: Time,
    all: Vec<Effect>,
    saved: BTreeMap<Name, String>,
}

impl Host {
    fn new(services: Vec<ServiceSpec>) -> Host {
        let (plan, now) = (plan(services), Time(1_000_000));
        let mut m = Machine::new(1, plan.clone(), Generation(1), RunId(1));
        let all = m.begin(now);
        let mut host = Host { m, plan, now, all, saved: BTreeMap::new() };
        host.save();
        host
    }

    fn save(&mut self) {
        for id in self.m.take_changed() {
            let name = self.m.view(id).name.clone();
            match self.m.save(id) {
                Some(text) => self.saved.insert(name, text),
                None => self.saved.remove(&name),
            };
        }
    }

    fn step(&mut self, event: Event) -> Vec<Effect> {
        let e = self.m.step(self.now, event);
        self.save();
        self.all.extend(e.clone());
        e
    }

    fn view(&self, name: &str) -> View<'_> {
        self.m.view(self.m.id(name).unwrap())
    }

    fn run(&self, name: &str) -> RunId {
        self.view(name).run.unwrap_or_else(|| panic!("{name} has no run: {}", self.view(name).reason))
    }

    fn state(&self, name: &str) -> (StateKind, bool) {
        (self.view(name).state, self.view(name).ready)
    }

    fn started(&mut self, name: &str) -> Vec<Effect> {
        let run = self.run(name);
        self.step(Event::Fact(Fact::Started { run, pid: 4000 + run.0 as u32, at: self.now }))
    }

    fn told(&mut self, name: &str, told: Told) -> Vec<Effect> {
        let run = self.run(name);
        self.step(Event::Fact(Fact::Told { run, told }))
    }

    fn ready(&mut self, name: &str) -> Vec<Effect> {
        self.told(name, Told { ready: true, ..Told::default() })
    }

    fn exited(&mut self, name: &str, code: i32) -> Vec<Effect> {
        let run = self.run(name);
        let exit = Exit::Code(code);
        self.step(Event::Fact(Fact::Exited { run, exit, leftovers: false, at: self.now }))
    }

    /// Lets time pass, deadline by deadline; whoever is asked is not answered.
    fn pass(&mut self, ms: u64) -> Vec<Effect> {
        let (end, from) = (Time(self.now.0 + ms), self.all.len());
        while let Some(due) = self.m.next_deadline().filter(|due| *due <= end) {
            self.now = self.now.max(due);
            self.step(Event::Tick);
        }
        self.now = end;
        self.all[from..].to_vec()
    }

    /// The question that was asked last.
    fn question(&self) -> Option<(RunId, Which, u64)> {
        self.all.iter().rev().find_map(|e| match e {
            Effect::Probe { run, which, number, .. } => Some((*run, *which, *number)),
            _ => None,
        })
    }

    fn questions(effects: &[Effect]) -> usize {
        effects.iter().filter(|e| matches!(e, Effect::Probe { .. })).count()
    }

    fn answer(&mut self, verdict: Verdict) -> Vec<Effect> {
        let (run, which, number) = self.question().expect("nobody was asked");
        self.step(Event::Fact(Fact::Probed { run, which, number, verdict }))
    }

    /// Goes on to the next question, and answers it.
    fn next_answer(&mut self, verdict: Verdict) -> Vec<Effect> {
        for _ in 0..100 {
            self.now = self.now.max(self.m.next_deadline().expect("nothing is due"));
            let e = self.step(Event::Tick);
            if Host::questions(&e) > 0 {
                return self.answer(verdict);
            }
        }
        panic!("nobody is asked");
    }

    fn new_manager(&mut self) {
        self.m = Machine::restore(7, self.plan.clone(), Generation(1), RunId(100), &self.saved, self.now);
    }
}

fn no(why: &str) -> Verdict {
    Verdict::Failed(why.into())
}

fn launches(effects: &[Effect]) -> usize {
    effects.iter().filter(|e| matches!(e, Effect::Launch { .. })).count()
}

fn told(effects: &[Effect], kind: NoticeKind) -> Vec<String> {
    let of = |e: &Effect| match e {
        Effect::Emit(n) if n.kind == kind => Some(n.message.clone()),
        _ => None,
    };
    effects.iter().filter_map(of).collect()
}

#[test]
fn who_requires_it_starts_when_it_is_ready_and_not_before() {
    let web = ServiceSpec { requires: names(&["db"]), ..service("web") };
    let after = ServiceSpec { after: names(&["db"]), ..service("after") };
    let mut h = Host::new(vec![db(), web, after]);
    assert_eq!(launches(&h.started("db")), 0, "its exec is not its readiness");
    assert_eq!(h.state("db"), (StateKind::Running, false));
    assert_eq!(h.view("db").reason, "not ready yet");
    assert_eq!(h.view("web").reason, "waiting for db, which is not ready yet");
    let e = h.ready("db");
    assert_eq!(launches(&e), 2, "{e:?}");
    assert_eq!(told(&e, NoticeKind::Ready), ["db is ready"]);
    assert_eq!(h.ready("db"), [], "twice changes nothing");
    assert_eq!((h.state("db"), h.view("db").reason.as_str()), ((StateKind::Running, true), ""));
}

#[test]
fn a_start_is_answered_when_it_is_ready() {
    let mut h = Host::new(vec![db()]);
    let (ticket, service) = (Ticket(1), h.m.id("db").unwrap());
    h.step(Event::Wish(Wish::Start { ticket, service }));
    let replies = |e: &[Effect]| e.iter().filter(|e| matches!(e, Effect::Reply { .. })).count();
    assert_eq!(replies(&h.started("db")), 0);
    assert_eq!(replies(&h.ready("db")), 1);
}

#[test]
fn not_ready_in_time_is_a_failed_start() {
    let mut h = Host::new(vec![ServiceSpec { ready: ready(tcp()), ..service("db") }]);
    h.started("db");
    h.answer(no("connection refused"));
    let e = h.pass(30_000);
    assert_eq!(
        told(&e, NoticeKind::LaunchFailed),
        ["db was not ready within 30s: connection refused; it is stopped"]
    );
    assert!(e.contains(&Effect::Signal { run: RunId(1), signal: 15 }), "in order: {e:?}");
    let reason = "was not ready within 30s: connection refused; SIGTERM was sent";
    assert_eq!((h.view("db").state, h.view("db").reason.as_str()), (StateKind::Stopping, reason));
    h.exited("db", 0);
    assert_eq!((h.view("db").state, h.view("db").consecutive_failures), (StateKind::Backoff, 1));
}

#[test]
fn a_time_that_nobody_saw_pass_does_not_count() {
    let mut h = Host::new(vec![db()]);
    h.started("db");
    // The host slept, and the news of its readiness comes with the wake-up (war story 60).
    h.now.0 += 3_600_000;
    assert_eq!(told(&h.step(Event::Tick), NoticeKind::LaunchFailed), [""; 0]);
    h.ready("db");
    assert_eq!(h.state("db"), (StateKind::Running, true));
}

#[test]
fn more_time_is_given_to_who_asks_for_it() {
    let mut h = Host::new(vec![db()]);
    h.started("db");
    h.pass(29_000);
    h.told("db", Told { extend: Some(Millis::secs(60)), ..Told::default() });
    h.pass(59_000);
    assert_eq!(h.state("db"), (StateKind::Running, false));
    assert_eq!(told(&h.pass(2_000), NoticeKind::LaunchFailed).len(), 1);
    h.pass(8_000);
    h.told("db", Told { extend: Some(Millis::secs(5)), ..Told::default() });
    assert!(!h.pass(4_000).contains(&Effect::KillTree { run: RunId(1) }), "it said that it takes longer");
    assert!(h.pass(2_000).contains(&Effect::KillTree { run: RunId(1) }));
}

/// War story 62: a service that dies two seconds after each READY comes to the longest delay.
#[test]
fn ready_and_dead_for_ever_reaches_the_longest_delay() {
    let mut db = db();
    db.breaker.failures = 1000;
    db.backoff.max = Millis::secs(8);
    let mut h = Host::new(vec![db]);
    let mut delays = vec![];
    for _ in 0..8 {
        h.started("db");
        // Longer than what forgets failures, but not ready for that long.
        h.pass(20_000);
        h.ready("db");
        h.pass(2_000);
        h.exited("db", 1);
        delays.push(h.view("db").next_start.unwrap().since(h.now).0);
        h.pass(10_000);
    }
    assert_eq!(delays, [500, 1000, 2000, 4000, 8000, 8000, 8000, 8000]);
}

/// War story 65: no readiness that fails at once gets around the breaker.
#[test]
fn never_ready_for_ever_opens_the_breaker() {
    let mut db = db();
    db.ready = Some(Ready { probe: probe(Check::Notify, 1000, 1, 1), within: Millis::secs(70) });
    db.breaker = Breaker { failures: 3, within: Millis::secs(600), retry_every: None };
    let mut h = Host::new(vec![db]);
    for _ in 0..3 {
        h.started("db");
        h.pass(70_000);
        h.exited("db", 0);
        h.pass(5_000);
    }
    assert_eq!(h.view("db").state, StateKind::Failed, "{}", h.view("db").reason);
}

#[test]
fn readiness_goes_on_being_asked_for() {
    let web = ServiceSpec { requires: names(&["db"]), autostart: false, ..service("web") };
    let mut h = Host::new(vec![ServiceSpec { ready: ready(tcp()), ..service("db") }, web]);
    h.started("db");
    h.answer(Verdict::Passed);
    assert_eq!(h.state("db"), (StateKind::Running, true));
    for _ in 0..2 {
        assert_eq!(told(&h.next_answer(no("it answered 503")), NoticeKind::Ready), [""; 0]);
    }
    let e = h.next_answer(no("it answered 503"));
    assert_eq!(told(&e, NoticeKind::Ready), ["db is not ready any more: it answered 503"]);
    assert_eq!(h.view("db").reason, "not ready any more: it answered 503");
    let (ticket, service) = (Ticket(1), h.m.id("web").unwrap());
    let e = h.step(Event::Wish(Wish::Start { ticket, service }));
    assert!(
        e.iter().any(|e| matches!(e, Effect::Reply { .. })),
        "it is told that this may take for ever: {e:?}"
    );
    let e = h.next_answer(Verdict::Passed);
    assert_eq!((told(&e, NoticeKind::Ready), launches(&e)), (vec!["db is ready again".to_owned()], 1));
    assert_eq!(h.view("db").consecutive_failures, 0, "it was no failure");
}

#[test]
fn one_that_is_bound_runs_on_while_it_is_only_not_ready() {
    let web = ServiceSpec { binds_to: names(&["db"]), ..service("web") };
    let mut h = Host::new(vec![ServiceSpec { ready: ready(tcp()), ..service("db") }, web]);
    h.started("db");
    h.answer(Verdict::Passed);
    h.started("web");
    for _ in 0..3 {
        h.next_answer(no("timed out"));
    }
    assert_eq!((h.state("db").1, h.state("web").0), (false, StateKind::Running));
    h.exited("db", 1);
    assert_eq!(h.view("web").state, StateKind::Stopping, "but not without it");
}

#[test]
fn no_start_is_spent_while_a_dependency_is_away_and_it_comes_back_by_itself() {
    let mut web = ServiceSpec { requires: names(&["db"]), ..service("web") };
    web.breaker.failures = 1;
    let mut h = Host::new(vec![db(), web]);
    h.started("db");
    h.ready("db");
    h.started("web");
    h.exited("db", 1);
    h.exited("web", 1);
    assert_eq!(h.view("web").state, StateKind::Backoff, "that was no crash loop: {}", h.view("web").reason);
    let e = h.pass(20_000);
    assert_eq!(launches(&e), 1, "the database's only: {e:?}");
    h.started("db");
    h.pass(20_000);
    assert_eq!(h.view("web").reason, "waiting for db, which is not ready yet");
    assert_eq!(launches(&h.ready("db")), 1);
    assert_eq!((h.view("web").restarts, h.view("web").state), (1, StateKind::Starting));
}

#[test]
fn a_probe_never_overlaps_itself_and_late_answers_change_nothing() {
    let mut h = Host::new(vec![ServiceSpec { live: live(tcp(), LiveAction::Restart), ..service("web") }]);
    h.started("web");
    let e = h.pass(10_000);
    assert_eq!(Host::questions(&e), 1, "somewhere in its first interval");
    assert_eq!(Host::questions(&h.pass(15_000)), 0, "no answer yet, no second question");
    h.pass(5_000);
    assert_eq!(h.answer(no("too late")), [], "that question is given up");
    let e = h.pass(10_000);
    assert_eq!(Host::questions(&e), 1);
    h.answer(Verdict::Passed);
    assert_eq!(h.answer(no("again")), [], "an answer that comes twice");
    let old = h.question().unwrap();
    h.exited("web", 1);
    let fact = Fact::Probed { run: old.0, which: old.1, number: old.2 + 1, verdict: no("dead") };
    assert_eq!(h.step(Event::Fact(fact)), [], "an answer of the dead");
}

#[test]
fn who_fails_in_a_row_is_restarted_within_interval_and_timeouts() {
    let mut h = Host::new(vec![ServiceSpec { live: live(tcp(), LiveAction::Restart), ..service("web") }]);
    h.started("web");
    h.next_answer(Verdict::Passed);
    let sick_since = h.now;
    for round in 0..3 {
        let e = h.next_answer(no("it answered 500"));
        assert_eq!(told(&e, NoticeKind::Unhealthy).len(), usize::from(round == 2), "{e:?}");
    }
    // Questions are 5 s apart while they fail: interval and two timeouts.
    assert_eq!(h.now.since(sick_since), Millis(20_000));
    assert_eq!(h.view("web").reason, "is unhealthy: it answered 500; SIGTERM was sent");
    h.exited("web", 0);
    assert_eq!((h.view("web").state, h.view("web").consecutive_failures), (StateKind::Backoff, 1));
}

#[test]
fn one_answer_between_begins_anew_and_what_was_not_asked_says_nothing() {
    let mut h = Host::new(vec![ServiceSpec { live: live(tcp(), LiveAction::Restart), ..service("web") }]);
    h.started("web");
    for verdict in
        [no("x"), no("x"), Verdict::Passed, no("x"), Verdict::Unasked("too many open files".into()), no("x")]
    {
        assert_eq!(told(&h.next_answer(verdict), NoticeKind::Unhealthy), [""; 0]);
    }
    assert_eq!(told(&h.next_answer(no("x")), NoticeKind::Unhealthy).len(), 1);
}

#[test]
fn an_alert_is_told_once_and_so_is_its_end() {
    let mut h = Host::new(vec![ServiceSpec { live: live(tcp(), LiveAction::Alert), ..service("web") }]);
    h.started("web");
    for _ in 0..5 {
        h.next_answer(no("it answered 500"));
    }
    assert_eq!(told(&h.all, NoticeKind::Unhealthy), ["web is unhealthy: it answered 500"]);
    assert_eq!(
        (h.view("web").reason.as_str(), h.state("web").0),
        ("unhealthy: it answered 500", StateKind::Running)
    );
    assert_eq!(told(&h.next_answer(Verdict::Passed), NoticeKind::Recovered), ["web is healthy again"]);
}

/// War story 63: where the host's budget is used up, nobody is stopped who could not be started again.
#[test]
fn a_whole_host_that_fails_its_probes_is_not_torn_down() {
    let spec = |name: &str| ServiceSpec { live: live(tcp(), LiveAction::Restart), ..service(name) };
    let mut plan = std::sync::Arc::unwrap_or_clone(plan(vec![spec("a"), spec("b")]));
    plan.daemon.restart_budget = Budget { starts: 0, within: Millis::secs(60) };
    let mut m = Machine::new(1, plan.into(), Generation(1), RunId(1));
    let mut now = Time(1_000_000);
    m.begin(now);
    for run in [RunId(1), RunId(2)] {
        m.step(now, Event::Fact(Fact::Started { run, pid: 4001, at: now }));
    }
    for _ in 0..20 {
        now = now.max(m.next_deadline().unwrap());
        for effect in m.step(now, Event::Tick) {
            if let Effect::Probe { run, which, number, .. } = effect {
                let e = m.step(now, Event::Fact(Fact::Probed { run, which, number, verdict: no("x") }));
                assert!(!e.iter().any(|e| matches!(e, Effect::Signal { .. })), "{e:?}");
            }
        }
    }
    assert_eq!(m.counts()["running"], 2);
}

#[test]
fn a_watchdog_barks_when_nothing_is_heard_and_not_when_nobody_listened() {
    let mut h =
        Host::new(vec![ServiceSpec { live: live(Check::Notify, LiveAction::Restart), ..service("web") }]);
    h.started("web");
    let ping = Told { alive: true, ..Told::default() };
    for _ in 0..5 {
        assert_eq!(told(&h.pass(9_000), NoticeKind::Unhealthy), [""; 0]);
        h.told("web", ping.clone());
    }
    // A host that slept: what was due then says nothing.
    h.now.0 += 600_000;
    h.step(Event::Tick);
    assert_eq!(h.view("web").state, StateKind::Running);
    let e = h.pass(31_000);
    assert_eq!(
        told(&e, NoticeKind::Unhealthy),
        ["web is unhealthy: it sent no WATCHDOG=1 for 10s; it is stopped"],
        "after three intervals"
    );
}

#[test]
fn a_service_sets_its_own_watchdog_and_pulls_it() {
    let mut h =
        Host::new(vec![ServiceSpec { live: live(Check::Notify, LiveAction::Restart), ..service("web") }]);
    h.started("web");
    h.told("web", Told { watchdog: Some(Millis::secs(100)), ..Told::default() });
    assert_eq!(told(&h.pass(290_000), NoticeKind::Unhealthy), [""; 0]);
    let e = h.told("web", Told { failing: true, ..Told::default() });
    assert_eq!(told(&e, NoticeKind::Unhealthy).len(), 1);
}

#[test]
fn life_is_asked_for_from_the_first_readiness_on() {
    let spec = ServiceSpec { live: live(tcp(), LiveAction::Restart), ..db() };
    let mut h = Host::new(vec![spec]);
    h.started("db");
    assert_eq!(Host::questions(&h.pass(20_000)), 0, "it may be slow to start");
    h.ready("db");
    assert_eq!(Host::questions(&h.pass(10_000)), 1);
}

#[test]
fn who_says_that_it_stops_is_given_the_time_of_a_stop() {
    let web = ServiceSpec { requires: names(&["db"]), ..service("web") };
    let mut h = Host::new(vec![db(), web]);
    h.started("db");
    h.ready("db");
    let e = h.told("db", Told { stopping: true, status: Some("bye\u{7}".into()), ..Told::default() });
    assert_eq!(told(&e, NoticeKind::Ready), ["db is not ready any more: it says that it is stopping"]);
    assert_eq!((h.view("db").ready, h.view("db").status), (false, Some("bye")));
    assert_eq!(h.ready("db"), [], "it cannot take that back");
    let e = h.pass(10_000);
    assert!(
        told(&e, NoticeKind::LaunchFailed)[0]
            .contains("said that it was stopping, and did not end within 10s")
    );
}

#[test]
fn a_thousand_alike_are_not_asked_at_once() {
    let spec =
        |n: usize| ServiceSpec { live: live(tcp(), LiveAction::Restart), ..service(&format!("s{n:04}")) };
    let mut plan = std::sync::Arc::unwrap_or_clone(plan((0..1000).map(spec).collect()));
    plan.daemon.max_concurrent_starts = 1000;
    let mut m = Machine::new(1, plan.into(), Generation(1), RunId(1));
    let mut now = Time(1_000_000);
    m.begin(now);
    for n in 1..=1000 {
        m.step(now, Event::Fact(Fact::Started { run: RunId(n), pid: 4000 + n as u32, at: now }));
    }
    let end = now + Millis::secs(100);
    let (mut asked, mut most) = (BTreeMap::<RunId, Vec<Time>>::new(), 0);
    while let Some(due) = m.next_deadline().filter(|due| *due <= end) {
        now = now.max(due);
        let effects = m.step(now, Event::Tick);
        let mut here = 0;
        for effect in effects {
            let Effect::Probe { run, which, number, .. } = effect else { continue };
            here += 1;
            asked.entry(run).or_default().push(now);
            m.step(now, Event::Fact(Fact::Probed { run, which, number, verdict: Verdict::Passed }));
        }
        most = most.max(here);
    }
    assert!(most < 10, "{most} at one instant");
    for (run, times) in &asked {
        assert_eq!(times.len(), 10, "{run} was missed or asked twice: {times:?}");
        assert!(times.windows(2).all(|w| w[1].since(w[0]) == Millis::secs(10)), "{times:?}");
    }
    assert_eq!(asked.len(), 1000);
}

#[test]
fn the_next_manager_knows_who_is_ready_and_gives_the_rest_their_time() {
    let web = ServiceSpec { requires: names(&["db"]), ..service("web") };
    let mut h = Host::new(vec![db(), web]);
    h.started("db");
    h.pass(10_000);
    h.new_manager();
    assert_eq!(h.step(Event::Tick), []);
    assert_eq!(
        (h.state("db"), h.m.next_deadline()),
        ((StateKind::Running, false), Some(h.now + Millis(20_000)))
    );
    assert_eq!(launches(&h.ready("db")), 1);
    h.new_manager();
    assert_eq!((h.step(Event::Tick), h.state("db")), (vec![], (StateKind::Running, true)));
    assert_eq!(h.m.next_deadline(), Some(h.now + Millis::secs(60)), "only the launch of web");
}

/// A graph of a thousand, in layers: nobody is launched before all that it requires is ready.
#[test]
fn a_thousand_come_up_in_order_of_readiness() {
    let spec = |n: usize| {
        let requires = (1..=3).filter_map(|k| n.checked_sub(k * 7)).map(|k| Name::new(&format!("s{k:04}")));
        ServiceSpec {
            requires: requires.collect(),
            ready: ready(Check::Notify),
            ..service(&format!("s{n:04}"))
        }
    };
    let mut h = Host::new((0..1000).map(spec).collect());
    let mut done = 0;
    while done < h.all.len() {
        let Effect::Launch { service, run, .. } = h.all[done].clone() else {
            done += 1;
            continue;
        };
        done += 1;
        let name = h.m.view(service).name.to_string();
        for to in h.m.view(service).spec.requires.clone() {
            assert!(h.view(to.as_str()).ready, "{name} before {to}");
        }
        h.step(Event::Fact(Fact::Started { run, pid: 1, at: h.now }));
        h.step(Event::Fact(Fact::Told { run, told: Told { ready: true, ..Told::default() } }));
    }
    assert_eq!(h.m.counts()["running"], 1000);
}
