//! A real keeper under test: a process of its own, with a loader that hands out a prepared plan and a manager
//! that only passes packets on, so that a test speaks the protocol itself.

use keepd::{
    keeper::{
        self, Config,
        protocol::{LOADER_FD, MANAGER_FD, News, PACKET_MAX, Request, Turn},
    },
    plan::{
        ApiSpec, Backoff, Breaker, Budget, DaemonSpec, Generation, HostLogs, LaunchSpec, LogFormat, LogLevel,
        LogSpec, Millis, Mode, Name, OnFull, Plan, Reload, Restart, Rotate, RunId, ServiceSpec, Share,
        Stderr, Stdout, StopSpec, image,
    },
    sys::{
        clock, fd, memory, packet, pidfd,
        poll::{Interest, Poll},
    },
};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, accept4, bind, connect, listen, socket,
};
use std::{
    collections::{BTreeMap, VecDeque},
    fs,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::{
            fs::PermissionsExt,
            process::{CommandExt, ExitStatusExt},
        },
    },
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
};

/// No condition of a test takes this long unless it never comes.
const LIMIT_MS: u64 = 10_000;

/// The other roles of this binary; `None`: it is to run tests.
pub fn role(args: &[String]) -> Option<i32> {
    let dir = Path::new(args.get(2)?);
    match args[1].as_str() {
        "keep" => {
            let argv = |role: &str| vec!["keepd".into(), role.into(), dir.into()];
            let config = Config {
                loader_argv: argv("load"),
                manager_argv: argv("manage"),
                launcher_argv: argv("launch"),
                ..Config::default()
            };
            Some(keeper::run(config).0)
        }
        "load" => Some(load(dir)),
        "manage" => Some(relay(dir)),
        "launch" => Some(keeper::launch().0),
        _ => None,
    }
}

/// Status 78 with `report` in the memfd, if there is such a file, killed by SIGABRT if `abort`, else the plan.
fn load(dir: &Path) -> i32 {
    if dir.join("abort").exists() {
        std::process::abort();
    }
    let answer = fd::inherited(LOADER_FD).unwrap();
    if let Ok(report) = fs::read(dir.join("report")) {
        memory::fill_and_seal(answer, &report).unwrap();
        return 78;
    }
    let plan = fs::read(dir.join("plan")).unwrap();
    if dir.join("unsealed").exists() {
        fd::write(answer.as_fd(), &plan).unwrap();
        return 0;
    }
    memory::fill_and_seal(answer, &plan).unwrap();
    0
}

/// Passes packets between the keeper and the test, until either goes.
fn relay(dir: &Path) -> i32 {
    let keeper = fd::inherited(MANAGER_FD).unwrap();
    fs::write(dir.join("manager-status"), fs::read("/proc/self/status").unwrap()).unwrap();
    let variables: String = std::env::vars().map(|(k, v)| format!("{k}={v}\n")).collect();
    fs::write(dir.join("manager-env"), variables).unwrap();
    let test = seqpacket();
    connect(test.as_raw_fd(), &UnixAddr::new(&dir.join("manager.sock")).unwrap()).unwrap();
    let mut poll = Poll::new(2).unwrap();
    poll.add(keeper.as_fd(), Interest::Read, 0).unwrap();
    poll.add(test.as_fd(), Interest::Read, 1).unwrap();
    loop {
        for ready in poll.wait(None).unwrap() {
            let (from, to) = if ready.token == 0 { (&keeper, &test) } else { (&test, &keeper) };
            if !pass(from.as_fd(), to.as_fd()) {
                return 0;
            }
        }
    }
}

fn pass(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> bool {
    let mut buf = vec![0u8; PACKET_MAX];
    match packet::receive(from, &mut buf) {
        Ok(Some((len, fds))) => {
            let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
            loop {
                match packet::send(to, &buf[..len], &fds) {
                    Ok(()) => return true,
                    Err(nix::errno::Errno::EAGAIN) => {
                        let mut poll = Poll::new(1).unwrap();
                        poll.add(to, Interest::Write, 0).unwrap();
                        poll.wait(None).unwrap();
                    }
                    Err(_) => return false,
                }
            }
        }
        Err(nix::errno::Errno::EAGAIN) => true,
        Ok(None) | Err(_) => false,
    }
}

fn seqpacket() -> OwnedFd {
    socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None).unwrap()
}

