//! What is secret stays secret: values of environment files, of credentials and of `env` are looked for in everything
//! that keepd says, writes, holds and leaves behind.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod common;

use common::{SOON, Setup, is_root, passwd, sh, signal, skip, text, wait_for};
use nix::sys::{
    resource::{RLIM_INFINITY, Resource, setrlimit},
    signal::Signal,
};
use std::{
    fs::{self, File},
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt},
    path::Path,
    process::{Command, Stdio},
};

const FROM_FILE: &str = "canary-of-an-environment-file";
const CREDENTIAL: &str = "canary-of-a-credential";
const BEFORE: &str = "canary-of-env-before";
const AFTER: &str = "canary-of-env-after";
const ALL: [&str; 4] = [FROM_FILE, CREDENTIAL, BEFORE, AFTER];

fn contains(hay: &[u8], needle: &str) -> bool {
    memchr::memmem::find(hay, needle.as_bytes()).is_some()
}

/// No file below `dir` but the one that is meant to holds a secret.
fn assert_clean(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap().map(|e| e.unwrap()) {
        let (path, kind) = (entry.path(), entry.file_type().unwrap());
        if path.ends_with("run/keeper") {
            assert_kept(&path);
        } else if kind.is_dir() {
            assert_clean(&path);
        } else if kind.is_file() {
            let content = fs::read(&path).unwrap();
            ALL.iter().for_each(|s| assert!(!contains(&content, s), "{s} is in {}", path.display()));
        }
    }
}

/// What the next keeper would go on from: the plans are the configuration, for as few eyes as that; nothing else is.
fn assert_kept(dir: &Path) {
    assert_eq!(fs::metadata(dir).unwrap().permissions().mode() & 0o777, 0o700, "{}", dir.display());
    for entry in fs::read_dir(dir).unwrap().map(|e| e.unwrap()) {
        let (path, content) = (entry.path(), fs::read(entry.path()).unwrap());
        assert_eq!(entry.metadata().unwrap().permissions().mode() & 0o777, 0o600, "{}", path.display());
        let of_plan = entry.file_name().to_string_lossy().starts_with("plan.");
        let allowed = |s: &str| of_plan && [BEFORE, AFTER].contains(&s);
        let found = ALL.iter().filter(|s| !allowed(s)).find(|s| contains(&content, s));
        assert!(found.is_none(), "{found:?} is in {}", path.display());
    }
}

/// Whether it is anywhere in what a process can write to in its memory.
fn in_memory(pid: u32, needle: &str) -> bool {
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let maps = fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let regions = maps.lines().filter(|l| l.split(' ').nth(1).is_some_and(|p| p.starts_with("rw")));
    regions.into_iter().any(|line| {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let [from, to] = [from, to].map(|hex| u64::from_str_radix(hex, 16).unwrap());
        let mut bytes = vec![0; usize::try_from(to - from).unwrap()];
        // Some special mappings cannot be read.
        memory.read_exact_at(&mut bytes, from).is_ok() && contains(&bytes, needle)
    })
}

fn config(dir: &Path, env: &str) -> String {
    let at = dir.display();
    format!(
        "[service.web]\n{}env = {{ PLAIN = \"{env}\" }}\nenv-files = [\"{at}/secret/env\"]\n\
         credentials = {{ key = \"{at}/secret/key\" }}\n\
         [service.broken]\n{}env = {{ PLAIN = \"{env}\" }}\nenv-files = [\"{at}/secret/env\", \"{at}/secret/bad\"]\n\
         restart = \"never\"\n",
        sh("exec sleep 1000"),
        sh("exec sleep 1000"),
    )
}

