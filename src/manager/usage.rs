//! What a run's processes use, read from its cgroup when somebody asks for one service, or a watch is due. What the
//! kernel does not tell stays `None`.

use crate::wire;
use std::{fs, path::Path};

/// What all processes of a run use, and what became of some.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Used {
    pub memory_bytes: Option<u64>,
    /// Microseconds, since the run began.
    pub cpu_us: Option<u64>,
    /// Processes and threads.
    pub tasks: Option<u64>,
    /// Killed because memory ran out.
    pub oom_kills: Option<u64>,
}

impl Used {
    /// Reads it from the folder of the run's cgroup.
    pub fn read(cgroup: &Path) -> Used {
        let text = |file: &str| fs::read_to_string(cgroup.join(file)).ok();
        let threads = || Some(text("cgroup.threads")?.lines().count() as u64);
        Used {
            memory_bytes: memory(cgroup),
            cpu_us: cpu(cgroup),
            tasks: number(cgroup, "pids.current").or_else(threads),
            oom_kills: value(text("memory.events"), "oom_kill "),
        }
    }
}

/// Fills in all that is known.
pub(super) fn fill(service: &mut wire::Service, cgroup: &Path) {
    let text = |file: &str| fs::read_to_string(cgroup.join(file)).ok();
    let used = Used::read(cgroup);
    service.memory_bytes = used.memory_bytes;
    service.memory_peak_bytes = number(cgroup, "memory.peak");
    service.oom_kills = used.oom_kills;
    service.cpu_usage_usec = used.cpu_us;
    service.tasks = used.tasks;
    let waited = |file: &str| some_of_ten_seconds(&text(file)?);
    let pressure = wire::Pressure {
        cpu: waited("cpu.pressure"),
        memory: waited("memory.pressure"),
        io: waited("io.pressure"),
    };
    service.pressure = (pressure != wire::Pressure::default()).then_some(pressure);
}

/// Bytes that all of it uses now.
pub(super) fn memory(cgroup: &Path) -> Option<u64> {
    number(cgroup, "memory.current")
}

/// Microseconds of CPU that all of it has used.
pub(super) fn cpu(cgroup: &Path) -> Option<u64> {
    value(fs::read_to_string(cgroup.join("cpu.stat")).ok(), "usage_usec ")
}

fn number(cgroup: &Path, file: &str) -> Option<u64> {
    fs::read_to_string(cgroup.join(file)).ok()?.trim().parse().ok()
}

/// Of a file of `KEY NUMBER` lines; `key` ends with a space.
fn value(text: Option<String>, key: &str) -> Option<u64> {
    text?.lines().find_map(|l| l.strip_prefix(key)?.parse().ok())
}

/// Out of `some avg10=0.12 avg60=…`.
fn some_of_ten_seconds(text: &str) -> Option<f32> {
    let line = text.lines().find_map(|l| l.strip_prefix("some "))?;
    line.split(' ').find_map(|pair| pair.strip_prefix("avg10=")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pressure_is_that_of_some_process_over_ten_seconds() {
        let text =
            "some avg10=1.53 avg60=0.87 avg300=0.21 total=123\nfull avg10=9.00 avg60=0 avg300=0 total=1\n";
        assert_eq!(some_of_ten_seconds(text), Some(1.53));
        assert_eq!(some_of_ten_seconds(""), None);
    }
}