/// How a keeper is to be started.
#[derive(Default)]
pub struct Setup {
    pub services: Vec<ServiceSpec>,
    /// The manager's ids.
    pub manager: Option<(u32, u32)>,
    /// Start the keeper as this user: it then has no cgroup to write to.
    pub uid: Option<u32>,
    pub shutdown_timeout_ms: Option<u64>,
}

/// A running keeper and the test's end of its protocol.
pub struct Rig {
    pub dir: PathBuf,
    keeper: Option<Child>,
    listener: OwnedFd,
    manager: OwnedFd,
    /// News that were received while others were waited for.
    early: Vec<(News, Vec<OwnedFd>)>,
    /// Of the last packet, not yet taken.
    unpacked: VecDeque<(News, Vec<OwnedFd>)>,
    next_run: u64,
    setup: Setup,
    _temp: tempfile::TempDir,
}

impl Rig {
    /// A keeper of these services, past the hand-over.
    pub fn new(services: Vec<ServiceSpec>) -> Rig {
        Rig::with(Setup { services, ..Setup::default() })
    }

    pub fn with(setup: Setup) -> Rig {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().to_owned();
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o777)).unwrap();
        let listener = seqpacket();
        bind(listener.as_raw_fd(), &UnixAddr::new(&dir.join("manager.sock")).unwrap()).unwrap();
        fs::set_permissions(dir.join("manager.sock"), fs::Permissions::from_mode(0o777)).unwrap();
        listen(&listener, Backlog::new(5).unwrap()).unwrap();
        let null = fd::open_null().unwrap();
        let mut rig = Rig {
            dir,
            keeper: None,
            listener,
            manager: null,
            early: Vec::new(),
            unpacked: VecDeque::new(),
            next_run: 1,
            setup,
            _temp: temp,
        };
        rig.write_plan();
        rig.start();
        rig.accept();
        rig
    }

    /// Writes the plan that the loader hands out.
    pub fn write_plan(&self) {
        let plan = Plan {
            daemon: daemon(&self.dir, &self.setup),
            services: self.setup.services.clone(),
            hooks: Vec::new(),
            warnings: Vec::new(),
        };
        fs::write(self.dir.join("plan"), image::encode(&plan).unwrap()).unwrap();
    }

    pub fn add_service(&mut self, service: ServiceSpec) {
        self.setup.services.push(service);
        self.setup.services.sort_by(|a, b| a.name.cmp(&b.name));
        self.write_plan();
    }

    /// Starts a keeper on this folder.
    pub fn start(&mut self) {
        self.keeper = Some(self.spawn(Stdio::from(self.stderr_file())));
    }

    fn stderr_file(&self) -> fs::File {
        fs::OpenOptions::new().append(true).create(true).open(self.dir.join("stderr")).unwrap()
    }

    fn spawn(&self, stderr: Stdio) -> Child {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.arg("keep").arg(&self.dir).env("NOTIFY_SOCKET", "@keepd-test-nobody");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        if let Some(uid) = self.setup.uid {
            command.uid(uid).gid(uid);
        }
        command.spawn().unwrap()
    }

    /// A second keeper on the same folder, which is expected to end by itself: status and stderr.
    pub fn second(&self) -> (Option<i32>, String) {
        let out = self.spawn(Stdio::piped()).wait_with_output().unwrap();
        (out.status.code(), String::from_utf8_lossy(&out.stderr).into_owned())
    }

    /// Takes the next manager's connection.
    pub fn accept(&mut self) {
        self.wait_readable(self.listener.as_fd(), "a manager's connection");
        let fd = accept4(self.listener.as_raw_fd(), SockFlag::SOCK_CLOEXEC).unwrap();
        // SAFETY: a new descriptor that nobody else owns.
        self.manager = unsafe { OwnedFd::from_raw_fd(fd) };
        self.early.clear();
        self.unpacked.clear();
    }

    fn wait_readable(&self, fd: BorrowedFd<'_>, what: &str) {
        let mut poll = Poll::new(1).unwrap();
        poll.add(fd, Interest::Read, 0).unwrap();
        if poll.wait(Some(LIMIT_MS)).unwrap().is_empty() {
            panic!(
                "waited in vain for {what}\nmeanwhile came {:?}\nstderr of the keeper:\n{}",
                self.early,
                self.stderr()
            );
        }
    }

    /// What the keeper and its roles have said.
    pub fn stderr(&self) -> String {
        fs::read_to_string(self.dir.join("stderr")).unwrap_or_default()
    }

    pub fn keeper_pid(&self) -> i32 {
        self.keeper.as_ref().unwrap().id() as i32
    }

    pub fn signal_keeper(&self, signal: i32) {
        let fd = pidfd::open(self.keeper_pid()).unwrap();
        pidfd::send_signal(fd.as_fd(), signal).unwrap();
    }

    /// Kills the present manager by its number in `manager-status`.
    pub fn kill_manager(&self) {
        let pid = self.manager_status("Pid")[0].parse().unwrap();
        let fd = pidfd::open(pid).unwrap();
        pidfd::send_signal(fd.as_fd(), 9).unwrap();
    }

    /// A field of the manager's /proc/self/status.
    pub fn manager_status(&self, field: &str) -> Vec<String> {
        let text = fs::read_to_string(self.dir.join("manager-status")).unwrap();
        let rest = text.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':')).unwrap();
        rest.split_whitespace().map(str::to_owned).collect()
    }

    /// Waits for the keeper's end.
    pub fn wait_keeper(&mut self) -> ExitStatus {
        let mut child = self.keeper.take().unwrap();
        let fd = pidfd::open(child.id() as i32).unwrap();
        if !pidfd::wait_end(fd.as_fd(), LIMIT_MS).unwrap() {
            let _ = child.kill();
            panic!("the keeper does not end\nstderr of the keeper:\n{}", self.stderr());
        }
        child.wait().unwrap()
    }

    pub fn send(&self, requests: &[Request]) {
        let bytes = serde_json::to_vec(&Turn(requests.to_vec())).unwrap();
        self.send_raw(&bytes);
    }

    pub fn send_raw(&self, bytes: &[u8]) {
        while packet::send(self.manager.as_fd(), bytes, &[]) == Err(nix::errno::Errno::EAGAIN) {
            let mut poll = Poll::new(1).unwrap();
            poll.add(self.manager.as_fd(), Interest::Write, 0).unwrap();
            assert!(!poll.wait(Some(LIMIT_MS)).unwrap().is_empty(), "the keeper does not read");
        }
    }

    /// The next piece of news, in the order of arrival.
    pub fn next(&mut self) -> (News, Vec<OwnedFd>) {
        if !self.early.is_empty() {
            return self.early.remove(0);
        }
        self.receive("news")
    }

    fn receive(&mut self, what: &str) -> (News, Vec<OwnedFd>) {
        if let Some(news) = self.unpacked.pop_front() {
            return news;
        }
        self.wait_readable(self.manager.as_fd(), what);
        let mut buf = vec![0u8; PACKET_MAX];
        let (len, fds) = packet::receive(self.manager.as_fd(), &mut buf)
            .unwrap()
            .unwrap_or_else(|| panic!("the manager is gone, waiting for {what}\n{}", self.stderr()));
        let all: Vec<News> = serde_json::from_slice(&buf[..len]).unwrap();
        let mut fds = fds.into_iter();
        self.unpacked.extend(all.into_iter().map(|news| {
            let own = fds.by_ref().take(news.descriptors()).collect();
            (news, own)
        }));
        self.unpacked.pop_front().expect("an empty packet")
    }

    /// The first news for which `pick` gives something; those that it does not want are kept.
    pub fn wait<T>(&mut self, what: &str, pick: impl Fn(&News) -> Option<T>) -> (T, Vec<OwnedFd>) {
        if let Some(at) = self.early.iter().position(|(n, _)| pick(n).is_some()) {
            let (news, fds) = self.early.remove(at);
            return (pick(&news).unwrap(), fds);
        }
        let until = clock::boottime_ms() + LIMIT_MS;
        while clock::boottime_ms() < until {
            let (news, fds) = self.receive(what);
            match pick(&news) {
                Some(found) => return (found, fds),
                None => self.early.push((news, fds)),
            }
        }
        panic!("waited in vain for {what}; meanwhile came {:?}", self.early);
    }

    /// Everything that has come so far: what was asked before is answered once `Loaded` is.
    pub fn news_so_far(&mut self) -> Vec<News> {
        self.send(&[Request::Load]);
        let (generation, _) = self.wait("Loaded", |n| match n {
            News::Loaded { generation } => *generation,
            _ => None,
        });
        self.send(&[Request::DropPlan { generation }]);
        self.early.drain(..).map(|(n, _)| n).collect()
    }

    /// The entry of this name.
    pub fn entry(&self, name: &str) -> u32 {
        self.setup.services.iter().position(|s| s.name.as_str() == name).unwrap() as u32
    }

    /// Asks for a launch.
    pub fn launch(&mut self, name: &str) -> RunId {
        let run = RunId(self.next_run);
        self.next_run += 1;
        let (service, entry) = (Name::new(name), self.entry(name));
        self.send(&[Request::Launch { run, service, generation: Generation(1), entry, call: None }]);
        run
    }

    /// Launches, and waits until it is exec'ed: run, pid, pipes.
    pub fn started(&mut self, name: &str) -> (RunId, i32, Vec<OwnedFd>) {
        let id = self.launch(name);
        let (pid, fds) = self.wait(&format!("Started of {name}"), |n| match n {
            News::Started { run, pid, .. } if *run == id => Some(Ok(*pid as i32)),
            News::LaunchFailed { run, why, .. } if *run == id => Some(Err(why.clone())),
            _ => None,
        });
        (id, pid.unwrap(), fds)
    }

    /// Waits for the end of a launched run's main process: how, and whether something outlived it.
    pub fn exited(&mut self, id: RunId) -> (keepd::plan::Exit, bool) {
        let what = format!("Exited of run {id}");
        self.wait(&what, |n| match n {
            News::Exited { run, exit, leftovers, .. } if *run == id => Some((*exit, *leftovers)),
            _ => None,
        })
        .0
    }

    pub fn emptied(&mut self, id: RunId) {
        self.wait("Emptied", |n| (*n == News::Emptied { run: id }).then_some(()));
    }

    /// Launches what must fail: the sentence, and whether it is transient.
    pub fn fails(&mut self, name: &str) -> (String, bool) {
        let id = self.launch(name);
        self.wait(&format!("LaunchFailed of {name}"), |n| match n {
            News::LaunchFailed { run, why, transient } if *run == id => Some((why.clone(), *transient)),
            News::Started { run, .. } if *run == id => panic!("{name} started"),
            _ => None,
        })
        .0
    }

    /// The keeper's cgroup, as it says itself.
    pub fn cgroup(&mut self) -> Option<PathBuf> {
        let (cgroup, _) = self.wait("Hello", |n| match n {
            News::Hello(hello) => Some(hello.cgroup.clone()),
            _ => None,
        });
        cgroup.map(PathBuf::from)
    }

    /// Ends the keeper in the orderly way; its status.
    pub fn exit(&mut self) -> Option<i32> {
        self.send(&[Request::Exit { status: 0 }]);
        self.wait_keeper().code()
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        let Some(mut keeper) = self.keeper.take() else { return };
        // The third one makes it kill everything.
        if let Ok(fd) = pidfd::open(keeper.id() as i32) {
            while !matches!(pidfd::wait_end(fd.as_fd(), 20), Ok(true)) {
                let _ = pidfd::send_signal(fd.as_fd(), 15);
            }
        }
        let _ = keeper.wait();
    }
}

