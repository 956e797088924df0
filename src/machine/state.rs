//! The states and what they hold; see `service.rs` for what they mean. Deadlines are in the states.

use super::Time;
use crate::plan::{Generation, Millis, Reload, Resources, RunId, StopSpec};
use serde::{Deserialize, Serialize};

/// The states by name, without what they hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum StateKind {
    Stopped,
    Waiting,
    Starting,
    Running,
    Stopping,
    Backoff,
    Exited,
    Failed,
    Stuck,
}

impl StateKind {
    /// All of them, in the order of their numbers.
    pub const ALL: [StateKind; 9] = [
        StateKind::Stopped,
        StateKind::Waiting,
        StateKind::Starting,
        StateKind::Running,
        StateKind::Stopping,
        StateKind::Backoff,
        StateKind::Exited,
        StateKind::Failed,
        StateKind::Stuck,
    ];

    /// As in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            StateKind::Stopped => "stopped",
            StateKind::Waiting => "waiting",
            StateKind::Starting => "starting",
            StateKind::Running => "running",
            StateKind::Stopping => "stopping",
            StateKind::Backoff => "backoff",
            StateKind::Exited => "exited",
            StateKind::Failed => "failed",
            StateKind::Stuck => "stuck",
        }
    }
}

/// A run of which something may be alive. It keeps how it is stopped and reloaded from its own launch, since
/// the keeper runs its commands from the plan it was launched from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Live {
    pub(super) run: RunId,
    /// The plan it was launched from.
    pub(super) generation: Generation,
    pub(super) stop: StopSpec,
    pub(super) reload: Reload,
    /// What it is held to, or is being held to.
    #[serde(default, skip_serializing_if = "Resources::is_empty")]
    pub(super) resources: Resources,
    /// What could not be done of that, while it ran; a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) refused: Option<String>,
    /// Of what a new process would be needed for; see `save::fingerprint`.
    pub(super) fingerprint: u64,
    /// Known once it was exec'ed.
    #[serde(default)]
    pub(super) pid: Option<u32>,
    /// When it was exec'ed.
    #[serde(default)]
    pub(super) started: Option<Time>,
    /// It is ready now.
    #[serde(default)]
    pub(super) ready: bool,
    /// When it first was; from then on it is to be alive, and its time counts as that of a stable run.
    #[serde(default)]
    pub(super) first_ready: Option<Time>,
    /// What it has told through NOTIFY_SOCKET: that it reloads.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) reloading: bool,
    /// That it is about to end.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) leaving: bool,
    /// How it is, in its own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) status: Option<String>,
    /// How often it will tell that it is alive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) watchdog: Option<Millis>,
    /// The main process has ended, and that is recorded.
    #[serde(default)]
    pub(super) dead: bool,
    /// Nothing of it is left, as was said before the end of its main process was.
    #[serde(default)]
    pub(super) empty: bool,
}

/// How far a stop has got.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Phase {
    /// The keeper has not yet said whether there is a process.
    Launching,
    /// The stop command runs.
    Command,
    /// The main process has got the stop signal.
    Main,
    /// The main process has ended, others of the run have got the signal.
    Leftovers,
    /// Everything has got SIGKILL; past `stuck_at` it is stuck.
    Killed { stuck_at: Time },
}

/// What follows when nothing of a run is left.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum After {
    /// The end was wanted: start again if it is wanted up, else stay down.
    Rest,
    /// Automatic restart after a delay.
    Backoff,
    /// It has run and is not restarted.
    Exited,
    /// A crash loop; `retry`: try again at the breaker's pace.
    Failed { retry: bool },
}

/// What is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum State {
    #[default]
    Stopped,
    /// `auto`: nobody asked for this very start, so it is subject to the host's budget.
    Waiting {
        auto: bool,
    },
    /// Past `give_up_at` the launch counts as failed.
    Starting {
        live: Live,
        give_up_at: Time,
    },
    /// `stable_at`: when earlier failures are forgotten, if there are any. `ready_by`: past that it has failed, because
    /// it is not ready, or has said that it is about to end.
    Running {
        live: Live,
        stable_at: Option<Time>,
        #[serde(default)]
        ready_by: Option<Time>,
    },
    /// Past `kill_at` everything gets SIGKILL.
    Stopping {
        live: Live,
        phase: Phase,
        kill_at: Time,
        after: After,
    },
    Backoff {
        until: Time,
    },
    Exited,
    /// `None`: waits for an operator.
    Failed {
        retry_at: Option<Time>,
    },
    Stuck {
        live: Live,
        after: After,
    },
}

impl State {
    pub(super) fn kind(&self) -> StateKind {
        match self {
            State::Stopped => StateKind::Stopped,
            State::Waiting { .. } => StateKind::Waiting,
            State::Starting { .. } => StateKind::Starting,
            State::Running { .. } => StateKind::Running,
            State::Stopping { .. } => StateKind::Stopping,
            State::Backoff { .. } => StateKind::Backoff,
            State::Exited => StateKind::Exited,
            State::Failed { .. } => StateKind::Failed,
            State::Stuck { .. } => StateKind::Stuck,
        }
    }

    /// When time alone will change it.
    pub(super) fn deadline(&self) -> Option<Time> {
        match self {
            State::Starting { give_up_at, .. } => Some(*give_up_at),
            State::Running { stable_at, ready_by, .. } => stable_at.iter().chain(ready_by).min().copied(),
            State::Stopping { phase: Phase::Killed { stuck_at }, .. } => Some(*stuck_at),
            State::Stopping { kill_at, .. } => Some(*kill_at),
            State::Backoff { until } => Some(*until),
            State::Failed { retry_at } => *retry_at,
            State::Stopped | State::Waiting { .. } | State::Exited | State::Stuck { .. } => None,
        }
    }

    pub(super) fn live(&self) -> Option<&Live> {
        match self {
            State::Starting { live, .. }
            | State::Running { live, .. }
            | State::Stopping { live, .. }
            | State::Stuck { live, .. } => Some(live),
            State::Stopped
            | State::Waiting { .. }
            | State::Backoff { .. }
            | State::Exited
            | State::Failed { .. } => None,
        }
    }

    pub(super) fn live_mut(&mut self) -> Option<&mut Live> {
        match self {
            State::Starting { live, .. }
            | State::Running { live, .. }
            | State::Stopping { live, .. }
            | State::Stuck { live, .. } => Some(live),
            State::Stopped
            | State::Waiting { .. }
            | State::Backoff { .. }
            | State::Exited
            | State::Failed { .. } => None,
        }
    }
}
