//! The thread of one file system that looks after its logs: files that were written are on the disk within a
//! second, rotated ones within their limits, and compressed when nobody else wants the processor. What is to
//! be done is decided by `history` and `budget` from what lies there, anew each time: nothing is remembered
//! that a kill could lose. With nothing written and nothing rotated it sleeps.

use super::{
    budget::{self, Space},
    gzip,
    history::{History, Step},
    housekeeper::{Host, News, Written},
    place::Place,
    rotate::Limits,
};
use crate::sys::{
    background, clock,
    folder::{Folder, sync_file_system},
    poller::Poller,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc,
    },
    thread,
};

/// Files that were written are brought to the disk so often, in microseconds; and a moment after the first
/// one, so that others that are written along with it are brought along.
const SYNC_EVERY: u64 = 1_000_000;
const SYNC_DELAY: u64 = 50_000;
/// From so many files on, the whole file system is brought to the disk at once.
const MANY: usize = 64;
/// After a look at many files the next one waits for this many times as long as it took.
const REST: u64 = 9;
/// A shorter look needs no rest, in microseconds.
const SHORT: u64 = 2_000;
/// At most so often it is counted what all logs take.
const HOST_EVERY: u64 = 1_000_000;

/// See the head of this file.
pub(super) struct Upkeep {
    poller: Poller,
    news: mpsc::Receiver<News>,
    roused: Arc<AtomicBool>,
    device: u64,
    written: Vec<Arc<Written>>,
    sync_at: Option<u64>,
    synced_at: u64,
    limits: BTreeMap<Place, Limits>,
    /// Where to look, and when at the earliest.
    due: BTreeMap<Place, u64>,
    /// Where there is something to compress.
    plain: BTreeSet<Place>,
    busy: Option<(Place, BTreeSet<String>)>,
    done: (mpsc::Sender<io::Result<()>>, mpsc::Receiver<io::Result<()>>),
    host: Option<Box<Host>>,
    host_due: Option<u64>,
    /// Nobody is to look there before that time.
    rest: BTreeMap<Place, u64>,
    host_rest: u64,
    /// What was said last about what cannot be done, and where.
    trouble: BTreeMap<(Option<Place>, &'static str), String>,
}

impl Upkeep {
    pub(super) fn new(
        poller: Poller,
        news: mpsc::Receiver<News>,
        roused: Arc<AtomicBool>,
        device: u64,
    ) -> Upkeep {
        Upkeep {
            poller,
            news,
            roused,
            device,
            written: Vec::new(),
            sync_at: None,
            synced_at: 0,
            limits: BTreeMap::new(),
            due: BTreeMap::new(),
            plain: BTreeSet::new(),
            busy: None,
            done: mpsc::channel(),
            host: None,
            host_due: None,
            rest: BTreeMap::new(),
            host_rest: 0,
            trouble: BTreeMap::new(),
        }
    }

    pub(super) fn run(mut self) {
        let mut ready = Vec::new();
        loop {
            let due = self.due.values().copied().min();
            let alarm = [self.sync_at, due, self.host_due].into_iter().flatten().min();
            if let Err(e) = self.poller.wait(alarm, &mut ready) {
                tracing::error!("cannot wait: {e}; rotated logs are not pruned and compressed any more");
                return;
            }
            let now = clock::monotonic_us();
            let sync = self.sync_at.is_none_or(|at| now >= at);
            if sync {
                // Before the look into the line: who writes after it rouses us again.
                self.roused.store(false, SeqCst);
            }
            let goes_on = self.receive(now);
            if sync && self.sync_at.is_some_and(|at| now >= at) || !goes_on {
                self.sync();
            }
            if !goes_on {
                return;
            }
            if self.sync_at.is_some() {
                // We wake up by ourselves in time.
                self.roused.store(true, SeqCst);
            }
            self.look(now);
            self.compress();
        }
    }

