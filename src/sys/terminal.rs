//! Terminals: a pair of our own, its size, and the one that we run in made transparent.

use super::{Errno, Result};
use nix::{
    pty::{Winsize, openpty},
    sys::termios::{self, SetArg, Termios},
};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// A new terminal as large as `like`, if that is one: (our side, the side of whoever runs in it). Both are
/// close-on-exec.
pub fn pair(like: BorrowedFd<'_>) -> Result<(OwnedFd, OwnedFd)> {
    let size = size(like).ok();
    let pty = openpty(size.as_ref(), None)?;
    for end in [&pty.master, &pty.slave] {
        super::fd::set_cloexec(end.as_fd(), true)?;
    }
    Ok((pty.master, pty.slave))
}

/// ENOTTY: it is none.
fn size(terminal: BorrowedFd<'_>) -> Result<Winsize> {
    let mut size = Winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCGWINSZ fills in the winsize that it is given.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ, &raw mut size) })?;
    Ok(size)
}

/// Makes `terminal` as large as `like`; whoever runs in it is told by SIGWINCH.
pub fn resize(terminal: BorrowedFd<'_>, like: BorrowedFd<'_>) -> Result<()> {
    let size = size(like)?;
    // SAFETY: TIOCSWINSZ reads the winsize that it is given.
    Errno::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) }).map(drop)
}

/// Makes the terminal that is stdin the one that our session, which has none, is controlled by.
pub fn control_by_stdin() -> Result<()> {
    // SAFETY: TIOCSCTTY takes a number.
    Errno::result(unsafe { libc::ioctl(0, libc::TIOCSCTTY, 0) }).map(drop)
}

/// A terminal that passes every byte on as it is; dropping this makes it what it was.
#[derive(Debug)]
pub struct Raw<'a> {
    terminal: BorrowedFd<'a>,
    before: Termios,
}

impl<'a> Raw<'a> {
    /// ENOTTY: it is none.
    pub fn new(terminal: BorrowedFd<'a>) -> Result<Raw<'a>> {
        let before = termios::tcgetattr(terminal)?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(terminal, SetArg::TCSADRAIN, &raw)?;
        Ok(Raw { terminal, before })
    }
}

impl Drop for Raw<'_> {
    fn drop(&mut self) {
        // A terminal that is gone needs nothing any more.
        let _ = termios::tcsetattr(self.terminal, SetArg::TCSADRAIN, &self.before);
    }
}
