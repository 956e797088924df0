//! Lines beside the file, to journald and to syslog: read back from the files on a thread of its own, for each
//! file system one, so neither a service nor a writer ever waits for a receiver, and a log that is not forwarded
//! costs nothing. Bounded is how much may wait: `lane` says how.

mod lane;
mod message;
mod outlet;

use super::{feed::Feed, read::times::Spot, register::Register};
use crate::{
    plan::{LogSpec, Receiver},
    sys::{
        clock,
        poller::{Nudge, Poller},
    },
};
use lane::{Lane, Turn, note};
use outlet::Outlet;
use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    io,
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
};

/// What is still to be sent when keepd stops may take so long, in microseconds.
const FAREWELL: u64 = 1_000_000;
/// Troubles with receivers come after those of stdout, stderr and the guard.
const WHOSE: usize = 3;
/// Ends of runs within a line that are remembered at most.
const CUTS: usize = 64;

/// Where the receivers listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receivers {
    /// journald's socket for its own protocol.
    pub journal: PathBuf,
    /// The datagram socket of syslog(3).
    pub syslog: PathBuf,
}

impl Default for Receivers {
    fn default() -> Receivers {
        Receivers { journal: "/run/systemd/journal/socket".into(), syslog: "/dev/log".into() }
    }
}

/// What the writer of a log tells whoever forwards it.
#[derive(Debug, Default)]
pub(super) struct Told {
    places: Mutex<Places>,
    written: AtomicU64,
    /// It is with the forwarder already.
    noted: AtomicBool,
    /// The service is gone.
    gone: AtomicBool,
}

#[derive(Debug, Default)]
struct Places {
    /// Of the first byte to forward.
    begin: Option<Spot>,
    /// Where a run ended within a line.
    cuts: VecDeque<Spot>,
}

impl Told {
    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(|p| p.into_inner())
    }

    /// Whether the place of the first byte is known.
    pub(super) fn begun(&self) -> bool {
        self.places().begin.is_some()
    }

    /// What comes from this place on is forwarded; `None`: nothing.
    pub(super) fn begin(&self, at: Option<Spot>) {
        *self.places() = Places { begin: at, cuts: VecDeque::new() };
    }

    /// A run has ended within a line at this place.
    pub(super) fn cut(&self, at: Spot) {
        let mut places = self.places();
        places.cuts.push_back(at);
        // Whoever is so far behind sees some lines of two runs as one, as they are in the file.
        if places.cuts.len() > CUTS {
            places.cuts.pop_front();
        }
    }

    /// So many more bytes are in the file.
    pub(super) fn moved(&self, bytes: u64) {
        self.written.fetch_add(bytes, SeqCst);
    }

    fn written(&self) -> u64 {
        self.written.load(SeqCst)
    }

    fn cut_at(&self, at: Spot) -> bool {
        self.places().cuts.contains(&at)
    }

    /// The cuts between these places of one file, each from the one before it.
    fn cuts_within(&self, from: Spot, to: Spot) -> Vec<usize> {
        let (mut last, mut found) = (from.1, Vec::new());
        for (sequence, offset) in &self.places().cuts {
            if *sequence == from.0 && last < *offset && *offset < to.1 {
                found.extend(usize::try_from(offset - last));
                last = *offset;
            }
        }
        found
    }
}

/// A forwarder as seen from outside.
#[derive(Debug)]
pub(super) struct Desk {
    nudge: Nudge,
    notes: Mutex<Vec<Arc<Feed>>>,
    /// There are notes, and it has been nudged.
    noted: AtomicBool,
    stop: AtomicBool,
}

impl Desk {
    /// There is something new of this log.
    pub(super) fn tell(&self, feed: &Arc<Feed>) {
        if feed.told.noted.swap(true, SeqCst) {
            return;
        }
        self.notes().push(feed.clone());
        if !self.noted.swap(true, SeqCst) {
            self.nudge.nudge();
        }
    }

    /// The service is gone; what is in its files is forwarded as far as that is possible now.
    pub(super) fn forget(&self, feed: &Arc<Feed>) {
        feed.told.gone.store(true, SeqCst);
        self.tell(feed);
    }

    /// Ends it, soon.
    pub(super) fn stop(&self) {
        self.stop.store(true, SeqCst);
        self.nudge.nudge();
    }

    fn notes(&self) -> MutexGuard<'_, Vec<Arc<Feed>>> {
        self.notes.lock().unwrap_or_else(|p| p.into_inner())
    }

    fn take(&self) -> Vec<Arc<Feed>> {
        self.noted.store(false, SeqCst);
        let taken = std::mem::take(&mut *self.notes());
        taken.iter().for_each(|feed| feed.told.noted.store(false, SeqCst));
        taken
    }
}

/// The poller's number of a receiver's socket.
fn token(receiver: Receiver) -> u64 {
    receiver as u64
}

/// See the head of this file.
pub(super) struct Forwarder {
    register: Arc<Register>,
    desk: Arc<Desk>,
    poller: Poller,
    outlets: [Outlet; 2],
    lanes: HashMap<u64, Vec<Lane>>,
    /// Logs of which something may have to be sent.
    busy: HashMap<u64, Arc<Feed>>,
}

