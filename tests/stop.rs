//! A stop ends every process of a service, in time, whatever it does about it.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Daemon, LATER, SOON, Setup, is_root, service, signal, skip, wait_for};
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

#[allow(clippy::disallowed_methods)]
fn timed<T>(what: impl FnOnce() -> T) -> (T, Duration) {
    let began = Instant::now();
    let result = what();
    (result, began.elapsed())
}

fn await_file(d: &Daemon, file: &str) {
    wait_for(file, LATER, || (!d.lines(file).is_empty()).then_some(()));
}

#[test]
fn a_service_that_ignores_sigterm_is_killed_when_its_time_is_up() {
    let script = "trap '' TERM; (trap '' TERM; sleep 775001) & echo up > up; while :; do sleep 775002; done";
    let d = Daemon::start(&service("stubborn", script, "stop-timeout = \"700ms\"\n"));
    await_file(&d, "up");
    let (_, took) = timed(|| d.ctl_ok(&["stop", "stubborn"]));
    assert!(took >= Duration::from_millis(700), "it was given {took:?} of 700 ms");
    assert_eq!(d.processes_with("7750"), [] as [u32; 0]);
    let stopped = d.service("stubborn");
    assert_eq!(stopped["state"], "stopped");
    assert_eq!(stopped["last_exit"]["signal"], "SIGKILL");
    d.shutdown();
}

#[test]
fn a_service_that_obeys_is_not_waited_for() {
    let d = Daemon::start(&service("web", "exec sleep 1000", "stop-timeout = \"5m\"\n"));
    d.wait_running("web");
    let (_, took) = timed(|| d.ctl_ok(&["stop", "web"]));
    assert!(took < SOON, "{took:?}");
    assert_eq!(d.service("web")["last_exit"]["signal"], "SIGTERM");
    d.shutdown();
}

#[test]
fn double_forked_daemons_do_not_escape() {
    let script = "setsid sh -c 'trap \"\" TERM; setsid sleep 776001 & echo $! > up; exec sleep 776002' & \
                  exec sleep 776003";
    let d = Daemon::start(&service("forker", script, "stop-timeout = \"500ms\"\n"));
    await_file(&d, "up");
    wait_for("all three", SOON, || (d.processes_with("sleep 7760").len() == 3).then_some(()));
    d.ctl_ok(&["stop", "forker"]);
    assert_eq!(d.processes_with("7760"), [] as [u32; 0]);
    d.shutdown();
}

#[test]
fn double_forked_daemons_do_not_escape_an_ordinary_user_either() {
    let script = "(setsid sleep 776101 &) ; echo up > up; exec sleep 776102";
    let services = service("forker", script, "stop-timeout = \"500ms\"\n");
    let d = Setup { services: &services, as_user: true, ..Setup::default() }.start();
    await_file(&d, "up");
    d.ctl_ok(&["stop", "forker"]);
    assert_eq!(d.processes_with("7761"), [] as [u32; 0]);
    d.shutdown();
}

#[test]
fn a_stop_is_over_when_the_last_process_is_gone_not_the_first() {
    let script = "(trap '' TERM; setsid sleep 777001) & echo up > up; exec sleep 777002";
    let d = Daemon::start(&service("leader", script, "stop-timeout = \"800ms\"\n"));
    await_file(&d, "up");
    wait_for("both", SOON, || (d.processes_with("sleep 7770").len() == 2).then_some(()));
    d.ctl_ok(&["stop", "leader"]);
    assert_eq!(d.processes_with("7770"), [] as [u32; 0], "reported as stopped too early");
    d.shutdown();
}

