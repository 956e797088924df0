//! Being told that files change (inotify).

use super::{Errno, Result};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    path::Path,
};

/// A set of watched files.
#[derive(Debug)]
pub struct Watches(Inotify);

/// One watched file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Watch(WatchDescriptor);

impl Watches {
    /// An empty set.
    pub fn new() -> Result<Watches> {
        Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).map(Watches)
    }

    /// Watches a file for modification. What changed before this call is not reported: look again after it.
    pub fn add(&self, path: &Path) -> Result<Watch> {
        self.0.add_watch(path, AddWatchFlags::IN_MODIFY).map(Watch)
    }

    /// No longer watches it.
    pub fn remove(&self, watch: Watch) {
        // It has left by itself if the file was removed.
        let _ = self.0.rm_watch(watch.0);
    }

    /// The files that changed since the last call. `None`: some may be missing, look at all of them.
    pub fn changed(&self) -> Option<Vec<Watch>> {
        let mut all = Vec::new();
        loop {
            match self.0.read_events() {
                Ok(events) => {
                    if events.iter().any(|e| e.mask.contains(AddWatchFlags::IN_Q_OVERFLOW)) {
                        return None;
                    }
                    all.extend(events.into_iter().map(|e| Watch(e.wd)));
                }
                Err(Errno::EINTR) => {}
                Err(_) => return Some(all),
            }
        }
    }
}

impl AsFd for Watches {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Watches {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}
