//! Who is whose: services and their feeds, runs and their pipes, accounts. What writers, guard and outside tell
//! one another goes through here; nothing here touches a pipe or a file.

use super::{
    engine::Report,
    feed::{Account, Feed, Post},
    guard::Alarm,
    intake::Source,
    vault::Vault,
};
use crate::plan::{Name, RunId};
use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard},
};

/// Where a service's output goes.
#[derive(Debug)]
pub(super) struct Home {
    pub(super) post: Arc<Post>,
    /// Its stdout and stderr, once there are any.
    pub(super) feeds: [Option<Arc<Feed>>; 2],
    /// Runs whose pipes are not all done.
    pub(super) runs: u32,
}

/// How far a run is.
#[derive(Debug)]
pub(super) struct Run {
    pub(super) service: Name,
    pub(super) pipes: u32,
    pub(super) finishing: bool,
}

#[derive(Debug, Default)]
pub(super) struct Books {
    pub(super) homes: HashMap<Name, Home>,
    pub(super) runs: HashMap<RunId, Run>,
    accounts: HashMap<Name, Arc<Account>>,
}

impl Books {
    pub(super) fn account(&mut self, service: &Name) -> Arc<Account> {
        self.accounts.entry(service.clone()).or_default().clone()
    }

    pub(super) fn forget(&mut self, service: &Name) -> Option<Home> {
        self.accounts.remove(service);
        self.homes.remove(service)
    }
}

/// What everybody here has in common.
pub(super) struct Register {
    pub(super) vault: Vault,
    pub(super) alarm: Alarm,
    report: Box<dyn Fn(Report) + Send + Sync>,
    books: Mutex<Books>,
}

impl fmt::Debug for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Register").field("books", &self.books).finish_non_exhaustive()
    }
}

impl Register {
    pub(super) fn new(vault: Vault, alarm: Alarm, report: Box<dyn Fn(Report) + Send + Sync>) -> Register {
        Register { vault, alarm, report, books: Mutex::default() }
    }

    pub(super) fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(|p| p.into_inner())
    }

    pub(super) fn report(&self, report: Report) {
        (self.report)(report);
    }

    /// A pipe is done, and with it perhaps its run.
    pub(super) fn retire(&self, source: Source, post: &Post) {
        if source.known {
            post.watches.remove(std::os::fd::AsFd::as_fd(&source.pipe));
        }
        let run = source.run;
        let mut books = self.books();
        let Some(state) = books.runs.get_mut(&run) else { return };
        state.pipes -= 1;
        if state.pipes > 0 {
            return;
        }
        let Some(over) = books.runs.remove(&run) else { return };
        if let Some(home) = books.homes.get_mut(&over.service) {
            home.runs -= 1;
        }
        drop(books);
        if over.finishing {
            self.report(Report::Finished { run });
        }
    }

    /// Notes a feed's trouble or its end, as its own (`whose` is its number) or as the guard sees it (2).
    pub(super) fn trouble(&self, feed: &Feed, whose: usize, trouble: Option<&str>) {
        if let Some(message) = feed.account.set_trouble(whose, trouble) {
            self.report(Report::Trouble { service: feed.service.clone(), message });
        }
    }
}
