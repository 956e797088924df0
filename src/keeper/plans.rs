//! The plans that are held: each a sealed memfd that nobody can change, for launchers and managers to map.

#![forbid(unsafe_code)]

use super::order::Kind;
use crate::{
    plan::{DaemonSpec, Generation, image::Image},
    sys::{self, memory::Mapping},
};
use std::{
    collections::BTreeMap,
    os::fd::{AsFd, OwnedFd},
    rc::Rc,
};

/// The plans by generation.
#[derive(Debug)]
pub(super) struct Plans {
    held: BTreeMap<Generation, Held>,
    /// The one that a new manager is told to run.
    pub(super) current: Generation,
    last: Generation,
}

/// One plan.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) fd: Rc<OwnedFd>,
    image: Mapping,
    /// No longer launched from: goes with its last run.
    dropped: bool,
}

impl Held {
    /// Takes what a loader left behind; the error is a clause for people.
    pub(super) fn accept(fd: OwnedFd) -> Result<(Held, DaemonSpec), String> {
        let image = Mapping::new(fd.as_fd())
            .map_err(|e| format!("the loader's plan is not sealed: {}", sys::describe(e)))?;
        let spec = Image::new(&image).and_then(|i| i.daemon()).map_err(|e| e.to_string())?;
        Ok((Held { fd: Rc::new(fd), image, dropped: false }, spec))
    }

    /// As before its keeper executed itself anew.
    pub(super) fn again(self, dropped: bool) -> Held {
        Held { dropped, ..self }
    }

    /// Its bytes.
    pub(super) fn image(&self) -> &[u8] {
        &self.image
    }

    /// Nothing more is launched from it.
    pub(super) fn dropped(&self) -> bool {
        self.dropped
    }

    /// Which launchers are for this entry.
    pub(super) fn kind(&self, entry: u32) -> Kind {
        match Image::new(&self.image).and_then(|i| i.is_restricted(entry)) {
            Ok(true) => Kind::Restricted,
            // An entry that is not there, the launcher refuses.
            Ok(false) | Err(_) => Kind::Free,
        }
    }
}

impl Plans {
    /// Holds the first plan, generation 1.
    pub(super) fn new(first: Held) -> Plans {
        let one = Generation(1);
        Plans { held: BTreeMap::from([(one, first)]), current: one, last: one }
    }

    /// Holds what an earlier keeper held; `None` where the current one is missing.
    pub(super) fn again(
        held: impl IntoIterator<Item = (Generation, Held)>,
        current: Generation,
        last: Generation,
    ) -> Option<Plans> {
        let held: BTreeMap<_, _> = held.into_iter().collect();
        held.contains_key(&current).then_some(Plans { held, current, last })
    }

    /// The highest generation ever.
    pub(super) fn last(&self) -> Generation {
        self.last
    }

    /// Holds one more.
    pub(super) fn add(&mut self, plan: Held) -> Generation {
        self.last = Generation(self.last.0 + 1);
        self.held.insert(self.last, plan);
        self.last
    }

    pub(super) fn get(&self, generation: Generation) -> Option<&Held> {
        self.held.get(&generation)
    }

    /// All of them, the oldest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = (Generation, &Held)> {
        self.held.iter().map(|(g, h)| (*g, h))
    }

    /// The plan that a new manager is told to run, from now on; false if it is not held.
    pub(super) fn adopt(&mut self, generation: Generation) -> bool {
        let held = self.held.get_mut(&generation);
        if let Some(h) = held {
            h.dropped = false;
            self.current = generation;
            return true;
        }
        false
    }

    /// Nothing more is launched from it; false if it is not held or is the current one.
    pub(super) fn drop_plan(&mut self, generation: Generation) -> bool {
        match self.held.get_mut(&generation) {
            Some(h) if generation != self.current => {
                h.dropped = true;
                true
            }
            _ => false,
        }
    }

    /// Lets go of dropped plans that no run refers to any more.
    pub(super) fn sweep(&mut self, in_use: impl Fn(Generation) -> bool) {
        let current = self.current;
        self.held.retain(|g, h| !h.dropped || *g == current || in_use(*g));
    }
}
