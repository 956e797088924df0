//! What a killed keeper has left is taken over: its runs, if they are still the processes that they were, their
//! pipes, and what its manager holds. A run that cannot be told for sure is ended, so that none is doubled;
//! no stranger is ever signalled.

#![forbid(unsafe_code)]

use super::{
    exits::exit,
    former::same_process,
    hearing::Ears,
    journal::{self, Left},
    plans::{Held, Plans},
    protocol::{NoteLevel, Usage},
    run::{JobState, Phase},
    saved::{Identity, SavedRun},
    state::{Keeper, Shutdown, TOKEN_ADOPTED},
    tidy::Tidying,
};
use crate::{
    plan::{Exit, RunId},
    sys::{
        self, clock, memory, pidfd,
        poll::{Interest, Ready},
        process,
    },
};
use std::{
    collections::BTreeSet,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    rc::Rc,
};

/// How long the end of a process may take to be told by whoever reaps it.
const STATUS_MS: u64 = 2_000;

/// What an earlier keeper has left, with its plans; none where nothing can be gone on with, which is noted.
pub(super) fn find(runtime_dir: &Path, notes: &mut Vec<String>) -> Option<(Left, Plans)> {
    let found = journal::read(runtime_dir, &process::boot_id()).and_then(|left| {
        let Some(left) = left else { return Ok(None) };
        let plans = plans(runtime_dir, &left)?;
        Ok(Some((left, plans)))
    });
    found.unwrap_or_else(|why| {
        notes.push(format!(
            "cannot go on from the state that an earlier keepd has left in {}: {why}; what it ran is ended and \
             started anew",
            runtime_dir.display()
        ));
        None
    })
}

fn plans(runtime_dir: &Path, left: &Left) -> Result<Plans, String> {
    let mut held = Vec::new();
    for (generation, dropped) in &left.state.plans {
        let failed = |why: String| format!("plan {}: {why}", generation.0);
        let image =
            journal::read_plan(runtime_dir, *generation).map_err(|e| failed(sys::describe(e).into()))?;
        let fd = memory::create(c"keepd-plan").map_err(|e| failed(sys::describe(e).into()))?;
        let fd = memory::fill_and_seal(fd, &image).map_err(|e| failed(e.to_string()))?;
        let (plan, _) = Held::accept(fd).map_err(failed)?;
        held.push((*generation, plan.again(*dropped)));
    }
    let (current, last) = (left.state.current, left.state.last);
    Plans::again(held, current, last).ok_or_else(|| "the plan in force is missing".into())
}

/// The cgroups of runs that may be taken over.
pub(super) fn cgroups(left: &Left) -> BTreeSet<String> {
    left.state.runs.values().filter(|r| r.lives()).filter_map(|r| r.cgroup.clone()).collect()
}

impl SavedRun {
    /// It has begun, and something of it may be alive.
    fn lives(&self) -> bool {
        matches!(self.phase, Phase::Running { .. } | Phase::Ended(_))
    }
}

impl Keeper {
    /// Takes over what was left. Nothing is told: there is no manager yet.
    pub(super) fn adopt_all(&mut self, left: Left) {
        let Left { state, managers, kept } = left;
        self.began_ms = state.began_ms;
        self.last_run = state.last_run;
        self.link.managers = state.managers.max(1);
        self.upgrades = state.upgrades;
        self.shutdown = state.shutdown.map(|(force, deadline)| Shutdown { force, deadline });
        let held: Vec<_> = managers.into_iter().flat_map(|(pid, born)| self.unburden(pid, born)).collect();
        for (name, wanted) in kept {
            let fds: Option<Vec<_>> = wanted.iter().map(|w| find_fd(&held, *w).map(Rc::new)).collect();
            match fds {
                Some(fds) => drop(self.kept.insert(name, fds)),
                None => self
                    .note(NoteLevel::Warn, format!("no manager of an earlier keepd holds {name} any more")),
            }
        }
        for (service, kept) in state.remembered {
            self.remember(service, kept);
        }
        for (service, folders) in state.tidying {
            self.tidying.insert(service.clone(), Tidying::again(folders));
            self.send_out(super::errand::Errand::Tidy(service));
        }
        let (mut adopted, mut lost) = (0, 0);
        for (id, run) in state.runs {
            if !run.lives() {
                // It was about to be launched: what there is of it has been ended, and it is launched again.
                lost += 1;
            } else if self.adopt_run(id, run, &held) {
                adopted += 1;
            }
        }
        let text = format!(
            "an earlier keepd was killed; its runs are taken over: {adopted} alive, {lost} cut short"
        );
        self.note(NoteLevel::Warn, text);
    }

