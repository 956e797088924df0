//! Every step of a launch made to fail by the kernel's own answer, which strace gives instead of it: the command never
//! runs, and the reason names the step. And calls that say they were done and were not: what is read back tells.

use crate::{
    Test,
    identity::identity,
    rig::{Rig, root, service, until},
};
use keepd::plan::{
    Capabilities, Credentials, EnvFile, Limit, Place, ReadOnly, Sandbox, Scheduling, ServiceSpec, Syscalls,
    Verify,
};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::{Child, Command, Stdio},
};

pub const TESTS: &[Test] =
    &[("no_step_can_fail_unseen", no_step_can_fail_unseen), ("a_call_that_lies_is_caught", a_call_that_lies)];

/// One way to fail: the step, what strace answers, what the service asks for, and the reason.
struct Case {
    step: &'static str,
    inject: &'static [&'static str],
    change: fn(&mut ServiceSpec, &Path),
    why: &'static str,
    transient: bool,
}

fn case(
    step: &'static str,
    inject: &'static [&'static str],
    change: fn(&mut ServiceSpec, &Path),
    why: &'static str,
) -> Case {
    Case { step, inject, change, why, transient: false }
}

fn transient(step: &'static str, inject: &'static [&'static str], why: &'static str) -> Case {
    Case { transient: true, ..case(step, inject, plain, why) }
}

fn plain(_: &mut ServiceSpec, _: &Path) {}

fn somebody(s: &mut ServiceSpec, _: &Path) {
    s.launch.identity = Some(identity(65534, 65534, &[65534]));
    s.launch.sandbox.capabilities = Some(Capabilities::default());
}

fn binds(s: &mut ServiceSpec, dir: &Path) {
    somebody(s, dir);
    s.launch.sandbox.capabilities = Capabilities::named("CAP_NET_BIND_SERVICE");
}

fn sandboxed(s: &mut ServiceSpec, dir: &Path) {
    let read_only = ReadOnly::Strict;
    s.launch.sandbox =
        Sandbox { private_tmp: true, read_only, writable: vec![dir.into()], ..Sandbox::default() };
    // It must be there before and after.
    s.launch.argv[0] = "/bin/touch".into();
    s.launch.argv.remove(1);
}

#[allow(clippy::too_many_lines, reason = "a table")]
fn cases() -> Vec<Case> {
    const LANDLOCK: &str = "cannot hold it to its writable folders: Operation not permitted";
    vec![
        transient(
            "Launcher",
            &["mkdirat:signal=KILL"],
            "cannot start a launcher: it ended during the launch",
        ),
        transient("Pipe", &["pipe2:error=EMFILE"], "cannot create a pipe: Too many open files"),
        transient("Fork", &["clone3:error=EAGAIN"], "cannot fork: Try again"),
        case(
            "Folder",
            &["mkdirat:error=ENOSPC"],
            plain,
            "cannot create the cgroup a.1: No space left on device",
        ),
        case(
            "Join",
            &["clone3:error=EPERM:when=1", "write:error=EACCES"],
            plain,
            "cannot join the cgroup CGROUP/a.1: Permission denied",
        ),
        case("Stdio", &["?dup2,?dup3:error=EBADF"], plain, "cannot set up stdin: Bad file number"),
        case("Session", &["setsid:error=EPERM"], plain, "cannot create a session: Operation not permitted"),
        case(
            "Killed",
            &["setsid:signal=KILL"],
            plain,
            "the child process was killed before it could execute the command",
        ),
        case(
            "EnvFile",
            &[],
            |s, dir| s.launch.env_files = vec![EnvFile { path: dir.join("none"), optional: false }],
            "cannot read environment file DIR/none: No such file or directory",
        ),
        case(
            "Program",
            &[],
            |s, dir| {
                s.launch.argv[0] = dir.display().to_string();
                s.launch.provision.verify = Some(Verify::Sha256("0".repeat(64)));
            },
            "cannot verify DIR: it is not a regular file",
        ),
        case(
            "Credentials",
            &["fsmount:error=ENODEV"],
            |s, dir| {
                s.launch.provision.credentials = Some(Credentials {
                    at: dir.join("c"),
                    files: vec![("a".into(), "/etc/hostname".into())],
                });
            },
            "cannot provide the credential DIR/c: No such device",
        ),
        case(
            "Folders",
            &["fchmod:error=EROFS"],
            |s, dir| s.launch.provision.state_dirs = vec![Place { base: dir.into(), name: "new".into() }],
            "cannot make the folder DIR/new: Read-only file system",
        ),
        case(
            "Namespaces",
            &["unshare:error=ENOSPC"],
            sandboxed,
            "cannot use namespaces for the sandbox (open new ones): No space left on device",
        ),
        case(
            "Mount",
            &["mount_setattr:error=ENOSYS"],
            sandboxed,
            "cannot make / read-only: this kernel is older than Linux 5.12",
        ),
        case(
            "Mount",
            &["move_mount:error=EPERM"],
            sandboxed,
            "cannot keep /dev writable: keepd may not (it takes CAP_SYS_ADMIN)",
        ),
        case("Landlock", &["landlock_restrict_self:error=EPERM"], sandboxed, LANDLOCK),
        case(
            "OomScore",
            &[],
            |s, _| s.launch.scheduling = Scheduling { oom_score_adjust: Some(2000), ..Scheduling::default() },
            "cannot set oom-score-adjust to 2000: Invalid argument",
        ),
        case(
            "Nice",
            &["setpriority:error=EACCES"],
            |s, _| s.launch.scheduling = Scheduling { nice: Some(1), ..Scheduling::default() },
            "cannot set nice to 1: Permission denied",
        ),
        case(
            "Affinity",
            &["sched_setaffinity:error=EPERM"],
            |s, _| s.launch.scheduling = Scheduling { cpus: vec![0], ..Scheduling::default() },
            "cannot keep to the CPUs 0: Operation not permitted",
        ),
        case(
            "Limit",
            &["prlimit64,?setrlimit:error=EPERM"],
            |s, _| {
                s.launch.limits =
                    vec![Limit { name: "core".into(), resource: 4, soft: Some(0), hard: Some(0) }];
            },
            "cannot set limit core to 0: Operation not permitted",
        ),
        case("Keyring", &["keyctl:error=EDQUOT"], somebody, "cannot open a session keyring: Quota exceeded"),
        case(
            "Capabilities",
            &["prctl:error=EPERM:when=1"],
            somebody,
            "cannot take on the capabilities of user u65534: Operation not permitted",
        ),
        case(
            "Capabilities",
            &["capset:error=EPERM"],
            binds,
            "cannot take on the capabilities of user u65534: Operation not permitted",
        ),
        case(
            "Groups",
            &["setgroups:error=EPERM"],
            somebody,
            "cannot take on the groups of user u65534: Operation not permitted",
        ),
        case(
            "Gid",
            &["setresgid:error=EPERM"],
            somebody,
            "cannot take on the group of user u65534: Operation not permitted",
        ),
        case(
            "Uid",
            &["setresuid:error=EPERM"],
            somebody,
            "cannot become user u65534: Operation not permitted",
        ),
        case(
            "Verify",
            &["getresuid:error=EPERM"],
            somebody,
            "cannot become user u65534: the kernel reports another user id than was set",
        ),
        case(
            "Privileges",
            &["prctl:error=EINVAL:when=1"],
            plain,
            "cannot give up gaining privileges: Invalid argument",
        ),
        case("Directory", &["chdir:error=EACCES"], plain, "cannot change directory to /: Permission denied"),
        case(
            "Descriptors",
            &["close_range:error=EBADF"],
            plain,
            "cannot mark descriptors close-on-exec: Bad file number",
        ),
        case(
            "Syscalls",
            &["seccomp:error=ENOSYS"],
            |s, _| s.launch.sandbox.syscalls = Syscalls::Service,
            "cannot limit the system calls to sandbox.syscalls = \"service\": this kernel has no filters of system \
             calls (seccomp)",
        ),
        case(
            "Notify",
            &["bind:error=ENOSPC"],
            |s, _| s.launch.tells.notify = true,
            "cannot create the socket for its notifications: No space left on device",
        ),
        case("Exec", &["execve:error=ENOMEM"], plain, "cannot execute CHILD: Out of memory"),
    ]
}

/// Steps whose failure another test brings about (`a_launch_must_fit_the_plan`,
/// `what_the_host_lacks_is_a_failed_start_that_says_so`), or that no service takes but only a command of
/// `keepctl exec`.
const ELSEWHERE: &[&str] = &["Plan", "Resource", "Terminal"];

fn no_step_can_fail_unseen() {
    if !ready("no_step_can_fail_unseen") {
        return;
    }
    let list = include_str!("../../src/keeper/step.rs").split("enum Step {").nth(1).unwrap();
    let list = list.split('}').next().unwrap();
    for step in list.split(',').map(str::trim).filter(|s| !s.is_empty()) {
        let tried = cases().iter().any(|c| c.step == step) || ELSEWHERE.contains(&step);
        assert!(tried, "nothing makes the step {step} fail");
    }
    let without_cgroup = Rig::new(Vec::new()).cgroup().is_none();
    for case in cases() {
        let of_cgroup = matches!(case.step, "Folder" | "Join" | "Launcher");
        let of_landlock = case.step == "Landlock" && keepd::sys::landlock::Rules::new().unwrap().is_none();
        if of_cgroup && without_cgroup || of_landlock {
            println!("SKIPPED {}: this host has none", case.step);
            continue;
        }
        fails(&case);
    }
}

fn a_call_that_lies() {
    if !ready("a_call_that_lies_is_caught") {
        return;
    }
    let lies = |inject, change, why| fails(&case("Verify", inject, change, why));
    let other =
        |what: &str| format!("cannot become user u65534: the kernel reports another {what} than was set");
    let leak = |text: String| -> &'static str { text.leak() };
    lies(&["setresuid:retval=0"], somebody, leak(other("user id")));
    lies(&["setresgid:retval=0"], somebody, leak(other("group id")));
    lies(&["setgroups:retval=0"], somebody, leak(other("list of groups")));
    lies(&["setresuid:retval=0", "getresuid:retval=0"], somebody, leak(other("user id")));
    lies(
        &["capset:retval=0"],
        binds,
        "cannot take on the capabilities of user u65534: Operation not permitted",
    );
    lies(&["prctl:retval=0"], plain, "cannot give up gaining privileges: Operation not permitted");
}

/// Whether a test can trace launchers, which is said if not.
pub fn ready(test: &str) -> bool {
    let strace =
        Command::new("strace").arg("-V").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !root() || !strace {
        println!("SKIPPED {test}: it takes root and strace");
    }
    root() && strace
}

fn fails(case: &Case) {
    let dir = tempfile::tempdir_in("/var/lib").unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let ran = dir.path().join("ran");
    let mut s = service("a", &["touch", ran.to_str().unwrap()]);
    (case.change)(&mut s, dir.path());
    restrict(&mut s);
    let program = s.launch.argv[0].clone();
    let mut rig = Rig::new(vec![s]);
    let cgroup = rig.cgroup().unwrap_or_default().display().to_string();
    let tracer = Tracer::attach(launcher(&rig), case.inject);
    let (why, transient) = rig.fails("a");
    drop(tracer);
    let wanted = case.why.replace("DIR", dir.path().to_str().unwrap());
    let wanted = wanted.replace("CGROUP", &cgroup).replace("CHILD", &program);
    assert_eq!((why, transient), (wanted, case.transient), "{} {:?}", case.step, case.inject);
    assert!(!ran.exists(), "{}: the command ran", case.step);
}

/// Makes it a service that the first launcher launches, which is there from the start.
pub fn restrict(s: &mut ServiceSpec) {
    if s.launch.sandbox.syscalls == Syscalls::Off {
        s.launch.sandbox.syscalls = Syscalls::Default;
    }
}

/// The one launcher that a new keeper has.
pub fn launcher(rig: &Rig) -> i32 {
    let keeper = rig.keeper_pid();
    let children = format!("/proc/{keeper}/task/{keeper}/children");
    let mut found = 0;
    until("there is a launcher", || {
        let all = fs::read_to_string(&children).unwrap();
        let is = |pid: &&str| {
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            line.split(|b| *b == 0).any(|arg| arg == b"launch")
        };
        found = all.split_whitespace().find(is).map_or(0, |pid| pid.parse().unwrap());
        found != 0
    });
    found
}

/// strace on a process and on those that it makes.
pub struct Tracer(Option<Child>);

impl Tracer {
    /// Calls are answered as these expressions say; none where there are no such.
    pub fn attach(pid: i32, inject: &[&str]) -> Tracer {
        if inject.is_empty() {
            return Tracer(None);
        }
        let calls: Vec<&str> = inject.iter().map(|i| i.split(':').next().unwrap()).collect();
        let answers = inject.iter().map(|one| format!("inject={one}"));
        Tracer::start(pid, &calls, answers.collect(), Path::new("/dev/null"))
    }

    /// Calls are written to a file.
    pub fn watch(pid: i32, calls: &[&str], file: &Path) -> Tracer {
        Tracer::start(pid, calls, Vec::new(), file)
    }

    fn start(pid: i32, calls: &[&str], answers: Vec<String>, file: &Path) -> Tracer {
        let mut command = Command::new("strace");
        command.args(["-f", "-qq", "-p", &pid.to_string(), "-o"]).arg(file);
        command.args(["-e", &format!("trace={}", calls.join(","))]);
        for one in &answers {
            command.args(["-e", one]);
        }
        let tracer = Tracer(Some(command.stdin(Stdio::null()).spawn().unwrap()));
        until("strace is attached", || {
            let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            status.lines().any(|l| l.strip_prefix("TracerPid:").is_some_and(|p| p.trim() != "0"))
        });
        tracer
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        if let Some(strace) = &mut self.0 {
            let _ = strace.kill();
            let _ = strace.wait();
        }
    }
}
