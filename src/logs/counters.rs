//! Accounting of one service's output: written by the log thread, read by anybody.

use std::sync::{
    Mutex,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// Totals since this manager began. `bytes_in` = `bytes_written` + `bytes_dropped` whenever the pump is idle.
#[derive(Debug, Default)]
pub struct Counters {
    bytes_in: AtomicU64,
    bytes_written: AtomicU64,
    bytes_dropped: AtomicU64,
    lines_dropped: AtomicU64,
    forwarded: AtomicU64,
    forward_dropped: AtomicU64,
    trouble: Mutex<Option<String>>,
}

impl Counters {
    /// So many bytes went from the pipe into the file.
    pub fn moved(&self, bytes: u64) {
        self.bytes_in.fetch_add(bytes, Relaxed);
        self.bytes_written.fetch_add(bytes, Relaxed);
    }

    /// So many bytes with so many line ends were taken from the pipe and thrown away.
    pub fn dropped(&self, bytes: u64, lines: u64) {
        self.bytes_in.fetch_add(bytes, Relaxed);
        self.bytes_dropped.fetch_add(bytes, Relaxed);
        self.lines_dropped.fetch_add(lines, Relaxed);
    }

    /// So many lines were given to a receiver.
    pub fn forwarded(&self, lines: u64) {
        self.forwarded.fetch_add(lines, Relaxed);
    }

    /// So many lines were not, and will not be.
    pub fn not_forwarded(&self, lines: u64) {
        self.forward_dropped.fetch_add(lines, Relaxed);
    }

    /// Lines that were given to receivers, and those that never will be; each receiver counts.
    pub fn forwards(&self) -> (u64, u64) {
        (self.forwarded.load(Relaxed), self.forward_dropped.load(Relaxed))
    }

    /// What keeps the file from being written, `None` once it can be again.
    pub fn set_trouble(&self, trouble: Option<String>) {
        *self.trouble.lock().unwrap_or_else(|p| p.into_inner()) = trouble;
    }

    /// See [`Counters::set_trouble`].
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(|p| p.into_inner()).clone()
    }

    /// Copies the totals out.
    pub fn fill(&self, read: &mut u64, written: &mut u64, dropped: &mut u64, lines_dropped: &mut u64) {
        *read = self.bytes_in.load(Relaxed);
        *written = self.bytes_written.load(Relaxed);
        *dropped = self.bytes_dropped.load(Relaxed);
        *lines_dropped = self.lines_dropped.load(Relaxed);
    }
}
