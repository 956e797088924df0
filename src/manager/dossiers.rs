//! Dossiers of unplanned ends: a file for each service in the state folder, written by a thread of its own, so that
//! the actor never waits for a disk; and read for the API. The machine decides what stands in them.

use super::{publish::last_exit, snapshot::wall_of};
use crate::{
    keeper::protocol,
    logs::{Next, Place, Query, View},
    machine::{Incident, IncidentKind, ProbedThen, Time},
    plan::{Name, ServiceSpec, Stderr, Stdout},
    wire::{self, why::*},
};
use serde::{Deserialize, Serialize};
use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
};
use tokio::sync::Semaphore;

/// Dossiers that are kept of a service, and changes of its configuration.
const KEPT: usize = 10;
/// Lines of each log, and bytes of each of them.
const LINES: u64 = 20;
const LINE_MAX: usize = 1024;
/// What may wait to be written: more than all services of a large host at once.
const WAITING: usize = 8192;
/// Files that are read for callers at the same time.
const READS: usize = 4;
/// Times of lines are to the second.
const SLACK_MS: u64 = 1000;

/// An incident, and what the manager knows of it besides.
#[derive(Debug)]
pub(super) struct Case {
    pub(super) name: Name,
    pub(super) incident: Box<Incident>,
    pub(super) usage: Option<protocol::Usage>,
    pub(super) logs: LogsOf,
}

/// Where the output of a run is.
#[derive(Debug, Default)]
pub(super) struct LogsOf {
    stdout: Option<Place>,
    stderr: Option<Place>,
}

impl LogsOf {
    pub(super) fn of(spec: &ServiceSpec) -> LogsOf {
        let (launch, dir) = (&spec.launch, &spec.logs.dir);
        LogsOf {
            stdout: (launch.stdout == Stdout::Capture).then(|| Place::stdout(dir)),
            stderr: (launch.stderr == Stderr::Separate).then(|| Place::stderr(dir)),
        }
    }
}

#[derive(Debug)]
enum Job {
    Write(Case),
    /// As `Write`, unless it is there already.
    Restore(Case),
    Changed(Name, Change),
    Ran(Name, wire::LastExit),
    Remove(Name),
}

/// The actor's end.
#[derive(Debug)]
pub(super) struct Dossiers {
    jobs: SyncSender<Job>,
    shelf: Shelf,
}

impl Dossiers {
    /// Begins with what lies in `state_dir`. `life` names the life of the keeper: numbers of configurations mean
    /// nothing in another.
    pub(super) fn open(state_dir: &Path, life: String) -> io::Result<Dossiers> {
        let dir: Arc<Path> = state_dir.join("why").into();
        let (jobs, waiting) = sync_channel(WAITING);
        let clerk = Clerk { dir: dir.to_path_buf(), life };
        thread::Builder::new().name("dossiers".into()).spawn(move || clerk.work(&waiting))?;
        Ok(Dossiers { jobs, shelf: Shelf { dir, reads: Arc::new(Semaphore::new(READS)) } })
    }

    /// For readers.
    pub(super) fn shelf(&self) -> Shelf {
        self.shelf.clone()
    }

    pub(super) fn write(&self, case: Case) {
        self.give(Job::Write(case));
    }

    /// The last manager may have died before it had written this.
    pub(super) fn restore(&self, case: Case) {
        self.give(Job::Restore(case));
    }

    /// Another configuration of the service is in force.
    pub(super) fn changed(&self, name: &Name, change: Change) {
        self.give(Job::Changed(name.clone(), change));
    }

    /// A run of a oneshot has ended.
    pub(super) fn ran(&self, name: &Name, exit: wire::LastExit) {
        self.give(Job::Ran(name.clone(), exit));
    }

    /// The service is gone for good.
    pub(super) fn remove(&self, name: &Name) {
        self.give(Job::Remove(name.clone()));
    }

    fn give(&self, job: Job) {
        match self.jobs.try_send(job) {
            Ok(()) => {}
            Err(TrySendError::Full(_)) => {
                tracing::warn!("a dossier is left out: {WAITING} wait for the disk of the state folder");
            }
            Err(TrySendError::Disconnected(_)) => {
                tracing::error!("a dossier is left out: their writer has ended")
            }
        }
    }
}

