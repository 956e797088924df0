//! A log writer: one thread for each file system. Waits for pipes, times and notes, and gives each stream its
//! turns. One wait serves all of them; with nothing to do it does not wake up.

use super::{
    Housekeeper,
    calendar::{CALENDAR, Calendar},
    engine::Report,
    fair::share,
    feed::{Note, Post},
    intake::Dropper,
    register::Register,
    stage::Stage,
    stream::{Next, Stream, Tools, Why},
};
use crate::sys::{
    background, clock,
    poller::{Arm, Poller},
    process,
};
use std::{
    collections::{BTreeSet, HashMap},
    io,
    os::fd::AsFd,
    sync::{Arc, atomic::Ordering::SeqCst},
};

/// Until the poller is asked again to watch a pipe that it refused, in microseconds.
const REARM: u64 = 100_000;
/// Services that wake us so soon after one another are let gather for so long: it is the waking that costs.
const SOON: u64 = 20_000;
const GATHER: u64 = 10_000;

/// See the head of this file.
pub(super) struct Writer {
    register: Arc<Register>,
    post: Arc<Post>,
    poller: Poller,
    dropper: Dropper,
    stage: Option<Stage>,
    housekeeper: Housekeeper,
    calendar: Calendar,
    streams: HashMap<u64, Stream>,
    /// (when, token)
    due: BTreeSet<(u64, u64)>,
    /// Bytes for one turn.
    most: usize,
}

impl Writer {
    pub(super) fn new(
        register: Arc<Register>,
        post: Arc<Post>,
        poller: Poller,
        housekeeper: Housekeeper,
    ) -> io::Result<Writer> {
        let (dropper, calendar) = (Dropper::new(&register.vault)?, Calendar::new()?);
        let (streams, due) = (HashMap::new(), BTreeSet::new());
        Ok(Writer {
            register,
            post,
            poller,
            dropper,
            stage: None,
            housekeeper,
            calendar,
            streams,
            due,
            most: share(1),
        })
    }

    pub(super) fn run(mut self) {
        self.post.thread.store(process::thread_id(), SeqCst);
        // Neither a service that writes, for bytes are cheaper in batches, nor one that ends, whose end is waited for.
        background::interrupt_nobody();
        let (mut ready, mut woken) = (Vec::new(), 0);
        loop {
            ready.clear();
            let alarm = self.due.first().map(|(at, _)| *at);
            if let Err(e) = self.poller.wait(alarm, &mut ready) {
                tracing::error!("cannot wait for the output of services: {e}; it is not written any more");
                return;
            }
            self.post.begin();
            self.register.alarm.working();
            let before = std::mem::replace(&mut woken, clock::monotonic_us());
            self.most = share(ready.len() + self.due.range(..=(woken, u64::MAX)).count());
            let stop = self.obey();
            for &token in &ready {
                match token {
                    CALENDAR => self.tick(),
                    token => self.turn(token, Why::Ready),
                }
            }
            let due: Vec<u64> = self.due.range(..=(woken, u64::MAX)).map(|(_, token)| *token).collect();
            for token in due {
                self.turn(token, Why::Due);
            }
            self.calendar.arm(&self.poller);
            if stop {
                self.drain();
            }
            self.post.end();
            if stop {
                return;
            }
            let free = self.due.first().map_or(GATHER, |(at, _)| at.saturating_sub(clock::monotonic_us()));
            if !ready.is_empty() && woken < before + SOON && free > 0 {
                self.poller.pause(free.min(GATHER));
            }
        }
    }

    /// Reads the notes; whether to stop.
    fn obey(&mut self) -> bool {
        let mut stop = false;
        for note in self.post.take_notes() {
            match note {
                Note::Turn(token) => self.turn(token, Why::Due),
                Note::Forget(token) => self.forget(token),
                Note::Reopen(_done) => self.streams.values_mut().for_each(Stream::close),
                Note::Stop => stop = true,
            }
        }
        stop
    }

