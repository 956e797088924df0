//! The daemon's own log as a file with the same rotation: `keepd.log`, and `keepd-2026-....000001.log` beside
//! it. What cannot be written is dropped and counted: the daemon never waits for, or fails by, its own log.

use super::{rotate::Limits, store::Store};
use std::{
    io::{self, Write},
    path::Path,
};

/// A writer that takes whole records: one call of `write` is never split over two files, nor half written.
#[derive(Debug)]
pub struct RollingFile {
    store: Store,
    dropped: u64,
}

impl RollingFile {
    /// `path` is the current file; it is made by the first write. `keep` rotated files remain.
    pub fn new(path: &Path, max_size: u64, keep: u32) -> io::Result<RollingFile> {
        let name = path.file_name().and_then(|n| n.to_str()).ok_or(io::ErrorKind::InvalidInput)?;
        let dir = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
        let prefix = format!("{}-", name.strip_suffix(".log").unwrap_or(name));
        let limits = Limits { max_size: max_size.max(1), keep, max_total: None };
        Ok(RollingFile { store: Store::new(dir, name, &prefix, limits), dropped: 0 })
    }

    fn record(&mut self, record: &[u8]) -> io::Result<()> {
        let open = self.store.ready()?;
        if open.size > 0 && open.size + record.len() as u64 > self.store.limits().max_size {
            self.store.rotate()?;
        }
        let open = self.store.ready()?;
        if self.dropped > 0 {
            open.append(format!("keepd: dropped {} log records here\n", self.dropped).as_bytes())?;
            self.dropped = 0;
        }
        open.append(record)
    }
}

impl Write for RollingFile {
    fn write(&mut self, record: &[u8]) -> io::Result<usize> {
        if self.record(record).is_err() {
            self.dropped += 1;
        }
        Ok(record.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
