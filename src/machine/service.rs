//! One service as the machine sees it. Data only; the transitions are in the files beside.
//!
//! **Two axes.** `desired` is what people want (up or down); `state` is what is. Nothing else says what a
//! service is to do, and whatever is derived from the two is derived anew, never remembered.
//!
//! **States**, and what is alive in them:
//!
//! | state | alive | leaves it when |
//! |---|---|---|
//! | `stopped` | nothing | it is wanted up |
//! | `waiting` | nothing | what it needs is ready, a start slot and the host's budget have room: launch |
//! | `starting` | maybe | the keeper reports the exec, or that there was none |
//! | `running` | main process | it ends, or is to be ended; it is ready or not, and fails if it is not in time |
//! | `stopping` | something | nothing of the run is left |
//! | `backoff` | nothing | `until` has come |
//! | `exited` | nothing | somebody starts it: it ended in a way that is not followed by a restart |
//! | `failed` | nothing | `retry_at` has come, or somebody starts it: a crash loop |
//! | `stuck` | something that SIGKILL does not end | it ends after all |
//!
//! Deadlines are part of the states, so leaving a state cancels its timer.
//!
//! **Held.** A service is *held* when it must not run now: it is not wanted, it is being restarted or
//! replaced, or something it needs is held itself (or, with `binds-to`, is not up). A held service that runs
//! is stopped once everything that depends on it is gone; a held one that does not run waits. So stopping a
//! dependency, restarting it and shutting down are one rule, and dependents come back by themselves.
//!
//! **Two phases.** After every event first the *faces* (held, up, coming) are spread along the graph until
//! nothing changes, and only then does anything act. So nobody starts or stops on half of the news.

pub use super::state::StateKind;
pub(super) use super::state::{After, Live, Phase, State};
use super::{
    Time, breaker::Breaker, event::Ticket, graph::Edges, incident::Incident, probe::Probing, watch::Gauge,
    window::Window,
};
use crate::plan::{Exit, Generation, Meter, Millis, Name, RunId, ServiceSpec};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What people want.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Desired {
    Up,
    Down,
}

impl Desired {
    /// `up` or `down`.
    pub fn as_str(self) -> &'static str {
        match self {
            Desired::Up => "up",
            Desired::Down => "down",
        }
    }
}

/// How the last run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastExit {
    /// What the kernel said.
    pub exit: Exit,
    /// When.
    pub at: Time,
    /// Of which run.
    pub run: RunId,
    /// How long its command had run.
    pub ran: Millis,
}

/// Who a pending restart is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Bounce {
    /// Somebody asked for it.
    Asked,
    /// Something it is bound to went away.
    Bound,
    /// It used more of this than its watch allows.
    Watched(Meter),
}

/// Why it is not up, or is being brought down.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Because {
    /// Nothing has happened yet.
    #[default]
    New,
    /// Somebody stopped it.
    Operator,
    /// keepd is shutting down.
    Shutdown,
    /// It is no longer in the configuration.
    Removed,
    /// Somebody restarts it.
    Restart,
    /// Its new configuration needs a new process.
    Replaced,
    /// It used too much: completes "it used ...".
    Watched(String),
    /// What it needs goes down, or went away.
    Dependency(Name),
    /// Its last run ended by itself; see `last_exit`.
    Exit,
    /// It could not be launched: a sentence.
    Launch(String),
    /// It ran and was of no use: completes "web ...".
    Unfit(String),
}

/// `desired`, and whether anybody has said so yet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Want {
    /// Down, because nobody has said anything.
    #[default]
    Unset,
    Up,
    Down,
}

/// All that changes about a service: what the next manager must know to carry on.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Record {
    pub(super) want: Want,
    pub(super) state: State,
    pub(super) because: Because,
    /// Stop the present run, then start a new one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) bounce: Option<Bounce>,
    /// Failures in a row; for people.
    pub(super) failures: u32,
    /// Automatic restarts in a row, failures or not; what the delay grows with.
    pub(super) attempts: u32,
    pub(super) breaker: Breaker,
    /// The crash loop has been announced.
    pub(super) loop_told: bool,
    /// Automatic restarts since it was started by hand or by configuration.
    pub(super) restarts: u32,
    /// What it took of the host's restart budget.
    pub(super) spent: Window,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) last_exit: Option<LastExit>,
    /// The last end that nobody asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) incident: Option<Box<Incident>>,
    /// Of a scheduled service: it is to run now, or as soon as it may.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub(super) due: bool,
    /// Of a scheduled service: the last time that was looked at, in milliseconds since 1970.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) planned: Option<u64>,
    /// The plan of the last run that lasted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) good: Option<Generation>,
}

