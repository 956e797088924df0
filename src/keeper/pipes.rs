//! The pipes of a launch: those that a new run's output goes through, or a job's way into those that are there.

#![forbid(unsafe_code)]

use super::step::{Failure, Step};
use crate::{
    plan::{LaunchSpec, Stderr, Stdout},
    sys::{Errno, fd},
};
use std::os::fd::{AsFd, OwnedFd};

/// Wanted and acceptable size of a log pipe.
const SIZES: [i32; 2] = [1 << 20, 256 << 10];

/// Both ends of one output; none where it is not captured.
#[derive(Debug, Default)]
pub(super) struct Ends {
    /// For the keeper; none for a job.
    pub(super) read: Option<OwnedFd>,
    pub(super) write: Option<OwnedFd>,
}

/// Both outputs.
#[derive(Debug, Default)]
pub(super) struct Pipes {
    pub(super) stdout: Ends,
    pub(super) stderr: Ends,
}

impl Pipes {
    /// New ones for a main process.
    pub(super) fn new(spec: &LaunchSpec) -> Result<Pipes, Failure> {
        let (stdout, stderr) = (spec.stdout == Stdout::Capture, spec.stderr == Stderr::Separate);
        Ok(Pipes { stdout: new(stdout)?, stderr: new(stderr)? })
    }

    /// One for all that a probe's command writes. What it holds is as much as such a command may write: it is read
    /// once, when the command has ended.
    pub(super) fn of_probe() -> Result<Pipes, Failure> {
        Ok(Pipes { stdout: new(true)?, stderr: Ends::default() })
    }

    /// Those of the run, for a job: it is given their read ends, stdout's first, as `which` says.
    pub(super) fn beside(which: (bool, bool), fds: Vec<OwnedFd>) -> Result<Pipes, Failure> {
        let mut fds = fds.into_iter();
        let mut of = |there: bool, name| -> Result<Ends, Failure> {
            let Some(read) = there.then(|| fds.next()).flatten() else { return Ok(Ends::default()) };
            // Nobody here has a write end of a running service's pipe: another one is opened from its read end.
            let write =
                fd::reopen_write_end(read.as_fd()).map_err(|e| Failure::call(Step::Stdio, e, name))?;
            Ok(Ends { read: None, write: Some(write) })
        };
        Ok(Pipes { stdout: of(which.0, "stdout")?, stderr: of(which.1, "stderr")? })
    }
}

fn new(wanted: bool) -> Result<Ends, Failure> {
    if !wanted {
        return Ok(Ends::default());
    }
    let failed = |e: Errno| Failure::call(Step::Pipe, e, "");
    let (read, write) = fd::pipe().map_err(failed)?;
    fd::set_nonblocking(read.as_fd(), true).map_err(failed)?;
    // A smaller pipe is no reason not to start.
    let _ = SIZES.iter().find(|size| fd::set_pipe_size(write.as_fd(), **size).is_ok());
    // A service outlives a keeper and a manager that are killed: meanwhile it is to wait, not to die of SIGPIPE.
    let write = fd::reopen_both_ways(write.as_fd()).unwrap_or(write);
    Ok(Ends { read: Some(read), write: Some(write) })
}
