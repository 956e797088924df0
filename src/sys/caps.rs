//! Capabilities: looking at our own, and giving them up.

use super::{Errno, Result};

const VERSION_3: u32 = 0x2008_0522;
/// SECBIT_KEEP_CAPS: permitted capabilities survive becoming another user; ends with exec.
const SECBIT_KEEP_CAPS: libc::c_ulong = 1 << 4;
/// SECBIT_NOROOT and its lock: uid 0 gains nothing by exec.
const SECBIT_NOROOT_LOCKED: libc::c_ulong = 0b11;
/// What [`securebits`] are where uid 0 gains nothing by exec, for good.
pub const NO_ROOT: libc::c_int = 0b11;
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

/// The bounding set of this process: what an exec can give at most.
pub fn bounding() -> u64 {
    let mut set = 0;
    for cap in 0..=LAST {
        // SAFETY: prctl with this constant takes numbers only.
        match unsafe { libc::prctl(libc::PR_CAPBSET_READ, cap, 0, 0, 0) } {
            1 => set |= 1 << cap,
            0 => {}
            _ => break,
        }
    }
    set
}

/// Takes what is in `gone` out of the bounding set. Takes CAP_SETPCAP.
pub fn drop_bounding(gone: u64) -> Result<()> {
    for cap in (0..=LAST).filter(|cap| gone >> cap & 1 == 1) {
        // SAFETY: prctl with this constant takes numbers only.
        Errno::result(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, cap, 0, 0, 0) })?;
    }
    Ok(())
}

/// Puts what is in `set` into the ambient set, with which an ordinary user's program is executed. It must be
/// permitted and inheritable.
pub fn raise_ambient(set: u64) -> Result<()> {
    for cap in (0..=LAST).filter(|cap| set >> cap & 1 == 1) {
        // SAFETY: prctl with these constants takes numbers only.
        let raised = unsafe { libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_RAISE, cap, 0, 0) };
        Errno::result(raised)?;
    }
    Ok(())
}

/// The ambient set, as far as it is within `inheritable`, which it always is.
pub fn ambient(inheritable: u64) -> u64 {
    const IS_SET: libc::c_int = libc::PR_CAP_AMBIENT_IS_SET;
    // SAFETY: prctl with these constants takes numbers only.
    let has = |cap: libc::c_ulong| unsafe { libc::prctl(libc::PR_CAP_AMBIENT, IS_SET, cap, 0, 0) } == 1;
    (0..=LAST).filter(|cap| inheritable >> cap & 1 == 1 && has(*cap)).fold(0, |set, cap| set | 1 << cap)
}

/// How user 0 is treated, as securebits.
pub fn securebits() -> Result<libc::c_int> {
    // SAFETY: prctl with this constant takes no argument.
    Errno::result(unsafe { libc::prctl(libc::PR_GET_SECUREBITS, 0, 0, 0, 0) })
}

/// Whether uid 0 gains nothing by exec, for good (SECBIT_NOROOT and its lock), and whether permitted
/// capabilities survive becoming another user. Takes CAP_SETPCAP.
pub fn set_securebits(no_root: bool, keep: bool) -> Result<()> {
    let bits = if no_root { SECBIT_NOROOT_LOCKED } else { 0 } | if keep { SECBIT_KEEP_CAPS } else { 0 };
    // SAFETY: prctl with this constant takes numbers only.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_SECUREBITS, bits, 0, 0, 0) }).map(drop)
}

/// Permitted capabilities survive no other change of user.
pub fn keep_no_more() -> Result<()> {
    // SAFETY: prctl with this constant takes numbers only.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_KEEPCAPS, 0, 0, 0, 0) }).map(drop)
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
