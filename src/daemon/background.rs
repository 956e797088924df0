//! `--daemonize`: a double fork whose first process returns when the daemon is ready or has failed.

use super::EXIT_INTERNAL;
use crate::sys::{
    fd,
    process::{self, SingleThread},
};
use std::{
    fs::File,
    io::{self, Read},
    os::fd::OwnedFd,
};

/// Runs `daemon` in the background, in a session of its own whose leader is gone, so that it can never get a
/// terminal. `daemon` is given the descriptor that wants the byte `R` when it is ready, or an exit status.
/// Returns the exit status of the command that was typed: 0 once the daemon is ready.
pub(super) fn detach(daemon: impl FnOnce(OwnedFd) -> i32) -> io::Result<i32> {
    let proof = SingleThread::check().ok_or_else(|| io::Error::other("there are other threads already"))?;
    let (read, write) = fd::pipe()?;
    process::spawn(proof, None, move || {
        let grandchild = process::setsid().and_then(|()| process::spawn(proof, None, move || daemon(write)));
        i32::from(grandchild.is_err())
    })?;
    let mut answer = [0];
    let n = File::from(read).read(&mut answer)?;
    Ok(match (n, answer[0]) {
        (1, b'R') => 0,
        (1, status) => i32::from(status),
        _ => EXIT_INTERNAL,
    })
}
