//! The place of this process among the others: priority, CPUs, and its turn when memory runs out.

use super::{Errno, Result};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

/// -1000 to 1000: how early the kernel kills us when memory runs out.
pub fn oom_score() -> Result<i32> {
    let text = std::fs::read_to_string("/proc/self/oom_score_adj").map_err(errno)?;
    text.trim().parse().map_err(|_| Errno::EINVAL)
}

/// Sets it. Going below what we were given takes CAP_SYS_RESOURCE: EACCES.
pub fn set_oom_score(score: i32) -> Result<()> {
    std::fs::write("/proc/self/oom_score_adj", score.to_string()).map_err(errno)
}

/// Sets the priority, -20 (first) to 19.
pub fn set_nice(nice: i32) -> Result<()> {
    // SAFETY: setpriority takes three numbers; 0 is ourselves.
    Errno::result(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) }).map(drop)
}

/// Sets our turn at the disks, as ioprio_set(2) takes it. EPERM: that takes CAP_SYS_NICE.
pub fn set_io_priority(value: u16) -> Result<()> {
    const OURSELVES: libc::c_int = 1; // IOPRIO_WHO_PROCESS
    // SAFETY: ioprio_set takes three numbers.
    let set = unsafe { libc::syscall(libc::SYS_ioprio_set, OURSELVES, 0, libc::c_int::from(value)) };
    Errno::result(set).map(drop)
}

/// Keeps us to these CPUs, all of which the host must let us have: ENXIO if not.
pub fn set_cpus(cpus: &[u32]) -> Result<()> {
    let mut set = CpuSet::new();
    for cpu in cpus {
        set.set(*cpu as usize).map_err(|_| Errno::ENXIO)?;
    }
    match sched_setaffinity(Pid::from_raw(0), &set) {
        // None of them.
        Err(Errno::EINVAL) => return Err(Errno::ENXIO),
        done => done?,
    }
    // The kernel leaves out what is not there, and says nothing.
    if sched_getaffinity(Pid::from_raw(0))? == set { Ok(()) } else { Err(Errno::ENXIO) }
}

fn errno(e: std::io::Error) -> Errno {
    Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO))
}
