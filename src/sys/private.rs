//! A folder that nobody else can write to or look into, and files in it. That it lies in somebody else's folder costs
//! no more than its loss: what is in it is ours or it is refused.

use super::{Errno, Result};
use nix::{
    fcntl::{OFlag, openat, renameat},
    sys::stat::{Mode, fstat},
    unistd::{UnlinkatFlags, unlinkat},
};
use std::{
    fs::File,
    io::Read,
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

/// See the head of this file.
#[derive(Debug)]
pub struct Private(OwnedFd);

impl Private {
    /// Opens the folder, which is made if there is none. EPERM: it is not ours alone.
    pub fn open(path: &Path) -> Result<Private> {
        match nix::unistd::mkdir(path, Mode::S_IRWXU) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(e) => return Err(e),
        }
        let dir = super::file::open_dir(path)?;
        let st = fstat(dir.as_fd())?;
        if st.st_uid != super::identity::effective_uid() || st.st_mode & 0o077 != 0 {
            return Err(Errno::EPERM);
        }
        Ok(Private(dir))
    }

    /// What a file holds; ENOENT: there is none.
    pub fn read(&self, name: &str) -> Result<Vec<u8>> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut file = File::from(openat(self.0.as_fd(), name, flags, Mode::empty())?);
        let mut bytes = Vec::new();
        let io = |e: std::io::Error| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO));
        file.read_to_end(&mut bytes).map_err(io)?;
        Ok(bytes)
    }

    /// A new empty file, in place of what was there.
    pub fn create(&self, name: &str) -> Result<File> {
        let flags = OFlag::O_WRONLY
            | OFlag::O_CREAT
            | OFlag::O_TRUNC
            | OFlag::O_APPEND
            | OFlag::O_NOFOLLOW
            | OFlag::O_CLOEXEC;
        openat(self.0.as_fd(), name, flags, Mode::S_IRUSR | Mode::S_IWUSR).map(File::from)
    }

    /// Gives a file another name, whatever has that.
    pub fn rename(&self, from: &str, to: &str) -> Result<()> {
        renameat(self.0.as_fd(), from, self.0.as_fd(), to)
    }

    /// Removes a file. That there is none is no error.
    pub fn remove(&self, name: &str) -> Result<()> {
        match unlinkat(self.0.as_fd(), name, UnlinkatFlags::NoRemoveDir) {
            Err(Errno::ENOENT) => Ok(()),
            done => done,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, io::Write, os::unix::fs::PermissionsExt};

    #[test]
    fn a_folder_that_others_can_write_to_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("private");
        let private = Private::open(&path).unwrap();
        private.create("a").unwrap().write_all(b"x").unwrap();
        private.rename("a", "b").unwrap();
        assert_eq!((private.read("b").unwrap(), private.read("a")), (b"x".to_vec(), Err(Errno::ENOENT)));
        private.remove("b").unwrap();
        private.remove("b").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o770)).unwrap();
        assert_eq!(Private::open(&path).err(), Some(Errno::EPERM));
        fs::remove_dir(&path).unwrap();
        std::os::unix::fs::symlink("/", &path).unwrap();
        assert!(Private::open(&path).is_err());
    }
}
