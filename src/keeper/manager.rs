//! The manager's life: started, handed everything that is held, and started again whenever it ends. What the
//! services do meanwhile is kept for the next one.

#![forbid(unsafe_code)]

use super::{
    own::{self, Own},
    protocol::{Hello, MANAGER_FD, News, NoteLevel, PACKET_MAX, Pipes},
    run::{End, JobState, Phase},
    state::{Keeper, complain},
};
use crate::{
    plan::{Job, RunId},
    sys::{
        self, clock, file, packet,
        reap::{self, Ended},
        signal,
    },
};
use std::os::fd::AsFd;

/// Room for this many of the longest packets, if the kernel allows it.
const ROOM: usize = 32 * PACKET_MAX;
/// A manager that ends before it is ready is started again at once, the next after so long, and so on,
/// doubling.
const DELAY_MS: u64 = 100;
const DELAY_MAX_MS: u64 = 5_000;
/// One that was ready is started again at once too, but not more often than so: output waits in the pipes
/// meanwhile, and a crash loop must not take a processor.
const SPACING_MS: u64 = 50;

impl Keeper {
    /// Starts a manager and hands over.
    pub(super) fn start_manager(&mut self) -> sys::Result<()> {
        self.restore_folders();
        let (ours, theirs) = packet::pair(ROOM)?;
        let own = Own {
            program: None,
            argv: &self.argv.manager,
            fd: theirs.as_fd(),
            number: MANAGER_FD,
            also: Vec::new(),
            env: None,
            role: own::Role::Manager(self.spec.manager),
        };
        let child = own::start(self.proof, &own)?;
        self.pids.insert(child.pid, super::state::Owner::Manager);
        let before = self.link.managers;
        self.link.renew(ours, child);
        self.hand_over(before);
        Ok(())
    }

    /// Makes the runtime folder anew if somebody has wiped it, with what is ours in it; the manager does the rest.
    fn restore_folders(&mut self) {
        let path = self.spec.runtime_dir.clone();
        if path.exists() || self.link.managers == 0 {
            return;
        }
        let made = file::ensure_dir(&path, 0o755, self.spec.manager).and_then(|_| self.open_sessions(&path));
        let text = format!("{} was wiped away; it is there again", path.display());
        match made {
            Ok(()) => self.note(NoteLevel::Warn, text),
            Err(e) => complain(&format!("cannot make {} again: {}", path.display(), sys::describe(e))),
        }
        self.begin_record();
    }

    fn hand_over(&mut self, managers_before: u32) {
        self.tell(News::Hello(Hello {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: sys::process::pid(),
            began_ms: self.began_ms,
            generation: self.plans.current,
            last_run: self.last_run,
            managers_before,
            upgrades: self.upgrades,
            shutdown: self.shutdown.map(|s| s.force),
            status_wanted: self.up.heard(),
            cgroup: self.base.as_ref().map(|b| b.at.path.display().to_string()),
            degraded: self.degraded.clone(),
        }));
        let plans: Vec<_> = self.plans.iter().map(|(g, held)| (g, held.fd.clone())).collect();
        for (generation, fd) in plans {
            self.tell_with(News::Plan { generation }, vec![fd]);
        }
        let kept: Vec<_> = self.remembered.iter().map(|(s, t)| (s.clone(), t.clone())).collect();
        for (service, state) in kept {
            self.tell(News::Remembered { service, state });
        }
        for (name, fds) in self.kept.clone() {
            let descriptors = u32::try_from(fds.len()).unwrap_or(0);
            self.tell_with(News::Kept { name, descriptors }, fds);
        }
        let runs: Vec<RunId> = self.runs.keys().copied().collect();
        for run in runs {
            self.hand_over_run(run);
        }
        self.tell(News::HelloEnd);
        for news in std::mem::take(&mut self.link.missed) {
            self.tell(news);
        }
    }

