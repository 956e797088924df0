//! Processes that do not want to go: everything of a run is found and ended, with a cgroup and without.

use crate::{
    Test,
    rig::{Rig, Setup, alive, content, read_all, read_line, root, service, state_of, until},
};
use keepd::{
    keeper::protocol::{News, Request},
    plan::{Exit, Job, Reload},
};

pub const TESTS: &[Test] = &[
    ("exits_are_told_as_they_were", exits_are_told_as_they_were),
    ("kill_ends_daemons_and_bombs", kill_ends_daemons_and_bombs),
    ("a_leader_that_exits_first_is_not_the_end", a_leader_that_exits_first_is_not_the_end),
    ("a_service_that_ignores_sigterm_is_killed", a_service_that_ignores_sigterm_is_killed),
    ("a_stopped_service_sees_sigterm", a_stopped_service_sees_sigterm),
    ("the_whole_tree_is_signalled", the_whole_tree_is_signalled),
    ("jobs_run_beside_the_main_process", jobs_run_beside_the_main_process),
    ("without_cgroups_trees_are_found_in_proc", without_cgroups_trees_are_found_in_proc),
    ("orphans_are_reaped", orphans_are_reaped),
];

fn pid_in(file: &std::path::Path) -> i32 {
    content(file).parse().unwrap()
}

fn exits_are_told_as_they_were() {
    let mut rig = Rig::new(vec![
        service("abrt", &["crash", "ABRT"]),
        service("code", &["exit", "255"]),
        service("kill", &["crash", "KILL"]),
        service("segv", &["crash", "SEGV"]),
        service("term", &["crash", "TERM"]),
    ]);
    for (name, signal) in [("abrt", 6), ("kill", 9), ("segv", 11), ("term", 15)] {
        let (run, _, _) = rig.started(name);
        match rig.exited(run) {
            (Exit::Signal { signal: s, .. }, false) => assert_eq!(s, signal),
            other => panic!("{name}: {other:?}"),
        }
    }
    let (run, _, _) = rig.started("code");
    assert_eq!(rig.exited(run), (Exit::Code(255), false));
}

fn kill_ends_daemons_and_bombs() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("daemon");
    let verbs =
        ["fork-daemon", file.to_str().unwrap(), "fork-bomb", "20", "ignore-term", "print", "up", "sleep"];
    let mut rig = Rig::new(vec![service("a", &verbs)]);
    let (run, pid, pipes) = rig.started("a");
    assert_eq!(read_line(&pipes[0]), "up\n");
    let daemon = pid_in(&file);
    assert!(alive(daemon) && alive(pid));
    rig.send(&[Request::KillTree { run }]);
    let (exit, leftovers) = rig.exited(run);
    assert!(matches!(exit, Exit::Signal { signal: 9, .. }), "{exit:?}");
    if leftovers {
        rig.emptied(run);
    }
    // The pipe is closed only once the last of them is gone.
    read_all(&pipes[0]);
    assert!(!alive(daemon) && !alive(pid));
    if let Some(cgroup) = rig.cgroup() {
        until("its cgroup is removed", || !cgroup.join(format!("a.{run}")).exists());
    }
}

fn a_leader_that_exits_first_is_not_the_end() {
    let mut rig = Rig::new(vec![service("a", &["leader-exits"])]);
    let (run, _, _) = rig.started("a");
    assert_eq!(rig.exited(run), (Exit::Code(0), true));
    // It is alive: a release is refused, and nothing says that it is empty.
    rig.send(&[Request::Release { run }]);
    let news = rig.news_so_far();
    assert!(!news.contains(&News::Emptied { run }), "{news:?}");
    assert!(
        news.iter().any(|n| matches!(n, News::Note { text, .. } if text.contains("is alive"))),
        "{news:?}"
    );
    rig.send(&[Request::KillTree { run }]);
    rig.emptied(run);
    rig.send(&[Request::KillTree { run }]);
    let news = rig.news_so_far();
    assert!(!news.contains(&News::Emptied { run }), "told twice: {news:?}");
    rig.send(&[Request::Release { run }]);
    assert!(rig.news_so_far().iter().all(|n| !matches!(n, News::Note { .. })));
}

fn a_service_that_ignores_sigterm_is_killed() {
    let mut rig = Rig::new(vec![service("a", &["ignore-term", "print", "up", "sleep"])]);
    let (run, pid, pipes) = rig.started("a");
    assert_eq!(read_line(&pipes[0]), "up\n");
    rig.send(&[Request::Signal { run, signal: 15 }]);
    assert!(rig.news_so_far().iter().all(|n| !matches!(n, News::Exited { .. })));
    assert!(alive(pid));
    rig.send(&[Request::KillTree { run }]);
    assert_eq!(rig.exited(run), (Exit::Signal { signal: 9, core: false }, false));
}

fn a_stopped_service_sees_sigterm() {
    let mut rig = Rig::new(vec![service("a", &["stop-self", "exit", "1"])]);
    let (run, pid, _) = rig.started("a");
    until("it has stopped itself", || state_of(pid) == Some('T'));
    rig.send(&[Request::Signal { run, signal: 15 }]);
    assert_eq!(rig.exited(run), (Exit::Signal { signal: 15, core: false }, false));
}

