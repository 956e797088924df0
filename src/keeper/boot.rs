//! From nothing to the loop: first plan, folders, lock, cgroup, manager. Whatever fails here is said on
//! stderr in one sentence and ends it; nothing has been started by then.

#![forbid(unsafe_code)]

use super::{
    Config, adopt,
    base::Base,
    loader,
    plans::Plans,
    protocol::NoteLevel,
    resume,
    saved::{self, Saved},
    state::{Argv, Keeper, Start, complain},
    upgrade,
};
use crate::{
    notify::Upward,
    plan::DaemonSpec,
    sys::{
        self, Errno, fd,
        file::{self, Lock},
        identity, limits, prctl, process, signal,
    },
};
use std::{
    collections::BTreeSet,
    fs::File,
    io::{Read, Write},
    os::fd::{AsFd, OwnedFd},
    path::Path,
    rc::Rc,
};

/// Exit statuses of a failed start.
const ANOTHER: i32 = 1;
const INTERNAL: i32 = 70;
const PERMISSION: i32 = 77;

pub(super) fn run(config: Config) -> i32 {
    // Even where it is closed, no descriptor of ours may land among the standard streams.
    let _ = fd::ensure_stdio();
    // And what was left open for us by accident, no service inherits.
    let _ = fd::cloexec_from(3);
    let Some(proof) = process::SingleThread::check() else {
        complain("cannot start: the keeper needs /proc, and to be the only thread of its process");
        return INTERNAL;
    };
    if identity::effective_uid() == 0 {
        prctl::hide_memory();
    }
    signal::reset_all();
    signal::ignore(signal::SIGPIPE);
    if let Some(state) = upgrade::predecessor() {
        return resume(proof, config, &state);
    }
    let (status, ready_fd) = start(proof, config);
    if let Some(parent) = ready_fd {
        let _ = fd::write(parent.as_fd(), &[u8::try_from(status).unwrap_or(u8::MAX)]);
    }
    status
}

/// Goes on where the keepd that this process was until now has stopped.
fn resume(proof: process::SingleThread, config: Config, state: &OwnedFd) -> i32 {
    let prepared = Saved::read(state.as_fd()).and_then(|(saved, mut found)| {
        let plans = resume::plans(&saved, &mut found)?;
        let lock = found.remove(saved::name::LOCK).ok_or("the lock is missing")?;
        let start = Start {
            proof,
            spec: saved.spec.clone(),
            plans,
            base: resume::base(&saved)?,
            degraded: saved.degraded.clone(),
            argv: argv(&config),
            program: config.program,
            lock,
            ready_fd: None,
            open_files: saved.open_files,
            up: Upward::from_env(),
        };
        let mut keeper = Keeper::new(start).map_err(sys::describe)?;
        let before = saved.version.clone();
        keeper.resume(saved, found).map_err(sys::describe)?;
        Ok((keeper, before))
    });
    let (mut keeper, before) = match prepared {
        Ok(prepared) => prepared,
        Err(why) => {
            complain(&format!("cannot go on after the upgrade: {why}"));
            return INTERNAL;
        }
    };
    let now = env!("CARGO_PKG_VERSION");
    serve(&mut keeper, NoteLevel::Info, vec![format!("keepd {before} has been upgraded to keepd {now}")])
}

fn start(proof: process::SingleThread, mut config: Config) -> (i32, Option<OwnedFd>) {
    let mut ready_fd = config.ready_fd.take();
    let status = start_new(proof, config, &mut ready_fd);
    (status, ready_fd)
}

fn start_new(proof: process::SingleThread, config: Config, ready_fd: &mut Option<OwnedFd>) -> i32 {
    let (first, spec) = match loader::load_first(proof, &config.loader_argv) {
        Ok(loaded) => loaded,
        Err(status) => return status,
    };
    // It is held, whatever else refers to the same file, until this returns.
    let (_held, lock) = match folders(&spec) {
        Ok(locked) => locked,
        Err((why, status)) => {
            complain(&format!("cannot start: {why}"));
            return status;
        }
    };
    let open_files = raise_open_files();
    let (mut degraded, mut notes) = (Vec::new(), Vec::new());
    let left = adopt::find(&spec.runtime_dir, &mut notes);
    let spare = left.as_ref().map(|(left, _)| adopt::cgroups(left)).unwrap_or_default();
    let base = match hold(proof, &spec.runtime_dir, &spare, &mut degraded, &mut notes) {
        Ok(base) => base,
        Err(why) => {
            complain(&format!("cannot start: {why}"));
            return ANOTHER;
        }
    };
    let (left, plans) = left.map_or_else(|| (None, Plans::new(first)), |(left, plans)| (Some(left), plans));
    if let Err(e) = prctl::become_subreaper() {
        degraded.push(format!("orphaned processes of services are not reaped: {}", sys::describe(e)));
    }
    let start = Start {
        proof,
        spec,
        plans,
        base,
        degraded,
        argv: argv(&config),
        program: config.program,
        lock,
        ready_fd: ready_fd.take(),
        open_files,
        up: Upward::from_env(),
    };
    let mut keeper = match Keeper::new(start) {
        Ok(keeper) => keeper,
        Err(e) => {
            complain(&format!("cannot start: the event loop: {}", sys::describe(e)));
            return INTERNAL;
        }
    };
    if let Some(left) = left {
        keeper.adopt_all(left);
    }
    let runtime_dir = keeper.spec.runtime_dir.clone();
    if let Err(e) = keeper.open_sessions(&runtime_dir) {
        let path = runtime_dir.join(crate::wire::exec::SOCKET);
        let what = format!("`keepctl exec` is not possible: cannot listen on {}", path.display());
        notes.push(format!("{what}: {}", sys::describe(e)));
    }
    if let Err(e) = keeper.open_ears() {
        notes.push(format!("services cannot notify: {}: {}", keeper.sockets().display(), sys::describe(e)));
    }
    let status = serve(&mut keeper, NoteLevel::Warn, notes);
    *ready_fd = keeper.ready_fd.take();
    status
}

