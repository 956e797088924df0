//! The last step of a launch: becoming the program, or saying exactly why not.

#![forbid(unsafe_code)]

use super::{
    environment::Command,
    step::{Failure, Step},
};
use crate::sys::{self, Errno, fd, process, record::Record};
use std::{
    convert::Infallible,
    ffi::OsStr,
    os::fd::{AsFd, OwnedFd},
    os::unix::ffi::OsStrExt,
    path::Path,
};

/// Executes the command, or the program that is opened already. Nothing is allocated on the way to success: what a
/// child allocates, its launcher keeps.
pub(super) fn exec(
    command: &Command,
    opened: Option<&OwnedFd>,
    record: &Record,
) -> Result<Infallible, Failure> {
    record.executing();
    if let Some(program) = opened {
        let Err(e) = process::exec_opened(program.as_fd(), &command.argv, &command.env);
        return Err(failure(&command.program, e));
    }
    let mut denied = None;
    for candidate in &command.candidates {
        let Err(e) = process::exec(candidate, &command.argv, &command.env);
        let file = OsStr::from_bytes(candidate.to_bytes());
        match e {
            _ if command.path.is_none() => return Err(failure(&command.program, e)),
            Errno::ENOENT if !Path::new(file).exists() => {}
            Errno::ENOTDIR | Errno::ESTALE | Errno::ENODEV | Errno::ETIMEDOUT => {}
            Errno::EACCES => denied = denied.or(Some(file)),
            e => return Err(failure(&file.to_string_lossy(), e)),
        }
    }
    Err(match denied {
        Some(file) => failure(&file.to_string_lossy(), Errno::EACCES),
        None => {
            let path = command.path.as_deref().unwrap_or_default();
            let why = format!("it is in none of the folders of PATH ({path})");
            Failure::ours(Step::Exec, &command.program, why)
        }
    })
}

fn failure(program: &str, e: Errno) -> Failure {
    // execve says the same of a missing file and of a file whose `#!` line or dynamic loader is missing.
    if e == Errno::ENOENT && Path::new(program).exists() {
        let why = interpreter(program).map_or_else(
            || "the interpreter or dynamic loader that it names does not exist".into(),
            |i| format!("its interpreter {i} does not exist"),
        );
        return Failure::ours(Step::Exec, program, why);
    }
    if e == Errno::ENOEXEC {
        let why = format!("{} (no `#!` line, or built for another machine)", sys::describe(e));
        return Failure::ours(Step::Exec, program, why);
    }
    Failure::call(Step::Exec, e, program)
}

fn interpreter(program: &str) -> Option<String> {
    let file = fd::open_read(Path::new(program)).ok()?;
    let mut head = [0u8; 256];
    let n = fd::read(file.as_fd(), &mut head).ok()?;
    let line = head[..n].strip_prefix(b"#!")?.split(|b| *b == b'\n').next()?;
    let name = OsStr::from_bytes(line).to_str()?.split_whitespace().next()?;
    Some(name.to_owned())
}
