//! One service instance, with every `${…}` expanded, every name resolved and every default filled in.

use super::{
    Live, Millis, Name, Provision, Ready, Resources, Rotate, Sandbox, Schedule, Scheduling, Syscalls, Watch,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, path::PathBuf};

/// One instance of a service: how it is launched, when, and what follows its end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// `web`, or `web@1` where `instances` is more than 1.
    pub name: Name,
    /// Index of the instance, `None` where there is only one.
    pub instance: Option<u32>,
    /// One line for people.
    pub description: String,
    /// What its end means to others; `None`: it is a daemon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oneshot: Option<Oneshot>,
    /// Start it when keepd starts, or when it is added by an apply.
    pub autostart: bool,
    /// Start only once these are ready; stop before them. Pulled in.
    pub requires: Vec<Name>,
    /// Pulled in and ordered; their failure is not ours.
    pub wants: Vec<Name>,
    /// Order only.
    pub after: Vec<Name>,
    /// As `requires`, and stopped and restarted along with them.
    pub binds_to: Vec<Name>,
    /// When an unplanned end is followed by a restart.
    pub restart: Restart,
    /// Ends that count as success.
    pub success_exit: Vec<ExitMatch>,
    /// Ends after which it is never restarted.
    pub no_restart_exit: Vec<ExitMatch>,
    /// Delay before an automatic restart.
    pub backoff: Backoff,
    /// When a crash loop stops being retried at that pace.
    pub breaker: Breaker,
    /// How it is stopped.
    pub stop: StopSpec,
    /// How it re-reads its own configuration.
    pub reload: Reload,
    /// What the keeper's child does to become this service.
    pub launch: LaunchSpec,
    /// What its control group holds it to; changes hold for a live run too.
    #[serde(default)]
    pub resources: Resources,
    /// When what it uses is too much.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watch: Option<Watch>,
    /// When a run is ready; `None`: as soon as its command is exec'ed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready: Option<Ready>,
    /// How it is seen to be alive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub live: Option<Live>,
    /// What becomes of its output.
    pub logs: LogSpec,
}

/// `type = "oneshot"`: it is ready once it has succeeded, and then nothing of it is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Oneshot {
    /// How long a run may take; then it is stopped, and has failed. `None`: for ever.
    pub timeout: Option<Millis>,
    /// When it runs; `None`: when it is started.
    pub schedule: Option<Schedule>,
}

/// `restart = …`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    Always,
    OnFailure,
    Never,
}

/// One way for a process to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExitMatch {
    /// Exit status 0-255.
    Code(i32),
    /// Killed by this signal.
    Signal(i32),
}

/// Exponential backoff: `delay * factor^(n-1)`, capped, spread by `±jitter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backoff {
    /// Before the first restart.
    pub delay: Millis,
    /// Growth in thousandths: 2000 doubles. At least 1000.
    pub factor_permille: u32,
    /// Ceiling of the delay, before jitter.
    pub max: Millis,
    /// Spread in thousandths of the delay, 0-1000.
    pub jitter_permille: u32,
    /// A run this long forgets earlier failures; nothing else automatic does.
    pub reset_after: Millis,
}

impl Backoff {
    /// The delay before the `attempt`-th restart in a row (the first is 1), without jitter:
    /// `delay * factor^(attempt-1)`, at most `max`.
    pub fn base(&self, attempt: u32) -> Millis {
        let (mut d, max, factor) = (self.delay.0, self.max.0, self.factor_permille.max(1000));
        if factor == 1000 || d == 0 {
            return Millis(d.min(max));
        }
        for _ in 1..attempt {
            if d >= max {
                break;
            }
            // At least one more, so that a tiny delay with a tiny factor still grows.
            let grown = u128::from(d) * u128::from(factor) / 1000;
            d = u64::try_from(grown).unwrap_or(u64::MAX).max(d + 1);
        }
        Millis(d.min(max))
    }
}

/// Opens after `failures` within `within`: state `failed`, one retry every `retry_every`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Breaker {
    /// At least 1.
    pub failures: u32,
    /// Length of the sliding window.
    pub within: Millis,
    /// `None`: `"never"`, wait for an operator.
    pub retry_every: Option<Millis>,
}

/// How a run is ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopSpec {
    /// Sent to the main process, and to what it leaves behind.
    pub signal: i32,
    /// Then SIGKILL to everything of the run.
    pub timeout: Millis,
    /// Run first, as the service's user, within the same time limit; empty: none.
    pub command: Vec<String>,
}

/// How a service re-reads its configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reload {
    /// A signal to the main process.
    Signal(i32),
    /// A command in the service's identity; its exit status is the answer.
    Command(Vec<String>),
}

