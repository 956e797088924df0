//! The end of a run's own folders (`runtime-dirs`): a launcher removes them once nothing of the run is left, and the
//! next run of that service is not launched before.

#![forbid(unsafe_code)]

use super::{errand::Errand, state::Keeper};
use crate::{
    plan::{Name, Place, RunId},
    sys::{Errno, below},
};

/// Folders that are being removed, and who waits for that.
#[derive(Debug, Default)]
pub(super) struct Tidying {
    pub(super) folders: Vec<Place>,
    next: Vec<RunId>,
}

impl Keeper {
    /// The run has these folders; they go with it.
    pub(super) fn keep_folders(&mut self, id: RunId, folders: Vec<Place>) {
        if let Some(run) = self.runs.get_mut(&id) {
            run.folders = folders;
        }
    }

    /// Nothing of the run is left but its folders.
    pub(super) fn tidy(&mut self, id: RunId) {
        let Some(run) = self.runs.get_mut(&id).filter(|r| !r.folders.is_empty()) else { return };
        let (service, folders) = (run.service.clone(), std::mem::take(&mut run.folders));
        self.tidying.entry(service.clone()).or_default().folders.extend(folders);
        self.send_out(Errand::Tidy(service));
    }

    /// Launches a run, now or once the folders of the one before are gone.
    pub(super) fn launch_when_tidy(&mut self, id: RunId, service: &Name) {
        match self.tidying.get_mut(service) {
            Some(tidying) => tidying.next.push(id),
            None => self.send_out(Errand::Main(id)),
        }
    }

    /// The folders are gone, but for those that could not be removed.
    pub(super) fn tidied(&mut self, service: &Name, failed: &[(Place, i32)]) {
        for (place, errno) in failed {
            let what = format!("cannot remove {}, a folder of {service}", place.path().display());
            self.warn(&what, Errno::from_raw(*errno));
        }
        let tidying = self.tidying.remove(service).unwrap_or_default();
        tidying.next.into_iter().for_each(|id| self.send_out(Errand::Main(id)));
    }

    /// Removes all of them here and now, as nothing else is to be done any more.
    pub(super) fn tidy_all(&mut self) {
        let ended = std::mem::take(&mut self.tidying).into_values().flat_map(|t| t.folders);
        let of_runs = self.runs.values_mut().flat_map(|r| std::mem::take(&mut r.folders));
        for (place, errno) in remove(&ended.chain(of_runs).collect::<Vec<_>>()) {
            let why = Errno::from_raw(errno).desc();
            super::state::complain(&format!("cannot remove {}: {why}", place.path().display()));
        }
    }
}

/// Removes them; those that it could not, and why.
pub(super) fn remove(folders: &[Place]) -> Vec<(Place, i32)> {
    let one =
        |place: &Place| below::remove(&place.base, &place.name).err().map(|e| (place.clone(), e as i32));
    folders.iter().filter_map(one).collect()
}
