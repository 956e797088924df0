//! What the machine hears and what it wants done. Facts and wishes are different types.

use crate::plan::{Exit, Generation, Job, Millis, Name, Plan, Probe, RunId, Told, Verdict, Which};
use serde::{Deserialize, Serialize};
use std::{ops, sync::Arc};

/// An instant: milliseconds of CLOCK_BOOTTIME, so that deadlines survive a restart of the manager.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Time(pub u64);

impl ops::Add<Millis> for Time {
    type Output = Time;
    fn add(self, by: Millis) -> Time {
        Time(self.0.saturating_add(by.0))
    }
}

impl Time {
    /// How long ago `earlier` was; zero if it lies ahead.
    pub fn since(self, earlier: Time) -> Millis {
        Millis(self.0.saturating_sub(earlier.0))
    }
}

/// A service instance within the machine: an index that stays the same as long as the service exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceId(pub u32);

/// A command that is waiting for its answer. Given out by the manager, unique within its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Ticket(pub u64);

/// Everything that can reach the machine.
#[derive(Debug, Clone)]
pub enum Event {
    /// Something happened.
    Fact(Fact),
    /// Somebody wants something.
    Wish(Wish),
    /// Nothing but time has passed: a deadline may be due.
    Tick,
}

/// What the keeper saw. A fact about a run that the machine no longer knows changes nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fact {
    /// The run's command has been exec'ed. `at` is when.
    Started { run: RunId, pid: u32, at: Time },
    /// The run never came to be; nothing of it is left. `why` is a whole sentence
    /// ("cannot change directory to /srv/web: No such file or directory"); `transient` means that the host
    /// was short of something (EAGAIN, ENOMEM, EMFILE), which is no fault of the service.
    LaunchFailed { run: RunId, why: String, transient: bool },
    /// The main process ended. `leftovers`: other processes of the run are alive. `at` is when it ended.
    Exited { run: RunId, exit: Exit, leftovers: bool, at: Time },
    /// No process of the run is alive any more; comes after `Exited { leftovers: true }`, once.
    Emptied { run: RunId },
    /// A stop or reload command of the run ended; `why` is empty on success and a sentence otherwise.
    JobEnded { run: RunId, job: Job, why: String },
    /// What a run uses, as it was asked for by `Effect::Measure`.
    Measured { run: RunId, reading: Reading },
    /// The run is held to other resources; `why` is empty on success and a sentence otherwise.
    Adjusted { run: RunId, why: String },
    /// What the run has told of itself.
    Told { run: RunId, told: Told },
    /// What has come of the probe of this number, as it was asked for by `Effect::Probe`.
    Probed { run: RunId, which: Which, number: u64, verdict: Verdict },
}

/// What a run uses; what could not be found out is `None`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading {
    /// When it was taken.
    pub at: Time,
    /// Bytes that all of it uses now.
    pub memory: Option<u64>,
    /// Microseconds of CPU that all of it has used so far.
    pub cpu_us: Option<u64>,
}

/// What an operator, a client or the daemon's own start wants.
#[derive(Debug, Clone)]
pub enum Wish {
    /// Bring it up, with what it requires and wants; forgets earlier failures. Answered when it is ready,
    /// or with the first failure.
    Start { ticket: Ticket, service: ServiceId },
    /// Bring it down and keep it down; dependents go first (and wait for its return). Answered when
    /// nothing of it is left, or it is stuck.
    Stop { ticket: Ticket, service: ServiceId },
    /// Stop, then start. Answered as a start.
    Restart { ticket: Ticket, service: ServiceId },
    /// Let it re-read its configuration.
    Reload { ticket: Ticket, service: ServiceId },
    /// Send a signal to its main process.
    Signal { ticket: Ticket, service: ServiceId, signal: i32 },
    /// Change nothing; answered when the service has settled: up and ready, failed, or down.
    Await { ticket: Ticket, service: ServiceId },
    /// The time of a scheduled service has come (`run`), or its times are counted from here on; in milliseconds
    /// since 1970. One that runs, or is about to, is left alone: never two at once.
    Due { service: ServiceId, at_ms: u64, run: bool },
    /// Nobody waits for this answer any more.
    Forget { ticket: Ticket },
    /// Take over a new plan: what differs is started, stopped, restarted or updated in place.
    Apply { plan: Arc<Plan>, generation: Generation },
    /// Stop everything in order, then `Effect::Exit`. Again, or with `force`: kill what is left.
    Shutdown { force: bool },
}