/// What others can see of a service when they decide; derived, and spread along the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Face {
    /// Must not run now.
    pub(super) held: bool,
    /// Running, ready and not held: dependents may run.
    pub(super) up: bool,
    /// Not up, but on its way there by itself: order-only dependents wait for it.
    pub(super) coming: bool,
    /// Everything it needs is up or on its way.
    pub(super) met: bool,
    pub(super) kind: StateKind,
}

/// What keeps a waiting service from being launched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Hold {
    None,
    /// It needs (or comes after) this one, which is in this state; `leaving`: but is to be stopped.
    Other {
        name: Name,
        state: StateKind,
        leaving: bool,
    },
    /// `max-concurrent-starts`
    Slot,
    /// `restart-budget`
    Budget,
    /// Its time has not come.
    Schedule,
}

/// What a ticket waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    Up,
    Down,
    /// Whatever comes of it.
    Settled,
    /// The end of the reload command.
    Reloaded,
}

/// A service of the plan, or one that left it and is still being stopped.
#[derive(Debug, Clone)]
pub(super) struct Service {
    pub(super) name: Name,
    pub(super) spec: Arc<ServiceSpec>,
    pub(super) rec: Record,
    /// No longer in the plan.
    pub(super) gone: bool,
    /// Not even that: the slot may be used for another service.
    pub(super) free: bool,
    /// The live run was launched differently from what the plan says now.
    pub(super) replace: bool,
    /// The reload command of the live run is at work.
    pub(super) reloading: bool,
    /// What its watch shows.
    pub(super) gauge: Gauge,
    /// What has come of asking it, by [`Which`](crate::plan::Which).
    pub(super) probing: [Probing; 2],
    pub(super) edges: Edges,
    pub(super) face: Face,
    pub(super) hold: Hold,
    pub(super) tickets: Vec<(Ticket, Asked)>,
    /// Its entry in the machine's deadlines.
    pub(super) deadline: Option<Time>,
    /// The state that was last told.
    pub(super) told: StateKind,
    /// Which of the machine's queues it is in.
    pub(super) queued: Queued,
}

/// Membership of the machine's queues, so that none holds a service twice.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Queued {
    pub(super) spread: bool,
    pub(super) act: bool,
    pub(super) slot: bool,
    pub(super) budget: bool,
    pub(super) touched: bool,
    pub(super) changed: bool,
}

impl Service {
    pub(super) fn new(spec: Arc<ServiceSpec>, rec: Record) -> Service {
        let kind = rec.state.kind();
        Service {
            name: spec.name.clone(),
            spec,
            rec,
            gone: false,
            free: false,
            replace: false,
            reloading: false,
            gauge: Gauge::default(),
            probing: Default::default(),
            edges: Edges::default(),
            face: Face { held: true, up: false, coming: false, met: false, kind },
            hold: Hold::None,
            tickets: Vec::new(),
            deadline: None,
            told: kind,
            queued: Queued::default(),
        }
    }

    /// Wanted up, and still part of the plan.
    pub(super) fn wanted(&self) -> bool {
        self.rec.want == Want::Up && !self.gone
    }

    /// Something of it may be alive, and will go when told so.
    pub(super) fn alive(&self) -> bool {
        match self.rec.state.kind() {
            StateKind::Starting | StateKind::Running | StateKind::Stopping => true,
            StateKind::Stopped
            | StateKind::Waiting
            | StateKind::Backoff
            | StateKind::Exited
            | StateKind::Failed
            | StateKind::Stuck => false,
        }
    }

    /// Its last run has succeeded.
    pub(super) fn has_succeeded(&self) -> bool {
        self.rec.last_exit.is_some_and(|last| super::ending::succeeded(&self.spec, last.exit))
    }

    /// It runs when its schedule says so.
    pub(super) fn scheduled(&self) -> bool {
        self.spec.oneshot.as_ref().is_some_and(|o| o.schedule.is_some())
    }

    /// The run of which something is or may be alive.
    pub(super) fn run(&self) -> Option<RunId> {
        self.rec.state.live().map(|live| live.run)
    }

    /// Its main process runs.
    pub(super) fn runs(&self) -> bool {
        self.rec.state.kind() == StateKind::Running
    }

    /// Runs and is ready; a oneshot is so once it has succeeded.
    pub(super) fn ready(&self) -> bool {
        match &self.rec.state {
            State::Running { live, .. } => live.ready,
            State::Exited => self.spec.oneshot.is_some() && self.has_succeeded(),
            State::Stopped
            | State::Waiting { .. }
            | State::Starting { .. }
            | State::Stopping { .. }
            | State::Backoff { .. }
            | State::Failed { .. }
            | State::Stuck { .. } => false,
        }
    }
}
