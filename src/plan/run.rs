//! The vocabulary of runs: what keeper, machine and manager all speak of.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The number of one run of one service, unique and rising within the life of a keeper.
/// Every fact about a process names its run, so that late or doubled news of an old one is ignored.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct RunId(pub u64);

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A command that is run beside a service's main process, in its identity and its cgroup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Job {
    /// `stop-command`
    Stop,
    /// `reload-command`
    Reload,
}

/// How a process ended. Never invented: what the kernel did not tell is `Unknown`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// Exit status, 0-255.
    Code(i32),
    /// Killed by this signal.
    Signal {
        /// Its number.
        signal: i32,
        /// Whether it dumped core.
        core: bool,
    },
    /// Killed by the kernel (SIGKILL) because memory ran out.
    Oom,
    /// Nobody who could be asked was its parent.
    Unknown,
}
