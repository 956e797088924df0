//! What the manager asks for, done one by one. It is not trusted: a request that makes no sense is said and
//! ignored, and none can name a process, a path or a program; only runs, and entries of plans.

#![forbid(unsafe_code)]

use super::{
    errand::Errand,
    journal::Line,
    protocol::{Kept, NoteLevel, Request, Up},
    run::{JobState, Phase},
    saved::identities,
    state::Keeper,
};
use crate::{
    plan::{Job, Millis, Name, RunId},
    sys::{self, Errno, clock, fd, pidfd, reap, signal},
};
use std::{
    os::fd::{AsFd, OwnedFd},
    rc::Rc,
};

/// Most that is remembered of all services together, in bytes.
const REMEMBERED_MAX: usize = 64 << 20;
/// Most that is kept of the manager's descriptors: so many names of such a length, with so many each.
const KEPT_MAX: usize = 4200;
const KEPT_NAME: usize = 64;
const KEPT_DESCRIPTORS: usize = 4;

impl Keeper {
    pub(super) fn perform(&mut self, request: Request, fds: Vec<OwnedFd>) {
        match request {
            Request::Launch { run, service, generation, entry, call } => {
                self.launch(run, service, generation, entry, call);
            }
            Request::RunJob { run, job } => self.run_job(run, job),
            Request::Signal { run, signal } => self.signal(run, signal),
            Request::SignalTree { run, signal } => self.signal_tree(run, signal),
            Request::KillTree { run } => self.kill_tree(run),
            Request::Release { run } => self.release(run),
            Request::Remember { service, state } => self.remember(service, state),
            Request::Forget { service } => self.forget(&service),
            Request::Keep { name, descriptors: _ } => self.keep_for_next(name, fds),
            Request::Drop { name } => {
                self.kept.remove(&name);
                self.jot(Line::Dropped(name));
            }
            Request::Load => self.load(),
            Request::DropPlan { generation } => {
                if self.plans.drop_plan(generation) {
                    let runs = &self.runs;
                    self.plans.sweep(|g| runs.values().any(|r| r.generation == g));
                } else {
                    let text =
                        format!("ignoring the drop of plan {}: it is in force or not held", generation.0);
                    self.note(NoteLevel::Error, text);
                }
            }
            Request::AdoptPlan { generation } => self.adopt(generation),
            Request::Notify(up) => self.notify(&up),
            Request::Adjust { run, generation, entry } => self.adjust(run, generation, entry),
            Request::Measure { run } => self.measure(run),
            Request::Probe { run, generation, entry, which, number, timeout_ms } => {
                self.probe((run, which), number, (generation, entry), Millis(timeout_ms));
            }
            Request::Upgrade => self.upgrade(),
            Request::Pong => self.pulse_felt(),
            Request::Exit { status } => self.exit = Some(status),
        }
    }

    fn adopt(&mut self, generation: crate::plan::Generation) {
        if !self.plans.adopt(generation) {
            let text = format!("ignoring the adoption of plan {}: it is not held", generation.0);
            self.note(NoteLevel::Error, text);
        }
    }

    fn notify(&mut self, up: &Up) {
        match up {
            Up::Ready => {
                self.link.ready = true;
                self.link.failures = 0;
                self.link.pulse.beat(clock::boottime_ms());
                self.up.ready();
                if let Some(parent) = self.ready_fd.take() {
                    if let Err(e) = fd::stdio_to_null() {
                        self.warn("cannot let go of the terminal", e);
                    }
                    // A parent that does not wait any more is none of our business.
                    let _ = fd::write(parent.as_fd(), b"R");
                }
            }
            Up::Reloading => self.up.reloading(),
            Up::Status(text) => self.up.status(text),
            Up::Stopping => self.up.stopping(),
            Up::Extend(ms) => self.up.extend(*ms),
        }
    }

    pub(super) fn remember(&mut self, service: Name, state: Kept) {
        self.drop_remembered(&service);
        let size = service.as_str().len() + state.as_str().len();
        if self.remembered_size + size > REMEMBERED_MAX {
            return self.note(NoteLevel::Error, format!("cannot remember the state of {service}: too much"));
        }
        self.remembered_size += size;
        self.jot(Line::Remember(service.clone(), state.clone()));
        self.remembered.insert(service, state);
    }

