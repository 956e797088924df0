//! Memory that outlives a process: a memfd of fixed size, mapped for reading and writing as words.
//! What a process has stored there is there for the next one, whatever ends it, up to the last store.

use super::{Errno, Result, memory};
use nix::{
    fcntl::{FcntlArg, SealFlag, fcntl},
    unistd::ftruncate,
};
use std::{
    ffi::CStr,
    ops::Deref,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    ptr::NonNull,
    sync::atomic::AtomicU64,
};

/// A memfd of so many bytes, all zero, that nobody can make shorter or longer.
pub fn create(name: &CStr, bytes: usize) -> Result<OwnedFd> {
    let fd = memory::create(name)?;
    ftruncate(fd.as_fd(), i64::try_from(bytes).map_err(|_| Errno::EFBIG)?)?;
    fcntl(fd.as_fd(), FcntlArg::F_ADD_SEALS(fixed()))?;
    Ok(fd)
}

fn fixed() -> SealFlag {
    SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW
}

/// The words of such a memfd.
#[derive(Debug)]
pub struct Words {
    at: NonNull<AtomicU64>,
    len: usize,
}

// SAFETY: nothing but a mapping of atomics that lives as long as this; they may be used from every thread.
unsafe impl Send for Words {}
// SAFETY: as above.
unsafe impl Sync for Words {}

impl Words {
    /// Maps all of it. EPERM if its length can change, EINVAL if it is empty.
    pub fn new(fd: BorrowedFd<'_>) -> Result<Words> {
        if !SealFlag::from_bits_truncate(fcntl(fd, FcntlArg::F_GET_SEALS)?).contains(fixed()) {
            return Err(Errno::EPERM);
        }
        let super::fd::Kind::Regular { size, .. } = super::fd::kind(fd)? else { return Err(Errno::EINVAL) };
        let bytes = usize::try_from(size).map_err(|_| Errno::EFBIG)?;
        let len = bytes / size_of::<AtomicU64>();
        if len == 0 {
            return Err(Errno::EINVAL);
        }
        let (protect, how) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        // SAFETY: a new mapping at an address of the kernel's choice; no memory of ours is touched.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), bytes, protect, how, fd.as_raw_fd(), 0) };
        if at == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        Ok(Words { at: NonNull::new(at.cast()).ok_or(Errno::ENOMEM)?, len })
    }
}

impl Deref for Words {
    type Target = [AtomicU64];
    fn deref(&self) -> &[AtomicU64] {
        // SAFETY: mapped, page-aligned, over at least `len` words until drop, and sealed against shrinking.
        // Other processes that map it may change it at any time, which atomics allow.
        unsafe { std::slice::from_raw_parts(self.at.as_ptr(), self.len) }
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: exactly what `new` mapped, and no borrow of it can outlive `self`.
        unsafe { libc::munmap(self.at.as_ptr().cast(), self.len * size_of::<AtomicU64>()) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering::SeqCst;

    #[test]
    fn what_one_mapping_stores_another_sees() {
        let fd = create(c"test", 8192).unwrap();
        let (one, other) = (Words::new(fd.as_fd()).unwrap(), Words::new(fd.as_fd()).unwrap());
        one[1023].store(7, SeqCst);
        drop(one);
        assert_eq!((other.len(), other[1023].load(SeqCst), other[0].load(SeqCst)), (1024, 7, 0));
        assert!(ftruncate(fd.as_fd(), 0).is_err());
        assert_eq!(Words::new(memory::create(c"test").unwrap().as_fd()).err(), Some(Errno::EPERM));
    }
}
