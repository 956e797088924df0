//! What a service is when its first instruction runs, read from /proc: identity, descriptors, environment, limits.
#![allow(clippy::unwrap_used)]

mod common;

use common::{
    Daemon, SOON, Setup, cgroup_of, environ, is_root, passwd, proc_status, service, signal, skip, text,
    wait_for,
};
use nix::sys::signal::Signal;
use std::{collections::BTreeSet, fs};

/// Signals 32 and 33 as bits of SigIgn: glibc keeps them for itself, so a daemon that was started with them
/// ignored (as some test runners do) cannot change it.
const GLIBC_OWN: u64 = 3 << 31;

/// The number in a hexadecimal field of /proc/PID/status.
fn mask(pid: u32, field: &str) -> u64 {
    u64::from_str_radix(&proc_status(pid, field), 16).unwrap()
}

fn descriptors(pid: u32) -> Vec<(u32, String)> {
    let mut found: Vec<(u32, String)> = fs::read_dir(format!("/proc/{pid}/fd"))
        .unwrap()
        .map(|e| e.unwrap())
        .map(|e| {
            let target = fs::read_link(e.path()).unwrap().to_string_lossy().into_owned();
            (e.file_name().to_str().unwrap().parse().unwrap(), target)
        })
        .collect();
    found.sort();
    found
}

fn assert_plain_descriptors(pid: u32) {
    let found = descriptors(pid);
    assert_eq!(found.iter().map(|f| f.0).collect::<Vec<_>>(), [0, 1, 2], "{found:?}");
    assert_eq!(found[0].1, "/dev/null");
    assert!(found[1].1.starts_with("pipe:") && found[1].1 == found[2].1, "{found:?}");
    for fd in 0..3 {
        let info = fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).unwrap();
        let flags = info.lines().find_map(|l| l.strip_prefix("flags:")).unwrap();
        let flags = u32::from_str_radix(flags.trim(), 8).unwrap();
        assert_eq!(flags & 0o4000, 0, "descriptor {fd} does not block: {info}");
    }
}

fn names(set: &BTreeSet<String>) -> BTreeSet<&str> {
    set.iter().map(|e| e.split_once('=').unwrap().0).collect()
}

#[test]
fn a_service_is_exactly_what_was_configured() {
    if !is_root() {
        return skip("needs root to run services as other users");
    }
    let (uid, gid) = passwd("daemon").unwrap();
    let group_of = |name: &str| -> u32 {
        let text = fs::read_to_string("/etc/group").unwrap();
        let line = text.lines().find(|l| l.split(':').next() == Some(name)).unwrap();
        line.split(':').nth(2).unwrap().parse().unwrap()
    };
    let tty = group_of("tty");
    let services = "[service.plain]\ncommand = [\"/bin/sleep\", \"1000\"]\nuser = \"daemon\"\ndirectory = \"/usr\"\n\
                    umask = \"0027\"\nenv = { A = \"1\", B = \"two words\" }\n\
                    limits = { open-files = \"123:456\", core = 0 }\n\
                    [service.grouped]\ncommand = [\"/bin/sleep\", \"1000\"]\nuser = \"daemon\"\n\
                    group = \"games\"\ngroups = [\"tty\"]\n\
                    [service.root]\ncommand = [\"/bin/sleep\", \"1000\"]\nuser = \"root\"\n\
                    sandbox = { no-new-privileges = false }\n";
    let d = Setup {
        services,
        env: &[("KEEPD_TEST_SECRET", "1"), ("LD_LIBRARY_PATH", "/nowhere")],
        ..Setup::default()
    }
    .start();

    let pid = d.wait_running("plain");
    assert_eq!(proc_status(pid, "Name"), "sleep");
    assert_eq!(proc_status(pid, "Uid"), [uid; 4].map(|n| n.to_string()).join("\t"));
    assert_eq!(proc_status(pid, "Gid"), [gid; 4].map(|n| n.to_string()).join("\t"));
    assert_eq!(
        proc_status(pid, "Groups"),
        gid.to_string(),
        "initgroups of `daemon` is its primary group alone"
    );
    assert_eq!(proc_status(pid, "NoNewPrivs"), "1");
    assert_eq!(proc_status(pid, "Umask"), "0027");
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(mask(pid, set), 0, "{set}");
    }
    assert_eq!((mask(pid, "SigBlk"), mask(pid, "SigIgn") & !GLIBC_OWN), (0, 0));
    assert_plain_descriptors(pid);
    let env = environ(pid);
    let wanted = ["A", "B", "HOME", "INVOCATION_ID", "LOGNAME", "PATH", "SHELL", "USER"];
    assert_eq!(names(&env), BTreeSet::from(wanted), "{env:?}");
    for pair in ["A=1", "B=two words", "USER=daemon", "LOGNAME=daemon", "HOME=/usr/sbin"] {
        assert!(env.contains(pair), "{pair} is missing: {env:?}");
    }
    assert_eq!(fs::read_link(format!("/proc/{pid}/cwd")).unwrap().to_str(), Some("/usr"));
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let limit = |name: &str| {
        let line = limits.lines().find_map(|l| l.strip_prefix(name)).unwrap();
        line.split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(limit("Max open files"), ["123", "456"]);
    assert_eq!(limit("Max core file size"), ["0", "0"]);
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    assert_eq!(fields[1], d.keeper().to_string(), "the keeper is its parent");
    assert_eq!(
        (fields[2], fields[3], fields[4]),
        (pid.to_string().as_str(), pid.to_string().as_str(), "0"),
        "group, session, terminal"
    );
    let shown = d.service("plain")["identity"].clone();
    assert_eq!((shown["uid"].as_u64(), shown["gid"].as_u64()), (Some(u64::from(uid)), Some(u64::from(gid))));

    let pid = d.wait_running("grouped");
    let (_, games) = passwd("games").unwrap();
    assert_eq!(proc_status(pid, "Gid"), [games; 4].map(|n| n.to_string()).join("\t"));
    let groups: BTreeSet<u32> =
        proc_status(pid, "Groups").split_whitespace().map(|g| g.parse().unwrap()).collect();
    assert!(groups.is_subset(&BTreeSet::from([games, tty])) && groups.contains(&tty), "{groups:?}");

    let pid = d.wait_running("root");
    assert_eq!(proc_status(pid, "NoNewPrivs"), "0");
    assert!(mask(pid, "CapEff") != 0);
    assert_plain_descriptors(pid);
    // The directory is not in the test's folder here, so the fixture's own look would miss them.
    let pids: Vec<u32> = ["plain", "grouped", "root"].map(|n| d.pid(n)).to_vec();
    d.shutdown();
    assert!(pids.iter().all(|p| !common::is_alive(*p)));
}