/// Waits until a condition holds.
pub fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = clock::boottime_ms() + LIMIT_MS;
    while !holds() {
        assert!(clock::boottime_ms() < end, "waited in vain until {what}");
        Poll::new(1).unwrap().wait(Some(2)).unwrap();
    }
}

/// The content of a file, once it is there.
pub fn content(file: &Path) -> String {
    until(&format!("{} exists", file.display()), || file.exists());
    fs::read_to_string(file).unwrap()
}

/// Whether a process lives; a zombie does not.
pub fn alive(pid: i32) -> bool {
    state_of(pid).is_some_and(|s| !matches!(s, 'Z' | 'X'))
}

/// The letter of its state in /proc.
pub fn state_of(pid: i32) -> Option<char> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    text.rsplit_once(')')?.1.trim_start().chars().next()
}

/// Reads a pipe to its end.
pub fn read_all(pipe: &OwnedFd) -> String {
    let (mut out, mut buf) = (Vec::new(), [0u8; 65536]);
    let mut poll = Poll::new(1).unwrap();
    poll.add(pipe.as_fd(), Interest::Read, 0).unwrap();
    loop {
        assert!(!poll.wait(Some(LIMIT_MS)).unwrap().is_empty(), "the pipe is not closed");
        match fd::read(pipe.as_fd(), &mut buf).unwrap() {
            0 => return String::from_utf8(out).unwrap(),
            n => out.extend(&buf[..n]),
        }
    }
}

