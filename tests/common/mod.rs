//! The fixture of the whole-daemon tests: the real `keepd` with a configuration of its own in a folder of its own,
//! `keepctl` and a small HTTP client to talk to it, and a `Drop` that insists that nothing is left.
//!
//! This is the only place that waits: tests say what they wait for and how long at most.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::disallowed_methods)]

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    os::unix::{
        fs::{MetadataExt, PermissionsExt, chown},
        net::UnixStream,
        process::CommandExt,
    },
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

/// The ordinary user of the user-mode tests, and a stranger to it. Neither needs a passwd entry.
pub const USER: u32 = 65534;
pub const STRANGER: u32 = 65532;

/// How long anything that ought to be quick may take on a loaded machine.
pub const SOON: Duration = Duration::from_secs(20);
/// Ceiling for what takes a while by design.
pub const LATER: Duration = Duration::from_secs(60);

/// Set where the tests run in a guest.
pub const GUEST: &str = "KEEPD_GUEST";

pub fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Notes that the calling test was not run, for the reader of the whole run.
pub fn skip(why: &str) {
    let name = std::thread::current().name().unwrap_or("?").to_owned();
    eprintln!("SKIPPED {name}: {why}");
    if let Some(list) = std::env::var_os("KEEPD_SKIPPED") {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(list).unwrap();
        writeln!(file, "{name}: {why}").unwrap();
    }
}

/// The end of a time limit; an emulated processor gets four times as long.
fn within(limit: Duration) -> Instant {
    Instant::now() + limit * if std::env::var_os(GUEST).is_some() { 4 } else { 1 }
}

/// Polls `ready` until it gives a value; panics with `what` after `limit`.
pub fn wait_for<T>(what: &str, limit: Duration, mut ready: impl FnMut() -> Option<T>) -> T {
    let deadline = within(limit);
    loop {
        if let Some(found) = ready() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {limit:?} in vain: {what}");
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// Checks for as long as `limit` that `broken` stays false.
pub fn holds_for(what: &str, limit: Duration, mut broken: impl FnMut() -> bool) {
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        assert!(!broken(), "did not hold: {what}");
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// `command = [...]` that runs `script` with /bin/sh; dollars are protected from keepd's own expansion.
pub fn sh(script: &str) -> String {
    let script = script.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "$$").replace('\n', "\\n");
    format!("command = [\"/bin/sh\", \"-c\", \"{script}\"]\n")
}

/// `[service.NAME]` that runs `script`, with more keys below.
pub fn service(name: &str, script: &str, more: &str) -> String {
    format!("[service.{name}]\n{}{more}\n", sh(script))
}

/// The helper service (tests/child), which cargo builds beside the tests.
pub fn helper() -> PathBuf {
    let mut folder = std::env::current_exe().unwrap();
    folder.pop();
    if folder.ends_with("deps") {
        folder.pop();
    }
    let path = folder.join("examples/child");
    assert!(path.exists(), "{} is missing: run `cargo build --example child` first", path.display());
    path
}

/// What a daemon is started with; the rest is the same for all.
#[derive(Default)]
pub struct Setup<'a> {
    /// `[service.*]` tables, and any other table.
    pub services: &'a str,
    /// More keys of `[daemon]`.
    pub daemon: &'a str,
    /// More keys of `[api]`.
    pub api: &'a str,
    /// More keys of `[defaults]`.
    pub defaults: &'a str,
    /// More environment of keepd itself.
    pub env: &'a [(&'a str, &'a str)],
    /// More arguments of keepd.
    pub args: &'a [&'a str],
    /// The cgroup that keepd is started in; the test's own if there is none.
    pub cgroup: Option<&'a Path>,
    /// Where its folder is made; where temporary files are, if there is nothing else.
    pub within: Option<&'a Path>,
    /// Run it as an ordinary user even where the tests are run by root.
    pub as_user: bool,
    /// Run a copy of keepd that is the test's own: [`Daemon::installed`].
    pub own_copy: bool,
}

