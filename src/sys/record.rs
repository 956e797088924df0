//! A page that two processes share for good: which child one of them has just made, and how far that child
//! got. The kernel itself writes the child's pid into it, before the child runs its first instruction, so the
//! other process knows it whatever becomes of the first.

use super::{Errno, Result, memory};
use nix::unistd::ftruncate;
use std::{
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    ptr::NonNull,
    sync::atomic::{AtomicI32, AtomicU32, Ordering},
};

const SIZE: usize = 4096;
/// Room for the words of a child that failed.
pub const WORDS: usize = SIZE - 16;

const BORN: u32 = 0;
const ABOUT: u32 = 1;
const FAILED: u32 = 2;

#[repr(C)]
struct Page {
    pid: AtomicI32,
    state: AtomicU32,
    length: AtomicU32,
    _pad: u32,
    words: [u8; WORDS],
}

/// How far the child got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Progress {
    /// Neither of the others: it is on its way, or was killed on it.
    Underway,
    /// It has called exec, or is about to.
    Executing,
    /// It could not, and this is what it said.
    Failed(Vec<u8>),
}

/// See the head of this file.
#[derive(Debug)]
pub struct Record {
    page: NonNull<Page>,
}

impl Record {
    /// A new page, and the descriptor by which another process maps it.
    pub fn create() -> Result<(Record, OwnedFd)> {
        let fd = memory::create(c"keepd-record")?;
        ftruncate(&fd, SIZE as i64)?;
        Ok((Record::open(fd.as_fd())?, fd))
    }

    /// Maps the page behind `fd`, which [`Record::create`] made. EINVAL: it is not one.
    pub fn open(fd: BorrowedFd<'_>) -> Result<Record> {
        if !matches!(super::fd::kind(fd)?, super::fd::Kind::Regular { size, .. } if size == SIZE as u64) {
            return Err(Errno::EINVAL);
        }
        let (protect, how) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_SHARED);
        // SAFETY: a new mapping at an address of the kernel's choice; no memory of ours is touched.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), SIZE, protect, how, fd.as_raw_fd(), 0) };
        if at == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        Ok(Record { page: NonNull::new(at.cast()).ok_or(Errno::ENOMEM)? })
    }

    fn page(&self) -> &Page {
        // SAFETY: mapped until drop, larger than a `Page` and aligned as a page is. Other processes write to
        // it, but only to the atomics, and to `words` only while nobody else looks at them (see `progress`);
        // all-zero, as it begins, is a value of every field.
        unsafe { self.page.as_ref() }
    }

    /// Where the kernel is to write the pid.
    pub(super) fn pid_address(&self) -> u64 {
        (&raw const self.page().pid) as u64
    }

    /// The child's pid; 0 while there is none.
    pub fn pid(&self) -> i32 {
        self.page().pid.load(Ordering::Acquire)
    }

    /// Ready for another child.
    pub fn clear(&self) {
        self.page().state.store(BORN, Ordering::Release);
        self.page().pid.store(0, Ordering::Release);
    }

    /// The child is about to exec.
    pub fn executing(&self) {
        self.page().state.store(ABOUT, Ordering::Release);
    }

    /// The child could not. Of `words`, at most [`WORDS`] bytes are kept.
    pub fn failed(&self, words: &[u8]) {
        let words = &words[..words.len().min(WORDS)];
        // SAFETY: within the page; the one reader waits for the state that is stored afterwards.
        unsafe {
            let to = (&raw mut (*self.page.as_ptr()).words).cast::<u8>();
            std::ptr::copy_nonoverlapping(words.as_ptr(), to, words.len());
        }
        self.page().length.store(words.len() as u32, Ordering::Release);
        self.page().state.store(FAILED, Ordering::Release);
    }

    /// How far it got. To be asked once the child has exec'ed or is gone: until then it may change.
    pub fn progress(&self) -> Progress {
        match self.page().state.load(Ordering::Acquire) {
            ABOUT => Progress::Executing,
            FAILED => {
                let length = (self.page().length.load(Ordering::Acquire) as usize).min(WORDS);
                Progress::Failed(self.page().words[..length].to_vec())
            }
            _ => Progress::Underway,
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        // SAFETY: exactly what `open` mapped; no borrow of it outlives `self`.
        unsafe { libc::munmap(self.page.as_ptr().cast(), SIZE) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_writes_the_other_reads() {
        let (ours, fd) = Record::create().unwrap();
        let theirs = Record::open(fd.as_fd()).unwrap();
        assert_eq!((ours.pid(), ours.progress()), (0, Progress::Underway));
        theirs.executing();
        assert_eq!(ours.progress(), Progress::Executing);
        theirs.failed(&vec![b'x'; SIZE]);
        assert_eq!(ours.progress(), Progress::Failed(vec![b'x'; WORDS]));
        ours.clear();
        assert_eq!(theirs.progress(), Progress::Underway);
    }

    #[test]
    fn only_a_record_is_taken_for_one() {
        let other = memory::create(c"test").unwrap();
        assert_eq!(Record::open(other.as_fd()).err(), Some(Errno::EINVAL));
    }
}
