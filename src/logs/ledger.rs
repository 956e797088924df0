//! What must outlive the log writer: whose bytes lie in a stage, what was dropped, and what is being written.
//! Words of memory that the keeper keeps too. Every change takes effect by one store, its last: a SIGKILL
//! between any two of them leaves the old state or the new one. No pipe and no file is touched here.
//!
//! A *stream* is one output of one service. A *stage* is a pipe that holds bytes on their way to a file, or
//! (in a dropper's hands) to nowhere.

use crate::sys::shared::Words;
use std::{
    ops::Deref,
    sync::atomic::{AtomicU64, Ordering::SeqCst},
};

/// Most stages at a time.
pub(super) const STAGES: u32 = 4096;
/// Most streams that have something to remember at a time.
pub(super) const STREAMS: u32 = 32_768;
/// Longest name.
const NAME: usize = 80;

const HEAD: usize = 16;
const STAGE: usize = 8;
const STREAM: usize = 32;
/// Bytes of the memory; what is not used of it costs nothing.
pub(super) const BYTES: usize = 8 * (HEAD + STAGE * STAGES as usize + STREAM * STREAMS as usize);

/// Where a ledger's words are.
pub(super) trait Memory: Deref<Target = [AtomicU64]> + Send + Sync + std::fmt::Debug {}
impl Memory for Words {}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Ledger(Box<dyn Memory>);

/// Bytes and line ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Count {
    pub(super) bytes: u64,
    pub(super) lines: u64,
}

/// A place in a file: device and inode, and an offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: (u64, u64),
    pub(super) offset: u64,
}

impl Ledger {
    /// Over memory of at least [`BYTES`], all zero in the beginning.
    pub(super) fn new(memory: Box<dyn Memory>) -> Ledger {
        Ledger(memory)
    }

    fn get(&self, at: usize) -> u64 {
        self.0.get(at).map_or(0, |word| word.load(SeqCst))
    }

    fn set(&self, at: usize, value: u64) {
        #[cfg(test)]
        if tests::dead() {
            return;
        }
        if let Some(word) = self.0.get(at) {
            word.store(value, SeqCst);
        }
    }

    /// Rises with every call, over all processes.
    fn next(&self) -> u64 {
        let next = self.get(1) + 1;
        self.set(1, next);
        next
    }

    pub(super) fn stage(&self, index: u32) -> StageLabel<'_> {
        StageLabel { ledger: self, at: HEAD + STAGE * index as usize }
    }

    pub(super) fn stream(&self, index: u32) -> StreamRecord<'_> {
        let stages = STAGE * STAGES as usize;
        StreamRecord { ledger: self, at: HEAD + stages + STREAM * index as usize }
    }

    /// Streams from this number on were never used.
    pub(super) fn streams_used(&self) -> u32 {
        u32::try_from(self.get(2)).unwrap_or(STREAMS).min(STREAMS)
    }

    pub(super) fn set_streams_used(&self, count: u32) {
        self.set(2, u64::from(count));
    }
}

/// What is known of the bytes in one stage.
#[derive(Debug, Clone, Copy)]
pub(super) struct StageLabel<'a> {
    ledger: &'a Ledger,
    at: usize,
}

