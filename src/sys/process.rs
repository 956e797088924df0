//! Starting processes: fork by clone3, born in a cgroup and with a pidfd, and exec.
//!
//! A forked child of a single-threaded process may do anything that its parent could, allocation included;
//! [`SingleThread`] is the proof that the parent is one.

use super::{Errno, Result};
use std::{
    convert::Infallible,
    ffi::{CStr, CString},
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
    panic::{AssertUnwindSafe, catch_unwind},
};

/// Proof that this process had one thread when it was checked; whoever holds it starts none.
#[derive(Debug, Clone, Copy)]
pub struct SingleThread(());

impl SingleThread {
    /// Looks at /proc; `None` where there are other threads, or /proc is not there to tell.
    pub fn check() -> Option<SingleThread> {
        let tasks = std::fs::read_dir("/proc/self/task").ok()?.count();
        (tasks == 1).then_some(SingleThread(()))
    }
}

/// A forked child. It is no longer ours to signal by number once it is reaped; by `pidfd` always.
#[derive(Debug)]
pub struct Child {
    pub pid: i32,
    pub pidfd: OwnedFd,
}

/// `struct clone_args` as of Linux 5.7, which is what CLONE_INTO_CGROUP needs.
#[repr(C)]
#[derive(Default)]
pub(super) struct CloneArgs {
    pub(super) flags: u64,
    pub(super) pidfd: u64,
    pub(super) child_tid: u64,
    pub(super) parent_tid: u64,
    pub(super) exit_signal: u64,
    pub(super) stack: u64,
    pub(super) stack_size: u64,
    pub(super) tls: u64,
    pub(super) set_tid: u64,
    pub(super) set_tid_size: u64,
    pub(super) cgroup: u64,
}

const CLONE_PIDFD: u64 = 0x1000;
pub(super) const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// Forks; the child runs `child` and ends with the status it returns, without running any destructor or
/// exit handler of the parent's. With `cgroup` the child is born in that folder. Where the kernel has no
/// clone3 (or a filter hides it), a child without `cgroup` is forked in the old way; with `cgroup` the error
/// is returned, so that the caller can let the child join by itself.
pub fn spawn(
    _proof: SingleThread,
    cgroup: Option<BorrowedFd<'_>>,
    child: impl FnOnce() -> i32,
) -> Result<Child> {
    let mut pidfd: RawFd = -1;
    let mut args = CloneArgs {
        flags: CLONE_PIDFD,
        pidfd: &raw mut pidfd as u64,
        exit_signal: libc::SIGCHLD as u64,
        ..CloneArgs::default()
    };
    if let Some(fd) = cgroup {
        args.flags |= CLONE_INTO_CGROUP;
        args.cgroup = fd.as_raw_fd() as u64;
    }
    // SAFETY: `args` is a valid clone_args of the size given and `pidfd` outlives the call. Neither CLONE_VM
    // nor a stack is given, so the child runs on a copy of this stack, as after fork(2); the process has one
    // thread (`_proof`), so no lock is held by a thread that the child does not have.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    match Errno::result(pid) {
        Ok(0) => run_child(child),
        Ok(pid) => {
            // SAFETY: the kernel stored a new descriptor there, which nobody else owns.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Child { pid: pid as i32, pidfd })
        }
        Err(Errno::ENOSYS | Errno::EPERM) if cgroup.is_none() => spawn_old(child),
        Err(e) => Err(e),
    }
}

fn spawn_old(child: impl FnOnce() -> i32) -> Result<Child> {
    // SAFETY: one thread only, as in `spawn`.
    let pid = Errno::result(unsafe { libc::fork() })?;
    if pid == 0 {
        run_child(child);
    }
    // The child is ours and not reaped: its number cannot have been given to another process.
    Ok(Child { pid, pidfd: super::pidfd::open(pid)? })
}

pub(super) fn run_child(child: impl FnOnce() -> i32) -> ! {
    // Unwinding must not run into the parent's frames.
    let status = catch_unwind(AssertUnwindSafe(child)).unwrap_or(70);
    // SAFETY: _exit takes no pointer and does not return.
    unsafe { libc::_exit(status) }
}

/// Strings as exec wants them, made before the child that needs them.
#[derive(Debug)]
pub struct Strings {
    pointers: Vec<*const libc::c_char>,
    _owned: Vec<CString>,
}

impl From<Vec<CString>> for Strings {
    fn from(owned: Vec<CString>) -> Strings {
        let pointers = owned.iter().map(|s| s.as_ptr()).chain([std::ptr::null()]).collect();
        Strings { pointers, _owned: owned }
    }
}

/// Replaces this process by `program`. Returns only with the reason why not. Allocates nothing.
pub fn exec(program: &CStr, argv: &Strings, env: &Strings) -> Result<Infallible> {
    // SAFETY: both arrays end in null and point to strings that live as long as they do.
    unsafe { libc::execve(program.as_ptr(), argv.pointers.as_ptr(), env.pointers.as_ptr()) };
    Err(Errno::last())
}

/// As [`exec`], the program being the file behind `program`.
pub fn exec_opened(program: BorrowedFd<'_>, argv: &Strings, env: &Strings) -> Result<Infallible> {
    // SAFETY: as in `exec`; with this flag and an empty path the file is the descriptor's own.
    unsafe {
        libc::syscall(
            libc::SYS_execveat,
            program.as_raw_fd(),
            c"".as_ptr(),
            argv.pointers.as_ptr(),
            env.pointers.as_ptr(),
            libc::AT_EMPTY_PATH,
        )
    };
    Err(Errno::last())
}

/// Makes this process the leader of a new session, without a terminal.
pub fn setsid() -> Result<()> {
    nix::unistd::setsid().map(drop)
}

/// Our own pid.
pub fn pid() -> u32 {
    std::process::id()
}

/// When a process began, in ticks since boot: with its pid, this means one process only. `None`: there is none.
pub fn born(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The 22nd field; the second, a name in parentheses, may hold anything.
    stat.rsplit_once(") ")?.1.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// How a process has ended that its parent has not reaped yet; `None` if it has not ended, is gone, or may not be
/// looked at.
pub fn unreaped_status(pid: i32) -> Option<super::reap::Ended> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = stat.rsplit_once(") ")?.1.split_ascii_whitespace();
    // The third field, and the last of 52.
    (fields.next()? == "Z").then_some(())?;
    Some(super::reap::Ended::of_status(fields.nth(48)?.parse().ok()?))
}

/// Whether a process does nothing any more: each of its threads is stopped, or has ended.
pub fn is_stopped(pid: i32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    threads.flatten().all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        matches!(state, None | Some('T' | 't' | 'Z' | 'X'))
    })
}

/// What the kernel calls this boot; empty where it does not say.
pub fn boot_id() -> String {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().into()
}

/// The kernel's number of this thread.
pub fn thread_id() -> i32 {
    nix::unistd::gettid().as_raw()
}

/// Whether a thread of this process waits in the kernel, rather than running or waiting for a processor.
pub fn thread_waits(id: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{id}/stat")).unwrap_or_default();
    // The state stands behind the name, which is in parentheses and may hold any others.
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('R'))
}

/// Sets the file mode creation mask.
pub fn umask(mask: u32) {
    // SAFETY: umask takes a number and cannot fail.
    unsafe { libc::umask(mask as libc::mode_t) };
}