impl Setup<'_> {
    /// Starts it and waits until it answers.
    pub fn start(self) -> Daemon {
        let mut daemon = self.prepare();
        daemon.launch();
        daemon.await_api();
        daemon
    }

    /// Writes everything, starts nothing.
    pub fn prepare(self) -> Daemon {
        let within = self.within.map_or_else(std::env::temp_dir, Path::to_owned);
        let dir = tempfile::Builder::new().prefix("keepd-test-").tempdir_in(within).unwrap();
        let uid = if self.as_user && is_root() { Some(USER) } else { None };
        let system = is_root() && uid.is_none();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let mut daemon = Daemon {
            socket: dir.path().join("run/api.sock"),
            config: dir.path().join("keepd.toml"),
            uid,
            system,
            head: String::new(),
            env: self.env.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
            args: self.args.iter().map(|a| (*a).into()).collect(),
            cgroup: self.cgroup.map(Path::to_owned),
            child: None,
            own_copy: self.own_copy,
            keeper: 0,
            cgroups: BTreeSet::new(),
            dir,
        };
        let root = daemon.path().to_owned();
        let shown = root.display();
        let user = if system { "user = \"root\"\n" } else { "" };
        daemon.head = format!(
            "[daemon]\nruntime-dir = \"{shown}/run\"\nstate-dir = \"{shown}/state\"\nlog-dir = \"{shown}/log\"\n{}\n\
             [api]\nsocket = \"{shown}/run/api.sock\"\n{}\n\
             [defaults]\ndirectory = \"{shown}\"\n{user}{}\n",
            self.daemon, self.api, self.defaults
        );
        daemon.write_config(self.services);
        for folder in ["", "home", "xdg", "run", "state", "log"] {
            let path = root.join(folder);
            fs::create_dir_all(&path).unwrap();
            if let Some(uid) = uid {
                chown(&path, Some(uid), Some(uid)).unwrap();
            }
        }
        fs::set_permissions(root.join("xdg"), fs::Permissions::from_mode(0o700)).unwrap();
        if self.own_copy {
            daemon.install(Path::new(env!("CARGO_BIN_EXE_keepd")));
        }
        daemon
    }
}

/// A running keepd, and its folder.
pub struct Daemon {
    dir: tempfile::TempDir,
    pub socket: PathBuf,
    pub config: PathBuf,
    /// Who it runs as, if not who the test runs as.
    uid: Option<u32>,
    /// System mode.
    pub system: bool,
    head: String,
    env: Vec<(String, String)>,
    args: Vec<String>,
    cgroup: Option<PathBuf>,
    child: Option<Child>,
    own_copy: bool,
    keeper: u32,
    /// Folders in /sys/fs/cgroup that were seen to be its.
    cgroups: BTreeSet<PathBuf>,
}

impl Daemon {
    /// keepd with these `[service.*]` tables: in system mode if the test is run by root, else in user mode.
    pub fn start(services: &str) -> Daemon {
        Setup { services, ..Setup::default() }.start()
    }

    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Replaces the services in the configuration; `keepctl apply` is up to the caller.
    pub fn write_config(&self, services: &str) {
        let fresh = self.dir.path().join("keepd.toml.new");
        fs::write(&fresh, format!("{}{services}", self.head)).unwrap();
        fs::rename(fresh, &self.config).unwrap();
    }

    // ------------------------------------------------------------------ processes

    /// A command of the real `keepd`, with this daemon's environment and user.
    pub fn keepd(&self) -> Command {
        let mut command = match self.own_copy {
            true => Command::new(self.installed()),
            false => Command::new(reachable(env!("CARGO_BIN_EXE_keepd"), self.path(), self.uid)),
        };
        self.dress(&mut command, self.uid);
        command.arg("--config").arg(&self.config).args(&self.args);
        for (key, value) in &self.env {
            command.env(key, value);
        }
        command
    }

