//! Resource limits of this process.

use super::{Errno, Result};
use serde::{Deserialize, Serialize};

/// RLIMIT_NOFILE.
#[allow(clippy::unnecessary_cast, reason = "C libraries differ in its type")]
pub const OPEN_FILES: u32 = libc::RLIMIT_NOFILE as u32;

/// One limit; `None` is unlimited.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pair {
    pub soft: Option<u64>,
    pub hard: Option<u64>,
}

/// Reads a limit by the kernel's number.
pub fn get(resource: u32) -> Result<Pair> {
    let mut now = libc::rlimit64 { rlim_cur: 0, rlim_max: 0 };
    let none = std::ptr::null::<libc::rlimit64>();
    // SAFETY: `now` is valid for writing, no new limit is given, pid 0 is ourselves.
    Errno::result(unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, none, &raw mut now) })?;
    let opt = |v: u64| (v != libc::RLIM64_INFINITY).then_some(v);
    Ok(Pair { soft: opt(now.rlim_cur), hard: opt(now.rlim_max) })
}

/// Sets a limit by the kernel's number.
pub fn set(resource: u32, to: Pair) -> Result<()> {
    let raw = |v: Option<u64>| v.unwrap_or(libc::RLIM64_INFINITY);
    let new = libc::rlimit64 { rlim_cur: raw(to.soft), rlim_max: raw(to.hard) };
    let none = std::ptr::null_mut::<libc::rlimit64>();
    // SAFETY: `new` is valid for reading, the old limit is not asked for, pid 0 is ourselves.
    Errno::result(unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, &raw const new, none) }).map(drop)
}
