//! Roles, arguments and start-up: which of keeper, loader and manager this process is. No decision about
//! services is made here.

#![forbid(unsafe_code)]

pub mod args;
mod background;
mod load;
mod log;
mod manage;

use crate::keeper;
use args::{ConfigArgs, Role};
use std::{ffi::OsString, path::PathBuf};

/// Usage error (sysexits.h EX_USAGE).
pub const EXIT_USAGE: i32 = 64;
/// Internal error (EX_SOFTWARE).
pub const EXIT_INTERNAL: i32 = 70;
/// Broken configuration (EX_CONFIG).
pub const EXIT_CONFIG: i32 = 78;

/// The whole of `keepd`; returns its exit status.
pub fn main(argv: impl IntoIterator<Item = OsString>) -> i32 {
    let args = match args::parse(argv) {
        Ok(args) => args,
        Err(status) => return status,
    };
    match args.role {
        Some(Role::Load) => load::main(&args.config),
        Some(Role::Manage) => manage::main(&args.config),
        Some(Role::Launch) => keeper::launch().0,
        Some(Role::CheckState) => keeper::check_state().0,
        None => keep(args.config),
    }
}

fn keep(mut args: ConfigArgs) -> i32 {
    // The roles and a later apply must find the same file whatever the working directory is by then.
    if let Some(config) = &args.config {
        match std::path::absolute(config) {
            Ok(path) => args.config = Some(path),
            Err(e) => {
                eprintln!("keepd: cannot find {}: {e}", config.display());
                return EXIT_CONFIG;
            }
        }
    }
    let run = |ready_fd| {
        keeper::run(keeper::Config {
            loader_argv: args.to_argv("load"),
            manager_argv: args.to_argv("manage"),
            launcher_argv: args.to_argv("launch"),
            check_argv: args.to_argv("check-state"),
            program: program(),
            ready_fd,
        })
        .0
    };
    // Once is enough: after an upgrade it is in the background, and the parent of its services.
    if !args.daemonize || keeper::resumes() {
        return run(None);
    }
    background::detach(|ready| run(Some(ready))).unwrap_or_else(|e| {
        eprintln!("keepd: cannot go to the background: {e}");
        EXIT_INTERNAL
    })
}

/// The path that we were started by, so that it means whatever is installed there later.
fn program() -> PathBuf {
    let named = std::env::args_os().next().map(PathBuf::from).filter(|path| path.is_absolute());
    // Where it was found in $PATH, by the path that it was found at.
    named.or_else(|| std::env::current_exe().ok()).unwrap_or_else(|| "/usr/bin/keepd".into())
}
