//! The handle on the log thread: what others say to it, and what it tells them.

use super::{Counters, Housekeeper, pump::Pump};
use crate::{
    plan::{LogSpec, Name, Plan, RunId},
    sys::poller::{Nudge, Poller},
};
use std::{
    collections::HashMap,
    io,
    os::fd::OwnedFd,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc,
    },
    thread::{self, JoinHandle},
};
use tokio::sync::{oneshot, watch};

/// What the log thread tells. It calls the report itself, so that must not wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// Every pipe of the run is drained and closed, after [`Engine::finish`]; exactly once per finish.
    Finished { run: RunId },
    /// The service's output cannot be written, and why; `None`: it can again.
    Trouble { service: Name, message: Option<String> },
    /// The current file is now called this.
    Rotated { service: Name, file: PathBuf },
}

pub(super) enum Command {
    Attach {
        service: Name,
        run: RunId,
        spec: LogSpec,
        stdout: Option<OwnedFd>,
        stderr: Option<OwnedFd>,
    },
    Finish {
        run: RunId,
    },
    Update {
        service: Name,
        spec: LogSpec,
    },
    Forget {
        service: Name,
    },
    /// The sender is dropped when it is done.
    Reopen(oneshot::Sender<()>),
    Stop,
}

/// What outsiders may see of a service's output.
#[derive(Debug, Default)]
pub(super) struct Account {
    pub(super) counters: Arc<Counters>,
    pub(super) changed: watch::Sender<u64>,
}

#[derive(Debug, Default)]
pub(super) struct Shared {
    accounts: Mutex<HashMap<Name, Arc<Account>>>,
    pub(super) turns: AtomicU64,
}

impl Shared {
    pub(super) fn account(&self, service: &Name) -> Arc<Account> {
        self.accounts().entry(service.clone()).or_default().clone()
    }

    pub(super) fn forget(&self, service: &Name) {
        self.accounts().remove(service);
    }

    fn accounts(&self) -> MutexGuard<'_, HashMap<Name, Arc<Account>>> {
        self.accounts.lock().unwrap_or_else(|p| p.into_inner())
    }
}

/// The log thread. Calls return at once and take effect in order.
#[derive(Debug)]
pub struct Engine {
    commands: mpsc::Sender<Command>,
    nudge: Nudge,
    shared: Arc<Shared>,
    housekeeper: Housekeeper,
    thread: Option<JoinHandle<()>>,
}

impl Engine {
    /// Starts the thread, which sleeps until it is given a pipe with something in it.
    pub fn start(report: impl Fn(Report) + Send + 'static) -> io::Result<Engine> {
        Engine::start_with(Housekeeper::default(), report)
    }

    /// The same with a housekeeper that others use too.
    pub fn start_with(
        housekeeper: Housekeeper,
        report: impl Fn(Report) + Send + 'static,
    ) -> io::Result<Engine> {
        let poller = Poller::new()?;
        let nudge = poller.nudge();
        let shared = Arc::new(Shared::default());
        let (commands, received) = mpsc::channel();
        let pump = Pump::new(poller, received, shared.clone(), Box::new(report), housekeeper.clone())?;
        let thread = thread::Builder::new().name("logs".into()).spawn(move || pump.run())?;
        Ok(Engine { commands, nudge, shared, housekeeper, thread: Some(thread) })
    }

    /// Takes over the read ends of a run's pipes, which are non-blocking. They are read when every earlier
    /// run of the service is finished or at its end, so that the output keeps its order.
    pub fn attach(
        &self,
        service: &Name,
        run: RunId,
        spec: &LogSpec,
        stdout: Option<OwnedFd>,
        stderr: Option<OwnedFd>,
    ) {
        let (service, spec) = (service.clone(), spec.clone());
        self.send(Command::Attach { service, run, spec, stdout, stderr });
    }

    /// Every writer of the run is gone, or does not matter any more: what is in its pipes now is the rest.
    pub fn finish(&self, run: RunId) {
        self.send(Command::Finish { run });
    }

    /// Other limits, from the next write on. Files beyond them go with the next rotation.
    pub fn update(&self, service: &Name, spec: &LogSpec) {
        self.send(Command::Update { service: service.clone(), spec: spec.clone() });
    }

    /// The service is gone for good, and all its runs are finished. Its files stay.
    pub fn forget(&self, service: &Name) {
        self.send(Command::Forget { service: service.clone() });
    }

    /// Closes every file; what is written next goes to the file that bears the name then.
    /// The receiver ends when no service's file that was open is written any more.
    pub fn reopen(&self) -> oneshot::Receiver<()> {
        // That is for files that others write, such as the daemon's own log.
        self.housekeeper.reopen();
        let (done, ended) = oneshot::channel();
        self.send(Command::Reopen(done));
        ended
    }

    /// The plan in force: its limits for all logs together hold from now on, also for those that nobody writes.
    pub fn host(&self, plan: &Plan) {
        self.housekeeper.host(plan);
    }

    /// The service's totals; they stay the same object until it is forgotten.
    pub fn counters(&self, service: &Name) -> Arc<Counters> {
        self.shared.account(service).counters.clone()
    }

    /// Rises after bytes were written or a file was rotated.
    pub fn changed(&self, service: &Name) -> watch::Receiver<u64> {
        self.shared.account(service).changed.subscribe()
    }

    /// How often the thread has woken up; stands still while nothing is written.
    pub fn turns(&self) -> u64 {
        self.shared.turns.load(Relaxed)
    }

    /// Writes what is in the pipes now and ends the thread. What comes later stays in the pipes.
    pub fn stop(mut self) {
        self.send(Command::Stop);
        if let Some(thread) = self.thread.take() {
            // It only fails if the thread panicked, which has been printed.
            let _ = thread.join();
        }
    }

    fn send(&self, command: Command) {
        // Without a receiver the thread is gone, and with it all that could be said to it.
        let _ = self.commands.send(command);
        self.nudge.nudge();
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.send(Command::Stop);
    }
}
