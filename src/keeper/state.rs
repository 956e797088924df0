//! Everything the keeper holds, and its loop. One turn: send what there is room for, wait, take in what the
//! kernel has to say, do at most a few of the manager's requests. Nothing else in a turn waits.

#![forbid(unsafe_code)]

use super::{
    base::Base,
    former::Former,
    launchers::Launchers,
    link::Link,
    loader::Loading,
    plans::Plans,
    probes::Probes,
    protocol::{Kept, News, NoteLevel},
    record::Recorder,
    run::Run,
    sessions::Sessions,
    tidy::Tidying,
    upgrade::Upgrade,
};
use crate::{
    notify::Upward,
    plan::{DaemonSpec, Job, Name, RunId, Which},
    sys::{
        self, Errno, clock, fd, limits,
        poll::{Interest, Poll, Ready},
        process::SingleThread,
        signal::{self, Inbox},
        watch::{Watch, Watches},
    },
};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    ffi::OsString,
    io::Write,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    rc::Rc,
};

/// Most requests that are done before the kernel is listened to again.
const REQUESTS_PER_TURN: usize = 32;
/// Descriptors reported per wait.
const BATCH: usize = 256;

/// Which descriptor became ready. Launchers have numbers of their own from `LAUNCHER` on.
pub(super) const TOKEN_SIGNAL: u64 = 1;
pub(super) const TOKEN_MANAGER: u64 = 2;
pub(super) const TOKEN_WATCH: u64 = 3;
pub(super) const TOKEN_SESSIONS: u64 = 4;
pub(super) const TOKEN_LAUNCHER: u64 = 16;
/// A bit: the others are the number of a run that is no child of ours.
pub(super) const TOKEN_ADOPTED: u64 = 1 << 62;
/// A bit: the others are the session's number.
pub(super) const TOKEN_SESSION: u64 = 1 << 63;
/// A bit: the others are the number of the run that tells something, by its socket or by its pipe.
pub(super) const TOKEN_NOTIFY: u64 = 1 << 61;
pub(super) const TOKEN_NEWLINE: u64 = 1 << 60;

/// Whose pid it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Owner {
    Main(RunId),
    Job(RunId, Job),
    /// The command of a session.
    Exec(u64),
    /// The command of a probe, by its number.
    Probe(RunId, Which, u64),
    Manager,
    Loader,
    Check,
    Launcher(u64),
}

/// An orderly stop was asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shutdown {
    pub(super) force: bool,
    /// When the keeper's patience ends, in ms of boot time.
    pub(super) deadline: u64,
}

/// Arguments, the program's name included, of our own other roles.
#[derive(Debug)]
pub(super) struct Argv {
    pub(super) loader: Vec<OsString>,
    pub(super) manager: Vec<OsString>,
    pub(super) launcher: Vec<OsString>,
    pub(super) check: Vec<OsString>,
}

/// The keeper.
pub(super) struct Keeper {
    pub(super) proof: SingleThread,
    pub(super) spec: DaemonSpec,
    pub(super) argv: Argv,
    /// What an upgrade executes.
    pub(super) program: PathBuf,
    /// That no other keepd uses the same folders.
    pub(super) lock: OwnedFd,
    /// The waiting parent of `--daemonize`.
    pub(super) ready_fd: Option<OwnedFd>,
    /// The limit of open files that keepd was started with: services get it back.
    pub(super) open_files: Option<limits::Pair>,
    pub(super) poll: Poll,
    inbox: Inbox,
    pub(super) watches: Watches,
    pub(super) watched: HashMap<Watch, RunId>,
    pub(super) base: Option<Rc<Base>>,
    pub(super) degraded: Vec<String>,
    pub(super) plans: Plans,
    pub(super) runs: BTreeMap<RunId, Run>,
    pub(super) last_run: RunId,
    pub(super) pids: HashMap<i32, Owner>,
    /// Runs that are looked at on a timer: they are being killed, or nothing else tells when they are empty.
    pub(super) restless: BTreeSet<RunId>,
    pub(super) look_at: u64,
    /// Empty cgroups that are to be removed once the manager has been told why.
    pub(super) remains: Vec<String>,
    /// Services whose last run's folders are being removed.
    pub(super) tidying: BTreeMap<Name, Tidying>,
    pub(super) remembered: BTreeMap<Name, Kept>,
    /// Bytes of those.
    pub(super) remembered_size: usize,
    /// Descriptors that the manager wants to be there for the next one.
    pub(super) kept: BTreeMap<String, Vec<Rc<OwnedFd>>>,
    /// Managers that hold what ours may not have yet.
    pub(super) formers: Vec<Former>,
    /// Who waits to hear that such are kept.
    pub(super) receipts: Vec<OwnedFd>,
    /// Adopted runs whose end is not told yet, and when that is given up.
    pub(super) unreaped: BTreeMap<RunId, u64>,
    pub(super) recorder: Recorder,
    pub(super) link: Link,
    pub(super) loading: Option<Loading>,
    pub(super) launchers: Launchers,
    pub(super) sessions: Sessions,
    pub(super) probes: Probes,
    /// Runs that tell more than is listened to, and when they are listened to again.
    pub(super) loud: BTreeMap<RunId, u64>,
    pub(super) up: Upward,
    pub(super) upgrade: Option<Upgrade>,
    /// How often there was one.
    pub(super) upgrades: u32,
    /// When this keeper began, in ms of boot time.
    pub(super) began_ms: u64,
    pub(super) shutdown: Option<Shutdown>,
    /// The status to exit with.
    pub(super) exit: Option<i32>,
}

