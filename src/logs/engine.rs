//! The handle on the log writers: what others say to them, and what they tell.

use super::{
    Counters, Housekeeper,
    feed::{Feed, Note, Post},
    forward::{Forwarder, Receivers},
    guard::{Alarm, Guard},
    intake::Source,
    register::{Home, Register, Run},
    vault::Vault,
    writer::Writer,
};
use crate::{
    plan::{LogSpec, Name, Plan, RunId},
    sys::{
        clock,
        mounts::Mounts,
        poller::{Arm, Poller},
    },
};
use std::{
    collections::HashMap,
    io,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread::{self, JoinHandle},
};
use tokio::sync::{oneshot, watch};

/// What the log writers tell. They call the report themselves, so that must not wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// Every pipe of the run is drained and closed, after [`Engine::finish`]; exactly once per finish.
    Finished { run: RunId },
    /// The service's output cannot be written, and why; `None`: it can again.
    Trouble { service: Name, message: Option<String> },
    /// The current file is now called this.
    Rotated { service: Name, file: PathBuf },
}

/// The writers that there are, and the table of mounts that says whose each service is.
#[derive(Debug)]
struct Staff {
    mounts: Option<Mounts>,
    posts: HashMap<String, Arc<Post>>,
    threads: Vec<JoinHandle<()>>,
    forwarders: Vec<JoinHandle<()>>,
}

/// The log writers. Calls return at once.
#[derive(Debug)]
pub struct Engine {
    register: Arc<Register>,
    housekeeper: Housekeeper,
    staff: Mutex<Staff>,
    receivers: Receivers,
    tokens: AtomicU64,
}

impl Engine {
    /// Writers that remember nothing beyond this process; see [`Engine::with`].
    ///
    /// # Errors
    /// Of making what they need.
    pub fn start(report: impl Fn(Report) + Send + Sync + 'static) -> io::Result<Engine> {
        Engine::with(Vault::alone()?, Housekeeper::default(), report)
    }

    /// Goes on from what the vault holds, with a housekeeper that others use too. Threads are started when the
    /// first service needs them.
    ///
    /// # Errors
    /// Of making what they need.
    pub fn with(
        vault: Vault,
        housekeeper: Housekeeper,
        report: impl Fn(Report) + Send + Sync + 'static,
    ) -> io::Result<Engine> {
        let register = Arc::new(Register::new(vault, Alarm::new()?, Box::new(report)));
        // Where there is no such table, all services have one writer.
        let mounts = Mounts::new().ok();
        let staff = Staff { mounts, posts: HashMap::new(), threads: Vec::new(), forwarders: Vec::new() };
        let (staff, receivers, tokens) = (Mutex::new(staff), Receivers::default(), AtomicU64::new(0));
        Ok(Engine { register, housekeeper, staff, receivers, tokens })
    }

    /// The same with receivers that listen elsewhere; before anything is attached.
    #[must_use]
    pub fn forwarding_to(mut self, receivers: Receivers) -> Engine {
        self.receivers = receivers;
        self
    }

    /// Takes over the read ends of a run's pipes, which are non-blocking. They are read when every earlier
    /// run of the service is finished or at its end, so that the output keeps its order. Wakes nobody: the
    /// first output does.
    pub fn attach(
        &self,
        service: &Name,
        run: RunId,
        spec: &LogSpec,
        stdout: Option<OwnedFd>,
        stderr: Option<OwnedFd>,
    ) {
        let post = match self.post(spec) {
            Ok(post) => post,
            Err(e) => {
                return tracing::error!("{service}: cannot start a log writer: {e}; its output is not read");
            }
        };
        let mut books = self.register.books();
        let account = books.account(service);
        let fresh = || Home { post: post.clone(), feeds: [None, None], runs: 0 };
        let home = books.homes.entry(service.clone()).or_insert_with(fresh);
        if !Arc::ptr_eq(&home.post, &post) && home.runs == 0 {
            // Its folder is on another file system now.
            leave(home);
            *home = fresh();
        }
        let (post, mut pipes, mut feeds) = (home.post.clone(), 0, Vec::new());
        for (which, pipe) in [stdout, stderr].into_iter().enumerate() {
            let Some(pipe) = pipe else { continue };
            let feed = home.feeds[which].get_or_insert_with(|| {
                let token = self.tokens.fetch_add(1, Relaxed);
                let feed = Feed::new(service.clone(), which, token, account.clone(), spec.clone());
                let feed = Arc::new(feed);
                post.add(feed.clone());
                feed
            });
            pipes += 1;
            feeds.push((feed.clone(), pipe));
        }
        if pipes == 0 {
            return;
        }
        home.runs += 1;
        books.runs.insert(run, Run { service: service.clone(), pipes, finishing: false });
        drop(books);
        self.forward(&post, spec);
        for (feed, pipe) in feeds {
            feed.update(spec);
            let mut intake = feed.intake();
            let mut source = Source::new(run, pipe);
            source.known = post.watches.arm(source.pipe.as_fd(), feed.token, false, Arm::Once).is_ok();
            let watched = source.known;
            intake.queue.push_back(source);
            drop(intake);
            if !watched || self.register.vault.has_left(service, feed.which) {
                post.tell(Note::Turn(feed.token));
            }
        }
    }