/// Reads a pipe up to the end of a line.
pub fn read_line(pipe: &OwnedFd) -> String {
    let (mut out, mut buf) = (Vec::new(), [0u8; 1]);
    let mut poll = Poll::new(1).unwrap();
    poll.add(pipe.as_fd(), Interest::Read, 0).unwrap();
    while out.last() != Some(&b'\n') {
        assert!(!poll.wait(Some(LIMIT_MS)).unwrap().is_empty(), "no line on the pipe, only {out:?}");
        assert_eq!(fd::read(pipe.as_fd(), &mut buf).unwrap(), 1, "end of file after {out:?}");
        out.push(buf[0]);
    }
    String::from_utf8(out).unwrap()
}

static CHILD_PLACE: std::sync::OnceLock<tempfile::TempDir> = std::sync::OnceLock::new();

/// Removes what all tests share; statics are never dropped.
pub fn clean_up() {
    if let Some(place) = CHILD_PLACE.get() {
        let _ = fs::remove_dir_all(place.path());
    }
}

/// The helper program, at a place that every user can reach.
pub fn child() -> String {
    let place = CHILD_PLACE.get_or_init(|| {
        let exe = std::env::current_exe().unwrap();
        let built = exe.parent().and_then(Path::parent).unwrap().join("examples/child");
        let place = tempfile::tempdir().unwrap();
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).unwrap();
        fs::copy(&built, place.path().join("child"))
            .unwrap_or_else(|e| panic!("{}: {e}; `cargo build --example child` makes it", built.display()));
        place
    });
    place.path().join("child").display().to_string()
}

