//! How a keeper ends: asked to, made to, or killed; and that none begins beside another.

use crate::{
    Test,
    rig::{Rig, Setup, alive, content, root, service, signal_of},
};
use keepd::keeper::protocol::{News, Request};

pub const TESTS: &[Test] = &[
    ("an_orderly_end_leaves_nothing", an_orderly_end_leaves_nothing),
    ("signals_are_passed_on", signals_are_passed_on),
    ("a_second_keepd_is_inert", a_second_keepd_is_inert),
    ("the_third_signal_kills_everything", the_third_signal_kills_everything),
    ("patience_ends", patience_ends),
    ("what_a_killed_keeper_leaves_without_a_state_does_not_outlive_the_next_start", killed),
    ("a_broken_configuration_ends_the_start", broken),
];

fn an_orderly_end_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("daemon");
    let verbs = ["fork-daemon", file.to_str().unwrap(), "print", "up", "sleep"];
    let mut rig = Rig::new(vec![service("a", &verbs)]);
    let cgroup = rig.cgroup();
    let (_, pid, _) = rig.started("a");
    let daemon = content(&file).parse().unwrap();
    rig.send(&[Request::Exit { status: 3 }]);
    assert_eq!(rig.wait_keeper().code(), Some(3));
    assert!(!alive(pid) && !alive(daemon));
    assert!(cgroup.is_none_or(|c| !c.exists()));
    assert_eq!(std::fs::read_to_string(rig.dir.join("run/keepd.lock")).unwrap(), "");
}

fn signals_are_passed_on() {
    let mut rig = Rig::new(Vec::new());
    rig.signal_keeper(1);
    rig.wait("Apply", |n| (*n == News::Apply).then_some(()));
    rig.signal_keeper(10);
    rig.wait("Reopen", |n| (*n == News::Reopen).then_some(()));
    rig.signal_keeper(15);
    rig.wait("Shutdown", |n| (*n == News::Shutdown { force: false }).then_some(()));
    rig.kill_manager();
    rig.accept();
    let (News::Hello(hello), _) = rig.next() else { panic!("no Hello") };
    assert_eq!(hello.shutdown, Some(false));
    rig.signal_keeper(2);
    rig.wait("Shutdown", |n| (*n == News::Shutdown { force: true }).then_some(()));
    assert_eq!(rig.exit(), Some(0));
}

fn a_second_keepd_is_inert() {
    let mut rig = Rig::new(vec![service("a", &["sleep"])]);
    let (_, pid, _) = rig.started("a");
    let (status, said) = rig.second();
    assert_eq!(status, Some(1));
    let lock = rig.dir.join("run/keepd.lock");
    let wanted = format!(
        "keepd: cannot start: another keepd (pid {}) holds the lock {}\n",
        rig.keeper_pid(),
        lock.display()
    );
    assert_eq!(said, wanted);
    assert!(alive(pid));
    assert_eq!(rig.exit(), Some(0));
}

fn the_third_signal_kills_everything() {
    let mut rig = Rig::new(vec![service("a", &["ignore-term", "print", "up", "sleep"])]);
    let cgroup = rig.cgroup();
    let (_, pid, _) = rig.started("a");
    for force in [false, true] {
        rig.signal_keeper(15);
        rig.wait("Shutdown", |n| (*n == News::Shutdown { force }).then_some(()));
    }
    assert!(alive(pid), "that is for the manager to do");
    rig.signal_keeper(15);
    assert_eq!(rig.wait_keeper().code(), Some(70));
    assert!(!alive(pid));
    assert!(cgroup.is_none_or(|c| !c.exists()));
}

/// The manager hangs: 5 s after its time the keeper acts.
fn patience_ends() {
    let services = vec![service("a", &["sleep"])];
    let mut rig = Rig::with(Setup { services, shutdown_timeout_ms: Some(1), ..Setup::default() });
    let (_, pid, _) = rig.started("a");
    rig.signal_keeper(15);
    assert_eq!(rig.wait_keeper().code(), Some(70));
    assert!(!alive(pid));
}

fn killed() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("daemon");
    let verbs = ["fork-daemon", file.to_str().unwrap(), "sleep"];
    let mut rig = Rig::new(vec![service("a", &verbs)]);
    if rig.cgroup().is_none() {
        return println!("SKIPPED what_a_killed_keeper_leaves…: no cgroup, nothing tells whose they are");
    }
    let (run, pid, _) = rig.started("a");
    let daemon = content(&file).parse().unwrap();
    rig.signal_keeper(9);
    assert_eq!(signal_of(rig.wait_keeper()), Some(9));
    assert!(alive(pid) && alive(daemon), "services live on");
    // Nobody can tell any more what they were.
    std::fs::remove_file(rig.dir.join("run/keeper/state")).unwrap();
    rig.start();
    rig.accept();
    rig.wait("HelloEnd", |n| (*n == News::HelloEnd).then_some(()));
    assert!(!alive(pid) && !alive(daemon), "no service twice");
    let (text, _) = rig.wait("Note", |n| match n {
        News::Note { text, .. } => Some(text.clone()),
        _ => None,
    });
    assert_eq!(text, format!("killed a.{run}, left behind by an earlier keepd (2 processes)"));
    assert_eq!(rig.exit(), Some(0));
}

fn broken() {
    let mut rig = Rig::new(Vec::new());
    assert_eq!(rig.exit(), Some(0));
    std::fs::write(rig.dir.join("report"), "{}").unwrap();
    assert_eq!(rig.second(), (Some(78), String::new()), "the loader says it itself");
    std::fs::remove_file(rig.dir.join("report")).unwrap();
    std::fs::write(rig.dir.join("abort"), "").unwrap();
    let (status, said) = rig.second();
    assert_eq!(status, Some(70));
    assert_eq!(said, "keepd: cannot load the configuration: the loader was killed by SIGABRT\n");
    std::fs::remove_file(rig.dir.join("abort")).unwrap();
    if root() {
        // A link instead of the lock is not followed.
        std::fs::remove_file(rig.dir.join("run/keepd.lock")).unwrap();
        std::os::unix::fs::symlink("/tmp/nowhere", rig.dir.join("run/keepd.lock")).unwrap();
        let (status, said) = rig.second();
        assert_eq!(status, Some(70), "{said}");
        assert!(said.starts_with("keepd: cannot start: the lock "), "{said}");
    }
}
