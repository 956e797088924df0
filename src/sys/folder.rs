//! Files by name within one opened folder, so that nothing is ever reached through a path that somebody
//! may have swapped. Symbolic links are never followed; what is not a regular file is refused.

use nix::{
    errno::Errno,
    fcntl::{AtFlags, OFlag, RenameFlags, openat, renameat2},
    sys::{
        stat::{Mode, SFlag, fstatat, mkdirat},
        statvfs::fstatvfs,
    },
    unistd::{UnlinkatFlags, unlinkat},
};
use std::{
    fs::{DirBuilder, File, OpenOptions},
    io,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd},
        unix::fs::{DirBuilderExt, OpenOptionsExt},
    },
    path::Path,
};

/// An opened folder.
#[derive(Debug)]
pub struct Folder(File);

/// What a look at a file tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Facts {
    /// Device and inode: which file it is.
    pub id: (u64, u64),
    /// Bytes.
    pub size: u64,
    /// Last change, milliseconds since 1970.
    pub modified_ms: u64,
    /// A regular file.
    pub regular: bool,
    /// A folder.
    pub folder: bool,
}

impl Folder {
    /// Opens an existing folder; the last part of `path` may not be a symbolic link.
    pub fn open(path: &Path) -> io::Result<Folder> {
        let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
        OpenOptions::new().read(true).custom_flags(flags).open(path).map(Folder)
    }

    /// Opens an existing folder, wherever symbolic links on the way lead.
    pub fn open_trusted(path: &Path) -> io::Result<Folder> {
        OpenOptions::new().read(true).custom_flags(libc::O_DIRECTORY).open(path).map(Folder)
    }

    /// Opens a folder and makes it first, 0750, if it is not there.
    pub fn create(path: &Path) -> io::Result<Folder> {
        match Folder::open(path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                DirBuilder::new().recursive(true).mode(0o750).create(path)?;
                Folder::open(path)
            }
            opened => opened,
        }
    }

    /// Opens a folder in this one, which may not be a symbolic link.
    pub fn sub(&self, name: &str) -> io::Result<Folder> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        Ok(Folder(File::from(openat(&self.0, name, flags, Mode::empty())?)))
    }

    /// Opens a folder in this one and makes it first, 0750, if it is not there.
    pub fn create_sub(&self, name: &str) -> io::Result<Folder> {
        match self.sub(name) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                mkdirat(&self.0, name, Mode::S_IRWXU | Mode::S_IRGRP | Mode::S_IXGRP)?;
                self.sub(name)
            }
            opened => opened,
        }
    }

    /// Writes the names in it to the disk.
    pub fn sync(&self) -> io::Result<()> {
        self.0.sync_all()
    }

    /// Bytes of its file system, and those of them that may still be written.
    pub fn space(&self) -> io::Result<(u64, u64)> {
        let facts = fstatvfs(&self.0)?;
        let block = facts.fragment_size();
        Ok((facts.blocks().saturating_mul(block), facts.blocks_available().saturating_mul(block)))
    }

    /// Makes a file, 0640, for reading and writing; EEXIST if the name is taken.
    pub fn create_file(&self, name: &str) -> io::Result<File> {
        self.file(name, OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL)
    }

    /// Opens a regular file for reading and writing.
    pub fn open_file(&self, name: &str) -> io::Result<File> {
        self.file(name, OFlag::O_RDWR)
    }

    /// Opens a regular file for reading.
    pub fn read_file(&self, name: &str) -> io::Result<File> {
        self.file(name, OFlag::O_RDONLY)
    }

    fn file(&self, name: &str, flags: OFlag) -> io::Result<File> {
        // O_NONBLOCK: a fifo of that name must not hold us up.
        let flags = flags | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC | OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
        let mode = Mode::S_IRUSR | Mode::S_IWUSR | Mode::S_IRGRP;
        let file = File::from(openat(&self.0, name, flags, mode)?);
        if file.metadata()?.is_file() { Ok(file) } else { Err(Errno::EINVAL.into()) }
    }

    /// What is known of this name, without following a link.
    pub fn facts(&self, name: &str) -> io::Result<Facts> {
        let stat = fstatat(&self.0, name, AtFlags::AT_SYMLINK_NOFOLLOW)?;
        let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
        let whole = u64::try_from(stat.st_mtime).unwrap_or(0).saturating_mul(1000);
        Ok(Facts {
            id: (stat.st_dev, stat.st_ino),
            size: u64::try_from(stat.st_size).unwrap_or(0),
            modified_ms: whole.saturating_add(u64::try_from(stat.st_mtime_nsec / 1_000_000).unwrap_or(0)),
            regular: kind == SFlag::S_IFREG,
            folder: kind == SFlag::S_IFDIR,
        })
    }

    /// Gives a file a new name; EEXIST if that is taken.
    pub fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        match renameat2(&self.0, from, &self.0, to, RenameFlags::RENAME_NOREPLACE) {
            // Some network file systems do not know the flag. Nobody else gives files such names here.
            Err(Errno::EINVAL) if self.facts(to).is_err_and(|e| e.kind() == io::ErrorKind::NotFound) => {
                Ok(nix::fcntl::renameat(&self.0, from, &self.0, to)?)
            }
            other => Ok(other?),
        }
    }

    /// Gives a file a new name; what had that is gone in the same step.
    pub fn replace(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(nix::fcntl::renameat(&self.0, from, &self.0, to)?)
    }

    /// Removes a file.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        Ok(unlinkat(&self.0, name, UnlinkatFlags::NoRemoveDir)?)
    }

    /// The names in the folder that are UTF-8, in no order.
    pub fn names(&self) -> io::Result<Vec<String>> {
        let own =
            openat(&self.0, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        let mut names = Vec::new();
        for entry in nix::dir::Dir::from_fd(own)?.iter() {
            if let Ok(name) = entry?.file_name().to_str() {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }
}

/// Writes all that is not yet on the disk of the file system that this file is on.
pub fn sync_file_system(file: &File) -> io::Result<()> {
    Ok(nix::unistd::syncfs(file)?)
}

/// Takes the only write lock of a file until it is unlocked or closed; EWOULDBLOCK if another has it.
pub fn lock(file: &File) -> io::Result<()> {
    flock(file, libc::LOCK_EX | libc::LOCK_NB)
}

/// Gives a write lock back, also where others go on to hold the file open.
pub fn unlock(file: &File) -> io::Result<()> {
    flock(file, libc::LOCK_UN)
}

/// Gives back the write lock that another process has taken through the same opening of the file.
pub fn release(file: BorrowedFd<'_>) -> io::Result<()> {
    flock(&file, libc::LOCK_UN)
}

fn flock(file: &impl AsFd, how: i32) -> io::Result<()> {
    // SAFETY: no pointers; the descriptor is borrowed for the call.
    match unsafe { libc::flock(file.as_fd().as_raw_fd(), how) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
