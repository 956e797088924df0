//! `keepctl upgrade`: keepd goes on as the installed program, in place, and no service, reader or line notices.
//!
//! KEEPD_UPGRADES (3 unless set) says how often where it is done again and again.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Daemon, LATER, Setup, free_port, is_alive, service, signal, skip, wait_for, which};
use nix::sys::signal::Signal;
use std::{
    fs,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
};

const KEEPD: &str = env!("CARGO_BIN_EXE_keepd");

fn upgrades() -> u64 {
    std::env::var("KEEPD_UPGRADES").map_or(3, |n| n.parse().unwrap())
}

fn started(services: &str) -> Daemon {
    Setup { services, own_copy: true, ..Setup::default() }.start()
}

/// The inode of the program that a process runs.
fn program_of(pid: u32) -> (u64, u64) {
    use std::os::unix::fs::MetadataExt;
    let file = fs::metadata(format!("/proc/{pid}/exe")).unwrap();
    (file.dev(), file.ino())
}

#[test]
fn an_upgrade_replaces_keeper_and_manager_and_touches_no_service() {
    let d = started(&(service("web", "exec sleep 791001", "") + &service("down", "exec sleep 791002", "")));
    let web = d.wait_running("web");
    d.wait_running("down");
    d.ctl_ok(&["stop", "down"]);
    let (keeper, manager, before) = (d.keeper(), d.manager(), program_of(d.keeper()));
    let status = d.status();

    d.install(Path::new(KEEPD));
    let said = d.ctl_ok(&["upgrade"]);

    assert!(said.contains("goes on as keepd"), "{said}");
    let after = d.status();
    assert_eq!(after["pid"], keeper);
    assert_eq!(after["upgrades"], 1);
    assert_eq!(after["degraded"], status["degraded"]);
    assert!(after["uptime_ms"].as_u64() > status["uptime_ms"].as_u64(), "{after}");
    assert_ne!(d.manager(), manager);
    assert_ne!(program_of(keeper), before);
    assert_eq!(program_of(d.manager()), program_of(keeper));
    assert_eq!(d.pid("web"), web);
    assert_eq!(d.service("down")["state"], "stopped");
    // It is as much its child as before: it can be stopped, and how it ends is known.
    d.ctl_ok(&["stop", "web"]);
    assert_eq!(d.service("web")["last_exit"]["signal"], "SIGTERM");
    d.ctl_ok(&["start", "down"]);
    d.shutdown();
}

#[test]
fn a_program_that_cannot_go_on_leaves_the_old_one_running_and_says_so() {
    let d = started(&service("web", "exec sleep 791003", ""));
    let (web, manager) = (d.wait_running("web"), d.manager());
    let truncated = d.path().join("truncated");
    let whole = fs::read(KEEPD).unwrap();
    fs::write(&truncated, &whole[..whole.len() / 3]).unwrap();
    let script = |text: &str| {
        let path = d.path().join(format!("script-{}", text.len()));
        fs::write(&path, text).unwrap();
        path
    };
    // What an older keepd says to a role that it does not know.
    let older = script("#!/bin/sh\nexit 64\n");
    set_executable(&[&truncated, &older]);
    for (program, why) in [
        (truncated.clone(), "keepd: "),
        (older, "it is an older keepd, which cannot go on from this one"),
        (script("#!/bin/sh\nexit 0\n"), "it is no keepd that can be upgraded to"),
        (script("no program\n"), "cannot be executed"),
        (script("#!/bin/sh\nkill -SEGV $$\n"), "its check was killed by SIGSEGV"),
    ] {
        set_executable(&[&program]);
        d.install(&program);
        let said = d.ctl_fails(1, &["upgrade"]);
        assert!(said.contains("cannot upgrade: ") && said.contains(why), "{said:?} for {why:?}");
        assert!(said.contains(&format!("; keepd {} goes on", env!("CARGO_PKG_VERSION"))), "{said}");
        assert_eq!((d.manager(), d.pid("web")), (manager, web));
    }
    fs::remove_file(d.installed()).unwrap();
    let said = d.ctl_fails(1, &["upgrade"]);
    assert!(said.contains(&format!("{}: entity not found", d.installed().display())), "{said}");
    // The old one can still start all its parts.
    signal(manager, Signal::SIGKILL);
    wait_for("another manager", LATER, || d.try_service("web"));
    assert_eq!(d.pid("web"), web);
    d.shutdown();
}

