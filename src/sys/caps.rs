//! Capabilities: looking at our own, and giving them up.

use super::{Errno, Result};

const VERSION_3: u32 = 0x2008_0522;
/// SECBIT_NOROOT and its lock: uid 0 gains nothing by exec.
const SECBIT_NOROOT_LOCKED: libc::c_ulong = 0b11;
/// Beyond any capability that a kernel knows; PR_CAPBSET_READ tells where they end.
const LAST: libc::c_ulong = 63;

#[repr(C)]
struct Head {
    version: u32,
    pid: i32,
}

#[repr(C)]
#[derive(Default, Clone, Copy)]
struct Data {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// The three sets of this process.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sets {
    pub effective: u64,
    pub permitted: u64,
    pub inheritable: u64,
}

/// The sets of this process.
pub fn get() -> Result<Sets> {
    let mut head = Head { version: VERSION_3, pid: 0 };
    let mut data = [Data::default(); 2];
    // SAFETY: version 3 reads `head` and fills two `Data`.
    Errno::result(unsafe { libc::syscall(libc::SYS_capget, &raw mut head, data.as_mut_ptr()) })?;
    let wide = |f: fn(&Data) -> u32| u64::from(f(&data[0])) | u64::from(f(&data[1])) << 32;
    Ok(Sets {
        effective: wide(|d| d.effective),
        permitted: wide(|d| d.permitted),
        inheritable: wide(|d| d.inheritable),
    })
}

/// Replaces the sets of this process; only ever downwards.
pub fn set(sets: Sets) -> Result<()> {
    let mut head = Head { version: VERSION_3, pid: 0 };
    let half = |shift: u32| Data {
        effective: (sets.effective >> shift) as u32,
        permitted: (sets.permitted >> shift) as u32,
        inheritable: (sets.inheritable >> shift) as u32,
    };
    let data = [half(0), half(32)];
    // SAFETY: version 3 reads `head` and two `Data`.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, &raw mut head, data.as_ptr()) }).map(drop)
}

/// Empties the inheritable and the ambient set, which would otherwise reach what we exec.
pub fn clear_inheritable() -> Result<()> {
    // SAFETY: prctl with these constants takes numbers. A kernel without ambient sets (EINVAL) has none.
    unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) };
    let now = get()?;
    if now.inheritable == 0 {
        return Ok(());
    }
    set(Sets { inheritable: 0, ..now })
}

/// Sees to it that no exec gives capabilities back, to uid 0 either: empties the bounding set, and root is no
/// longer special. Takes CAP_SETPCAP; false where neither could be done.
pub fn seal() -> bool {
    // SAFETY: prctl with these constants takes numbers only.
    let mut sealed = unsafe { libc::prctl(libc::PR_SET_SECUREBITS, SECBIT_NOROOT_LOCKED, 0, 0, 0) } == 0;
    let mut emptied = true;
    for cap in 0..=LAST {
        // SAFETY: as above.
        let held = unsafe { libc::prctl(libc::PR_CAPBSET_READ, cap, 0, 0, 0) };
        if held < 0 {
            break;
        }
        if held == 1 {
            // SAFETY: as above.
            emptied &= unsafe { libc::prctl(libc::PR_CAPBSET_DROP, cap, 0, 0, 0) } == 0;
        }
    }
    sealed |= emptied;
    sealed
}

/// Empties every set but the bounding one.
pub fn clear() -> Result<()> {
    clear_inheritable()?;
    set(Sets::default())
}
