//! Which file system a path is on, from the kernel's table of mounts: no file system is touched for the answer,
//! so that one that does not answer holds nobody up.

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::{
    ffi::OsString,
    fs::File,
    io::{self, Read, Seek},
    os::{fd::AsFd, unix::ffi::OsStringExt},
    path::{Path, PathBuf},
};

/// The table, read again when it has changed.
#[derive(Debug)]
pub struct Mounts {
    table: File,
    known: Vec<(PathBuf, String)>,
}

impl Mounts {
    /// Reads the table.
    pub fn new() -> io::Result<Mounts> {
        // Of this thread: it may have mounts of its own.
        let mut mounts = Mounts { table: File::open("/proc/thread-self/mountinfo")?, known: Vec::new() };
        mounts.read()?;
        Ok(mounts)
    }

    fn read(&mut self) -> io::Result<()> {
        let mut text = Vec::new();
        self.table.rewind()?;
        self.table.read_to_end(&mut text)?;
        self.known = parse(&text);
        Ok(())
    }

    fn changed(&self) -> bool {
        let mut fds = [PollFd::new(self.table.as_fd(), PollFlags::POLLPRI)];
        let told = poll(&mut fds, PollTimeout::ZERO).is_ok_and(|n| n > 0);
        told && fds[0].revents().is_some_and(|r| r.contains(PollFlags::POLLPRI))
    }

    /// The device ("8:1") that an absolute path is on, by the names in it: symbolic links are not followed.
    pub fn device(&mut self, path: &Path) -> String {
        if self.changed() {
            // The old table is better than none.
            let _ = self.read();
        }
        let on = self.known.iter().filter(|(at, _)| path.starts_with(at));
        // The deepest one, and of those on one another the last.
        on.max_by_key(|(at, _)| at.as_os_str().len()).map(|(_, device)| device.clone()).unwrap_or_default()
    }
}

/// (mount point, device) of each line.
fn parse(text: &[u8]) -> Vec<(PathBuf, String)> {
    let lines = text.split(|b| *b == b'\n');
    let fields = lines.map(|line| line.split(|b| *b == b' ').collect::<Vec<_>>());
    let mounts =
        fields.filter_map(|f| Some((unescape(f.get(4)?), String::from_utf8_lossy(f.get(2)?).into())));
    mounts.collect()
}

/// Space, tab, line feed and backslash are written as three octal digits behind a backslash.
fn unescape(text: &[u8]) -> PathBuf {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, tail)) = rest.split_first() {
        let digits = tail.get(..3).filter(|d| *first == b'\\' && d.iter().all(|b| (b'0'..b'8').contains(b)));
        let number = digits.map(|d| d.iter().fold(0u32, |n, b| n * 8 + u32::from(b - b'0')));
        match number.and_then(|n| u8::try_from(n).ok()) {
            Some(byte) => {
                out.push(byte);
                rest = &tail[3..];
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    OsString::from_vec(out).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_mount_counts_and_the_last_on_a_place() {
        let text = b"1 0 8:1 / / rw - ext4 /dev/a rw\n\
                     2 1 0:9 / /var/log rw - tmpfs t rw\n\
                     3 1 0:10 / /var/log rw - tmpfs t rw\n\
                     4 1 0:11 / /with\\040space\\134 rw - tmpfs t rw\n";
        let mut mounts = Mounts { table: File::open("/proc/self/mountinfo").unwrap(), known: parse(text) };
        for (path, device) in
            [("/", "8:1"), ("/var/logs", "8:1"), ("/var/log/x", "0:10"), ("/with space\\/x", "0:11")]
        {
            assert_eq!(mounts.device(Path::new(path)), device, "{path}");
        }
    }

    #[test]
    fn the_kernel_s_table_is_read() {
        assert!(Mounts::new().unwrap().device(Path::new("/proc/self")).contains(':'));
    }
}
