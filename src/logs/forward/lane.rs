//! One log on its way to one receiver: read back from its files, so the files are the queue. What was sent is
//! noted beside them, so that the next process goes on there.

use super::{
    Told,
    message::{Message, Sender, encode, lost, original, split},
    outlet::{Outlet, Sent},
};
use crate::{
    logs::{
        Counters,
        feed::Feed,
        format::CONTINUES,
        marks::{self, Mark},
        place::Place,
        read::{
            self, Reader,
            lines::{Line, Lines, Step},
            times::{Spot, Times},
        },
    },
    plan::{LogFormat, LogSpec, Receiver},
    sys::{clock, poller::Watches},
};
use jiff::tz::TimeZone;
use std::{
    collections::VecDeque,
    fs::File,
    io,
    os::unix::fs::{FileExt, MetadataExt},
};

/// Bytes that wait for a receiver at most; then the oldest are left out until half of them wait.
pub(super) const WAITING: u64 = 16 << 20;
/// Lines and bytes of one turn.
const LINES: u32 = 256;
const BYTES: u64 = 256 << 10;
/// What is left out costs less.
const SKIP: u64 = 4 << 20;
/// Bytes that are read at once.
const BLOCK: usize = 64 << 10;

/// What became of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// All that is there is sent.
    Done,
    More,
    /// The receiver takes nothing now.
    Stuck,
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Lane {
    pub(super) receiver: Receiver,
    place: Place,
    format: LogFormat,
    which: usize,
    lines: Lines,
    /// What was read last and is not sent yet: its messages, the place behind it, and how many lines begin in it
    /// with how many bytes.
    parts: VecDeque<Message>,
    behind: Spot,
    count: (u64, u64),
    /// It ends within a line, of the service and of the file.
    within: (bool, bool),
    /// Up to here all is done.
    reached: Spot,
    noted: File,
    /// Bytes that were written and are not yet done with, about; and how many were ever written.
    waiting: u64,
    seen: u64,
    skipping: bool,
    /// Left out, and not yet told the receiver.
    untold: (u64, u64),
}

/// The name of the note.
pub(super) fn note(receiver: Receiver) -> String {
    format!(".forwarded-{}", receiver.word())
}

impl Lane {
    /// Goes on where an earlier one ended; the first begins where its first output is.
    pub(super) fn open(feed: &Feed, spec: &LogSpec, receiver: Receiver, begin: Spot) -> io::Result<Lane> {
        let place = feed.place(spec);
        let folder = place.create()?;
        let noted = match folder.create_file(&note(receiver)) {
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => folder.open_file(&note(receiver))?,
            other => other?,
        };
        let mut raw = [0; marks::SIZE];
        let read = noted.read_at(&mut raw, 0)?;
        let last = marks::decode(&raw[..read]).next().map(Mark::place);
        // What is not before the beginning is of files that are gone.
        let from = last.filter(|at| *at <= begin).unwrap_or(begin);
        let source = match feed.which {
            0 => read::Place::stdout(&spec.dir),
            _ => read::Place::stderr(&spec.dir),
        };
        let mut behind = begin.1.saturating_sub(if from.0 == begin.0 { from.1 } else { 0 });
        for file in read::files::list(&folder, from.0.saturating_sub(1))?.iter().filter(|_| from.0 < begin.0)
        {
            behind += file.size(&folder);
        }
        let longest = usize::try_from(spec.max_line).unwrap_or(BLOCK);
        let longest = match spec.format {
            LogFormat::Raw => BLOCK,
            LogFormat::Timestamp => longest + 32 + CONTINUES.len(),
            // Each byte may have become an escape of six.
            LogFormat::Json => longest * 6 + 128,
        };
        let reader = Reader::to(source.clone(), from.0, from.1)?;
        Ok(Lane {
            receiver,
            place,
            format: spec.format,
            which: feed.which,
            lines: Lines::new(reader, Times::new(source), BLOCK).longest(longest),
            parts: VecDeque::new(),
            behind: from,
            count: (0, 0),
            within: (false, false),
            reached: from,
            noted,
            waiting: behind,
            seen: feed.told.written(),
            skipping: false,
            untold: (0, 0),
        })
    }

    /// Whether it reads the log that this specification describes.
    pub(super) fn fits(&self, feed: &Feed, spec: &LogSpec) -> bool {
        self.format == spec.format && self.place == feed.place(spec)
    }

