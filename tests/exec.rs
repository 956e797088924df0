//! `keepctl exec`: what runs inside a service is the service's in everything but its streams, its end is told, and
//! it outlives neither the service nor, if it minds a hang-up, its caller.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod common;

use common::{
    Daemon, LATER, SOON, Setup, cgroup_of, environ, is_alive, is_root, passwd, proc_status, service, signal,
    skip, text, wait_for,
};
use keepd::sys::terminal;
use nix::sys::signal::Signal;
use std::{
    fs::{self, File},
    io::{Read, Write},
    os::fd::AsFd,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
};

fn exec(d: &Daemon, name: &str, script: &str) -> Command {
    d.ctl_command(None, &["exec", name, "--", "/bin/sh", "-c", script])
}

/// The pid that a command writes to `file` in the folder of the test.
fn pid_in(d: &Daemon, file: &str) -> u32 {
    let path = d.path().join(file);
    wait_for("the command's pid", SOON, || fs::read_to_string(&path).ok()?.trim().parse().ok())
}

#[test]
fn a_command_is_the_services_in_all_but_its_streams() {
    if !is_root() {
        return skip("needs root to run services as other users");
    }
    let (uid, gid) = passwd("daemon").unwrap();
    let services = "[service.web]\ncommand = [\"/bin/sleep\", \"1000\"]\nuser = \"daemon\"\numask = \"0027\"\n\
                    directory = \"/usr\"\nenv = { A = \"two words\" }\nlimits = { open-files = \"123:456\" }\n\
                    sandbox = { private-tmp = true, private-network = true }\n";
    let d = Setup { services, ..Setup::default() }.start();
    let main = d.wait_running("web");
    let script = "echo $$ >&2; umask; pwd; ulimit -n; cat; exec sleep 1000";
    let mut child = exec(&d, "web", script);
    let mut child =
        child.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(b"through stdin\n").unwrap();
    let mut pid = String::new();
    let mut stderr = child.stderr.take().unwrap();
    while !pid.ends_with('\n') {
        let mut byte = [0];
        assert_eq!(stderr.read(&mut byte).unwrap(), 1, "{pid}");
        pid.push(byte[0] as char);
    }
    let pid: u32 = pid.trim().parse().unwrap();
    wait_for("the command to be all it is", SOON, || (proc_status(pid, "Name") == "sleep").then_some(()));
    for field in
        ["Uid", "Gid", "Groups", "NoNewPrivs", "Seccomp", "CapEff", "CapBnd", "CapPrm", "SigBlk", "SigIgn"]
    {
        assert_eq!(proc_status(pid, field), proc_status(main, field), "{field}");
    }
    assert_eq!(proc_status(pid, "Uid"), [uid; 4].map(|n| n.to_string()).join("\t"));
    assert_eq!(proc_status(pid, "Gid"), [gid; 4].map(|n| n.to_string()).join("\t"));
    assert_eq!(cgroup_of(pid), cgroup_of(main));
    for space in ["mnt", "net"] {
        let of = |pid: u32| fs::read_link(format!("/proc/{pid}/ns/{space}")).unwrap();
        assert_eq!(of(pid), of(main));
    }
    let mut found = environ(pid);
    assert!(found.remove(&format!("MAINPID={main}")), "{found:?}");
    // What the shell adds.
    found.retain(|v| !v.starts_with("PWD=") && !v.starts_with("OLDPWD=") && !v.starts_with("_="));
    assert_eq!(found, environ(main));
    signal(pid, Signal::SIGKILL);
    let done = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(done.stdout).unwrap(), "0027\n/usr\n123\nthrough stdin\n");
    assert_eq!(done.status.code(), Some(128 + 9));
    // Its end means nothing to the service.
    assert_eq!(d.service("web")["restarts"], 0);
    assert_eq!(d.pid("web"), main);
    wait_for("a word in keepd's log", SOON, || d.output().contains("runs \"/bin/sh\" in it").then_some(()));
    d.shutdown();
}

