//! What writer, guard and the outside share: each stream's feed, and each writer's post box. Nothing here
//! touches a file.

use super::{
    Counters,
    forward::{Desk, Told},
    intake::{Dropper, Intake, Shed},
    place::Place,
    vault::Vault,
};
use crate::{
    plan::{LogSpec, Name},
    sys::poller::{Nudge, Watches},
};
use std::{
    collections::HashMap,
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock,
        atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering::SeqCst},
    },
};
use tokio::sync::{oneshot, watch};

/// What outsiders may see of a service's output.
#[derive(Debug, Default)]
pub(super) struct Account {
    pub(super) counters: Arc<Counters>,
    pub(super) changed: watch::Sender<u64>,
    /// Of stdout, of stderr, what the guard sees, and of each receiver that it is forwarded to.
    troubles: Mutex<[Option<String>; 5]>,
}

impl Account {
    /// Notes one's trouble, or its end; `Some`: what is to be told of the service as a whole has changed to this.
    pub(super) fn set_trouble(&self, whose: usize, trouble: Option<&str>) -> Option<Option<String>> {
        let mut all = self.troubles.lock().unwrap_or_else(|p| p.into_inner());
        if all[whose].as_deref() == trouble {
            return None;
        }
        all[whose] = trouble.map(str::to_owned);
        let told = all.iter().flatten().next().cloned();
        (told != self.counters.trouble()).then(|| {
            self.counters.set_trouble(told.clone());
            told
        })
    }
}

/// One output of one service.
#[derive(Debug)]
pub(super) struct Feed {
    pub(super) service: Name,
    /// 0: stdout, 1: stderr.
    pub(super) which: usize,
    /// Its number; never used again.
    pub(super) token: u64,
    pub(super) account: Arc<Account>,
    pub(super) told: Told,
    intake: Mutex<Intake>,
}

impl Feed {
    pub(super) fn new(service: Name, which: usize, token: u64, account: Arc<Account>, spec: LogSpec) -> Feed {
        Feed { service, which, token, account, told: Told::default(), intake: Mutex::new(Intake::new(spec)) }
    }

    /// To be held while bytes move between pipes, never while a file is touched.
    pub(super) fn intake(&self) -> MutexGuard<'_, Intake> {
        self.intake.lock().unwrap_or_else(|p| p.into_inner())
    }

    /// The folder of its files.
    pub(super) fn folder(&self) -> PathBuf {
        self.place(&self.intake().spec).path()
    }

    /// Where its files are by this specification.
    pub(super) fn place(&self, spec: &LogSpec) -> Place {
        Place::of(&spec.dir, self.which == 1)
    }

    /// Other limits, from the next write on.
    pub(super) fn update(&self, spec: &LogSpec) {
        let mut intake = self.intake();
        if intake.spec.forward != spec.forward {
            // A new receiver gets what comes from now on.
            self.told.begin(None);
        }
        if intake.spec != *spec {
            intake.spec = spec.clone();
        }
    }

    /// See [`Intake::shed`].
    pub(super) fn shed(&self, now: u64, vault: &Vault, dropper: &mut Dropper) -> io::Result<Shed> {
        let mut intake = self.intake();
        intake.record(vault, &self.service, self.which)?;
        let shed = intake.shed(now, vault, dropper);
        drop(intake);
        if let Ok(shed) = &shed {
            self.account.counters.dropped(shed.dropped.bytes, shed.dropped.lines);
        }
        shed
    }
}

/// What a writer is told.
#[derive(Debug, Clone)]
pub(super) enum Note {
    /// Something changed for this feed.
    Turn(u64),
    /// This feed has ended.
    Forget(u64),
    /// Close every file, and drop this then.
    Reopen(Arc<oneshot::Sender<()>>),
    /// Write what is in the pipes, and end.
    Stop,
}

/// A writer as seen from outside.
#[derive(Debug)]
pub(super) struct Post {
    pub(super) watches: Watches,
    nudge: Nudge,
    feeds: Mutex<HashMap<u64, Arc<Feed>>>,
    notes: Mutex<Vec<Note>>,
    /// There are notes, and the writer has been nudged.
    noted: AtomicBool,
    /// Odd while it works; rises with every step.
    progress: AtomicU64,
    /// The kernel's number of its thread.
    pub(super) thread: AtomicI32,
    pub(super) turns: AtomicU64,
    /// The forwarder for its file system, once there is something to forward.
    pub(super) desk: OnceLock<Arc<Desk>>,
}

impl Post {
    pub(super) fn new(watches: Watches, nudge: Nudge) -> Post {
        Post {
            watches,
            nudge,
            feeds: Mutex::default(),
            notes: Mutex::default(),
            noted: AtomicBool::new(false),
            progress: AtomicU64::new(0),
            thread: AtomicI32::new(0),
            turns: AtomicU64::new(0),
            desk: OnceLock::new(),
        }
    }

    fn feeds(&self) -> MutexGuard<'_, HashMap<u64, Arc<Feed>>> {
        self.feeds.lock().unwrap_or_else(|p| p.into_inner())
    }

    fn notes(&self) -> MutexGuard<'_, Vec<Note>> {
        self.notes.lock().unwrap_or_else(|p| p.into_inner())
    }

    pub(super) fn add(&self, feed: Arc<Feed>) {
        self.feeds().insert(feed.token, feed);
    }

    pub(super) fn feed(&self, token: u64) -> Option<Arc<Feed>> {
        self.feeds().get(&token).cloned()
    }

    pub(super) fn remove(&self, token: u64) -> Option<Arc<Feed>> {
        self.feeds().remove(&token)
    }

    pub(super) fn all(&self) -> Vec<Arc<Feed>> {
        self.feeds().values().cloned().collect()
    }

    /// Leaves a note, and wakes the writer unless an earlier note does.
    pub(super) fn tell(&self, note: Note) {
        self.notes().push(note);
        if !self.noted.swap(true, SeqCst) {
            self.nudge.nudge();
        }
    }

    /// Takes the notes. The nudge has been read before: a note that comes after this finds `noted` unset and
    /// nudges again. In the other order its nudge would be read with this one's, and nothing would wake for it.
    pub(super) fn take_notes(&self) -> Vec<Note> {
        if !self.noted.swap(false, SeqCst) {
            return Vec::new();
        }
        std::mem::take(&mut *self.notes())
    }

    /// The writer begins to work.
    pub(super) fn begin(&self) {
        self.progress.fetch_or(1, SeqCst);
        self.turns.fetch_add(1, SeqCst);
    }

    /// The file system has taken something, or is about to be asked.
    pub(super) fn step(&self) {
        self.progress.fetch_add(2, SeqCst);
    }

    /// The writer waits for something to do.
    pub(super) fn end(&self) {
        self.progress.fetch_add(1, SeqCst);
    }

    /// Changes whenever the writer gets on; `None`: it has nothing to do.
    pub(super) fn progress(&self) -> Option<u64> {
        Some(self.progress.load(SeqCst)).filter(|n| n % 2 == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trouble_is_told_once_and_its_end_when_none_is_left() {
        let account = Account::default();
        assert_eq!(account.set_trouble(1, Some("full")), Some(Some("full".into())));
        assert_eq!(account.set_trouble(1, Some("full")), None);
        assert_eq!(account.set_trouble(0, Some("full")), None);
        assert_eq!(account.set_trouble(0, Some("gone")), Some(Some("gone".into())));
        assert_eq!(account.set_trouble(0, None), Some(Some("full".into())));
        assert_eq!(account.set_trouble(1, None), Some(None));
        assert_eq!(account.counters.trouble(), None);
    }
}