/// What the machine wants done. The shell performs them in order and decides nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Launch a new run of the service from this plan.
    Launch { service: ServiceId, run: RunId, generation: Generation },
    /// Run the stop or reload command of a live run.
    RunJob { run: RunId, job: Job },
    /// Signal the main process.
    Signal { run: RunId, signal: i32 },
    /// Signal every process of the run.
    SignalTree { run: RunId, signal: i32 },
    /// SIGKILL every process of the run, again and again until none is left.
    KillTree { run: RunId },
    /// Find out what a live run uses; `memory`: that too, it may take longer. Answered by `Fact::Measured`.
    Measure { run: RunId, memory: bool },
    /// Answer with `Fact::Measured`, once, as soon as the run's events of memory.high tell that it may use more memory
    /// than `above` bytes.
    Listen { run: RunId, above: u64 },
    /// Hold a live run to the resources that its service has in this plan.
    Adjust { service: ServiceId, run: RunId, generation: Generation },
    /// Ask whether a live run is ready, or alive; `generation` is the plan that says so. Answered by `Fact::Probed`.
    Probe {
        service: ServiceId,
        run: RunId,
        generation: Generation,
        which: Which,
        number: u64,
        probe: Arc<Probe>,
    },
    /// The run is over and accounted for: drain its output, then the keeper may forget it.
    Release { run: RunId },
    /// The answer to a wish; exactly one per ticket that was not forgotten.
    Reply { ticket: Ticket, outcome: Outcome },
    /// Something worth telling.
    Emit(Notice),
    /// Nothing is left of a run that ended unplanned (or never began): why, and what happens next.
    Explain { service: ServiceId, incident: Box<super::Incident> },
    /// A service of the old plan is gone for good.
    Removed { service: ServiceId, name: Name },
    /// Everything is stopped (or named in the list): the daemon may exit.
    Exit { left_behind: Vec<Name> },
}

/// How a wish ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// As wished; the sentence says what is now so ("web is running, pid 4711").
    Done(String),
    /// It did not get there, and why.
    Failed(String),
    /// It makes no sense in this state ("web is not running").
    Conflict(String),
    /// keepd is shutting down.
    ShuttingDown,
}

/// Something that happened to a service, for events, logs and hooks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Notice {
    /// Which service; `None`: the daemon as a whole.
    pub service: Option<Name>,
    /// What kind of thing.
    pub kind: NoticeKind,
    /// One sentence for people.
    pub message: String,
    /// The run it is about.
    pub run: Option<RunId>,
    /// The end of that run, where it is one.
    pub exit: Option<Exit>,
}

/// The kinds of notices; `snake_case` of these are the names in the events API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum NoticeKind {
    /// The state changed (the message says to what and why).
    State,
    /// A run ended.
    Exit,
    /// Memory ran out, and the kernel killed a run for it; comes after its `Exit`.
    Oom,
    /// A service used more than its watch allows.
    Watch,
    /// A run could not be launched, or was not ready in time.
    LaunchFailed,
    /// A run is ready, or is not any more.
    Ready,
    /// A run is not alive, as its service's `live` table says.
    Unhealthy,
    /// The breaker opened: a crash loop.
    Failed,
    /// The breaker closed again.
    Recovered,
    /// Processes that SIGKILL does not end.
    Stuck,
    /// A new plan was taken over.
    Applied,
    /// Orderly stop of everything began.
    Shutdown,
}
