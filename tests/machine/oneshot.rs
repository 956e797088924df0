//! Oneshots: whom they hold up, what their failures mean, and how a schedule runs them.

use super::{
    plans::{names, plan, service},
    stories::{Host, acts, launches},
};
use keepd::{
    machine::{Effect, Event, Machine, NoticeKind, StateKind, Wish},
    plan::*,
};
use std::{collections::BTreeMap, sync::Arc};

fn oneshot(name: &str, schedule: Option<&str>) -> ServiceSpec {
    let schedule = schedule.map(|text| Schedule::parse(text).unwrap());
    ServiceSpec { oneshot: Some(Oneshot { timeout: None, schedule }), ..service(name) }
}

fn due(h: &mut Host, name: &str, at_ms: u64) -> Vec<Effect> {
    let service = h.m.id(name).unwrap();
    h.m.step(h.now, Event::Wish(Wish::Due { service, at_ms, run: true }))
}

fn incidents(effects: &[Effect]) -> Vec<String> {
    let of = |e: &Effect| {
        if let Effect::Explain { incident, .. } = e { Some(incident.cause.clone()) } else { None }
    };
    effects.iter().filter_map(of).collect()
}

fn migrated() -> Arc<Plan> {
    let web = ServiceSpec { requires: names(&["migrate"]), ..service("web") };
    let worker = ServiceSpec { after: names(&["migrate"]), ..service("worker") };
    plan(vec![oneshot("migrate", None), web, worker])
}

/// War story 61: a service starts on a database that is still being migrated.
#[test]
fn dependents_wait_until_a_oneshot_has_succeeded() {
    let (mut h, e) = Host::begun(migrated());
    assert_eq!(launches(&e), [1]);
    assert_eq!(acts(&h.started(1)), [], "it works; nobody may start yet");
    assert_eq!((h.state("migrate"), h.view("migrate").ready), (StateKind::Running, false));
    let e = h.exited(1, 0, false);
    assert_eq!(launches(&e).len(), 2, "{e:#?}");
    assert_eq!(incidents(&e), [""; 0]);
    assert_eq!((h.state("migrate"), h.view("migrate").ready), (StateKind::Exited, true));
}

#[test]
fn one_that_fails_holds_up_who_requires_it_and_nobody_else() {
    let (mut h, _) = Host::begun(migrated());
    h.started(1);
    let e = h.exited(1, 3, false);
    assert_eq!(incidents(&e), ["migrate exited with status 3 after 0s"]);
    let worker = h.run("worker");
    assert_eq!(launches(&e), [worker], "order is all that the worker asks for");
    assert_eq!((h.state("migrate"), h.state("web")), (StateKind::Backoff, StateKind::Waiting));
    let e = h.pass(60_000);
    let again = h.run("migrate");
    assert_eq!(launches(&e), [again]);
    h.started(again);
    let e = h.exited(again, 0, false);
    assert_eq!(launches(&e), [h.run("web")]);
    assert_eq!(h.view("migrate").consecutive_failures, 0, "success forgets");
}

#[test]
fn without_restart_a_failure_is_seen_as_one() {
    let mut once = oneshot("migrate", None);
    once.restart = Restart::Never;
    let (mut h, _) =
        Host::begun(plan(vec![once, ServiceSpec { requires: names(&["migrate"]), ..service("web") }]));
    h.started(1);
    h.exited(1, 1, false);
    assert_eq!((h.state("migrate"), h.state("web")), (StateKind::Failed, StateKind::Waiting));
    assert!(
        h.view("web").reason.contains("waiting for migrate, which has failed"),
        "{}",
        h.view("web").reason
    );
}