    /// Where the test's own copy of keepd is.
    pub fn installed(&self) -> PathBuf {
        self.path().join("keepd")
    }

    /// Puts a program in the place of that copy, as package managers do.
    pub fn install(&self, program: &Path) {
        let fresh = self.path().join("keepd.new");
        fs::copy(program, &fresh).unwrap();
        fs::rename(fresh, self.installed()).unwrap();
    }

    /// The same command, which goes into a cgroup before it begins.
    fn within(&self, cgroup: &Path, command: &Command) -> Command {
        let mut inside = Command::new("/bin/sh");
        self.dress(&mut inside, self.uid);
        inside.args(["-c", "echo 0 >\"$0/cgroup.procs\" && exec \"$@\""]).arg(cgroup);
        inside.arg(command.get_program()).args(command.get_args());
        for (key, value) in command.get_envs() {
            inside.env(key, value.unwrap());
        }
        inside
    }

    fn dress(&self, command: &mut Command, uid: Option<u32>) {
        command
            .env_clear()
            .env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin")
            .env("HOME", self.path().join("home"))
            .env("XDG_RUNTIME_DIR", self.path().join("xdg"))
            .env("LANG", "C.UTF-8")
            .current_dir(self.path())
            .stdin(Stdio::null());
        if let Some(uid) = uid {
            // std clears the supplementary groups along with a change of user.
            command.uid(uid).gid(uid);
        }
    }

    /// Starts the daemon without waiting for it; its own log goes to `keepd.out`.
    pub fn launch(&mut self) {
        let out =
            fs::OpenOptions::new().create(true).append(true).open(self.path().join("keepd.out")).unwrap();
        let mut command = match &self.cgroup {
            Some(folder) => self.within(folder, &self.keepd()),
            None => self.keepd(),
        };
        command.stdout(out.try_clone().unwrap()).stderr(out);
        let child = command.spawn().unwrap();
        self.keeper = child.id();
        self.child = Some(child);
    }

    /// Waits until `GET /v1/status` says `running`.
    pub fn await_api(&mut self) {
        let limit = LATER;
        let deadline = within(limit);
        while !self.try_get("/v1/status").is_ok_and(|(code, body)| {
            code == 200 && serde_json::from_str::<Value>(&body).is_ok_and(|v| v["state"] == "running")
        }) {
            if let Some(status) = self.child.as_mut().and_then(|c| c.try_wait().unwrap()) {
                panic!("keepd ended at once: {status}\n{}", self.output());
            }
            assert!(Instant::now() < deadline, "keepd does not answer after {limit:?}\n{}", self.output());
            std::thread::park_timeout(Duration::from_millis(5));
        }
        self.keeper = u32::try_from(self.status()["pid"].as_u64().unwrap()).unwrap();
        self.remember_cgroups();
    }

    /// What keepd itself has said so far.
    pub fn output(&self) -> String {
        fs::read_to_string(self.path().join("keepd.out")).unwrap_or_default()
    }

    pub fn keeper(&self) -> u32 {
        self.keeper
    }

    /// Pid of the manager, as the API tells.
    pub fn manager(&self) -> u32 {
        u32::try_from(self.status()["manager_pid"].as_u64().unwrap()).unwrap()
    }

    /// The manager as /proc shows it, whether or not it answers yet.
    pub fn find_manager(&self) -> Option<u32> {
        let keeper = self.keeper;
        let children = fs::read_to_string(format!("/proc/{keeper}/task/{keeper}/children")).unwrap();
        let pids = children.split_whitespace().map(|p| p.parse::<u32>().unwrap());
        pids.into_iter().find(|pid| command_line(*pid).split(' ').nth(1) == Some("manage") && is_alive(*pid))
    }

    /// The exit status of the keeper, once it has ended.
    pub fn wait_exit(&mut self, limit: Duration) -> std::process::ExitStatus {
        self.remember_cgroups();
        let child = self.child.as_mut().unwrap();
        let status = wait_for("keepd ends", limit, || child.try_wait().unwrap());
        self.child = None;
        status
    }

