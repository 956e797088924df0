//! What follows the end of a service: backoff, breaker, policy, and what people do meanwhile.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Daemon, LATER, SOON, Setup, holds_for, is_alive, service, signal, wait_for};
use nix::sys::signal::Signal;
use std::time::Duration;

/// Notes each run in the file `runs`, in nanoseconds.
const NOTED: &str = "date +%s%N >> runs; ";

#[test]
fn a_killed_service_comes_back_with_a_new_run() {
    let d = Daemon::start(&service("web", "exec sleep 1000", "backoff = { delay = \"10ms\" }\n"));
    let pid = d.wait_running("web");
    let run = d.service("web")["run_id"].as_u64().unwrap();
    signal(pid, Signal::SIGKILL);
    let web = d.wait_service("web", "a successor", |s| s["state"] == "running" && s["run_id"] != run);
    assert_ne!(web["pid"], pid);
    assert!(web["run_id"].as_u64().unwrap() > run);
    assert_eq!(web["restarts"], 1);
    assert_eq!(web["last_exit"]["signal"], "SIGKILL");
    assert_eq!(web["last_exit"]["run_id"], run);
    d.shutdown();
}

#[test]
fn a_crash_loop_backs_off_and_then_opens_the_breaker() {
    let more = "backoff = { delay = \"100ms\", factor = 2.0, max = \"250ms\", jitter = 0.0 }\n\
                breaker = { failures = 5, within = \"1m\", retry-every = \"never\" }\n";
    let d = Daemon::start(&service("crashing", &format!("{NOTED}exit 3"), more));
    let crashing = d.wait_state("crashing", "failed");
    assert_eq!(crashing["desired"], "up");
    assert_eq!(crashing["last_exit"]["code"], 3);
    assert_eq!(crashing["consecutive_failures"], 5);
    assert_eq!(crashing["restarts"], 4);
    assert!(!crashing["reason"].as_str().unwrap().is_empty());
    holds_for("an open breaker starts nothing", Duration::from_millis(800), || d.lines("runs").len() != 5);

    let starts: Vec<u64> = d.lines("runs").iter().map(|l| l.parse().unwrap()).collect();
    for (pair, delay_ms) in starts.windows(2).zip([100, 200, 250, 250]) {
        let gap = (pair[1] - pair[0]) / 1_000_000;
        // `date` is the first thing that a run does, so its own start-up is in every gap alike, but for noise.
        assert!(gap + 15 >= delay_ms, "started {gap} ms after the run before; the backoff was {delay_ms} ms");
    }

    // An operator's word forgets the failures. Its command is exec'ed, so the start itself succeeds.
    d.ctl_ok(&["start", "crashing"]);
    wait_for("the new attempts to fail as well", LATER, || (d.lines("runs").len() == 10).then_some(()));
    d.wait_state("crashing", "failed");
    d.shutdown();
}

#[test]
fn an_open_breaker_retries_as_configured() {
    let more = "backoff = { delay = \"1ms\", max = \"1ms\", jitter = 0.0 }\n\
                breaker = { failures = 2, within = \"1m\", retry-every = \"400ms\" }\n";
    let d =
        Daemon::start(&service("crashing", &format!("{NOTED}[ -e well ] && exec sleep 1000; exit 1"), more));
    d.wait_state("crashing", "failed");
    wait_for("two retries", LATER, || (d.lines("runs").len() >= 4).then_some(()));
    let starts: Vec<u64> = d.lines("runs").iter().map(|l| l.parse().unwrap()).collect();
    assert!(starts[3] - starts[2] >= 385_000_000, "retried after {} ns", starts[3] - starts[2]);
    std::fs::write(d.path().join("well"), "").unwrap();
    let well = d.wait_state("crashing", "running");
    assert_eq!(well["ready"], true);
    d.shutdown();
}

#[test]
fn stop_during_backoff_is_at_once_and_for_good() {
    let more = "backoff = { delay = \"60s\", max = \"60s\", jitter = 0.0 }\n";
    let d = Daemon::start(&service("crashing", &format!("{NOTED}exit 1"), more));
    let crashing = d.wait_state("crashing", "backoff");
    let due = crashing["next_start_in_ms"].as_u64().unwrap();
    assert!(due > 30_000 && due <= 60_000, "{due}");
    d.ctl_ok(&["stop", "crashing"]);
    let stopped = d.service("crashing");
    assert_eq!((stopped["state"].as_str(), stopped["desired"].as_str()), (Some("stopped"), Some("down")));
    assert!(stopped["next_start_in_ms"].is_null());
    holds_for("it stays stopped", Duration::from_millis(300), || d.lines("runs").len() != 1);
    d.shutdown();
}

#[test]
fn start_during_backoff_does_not_wait_for_it() {
    let more = "backoff = { delay = \"10m\", max = \"10m\" }\nbreaker = { within = \"1d\" }\n";
    let script = format!("{NOTED}[ -e well ] && exec sleep 1000; exit 1");
    let d = Daemon::start(&service("crashing", &script, more));
    d.wait_state("crashing", "backoff");
    std::fs::write(d.path().join("well"), "").unwrap();
    d.ctl_ok(&["start", "crashing"]);
    let well = d.service("crashing");
    assert_eq!(well["state"], "running");
    assert_eq!(well["consecutive_failures"], 0);
    d.shutdown();
}