/// All that the keeper's child needs between fork and exec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaunchSpec {
    /// Program and arguments; the program is absolute or is searched in the PATH that the service gets.
    pub argv: Vec<String>,
    /// Working directory, absolute.
    pub directory: PathBuf,
    /// Whom to become; `None` in user mode: stay as we are.
    pub identity: Option<Identity>,
    /// File mode creation mask.
    pub umask: u32,
    /// The environment but for what is added at launch (INVOCATION_ID, env files).
    /// PATH, HOME, USER, LOGNAME, SHELL are already in it.
    pub env: BTreeMap<String, String>,
    /// Read in order at each start, later ones win over earlier ones and over `env`.
    pub env_files: Vec<EnvFile>,
    /// Resource limits to set; others are inherited.
    pub limits: Vec<Limit>,
    /// Set no_new_privs before exec.
    pub no_new_privileges: bool,
    /// What it may do and see.
    pub sandbox: Sandbox,
    /// Its share of the scheduler.
    pub scheduling: Scheduling,
    /// What is made ready for it, and what is checked.
    #[serde(default, skip_serializing_if = "Provision::is_nothing")]
    pub provision: Provision,
    /// What it can tell us through.
    #[serde(default, skip_serializing_if = "Tells::is_nothing")]
    pub tells: Tells,
    /// Where stdout goes.
    pub stdout: Stdout,
    /// Where stderr goes.
    pub stderr: Stderr,
}

impl LaunchSpec {
    /// Whether it may make no system call that `syscalls = "default"` forbids, nor gain privileges by exec: what
    /// whoever launches it can hold itself to before it is born.
    pub fn is_restricted(&self) -> bool {
        self.no_new_privileges && self.sandbox.syscalls != Syscalls::Off
    }
}

/// The ways in which a service can tell how it is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tells {
    /// NOTIFY_SOCKET
    pub notify: bool,
    /// WATCHDOG_USEC, here in milliseconds; only with `notify`.
    pub watchdog: Option<Millis>,
    /// The descriptor to which it writes a newline once it is ready.
    pub fd: Option<i32>,
}

impl Tells {
    /// None at all.
    pub fn is_nothing(&self) -> bool {
        *self == Tells::default()
    }
}

/// A user as resolved at load.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    pub user: String,
    pub uid: u32,
    pub gid: u32,
    /// Supplementary groups, sorted; always contains `gid`.
    pub groups: Vec<u32>,
}

/// A file of `NAME=value` lines.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnvFile {
    pub path: PathBuf,
    /// Written with a leading `-`: may be missing.
    pub optional: bool,
}

/// One resource limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limit {
    /// The key as configured, such as `open-files`.
    pub name: String,
    /// The kernel's number, `RLIMIT_NOFILE` and so on.
    pub resource: u32,
    pub soft: LimitValue,
    pub hard: LimitValue,
}

/// A limit's value in the unit of its resource; `None` is unlimited.
pub type LimitValue = Option<u64>;

/// `logs.stdout`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stdout {
    Capture,
    Discard,
}

/// `logs.stderr`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stderr {
    /// The same place as stdout.
    Merge,
    /// A log of its own, in `NAME/stderr/`.
    Separate,
    /// /dev/null.
    Discard,
}

/// `logs.on-full`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum OnFull {
    /// The oldest lines that wait are dropped and counted.
    #[default]
    Drop,
    /// The service waits.
    Block,
}

/// `logs.format`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// The bytes as they came.
    #[default]
    Raw,
    /// The time and a space before each line.
    Timestamp,
    /// An object for each line.
    Json,
}

/// Whom lines are forwarded to: a word of `logs.forward`
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Receiver {
    /// systemd-journald, by its own protocol.
    Journal,
    /// Whoever listens at `/dev/log`.
    Syslog,
}

impl Receiver {
    /// All there are.
    pub const ALL: [Receiver; 2] = [Receiver::Journal, Receiver::Syslog];

    /// As it stands in the configuration.
    pub fn word(self) -> &'static str {
        match self {
            Receiver::Journal => "journal",
            Receiver::Syslog => "syslog",
        }
    }
}

/// How captured output is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSpec {
    /// The folder that holds `current`, absolute.
    pub dir: PathBuf,
    /// Rotate at the first line end at or past this many bytes; at least 1.
    pub max_size: u64,
    /// Rotate at these times too.
    pub rotate: Rotate,
    /// How many rotated files are kept.
    pub keep: u32,
    /// How long rotated files are kept after the last write to them. `None`: no such limit.
    pub keep_for: Option<Millis>,
    /// Bytes of all files of the service together; the oldest rotated ones go first. `None`: no such limit.
    pub max_total: Option<u64>,
    /// What happens to output that cannot be written.
    pub on_full: OnFull,
    /// What a line looks like in the file.
    pub format: LogFormat,
    /// Bytes after which a line is split, where it is not kept as it came; at least 1.
    pub max_line: u64,
    /// Rotated files are compressed with gzip.
    pub compress: bool,
    /// Where lines go beside the file.
    pub forward: Vec<Receiver>,
}
