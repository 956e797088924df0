//! What a forked child does to become a service: one linear list of steps, from the keeper's copy to exec.
//! The first step that fails is reported on the status pipe and ends it; nothing is retried or skipped.

#![forbid(unsafe_code)]

use super::{
    base::Base,
    envfile, exec,
    step::{ALONE, Failure, Step},
};
use crate::{
    plan::{EnvFile, Identity, Job, Reload, ServiceSpec, Stderr, Stdout},
    sys::{Errno, caps, cgroup, fd, file, identity, limits, prctl, process, signal},
};
use std::{
    collections::BTreeMap,
    convert::Infallible,
    os::fd::{AsFd, BorrowedFd},
};

/// Largest environment file that is read.
const ENV_FILE_MAX: u64 = 1 << 20;
/// Exit status of a child that did not get to its command; the status pipe says why.
const NOT_EXECED: i32 = 127;

/// What the child is to become, and what the keeper prepared for it.
pub(super) struct Birth<'a> {
    /// Decoded before the fork: the child would pay for each page that doing so touches.
    pub(super) spec: &'a ServiceSpec,
    pub(super) role: Role,
    /// Write ends for a main process, read ends for a job.
    pub(super) stdout: Option<BorrowedFd<'a>>,
    pub(super) stderr: Option<BorrowedFd<'a>>,
    pub(super) status: BorrowedFd<'a>,
    /// Ranges of descriptors that belong to other launches, where it has a slot.
    pub(super) foreign: Option<[(u32, u32); 2]>,
    /// The cgroup to join, where the child was not born in it.
    pub(super) join: Option<(&'a Base, &'a str)>,
    /// INVOCATION_ID.
    pub(super) invocation: &'a str,
    /// The limit of open files that keepd was started with.
    pub(super) open_files: Option<limits::Pair>,
}

/// Which command of the entry.
#[derive(Debug, Clone, Copy)]
pub(super) enum Role {
    Main,
    Job { job: Job, main: i32 },
}

/// Becomes the service; returns only if that failed, with the exit status.
pub(super) fn live(birth: &Birth<'_>) -> i32 {
    if let Some(foreign) = birth.foreign {
        for (first, end) in foreign {
            fd::close_range(first, end);
        }
        let _ = fd::write(birth.status, &[ALONE]);
    }
    let Err(failure) = steps(birth);
    // Whether or not the keeper can still hear it.
    let _ = fd::write(birth.status, &failure.encode());
    NOT_EXECED
}

fn steps(birth: &Birth<'_>) -> Result<Infallible, Failure> {
    // The keeper gave all others their default action when it began, and handlers end with exec.
    signal::set_default(signal::SIGPIPE);
    signal::unblock_all().map_err(|e| Failure::call(Step::Session, e, ""))?;
    let spec = birth.spec;
    stdio(birth, spec)?;
    process::setsid().map_err(|e| Failure::call(Step::Session, e, ""))?;
    join(birth)?;
    let env = environment(birth, spec)?;
    set_limits(birth, spec)?;
    process::umask(spec.launch.umask);
    if let Some(who) = &spec.launch.identity {
        take_on(who)?;
    }
    if spec.launch.no_new_privileges {
        prctl::no_new_privileges().map_err(|e| Failure::call(Step::Privileges, e, ""))?;
    }
    let directory = &spec.launch.directory;
    file::change_dir(directory)
        .map_err(|e| Failure::call(Step::Directory, e, directory.display().to_string()))?;
    fd::cloexec_from(3).map_err(|e| Failure::call(Step::Descriptors, e, ""))?;
    exec::exec(birth.status, command(birth.role, spec), &env)
}

fn stdio(birth: &Birth<'_>, spec: &ServiceSpec) -> Result<(), Failure> {
    let failed = |object: &'static str| move |e| Failure::call(Step::Stdio, e, object);
    let null = fd::open_null().map_err(failed("/dev/null"))?;
    let of = |pipe: Option<BorrowedFd<'_>>| match (pipe, birth.role) {
        (None, _) => null.as_fd().try_clone_to_owned().map_err(|_| Errno::EMFILE),
        (Some(write_end), Role::Main) => write_end.try_clone_to_owned().map_err(|_| Errno::EMFILE),
        // The keeper has no write end of a running service's pipe: another one is opened from its read end.
        (Some(read_end), Role::Job { .. }) => fd::reopen_write_end(read_end),
    };
    let stdout = of(birth.stdout).map_err(failed("stdout"))?;
    let stderr = of(match spec.launch.stderr {
        Stderr::Merge => birth.stdout,
        Stderr::Separate => birth.stderr,
        Stderr::Discard => None,
    })
    .map_err(failed("stderr"))?;
    fd::place(null.as_fd(), 0).map_err(failed("stdin"))?;
    fd::place(stdout.as_fd(), 1).map_err(failed("stdout"))?;
    fd::place(stderr.as_fd(), 2).map_err(failed("stderr"))
}

