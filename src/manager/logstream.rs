//! Logs as streams of chunks for the API: the reader waits for the client, never the other way. Files are read on
//! threads of their own, few at a time, so that neither the actor nor another client waits for a disk.

use super::{Refusal, snapshot};
use crate::{
    logs::{Engine, From, Line, Next, Place, Query, Reader, View},
    plan::Name,
    wire,
};
use bytes::Bytes;
use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
};

const CHUNK: usize = 64 * 1024;
/// Logs that all clients together may be reading: each is a descriptor or two.
const LOGS: usize = 4096;
/// Threads that read the next chunk of some at the same time, and of those that search for where to begin.
const THREADS: usize = 4;
const SEARCHES: usize = 2;

/// Chunks of a log; it ends at the end of the log, or never when following.
#[derive(Debug)]
pub struct LogStream(pub mpsc::Receiver<io::Result<Bytes>>);

/// What of several logs is wanted, and how.
#[derive(Debug, Clone)]
pub struct LogWish {
    pub query: Query,
    /// Go on with what comes.
    pub follow: bool,
    pub stream: Which,
    pub format: LogFormat,
}

/// Of a service that keeps stderr apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    Stdout,
    Stderr,
    All,
}

/// How lines are given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// As they were printed.
    Text,
    /// A [`wire::LogLine`] each.
    Json,
}

/// One log: where it is, and whose.
#[derive(Debug, Clone)]
pub(super) struct Source {
    name: Name,
    instance: Option<u32>,
    stderr: bool,
    place: Place,
}

/// The logs that this wish means of a service.
pub(super) fn sources(view: &snapshot::View, which: Which) -> impl Iterator<Item = Source> {
    let apart = view.base.log.stderr_file.is_some();
    let source = |stderr: bool| Source {
        name: Name::new(&view.base.name),
        instance: view.base.instance,
        stderr,
        place: if stderr { Place::stderr(&view.log_dir) } else { Place::stdout(&view.log_dir) },
    };
    let stdout = (which != Which::Stderr).then(|| source(false));
    let stderr = (which == Which::Stderr || which == Which::All && apart).then(|| source(true));
    stdout.into_iter().chain(stderr)
}

/// The bounds of what all readers together may cost.
#[derive(Debug, Clone)]
pub(super) struct Readers {
    logs: Arc<Semaphore>,
    threads: Arc<Semaphore>,
    /// Apart, because a search can take long, and nobody else is to wait for it.
    searches: Arc<Semaphore>,
}

impl Readers {
    pub(super) fn new() -> Readers {
        let [logs, threads, searches] = [LOGS, THREADS, SEARCHES].map(|n| Arc::new(Semaphore::new(n)));
        Readers { logs, threads, searches }
    }

    /// Begins to read these logs. At most two chunks wait for a slow client.
    pub(super) fn open(
        &self,
        sources: Vec<Source>,
        wish: &LogWish,
        engine: &Engine,
    ) -> Result<LogStream, Refusal> {
        let many = u32::try_from(sources.len()).unwrap_or(u32::MAX);
        let Ok(permit) = self.logs.clone().try_acquire_many_owned(many) else {
            let busy = LOGS - self.logs.available_permits();
            return Err(Refusal::Unavailable(format!(
                "cannot read {many} more logs, {busy} of at most {LOGS} are being read; ask for fewer, or later"
            )));
        };
        // Before the files are read, so that nothing is missed between the two.
        let changes = wish.follow.then(|| Changes::of(engine, &sources));
        let (out, chunks) = mpsc::channel(2);
        let task = Task { out, readers: self.clone(), changes, _permit: permit };
        tokio::spawn(task.run(sources, wish.clone()));
        Ok(LogStream(chunks))
    }
}

/// Which logs have grown.
#[derive(Debug)]
struct Changes {
    seen: Arc<(Mutex<BTreeSet<usize>>, Notify)>,
    watchers: JoinSet<()>,
}

impl Changes {
    fn of(engine: &Engine, sources: &[Source]) -> Changes {
        let seen: Arc<(Mutex<BTreeSet<usize>>, Notify)> = Arc::default();
        let mut watchers = JoinSet::new();
        for (index, source) in sources.iter().enumerate() {
            let (mut changed, seen) = (engine.changed(&source.name), seen.clone());
            watchers.spawn(async move {
                while changed.changed().await.is_ok() {
                    seen.0.lock().unwrap_or_else(PoisonError::into_inner).insert(index);
                    seen.1.notify_one();
                }
            });
        }
        Changes { seen, watchers }
    }

    /// Waits for some; `None`: all services are gone for good.
    async fn next(&mut self) -> Option<BTreeSet<usize>> {
        loop {
            let some = std::mem::take(&mut *self.seen.0.lock().unwrap_or_else(PoisonError::into_inner));
            if !some.is_empty() {
                return Some(some);
            }
            tokio::select! {
                () = self.seen.1.notified() => {}
                ended = self.watchers.join_next() => drop(ended?.ok()),
            }
        }
    }
}

