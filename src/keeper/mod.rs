//! HOLDS: the root process. It waits and keeps, and has launched; it decides nothing.
//!
//! One thread, one epoll loop. It never waits on a disk file once it has started, holds no plan in its heap,
//! and takes from the manager nothing but the requests of [`protocol`]. The pieces: `state` is what is held
//! and the loop; `launch`, `launchers`, `launcher`, `child`, `confine` and `identity` are the way from a request to
//! a service, `provide` and `verify` what is made ready and checked for it; `exits` is how things end; `tree` and
//! `base` are the processes of a run, `probes` asks them how they are, and `ways`, `told` and `hearing` are how they
//! tell it by themselves; `control` is what they may use and `measure` what they do use; `link` and
//! `manager` are the way to the manager and its life.

#![forbid(unsafe_code)]

pub mod protocol;

mod adopt;
mod base;
mod boot;
mod child;
mod confine;
mod control;
mod end;
mod envfile;
mod environment;
mod errand;
mod exec;
mod exits;
mod former;
mod hearing;
mod identity;
mod journal;
mod launch;
mod launcher;
mod launchers;
mod link;
mod loader;
mod manager;
mod measure;
mod order;
mod own;
mod pipes;
mod plans;
mod probes;
mod provide;
mod pulse;
mod record;
mod requests;
mod resume;
mod retire;
mod run;
mod save;
mod saved;
mod sessions;
mod spare;
mod state;
mod step;
mod tidy;
mod told;
mod tree;
mod upgrade;
mod verify;
mod ways;

use std::{ffi::OsString, os::fd::OwnedFd, path::PathBuf};

/// What the keeper is started with.
#[derive(Debug, Default)]
pub struct Config {
    /// Arguments, the program's name included, with which this binary is the loader.
    pub loader_argv: Vec<OsString>,
    /// Arguments, the program's name included, with which this binary is the manager.
    pub manager_argv: Vec<OsString>,
    /// Arguments, the program's name included, with which this binary is a launcher.
    pub launcher_argv: Vec<OsString>,
    /// Arguments, the program's name included, with which the program that is upgraded to checks our state.
    pub check_argv: Vec<OsString>,
    /// The program that an upgrade executes.
    pub program: PathBuf,
    /// A pipe of `--daemonize`: gets one byte, `R` when the manager says ready, or else the exit status.
    pub ready_fd: Option<OwnedFd>,
}

/// The status to exit with: 0, or 1 (another keepd runs), 64, 70, 77, 78.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExitStatus(pub i32);

/// Is the keeper until everything has ended. To be called by a process with one thread, before it starts any.
pub fn run(config: Config) -> ExitStatus {
    ExitStatus(boot::run(config))
}

/// Is a launcher until its keeper is gone; the status to exit with. To be called by a process with one thread.
pub fn launch() -> ExitStatus {
    ExitStatus(launcher::run())
}

/// Looks whether this version can go on from the state of the keepd that asks; the status to exit with.
pub fn check_state() -> ExitStatus {
    ExitStatus(upgrade::check())
}

/// Whether this process goes on as the keeper that it was before an upgrade.
pub fn resumes() -> bool {
    std::env::var_os(saved::VARIABLE).is_some()
}
