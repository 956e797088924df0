//! Programs that people really run: nginx, redis and postgres, each as its own user, killed with SIGKILL and stopped.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Daemon, LATER, Setup, free_port, is_root, passwd, signal, skip, wait_for, which};
use nix::sys::signal::Signal;
use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::{fs::chown, process::CommandExt},
    path::PathBuf,
    process::Command,
    time::Duration,
};

/// The configuration of one program: its table, and a folder that its user owns.
fn prepare(user: &str, table: impl FnOnce(&str) -> String) -> Option<Daemon> {
    let (uid, gid) = passwd(user)?;
    let d = Setup::default().prepare();
    let home = d.path().join("data");
    fs::create_dir(&home).unwrap();
    chown(&home, Some(uid), Some(gid)).unwrap();
    d.write_config(&table(home.to_str().unwrap()));
    Some(d)
}

/// Sends `say` to the port; what comes back, if it begins with or contains `hear`.
fn answers(port: u16, say: &str, hear: &str) -> bool {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(2)) else { return false };
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    if stream.write_all(say.as_bytes()).is_err() {
        return false;
    }
    let mut heard = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = stream.read(&mut buffer) {
        heard.extend_from_slice(&buffer[..n]);
        if String::from_utf8_lossy(&heard).contains(hear) {
            return true;
        }
    }
    false
}

/// It answers; killed with -9 it comes back and answers; stopped it leaves nothing, and its port is free.
fn live_and_die(mut d: Daemon, name: &str, user: &str, alive: impl Fn() -> bool) {
    d.launch();
    d.await_api();
    let (uid, _) = passwd(user).unwrap();
    let mut pid = d.wait_running(name);
    wait_for(&format!("{name} to answer"), LATER, || alive().then_some(()));
    assert!(
        common::proc_status(pid, "Uid").starts_with(&format!("{uid}\t")),
        "{name} does not run as {user}"
    );
    for _ in 0..3 {
        signal(pid, Signal::SIGKILL);
        let next = d.wait_service(name, "a successor", |s| s["state"] == "running" && s["pid"] != pid);
        wait_for(&format!("{name} to answer again"), LATER, || alive().then_some(()));
        pid = u32::try_from(next["pid"].as_u64().unwrap()).unwrap();
    }
    d.ctl_ok(&["stop", name]);
    let end = d.service(name)["last_exit"].clone();
    assert_eq!(end["code"], 0, "{name} was not stopped as it wants to be: {end}");
    let mut left = d.processes();
    left.retain(|pid| !common::command_line(*pid).contains("keepd.toml"));
    assert_eq!(left, [] as [u32; 0], "{name} left processes");
    assert!(!alive());
    d.ctl_ok(&["start", name]);
    wait_for(&format!("{name} to answer once more"), LATER, || alive().then_some(()));
    d.shutdown();
    assert!(!alive());
}

#[test]
fn nginx() {
    let (Some(_), true) = (which("nginx"), is_root()) else { return skip("needs root and nginx") };
    let port = free_port();
    let Some(d) = prepare("www-data", |home| {
        format!(
            "[service.nginx]\ncommand = [\"/usr/sbin/nginx\", \"-c\", \"{home}/nginx.conf\", \
             \"-g\", \"daemon off;\", \"-e\", \"stderr\"]\n\
             user = \"www-data\"\ndirectory = \"{home}\"\n\
             stop-signal = \"SIGQUIT\"\nbackoff = {{ delay = \"100ms\" }}\n"
        )
    }) else {
        return skip("there is no user www-data");
    };
    let home = d.path().join("data");
    let temps = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|n| format!("{n}_temp_path {}/{n};\n", home.display()))
        .concat();
    let conf = format!(
        "pid {0}/nginx.pid;\nerror_log stderr;\nworker_processes 2;\nevents {{}}\nhttp {{\naccess_log off;\n{temps}\
         server {{\nlisten 127.0.0.1:{port};\nlocation / {{ return 200 \"hello from nginx\"; }}\n}}\n}}\n",
        home.display()
    );
    fs::write(home.join("nginx.conf"), conf).unwrap();
    let ask = "GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    live_and_die(d, "nginx", "www-data", || answers(port, ask, "hello from nginx"));
}

#[test]
fn redis() {
    let (Some(program), true) = (which("redis-server"), is_root()) else {
        return skip("needs root and redis-server");
    };
    let port = free_port();
    let Some(d) = prepare("redis", |home| {
        format!(
            "[service.redis]\ncommand = [\"{}\", \"--bind\", \"127.0.0.1\", \"--port\", \"{port}\", \
             \"--dir\", \"{home}\", \"--save\", \"\"]\n\
             user = \"redis\"\ndirectory = \"{home}\"\nstop-timeout = \"1m\"\nbackoff = {{ delay = \"100ms\" }}\n",
            program.display()
        )
    }) else {
        return skip("there is no user redis");
    };
    live_and_die(d, "redis", "redis", || answers(port, "PING\r\n", "+PONG"));
}

#[test]
fn postgres() {
    let Some(bin) = postgres_bin().filter(|_| is_root()) else { return skip("needs root and postgresql") };
    let port = free_port();
    let Some(d) = prepare("postgres", |home| {
        format!(
            "[service.postgres]\ncommand = [\"{}\", \"-D\", \"{home}/db\", \"-p\", \"{port}\", \
             \"-k\", \"{home}\", \"-h\", \"127.0.0.1\"]\n\
             user = \"postgres\"\ndirectory = \"{home}\"\n\
             stop-signal = \"SIGINT\"\nstop-timeout = \"1m\"\nbackoff = {{ delay = \"200ms\" }}\n",
            bin.join("postgres").display()
        )
    }) else {
        return skip("there is no user postgres");
    };
    let (uid, gid) = passwd("postgres").unwrap();
    let home = d.path().join("data");
    #[allow(clippy::disallowed_methods)]
    let mut initdb = Command::new(bin.join("initdb"));
    let done = initdb
        .args(["--no-sync", "--auth=trust", "-D"])
        .arg(home.join("db"))
        .current_dir(&home)
        .uid(uid)
        .gid(gid)
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", common::text(&done));
    live_and_die(d, "postgres", "postgres", || speaks_postgres(port));
}

fn postgres_bin() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").ok()?;
    let bins = versions.filter_map(|v| Some(v.ok()?.path().join("bin")));
    bins.filter(|b| b.join("initdb").exists() && b.join("postgres").exists()).max()
}

/// A server that takes connections answers a start-up packet with `R`.
fn speaks_postgres(port: u16) -> bool {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_secs(2)) else { return false };
    stream.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
    let body = b"\0\x03\0\0user\0postgres\0database\0postgres\0\0";
    let length = u32::try_from(body.len() + 4).unwrap().to_be_bytes();
    let mut answer = [0];
    let sent = stream.write_all(&length).and_then(|()| stream.write_all(body));
    // `R`: authentication is settled. `E`: it is there, but still starting up or recovering.
    sent.is_ok() && stream.read_exact(&mut answer).is_ok() && answer == *b"R"
}