/// One client's reading.
#[derive(Debug)]
struct Task {
    out: mpsc::Sender<io::Result<Bytes>>,
    readers: Readers,
    changes: Option<Changes>,
    _permit: OwnedSemaphorePermit,
}

impl Task {
    async fn run(mut self, sources: Vec<Source>, wish: LogWish) {
        if let Err(e) = self.pump(sources, wish).await {
            // A client that has gone away needs no error.
            let _ = self.out.send(Err(e)).await;
        }
    }

    async fn pump(&mut self, sources: Vec<Source>, wish: LogWish) -> io::Result<()> {
        let client = self.out.clone();
        let searches = wish.query.filters() && wish.query.lines.is_some();
        let threads = if searches { &self.readers.searches } else { &self.readers.threads };
        let mut work = on(threads, move || Work::open(sources, &wish, &|| client.is_closed())).await?;
        loop {
            let (back, step) = on(&self.readers.threads, move || {
                let step = work.step()?;
                Ok((work, step))
            })
            .await?;
            work = back;
            if self.out.is_closed() {
                return Ok(());
            }
            if !step.bytes.is_empty() && self.out.send(Ok(step.bytes.into())).await.is_err() {
                return Ok(());
            }
            if !step.end {
                continue;
            }
            let Some(changes) = &mut self.changes else { return Ok(()) };
            tokio::select! {
                some = changes.next() => match some {
                    Some(some) => work.grown(&some),
                    None => return Ok(()),
                },
                () = self.out.closed() => return Ok(()),
            }
        }
    }
}

/// Does this on one of these threads.
async fn on<T: Send + 'static>(
    threads: &Arc<Semaphore>,
    job: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let died = |e: &dyn std::fmt::Display| io::Error::other(format!("a log reader died: {e}"));
    let permit = threads.clone().acquire_owned().await.map_err(|e| died(&e))?;
    let job = move || {
        let done = job();
        drop(permit);
        done
    };
    tokio::task::spawn_blocking(job).await.map_err(|e| died(&e))?
}

/// What is read of the files.
#[derive(Debug)]
enum Work {
    /// One log, byte for byte.
    Bytes(Reader),
    /// Line by line.
    Lines(View, Vec<Source>, LogFormat),
}

/// A bounded piece of reading.
#[derive(Debug, Default)]
struct Step {
    bytes: Vec<u8>,
    /// There is no more now.
    end: bool,
}

impl Work {
    fn open(sources: Vec<Source>, wish: &LogWish, stop: &dyn Fn() -> bool) -> io::Result<Work> {
        if let ([one], LogFormat::Text, false) = (&*sources, wish.format, wish.query.filters()) {
            let from = wish.query.lines.map_or(From::Start, From::LastLines);
            let begin = if wish.follow { Reader::begin } else { Reader::until_now };
            return begin(one.place.clone(), from).map(Work::Bytes);
        }
        let places: Vec<Place> = sources.iter().map(|s| s.place.clone()).collect();
        Ok(Work::Lines(View::open(&places, &wish.query, wish.follow, stop)?, sources, wish.format))
    }

    fn step(&mut self) -> io::Result<Step> {
        let mut step = Step::default();
        match self {
            Work::Bytes(reader) => {
                step.bytes.resize(CHUNK, 0);
                let n = reader.read(&mut step.bytes)?;
                step.bytes.truncate(n);
                step.end = n == 0;
                if let Some(note) = reader.take_note() {
                    step.bytes.splice(0..0, format!("{note}\n").into_bytes());
                }
            }
            Work::Lines(view, sources, format) => {
                while step.bytes.len() < CHUNK {
                    match view.advance()? {
                        Next::Line(log, line) => render(&mut step.bytes, &sources[log], line, *format),
                        Next::Busy => break,
                        Next::End => {
                            step.end = true;
                            break;
                        }
                    }
                }
            }
        }
        Ok(step)
    }

    fn grown(&mut self, logs: &BTreeSet<usize>) {
        if let Work::Lines(view, ..) = self {
            logs.iter().for_each(|log| view.grown(*log));
        }
    }
}

fn render(out: &mut Vec<u8>, source: &Source, line: Line, format: LogFormat) {
    match format {
        LogFormat::Text => {
            out.extend_from_slice(&line.text);
            if line.partial {
                return;
            }
        }
        LogFormat::Json => {
            let name = source.name.service();
            let partial = line.partial;
            let line =
                wire::LogLine::new(name, source.instance, source.stderr, line.note, line.time_ms, line.text)
                    .partial(partial);
            // Plain data into memory cannot fail.
            let _ = serde_json::to_writer(&mut *out, &line);
        }
    }
    out.push(b'\n');
}