impl StageLabel<'_> {
    /// From now on what comes in belongs to `stream`. The stage is empty.
    pub(super) fn give(self, stream: u32) {
        self.ledger.set(self.at + 1, self.ledger.next());
        self.ledger.set(self.at + 2, 0);
        self.ledger.set(self.at + 3, 0);
        self.ledger.set(self.at, u64::from(stream) + 1);
    }

    /// From now on what comes in belongs to nobody. The stage is empty.
    pub(super) fn clear(self) {
        self.ledger.set(self.at, 0);
    }

    pub(super) fn stream(self) -> Option<u32> {
        self.ledger.get(self.at).checked_sub(1).and_then(|n| u32::try_from(n).ok())
    }

    /// Of two stages of a stream the one with the lower number has the older bytes.
    pub(super) fn sequence(self) -> u64 {
        self.ledger.get(self.at + 1)
    }

    /// From now on what comes in is to be dropped, and counted as the next drop of `stream`. The stage is empty.
    pub(super) fn condemn(self, stream: u32) {
        self.ledger.set(self.at, 0);
        let expected = self.ledger.stream(stream).dropped().version() + 1;
        self.ledger.set(self.at + 2, expected);
        self.ledger.set(self.at + 4, 0);
        self.ledger.set(self.at, u64::from(stream) + 1);
    }

    /// The count that follows is of all but the last `left` bytes in it.
    pub(super) fn count_all_but(self, left: u64) {
        self.ledger.set(self.at + 4, left);
    }

    /// How many of the bytes in it that count, once it has been made, leaves out.
    pub(super) fn left_out(self) -> u64 {
        self.ledger.get(self.at + 4)
    }

    /// What it held and was counted is gone; the rest is to be counted too.
    pub(super) fn condemn_rest(self) {
        let Some(stream) = self.stream() else { return };
        self.ledger.set(self.at + 2, self.ledger.stream(stream).dropped().version() + 1);
    }

    /// Whether what is in it is to be dropped; `Some(true)`: it has been counted.
    pub(super) fn condemned(self) -> Option<bool> {
        let expected = self.ledger.get(self.at + 2);
        let version = self.ledger.stream(self.stream()?).dropped().version();
        (expected > 0).then_some(version >= expected)
    }

    /// What will be written at `place` is what was taken from it until so many bytes are `left` in it.
    pub(super) fn write_at(self, place: Place, left: u64) {
        self.ledger.set(self.at + 4, left);
        self.ledger.set(self.at + 5, place.file.0);
        self.ledger.set(self.at + 6, place.file.1);
        self.ledger.set(self.at + 3, place.offset + 1);
    }

    /// It is written, and taken out.
    pub(super) fn written(self) {
        self.ledger.set(self.at + 3, 0);
    }

    /// What is in doubt after a kill: where it was being written, and how many bytes are left if it was taken out.
    pub(super) fn doubtful(self) -> Option<(Place, u64)> {
        let offset = self.ledger.get(self.at + 3).checked_sub(1)?;
        let file = (self.ledger.get(self.at + 5), self.ledger.get(self.at + 6));
        Some((Place { file, offset }, self.ledger.get(self.at + 4)))
    }
}

/// What is remembered of one stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct StreamRecord<'a> {
    ledger: &'a Ledger,
    at: usize,
}

impl<'a> StreamRecord<'a> {
    /// Makes it the record of the output number `which` of a service. False: the name is too long.
    pub(super) fn claim(self, name: &str, which: usize) -> bool {
        if name.len() > NAME || which > 1 {
            return false;
        }
        (1..STREAM).for_each(|i| self.ledger.set(self.at + i, 0));
        for (i, chunk) in name.as_bytes().chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.ledger.set(self.at + 1 + i, u64::from_le_bytes(word));
        }
        self.ledger.set(self.at, 1 | (which as u64) << 1 | (name.len() as u64) << 8);
        true
    }

    /// Nothing is to be remembered any more.
    pub(super) fn release(self) {
        self.ledger.set(self.at, 0);
    }

    /// Whose it is; `None`: nobody's.
    pub(super) fn owner(self) -> Option<(String, usize)> {
        let head = self.ledger.get(self.at);
        let len = usize::try_from(head >> 8).ok().filter(|n| head & 1 == 1 && *n <= NAME)?;
        let words = (0..len.div_ceil(8)).flat_map(|i| self.ledger.get(self.at + 1 + i).to_le_bytes());
        let bytes: Vec<u8> = words.take(len).collect();
        Some((String::from_utf8(bytes).ok()?, usize::from(head & 2 > 0)))
    }

    /// All that was ever dropped. Only who holds the stream's intake may add to it.
    pub(super) fn dropped(self) -> Total<'a> {
        Total { ledger: self.ledger, at: self.at + 12 }
    }

    /// All drops that a line in the file tells. Only the writer may add to it.
    pub(super) fn told(self) -> Total<'a> {
        Total { ledger: self.ledger, at: self.at + 18 }
    }

    /// What was dropped and is not told yet.
    pub(super) fn untold(self) -> Count {
        let (dropped, told) = (self.dropped().get(), self.told().get());
        Count { bytes: dropped.bytes - told.bytes, lines: dropped.lines - told.lines }
    }

    /// A line that tells of drops is about to be written at this place.
    pub(super) fn tell_at(self, place: Place) {
        self.ledger.set(self.at + 25, self.told().version() + 1);
        self.ledger.set(self.at + 26, place.file.0);
        self.ledger.set(self.at + 27, place.file.1);
        self.ledger.set(self.at + 24, place.offset + 1);
    }

    /// No such line is under way (any more).
    pub(super) fn telling_done(self) {
        self.ledger.set(self.at + 24, 0);
    }

    /// Where such a line may stand although it does not count: it is to be cut off.
    pub(super) fn doubtful(self) -> Option<Place> {
        let offset = self.ledger.get(self.at + 24).checked_sub(1)?;
        let file = (self.ledger.get(self.at + 26), self.ledger.get(self.at + 27));
        (self.told().version() < self.ledger.get(self.at + 25)).then_some(Place { file, offset })
    }

    /// Whether anything of it still matters to the next process.
    pub(super) fn matters(self) -> bool {
        self.untold() != Count::default() || self.doubtful().is_some()
    }
}

