//! What a child does to become a service: one linear list of steps, from birth to exec. The first step that
//! fails is reported in the record and ends it; nothing is retried or skipped.
//!
//! The child runs in its launcher's memory: what it needs is prepared before it is born, and what it allocates it
//! must free before exec.

#![forbid(unsafe_code)]

use super::{
    base::Base,
    environment::Command,
    exec,
    order::Role,
    pipes::Pipes,
    step::{Failure, Step},
};
use crate::{
    plan::{Identity, ServiceSpec, Stderr},
    sys::{
        caps, cgroup, fd, file, identity, limits, prctl, process,
        record::{self, Record},
        signal,
    },
};
use std::{
    convert::Infallible,
    os::fd::{AsFd, BorrowedFd},
};

/// Exit status of a child that did not get to its command; the record says why.
const NOT_EXECED: i32 = 127;

/// All that the child needs.
pub(super) struct Prepared<'a> {
    spec: &'a ServiceSpec,
    stdin: BorrowedFd<'a>,
    stdout: BorrowedFd<'a>,
    stderr: BorrowedFd<'a>,
    /// Supplementary groups, sorted, each once.
    groups: Vec<u32>,
    command: Command,
}

impl<'a> Prepared<'a> {
    /// Reads and allocates all that is to be read and allocated. `pipes`: those whose write ends become stdout
    /// and stderr.
    pub(super) fn new(
        spec: &'a ServiceSpec,
        role: Role,
        invocation: &str,
        null: BorrowedFd<'a>,
        pipes: &'a Pipes,
    ) -> Result<Prepared<'a>, Failure> {
        let stdout = pipes.stdout.write.as_ref().map_or(null, AsFd::as_fd);
        let stderr = match spec.launch.stderr {
            Stderr::Merge => stdout,
            Stderr::Separate => pipes.stderr.write.as_ref().map_or(null, AsFd::as_fd),
            Stderr::Discard => null,
        };
        let mut groups = spec.launch.identity.as_ref().map(|i| i.groups.clone()).unwrap_or_default();
        groups.sort_unstable();
        groups.dedup();
        let command = Command::new(spec, role, invocation)?;
        Ok(Prepared { spec, stdin: null, stdout, stderr, groups, command })
    }
}

/// Becomes the service; returns only if that failed, with the exit status. `join`: the cgroup to join, where
/// it was not born in it.
pub(super) fn live(prepared: &Prepared<'_>, join: Option<(&Base, &str)>, record: &Record) -> i32 {
    let Err(failure) = steps(prepared, join, record);
    record.failed(&failure.encode(record::WORDS));
    NOT_EXECED
}

fn steps(
    prepared: &Prepared<'_>,
    join: Option<(&Base, &str)>,
    record: &Record,
) -> Result<Infallible, Failure> {
    // The keeper gave all others their default action when it began, and handlers end with exec.
    signal::set_default(signal::SIGPIPE);
    signal::unblock_all().map_err(|e| Failure::call(Step::Session, e, ""))?;
    for (fd, number, name) in
        [(prepared.stdin, 0, "stdin"), (prepared.stdout, 1, "stdout"), (prepared.stderr, 2, "stderr")]
    {
        fd::place(fd, number).map_err(|e| Failure::call(Step::Stdio, e, name))?;
    }
    process::setsid().map_err(|e| Failure::call(Step::Session, e, ""))?;
    if let Some((base, name)) = join {
        join_cgroup(base, name)?;
    }
    let launch = &prepared.spec.launch;
    set_limits(prepared.spec)?;
    process::umask(launch.umask);
    if let Some(who) = &launch.identity {
        take_on(who, &prepared.groups)?;
    }
    if launch.no_new_privileges {
        prctl::no_new_privileges().map_err(|e| Failure::call(Step::Privileges, e, ""))?;
    }
    file::change_dir(&launch.directory)
        .map_err(|e| Failure::call(Step::Directory, e, launch.directory.display().to_string()))?;
    fd::cloexec_from(3).map_err(|e| Failure::call(Step::Descriptors, e, ""))?;
    exec::exec(&prepared.command, record)
}

/// Joins, and looks whether it did.
fn join_cgroup(base: &Base, name: &str) -> Result<(), Failure> {
    let object = || base.at.path.join(name).display().to_string();
    cgroup::join(base.dir.as_fd(), name).map_err(|e| Failure::call(Step::Join, e, object()))?;
    let text = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    if base.holds(name, &text) {
        return Ok(());
    }
    Err(Failure::ours(Step::Join, object(), "the kernel accepted it, but we are not in it"))
}

fn set_limits(spec: &ServiceSpec) -> Result<(), Failure> {
    let show = |v: Option<u64>| v.map_or("unlimited".into(), |v| v.to_string());
    for l in &spec.launch.limits {
        limits::set(l.resource, limits::Pair { soft: l.soft, hard: l.hard }).map_err(|e| {
            let to =
                if l.soft == l.hard { show(l.soft) } else { format!("{}:{}", show(l.soft), show(l.hard)) };
            Failure::call(Step::Limit, e, format!("{} to {to}", l.name))
        })?;
    }
    Ok(())
}

/// Groups, group, user, in the one order that works, and then asks the kernel whether it is so: a call that
/// reports success is no proof (setresuid(-1, -1, -1) does, and stays root).
fn take_on(who: &Identity, groups: &[u32]) -> Result<(), Failure> {
    let user = || format!("user {}", who.user);
    let failed = |step| move |e| Failure::call(step, e, format!("user {}", who.user));
    identity::set_groups(groups).map_err(failed(Step::Groups))?;
    identity::set_gid(who.gid).map_err(failed(Step::Gid))?;
    identity::set_uid(who.uid).map_err(failed(Step::Uid))?;
    caps::clear_inheritable().map_err(failed(Step::Verify))?;

    let wrong = |what: &str| {
        Err(Failure::ours(Step::Verify, user(), format!("the kernel reports another {what} than was set")))
    };
    if identity::uids() != Ok((who.uid, who.uid, who.uid)) {
        return wrong("user id");
    }
    if identity::gids() != Ok((who.gid, who.gid, who.gid)) {
        return wrong("group id");
    }
    if identity::groups().as_deref() != Ok(groups) {
        return wrong("list of groups");
    }
    if who.uid != 0 && (identity::set_uid(0).is_ok() || caps::get() != Ok(caps::Sets::default())) {
        return Err(Failure::ours(Step::Verify, user(), "root's rights could be taken back"));
    }
    Ok(())
}