fn argv(config: &Config) -> Argv {
    Argv {
        loader: config.loader_argv.clone(),
        manager: config.manager_argv.clone(),
        launcher: config.launcher_argv.clone(),
        check: config.check_argv.clone(),
    }
}

/// From the first launcher to the end.
fn serve(keeper: &mut Keeper, level: NoteLevel, notes: Vec<String>) -> i32 {
    prctl::set_name(c"keepd");
    keeper.begin_record();
    let status = keep(keeper, level, notes);
    keeper.leave();
    // The file stays, because removing it would let two keepds lock two files of one name.
    let _ = keeper.lock.try_clone().map(|lock| File::from(lock).set_len(0));
    status
}

fn keep(keeper: &mut Keeper, level: NoteLevel, notes: Vec<String>) -> i32 {
    if let Err(e) = keeper.prepare_launcher() {
        complain(&format!("cannot start a launcher: {}", sys::describe(e)));
        return INTERNAL;
    }
    if let Err(e) = keeper.start_manager() {
        complain(&format!("cannot start the manager: {}", sys::describe(e)));
        return INTERNAL;
    }
    for text in notes {
        keeper.note(level, text);
    }
    keeper.keep().unwrap_or_else(|e| {
        complain(&format!("cannot go on: the event loop: {}", sys::describe(e)));
        INTERNAL
    })
}

/// Makes the folders, and takes the lock before anything is touched that another keepd may be using.
fn folders(spec: &DaemonSpec) -> Result<(Lock, OwnedFd), (String, i32)> {
    let failed = |path: &Path| {
        let path = path.display().to_string();
        move |e: Errno| {
            let status = if matches!(e, Errno::EACCES | Errno::EPERM) { PERMISSION } else { INTERNAL };
            (format!("the folder {path}: {}", sys::describe(e)), status)
        }
    };
    let runtime = file::ensure_dir(&spec.runtime_dir, 0o755, None).map_err(failed(&spec.runtime_dir))?;
    let lock = lock(runtime.as_fd(), &spec.runtime_dir)?;
    for (path, mode) in [(&spec.runtime_dir, 0o755), (&spec.state_dir, 0o750), (&spec.log_dir, 0o750)] {
        file::ensure_dir(path, mode, spec.manager).map_err(failed(path))?;
    }
    let same = lock.try_clone().map_err(|e| (format!("the lock: {e}"), INTERNAL))?;
    Ok((lock, same.into()))
}

fn lock(dir: std::os::fd::BorrowedFd<'_>, path: &Path) -> Result<Lock, (String, i32)> {
    let path = path.join("keepd.lock");
    let failed = |why: String| (format!("the lock {}: {why}", path.display()), INTERNAL);
    match file::lock_at(dir, "keepd.lock") {
        Ok(Ok(mut lock)) => {
            let written = lock.set_len(0).and_then(|()| writeln!(lock, "{}", process::pid()));
            written.map_err(|e| failed(e.to_string()))?;
            Ok(lock)
        }
        Ok(Err(mut file)) => {
            let mut text = String::new();
            let _ = Read::by_ref(&mut file).take(32).read_to_string(&mut text);
            let who = match text.trim() {
                "" => "another keepd".to_owned(),
                pid => format!("another keepd (pid {pid})"),
            };
            Err((format!("{who} holds the lock {}", path.display()), ANOTHER))
        }
        Err(Errno::EPERM) => Err(failed("it is not a plain file of our own".into())),
        Err(e) => Err(failed(sys::describe(e).into())),
    }
}

/// Descriptors grow with the number of services; services get back what keepd was started with.
fn raise_open_files() -> Option<limits::Pair> {
    let before = limits::get(limits::OPEN_FILES).ok()?;
    limits::set(limits::OPEN_FILES, limits::Pair { soft: before.hard, hard: before.hard }).ok()?;
    Some(before)
}

/// The cgroup of all runs, cleared; or none, and what that means. The error: it is somebody else's.
fn hold(
    proof: process::SingleThread,
    runtime_dir: &Path,
    spare: &BTreeSet<String>,
    degraded: &mut Vec<String>,
    notes: &mut Vec<String>,
) -> Result<Option<Rc<Base>>, String> {
    match Base::open(proof, runtime_dir) {
        Ok(mut base) => {
            base.claim()?;
            let base = Rc::new(base);
            notes.extend(base.clear(spare));
            Ok(Some(base))
        }
        Err(why) => {
            degraded.push(format!(
                "services are held by process group, session and environment, which a process can leave, \
                 because {why}"
            ));
            Ok(None)
        }
    }
}
