//! Being told that runs may use much memory: their memory.events change. Each run is told of once; what follows is the
//! machine's business.

use crate::{
    plan::RunId,
    sys::{
        self,
        watch::{Watch, Watches},
    },
};
use std::{collections::HashMap, future::pending, io, path::Path};
use tokio::io::unix::AsyncFd;

/// The runs that are listened to. Nothing is open before the first.
#[derive(Debug, Default)]
pub(super) struct Listener {
    watches: Option<AsyncFd<Watches>>,
    runs: HashMap<Watch, RunId>,
}

impl Listener {
    /// Listens to the run whose cgroup this is. What changed before is not told.
    pub(super) fn add(&mut self, run: RunId, cgroup: &Path) -> io::Result<()> {
        let watches = match &mut self.watches {
            Some(watches) => watches,
            none => none.insert(sys::ready::watches(Watches::new()?)?),
        };
        let watch = watches.get_ref().add(&cgroup.join("memory.events"))?;
        self.runs.insert(watch, run);
        Ok(())
    }

    /// Listens to it no more.
    pub(super) fn remove(&mut self, run: RunId) {
        self.runs.retain(|watch, of| {
            if *of == run
                && let Some(watches) = &self.watches
            {
                watches.get_ref().remove(*watch);
            }
            *of != run
        });
    }

    /// Waits until there is something to tell, for ever where nobody is listened to.
    pub(super) async fn heard(&self) -> io::Result<()> {
        match &self.watches {
            Some(watches) => watches.readable().await.map(|mut ready| ready.clear_ready()),
            None => pending().await,
        }
    }

    /// The runs that there is something to tell of; they are listened to no more.
    pub(super) fn take(&mut self) -> Vec<RunId> {
        let Some(watches) = &self.watches else { return Vec::new() };
        let runs: Vec<RunId> = match watches.get_ref().changed() {
            Some(changed) => changed.iter().filter_map(|watch| self.runs.get(watch).copied()).collect(),
            None => self.runs.values().copied().collect(),
        };
        runs.iter().for_each(|run| self.remove(*run));
        runs
    }
}