    fn forget(&mut self, service: &Name) {
        self.jot(Line::Forget(service.clone()));
        self.drop_remembered(service);
    }

    fn drop_remembered(&mut self, service: &Name) {
        if let Some(state) = self.remembered.remove(service) {
            self.remembered_size -= service.as_str().len() + state.as_str().len();
        }
    }

    /// Where there is no room, the manager goes on without: what it loses then is its own.
    fn keep_for_next(&mut self, name: String, mut fds: Vec<OwnedFd>) {
        let Some(receipt) = fds.pop() else { return };
        let known = self.kept.contains_key(&name);
        if fds.len() > KEPT_DESCRIPTORS || name.len() > KEPT_NAME || !known && self.kept.len() >= KEPT_MAX {
            return self.note(NoteLevel::Error, "cannot keep descriptors for the manager: too many".into());
        }
        let fds: Vec<_> = fds.into_iter().map(Rc::new).collect();
        self.jot(Line::Kept(name.clone(), identities(&fds)));
        self.kept.insert(name, fds);
        self.receipts.push(receipt);
    }

    fn good_signal(&mut self, id: RunId, signal: i32) -> bool {
        let good = (1..=signal::MAX).contains(&signal);
        if !good {
            self.note(NoteLevel::Error, format!("ignoring signal {signal} for run {id}: there is none"));
        }
        good
    }

    /// Signals the main process. One that has ended meanwhile is told by its `Exited`.
    pub(super) fn signal(&mut self, id: RunId, signal: i32) {
        if !self.good_signal(id, signal) {
            return;
        }
        let Some(run) = self.runs.get_mut(&id) else { return };
        if let Phase::Launching { signals } = &mut run.phase {
            return signals.push(signal);
        }
        let Some(pidfd) = run.pidfd.as_ref().map(AsFd::as_fd) else { return };
        let sent = pidfd::send_signal(pidfd, signal);
        if wakes(signal) && (run.adopted || reap::is_stopped(pidfd)) {
            // A stopped process does not see it until it goes on.
            let _ = pidfd::send_signal(pidfd, signal::SIGCONT);
        }
        match sent {
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(e) => {
                let what = format!("cannot send {} to {} (run {id})", signal::name(signal), run.service);
                self.warn(&what, e);
            }
        }
    }

    fn signal_tree(&mut self, id: RunId, signal: i32) {
        if !self.good_signal(id, signal) {
            return;
        }
        let Some(run) = self.runs.get(&id).filter(|r| !r.over()) else { return };
        let sent = run.tree.signal(signal, run.reaped());
        if wakes(signal) {
            let _ = run.tree.signal(signal::SIGCONT, run.reaped());
        }
        if let Err(e) = sent {
            let name = signal::name(signal);
            let what = format!("cannot send {name} to every process of {} (run {id})", run.service);
            self.warn(&what, e);
        }
    }

    fn run_job(&mut self, id: RunId, job: Job) {
        let command = super::exits::name(job);
        let Some(run) = self.runs.get_mut(&id) else { return };
        if matches!(run.job(job), JobState::Underway) {
            let text = format!("ignoring a second {command} of {}: one is running", run.service);
            return self.note(NoteLevel::Error, text);
        }
        *run.job(job) = JobState::Underway;
        self.touch(id);
        self.send_out(Errand::Job(id, job));
    }

    /// Closes what belongs to a manager that is about to go, and waits for it a little.
    pub(super) fn dismiss_manager(&mut self, ms: u64) {
        let Some(child) = self.link.child.take() else { return };
        self.link.socket = None;
        let pidfd = child.pidfd.as_fd();
        if !matches!(pidfd::wait_end(pidfd, ms), Ok(true)) {
            let _ = pidfd::send_signal(pidfd, signal::SIGKILL);
            let _ = pidfd::wait_end(pidfd, ms);
        }
        let _: sys::Result<_> = reap::reap(pidfd);
    }
}

/// Signals that ask a process to end: a stopped one must go on to see them.
fn wakes(signal: i32) -> bool {
    matches!(signal, signal::SIGTERM | signal::SIGINT | signal::SIGQUIT)
}
