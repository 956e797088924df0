//! Hooks through the real daemon: commands and receivers that behave, and that do not.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Daemon, LATER, is_alive, service, sh, signal, wait_for};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::{
    fs,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::mpsc,
};

const AT_ONCE: &str = "backoff = { delay = \"1ms\", max = \"1ms\", jitter = 0.0 }\n";

/// `[hook.pager]` whose command is this script; as root, it is root's.
fn pager(on: &str, script: &str, more: &str) -> String {
    let user = if common::is_root() { "user = \"root\"\n" } else { "" };
    format!("[hook.pager]\non = [{on}]\n{}{user}{more}\n", sh(script).replacen("command", "exec", 1))
}

fn events(d: &Daemon) -> Vec<Value> {
    d.ctl_ok(&["events", "--json"]).lines().map(|l| serde_json::from_str(l).unwrap()).collect()
}

/// Waits for an event of kind `hook` that says this.
fn trouble(d: &Daemon, what: &str) -> Value {
    wait_for(&format!("an event of a hook: {what}"), LATER, || {
        events(d).into_iter().find(|e| e["kind"] == "hook" && e["message"].as_str().unwrap().contains(what))
    })
}

/// A receiver on this host: for each request that `answer` is called for, head and body.
fn receiver(
    answer: impl Fn(&mut TcpStream, u32) + Send + 'static,
) -> (String, mpsc::Receiver<(String, Value)>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook?from=keepd", listener.local_addr().unwrap());
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        for (n, stream) in (0..).zip(listener.incoming()) {
            let mut stream = stream.unwrap();
            let mut text = Vec::new();
            let mut byte = [0];
            let body = |text: &[u8]| text.windows(4).position(|w| w == b"\r\n\r\n").map(|at| at + 4);
            let length = |head: &str| {
                let line = head
                    .lines()
                    .find_map(|l| l.to_lowercase().strip_prefix("content-length: ").map(str::to_owned));
                line.map_or(0, |n| n.trim().parse::<usize>().unwrap())
            };
            while stream.read(&mut byte).is_ok_and(|n| n == 1) {
                text.push(byte[0]);
                if let Some(at) = body(&text) {
                    let head = String::from_utf8_lossy(&text[..at]).into_owned();
                    if text.len() == at + length(&head) {
                        let _ = tell.send((head, serde_json::from_slice(&text[at..]).unwrap()));
                        break;
                    }
                }
            }
            answer(&mut stream, n);
        }
    });
    (url, told)
}

#[test]
fn a_command_gets_the_event_on_stdin_and_its_service_as_an_argument() {
    let web = service("web", "exec sleep 1000", "restart = \"never\"\n");
    let d = Daemon::start(&web);
    let root = d.path().display();
    let script = format!("cd {root}; cat > event.new; echo \"for $1\" > args; mv event.new event.json");
    let hook = pager("\"incident\"", &script, "");
    let named = hook.replacen("event.json\"]", "event.json\", \"sh\", \"${name}\"]", 1);
    assert_ne!(hook, named);
    d.write_config(&(named + &web));
    d.ctl_ok(&["apply"]);
    signal(d.wait_running("web"), Signal::SIGKILL);
    let event = wait_for("the hook", LATER, || fs::read_to_string(d.path().join("event.json")).ok());
    let event: Value = serde_json::from_str(&event).unwrap();
    assert_eq!((&event["kind"], &event["service"]), (&"incident".into(), &"web".into()));
    assert_eq!(event["exit"]["signal"], "SIGKILL");
    assert_eq!(d.lines("args"), ["for web"]);
    d.shutdown();
}

/// War story 59: a notification script that forks, prints without end or never ends holds nobody up.
#[test]
fn a_command_that_forks_floods_fails_or_hangs_is_ended_and_told() {
    let folder = |d: &Daemon| d.path().join("log/hook:pager");
    let hooks = |script: &str, timeout: &str| {
        pager("\"exit\"", script, &format!("timeout = \"{timeout}\"\n"))
            + &service("web", "exec sleep 1000", "restart = \"never\"\n")
    };
    // It hangs, and what it has forked holds its pipe.
    let d = Daemon::start(&hooks("echo calling; sleep 781003 & exec sleep 781003", "300ms"));
    signal(d.wait_running("web"), Signal::SIGKILL);
    trouble(&d, "hook pager took longer than 300ms and was killed");
    wait_for("all of it to be gone", LATER, || d.processes_with("781003").is_empty().then_some(()));
    wait_for("what it printed", LATER, || {
        fs::read_to_string(folder(&d).join("current")).ok().filter(|t| t == "calling\n")
    });
    // It ends well, and leaves a child that holds its pipe: the next one is called all the same.
    d.write_config(&hooks("sleep 781003 & exit 3", "1h"));
    d.ctl_ok(&["apply"]);
    d.ctl_ok(&["start", "web"]);
    d.ctl_ok(&["stop", "web"]);
    let said = trouble(&d, "hook pager exited with status 3");
    assert!(said["message"].as_str().unwrap().contains("hook:pager"), "{said}");
    wait_for("its child to be gone", LATER, || d.processes_with("781003").is_empty().then_some(()));
    assert_eq!(d.services().len(), 1, "a hook is no service");
    d.shutdown();
}

