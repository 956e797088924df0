//! What a run uses, where its cgroup does not tell the manager: memory as the sum of its processes' shares (PSS), and
//! CPU time. Done by launchers, for it takes root's rights, and for a large process it takes a while.

#![forbid(unsafe_code)]

use super::{base::Base, tree};
use crate::sys::cgroup;
use std::{fs, os::fd::AsFd};

/// Microseconds of a clock tick, which is the same on every Linux that keepd runs on.
const TICK_US: u64 = 10_000;

/// Bytes of memory and microseconds of CPU; `None` for what the host does not tell.
pub(super) type Used = (Option<u64>, Option<u64>);

/// Of a run in a cgroup.
pub(super) fn of_cgroup(base: &Base, name: &str) -> Used {
    let dir = base.dir.as_fd();
    let folders = base.folders(name);
    let pids = folders.iter().flat_map(|f| cgroup::processes(dir, f).unwrap_or_default());
    let cpu = cgroup::counter(dir, name, "cpu.stat", "usage_usec").unwrap_or(None);
    (sum(pids.map(pss)), cpu)
}

/// Of a run without one.
pub(super) fn of_group(main: i32, invocation: &str) -> Used {
    let pids = tree::members(main, invocation, false);
    (sum(pids.iter().map(|pid| pss(*pid))), sum(pids.iter().map(|pid| cpu(*pid))))
}

/// Of those that can be asked; `None` if that is nobody. A process may have ended meanwhile.
fn sum(each: impl Iterator<Item = Option<u64>>) -> Option<u64> {
    each.flatten().reduce(u64::saturating_add)
}

fn pss(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    let line = text.lines().find_map(|l| l.strip_prefix("Pss:"))?;
    let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib.saturating_mul(1024))
}

/// Its own, and that of its children that it has reaped.
fn cpu(pid: i32) -> Option<u64> {
    ticks(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?).map(|t| t.saturating_mul(TICK_US))
}

/// Out of /proc/PID/stat, in which the command's name is in brackets and may hold anything.
fn ticks(stat: &str) -> Option<u64> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    (0..4).map(|_| fields.next()?.parse::<u64>().ok()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_its_own_and_its_childrens() {
        let stat = "17 (a) b) S 4 5 6 0 -1 4194560 1 2 3 4 100 20 7 3 20 0 1 0 999";
        assert_eq!(ticks(stat), Some(130));
        assert_eq!(ticks("17 (x) S 1"), None);
    }

    #[test]
    fn this_process_uses_memory_and_a_missing_one_nothing() {
        assert!(pss(std::process::id() as i32).is_some_and(|n| n > 64 << 10));
        assert_eq!((pss(i32::MAX), cpu(i32::MAX)), (None, None));
    }
}
