//! The messages between keeper and manager: packets of a SOCK_SEQPACKET socket, each a JSON array of messages.
//!
//! What the manager's machine wants done for a service and the state that it leads to are never split over two
//! packets, so that the keeper (and so the next manager) has either seen both or neither. File descriptors
//! travel as SCM_RIGHTS, in the order of the messages that [`News::descriptors`] counts them for.

use crate::plan::{Exit, Generation, Job, Name, RunId, Told, Verdict, Which, hook::Subject};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// Longest packet either side sends.
pub const PACKET_MAX: usize = 128 * 1024;
/// The descriptor on which `keepd manage` finds its socket.
pub const MANAGER_FD: i32 = 3;
/// The descriptor on which `keepd load` finds the memfd for its result.
pub const LOADER_FD: i32 = 3;

/// Manager to keeper: done in order.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Turn(pub Vec<Request>);

/// One thing the keeper is asked to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Launch entry `entry` of plan `generation` as run `run`; answered by `Started` or `LaunchFailed`.
    Launch {
        run: RunId,
        service: Name,
        generation: Generation,
        entry: u32,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        call: Option<Box<Call>>,
    },
    /// Run the stop or reload command beside a live run; answered by `JobEnded`.
    RunJob { run: RunId, job: Job },
    /// Signal the main process, through its pidfd. To a stopped one SIGTERM is followed by SIGCONT.
    Signal { run: RunId, signal: i32 },
    /// Signal every process of the run.
    SignalTree { run: RunId, signal: i32 },
    /// SIGKILL every process of the run until none is left; answered by `Emptied` if the main process had
    /// already ended, else by `Exited`.
    KillTree { run: RunId },
    /// The exit is recorded and the output is drained: close the pipes, remove the cgroup, forget the run.
    Release { run: RunId },
    /// Keep this for the next manager; replaces what was kept for the service.
    Remember { service: Name, state: Kept },
    /// Nothing is to be kept for this service any more.
    Forget { service: Name },
    /// Keep this many descriptors but one for the next manager; replaces what was kept under the name. The last is a
    /// pipe that a byte is written to once they are kept, by the next keeper too.
    Keep { name: String, descriptors: u32 },
    /// Close what is kept under this name.
    Drop { name: String },
    /// Run the loader; answered by `Loaded`.
    Load,
    /// This plan is no longer launched from.
    DropPlan { generation: Generation },
    /// From now on this is the plan that a new manager is told to run.
    AdoptPlan { generation: Generation },
    /// Tell systemd.
    Notify(Up),
    /// Hold a live run to the resources that entry `entry` of plan `generation` has; answered by `Adjusted`.
    Adjust { run: RunId, generation: Generation, entry: u32 },
    /// Find out what a live run uses; answered by `Measured`.
    Measure { run: RunId },
    /// Run the command that entry `entry` of plan `generation` has for this probe, as the run; answered by `Probed`,
    /// after so long at the latest.
    Probe { run: RunId, generation: Generation, entry: u32, which: Which, number: u64, timeout_ms: u64 },
    /// Go on as the installed program; answered by `UpgradeRefused`, or by the end of this manager.
    Upgrade,
    /// Answer to `Ping`.
    Pong,
    /// Everything is stopped: exit with this status.
    Exit { status: i32 },
}

/// What the command of a hook is called with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Call {
    /// What it reads.
    pub stdin: String,
    /// What its arguments may name.
    pub subject: Subject,
}

impl Request {
    /// How many of the packet's descriptors belong to this request.
    pub fn descriptors(&self) -> usize {
        match self {
            Request::Keep { descriptors, .. } => *descriptors as usize,
            _ => 0,
        }
    }
}

/// JSON that is passed on as it is, neither looked into nor escaped.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Kept(Box<RawValue>);

impl Kept {
    /// The error: `json` is not JSON.
    pub fn new(json: String) -> Result<Kept, serde_json::Error> {
        RawValue::from_string(json).map(Kept)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        self.0.get()
    }
}

impl PartialEq for Kept {
    fn eq(&self, other: &Kept) -> bool {
        self.as_str() == other.as_str()
    }
}

impl Eq for Kept {}

/// What the manager wants systemd (and a waiting `--daemonize` parent) to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Up {
    /// Configuration loaded, API answering, autostart begun. Also ends `Reloading`.
    Ready,
    /// An apply has begun.
    Reloading,
    /// One sentence.
    Status(String),
    /// The orderly stop has begun.
    Stopping,
    /// It takes longer: so many ms more.
    Extend(u64),
}

