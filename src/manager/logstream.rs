//! A service's log as a stream of chunks for the API: the reader waits for the client, never the other way.

use bytes::Bytes;
use std::{io, path::PathBuf};
use tokio::sync::mpsc;

/// Chunks of a log; it ends at the end of the log, or never when following.
#[derive(Debug)]
pub struct LogStream(pub mpsc::Receiver<io::Result<Bytes>>);

/// Reads the last `lines` lines of the current file in `dir`.
pub(super) fn open(dir: PathBuf, lines: usize) -> LogStream {
    let (out, chunks) = mpsc::channel(2);
    tokio::task::spawn_blocking(move || {
        let tail = std::fs::read(dir.join("current")).map(|text| {
            let body = text.strip_suffix(b"\n").unwrap_or(&text);
            let ends = body.iter().enumerate().rev().filter(|(_, b)| **b == b'\n').map(|(i, _)| i + 1);
            let from = ends.chain([0]).nth(lines.saturating_sub(1)).unwrap_or(0);
            Bytes::from(text).slice(from..)
        });
        // A client that has gone away needs no answer.
        let _ = out.blocking_send(tail);
    });
    LogStream(chunks)
}
