//! What the rest of the daemon holds of the manager: reads are answered from a snapshot and never wait for
//! the actor; wishes go through one bounded channel and come back through a oneshot.

use super::{
    LogStream, LogWish,
    dossiers::Shelf,
    events::EventLog,
    logstream::{self, Readers},
    snapshot::Snapshot,
    usage,
};
use crate::{logs::Engine, plan::Name, sys, wire};
use std::{sync::Arc, time::Duration};
use tokio::sync::{mpsc, oneshot, watch};

/// What can be done to a service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    Start,
    Stop,
    Restart,
    Reload,
    /// Send this signal to the main process.
    Signal(i32),
}

/// Why a call was not taken.
#[derive(Debug, Clone, PartialEq)]
pub enum Refusal {
    /// No service has this name.
    Unknown(String),
    /// The configuration is broken: every error.
    Configuration(Vec<wire::Diagnostic>),
    /// keepd is shutting down.
    ShuttingDown,
    /// It cannot be had now, and why.
    Unavailable(String),
}

/// One call to the actor.
#[derive(Debug)]
pub enum Ask {
    /// Do this to these instances; one result each.
    Act {
        names: Vec<Name>,
        action: Action,
        /// `None`: answer `accepted` at once.
        wait: Option<Duration>,
        reply: oneshot::Sender<Vec<wire::ActionResult>>,
    },
    /// Load the files and say what they would change, or take them over.
    Plan {
        /// Take them over.
        apply: bool,
        /// Of an apply: wait this long for the services that it touches.
        wait: Option<Duration>,
        reply: oneshot::Sender<Result<wire::PlanReport, Refusal>>,
    },
    /// Go on as the installed program. The answer is why not; there is none if it was done.
    Upgrade { reply: oneshot::Sender<String> },
    /// Stop everything and exit.
    Shutdown {
        /// Kill at once.
        force: bool,
    },
}

/// Cheap to clone; the only way from the API to the actor.
#[derive(Debug, Clone)]
pub struct Handle {
    asks: mpsc::Sender<Ask>,
    snapshot: watch::Receiver<Arc<Snapshot>>,
    events: Arc<EventLog>,
    logs: Arc<Engine>,
    readers: Readers,
    dossiers: Option<Shelf>,
}

impl Handle {
    /// Made by the manager, which keeps the other ends.
    pub fn new(
        asks: mpsc::Sender<Ask>,
        snapshot: watch::Receiver<Arc<Snapshot>>,
        events: Arc<EventLog>,
        logs: Arc<Engine>,
    ) -> Handle {
        Handle { asks, snapshot, events, logs, readers: Readers::new(), dossiers: None }
    }

    /// With the dossiers that are written.
    pub(super) fn with_dossiers(self, shelf: Shelf) -> Handle {
        Handle { dossiers: Some(shelf), ..self }
    }

    /// What is known of the unplanned ends of an instance.
    pub async fn why(&self, name: &Name) -> Result<wire::why::Why, Refusal> {
        let Some(now) = self.snapshot().find(name.as_str()).map(|view| view.at(sys::clock::boottime_ms()))
        else {
            return Err(Refusal::Unknown(name.to_string()));
        };
        let (dossiers, runs) = match &self.dossiers {
            Some(shelf) => shelf
                .read(name)
                .await
                .map_err(|e| Refusal::Unavailable(format!("the dossiers of {name} cannot be read: {e}")))?,
            None => Default::default(),
        };
        Ok(wire::why::Why {
            name: now.name,
            desired: now.desired,
            state: now.state,
            ready: now.ready,
            reason: now.reason,
            restarts: now.restarts,
            consecutive_failures: now.consecutive_failures,
            next_start_in_ms: now.next_start_in_ms,
            runs,
            dossiers,
        })
    }

    /// The newest snapshot.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.borrow().clone()
    }

    /// The events so far and to come.
    pub fn events(&self) -> &Arc<EventLog> {
        &self.events
    }

    /// Does `action` to `name`, an instance or a service with all its instances, and waits for the outcome
    /// at most `wait` (`None`: not at all).
    pub async fn act(
        &self,
        name: &str,
        action: Action,
        wait: Option<Duration>,
    ) -> Result<Vec<wire::ActionResult>, Refusal> {
        let names = self.snapshot().instances(name);
        if names.is_empty() {
            return Err(Refusal::Unknown(name.into()));
        }
        let (reply, answer) = oneshot::channel();
        self.ask(Ask::Act { names, action, wait, reply }).await?;
        answer.await.map_err(|_| Refusal::ShuttingDown)
    }

    /// What the files would change.
    pub async fn plan(&self) -> Result<wire::PlanReport, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.ask(Ask::Plan { apply: false, wait: None, reply }).await?;
        answer.await.map_err(|_| Refusal::ShuttingDown)?
    }

    /// Takes the files over, all or nothing; waits at most `wait` for the services that it touches.
    pub async fn apply(&self, wait: Option<Duration>) -> Result<wire::PlanReport, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.ask(Ask::Plan { apply: true, wait, reply }).await?;
        answer.await.map_err(|_| Refusal::ShuttingDown)?
    }

    /// Lets keepd go on as the program that is installed now; this manager ends with that. Returns why it was not
    /// done.
    pub async fn upgrade(&self) -> Result<String, Refusal> {
        let (reply, answer) = oneshot::channel();
        self.ask(Ask::Upgrade { reply }).await?;
        answer.await.map_err(|_| Refusal::ShuttingDown)
    }

    /// Begins to stop everything; the daemon exits when that is done.
    pub async fn shutdown(&self, force: bool) -> Result<(), Refusal> {
        self.ask(Ask::Shutdown { force }).await
    }

    /// Opens every log file by its name again; returns when those that were open are not written any more.
    pub async fn reopen(&self) {
        // The end of it is the answer.
        let _ = self.logs.reopen().await;
    }

    /// The instances that `name` means, with what their processes use.
    pub fn detail(&self, name: &str) -> Vec<wire::Service> {
        let snapshot = self.snapshot();
        let now_ms = sys::clock::boottime_ms();
        let full = |n: &Name| {
            let view = snapshot.find(n.as_str())?;
            let mut service = view.at(now_ms);
            if let Some(cgroup) = &view.cgroup {
                usage::fill(&mut service, cgroup);
            }
            Some(service)
        };
        snapshot.instances(name).iter().filter_map(full).collect()
    }

    /// The logs of these instances. Must be called within the runtime.
    pub fn open_logs(&self, names: &[Name], wish: &LogWish) -> Result<LogStream, Refusal> {
        let snapshot = self.snapshot();
        let mut sources = Vec::new();
        for name in names {
            let Some(view) = snapshot.find(name.as_str()) else {
                return Err(Refusal::Unknown(name.to_string()));
            };
            sources.extend(logstream::sources(view, wish.stream));
        }
        self.readers.open(sources, wish, &self.logs)
    }

    /// False once the actor has ended.
    pub fn alive(&self) -> bool {
        !self.asks.is_closed()
    }

    async fn ask(&self, ask: Ask) -> Result<(), Refusal> {
        self.asks.send(ask).await.map_err(|_| Refusal::ShuttingDown)
    }
}
