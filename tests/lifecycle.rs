//! From the first service's start to the last process's end: order, states, leftovers, signals to keepd itself.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Daemon, LATER, SOON, Setup, is_alive, is_root, proc_status, service, signal, text, wait_for};
use nix::sys::signal::Signal;
use std::fs;

/// Says when it starts and when it is asked to stop.
const CHRONICLE: &str = "echo up $NAME >> order; trap 'echo down $NAME >> order; exit 0' TERM; \
                         while :; do sleep 100 & wait $!; done";

#[test]
fn services_come_up_and_go_down_in_order() {
    let named = |name: &str, more: &str| service(name, &CHRONICLE.replace("$NAME", name), more);
    let services = named("web", "requires = [\"db\"]\nafter = [\"cache\"]")
        + &named("db", "")
        + &named("cache", "after = [\"db\"]");
    let d = Daemon::start(&services);
    d.wait_running("web");
    let root = d.path().to_owned();
    let order = wait_for("three starts", SOON, || {
        let lines = d.lines("order");
        (lines.len() == 3).then_some(lines)
    });
    assert_eq!(order, ["up db", "up cache", "up web"]);
    let kept = tempfile::tempdir().unwrap();
    let copy = kept.path().join("order");
    fs::hard_link(root.join("order"), &copy).unwrap();
    d.shutdown();
    let order = fs::read_to_string(copy).unwrap();
    let downs: Vec<&str> = order.lines().skip(3).collect();
    assert_eq!(downs, ["down web", "down cache", "down db"]);
}

#[test]
fn a_service_is_described_as_it_is() {
    let d = Daemon::start(&service("web", "exec sleep 1000", "description = \"the web\"\n"));
    let pid = d.wait_running("web");
    let web = d.service("web");
    assert_eq!(proc_status(pid, "Name"), "sleep");
    assert_eq!(web["name"], "web");
    assert_eq!(web["service"], "web");
    assert!(web["instance"].is_null());
    assert_eq!(web["description"], "the web");
    assert_eq!(web["desired"], "up");
    assert_eq!(web["ready"], true);
    assert_eq!(web["restarts"], 0);
    assert!(web["run_id"].as_u64().is_some_and(|r| r > 0));
    assert!(web["uptime_ms"].is_u64());
    assert!(web["started_at"].as_str().unwrap().ends_with('Z'));
    assert!(web["last_exit"].is_null());
    let status = d.status();
    assert_eq!(status["counts"]["running"], 1);
    assert_eq!(status["pid"], d.keeper());
    d.shutdown();
}

#[test]
fn instances_have_their_number_and_their_port() {
    let script = "echo \"$PORT\" > port.${instance}; exec sleep 1000";
    // `${instance}` is keepd's; everything else with a dollar is the shell's.
    let services =
        service("web", script, "instances = 3\nport = 4100\n").replace("$${instance}", "${instance}");
    let d = Daemon::start(&services);
    for i in 0..3 {
        d.wait_running(&format!("web@{i}"));
        let port = wait_for("a port", SOON, || d.lines(&format!("port.{i}")).first().cloned());
        assert_eq!(port, (4100 + i).to_string());
    }
    d.ctl_ok(&["stop", "web@1"]);
    assert_eq!(d.service("web@1")["state"], "stopped");
    assert_eq!(d.service("web@2")["state"], "running");
    d.shutdown();
}

#[test]
fn a_program_that_is_not_there_is_a_failed_start_that_says_so() {
    let d = Daemon::start(
        "[service.lost]\ncommand = [\"/nonexistent/program\"]\nbackoff = { delay = \"60s\", max = \"60s\" }\n",
    );
    let lost = d.wait_service("lost", "a reason", |s| s["consecutive_failures"] == 1);
    let reason = lost["reason"].as_str().unwrap();
    assert!(reason.contains("/nonexistent/program"), "{reason}");
    assert!(reason.contains("No such file"), "{reason}");
    assert!(lost["pid"].is_null());
    let said = d.ctl_fails(1, &["start", "lost"]);
    assert!(said.contains("/nonexistent/program"), "{said}");
    d.shutdown();
}