#[test]
fn secrets_are_nowhere_but_where_they_belong() {
    if !is_root() {
        return skip("needs root: credentials are mounted");
    }
    let mut d = Setup { daemon: "user = \"daemon\"", ..Setup::default() }.prepare();
    fs::create_dir(d.path().join("secret")).unwrap();
    fs::write(d.path().join("secret/env"), format!("FILE={FROM_FILE}\n")).unwrap();
    fs::write(d.path().join("secret/key"), CREDENTIAL).unwrap();
    fs::write(d.path().join("secret/bad"), format!("GOOD=1\n{FROM_FILE}\n")).unwrap();
    d.write_config(&config(d.path(), BEFORE));
    d.launch();
    d.await_api();
    let web = d.wait_running("web");
    d.wait_service("broken", "a failed start", |s| s["consecutive_failures"].as_u64() > Some(0));
    wait_for("the service's own exec", SOON, || in_memory(web, FROM_FILE).then_some(()));
    let found = d.path().join("run/credentials/key");
    let inside = format!("/proc/{web}/root{}", found.display());
    assert_eq!(fs::read_to_string(inside).unwrap(), CREDENTIAL);
    assert!(!found.exists());
    let seen = d.ctl_ok(&["exec", "web", "--", "/bin/cat", found.to_str().unwrap()]);
    assert_eq!(seen, CREDENTIAL, "a command inside the service finds them too");

    d.write_config(&config(d.path(), AFTER));
    let plan = d.ctl_ok(&["plan"]);
    assert!(plan.contains("launch.env.PLAIN: changed (the value is not shown)"), "{plan}");
    // `broken` does not start anew either.
    let mut said = plan + &d.ctl_ok(&["plan", "--json"]) + &d.ctl_fails(1, &["apply"]);
    let web = d.wait_service("web", "its successor", |s| {
        s["state"] == "running" && s["pid"].as_u64().is_some_and(|p| p != u64::from(web))
    });
    let web = u32::try_from(web["pid"].as_u64().unwrap()).unwrap();
    for args in
        [&["status"][..], &["status", "web"], &["status", "broken"], &["status", "--json"], &["events"]]
    {
        said += &text(&d.ctl(args));
    }
    for target in ["/v1/status", "/v1/services", "/v1/services/web", "/v1/services/broken", "/v1/plan"] {
        said += &d.http("GET", target, "").1;
    }
    assert!(said.contains("line 2 has no `=`"), "the failed start is told: {said}");
    for secret in ALL {
        assert!(!said.contains(secret), "{secret} was said:\n{said}");
    }
    for folder in ["run", "state", "log"] {
        assert_clean(&d.path().join(folder));
    }
    assert!(!ALL.iter().any(|s| d.output().contains(s)), "{}", d.output());
    for process in fs::read_dir("/proc").unwrap().map(|e| e.unwrap().path()) {
        let line = fs::read(process.join("cmdline")).unwrap_or_default();
        // But for this test's own name, if it were to be one.
        assert!(!ALL.iter().any(|s| contains(&line, s)), "{}", process.display());
    }
    wait_for("the service's own exec", SOON, || in_memory(web, FROM_FILE).then_some(()));
    for (role, pid) in [("keeper", d.keeper()), ("manager", d.manager())] {
        for secret in [FROM_FILE, CREDENTIAL] {
            assert!(!in_memory(pid, secret), "the {role} holds {secret}");
        }
    }
    assert!(!in_memory(d.keeper(), AFTER), "the keeper holds the plan's values");
    d.shutdown();
}

/// What keepd's own processes leave behind when they crash.
#[test]
fn a_crash_leaves_no_core() {
    if !is_root() {
        return skip("needs root: an ordinary user's own core files are the user's");
    }
    setrlimit(Resource::RLIMIT_CORE, RLIM_INFINITY, RLIM_INFINITY).unwrap();
    let cores = |dir: &Path| {
        let names = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
        names.filter(|n| n.starts_with("core")).collect::<Vec<_>>()
    };
    let control = tempfile::tempdir().unwrap();
    let crash = ["-c", "kill -ABRT $$"];
    let mut shell = Command::new("/bin/sh");
    let _ = shell.args(crash).current_dir(control.path()).stderr(Stdio::null()).status().unwrap();
    if cores(control.path()).is_empty() {
        return skip("this host does not write core files into the working directory");
    }
    let mut d = Setup { daemon: "user = \"daemon\"", ..Setup::default() }.prepare();
    fs::set_permissions(d.path(), fs::Permissions::from_mode(0o777)).unwrap();
    d.launch();
    d.await_api();
    let manager = d.manager();
    assert_eq!(proc_owner(manager), 0, "its user must not look into it");
    assert_ne!(passwd("daemon").unwrap().0, 0);
    signal(manager, Signal::SIGABRT);
    wait_for("another manager", SOON, || {
        let (code, body) = d.try_get("/v1/status").ok()?;
        let status: serde_json::Value = serde_json::from_str(&body).ok()?;
        (code == 200 && status["manager_pid"] != manager && status["state"] == "running").then_some(())
    });
    let keeper = d.keeper();
    let children = fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children")).unwrap();
    for pid in children.split_whitespace().map(|p| p.parse().unwrap()) {
        if common::command_line(pid).contains(" launch") {
            signal(pid, Signal::SIGABRT);
            wait_for("its end", SOON, || (!common::is_alive(pid)).then_some(()));
        }
    }
    let manager = d.manager();
    signal(keeper, Signal::SIGABRT);
    d.wait_exit(SOON);
    // It would go on writing logs until the next keepd takes over.
    signal(manager, Signal::SIGKILL);
    assert_eq!(cores(d.path()), Vec::<String>::new());
}

/// Who may look into it: its user, or root where it hides its memory.
fn proc_owner(pid: u32) -> u32 {
    fs::metadata(format!("/proc/{pid}/environ")).unwrap().uid()
}
