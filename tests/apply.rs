//! A changed configuration: what it touches, what it must leave alone, and what a broken one does (nothing).
#![allow(clippy::unwrap_used)]

mod common;

use common::{Daemon, LATER, is_alive, service, signal, wait_for};
use nix::sys::signal::Signal;
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
};

fn sleeper(name: &str, seconds: u32, more: &str) -> String {
    service(name, &format!("exec sleep {seconds}"), more)
}

fn pids(d: &Daemon) -> BTreeMap<String, Option<u64>> {
    d.services().iter().map(|s| (s["name"].as_str().unwrap().to_owned(), s["pid"].as_u64())).collect()
}

#[test]
fn an_apply_touches_what_differs_and_nothing_else() {
    let before = sleeper("same", 1000, "") + &sleeper("changed", 1000, "") + &sleeper("removed", 781001, "");
    let d = Daemon::start(&before);
    let [same, changed, removed] = ["same", "changed", "removed"].map(|n| d.wait_running(n));
    d.ctl_ok(&["plan", "--exit-code"]);

    d.write_config(
        &(sleeper("same", 1000, "") + &sleeper("changed", 2000, "") + &sleeper("added", 1000, "")),
    );
    let plan = d.ctl(&["plan", "--exit-code"]);
    let shown = common::text(&plan);
    assert_eq!(plan.status.code(), Some(2), "{shown}");
    for name in ["changed", "removed", "added"] {
        assert!(shown.contains(name), "{name} is missing: {shown}");
    }
    assert!(!shown.contains("same"), "{shown}");
    assert_eq!(d.pid("removed"), removed, "`plan` did something");

    d.ctl_ok(&["apply"]);
    assert_eq!(d.pid("same"), same);
    assert_ne!(d.wait_running("changed"), changed);
    wait_new_command(&d, "changed");
    d.wait_running("added");
    wait_for("the removed one to be gone", LATER, || {
        (!is_alive(removed) && d.try_service("removed").is_none()).then_some(())
    });
    d.ctl_ok(&["plan", "--exit-code"]);
    d.shutdown();
}

#[test]
fn policies_change_under_a_running_process() {
    let d = Daemon::start(&sleeper("web", 1000, "restart = \"never\"\n"));
    let pid = d.wait_running("web");
    d.write_config(&sleeper(
        "web",
        1000,
        "description = \"new\"\nbackoff = { delay = \"1ms\" }\nstop-timeout = \"1s\"\n",
    ));
    d.ctl_ok(&["apply"]);
    assert_eq!(d.pid("web"), pid);
    assert_eq!(d.service("web")["description"], "new");
    // `restart` is the default again, on-failure: the new policy holds for the old process.
    signal(pid, Signal::SIGKILL);
    d.wait_service("web", "a successor", |s| s["state"] == "running" && s["pid"] != pid);
    d.shutdown();
}

#[test]
fn a_broken_file_changes_nothing_and_every_error_is_told() {
    let d = Daemon::start(&(sleeper("web", 1000, "") + &sleeper("db", 1000, "")));
    d.wait_running("web");
    d.wait_running("db");
    let (before, generation) = (pids(&d), d.status()["generation"].clone());
    for broken in [
        "[service.web]\ncomand = [\"true\"]\n[service.db]\ncommand = [\"true\"]\nstop-timeout = \"soon\"\n",
        "[service.web]\ncommand = [\"true\"]\nrequires = [\"nobody-at-all\"]\n[service.b]\nstop-timeout = \"soon\"\n",
        "[service.a]\ncommand = [\"true\"]\nrequires = [\"b\"]\n\
         [service.b]\ncommand = [\"true\"]\nrequires = [\"a\"]\n",
        "[service.web\n",
    ] {
        d.write_config(broken);
        for verb in ["plan", "apply"] {
            let said = d.ctl_fails(78, &[verb]);
            assert!(said.contains("keepd.toml:"), "{verb}: {said}");
        }
        let checked = d.ctl_fails(78, &["check", "--format", "short", d.config.to_str().unwrap()]);
        assert!(checked.lines().any(|l| l.contains(": error: ")), "{checked}");
        signal(d.keeper(), Signal::SIGHUP);
        assert_eq!(pids(&d), before);
    }
    let said = {
        d.write_config("[service.web]\ncomand = 1\n[service.db]\ncommand = 1\nstop-timeout = \"soon\"\n");
        d.ctl_fails(78, &["apply"])
    };
    assert!(said.contains("comand") && said.contains("soon"), "{said}");
    assert_eq!(d.status()["generation"], generation);
    assert_eq!(pids(&d), before);
    d.shutdown();
}

