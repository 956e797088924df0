//! `GET /v1/services/{name}/why`: what is known of the ends of a service that nobody asked for.

use super::{ChangedField, LastExit};
use serde::{Deserialize, Serialize};

/// How a service is, and its dossiers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Why {
    pub name: String,
    /// As in [`super::Service`].
    pub desired: String,
    pub state: String,
    pub ready: bool,
    pub reason: String,
    pub restarts: u32,
    pub consecutive_failures: u32,
    pub next_start_in_ms: Option<u64>,
    /// The last runs of a oneshot, newest first; failed ones too.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub runs: Vec<LastExit>,
    /// Newest first; one is there once the output of its run has been written to the log.
    pub dossiers: Vec<Dossier>,
}

/// One unplanned end of a run, or a launch that came to nothing.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Dossier {
    pub run_id: u64,
    /// `exit`, `oom`, `launch_failed`, `watch`, `timeout`, `not_ready` or `unhealthy`.
    pub kind: String,
    /// RFC 3339, UTC.
    pub at: String,
    /// One sentence.
    pub cause: String,
    /// `null` where no process came to be.
    pub exit: Option<LastExit>,
    /// RFC 3339, UTC; when its command was executed.
    pub started_at: Option<String>,
    /// Failures in a row, with this one.
    pub consecutive_failures: u32,
    /// Automatic restarts before it.
    pub restarts: u32,
    /// `null` where there was no process, or the manager died along with it.
    pub usage: Option<Usage>,
    pub dependencies: Vec<Dependency>,
    /// How its probes were answered.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub probes: Vec<Probed>,
    /// Number of the configuration that it was launched from.
    pub generation: u64,
    /// Number of the configuration of the last run that lasted, which may be this one; `null`: none has since
    /// keepd was started.
    pub good_generation: Option<u64>,
    /// What was changed of its configuration since then, oldest first.
    pub changes: Vec<Change>,
    pub next: Next,
    /// The last lines that it printed.
    pub stdout: Vec<String>,
    /// The same of stderr, where that is kept apart.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub stderr: Vec<String>,
    /// Why there are no lines, if they could not be read.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub no_lines: Option<String>,
}

/// What a run used in all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Usage {
    /// Of the main process and the children that it waited for, in microseconds.
    pub user_usec: u64,
    pub system_usec: u64,
    /// The most that was resident of one of them.
    pub max_rss_bytes: u64,
    /// The most that all processes of the run used together; `null` where the host cannot tell.
    pub memory_peak_bytes: Option<u64>,
    /// What they were held to.
    pub memory_max_bytes: Option<u64>,
    /// Processes that the kernel killed because memory ran out; `null` where the host cannot tell.
    pub oom_kills: Option<u64>,
}

/// Something that it depends on, as that was then.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Dependency {
    pub name: String,
    /// `requires`, `binds-to`, `wants` or `after`.
    pub relation: String,
    pub state: String,
    pub ready: bool,
}

/// Answers of a probe in a row that were the same.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Probed {
    /// `ready` or `live`.
    pub probe: String,
    /// RFC 3339, UTC; when the first and the last of them came.
    pub since: String,
    pub last: String,
    pub times: u64,
    /// Why they were failures; `null`: they were none.
    pub failure: Option<String>,
}

/// One change of its configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Change {
    /// Number of the configuration that brought it.
    pub generation: u64,
    /// RFC 3339, UTC.
    pub at: String,
    pub fields: Vec<ChangedField>,
}

/// What was to happen next.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Next {
    /// One sentence.
    pub what: String,
    /// RFC 3339, UTC; `null` where time does not decide.
    pub at: Option<String>,
}
