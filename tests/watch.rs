//! Watches and resources of real processes on any host; what takes controllers is in `controllers.rs`.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Daemon, Setup, cgroup_mount, cgroup_of, is_alive, service, skip};
use std::fs;

/// Whether a cgroup v2 of this host can count memory.
fn counts_memory() -> bool {
    let text = cgroup_mount().and_then(|at| fs::read_to_string(at.join("cgroup.controllers")).ok());
    text.is_some_and(|text| text.split_ascii_whitespace().any(|c| c == "memory"))
}

#[test]
fn too_much_cpu_for_too_long_is_restarted() {
    let script = "test -e once && exec sleep 1000; touch once; while :; do :; done";
    let d = Daemon::start(&service("web", script, "watch = { cpu = \"10%\", for = \"1s\" }\n"));
    let first = d.wait_running("web");
    let web = d.wait_service("web", "a successor", |s| s["restarts"] == 1 && s["state"] == "running");
    assert!(!is_alive(first), "two at once: {web}");
    assert_eq!(web["consecutive_failures"], 0);
    let events = d.ctl_ok(&["events"]);
    let told = events.lines().filter(|l| l.contains(" watch "));
    assert_eq!(
        told.filter(|l| l.contains("used more than 10% of a CPU for 1s, it is restarted")).count(),
        1,
        "{events}"
    );
    d.shutdown();
}

/// The manager may not look into a service's processes: where no cgroup tells, root has to.
#[test]
fn memory_is_watched_with_and_without_a_controller() {
    memory_is_watched(false);
}

/// An ordinary user's keepd has no cgroups in most places: then it is the descendants that count.
#[test]
fn memory_is_watched_in_user_mode() {
    memory_is_watched(true);
}

fn memory_is_watched(as_user: bool) {
    let script =
        "x=$(head -c 40000000 /dev/zero | tr '\\0' x); echo full; read -r wait <fifo; x=; read -r wait <fifo";
    let watch = "watch = { memory = \"20MiB\", for = \"1s\", action = \"alert\" }\n";
    let calm = "watch = { memory = \"900MiB\", for = \"1s\", action = \"alert\" }\n";
    let mut d = Setup { as_user, ..Setup::default() }.prepare();
    nix::unistd::mkfifo(&d.path().join("fifo"), nix::sys::stat::Mode::from_bits_truncate(0o666)).unwrap();
    d.write_config(&(service("web", script, watch) + &service("calm", "exec sleep 1000", calm)));
    d.launch();
    d.await_api();
    let pid = d.wait_running("web");
    let web = d.wait_service("web", "an alert", |s| s["reason"] == "used more than 20MiB of memory for 1s");
    assert_eq!((d.pid("web"), web["state"].as_str()), (pid, Some("running")));
    fs::write(d.path().join("fifo"), "on\n").unwrap();
    d.wait_service("web", "its reason to go", |s| s["reason"] == "" && s["pid"] == pid);
    assert_eq!(d.service("calm")["reason"], "");
    let events = d.ctl_ok(&["events"]);
    assert!(events.contains("web is within its watch again") && !events.contains("calm used"), "{events}");
    d.shutdown();
}

#[test]
fn what_the_host_lacks_is_a_failed_start_that_says_so() {
    if counts_memory() {
        return skip("this host has a memory controller; `controllers` tests what lacks there");
    }
    let web = |more: &str| service("web", "exec sleep 1000", &format!("restart = \"never\"\n{more}"));
    let limited = web("resources = { memory-max = \"64MiB\" }\n");
    let d = Daemon::start(&limited);
    let failed = d.wait_service("web", "to fail", |s| s["state"] == "failed");
    let reason = failed["reason"].as_str().unwrap();
    assert!(
        reason.starts_with("cannot set resources.memory-max: ") && reason.contains("memory controller"),
        "{reason}"
    );
    d.ctl_fails(1, &["start", "web"]);

    // An apply kills nobody for it, and does not hide it.
    d.write_config(&web(""));
    d.ctl_ok(&["apply"]);
    d.ctl_ok(&["start", "web"]);
    let pid = d.wait_running("web");
    d.write_config(&limited);
    d.ctl_ok(&["apply"]);
    let web_now = d.wait_service("web", "to say so", |s| s["reason"] == reason);
    assert_eq!((d.pid("web"), web_now["state"].as_str()), (pid, Some("running")));
    assert!(d.ctl_ok(&["events"]).contains("web runs on with the resources that it had"));
    d.ctl_fails(1, &["restart", "web"]);
    d.shutdown();
}

#[test]
fn what_is_asked_for_one_service_is_not_read_for_the_list() {
    let d = Daemon::start(&service("web", "exec sleep 1000", "resources = { nice = 1 }\n"));
    let pid = d.wait_running("web");
    let listed = d.services().remove(0);
    for key in ["memory_peak_bytes", "oom_kills", "pressure", "resources"] {
        assert!(listed.get(key).is_none(), "{key}: {listed}");
    }
    let one = d.get("/v1/services/web");
    if cgroup_of(pid).is_some_and(|c| c.join("cpu.pressure").exists()) && d.system {
        assert!(one["pressure"]["cpu"].is_number(), "{one}");
    }
    assert!(one.get("resources").is_none(), "nice is no limit: {one}");
    d.shutdown();
}
