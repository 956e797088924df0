//! A service's log as a stream of chunks for the API: the reader waits for the client, never the other way.

use crate::logs::{Engine, From, Reader};
use bytes::Bytes;
use std::{io, path::PathBuf};
use tokio::sync::{mpsc, watch};

const CHUNK: usize = 64 * 1024;

/// Chunks of a log; it ends at the end of the log, or never when following.
#[derive(Debug)]
pub struct LogStream(pub mpsc::Receiver<io::Result<Bytes>>);

/// Opens the log in `dir` from its last `lines` lines on. At most two chunks wait for a slow client.
pub(super) fn open(dir: PathBuf, lines: u64, follow: Option<watch::Receiver<u64>>) -> LogStream {
    let (out, chunks) = mpsc::channel(2);
    tokio::spawn(async move {
        if let Err(e) = pump(dir, lines, follow, &out).await {
            // A client that has gone away needs no error.
            let _ = out.send(Err(e)).await;
        }
    });
    LogStream(chunks)
}

async fn pump(
    dir: PathBuf,
    lines: u64,
    mut follow: Option<watch::Receiver<u64>>,
    out: &mpsc::Sender<io::Result<Bytes>>,
) -> io::Result<()> {
    let gone = |e| io::Error::other(format!("a log reader died: {e}"));
    let mut reader = tokio::task::spawn_blocking(move || Reader::open(&dir, From::LastLines(lines)))
        .await
        .map_err(gone)??;
    loop {
        let step = tokio::task::spawn_blocking(move || {
            let mut chunk = vec![0; CHUNK];
            let n = reader.read(&mut chunk)?;
            chunk.truncate(n);
            io::Result::Ok((reader, chunk))
        });
        let chunk;
        (reader, chunk) = step.await.map_err(gone)??;
        if !chunk.is_empty() {
            if out.send(Ok(chunk.into())).await.is_err() {
                return Ok(());
            }
            continue;
        }
        let Some(changed) = &mut follow else { return Ok(()) };
        tokio::select! {
            more = changed.changed() => if more.is_err() { return Ok(()) },
            () = out.closed() => return Ok(()),
        }
    }
}

/// Subscribes before the file is read, so that nothing is missed between the two.
pub(super) fn subscribe(engine: &Engine, service: &crate::plan::Name) -> watch::Receiver<u64> {
    engine.changed(service)
}
