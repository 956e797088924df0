//! Listening to runs that tell how they are: who sent a message is the kernel's word, and only what comes from a
//! process of the run is believed. The keeper listens, not the manager, so that nothing is lost with one.
//!
//! A run that tells more than is reasonable is not listened to for a moment: what it sends then waits in its socket,
//! and it waits for that. So a flood costs next to nothing here.

#![forbid(unsafe_code)]

use super::{
    protocol::{News, NoteLevel},
    run::{Phase, Run},
    state::{Keeper, Owner, TOKEN_ADOPTED, TOKEN_NEWLINE, TOKEN_NOTIFY},
    told, ways,
};
use crate::{
    plan::{RunId, Told},
    sys::{self, Errno, clock, fd, file, identity, packet, packet::Heard, pidfd, poll::Interest, process},
};
use std::{
    collections::BTreeSet,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::fs::{FileTypeExt, MetadataExt},
    },
    path::PathBuf,
    rc::Rc,
};

/// Messages that are taken in without a pause.
const BURST: u32 = 64;
/// The pause.
const PAUSE_MS: u64 = 50;
/// A time in which fewer came begins the count anew.
const QUIET_MS: u64 = 50;

/// How a run tells how it is, and what it has told.
#[derive(Debug, Default)]
pub(super) struct Ears {
    socket: Option<OwnedFd>,
    newline: Option<OwnedFd>,
    sum: Told,
    /// Messages since when.
    burst: (u32, u64),
    /// Messages that were not believed, or meant nothing.
    ignored: u64,
}

impl Ears {
    /// As they were in another keeper.
    pub(super) fn again(sum: Told, socket: Option<OwnedFd>, newline: Option<OwnedFd>) -> Ears {
        Ears { socket, newline, sum, ..Ears::default() }
    }

    /// Each, with a name for it.
    pub(super) fn descriptors(&self) -> [(&'static str, Option<BorrowedFd<'_>>); 2] {
        [
            ("notify", self.socket.as_ref().map(AsFd::as_fd)),
            ("newline", self.newline.as_ref().map(AsFd::as_fd)),
        ]
    }

    /// All that it has told, if anything.
    pub(super) fn sum(&self) -> Option<Told> {
        (self.sum != Told::default()).then(|| self.sum.clone())
    }
}

impl Keeper {
    /// Where the sockets are.
    pub(super) fn sockets(&self) -> PathBuf {
        self.spec.runtime_dir.join(ways::FOLDER)
    }

    /// Makes their folder, which every service's user can go into and nobody can list, and clears it of what belongs
    /// to no run.
    pub(super) fn open_ears(&self) -> sys::Result<()> {
        let own = (identity::effective_uid(), identity::effective_gid());
        file::ensure_dir(&self.sockets(), 0o711, Some(own))?;
        let used = self.runs.values().filter(|run| run.ears.socket.is_some());
        let used: BTreeSet<PathBuf> = used.map(|run| ways::path(&self.sockets(), &run.invocation)).collect();
        for entry in std::fs::read_dir(self.sockets()).into_iter().flatten().flatten() {
            if !used.contains(&entry.path()) {
                let _ = std::fs::remove_file(entry.path());
            }
        }
        Ok(())
    }

    /// The socket of a run whose keeper was killed, made anew where it was and for the same user: the next message
    /// arrives here.
    pub(super) fn socket_again(&self, invocation: &str) -> Option<OwnedFd> {
        let path = ways::path(&self.sockets(), invocation);
        let before = std::fs::symlink_metadata(&path).ok().filter(|m| m.file_type().is_socket())?;
        let dir = file::open_dir(&self.sockets()).ok()?;
        std::fs::remove_file(&path).ok()?;
        packet::hear(self.proof, dir.as_fd(), ways::name(invocation), (before.uid(), before.gid())).ok()
    }

    /// Takes the ways that a run has out of a launcher's descriptors; the others are its pipes.
    pub(super) fn listen_to(&mut self, id: RunId, ways: (bool, bool), mut fds: Vec<OwnedFd>) -> Vec<OwnedFd> {
        let Some(run) = self.runs.get_mut(&id) else { return fds };
        run.ears.newline = if ways.1 { fds.pop() } else { None };
        run.ears.socket = if ways.0 { fds.pop() } else { None };
        self.listen(id);
        fds
    }

    /// Hears what a run has to say from now on.
    pub(super) fn listen(&mut self, id: RunId) {
        let Some(run) = self.runs.get(&id) else { return };
        let add = |fd: &Option<OwnedFd>, token| match fd {
            Some(fd) => self.poll.add(fd.as_fd(), Interest::Read, token | id.0),
            None => Ok(()),
        };
        let added = add(&run.ears.socket, TOKEN_NOTIFY).and_then(|()| add(&run.ears.newline, TOKEN_NEWLINE));
        if let Err(e) = added {
            self.warn(&format!("cannot listen to run {id}"), e);
        }
    }

    /// A run has something to say.
    pub(super) fn hear_run(&mut self, id: RunId) {
        let now = clock::boottime_ms();
        let Some(run) = self.runs.get_mut(&id) else { return };
        let (count, since) = &mut run.ears.burst;
        if now.saturating_sub(*since) > QUIET_MS {
            (*count, *since) = (0, now);
        }
        while self.runs.get(&id).is_some_and(|run| run.ears.burst.0 < BURST) {
            if !self.hear_one(id) {
                return;
            }
        }
        let Some(run) = self.runs.get(&id) else { return };
        if let Some(socket) = &run.ears.socket {
            self.poll.remove(socket.as_fd());
            self.loud.insert(id, now + PAUSE_MS);
        }
    }

