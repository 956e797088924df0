//! Folders below one that is trusted, made and removed without ever following a link that somebody else may have
//! put there: one name at a time, each from the descriptor of the folder that it is in.

use super::{Errno, Result, identity};
use nix::{
    dir::Dir,
    fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat, openat2},
    sys::stat::{FileStat, Mode, fchmod, fstat, mkdirat},
    unistd::{Gid, Uid, UnlinkatFlags, fchown, unlinkat},
};
use std::{
    ffi::{CString, OsStr},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Component, Path},
};

/// So deep a tree is removed; each level takes a descriptor.
const DEEPEST: u32 = 128;
/// Names that are read before they are removed.
const BATCH: usize = 1024;

/// Makes the folder `name`, of one part or several, below `base`, or takes the one that is there: it belongs to
/// `owner` afterwards and has this mode. What is in it stays as it is. True if it was not there.
///
/// # Errors
/// EPERM: a folder on the way can be changed by others than root and us. ELOOP or ENOTDIR: there is a link or a
/// file in its place. EINVAL: `name` leads out of `base`.
pub fn make(base: &Path, name: &Path, mode: u32, owner: Option<(u32, u32)>) -> Result<bool> {
    let (parent, last) = parent(base, name, true)?;
    let made = make_one(parent.as_fd(), last)?;
    let dir = open_one(parent.as_fd(), last)?;
    let now = fstat(&dir)?;
    if let Some((uid, gid)) = owner.filter(|o| *o != (now.st_uid, now.st_gid)) {
        fchown(&dir, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
    }
    if made || now.st_mode & 0o7777 != mode {
        fchmod(&dir, Mode::from_bits_truncate(mode))?;
    }
    Ok(made)
}

/// Removes `name` below `base` with all that is in it. What is mounted there stays, and is an error (EXDEV); a
/// link is removed, not followed. That nothing is there is no error.
pub fn remove(base: &Path, name: &Path) -> Result<()> {
    let gone = |done| match done {
        Err(Errno::ENOENT) => Ok(()),
        done => done,
    };
    match parent(base, name, false) {
        Ok((parent, last)) => gone(remove_one(parent.as_fd(), last, 0)),
        Err(e) => gone(Err(e)),
    }
}

/// The folder that the last part of `name` is in, and that part.
fn parent<'n>(base: &Path, name: &'n Path, make: bool) -> Result<(OwnedFd, &'n OsStr)> {
    let mut parts = Vec::new();
    for part in name.components() {
        let Component::Normal(part) = part else { return Err(Errno::EINVAL) };
        parts.push(part);
    }
    let last = parts.pop().ok_or(Errno::EINVAL)?;
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    // The base is trusted, wherever links on the way lead.
    let mut dir = openat(AT_FDCWD, base, flags, Mode::empty())?;
    only_ours(&fstat(&dir)?)?;
    for part in parts {
        if make && make_one(dir.as_fd(), part)? {
            fchmod(&open_one(dir.as_fd(), part)?, Mode::from_bits_truncate(0o755))?;
        }
        dir = open_one(dir.as_fd(), part)?;
        only_ours(&fstat(&dir)?)?;
    }
    Ok((dir, last))
}

/// Nobody but root and us can put something else in it.
fn only_ours(stat: &FileStat) -> Result<()> {
    let owned = stat.st_uid == 0 || stat.st_uid == identity::effective_uid();
    // Many users have a group of their own, and let it write.
    let by_group = stat.st_mode & 0o020 != 0 && stat.st_gid != identity::effective_gid();
    if owned && !by_group && stat.st_mode & 0o002 == 0 { Ok(()) } else { Err(Errno::EPERM) }
}

fn make_one(dir: BorrowedFd<'_>, name: &OsStr) -> Result<bool> {
    match mkdirat(dir, name, Mode::S_IRWXU) {
        Ok(()) => Ok(true),
        Err(Errno::EEXIST) => Ok(false),
        Err(e) => Err(e),
    }
}

fn open_one(dir: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(dir, name, flags, Mode::empty())
}