/// Where readers find what was written. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Shelf {
    dir: Arc<Path>,
    reads: Arc<Semaphore>,
}

impl Shelf {
    /// The dossiers of a service and its last runs, newest first. Must be called within the runtime.
    ///
    /// # Errors
    /// Of the file system. A file that is not there is no error.
    pub(super) async fn read(&self, name: &Name) -> io::Result<(Vec<Dossier>, Vec<wire::LastExit>)> {
        let _permit = self.reads.clone().acquire_owned().await.map_err(io::Error::other)?;
        let path = path(&self.dir, name);
        let read = tokio::task::spawn_blocking(move || read(&path)).await.map_err(io::Error::other)?;
        read.map(|kept| (kept.dossiers, kept.runs))
    }
}

/// What is kept of a service.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Kept {
    /// Of the keeper that `changes` is of.
    life: String,
    /// Newest first.
    dossiers: Vec<Dossier>,
    /// Of a oneshot; newest first.
    runs: Vec<wire::LastExit>,
    /// Oldest first.
    changes: Vec<Change>,
}

fn path(dir: &Path, name: &Name) -> PathBuf {
    dir.join(format!("{name}.json"))
}

fn read(path: &Path) -> io::Result<Kept> {
    match fs::read(path) {
        Ok(bytes) => {
            serde_json::from_slice(&bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Kept::default()),
        Err(e) => Err(e),
    }
}

/// The thread that writes.
#[derive(Debug)]
struct Clerk {
    dir: PathBuf,
    life: String,
}

impl Clerk {
    fn work(self, jobs: &Receiver<Job>) {
        for job in jobs {
            let name = match &job {
                Job::Write(case) | Job::Restore(case) => case.name.clone(),
                Job::Changed(name, _) | Job::Ran(name, _) | Job::Remove(name) => name.clone(),
            };
            if let Err(e) = self.done(job, &name) {
                tracing::error!("cannot keep the dossier of {name} in {}: {e}", self.dir.display());
            }
        }
    }

    fn done(&self, job: Job, name: &Name) -> io::Result<()> {
        let path = path(&self.dir, name);
        if let Job::Remove(_) = job {
            return fs::remove_file(path)
                .or_else(|e| if e.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(e) });
        }
        let mut kept = read(&path).unwrap_or_else(|e| {
            tracing::warn!("the old dossiers of {name} are given up: {e}");
            Kept::default()
        });
        if kept.life != self.life {
            kept.changes.clear();
            kept.life.clone_from(&self.life);
        }
        match job {
            Job::Write(case) => kept.add(dossier(case, &kept.changes)),
            Job::Restore(case) => {
                if !kept.has(&case) {
                    kept.add(dossier(case, &kept.changes));
                }
            }
            Job::Changed(_, change) => {
                kept.changes.push(change);
                let excess = kept.changes.len().saturating_sub(KEPT);
                kept.changes.drain(..excess);
            }
            Job::Ran(_, exit) => {
                kept.runs.insert(0, exit);
                kept.runs.truncate(KEPT);
            }
            Job::Remove(_) => {}
        }
        self.write(&path, &kept)
    }

    /// Readers see the old file or the new one.
    fn write(&self, path: &Path, kept: &Kept) -> io::Result<()> {
        DirBuilder::new().recursive(true).mode(0o750).create(&self.dir)?;
        let new = path.with_extension("new");
        let mut file = File::options().write(true).create(true).truncate(true).mode(0o640).open(&new)?;
        file.write_all(&serde_json::to_vec(kept)?)?;
        fs::rename(&new, path)
    }
}

impl Kept {
    fn has(&self, case: &Case) -> bool {
        let at = wire::timestamp(wall_of(case.incident.at.0));
        // The wall clock may have been set by a little since; runs of different lives have equal numbers.
        self.dossiers
            .iter()
            .any(|d| d.run_id == case.incident.run.0 && d.at[..d.at.len().min(13)] == at[..at.len().min(13)])
    }

