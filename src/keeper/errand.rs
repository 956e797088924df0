//! What launchers are sent to do: who can do it, and whom it concerns that it came to nothing.

#![forbid(unsafe_code)]

use super::{order::Kind, state::Keeper, step::Failure};
use crate::{
    plan::{Job, Name, RunId, Which},
    sys::reap::{Ended, Used},
};

/// What a launcher is sent to do.
#[derive(Debug)]
pub(super) enum Errand {
    Main(RunId),
    Job(RunId, Job),
    /// The command of a session.
    Exec(u64),
    /// Ask whether a run is ready, or alive; the number of the question.
    Probe(RunId, Which, u64),
    /// Hold a live run to other resources.
    Adjust(RunId),
    /// Find out what a live run uses.
    Measure(RunId),
    /// Remove these empty cgroups.
    Remove(Vec<String>),
    /// Remove the folders of this service's last run.
    Tidy(Name),
}

impl Keeper {
    /// Who can do it.
    pub(super) fn kind(&self, errand: &Errand) -> Kind {
        if let Errand::Probe(id, which, _) = errand {
            let asked = self.probes.entry(*id, *which);
            let plan = asked.and_then(|(generation, entry)| Some((entry, self.plans.get(generation)?)));
            return plan.map_or(Kind::Restricted, |(entry, held)| held.kind(entry));
        }
        let id = match errand {
            Errand::Main(id) | Errand::Job(id, _) => Some(*id),
            Errand::Exec(number) => self.sessions.run_of(*number),
            Errand::Probe(..)
            | Errand::Adjust(_)
            | Errand::Measure(_)
            | Errand::Remove(_)
            | Errand::Tidy(_) => None,
        };
        let run = id.and_then(|id| self.runs.get(&id));
        let plan = run.and_then(|run| Some((run.entry, self.plans.get(run.generation)?)));
        plan.map_or(Kind::Restricted, |(entry, held)| held.kind(entry))
    }

    /// `pid`: the child that found out; 0 where there was none.
    pub(super) fn failed(
        &mut self,
        errand: &Errand,
        pid: i32,
        failure: Failure,
        ended: Option<(Ended, Used)>,
    ) {
        match errand {
            Errand::Main(id) => self.launch_refused(*id, if ended.is_some() { 0 } else { pid }, &failure),
            // The child of a job is reaped as any orphan is.
            Errand::Job(id, job) => self.job_refused(*id, *job, failure.sentence()),
            Errand::Exec(number) => self.exec_refused(*number, &failure),
            Errand::Probe(id, which, number) => self.probe_refused((*id, *which, *number), &failure),
            Errand::Adjust(id) => self.adjusted(*id, Some(&failure)),
            Errand::Measure(id) => self.measured(*id, None, None),
            Errand::Remove(folders) => folders.iter().for_each(|name| self.remove_late(name)),
            Errand::Tidy(service) => self.tidied(service, &[]),
        }
    }
}