fn set_executable(paths: &[&Path]) {
    use std::os::unix::fs::PermissionsExt;
    for path in paths {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }
}

#[test]
fn upgrades_under_way_lose_no_exit_and_no_line() {
    let exiter = "echo run >> runs; n=$(wc -l < runs); echo \"run $n\"; sleep 0.03; exit $((n % 200 + 1))";
    let writer = "i=0; run=1; trap 'run=0' TERM; while [ $run = 1 ]; do n=0; while [ $n -lt 200 ]; do n=$((n+1)); \
                  i=$((i+1)); echo \"line $i\"; done; sleep 0.01; done; echo $i > last";
    let always = "restart = \"always\"\nbackoff = { delay = \"1ms\", max = \"1ms\", jitter = 0.0 }\n\
                  breaker = { failures = 1000000, within = \"1d\" }\n";
    let services = service("exiter", exiter, always)
        + &service(
            "writer",
            writer,
            "restart = \"never\"\nlogs = { max-size = \"64KiB\", keep = 100000, compress = \"none\" }\n",
        );
    let daemon = "restart-budget = { starts = 1000000, within = \"1m\" }";
    let d = Setup { services: &services, daemon, own_copy: true, ..Setup::default() }.start();
    let (writer, keeper) = (d.wait_running("writer"), d.keeper());
    for n in 1..=upgrades() {
        d.install(Path::new(KEEPD));
        d.ctl_ok(&["upgrade"]);
        assert_eq!(d.status()["upgrades"], n);
        assert_eq!((d.pid("writer"), d.keeper()), (writer, keeper));
    }
    d.ctl_ok(&["stop", "exiter", "writer"]);
    let last: u64 = d.lines("last")[0].parse().unwrap();
    wait_for("the last line", LATER, || d.log("writer").contains(&format!("line {last}\n")).then_some(()));
    let wanted: String = (1..=last).map(|n| format!("line {n}\n")).collect();
    assert!(d.log("writer") == wanted, "the log of the writer is not what it wrote");
    let runs = d.lines("runs").len() as u64;
    let restarts = d.service("exiter")["restarts"].as_u64().unwrap();
    assert!(restarts + 1 == runs || restarts == runs, "{restarts} restarts, {runs} runs");
    d.shutdown();
}