fn the_whole_tree_is_signalled() {
    let dir = tempfile::tempdir().unwrap();
    let (daemon, child) = (dir.path().join("daemon"), dir.path().join("child"));
    let mut rig = Rig::new(vec![service(
        "a",
        &[
            "fork-daemon",
            daemon.to_str().unwrap(),
            "fork-child",
            child.to_str().unwrap(),
            "ignore-term",
            "print",
            "up",
            "wait-signal",
            "HUP",
            "exit",
            "5",
        ],
    )]);
    let (run, main, pipes) = rig.started("a");
    assert_eq!(read_line(&pipes[0]), "up\n");
    let (daemon, child) = (pid_in(&daemon), pid_in(&child));
    rig.send(&[Request::SignalTree { run, signal: 15 }]);
    until("the others have ended", || !alive(daemon) && !alive(child));
    assert!(alive(main), "it ignores that signal");
    rig.send(&[Request::Signal { run, signal: 1 }]);
    assert_eq!(rig.exited(run), (Exit::Code(5), false));
}

fn jobs_run_beside_the_main_process() {
    let child = crate::rig::child();
    let argv = |verbs: &[&str]| -> Vec<String> {
        std::iter::once(child.clone()).chain(verbs.iter().map(|v| (*v).to_owned())).collect()
    };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("report");
    let mut a = service("a", &["print", "up", "sleep"]);
    a.reload = Reload::Command(argv(&["report", file.to_str().unwrap(), "print", "reloaded"]));
    a.stop.command = argv(&["exit", "9"]);
    let mut b = service("b", &["sleep"]);
    b.stop.command = vec!["/no/such/program".into()];
    let mut rig = Rig::new(vec![a, b]);
    let (run, pid, pipes) = rig.started("a");
    assert_eq!(read_line(&pipes[0]), "up\n");
    let job = |rig: &mut Rig, run, job| {
        rig.send(&[Request::RunJob { run, job }]);
        rig.wait("JobEnded", |n| match n {
            News::JobEnded { run: r, job: j, why } if *r == run && *j == job => Some(why.clone()),
            _ => None,
        })
        .0
    };
    assert_eq!(job(&mut rig, run, Job::Reload), "");
    assert_eq!(read_line(&pipes[0]), "reloaded\n", "its output is the service's");
    let report: serde_json::Value = serde_json::from_str(&content(&file)).unwrap();
    assert_eq!(report["env"]["MAINPID"], pid.to_string());
    assert_eq!(report["fds"].as_object().unwrap().len(), 3);
    assert_eq!(job(&mut rig, run, Job::Stop), "the stop command exited with status 9");
    let (other, _, _) = rig.started("b");
    let why = job(&mut rig, other, Job::Stop);
    assert_eq!(why, "cannot execute /no/such/program: No such file or directory");
    assert!(job(&mut rig, other, Job::Reload).starts_with("cannot execute the command"));
    rig.send(&[Request::KillTree { run }]);
    rig.exited(run);
    assert_eq!(job(&mut rig, run, Job::Stop), "the main process is not running");
}

fn without_cgroups_trees_are_found_in_proc() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(dir.path(), std::os::unix::fs::PermissionsExt::from_mode(0o777)).unwrap();
    let file = dir.path().join("daemon");
    let verbs = ["fork-daemon", file.to_str().unwrap(), "fork-bomb", "5", "print", "up", "leader-exits"];
    let services = vec![service("a", &verbs), service("b", &["sleep"])];
    let uid = root().then_some(65534);
    let mut rig = Rig::with(Setup { services, uid, ..Setup::default() });
    let (hello, _) = rig.wait("Hello", |n| match n {
        News::Hello(h) => Some(h.clone()),
        _ => None,
    });
    if hello.cgroup.is_some() {
        return println!("SKIPPED without_cgroups_trees_are_found_in_proc: this user has a cgroup");
    }
    assert!(hello.degraded[0].contains("cannot be used as a cgroup"), "{:?}", hello.degraded);
    let (stranger, stranger_pid, _) = rig.started("b");
    let (run, _, pipes) = rig.started("a");
    assert_eq!(read_line(&pipes[0]), "up\n");
    let daemon = pid_in(&file);
    assert_eq!(rig.exited(run), (Exit::Code(0), true));
    rig.send(&[Request::KillTree { run }]);
    rig.emptied(run);
    read_all(&pipes[0]);
    assert!(!alive(daemon));
    assert!(alive(stranger_pid), "another run is none of it");
    rig.send(&[Request::Release { run }, Request::Signal { run: stranger, signal: 15 }]);
    assert_eq!(rig.exited(stranger), (Exit::Signal { signal: 15, core: false }, false));
}

fn orphans_are_reaped() {
    let mut rig = Rig::new(vec![service("a", &["fork-bomb", "30", "print", "up", "sleep"])]);
    let (_, main, pipes) = rig.started("a");
    assert_eq!(read_line(&pipes[0]), "up\n");
    let keeper = rig.keeper_pid();
    let zombies = || {
        let entries = std::fs::read_dir("/proc").unwrap().flatten();
        entries
            .filter_map(|e| std::fs::read_to_string(e.path().join("stat")).ok())
            .filter_map(|s| {
                let rest: Vec<String> = s.rsplit_once(')')?.1.split_whitespace().map(str::to_owned).collect();
                (rest[0] == "Z" && rest[1] == keeper.to_string()).then_some(())
            })
            .count()
    };
    until("no zombie is left", || zombies() == 0);
    assert!(alive(main));
}
