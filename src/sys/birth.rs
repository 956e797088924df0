//! A child that borrows our memory until it execs, and is its parent's parent's child.
//!
//! Copying the page tables of even a small process, and then faulting its pages in again on both sides, is the
//! larger part of what an ordinary fork costs. Such a child copies nothing: it runs on a stack of its own in our
//! memory while we stand still (CLONE_VM with CLONE_VFORK). What it allocates and does not free before exec stays
//! allocated here, so everything that it needs is to be prepared before.

use super::{Errno, Result, fd, process, record::Record};
use std::{
    ffi::c_void,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    path::Path,
    ptr::NonNull,
};

const CLONE_VM: u64 = 0x100;
const CLONE_VFORK: u64 = 0x4000;
const CLONE_PARENT: u64 = 0x8000;
const CLONE_PARENT_SETTID: u64 = 0x10_0000;

const STACK: usize = 256 << 10;
const GUARD: usize = 4096;

/// What a child runs; the status to exit with if it comes back.
type Life<'a> = &'a mut dyn FnMut() -> i32;

/// The stack that one child after the other runs on.
#[derive(Debug)]
pub struct Cradle {
    stack: NonNull<c_void>,
    /// /proc/sys/fs/suid_dumpable, where there is one.
    dumpable: Option<OwnedFd>,
    _proof: process::SingleThread,
}

impl Cradle {
    /// Reserves the stack, with a page below it that nothing may touch.
    pub fn new(proof: process::SingleThread) -> Result<Cradle> {
        let (protect, how) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping at an address of the kernel's choice; no memory of ours is touched.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), STACK, protect, how | libc::MAP_STACK, -1, 0) };
        if at == libc::MAP_FAILED {
            return Err(Errno::last());
        }
        let stack = NonNull::new(at).ok_or(Errno::ENOMEM)?;
        let dumpable = fd::open_read(Path::new("/proc/sys/fs/suid_dumpable")).ok();
        let cradle = Cradle { stack, dumpable, _proof: proof };
        // SAFETY: the first page of the mapping just made, which nobody uses.
        Errno::result(unsafe { libc::mprotect(at, GUARD, libc::PROT_NONE) })?;
        Ok(cradle)
    }

    /// Makes a child that runs `life`, born in `cgroup` if one is given, and returns when it has exec'ed or is
    /// gone: its pid, which is also in `record` from before it began. It is the child of our parent, who alone
    /// can wait for it.
    ///
    /// # Errors
    /// Of clone3. With `cgroup` those that [`super::cgroup::must_join`] knows mean that it may be born without
    /// and join.
    pub fn bear(&self, record: &Record, cgroup: Option<BorrowedFd<'_>>, life: Life<'_>) -> Result<i32> {
        let mut flags = CLONE_VFORK | CLONE_PARENT | CLONE_PARENT_SETTID;
        let lends = self.may_lend();
        if lends {
            flags |= CLONE_VM;
        }
        let mut args = process::CloneArgs { flags, parent_tid: record.pid_address(), ..Default::default() };
        if let Some(fd) = cgroup {
            args.flags |= process::CLONE_INTO_CGROUP;
            args.cgroup = fd.as_raw_fd() as u64;
        }
        args.stack = self.stack.as_ptr() as u64;
        args.stack_size = STACK as u64;
        let mut life = life;
        // SAFETY: `args` is a valid clone_args. The child runs `enter` on `stack`, which is mapped, large enough,
        // aligned, and used by nobody else while we are suspended (CLONE_VFORK); `life` outlives it because it
        // execs or exits before we go on. This process has one thread, so nobody else runs on this memory.
        let pid = unsafe { clone3(&args, enter, (&raw mut life).cast()) };
        i32::try_from(Errno::result(pid)?).map_err(|_| Errno::EOVERFLOW)
    }

    /// Whether a child may share our memory after it has become another user. The kernel then keeps that user
    /// from looking into it or tracing it, unless this setting is 1 (proc(5), core dumps of set-user-ID
    /// programs): then the child gets a copy.
    fn may_lend(&self) -> bool {
        let Some(file) = &self.dumpable else { return false };
        let mut text = [0u8; 4];
        let read = nix::sys::uio::pread(file.as_fd(), &mut text, 0);
        matches!((read, text[0]), (Ok(1..), b'0' | b'2'))
    }
}

impl Drop for Cradle {
    fn drop(&mut self) {
        // SAFETY: exactly what `new` mapped; no child is on it, because `bear` waits for each.
        unsafe { libc::munmap(self.stack.as_ptr(), STACK) };
    }
}

/// The child's first function.
extern "C" fn enter(life: *mut c_void) -> ! {
    // SAFETY: what `bear` passed: a live `Life` that its suspended owner does not touch.
    let life: &mut Life<'_> = unsafe { &mut *life.cast() };
    process::run_child(life)
}

/// clone3(2) for a child with a stack of its own, which the C libraries do not offer: calls `entry(argument)`
/// in the child. Returns as the system call does, in the parent alone.
///
/// # Safety
/// As for clone3: `args` is valid, the stack is the child's alone, `entry` may run on it with `argument`.
#[cfg(target_arch = "x86_64")]
unsafe fn clone3(
    args: &process::CloneArgs,
    entry: extern "C" fn(*mut c_void) -> !,
    argument: *mut c_void,
) -> i64 {
    let result: i64;
    // SAFETY: the kernel copies the registers to the child, so `entry` and `argument` are there too; its stack
    // pointer is the aligned top of the new stack. The parent goes on behind the label. Memory may have changed.
    unsafe {
        std::arch::asm!(
            "syscall",
            "test rax, rax",
            "jnz 2f",
            "xor ebp, ebp",
            "mov rdi, r12",
            "call r13",
            "ud2",
            "2:",
            inlateout("rax") libc::SYS_clone3 => result,
            in("rdi") &raw const *args,
            in("rsi") size_of::<process::CloneArgs>(),
            in("r12") argument,
            in("r13") entry,
            lateout("rcx") _,
            lateout("r11") _,
        );
    }
    returned(result)
}

/// As above.
///
/// # Safety
/// As above.
#[cfg(target_arch = "aarch64")]
unsafe fn clone3(
    args: &process::CloneArgs,
    entry: extern "C" fn(*mut c_void) -> !,
    argument: *mut c_void,
) -> i64 {
    let result: i64;
    // SAFETY: as for the other architecture.
    unsafe {
        std::arch::asm!(
            "svc 0",
            "cbnz x0, 2f",
            "mov x29, xzr",
            "mov x0, x21",
            "blr x22",
            "brk 1",
            "2:",
            in("x8") libc::SYS_clone3,
            inlateout("x0") &raw const *args => result,
            in("x1") size_of::<process::CloneArgs>(),
            in("x21") argument,
            in("x22") entry,
        );
    }
    returned(result)
}

/// -1 and errno, as every other system call here reports an error.
fn returned(result: i64) -> i64 {
    if (-4095..0).contains(&result) {
        Errno::set_raw(i32::try_from(-result).unwrap_or(libc::EIO));
        return -1;
    }
    result
}
