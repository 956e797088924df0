//! Starting keepd's own other roles from the running binary (/proc/self/exe): loader, launchers and manager.
//! The manager gives up every right that it does not need before it runs a line of its own.

#![forbid(unsafe_code)]

use super::{saved::VARIABLE, state::complain};
use crate::{
    notify,
    sys::{
        self, Errno, caps, fd, identity, prctl,
        process::{self, Child, SingleThread},
        signal,
    },
};
use std::{
    convert::Infallible,
    ffi::{CString, OsString},
    os::{fd::BorrowedFd, unix::ffi::OsStrExt},
    path::Path,
};

/// Makes the loader show people on stderr what is wrong.
pub(super) const LOAD_ALOUD: &str = "KEEPD_LOAD_STDERR";

/// Exit status where another program than ours cannot be executed.
pub(super) const CANNOT_EXECUTE: i32 = 126;

/// What to start.
pub(super) struct Own<'a> {
    /// Another program than the one that runs.
    pub(super) program: Option<&'a Path>,
    pub(super) argv: &'a [OsString],
    /// What the role finds at descriptor `number`.
    pub(super) fd: BorrowedFd<'a>,
    pub(super) number: i32,
    /// Other descriptors that it gets, by their numbers.
    pub(super) also: Vec<BorrowedFd<'a>>,
    /// One variable more.
    pub(super) env: Option<(&'static str, String)>,
    pub(super) role: Role,
}

/// Which role, and what of our rights it keeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Loader,
    /// Of the program that is to be upgraded to.
    Check,
    /// In a session of its own, as this user and group if given, else without capabilities.
    Manager(Option<(u32, u32)>),
    /// In a session of its own.
    Launcher,
}

/// Forks and executes; a failure in the child is said on stderr and is its exit status 70.
pub(super) fn start(proof: SingleThread, own: &Own<'_>) -> sys::Result<Child> {
    process::spawn(proof, None, || {
        let Err((what, e)) = become_role(own);
        let role = match own.role {
            Role::Loader => "loader",
            Role::Check => "check",
            Role::Manager(_) => "manager",
            Role::Launcher => "launcher",
        };
        complain(&format!("cannot start the {role}: {what}: {}", sys::describe(e)));
        if own.program.is_some() { CANNOT_EXECUTE } else { 70 }
    })
}

fn become_role(own: &Own<'_>) -> Result<Infallible, (String, Errno)> {
    let at = |what: &str| {
        let what = what.to_owned();
        move |e: Errno| (what, e)
    };
    signal::reset_all();
    signal::unblock_all().map_err(at("cannot unblock signals"))?;
    if !matches!(own.role, Role::Loader | Role::Check) {
        // Ctrl-C is for the keeper alone.
        process::setsid().map_err(at("cannot create a session"))?;
    }
    if let Role::Manager(user) = own.role {
        give_up_rights(user)?;
    }
    fd::place(own.fd, own.number).map_err(at("cannot pass its descriptor"))?;
    fd::cloexec_from(own.number as u32 + 1).map_err(at("cannot mark descriptors close-on-exec"))?;
    for fd in &own.also {
        fd::set_cloexec(*fd, false).map_err(at("cannot pass a descriptor"))?;
    }
    let text = |b: &[u8]| CString::new(b).map_err(|_| ("a NUL in its arguments".to_owned(), Errno::EINVAL));
    let argv = own.argv.iter().map(|a| text(a.as_bytes())).collect::<Result<Vec<_>, _>>()?;
    let mut env = Vec::new();
    for (name, value) in std::env::vars_os() {
        if !notify::VARIABLES.iter().any(|v| name == *v) && name != LOAD_ALOUD && name != VARIABLE {
            env.push(text(&[name.as_bytes(), b"=", value.as_bytes()].concat())?);
        }
    }
    if let Some((name, value)) = &own.env {
        env.push(text(format!("{name}={value}").as_bytes())?);
    }
    let program = own.program.unwrap_or(Path::new("/proc/self/exe"));
    let what = format!("cannot execute {}", program.display());
    let program = text(program.as_os_str().as_bytes())?;
    process::exec(&program, &argv.into(), &env.into()).map_err(at(&what))
}

fn give_up_rights(user: Option<(u32, u32)>) -> Result<(), (String, Errno)> {
    // First, because it takes a capability itself.
    let sealed = caps::seal();
    if let Some((uid, gid)) = user {
        let to = |e| (format!("cannot become user {uid}, group {gid}"), e);
        identity::set_groups(&[gid]).map_err(to)?;
        identity::set_gid(gid).map_err(to)?;
        identity::set_uid(uid).map_err(to)?;
        if identity::uids() != Ok((uid, uid, uid)) || identity::gids() != Ok((gid, gid, gid)) {
            return Err(to(Errno::EPERM));
        }
    }
    let failed = |e| ("cannot give up capabilities".to_owned(), e);
    caps::clear().map_err(failed)?;
    if caps::get() != Ok(caps::Sets::default()) {
        return Err(failed(Errno::EPERM));
    }
    if identity::effective_uid() == 0 && !sealed {
        complain("the manager stays root with its capabilities: this host does not allow giving them up");
    }
    prctl::no_new_privileges().map_err(|e| ("cannot give up gaining privileges".to_owned(), e))
}
