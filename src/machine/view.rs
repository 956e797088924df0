//! What others are shown of a service. The reason is one sentence and holds no time that changes.

use super::{
    Desired, LastExit, Machine, ServiceId, StateKind, Time,
    ending::is_final,
    probe::Seen,
    service::{Because, Hold, Live, Phase, Service, State},
    words,
};
use crate::plan::{Name, Oneshot, Restart, RunId, ServiceSpec, signal::signal_name};
use std::{collections::VecDeque, sync::Arc};

/// One service as it is now.
#[derive(Debug, Clone)]
pub struct View<'a> {
    pub name: &'a Name,
    /// Of the plan in force; of the old plan for a service that is being removed.
    pub spec: &'a Arc<ServiceSpec>,
    pub desired: Desired,
    pub state: StateKind,
    /// Running, and ready for those that depend on it.
    pub ready: bool,
    /// One sentence; never empty when `desired` and `state` disagree.
    pub reason: String,
    /// The run of which something is or may be alive.
    pub run: Option<RunId>,
    /// Its main process, while that is alive.
    pub pid: Option<u32>,
    /// When its command was exec'ed.
    pub started: Option<Time>,
    /// When the next automatic start is due, where time alone decides.
    pub next_start: Option<Time>,
    /// Automatic restarts since it was last started by hand or by configuration.
    pub restarts: u32,
    /// Failures in a row.
    pub consecutive_failures: u32,
    pub last_exit: Option<LastExit>,
    /// When the present run was first ready.
    pub first_ready: Option<Time>,
    /// How the run is, in its own words.
    pub status: Option<&'a str>,
    /// How it answers, by [`Which`](crate::plan::Which); `None` where it is not asked, or has not answered yet.
    pub probes: [Option<Probed<'a>>; 2],
}

/// How a run answers one of its probes.
#[derive(Debug, Clone, Copy)]
pub struct Probed<'a> {
    /// Failures in a row.
    pub failures: u32,
    /// The last answers, the oldest first; never empty.
    pub seen: &'a VecDeque<Seen>,
}

