//! ACTS: the one actor that owns the machine and performs its effects through the keeper. It may be killed at
//! any instant: whatever it knows, the keeper holds or the machine can be restored from.

#![forbid(unsafe_code)]

mod actor;
mod dossiers;
pub mod events;
mod explain;
pub mod handle;
mod handover;
mod hooks;
mod link;
mod listen;
mod logstream;
mod measure;
mod pending;
mod plans;
mod probing;
mod publish;
mod schedules;
pub mod snapshot;
mod tape;
mod timetable;
mod usage;
pub mod views;

pub use crate::{
    logs::{Keep, Query, read},
    machine::StateKind,
};
pub use handle::{Action, Handle, Refusal};
pub use logstream::{LogFormat, LogStream, LogWish, Which};
pub use usage::Used;

use crate::{
    keeper::protocol::{Request, Up},
    logs::{Engine, Housekeeper, Report, Vault},
    machine::{Event, Fact, Machine, Outcome, Time, Wish},
    plan::{DaemonSpec, Millis, RunId},
    sys::{self, timer::Timer},
};
use actor::{Actor, Helpers, now};
use events::EventLog;
use handle::Ask;
use handover::HandOver;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1};
use std::{
    future::poll_fn,
    io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::MetadataExt,
    },
    path::Path,
    pin::Pin,
    sync::Arc,
    time::Duration,
};
use tape::Tape;
use tokio::{io::unix::AsyncFd, sync::mpsc};

/// How many calls may wait for the actor before callers wait for a place.
const ASKS: usize = 256;
/// How many messages are handled before readers get a new snapshot.
const BATCH: usize = 256;
/// How often a manager without a keeper looks whether there is another.
const LOOK: Duration = Duration::from_millis(500);
/// How long the last output may take to be drained once everything is stopped.
const DRAIN: Millis = Millis::secs(5);

/// A manager that has been handed everything and has decided nothing yet.
#[derive(Debug)]
pub struct Manager {
    socket: OwnedFd,
    handed: HandOver,
    spec: DaemonSpec,
}

impl Manager {
    /// Reads the hand-over from the keeper's socket.
    ///
    /// # Errors
    /// Of the socket, or a hand-over that this version cannot read.
    pub fn take_over(socket: OwnedFd) -> io::Result<Manager> {
        let handed = handover::receive(socket.as_fd())?;
        let Some(plan) = handed.plans.get(&handed.hello.generation) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the plan in force was not handed over"));
        };
        let spec = plan.daemon.clone();
        Ok(Manager { socket, handed, spec })
    }

    /// The daemon's settings of the plan in force.
    pub fn spec(&self) -> &DaemonSpec {
        &self.spec
    }

    /// What an earlier manager kept under names that begin so, with those names.
    pub fn kept(&mut self, beginning: &str) -> Vec<(String, OwnedFd)> {
        let all = std::mem::take(&mut self.handed.kept);
        let (wanted, rest) = all.into_iter().partition::<Vec<_>, _>(|(name, _)| name.starts_with(beginning));
        self.handed.kept = rest;
        wanted.into_iter().filter_map(|(name, fds)| Some((name, fds.into_iter().next()?))).collect()
    }

    /// What the keeper is to keep for the next manager, or not any more.
    ///
    /// # Errors
    /// Of the socket.
    pub fn keep(&self, keep: Keep<'_>) -> io::Result<()> {
        link::deposit(self.socket.try_clone()?)(keep)
    }

    /// Runs until everything is stopped or the keeper is gone; `serve` starts the API before READY is told.
    /// Must be called within a current-thread tokio runtime. Returns an exit status.
    ///
    /// # Errors
    /// What keeps it from beginning: the log writers, the socket, the API's listener.
    pub async fn run(
        self,
        housekeeper: Housekeeper,
        serve: impl FnOnce(Handle) -> io::Result<()>,
    ) -> io::Result<i32> {
        let Manager { socket, mut handed, spec } = self;
        let managers_before = handed.hello.managers_before;
        let (mut actor, inputs, handle) = prepare(socket, &mut handed, housekeeper)?;
        for warning in &actor.plans.current().warnings {
            tracing::warn!("{warning}");
        }
        if managers_before > 0 {
            let text = format!("the manager was restarted, runs taken over: {}", handed.runs.len());
            tracing::warn!("{text}");
            actor.publisher.tell(publish::event("manager", None, text));
        }
        // Callers wait in the socket until this task first waits: by then there is something to show.
        serve(handle)?;
        actor.begin(handed);
        actor.tell(Request::Notify(Up::Ready));
        tracing::info!(
            "keepd {} is ready, services: {}; look with: keepctl --socket {} status",
            env!("CARGO_PKG_VERSION"),
            actor.plans.current().services.len(),
            spec.api.socket.display()
        );
        turns(actor, inputs).await
    }
}