/// What the start found out.
pub(super) struct Start {
    pub(super) proof: SingleThread,
    pub(super) spec: DaemonSpec,
    pub(super) plans: Plans,
    pub(super) base: Option<Rc<Base>>,
    pub(super) degraded: Vec<String>,
    pub(super) argv: Argv,
    pub(super) program: PathBuf,
    pub(super) lock: OwnedFd,
    pub(super) ready_fd: Option<OwnedFd>,
    pub(super) open_files: Option<limits::Pair>,
    pub(super) up: Upward,
}

impl Keeper {
    pub(super) fn new(start: Start) -> sys::Result<Keeper> {
        use signal::{SIGCHLD, SIGHUP, SIGINT, SIGTERM, SIGUSR1};
        let keeper = Keeper {
            proof: start.proof,
            spec: start.spec,
            argv: start.argv,
            program: start.program,
            lock: start.lock,
            ready_fd: start.ready_fd,
            open_files: start.open_files,
            poll: Poll::new(BATCH)?,
            inbox: Inbox::new(&[SIGCHLD, SIGTERM, SIGINT, SIGHUP, SIGUSR1])?,
            watches: Watches::new()?,
            watched: HashMap::new(),
            base: start.base,
            degraded: start.degraded,
            plans: start.plans,
            runs: BTreeMap::new(),
            last_run: RunId(0),
            pids: HashMap::new(),
            restless: BTreeSet::new(),
            look_at: 0,
            remains: Vec::new(),
            tidying: BTreeMap::new(),
            remembered: BTreeMap::new(),
            remembered_size: 0,
            kept: BTreeMap::new(),
            formers: Vec::new(),
            receipts: Vec::new(),
            unreaped: BTreeMap::new(),
            recorder: Recorder::default(),
            link: Link::default(),
            loading: None,
            launchers: Launchers::default(),
            sessions: Sessions::default(),
            probes: Probes::default(),
            loud: BTreeMap::new(),
            up: start.up,
            upgrade: None,
            upgrades: 0,
            began_ms: clock::boottime_ms(),
            shutdown: None,
            exit: None,
        };
        keeper.poll.add(keeper.inbox.as_fd(), Interest::Read, TOKEN_SIGNAL)?;
        keeper.poll.add(keeper.watches.as_fd(), Interest::Read, TOKEN_WATCH)?;
        Ok(keeper)
    }

    /// Turns until the manager says `Exit` or patience ends; the status to exit with.
    pub(super) fn keep(&mut self) -> sys::Result<i32> {
        // A child may have ended before its SIGCHLD was listened for.
        self.reap();
        // The first manager waits for what it is handed.
        self.flush();
        loop {
            self.turn()?;
            if let Some(status) = self.exit {
                return Ok(status);
            }
        }
    }

