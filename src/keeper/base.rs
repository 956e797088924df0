//! The cgroup folder below which every run has a folder of its own, `NAME.RUN`: finding it, clearing it of
//! what an earlier keepd left, and removing it. Only folders and membership; for controllers see `control`.

#![forbid(unsafe_code)]

use super::control;
use crate::sys::{self, Errno, cgroup, clock, file, pidfd, process, reap};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeSet,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

/// How long processes of an earlier keepd may take to die of SIGKILL.
const CLEAR_MS: u64 = 5_000;
/// The folder in which it is tried out whether a child can be born in a cgroup; no service is named so,
/// because those of runs end in a number.
const PROBE: &str = "probe";

/// Where the folder is.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Place {
    pub(super) path: PathBuf,
    /// Its path as /proc/PID/cgroup has it.
    seen: String,
    /// Children cannot be born in a cgroup here and must join it.
    pub(super) join: bool,
}

/// The folder.
#[derive(Debug)]
pub(super) struct Base {
    pub(super) dir: OwnedFd,
    pub(super) at: Place,
    lock: Option<file::FolderLock>,
}

impl Base {
    /// Opens (creates) the folder of the keepd that has this runtime folder. The error is a clause for
    /// people: why this host or user cannot have it.
    pub(super) fn open(proof: process::SingleThread, runtime_dir: &Path) -> Result<Base, String> {
        let own = cgroup::own_folder()?;
        let name = folder_name(runtime_dir);
        let path = own.join(&name);
        let because =
            |e: Errno| format!("{} cannot be used as a cgroup: {}", path.display(), sys::describe(e));
        let parent = file::open_dir(&own).map_err(because)?;
        match file::make_dir_at(parent.as_fd(), &name) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(e) => return Err(because(e)),
        }
        let text = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let seen = format!("{}/{name}", cgroup::membership(&text).unwrap_or("").trim_end_matches('/'));
        let mut base = Base::new(Place { path: path.clone(), seen, join: false }).map_err(because)?;
        base.at.join = base.probe(proof).map_err(because)?;
        control::prepare(&path);
        Ok(base)
    }

    /// Holds the folder against any other keepd: the lock in the runtime folder may have been wiped away, and what
    /// runs here is not to be ended by one that does not know of it. Where nothing can be locked, that lock has to do.
    /// The error is a clause for people.
    pub(super) fn claim(&mut self) -> Result<(), String> {
        self.lock = match file::lock_folder(&self.at.path) {
            Ok(lock) => Some(lock),
            Err(Errno::EWOULDBLOCK) => {
                return Err(format!("another keepd holds the cgroup {}", self.at.path.display()));
            }
            Err(_) => None,
        };
        Ok(())
    }

    /// Opens the folder where another process has found it.
    pub(super) fn new(at: Place) -> sys::Result<Base> {
        Ok(Base { dir: file::open_dir(&at.path)?, at, lock: None })
    }

    /// Tries out how a child gets into a cgroup: whether it must join.
    fn probe(&self, proof: process::SingleThread) -> sys::Result<bool> {
        let dir = self.dir.as_fd();
        match file::make_dir_at(dir, PROBE) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(e) => return Err(e),
        }
        let folder = file::open_dir_at(dir, PROBE)?;
        let (child, must_join) = match process::spawn(proof, Some(folder.as_fd()), || 0) {
            Err(e) if cgroup::must_join(e) => {
                let join = || cgroup::join(dir, PROBE).map_or_else(|e| e as i32, |()| 0);
                (process::spawn(proof, None, join)?, true)
            }
            born => (born?, false),
        };
        while !pidfd::wait_end(child.pidfd.as_fd(), 60_000)? {}
        let ended = reap::reap(child.pidfd.as_fd())?;
        file::remove_dir_at(dir, PROBE)?;
        match ended {
            Some((reap::Ended::Code(0), _)) => Ok(must_join),
            Some((reap::Ended::Code(errno), _)) => Err(Errno::from_raw(errno)),
            _ => Err(Errno::EIO),
        }
    }

    /// Whether a process with this text in its /proc/PID/cgroup is in the folder `name` or below.
    pub(super) fn holds(&self, name: &str, text: &str) -> bool {
        cgroup::membership(text)
            .and_then(|at| at.strip_prefix(self.at.seen.as_str()))
            .and_then(|at| at.strip_prefix('/'))
            .and_then(|at| at.strip_prefix(name))
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// Every cgroup of the run folder `name`, itself included, the deepest first; paths below the base.
    pub(super) fn folders(&self, name: &str) -> Vec<String> {
        let mut found = vec![name.to_owned()];
        let mut next = 0;
        while let Some(at) = found.get(next).cloned() {
            found.extend(self.children(&at));
            next += 1;
        }
        found.reverse();
        found
    }

    fn children(&self, name: &str) -> Vec<String> {
        let Ok(entries) = std::fs::read_dir(self.at.path.join(name)) else { return Vec::new() };
        entries
            .flatten()
            .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
            .filter_map(|e| e.file_name().into_string().ok())
            .map(|e| if name.is_empty() { e } else { format!("{name}/{e}") })
            .collect()
    }

    /// Removes a run folder and what the service made below it. EBUSY: it has processes.
    pub(super) fn remove(&self, name: &str) -> sys::Result<()> {
        match file::remove_dir_at(self.dir.as_fd(), name) {
            Ok(()) | Err(Errno::ENOENT) => return Ok(()),
            Err(Errno::EBUSY) if !self.children(name).is_empty() => {}
            Err(e) => return Err(e),
        }
        for folder in self.folders(name) {
            match file::remove_dir_at(self.dir.as_fd(), &folder) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Kills and removes every run of an earlier keepd but those to `spare`, so that no service ever runs twice; a
    /// sentence each.
    pub(super) fn clear(self: &std::rc::Rc<Self>, spare: &BTreeSet<String>) -> Vec<String> {
        let mut said = Vec::new();
        for name in self.children("").into_iter().filter(|name| !spare.contains(name)) {
            let count: usize = self
                .folders(&name)
                .iter()
                .map(|f| cgroup::processes(self.dir.as_fd(), f).map_or(0, |p| p.len()))
                .sum();
            let tree = super::tree::Tree::Cgroup {
                base: self.clone(),
                name: name.clone(),
                removed: Default::default(),
            };
            let gone = empty_within(&tree, CLEAR_MS);
            if !gone {
                said.push(format!(
                    "cannot end {name}, left behind by an earlier keepd: its processes do not die of SIGKILL"
                ));
            } else if count > 0 {
                said.push(format!("killed {name}, left behind by an earlier keepd ({count} processes)"));
            }
            if gone && let Err(e) = self.remove(&name) {
                said.push(format!("cannot remove the cgroup {name}: {}", sys::describe(e)));
            }
        }
        said
    }

    /// Removes the folder itself, if nothing is left in it.
    pub(super) fn close(&self) {
        for name in self.children("") {
            let _ = self.remove(&name);
        }
        // What does not die keeps it; the next keepd clears it.
        if std::fs::remove_dir(&self.at.path).is_ok() {
            control::undo(&self.at.path);
        }
    }
}

/// Kills a tree until it is empty, at most so long. Waits: for start and end only.
pub(super) fn empty_within(tree: &super::tree::Tree, ms: u64) -> bool {
    let until = clock::boottime_ms() + ms;
    loop {
        if tree.populated(true) == Ok(false) {
            return true;
        }
        if clock::boottime_ms() >= until {
            return false;
        }
        let _ = tree.kill(true);
        // Nothing to wait on that every host has: look again soon.
        let _ = sys::poll::Poll::new(1).and_then(|mut p| p.wait(Some(5)));
    }
}

/// `keepd` for the system's keepd, else `keepd-` and a hash of the runtime folder.
fn folder_name(runtime_dir: &Path) -> String {
    if runtime_dir == Path::new("/run/keepd") {
        return "keepd".into();
    }
    let fnv = |h: u32, b: &u8| (h ^ u32::from(*b)).wrapping_mul(0x0100_0193);
    let hash = runtime_dir.as_os_str().as_encoded_bytes().iter().fold(0x811c_9dc5, fnv);
    format!("keepd-{hash:08x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_is_named_after_the_runtime_folder() {
        assert_eq!(folder_name(Path::new("/run/keepd")), "keepd");
        // FNV-1a's published value of "a".
        assert_eq!(folder_name(Path::new("a")), "keepd-e40c292c");
    }

    #[test]
    fn membership_is_of_the_folder_and_below_only() {
        let dir = file::open_dir(Path::new("/proc")).unwrap();
        let base =
            Base { dir, at: Place { path: "/x".into(), seen: "/a/keepd".into(), join: false }, lock: None };
        assert!(base.holds("web.1", "4:cpu:/\n0::/a/keepd/web.1\n"));
        assert!(base.holds("web.1", "0::/a/keepd/web.1/sub\n"));
        assert!(!base.holds("web.1", "0::/a/keepd/web.12\n"));
        assert!(!base.holds("web.1", "0::/a/keepd\n"));
        assert!(!base.holds("web.1", "1:cpu:/a/keepd/web.1\n"));
    }
}
