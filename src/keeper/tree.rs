//! All processes of a run: a cgroup, or, where there is none to be had, what can be found of them in /proc.
//! It answers and signals; when to do so is decided elsewhere.

#![forbid(unsafe_code)]

use super::base::Base;
use crate::sys::{self, Errno, cgroup, pidfd, signal};
use std::{
    cell::Cell,
    collections::BTreeMap,
    os::fd::AsFd,
    path::{Path, PathBuf},
    rc::Rc,
};

/// How the processes of a run are held together.
#[derive(Debug, Clone)]
pub(super) enum Tree {
    /// Folder `name` below the base: nothing gets out of it.
    Cgroup { base: Rc<Base>, name: String, removed: Cell<bool> },
    /// Best effort: the main process' session and group, its descendants, and whoever has the run's
    /// INVOCATION_ID in its environment.
    Group { main: i32, invocation: String },
}

impl Tree {
    /// Whether a process is alive in it. `reaped`: the main process is gone, and its number may be
    /// somebody else's.
    pub(super) fn populated(&self, reaped: bool) -> sys::Result<bool> {
        match self {
            Tree::Cgroup { base, name, .. } => match cgroup::populated(base.dir.as_fd(), name) {
                Err(Errno::ENOENT | Errno::ENODEV) => Ok(false),
                answer => answer,
            },
            // One that forks and ends while /proc is read may be missed with its child, once.
            Tree::Group { main, invocation } => {
                Ok((0..2).any(|_| !members(*main, invocation, reaped).is_empty()))
            }
        }
    }

    /// SIGKILL to all of it, once; what is forked meanwhile may escape a group, so look and kill again.
    pub(super) fn kill(&self, reaped: bool) -> sys::Result<()> {
        let Tree::Cgroup { base, name, .. } = self else { return self.signal(signal::SIGKILL, reaped) };
        let dir = base.dir.as_fd();
        // The service may have frozen itself.
        let _ = cgroup::write(dir, name, "cgroup.freeze", "0");
        match cgroup::write(dir, name, "cgroup.kill", "1") {
            // Before Linux 5.14: hold everybody still, so that nobody forks while the list is read.
            Err(Errno::ENOENT) if self.populated(reaped)? => {
                let _ = cgroup::write(dir, name, "cgroup.freeze", "1");
                let sent = self.signal(signal::SIGKILL, reaped);
                let _ = cgroup::write(dir, name, "cgroup.freeze", "0");
                sent
            }
            Err(Errno::ENOENT | Errno::ENODEV) => Ok(()),
            done => done,
        }
    }

    /// Sends a signal to every process of it. A process that ended meanwhile is no error.
    pub(super) fn signal(&self, signal: i32, reaped: bool) -> sys::Result<()> {
        let mut worst = Ok(());
        for pid in self.pids(reaped) {
            let Ok(fd) = pidfd::open(pid) else { continue };
            // The number may have gone to another process between the list and the descriptor; from here on
            // it is what the descriptor means, so ask again whether that is one of ours.
            if !self.holds(pid, reaped) {
                continue;
            }
            match pidfd::send_signal(fd.as_fd(), signal) {
                Ok(()) | Err(Errno::ESRCH) => {}
                Err(e) => worst = Err(e),
            }
        }
        worst
    }

    /// Whether the kernel has killed any of it because memory ran out; false where it cannot tell.
    pub(super) fn oom_killed(&self) -> bool {
        let Tree::Cgroup { base, name, .. } = self else { return false };
        let kills = cgroup::counter(base.dir.as_fd(), name, "memory.events", "oom_kill");
        kills.is_ok_and(|n| n.is_some_and(|n| n > 0))
    }

    /// Its folder below the base, where it is a cgroup.
    pub(super) fn cgroup(&self) -> Option<&str> {
        match self {
            Tree::Cgroup { name, .. } => Some(name),
            Tree::Group { .. } => None,
        }
    }

    /// The file that changes when the tree becomes empty.
    pub(super) fn events(&self) -> Option<PathBuf> {
        match self {
            Tree::Cgroup { base, name, .. } => Some(base.at.path.join(name).join("cgroup.events")),
            Tree::Group { .. } => None,
        }
    }