#[test]
fn an_ordinary_users_service_gets_the_same_care() {
    let services = "[service.plain]\ncommand = [\"/bin/sleep\", \"1000\"]\nenv = { A = \"1\" }\n";
    let env = [("KEEPD_TEST_SECRET", "1"), ("NOTIFY_SOCKET", "/nonexistent/socket"), ("LISTEN_FDS", "1")];
    let d = Setup { services, env: &env, as_user: true, ..Setup::default() }.start();
    let pid = d.wait_running("plain");
    assert_plain_descriptors(pid);
    let env = environ(pid);
    for banned in ["KEEPD_TEST_SECRET", "NOTIFY_SOCKET", "LISTEN_FDS", "XDG_RUNTIME_DIR"] {
        assert!(!names(&env).contains(banned), "{banned} leaked: {env:?}");
    }
    assert!(env.contains("A=1"));
    assert_eq!(proc_status(pid, "NoNewPrivs"), "1");
    assert_eq!((mask(pid, "SigBlk"), mask(pid, "SigIgn") & !GLIBC_OWN), (0, 0));
    d.shutdown();
}

#[test]
fn descriptors_do_not_leak_into_services_that_start_together() {
    let services: String = (0..40).map(|i| service(&format!("s{i}"), "exec sleep 1000", "")).collect();
    let d = Daemon::start(&services);
    for i in 0..40 {
        let pid = d.wait_running(&format!("s{i}"));
        wait_for("the exec", SOON, || (proc_status(pid, "Name") == "sleep").then_some(()));
        assert_plain_descriptors(pid);
    }
    d.shutdown();
}

#[test]
fn each_run_has_a_cgroup_of_its_own_that_goes_with_it() {
    if !is_root() || common::cgroup_mount().is_none() {
        return skip("needs root and cgroup v2");
    }
    let services = service("web", "sleep 1000 & exec sleep 1000", "") + &service("db", "exec sleep 1000", "");
    let d = Daemon::start(&services);
    let (web, db) = (d.wait_running("web"), d.wait_running("db"));
    let folder = cgroup_of(web).unwrap();
    let run = d.service("web")["run_id"].as_u64().unwrap();
    assert_eq!(folder.file_name().unwrap().to_str().unwrap(), format!("web.{run}"));
    assert_ne!(cgroup_of(db).unwrap(), folder);
    assert_eq!(cgroup_of(db).unwrap().parent(), folder.parent());
    wait_for("the child in the same cgroup", SOON, || {
        (fs::read_to_string(folder.join("cgroup.procs")).unwrap().lines().count() == 2).then_some(())
    });
    d.ctl_ok(&["restart", "web"]);
    wait_for("the old cgroup to be removed", SOON, || (!folder.exists()).then_some(()));
    d.shutdown();
}

