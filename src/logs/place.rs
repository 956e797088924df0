//! Where the files of one log are. A place is a path that is opened anew for each use, below a folder that may
//! be trusted, and never through a symbolic link; what is done there goes through the opened folder.

use super::{
    history::{History, Listed},
    rotate::parse,
};
use crate::sys::folder::Folder;
use std::{
    cmp::Ordering,
    collections::BTreeSet,
    io,
    path::{Path, PathBuf},
};

/// See the head of this file.
#[derive(Debug, Clone, Eq)]
pub(super) struct Place {
    /// The folder of a service, or of the daemon's own log.
    pub(super) dir: PathBuf,
    /// A folder in it that has the files.
    pub(super) below: Option<String>,
    /// The file that is written.
    pub(super) live: String,
    /// What the names of rotated files begin with.
    pub(super) prefix: String,
}

impl Ord for Place {
    /// By bytes: paths compare themselves part by part, which took most of a look at a thousand logs.
    fn cmp(&self, other: &Place) -> Ordering {
        self.key().cmp(&other.key())
    }
}

impl PartialEq for Place {
    fn eq(&self, other: &Place) -> bool {
        self.key() == other.key()
    }
}

impl PartialOrd for Place {
    fn partial_cmp(&self, other: &Place) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Place {
    /// That of a service's stdout, or of its separate stderr.
    pub(super) fn of(dir: impl Into<PathBuf>, stderr: bool) -> Place {
        let below = stderr.then(|| "stderr".into());
        Place { dir: dir.into(), below, live: "current".into(), prefix: String::new() }
    }

    /// That of a file with a name of its own, `dir/NAME.log`: its rotated ones are `dir/NAME-…`.
    pub(super) fn file(path: &Path) -> Option<Place> {
        let (dir, live) = (path.parent()?.into(), path.file_name()?.to_str()?);
        let prefix = format!("{}-", live.strip_suffix(".log").unwrap_or(live));
        Some(Place { dir, below: None, live: live.into(), prefix })
    }

    fn key(&self) -> impl Ord + '_ {
        (self.dir.as_os_str().as_encoded_bytes(), &self.below, &self.live, &self.prefix)
    }

    /// The folder.
    pub(super) fn path(&self) -> PathBuf {
        self.below.as_ref().map_or_else(|| self.dir.clone(), |name| self.dir.join(name))
    }

    pub(super) fn open(&self) -> io::Result<Folder> {
        let dir = Folder::open(&self.dir)?;
        match &self.below {
            Some(name) => dir.sub(name),
            None => Ok(dir),
        }
    }

    /// Opens it and makes it first if it is not there.
    pub(super) fn create(&self) -> io::Result<Folder> {
        let dir = Folder::create(&self.dir)?;
        match &self.below {
            Some(name) => dir.create_sub(name),
            None => Ok(dir),
        }
    }

    /// The rotated files in `folder`, which is this place; see [`History::new`].
    pub(super) fn history(&self, folder: &Folder, busy: &BTreeSet<String>) -> io::Result<History> {
        let ours = folder.names()?.into_iter().filter(|name| parse(&self.prefix, name).is_some());
        let listing = ours.filter_map(|name| {
            let facts = folder.facts(&name).ok().filter(|f| f.regular)?;
            Some(Listed { name, size: facts.size, modified_ms: facts.modified_ms })
        });
        Ok(History::new(&self.prefix, listing, busy))
    }
}
