//! keepctl and the HTTP API as callers see them: answers, refusals, exit statuses, and who may do what.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Daemon, LATER, SOON, STRANGER, Setup, is_root, service, skip, text, wait_for};
use serde_json::Value;
use std::{io::Read, os::unix::net::UnixStream};

#[test]
fn requests_that_fit_no_route_are_refused_as_problems() {
    let d = Daemon::start(&service("web", "exec sleep 1000", ""));
    d.wait_running("web");
    for (method, target, body, wanted) in [
        ("GET", "/v1/services/nobody", "", 404),
        ("POST", "/v1/services/nobody/stop", "", 404),
        ("GET", "/v1/nothing", "", 404),
        ("POST", "/v1/status", "", 405),
        ("GET", "/v1/services/web/stop", "", 405),
        ("DELETE", "/v1/services/web", "", 405),
        ("POST", "/v1/services/web/stop?wiat=true", "", 422),
        ("POST", "/v1/services/web/stop?timeout=soon", "", 422),
        ("POST", "/v1/services/web/signal", "{\"signal\":\"SIGNONSENSE\"}", 422),
        ("POST", "/v1/services/web/signal", "{\"sig\":\"SIGHUP\"}", 422),
        ("POST", "/v1/services/web/signal", "not json", 422),
    ] {
        let (code, answer) = d.http(method, target, body);
        assert_eq!(code, wanted, "{method} {target}: {answer}");
        let problem: Value =
            serde_json::from_str(&answer).unwrap_or_else(|e| panic!("{target}: {e}: {answer}"));
        assert_eq!(problem["status"], wanted, "{problem}");
        assert!(problem["detail"].as_str().is_some_and(|t| !t.is_empty()), "{problem}");
    }
    let (code, _) =
        d.http("POST", "/v1/services/web/signal", &format!("{{\"signal\":\"{}\"}}", "x".repeat(4 << 20)));
    assert_eq!(code, 413);
    assert_eq!(d.service("web")["state"], "running", "a refused request did something");
    assert_eq!(d.http("GET", "/healthz", "").0, 200);
    assert_eq!(d.http("GET", "/readyz", "").0, 200);
    d.shutdown();
}

#[test]
fn actions_answer_with_their_outcome() {
    let d = Daemon::start(&service("web", "exec sleep 1000", ""));
    d.wait_running("web");
    let act = |verb: &str| {
        let (code, body) = d.http("POST", &format!("/v1/services/web/{verb}"), "");
        (
            code,
            serde_json::from_str::<Value>(&body).unwrap()["results"][0]["outcome"]
                .as_str()
                .map(str::to_owned),
        )
    };
    assert_eq!(act("stop"), (200, Some("done".into())));
    assert_eq!(d.service("web")["state"], "stopped");
    assert_eq!(act("start"), (200, Some("done".into())));
    assert_eq!(d.service("web")["state"], "running");
    let before = d.pid("web");
    assert_eq!(act("restart?wait=false").1, Some("accepted".into()));
    d.wait_service("web", "a new run", |s| s["state"] == "running" && s["pid"] != before);
    d.shutdown();
}

#[test]
fn keepctl_ends_with_the_status_that_scripts_rely_on() {
    let services = service("web", "exec sleep 1000", "")
        + &service("idle", "exec sleep 1000", "autostart = false\n")
        + "[service.lost]\ncommand = [\"/nonexistent\"]\nautostart = false\nrestart = \"never\"\n";
    let d = Daemon::start(&services);
    d.wait_running("web");
    d.ctl_ok(&["status", "web"]);
    d.ctl_fails(3, &["status", "idle"]);
    let said = d.ctl_fails(4, &["status", "nobody"]);
    assert!(said.contains("nobody"), "{said}");
    d.ctl_fails(4, &["stop", "nobody"]);
    assert_eq!(d.service("web")["state"], "running");
    d.ctl_fails(1, &["start", "lost"]);
    d.ctl_fails(2, &["start"]);
    d.ctl_fails(2, &["frobnicate"]);
    d.ctl_ok(&["--help"]);
    assert!(d.ctl_ok(&["--version"]).contains(env!("CARGO_PKG_VERSION")));
    let listed: Value = serde_json::from_str(&d.ctl_ok(&["status", "web", "--json"])).unwrap();
    assert!(listed.to_string().contains("\"running\""), "{listed}");
    let table = text(&d.ctl(&["status"]));
    for name in ["web", "idle", "lost"] {
        assert!(table.contains(name), "{table}");
    }
    assert!(!table.contains('\x1b'), "colours off a terminal: {table:?}");

    let elsewhere = d.path().join("nothing.sock");
    let mut away = Setup { services: "", ..Setup::default() }.prepare();
    away.socket = elsewhere;
    let said = away.ctl_fails(69, &["status"]);
    assert!(said.contains("nothing.sock"), "{said}");
    d.shutdown();
}