    /// The writer for the file system that the folder is on.
    fn post(&self, spec: &LogSpec) -> io::Result<Arc<Post>> {
        let mut staff = self.staff();
        let device = staff.mounts.as_mut().map(|m| m.device(&spec.dir)).unwrap_or_default();
        if let Some(post) = staff.posts.get(&device) {
            return Ok(post.clone());
        }
        if staff.threads.is_empty() {
            let guard = Guard::new(self.register.clone())?;
            staff.threads.push(thread::Builder::new().name("logs-guard".into()).spawn(move || guard.run())?);
        }
        let poller = Poller::new()?;
        let post = Arc::new(Post::new(poller.watches(), poller.nudge()));
        let writer = Writer::new(self.register.clone(), post.clone(), poller, self.housekeeper.clone())?;
        let thread = thread::Builder::new().name(format!("logs-{device}")).spawn(move || writer.run())?;
        self.register.alarm.watch(post.clone());
        staff.threads.push(thread);
        staff.posts.insert(device, post.clone());
        Ok(post)
    }

    /// Sees to it that there is somebody who forwards, if that is wanted.
    fn forward(&self, post: &Post, spec: &LogSpec) {
        if spec.forward.is_empty() || post.desk.get().is_some() {
            return;
        }
        let started = Forwarder::new(self.register.clone(), &self.receivers).and_then(|forwarder| {
            let desk = forwarder.desk();
            let thread = thread::Builder::new().name("logs-forward".into()).spawn(move || forwarder.run())?;
            Ok((desk, thread))
        });
        match started {
            Ok((desk, thread)) => {
                self.staff().forwarders.push(thread);
                // Nobody else makes one.
                let _ = post.desk.set(desk);
            }
            Err(e) => tracing::error!("cannot start what forwards logs: {e}; they are in their files only"),
        }
    }

    fn staff(&self) -> MutexGuard<'_, Staff> {
        self.staff.lock().unwrap_or_else(|p| p.into_inner())
    }

    /// Every writer of the run is gone, or does not matter any more: what is in its pipes now is the rest.
    pub fn finish(&self, run: RunId) {
        let mut books = self.register.books();
        let Some(state) = books.runs.get_mut(&run) else {
            drop(books);
            return self.register.report(Report::Finished { run });
        };
        state.finishing = true;
        let service = state.service.clone();
        let Some(home) = books.homes.get(&service) else { return };
        let (post, feeds) = (home.post.clone(), home.feeds.clone());
        drop(books);
        let now = clock::monotonic_us();
        for feed in feeds.into_iter().flatten() {
            if feed.intake().finish(run, now) {
                post.tell(Note::Turn(feed.token));
            }
        }
    }

    /// Other limits, from the next write on. Files beyond them go with the next rotation.
    pub fn update(&self, service: &Name, spec: &LogSpec) {
        let home =
            self.register.books().homes.get(service).map(|home| (home.post.clone(), home.feeds.clone()));
        let Some((post, feeds)) = home else { return };
        self.forward(&post, spec);
        for feed in feeds.iter().flatten() {
            feed.update(spec);
            post.desk.get().iter().for_each(|desk| desk.tell(feed));
        }
    }

    /// The service is gone for good, and all its runs are finished. Its files stay.
    pub fn forget(&self, service: &Name) {
        let home = self.register.books().forget(service);
        home.iter().for_each(leave);
    }

    /// Closes every file; what is written next goes to the file that bears the name then.
    /// The receiver ends when no service's file that was open is written any more.
    pub fn reopen(&self) -> oneshot::Receiver<()> {
        // That is for files that others write, such as the daemon's own log.
        self.housekeeper.reopen();
        let (done, ended) = oneshot::channel();
        let done = Arc::new(done);
        self.staff().posts.values().for_each(|post| post.tell(Note::Reopen(done.clone())));
        ended
    }

    /// The plan in force: its limits for all logs together hold from now on, also for those that nobody writes.
    pub fn host(&self, plan: &Plan) {
        self.housekeeper.host(plan);
    }

    /// The service's totals; they stay the same object until it is forgotten.
    pub fn counters(&self, service: &Name) -> Arc<Counters> {
        self.register.books().account(service).counters.clone()
    }

    /// Rises after bytes were written or a file was rotated.
    pub fn changed(&self, service: &Name) -> watch::Receiver<u64> {
        self.register.books().account(service).changed.subscribe()
    }

    /// How often the writers have woken up; stands still while nothing is written.
    pub fn turns(&self) -> u64 {
        self.staff().posts.values().map(|post| post.turns.load(Relaxed)).sum()
    }

    /// Writes what is in the pipes now and ends the threads. What comes later stays in the pipes. Waits for
    /// file systems.
    pub fn stop(self) {
        self.end();
        let threads = std::mem::take(&mut self.staff().threads);
        // It only fails if a thread panicked, which has been printed.
        threads.into_iter().for_each(|thread| drop(thread.join()));
        // What was written last is there to forward now.
        self.dismiss();
        let forwarders = std::mem::take(&mut self.staff().forwarders);
        forwarders.into_iter().for_each(|thread| drop(thread.join()));
    }

    fn end(&self) {
        self.staff().posts.values().for_each(|post| post.tell(Note::Stop));
        self.register.alarm.stop();
    }

    fn dismiss(&self) {
        self.staff().posts.values().filter_map(|post| post.desk.get()).for_each(|desk| desk.stop());
    }
}

fn leave(home: &Home) {
    for feed in home.feeds.iter().flatten() {
        home.post.tell(Note::Forget(feed.token));
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.end();
        self.dismiss();
    }
}
