//! `keepd --daemonize`: returns when everything is ready, or with the reason why it never will be.
#![allow(clippy::unwrap_used)]

mod common;

use common::{LATER, Setup, is_alive, proc_status, service, text, wait_for};
use std::{
    fs,
    process::{Command, Output, Stdio},
};

/// Runs it until its stdout and stderr are at their end: the daemon that it leaves has to let go of both.
fn run(command: &mut Command) -> Output {
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (send, done) = std::sync::mpsc::channel();
    std::thread::spawn(move || send.send(child.wait_with_output().unwrap()));
    done.recv_timeout(LATER).expect("it returns, and nothing of it holds the caller's stdout or stderr")
}

#[test]
fn it_returns_when_it_is_ready_and_holds_no_terminal() {
    let mut d = Setup { services: &service("web", "exec sleep 1000", ""), ..Setup::default() }.prepare();
    let done = run(d.keepd().arg("--daemonize"));
    assert!(done.status.success(), "{}", text(&done));
    assert_eq!(d.try_get("/readyz").unwrap().0, 200, "it returned before it was ready");
    d.await_api();
    d.wait_running("web");
    let keeper = d.keeper();
    assert_ne!(proc_status(keeper, "PPid"), std::process::id().to_string());
    for fd in 0..3 {
        let target = fs::read_link(format!("/proc/{keeper}/fd/{fd}")).unwrap();
        assert_eq!(target.to_str(), Some("/dev/null"), "descriptor {fd}");
    }
    let stat = fs::read_to_string(format!("/proc/{keeper}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    assert_ne!(fields[3], keeper.to_string(), "a session leader could get a terminal");
    assert_eq!(fields[4], "0", "it has a terminal");
    let log = wait_for("keepd.log", LATER, || {
        fs::read_to_string(d.path().join("log/keepd.log")).ok().filter(|text| !text.is_empty())
    });
    assert!(log.contains("web") || log.contains("keepd"), "{log}");

    let second = run(d.keepd().arg("--daemonize"));
    assert_eq!(second.status.code(), Some(1), "{}", text(&second));
    assert!(text(&second).contains("another keepd"), "{}", text(&second));
    assert!(is_alive(keeper));

    // In the background it stays the same process over an upgrade too.
    let web = d.pid("web");
    d.ctl_ok(&["upgrade"]);
    assert_eq!((d.status()["pid"].as_u64(), d.pid("web")), (Some(u64::from(keeper)), web));

    d.remember_cgroups();
    d.ctl_ok(&["shutdown"]);
    wait_for("its end", LATER, || (!is_alive(keeper)).then_some(()));
    d.assert_nothing_left();
}

#[test]
fn a_broken_configuration_is_told_to_whom_it_may_concern() {
    let d = Setup { services: "[service.web]\ncomand = [\"true\"]\n", ..Setup::default() }.prepare();
    let done = run(d.keepd().arg("--daemonize"));
    assert_eq!(done.status.code(), Some(78), "{}", text(&done));
    assert!(text(&done).contains("did you mean `command`"), "{}", text(&done));
    d.assert_nothing_left();
}
