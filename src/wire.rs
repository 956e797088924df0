//! The types of the HTTP API, shared by `api` and `ctl`. JSON, snake_case. Fields are only ever added.

#![forbid(unsafe_code)]

mod brief;
pub mod event;
pub mod exec;
pub mod why;

pub use brief::{Brief, BriefLog, Briefs};
pub use event::{Event, Folded};

use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// `GET /v1/status`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Status {
    pub version: String,
    /// Of the keeper.
    pub pid: u32,
    pub manager_pid: u32,
    /// `starting`, `running`, `reloading` or `stopping`.
    pub state: String,
    pub uptime_ms: u64,
    pub profile: Option<String>,
    /// Number of the plan in force.
    pub generation: u64,
    /// keepd's runtime folder.
    pub runtime_dir: String,
    /// How often the manager has been restarted.
    pub manager_restarts: u32,
    /// How often keepd was upgraded in place.
    #[serde(default)]
    pub upgrades: u32,
    /// Number of services by state.
    pub counts: std::collections::BTreeMap<String, u32>,
    /// One sentence per guarantee this host cannot give.
    pub degraded: Vec<String>,
}

/// One service instance, as in `GET /v1/services`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Service {
    /// `web` or `web@0`.
    pub name: String,
    /// `web`.
    pub service: String,
    /// `null` where there is one only.
    pub instance: Option<u32>,
    pub description: String,
    /// `up` or `down`.
    pub desired: String,
    /// stopped waiting starting running stopping backoff exited failed stuck
    pub state: String,
    pub ready: bool,
    /// One sentence; never empty when desired and state disagree.
    pub reason: String,
    pub pid: Option<u32>,
    pub run_id: Option<u64>,
    /// RFC 3339, UTC.
    pub started_at: Option<String>,
    pub uptime_ms: Option<u64>,
    /// Automatic restarts since it was last started by hand or by configuration.
    pub restarts: u32,
    pub consecutive_failures: u32,
    pub next_start_in_ms: Option<u64>,
    pub last_exit: Option<LastExit>,
    /// Of all its processes; `null` where the host cannot tell, and in lists.
    pub memory_bytes: Option<u64>,
    /// As `memory_bytes`.
    pub cpu_usage_usec: Option<u64>,
    /// As `memory_bytes`.
    pub tasks: Option<u64>,
    /// The most memory that this run has used; absent where the host cannot tell, and in lists.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub memory_peak_bytes: Option<u64>,
    /// Processes of this run that the kernel killed because memory ran out; as `memory_peak_bytes`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub oom_kills: Option<u64>,
    /// What it has been waiting for lately; as `memory_peak_bytes`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pressure: Option<Pressure>,
    /// What it is held to; absent where that is nothing.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub resources: Option<Resources>,
    /// How it is, in its own words (STATUS= of sd_notify).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub status_text: Option<String>,
    #[serde(default)]
    pub probes: Probes,
    pub log: Log,
    pub identity: Identity,
    /// Names it requires (`requires` and `binds-to`), wants and comes after.
    pub requires: Vec<String>,
    pub wants: Vec<String>,
    pub after: Vec<String>,
}

/// The two probes of a service; `null` where it has none.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Probes {
    pub ready: Option<Probe>,
    pub live: Option<Probe>,
}

/// What is asked, and what has come of it in the present run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    /// `notify`, `fd`, `http`, `tcp`, `unix`, `exec` or `log`.
    pub kind: String,
    /// Whether the last answer was a success; `null` where there is none.
    pub passing: Option<bool>,
    pub failures: u32,
    /// Why the last answer was a failure.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub message: Option<String>,
}

/// Percent of the last ten seconds in which some process of it waited for this.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Pressure {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cpu: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub memory: Option<f32>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub io: Option<f32>,
}

/// What a service is held to, as configured; what is not limited is absent.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Resources {
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub memory_max_bytes: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub memory_high_bytes: Option<u64>,
    /// Of one CPU.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cpu_max_percent: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cpu_weight: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub pids_max: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub io_weight: Option<u32>,
}

/// How the last run ended.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LastExit {
    /// Exit status, if it exited.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub code: Option<i32>,
    /// Name of the signal, if one killed it.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub signal: Option<String>,
    /// It dumped core.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub core: bool,
    /// The kernel could not be asked.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub unknown: bool,
    /// The kernel killed it because memory ran out.
    pub oom: bool,
    /// RFC 3339, UTC.
    pub at: String,
    pub run_id: u64,
    pub ran_ms: u64,
}

/// Accounting of a service's output since this manager began.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Log {
    pub bytes_in: u64,
    pub bytes_written: u64,
    pub bytes_dropped: u64,
    pub lines_dropped: u64,
    /// Lines that were given to journald or syslog, and those that were left out; each receiver counts.
    #[serde(default)]
    pub forwarded: u64,
    #[serde(default)]
    pub forward_dropped: u64,
    /// Path of the current file; `null` where output is discarded.
    pub file: Option<String>,
    /// Path of stderr's own current file, where that is kept apart.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub stderr_file: Option<String>,
    /// What keeps it from being written, if anything does.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub trouble: Option<String>,
}