    /// Holds a run that another keeper has launched; false where it is over.
    fn adopt_run(&mut self, id: RunId, mut saved: SavedRun, held: &[(Identity, OwnedFd)]) -> bool {
        let pidfd = match saved.phase {
            Phase::Running { .. } => same_process(saved.pid, saved.born),
            _ => None,
        };
        let pipe = |wanted: Option<Identity>| {
            let wanted = wanted?;
            let found = find_fd(held, wanted).or_else(|| pidfd::reopen_pipe(saved.pid, wanted.inode()));
            found.map(Rc::new)
        };
        let (stdout, stderr) = (pipe(saved.pipes.0), pipe(saved.pipes.1));
        saved.adopted = true;
        for job in [&mut saved.stop_job, &mut saved.reload_job] {
            if matches!(job, JobState::Underway) {
                *job = JobState::Ended { why: "how it ended is not known: keepd was killed".into() };
            }
        }
        let (pid, killing) = (saved.pid, saved.killing);
        let was_running = matches!(saved.phase, Phase::Running { .. });
        let newline = saved.newline.and_then(|wanted| pidfd::reopen_pipe(saved.pid, wanted.inode()));
        let ears = Ears::again(saved.told.clone(), self.socket_again(&saved.invocation), newline);
        let run = self.run_again(saved, pidfd.map(Rc::new), (stdout, stderr), ears);
        // Its main process may be a stranger by now, the rest of its tree is not.
        let ours = run.pidfd.is_some() && (run.tree.cgroup().is_none() || run.tree.holds(pid, false));
        let fd = run.pidfd.clone().filter(|_| ours);
        self.runs.insert(id, run);
        self.touch(id);
        match fd {
            Some(fd) if self.poll.add(fd.as_fd(), Interest::Read, TOKEN_ADOPTED | id.0).is_ok() => {
                if killing {
                    self.kill_tree(id);
                }
                self.listen(id);
                self.hold_again(id);
                true
            }
            _ if was_running => {
                self.main_over(id, None);
                false
            }
            _ => {
                self.await_empty_again(id);
                false
            }
        }
    }

    /// What its cgroup was held to may have been lost with the controllers, which systemd had to be given back.
    fn hold_again(&mut self, id: RunId) {
        let Some(run) = self.runs.get(&id).filter(|run| run.tree.cgroup().is_some()) else { return };
        let (generation, entry) = (run.generation, run.entry);
        self.adjust(id, generation, entry);
    }

    /// The main process of an adopted run has ended, or has been reaped by whoever is its parent.
    pub(super) fn hear_adopted(&mut self, ready: Ready) {
        let id = RunId(ready.token & !TOKEN_ADOPTED);
        let Some(run) = self.runs.get(&id) else { return };
        let Some(pidfd) = run.pidfd.clone() else { return };
        // While the descriptor is of a process that is not reaped, its number is its own.
        let unreaped = process::unreaped_status(run.pid).filter(|_| process::born(run.pid) == run.born);
        match (pidfd::exit_status(pidfd.as_fd()), unreaped) {
            (Ok(Some(ended)), _) | (_, Some(ended)) => self.adopted_over(id, Some(exit(ended))),
            // It is told once its parent has seen it.
            (Ok(None), None) if !ready.hangup => {
                let _ = self.poll.modify(pidfd.as_fd(), Interest::Hangup, ready.token);
                self.unreaped.insert(id, clock::boottime_ms() + STATUS_MS);
            }
            (Ok(None) | Err(_), None) => self.adopted_over(id, None),
        }
    }

    /// Gives up on those whose end nobody tells.
    pub(super) fn give_up_unreaped(&mut self, now: u64) {
        let late: Vec<RunId> =
            self.unreaped.iter().filter(|(_, at)| now >= **at).map(|(id, _)| *id).collect();
        late.into_iter().for_each(|id| self.adopted_over(id, None));
    }

    fn adopted_over(&mut self, id: RunId, exit: Option<Exit>) {
        self.unreaped.remove(&id);
        let Some(run) = self.runs.get_mut(&id) else { return };
        if let Some(pidfd) = &run.pidfd {
            self.poll.remove(pidfd.as_fd());
        }
        self.ended(id, exit.unwrap_or(Exit::Unknown), Usage::default());
    }
}

/// Where the log of an adopted run goes on: the descriptor among these that is the same.
fn find_fd(held: &[(Identity, OwnedFd)], wanted: Identity) -> Option<OwnedFd> {
    held.iter().find(|(is, _)| *is == wanted)?.1.try_clone().ok()
}
