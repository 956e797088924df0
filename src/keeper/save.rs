//! From a keeper at rest to its [`Saved`] form, with all descriptors that the next one needs.

#![forbid(unsafe_code)]

use super::{
    run::Run,
    saved::{FORM, Named, Saved, SavedRun, identity, name},
    state::{Keeper, Owner},
};
use std::{
    os::fd::{AsFd, OwnedFd},
    rc::Rc,
};

impl Keeper {
    /// Everything that is held.
    pub(super) fn save(&self) -> Saved {
        let jobs = self.pids.iter().filter_map(|(pid, owner)| match owner {
            Owner::Job(run, job) => Some((*pid, *run, *job)),
            _ => None,
        });
        let shown = |(name, fds): (&String, &Vec<_>)| (name.clone(), fds.len());
        Saved {
            form: FORM,
            version: env!("CARGO_PKG_VERSION").into(),
            spec: self.spec.clone(),
            base: self.base.as_ref().map(|b| b.at.clone()),
            degraded: self.degraded.clone(),
            open_files: self.open_files,
            began_ms: self.began_ms,
            plans: self.plans.iter().map(|(g, held)| (g, held.dropped())).collect(),
            current: self.plans.current,
            last: self.plans.last(),
            last_run: self.last_run,
            managers: self.link.managers,
            upgrades: self.upgrades,
            shutdown: self.shutdown.map(|s| (s.force, s.deadline)),
            runs: self.runs.iter().map(|(id, run)| (*id, run.save())).collect(),
            jobs: jobs.collect(),
            remembered: self.remembered.clone(),
            kept: self.kept.iter().map(shown).collect(),
            remains: self.remains.iter().cloned().chain(self.launchers.remains()).collect(),
            tidying: self.tidying.iter().map(|(s, t)| (s.clone(), t.folders.clone())).collect(),
            sessions: self.saved_sessions(),
        }
    }

    /// The descriptors that belong to it.
    pub(super) fn descriptors(&self) -> Named<'_> {
        let mut all: Named<'_> = vec![(name::LOCK.into(), self.lock.as_fd())];
        all.extend(self.plans.iter().map(|(g, held)| (name::plan(g), held.fd.as_fd())));
        for (kept, fds) in &self.kept {
            all.extend(fds.iter().enumerate().map(|(i, fd)| (name::kept(kept, i), fd.as_fd())));
        }
        for (id, run) in &self.runs {
            let of = [("pidfd", &run.pidfd), ("stdout", &run.stdout), ("stderr", &run.stderr)];
            let open = of.into_iter().filter_map(|(kind, fd)| Some((kind, fd.as_ref()?)));
            let open = open.map(|(kind, fd)| (kind, fd.as_fd()));
            let ears = run.ears.descriptors().into_iter().filter_map(|(kind, fd)| Some((kind, fd?)));
            let call = run.call.as_ref().map(|call| ("call", call.stdin.as_fd()));
            all.extend(
                open.chain(ears).chain(call).map(|(kind, fd)| (name::run(&run.service, *id, kind), fd)),
            );
        }
        all.extend(self.session_descriptors());
        all
    }
}

impl Run {
    pub(super) fn save(&self) -> SavedRun {
        let of = |fd: &Rc<OwnedFd>| identity(fd.as_fd());
        SavedRun {
            service: self.service.clone(),
            generation: self.generation,
            entry: self.entry,
            pid: self.pid,
            born: self.born,
            invocation: self.invocation.clone(),
            cgroup: self.tree.cgroup().map(str::to_owned),
            folders: self.folders.clone(),
            phase: self.phase.clone(),
            killing: self.killing,
            adjust: self.adjust.as_ref().map(|a| (a.generation, a.entry)),
            refused: self.refused.clone(),
            stop_job: self.stop_job.clone(),
            reload_job: self.reload_job.clone(),
            pipes: (self.stdout.as_ref().and_then(of), self.stderr.as_ref().and_then(of)),
            told: self.ears.sum().unwrap_or_default(),
            newline: self
                .ears
                .descriptors()
                .into_iter()
                .find(|(kind, _)| *kind == "newline")
                .and_then(|(_, fd)| identity(fd?)),
            subject: self.call.as_ref().map(|call| call.subject.clone()),
            adopted: self.adopted,
        }
    }
}