    fn turn(&mut self) -> sys::Result<()> {
        self.flush();
        self.clear_away();
        let now = clock::boottime_ms();
        let timeout = if self.link.has_requests() {
            Some(0)
        } else {
            // One more, because the kernel's clock may lag behind by a fraction of a millisecond.
            self.next_deadline().map(|at| at.saturating_sub(now) + u64::from(at > now))
        };
        let ready = self.poll.wait(timeout)?;
        // Before signals: it is simpler when a child is known before its end is.
        for r in ready.iter().filter(|r| (TOKEN_LAUNCHER..TOKEN_NEWLINE).contains(&r.token)) {
            self.hear_launcher(r.token);
        }
        for r in &ready {
            self.attend(*r);
        }
        self.on_time(clock::boottime_ms());
        for _ in 0..REQUESTS_PER_TURN {
            // What was asked for after `Exit` is void.
            let Some((request, fds)) = self.next_request().filter(|_| self.exit.is_none()) else { break };
            self.perform(request, fds);
        }
        self.record();
        // Now the next keeper knows of them as well.
        for receipt in std::mem::take(&mut self.receipts) {
            let _ = fd::write(receipt.as_fd(), b"K");
        }
        if self.link.ready {
            self.end_formers();
        }
        Ok(())
    }

    fn attend(&mut self, ready: Ready) {
        match ready.token {
            TOKEN_SIGNAL => {
                while let Some(signal) = self.inbox.next() {
                    self.on_signal(signal);
                }
            }
            TOKEN_WATCH => self.on_watch(),
            TOKEN_MANAGER if ready.readable || ready.hangup => self.receive(),
            TOKEN_SESSIONS => self.admit(),
            TOKEN_ADOPTED..TOKEN_SESSION => self.hear_adopted(ready),
            TOKEN_SESSION.. => self.hear_session(ready.token),
            TOKEN_NOTIFY..TOKEN_ADOPTED => self.hear_run(RunId(ready.token & !TOKEN_NOTIFY)),
            TOKEN_NEWLINE..TOKEN_NOTIFY => self.hear_newline(RunId(ready.token & !TOKEN_NEWLINE)),
            _ => {}
        }
    }

    fn on_signal(&mut self, signal: i32) {
        match signal {
            signal::SIGCHLD => self.reap(),
            signal::SIGTERM | signal::SIGINT => self.on_stop_signal(),
            signal::SIGHUP => self.tell_or_keep(News::Apply),
            signal::SIGUSR1 => self.tell_or_keep(News::Reopen),
            _ => {}
        }
    }

    /// The earliest time at which something is to be done, in ms of boot time.
    fn next_deadline(&self) -> Option<u64> {
        let look = (!self.restless.is_empty()).then_some(self.look_at);
        let patience = self.shutdown.map(|s| s.deadline);
        [
            look,
            patience,
            self.link.deadline(),
            self.loading.as_ref().map(Loading::deadline),
            self.up.ping_at(),
            self.launchers.deadline(),
            self.probes.deadline(),
            self.loud.values().min().copied(),
            self.upgrade.as_ref().map(Upgrade::deadline),
            self.unreaped.values().min().copied(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    fn on_time(&mut self, now: u64) {
        if !self.restless.is_empty() && now >= self.look_at {
            self.look(now);
        }
        if self.up.ping_due(now) {
            self.tell(News::Ping);
        }
        if self.launchers.deadline().is_some_and(|at| now >= at) {
            self.serve_waiting();
        }
        self.expire_probes(now);
        self.listen_again(now);
        self.give_up_unreaped(now);
        self.expire_loader(now);
        self.feel_pulse(now);
        self.on_upgrade(now);
        self.restart_manager(now);
        if self.shutdown.is_some_and(|s| now >= s.deadline) {
            self.note(NoteLevel::Error, "the orderly stop takes too long: killing what is left".into());
            self.give_up();
        }
    }

    /// Says something to people: through the manager's log, or on stderr while there is none.
    pub(super) fn note(&mut self, level: NoteLevel, text: String) {
        if self.link.connected() {
            self.tell(News::Note { level, text });
        } else {
            complain(&text);
        }
    }

    /// As [`Keeper::note`], for a failed system call.
    pub(super) fn warn(&mut self, what: &str, e: Errno) {
        self.note(NoteLevel::Warn, format!("{what}: {}", sys::describe(e)));
    }
}

/// A line on stderr. That nobody reads it is no reason to end.
pub(super) fn complain(text: &str) {
    let _ = writeln!(std::io::stderr(), "keepd: {text}");
}
