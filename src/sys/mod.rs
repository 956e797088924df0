//! TOUCHES the kernel: the only room with unsafe code, libc and raw system calls. It knows nothing of
//! services; every function here is a thin, safe wrapper whose SAFETY comment says why it is sound.

pub mod background;
pub mod below;
pub mod birth;
pub mod caps;
pub mod cgroup;
pub mod clock;
pub mod detached;
pub mod fd;
pub mod file;
pub mod folder;
pub mod identity;
pub mod landlock;
pub mod lease;
pub mod limits;
pub mod memory;
pub mod mounts;
pub mod namespace;
pub mod own;
pub mod packet;
pub mod peer;
pub mod pidfd;
pub mod pipe;
pub mod poll;
pub mod poller;
pub mod prctl;
pub mod private;
pub mod process;
pub mod random;
pub mod ready;
pub mod reap;
pub mod record;
pub mod schedule;
pub mod seccomp;
pub mod shared;
pub mod signal;
pub mod syscalls;
pub mod terminal;
pub mod timer;
pub mod trusted;
pub mod watch;

pub use nix::errno::Errno;

/// What every wrapper of this room returns.
pub type Result<T> = std::result::Result<T, Errno>;

/// The kernel's words for an error, as in "No such file or directory".
pub fn describe(errno: Errno) -> &'static str {
    errno.desc()
}
