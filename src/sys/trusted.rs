//! Opening a file for somebody: with root's rights only where nobody but root decides which file that is. Where a
//! folder or a link on the way is somebody else's, the file is opened with the rights of whom it is for, so that a
//! service cannot have itself given what it may not read.

use super::{Errno, Result, fd, identity};
use nix::{
    fcntl::{AtFlags, OFlag, openat, readlinkat},
    sys::stat::{FileStat, Mode, SFlag, fstat, fstatat},
};
use std::{
    ffi::OsString,
    os::fd::{AsFd, OwnedFd},
    path::{Component, Path, PathBuf},
};

/// As many links on the way as the kernel itself follows.
const MOST_LINKS: u32 = 40;

/// Whose rights count where root's do not.
#[derive(Debug, Clone, Copy)]
pub struct Reader<'a> {
    pub uid: u32,
    pub gid: u32,
    pub groups: &'a [u32],
}

/// Opens for reading, without waiting (a FIFO). `reader`: `None` where we stay who we are. This thread alone
/// becomes the reader for a moment, so the process must have no other.
pub fn open(path: &Path, reader: Option<Reader<'_>>) -> Result<OwnedFd> {
    match reader {
        Some(reader) if reader.uid != 0 && !roots_alone(path)? => as_reader(path, reader),
        _ => fd::open_read(path),
    }
}

fn as_reader(path: &Path, reader: Reader<'_>) -> Result<OwnedFd> {
    let before = (identity::groups()?, identity::file_ids());
    identity::set_groups(reader.groups)?;
    identity::set_file_ids(reader.uid, reader.gid);
    let became = identity::file_ids() == (reader.uid, reader.gid);
    let opened = if became { fd::open_read(path) } else { Err(Errno::EPERM) };
    identity::set_file_ids(before.1.0, before.1.1);
    identity::set_groups(&before.0)?;
    opened
}

/// Whether every folder on the way, and every link, can be changed by root alone.
fn roots_alone(path: &Path) -> Result<bool> {
    let mut left: Vec<OsString> = parts(path);
    let mut links = 0;
    let mut dir = root()?;
    while let Some(part) = left.pop() {
        if !roots_folder(&fstat(&dir)?) {
            return Ok(false);
        }
        let stat = fstatat(&dir, part.as_os_str(), AtFlags::AT_SYMLINK_NOFOLLOW)?;
        match SFlag::from_bits_truncate(stat.st_mode) & SFlag::S_IFMT {
            SFlag::S_IFLNK => {
                links += 1;
                if links > MOST_LINKS {
                    return Err(Errno::ELOOP);
                }
                if stat.st_uid != 0 {
                    return Ok(false);
                }
                let to = PathBuf::from(readlinkat(dir.as_fd(), part.as_os_str())?);
                if to.has_root() {
                    dir = root()?;
                }
                left.extend(parts(&to));
            }
            SFlag::S_IFDIR => {
                let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
                dir = openat(&dir, part.as_os_str(), flags, Mode::empty())?;
            }
            // Where the way ends, or where it cannot go on.
            _ => return Ok(true),
        }
    }
    Ok(true)
}

fn root() -> Result<OwnedFd> {
    nix::fcntl::open("/", OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
}

/// The parts of a path, the last one first.
fn parts(path: &Path) -> Vec<OsString> {
    let named = |part| match part {
        Component::Normal(name) => Some(name.to_owned()),
        Component::ParentDir => Some("..".into()),
        Component::RootDir | Component::CurDir | Component::Prefix(_) => None,
    };
    let mut parts: Vec<OsString> = path.components().filter_map(named).collect();
    parts.reverse();
    parts
}

/// A sticky folder such as /tmp is none: in it names that are not there yet are anybody's.
fn roots_folder(stat: &FileStat) -> bool {
    stat.st_uid == 0 && stat.st_mode & 0o022 == 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs,
        os::unix::fs::{PermissionsExt, chown, symlink},
    };

    const NOBODY: Reader<'static> = Reader { uid: 65534, gid: 65534, groups: &[65534] };

    fn can(path: &Path) -> bool {
        match open(path, Some(NOBODY)) {
            Ok(_) => true,
            Err(Errno::EACCES) => false,
            Err(e) => panic!("{}: {e}", path.display()),
        }
    }

    #[test]
    fn root_reads_only_where_root_alone_leads_the_way() {
        if identity::effective_uid() != 0 {
            return eprintln!("SKIPPED root_reads_only_where_root_alone_leads_the_way: needs root");
        }
        // Not in /tmp, where everybody may write.
        let dir = tempfile::tempdir_in("/var/lib").unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let at = |name: &str| dir.path().join(name);
        let secret = |name: &str| {
            fs::write(at(name), "secret").unwrap();
            fs::set_permissions(at(name), fs::Permissions::from_mode(0o600)).unwrap();
        };
        secret("mine");
        assert!(can(&at("mine")), "what only root may read, where root put it");
        symlink("mine", at("link")).unwrap();
        symlink(at("link"), at("far")).unwrap();
        assert!(can(&at("far")), "and through root's own links");
        fs::create_dir(at("theirs")).unwrap();
        secret("theirs/own");
        symlink(at("mine"), at("theirs/link")).unwrap();
        fs::write(at("theirs/open"), "plain").unwrap();
        assert!(can(&at("theirs/link")));
        chown(at("theirs"), Some(65534), Some(65534)).unwrap();
        assert!(!can(&at("theirs/link")) && !can(&at("theirs/own")) && can(&at("theirs/open")));
        symlink(at("theirs/link"), at("round")).unwrap();
        assert!(!can(&at("round")), "and root's link into their folder");
        assert!(!can(&at("theirs/../mine")), "nor by way of it");
        std::os::unix::fs::lchown(at("link"), Some(65534), None).unwrap();
        assert!(!can(&at("link")), "nor by a link of theirs");
        // And we are who we were.
        assert_eq!((identity::file_ids(), fs::read(at("mine")).is_ok()), ((0, 0), true));
        assert_eq!(open(&at("missing"), Some(NOBODY)).err(), Some(Errno::ENOENT));
    }
}
