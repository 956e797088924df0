//! Between keeper, manager and loader: who gets what, and what happens when one of them goes or lies.

use crate::{
    Test,
    rig::{Rig, Setup, alive, read_all, read_line, root, service, until},
};
use keepd::{
    keeper::protocol::{Kept, News, NoteLevel, Pipes, Request},
    plan::{Exit, Generation, Name, RunId},
    sys::{fd, memory::Mapping},
};
use std::{fs, os::fd::AsFd};

pub const TESTS: &[Test] = &[
    ("the_first_hand_over", the_first_hand_over),
    ("the_manager_has_no_rights", the_manager_has_no_rights),
    ("a_new_manager_is_told_everything", a_new_manager_is_told_everything),
    ("requests_of_a_dead_manager_are_done", requests_of_a_dead_manager_are_done),
    ("nonsense_is_ignored", nonsense_is_ignored),
    ("plans_are_loaded_and_dropped", plans_are_loaded_and_dropped),
    ("a_failed_load_is_reported", a_failed_load_is_reported),
    ("many_at_once", many_at_once),
];

fn the_first_hand_over() {
    let mut rig = Rig::new(vec![service("a", &[])]);
    let (News::Hello(hello), _) = rig.next() else { panic!("no Hello") };
    assert_eq!((hello.generation, hello.last_run, hello.managers_before), (Generation(1), RunId(0), 0));
    assert_eq!(hello.pid as i32, rig.keeper_pid());
    assert_eq!(hello.shutdown, None);
    let (news, fds) = rig.next();
    assert_eq!(news, News::Plan { generation: Generation(1) });
    let image = Mapping::new(fds[0].as_fd()).unwrap();
    assert_eq!(*image, *fs::read(rig.dir.join("plan")).unwrap());
    assert!(fd::write(fds[0].as_fd(), b"x").is_err(), "it is sealed");
    assert_eq!(rig.next().0, News::HelloEnd);
    assert_eq!(fs::read_to_string(rig.dir.join("run/keepd.lock")).unwrap().trim(), hello.pid.to_string());
}

fn the_manager_has_no_rights() {
    if !root() {
        return println!("SKIPPED the_manager_has_no_rights: it takes root to give rights up");
    }
    let none = ["0000000000000000"];
    let as_user = Rig::with(Setup { manager: Some((64000, 64001)), ..Setup::default() });
    assert_eq!(as_user.manager_status("Uid"), ["64000"; 4]);
    assert_eq!(as_user.manager_status("Gid"), ["64001"; 4]);
    assert_eq!(as_user.manager_status("Groups"), ["64001"]);
    use std::os::unix::fs::MetadataExt;
    for folder in ["run", "state", "log"] {
        let meta = fs::metadata(as_user.dir.join(folder)).unwrap();
        assert_eq!((meta.uid(), meta.gid()), (64000, 64001), "{folder}");
        assert_eq!(meta.mode() & 0o7777, if folder == "run" { 0o755 } else { 0o750 }, "{folder}");
    }
    let as_root = Rig::new(Vec::new());
    assert_eq!(as_root.manager_status("Uid"), ["0"; 4]);
    for rig in [as_user, as_root] {
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(rig.manager_status(set), none, "{set}");
        }
        assert_eq!(rig.manager_status("NoNewPrivs"), ["1"]);
        let env = fs::read_to_string(rig.dir.join("manager-env")).unwrap();
        assert!(!env.contains("NOTIFY_SOCKET") && env.contains("PATH="), "{env}");
    }
}