/// Everything but the keeper that the actor listens to.
struct Inputs {
    logs: mpsc::UnboundedReceiver<Report>,
    api: mpsc::Receiver<Ask>,
    answers: mpsc::UnboundedReceiver<Fact>,
    signals: signal_hook_tokio::Signals,
    timer: AsyncFd<Timer>,
}

fn prepare(
    socket: OwnedFd,
    handed: &mut HandOver,
    housekeeper: Housekeeper,
) -> io::Result<(Actor, Inputs, Handle)> {
    let hello = handed.hello.clone();
    let Some(plans) = plans::Plans::new(std::mem::take(&mut handed.plans), hello.generation) else {
        return Err(io::Error::other("the plan in force was not handed over"));
    };
    // Not bounded, because log writers must never wait: at most a report per run and rotation.
    let (reports, from_logs) = mpsc::unbounded_channel();
    let events = event_log(&mut handed.kept, &socket, hello.managers_before)?;
    let vault = Vault::new(std::mem::take(&mut handed.kept), link::deposit(socket.try_clone()?))?;
    let logs = Arc::new(Engine::with(vault, housekeeper, move |report: Report| drop(reports.send(report)))?);
    logs.host(&plans.current());
    let seed = (u64::from(hello.pid) << 32) ^ sys::clock::wall_ms();
    let next_run = RunId(hello.last_run.0 + 1);
    let machine = if hello.managers_before == 0 {
        Machine::new(seed, plans.current(), hello.generation, next_run)
    } else {
        Machine::restore(seed, plans.current(), hello.generation, next_run, &handed.remembered, now())
    };
    let link = link::Link::new(socket)?;
    let life = format!("{}-{}", hello.pid, hello.began_ms);
    let dossiers = dossiers::Dossiers::open(&plans.current().daemon.state_dir, life)?;
    let publisher = publish::Publisher::new(hello, events);
    let (asks, from_api) = mpsc::channel(ASKS);
    let handle = Handle::new(asks, publisher.snapshot.subscribe(), publisher.events.clone(), logs.clone())
        .with_dossiers(dossiers.shelf());
    let (prober, answers) = probing::Prober::new();
    let inputs = Inputs {
        logs: from_logs,
        api: from_api,
        answers,
        signals: signal_hook_tokio::Signals::new([SIGTERM, SIGINT, SIGHUP, SIGUSR1])?,
        timer: sys::ready::timer(Timer::new()?)?,
    };
    let helpers = Helpers { prober, dossiers, schedules: schedules::Schedules::new()? };
    Ok((Actor::new(machine, plans, link, logs, publisher, helpers), inputs, handle))
}

/// The events of earlier managers, where they are to be had; else numbers go on behind any that those may have used.
fn event_log(
    kept: &mut Vec<(String, Vec<OwnedFd>)>,
    socket: &OwnedFd,
    managers_before: u32,
) -> io::Result<EventLog> {
    let left = kept.extract_if(.., |(name, _)| name == tape::NAME).flat_map(|(_, fds)| fds).collect();
    match Tape::found(left) {
        Ok(Some((tape, events))) if !events.is_empty() => return Ok(EventLog::taped(tape, events)),
        Ok(_) => {}
        Err(e) => tracing::error!("cannot read the events of the last manager: {e}"),
    }
    if managers_before > 0 {
        return Ok(EventLog::new((u64::from(managers_before) << 40) + 1));
    }
    Ok(EventLog::taped(Tape::new(link::deposit(socket.try_clone()?))?, Vec::new()))
}

/// Turns until everything is stopped and drained.
async fn turns(mut actor: Actor, mut inputs: Inputs) -> io::Result<i32> {
    let mut armed: Option<Time> = None;
    let mut drain_until = None;
    loop {
        actor.end_turn();
        if actor.exiting.is_some() {
            let until = *drain_until.get_or_insert(now() + DRAIN);
            if actor.runs.is_empty() || until <= now() {
                return Ok(finish(actor).await);
            }
        }
        let next = actor.next_deadline().into_iter().chain(drain_until).min();
        if next != armed {
            inputs.timer.get_ref().set(next.map(|t| t.0))?;
            armed = next;
        }
        tokio::select! {
            ready = actor.link.readable() => {
                ready?;
                if let Err(e) = drain_link(&mut actor) {
                    tracing::error!(
                        "the keeper is gone ({e}); services run on, and their logs are written until the next \
                         keepd takes over"
                    );
                    outlive(&actor.plans.current().daemon.api.socket);
                    return Ok(70);
                }
            }
            ready = actor.link.writable(), if actor.link.waiting() => {
                ready?;
                actor.link.flush();
            }
            Some(report) = inputs.logs.recv() => {
                actor.report(report);
                for _ in 0..BATCH {
                    let Ok(report) = inputs.logs.try_recv() else { break };
                    actor.report(report);
                }
            }
            Some(answer) = inputs.answers.recv() => {
                let more = std::iter::from_fn(|| inputs.answers.try_recv().ok()).take(BATCH);
                actor.step_all([answer].into_iter().chain(more).map(Event::Fact));
            }
            heard = actor.listener.heard() => {
                heard?;
                actor.heard();
            }
            due = actor.schedules.due() => {
                due?;
                actor.look_at_clock();
            }
            Some(ask) = inputs.api.recv() => ask_actor(&mut actor, ask),
            fired = inputs.timer.readable() => {
                fired?.clear_ready();
                inputs.timer.get_ref().clear();
                armed = None;
                actor.on_deadline();
            }
            Some(signal) = next_signal(&mut inputs.signals) => match signal {
                SIGHUP => actor.ask_apply(),
                SIGUSR1 => drop(actor.logs.reopen()),
                _ => shutdown(&mut actor, false),
            }
        }
    }
}