impl Machine {
    /// One service as it is now.
    pub fn view(&self, id: ServiceId) -> View<'_> {
        let svc = self.at(id);
        let live = svc.rec.state.live();
        View {
            name: &svc.name,
            spec: &svc.spec,
            desired: if svc.wanted() { Desired::Up } else { Desired::Down },
            state: svc.rec.state.kind(),
            ready: svc.ready(),
            reason: self.reason(id),
            run: live.map(|l| l.run),
            pid: live.filter(|l| !l.dead).and_then(|l| l.pid),
            started: live.filter(|l| !l.dead).and_then(|l| l.started),
            next_start: self.next_start(svc),
            restarts: svc.rec.restarts,
            consecutive_failures: svc.rec.failures,
            last_exit: svc.rec.last_exit,
            first_ready: live.and_then(|l| l.first_ready),
            status: live.and_then(|l| l.status.as_deref()),
            probes: [0, 1].map(|n| svc.probing[n].probed()),
        }
    }

    fn next_start(&self, svc: &Service) -> Option<Time> {
        match &svc.rec.state {
            State::Backoff { until } => Some(*until),
            State::Failed { retry_at } => *retry_at,
            State::Waiting { .. } if svc.hold == Hold::Budget => self.budget_deadline(),
            State::Stopped
            | State::Waiting { .. }
            | State::Starting { .. }
            | State::Running { .. }
            | State::Stopping { .. }
            | State::Exited
            | State::Stuck { .. } => None,
        }
    }

    /// Why it is not simply running or simply not wanted.
    pub(super) fn reason(&self, id: ServiceId) -> String {
        let svc = self.at(id);
        match &svc.rec.state {
            State::Stopped => self.because(svc),
            State::Waiting { .. } => self.hold_sentence(svc),
            State::Starting { .. } if svc.face.held => "to be stopped once its dependents are".into(),
            State::Starting { .. } => "its command is being launched".into(),
            State::Running { .. } if svc.face.held => "to be stopped once its dependents are".into(),
            State::Running { live, .. } => self
                .unready(svc, live)
                .or_else(|| live.refused.clone())
                .or_else(|| svc.gauge.told())
                .unwrap_or_default(),
            State::Stopping { live, phase, .. } => {
                format!("{}; {}", self.because(svc), stage(live, *phase))
            }
            State::Backoff { .. } => self.because(svc),
            State::Exited => self.exited_sentence(svc),
            State::Failed { .. } if svc.rec.breaker.open => {
                format!("{}; last: {}", words::crash_loop(&svc.spec.breaker), self.because(svc))
            }
            State::Failed { .. } => self.because(svc),
            State::Stuck { live, .. } => {
                format!(
                    "processes of run {} are still alive after SIGKILL; it starts no more until they end",
                    live.run
                )
            }
        }
    }

    fn because(&self, svc: &Service) -> String {
        let row = || words::in_a_row(svc.rec.failures);
        match &svc.rec.because {
            Because::New => "not started yet".into(),
            Because::Operator => "stopped by an operator".into(),
            Because::Shutdown => "stopped because keepd is shutting down".into(),
            Because::Removed => "removed from the configuration".into(),
            Because::Restart => "restarted by an operator".into(),
            Because::Watched(excess) => format!("restarted because it used {excess}"),
            Because::Replaced => "replaced, since its configuration changed".into(),
            Because::Dependency(name) => format!("stopped along with {name}, which it needs"),
            Because::Exit => match svc.rec.last_exit {
                Some(last) => format!("{}{}", words::ended(last.exit), row()),
                None => "it ended".into(),
            },
            Because::Launch(why) | Because::Unfit(why) => format!("{why}{}", row()),
        }
    }

    fn exited_sentence(&self, svc: &Service) -> String {
        let because = self.because(svc);
        match (svc.rec.last_exit, svc.spec.restart) {
            (Some(last), _) if is_final(&svc.spec, last.exit) => {
                format!("{because}, which no-restart-exit lists")
            }
            (_, Restart::Never) => format!("{because}, and is never restarted automatically"),
            (_, Restart::Always | Restart::OnFailure) => because,
        }
    }

    fn hold_sentence(&self, svc: &Service) -> String {
        match &svc.hold {
            Hold::Other { name, leaving: true, state: StateKind::Running } => {
                format!("waiting for {name}, which is about to be stopped")
            }
            Hold::Other { name, state, .. } => format!("waiting for {name}, which {}", words::which(*state)),
            Hold::Slot => "waiting for a start slot".into(),
            Hold::Budget => {
                let budget = self.plan.daemon.restart_budget;
                format!(
                    "held back: the host's restart budget of {} starts in {} is used up",
                    budget.starts, budget.within
                )
            }
            Hold::None => "waiting to be started".into(),
            Hold::Schedule => match &svc.spec.oneshot {
                Some(Oneshot { schedule: Some(schedule), .. }) => format!("it runs at `{schedule}`"),
                Some(_) | None => "waiting for its time".into(),
            },
        }
    }

    /// "web is running, pid 4711", "web is in backoff: exited with status 1"
    pub(super) fn state_sentence(&self, id: ServiceId) -> String {
        let (svc, reason) = (self.at(id), self.reason(id));
        let name = &svc.name;
        match &svc.rec.state {
            State::Running { live, .. } if reason.is_empty() => match live.pid {
                Some(pid) => format!("{name} is running, pid {pid}"),
                None => format!("{name} is running"),
            },
            State::Running { .. } => format!("{name} is running: {reason}"),
            State::Waiting { .. } if svc.hold == Hold::Schedule => format!("{name} is waiting: {reason}"),
            State::Waiting { .. } => format!("{name} is {reason}"),
            State::Stopped => format!("{name} is stopped: {reason}"),
            State::Starting { .. } => format!("{name} is starting"),
            State::Stopping { .. } => format!("{name} is stopping: {reason}"),
            State::Backoff { .. } => format!("{name} is in backoff: {reason}"),
            State::Exited => format!("{name} {reason}"),
            State::Failed { .. } => format!("{name} has failed: {reason}"),
            State::Stuck { .. } => format!("{name} is stuck: {reason}"),
        }
    }
}

fn stage(live: &Live, phase: Phase) -> String {
    let signal = signal_name(live.stop.signal);
    match phase {
        Phase::Launching => "as soon as its launch is through".into(),
        Phase::Command => "its stop command is running".into(),
        Phase::Main => format!("{signal} was sent"),
        Phase::Leftovers => format!("{signal} was sent to processes that it left behind"),
        Phase::Killed { .. } => "SIGKILL was sent to all its processes".into(),
    }
}
