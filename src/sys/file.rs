//! Folders and files of our own: creation, owners, locks.

use super::{Errno, Result};
use nix::{
    fcntl::{Flock, FlockArg, OFlag, open},
    sys::stat::{Mode, fchmod, fstat, mkdirat},
    unistd::{Gid, Uid, UnlinkatFlags, fchown, unlinkat},
};
use std::{
    fs::File,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

/// Creates a folder below one that we hold.
pub fn make_dir_at(dir: BorrowedFd<'_>, name: &str) -> Result<()> {
    mkdirat(dir, name, Mode::from_bits_truncate(0o755))
}

/// Creates a folder, 0755, if there is nothing of that name.
pub fn make_dir(path: &Path) -> Result<()> {
    match nix::unistd::mkdir(path, Mode::from_bits_truncate(0o755)) {
        Err(Errno::EEXIST) => Ok(()),
        done => done,
    }
}

/// Removes an empty folder below one that we hold.
pub fn remove_dir_at(dir: BorrowedFd<'_>, name: &str) -> Result<()> {
    unlinkat(dir, name, UnlinkatFlags::RemoveDir)
}

/// Opens a folder only to refer to it.
pub fn open_dir_at(dir: BorrowedFd<'_>, name: &str) -> Result<OwnedFd> {
    nix::fcntl::openat(dir, name, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
}

/// Opens a folder, which must not be a symbolic link.
pub fn open_dir(path: &Path) -> Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    open(path, flags, Mode::empty())
}

/// Creates a folder with this mode if there is none, its parents (0755) included, and gives it to `owner`.
pub fn ensure_dir(path: &Path, mode: u32, owner: Option<(u32, u32)>) -> Result<OwnedFd> {
    let io = |e: std::io::Error| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO));
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(io)?;
    }
    let made = match nix::unistd::mkdir(path, Mode::from_bits_truncate(mode)) {
        Ok(()) => true,
        Err(Errno::EEXIST) => false,
        Err(e) => return Err(e),
    };
    let dir = open_dir(path)?;
    if made {
        // mkdir is subject to the umask.
        fchmod(dir.as_fd(), Mode::from_bits_truncate(mode))?;
    }
    if let Some((uid, gid)) = owner {
        let now = fstat(dir.as_fd())?;
        if (now.st_uid, now.st_gid) != (uid, gid) {
            fchown(dir.as_fd(), Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
        }
    }
    Ok(dir)
}

/// An exclusive lock, held until it is dropped or the process ends.
pub type Lock = Flock<File>;

/// An exclusive lock of a folder, held as long as a [`Lock`].
pub type FolderLock = Flock<OwnedFd>;

/// Locks a folder. EWOULDBLOCK: somebody else holds it.
pub fn lock_folder(path: &Path) -> Result<FolderLock> {
    Flock::lock(open_dir(path)?, FlockArg::LockExclusiveNonblock).map_err(|(_, e)| e)
}

/// Opens (creates) a file of our own in `dir` and locks it. `Ok(Err(file))`: somebody else holds it.
/// Links, hard ones included, and files of other owners are refused with EPERM.
pub fn lock_at(dir: BorrowedFd<'_>, name: &str) -> Result<std::result::Result<Lock, File>> {
    let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
    let fd = nix::fcntl::openat(dir, name, flags, Mode::from_bits_truncate(0o644))?;
    match super::fd::kind(fd.as_fd())? {
        super::fd::Kind::Regular { uid, links: 1, .. } if uid == super::identity::effective_uid() => {}
        _ => return Err(Errno::EPERM),
    }
    match Flock::lock(File::from(fd), FlockArg::LockExclusiveNonblock) {
        Ok(lock) => Ok(Ok(lock)),
        Err((file, Errno::EWOULDBLOCK)) => Ok(Err(file)),
        Err((_, e)) => Err(e),
    }
}

/// Changes the working directory.
pub fn change_dir(path: &Path) -> Result<()> {
    nix::unistd::chdir(path)
}
