//! What a launcher makes ready for a service before it is born: the program that is checked, its credentials, its
//! folders. A service that asks for none of it pays nothing here.

#![forbid(unsafe_code)]

use super::{
    step::{Failure, Step},
    verify::{self, Known},
};
use crate::{
    plan::{Credentials, LaunchSpec, Place},
    sys::{Errno, below, detached::Detached, fd, file, identity, trusted, trusted::Reader},
};
use std::{
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

/// All credentials of a service together, in bytes.
const CREDENTIALS_MAX: u64 = 1 << 20;

/// What was made ready. Folders of a run that does not come about go with it.
#[derive(Debug, Default)]
pub(super) struct Provided {
    /// A file system with the credentials, mounted nowhere.
    pub(super) credentials: Option<OwnedFd>,
    /// The program that was checked.
    pub(super) program: Option<OwnedFd>,
    made: Vec<Place>,
}

impl Provided {
    /// For a main process that executes `program`.
    pub(super) fn new(launch: &LaunchSpec, program: &str, known: &Known) -> Result<Provided, Failure> {
        let (wanted, mut provided) = (&launch.provision, Provided::default());
        if let Some(verify) = &wanted.verify {
            let file = verify::program(Path::new(program), verify, reader(launch), known)?;
            provided.program = Some(file);
        }
        if let Some(credentials) = &wanted.credentials {
            provided.credentials = Some(collect(credentials, launch)?);
        }
        let owner = launch.identity.as_ref().map(|who| (who.uid, who.gid));
        let mode = 0o777 & !launch.umask;
        for (place, of_run) in
            wanted.runtime_dirs.iter().map(|p| (p, true)).chain(wanted.state_dirs.iter().map(|p| (p, false)))
        {
            let made = below::make(&place.base, &place.name, mode, owner).map_err(|e| unmade(place, e))?;
            if made && of_run {
                provided.made.push(place.clone());
            }
        }
        Ok(provided)
    }

    /// The run has come about: from now on its folders are the keeper's to remove.
    pub(super) fn settle(mut self) {
        self.made.clear();
    }
}

impl Drop for Provided {
    fn drop(&mut self) {
        // Whoever reports why there is no run has more to say than this.
        for place in &self.made {
            let _ = below::remove(&place.base, &place.name);
        }
    }
}

/// Whose rights count where root's do not.
pub(super) fn reader(launch: &LaunchSpec) -> Option<Reader<'_>> {
    launch.identity.as_ref().map(|who| Reader { uid: who.uid, gid: who.gid, groups: &who.groups })
}

fn unmade(place: &Place, e: Errno) -> Failure {
    let object = place.path().display().to_string();
    match e {
        Errno::ELOOP | Errno::ENOTDIR => Failure::ours(
            Step::Folders,
            object,
            "there is a link or a file on the way to it, or in its place",
        ),
        Errno::EPERM => Failure::ours(
            Step::Folders,
            object,
            "a folder that it is to lie in can be changed by others than root",
        ),
        e => Failure::call(Step::Folders, e, object),
    }
}

fn collect(credentials: &Credentials, launch: &LaunchSpec) -> Result<OwnedFd, Failure> {
    let failed = |e: Errno, object: &str| match e {
        Errno::ENOSYS => Failure::ours(Step::Credentials, object, "this kernel is older than Linux 5.12"),
        Errno::EPERM => Failure::ours(Step::Credentials, object, "keepd may not (it takes CAP_SYS_ADMIN)"),
        e => Failure::call(Step::Credentials, e, object),
    };
    let at = credentials.at.display().to_string();
    file::make_dir(&credentials.at).map_err(|e| failed(e, &at))?;
    let own = (identity::effective_uid(), identity::effective_gid());
    let owner = launch.identity.as_ref().map_or(own, |who| (who.uid, who.gid));
    let detached = Detached::new().map_err(|e| failed(e, &at))?;
    let mut left = CREDENTIALS_MAX;
    for (name, source) in &credentials.files {
        let object = format!("{name} ({})", source.display());
        let call = |e| Failure::call(Step::Credentials, e, &*object);
        let file = trusted::open(source, reader(launch)).map_err(call)?;
        if !matches!(fd::kind(file.as_fd()).map_err(call)?, fd::Kind::Regular { .. }) {
            return Err(Failure::ours(Step::Credentials, object, "it is not a regular file"));
        }
        let size = detached.add(name, file, left + 1, owner).map_err(call)?;
        left = left.checked_sub(size).ok_or_else(|| {
            Failure::ours(Step::Credentials, &*object, "all credentials together are larger than 1 MiB")
        })?;
    }
    detached.close(owner).map_err(|e| failed(e, &at))
}
