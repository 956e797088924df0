//! What is held of a run: its process, its pipes, its tree, and the facts that a new manager must hear.

#![forbid(unsafe_code)]

use super::{
    hearing::Ears,
    protocol::{Pipes, Usage},
    tree::Tree,
};
use crate::{
    plan::{Exit, Generation, Job, Name, Place, hook::Subject},
    sys::watch::Watch,
};
use serde::{Deserialize, Serialize};
use std::{os::fd::OwnedFd, rc::Rc};

/// One run, from the fork to its release.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) service: Name,
    pub(super) generation: Generation,
    pub(super) entry: u32,
    /// 0 until it is known.
    pub(super) pid: i32,
    /// When the main process began, as far as the kernel said.
    pub(super) born: Option<u64>,
    /// It was launched by another keeper and is no child of ours.
    pub(super) adopted: bool,
    /// Once the process is known, until it is reaped.
    pub(super) pidfd: Option<Rc<OwnedFd>>,
    /// Read ends; shared with packets that are under way.
    pub(super) stdout: Option<Rc<OwnedFd>>,
    pub(super) stderr: Option<Rc<OwnedFd>>,
    /// The present manager has been given the pipes.
    pub(super) pipes_given: bool,
    /// INVOCATION_ID.
    pub(super) invocation: String,
    pub(super) tree: Tree,
    /// Of its own: they go with it.
    pub(super) folders: Vec<Place>,
    pub(super) phase: Phase,
    /// SIGKILL until nothing is left.
    pub(super) killing: bool,
    /// Tells when the tree becomes empty.
    pub(super) watch: Option<Watch>,
    /// How it tells how it is.
    pub(super) ears: Ears,
    /// Other resources that it is to be held to once it is launched.
    pub(super) adjust: Option<Adjust>,
    /// What could not be done of the last ones; a sentence.
    pub(super) refused: Option<String>,
    /// A launcher is finding out what it uses.
    pub(super) measuring: bool,
    /// Of a hook's command.
    pub(super) call: Option<Calling>,
    pub(super) stop_job: JobState,
    pub(super) reload_job: JobState,
}

/// What a hook's command is called with.
#[derive(Debug)]
pub(super) struct Calling {
    pub(super) stdin: Rc<OwnedFd>,
    pub(super) subject: Subject,
}

/// Where the resources that a run is to be held to stand.
#[derive(Debug)]
pub(super) struct Adjust {
    pub(super) generation: Generation,
    /// That plan, which may not be launched from any more by the time it is read.
    pub(super) plan: Rc<OwnedFd>,
    pub(super) entry: u32,
}

/// How far a run has come.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Phase {
    /// A launcher was sent, or is to be, and has not reported yet. Signals for it wait.
    Launching { signals: Vec<i32> },
    /// The child has reported that it cannot, and is about to end.
    Failed { why: String, transient: bool },
    /// Exec'ed.
    Running { at_ms: u64 },
    /// The main process was reaped.
    Ended(End),
}

/// How the main process ended, and whether anything outlived it.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct End {
    /// When it was exec'ed.
    pub(super) started_ms: u64,
    pub(super) exit: Exit,
    pub(super) leftovers: bool,
    pub(super) at_ms: u64,
    pub(super) usage: Usage,
    /// Nothing is alive any more.
    pub(super) empty: bool,
}

/// A stop or reload command of a run.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) enum JobState {
    #[default]
    None,
    /// A launcher was sent, or is to be, or it runs.
    Underway,
    /// The last one ended so; kept for a manager that may not have heard it.
    Ended { why: String },
}

impl Run {
    pub(super) fn pipes(&self) -> Pipes {
        Pipes { stdout: self.stdout.is_some(), stderr: self.stderr.is_some() }
    }

    /// The descriptors that [`Run::pipes`] announces, in order.
    pub(super) fn pipe_fds(&self) -> Vec<Rc<OwnedFd>> {
        self.stdout.iter().chain(&self.stderr).cloned().collect()
    }

    /// The main process has been reaped.
    pub(super) fn reaped(&self) -> bool {
        matches!(self.phase, Phase::Ended(_))
    }

    /// The main process has been reaped and nothing else is alive.
    pub(super) fn over(&self) -> bool {
        matches!(self.phase, Phase::Ended(End { empty: true, .. }))
    }

    pub(super) fn job(&mut self, job: Job) -> &mut JobState {
        match job {
            Job::Stop => &mut self.stop_job,
            Job::Reload => &mut self.reload_job,
        }
    }
}