    /// SIGKILL to the keeper alone. Nobody answers any more, so nothing is asked.
    pub fn kill_keeper(&mut self) {
        let mut child = self.child.take().unwrap();
        signal(self.keeper, Signal::SIGKILL);
        child.wait().unwrap();
    }

    // ------------------------------------------------------------------ keepctl and the API

    /// Runs `keepctl --socket … ARGS` to its end.
    pub fn ctl(&self, args: &[&str]) -> Output {
        self.ctl_as(self.uid, args)
    }

    pub fn ctl_as(&self, uid: Option<u32>, args: &[&str]) -> Output {
        self.ctl_command(uid, args).output().unwrap()
    }

    pub fn ctl_command(&self, uid: Option<u32>, args: &[&str]) -> Command {
        let mut command = Command::new(reachable(env!("CARGO_BIN_EXE_keepctl"), self.path(), uid));
        self.dress(&mut command, uid);
        command.arg("--socket").arg(&self.socket).args(args);
        command
    }

    /// Runs keepctl, which must succeed; its stdout.
    pub fn ctl_ok(&self, args: &[&str]) -> String {
        let done = self.ctl(args);
        assert!(done.status.success(), "keepctl {args:?}: {}\n{}", done.status, text(&done));
        String::from_utf8_lossy(&done.stdout).into_owned()
    }

    /// Runs keepctl, which must end with this status; everything it said.
    pub fn ctl_fails(&self, status: i32, args: &[&str]) -> String {
        let done = self.ctl(args);
        assert_eq!(done.status.code(), Some(status), "keepctl {args:?}:\n{}", text(&done));
        text(&done)
    }

    /// One request; (status code, body).
    pub fn http(&self, method: &str, target: &str, body: &str) -> (u16, String) {
        self.try_http(method, target, body).unwrap_or_else(|e| panic!("{method} {target}: {e}"))
    }

    pub fn try_get(&self, target: &str) -> std::io::Result<(u16, String)> {
        self.try_http("GET", target, "")
    }