#[test]
fn the_policy_decides_which_ends_are_followed_by_a_start() {
    let quick =
        "backoff = { delay = \"1ms\", max = \"1ms\" }\nbreaker = { failures = 3, retry-every = \"never\" }\n";
    let script = |n: &str, end: &str| format!("echo run >> runs.{n}; {end}");
    let one = |n: &str, end: &str, more: &str| service(n, &script(n, end), &format!("{more}\n{quick}"));
    let services = one("never", "exit 1", "restart = \"never\"")
        + &one("clean", "exit 0", "restart = \"on-failure\"")
        + &one("always", "exit 0", "restart = \"always\"")
        + &one("final", "exit 78", "restart = \"always\"\nno-restart-exit = [78]")
        + &one("success", "exit 3", "success-exit = [0, 3]")
        + &one("signal", "kill -TERM $$", "success-exit = [\"SIGTERM\"]");
    let d = Daemon::start(&services);
    wait_for("`always` to run again and again", LATER, || (d.lines("runs.always").len() >= 3).then_some(()));
    for name in ["never", "clean", "final", "success", "signal"] {
        d.wait_service(name, "its end", |s| !s["last_exit"].is_null() && s["pid"].is_null());
    }
    let single = || {
        ["never", "clean", "final", "success", "signal"]
            .iter()
            .any(|n| d.lines(&format!("runs.{n}")).len() != 1)
    };
    holds_for("ends that are final", Duration::from_millis(300), single);
    for name in ["clean", "success", "signal"] {
        let s = d.service(name);
        assert_eq!(
            (s["state"].as_str(), s["consecutive_failures"].as_u64()),
            (Some("exited"), Some(0)),
            "{name}"
        );
    }
    d.shutdown();
}

#[test]
fn start_stop_and_restart_from_many_sides_never_run_it_twice() {
    // The lock is the first thing that a run takes, once it is sure to give it back.
    let script = "trap 'rmdir lock; exit 0' TERM; mkdir lock || echo double >> double; \
                  while :; do sleep 774001 & wait $!; done";
    let d = Daemon::start(&service("web", script, "stop-timeout = \"30s\"\n"));
    d.wait_running("web");
    std::thread::scope(|scope| {
        for (turn, verbs) in [["stop", "start"], ["restart", "restart"], ["start", "stop"]].iter().enumerate()
        {
            let d = &d;
            scope.spawn(move || {
                for i in 0..12 {
                    let done = d.ctl(&[verbs[i % 2], "web"]);
                    let code = done.status.code();
                    assert!(matches!(code, Some(0 | 1)), "thread {turn}: {code:?} {}", common::text(&done));
                }
            });
        }
    });
    d.ctl_ok(&["start", "web"]);
    let pid = d.pid("web");
    assert!(is_alive(pid));
    assert_eq!(d.lines("double"), [] as [String; 0], "two runs at once");
    d.ctl_ok(&["stop", "web"]);
    assert_eq!(d.processes_with("774001"), [] as [u32; 0]);
    d.shutdown();
}

#[test]
fn restart_gives_a_new_process_and_forgets_nothing_else() {
    let d =
        Daemon::start(&(service("web", "exec sleep 1000", "") + &service("other", "exec sleep 1000", "")));
    let (web, other) = (d.wait_running("web"), d.wait_running("other"));
    d.ctl_ok(&["restart", "web"]);
    let after = d.service("web");
    assert_ne!(after["pid"], web);
    assert_eq!(after["state"], "running");
    assert_eq!(after["restarts"], 0, "a restart by hand is no automatic one");
    assert!(!is_alive(web));
    assert_eq!(d.pid("other"), other);
    d.shutdown();
}

#[test]
fn what_is_bound_to_a_service_restarts_along_with_it() {
    let quick = "backoff = { delay = \"1ms\" }\n";
    let services = service("db", "exec sleep 1000", quick)
        + &service("web", "exec sleep 1000", &format!("binds-to = [\"db\"]\n{quick}"))
        + &service("loose", "exec sleep 1000", &format!("requires = [\"db\"]\n{quick}"));
    let d = Daemon::start(&services);
    let (db, web, loose) = (d.wait_running("db"), d.wait_running("web"), d.wait_running("loose"));
    signal(db, Signal::SIGKILL);
    d.wait_service("web", "a new run", |s| s["state"] == "running" && s["pid"] != web);
    assert_ne!(d.wait_running("db"), db);
    wait_for("the old web to be gone", SOON, || (!is_alive(web)).then_some(()));
    assert_eq!(d.pid("loose"), loose, "`requires` is about starting, not about crashes");
    d.shutdown();
}

#[test]
fn check_explains_the_start_order_and_the_timetable_of_restarts() {
    let web = "requires = [\"db\"]\nafter = [\"setup\"]\nbackoff = { jitter = 0.0 }\n";
    let services = service("web", "exit 1", web)
        + &service("db", "exit 1", "restart = \"never\"\n")
        + &service("setup", "exit 0", "type = \"oneshot\"\nschedule = \"@daily\"\n");
    let d = Setup { services: &services, ..Setup::default() }.prepare();
    let config = d.config.display().to_string();
    let said = d.ctl_ok(&["check", &config, "--explain", "web"]);
    for line in [
        "  start order  db, setup, web\n",
        "  ready        as soon as its command is executed\n",
        "  restarts     when it fails after 500ms, 1s, 2s, 4s, 8s, 16s, 30s, 30s, ...; opens after 10 failures within \
         10m, about 2m1.5s if each run fails at once; then one retry every 5m; a run of 1m forgets them\n",
        "  stop         SIGTERM; after 10s SIGKILL to all of it\n",
    ] {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert!(d.ctl_ok(&["check", &config, "--explain", "db"]).contains("  restarts     never\n"));
    assert!(d.ctl_ok(&["check", &config, "--explain", "setup"]).contains("at `@daily`, local time"));
    d.ctl_fails(4, &["check", &config, "--explain", "nobody"]);
}
