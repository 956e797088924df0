//! Ends: of main processes, of jobs, of orphans that came to us, and of whole trees. Every child is reaped
//! here, once, and an end is told once, in order.

#![forbid(unsafe_code)]

use super::{
    protocol::{News, NoteLevel, Usage},
    run::{End, JobState, Phase},
    state::{Keeper, Owner},
    tree::Tree,
};
use crate::{
    plan::{Exit, Job, RunId},
    sys::{
        clock,
        reap::{self, Ended, Used},
    },
};
use std::os::fd::AsFd;

/// How often a tree is looked at that is being killed.
const KILL_AGAIN_MS: u64 = 200;
/// How often, where nothing tells that it is empty.
const LOOK_AGAIN_MS: u64 = 50;

impl Keeper {
    /// Reaps every child that has ended.
    pub(super) fn reap(&mut self) {
        let mut first = true;
        while let Ok(Some(pid)) = reap::peek() {
            match self.pids.remove(&pid) {
                Some(Owner::Main(id)) => self.main_ended(id),
                Some(Owner::Job(id, job)) => self.job_ended(id, job),
                Some(Owner::Manager) => self.manager_ended(),
                Some(Owner::Loader) => self.loader_ended(),
                // A descendant whose parent went first.
                None => drop(reap::reap_orphan(pid)),
            }
            // Where there is only one, the manager need not wait until all children have been looked at.
            if std::mem::take(&mut first) {
                self.flush();
            }
        }
    }

    fn main_ended(&mut self, id: RunId) {
        // It may have been exec'ed and ended since we last looked.
        self.launched(id);
        let Some(run) = self.runs.get_mut(&id) else { return };
        let reaped = run.pidfd.take().map(|fd| reap::reap(fd.as_fd()));
        let (exit, usage) = match reaped {
            Some(Ok(Some((ended, used)))) => (exit(ended), usage(used)),
            _ => (Exit::Unknown, Usage::default()),
        };
        let at_ms = clock::boottime_ms();
        let started_ms = match &run.phase {
            Phase::Running { at_ms } => *at_ms,
            Phase::Failed { .. } => return self.launch_failed(id),
            Phase::Launching { .. } | Phase::Ended(_) => at_ms,
        };
        let leftovers = !run.tree.dissolve();
        run.phase = Phase::Ended(End { started_ms, exit, leftovers, at_ms, usage, empty: !leftovers });
        self.tell(News::Exited { run: id, exit, leftovers, at_ms, usage });
        if leftovers {
            self.await_empty(id);
        } else {
            self.emptied(id);
        }
    }

    /// The child that could not become the service has ended: nothing of it is left.
    fn launch_failed(&mut self, id: RunId) {
        let Some(run) = self.runs.remove(&id) else { return };
        self.restless.remove(&id);
        if let Err(e) = run.tree.remove() {
            self.warn(&format!("cannot remove the cgroup of {} (run {id})", run.service), e);
        }
        if let Phase::Failed { why, transient } = run.phase {
            self.tell(News::LaunchFailed { run: id, why, transient });
        }
    }