#[test]
fn its_exit_status_is_passed_on_and_what_fails_is_said() {
    let d = Daemon::start(
        &(service("web", "exec sleep 1000", "") + &service("no", "exit 1", "restart = \"never\"\n")),
    );
    d.wait_running("web");
    d.wait_state("no", "exited");
    assert_eq!(exec(&d, "web", "exit 3").status().unwrap().code(), Some(3));
    assert_eq!(exec(&d, "web", "kill -TERM $$").status().unwrap().code(), Some(128 + 15));
    for (status, words, args) in [
        (127, "cannot execute /no/such: No such file or directory", &["exec", "web", "--", "/no/such"][..]),
        (126, "cannot execute /etc/passwd: Permission denied", &["exec", "web", "--", "/etc/passwd"]),
        (3, "no is exited", &["exec", "no", "--", "true"]),
        (4, "wbe", &["exec", "wbe", "--", "true"]),
        (2, "means no, web: name one of them", &["exec", "*", "--", "true"]),
        (2, "<COMMAND>", &["exec", "web"]),
        (2, "longer than", &["exec", "web", "--", "true", &"x".repeat(20_000)]),
    ] {
        let said = d.ctl_fails(status, args);
        assert!(said.contains(words), "{args:?}: {said}");
    }
    d.shutdown();
}

#[test]
fn only_the_keepers_own_user_is_let_in() {
    if !is_root() {
        return skip("needs root to be somebody else");
    }
    // An admin may start and stop services, which does not make him one of their users.
    let (uid, _) = passwd("daemon").unwrap();
    let d = Setup {
        services: &service("web", "exec sleep 1000", ""),
        api: "admins = [\"daemon\"]\n",
        ..Setup::default()
    }
    .start();
    d.wait_running("web");
    let done = d.ctl_as(Some(uid), &["exec", "web", "--", "true"]);
    assert_eq!(done.status.code(), Some(77), "{}", text(&done));
    assert!(String::from_utf8_lossy(&done.stderr).contains("only root may"), "{done:?}");
    d.shutdown();
}

#[test]
fn signals_reach_it_and_its_callers_end_hangs_it_up() {
    let d = Daemon::start(&service("web", "exec sleep 1000", ""));
    d.wait_running("web");
    let path = d.path().display();
    let script = format!("trap 'exit 7' USR1; echo $$ > {path}/one; while :; do sleep 0.01; done");
    let mut child = exec(&d, "web", &script).spawn().unwrap();
    pid_in(&d, "one");
    signal(child.id(), Signal::SIGUSR1);
    assert_eq!(child.wait().unwrap().code(), Some(7));

    let mut child = exec(&d, "web", &format!("echo $$ > {path}/two; exec sleep 1000")).spawn().unwrap();
    let pid = pid_in(&d, "two");
    signal(child.id(), Signal::SIGKILL);
    child.wait().unwrap();
    wait_for("the command to be hung up", SOON, || (!is_alive(pid)).then_some(()));
    d.shutdown();
}

#[test]
fn it_ends_with_the_service_and_with_keepd() {
    let quick = "stop-timeout = \"200ms\"\n";
    let names = ["web", "db", "last"];
    let services: String =
        names.iter().zip(["", quick, quick]).map(|(n, q)| service(n, "exec sleep 1000", q)).collect();
    let d = Daemon::start(&services);
    for name in names {
        d.wait_running(name);
    }
    let path = d.path().display();
    let start = |name: &str, ignored: &str| -> (Child, u32) {
        let script = format!("trap '' {ignored}; echo $$ > {path}/{name}; while :; do sleep 1; done");
        (exec(&d, name, &script).spawn().unwrap(), pid_in(&d, name))
    };
    // As a shell does that somebody types into: the stop must not end in SIGKILL.
    let (mut web, pid) = start("web", "TERM");
    d.ctl_ok(&["stop", "web"]);
    assert!(!is_alive(pid));
    assert_eq!(web.wait().unwrap().code(), Some(128 + 1));
    let (mut db, pid) = start("db", "TERM HUP");
    d.ctl_ok(&["stop", "db"]);
    assert!(!is_alive(pid));
    assert_eq!(db.wait().unwrap().code(), Some(128 + 9));
    let (mut last, pid) = start("last", "TERM HUP");
    d.shutdown();
    assert!(!is_alive(pid));
    last.wait().unwrap();
}

#[test]
fn a_manager_that_dies_meanwhile_is_not_noticed() {
    let d = Daemon::start(&service("web", "exec sleep 1000", ""));
    d.wait_running("web");
    let script =
        format!("echo $$ > {0}/pid; while [ ! -e {0}/go ]; do sleep 0.01; done; exit 5", d.path().display());
    let mut child = exec(&d, "web", &script).spawn().unwrap();
    pid_in(&d, "pid");
    let manager = d.manager();
    signal(manager, Signal::SIGKILL);
    wait_for("another manager", LATER, || {
        let (status, text) = d.try_get("/v1/status").ok()?;
        (status == 200 && !text.contains(&format!("\"manager_pid\":{manager},"))).then_some(())
    });
    fs::write(d.path().join("go"), "").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(5));
    d.shutdown();
}

