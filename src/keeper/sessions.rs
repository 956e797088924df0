//! Commands that people run inside services, `keepctl exec`: one connection each, to a socket that only the
//! keeper's own user can reach. The manager has no part in it: what may become any service's user is decided
//! where that can be done anyway, by what the kernel says of the caller.
//!
//! A command lives in the service's cgroup, so it ends with the run at the latest; it is no part of the service
//! otherwise, and how it ends means nothing to that.

#![forbid(unsafe_code)]

use super::{
    errand::Errand,
    order::Role,
    protocol::NoteLevel,
    run::{Phase, Run},
    state::{Keeper, Owner, TOKEN_SESSION, TOKEN_SESSIONS},
    step::{Failure, Step},
};
use crate::{
    plan::RunId,
    sys::{self, Errno, identity, packet, peer, pidfd, poll::Interest, reap::Ended, signal},
    wire::exec::{Answer, Ask, PACKET_MAX, SOCKET, Signal},
};
use std::{
    collections::BTreeMap,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    rc::Rc,
};

/// So many at a time.
const MOST: usize = 64;
/// What shells exit with: it could not be executed, it is not there, and, as others have it, neither was tried.
const NOT_EXECUTABLE: u8 = 126;
const NOT_FOUND: u8 = 127;
const NOT_TRIED: u8 = 125;

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Sessions {
    listener: Option<(OwnedFd, PathBuf)>,
    all: BTreeMap<u64, Session>,
    next: u64,
}

#[derive(Debug)]
struct Session {
    socket: OwnedFd,
    /// Who asked, for the log.
    caller: String,
    at: At,
}

#[derive(Debug)]
enum At {
    /// Nothing was asked yet.
    Connected,
    /// A launcher was sent, or is to be.
    Launching {
        run: RunId,
        ask: Ask,
        stdio: Vec<Rc<OwnedFd>>,
        signals: Vec<i32>,
    },
    Running {
        run: RunId,
        pidfd: OwnedFd,
    },
}

/// What a launcher needs to know of one.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) run: RunId,
    pub(super) argv: Vec<String>,
    pub(super) terminal: Option<String>,
    pub(super) stdio: Vec<Rc<OwnedFd>>,
}

impl Sessions {
    /// Which run a command is for; none if nobody waits for it any more.
    pub(super) fn run_of(&self, number: u64) -> Option<RunId> {
        match &self.all.get(&number)?.at {
            At::Launching { run, .. } => Some(*run),
            At::Connected | At::Running { .. } => None,
        }
    }

    pub(super) fn wish(&self, number: u64) -> Option<Wish> {
        let At::Launching { run, ask, stdio, signals: _ } = &self.all.get(&number)?.at else { return None };
        let (argv, terminal) = (ask.argv.clone(), ask.terminal.clone());
        Some(Wish { run: *run, argv, terminal, stdio: stdio.clone() })
    }
}

impl Keeper {
    /// Opens the socket. Without it all else goes on.
    pub(super) fn open_sessions(&mut self, runtime_dir: &Path) -> sys::Result<()> {
        let path = runtime_dir.join(SOCKET);
        let listener = packet::listen(self.proof, &path)?;
        self.poll.add(listener.as_fd(), Interest::Read, TOKEN_SESSIONS)?;
        self.sessions.listener = Some((listener, path));
        Ok(())
    }

    /// Nobody is let in any more.
    pub(super) fn close_sessions(&mut self) {
        if let Some((_, path)) = self.sessions.listener.take() {
            let _ = std::fs::remove_file(path);
        }
    }