/// Keeps what the keeper held too, for the next one to take, while threads go on to write logs: callers wait in the
/// socket. The next keeper ends this, or, where it knows nothing of it, listens in its place.
fn outlive(socket: &Path) {
    // Nobody decides anything here any more, so signals mean what they mean to any process.
    [SIGTERM, SIGINT, SIGHUP].into_iter().for_each(sys::signal::set_default);
    let inode = || std::fs::symlink_metadata(socket).map(|m| m.ino()).ok();
    let own = inode();
    while own.is_none() || inode().is_none_or(|now| Some(now) == own) {
        std::thread::park_timeout(LOOK);
    }
}

/// Handles what the keeper has sent, as one turn.
fn drain_link(actor: &mut Actor) -> io::Result<()> {
    for _ in 0..BATCH {
        match actor.link.receive() {
            Ok(messages) if messages.is_empty() => break,
            Ok(messages) => messages.into_iter().for_each(|m| actor.news(m)),
            Err(e) if e.kind() == io::ErrorKind::InvalidData => {
                tracing::error!("cannot read a message of the keeper: {e}; it is ignored");
            }
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

async fn next_signal(signals: &mut signal_hook_tokio::Signals) -> Option<i32> {
    use futures_core::Stream;
    poll_fn(|cx| Pin::new(&mut *signals).poll_next(cx)).await
}

fn shutdown(actor: &mut Actor, force: bool) {
    let force = force || actor.machine.shutting_down();
    let grace = actor.plans.current().daemon.shutdown_timeout.0 + DRAIN.0;
    actor.tell(Request::Notify(Up::Stopping));
    actor.tell(Request::Notify(Up::Extend(grace)));
    actor.step(Event::Wish(Wish::Shutdown { force }));
}

fn ask_actor(actor: &mut Actor, ask: Ask) {
    match ask {
        Ask::Act { names, action, wait, reply } => {
            let tickets: Vec<_> = names.into_iter().map(|n| (n, actor.pending.ticket())).collect();
            let ms = wait.map_or(0, |w| u64::try_from(w.as_millis()).unwrap_or(u64::MAX));
            let late = if wait.is_some() { "timeout" } else { "accepted" };
            let finish = Box::new(move |results| drop(reply.send(results)));
            actor.pending.add(&tickets, now() + Millis(ms), late, finish);
            let mut wishes = Vec::with_capacity(tickets.len());
            for (name, ticket) in tickets {
                let Some(service) = actor.machine.id(name.as_str()) else {
                    actor.pending.answer(ticket, Outcome::Failed(format!("{name} was removed")));
                    continue;
                };
                wishes.push(Event::Wish(match action {
                    Action::Start => Wish::Start { ticket, service },
                    Action::Stop => Wish::Stop { ticket, service },
                    Action::Restart => Wish::Restart { ticket, service },
                    Action::Reload => Wish::Reload { ticket, service },
                    Action::Signal(signal) => Wish::Signal { ticket, service, signal },
                }));
            }
            actor.step_all(wishes);
        }
        Ask::Plan { apply, wait, reply } => {
            actor.ask_plan(plans::PlanAsk { apply, wait, reply: Some(reply) });
        }
        Ask::Upgrade { reply } => {
            actor.upgrades.push(reply);
            actor.tell(Request::Upgrade);
        }
        Ask::Shutdown { force } => shutdown(actor, force),
    }
}

/// Everything is stopped and drained: the keeper may go. Returns this process' exit status.
async fn finish(mut actor: Actor) -> i32 {
    let left = actor.exiting.take().unwrap_or_default();
    let status = i32::from(!left.is_empty());
    if !left.is_empty() {
        let names: Vec<&str> = left.iter().map(crate::plan::Name::as_str).collect();
        tracing::error!("these could not be killed and are left behind: {}", names.join(", "));
    }
    actor.tell(Request::Exit { status });
    actor.end_turn();
    while actor.link.waiting() {
        if actor.link.writable().await.is_err() {
            break;
        }
        actor.link.flush();
    }
    // This process ends: giving back piece by piece what it knows of a thousand services would take 5 ms.
    std::mem::forget(actor);
    status
}