    /// Sees to it that the tree's becoming empty is noticed.
    fn await_empty(&mut self, id: RunId) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        match run.tree.events().map(|file| self.watches.add(&file)) {
            Some(Ok(watch)) => {
                run.watch = Some(watch);
                self.watched.insert(watch, id);
            }
            _ => self.make_restless(id, LOOK_AGAIN_MS),
        }
        // It may have become empty before it was watched.
        self.check_empty(id);
    }

    /// Some watched trees changed.
    pub(super) fn on_watch(&mut self) {
        let changed: Vec<RunId> = match self.watches.changed() {
            Some(changed) => changed.iter().filter_map(|w| self.watched.get(w).copied()).collect(),
            None => self.watched.values().copied().collect(),
        };
        for id in changed {
            self.check_empty(id);
        }
    }

    /// Looks whether a run whose main process is gone has become empty, and tells.
    fn check_empty(&mut self, id: RunId) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        let Phase::Ended(end) = &mut run.phase else { return };
        if end.empty {
            return;
        }
        match run.tree.populated(true) {
            Ok(false) => end.empty = true,
            Ok(true) => return,
            // No descriptor to be had, perhaps: no event will tell when there is one.
            Err(_) => return self.make_restless(id, LOOK_AGAIN_MS),
        }
        self.tell(News::Emptied { run: id });
        self.emptied(id);
    }

    /// Nothing is left of a run: what was for watching and killing it goes, and its cgroup.
    fn emptied(&mut self, id: RunId) {
        self.restless.remove(&id);
        let Some(run) = self.runs.get_mut(&id) else { return };
        run.killing = false;
        if let Some(watch) = run.watch.take() {
            self.watches.remove(watch);
            self.watched.remove(&watch);
        }
        // Where it is still in use for a moment, the release tries again.
        let _ = run.tree.remove();
    }

    /// Kills a run until nothing of it is left.
    pub(super) fn kill_tree(&mut self, id: RunId) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        if run.over() {
            return;
        }
        run.killing = true;
        let killed = run.tree.kill(run.reaped());
        let often = match run.tree {
            Tree::Cgroup { .. } => KILL_AGAIN_MS,
            Tree::Group { .. } => LOOK_AGAIN_MS,
        };
        let service = run.service.clone();
        self.make_restless(id, often);
        if let Err(e) = killed {
            self.warn(&format!("cannot kill {service} (run {id}); trying again"), e);
        }
        self.check_empty(id);
    }

    fn make_restless(&mut self, id: RunId, ms: u64) {
        let at = clock::boottime_ms() + ms;
        self.look_at = if self.restless.is_empty() { at } else { self.look_at.min(at) };
        self.restless.insert(id);
    }

    /// Looks at every restless run: kills again what is being killed.
    pub(super) fn look(&mut self, now: u64) {
        self.look_at = now + KILL_AGAIN_MS;
        for id in self.restless.clone() {
            self.check_empty(id);
            let Some(run) = self.runs.get(&id).filter(|_| self.restless.contains(&id)) else { continue };
            if matches!(run.tree, Tree::Group { .. }) || run.watch.is_none() && run.reaped() {
                self.look_at = now + LOOK_AGAIN_MS;
            }
            if run.killing {
                let _ = run.tree.kill(run.reaped());
            }
        }
    }

    fn job_ended(&mut self, id: RunId, job: Job) {
        let Some(state) = self.runs.get_mut(&id).map(|r| r.job(job)) else { return };
        let JobState::Running { pidfd, status } = state else { return };
        let why = match (super::launch::outcome(status), reap::reap(pidfd.as_fd())) {
            (super::launch::Outcome::Failed(failure), _) => failure.sentence(),
            (_, Ok(Some((Ended::Code(0), _)))) => String::new(),
            (_, Ok(Some((Ended::Code(status), _)))) => {
                format!("the {} exited with status {status}", name(job))
            }
            (_, Ok(Some((Ended::Signal { signal, .. }, _)))) => {
                format!("the {} was killed by {}", name(job), crate::sys::signal::name(signal))
            }
            (_, Ok(None) | Err(_)) => format!("how the {} ended is not known", name(job)),
        };
        *state = JobState::Ended { why: why.clone() };
        self.tell(News::JobEnded { run: id, job, why });
    }

    /// Forgets a run that is over.
    pub(super) fn release(&mut self, id: RunId) {
        match self.runs.get(&id) {
            None => return,
            Some(run) if !run.over() => {
                let text = format!("ignoring the release of {} (run {id}): it is alive", run.service);
                return self.note(NoteLevel::Error, text);
            }
            Some(_) => {}
        }
        let Some(run) = self.runs.remove(&id) else { return };
        if let Err(e) = run.tree.remove() {
            self.warn(&format!("cannot remove the cgroup of {} (run {id})", run.service), e);
        }
        let runs = &self.runs;
        self.plans.sweep(|g| runs.values().any(|r| r.generation == g));
    }
}

pub(super) fn name(job: Job) -> &'static str {
    match job {
        Job::Stop => "stop command",
        Job::Reload => "reload command",
    }
}

fn exit(ended: Ended) -> Exit {
    match ended {
        Ended::Code(code) => Exit::Code(code),
        Ended::Signal { signal, core } => Exit::Signal { signal, core },
    }
}

fn usage(used: Used) -> Usage {
    Usage { user_us: used.user_us, system_us: used.system_us, max_rss_kib: used.max_rss_kib }
}
