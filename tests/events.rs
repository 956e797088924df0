//! Events over a manager's death: none is missing and none comes twice.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Daemon, LATER, service, signal, wait_for};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::{
    io::{BufRead, BufReader},
    process::Stdio,
    sync::mpsc,
};

fn events(d: &Daemon) -> Vec<Value> {
    d.ctl_ok(&["events", "--json"]).lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

/// War story 43: what was told before the supervisor was replaced is not forgotten, and who follows loses nothing.
#[test]
fn a_follower_and_a_latecomer_miss_nothing_when_the_manager_dies() {
    let more = "backoff = { delay = \"1ms\", max = \"1ms\", jitter = 0.0 }\n";
    let d = Daemon::start(&service("web", "exec sleep 1000", more));
    let first = d.wait_running("web");
    let mut command = d.ctl_command(None, &["events", "-f", "-n", "1000", "--json"]);
    let mut follower = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let (tell, told) = mpsc::channel();
    let lines = BufReader::new(follower.stdout.take().unwrap()).lines();
    let reader = std::thread::spawn(move || {
        for line in lines.map_while(Result::ok) {
            if tell.send(serde_json::from_str::<Value>(&line).unwrap()).is_err() {
                return;
            }
        }
    });
    let mut seen: Vec<Value> = Vec::new();
    let mut until = |what: &str, fits: &dyn Fn(&Value) -> bool| {
        while !seen.last().is_some_and(fits) {
            seen.push(told.recv_timeout(LATER).unwrap_or_else(|e| panic!("{what}: {e}; {seen:#?}")));
        }
        seen.clone()
    };
    until("the service runs", &|e| e["state"] == "running");
    signal(d.manager(), Signal::SIGKILL);
    signal(first, Signal::SIGKILL);
    let seen = until("its successor runs", &|e| {
        e["state"] == "running" && e["message"] != Value::Null && { e["run_id"].as_u64().unwrap() > 1 }
    });
    let ids: Vec<u64> = seen.iter().map(|e| e["id"].as_u64().unwrap()).collect();
    assert!(ids.windows(2).all(|w| w[0] + 1 == w[1]), "{ids:?}");
    let kinds: Vec<&str> = seen.iter().map(|e| e["kind"].as_str().unwrap()).collect();
    assert!(
        kinds.contains(&"manager") && kinds.contains(&"exit") && kinds.contains(&"incident"),
        "{kinds:?}"
    );
    let incident = seen.iter().find(|e| e["kind"] == "incident").unwrap();
    assert_eq!(incident["exit"]["signal"], "SIGKILL");
    assert!(incident["next"]["what"].as_str().unwrap().starts_with("it is started again"), "{incident}");
    let all = events(&d);
    assert_eq!(all[..seen.len().min(all.len())], seen[..], "who comes late sees the same");
    d.ctl_ok(&["stop", "web"]);
    wait_for("the follower", LATER, || told.recv_timeout(LATER).ok().filter(|e| e["state"] == "stopped"));
    d.shutdown();
    assert_eq!(follower.wait().unwrap().code(), Some(69), "the end of keepd is the end of the stream");
    reader.join().unwrap();
}