    /// Listens again to those that were too loud.
    pub(super) fn listen_again(&mut self, now: u64) {
        while let Some((&id, _)) = self.loud.iter().find(|(_, at)| **at <= now) {
            self.loud.remove(&id);
            let Some(run) = self.runs.get_mut(&id) else { continue };
            run.ears.burst = (0, now);
            if let Some(socket) = &run.ears.socket {
                let _ = self.poll.add(socket.as_fd(), Interest::Read, TOKEN_NOTIFY | id.0);
            }
        }
    }

    /// What a run has said before its end is heard before that.
    pub(super) fn hear_out(&mut self, id: RunId) {
        for _ in 0..BURST {
            if !self.hear_one(id) {
                return;
            }
        }
    }

    /// Takes in one message; false if there is none.
    fn hear_one(&mut self, id: RunId) -> bool {
        let Some(run) = self.runs.get_mut(&id) else { return false };
        let Some(socket) = &run.ears.socket else { return false };
        let mut buffer = [0; told::MESSAGE_MAX];
        let heard = match packet::hear_one(socket.as_fd(), &mut buffer) {
            Ok(heard) => heard,
            Err(Errno::EINTR) => return true,
            Err(_) => return false,
        };
        run.ears.burst.0 += 1;
        let believed = !heard.cut && is_of(run, &heard);
        let message = if believed { told::parse(&buffer[..heard.len]) } else { None };
        match message {
            Some(message) => self.told(id, message),
            None => self.ignored(id, &heard, believed),
        }
        // Descriptors that came along are closed now: whoever sent a barrier goes on.
        true
    }

    fn ignored(&mut self, id: RunId, heard: &Heard, believed: bool) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        run.ears.ignored += 1;
        if !believed && run.ears.ignored == 1 {
            let (pid, uid, service) = (heard.pid, heard.uid, run.service.clone());
            let why = if heard.cut { "it is too long" } else { "that is no process of the service" };
            let text = format!("{service}: ignoring a notification of pid {pid} (uid {uid}): {why}");
            self.note(NoteLevel::Warn, text);
        }
    }

    fn told(&mut self, id: RunId, mut message: Told) {
        if let Some(main) = message.main.take() {
            message.main = self.take_main(id, main);
        }
        let Some(run) = self.runs.get_mut(&id) else { return };
        let before = run.ears.sum.clone();
        told::add(&mut run.ears.sum, &message);
        // That it is alive is told again and again, and need not be remembered.
        if run.ears.sum != before {
            self.touch(id);
        }
        if message != Told::default() {
            self.tell(News::Told { run: id, told: message });
        }
    }

    /// Another process is the main one from now on, if it is of the run and can be held.
    fn take_main(&mut self, id: RunId, main: u32) -> Option<u32> {
        let run = self.runs.get(&id)?;
        let pid = i32::try_from(main).ok().filter(|pid| *pid > 1)?;
        if pid == run.pid || !matches!(run.phase, Phase::Running { .. }) {
            return None;
        }
        let held = pidfd::open(pid).ok()?;
        if !run.tree.holds(pid, run.reaped()) {
            let text = format!("{}: ignoring MAINPID={pid}: that is no process of the service", run.service);
            self.note(NoteLevel::Warn, text);
            return None;
        }
        let run = self.runs.get_mut(&id)?;
        let before = run.pidfd.replace(Rc::new(held));
        let before = (std::mem::replace(&mut run.pid, pid), before);
        run.born = process::born(pid);
        self.pids.remove(&before.0);
        if run.adopted {
            if let Some(fd) = before.1 {
                self.poll.remove(fd.as_fd());
            }
            let fd = run.pidfd.as_ref()?;
            let _ = self.poll.add(fd.as_fd(), Interest::Read, TOKEN_ADOPTED | id.0);
        } else {
            // If it is not our child, it becomes so with the end of its parent.
            self.pids.insert(pid, Owner::Main(id));
        }
        self.touch(id);
        Some(main)
    }

    /// A run has written to its pipe, or closed it.
    pub(super) fn hear_newline(&mut self, id: RunId) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        let Some(pipe) = &run.ears.newline else { return };
        let mut buffer = [0; 512];
        let read = fd::read(pipe.as_fd(), &mut buffer);
        let ready = read.is_ok_and(|len| buffer[..len].contains(&b'\n'));
        if ready || matches!(read, Ok(0)) {
            self.poll.remove(pipe.as_fd());
            run.ears.newline = None;
        }
        if ready {
            self.told(id, Told { ready: true, ..Told::default() });
        }
    }

    /// A run is forgotten.
    pub(super) fn unlisten(&mut self, id: RunId, run: &Run) {
        self.loud.remove(&id);
        if run.ears.socket.is_some() {
            let _ = std::fs::remove_file(ways::path(&self.sockets(), &run.invocation));
        }
        if run.ears.ignored > 1 {
            let (count, service) = (run.ears.ignored, &run.service);
            let text = format!("{service}: {count} notifications to run {id} were ignored");
            self.note(NoteLevel::Info, text);
        }
    }
}

/// Whether the sender is a process of the run. One that has ended since can only be told by its user, who alone, with
/// root, can write to the socket.
fn is_of(run: &Run, heard: &Heard) -> bool {
    if heard.pid <= 0 {
        return false;
    }
    match std::fs::exists(format!("/proc/{}", heard.pid)) {
        Ok(true) => heard.pid == run.pid || run.tree.holds(heard.pid, run.reaped()),
        Ok(false) | Err(_) => heard.uid != 0 || identity::effective_uid() != 0 || run.pid == heard.pid,
    }
}
