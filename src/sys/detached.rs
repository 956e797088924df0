//! A file system in memory that is mounted nowhere: it is filled by whoever has its descriptor, can be put on a
//! place later, and is gone with the last descriptor if it never is.

use super::{Errno, Result};
use nix::{
    fcntl::{OFlag, openat},
    sys::stat::{FchmodatFlags, Mode, SFlag, fchmod, fchmodat, makedev, mkdirat, mknodat},
    unistd::{Gid, Uid, fchown},
};
use std::{
    ffi::CStr,
    fs::File,
    io::{self, Read},
    os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd},
};

/// See the head of this file.
#[derive(Debug)]
pub struct Detached(OwnedFd);

const FSCONFIG_SET_FLAG: libc::c_uint = 0;
const FSCONFIG_SET_STRING: libc::c_uint = 1;
const FSCONFIG_CMD_CREATE: libc::c_uint = 6;
const NOSUID_NOEXEC: libc::c_uint = 0x2 | 0x8;
const NODEV: libc::c_uint = 0x4;

impl Detached {
    /// A new one, 0755, whose pages are never written to swap: a tmpfs, or a ramfs where the kernel is older than
    /// Linux 6.4. No device and no program in it is of use. EPERM without CAP_SYS_ADMIN.
    pub fn new() -> Result<Detached> {
        match create(c"tmpfs", Some(c"noswap")) {
            Err(Errno::EINVAL) => create(c"ramfs", None),
            done => done,
        }
    }

    /// Makes a file 0400 for `owner` with what is left to be read from `source`, at most `most` bytes of it; so
    /// many it were. The kernel copies it: it never is in our memory.
    pub fn add(&self, name: &str, source: OwnedFd, most: u64, owner: (u32, u32)) -> Result<u64> {
        let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut file = File::from(openat(&self.0, name, flags, Mode::S_IRUSR)?);
        let copied = io::copy(&mut File::from(source).take(most), &mut file)
            .map_err(|e| Errno::from_raw(e.raw_os_error().unwrap_or(libc::EIO)))?;
        fchmod(&file, Mode::S_IRUSR)?;
        fchown(&file, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)))?;
        Ok(copied)
    }

    /// Lets `owner` alone look into it, and nobody change it; what is then to be put on a place.
    pub fn close(self, owner: (u32, u32)) -> Result<OwnedFd> {
        // What it is held by only refers to it.
        let top =
            openat(&self.0, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
        fchmod(&top, Mode::S_IRUSR | Mode::S_IXUSR)?;
        fchown(&top, Some(Uid::from_raw(owner.0)), Some(Gid::from_raw(owner.1)))?;
        super::namespace::read_only(self.0.as_fd(), false)?;
        Ok(self.0)
    }
}

/// A folder of devices, mounted nowhere, while it is filled. Everybody may read it and use the devices; no program in
/// it is of use.
#[derive(Debug)]
pub struct Devices(OwnedFd);

impl Devices {
    /// A new one. EPERM without CAP_SYS_ADMIN.
    pub fn new() -> Result<Devices> {
        let options = [(c"mode", c"0755"), (c"size", c"64k"), (c"nr_inodes", c"32")];
        mounted(c"tmpfs", &options, None, NOSUID_NOEXEC).map(Devices)
    }

    /// Makes a character device.
    pub fn device(&self, name: &str, major: u64, minor: u64) -> Result<()> {
        let all = Mode::from_bits_truncate(0o666);
        mknodat(&self.0, name, SFlag::S_IFCHR, all, makedev(major, minor))?;
        // Whatever our umask is.
        fchmodat(&self.0, name, all, FchmodatFlags::FollowSymlink)
    }

    /// Makes a symbolic link.
    pub fn link(&self, name: &str, to: &str) -> Result<()> {
        nix::unistd::symlinkat(to, &self.0, name)
    }