fn a_new_manager_is_told_everything() {
    let mut rig = Rig::new(vec![
        service("dead", &["exit", "7"]),
        service("left", &["leader-exits"]),
        service("live", &["print", "before", "wait-signal", "USR1", "print", "after", "sleep"]),
    ]);
    let (live, pid, _) = rig.started("live");
    let (dead, _, _) = rig.started("dead");
    rig.exited(dead);
    let (left, _, _) = rig.started("left");
    rig.exited(left);
    let remember = |s: &str, t: &str| Request::Remember {
        service: Name::new(s),
        state: Kept::new(format!("{{\"is\":\"{t}\"}}")).unwrap(),
    };
    rig.send(&[remember("live", "old"), remember("dead", "x"), remember("live", "new")]);
    rig.send(&[Request::Forget { service: Name::new("dead") }]);
    rig.news_so_far();
    rig.kill_manager();
    rig.accept();

    let (News::Hello(hello), _) = rig.next() else { panic!("no Hello") };
    assert_eq!((hello.last_run, hello.managers_before), (left, 1));
    let mut facts = Vec::new();
    let mut pipes = Vec::new();
    loop {
        let (news, fds) = rig.next();
        match news {
            News::HelloEnd => break,
            News::Run { run, pipes: p, .. } => {
                assert_eq!((p, fds.len()), (Pipes { stdout: true, stderr: false }, 1));
                pipes.push((run, fds));
                facts.push(format!("run {run}"));
            }
            News::Started { run, pipes: p, .. } => {
                assert_eq!((p, fds.len()), (Pipes::default(), 0));
                facts.push(format!("started {run}"));
            }
            News::Exited { run, exit, leftovers, .. } => {
                facts.push(format!("exited {run} {exit:?} {leftovers}"));
            }
            News::Remembered { service, state } => facts.push(format!("{service} {}", state.as_str())),
            News::Plan { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(
        facts,
        [
            r#"live {"is":"new"}"#.to_owned(),
            format!("run {live}"),
            format!("started {live}"),
            format!("run {dead}"),
            format!("started {dead}"),
            format!("exited {dead} {:?} false", Exit::Code(7)),
            format!("run {left}"),
            format!("started {left}"),
            format!("exited {left} {:?} true", Exit::Code(0)),
        ]
    );
    assert!(alive(pid), "services do not notice");
    assert_eq!(read_line(&pipes[0].1[0]), "before\n", "nobody has read it before");
    rig.send(&[Request::Signal { run: live, signal: 10 }]);
    assert_eq!(read_line(&pipes[0].1[0]), "after\n");
    assert!(rig.stderr().contains("the manager was killed by SIGKILL"), "{}", rig.stderr());
    rig.send(&[Request::KillTree { run: left }]);
    rig.emptied(left);
}

fn requests_of_a_dead_manager_are_done() {
    let mut rig = Rig::new(vec![service("a", &["print", "hello"])]);
    // Turn and end in one breath: the relay is gone before the keeper has read half of it.
    let runs: Vec<RunId> = (0..20).map(|_| rig.launch("a")).collect();
    rig.news_so_far();
    rig.kill_manager();
    rig.accept();
    let mut seen = Vec::new();
    loop {
        match rig.next() {
            (News::HelloEnd, _) => break,
            (News::Run { run, .. }, fds) => seen.push((run, fds)),
            _ => {}
        }
    }
    assert_eq!(seen.iter().map(|(run, _)| *run).collect::<Vec<_>>(), runs);
    for (run, mut fds) in seen {
        // What was launched by then comes with its pipe, the rest when it is.
        if fds.is_empty() {
            (_, fds) =
                rig.wait("Started", |n| matches!(n, News::Started { run: r, .. } if *r == run).then_some(()));
        }
        assert_eq!(read_all(&fds[0]), "hello\n");
    }
}

fn nonsense_is_ignored() {
    let mut rig = Rig::new(vec![service("a", &["sleep"])]);
    let (run, pid, _) = rig.started("a");
    let ghost = RunId(999);
    rig.send_raw(b"\xff\x00 not JSON");
    rig.send_raw(b"{\"launch\":1}");
    rig.send_raw(br#"["load_everything",{"signal":{"run":1,"signal":"x"}},"pong"]"#);
    rig.send_raw("[".repeat(60_000).as_bytes());
    rig.send(&[
        Request::Signal { run, signal: 0 },
        Request::Signal { run, signal: 65 },
        Request::SignalTree { run, signal: -9 },
        Request::Signal { run: ghost, signal: 9 },
        Request::KillTree { run: ghost },
        Request::Release { run: ghost },
        Request::Release { run },
        Request::DropPlan { generation: Generation(1) },
        Request::DropPlan { generation: Generation(77) },
        Request::AdoptPlan { generation: Generation(77) },
        Request::Pong,
    ]);
    let news = rig.news_so_far();
    let complaints = news.iter().filter(|n| matches!(n, News::Note { level: NoteLevel::Error, .. })).count();
    assert_eq!(complaints, 12, "{news:#?}");
    assert!(alive(pid));
    // And it goes on as before.
    let (again, _, _) = rig.started("a");
    rig.send(&[Request::KillTree { run: again }, Request::KillTree { run }]);
    rig.exited(again);
    rig.exited(run);
    assert_eq!(rig.exit(), Some(0));
}

fn plans_are_loaded_and_dropped() {
    let mut rig = Rig::new(vec![service("a", &["sleep"])]);
    let (old, _, _) = rig.started("a");
    rig.add_service(service("b", &["exit", "3"]));
    rig.send(&[Request::Load]);
    let (generation, fds) = rig.wait("Loaded", |n| match n {
        News::Loaded { generation } => Some(*generation),
        _ => None,
    });
    assert_eq!((generation, fds.len()), (Some(Generation(2)), 1));
    let run = RunId(50);
    let launch = |run, generation, entry, service: &str| Request::Launch {
        run,
        service: Name::new(service),
        generation: Generation(generation),
        entry,
        call: None,
    };
    rig.send(&[
        Request::AdoptPlan { generation: Generation(2) },
        Request::DropPlan { generation: Generation(1) },
        launch(run, 2, 1, "b"),
        launch(RunId(51), 1, 1, "b"),
    ]);
    assert_eq!(rig.exited(run).0, Exit::Code(3));
    let (why, _) = rig.wait("LaunchFailed", |n| match n {
        News::LaunchFailed { run: RunId(51), why, .. } => Some(why.clone()),
        _ => None,
    });
    assert_eq!(why, "cannot read the plan of b: the plan image is damaged: there is no entry 1");
    // The old plan is held as long as its run is.
    rig.send(&[Request::KillTree { run: old }]);
    rig.exited(old);
    rig.send(&[Request::Release { run: old }, launch(RunId(52), 1, 0, "a")]);
    let (why, _) = rig.wait("LaunchFailed", |n| match n {
        News::LaunchFailed { run: RunId(52), why, .. } => Some(why.clone()),
        _ => None,
    });
    assert_eq!(why, "cannot read the plan of a: that plan is not held any more");
    rig.kill_manager();
    rig.accept();
    let (News::Hello(hello), _) = rig.next() else { panic!("no Hello") };
    assert_eq!((hello.generation, hello.last_run), (Generation(2), RunId(52)));
}

fn a_failed_load_is_reported() {
    let mut rig = Rig::new(vec![service("a", &["sleep"])]);
    let load = |rig: &mut Rig| {
        rig.send(&[Request::Load]);
        let (generation, fds) = rig.wait("Loaded", |n| match n {
            News::Loaded { generation } => Some(*generation),
            _ => None,
        });
        assert_eq!(generation, None);
        let mut text = String::new();
        use std::io::{Read, Seek};
        let mut file = fs::File::from(fds.into_iter().next().unwrap());
        file.rewind().unwrap();
        file.read_to_string(&mut text).unwrap();
        text
    };
    fs::write(rig.dir.join("report"), "{\"diagnostics\":[]}").unwrap();
    assert_eq!(load(&mut rig), "{\"diagnostics\":[]}");
    fs::remove_file(rig.dir.join("report")).unwrap();
    fs::write(rig.dir.join("unsealed"), "").unwrap();
    let report: keepd::wire::LoadReport = serde_json::from_str(&load(&mut rig)).unwrap();
    assert!(report.diagnostics[0].message.contains("not sealed"), "{report:?}");
    fs::write(rig.dir.join("abort"), "").unwrap();
    let report: keepd::wire::LoadReport = serde_json::from_str(&load(&mut rig)).unwrap();
    assert_eq!(
        report.diagnostics[0].message,
        "cannot load the configuration: the loader was killed by SIGABRT; the present one stays in force"
    );
}

/// Many launches in flight: each is answered once, in whatever order, and no descriptor is left over.
fn many_at_once() {
    const RUNS: usize = 300;
    let mut s = service("a", &[]);
    s.launch.argv = vec!["/bin/true".into()];
    let mut rig = Rig::new(vec![s]);
    let fds = |rig: &Rig| fs::read_dir(format!("/proc/{}/fd", rig.keeper_pid())).unwrap().count();
    let idle = fds(&rig);
    for _ in 0..2 {
        let runs: Vec<RunId> = (0..RUNS).map(|_| rig.launch("a")).collect();
        for run in &runs {
            assert_eq!(rig.exited(*run), (Exit::Code(0), false));
        }
        rig.send(&runs.iter().map(|run| Request::Release { run: *run }).collect::<Vec<_>>());
        let news = rig.news_so_far();
        let started = news.iter().filter(|n| matches!(n, News::Started { .. })).count();
        assert_eq!(started, RUNS);
        // Launchers that were started meanwhile have a socket and a pidfd each.
        until("as many descriptors are open as before", || fds(&rig) <= idle + 6);
    }
}
