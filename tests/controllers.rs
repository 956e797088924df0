//! What takes the controllers of cgroup v2: values in place before the first instruction, limits that bite, OOM kills
//! that are recognised, changes while it runs, and hosts that cannot give them.
//!
//! Many hosts, and most build machines, have no controllers in cgroup v2. There all of this runs in a guest: a small
//! kernel in QEMU, started by the one test of this file, in which this very program runs again.
#![allow(clippy::unwrap_used, clippy::disallowed_methods, reason = "it starts programs, and times itself")]

mod common;
#[path = "controllers/guest.rs"]
mod guest;

use common::{Daemon, LATER, Setup, cgroup_mount, cgroup_of, is_alive, is_root, service, skip, wait_for};
use serde_json::Value;
use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Instant,
};

const TESTS: &[(&str, fn())] = &[
    ("values are in place before the command runs", values_are_in_place_before_the_command_runs),
    ("a run that outgrows memory-max dies whole", a_run_that_outgrows_memory_max_dies_whole),
    ("no more tasks than pids-max", no_more_tasks_than_pids_max),
    ("no more cpu than cpu-max", no_more_cpu_than_cpu_max),
    ("an apply reaches the live run", an_apply_reaches_the_live_run),
    ("keepd takes a leaf of what is delegated to it", keepd_takes_a_leaf_of_what_is_delegated_to_it),
    ("what was not delegated is a failure that says so", what_was_not_delegated_is_a_failure_that_says_so),
    ("strangers in keepd's cgroup are named", strangers_in_keepds_cgroup_are_named),
    ("a watch restarts what grows", a_watch_restarts_what_grows),
    ("the kernel tells a watch that memory grows", the_kernel_tells_a_watch_that_memory_grows),
];

#[test]
fn with_controllers() {
    let given = |name: &str| {
        let known = cgroup_mount().and_then(|at| fs::read_to_string(at.join("cgroup.controllers")).ok());
        known.is_some_and(|text| text.split_ascii_whitespace().any(|c| c == name))
    };
    let here = is_root() && ["memory", "pids", "cpu", "io"].into_iter().all(given);
    if !here {
        assert!(!guest::inside(), "the guest has no controllers");
        match guest::run("with_controllers") {
            Ok(said) => {
                let told = said.lines().filter(|l| l.starts_with("ok: ")).count();
                assert!(said.contains("GUEST STATUS 0") && told == TESTS.len(), "{said}");
                // For who reads the output of this test.
                print!("{said}");
            }
            Err(why) => skip(&format!("no controllers in this host's cgroup v2, and no guest: {why}")),
        }
        return;
    }
    let mut failed = Vec::new();
    for (name, test) in TESTS {
        let began = Instant::now();
        match catch_unwind(AssertUnwindSafe(test)) {
            Ok(()) => println!("ok: {name} ({:.1?})", began.elapsed()),
            Err(_) => failed.push(name),
        }
    }
    assert!(failed.is_empty(), "{failed:?}");
}

/// Prints files of its own cgroup, then waits.
fn show(files: &str) -> String {
    format!(
        "d={}$(sed -n s/^0:://p /proc/self/cgroup); cd $d; head -n 9 {files}; echo shown; exec sleep 1000",
        at().display()
    )
}

fn at() -> PathBuf {
    cgroup_mount().unwrap()
}

fn value(pid: u32, file: &str) -> String {
    fs::read_to_string(cgroup_of(pid).unwrap().join(file)).unwrap().trim().to_owned()
}

fn table(of: &str) -> String {
    format!("resources = {{ {of} }}\n")
}

fn values_are_in_place_before_the_command_runs() {
    let all = "memory-max = \"64MiB\", memory-high = \"48MiB\", cpu-max = \"150%\", cpu-weight = 50, pids-max = 20, \
               io-weight = 200";
    let files =
        ["memory.max", "memory.high", "memory.oom.group", "cpu.max", "cpu.weight", "pids.max", "io.weight"];
    let d = Daemon::start(&service("web", &show(&files.join(" ")), &table(all)));
    d.wait_running("web");
    let log = d.wait_log("web", "shown");
    let wanted = ["67108864", "50331648", "1", "150000 100000", "50", "20", "default 200"];
    for (file, value) in files.iter().zip(wanted) {
        assert!(log.contains(&format!("==> {file} <==\n{value}\n")), "{file}: {log}");
    }
    let web = d.service("web");
    for key in ["memory_bytes", "memory_peak_bytes", "tasks", "cpu_usage_usec"] {
        assert!(web[key].as_u64().is_some_and(|n| n > 0), "{key}: {web}");
    }
    assert_eq!((&web["oom_kills"], &web["resources"]["memory_max_bytes"]), (&0.into(), &(64 << 20).into()));
    let text = d.ctl_ok(&["status", "web"]);
    assert!(text.contains("of 64.0 MiB (at most") && text.contains("of 20 tasks"), "{text}");
    d.shutdown();
}