#[test]
fn a_user_is_never_guessed() {
    if !is_root() {
        return skip("needs root: an ordinary user's services have no `user`");
    }
    let service = "[service.web]\ncommand = [\"/bin/true\"]\n";
    for user in ["0day", "nobody-at-all", "-1", "4294967295", "", "0x0", " root"] {
        let services = format!("{service}user = \"{user}\"\n");
        let d = Setup { services: &services, ..Setup::default() }.prepare();
        let done = d.keepd().output().unwrap();
        assert_eq!(done.status.code(), Some(78), "user = {user:?}: {}", text(&done));
    }
    // Without any `user`, root is not the default either.
    let d = Setup { services: service, ..Setup::default() }.prepare();
    let config = fs::read_to_string(&d.config).unwrap().replace("user = \"root\"\n", "");
    fs::write(&d.config, config).unwrap();
    let done = d.keepd().output().unwrap();
    assert_eq!(done.status.code(), Some(78), "{}", text(&done));
    assert!(text(&done).contains("user"), "{}", text(&done));
}

#[test]
fn a_step_that_fails_is_named_and_nothing_runs() {
    let services = "[service.dir]\ncommand = [\"/bin/touch\", \"/tmp/never\"]\ndirectory = \"/nonexistent/folder\"\n\
                    [service.env]\ncommand = [\"/bin/sleep\", \"1000\"]\nenv-files = [\"/nonexistent/env\"]\n\
                    [service.optional]\ncommand = [\"/bin/sleep\", \"1000\"]\nenv-files = [\"-/nonexistent/env\"]\n";
    let d = Daemon::start(services);
    for (name, part) in [("dir", "/nonexistent/folder"), ("env", "/nonexistent/env")] {
        let s = d.wait_service(name, "a failed start", |s| s["consecutive_failures"].as_u64() > Some(0));
        let reason = s["reason"].as_str().unwrap();
        assert!(reason.contains(part) && reason.contains("No such file"), "{reason}");
    }
    d.wait_running("optional");
    d.shutdown();
}

#[test]
fn env_files_are_read_at_each_start() {
    let d = Setup { ..Setup::default() }.prepare();
    let file = d.path().join("env");
    fs::write(&file, "# a comment\nA=from file\nB=\"quoted words\"\n\n").unwrap();
    d.write_config(&format!(
        "[service.web]\ncommand = [\"/bin/sleep\", \"1000\"]\nenv = {{ A = \"from config\", C = \"3\" }}\n\
         env-files = [\"{}\"]\n",
        file.display()
    ));
    let mut d = d;
    d.launch();
    d.await_api();
    let env = environ(d.wait_running("web"));
    for pair in ["A=from file", "B=quoted words", "C=3"] {
        assert!(env.contains(pair), "{pair}: {env:?}");
    }
    fs::write(&file, "A=second\n").unwrap();
    d.ctl_ok(&["restart", "web"]);
    let env = environ(d.pid("web"));
    assert!(env.contains("A=second") && !names(&env).contains("B"), "{env:?}");
    d.shutdown();
}

#[test]
fn the_manager_is_not_the_root_that_the_keeper_is() {
    if !is_root() {
        return skip("needs root");
    }
    let d = Daemon::start(&service("web", "exec sleep 1000", ""));
    let pid = d.wait_running("web");
    let manager = d.manager();
    assert_ne!(manager, d.keeper());
    for (name, bit) in [
        ("CAP_SYS_ADMIN", 21),
        ("CAP_SYS_PTRACE", 19),
        ("CAP_SETUID", 7),
        ("CAP_KILL", 5),
        ("CAP_NET_ADMIN", 12),
    ] {
        assert_eq!(mask(manager, "CapEff") >> bit & 1, 0, "the manager has {name}");
        assert_eq!(mask(manager, "CapPrm") >> bit & 1, 0, "the manager can have {name}");
    }
    // It holds no descriptor of a terminal, and services hold none of its.
    signal(pid, Signal::SIGKILL);
    d.wait_service("web", "a successor", |s| s["state"] == "running" && s["pid"] != pid);
    d.shutdown();
}
