//! What a hostile service, or a hostile user of the host, may try against the keeper itself.

use crate::{
    Test,
    identity::identity,
    inject::{Tracer, launcher, ready, restrict},
    rig::{Rig, alive, read_line, root, service, state_of, until},
};
use keepd::{
    keeper::protocol::{News, Request},
    plan::{Exit, Limit},
    sys::process,
};
use std::{
    fs,
    os::{fd::AsFd, unix::process::CommandExt},
    process::{Command, Stdio},
};

pub const TESTS: &[Test] = &[
    ("groups_go_before_the_group_and_that_before_the_user", groups_go_before_the_group),
    ("a_child_that_is_stopped_before_exec_holds_nobody_up", a_child_that_is_stopped_before_exec),
    ("a_pid_that_was_given_to_somebody_else_is_not_signalled", a_pid_that_was_given_to_somebody_else),
    ("a_user_with_too_many_processes_is_told_at_exec", a_user_with_too_many_processes),
];

/// Nobody else's in these tests.
const OWN: u32 = 64_321;

fn groups_go_before_the_group() {
    if !ready("groups_go_before_the_group_and_that_before_the_user") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("calls");
    let mut s = service("a", &["print", "up", "sleep"]);
    s.launch.identity = Some(identity(OWN, OWN, &[OWN]));
    s.launch.sandbox.capabilities = Some(Default::default());
    restrict(&mut s);
    let mut rig = Rig::new(vec![s]);
    let calls = ["setsid", "setgroups", "setresgid", "setresuid", "chdir", "execve"];
    let tracer = Tracer::watch(launcher(&rig), &calls, &file);
    let (_, pid, pipes) = rig.started("a");
    assert_eq!(read_line(&pipes[0]), "up\n");
    drop(tracer);
    let text = fs::read_to_string(&file).unwrap();
    let of_child = text.lines().filter_map(|l| l.strip_prefix(&pid.to_string())).map(str::trim);
    let made: Vec<&str> =
        of_child.filter_map(|l| calls.into_iter().find(|c| l.starts_with(&format!("{c}(")))).collect();
    // The last attempt at root's id is the proof that it is gone.
    let wanted = ["setsid", "setgroups", "setresgid", "setresuid", "setresuid", "chdir", "execve"];
    assert_eq!(made, wanted, "{text}");
    let proof = text.lines().find(|l| l.contains("setresuid(0, 0, 0)")).unwrap();
    assert!(proof.contains("= -1 EPERM"), "{proof}");
}

/// From when it is its user's, that user can stop it. One launcher waits for it, and no other service does.
fn a_child_that_is_stopped_before_exec() {
    if !ready("a_child_that_is_stopped_before_exec_holds_nobody_up") {
        return;
    }
    let mut victim = service("victim", &["sleep"]);
    victim.launch.identity = Some(identity(OWN, OWN, &[OWN]));
    victim.launch.sandbox.capabilities = Some(Default::default());
    let mut other = service("other", &["exit", "0"]);
    restrict(&mut victim);
    restrict(&mut other);
    let mut rig = Rig::new(vec![other, victim]);
    let tracer = Tracer::attach(launcher(&rig), &["chdir:signal=STOP"]);
    let run = rig.launch("victim");
    let mut stopped = 0;
    until("the child is stopped", || {
        let all =
            fs::read_dir("/proc").unwrap().flatten().filter_map(|e| e.file_name().to_str()?.parse().ok());
        let own = |pid: &i32| {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            status.lines().any(|l| l.starts_with(&format!("Uid:\t{OWN}\t")))
        };
        stopped = all.filter(own).find(|pid| matches!(state_of(*pid), Some('T' | 't'))).unwrap_or(0);
        stopped != 0
    });
    // It is in its launcher's memory, which is not its user's to look into or to change.
    let mut own = Command::new("/bin/sleep").arg("1000").uid(OWN).gid(OWN).spawn().unwrap();
    let looks = |pid: u32| {
        let mut look = Command::new("/bin/cat");
        look.arg(format!("/proc/{pid}/environ")).uid(OWN).gid(OWN);
        look.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
    };
    assert!(looks(own.id()) && !looks(stopped as u32));
    own.kill().unwrap();
    own.wait().unwrap();
    for _ in 0..20 {
        let (run, _, _) = rig.started("other");
        assert_eq!(rig.exited(run).0, Exit::Code(0));
    }
    // And it can be killed, which ends the wait of its launcher.
    rig.send(&[Request::KillTree { run }]);
    rig.wait("the end of that launch", |n| {
        matches!(n, News::LaunchFailed { run: r, .. } | News::Exited { run: r, .. } if *r == run)
            .then_some(())
    });
    drop(tracer);
    until("the child is gone", || !alive(stopped));
}

