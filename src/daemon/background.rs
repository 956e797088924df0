//! `--daemonize`: a double fork whose first process returns when the daemon is ready or has failed.

use crate::sys::{
    fd,
    process::{self, Fork},
};
use std::{
    fs::File,
    io::{self, Read},
    os::fd::OwnedFd,
};

/// Which process this is after [`detach`].
pub(super) enum Side {
    /// The daemon to be; the descriptor wants the byte `R` when it is ready, or an exit status.
    Child(OwnedFd),
    /// The caller: the daemon is ready (0) or has failed (its exit status).
    Parent(i32),
}

/// Forks twice, with a session of its own in between, so that the daemon can never get a terminal.
pub(super) fn detach() -> io::Result<Side> {
    let (read, write) = fd::pipe_cloexec()?;
    match process::fork()? {
        Fork::Parent(_) => {
            drop(write);
            let mut answer = [0];
            let n = File::from(read).read(&mut answer)?;
            Ok(Side::Parent(match (n, answer[0]) {
                (1, b'R') => 0,
                (1, status) => i32::from(status),
                _ => super::EXIT_INTERNAL,
            }))
        }
        Fork::Child => {
            drop(read);
            process::setsid()?;
            match process::fork()? {
                Fork::Parent(_) => process::exit_now(0),
                Fork::Child => Ok(Side::Child(write)),
            }
        }
    }
}