    /// False: nobody writes here any more.
    fn receive(&mut self, now: u64) -> bool {
        if let Ok(outcome) = self.done.1.try_recv()
            && let Some((place, _)) = self.busy.take()
        {
            if outcome.is_ok() {
                self.touch(place.clone(), now);
            }
            self.judge(Some(place), "compress the rotated files", outcome);
        }
        loop {
            match self.news.try_recv() {
                Ok(News::Written(file)) => {
                    self.written.push(file);
                    self.sync_at.get_or_insert((self.synced_at + SYNC_EVERY).max(now + SYNC_DELAY));
                }
                Ok(News::Rotated(rotated)) => {
                    let (place, limits) = *rotated;
                    self.touch(place.clone(), now);
                    self.limits.insert(place, limits);
                    if self.host.is_some() {
                        self.host_due.get_or_insert(now.max(self.host_rest));
                    }
                }
                Ok(News::Host(host)) => {
                    for (place, limits) in &host.logs {
                        self.touch(place.clone(), now);
                        self.limits.insert(place.clone(), *limits);
                    }
                    self.host = Some(host);
                    self.host_due = Some(now);
                }
                Err(mpsc::TryRecvError::Empty) => return true,
                Err(mpsc::TryRecvError::Disconnected) => return false,
            }
        }
    }

    fn touch(&mut self, place: Place, now: u64) {
        let at = self.rest.remove(&place).map_or(now, |rest| rest.max(now));
        self.due.entry(place).or_insert(at);
    }

    fn sync(&mut self) {
        let files = std::mem::take(&mut self.written);
        for file in &files {
            // Before its bytes are looked at: later ones are told anew.
            file.told.store(false, SeqCst);
        }
        let outcome = match files.as_slice() {
            [first, ..] if files.len() > MANY => sync_file_system(&first.file),
            files => files.iter().map(|f| sync(f)).fold(Ok(()), Result::and),
        };
        self.judge(None, "bring logs to the disk", outcome);
        self.sync_at = None;
        self.synced_at = clock::monotonic_us();
    }

    /// Looks where it is time to: prunes, and finds out what there is to compress.
    fn look(&mut self, now: u64) {
        let due: Vec<Place> = self.due.iter().filter(|(_, at)| **at <= now).map(|(p, _)| p.clone()).collect();
        for place in due {
            self.due.remove(&place);
            let begin = clock::monotonic_us();
            let outcome = self.prune(&place);
            self.judge(Some(place.clone()), "prune the rotated files", outcome);
            let end = clock::monotonic_us();
            if end - begin > SHORT {
                self.rest.insert(place, end + (end - begin) * REST);
            }
        }
        if self.host_due.is_some_and(|at| at <= now) {
            self.host_due = None;
            let begin = clock::monotonic_us();
            let outcome = self.budget();
            self.judge(None, "keep to [logs] max-total and keep-free", outcome);
            let end = clock::monotonic_us();
            self.host_rest = end + ((end - begin) * REST).max(HOST_EVERY);
        }
    }

    fn prune(&mut self, place: &Place) -> io::Result<()> {
        self.plain.remove(place);
        let (folder, mut history) = self.history(place)?;
        take(&folder, history.tidy())?;
        let Some(limits) = self.limits.get(place).copied() else { return Ok(()) };
        let excess = history.excess(limits, clock::wall_ms());
        take(&folder, history.drop_oldest(excess))?;
        if limits.compress && !history.uncompressed().is_empty() {
            self.plain.insert(place.clone());
        }
        Ok(())
    }

    /// Starts to compress what is next, if nothing is being compressed.
    fn compress(&mut self) {
        while self.busy.is_none()
            && let Some(place) = self.plain.pop_first()
        {
            let names = self.history(&place).map(|(_, history)| history.uncompressed()).unwrap_or_default();
            if names.is_empty() {
                continue;
            }
            let (done, nudge, job) = (self.done.0.clone(), self.poller.nudge(), (place, names));
            self.busy = Some(job.clone());
            let started = thread::Builder::new().name("logs-gzip".into()).spawn(move || {
                background::lower_priority();
                let _ = done.send(gzip::compress(&job.0, &job.1));
                nudge.nudge();
            });
            if let Err(e) = started {
                let place = self.busy.take().map(|(place, _)| place);
                self.judge(place, "compress the rotated files", Err(e));
            }
        }
    }

