//! SIGKILL of the manager under load, at any instant: no service notices, no line and no exit is lost or doubled.
//!
//! KEEPD_MANAGER_KILLS (50 unless set) says how often.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Daemon, Dice, LATER, is_alive, read_log, rotated, service, signal, wait_for};
use nix::sys::signal::Signal;
use std::{fs, time::Duration};

/// Bursts of numbered lines until SIGTERM; then the last number goes to a file.
const WRITER: &str = "i=0; trap 'echo $i > last.$NAME; exit 0' TERM; while :; do n=0; \
                      while [ $n -lt 300 ]; do n=$((n+1)); i=$((i+1)); \
                      echo \"line $i .........................\"; done; \
                      sleep 0.02; done";

/// Each run notes itself, lives a moment, and ends with a status of its own.
const EXITER: &str = "echo run >> runs.$NAME; n=$(wc -l < runs.$NAME); \
                      echo \"run $n\"; sleep 0.03; \
                      exit $((n % 200 + 1))";

fn kills() -> u64 {
    std::env::var("KEEPD_MANAGER_KILLS").map_or(50, |n| n.parse().unwrap())
}

#[test]
fn kills_of_the_manager_cost_nothing() {
    let writers = ["w1", "w2", "w3"];
    let exiters = ["e1", "e2"];
    let mut services = String::new();
    for name in writers {
        let logs = "logs = { max-size = \"128KiB\", keep = 100000, compress = \"none\" }\n\
                restart = \"never\"\nstop-timeout = \"1m\"\n";
        services += &service(name, &WRITER.replace("$NAME", name), logs);
    }
    for name in exiters {
        let more = "restart = \"always\"\nbackoff = { delay = \"1ms\", max = \"1ms\", jitter = 0.0 }\n\
                    breaker = { failures = 1000000, within = \"1d\" }\n";
        services += &service(name, &EXITER.replace("$NAME", name), more);
    }
    let daemon = "restart-budget = { starts = 1000000, within = \"1m\" }";
    let d = common::Setup { services: &services, daemon, ..Default::default() }.start();
    let pids = writers.map(|n| d.wait_running(n));
    for name in exiters {
        d.wait_service(name, "a restart", |s| s["restarts"].as_u64() > Some(1));
    }

    let (mut dice, mut last) = (Dice(0x5eed_1234_9876_abcd), 0);
    for n in 0..kills() {
        let manager = wait_for("a new manager", LATER, || d.find_manager().filter(|m| *m != last));
        if n.is_multiple_of(2) {
            // Half of them in full work, the others in the midst of taking over.
            wait_for("an answer", LATER, || d.try_service("w1"));
        }
        std::thread::park_timeout(Duration::from_micros(dice.below(40_000)));
        signal(manager, Signal::SIGKILL);
        last = manager;
    }

    wait_for("an answer", LATER, || d.try_service("w1"));
    for (name, pid) in writers.iter().zip(pids) {
        assert_eq!(d.pid(name), pid, "{name} was replaced");
        assert!(is_alive(pid));
    }
    let restarts = d.status()["manager_restarts"].as_u64().unwrap();
    assert!(restarts >= kills(), "{restarts} restarts of the manager for {} kills", kills());

    for name in writers.iter().chain(&exiters) {
        d.ctl_ok(&["stop", name]);
    }
    for name in writers {
        assert_eq!(d.service(name)["last_exit"]["code"], 0, "{name}");
        assert_every_line(&d, name);
    }
    for name in exiters {
        assert_every_exit(&d, name);
    }
    d.shutdown();
}

fn assert_every_line(d: &Daemon, name: &str) {
    let last: usize = d.lines(&format!("last.{name}"))[0].parse().unwrap();
    wait_for("the last line", LATER, || d.log(name).contains(&format!("line {} ", last - 1)).then_some(()));
    let log = d.log(name);
    for (found, wanted) in log.lines().zip(1..) {
        assert_eq!(found, format!("line {wanted} ........................."), "in the log of {name}");
    }
    // SIGTERM may come between a line and its successor's count.
    assert!(
        log.lines().count().abs_diff(last) <= 1,
        "{} lines in the log, {last} written",
        log.lines().count()
    );
    for file in rotated(&d.path().join("log").join(name)) {
        assert!(read_log(&file).unwrap().ends_with('\n'), "{} ends within a line", file.display());
    }
}

