//! Oneshots and schedules through the real daemon.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Daemon, LATER, service, signal, wait_for};
use nix::sys::signal::Signal;

const ONESHOT: &str = "type = \"oneshot\"\n";
const AT_ONCE: &str = "backoff = { delay = \"1ms\", max = \"1ms\", jitter = 0.0 }\n";

#[test]
fn what_requires_a_oneshot_starts_when_it_has_succeeded() {
    let script = "[ -e schema ] || { touch schema; exit 1; }; echo migrated >> order";
    let d = Daemon::start(
        &(service("migrate", script, &format!("{ONESHOT}{AT_ONCE}"))
            + &service("web", "echo web >> order; exec sleep 1000", "requires = [\"migrate\"]\n")),
    );
    d.wait_running("web");
    let migrate = d.wait_state("migrate", "exited");
    assert_eq!((&migrate["ready"], &migrate["desired"]), (&true.into(), &"up".into()));
    wait_for("both", LATER, || (d.lines("order") == ["migrated", "web"]).then_some(()));
    let why = d.get("/v1/services/migrate/why");
    assert_eq!((&why["runs"][0]["code"], &why["runs"][1]["code"]), (&0.into(), &1.into()), "{why:#}");
    assert!(d.ctl_ok(&["why", "migrate"]).contains("exited with status 0 after "));
    // A new manager does not run it again.
    signal(d.manager(), Signal::SIGKILL);
    d.wait_state("migrate", "exited");
    d.ctl_ok(&["restart", "web"]);
    assert_eq!(d.lines("order")[0], "migrated");
    assert!(!d.lines("order")[1..].contains(&"migrated".to_owned()));
    d.ctl_ok(&["start", "migrate"]);
    wait_for("it to run again", LATER, || d.lines("order").contains(&"migrated".into()).then_some(()));
    d.shutdown();
}

#[test]
fn start_waits_for_the_end_and_tells_how_it_was() {
    let slow = format!("{ONESHOT}autostart = false\nrestart = \"never\"\ntimeout = \"300ms\"\n");
    let d = Daemon::start(
        &(service("good", "exit 0", &format!("{ONESHOT}autostart = false\n"))
            + &service("bad", "exit 9", &format!("{ONESHOT}autostart = false\nrestart = \"never\"\n"))
            + &service("slow", "exec sleep 1000", &slow)),
    );
    assert!(d.ctl_ok(&["start", "good"]).contains("exited with status 0"));
    assert!(d.ctl_fails(1, &["start", "bad"]).contains("exited with status 9"));
    assert!(d.ctl_fails(1, &["start", "slow"]).contains("took longer than its timeout of 300ms"));
    assert_eq!(d.wait_state("slow", "failed")["reason"], "took longer than its timeout of 300ms");
    d.shutdown();
}

#[test]
fn a_scheduled_service_waits_for_its_time_and_runs_by_hand() {
    let job = format!("{ONESHOT}schedule = \"0 0 29 2 *\"\n");
    let d = Daemon::start(&service("job", "echo ran >> ran", &job));
    let waiting = d.wait_state("job", "waiting");
    assert_eq!((&waiting["desired"], &waiting["reason"]), (&"up".into(), &"it runs at `0 0 29 2 *`".into()));
    let due = wait_for("its time", LATER, || d.service("job")["next_start_in_ms"].as_u64());
    assert!(due > 0);
    d.ctl_ok(&["start", "job"]);
    wait_for("the run", LATER, || (d.lines("ran").len() == 1).then_some(()));
    d.wait_state("job", "waiting");
    signal(d.manager(), Signal::SIGKILL);
    d.wait_service("job", "its time, of the next manager", |s| {
        s["state"] == "waiting" && s["next_start_in_ms"].is_u64()
    });
    assert_eq!(d.lines("ran").len(), 1);
    d.shutdown();
}

#[test]
fn a_schedule_that_cannot_be_is_refused_with_its_reason() {
    let d = Daemon::start(&service("web", "exec sleep 1000", ""));
    for (more, why) in [
        ("schedule = \"@daily\"\n", "`schedule` takes `type = \"oneshot\"`: service `web` is a daemon"),
        ("type = \"oneshot\"\nschedule = \"61 * * * *\"\n", "its minute `61` is not from 0 to 59"),
        ("type = \"oneshot\"\nrestart = \"always\"\n", "a oneshot that has succeeded is done"),
        ("timeout = \"5s\"\n", "`timeout` takes `type = \"oneshot\"`"),
    ] {
        d.write_config(&service("web", "exec sleep 1000", more));
        let said = d.ctl_fails(78, &["apply"]);
        assert!(said.contains(why), "{more}: {said}");
    }
    d.write_config(&service("web", "exec sleep 1000", ""));
    d.shutdown();
}