#[test]
fn ends_are_told_as_the_kernel_told_them() {
    let never = "restart = \"never\"\n";
    let services = service("seven", "exit 7", never)
        + &service("zero", "exit 0", never)
        + &service("killed", "kill -KILL $$", never)
        + &service("aborted", "ulimit -c 0; kill -ABRT $$", never);
    let d = Daemon::start(&services);
    let ended =
        |name: &str| d.wait_service(name, "an end", |s| !s["last_exit"].is_null())["last_exit"].clone();
    assert_eq!(ended("seven")["code"], 7);
    assert_eq!(ended("zero")["code"], 0);
    assert_eq!(ended("killed")["signal"], "SIGKILL");
    assert_eq!(ended("aborted")["signal"], "SIGABRT");
    for name in ["seven", "zero", "killed", "aborted"] {
        let s = d.service(name);
        assert!(["exited", "failed"].contains(&s["state"].as_str().unwrap()), "{s}");
        assert!(s["pid"].is_null(), "{s}");
        assert!(!s["reason"].as_str().unwrap().is_empty(), "{s}");
    }
    assert_eq!(d.service("zero")["state"], "exited");
    d.shutdown();
}

#[test]
fn what_the_main_process_leaves_behind_ends_with_it() {
    let script = "setsid sleep 771001 & (setsid sleep 771001 &) ; sleep 0.2; exit 0";
    let d = Daemon::start(&service("forker", script, "restart = \"never\"\nstop-timeout = \"1s\"\n"));
    d.wait_service("forker", "its end", |s| s["state"] == "exited");
    assert_eq!(d.processes_with("771001"), [] as [u32; 0], "children outlived their service");
    d.shutdown();
}

#[test]
fn orphans_do_not_become_zombies() {
    let script = "i=0; while [ $i -lt 100 ]; do (setsid true &) ; i=$((i+1)); done; exec sleep 1000";
    let d = Daemon::start(&service("parent", script, ""));
    d.wait_running("parent");
    wait_for("the script to become sleep", LATER, || {
        (d.processes_with("sleep 1000").len() == 1).then_some(())
    });
    let keeper = d.keeper().to_string();
    let zombies = || {
        let all = fs::read_dir("/proc").unwrap().filter_map(|e| e.ok()?.file_name().into_string().ok());
        all.filter_map(|pid| fs::read_to_string(format!("/proc/{pid}/stat")).ok())
            .filter(|stat| {
                stat.rsplit_once(") ").is_some_and(|(_, r)| r.starts_with(&format!("Z {keeper} ")))
            })
            .count()
    };
    wait_for("no zombies of the keeper", SOON, || (zombies() == 0).then_some(()));
    d.shutdown();
}

#[test]
fn a_second_keepd_is_refused_and_harms_nothing() {
    let d = Daemon::start(&service("web", "exec sleep 1000", ""));
    let pid = d.wait_running("web");
    let done = d.keepd().output().unwrap();
    assert_eq!(done.status.code(), Some(1), "{}", text(&done));
    assert!(text(&done).contains("another keepd"), "{}", text(&done));
    assert_eq!(d.pid("web"), pid);
    assert!(is_alive(pid));
    assert_eq!(d.status()["pid"], d.keeper());
    d.shutdown();
}

#[test]
fn shutdown_leaves_nothing_whatever_the_services_do() {
    let quick = "stop-timeout = \"400ms\"\n";
    let services = service("stubborn", "trap '' TERM INT HUP; while :; do sleep 772001; done", quick)
        + &service("forker", "setsid sh -c 'trap \"\" TERM; sleep 772002' & exec sleep 772003", quick)
        + &service("leader", "(setsid sleep 772004 &) ; exit 0", "stop-timeout = \"30s\"\n")
        + &service("crashing", "exit 1", "backoff = { delay = \"1ms\", max = \"20ms\" }\n")
        + &service("waiting", "exec sleep 772005", "requires = [\"crashing\"]\n")
        + &service("idle", "exec sleep 772006", "autostart = false\n");
    let d = Daemon::start(&services);
    for name in ["stubborn", "forker"] {
        d.wait_running(name);
    }
    d.shutdown();
}