/// Fills so many MiB and does nothing else with them.
fn hog(mib: u32) -> String {
    format!("dd if=/dev/zero of=/dev/null bs={mib}M count=1 2>/dev/null")
}

fn a_run_that_outgrows_memory_max_dies_whole() {
    let script = format!("sleep 781002 & {}; echo survived; sleep 1000", hog(200));
    let d = Daemon::start(&service(
        "web",
        &script,
        &format!("restart = \"never\"\n{}", table("memory-max = \"32MiB\"")),
    ));
    let web = d.wait_service("web", "to be killed", |s| s["state"] == "failed" || s["state"] == "exited");
    let last = &web["last_exit"];
    assert_eq!((&last["oom"], &last["signal"]), (&Value::Bool(true), &"SIGKILL".into()), "{web}");
    assert!(web["reason"].as_str().unwrap().contains("out of memory"), "{web}");
    assert!(!d.log("web").contains("survived"));
    assert!(d.processes_with("781002").is_empty(), "memory.oom.group spares nobody");
    let dossier = wait_for("the dossier", LATER, || {
        d.get("/v1/services/web/why")["dossiers"].as_array()?.iter().find(|d| d["kind"] == "oom").cloned()
    });
    let (cause, usage) = (dossier["cause"].as_str().unwrap(), &dossier["usage"]);
    assert!(cause.starts_with("web ran out of memory: its memory-max is "), "{dossier}");
    assert!(usage["oom_kills"].as_u64().unwrap() >= 1 && usage["memory_max_bytes"].is_u64(), "{usage}");
    assert!(usage["memory_peak_bytes"].as_u64().unwrap() > 1 << 20, "{usage}");
    let events = d.ctl_ok(&["events"]);
    assert!(events.contains("web ran out of memory: its memory-max is 32MiB"), "{events}");
    d.shutdown();
}

fn no_more_tasks_than_pids_max() {
    let script = "for i in 1 2 3 4 5 6 7 8 9; do sleep 1000 & done; echo all";
    let d =
        Daemon::start(&service("web", script, &format!("restart = \"never\"\n{}", table("pids-max = 5"))));
    d.wait_service("web", "to fail", |s| s["last_exit"]["code"].as_i64().is_some_and(|code| code != 0));
    assert!(!d.wait_log("web", "fork").contains("all"));
    d.shutdown();
}

fn no_more_cpu_than_cpu_max() {
    let d = Daemon::start(&service("web", "while :; do :; done", &table("cpu-max = \"20%\"")));
    let pid = d.wait_running("web");
    wait_for("it to be throttled", LATER, || {
        let stat = value(pid, "cpu.stat");
        stat.lines().find_map(|l| l.strip_prefix("nr_throttled ")?.parse().ok()).filter(|n: &u64| *n > 3)
    });
    d.shutdown();
}

fn an_apply_reaches_the_live_run() {
    let with = |of: &str| service("web", "exec sleep 1000", of);
    let d = Daemon::start(&with(""));
    let pid = d.wait_running("web");
    assert_eq!(value(pid, "memory.max"), "max", "memory is always accounted for");
    d.write_config(&with(&table("memory-max = \"64MiB\", cpu-weight = 50")));
    let plan = d.ctl_ok(&["plan"]);
    assert!(plan.contains("resources.memory_max"), "{plan}");
    d.ctl_ok(&["apply"]);
    wait_for("new values", LATER, || (value(pid, "memory.max") == "67108864").then_some(()));
    wait_for("new values", LATER, || (value(pid, "cpu.weight") == "50").then_some(()));
    d.write_config(&with(""));
    d.ctl_ok(&["apply"]);
    wait_for("the first values", LATER, || (value(pid, "memory.max") == "max").then_some(()));
    assert_eq!((value(pid, "memory.oom.group"), d.pid("web")), ("0".into(), pid), "nothing was restarted");
    wait_for("the first weight", LATER, || (value(pid, "cpu.weight") == "100").then_some(()));
    d.shutdown();
}

/// A cgroup for keepd that goes with the test.
struct Cgroup(PathBuf);

impl Cgroup {
    fn new(path: PathBuf) -> Cgroup {
        fs::create_dir(&path).unwrap();
        Cgroup(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }

    fn give(&self, controllers: &str) {
        fs::write(self.0.join("cgroup.subtree_control"), controllers).unwrap();
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            wait_for("the cgroup to be as it was", LATER, || fs::remove_dir(&self.0).ok());
        }
    }
}

fn keepd_takes_a_leaf_of_what_is_delegated_to_it() {
    fs::write(at().join("cgroup.subtree_control"), "+memory +pids +cpu +io").unwrap();
    let unit = Cgroup::new(at().join("keepd-unit"));
    let services = service("web", &show("memory.max"), &table("memory-max = \"64MiB\""));
    let d = Setup { services: &services, cgroup: Some(unit.path()), ..Setup::default() }.start();
    d.wait_running("web");
    assert!(d.wait_log("web", "shown").contains("67108864"));
    for pid in [d.keeper(), d.manager()] {
        let own = cgroup_of(pid).unwrap();
        assert!(
            own.starts_with(unit.path()) && own.to_string_lossy().ends_with(".self"),
            "{}",
            own.display()
        );
    }
    d.shutdown();
    assert_eq!(fs::read_to_string(unit.path().join("cgroup.subtree_control")).unwrap().trim(), "");
}