#[test]
fn who_is_started_does_not_run_again_what_has_succeeded() {
    let (mut h, _) = Host::begun(migrated());
    h.started(1);
    h.exited(1, 0, false);
    let (web, worker) = (h.run("web"), h.run("worker"));
    h.started(web);
    h.started(worker);
    let (_, e) = h.restart("web");
    assert_eq!(acts(&e), [Effect::Signal { run: RunId(web), signal: 15 }]);
    assert_eq!(h.state("migrate"), StateKind::Exited);
    let (_, e) = h.start("migrate");
    assert_eq!(launches(&e), [h.run("migrate")], "whoever asks for it gets it");
    assert_eq!(h.state("worker"), StateKind::Running, "what runs, runs on");
}

#[test]
fn a_run_that_takes_too_long_is_stopped_and_has_failed() {
    let mut slow = oneshot("slow", None);
    slow.oneshot = Some(Oneshot { timeout: Some(Millis(5_000)), schedule: None });
    let (mut h, _) = Host::begun(plan(vec![slow]));
    h.started(1);
    assert_eq!(acts(&h.pass(4_999)), []);
    assert_eq!(acts(&h.pass(1)), [Effect::Signal { run: RunId(1), signal: 15 }]);
    let e = h.exited(1, 0, false);
    assert_eq!(incidents(&e), ["slow took longer than its timeout of 5s"]);
    assert_eq!((h.state("slow"), h.view("slow").consecutive_failures), (StateKind::Backoff, 1));
}

/// War story 65: a job whose runs pile up.
#[test]
fn a_schedule_waits_runs_and_never_runs_twice_at_once() {
    let (mut h, e) = Host::begun(plan(vec![oneshot("job", Some("* * * * *"))]));
    assert_eq!(acts(&e), [], "its time has not come");
    assert_eq!(h.state("job"), StateKind::Waiting);
    assert_eq!(h.view("job").reason, "it runs at `* * * * *`");
    assert_eq!(launches(&due(&mut h, "job", 60_000)), [1]);
    h.started(1);
    let e = due(&mut h, "job", 120_000);
    assert_eq!(acts(&e), []);
    let told = e.iter().any(
        |e| matches!(e, Effect::Emit(n) if n.kind == NoticeKind::State && n.message.contains("not over")),
    );
    assert!(told, "{e:#?}");
    let e = h.exited(1, 0, false);
    assert_eq!((launches(&e), h.state("job")), (vec![], StateKind::Waiting), "what was left out stays so");
    assert_eq!(launches(&due(&mut h, "job", 180_000)), [2]);
}

#[test]
fn a_stopped_schedule_stays_stopped_and_a_failed_run_is_retried() {
    let (mut h, _) = Host::begun(plan(vec![oneshot("job", Some("@daily"))]));
    h.stop("job");
    assert_eq!(acts(&due(&mut h, "job", 1)), []);
    let (_, e) = h.start("job");
    assert_eq!(launches(&e), [1], "by hand it runs now");
    h.started(1);
    h.exited(1, 1, false);
    assert_eq!(h.state("job"), StateKind::Backoff);
    assert_eq!(launches(&h.pass(60_000)), [2], "a retry does not wait for the schedule");
}

#[test]
fn a_new_manager_knows_what_is_due_and_what_was() {
    let spec = plan(vec![
        oneshot("job", Some("@daily")),
        ServiceSpec { requires: names(&["job"]), ..oneshot("next", None) },
    ]);
    let (mut h, _) = Host::begun(spec.clone());
    assert_eq!(launches(&due(&mut h, "job", 77)), [1]);
    h.started(1);
    h.exited(1, 0, false);
    let saved: BTreeMap<Name, String> =
        h.m.ids().filter_map(|id| Some((h.m.view(id).name.clone(), h.m.save(id)?))).collect();
    let mut m = Machine::restore(7, spec, Generation(1), RunId(2), &saved, h.now);
    assert_eq!(m.looked_at(m.id("job").unwrap()), Some(77));
    let e = m.step(h.now, Event::Tick);
    assert_eq!(acts(&e), [], "neither by its schedule nor by who needs it");
    assert_eq!(m.view(m.id("job").unwrap()).state, StateKind::Waiting);
}
