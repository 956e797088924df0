//! Output from the service's write to the file and back through keepctl: whole, in order, over rotations.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Daemon, LATER, SOON, rotated, service, signal, wait_for};
use nix::sys::signal::Signal;
use std::{
    io::{BufRead, BufReader},
    process::Stdio,
};

/// Writes lines 1..=n with their number and some width.
fn numbered(n: u32) -> String {
    format!(
        "i=0; while [ $i -lt {n} ]; do i=$((i+1)); echo \"line $i ........................................\"; done; "
    )
}

fn assert_numbered(text: &str, n: u32) {
    let numbers: Vec<u32> =
        text.lines().filter_map(|l| l.strip_prefix("line ")?.split(' ').next()?.parse().ok()).collect();
    let wrong = numbers.iter().zip(1..).position(|(found, wanted)| *found != wanted);
    assert_eq!(wrong, None, "out of order or lost at line {wrong:?}");
    assert_eq!(numbers.len(), n as usize, "lines are missing at the end");
    let torn = text.lines().find(|l| l.starts_with("line ") && !l.ends_with("....."));
    assert_eq!(torn, None, "a torn line");
}

#[test]
fn stdout_and_stderr_are_kept_in_the_order_they_were_written() {
    let script = "echo one; echo two >&2; echo three; printf 'no newline'; exit 0";
    let d = Daemon::start(&service("web", script, "restart = \"never\"\n"));
    d.wait_state("web", "exited");
    let log = d.wait_log("web", "no newline");
    assert_eq!(log.trim_end(), "one\ntwo\nthree\nno newline");
    let shown = d.ctl_ok(&["logs", "web"]);
    assert_eq!(shown.lines().collect::<Vec<_>>(), ["one", "two", "three", "no newline"]);
    assert_eq!(d.ctl_ok(&["logs", "-n", "2", "web"]).lines().collect::<Vec<_>>(), ["three", "no newline"]);
    d.shutdown();
}

#[test]
fn rotation_cuts_at_lines_and_loses_none() {
    let n = 20_000;
    let more = "restart = \"never\"\nlogs = { max-size = \"64KiB\", keep = 1000, compress = \"none\" }\n";
    let d = Daemon::start(&service("writer", &numbered(n), more));
    d.wait_state("writer", "exited");
    d.wait_log("writer", &format!("line {n} "));
    assert_numbered(&d.log("writer"), n);
    let files = rotated(&d.path().join("log/writer"));
    assert!(files.len() >= 10, "only {} rotated files", files.len());
    for file in &files {
        let text = std::fs::read_to_string(file).unwrap();
        assert!(
            text.ends_with('\n') && text.starts_with("line "),
            "{} begins or ends within a line",
            file.display()
        );
        assert!(text.len() >= 64 << 10, "{} was rotated early: {} bytes", file.display(), text.len());
    }
    let counters = d.service("writer")["log"].clone();
    assert_eq!(counters["bytes_in"], counters["bytes_written"]);
    assert_eq!(counters["bytes_written"].as_u64().unwrap(), d.log("writer").len() as u64);
    assert_eq!(counters["bytes_dropped"], 0);
    // The reader crosses files too.
    let shown = d.ctl_ok(&["logs", "-n", "5000", "writer"]);
    assert_eq!(shown.lines().count(), 5000);
    assert!(shown.starts_with(&format!("line {} ", n - 4999)), "{}", &shown[..40]);
    d.shutdown();
}

#[test]
fn old_files_are_deleted_and_only_old_ones() {
    let more = "restart = \"never\"\nlogs = { max-size = \"32KiB\", keep = 3 }\n";
    let d = Daemon::start(&service("writer", &numbered(10_000), more));
    d.wait_state("writer", "exited");
    d.wait_log("writer", "line 10000 ");
    let files = wait_for("three rotated files", SOON, || {
        let files = rotated(&d.path().join("log/writer"));
        (files.len() == 3).then_some(files)
    });
    let text = d.log("writer");
    let first: u32 = text.split(' ').nth(1).unwrap().parse().unwrap();
    assert!(first > 1 && text.lines().count() == (10_001 - first) as usize, "{files:?} are not the newest");
    d.shutdown();
}

#[test]
fn following_crosses_rotations_and_restarts() {
    let n = 6000;
    let script = format!(
        "echo hello; while [ ! -e go ]; do sleep 0.02; done; [ -e done ] && exec sleep 1000; {}\ntouch done; exit 1",
        numbered(n)
    );
    let more =
        "logs = { max-size = \"16KiB\", keep = 1000, compress = \"none\" }\nbackoff = { delay = \"1ms\" }\n";
    let d = Daemon::start(&service("writer", &script, more));
    d.wait_log("writer", "hello");
    let mut follower = d
        .ctl_command(None, &["logs", "-f", "-n", "1", "writer"])
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let (send, lines) = std::sync::mpsc::channel();
    let stdout = BufReader::new(follower.stdout.take().unwrap());
    let reader = std::thread::spawn(move || {
        for line in stdout.lines().map_while(Result::ok) {
            if send.send(line).is_err() {
                return;
            }
        }
    });
    // Its first line is there, so it follows.
    assert_eq!(lines.recv_timeout(LATER).unwrap(), "hello");
    std::fs::write(d.path().join("go"), "").unwrap();
    let mut seen = String::new();
    for i in 1..=n {
        let line = lines.recv_timeout(LATER).unwrap_or_else(|e| panic!("line {i}: {e}"));
        seen += &line;
        seen.push('\n');
    }
    signal(follower.id(), Signal::SIGTERM);
    follower.wait().unwrap();
    reader.join().unwrap();
    assert_numbered(&seen, n);
    d.shutdown();
}

