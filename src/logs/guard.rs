//! The guard: notices a writer that its file system does not let go of, and keeps the services from waiting for
//! it. Sleeps while no writer works. Never touches a file.

use super::{
    feed::{Feed, Post},
    intake::Dropper,
    register::Register,
};
use crate::sys::{
    clock,
    poll::{Interest, Poll},
    process,
    timer::Timer,
};
use std::{
    io,
    os::fd::AsFd,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

/// Between looks at writers that work, in milliseconds.
const LOOK_MS: u64 = 50;
/// A writer that has not got on for so long, and waits in the kernel, is stuck. Shorter pauses are usual where
/// a disk is busy, and the services' pipes bridge them.
const STUCK_MS: u64 = 200;
/// Bounds of the time between looks at the pipes of a stuck writer.
const PIPES_MS: (u64, u64) = (5, 50);
/// Whose trouble it is, beside stdout and stderr.
const GUARD: usize = 2;

/// Wakes the guard. Shared by all writers.
#[derive(Debug)]
pub(super) struct Alarm {
    timer: Timer,
    /// The guard will look without being told.
    set: AtomicBool,
    stop: AtomicBool,
    posts: Mutex<Vec<Arc<Post>>>,
}

impl Alarm {
    pub(super) fn new() -> io::Result<Alarm> {
        let (set, stop) = (AtomicBool::new(false), AtomicBool::new(false));
        Ok(Alarm { timer: Timer::new()?, set, stop, posts: Mutex::default() })
    }

    /// A writer has begun to work.
    pub(super) fn working(&self) {
        if !self.set.swap(true, SeqCst) {
            self.set_in(LOOK_MS);
        }
    }

    fn set_in(&self, ms: u64) {
        // It fails for times that do not exist only.
        let _ = self.timer.set(Some(clock::boottime_ms() + ms));
    }

    pub(super) fn watch(&self, post: Arc<Post>) {
        self.posts().push(post);
    }

    pub(super) fn stop(&self) {
        self.stop.store(true, SeqCst);
        self.set_in(0);
    }

    fn posts(&self) -> MutexGuard<'_, Vec<Arc<Post>>> {
        self.posts.lock().unwrap_or_else(|p| p.into_inner())
    }
}

/// What the guard knows of one writer.
#[derive(Debug, Default)]
struct Watch {
    progress: u64,
    since: u64,
    look: u64,
    stuck: bool,
    /// Feeds whose trouble was told.
    told: Vec<Arc<Feed>>,
}

/// See the head of this file.
pub(super) struct Guard {
    register: Arc<Register>,
    poll: Poll,
    dropper: Dropper,
    watches: Vec<Watch>,
}

impl Guard {
    pub(super) fn new(register: Arc<Register>) -> io::Result<Guard> {
        let poll = Poll::new(1)?;
        poll.add(register.alarm.timer.as_fd(), Interest::Read, 0)?;
        let dropper = Dropper::new(&register.vault)?;
        Ok(Guard { register, poll, dropper, watches: Vec::new() })
    }

    pub(super) fn run(mut self) {
        let register = self.register.clone();
        let alarm = &register.alarm;
        loop {
            if let Err(e) = self.poll.wait(None) {
                return tracing::error!("cannot wait for the log writers: {}", crate::sys::describe(e));
            }
            alarm.timer.clear();
            if alarm.stop.load(SeqCst) {
                return;
            }
            match self.look() {
                Some(ms) => alarm.set_in(ms),
                None => {
                    alarm.set.store(false, SeqCst);
                    // One that began before that store has left the alarm to us.
                    if alarm.posts().iter().any(|p| p.progress().is_some()) {
                        alarm.working();
                    }
                }
            }
        }
    }

    /// Looks at every writer; when to look again, `None`: none of them works.
    fn look(&mut self) -> Option<u64> {
        let posts = self.register.alarm.posts().clone();
        self.watches.resize_with(posts.len(), Watch::default);
        let now = clock::boottime_ms();
        let mut next = None;
        for (post, watch) in posts.iter().zip(&mut self.watches) {
            let progress = post.progress();
            if progress != Some(watch.progress) {
                watch.progress = progress.unwrap_or(0);
                watch.since = now;
                watch.stuck = false;
                for feed in watch.told.drain(..) {
                    self.register.trouble(&feed, GUARD, None);
                }
            } else if !watch.stuck && now >= watch.since + STUCK_MS {
                watch.stuck = process::thread_waits(post.thread.load(SeqCst));
                watch.look = PIPES_MS.0;
            }
            if watch.stuck {
                attend(&self.register, post, watch, &mut self.dropper);
            }
            let look = if watch.stuck { watch.look } else { LOOK_MS };
            next = progress.map(|_| look).into_iter().chain(next).min();
        }
        next
    }
}

/// Does for the feeds of a stuck writer what it would do itself if it could.
fn attend(register: &Register, post: &Post, watch: &mut Watch, dropper: &mut Dropper) {
    let now = clock::monotonic_us();
    let mut busy = false;
    for feed in post.all() {
        let shed = match feed.shed(now, &register.vault, dropper) {
            Ok(shed) => shed,
            Err(e) => {
                tracing::error!("{}: cannot look after its output: {e}", feed.service);
                continue;
            }
        };
        busy |= shed.dropped.bytes > 0;
        let waits = shed.fill > 0 || shed.dropped.bytes > 0;
        shed.retired.into_iter().for_each(|source| register.retire(source, post));
        if waits && !watch.told.iter().any(|t| t.token == feed.token) {
            let path = feed.folder().join("current");
            let message =
                format!("cannot write {}: the file system does not answer; output waits", path.display());
            register.trouble(&feed, GUARD, Some(&message));
            watch.told.push(feed);
        }
    }
    watch.look = if busy { PIPES_MS.0 } else { (watch.look * 2).min(PIPES_MS.1) };
}
