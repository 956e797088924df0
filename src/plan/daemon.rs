//! Settings of the daemon itself.

use super::{HostLogs, Millis};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Whose keepd this is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Started by root: services run as the users their configuration names.
    System,
    /// Started by an ordinary user or with `--user`: everything runs as that user, `user =` is refused.
    User,
}

/// `[daemon]`, `[api]` and what the command line chose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonSpec {
    /// System or user mode.
    pub mode: Mode,
    /// The chosen `profile`, if any.
    pub profile: Option<String>,
    /// Who the manager runs as: (uid, gid). `None`: `[daemon] user` does not exist here and was not written,
    /// or user mode; then the manager keeps the keeper's ids without its capabilities.
    pub manager: Option<(u32, u32)>,
    /// Absolute; holds `api.sock` and the lock.
    pub runtime_dir: PathBuf,
    /// Absolute; what must outlive a reboot.
    pub state_dir: PathBuf,
    /// Absolute; `NAME/current` and rotated files.
    pub log_dir: PathBuf,
    /// Threshold of the daemon's own log.
    pub log_level: LogLevel,
    /// The daemon's own log file (absolute); `None`: stderr.
    pub log_file: Option<PathBuf>,
    /// `[logs]`.
    pub logs: HostLogs,
    /// How many services may be starting at once; at least 1.
    pub max_concurrent_starts: u32,
    /// Host-wide ceiling on automatic restarts.
    pub restart_budget: Budget,
    /// How long an orderly stop of everything may take before the rest is killed.
    pub shutdown_timeout: Millis,
    /// The API's listeners and rights.
    pub api: ApiSpec,
}

/// Threshold of the daemon's own log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

/// At most `starts` automatic starts in any window of this length.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Budget {
    pub starts: u32,
    pub within: Millis,
}

/// `[api]`: where it listens and who may do what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiSpec {
    /// The unix socket, absolute.
    pub socket: PathBuf,
    /// Who may act. The daemon's own uid and root may always.
    pub admins: Vec<Principal>,
    /// Who may look. Admins may always.
    pub readers: Vec<Principal>,
}

/// A caller of the API, resolved to numbers by the loader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Principal {
    /// `"name"`: one user.
    Uid(u32),
    /// `"@name"`: members of a group, primary or supplementary.
    Gid(u32),
    /// `"*"`: everybody on the host.
    Everyone,
}