/// Which pipes a service has: (stdout, stderr).
pub(super) fn captured(stdout: Stdout, stderr: Stderr) -> (bool, bool) {
    (stdout == Stdout::Capture, stderr == Stderr::Separate)
}

/// Joins, and looks whether it did.
fn join(birth: &Birth<'_>) -> Result<(), Failure> {
    let Some((base, name)) = birth.join else { return Ok(()) };
    let object = || base.path.join(name).display().to_string();
    cgroup::join(base.dir.as_fd(), name).map_err(|e| Failure::call(Step::Join, e, object()))?;
    let text = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    if base.holds(name, &text) {
        return Ok(());
    }
    Err(Failure::ours(Step::Join, object(), "the kernel accepted it, but we are not in it"))
}

fn environment(birth: &Birth<'_>, spec: &ServiceSpec) -> Result<BTreeMap<String, String>, Failure> {
    let mut env = spec.launch.env.clone();
    for file in &spec.launch.env_files {
        env.extend(read_env_file(file)?);
    }
    env.insert("INVOCATION_ID".into(), birth.invocation.into());
    if let Role::Job { main, .. } = birth.role {
        env.insert("MAINPID".into(), main.to_string());
    }
    Ok(env)
}

fn read_env_file(file: &EnvFile) -> Result<Vec<(String, String)>, Failure> {
    let object = || file.path.display().to_string();
    let failed = |e| Failure::call(Step::EnvFile, e, object());
    let opened = match fd::open_read(&file.path) {
        Err(Errno::ENOENT) if file.optional => return Ok(Vec::new()),
        opened => opened.map_err(failed)?,
    };
    match fd::kind(opened.as_fd()).map_err(failed)? {
        fd::Kind::Regular { size, .. } if size <= ENV_FILE_MAX => {}
        fd::Kind::Regular { .. } => {
            return Err(Failure::ours(Step::EnvFile, object(), "it is larger than 1 MiB"));
        }
        _ => return Err(Failure::ours(Step::EnvFile, object(), "it is not a regular file")),
    }
    let text = std::io::read_to_string(std::io::Read::take(std::fs::File::from(opened), ENV_FILE_MAX))
        .map_err(|e| Failure::ours(Step::EnvFile, object(), e.to_string()))?;
    envfile::parse(&text).map_err(|why| Failure::ours(Step::EnvFile, object(), why))
}

fn set_limits(birth: &Birth<'_>, spec: &ServiceSpec) -> Result<(), Failure> {
    if let Some(before) = birth.open_files {
        limits::set(limits::OPEN_FILES, before)
            .map_err(|e| Failure::call(Step::Limit, e, "open-files back to what it was"))?;
    }
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
fn take_on(who: &Identity) -> Result<(), Failure> {
    let user = || format!("user {}", who.user);
    let failed = |step| move |e| Failure::call(step, e, format!("user {}", who.user));
    let mut groups = who.groups.clone();
    groups.sort_unstable();
    groups.dedup();
    identity::set_groups(&groups).map_err(failed(Step::Groups))?;
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
    if identity::groups().as_ref() != Ok(&groups) {
        return wrong("list of groups");
    }
    if who.uid != 0 && (identity::set_uid(0).is_ok() || caps::get() != Ok(caps::Sets::default())) {
        return Err(Failure::ours(Step::Verify, user(), "root's rights could be taken back"));
    }
    Ok(())
}

fn command(role: Role, spec: &ServiceSpec) -> &[String] {
    match role {
        Role::Main => &spec.launch.argv,
        Role::Job { job: Job::Stop, .. } => &spec.stop.command,
        Role::Job { job: Job::Reload, .. } => match &spec.reload {
            Reload::Command(argv) => argv,
            Reload::Signal(_) => &[],
        },
    }
}