/// Whom the service runs as.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Identity {
    pub user: Option<String>,
    pub uid: u32,
    pub gid: u32,
    pub groups: Vec<u32>,
    /// Names; none where it has whatever keepd itself has.
    pub capabilities: Option<Vec<String>>,
    pub no_new_privileges: bool,
    /// `default`, `service` or `off`: which system calls it is held to.
    pub seccomp: String,
}

/// `GET /v1/services`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Services {
    pub services: Vec<Service>,
}

/// Answer to `POST /v1/services/{name}/start` and its kin; one result per instance.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Results {
    pub results: Vec<ActionResult>,
}

/// What became of one instance.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ActionResult {
    pub name: String,
    /// `done`, `failed`, `conflict`, `accepted` (not waited for) or `timeout`.
    pub outcome: String,
    /// One sentence.
    pub message: String,
}

/// Answer to `POST /v1/shutdown`, `GET /healthz` and `GET /readyz`.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Condition {
    /// `stopping`, `alive` or `ready`.
    pub state: String,
}

/// Body of `POST /v1/services/{name}/signal`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignalBody {
    /// `SIGUSR1`, `USR1` or `10`.
    pub signal: String,
}

/// One line of a log, as `GET /v1/logs` gives it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogLine {
    /// RFC 3339, UTC; to the second where the line carries no time of its own.
    pub time: String,
    /// `web`
    pub service: String,
    /// `null` where there is one only.
    pub instance: Option<u32>,
    /// `stdout` (stderr too, where that is not kept apart), `stderr`; `keepd` where keepd says what is missing.
    pub stream: Cow<'static, str>,
    pub message: Message,
    /// It had no end: a piece of a longer line, or the last of the log.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub partial: bool,
}

impl LogLine {
    /// A line of a service's log, or where `note` is set of keepd about it.
    pub fn new(
        service: &str,
        instance: Option<u32>,
        stderr: bool,
        note: bool,
        time_ms: u64,
        message: Vec<u8>,
    ) -> LogLine {
        let stream = match (note, stderr) {
            (true, _) => "keepd",
            (false, true) => "stderr",
            (false, false) => "stdout",
        };
        LogLine {
            time: timestamp(time_ms),
            service: service.into(),
            instance,
            stream: Cow::Borrowed(stream),
            message: message.into(),
            partial: false,
        }
    }

    /// See [`LogLine::partial`].
    #[must_use]
    pub fn partial(self, partial: bool) -> LogLine {
        LogLine { partial, ..self }
    }
}

/// What a service has printed: text, or the numbers of its bytes where it is no UTF-8.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Message {
    Text(String),
    Bytes(Vec<u8>),
}

impl From<Vec<u8>> for Message {
    fn from(bytes: Vec<u8>) -> Message {
        String::from_utf8(bytes).map_or_else(|e| Message::Bytes(e.into_bytes()), Message::Text)
    }
}

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        match self {
            Message::Text(text) => text.as_bytes(),
            Message::Bytes(bytes) => bytes,
        }
    }
}

/// Milliseconds since 1970 as RFC 3339, UTC.
pub fn timestamp(wall_ms: u64) -> String {
    let ms = i64::try_from(wall_ms).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(ms).map(|t| format!("{t:.3}")).unwrap_or_default()
}

/// `GET /v1/plan` and `POST /v1/apply`: what the files would change, or what was changed.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PlanReport {
    pub added: Vec<String>,
    pub removed: Vec<String>,
    pub changed: Vec<ChangedService>,
    /// Differences of `[daemon]` and `[api]`. Start slots, restart budget and shutdown timeout hold at once, the
    /// rest when keepd or its manager is next started.
    pub daemon: Vec<ChangedField>,
    pub warnings: Vec<String>,
    /// Of an apply: what became of the services that it touched.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub results: Vec<ActionResult>,
}

#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ChangedService {
    pub name: String,
    /// Its processes are replaced; otherwise it only takes the new values over.
    pub restarts: bool,
    pub fields: Vec<ChangedField>,
}

/// One field; `null` values are absent or secret.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct ChangedField {
    pub path: String,
    pub old: Option<String>,
    pub new: Option<String>,
}

/// An error, RFC 9457 (`application/problem+json`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Problem {
    /// `about:blank`
    #[serde(rename = "type")]
    pub kind: String,
    /// The status' name.
    pub title: String,
    pub status: u16,
    /// One sentence: what, why, and what to do.
    pub detail: String,
    /// Of a refused configuration: every error.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub diagnostics: Vec<Diagnostic>,
    /// Of an action that conflicts with the present state: what became of each instance.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub results: Vec<ActionResult>,
}

/// One error of a configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Diagnostic {
    pub message: String,
    /// As it was found, absolute or relative to the main file's folder.
    pub file: String,
    /// From 1; 0 where the error belongs to the file as a whole.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
    /// As a terminal shows it, with the source line, without colours.
    pub rendered: String,
}

/// What the loader hands over instead of a plan.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LoadReport {
    pub diagnostics: Vec<Diagnostic>,
}