    fn forget(&mut self, token: u64) {
        if let Some(at) = self.streams.remove(&token).and_then(|s| s.due) {
            self.due.remove(&(at, token));
        }
        let Some(feed) = self.post.remove(token) else { return };
        self.post.desk.get().iter().for_each(|desk| desk.forget(&feed));
        let mut intake = feed.intake();
        let (queue, staged) = (std::mem::take(&mut intake.queue), std::mem::take(&mut intake.staged));
        let record = intake.record.take();
        drop(intake);
        for stage in staged {
            let null = self.register.vault.null();
            if stage.fill().and_then(|n| stage.discard(null, n)).is_ok() {
                self.register.vault.give_back(stage);
            }
        }
        if let Some(record) = record {
            self.register.vault.release(record);
        }
        queue.into_iter().for_each(|source| self.register.retire(source, &self.post));
    }

    /// One turn of one stream, and all that follows from it.
    fn turn(&mut self, token: u64, why: Why) {
        self.turn_moves(token, why);
    }

    /// The same; whether anything moved.
    fn turn_moves(&mut self, token: u64, why: Why) -> bool {
        if !self.streams.contains_key(&token) {
            let Some(feed) = self.post.feed(token) else { return false };
            self.streams.insert(token, Stream::new(feed, &self.housekeeper));
        }
        let Some(stream) = self.streams.get_mut(&token) else { return false };
        let mut tools = Tools {
            vault: &self.register.vault,
            dropper: &mut self.dropper,
            stage: &mut self.stage,
            step: &|| self.post.step(),
            most: self.most,
        };
        let turn = stream.turn(why, &mut tools);
        let moved = turn.bytes > 0 || !turn.retired.is_empty();
        let (feed, account) = (stream.feed.clone(), &stream.feed.account);
        if (turn.bytes > 0 || !turn.rotated.is_empty()) && account.changed.receiver_count() > 0 {
            account.changed.send_modify(|n| *n = n.wrapping_add(1));
        }
        if let Some(desk) = self.post.desk.get()
            && stream.tell(&turn)
        {
            desk.tell(&feed);
        }
        for file in turn.rotated {
            self.register.report(Report::Rotated { service: feed.service.clone(), file });
        }
        self.register.trouble(&feed, feed.which, stream.trouble());
        self.calendar.not_later_than(stream.due_ms());
        self.schedule(token, turn.next);
        turn.retired.into_iter().for_each(|source| self.register.retire(source, &self.post));
        moved
    }

    /// The time of a rotation has come, or the clock was set.
    fn tick(&mut self) {
        self.calendar.clear();
        for stream in self.streams.values_mut() {
            self.post.step();
            if let Some(file) = stream.tick() {
                stream.feed.account.changed.send_modify(|n| *n = n.wrapping_add(1));
                self.register.report(Report::Rotated { service: stream.feed.service.clone(), file });
            }
            self.calendar.not_later_than(stream.due_ms());
        }
    }

    /// What the stream waits for from now on.
    fn schedule(&mut self, token: u64, next: Next) {
        let Some(stream) = self.streams.get_mut(&token) else { return };
        let mut intake = stream.feed.intake();
        let head = intake.queue.front_mut();
        let at = match (next, head) {
            (Next::Nothing, _) | (Next::Arm | Next::Grow, None) => None,
            (Next::At(at), head) => {
                // A pipe that is watched costs its writer a fifth more per write, even while nobody waits.
                if let Some(source) = head.filter(|s| s.known) {
                    self.post.watches.remove(source.pipe.as_fd());
                    (source.known, source.growing) = (false, false);
                }
                Some(at)
            }
            (Next::Grow, Some(source)) if source.growing => None,
            (Next::Arm | Next::Grow, Some(source)) => {
                let how = if next == Next::Grow { Arm::Growth } else { Arm::Once };
                match self.post.watches.arm(source.pipe.as_fd(), token, source.known, how) {
                    Ok(()) => {
                        (source.known, source.growing) = (true, next == Next::Grow);
                        None
                    }
                    Err(_) => Some(clock::monotonic_us() + REARM),
                }
            }
        };
        drop(intake);
        if let Some(old) = stream.due.take() {
            self.due.remove(&(old, token));
        }
        stream.due = at;
        self.due.extend(at.map(|at| (at, token)));
    }

    /// Writes what is in the pipes, as far as it can be written.
    fn drain(&mut self) {
        for token in self.post.all().iter().map(|f| f.token) {
            // A pipe that is written without pause is not waited for.
            for _ in 0..8 {
                if !self.turn_moves(token, Why::Due) {
                    break;
                }
            }
        }
    }
}
