//! Attributes of our own process.

use super::Result;
use nix::sys::prctl;
use std::ffi::CStr;

/// Orphans among our descendants become our children.
pub fn become_subreaper() -> Result<()> {
    prctl::set_child_subreaper(true)
}

/// No exec from here on gives more rights than we have; EPERM if the kernel does not confirm it.
pub fn no_new_privileges() -> Result<()> {
    prctl::set_no_new_privs()?;
    if prctl::get_no_new_privs()? { Ok(()) } else { Err(nix::errno::Errno::EPERM) }
}

/// Whether no exec gives more rights than we have.
pub fn has_no_new_privileges() -> Result<bool> {
    prctl::get_no_new_privs()
}

/// Keeps what is in our memory from core files, and from processes of the same user. Root's, mostly: of an ordinary
/// user's process most of /proc/self is root's from then on.
pub fn hide_memory() {
    // It takes nothing, and has no way to fail.
    let _ = prctl::set_dumpable(false);
}

/// The name that `ps` and `top` show; at most 15 bytes of it.
pub fn set_name(name: &CStr) {
    // Only a matter of display.
    let _ = prctl::set_name(name);
}