#[test]
fn what_is_under_way_at_an_upgrade_goes_on() {
    let d = started(
        &(service(
            "stubborn",
            "trap '' TERM; echo up > up; while :; do sleep 791004; done",
            "stop-timeout = \"3s\"\n",
        ) + &service("web", "trap 'exit 7' TERM; while :; do sleep 0.1; done", "")),
    );
    wait_for("the trap", LATER, || (!d.lines("up").is_empty()).then_some(()));
    d.wait_running("web");
    d.ctl_ok(&["stop", "--no-wait", "stubborn"]);
    d.wait_state("stubborn", "stopping");
    let mut inside = d
        .ctl_command(None, &["exec", "-T", "web", "--", "/bin/sh", "-c", "echo in > inside; read x; exit 9"])
        .stdin(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    wait_for("the command", LATER, || (!d.lines("inside").is_empty()).then_some(()));
    d.ctl_ok(&["upgrade"]);
    d.wait_state("stubborn", "stopped");
    assert_eq!(d.processes_with("791004"), [] as [u32; 0]);
    drop(inside.stdin.take());
    assert_eq!(inside.wait().unwrap().code(), Some(9));
    let web = d.pid("web");
    signal(web, Signal::SIGTERM);
    let ended = d.wait_service("web", "its end", |s| !s["last_exit"].is_null());
    assert_eq!(ended["last_exit"]["code"], 7);
    assert!(!is_alive(web));
    d.shutdown();
}

#[test]
fn callers_are_never_refused_while_there_is_no_manager() {
    let d = started(&service("web", "exec sleep 791005", ""));
    d.wait_running("web");
    for _ in 0..5 {
        let manager = d.manager();
        signal(manager, Signal::SIGKILL);
        // Connects before there is another manager, and is answered by that.
        wait_for("the end of the manager", LATER, || (!is_alive(manager)).then_some(()));
        assert_eq!(d.try_get("/v1/status").unwrap().0, 200);
    }
    d.shutdown();
}

/// Asks again and again until told to end; how often, and how often it went wrong.
fn ask_on(done: &std::sync::atomic::AtomicBool, mut ask: impl FnMut(u64) -> bool) -> (u64, u64) {
    let (mut asked, mut failed) = (0, 0);
    while !done.load(std::sync::atomic::Ordering::Relaxed) {
        failed += u64::from(!ask(asked));
        asked += 1;
    }
    (asked, failed)
}

/// Says something on a connection of its own and looks how the answer begins.
fn answered(port: u16, say: &str, begins: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", port)) else { return false };
    stream.set_read_timeout(Some(LATER)).unwrap();
    let mut buffer = vec![0; begins.len()];
    stream.write_all(say.as_bytes()).is_ok()
        && stream.read_exact(&mut buffer).is_ok()
        && buffer == begins.as_bytes()
}

#[test]
fn clients_of_nginx_and_redis_notice_no_upgrade() {
    let (Some(nginx), Some(redis)) = (which("nginx"), which("redis-server")) else {
        return skip("needs nginx and redis");
    };
    let (web, db) = (free_port(), free_port());
    let mut d = Setup { own_copy: true, ..Setup::default() }.prepare();
    let root = d.path().display().to_string();
    let conf = format!(
        "daemon off; pid {root}/nginx.pid; error_log stderr; events {{}} http {{ access_log off; \
         client_body_temp_path {root}/b; proxy_temp_path {root}/p; fastcgi_temp_path {root}/f; \
         uwsgi_temp_path {root}/u; scgi_temp_path {root}/s; \
         server {{ listen 127.0.0.1:{web}; location / {{ return 200 fine; }} }} }}"
    );
    fs::write(d.path().join("nginx.conf"), conf).unwrap();
    let (nginx, redis) = (nginx.display(), redis.display());
    d.write_config(&format!(
        "[service.nginx]\ncommand = [\"{nginx}\", \"-e\", \"stderr\", \"-c\", \"{root}/nginx.conf\"]\n\
         [service.redis]\ncommand = [\"{redis}\", \"--bind\", \"127.0.0.1\", \"--port\", \"{db}\", \
         \"--dir\", \"{root}\"]\n"
    ));
    d.launch();
    d.await_api();
    let get = "GET / HTTP/1.0\r\n\r\n";
    wait_for("nginx", LATER, || answered(web, get, "HTTP/1.1 200").then_some(()));
    wait_for("redis", LATER, || answered(db, "SET n 0\r\n", "+OK").then_some(()));
    let pids = [d.pid("nginx"), d.pid("redis")];
    let done = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|s| {
        let web = s.spawn(|| ask_on(&done, |_| answered(web, get, "HTTP/1.1 200")));
        let db = s.spawn(|| ask_on(&done, |n| answered(db, &format!("SET n {}\r\n", n + 1), "+OK")));
        for _ in 0..upgrades() {
            d.install(Path::new(KEEPD));
            d.ctl_ok(&["upgrade"]);
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        for (name, client) in [("nginx", web), ("redis", db)] {
            let (asked, failed) = client.join().unwrap();
            assert!(asked > 0 && failed == 0, "{name}: {failed} of {asked} requests failed");
            println!("{name}: {asked} requests, 0 failed, {} upgrades", upgrades());
        }
    });
    assert_eq!([d.pid("nginx"), d.pid("redis")], pids);
    d.shutdown();
}