/// A count that changes as a whole: there are two, and the last bit of the version says which one holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Total<'a> {
    ledger: &'a Ledger,
    at: usize,
}

impl Total<'_> {
    /// Rises with every change.
    pub(super) fn version(self) -> u64 {
        self.ledger.get(self.at)
    }

    pub(super) fn get(self) -> Count {
        let at = self.at + 1 + 2 * usize::from(self.version() % 2 == 1);
        Count { bytes: self.ledger.get(at), lines: self.ledger.get(at + 1) }
    }

    pub(super) fn add(self, more: Count) {
        let (now, version) = (self.get(), self.version() + 1);
        let at = self.at + 1 + 2 * usize::from(version % 2 == 1);
        self.ledger.set(at, now.bytes + more.bytes);
        self.ledger.set(at + 1, now.lines + more.lines);
        self.ledger.set(self.at, version);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{cell::Cell, sync::Arc};

    thread_local! {
        /// Stores and moves until this thread's process dies; `None`: it lives on.
        static LIFE: Cell<Option<u32>> = const { Cell::new(None) };
    }

    /// One more step, unless the process is dead by now.
    pub(super) fn dead() -> bool {
        LIFE.with(|life| match life.get() {
            None => false,
            Some(0) => true,
            Some(n) => {
                life.set(Some(n - 1));
                false
            }
        })
    }

    #[derive(Debug, Clone)]
    struct Heap(Arc<[AtomicU64]>);
    impl Deref for Heap {
        type Target = [AtomicU64];
        fn deref(&self) -> &[AtomicU64] {
            &self.0
        }
    }
    impl Memory for Heap {}

    fn on_the_heap() -> Ledger {
        Ledger::new(Box::new(Heap(
            (0..HEAD + STAGE * STAGES as usize + STREAM * 16).map(|_| AtomicU64::new(0)).collect(),
        )))
    }

    const LINE: &[u8] = b"0123456\n";
    const MARK: &[u8] = b"dropped";

    /// The kernel's side: each move is one step that is done or not.
    #[derive(Debug)]
    struct World {
        ledger: Ledger,
        pipe: Vec<u8>,
        stage: Vec<u8>,
        drops: Vec<u8>,
        file: Vec<u8>,
    }

    const FILE: (u64, u64) = (1, 2);

    impl World {
        fn new() -> World {
            let ledger = on_the_heap();
            assert!(ledger.stream(3).claim("web@0", 1));
            let pipe = (0..6).flat_map(|n| [&[b'a' + n], &LINE[1..]].concat()).collect();
            World { ledger, pipe, stage: vec![], drops: vec![], file: vec![] }
        }

        /// Drops the first two lines of the pipe, as a dropper does.
        fn drop_two(&mut self) {
            self.ledger.stage(0).condemn(3);
            if !dead() {
                self.drops = self.pipe.drain(..16).collect();
            }
            self.count_drops();
        }

        fn count_drops(&mut self) {
            self.ledger.stream(3).dropped().add(Count { bytes: 16, lines: 2 });
            if !dead() {
                self.drops.clear();
            }
        }

        /// Writes the line that tells of drops, in two parts.
        fn tell(&mut self) {
            let stream = self.ledger.stream(3);
            let untold = stream.untold();
            if untold == Count::default() {
                return;
            }
            stream.tell_at(Place { file: FILE, offset: self.file.len() as u64 });
            for part in MARK.chunks(4) {
                if !dead() {
                    self.file.extend_from_slice(part);
                }
            }
            stream.told().add(untold);
            stream.telling_done();
        }

        /// Takes two lines to the stage and writes them in another form.
        fn write_two(&mut self) {
            self.ledger.stage(1).give(3);
            if !dead() {
                let taken = self.pipe.len().min(16);
                self.stage.extend(self.pipe.drain(..taken));
            }
            self.pour();
        }

        fn pour(&mut self) {
            while !self.stage.is_empty() {
                let label = self.ledger.stage(1);
                let place = Place { file: FILE, offset: self.file.len() as u64 };
                label.write_at(place, self.stage.len() as u64 - 8);
                let text = self.stage[..8].to_ascii_uppercase();
                for part in text.chunks(5) {
                    if !dead() {
                        self.file.extend_from_slice(part);
                    }
                }
                if dead() {
                    return;
                }
                self.stage.drain(..8);
                label.written();
            }
        }

        /// What the next process does first.
        fn recover(&mut self) {
            if !self.drops.is_empty() {
                match self.ledger.stage(0).condemned() {
                    Some(true) => self.drops.clear(),
                    Some(false) => self.count_drops(),
                    None => panic!("bytes to drop without a label"),
                }
            }
            if let Some(place) = self.ledger.stream(3).doubtful() {
                assert_eq!(place.file, FILE);
                self.file.truncate(place.offset as usize);
            }
            self.ledger.stream(3).telling_done();
            if let Some((place, left)) = self.ledger.stage(1).doubtful()
                && self.stage.len() as u64 > left
            {
                self.file.truncate(place.offset as usize);
            }
            self.ledger.stage(1).written();
            if !self.stage.is_empty() {
                assert_eq!(self.ledger.stage(1).stream(), Some(3));
            }
            self.pour();
            self.tell();
        }

        fn work(&mut self) {
            self.write_two();
            self.drop_two();
            self.tell();
            self.write_two();
        }
    }

    #[test]
    fn a_kill_at_any_step_loses_doubles_and_tears_nothing() {
        let (mut steps, mut died) = (0, true);
        while died {
            for second in 0..40 {
                let mut world = World::new();
                LIFE.set(Some(steps));
                world.work();
                died = LIFE.replace(Some(second)) == Some(0);
                // The next process may be killed while it takes over.
                world.recover();
                LIFE.set(None);
                world.recover();
                let written: Vec<u8> = world.file.iter().copied().filter(u8::is_ascii_uppercase).collect();
                let waiting: Vec<u8> = world
                    .pipe
                    .iter()
                    .filter(|b| b.is_ascii_alphabetic())
                    .map(u8::to_ascii_uppercase)
                    .collect();
                let marks = String::from_utf8_lossy(&world.file).matches("dropped").count() as u64;
                let dropped = world.ledger.stream(3).told().get();
                let context = format!("killed after {steps} and {second} steps: {world:?}");
                assert_eq!(dropped, Count { bytes: marks * 16, lines: marks * 2 }, "{context}");
                assert!(marks <= 1 && world.stage.is_empty() && world.drops.is_empty(), "{context}");
                let all = if marks == 1 { &b"ABEF"[..] } else { b"ABCDEF" };
                assert_eq!([written, waiting].concat(), all, "{context}");
                assert!(!world.ledger.stream(3).matters(), "{context}");
            }
            steps += 1;
        }
        assert!(steps > 40, "only {steps} steps");
    }

    #[test]
    fn records_know_their_owner() {
        let ledger = on_the_heap();
        let long = "x".repeat(NAME);
        for (index, name, which) in [(0, "web", 0), (15, long.as_str(), 1), (7, "", 0)] {
            assert!(ledger.stream(index).claim(name, which));
            assert_eq!(ledger.stream(index).owner(), Some((name.to_owned(), which)));
            ledger.stream(index).release();
            assert_eq!(ledger.stream(index).owner(), None);
        }
        assert!(!ledger.stream(1).claim(&"x".repeat(NAME + 1), 0));
        ledger.stage(STAGES - 1).give(5);
        assert_eq!(ledger.stage(STAGES - 1).stream(), Some(5));
        assert_eq!(ledger.stream(0).owner(), None);
        ledger.stage(0).give(5);
        assert!(ledger.stage(0).sequence() > ledger.stage(STAGES - 1).sequence());
    }
}
