//! Pipes: making them, looking into them, and moving their bytes without a copy through our memory.
//! Knows nothing of lines, files' names or services.

use nix::{
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::pipe2,
};
use std::{
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
    ptr,
};

/// What became of an attempt to take bytes out of a pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Moved {
    /// So many bytes, at least one.
    Bytes(usize),
    /// The pipe is empty and somebody can still write to it.
    Empty,
    /// The pipe is empty and nobody can write to it any more.
    End,
}

/// A new pipe (read end, write end), close-on-exec and non-blocking on both ends.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(pipe2(OFlag::O_CLOEXEC | OFlag::O_NONBLOCK)?)
}

/// How many bytes lie in the pipe.
pub fn fill(pipe: BorrowedFd) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int to a live local; the descriptor is borrowed for the call.
    check(unsafe { libc::ioctl(pipe.as_raw_fd(), libc::FIONREAD, &mut bytes) })?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// How many bytes the pipe can hold at most.
pub fn capacity(pipe: BorrowedFd) -> io::Result<usize> {
    // SAFETY: no pointers; the descriptor is borrowed for the call.
    let bytes = check(unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_GETPIPE_SZ) })?;
    Ok(usize::try_from(bytes).unwrap_or(0))
}

/// Asks for room for so many bytes and returns what was given. EPERM: the user holds too much pipe memory.
pub fn set_capacity(pipe: BorrowedFd, bytes: usize) -> io::Result<usize> {
    let wanted = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX);
    // SAFETY: no pointers; the descriptor is borrowed for the call.
    let given = check(unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETPIPE_SZ, wanted) })?;
    Ok(usize::try_from(given).unwrap_or(0))
}

/// Moves at most `len` bytes from the pipe into the file at `offset`, never waiting for the pipe. What is
/// taken from the pipe is in the file, whatever happens to this process. The file must not be O_APPEND.
pub fn splice(pipe: BorrowedFd, file: &File, offset: u64, len: usize) -> io::Result<Moved> {
    let mut at = libc::loff_t::try_from(offset).map_err(|_| io::Error::from(io::ErrorKind::FileTooLarge))?;
    let flags = libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK;
    let from = pipe.as_raw_fd();
    // SAFETY: `at` outlives the call, the other offset is null as a pipe demands, both descriptors are borrowed.
    moved(|| unsafe { libc::splice(from, ptr::null_mut(), file.as_raw_fd(), &mut at, len, flags) })
}

/// Copies at most `len` bytes from the head of one pipe to another and leaves them in the first.
/// `Empty` also stands for a second pipe that is full.
pub fn tee(from: BorrowedFd, to: BorrowedFd, len: usize) -> io::Result<Moved> {
    // SAFETY: no pointers; both descriptors are borrowed for the call.
    moved(|| unsafe { libc::tee(from.as_raw_fd(), to.as_raw_fd(), len, libc::SPLICE_F_NONBLOCK) })
}

/// Moves at most `len` bytes from the head of one pipe to the end of another, without copying them. Whatever
/// happens to this process, each byte is in one of them. `Empty` also stands for a second pipe that is full.
pub fn transfer(from: BorrowedFd, to: BorrowedFd, len: usize) -> io::Result<Moved> {
    let flags = libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK;
    let (from, to) = (from.as_raw_fd(), to.as_raw_fd());
    // SAFETY: both offsets are null as pipes demand, both descriptors are borrowed for the call.
    moved(|| unsafe { libc::splice(from, ptr::null_mut(), to, ptr::null_mut(), len, flags) })
}

/// Throws away at most `len` bytes from the head of a pipe; `null` is /dev/null.
pub fn discard(pipe: BorrowedFd, null: BorrowedFd, len: usize) -> io::Result<Moved> {
    transfer(pipe, null, len)
}

/// Whether nobody can write to the pipe any more; bytes may still lie in it.
pub fn ended(pipe: BorrowedFd) -> bool {
    let mut fds = [PollFd::new(pipe, PollFlags::POLLIN)];
    let told = poll(&mut fds, PollTimeout::ZERO).is_ok_and(|n| n > 0);
    told && fds[0].revents().is_some_and(|r| r.contains(PollFlags::POLLHUP))
}

/// Takes bytes out of a non-blocking pipe into `buf`, which is not empty.
pub fn read(pipe: impl AsFd, buf: &mut [u8]) -> io::Result<Moved> {
    let fd = pipe.as_fd().as_raw_fd();
    // SAFETY: the pointer and the length are those of one live, exclusively borrowed slice.
    moved(|| unsafe { libc::read(fd, buf.as_mut_ptr().cast(), buf.len()) })
}

fn moved(mut call: impl FnMut() -> libc::ssize_t) -> io::Result<Moved> {
    loop {
        match usize::try_from(call()) {
            Ok(0) => return Ok(Moved::End),
            Ok(n) => return Ok(Moved::Bytes(n)),
            Err(_) => match io::Error::last_os_error() {
                e if e.kind() == io::ErrorKind::WouldBlock => return Ok(Moved::Empty),
                e if e.kind() == io::ErrorKind::Interrupted => {}
                e => return Err(e),
            },
        }
    }
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