/// One restart for each run but the first, one line for each run, and the right status for the last.
fn assert_every_exit(d: &Daemon, name: &str) {
    let runs = d.lines(&format!("runs.{name}")).len() as u64;
    let s = d.service(name);
    // The stop may have come before a run's first instruction.
    let restarts = s["restarts"].as_u64().unwrap();
    assert!(restarts + 1 == runs || restarts == runs, "{name}: {restarts} restarts, {runs} runs");
    let wanted: Vec<String> = (1..=runs).map(|i| format!("run {i}")).collect();
    // A run that was stopped right after its note may not have spoken.
    wait_for("a line for each run", LATER, || (d.log(name).lines().count() as u64 + 1 >= runs).then_some(()));
    let log = d.log(name);
    let shown: Vec<&str> = log.lines().collect();
    assert!(
        shown == wanted || shown == wanted[..wanted.len() - 1],
        "{name}: {} lines for {runs} runs",
        shown.len()
    );
    let exit = &s["last_exit"];
    let right = exit["code"] == (runs % 200 + 1) || exit["signal"] == "SIGTERM";
    assert!(right, "{name}: run {runs} ended with {exit}");
}

/// A line of the fast writer, by its number.
fn numbered(n: u64) -> String {
    format!("line {n} .........................")
}

/// Checks that the log has every line up to `last`, or says that so many are missing there. How many are.
fn assert_written_or_counted(log: &str, last: u64, stamped: bool) -> u64 {
    let (mut next, mut dropped) = (1, 0);
    for found in log.lines() {
        let found =
            if stamped { found.split_once("Z ").unwrap_or_else(|| panic!("{found:?}")).1 } else { found };
        let Some(told) = found.strip_prefix("keepd: dropped ") else {
            assert_eq!(found, numbered(next));
            next += 1;
            continue;
        };
        let (lines, bytes) = told.split_once(" lines (").unwrap();
        let lines: u64 = lines.parse().unwrap();
        let missing: usize = (next..next + lines).map(|n| numbered(n).len() + 1).sum();
        assert_eq!(bytes, format!("{missing} bytes) here"), "after line {}", next - 1);
        dropped += lines;
        next += lines;
    }
    assert_eq!(next, last + 1, "the last lines are missing");
    dropped
}

#[test]
fn kills_of_the_manager_while_logs_cannot_be_written_lose_no_line_uncounted() {
    let script = "i=0; run=1; trap 'run=0' TERM; while [ $run = 1 ]; do n=0; while [ $n -lt 3000 ]; do \
                  n=$((n+1)); i=$((i+1)); echo \"line $i .........................\"; done; sleep 0.01; done; \
                  echo $i > last.$NAME";
    let names = ["raw", "timestamp"];
    let mut services = String::new();
    for name in names {
        let logs = format!(
            "logs = {{ max-size = \"128KiB\", keep = 100000, compress = \"none\", format = \"{name}\" }}\n\
             restart = \"never\"\nstop-timeout = \"1m\"\n"
        );
        services += &service(name, &script.replace("$NAME", name), &logs);
    }
    let d = common::Setup { services: &services, ..Default::default() }.start();
    let folder = |name: &str| d.path().join("log").join(name);
    let away = |name: &str| d.path().join("log").join(format!("{name}.away"));
    let back = |name: &str| {
        if away(name).exists() {
            fs::remove_file(folder(name)).unwrap();
            fs::rename(away(name), folder(name)).unwrap();
        }
    };
    for name in names {
        d.wait_running(name);
        wait_for("output", LATER, || folder(name).join("current").exists().then_some(()));
    }
    let (mut dice, mut last) = (Dice(0x0bad_d15c_5eed_0001), 0);
    for _ in 0..kills() {
        for name in names {
            match dice.below(6) {
                0 | 1 if !away(name).exists() => {
                    fs::rename(folder(name), away(name)).unwrap();
                    fs::write(folder(name), "in the way").unwrap();
                }
                2 => back(name),
                _ => {}
            }
        }
        let manager = wait_for("a new manager", LATER, || d.find_manager().filter(|m| *m != last));
        std::thread::park_timeout(Duration::from_micros(dice.below(60_000)));
        signal(manager, Signal::SIGKILL);
        last = manager;
    }
    names.iter().for_each(|name| back(name));
    wait_for("an answer", LATER, || d.try_service("raw"));
    let mut dropped = 0;
    for name in names {
        d.ctl_ok(&["stop", name]);
        let last: u64 = d.lines(&format!("last.{name}"))[0].parse().unwrap();
        let end = format!("line {last} ");
        wait_for("the last line", LATER, || d.log(name).contains(&end).then_some(()));
        dropped += assert_written_or_counted(&d.log(name), last, name == "timestamp");
    }
    assert!(dropped > 0, "nothing was dropped");
    d.shutdown();
}