    /// Makes a folder for something else to be put on.
    pub fn folder(&self, name: &str) -> Result<()> {
        mkdirat(&self.0, name, Mode::from_bits_truncate(0o755))
    }

    /// What is then to be put on a place.
    pub fn done(self) -> OwnedFd {
        self.0
    }
}

fn create(kind: &CStr, flag: Option<&CStr>) -> Result<Detached> {
    mounted(kind, &[(c"mode", c"0755")], flag, NOSUID_NOEXEC | NODEV).map(Detached)
}

/// Makes a file system, and mounts it nowhere.
fn mounted(
    kind: &CStr,
    options: &[(&CStr, &CStr)],
    flag: Option<&CStr>,
    attributes: libc::c_uint,
) -> Result<OwnedFd> {
    const CLOEXEC: libc::c_uint = 1;
    // SAFETY: fsopen takes a string and flags; the descriptor is new, and nobody else's.
    let context = unsafe { descriptor(libc::syscall(libc::SYS_fsopen, kind.as_ptr(), CLOEXEC)) }?;
    let set = |command: libc::c_uint, key: Option<&CStr>, value: Option<&CStr>| {
        let text = |s: Option<&CStr>| s.map_or(std::ptr::null(), CStr::as_ptr);
        // SAFETY: fsconfig reads strings that end in NUL, or none, as the command wants.
        let done = unsafe {
            libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), command, text(key), text(value), 0)
        };
        Errno::result(done).map(drop)
    };
    options.iter().try_for_each(|(key, value)| set(FSCONFIG_SET_STRING, Some(key), Some(value)))?;
    if flag.is_some() {
        set(FSCONFIG_SET_FLAG, flag, None)?;
    }
    set(FSCONFIG_CMD_CREATE, None, None)?;
    // SAFETY: fsmount takes a descriptor and flags; the descriptor that it gives is new, and nobody else's.
    unsafe { descriptor(libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), CLOEXEC, attributes)) }
}

/// # Safety
/// `result` is what a system call answered that opens a descriptor.
unsafe fn descriptor(result: libc::c_long) -> Result<OwnedFd> {
    let fd = Errno::result(result)?;
    // SAFETY: by the promise above it is new and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Write, os::unix::fs::MetadataExt};

    fn source(text: &str) -> OwnedFd {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(text.as_bytes()).unwrap();
        File::open(file.path()).unwrap().into()
    }

    #[test]
    fn what_is_put_in_is_there_and_cannot_change() {
        let detached = match Detached::new() {
            Err(Errno::EPERM) => return eprintln!("SKIPPED what_is_put_in…: needs root"),
            made => made.unwrap(),
        };
        assert_eq!(detached.add("one", source("secret and more"), 6, (65534, 65533)), Ok(6));
        assert_eq!(detached.add("one", source("again"), 6, (0, 0)), Err(Errno::EEXIST));
        let closed = detached.close((65534, 65533)).unwrap();
        let open = |flags| openat(&closed, "one", flags, Mode::S_IRUSR);
        let mut file = File::from(open(OFlag::O_RDONLY).unwrap());
        let meta = file.metadata().unwrap();
        assert_eq!((meta.mode() & 0o7777, meta.uid(), meta.gid()), (0o400, 65534, 65533));
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        assert_eq!(text, "secret");
        assert_eq!(open(OFlag::O_WRONLY).err(), Some(Errno::EROFS));
        let folder = File::from(closed).metadata().unwrap();
        assert_eq!((folder.mode() & 0o7777, folder.uid()), (0o500, 65534));
    }

    /// What a kernel before 6.4 is left with.
    #[test]
    fn a_ramfs_does_as_well() {
        match create(c"ramfs", None) {
            Err(Errno::EPERM) => eprintln!("SKIPPED a_ramfs_does_as_well: needs root"),
            made => assert_eq!(made.unwrap().add("one", source("secret"), 99, (0, 0)), Ok(6)),
        }
    }
}