/// A service that runs the helper with these verbs.
pub fn service(name: &str, verbs: &[&str]) -> ServiceSpec {
    let argv = std::iter::once(child()).chain(verbs.iter().map(|v| (*v).to_owned())).collect();
    let launch = LaunchSpec {
        argv,
        directory: "/".into(),
        identity: None,
        umask: 0o022,
        env: BTreeMap::from([("PATH".into(), "/usr/local/bin:/usr/bin:/bin".into())]),
        env_files: Vec::new(),
        limits: Vec::new(),
        no_new_privileges: true,
        sandbox: Default::default(),
        scheduling: Default::default(),
        provision: Default::default(),
        tells: Default::default(),
        stdout: Stdout::Capture,
        stderr: Stderr::Merge,
    };
    let logs = LogSpec {
        dir: "/nowhere".into(),
        max_size: 1,
        rotate: Rotate::Off,
        keep: 1,
        keep_for: None,
        max_total: None,
        compress: false,
        on_full: OnFull::Drop,
        format: LogFormat::Raw,
        max_line: 65_536,
        forward: Vec::new(),
    };
    ServiceSpec {
        name: Name::new(name),
        instance: None,
        description: String::new(),
        oneshot: None,
        autostart: true,
        requires: Vec::new(),
        wants: Vec::new(),
        after: Vec::new(),
        binds_to: Vec::new(),
        restart: Restart::Never,
        success_exit: Vec::new(),
        no_restart_exit: Vec::new(),
        backoff: Backoff {
            delay: Millis(1),
            factor_permille: 1000,
            max: Millis(1),
            jitter_permille: 0,
            reset_after: Millis(1),
        },
        breaker: Breaker { failures: 1, within: Millis(1), retry_every: None },
        stop: StopSpec { signal: 15, timeout: Millis(1000), command: Vec::new() },
        reload: Reload::Signal(1),
        launch,
        resources: Default::default(),
        ready: None,
        live: None,
        watch: None,
        logs,
    }
}

fn daemon(dir: &Path, setup: &Setup) -> DaemonSpec {
    DaemonSpec {
        mode: Mode::System,
        profile: None,
        manager: setup.manager,
        runtime_dir: dir.join("run"),
        state_dir: dir.join("state"),
        log_dir: dir.join("log"),
        log_level: LogLevel::Info,
        log_file: None,
        logs: HostLogs { max_total: Share::Percent(10), keep_free: Share::Percent(5) },
        max_concurrent_starts: 32,
        restart_budget: Budget { starts: 1, within: Millis(1) },
        shutdown_timeout: Millis(setup.shutdown_timeout_ms.unwrap_or(90_000)),
        api: ApiSpec { socket: dir.join("run/api.sock"), admins: Vec::new(), readers: Vec::new() },
    }
}

/// Whether the tests run as root.
pub fn root() -> bool {
    keepd::sys::identity::effective_uid() == 0
}

/// Signal that ended the keeper.
pub fn signal_of(status: ExitStatus) -> Option<i32> {
    status.signal()
}