    /// The run, then the facts about it that are still true.
    fn hand_over_run(&mut self, id: RunId) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        run.pipes_given = !matches!(run.phase, Phase::Launching { .. });
        let (service, generation, entry) = (run.service.clone(), run.generation, run.entry);
        let intro = News::Run { run: id, service, generation, entry, pipes: run.pipes() };
        let pid = run.pid as u32;
        let started = |at_ms| News::Started { run: id, pid, pipes: Pipes::default(), at_ms };
        let mut facts = Vec::new();
        match &run.phase {
            Phase::Launching { .. } | Phase::Failed { .. } => {}
            Phase::Running { at_ms } => facts.push(started(*at_ms)),
            Phase::Ended(End { started_ms, exit, leftovers, at_ms, usage, empty }) => {
                facts.push(started(*started_ms));
                let (exit, leftovers, at_ms, usage) = (*exit, *leftovers, *at_ms, *usage);
                facts.push(News::Exited { run: id, exit, leftovers, at_ms, usage });
                if leftovers && *empty {
                    facts.push(News::Emptied { run: id });
                }
            }
        }
        if let Some(told) = run.ears.sum() {
            facts.push(News::Told { run: id, told });
        }
        if let Some(why) = &run.refused {
            facts.push(News::Adjusted { run: id, why: why.clone() });
        }
        for (job, state) in [(Job::Stop, &run.stop_job), (Job::Reload, &run.reload_job)] {
            if let JobState::Ended { why } = state {
                facts.push(News::JobEnded { run: id, job, why: why.clone() });
            }
        }
        let fds = run.pipe_fds();
        self.tell_with(intro, fds);
        for fact in facts {
            self.tell(fact);
        }
    }

    /// The manager's process has ended; what it sent before may still be unread.
    pub(super) fn manager_ended(&mut self) {
        let Some(child) = self.link.child.take() else { return };
        self.link.kill_at = None;
        let cause = match reap::reap(child.pidfd.as_fd()) {
            Ok(Some((Ended::Code(status), _))) => format!("exited with status {status}"),
            Ok(Some((Ended::Signal { signal, .. }, _))) => format!("was killed by {}", signal::name(signal)),
            Ok(None) | Err(_) => "ended".into(),
        };
        self.link.cause = Some(self.link.verdict.take().unwrap_or(cause));
        // So that reading goes on to the end.
        self.link.forget_unsent();
        if self.link.socket.is_none() {
            self.manager_lost();
        }
    }

    /// The manager has ended and everything that it sent is done: say so and plan the next one.
    pub(super) fn manager_lost(&mut self) {
        let now = clock::boottime_ms();
        let delay = if self.link.ready {
            self.link.delay_ms = 0;
            (self.link.started_at + SPACING_MS).saturating_sub(now)
        } else {
            self.link.failures += 1;
            let delay = self.link.delay_ms;
            self.link.delay_ms = (delay * 2).clamp(DELAY_MS, DELAY_MAX_MS);
            delay
        };
        self.link.restart_at = Some(now + delay);
        let when = if delay == 0 { "at once".into() } else { format!("in {delay} ms") };
        let cause = self.link.cause.take().unwrap_or_else(|| "ended".into());
        let text = format!("the manager {cause}; services go on, it is started again {when}");
        complain(&text);
        if self.link.failures > 0 {
            let times = self.link.failures;
            self.up.status(&format!("{text}; it has failed to start {times} times in a row"));
        }
    }

    /// Starts the next manager when its time has come.
    pub(super) fn restart_manager(&mut self, now: u64) {
        if self.link.restart_at.is_none_or(|at| now < at) || self.upgrade_needs_no_manager() {
            return;
        }
        if let Err(e) = self.start_manager() {
            let delay = self.link.delay_ms.clamp(DELAY_MS, DELAY_MAX_MS);
            self.link.delay_ms = (delay * 2).min(DELAY_MAX_MS);
            self.link.restart_at = Some(now + delay);
            let why = sys::describe(e);
            complain(&format!("cannot start the manager: {why}; trying again in {delay} ms"));
        }
    }
}