    /// Removes what the kernel keeps of it. EBUSY: it is not empty.
    pub(super) fn remove(&self) -> sys::Result<()> {
        match self {
            Tree::Cgroup { removed, .. } if removed.get() => Ok(()),
            Tree::Cgroup { base, name, removed } => base.remove(name).inspect(|()| removed.set(true)),
            Tree::Group { .. } => Ok(()),
        }
    }

    /// What is to be removed of it, for somebody else to do so; once.
    pub(super) fn take_remains(&self) -> Option<String> {
        match self {
            Tree::Cgroup { name, removed, .. } if !removed.replace(true) => Some(name.clone()),
            Tree::Cgroup { .. } | Tree::Group { .. } => None,
        }
    }

    fn pids(&self, reaped: bool) -> Vec<i32> {
        match self {
            Tree::Cgroup { base, name, .. } => base
                .folders(name)
                .iter()
                .flat_map(|f| cgroup::processes(base.dir.as_fd(), f).unwrap_or_default())
                .collect(),
            Tree::Group { main, invocation } => members(*main, invocation, reaped),
        }
    }

    /// Whether this process is one of it.
    pub(super) fn holds(&self, pid: i32, reaped: bool) -> bool {
        match self {
            Tree::Cgroup { base, name, .. } => std::fs::read_to_string(format!("/proc/{pid}/cgroup"))
                .is_ok_and(|text| base.holds(name, &text)),
            Tree::Group { main, invocation } => members(*main, invocation, reaped).contains(&pid),
        }
    }
}

/// What /proc/PID/stat says.
#[derive(Debug, Clone, Copy)]
struct Stat {
    parent: i32,
    group: i32,
    session: i32,
    dead: bool,
}

/// The live processes of a run without a cgroup.
pub(super) fn members(main: i32, invocation: &str, reaped: bool) -> Vec<i32> {
    let all = processes();
    // While a session or group is in use, the kernel gives its number to nobody. So if the main process is
    // gone and the number is there again, they all ended, and who has it now is a stranger.
    let ours_by_number = !(reaped && all.contains_key(&main));
    let mark = format!("INVOCATION_ID={invocation}");
    let mut found: Vec<i32> = all
        .iter()
        .filter(|(pid, s)| {
            let by_number =
                ours_by_number && (**pid == main && !reaped || s.group == main || s.session == main);
            by_number || marked(**pid, &mark)
        })
        .map(|(pid, _)| *pid)
        .collect();
    // Descendants; the keeper itself is never one.
    let mut next = 0;
    while let Some(parent) = found.get(next).copied() {
        let children = all.iter().filter(|(_, s)| s.parent == parent).map(|(pid, _)| *pid);
        let new: Vec<i32> = children.filter(|pid| !found.contains(pid)).collect();
        found.extend(new);
        next += 1;
    }
    let own = sys::process::pid() as i32;
    found.retain(|pid| *pid != own && all.get(pid).is_some_and(|s| !s.dead));
    found
}

fn processes() -> BTreeMap<i32, Stat> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return BTreeMap::new() };
    entries
        .flatten()
        .filter_map(|e| {
            let pid: i32 = e.file_name().to_str()?.parse().ok()?;
            Some((pid, stat(&std::fs::read_to_string(e.path().join("stat")).ok()?)?))
        })
        .collect()
}

/// The command's name is in brackets and may hold anything, brackets included.
fn stat(text: &str) -> Option<Stat> {
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    let dead = matches!(fields.next()?, "Z" | "X" | "x");
    let mut number = || fields.next()?.parse::<i32>().ok();
    Some(Stat { parent: number()?, group: number()?, session: number()?, dead })
}

fn marked(pid: i32, mark: &str) -> bool {
    std::fs::read(Path::new("/proc").join(pid.to_string()).join("environ"))
        .is_ok_and(|env| env.split(|b| *b == 0).any(|v| v == mark.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_is_read_past_any_name() {
        let s = stat("17 (a) b) S 4 5 6 0 -1 4194560").unwrap();
        assert_eq!((s.parent, s.group, s.session, s.dead), (4, 5, 6, false));
        assert!(stat("17 (x) Z 4 5 6").unwrap().dead);
        assert!(stat("17 x").is_none());
    }
}