/// The main process is reaped and the number given to another process: requests for the run do not reach that.
fn a_pid_that_was_given_to_somebody_else() {
    if !root() {
        return println!("SKIPPED a_pid_that_was_given_to_somebody_else_is_not_signalled: it takes root");
    }
    let mut rig = Rig::new(vec![service("a", &["exit", "0"]), service("b", &["exit", "0"])]);
    let (run, pid, _) = rig.started("a");
    rig.exited(run);
    until("it is reaped", || state_of(pid).is_none());
    let Some(stranger) = born_as(pid) else {
        return println!("SKIPPED a_pid_that_was_given…: this kernel does not let us choose a pid");
    };
    assert_eq!(stranger.pid, pid);
    rig.send(&[
        Request::Signal { run, signal: 9 },
        Request::SignalTree { run, signal: 9 },
        Request::KillTree { run },
        Request::Release { run },
    ]);
    // Requests are done in order: when this has run, those are done.
    let (other, _, _) = rig.started("b");
    rig.exited(other);
    assert!(alive(pid), "a stranger was killed");
    keepd::sys::pidfd::send_signal(stranger.pidfd.as_fd(), 9).unwrap();
    keepd::sys::pidfd::wait_end(stranger.pidfd.as_fd(), 10_000).unwrap();
    let _ = keepd::sys::reap::reap(stranger.pidfd.as_fd());
}

/// A process of this test that waits, with this pid (clone3 with set_tid).
fn born_as(pid: i32) -> Option<process::Child> {
    #[repr(C)]
    #[derive(Default)]
    struct Args([u64; 11]);
    const CLONE_PIDFD: u64 = 0x1000;
    let (mut pidfd, wanted) = (-1i32, pid);
    let mut args = Args::default();
    (args.0[0], args.0[1]) = (CLONE_PIDFD, &raw mut pidfd as u64);
    (args.0[4], args.0[8], args.0[9]) = (17, &raw const wanted as u64, 1);
    // SAFETY: a valid clone_args; the child runs on a copy of this one-threaded process, and only waits.
    let born = unsafe { nix::libc::syscall(nix::libc::SYS_clone3, &raw const args, size_of::<Args>()) };
    match born {
        0 => loop {
            nix::unistd::pause();
        },
        1.. => {
            // SAFETY: the kernel has just opened it for us.
            let pidfd = unsafe { std::os::fd::FromRawFd::from_raw_fd(pidfd) };
            Some(process::Child { pid: i32::try_from(born).unwrap(), pidfd })
        }
        _ => None,
    }
}

/// setresuid succeeds then, and execve fails: it must not be told as anything else.
fn a_user_with_too_many_processes() {
    if !root() {
        return println!("SKIPPED a_user_with_too_many_processes_is_told_at_exec: it takes root");
    }
    let mut s = service("a", &["sleep"]);
    s.launch.identity = Some(identity(OWN + 1, OWN + 1, &[OWN + 1]));
    s.launch.sandbox.capabilities = Some(Default::default());
    let mut first = s.clone();
    first.name = keepd::plan::Name::new("first");
    s.launch.limits = vec![Limit { name: "processes".into(), resource: 6, soft: Some(0), hard: Some(0) }];
    let program = s.launch.argv[0].clone();
    let mut rig = Rig::new(vec![s, first]);
    rig.started("first");
    let (why, transient) = rig.fails("a");
    assert_eq!((why, transient), (format!("cannot execute {program}: Try again"), true));
}