    /// Somebody connects.
    pub(super) fn admit(&mut self) {
        while let Some((listener, _)) = &self.sessions.listener {
            let Ok(Some(socket)) = packet::accept(listener.as_fd()) else { return };
            let Ok(peer) = peer::credentials(socket.as_fd()) else { continue };
            // Nobody else gets through the socket's mode; this is for whoever was let in by a mistake.
            if peer.uid != 0 && peer.uid != identity::effective_uid() {
                let why = "only root may run commands inside services".into();
                answer(&socket, &Answer::Refused { status: NOT_TRIED, why });
                continue;
            }
            if self.sessions.all.len() >= MOST {
                let why =
                    format!("{MOST} commands are running inside services, which is the most there may be");
                answer(&socket, &Answer::Refused { status: NOT_TRIED, why });
                continue;
            }
            let number = self.sessions.next;
            if self.poll.add(socket.as_fd(), Interest::Read, TOKEN_SESSION | number).is_err() {
                continue;
            }
            self.sessions.next += 1;
            let caller = format!("uid {}, pid {}", peer.uid, peer.pid);
            self.sessions.all.insert(number, Session { socket, caller, at: At::Connected });
        }
    }

    /// A client has something to say, or is gone.
    pub(super) fn hear_session(&mut self, token: u64) {
        let number = token & !TOKEN_SESSION;
        let Some(session) = self.sessions.all.get_mut(&number) else { return };
        let mut buffer = vec![0; PACKET_MAX];
        let (bytes, fds) = match packet::receive(session.socket.as_fd(), &mut buffer) {
            Ok(Some((len, fds))) => (&buffer[..len], fds),
            Err(Errno::EAGAIN) => return,
            Err(Errno::EMSGSIZE) => return self.refuse(number, NOT_TRIED, "the command line is too long"),
            Ok(None) | Err(_) => return self.hang_up(number),
        };
        match &mut session.at {
            At::Connected => match serde_json::from_slice(bytes) {
                Ok(ask) => self.ask(number, ask, fds),
                Err(_) => self.refuse(number, NOT_TRIED, "this keepd does not understand the request"),
            },
            At::Launching { signals, .. } => signals.extend(asked(bytes)),
            At::Running { pidfd, .. } => {
                if let Some(signal) = asked(bytes) {
                    let _ = pidfd::send_signal(pidfd.as_fd(), signal);
                }
            }
        }
    }

    fn ask(&mut self, number: u64, ask: Ask, fds: Vec<OwnedFd>) {
        if fds.len() != 3 || ask.argv.is_empty() {
            return self.refuse(number, NOT_TRIED, "a command and three descriptors are needed");
        }
        let running = |r: &Run| matches!(r.phase, Phase::Running { .. }) && r.pidfd.is_some() && !r.killing;
        let run = self.runs.iter().find(|(_, r)| r.service.as_str() == ask.service && running(r));
        let Some((run, _)) = run else {
            return self.refuse(number, NOT_TRIED, &format!("{} is not running", ask.service));
        };
        let (run, stdio) = (*run, fds.into_iter().map(Rc::new).collect());
        if let Some(session) = self.sessions.all.get_mut(&number) {
            session.at = At::Launching { run, ask, stdio, signals: Vec::new() };
        }
        self.send_out(Errand::Exec(number));
    }

    /// What a launcher is told to do for a command.
    pub(super) fn exec_order(&self, number: u64) -> Result<super::launch::Sendable, Failure> {
        let gone = |why: &str| Failure::ours(Step::Killed, why, "");
        let wish = self.sessions.wish(number).ok_or_else(|| gone("nobody waits for the command any more"))?;
        let running = |r: &&Run| matches!(r.phase, Phase::Running { .. }) && r.pidfd.is_some() && !r.killing;
        let run =
            self.runs.get(&wish.run).filter(running).ok_or_else(|| gone("the service is not running"))?;
        self.order(run, Role::Exec { main: run.pid, argv: wish.argv, terminal: wish.terminal }, wish.stdio)
    }

