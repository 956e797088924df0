//! From a [`Saved`] form to a keeper that goes on: as the same process after it has executed itself anew.

#![forbid(unsafe_code)]

use super::{
    base::Base,
    errand::Errand,
    hearing::Ears,
    plans::{Held, Plans},
    run::{Adjust, Calling, JobState, Phase, Run},
    saved::{Found, Saved, SavedRun, name},
    state::{Keeper, Owner, Shutdown, TOKEN_ADOPTED},
    tidy::Tidying,
    tree::Tree,
};
use crate::{
    plan::{Job, RunId},
    sys::{self, poll::Interest},
};
use std::{
    os::fd::{AsFd, OwnedFd},
    rc::Rc,
};

/// The plans of a state, each checked. The error is a clause for people.
pub(super) fn plans(saved: &Saved, found: &mut Found) -> Result<Plans, String> {
    let mut held = Vec::new();
    for (generation, dropped) in &saved.plans {
        let what = || format!("plan {}", generation.0);
        let fd = found.remove(&name::plan(*generation)).ok_or_else(|| format!("{} is missing", what()))?;
        let (plan, _) = Held::accept(fd).map_err(|why| format!("{}: {why}", what()))?;
        held.push((*generation, plan.again(*dropped)));
    }
    Plans::again(held, saved.current, saved.last).ok_or_else(|| "the plan in force is missing".into())
}

impl Keeper {
    /// Takes up what the state holds, all but what `new` was given. Nothing is told: there is no manager yet.
    pub(super) fn resume(&mut self, saved: Saved, mut found: Found) -> sys::Result<()> {
        self.began_ms = saved.began_ms;
        self.last_run = saved.last_run;
        self.link.managers = saved.managers;
        self.upgrades = saved.upgrades;
        self.shutdown = saved.shutdown.map(|(force, deadline)| Shutdown { force, deadline });
        for (service, state) in saved.remembered {
            self.remember(service, state);
        }
        for (kept, count) in saved.kept {
            let fds = (0..count).map_while(|i| found.remove(&name::kept(&kept, i))).map(Rc::new);
            self.kept.insert(kept.clone(), fds.collect());
        }
        self.remains = saved.remains;
        for (service, folders) in saved.tidying {
            self.tidying.insert(service.clone(), Tidying::again(folders));
            self.send_out(Errand::Tidy(service));
        }
        self.resume_sessions(saved.sessions, &mut found)?;
        for (id, run) in saved.runs {
            self.take_up(id, run, &mut found);
        }
        for (pid, run, job) in &saved.jobs {
            self.pids.insert(*pid, Owner::Job(*run, *job));
        }
        self.ask_again(&saved.jobs);
        Ok(())
    }

    /// Holds a run as before.
    fn take_up(&mut self, id: RunId, saved: SavedRun, found: &mut Found) {
        let mut take = |kind| found.remove(&name::run(&saved.service, id, kind)).map(Rc::new);
        let (pidfd, stdout, stderr, call) = (take("pidfd"), take("stdout"), take("stderr"), take("call"));
        let mut take = |kind| found.remove(&name::run(&saved.service, id, kind));
        let ears = Ears::again(saved.told.clone(), take("notify"), take("newline"));
        let call = call.zip(saved.subject.clone()).map(|(stdin, subject)| Calling { stdin, subject });
        if saved.adopted {
            if let Some(fd) = &pidfd {
                // What cannot be watched is seen to have ended by its tree.
                let _ = self.poll.add(fd.as_fd(), Interest::Read, TOKEN_ADOPTED | id.0);
            }
        } else if saved.pid != 0 && (pidfd.is_some() || matches!(saved.phase, Phase::Failed { .. })) {
            self.pids.insert(saved.pid, Owner::Main(id));
        }
        let run = self.run_again(saved, pidfd, (stdout, stderr), ears);
        self.runs.insert(id, Run { call, ..run });
        self.listen(id);
        self.await_empty_again(id);
    }

    pub(super) fn run_again(
        &self,
        saved: SavedRun,
        pidfd: Option<Rc<OwnedFd>>,
        (stdout, stderr): (Option<Rc<OwnedFd>>, Option<Rc<OwnedFd>>),
        ears: Ears,
    ) -> Run {
        let tree = match (&self.base, saved.cgroup) {
            (Some(base), Some(name)) => {
                Tree::Cgroup { base: base.clone(), name, removed: Default::default() }
            }
            _ => Tree::Group { main: saved.pid, invocation: saved.invocation.clone() },
        };
        let adjust = saved.adjust.and_then(|(generation, entry)| {
            Some(Adjust { generation, plan: self.plans.get(generation)?.fd.clone(), entry })
        });
        Run {
            service: saved.service,
            generation: saved.generation,
            entry: saved.entry,
            pid: saved.pid,
            born: saved.born,
            adopted: saved.adopted,
            pidfd,
            stdout,
            stderr,
            pipes_given: false,
            invocation: saved.invocation,
            tree,
            folders: saved.folders,
            phase: saved.phase,
            killing: saved.killing,
            watch: None,
            ears,
            adjust,
            refused: saved.refused,
            measuring: false,
            call: None,
            stop_job: saved.stop_job,
            reload_job: saved.reload_job,
        }
    }

    /// What no launcher had been given yet is asked for again.
    fn ask_again(&mut self, jobs: &[(i32, RunId, Job)]) {
        let mut errands = Vec::new();
        let mut launches = Vec::new();
        for (id, run) in &self.runs {
            if matches!(run.phase, Phase::Launching { .. }) {
                launches.push((*id, run.service.clone()));
            }
            let waiting = |job, state: &JobState| {
                matches!(state, JobState::Underway) && !jobs.iter().any(|(_, r, j)| (*r, *j) == (*id, job))
            };
            for (job, state) in [(Job::Stop, &run.stop_job), (Job::Reload, &run.reload_job)] {
                if waiting(job, state) {
                    errands.push(Errand::Job(*id, job));
                }
            }
            if run.adjust.is_some() && matches!(run.phase, Phase::Running { .. }) {
                errands.push(Errand::Adjust(*id));
            }
        }
        for (id, service) in launches {
            self.launch_when_tidy(id, &service);
        }
        errands.into_iter().for_each(|errand| self.send_out(errand));
    }
}

/// The folder of the runs' cgroups, where the predecessor had it.
pub(super) fn base(saved: &Saved) -> Result<Option<Rc<Base>>, String> {
    let Some(at) = saved.base.clone() else { return Ok(None) };
    let path = at.path.clone();
    let opened = Base::new(at);
    let claimed = opened.map(|mut base| {
        // Ours already, or there would be nothing to go on with.
        let _ = base.claim();
        Some(Rc::new(base))
    });
    claimed.map_err(|e| format!("{}: {}", path.display(), sys::describe(e)))
}

/// Looks whether a keeper of this version could go on from the state behind this descriptor.
pub(super) fn check(state: std::os::fd::BorrowedFd<'_>) -> Result<(), String> {
    let (saved, mut found) = Saved::read(state.as_fd())?;
    plans(&saved, &mut found).map(drop)
}