    fn add(&mut self, dossier: Dossier) {
        self.dossiers.insert(0, dossier);
        self.dossiers.truncate(KEPT);
    }
}

fn dossier(case: Case, changes: &[Change]) -> Dossier {
    let Case { incident, usage, logs, .. } = case;
    let time: fn(Time) -> String = |at| wire::timestamp(wall_of(at.0));
    let ran = incident.started.map_or(0, |started| incident.at.since(started).0);
    let kind = match incident.kind {
        IncidentKind::Exit => "exit",
        IncidentKind::Oom => "oom",
        IncidentKind::LaunchFailed => "launch_failed",
        IncidentKind::Watch => "watch",
        IncidentKind::Timeout => "timeout",
        IncidentKind::NotReady => "not_ready",
        IncidentKind::Unhealthy => "unhealthy",
    };
    let good = incident.good.map_or(0, |g| g.0);
    let mut out = Dossier {
        run_id: incident.run.0,
        kind: kind.into(),
        at: time(incident.at),
        cause: incident.cause,
        exit: incident.exit.map(|exit| last_exit(exit, incident.at, incident.run.0, ran)),
        started_at: incident.started.map(time),
        consecutive_failures: incident.failures,
        restarts: incident.restarts,
        usage: usage.map(|used| used_by(used, incident.memory_max)),
        dependencies: incident
            .dependencies
            .into_iter()
            .map(|d| Dependency {
                name: d.name.to_string(),
                relation: d.relation,
                state: d.state,
                ready: d.ready,
            })
            .collect(),
        probes: incident.probes.into_iter().flat_map(|p| probed(p, time)).collect(),
        generation: incident.generation.0,
        good_generation: incident.good.map(|g| g.0),
        changes: changes
            .iter()
            .filter(|c| c.generation > good && c.generation <= incident.generation.0)
            .cloned()
            .collect(),
        next: wire::why::Next { what: incident.next.what, at: incident.next.at.map(time) },
        ..Dossier::default()
    };
    // What never began has printed nothing.
    let Some(started) = incident.started else { return out };
    let since = wall_of(started.0).saturating_sub(SLACK_MS);
    for (place, lines) in [(logs.stdout, &mut out.stdout), (logs.stderr, &mut out.stderr)] {
        match place.map_or(Ok(Vec::new()), |place| tail(&place, since)) {
            Ok(read) => *lines = read,
            Err(e) => out.no_lines = Some(format!("its log cannot be read: {e}")),
        }
    }
    out
}

fn probed(p: ProbedThen, time: fn(Time) -> String) -> impl Iterator<Item = Probed> {
    let probe = p.probe;
    p.seen.into_iter().map(move |seen| Probed {
        probe: probe.clone(),
        since: time(seen.since),
        last: time(seen.last),
        times: seen.times,
        failure: seen.failure,
    })
}

fn used_by(used: protocol::Usage, memory_max: Option<u64>) -> Usage {
    Usage {
        user_usec: used.user_us,
        system_usec: used.system_us,
        max_rss_bytes: used.max_rss_kib.saturating_mul(1024),
        memory_peak_bytes: used.peak_bytes,
        memory_max_bytes: memory_max,
        oom_kills: used.oom_kills,
    }
}

/// The last lines of a log that are not older than `since`, in milliseconds since 1970.
fn tail(place: &Place, since: u64) -> io::Result<Vec<String>> {
    let query = Query { lines: Some(LINES), since: Some(since), ..Query::default() };
    let mut view = View::open(std::slice::from_ref(place), &query, false, &|| false)?;
    let mut out = Vec::new();
    loop {
        match view.advance()? {
            Next::Line(_, line) => out.push(short(&line.text)),
            Next::Busy => {}
            Next::End => return Ok(out),
        }
    }
}

fn short(line: &[u8]) -> String {
    let mut text = String::from_utf8_lossy(&line[..line.len().min(LINE_MAX)]).into_owned();
    if line.len() > LINE_MAX {
        text.push_str(&format!("... ({} bytes more)", line.len() - LINE_MAX));
    }
    text
}