#[test]
fn a_chain_of_forks_is_caught() {
    if !is_root() {
        return skip("needs cgroups of its own, that is root");
    }
    // Each link starts the next one in a session of its own and ends: nobody can list it and then signal it.
    let link = "#!/bin/sh\ntrap '' TERM\n[ $1 -gt 20000 ] && exit\nsetsid $0 $(($1 + 1)) 778001 &\n";
    let d = Setup {
        services: &service(
            "chain",
            "./link 1 778001; exec sleep 778002",
            "autostart = false\nstop-timeout = \"200ms\"\n",
        ),
        ..Setup::default()
    }
    .prepare();
    let program = d.path().join("link");
    std::fs::write(&program, link).unwrap();
    std::fs::set_permissions(&program, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let mut d = d;
    d.launch();
    d.await_api();
    d.ctl_ok(&["start", "chain"]);
    wait_for("the chain to run", SOON, || (!d.processes_with("778001").is_empty()).then_some(()));
    d.ctl_ok(&["stop", "chain"]);
    assert_eq!(d.processes_with("7780"), [] as [u32; 0]);
    d.shutdown();
}

#[test]
fn the_configured_signal_and_command_are_used() {
    let services = service(
        "polite",
        "trap 'echo quit > quit; exit 0' QUIT; trap '' TERM; echo up > up; while :; do sleep 1 & wait $!; done",
        "stop-signal = \"SIGQUIT\"\nstop-timeout = \"1m\"\n",
    ) + "[service.commanded]\ncommand = [\"/bin/sleep\", \"1000\"]\n\
         stop-command = [\"/bin/sh\", \"-c\", \"echo $${INVOCATION_ID:-none} > asked; id -u > who\"]\n";
    let d = Daemon::start(&services);
    await_file(&d, "up");
    d.ctl_ok(&["stop", "polite"]);
    assert_eq!(d.lines("quit"), ["quit"]);
    assert_eq!(d.service("polite")["last_exit"]["code"], 0);
    d.wait_running("commanded");
    d.ctl_ok(&["stop", "commanded"]);
    assert_eq!(d.lines("asked").len(), 1, "the stop command did not run");
    assert_eq!(d.lines("who"), [nix::unistd::geteuid().to_string()]);
    d.shutdown();
}

#[test]
fn dependents_go_first() {
    let named = |n: &str| {
        format!(
            "trap 'echo {n} >> order; exit 0' TERM; echo up > up.{n}; while :; do sleep 100 & wait $!; done"
        )
    };
    let services = service("db", &named("db"), "") + &service("web", &named("web"), "requires = [\"db\"]\n");
    let d = Daemon::start(&services);
    await_file(&d, "up.web");
    await_file(&d, "up.db");
    d.ctl_ok(&["stop", "db"]);
    assert_eq!(d.lines("order"), ["web", "db"]);
    assert_ne!(d.service("web")["state"], "running");
    d.shutdown();
}

#[test]
fn a_stopped_process_can_be_stopped() {
    let d = Daemon::start(&service("frozen", "exec sleep 1000", "stop-timeout = \"5m\"\n"));
    let pid = d.wait_running("frozen");
    signal(pid, Signal::SIGSTOP);
    let (_, took) = timed(|| d.ctl_ok(&["stop", "frozen"]));
    assert!(took < SOON, "{took:?}");
    assert_eq!(d.service("frozen")["last_exit"]["signal"], "SIGTERM");
    d.shutdown();
}

#[test]
fn stopping_twice_is_fine_and_stopping_for_ever_can_be_left() {
    let d = Daemon::start(
        &(service("web", "exec sleep 1000", "")
            + &service(
                "slow",
                "trap '' TERM; echo up > up; while :; do sleep 779001; done",
                "stop-timeout = \"3s\"\n",
            )),
    );
    d.wait_running("web");
    d.ctl_ok(&["stop", "web"]);
    d.ctl_ok(&["stop", "web"]);
    await_file(&d, "up");
    let (_, took) = timed(|| d.ctl_ok(&["stop", "--no-wait", "slow"]));
    assert!(took < Duration::from_secs(3), "--no-wait waited {took:?}");
    d.ctl_fails(1, &["stop", "--timeout", "100ms", "slow"]);
    d.ctl_ok(&["stop", "slow"]);
    assert_eq!(d.processes_with("779001"), [] as [u32; 0]);
    d.shutdown();
}
