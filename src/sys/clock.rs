//! The clocks. Read by the shell only; everything that decides takes time as an argument.

use nix::time::{ClockId, clock_gettime};

/// Milliseconds of CLOCK_BOOTTIME: monotonic, and counts while the host is suspended.
pub fn boottime_ms() -> u64 {
    read(ClockId::CLOCK_BOOTTIME) / 1000
}

/// Microseconds of CLOCK_MONOTONIC, as sd_notify's MONOTONIC_USEC wants.
pub fn monotonic_us() -> u64 {
    read(ClockId::CLOCK_MONOTONIC)
}

/// Milliseconds since 1970, for display and file names only.
pub fn wall_ms() -> u64 {
    read(ClockId::CLOCK_REALTIME) / 1000
}

/// Microseconds since 1970, for display only.
pub fn wall_us() -> u64 {
    read(ClockId::CLOCK_REALTIME)
}

fn read(id: ClockId) -> u64 {
    // These clocks exist on every Linux that keepd supports; a failure would be a kernel without them.
    clock_gettime(id).map_or(0, |t| {
        u64::try_from(t.tv_sec()).unwrap_or(0) * 1_000_000 + u64::try_from(t.tv_nsec()).unwrap_or(0) / 1000
    })
}
