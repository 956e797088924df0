//! What keepd tells a service manager above it, received on a socket as systemd's.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Daemon, LATER, Setup, environ, service, signal, wait_for};
use nix::sys::signal::Signal;
use std::{
    os::unix::{
        fs::{PermissionsExt, chown},
        net::UnixDatagram,
    },
    time::Duration,
};

/// The socket, and what has arrived on it.
struct Above {
    socket: UnixDatagram,
    seen: Vec<String>,
}

impl Above {
    fn start(services: &str, more: &[(&str, &str)]) -> (Above, Daemon) {
        let outer = tempfile::tempdir().unwrap();
        std::fs::set_permissions(outer.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = outer.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        socket.set_nonblocking(true).unwrap();
        let mut env = vec![("NOTIFY_SOCKET", path.to_str().unwrap())];
        env.extend(more);
        let d = Setup { services, env: &env, ..Setup::default() }.start();
        // Its name is needed as long as keepd may send; the folder goes with the process's temporary files.
        std::mem::forget(outer);
        (Above { socket, seen: Vec::new() }, d)
    }

    fn receive(&mut self) {
        let mut buffer = [0; 8192];
        while let Ok(n) = self.socket.recv(&mut buffer) {
            self.seen.push(String::from_utf8_lossy(&buffer[..n]).into_owned());
        }
    }

    /// Waits for a message with this line, and forgets everything up to it.
    fn wait(&mut self, line: &str) -> String {
        wait_for(&format!("{line} from keepd"), LATER, || {
            self.receive();
            let at = self.seen.iter().position(|m| m.lines().any(|l| l.starts_with(line)))?;
            self.seen.drain(..=at).next_back()
        })
    }

    fn pings(&mut self) -> usize {
        self.receive();
        let n = self.seen.iter().filter(|m| m.lines().any(|l| l == "WATCHDOG=1")).count();
        self.seen.retain(|m| !m.lines().any(|l| l == "WATCHDOG=1"));
        n
    }
}

#[test]
fn readiness_reloads_and_the_end_are_told() {
    let (mut above, d) = Above::start(&service("web", "exec sleep 1000", ""), &[]);
    above.wait("READY=1");
    d.wait_running("web");
    let status = above.wait("STATUS=");
    assert!(status.contains("service"), "{status}");
    for banned in ["NOTIFY_SOCKET=", "WATCHDOG_USEC=", "WATCHDOG_PID="] {
        assert!(
            !environ(d.pid("web")).iter().any(|e| e.starts_with(banned)),
            "{banned} leaked into a service"
        );
    }

    d.write_config(&(service("web", "exec sleep 1000", "") + &service("db", "exec sleep 1000", "")));
    d.ctl_ok(&["apply"]);
    let reloading = above.wait("RELOADING=1");
    let at = reloading
        .lines()
        .find_map(|l| l.strip_prefix("MONOTONIC_USEC="))
        .unwrap_or_else(|| panic!("{reloading}"));
    assert!(at.parse::<u64>().unwrap() > 0);
    above.wait("READY=1");

    // A reload that is refused ends as well.
    d.write_config("[service.web\n");
    d.ctl_fails(78, &["apply"]);
    above.wait("RELOADING=1");
    above.wait("READY=1");

    d.shutdown();
    above.wait("STOPPING=1");
}

#[test]
fn the_watchdog_is_fed_only_while_the_manager_answers() {
    let (mut above, d) =
        Above::start(&service("web", "exec sleep 1000", ""), &[("WATCHDOG_USEC", "1000000")]);
    above.wait("READY=1");
    let enough = |above: &mut Above, what: &str| {
        let mut n = 0;
        wait_for(what, LATER, || {
            n += above.pings();
            (n >= 3).then_some(())
        });
    };
    enough(&mut above, "three pings");
    let manager = d.manager();
    signal(manager, Signal::SIGSTOP);
    // One answer may still be on its way.
    std::thread::park_timeout(Duration::from_millis(700));
    above.pings();
    common::holds_for("no ping while the manager hangs", Duration::from_millis(1500), || above.pings() > 0);
    signal(manager, Signal::SIGCONT);
    enough(&mut above, "three pings after it woke up");
    d.shutdown();
}

#[test]
fn a_notify_socket_that_is_not_there_is_no_reason_to_fail() {
    let env = [("NOTIFY_SOCKET", "/nonexistent/notify")];
    let d = Setup { services: &service("web", "exec sleep 1000", ""), env: &env, ..Setup::default() }.start();
    d.wait_running("web");
    d.shutdown();
}

#[test]
fn an_ordinary_user_may_have_a_service_manager_too() {
    let outer = tempfile::tempdir().unwrap();
    std::fs::set_permissions(outer.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let path = outer.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    if common::is_root() {
        chown(&path, Some(common::USER), None).unwrap();
    }
    socket.set_read_timeout(Some(LATER)).unwrap();
    let env = [("NOTIFY_SOCKET", path.to_str().unwrap())];
    let d = Setup { services: "", env: &env, as_user: true, ..Setup::default() }.start();
    let mut buffer = [0; 8192];
    let mut said = String::new();
    while !said.contains("READY=1") {
        let n = socket.recv(&mut buffer).unwrap();
        said += &String::from_utf8_lossy(&buffer[..n]);
    }
    d.shutdown();
}