#[test]
fn stderr_can_have_a_log_of_its_own_or_none() {
    let script = "echo out; echo err >&2; exec sleep 1000";
    let services = service("apart", script, "logs = { stderr = \"separate\" }\n")
        + &service("half", script, "logs = { stderr = \"discard\" }\n")
        + &service("silent", script, "logs = { stdout = \"discard\", stderr = \"discard\" }\n");
    let d = Daemon::start(&services);
    d.wait_log("apart", "out");
    d.wait_log("apart/stderr", "err");
    assert_eq!(d.log("apart"), "out\n");
    assert_eq!(d.log("apart/stderr"), "err\n");
    d.wait_log("half", "out");
    assert_eq!(d.log("half"), "out\n");
    let pid = d.wait_running("silent");
    for fd in [1, 2] {
        let target = std::fs::read_link(format!("/proc/{pid}/fd/{fd}")).unwrap();
        assert_eq!(target.to_str(), Some("/dev/null"));
    }
    assert!(d.service("silent")["log"]["file"].is_null());
    d.shutdown();
}

#[test]
fn output_of_many_runs_is_one_log() {
    let script = "echo run >> runs; echo \"run $(wc -l < runs)\"; \
                  [ $(wc -l < runs) -lt 20 ] && exit 1; exec sleep 1000";
    let more = "backoff = { delay = \"1ms\", max = \"5ms\" }\nbreaker = { failures = 100 }\n";
    let d = Daemon::start(&service("web", script, more));
    let log = d.wait_log("web", "run 20\n");
    let wanted: Vec<String> = (1..=20).map(|i| format!("run {i}")).collect();
    assert_eq!(log.lines().collect::<Vec<_>>(), wanted);
    d.shutdown();
}

#[test]
fn sigusr1_reopens_files_that_others_have_moved() {
    let d = Daemon::start(&service(
        "web",
        "echo before; trap 'echo after' USR1; while :; do sleep 100 & wait $!; done",
        "",
    ));
    d.wait_log("web", "before");
    let folder = d.path().join("log/web");
    std::fs::rename(folder.join("current"), d.path().join("moved")).unwrap();
    signal(d.keeper(), Signal::SIGUSR1);
    wait_for("a fresh file that is used", SOON, || {
        d.ctl_ok(&["signal", "SIGUSR1", "web"]);
        std::fs::read_to_string(folder.join("current")).ok()?.starts_with("after\n").then_some(())
    });
    assert!(std::fs::read_to_string(d.path().join("moved")).unwrap().starts_with("before\n"));
    d.shutdown();
}

#[test]
fn a_flood_in_one_service_holds_nothing_else_up() {
    let services =
        service("flood", "exec yes flood flood flood flood", "logs = { max-size = \"4MiB\", keep = 2 }\n")
            + &service("web", "exec sleep 1000", "");
    let d = Daemon::start(&services);
    d.wait_running("flood");
    d.wait_running("web");
    for _ in 0..3 {
        d.ctl_ok(&["restart", "web"]);
    }
    wait_for("a flood", LATER, || (d.service("flood")["log"]["bytes_in"].as_u64()? > 64 << 20).then_some(()));
    let log = d.service("flood")["log"].clone();
    assert_eq!(log["lines_dropped"], 0);
    d.ctl_ok(&["stop", "flood"]);
    d.shutdown();
}

#[test]
fn lines_can_have_their_time_or_be_json() {
    let script = "echo one; printf 'two'; echo bad >&2; exit 0";
    let more = |format: &str| {
        format!("restart = \"never\"\nlogs = {{ format = \"{format}\", stderr = \"separate\" }}\n")
    };
    let d = Daemon::start(
        &(service("stamped", script, &more("timestamp")) + &service("json", script, &more("json"))),
    );
    let stamped = d.wait_log("stamped", "two\n");
    assert_eq!(stamped.lines().map(|l| &l[26..]).collect::<Vec<_>>(), ["Z one", "Z two"], "{stamped}");
    let parse = |text: String| -> Vec<serde_json::Value> {
        text.lines().map(|l| serde_json::from_str(l).unwrap()).collect()
    };
    let lines = parse(d.wait_log("json", "two"));
    assert_eq!((&lines[1]["stream"], &lines[1]["message"]), (&"stdout".into(), &"two".into()));
    let lines = parse(d.wait_log("json/stderr", "bad"));
    assert_eq!(lines[0]["stream"], "stderr");
    assert_eq!(d.service("json")["log"]["bytes_in"], 11);
    d.shutdown();
}

/// What is said on the way out is kept, however much it is.
#[test]
fn output_after_the_request_to_stop_is_kept() {
    let script = format!("trap '{}exit 0' TERM; echo up; while :; do sleep 0.05; done", numbered(20_000));
    let d = Daemon::start(&service("web", &script, "stop-timeout = \"1m\"\n"));
    d.wait_log("web", "up\n");
    d.ctl_ok(&["stop", "web"]);
    d.wait_log("web", "line 20000 ");
    assert_numbered(d.log("web").strip_prefix("up\n").unwrap(), 20_000);
    d.shutdown();
}

/// O_NONBLOCK belongs to the open file: set on our end, it must not be on the service's.
#[test]
fn the_pipes_of_a_service_block() {
    let d = Daemon::start(&service(
        "web",
        "grep flags /proc/self/fdinfo/1 /proc/self/fdinfo/2; exec sleep 1000",
        "",
    ));
    let log = d.wait_log("web", "fdinfo/2");
    for line in log.lines() {
        let flags = u32::from_str_radix(line.rsplit('\t').next().unwrap(), 8).unwrap();
        assert_eq!(flags & 0o4000, 0, "{line}");
    }
    d.shutdown();
}
