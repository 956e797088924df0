//! What a run's cgroup holds it to, and the controllers that it takes: handed down from the cgroup that keepd was
//! started in to those of the runs. What the host cannot give is said in a sentence, never skipped.
//!
//! The kernel hands controllers on from a cgroup only if no process is in it (but for the root of all). So keepd moves
//! itself into a leaf of its own, beside the folder of the runs, before it starts any process.

#![forbid(unsafe_code)]

use super::{
    base::Base,
    step::{Failure, Step},
};
use crate::{
    plan::{Resources, Setting},
    sys::{self, Errno, cgroup, file},
};
use std::{
    fs,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

/// Handed down wherever the host has them: they tell what a run uses, and that its memory ran out. The others change
/// how services share the host, so they are handed down when the first service asks for them.
const ALWAYS: [&str; 2] = ["memory", "pids"];
/// All that keepd may have handed down.
const ALL: [&str; 4] = ["memory", "pids", "cpu", "io"];
const HANDED: &str = "cgroup.subtree_control";

/// Makes it possible to hand controllers down to `base`, and hands down those that everybody gets. What is not possible
/// here is said when a service asks for it.
pub(super) fn prepare(base: &Path) {
    let Some(own) = base.parent() else { return };
    let given = fs::read_to_string(own.join("cgroup.controllers")).unwrap_or_default();
    if given.trim().is_empty() {
        return;
    }
    if !is_root(own) {
        let _ = move_to_leaf(own, &leaf(base));
    }
    for controller in ALWAYS {
        let _ = hand_down(base, controller);
    }
}

/// Leaves the cgroup that keepd was started in as it was, once `base` is gone. Where keepd has not moved there is
/// nothing to undo, and moving would take 15 ms: it waits for every processor to have noticed.
pub(super) fn undo(base: &Path) {
    let Some(own) = base.parent().filter(|_| leaf(base).exists()) else { return };
    let Ok(dir) = file::open_dir(own) else { return };
    // The kernel refuses what somebody else below still uses.
    for controller in ALL {
        let _ = cgroup::write(dir.as_fd(), ".", HANDED, &format!("-{controller}"));
    }
    if cgroup::join(dir.as_fd(), ".").is_ok() {
        let _ = fs::remove_dir(leaf(base));
    }
}

/// Makes the cgroup of a run and holds it to what is asked for, before anything is born in it.
pub(super) fn plant(base: &Base, name: &str, wanted: &Resources) -> Result<(), Failure> {
    file::make_dir_at(base.dir.as_fd(), name).map_err(|e| Failure::call(Step::Folder, e, name))?;
    let done = wanted.settings().iter().filter(|s| s.wanted).try_for_each(|s| set(base, name, s));
    if done.is_err() {
        // Nothing is in it; what cannot be removed, the keeper removes.
        let _ = file::remove_dir_at(base.dir.as_fd(), name);
    }
    done
}

/// Holds a live run to other values than before. One that has ended meanwhile is no error.
pub(super) fn adjust(base: &Base, name: &str, wanted: &Resources) -> Result<(), Failure> {
    if let Err(Errno::ENOENT | Errno::ENODEV) = cgroup::populated(base.dir.as_fd(), name) {
        return Ok(());
    }
    wanted.settings().iter().try_for_each(|s| set(base, name, s))
}

/// Why a service that asks for something cannot have it where there are no cgroups; `None` if it asks for nothing.
pub(super) fn without_cgroups(wanted: &Resources) -> Option<Failure> {
    let setting = wanted.settings().into_iter().find(|s| s.wanted)?;
    let why = "keepd can make no cgroups here (`keepctl status` says why), and it takes one";
    Some(Failure::ours(Step::Resource, object(&setting), why))
}

fn object(setting: &Setting) -> String {
    format!("resources.{}", setting.key)
}

fn set(base: &Base, name: &str, setting: &Setting) -> Result<(), Failure> {
    let ours = |why: String| Failure::ours(Step::Resource, object(setting), why);
    let write = || cgroup::write(base.dir.as_fd(), name, setting.file, &setting.value);
    let written = match write() {
        Err(Errno::ENOENT) if !setting.wanted => return Ok(()),
        Err(Errno::ENOENT) => {
            hand_down(&base.at.path, setting.controller).map_err(ours)?;
            write()
        }
        done => done,
    };
    match written {
        Ok(()) => Ok(()),
        Err(Errno::ENOENT) => Err(ours(format!("this kernel has no {}", setting.file))),
        Err(e) => Err(Failure::call(Step::Resource, e, object(setting))),
    }
}

/// Hands a controller down to the cgroups of runs. The error is a clause that says what the host lacks.
fn hand_down(base: &Path, controller: &str) -> Result<(), String> {
    let Some(own) = base.parent() else { return Err("keepd is in no cgroup".into()) };
    let has = |dir: &Path, file: &str| {
        let text = fs::read_to_string(dir.join(file)).unwrap_or_default();
        text.split_ascii_whitespace().any(|c| c == controller)
    };
    if !has(own, "cgroup.controllers") {
        let known = fs::read_to_string("/proc/cgroups").unwrap_or_default();
        return Err(lacking(controller, own, &known));
    }
    for dir in [own, base].into_iter().filter(|dir| !has(dir, HANDED)) {
        let shown = dir.display();
        let open = file::open_dir(dir);
        open.and_then(|d| cgroup::write(d.as_fd(), ".", HANDED, &format!("+{controller}"))).map_err(
            |e| match e {
                Errno::EBUSY => format!(
                    "the {controller} controller cannot be handed down from {shown}, because there are processes \
                     in it that are none of keepd's: start keepd in a cgroup of its own"
                ),
                e => format!("the {controller} controller cannot be handed down from {shown}: {}", sys::describe(e)),
            },
        )?;
    }
    Ok(())
}

/// Why a cgroup does not have a controller; `known` is /proc/cgroups.
fn lacking(controller: &str, own: &Path, known: &str) -> String {
    let name = if controller == "io" { "blkio" } else { controller };
    let line = known
        .lines()
        .map(|l| l.split_ascii_whitespace().collect::<Vec<_>>())
        .find(|l| l.first() == Some(&name));
    match line.as_deref() {
        Some([_, _, _, "0"]) => format!("the {controller} controller is switched off in this kernel"),
        Some([_, hierarchy, _, _]) if *hierarchy != "0" => format!(
            "this host's cgroup v2 has no {controller} controller, cgroup v1 has it: boot the host with \
             systemd.unified_cgroup_hierarchy=1"
        ),
        _ => format!(
            "the cgroup of keepd, {}, was not given the {controller} controller: in a systemd unit Delegate=yes does \
             that, where the kernel has it",
            own.display()
        ),
    }
}

/// Only the root of all cgroups has no type.
fn is_root(cgroup: &Path) -> bool {
    !cgroup.join("cgroup.type").exists()
}

/// Where keepd's own processes are: no run's folder is named so, and it lies beside those.
fn leaf(base: &Path) -> PathBuf {
    let mut name = base.as_os_str().to_owned();
    name.push(".self");
    name.into()
}

fn move_to_leaf(own: &Path, leaf: &Path) -> sys::Result<()> {
    let name = leaf.file_name().and_then(|n| n.to_str()).ok_or(Errno::EINVAL)?;
    let dir = file::open_dir(own)?;
    match file::make_dir_at(dir.as_fd(), name) {
        Ok(()) | Err(Errno::EEXIST) => cgroup::join(dir.as_fd(), name),
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_host_lacks_is_named() {
        let known =
            "#subsys_name\thierarchy\tnum_cgroups\tenabled\ncpu\t0\t9\t1\nblkio\t7\t1\t1\nmemory\t0\t48\t0\n";
        let own = Path::new("/sys/fs/cgroup/x");
        assert_eq!(lacking("memory", own, known), "the memory controller is switched off in this kernel");
        assert!(lacking("io", own, known).contains("cgroup v1 has it"), "{}", lacking("io", own, known));
        for missing in ["cpu", "pids"] {
            assert!(lacking(missing, own, known).contains("/sys/fs/cgroup/x, was not given"), "{missing}");
        }
    }

    #[test]
    fn keepds_own_leaf_lies_beside_the_runs() {
        assert_eq!(leaf(Path::new("/c/keepd-1234")), Path::new("/c/keepd-1234.self"));
    }
}