fn remove_one(dir: BorrowedFd<'_>, name: &OsStr, depth: u32) -> Result<()> {
    match unlinkat(dir, name, UnlinkatFlags::NoRemoveDir) {
        // What Linux and POSIX say of a folder.
        Err(Errno::EISDIR | Errno::EPERM) => {}
        done => return done,
    }
    if depth == DEEPEST {
        return Err(Errno::ENAMETOOLONG);
    }
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let within =
        ResolveFlag::RESOLVE_BENEATH | ResolveFlag::RESOLVE_NO_SYMLINKS | ResolveFlag::RESOLVE_NO_XDEV;
    let inner = openat2(dir, name, OpenHow::new().flags(flags).resolve(within))?;
    loop {
        let names = some_names(inner.as_fd())?;
        if names.is_empty() {
            break;
        }
        for name in names {
            match remove_one(inner.as_fd(), OsStr::from_bytes(name.as_bytes()), depth + 1) {
                Ok(()) | Err(Errno::ENOENT) => {}
                Err(e) => return Err(e),
            }
        }
    }
    unlinkat(dir, name, UnlinkatFlags::RemoveDir)
}

/// Some of the names in a folder; none: it is empty.
fn some_names(dir: BorrowedFd<'_>) -> Result<Vec<CString>> {
    let own = openat(dir, ".", OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let mut names = Vec::new();
    for entry in Dir::from_fd(own)?.iter() {
        let entry = entry?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
        if names.len() == BATCH {
            break;
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        fs,
        os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    };

    fn base() -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        dir
    }

    #[test]
    fn a_folder_is_made_with_its_parents_and_taken_again() {
        let base = base();
        assert_eq!(make(base.path(), Path::new("a/b"), 0o2750, None), Ok(true));
        let mode = |name: &str| fs::metadata(base.path().join(name)).unwrap().mode() & 0o7777;
        assert_eq!((mode("a"), mode("a/b")), (0o755, 0o2750));
        fs::write(base.path().join("a/b/c"), "kept").unwrap();
        assert_eq!(make(base.path(), Path::new("a/b"), 0o700, None), Ok(false));
        assert_eq!(mode("a/b"), 0o700);
        assert_eq!(fs::read(base.path().join("a/b/c")).unwrap(), b"kept");
    }

    #[test]
    fn nothing_is_made_or_removed_through_a_link() {
        let (base, other) = (base(), base());
        fs::create_dir(other.path().join("x")).unwrap();
        symlink(other.path(), base.path().join("link")).unwrap();
        for name in ["link", "link/x", "link/new"] {
            let done = make(base.path(), Path::new(name), 0o700, None);
            assert!(matches!(done, Err(Errno::ELOOP | Errno::ENOTDIR)), "{name}: {done:?}");
        }
        assert!(remove(base.path(), Path::new("link/x")).is_err());
        remove(base.path(), Path::new("link")).unwrap();
        assert!(other.path().join("x").exists() && !base.path().join("link").exists());
        for name in ["", "..", "a/../b", "/etc"] {
            assert_eq!(make(base.path(), Path::new(name), 0o700, None), Err(Errno::EINVAL), "{name}");
        }
    }

    #[test]
    fn nothing_is_made_where_others_could_swap_it() {
        let base = base();
        fs::create_dir(base.path().join("open")).unwrap();
        fs::set_permissions(base.path().join("open"), fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(make(base.path(), Path::new("open/x"), 0o700, None), Err(Errno::EPERM));
        assert!(!base.path().join("open/x").exists());
        fs::set_permissions(base.path().join("open"), fs::Permissions::from_mode(0o775)).unwrap();
        assert_eq!(make(base.path(), Path::new("open/x"), 0o700, None), Ok(true), "our own group");
        if identity::effective_uid() == 0 {
            std::os::unix::fs::chown(base.path().join("open"), None, Some(65534)).unwrap();
            assert_eq!(make(base.path(), Path::new("open/y"), 0o700, None), Err(Errno::EPERM));
        }
    }

    #[test]
    fn a_whole_tree_goes_and_what_links_lead_to_stays() {
        let (base, other) = (base(), base());
        fs::write(other.path().join("precious"), "x").unwrap();
        let top = base.path().join("top");
        fs::create_dir_all(top.join("a/b/c")).unwrap();
        for n in 0..3 * BATCH / 2 {
            fs::write(top.join(format!("a/{n}")), "").unwrap();
        }
        symlink(other.path(), top.join("a/out")).unwrap();
        fs::hard_link(other.path().join("precious"), top.join("hard")).unwrap();
        remove(base.path(), Path::new("top")).unwrap();
        assert!(!top.exists() && other.path().join("precious").exists());
        assert_eq!(remove(base.path(), Path::new("top")), Ok(()), "and once more");
    }

    #[test]
    fn a_tree_without_end_is_given_up() {
        let base = base();
        let deep = base.path().join("a/".repeat(DEEPEST as usize + 8));
        fs::create_dir_all(&deep).unwrap();
        assert_eq!(remove(base.path(), Path::new("a")), Err(Errno::ENAMETOOLONG));
    }
}
