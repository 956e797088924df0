//! Where cgroup v2 is, and reading and writing its files. What the folders mean is the caller's business.

use super::{Errno, Result, fd};
use std::{
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
};

/// The cgroup v2 folder that this process is in; the error is a clause for people.
pub fn own_folder() -> std::result::Result<PathBuf, String> {
    let read = |p: &str| std::fs::read_to_string(p).map_err(|e| format!("{p} cannot be read: {e}"));
    let (mounts, own) = (read("/proc/self/mountinfo")?, read("/proc/self/cgroup")?);
    folder_of(&mounts, &own)
}

/// [`own_folder`] from the texts of /proc/self/mountinfo and /proc/self/cgroup.
fn folder_of(mounts: &str, own: &str) -> std::result::Result<PathBuf, String> {
    let own = membership(own).ok_or("this process is in no cgroup v2")?;
    let (root, at) = mounts.lines().find_map(mount).ok_or("cgroup v2 is not mounted")?;
    let outside = || format!("our cgroup {own} lies outside of what is mounted at {}", at.display());
    if own.split('/').any(|part| part == "..") {
        return Err(outside());
    }
    let below = Path::new(own).strip_prefix(&root).map_err(|_| outside())?;
    Ok(at.join(below))
}

/// The path in the `0::` line of a /proc/PID/cgroup; other lines are of v1.
pub fn membership(text: &str) -> Option<&str> {
    text.lines().find_map(|l| l.strip_prefix("0::"))
}

/// Root and mount point, if this line of mountinfo is a cgroup v2.
fn mount(line: &str) -> Option<(String, PathBuf)> {
    let (head, tail) = line.split_once(" - ")?;
    if tail.split(' ').next() != Some("cgroup2") {
        return None;
    }
    let mut fields = head.split(' ').skip(3);
    Some((unescape(fields.next()?), PathBuf::from(unescape(fields.next()?))))
}

/// mountinfo writes space, tab, newline and backslash as `\040` and so on.
fn unescape(s: &str) -> String {
    s.replace("\\040", " ").replace("\\011", "\t").replace("\\012", "\n").replace("\\134", "\\")
}

/// Whether a cgroup has live processes, its descendants included. ENOENT: it is gone.
pub fn populated(base: BorrowedFd<'_>, name: &str) -> Result<bool> {
    Ok(counter(base, name, "cgroup.events", "populated")? == Some(1))
}

/// A number out of a file of `KEY NUMBER` lines, such as `memory.events`. ENOENT: the cgroup or the file is not there.
pub fn counter(base: BorrowedFd<'_>, name: &str, file: &str, key: &str) -> Result<Option<u64>> {
    let mut buf = [0u8; 512];
    let file = fd::open_at(base, &format!("{name}/{file}"), false)?;
    let n = fd::read(file.as_fd(), &mut buf)?;
    let text = String::from_utf8_lossy(&buf[..n]);
    let mut pairs = text.lines().filter_map(|l| l.split_once(' '));
    Ok(pairs.find(|(k, _)| *k == key).and_then(|(_, number)| number.parse().ok()))
}

/// The number that a file holds, such as `memory.peak`. ENOENT: the cgroup or the file is not there.
pub fn number(base: BorrowedFd<'_>, name: &str, file: &str) -> Result<Option<u64>> {
    let mut buf = [0u8; 32];
    let file = fd::open_at(base, &format!("{name}/{file}"), false)?;
    let n = fd::read(file.as_fd(), &mut buf)?;
    Ok(std::str::from_utf8(&buf[..n]).ok().and_then(|text| text.trim().parse().ok()))
}

/// Writes to a file of a cgroup.
pub fn write(base: BorrowedFd<'_>, name: &str, file: &str, text: &str) -> Result<()> {
    let file = fd::open_at(base, &format!("{name}/{file}"), true)?;
    fd::write(file.as_fd(), text.as_bytes()).map(drop)
}

/// The processes of one cgroup, without its descendants.
pub fn processes(base: BorrowedFd<'_>, name: &str) -> Result<Vec<i32>> {
    let file = fd::open_at(base, &format!("{name}/cgroup.procs"), false)?;
    let (mut text, mut buf) = (Vec::new(), [0u8; 4096]);
    loop {
        match fd::read(file.as_fd(), &mut buf)? {
            0 => break,
            n => text.extend_from_slice(&buf[..n]),
        }
    }
    Ok(String::from_utf8_lossy(&text).lines().filter_map(|l| l.parse().ok()).collect())
}

/// Moves the calling process into a cgroup.
pub fn join(base: BorrowedFd<'_>, name: &str) -> Result<()> {
    write(base, name, "cgroup.procs", "0")
}

/// The errors with which clone3 says that it cannot put a child into a cgroup, while joining may work.
pub fn must_join(errno: Errno) -> bool {
    matches!(errno, Errno::ENOSYS | Errno::EPERM | Errno::EINVAL | Errno::EACCES | Errno::E2BIG)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw\n\
        32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw\n";

    #[test]
    fn finds_v2_beside_v1() {
        let own = "8:pids:/v1\n1:name=systemd:/x\n0::/system.slice/keepd.service\n";
        let found = folder_of(HYBRID, own).unwrap();
        assert_eq!(found, Path::new("/sys/fs/cgroup/unified/system.slice/keepd.service"));
        assert_eq!(folder_of(HYBRID, "0::/").unwrap(), Path::new("/sys/fs/cgroup/unified"));
    }

    #[test]
    fn finds_a_mount_of_a_part() {
        let mounts = "41 31 0:38 /box /sys/fs/c\\040g rw - cgroup2 cgroup2 rw\n";
        assert_eq!(folder_of(mounts, "0::/box/a").unwrap(), Path::new("/sys/fs/c g/a"));
        assert!(folder_of(mounts, "0::/other").unwrap_err().contains("outside"));
        assert!(folder_of(mounts, "0::/../x").unwrap_err().contains("outside"));
    }

    #[test]
    fn says_what_is_missing() {
        assert_eq!(folder_of("", "0::/").unwrap_err(), "cgroup v2 is not mounted");
        assert_eq!(folder_of(HYBRID, "1:cpu:/\n").unwrap_err(), "this process is in no cgroup v2");
    }
}