    pub fn try_http(&self, method: &str, target: &str, body: &str) -> std::io::Result<(u16, String)> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(LATER))?;
        write!(
            stream,
            "{method} {target} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        parse_answer(&answer).ok_or_else(|| std::io::Error::other("no HTTP answer"))
    }

    /// A GET that must succeed, as JSON.
    pub fn get(&self, target: &str) -> Value {
        let (code, body) = self.http("GET", target, "");
        assert_eq!(code, 200, "GET {target}: {body}");
        serde_json::from_str(&body).unwrap()
    }

    pub fn status(&self) -> Value {
        self.get("/v1/status")
    }

    pub fn service(&self, name: &str) -> Value {
        self.get(&format!("/v1/services/{name}"))
    }

    /// The service, or nothing while there is no manager to answer.
    pub fn try_service(&self, name: &str) -> Option<Value> {
        let (code, body) = self.try_get(&format!("/v1/services/{name}")).ok()?;
        (code == 200).then(|| serde_json::from_str(&body).ok())?
    }

    /// All services, as the list gives them.
    pub fn services(&self) -> Vec<Value> {
        self.get("/v1/services")["services"].as_array().unwrap().clone()
    }

    pub fn pid(&self, name: &str) -> u32 {
        let service = self.service(name);
        u32::try_from(service["pid"].as_u64().unwrap_or_else(|| panic!("{name} has no pid: {service}")))
            .unwrap()
    }

    /// Waits until the service is in this state; gives it. The manager may be away meanwhile.
    pub fn wait_state(&self, name: &str, state: &str) -> Value {
        self.wait_service(name, &format!("state {state}"), |s| s["state"] == state)
    }

    /// Waits until the service runs and its command has begun.
    pub fn wait_running(&self, name: &str) -> u32 {
        let service =
            self.wait_service(name, "state running", |s| s["state"] == "running" && s["pid"].is_u64());
        u32::try_from(service["pid"].as_u64().unwrap()).unwrap()
    }

    pub fn wait_service(&self, name: &str, what: &str, accept: impl Fn(&Value) -> bool) -> Value {
        let mut last = Value::Null;
        let deadline = within(LATER);
        loop {
            if let Some(service) = self.try_service(name) {
                if accept(&service) {
                    return service;
                }
                last = service;
            }
            assert!(Instant::now() < deadline, "{name}: waited {LATER:?} for {what}; it is {last:#}");
            std::thread::park_timeout(Duration::from_millis(5));
        }
    }

    // ------------------------------------------------------------------ logs

    /// Everything in the service's log files, oldest first; compressed ones are read too.
    pub fn log(&self, name: &str) -> String {
        let folder = self.path().join("log").join(name);
        wait_for("a complete look at the log files", SOON, || {
            let before = rotated(&folder);
            let mut text = before.iter().map(|p| read_log(p)).collect::<Option<String>>()?;
            text += &fs::read_to_string(folder.join("current")).unwrap_or_default();
            (rotated(&folder) == before).then_some(text)
        })
    }

    /// Waits until the service's log contains `needle`; gives the log.
    pub fn wait_log(&self, name: &str, needle: &str) -> String {
        wait_for(&format!("`{needle}` in the log of {name}"), LATER, || {
            let log = self.log(name);
            log.contains(needle).then_some(log)
        })
    }

    // ------------------------------------------------------------------ the end

    /// `keepctl shutdown`, then the keeper's exit status must be 0 and nothing may be left.
    pub fn shutdown(mut self) {
        self.remember_cgroups();
        self.ctl_ok(&["shutdown"]);
        let status = self.wait_exit(LATER);
        assert_eq!(status.code(), Some(0), "keepd ended with {status}\n{}", self.output());
        self.assert_nothing_left();
    }

    /// Pids of every process that belongs to this daemon: itself, its roles and services.
    pub fn processes(&self) -> Vec<u32> {
        let marker = self.path().to_str().unwrap().as_bytes();
        let me = std::process::id();
        let pids = fs::read_dir("/proc").unwrap().filter_map(|e| e.ok()?.file_name().to_str()?.parse().ok());
        pids.filter(|pid: &u32| *pid != me && is_marked(*pid, marker)).collect()
    }

    /// Pids of those whose command line contains `needle`.
    pub fn processes_with(&self, needle: &str) -> Vec<u32> {
        self.processes().into_iter().filter(|pid| command_line(*pid).contains(needle)).collect()
    }

    /// Lines of a file in the daemon's folder; none while it is not there.
    pub fn lines(&self, file: &str) -> Vec<String> {
        let text = fs::read_to_string(self.path().join(file)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Notes the cgroup folder that its runs live in, from those that run now.
    pub fn remember_cgroups(&mut self) {
        // A manager that has outlived its keeper lets callers wait.
        if self.keeper == 0 || !is_alive(self.keeper) {
            return;
        }
        let Ok((200, body)) = self.try_get("/v1/services") else { return };
        let Ok(list) = serde_json::from_str::<Value>(&body) else { return };
        let pids = list["services"].as_array().into_iter().flatten().filter_map(|s| s["pid"].as_u64());
        for folder in pids.filter_map(|pid| cgroup_of(u32::try_from(pid).ok()?)) {
            let parent = folder.parent().unwrap();
            if parent.file_name().is_some_and(|n| n.to_string_lossy().starts_with("keepd-")) {
                self.cgroups.insert(parent.to_owned());
            }
        }
    }

    /// Neither a process nor a cgroup nor the socket is left.
    pub fn assert_nothing_left(&self) {
        let left: Vec<String> = wait_or_last(SOON, || self.processes(), Vec::is_empty)
            .iter()
            .map(|pid| format!("{pid} {}", command_line(*pid)))
            .collect();
        assert!(left.is_empty(), "processes are left: {left:#?}\n{}", self.output());
        let left: Vec<_> = self.cgroups.iter().filter(|c| c.exists()).collect();
        assert!(left.is_empty(), "cgroups are left: {left:?}");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.remember_cgroups();
        if std::thread::panicking() {
            eprintln!("--- {} said:\n{}", self.path().display(), self.output());
            if let Ok((_, body)) = self.try_get("/v1/services") {
                eprintln!("--- services: {body}");
            }
        }
        let orderly = self.processes().is_empty() || self.end();
        if let Some(mut child) = self.child.take() {
            let _ = child.wait();
        }
        if !std::thread::panicking() {
            assert!(orderly, "keepd did not end on SIGTERM; everything was killed");
            self.assert_nothing_left();
        }
    }
}

impl Daemon {
    /// An orderly stop, then a forced one; false if both failed and everything was killed.
    fn end(&mut self) -> bool {
        for _ in 0..2 {
            if self.keeper == 0 {
                break; // it never answered, so that its pid is not known
            }
            signal(self.keeper, Signal::SIGTERM);
            let gone = |d: &mut Daemon| {
                if let Some(child) = &mut d.child {
                    let _ = child.try_wait();
                }
                d.processes().is_empty()
            };
            let deadline = within(SOON);
            while Instant::now() < deadline {
                if gone(self) {
                    return true;
                }
                std::thread::park_timeout(Duration::from_millis(10));
            }
        }
        for pid in self.processes() {
            signal(pid, Signal::SIGKILL);
        }
        false
    }
}

// ---------------------------------------------------------------------- /proc and small things

/// Sends a signal; a process that is gone is fine.
pub fn signal(pid: u32, signal: Signal) {
    assert!(pid > 1, "not a process of ours: {pid}");
    let _ = kill(Pid::from_raw(i32::try_from(pid).unwrap()), signal);
}

/// Whether the process is there and not a zombie.
pub fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

fn is_marked(pid: u32, marker: &[u8]) -> bool {
    let contains = |file: &str| {
        fs::read(format!("/proc/{pid}/{file}"))
            .is_ok_and(|text| text.windows(marker.len()).any(|window| window == marker))
    };
    let inside = fs::read_link(format!("/proc/{pid}/cwd"))
        .is_ok_and(|cwd| cwd.as_os_str().as_encoded_bytes().starts_with(marker));
    is_alive(pid) && (inside || contains("cmdline") || contains("environ"))
}

pub fn command_line(pid: u32) -> String {
    let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).replace('\0', " ").trim().to_owned()
}