#[test]
fn one_sigterm_stops_in_order_and_exits_zero() {
    for stop in [Signal::SIGTERM, Signal::SIGINT] {
        let mut d = Daemon::start(&service("web", CHRONICLE, ""));
        let pid = d.wait_running("web");
        wait_for("the service to be up", SOON, || (d.lines("order").len() == 1).then_some(()));
        signal(d.keeper(), stop);
        let status = d.wait_exit(LATER);
        assert_eq!(status.code(), Some(0), "{stop}: {status}\n{}", d.output());
        assert!(!is_alive(pid));
        assert_eq!(d.lines("order").len(), 2, "the service was not asked to stop");
        d.assert_nothing_left();
    }
}

#[test]
fn a_second_sigterm_forces() {
    let script = "trap '' TERM; echo up > up; while :; do sleep 773001; done";
    let mut d = Daemon::start(&service("stubborn", script, "stop-timeout = \"10m\"\n"));
    d.wait_running("stubborn");
    wait_for("the trap", SOON, || (!d.lines("up").is_empty()).then_some(()));
    signal(d.keeper(), Signal::SIGTERM);
    d.wait_state("stubborn", "stopping");
    signal(d.keeper(), Signal::SIGTERM);
    d.wait_exit(SOON);
    d.assert_nothing_left();
}

#[test]
fn many_services_start_and_stop() {
    let services: String =
        (0..120).map(|i| service(&format!("s{i}"), "echo up; exec sleep 1000", "")).collect();
    let d = Daemon::start(&services);
    wait_for("all to run", LATER, || {
        (d.status()["counts"]["running"] == 120 && d.processes_with("sleep 1000").len() == 120).then_some(())
    });
    d.ctl_ok(&["stop", "--all"]);
    assert_eq!(d.status()["counts"]["stopped"], 120);
    assert_eq!(d.processes_with("sleep 1000"), [] as [u32; 0]);
    d.ctl_ok(&["start", "s1*"]);
    assert_eq!(d.status()["counts"]["running"], 31);
    d.shutdown();
}

#[test]
fn an_ordinary_user_runs_services_as_itself() {
    let d =
        Setup { services: &service("web", "exec sleep 1000", ""), as_user: true, ..Setup::default() }.start();
    let pid = d.wait_running("web");
    let own = proc_status(d.keeper(), "Uid");
    assert_eq!(proc_status(pid, "Uid"), own);
    assert!(!own.starts_with("0\t") || !is_root(), "{own}");
    signal(pid, Signal::SIGKILL);
    d.wait_service("web", "a successor", |s| s["state"] == "running" && s["pid"] != pid);
    d.ctl_ok(&["stop", "web"]);
    assert_eq!(d.processes_with("sleep 1000"), [] as [u32; 0]);
    d.shutdown();
}

#[test]
fn what_cannot_be_started_ends_with_its_status() {
    let broken =
        "[service.web]\ncomand = [\"true\"]\n[service.db]\ncommand = [\"true\"]\nrestart = \"maybe\"\n";
    let d = Setup { services: broken, ..Setup::default() }.prepare();
    let done = d.keepd().output().unwrap();
    assert_eq!(done.status.code(), Some(78), "{}", text(&done));
    let said = text(&done);
    assert!(said.contains("did you mean `command`"), "{said}");
    assert!(said.contains("maybe"), "not every error is told at once: {said}");
    let lines: Vec<&str> = said.lines().filter(|l| l.contains("keepd.toml:")).collect();
    assert!(lines.len() >= 2, "no file, line and column: {said}");
    let done = d.keepd().arg("--no-such-option").output().unwrap();
    assert_eq!(done.status.code(), Some(64), "{}", text(&done));

    let user = "[service.web]\ncommand = [\"true\"]\nuser = \"daemon\"\n";
    let d = Setup { services: user, as_user: true, ..Setup::default() }.prepare();
    let done = d.keepd().output().unwrap();
    assert_eq!(done.status.code(), Some(78), "user mode took `user`: {}", text(&done));
}