/// Keeper to manager.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum News {
    /// First message to every manager.
    Hello(Hello),
    /// A plan that is held; one descriptor: the sealed memfd. One message per plan, after `Hello`.
    Plan { generation: Generation },
    /// A kept state; after `Hello`.
    Remembered { service: Name, state: Kept },
    /// What an earlier manager asked to keep, with its descriptors; after `Hello`.
    Kept { name: String, descriptors: u32 },
    /// A run that is held; descriptors: its stdout pipe and stderr pipe as `pipes` says.
    /// After `Hello`, before the facts about the run.
    Run { run: RunId, service: Name, generation: Generation, entry: u32, pipes: Pipes },
    /// The hand-over is complete.
    HelloEnd,
    /// The command was exec'ed. Descriptors as `pipes` says (absent when `Run` brought them already).
    Started { run: RunId, pid: u32, pipes: Pipes, at_ms: u64 },
    /// It was not, and nothing of it is left.
    LaunchFailed { run: RunId, why: String, transient: bool },
    /// The main process ended.
    Exited { run: RunId, exit: Exit, leftovers: bool, at_ms: u64, usage: Usage },
    /// No process of the run is left.
    Emptied { run: RunId },
    /// A stop or reload command ended; `why` is empty on success.
    JobEnded { run: RunId, job: Job, why: String },
    /// What the run uses: bytes, and microseconds of CPU; `None` for what could not be found out.
    Measured { run: RunId, at_ms: u64, memory: Option<u64>, cpu_us: Option<u64> },
    /// The run is held to other resources; `why` is empty, or says what could not be done.
    Adjusted { run: RunId, why: String },
    /// What the run has told of itself; to a new manager the sum of it.
    Told { run: RunId, told: Told },
    /// What came of a probe's command.
    Probed { run: RunId, which: Which, number: u64, verdict: Verdict },
    /// The loader's answer. `generation`: one descriptor, the sealed plan; `None`: one descriptor, its report.
    Loaded { generation: Option<Generation> },
    /// A signal (or the end of the keeper's patience) asks for an orderly stop; `force`: at once.
    Shutdown { force: bool },
    /// SIGHUP: apply.
    Apply,
    /// SIGUSR1: reopen log files.
    Reopen,
    /// Answer with `Pong`.
    Ping,
    /// There was no upgrade, and why.
    UpgradeRefused { why: String },
    /// Something the keeper has to say to people: for the log.
    Note { level: NoteLevel, text: String },
}

impl News {
    /// How many of the packet's descriptors belong to this message.
    pub fn descriptors(&self) -> usize {
        match self {
            News::Plan { .. } | News::Loaded { .. } => 1,
            News::Run { pipes, .. } | News::Started { pipes, .. } => {
                usize::from(pipes.stdout) + usize::from(pipes.stderr)
            }
            News::Kept { descriptors, .. } => *descriptors as usize,
            News::Hello(_)
            | News::Remembered { .. }
            | News::HelloEnd
            | News::LaunchFailed { .. }
            | News::Exited { .. }
            | News::Emptied { .. }
            | News::JobEnded { .. }
            | News::Adjusted { .. }
            | News::Measured { .. }
            | News::Told { .. }
            | News::Probed { .. }
            | News::Shutdown { .. }
            | News::Apply
            | News::Reopen
            | News::Ping
            | News::UpgradeRefused { .. }
            | News::Note { .. } => 0,
        }
    }
}

/// Who the manager is and what it starts from.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// `CARGO_PKG_VERSION` of the keeper.
    pub version: String,
    /// Pid of the keeper.
    pub pid: u32,
    /// When the keeper began, in ms of CLOCK_BOOTTIME.
    pub began_ms: u64,
    /// The plan to run.
    pub generation: Generation,
    /// The highest run number ever used.
    pub last_run: RunId,
    /// How often a manager has been started before this one.
    pub managers_before: u32,
    /// How often keepd was upgraded in place.
    #[serde(default)]
    pub upgrades: u32,
    /// An orderly stop was asked for already.
    pub shutdown: Option<bool>,
    /// Somebody listens to [`Up::Status`].
    pub status_wanted: bool,
    /// How runs are held, and where: the cgroup folder, or `None` for process groups.
    pub cgroup: Option<String>,
    /// One sentence per guarantee this host cannot give.
    pub degraded: Vec<String>,
}

/// Which pipes come with a message.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pipes {
    pub stdout: bool,
    pub stderr: bool,
}

/// What the main process used, and the most that all of the run did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    pub user_us: u64,
    pub system_us: u64,
    pub max_rss_kib: u64,
    /// Of the run's cgroup: `None` where it cannot tell.
    #[serde(default)]
    pub peak_bytes: Option<u64>,
    /// As `peak_bytes`: processes that the kernel killed because memory ran out.
    #[serde(default)]
    pub oom_kills: Option<u64>,
}

/// Severity of a [`News::Note`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoteLevel {
    Error,
    Warn,
    Info,
}
