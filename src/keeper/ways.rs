//! The ways in which a service can tell how it is, as a launcher makes them: a socket of its own that it notifies
//! through, which only its user can write to, and a pipe for a newline. The keeper holds their other ends.

#![forbid(unsafe_code)]

use super::step::{Failure, Step};
use crate::{
    plan::{LaunchSpec, Tells},
    sys::{Errno, fd, file, identity, packet, process::SingleThread},
};
use std::{
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
};

/// Of the folder below the runtime folder.
pub(super) const FOLDER: &str = "notify";

/// The longest address of a unix socket, in bytes.
const PATH_MAX: usize = 107;

/// What was made for a run.
#[derive(Debug, Default)]
pub(super) struct Ways {
    /// To receive from, and where the service finds it.
    pub(super) socket: Option<(OwnedFd, PathBuf)>,
    /// Read end and write end.
    pub(super) newline: Option<(OwnedFd, OwnedFd)>,
}

impl Ways {
    /// Makes what is asked for. `sockets`: the folder; `invocation`: nobody else's.
    pub(super) fn new(
        proof: SingleThread,
        launch: &LaunchSpec,
        sockets: &Path,
        invocation: &str,
    ) -> Result<Ways, Failure> {
        let Tells { notify, fd, .. } = launch.tells;
        let mut ways = Ways::default();
        if notify {
            let path = path(sockets, invocation);
            let own = (identity::effective_uid(), identity::effective_gid());
            let owner = launch.identity.as_ref().map_or(own, |who| (who.uid, who.gid));
            let object = || path.display().to_string();
            if path.as_os_str().len() > PATH_MAX {
                let why = format!("its path is longer than {PATH_MAX} bytes");
                return Err(Failure::ours(Step::Notify, object(), why));
            }
            let failed = |e: Errno| Failure::call(Step::Notify, e, object());
            let dir = file::open_dir(sockets).map_err(failed)?;
            if fd::owner(dir.as_fd()).map_err(failed)? != own.0 {
                return Err(Failure::ours(Step::Notify, object(), "its folder is somebody else's"));
            }
            let socket = packet::hear(proof, dir.as_fd(), name(invocation), owner).map_err(failed)?;
            ways.socket = Some((socket, path));
        }
        if fd.is_some() {
            let failed = |e: Errno| Failure::call(Step::Pipe, e, "");
            let (read, write) = fd::pipe().map_err(failed)?;
            fd::set_nonblocking(read.as_fd(), true).map_err(failed)?;
            ways.newline = Some((read, write));
        }
        Ok(ways)
    }

    /// What the service is told of it in its environment.
    pub(super) fn variables(&self, launch: &LaunchSpec) -> Vec<(String, String)> {
        let mut vars = Vec::new();
        if let Some((_, path)) = &self.socket {
            vars.push(("NOTIFY_SOCKET".to_owned(), path.to_string_lossy().into_owned()));
            if let Some(every) = launch.tells.watchdog {
                vars.push(("WATCHDOG_USEC".to_owned(), every.0.saturating_mul(1000).to_string()));
            }
        }
        vars
    }
}

/// Where the socket of this run is.
pub(super) fn path(sockets: &Path, invocation: &str) -> PathBuf {
    sockets.join(name(invocation))
}

/// Its name there.
pub(super) fn name(invocation: &str) -> &str {
    invocation.get(..16).unwrap_or(invocation)
}