fn what_was_not_delegated_is_a_failure_that_says_so() {
    fs::write(at().join("cgroup.subtree_control"), "+memory +pids +cpu +io").unwrap();
    let outer = Cgroup::new(at().join("keepd-outer"));
    outer.give("+pids");
    let unit = Cgroup::new(outer.path().join("unit"));
    let web = |of: &str| service("web", "exec sleep 1000", &format!("restart = \"never\"\n{}", table(of)));
    let services = web("memory-max = \"64MiB\"");
    let d = Setup { services: &services, cgroup: Some(unit.path()), ..Setup::default() }.start();
    let lacks = "cannot set resources.memory-max: the cgroup of keepd, /sys/fs/cgroup/keepd-outer/unit, was \
                 not given the memory controller";
    let web_now = d.wait_service("web", "to fail", |s| s["state"] == "failed");
    assert!(web_now["reason"].as_str().unwrap().contains(lacks), "{web_now}");

    // A run that lives is not killed for it.
    d.write_config(&web("pids-max = 20"));
    d.ctl_ok(&["apply"]);
    d.ctl_ok(&["start", "web"]);
    let pid = d.wait_running("web");
    d.write_config(&services);
    d.ctl_ok(&["apply"]);
    let web_now = d.wait_service("web", "to say what is lacking", |s| s["reason"] != "");
    assert!(web_now["reason"].as_str().unwrap().contains(lacks), "{web_now}");
    assert_eq!((d.pid("web"), web_now["state"].as_str()), (pid, Some("running")));

    // Once the host gives it, the next start has it.
    outer.give("+memory");
    d.ctl_ok(&["restart", "web"]);
    let pid = d.wait_running("web");
    assert_eq!(value(pid, "memory.max"), "67108864");
    assert_eq!(d.service("web")["reason"], "");
    d.shutdown();
}

fn strangers_in_keepds_cgroup_are_named() {
    fs::write(at().join("cgroup.subtree_control"), "+memory +pids +cpu +io").unwrap();
    let shared = Cgroup::new(at().join("keepd-shared"));
    let mut stranger = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
    fs::write(shared.path().join("cgroup.procs"), stranger.id().to_string()).unwrap();
    let services = service(
        "web",
        "exec sleep 1000",
        &format!("restart = \"never\"\n{}", table("memory-max = \"64MiB\"")),
    );
    let d = Setup { services: &services, cgroup: Some(shared.path()), ..Setup::default() }.start();
    let web = d.wait_service("web", "to fail", |s| s["state"] == "failed");
    assert!(web["reason"].as_str().unwrap().contains("start keepd in a cgroup of its own"), "{web}");
    d.shutdown();
    stranger.kill().unwrap();
    stranger.wait().unwrap();
}

fn a_watch_restarts_what_grows() {
    let watch = "watch = { memory = \"4MiB\", for = \"1s\" }\n";
    let grow = "x=$(head -c 8000000 /dev/zero | tr '\\0' x)";
    // Something follows, or the shell would become what it executes last, and be small again.
    let script = format!("test -e grown && exec sleep 1000; touch grown; {grow}; sleep 1000; true");
    let d = Daemon::start(&service("web", &script, watch));
    let first = d.wait_running("web");
    let web = d.wait_service("web", "a successor", |s| s["restarts"] == 1 && s["state"] == "running");
    assert!(!is_alive(first), "two at once: {web}");
    let events = d.ctl_ok(&["events"]);
    assert!(events.contains("web used more than 4MiB of memory for 1s, it is restarted"), "{events}");
    d.shutdown();
}

fn the_kernel_tells_a_watch_that_memory_grows() {
    let keys = format!(
        "watch = {{ memory = \"4MiB\", for = \"1s\", action = \"alert\" }}\n{}",
        table("memory-high = \"4MiB\"")
    );
    let grow = "x=$(head -c 5000000 /dev/zero | tr '\\0' x)";
    let script = format!("while ! test -e grow; do sleep 0.1; done; {grow}; sleep 1000; true");
    let d = Daemon::start(&service("web", &script, &keys));
    d.wait_running("web");
    wait_for("the manager to look no more, and listen", LATER, || {
        let open = fs::read_dir(format!("/proc/{}/fdinfo", d.manager())).unwrap().flatten();
        open.filter_map(|fd| fs::read_to_string(fd.path()).ok())
            .any(|t| t.contains("inotify wd:"))
            .then_some(())
    });
    fs::write(d.path().join("grow"), "").unwrap();
    d.wait_service("web", "an alert", |s| s["reason"] == "used more than 4MiB of memory for 1s");
    d.shutdown();
}