#[test]
fn in_a_terminal_it_has_one_of_its_own() {
    let d = Daemon::start(&service("web", "exec sleep 1000", ""));
    d.wait_running("web");
    let nothing = File::open("/dev/null").unwrap();
    let (ours, theirs) = terminal::pair(nothing.as_fd()).unwrap();
    let mut command = d.ctl_command(None, &["exec", "web", "--", "/bin/sh"]);
    command.env("TERM", "xterm-test").stdin(theirs.try_clone().unwrap());
    let mut child =
        command.stdout(theirs.try_clone().unwrap()).stderr(theirs.try_clone().unwrap()).spawn().unwrap();
    drop((command, theirs));
    let mut ours = File::from(ours);
    let seen = Arc::new(Mutex::new(String::new()));
    let (into, mut from) = (seen.clone(), ours.try_clone().unwrap());
    let reader = std::thread::spawn(move || {
        let mut chunk = [0; 4096];
        while let Ok(n @ 1..) = from.read(&mut chunk) {
            into.lock().unwrap().push_str(&String::from_utf8_lossy(&chunk[..n]));
        }
    });
    let wait = |what: &str| wait_for(what, SOON, || seen.lock().unwrap().contains(what).then_some(()));
    // What is typed is echoed; what is waited for is only in the answer.
    ours.write_all(b"echo \"is $TERM $(( 40 + 2 ))\"; test -t 0 && echo 'a te''rminal'\n").unwrap();
    wait("is xterm-test 42");
    wait("a terminal");
    // Ctrl-C is for what runs in the foreground of that terminal, not for keepctl.
    let line = format!("sh -c 'echo $$ > {}/pid; exec sleep 1000'; echo interr''upted\n", d.path().display());
    ours.write_all(line.as_bytes()).unwrap();
    let pid = pid_in(&d, "pid");
    ours.write_all(b"\x03").unwrap();
    wait_for("the end of what was interrupted", SOON, || (!is_alive(pid)).then_some(()));
    ours.write_all(b"exit 9\n").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(9));
    drop(ours);
    reader.join().unwrap();
    d.shutdown();
}

/// The one step that nothing but a command in a terminal takes.
#[test]
fn a_terminal_that_cannot_be_its_own_is_said_and_nothing_runs() {
    if !is_root() || common::which("strace").is_none() {
        return skip("needs root and strace");
    }
    let d = Daemon::start(&service("web", "exec sleep 1000", ""));
    d.wait_running("web");
    let all = fs::read_to_string(format!("/proc/{0}/task/{0}/children", d.keeper())).unwrap();
    let launchers = all.split_whitespace().map(|pid| pid.parse::<u32>().unwrap());
    let launchers = launchers.filter(|pid| common::command_line(*pid).split(' ').nth(1) == Some("launch"));
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=ioctl", "-e", "inject=ioctl:error=EPERM"]);
    let traced: Vec<u32> = launchers.collect();
    for pid in &traced {
        strace.args(["-p", &pid.to_string()]);
    }
    let mut strace = strace.stdin(Stdio::null()).spawn().unwrap();
    for pid in &traced {
        wait_for("strace to be attached", SOON, || (proc_status(*pid, "TracerPid") != "0").then_some(()));
    }
    let nothing = File::open("/dev/null").unwrap();
    let (ours, theirs) = terminal::pair(nothing.as_fd()).unwrap();
    let file = d.path().join("ran").display().to_string();
    let mut command = d.ctl_command(None, &["exec", "web", "--", "/bin/touch", &file]);
    let done =
        command.stdin(theirs.try_clone().unwrap()).stdout(theirs).stderr(Stdio::piped()).output().unwrap();
    drop(ours);
    strace.kill().unwrap();
    strace.wait().unwrap();
    assert!(!traced.is_empty());
    let why = "cannot give it the terminal: Operation not permitted";
    assert!(text(&done).contains(why), "{}", text(&done));
    assert_eq!(done.status.code(), Some(125));
    assert!(!d.path().join("ran").exists());
    d.shutdown();
}