/// One field of /proc/PID/status.
pub fn proc_status(pid: u32, field: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix(field)?.strip_prefix(':'));
    line.unwrap_or_else(|| panic!("/proc/{pid}/status has no {field}")).trim().to_owned()
}

/// The environment that the process was started with, sorted.
pub fn environ(pid: u32) -> BTreeSet<String> {
    let text = fs::read(format!("/proc/{pid}/environ")).unwrap();
    text.split(|b| *b == 0)
        .filter(|e| !e.is_empty())
        .map(|e| String::from_utf8_lossy(e).into_owned())
        .collect()
}

/// The folder of the process's cgroup v2, if this host has one.
pub fn cgroup_of(pid: u32) -> Option<PathBuf> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    let path = text.lines().find_map(|l| l.strip_prefix("0::/"))?.to_owned();
    Some(cgroup_mount()?.join(path))
}

pub fn cgroup_mount() -> Option<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").unwrap();
    mounts.lines().find_map(|l| {
        let mut words = l.split(' ').skip(1);
        let place = words.next()?;
        (words.next() == Some("cgroup2")).then(|| PathBuf::from(place))
    })
}

/// Keeps asking until `good` or the time is up; the last answer either way.
fn wait_or_last<T>(limit: Duration, mut ask: impl FnMut() -> T, good: impl Fn(&T) -> bool) -> T {
    let deadline = within(limit);
    loop {
        let answer = ask();
        if good(&answer) || Instant::now() > deadline {
            return answer;
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// stdout and stderr of a finished command.
pub fn text(done: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr))
}

/// Whether a program of this name is installed.
pub fn which(name: &str) -> Option<PathBuf> {
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"]
        .iter()
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.exists())
}

