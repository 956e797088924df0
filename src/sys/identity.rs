//! Whom this process is: set once, in one direction, and read back.
//!
//! The raw system calls, because the C library's versions would wait for other threads to follow; this is
//! for a forked child, which has none.

use super::{Errno, Result};

/// Real, effective and saved id.
pub type Three = (u32, u32, u32);

/// Our effective user id.
pub fn effective_uid() -> u32 {
    nix::unistd::geteuid().as_raw()
}

/// Our effective group id.
pub fn effective_gid() -> u32 {
    nix::unistd::getegid().as_raw()
}

/// Replaces the supplementary groups.
pub fn set_groups(groups: &[u32]) -> Result<()> {
    // SAFETY: the array is valid for the count given; gid_t is u32 on Linux.
    let r = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
    Errno::result(r).map(drop)
}

/// Sets the real, effective and saved group id. `u32::MAX`, which would mean "as it is", gives EINVAL.
pub fn set_gid(gid: u32) -> Result<()> {
    if gid == u32::MAX {
        return Err(Errno::EINVAL);
    }
    // SAFETY: setresgid takes three numbers.
    Errno::result(unsafe { libc::syscall(libc::SYS_setresgid, gid, gid, gid) }).map(drop)
}

/// Sets the real, effective and saved user id. `u32::MAX`, which would mean "as it is", gives EINVAL.
pub fn set_uid(uid: u32) -> Result<()> {
    if uid == u32::MAX {
        return Err(Errno::EINVAL);
    }
    // SAFETY: setresuid takes three numbers.
    Errno::result(unsafe { libc::syscall(libc::SYS_setresuid, uid, uid, uid) }).map(drop)
}

/// The user and group id that files are reached with.
pub fn file_ids() -> (u32, u32) {
    // SAFETY: these calls take a number, and answer with the present id; the one given means none, and fails.
    let ids = unsafe { (libc::setfsuid(u32::MAX), libc::setfsgid(u32::MAX)) };
    (ids.0.cast_unsigned(), ids.1.cast_unsigned())
}

/// Sets the user and group id that files are reached with; whether it was done, [`file_ids`] tells.
pub fn set_file_ids(uid: u32, gid: u32) {
    // SAFETY: these calls take a number. The group first: it takes a right that may go with the user.
    unsafe { (libc::setfsgid(gid), libc::setfsuid(uid)) };
}

/// Opens a session keyring of our own, so that we possess no key of who started us. A kernel without keyrings
/// (ENOSYS) has no keys to keep from us, and where a filter hides them (EPERM, EACCES) nobody reaches any.
pub fn new_keyring() -> Result<()> {
    const JOIN_SESSION_KEYRING: libc::c_long = 1;
    let anonymous = std::ptr::null::<libc::c_char>();
    // SAFETY: this operation takes a name, and none is allowed.
    match Errno::result(unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, anonymous) }) {
        Ok(_) | Err(Errno::ENOSYS | Errno::EPERM | Errno::EACCES) => Ok(()),
        Err(e) => Err(e),
    }
}

/// Our user ids.
pub fn uids() -> Result<Three> {
    let ids = nix::unistd::getresuid()?;
    Ok((ids.real.as_raw(), ids.effective.as_raw(), ids.saved.as_raw()))
}

/// Our group ids.
pub fn gids() -> Result<Three> {
    let ids = nix::unistd::getresgid()?;
    Ok((ids.real.as_raw(), ids.effective.as_raw(), ids.saved.as_raw()))
}

/// Our supplementary groups, sorted.
pub fn groups() -> Result<Vec<u32>> {
    // Not nix's, which opens a file in /proc first to learn how many there can be.
    let mut groups = vec![0u32; 32];
    loop {
        let room = i32::try_from(groups.len()).map_err(|_| Errno::EINVAL)?;
        // SAFETY: the buffer has room for that many groups.
        match Errno::result(unsafe { libc::getgroups(room, groups.as_mut_ptr()) }) {
            Ok(count) => {
                groups.truncate(usize::try_from(count).unwrap_or(0));
                groups.sort_unstable();
                return Ok(groups);
            }
            // There are more.
            Err(Errno::EINVAL) if groups.len() < 65_536 => groups.resize(65_536, 0),
            Err(e) => return Err(e),
        }
    }
}