#[test]
fn only_those_who_may_can_look_and_act() {
    if !is_root() {
        return skip("needs root to call as somebody else");
    }
    let services = service("web", "exec sleep 1000", "");
    let d = Daemon::start(&services);
    d.wait_running("web");
    for words in [&["status"][..], &["stop", "web"], &["shutdown"], &["logs", "web"], &["apply"]] {
        let done = d.ctl_as(Some(STRANGER), words);
        assert_eq!(done.status.code(), Some(77), "{words:?}: {}", text(&done));
    }
    d.shutdown();

    let d = Setup { services: &services, api: "readers = [\"*\"]", ..Setup::default() }.start();
    let pid = d.wait_running("web");
    let looked = d.ctl_as(Some(STRANGER), &["status", "web"]);
    assert_eq!(looked.status.code(), Some(0), "{}", text(&looked));
    for words in
        [&["stop", "web"][..], &["restart", "web"], &["signal", "KILL", "web"], &["shutdown"], &["apply"]]
    {
        let done = d.ctl_as(Some(STRANGER), words);
        assert_eq!(done.status.code(), Some(77), "{words:?}: {}", text(&done));
    }
    assert_eq!(d.pid("web"), pid);
    d.shutdown();

    let d = Setup { services: &services, api: "admins = [\"games\"]", ..Setup::default() }.start();
    d.wait_running("web");
    let (games, _) = common::passwd("games").unwrap();
    let done = d.ctl_as(Some(games), &["stop", "web"]);
    assert_eq!(done.status.code(), Some(0), "{}", text(&done));
    assert_eq!(d.service("web")["state"], "stopped");
    d.shutdown();
}

#[test]
fn events_tell_what_happened_in_order() {
    let d = Daemon::start(&service("web", "exec sleep 1000", ""));
    let pid = d.wait_running("web");
    d.ctl_ok(&["restart", "web"]);
    let (code, stream) = d.http("GET", "/v1/events?follow=false", "");
    assert_eq!(code, 200, "{stream}");
    let events: Vec<Value> =
        stream.lines().filter_map(|l| serde_json::from_str(l.strip_prefix("data:")?.trim()).ok()).collect();
    let ids: Vec<u64> = events.iter().map(|e| e["id"].as_u64().unwrap()).collect();
    assert!(ids.windows(2).all(|w| w[0] < w[1]), "{ids:?}");
    let ends: Vec<&Value> = events.iter().filter(|e| e["kind"] == "exit" && e["service"] == "web").collect();
    assert_eq!(ends.len(), 1, "one run has ended: {events:#?}");
    assert_eq!(ends[0]["exit"]["signal"], "SIGTERM");
    assert_ne!(d.pid("web"), pid);
    assert!(d.ctl_ok(&["events"]).contains("web"));
    d.shutdown();
}

#[test]
fn signals_and_reloads_reach_the_main_process() {
    let script = "trap 'echo usr1 >> got' USR1; trap 'echo hup >> got' HUP; echo up > up; \
                  while :; do sleep 100 & wait $!; done";
    let services = service("web", script, "")
        + "[service.refusing]\ncommand = [\"/bin/sleep\", \"1000\"]\n\
           reload-command = [\"/bin/sh\", \"-c\", \"exit 3\"]\n"
        + "[service.agreeing]\ncommand = [\"/bin/sleep\", \"1000\"]\nreload-command = [\"/bin/touch\", \"reloaded\"]\n"
        + &service("idle", "exec sleep 1000", "autostart = false\n");
    let d = Daemon::start(&services);
    wait_for("the traps", SOON, || (!d.lines("up").is_empty()).then_some(()));
    let pid = d.wait_running("web");
    d.ctl_ok(&["signal", "SIGUSR1", "web"]);
    wait_for("SIGUSR1", SOON, || (d.lines("got") == ["usr1"]).then_some(()));
    d.ctl_ok(&["reload", "web"]);
    wait_for("SIGHUP", SOON, || (d.lines("got") == ["usr1", "hup"]).then_some(()));
    assert_eq!(d.pid("web"), pid);
    d.wait_running("refusing");
    d.wait_running("agreeing");
    let said = d.ctl_fails(1, &["reload", "refusing"]);
    assert!(said.contains('3'), "the status is not told: {said}");
    d.ctl_ok(&["reload", "agreeing"]);
    assert!(d.path().join("reloaded").exists());
    d.ctl_fails(1, &["signal", "SIGUSR1", "idle"]);
    d.shutdown();
}

#[test]
fn idle_and_half_open_connections_hold_nobody_up() {
    let d = Daemon::start(&service("web", "exec sleep 1000", ""));
    d.wait_running("web");
    let mut held = Vec::new();
    for i in 0..100 {
        let Ok(mut stream) = UnixStream::connect(&d.socket) else { break };
        if i % 2 == 0 {
            use std::io::Write;
            let _ = stream.write_all(b"GET /v1/status HTTP/1.1\r\nHost: x\r\n");
        }
        held.push(stream);
    }
    assert!(held.len() >= 32, "only {} connections were taken", held.len());
    drop(held.split_off(held.len() / 2));
    wait_for("an answer beside them", LATER, || {
        let (code, _) = d.try_get("/v1/status").ok()?;
        (code == 200).then_some(())
    });
    d.ctl_ok(&["restart", "web"]);
    // Those that never finish their request are sent away in the end; until then they may stay.
    for stream in &mut held {
        stream.set_nonblocking(true).unwrap();
        let mut byte = [0];
        let _ = stream.read(&mut byte);
    }
    d.shutdown();
}
