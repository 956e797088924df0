//! Ends: of main processes, of jobs, of orphans that came to us, and of whole trees. Every child is reaped
//! here, once, and an end is told once, in order.

#![forbid(unsafe_code)]

use super::{
    protocol::{News, NoteLevel, Usage},
    run::{End, Phase, Run},
    state::{Keeper, Owner},
    tree::Tree,
};
use crate::{
    plan::{Exit, Job, RunId},
    sys::{
        clock,
        reap::{self, Ended, Used},
        signal,
    },
};

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
                Some(Owner::Main(id)) => {
                    let ended = reap::reap_peeked(pid).ok().flatten();
                    self.main_over(id, ended);
                }
                Some(Owner::Job(id, job)) => {
                    let ended = reap::reap_peeked(pid).ok().flatten();
                    self.job_over(id, job, ended.map(|(ended, _)| ended));
                }
                Some(Owner::Exec(number)) => {
                    let ended = reap::reap_peeked(pid).ok().flatten();
                    self.exec_over(number, ended.map(|(ended, _)| ended));
                }
                Some(Owner::Probe(id, which, number)) => {
                    let ended = reap::reap_peeked(pid).ok().flatten();
                    self.probe_over((id, which, number), ended.map(|(ended, _)| ended));
                }
                Some(Owner::Manager) => self.manager_ended(),
                Some(Owner::Loader) => self.loader_ended(),
                Some(Owner::Check) => self.check_ended(),
                Some(Owner::Launcher(number)) => self.launcher_ended(number),
                // A descendant whose parent went first, or a child that is not reported yet.
                None => self.newborn_ended(pid),
            }
            // Where there is only one, the manager need not wait until all children have been looked at.
            if std::mem::take(&mut first) {
                self.flush();
            }
        }
    }

    /// The main process is reaped, and has ended like this if that is known.
    pub(super) fn main_over(&mut self, id: RunId, ended: Option<(Ended, Used)>) {
        match ended {
            Some((ended, used)) => self.ended(id, exit(ended), usage(used)),
            None => self.ended(id, Exit::Unknown, Usage::default()),
        }
    }

    /// The same, in the words of the protocol.
    pub(super) fn ended(&mut self, id: RunId, exit: Exit, usage: Usage) {
        self.touch(id);
        self.hear_out(id);
        self.end_probes(id);
        let Some(run) = self.runs.get_mut(&id) else { return };
        run.pidfd = None;
        // What we killed ourselves did not die of a lack of memory.
        let exit = match exit {
            Exit::Signal { signal: signal::SIGKILL, .. } if !run.killing && run.tree.oom_killed() => {
                Exit::Oom
            }
            exit => exit,
        };
        let usage = Usage { peak_bytes: run.tree.memory_peak(), oom_kills: run.tree.oom_kills(), ..usage };
        let at_ms = clock::boottime_ms();
        let started_ms = match &run.phase {
            Phase::Running { at_ms } => *at_ms,
            Phase::Failed { .. } => return self.launch_failed(id),
            Phase::Launching { .. } | Phase::Ended(_) => at_ms,
        };
        let leftovers = run.tree.populated(true) != Ok(false);
        run.phase = Phase::Ended(End { started_ms, exit, leftovers, at_ms, usage, empty: !leftovers });
        self.tell(News::Exited { run: id, exit, leftovers, at_ms, usage });
        if leftovers {
            self.hang_up_all(id);
            self.await_empty(id);
        } else {
            self.emptied(id);
        }
    }

    /// What could not become the service has ended: nothing of it is left.
    pub(super) fn launch_failed(&mut self, id: RunId) {
        let Some(run) = self.drop_run(id) else { return };
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

    /// The same for a run that was taken up, if its main process has ended and others had not.
    pub(super) fn await_empty_again(&mut self, id: RunId) {
        let Some(run) = self.runs.get(&id) else { return };
        if run.reaped() && !run.over() {
            self.await_empty(id);
        }
        if run_is_killed(self.runs.get(&id)) {
            self.kill_tree(id);
        }
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
        self.touch(id);
        self.tell(News::Emptied { run: id });
        self.emptied(id);
    }

    /// Nothing is left of a run: what was for watching and killing it goes, and soon its cgroup.
    fn emptied(&mut self, id: RunId) {
        self.restless.remove(&id);
        let Some(run) = self.runs.get_mut(&id) else { return };
        run.killing = false;
        if let Some(watch) = run.watch.take() {
            self.watches.remove(watch);
            self.watched.remove(&watch);
        }
        self.remains.extend(run.tree.take_remains());
        self.tidy(id);
    }

    /// Kills a run until nothing of it is left.
    pub(super) fn kill_tree(&mut self, id: RunId) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        if run.over() {
            return;
        }
        self.touch(id);
        let Some(run) = self.runs.get_mut(&id) else { return };
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

    /// A job is reaped, and has ended like this if that is known.
    pub(super) fn job_over(&mut self, id: RunId, job: Job, ended: Option<Ended>) {
        let why = match ended {
            Some(Ended::Code(0)) => String::new(),
            Some(Ended::Code(status)) => format!("the {} exited with status {status}", name(job)),
            Some(Ended::Signal { signal, .. }) => {
                format!("the {} was killed by {}", name(job), crate::sys::signal::name(signal))
            }
            None => format!("how the {} ended is not known", name(job)),
        };
        self.job_refused(id, job, why);
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
        drop(self.drop_run(id));
    }

    /// Lets go of a run, of its cgroup, and of its plan if that was its last one.
    fn drop_run(&mut self, id: RunId) -> Option<Run> {
        let run = self.runs.remove(&id)?;
        self.touch(id);
        self.restless.remove(&id);
        self.unlisten(id, &run);
        if let Err(e) = run.tree.remove() {
            self.warn(&format!("cannot remove the cgroup of {} (run {id})", run.service), e);
        }
        let runs = &self.runs;
        self.plans.sweep(|g| runs.values().any(|r| r.generation == g));
        Some(run)
    }
}

/// Whether SIGKILL has still to do its work.
fn run_is_killed(run: Option<&Run>) -> bool {
    run.is_some_and(|r| r.killing && !r.over() && !matches!(r.phase, Phase::Launching { .. }))
}

pub(super) fn name(job: Job) -> &'static str {
    match job {
        Job::Stop => "stop command",
        Job::Reload => "reload command",
    }
}

pub(super) fn exit(ended: Ended) -> Exit {
    match ended {
        Ended::Code(code) => Exit::Code(code),
        Ended::Signal { signal, core } => Exit::Signal { signal, core },
    }
}

fn usage(used: Used) -> Usage {
    let (user_us, system_us, max_rss_kib) = (used.user_us, used.system_us, used.max_rss_kib);
    Usage { user_us, system_us, max_rss_kib, ..Usage::default() }
}