#[test]
fn sighup_applies() {
    let d = Daemon::start(&sleeper("web", 1000, ""));
    let web = d.wait_running("web");
    d.write_config(&(sleeper("web", 1000, "") + &sleeper("added", 1000, "")));
    signal(d.keeper(), Signal::SIGHUP);
    d.wait_state("added", "running");
    assert_eq!(d.pid("web"), web);
    d.shutdown();
}

#[test]
fn a_service_in_backoff_takes_its_new_command_or_goes() {
    let slow = "backoff = { delay = \"10m\", max = \"10m\" }\nbreaker = { within = \"1d\" }\n";
    let d = Daemon::start(&(service("one", "exit 1", slow) + &service("two", "exit 1", slow)));
    d.wait_state("one", "backoff");
    d.wait_state("two", "backoff");
    d.write_config(&service("one", "exec sleep 1000", slow));
    d.ctl_ok(&["apply"]);
    d.wait_state("one", "running");
    wait_for("`two` to be gone", LATER, || d.try_service("two").is_none().then_some(()));
    d.shutdown();
}

/// Its shell may not have come to its own exec yet.
fn wait_new_command(d: &Daemon, name: &str) {
    wait_for("the new command", LATER, || (common::command_line(d.pid(name)) == "sleep 2000").then_some(()));
}

#[test]
fn a_service_stopped_by_hand_stays_stopped() {
    let d = Daemon::start(&sleeper("web", 1000, ""));
    d.wait_running("web");
    d.ctl_ok(&["stop", "web"]);
    d.write_config(&sleeper("web", 2000, ""));
    d.ctl_ok(&["apply"]);
    let web = d.service("web");
    assert_eq!((web["state"].as_str(), web["desired"].as_str()), (Some("stopped"), Some("down")));
    d.ctl_ok(&["start", "web"]);
    wait_new_command(&d, "web");
    d.shutdown();
}

#[test]
fn applies_amid_everything_leave_the_untouched_alone() {
    let steady = sleeper("steady", 1000, "");
    let crashing = service("crashing", "exit 1", "backoff = { delay = \"5ms\", max = \"20ms\" }\n");
    let variant = |n: u32| {
        format!(
            "{steady}{crashing}{}{}",
            sleeper("turning", 2000 + n % 2, ""),
            if n.is_multiple_of(3) { sleeper("guest", 1000, "") } else { String::new() }
        )
    };
    let d = Daemon::start(&variant(0));
    let pid = d.wait_running("steady");
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let code = d.ctl(&["restart", "turning"]).status.code();
                assert!(matches!(code, Some(0 | 1)), "{code:?}");
            }
        });
        scope.spawn(|| {
            while !over.load(Ordering::Relaxed) {
                let turning = d.try_service("turning").and_then(|s| s["pid"].as_u64());
                if let Some(pid) = turning.and_then(|p| u32::try_from(p).ok()) {
                    // It may just have been replaced; then its number has not been used again yet.
                    if common::command_line(pid).starts_with("sleep 200") {
                        signal(pid, Signal::SIGKILL);
                    }
                }
                std::thread::park_timeout(std::time::Duration::from_millis(30));
            }
        });
        for n in 1..25 {
            d.write_config(&variant(n));
            let done = d.ctl(&["apply"]);
            assert!(matches!(done.status.code(), Some(0 | 1)), "{}", common::text(&done));
        }
        over.store(true, Ordering::Relaxed);
    });
    assert_eq!(d.pid("steady"), pid);
    assert_eq!(d.service("steady")["restarts"], 0);
    d.ctl_ok(&["start", "turning"]);
    wait_new_command(&d, "turning");
    assert_eq!(d.processes_with("sleep 200").len(), 1);
    d.wait_running("guest");
    d.shutdown();
}