    /// Makes room for all where the logs of this host take too much.
    fn budget(&mut self) -> io::Result<()> {
        let Some(host) = &self.host else { return Ok(()) };
        let (limits, top) = (host.limits, Folder::open_trusted(&host.dir)?);
        let mut places = host.own.clone();
        for name in top.names()? {
            if top.facts(&name).is_ok_and(|f| f.folder && f.id.0 == self.device) && !name.starts_with('.') {
                let dir = host.dir.join(name);
                places.extend([false, true].map(|stderr| Place::of(&dir, stderr)));
            }
        }
        let (mut found, mut used) = (Vec::new(), 0);
        for place in places {
            // A folder that was swapped, or has no separate stderr, has no logs.
            if let Ok((folder, history)) = self.history(&place) {
                used += history.bytes() + folder.facts(&place.live).map_or(0, |f| f.size);
                found.push((folder, history));
            }
        }
        let (total, free) = top.space()?;
        let excess = budget::excess(limits, Space { total, free }, used);
        let sizes: Vec<Vec<u64>> =
            found.iter().map(|(_, h)| h.rotated().iter().map(|r| r.file.size).collect()).collect();
        let mut removed = 0;
        for (count, (folder, history)) in
            budget::victims(&sizes, excess).into_iter().zip(&mut found).filter(|(count, _)| *count > 0)
        {
            let steps = history.drop_oldest(count);
            removed += steps.len();
            take(folder, steps)?;
        }
        if removed > 0 {
            tracing::info!("removed {removed} rotated log files to keep to [logs] max-total and keep-free");
        }
        Ok(())
    }

    fn history(&self, place: &Place) -> io::Result<(Folder, History)> {
        let folder = place.open()?;
        let history = place.history(&folder, self.busy(place))?;
        Ok((folder, history))
    }

    /// The names in this place that are being compressed.
    fn busy(&self, place: &Place) -> &BTreeSet<String> {
        static NONE: BTreeSet<String> = BTreeSet::new();
        self.busy.as_ref().filter(|(busy, _)| busy == place).map_or(&NONE, |(_, names)| names)
    }

    /// Says once what went wrong, until it goes right again. A folder that is gone has nothing to look after.
    fn judge(&mut self, place: Option<Place>, what: &'static str, outcome: io::Result<()>) {
        let key = (place, what);
        match outcome {
            Err(e) if key.0.is_none() || e.kind() != io::ErrorKind::NotFound => {
                let text = e.to_string();
                if self.trouble.get(&key) != Some(&text) {
                    let at = key.0.as_ref().map_or(String::new(), |p| format!(" in {}", p.path().display()));
                    tracing::warn!("cannot {what}{at}: {text}; it is tried again");
                    self.trouble.insert(key, text);
                }
            }
            _ => drop(self.trouble.remove(&key)),
        }
    }
}

fn sync(file: &Written) -> io::Result<()> {
    file.file.sync_data()?;
    if !file.named.swap(true, SeqCst) {
        // A folder that is gone needs no names.
        if let Ok(folder) = file.place.open() {
            folder.sync()?;
        }
    }
    Ok(())
}

fn take(folder: &Folder, steps: Vec<Step>) -> io::Result<()> {
    for step in steps {
        let (taken, fine) = match step {
            Step::Remove(name) => (folder.remove(&name), io::ErrorKind::NotFound),
            Step::Mark(name) => (folder.create_file(&name).map(drop), io::ErrorKind::AlreadyExists),
        };
        taken.or_else(|e| if e.kind() == fine { Ok(()) } else { Err(e) })?;
    }
    Ok(())
}
