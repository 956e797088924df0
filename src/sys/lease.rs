//! Read leases: for as long as the descriptor that has one is open, nobody opens the file for writing without
//! waiting for us.

use super::{Errno, Result};
use std::os::fd::{AsRawFd, BorrowedFd};

const F_SETSIG: libc::c_int = 10;
const F_SETLEASE: libc::c_int = 1024;

/// Takes one on a file that is open for reading; false where this file system has none, or the file is somebody
/// else's and we may not (CAP_LEASE). EAGAIN: somebody has it open for writing.
pub fn take(fd: BorrowedFd<'_>) -> Result<bool> {
    let set = |what: libc::c_int, to: libc::c_int| {
        // SAFETY: fcntl with these commands takes a number.
        Errno::result(unsafe { libc::fcntl(fd.as_raw_fd(), what, to) })
    };
    // Who waits for us is told by a signal, and SIGIO would end us.
    set(F_SETSIG, libc::SIGURG)?;
    match set(F_SETLEASE, libc::F_RDLCK) {
        Ok(_) => Ok(true),
        Err(Errno::EAGAIN) => Err(Errno::EAGAIN),
        Err(_) => Ok(false),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{fs, os::fd::AsFd, os::unix::fs::OpenOptionsExt};

    #[test]
    fn nobody_writes_while_it_is_held() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let held = fs::File::open(file.path()).unwrap();
        assert_eq!(take(held.as_fd()), Err(Errno::EAGAIN), "the test itself has it open for writing");
        let path = file.into_temp_path();
        if !take(held.as_fd()).unwrap() {
            return eprintln!("SKIPPED nobody_writes_while_it_is_held: no leases on this file system");
        }
        let write =
            || fs::OpenOptions::new().write(true).custom_flags(libc::O_NONBLOCK).open(&path).map(drop);
        assert_eq!(write().unwrap_err().raw_os_error(), Some(libc::EWOULDBLOCK));
        drop(held);
        write().unwrap();
    }
}