#[test]
fn an_exit_while_there_is_no_manager_is_known_to_the_next_one() {
    let d = Daemon::start(&service(
        "web",
        "while [ ! -e go ]; do sleep 0.02; done; echo said; exit 37",
        "restart = \"never\"\n",
    ));
    let pid = d.wait_running("web");
    let run = d.service("web")["run_id"].clone();
    let manager = d.manager();
    signal(manager, Signal::SIGSTOP);
    fs::write(d.path().join("go"), "").unwrap();
    wait_for("the end of the service", LATER, || (!is_alive(pid)).then_some(()));
    signal(manager, Signal::SIGKILL);
    let web = d.wait_service("web", "its end", |s| !s["last_exit"].is_null());
    assert_eq!(web["last_exit"]["code"], 37);
    assert_eq!(web["last_exit"]["run_id"], run);
    assert_ne!(d.manager(), manager);
    assert_eq!(d.wait_log("web", "said"), "said\n");
    d.shutdown();
}

#[test]
fn what_was_decided_outlives_the_manager() {
    let slow = "backoff = { delay = \"10m\", max = \"10m\", jitter = 0.0 }\nbreaker = { within = \"1d\" }\n";
    let services = service("stopped", "exec sleep 1000", "")
        + &service("crashing", "echo run >> runs; exit 1", slow)
        + &service(
            "broken",
            "exit 1",
            "backoff = { delay = \"1ms\" }\nbreaker = { failures = 2, retry-every = \"never\" }\n",
        )
        + &service(
            "stubborn",
            "trap '' TERM; echo up > up; while :; do sleep 782001; done",
            "stop-timeout = \"3s\"\n",
        );
    let d = Daemon::start(&services);
    d.wait_running("stopped");
    d.ctl_ok(&["stop", "stopped"]);
    let due = d.wait_state("crashing", "backoff")["next_start_in_ms"].as_u64().unwrap();
    d.wait_state("broken", "failed");
    wait_for("the trap", LATER, || (!d.lines("up").is_empty()).then_some(()));
    d.ctl_ok(&["stop", "--no-wait", "stubborn"]);
    d.wait_state("stubborn", "stopping");

    let manager = d.manager();
    signal(manager, Signal::SIGKILL);
    wait_for("the next manager", LATER, || {
        let (code, body) = d.try_get("/v1/status").ok()?;
        let status: serde_json::Value = serde_json::from_str(&body).ok()?;
        (code == 200 && status["manager_pid"] != manager).then_some(())
    });
    assert_eq!(d.service("stopped")["state"], "stopped");
    assert_eq!(d.service("stopped")["desired"], "down");
    assert_eq!(d.service("broken")["state"], "failed");
    let crashing = d.service("crashing");
    assert_eq!(crashing["state"], "backoff");
    assert!(crashing["next_start_in_ms"].as_u64().unwrap() <= due);
    assert_eq!(d.lines("runs").len(), 1);
    // The stop that was under way is carried to its end, by the deadline that was set before.
    d.wait_state("stubborn", "stopped");
    assert_eq!(d.processes_with("782001"), [] as [u32; 0]);
    d.shutdown();
}

#[test]
fn a_shutdown_survives_the_death_of_its_manager() {
    let mut d = Daemon::start(&service(
        "stubborn",
        "trap '' TERM; echo up > up; while :; do sleep 783001; done",
        "stop-timeout = \"2s\"\n",
    ));
    wait_for("the trap", LATER, || (!d.lines("up").is_empty()).then_some(()));
    let manager = d.manager();
    signal(d.keeper(), Signal::SIGTERM);
    d.wait_state("stubborn", "stopping");
    signal(manager, Signal::SIGKILL);
    let status = d.wait_exit(LATER);
    assert_eq!(status.code(), Some(0), "{status}\n{}", d.output());
    d.assert_nothing_left();
}
