//! What a run's processes use, read from its cgroup when somebody asks for one service.

use crate::wire;
use std::{fs, path::Path};

/// Fills in what the kernel tells; what it does not tell stays `None`.
pub(super) fn fill(service: &mut wire::Service, cgroup: &Path) {
    let number = |file: &str| fs::read_to_string(cgroup.join(file)).ok()?.trim().parse().ok();
    service.memory_bytes = number("memory.current");
    service.cpu_usage_usec = fs::read_to_string(cgroup.join("cpu.stat"))
        .ok()
        .and_then(|s| s.lines().find_map(|l| l.strip_prefix("usage_usec ")?.parse().ok()));
    service.tasks = number("pids.current")
        .or_else(|| fs::read_to_string(cgroup.join("cgroup.threads")).ok().map(|s| s.lines().count() as u64));
}