/// The number of a name's user, from /etc/passwd: (uid, gid).
pub fn passwd(name: &str) -> Option<(u32, u32)> {
    let text = fs::read_to_string("/etc/passwd").unwrap();
    let line = text.lines().find(|l| l.split(':').next() == Some(name))?;
    let mut numbers = line.split(':').skip(2).map(|n| n.parse().unwrap());
    Some((numbers.next()?, numbers.next()?))
}

/// A port of the loopback that nobody listened on a moment ago.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// A path of `program` that `uid` can execute: a checkout below /root is copied out of it.
fn reachable(program: &str, dir: &Path, uid: Option<u32>) -> PathBuf {
    let program = Path::new(program);
    let open = |p: &Path| fs::metadata(p).is_ok_and(|m| m.mode() & 0o001 != 0);
    if uid.is_none() || program.ancestors().all(|p| p.as_os_str().is_empty() || open(p)) {
        return program.to_owned();
    }
    // Both programs: keepd looks for itself by /proc/self/exe, people for keepctl beside it.
    let bin = dir.join("bin");
    let copy = bin.join(program.file_name().unwrap());
    if !copy.exists() {
        fs::create_dir_all(&bin).unwrap();
        fs::set_permissions(&bin, fs::Permissions::from_mode(0o755)).unwrap();
        fs::copy(program, &copy).unwrap();
        fs::set_permissions(&copy, fs::Permissions::from_mode(0o755)).unwrap();
    }
    copy
}

fn parse_answer(answer: &[u8]) -> Option<(u16, String)> {
    let split = answer.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&answer[..split]).to_ascii_lowercase();
    let code = head.split(' ').nth(1)?.parse().ok()?;
    let body = &answer[split + 4..];
    let body = if head.contains("transfer-encoding: chunked") { unchunk(body)? } else { body.to_vec() };
    Some((code, String::from_utf8_lossy(&body).into_owned()))
}

fn unchunk(mut body: &[u8]) -> Option<Vec<u8>> {
    let mut whole = Vec::new();
    loop {
        let end = body.windows(2).position(|w| w == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&body[..end]).ok()?.trim(), 16).ok()?;
        if size == 0 {
            return Some(whole);
        }
        whole.extend_from_slice(body.get(end + 2..end + 2 + size)?);
        body = body.get(end + 2 + size + 2..)?;
    }
}

/// Rotated files of a log folder, oldest first: their names sort by age.
pub fn rotated(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut found: Vec<PathBuf> = entries
        .filter_map(|e| Some(e.ok()?.path()))
        .filter(|p| {
            let name = p.file_name().unwrap_or_default().to_string_lossy().into_owned();
            name.ends_with(".log") || name.ends_with(".log.gz")
        })
        .collect();
    // Both are there from when it is compressed until the original is removed, or keepd killed.
    let whole: BTreeSet<PathBuf> = found.iter().filter(|p| p.extension().unwrap() == "gz").cloned().collect();
    found.retain(|p| !whole.contains(&PathBuf::from(format!("{}.gz", p.display()))));
    found.sort();
    found
}

/// What a log file says, also a compressed one; `None`: it is gone.
pub fn read_log(path: &Path) -> Option<String> {
    if path.extension().is_some_and(|e| e == "gz") {
        let done = Command::new("gzip").arg("-dc").arg(path).output().ok()?;
        return done.status.success().then(|| String::from_utf8_lossy(&done.stdout).into_owned());
    }
    fs::read_to_string(path).ok()
}

/// A repeatable stream of numbers (xorshift).
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }
}