#[test]
fn a_command_that_cannot_be_started_is_told_and_supervision_goes_on() {
    let user = if common::is_root() { "user = \"root\"\n" } else { "" };
    let hook = format!("[hook.pager]\non = [\"exit\"]\nexec = [\"/nowhere/at/all\"]\n{user}");
    let d = Daemon::start(&(hook + &service("web", "exec sleep 1000", AT_ONCE)));
    let first = d.wait_running("web");
    signal(first, Signal::SIGKILL);
    trouble(&d, "/nowhere/at/all");
    d.wait_service("web", "a successor", |s| s["state"] == "running" && s["pid"] != first);
    d.shutdown();
}

#[test]
fn a_flapping_service_calls_its_hook_once() {
    let more = format!("{AT_ONCE}breaker = {{ failures = 20, within = \"1m\", retry-every = \"never\" }}\n");
    let (url, told) = receiver(|stream, _| stream.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap());
    let hook = format!("[hook.pager]\non = [\"exit\", \"failed\"]\nwebhook = \"{url}\"\n");
    let d = Daemon::start(&(hook + &service("flapping", "exit 1", &more)));
    d.wait_state("flapping", "failed");
    let (head, first) = told.recv_timeout(LATER).unwrap();
    assert!(
        head.starts_with("POST /hook?from=keepd HTTP/1.1\r\n") && head.contains("application/json"),
        "{head}"
    );
    assert_eq!((&first["kind"], &first["service"]), (&"exit".into(), &"flapping".into()));
    let (_, second) = told.recv_timeout(LATER).unwrap();
    assert_eq!(second["kind"], "failed", "the other exits wait for their minute");
    assert!(told.try_recv().is_err());
    d.shutdown();
}

/// War story 60: a receiver that hangs or fails is tried again, and holds nobody up.
#[test]
fn a_receiver_that_hangs_or_fails_is_tried_again_and_given_up() {
    let (hold, held) = mpsc::channel();
    let (url, told) = receiver(move |stream, n| match n {
        // Never answers; the connection stays.
        0 => hold.send(stream.try_clone().unwrap()).unwrap(),
        1 => stream.write_all(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").unwrap(),
        2 => stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap(),
        _ => stream.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n").unwrap(),
    });
    let hook =
        format!("[hook.pager]\non = [\"exit\", \"incident\"]\nwebhook = \"{url}\"\ntimeout = \"300ms\"\n");
    let d = Daemon::start(&(hook + &service("web", "exec sleep 1000", AT_ONCE)));
    let first = d.wait_running("web");
    signal(first, Signal::SIGKILL);
    d.wait_service("web", "a successor", |s| s["state"] == "running" && s["pid"] != first);
    let ids: Vec<u64> = (0..3).map(|_| told.recv_timeout(LATER).unwrap().1["id"].as_u64().unwrap()).collect();
    assert!(ids.iter().all(|id| *id == ids[0]), "the same event: {ids:?}");
    let next = told.recv_timeout(LATER).unwrap().1;
    assert!(next["id"].as_u64().unwrap() > ids[0]);
    trouble(&d, "answered 404 Not Found");
    assert!(is_alive(d.manager()));
    drop(held);
    d.shutdown();
}

#[test]
fn a_hook_that_cannot_be_is_refused_with_its_reason() {
    let d = Daemon::start(&service("web", "exec sleep 1000", ""));
    for (table, why) in [
        ("on = [\"exit\"]\nwebhook = \"https://example.org/\"\n", "https is not supported by this version"),
        ("on = [\"exit\"]\n", "`exec` or `webhook` is missing"),
        ("webhook = \"http://127.0.0.1/\"\n", "`on` is missing"),
        ("on = [\"exits\"]\nwebhook = \"http://127.0.0.1/\"\n", "exits"),
        ("on = [\"exit\"]\nwebhook = \"http://127.0.0.1/\"\nuser = \"root\"\n", "`user` is for `exec`"),
    ] {
        d.write_config(&format!("[hook.pager]\n{table}{}", service("web", "exec sleep 1000", "")));
        let said = d.ctl_fails(78, &["apply"]);
        assert!(said.contains(why), "{table}: {said}");
    }
    d.write_config(&service("web", "exec sleep 1000", ""));
    d.shutdown();
}