    /// Sends what is there, as far as a turn allows and the receiver takes it.
    pub(super) fn turn(
        &mut self,
        feed: &Feed,
        outlet: &mut Outlet,
        now: u64,
        watches: &Watches,
    ) -> io::Result<Turn> {
        let written = feed.told.written();
        self.waiting += written - std::mem::replace(&mut self.seen, written);
        let before = self.reached;
        let outcome = self.work(feed, outlet, now, watches);
        if self.reached != before {
            // If it cannot be noted, some lines come twice after a restart.
            let _ = self.note();
        }
        outcome
    }

    fn work(&mut self, feed: &Feed, outlet: &mut Outlet, now: u64, watches: &Watches) -> io::Result<Turn> {
        let counters: &Counters = &feed.account.counters;
        let (mut lines, mut bytes) = (0, 0);
        loop {
            self.skipping = self.waiting > if self.skipping { WAITING / 2 } else { WAITING };
            if self.parts.is_empty() && !self.read(&feed.told)? {
                self.waiting = 0;
                return Ok(Turn::Done);
            }
            if self.skipping {
                self.parts.clear();
                self.untold = (self.untold.0 + self.count.0, self.untold.1 + self.count.1);
                counters.not_forwarded(self.count.0);
            } else if self.send(feed, outlet, now, watches) {
                counters.forwarded(self.count.0);
                lines += 1;
            } else {
                return Ok(Turn::Stuck);
            }
            self.reached = self.behind;
            self.waiting = self.waiting.saturating_sub(self.count.1);
            bytes += self.count.1;
            if lines >= LINES || bytes >= if self.skipping { SKIP } else { BYTES } {
                return Ok(Turn::More);
            }
        }
    }

    /// Sends what was read last; false: not all of it.
    fn send(&mut self, feed: &Feed, outlet: &mut Outlet, now: u64, watches: &Watches) -> bool {
        let token = super::token(self.receiver);
        let sender = Sender { service: feed.service.as_str(), which: self.which };
        let zone = TimeZone::system();
        if self.untold != (0, 0) {
            let marker = lost(clock::wall_ms(), self.untold.0, self.untold.1);
            let bytes = encode(self.receiver, sender, &marker, &zone);
            if outlet.send(&bytes, now, watches, token) == Sent::NotNow {
                return false;
            }
            self.untold = (0, 0);
        }
        while let Some(part) = self.parts.front() {
            let bytes = encode(self.receiver, sender, part, &zone);
            match outlet.send(&bytes, now, watches, token) {
                Sent::Yes => {}
                Sent::NotNow => return false,
                Sent::Never => feed.account.counters.not_forwarded(1),
            }
            self.parts.pop_front();
        }
        true
    }

    /// Reads the next line; false: there is none yet.
    fn read(&mut self, told: &Told) -> io::Result<bool> {
        loop {
            let line = match self.lines.next()? {
                Step::Line(line) => line,
                Step::More => continue,
                // A run that is over does not end the line that it has begun.
                Step::End if told.cut_at(self.lines.end()) => match self.lines.last() {
                    Some(line) => Line { partial: false, ..line },
                    None => return Ok(false),
                },
                Step::End => return Ok(false),
            };
            self.take(&line, told);
            return Ok(true);
        }
    }

    fn take(&mut self, line: &Line, told: &Told) {
        self.behind = self.lines.end();
        self.count = (0, 0);
        if line.note {
            self.within = (false, false);
            return self.add(line.time_ms, &line.text, false);
        }
        let mut text = &*line.text;
        for cut in told.cuts_within(line.spot, self.behind) {
            let (before, after) = text.split_at(cut.min(text.len()));
            self.add(line.time_ms, before, false);
            text = after;
        }
        let (text, continues) = match self.within.1 {
            false => original(self.format, text),
            true => (text.into(), false),
        };
        self.add(line.time_ms, &text, continues || line.partial);
        self.within.1 = line.partial;
    }

    fn add(&mut self, time_ms: u64, text: &[u8], continues: bool) {
        let first = !std::mem::replace(&mut self.within.0, continues);
        self.count =
            (self.count.0 + u64::from(first), self.count.1 + text.len() as u64 + u64::from(!continues));
        self.parts.extend(split(self.receiver, self.which, time_ms, (text, continues), first));
    }

    fn note(&self) -> io::Result<()> {
        let mark = Mark { sequence: self.reached.0, offset: self.reached.1, wall_ms: clock::wall_ms() };
        if self.noted.metadata()?.nlink() == 0 {
            // Its folder was deleted; the next lane makes a new one.
            return Ok(());
        }
        self.noted.write_all_at(&marks::encode(mark), 0)
    }
}
