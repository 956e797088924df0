//! When a service is ready, and how it is seen to be alive. Values only: who asks when is the machine's business, and
//! how it is asked that of the probes' room and of the keeper.

use super::Millis;
use core::net::SocketAddr;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

/// The `ready` table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ready {
    pub probe: Arc<Probe>,
    /// A run that is not ready so long after its start has failed.
    pub within: Millis,
}

/// The `live` table. It counts from the first readiness of a run on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Live {
    pub probe: Arc<Probe>,
    pub action: LiveAction,
}

/// `live.action`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LiveAction {
    /// The run has failed: it is stopped in order, and what follows a failure follows.
    Restart,
    /// People are told, nothing else.
    Alert,
}

/// What is asked, and how often.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probe {
    pub check: Check,
    /// From one question to the next; more than nothing.
    pub interval: Millis,
    /// For an answer; at most the interval.
    pub timeout: Millis,
    /// So many in a row are a failure; at least 1.
    pub failures: u32,
    /// So many in a row are a success; at least 1.
    pub successes: u32,
}

/// What is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// Nothing: the service tells by itself, through NOTIFY_SOCKET. For readiness READY=1; for life WATCHDOG=1 at
    /// least once in each interval.
    Notify,
    /// Nothing: the service writes a newline to this descriptor once it is ready.
    Fd(i32),
    /// A GET.
    Http(Http),
    /// Whether a connection is taken.
    Tcp(Vec<SocketAddr>),
    /// Whether a connection to this socket is taken.
    Unix(PathBuf),
    /// Whether this command, run as the service, exits with status 0.
    Exec(Vec<String>),
    /// Whether this regular expression matches a line of the run's output.
    Log(String),
}

impl Check {
    /// As the key of the configuration is called.
    pub fn word(&self) -> &'static str {
        match self {
            Check::Notify => "notify",
            Check::Fd(_) => "fd",
            Check::Http(_) => "http",
            Check::Tcp(_) => "tcp",
            Check::Unix(_) => "unix",
            Check::Exec(_) => "exec",
            Check::Log(_) => "log",
        }
    }

    /// Whether somebody has to ask; else the service tells.
    pub fn is_asked(&self) -> bool {
        !matches!(self, Check::Notify | Check::Fd(_))
    }
}

/// A GET and what its answer must be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Http {
    /// As it was written, for people.
    pub url: String,
    pub to: Target,
    /// What follows `GET`.
    pub path: String,
    /// Of the Host header, unless `headers` has one.
    pub host: String,
    /// First and last status that is a success.
    pub status: (u16, u16),
    /// A regular expression that is to match somewhere in the body.
    pub body: Option<String>,
    pub headers: BTreeMap<String, String>,
}

/// Where a connection leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Target {
    /// The first of these that takes it.
    Tcp(Vec<SocketAddr>),
    Unix(PathBuf),
}

/// Which of a service's two probes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Which {
    Ready,
    Live,
}

impl Which {
    /// Both, in the order of their numbers.
    pub const BOTH: [Which; 2] = [Which::Ready, Which::Live];
}

/// What a probe has come to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    Passed,
    /// Why, as a clause ("it answered 503").
    Failed(String),
    /// It could not be asked, which says nothing of the service; why, as a clause.
    Unasked(String),
}

/// What a service has told through NOTIFY_SOCKET; what a message did not mention is as in the default.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(default)]
pub struct Told {
    /// READY=1; after RELOADING=1 in the same sum: not any more.
    pub ready: bool,
    /// RELOADING=1
    pub reloading: bool,
    /// STOPPING=1
    pub stopping: bool,
    /// WATCHDOG=1
    pub alive: bool,
    /// WATCHDOG=trigger
    pub failing: bool,
    /// STATUS=
    pub status: Option<String>,
    /// WATCHDOG_USEC=, in ms.
    pub watchdog: Option<Millis>,
    /// EXTEND_TIMEOUT_USEC=, in ms.
    pub extend: Option<Millis>,
    /// MAINPID=, once the keeper holds that process as the main one.
    pub main: Option<u32>,
}
