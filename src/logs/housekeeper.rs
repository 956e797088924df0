//! The handle on what is done behind the writers' backs: bringing files to the disk, pruning, compressing.
//! Each file system has a thread of its own for that, so one that hangs holds up nothing but itself; it starts
//! with the first file that is written there. What it does is told in `upkeep`.

use super::{place::Place, rotate::Limits, upkeep::Upkeep};
use crate::{
    plan::{HostLogs, Plan, ServiceSpec},
    sys::poller::{Nudge, Poller},
};
use std::{
    collections::HashMap,
    fs::{self, File},
    io,
    os::unix::fs::MetadataExt,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{
            AtomicBool, AtomicU64,
            Ordering::{AcqRel, Relaxed},
        },
        mpsc,
    },
    thread,
};

/// A file that is written, as those see it who bring it to the disk.
#[derive(Debug)]
pub(super) struct Written {
    pub(super) file: Arc<File>,
    pub(super) place: Place,
    /// Somebody has been told that there is something to bring to the disk.
    pub(super) told: AtomicBool,
    /// Its name is on the disk too.
    pub(super) named: AtomicBool,
}

/// What writers tell the thread of their file system.
#[derive(Debug)]
pub(super) enum News {
    Written(Arc<Written>),
    /// A file got its final name, or the limits of those are others.
    Rotated(Box<(Place, Limits)>),
    Host(Box<Host>),
}

/// All logs of this host.
#[derive(Debug)]
pub(super) struct Host {
    pub(super) dir: PathBuf,
    pub(super) limits: HostLogs,
    /// The logs that have limits of their own.
    pub(super) logs: Vec<(Place, Limits)>,
    /// Logs that are not in a folder below that of the host.
    pub(super) own: Vec<Place>,
}

/// The way to the thread of one file system. Sending never waits.
#[derive(Debug)]
pub(super) struct Line {
    /// Taken when it is dropped.
    news: Option<mpsc::Sender<News>>,
    nudge: Nudge,
    /// The thread is awake, or wakes up by itself in time for files that were written.
    pub(super) roused: Arc<AtomicBool>,
}

impl Line {
    /// Bytes were written: at the latest in a second they are to be on the disk.
    pub(super) fn written(&self, file: &Arc<Written>) {
        // The second look keeps all but the first of many writes from the costly swap.
        if !file.told.load(Relaxed) && !file.told.swap(true, AcqRel) {
            self.send(News::Written(file.clone()), !self.roused.swap(true, AcqRel));
        }
    }

    pub(super) fn rotated(&self, place: Place, limits: Limits) {
        self.send(News::Rotated(Box::new((place, limits))), true);
    }

    fn send(&self, news: News, wake: bool) {
        // Without a receiver the thread has died, which has been printed.
        let _ = self.news.as_ref().map(|line| line.send(news));
        if wake {
            self.nudge.nudge();
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.news = None;
        self.nudge.nudge();
    }
}

/// See the head of this file. Clones are the same one.
#[derive(Debug, Clone, Default)]
pub struct Housekeeper(Arc<House>);

#[derive(Debug, Default)]
struct House {
    /// By device.
    lines: Mutex<HashMap<u64, Arc<Line>>>,
    reopened: AtomicU64,
}

impl Housekeeper {
    /// Every file is opened by its name again before the next write to it.
    pub(super) fn reopen(&self) {
        self.0.reopened.fetch_add(1, Relaxed);
    }

    /// How often that was asked for.
    pub(super) fn reopened(&self) -> u64 {
        self.0.reopened.load(Relaxed)
    }

    /// The line to the thread of this file system, which is started if need be.
    pub(super) fn line(&self, device: u64) -> io::Result<Arc<Line>> {
        let mut lines = self.0.lines.lock().unwrap_or_else(|p| p.into_inner());
        if let Some(line) = lines.get(&device) {
            return Ok(line.clone());
        }
        let poller = Poller::new()?;
        let (news, received) = mpsc::channel();
        let roused = Arc::new(AtomicBool::new(false));
        let line = Arc::new(Line { news: Some(news), nudge: poller.nudge(), roused: roused.clone() });
        let upkeep = Upkeep::new(poller, received, roused, device);
        thread::Builder::new().name("logs-upkeep".into()).spawn(move || upkeep.run())?;
        lines.insert(device, line.clone());
        Ok(line)
    }

    /// Keeps all logs of this plan within its limits from now on, and finishes what a killed keepd left undone.
    pub fn host(&self, plan: &Plan) {
        let both = |s: &ServiceSpec| {
            [false, true].map(|stderr| (Place::of(&s.logs.dir, stderr), Limits::from(&s.logs)))
        };
        let folder = plan.daemon.log_dir.clone();
        let host = Host {
            dir: folder.clone(),
            limits: plan.daemon.logs,
            logs: plan.services.iter().flat_map(both).collect(),
            own: plan.daemon.log_file.as_deref().and_then(Place::file).into_iter().collect(),
        };
        let all = self.clone();
        // Even a look at a sick file system may take for ever.
        let sent = thread::Builder::new().name("logs-host".into()).spawn(move || {
            let line = fs::metadata(&folder).and_then(|facts| all.line(facts.dev()));
            match line {
                Ok(line) => line.send(News::Host(Box::new(host)), true),
                Err(e) => tracing::warn!(
                    "cannot look after {}: {e}; [logs] max-total and keep-free do not hold",
                    folder.display()
                ),
            }
        });
        if let Err(e) = sent {
            tracing::warn!("cannot start a thread: {e}; [logs] max-total and keep-free do not hold");
        }
    }
}
