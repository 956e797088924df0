//! What this process itself uses, for those who watch it. What the kernel does not tell is `None`.

use super::limits;
use nix::{
    sys::resource::{UsageWho, getrusage},
    unistd::{SysconfVar, sysconf},
};
use std::fs;

/// Base units.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// Of all its threads, since it began.
    pub cpu_seconds: Option<f64>,
    pub resident_bytes: Option<f64>,
    pub open_files: Option<f64>,
    pub most_files: Option<f64>,
}

/// As of now.
pub fn usage() -> Usage {
    let cpu = getrusage(UsageWho::RUSAGE_SELF).ok().map(|used| {
        let (user, system) = (used.user_time(), used.system_time());
        (user.tv_sec() + system.tv_sec()) as f64 + (user.tv_usec() + system.tv_usec()) as f64 / 1e6
    });
    let pages = fs::read_to_string("/proc/self/statm").ok();
    let pages = pages.and_then(|text| text.split(' ').nth(1)?.parse::<f64>().ok());
    let page = sysconf(SysconfVar::PAGE_SIZE).ok().flatten().map(|n| n as f64);
    Usage {
        cpu_seconds: cpu,
        resident_bytes: pages.zip(page).map(|(pages, page)| pages * page),
        // One of them is the folder being read.
        open_files: fs::read_dir("/proc/self/fd").ok().map(|all| all.count().saturating_sub(1) as f64),
        most_files: limits::get(limits::OPEN_FILES).ok().and_then(|l| l.soft).map(|n| n as f64),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_grows_with_what_is_used() {
        let before = usage();
        let files: Vec<_> = (0..100).map(|_| fs::File::open("/dev/null").unwrap()).collect();
        let memory = vec![1u8; 32 << 20];
        let after = usage();
        // Other tests open and close files meanwhile.
        assert!(after.open_files.unwrap() > before.open_files.unwrap() + 50.0);
        assert!(after.resident_bytes.unwrap() > 32e6);
        assert!(after.cpu_seconds.unwrap() > before.cpu_seconds.unwrap());
        drop((files, memory));
    }
}