impl Forwarder {
    pub(super) fn new(register: Arc<Register>, receivers: &Receivers) -> io::Result<Forwarder> {
        let poller = Poller::new()?;
        let desk = Desk {
            nudge: poller.nudge(),
            notes: Mutex::default(),
            noted: AtomicBool::new(false),
            stop: AtomicBool::new(false),
        };
        let paths = [&receivers.journal, &receivers.syslog];
        let outlets = Receiver::ALL.map(|r| Outlet::new(r, paths[r as usize].clone()));
        let (lanes, busy) = (HashMap::new(), HashMap::new());
        Ok(Forwarder { register, desk: Arc::new(desk), poller, outlets, lanes, busy })
    }

    pub(super) fn desk(&self) -> Arc<Desk> {
        self.desk.clone()
    }

    pub(super) fn run(mut self) {
        let (mut ready, mut more, mut farewell) = (Vec::new(), false, None);
        loop {
            ready.clear();
            let retry = self.outlets.iter().filter_map(Outlet::closed_until).min();
            let retry = retry.filter(|_| !self.busy.is_empty());
            if let Err(e) = self.poller.wait(if more { Some(1) } else { retry }, &mut ready) {
                return tracing::error!("cannot wait for what is to be forwarded: {e}; nothing is, any more");
            }
            let stop = self.desk.stop.load(SeqCst);
            self.busy.extend(self.desk.take().into_iter().map(|feed| (feed.token, feed)));
            let now = clock::monotonic_us();
            for outlet in &mut self.outlets {
                outlet.tick(now);
                if ready.contains(&token(outlet.receiver)) {
                    outlet.freed();
                }
            }
            more = self.round(now);
            // What is left is noted, and goes on with the next start.
            if stop && (!more || now >= *farewell.get_or_insert(now + FAREWELL)) {
                return;
            }
        }
    }

    /// A turn for each log; whether any has more to send that its receiver would take.
    fn round(&mut self, now: u64) -> bool {
        let mut more = false;
        let tokens: BTreeSet<u64> = self.busy.keys().copied().collect();
        for token in tokens {
            let Some(feed) = self.busy.get(&token).cloned() else { continue };
            let turn = self.turn(&feed, now);
            more |= turn == Turn::More;
            let gone = feed.told.gone.load(SeqCst);
            if turn == Turn::Done || gone && turn == Turn::Stuck {
                self.busy.remove(&token);
                if gone {
                    self.lanes.remove(&token);
                }
            }
        }
        more
    }

    fn turn(&mut self, feed: &Arc<Feed>, now: u64) -> Turn {
        let spec = feed.intake().spec.clone();
        let fresh = !self.lanes.contains_key(&feed.token);
        let lanes = self.lanes.entry(feed.token).or_default();
        let before = lanes.len();
        lanes.retain(|lane| lane.fits(feed, &spec) && spec.forward.contains(&lane.receiver));
        let changed = fresh || lanes.len() < before;
        let mut worst = Turn::Done;
        for outlet in &mut self.outlets {
            let whose = WHOSE + outlet.receiver as usize;
            if !spec.forward.contains(&outlet.receiver) {
                if changed {
                    // When it is forwarded again one day, what is written until then does not count.
                    let _ = feed.place(&spec).open().and_then(|folder| folder.remove(&note(outlet.receiver)));
                    self.register.trouble(feed, whose, None);
                }
                continue;
            }
            let turn = lane(lanes, feed, &spec, outlet.receiver).and_then(|lane| match lane {
                Some(lane) => lane.turn(feed, outlet, now, &self.poller.watches()),
                None => Ok(Turn::Done),
            });
            let trouble = match &turn {
                Ok(Turn::Stuck) => outlet.trouble(now),
                Ok(Turn::Done | Turn::More) => None,
                Err(e) => {
                    Some(format!("cannot read what is to be forwarded to {}: {e}", outlet.receiver.word()))
                }
            };
            self.register.trouble(feed, whose, trouble.as_deref());
            // After an error it is read again with the next output.
            worst = match (worst, turn.unwrap_or(Turn::Done)) {
                (Turn::More, _) | (_, Turn::More) => Turn::More,
                (Turn::Stuck, _) | (_, Turn::Stuck) => Turn::Stuck,
                _ => Turn::Done,
            };
        }
        worst
    }
}

/// The log's way to a receiver; `None`: nothing of it was written yet.
fn lane<'a>(
    lanes: &'a mut Vec<Lane>,
    feed: &Feed,
    spec: &LogSpec,
    receiver: Receiver,
) -> io::Result<Option<&'a mut Lane>> {
    if !lanes.iter().any(|lane| lane.receiver == receiver) {
        let Some(begin) = feed.told.places().begin else { return Ok(None) };
        lanes.push(Lane::open(feed, spec, receiver, begin)?);
    }
    Ok(lanes.iter_mut().find(|lane| lane.receiver == receiver))
}
