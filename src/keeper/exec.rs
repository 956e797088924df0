//! The last step of a launch: finding the program and becoming it, or saying exactly why not.

#![forbid(unsafe_code)]

use super::step::{ABOUT_TO_EXEC, Failure, Step};
use crate::sys::{self, Errno, fd, process};
use std::{
    collections::BTreeMap,
    convert::Infallible,
    ffi::{CString, OsStr},
    os::fd::{AsFd, BorrowedFd},
    os::unix::ffi::OsStrExt,
    path::Path,
};

/// Executes `argv`, whose program is searched in the PATH of `env` unless it has a slash.
pub(super) fn exec(
    status: BorrowedFd<'_>,
    argv: &[String],
    env: &BTreeMap<String, String>,
) -> Result<Infallible, Failure> {
    let Some(program) = argv.first() else {
        return Err(Failure::ours(Step::Exec, "the command", "it is empty"));
    };
    let text = |s: String| {
        CString::new(s)
            .map_err(|_| Failure::ours(Step::Exec, program, "a NUL character in it or its settings"))
    };
    let args = argv.iter().map(|a| text(a.clone())).collect::<Result<Vec<_>, _>>()?;
    let vars = env.iter().map(|(k, v)| text(format!("{k}={v}"))).collect::<Result<Vec<_>, _>>()?;
    // Nobody may be listening any more; that is no reason not to become the service.
    let _ = fd::write(status, &[ABOUT_TO_EXEC]);
    if program.contains('/') {
        let Err(e) = process::exec(&args[0], &args, &vars);
        return Err(exec_failure(program, e));
    }
    let path = env.get("PATH").map_or("", String::as_str);
    let mut denied = None;
    for dir in path.split(':').filter(|d| d.starts_with('/')) {
        let candidate = format!("{}/{program}", dir.trim_end_matches('/'));
        let Err(e) = process::exec(&text(candidate.clone())?, &args, &vars);
        match e {
            Errno::ENOENT if !Path::new(&candidate).exists() => {}
            Errno::ENOTDIR | Errno::ESTALE | Errno::ENODEV | Errno::ETIMEDOUT => {}
            Errno::EACCES => denied = denied.or(Some(candidate)),
            e => return Err(exec_failure(&candidate, e)),
        }
    }
    Err(match denied {
        Some(candidate) => exec_failure(&candidate, Errno::EACCES),
        None => Failure::ours(Step::Exec, program, format!("it is in none of the folders of PATH ({path})")),
    })
}

fn exec_failure(program: &str, e: Errno) -> Failure {
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
