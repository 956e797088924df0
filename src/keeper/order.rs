//! The messages between keeper and launchers: packets of a SOCK_SEQPACKET socket, each one JSON message. A
//! launcher does one order after the other and reports on each.

#![forbid(unsafe_code)]

use super::{base, step::Failure};
use crate::{
    plan::{Generation, Job, Name, Place, Which, hook::Subject},
    sys::limits::Pair,
};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Longest packet either side sends.
pub(super) const PACKET_MAX: usize = 16 * 1024;
/// The descriptor on which `keepd launch` finds its socket.
pub(super) const LAUNCHER_FD: i32 = 3;

/// Keeper to launcher.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Order {
    /// The first: what all launches have in common. Descriptor: the page for its record.
    Begin {
        /// Where the cgroups of runs are.
        base: Option<base::Place>,
        /// Where the sockets are that services notify through.
        sockets: PathBuf,
        /// The limit of open files that keepd was started with: services get it back.
        open_files: Option<Pair>,
        kind: Kind,
    },
    /// The plan that the next orders mean. Descriptor: the sealed memfd.
    Plan { generation: Generation },
    /// Launch; reported.
    Launch(Launch),
    /// Hold the cgroup of a live run to the resources of this entry of the plan; reported.
    Adjust { service: Name, entry: u32, cgroup: Option<String> },
    /// Find out what a run uses: that in this cgroup, or the one of this main process and INVOCATION_ID; reported.
    Measure { cgroup: Option<String>, main: i32, invocation: String },
    /// Remove these cgroups, which are empty; reported.
    Remove { folders: Vec<String> },
    /// Remove these folders of a run that is over; reported.
    Tidy { folders: Vec<Place> },
}

/// What a launcher holds itself to.
///
/// Putting a filter of system calls in place makes the kernel try it with every call there is, which takes longer
/// than all else that a child does before exec. A launcher does it once, and its children inherit it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Kind {
    /// To what [`LaunchSpec::is_restricted`] means: it can launch only what is.
    ///
    /// [`LaunchSpec::is_restricted`]: crate::plan::LaunchSpec::is_restricted
    Restricted,
    /// To nothing.
    Free,
}

/// What to launch. Descriptors of a job: read ends of the run's stdout and stderr, as `pipes` says, and the main
/// process's pidfd; of a command: its stdin, stdout and stderr, and that pidfd.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Launch {
    pub(super) role: Role,
    pub(super) service: Name,
    pub(super) entry: u32,
    /// The run's cgroup below the base: made for a main process, there already for all others.
    pub(super) cgroup: Option<String>,
    /// INVOCATION_ID.
    pub(super) invocation: String,
    /// Whether the run of a job has a stdout and a stderr pipe.
    pub(super) pipes: (bool, bool),
    /// Of a hook's command: what its arguments name. Descriptor: its stdin.
    pub(super) subject: Option<Subject>,
}

/// Which command of the entry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Role {
    Main,
    /// `main`: pid of the main process.
    Job {
        job: Job,
        main: i32,
    },
    /// What asks whether the main process is ready, or alive. It has a cgroup of its own below the run's.
    Probe {
        which: Which,
        main: i32,
    },
    /// None of the entry's: what somebody runs beside the main process. `terminal`: TERM, where stdin is to be the
    /// terminal that controls it.
    Exec {
        main: i32,
        argv: Vec<String>,
        terminal: Option<String>,
    },
}

/// Launcher to keeper, once per order that is reported.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Report {
    /// The child of this pid has called exec, or died at it. Descriptors of a main process: read ends of its
    /// stdout and stderr, as `pipes` says, then of its ways to tell how it is, as `ways` says: the socket that it
    /// notifies through, and the read end of the pipe for its newline. Descriptor of a probe: the read end of its
    /// output. `folders` are to go with it.
    Launched { pid: i32, pipes: (bool, bool), ways: (bool, bool), folders: Vec<Place> },
    /// It could not. `pid`: the child that found out and is gone, 0 where there was none.
    Failed { pid: i32, failure: Failure },
    /// The launcher cannot go on, and ends; a clause for people.
    Broken { why: String },
    /// What of the resources could not be had.
    Adjusted { failure: Option<Failure> },
    /// What is used; `None` for what could not be found out.
    Measured { memory: Option<u64>, cpu_us: Option<u64> },
    /// What could not be removed, and why.
    Removed { failed: Vec<(String, i32)> },
    /// What could not be tidied away, and why.
    Tidied { failed: Vec<(Place, i32)> },
}
