//! Sealed memory: a memfd that nobody can change any more, and a read-only view of it.

use super::{Errno, Result};
use nix::{
    fcntl::{FcntlArg, SealFlag, fcntl},
    sys::memfd::{MFdFlags, memfd_create},
};
use std::{
    ffi::CStr,
    fs::File,
    io::{self, Write},
    ops::Deref,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    ptr::NonNull,
};

/// An empty memfd, close-on-exec, that can be sealed.
pub fn create(name: &CStr) -> Result<OwnedFd> {
    memfd_create(name, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)
}

/// Writes `bytes` to an empty memfd and seals it against every later change.
pub fn fill_and_seal(fd: OwnedFd, bytes: &[u8]) -> io::Result<OwnedFd> {
    let mut file = File::from(fd);
    file.write_all(bytes)?;
    let fd = OwnedFd::from(file);
    seal(fd.as_fd()).map_err(|e| io::Error::from_raw_os_error(e as i32))?;
    Ok(fd)
}

/// Seals a memfd against every later change.
pub fn seal(fd: BorrowedFd<'_>) -> Result<()> {
    fcntl(fd, FcntlArg::F_ADD_SEALS(whole())).map(drop)
}

/// Whether a memfd can never change again.
pub fn is_sealed(fd: BorrowedFd<'_>) -> Result<bool> {
    let now = SealFlag::from_bits_truncate(fcntl(fd, FcntlArg::F_GET_SEALS)?);
    Ok(now.contains(whole()))
}

fn whole() -> SealFlag {
    SealFlag::F_SEAL_WRITE | SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL
}

/// The bytes of a sealed memfd, shared with everybody else who maps it.
#[derive(Debug)]
pub struct Mapping {
    at: NonNull<u8>,
    len: usize,
}

impl Mapping {
    /// Maps all of it. EPERM if it is not sealed: only what cannot change may be lent out as a slice.
    pub fn new(fd: BorrowedFd<'_>) -> Result<Mapping> {
        if !is_sealed(fd)? {
            return Err(Errno::EPERM);
        }
        let super::fd::Kind::Regular { size, .. } = super::fd::kind(fd)? else { return Err(Errno::EINVAL) };
        let len = usize::try_from(size).map_err(|_| Errno::EFBIG)?;
        if len == 0 {
            return Ok(Mapping { at: NonNull::dangling(), len });
        }
        let (protect, how) = (libc::PROT_READ, libc::MAP_SHARED);
        // SAFETY: a new mapping at an address of the kernel's choice; no memory of ours is touched.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), len, protect, how, fd.as_raw_fd(), 0) };
        if at == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        Ok(Mapping { at: NonNull::new(at.cast()).ok_or(Errno::ENOMEM)?, len })
    }
}

impl Deref for Mapping {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: mapped for reading over `len` bytes until drop, and sealed: it never changes or shrinks.
        // (For length 0 the pointer is dangling, which a slice of length 0 allows.)
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.len) }
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        if self.len > 0 {
            // SAFETY: exactly what `new` mapped, and no borrow of it can outlive `self`.
            unsafe { libc::munmap(self.at.as_ptr().cast(), self.len) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::fd;

    #[test]
    fn only_what_cannot_change_is_mapped() {
        let open = create(c"test").unwrap();
        fd::write(open.as_fd(), b"abc").unwrap();
        assert_eq!(Mapping::new(open.as_fd()).err(), Some(Errno::EPERM));
        let sealed = fill_and_seal(open, b"def").unwrap();
        assert_eq!(*Mapping::new(sealed.as_fd()).unwrap(), *b"abcdef");
        assert_eq!(fd::write(sealed.as_fd(), b"x"), Err(Errno::EPERM));
        let empty = fill_and_seal(create(c"test").unwrap(), b"").unwrap();
        assert!(Mapping::new(empty.as_fd()).unwrap().is_empty());
    }
}