    /// The command was exec'ed; or it has `ended` since.
    pub(super) fn exec_launched(&mut self, number: u64, pid: i32, ended: Option<Ended>) {
        let Some(session) = self.sessions.all.get_mut(&number) else {
            // Nobody waits for it any more.
            if ended.is_none() {
                let _ = pidfd::open(pid).and_then(|fd| pidfd::send_signal(fd.as_fd(), signal::SIGHUP));
            }
            return;
        };
        answer(&session.socket, &Answer::Started { pid });
        // Our child, and not reaped: the number is its own.
        let held = if ended.is_none() { pidfd::open(pid).ok() } else { None };
        let At::Launching { run, ask, stdio: _, signals } = std::mem::replace(&mut session.at, At::Connected)
        else {
            return;
        };
        let service = self.runs.get(&run).map_or("?", |r| r.service.as_str());
        let program = ask.argv.first().map_or("", String::as_str);
        let text = format!("{service}: {} runs {program:?} in it, pid {pid}", session.caller);
        match held {
            Some(pidfd) => {
                for signal in signals {
                    let _ = pidfd::send_signal(pidfd.as_fd(), signal);
                }
                session.at = At::Running { run, pidfd };
                self.pids.insert(pid, Owner::Exec(number));
            }
            None => self.exec_over(number, ended),
        }
        self.note(NoteLevel::Info, text);
    }

    /// It was not.
    pub(super) fn exec_refused(&mut self, number: u64, failure: &Failure) {
        let status = match (failure.step, Errno::from_raw(failure.errno)) {
            (Step::Exec, Errno::ENOENT) => NOT_FOUND,
            (Step::Exec, _) => NOT_EXECUTABLE,
            _ => NOT_TRIED,
        };
        self.refuse(number, status, &failure.sentence());
    }

    /// The command is reaped, and has ended like this if that is known.
    pub(super) fn exec_over(&mut self, number: u64, ended: Option<Ended>) {
        let Some(session) = self.end_session(number) else { return };
        answer(
            &session.socket,
            &match ended {
                Some(Ended::Code(code)) => Answer::Exited { code },
                Some(Ended::Signal { signal, .. }) => Answer::Killed { signal },
                None => Answer::Refused { status: NOT_TRIED, why: "how it ended is not known".into() },
            },
        );
    }

    fn refuse(&mut self, number: u64, status: u8, why: &str) {
        if let Some(session) = self.end_session(number) {
            answer(&session.socket, &Answer::Refused { status, why: why.into() });
        }
    }

    /// The client is gone, and its command with it, if that wants to: it is the kernel's hang-up, sent by us where
    /// there was no terminal. What stays nevertheless ends with the run.
    fn hang_up(&mut self, number: u64) {
        if let Some(Session { at: At::Running { pidfd, .. }, .. }) = self.end_session(number) {
            hang_up(&pidfd);
        }
    }

    /// The main process of a run has ended: what people run beside it is not to hold up what comes next. Shells
    /// that somebody types into ignore the signals of a stop, but not this one.
    pub(super) fn hang_up_all(&self, id: RunId) {
        for session in self.sessions.all.values() {
            match &session.at {
                At::Running { run, pidfd } if *run == id => hang_up(pidfd),
                At::Connected | At::Launching { .. } | At::Running { .. } => {}
            }
        }
    }

    fn end_session(&mut self, number: u64) -> Option<Session> {
        let session = self.sessions.all.remove(&number)?;
        self.poll.remove(session.socket.as_fd());
        Some(session)
    }
}

/// As the kernel does where a terminal goes away. That it has ended is no error.
fn hang_up(pidfd: &OwnedFd) {
    let _ = pidfd::send_signal(pidfd.as_fd(), signal::SIGHUP);
    let _ = pidfd::send_signal(pidfd.as_fd(), signal::SIGCONT);
}

/// The signal that a packet asks for, if there is such a one.
fn asked(bytes: &[u8]) -> Option<i32> {
    let Signal { signal } = serde_json::from_slice(bytes).ok()?;
    (1..=signal::MAX).contains(&signal).then_some(signal)
}

/// Whether or not the client can still hear it: a socket that takes nothing belongs to one that does not listen.
fn answer(socket: &OwnedFd, answer: &Answer) {
    let _ = serde_json::to_vec(answer).map(|bytes| packet::send(socket.as_fd(), &bytes, &[]));
}
