//! Looking at what lies in a pipe without taking it, and taking it to throw it away.

use crate::sys::pipe::{self, Moved};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

/// How much one look shows at most.
const LOOK: usize = 64 * 1024;

/// A pipe and a buffer for bytes that are looked at. Empty between calls.
#[derive(Debug)]
pub(super) struct Scratch {
    output: OwnedFd,
    input: OwnedFd,
    buffer: Box<[u8]>,
}

/// What a look found; see [`Moved`].
pub(super) enum Look<'a> {
    Bytes(&'a [u8]),
    Empty,
    End,
}

impl Scratch {
    pub(super) fn new() -> io::Result<Scratch> {
        let (output, input) = pipe::pair()?;
        Ok(Scratch { output, input, buffer: vec![0; LOOK].into() })
    }

    /// The first bytes in `pipe`, which stay there.
    pub(super) fn look(&mut self, pipe: BorrowedFd) -> io::Result<Look<'_>> {
        let copied = match pipe::tee(pipe, self.input.as_fd(), LOOK)? {
            Moved::Bytes(n) => n,
            Moved::Empty => return Ok(Look::Empty),
            Moved::End => return Ok(Look::End),
        };
        self.fill(None, copied).map(|n| Look::Bytes(&self.buffer[..n]))
    }

    /// Takes the first `most` bytes out of `pipe`, or fewer so that a line ends there, and counts bytes and
    /// line ends. Zero bytes: the pipe is empty.
    pub(super) fn discard(&mut self, pipe: BorrowedFd, most: usize) -> io::Result<(u64, u64)> {
        let Look::Bytes(seen) = self.look(pipe)? else { return Ok((0, 0)) };
        let within = &seen[..seen.len().min(most)];
        let cut = within.iter().rposition(|b| *b == b'\n').map_or(within.len(), |i| i + 1);
        let taken = self.fill(Some(pipe), cut)?;
        let lines = self.buffer[..taken].iter().filter(|b| **b == b'\n').count();
        Ok((taken as u64, lines as u64))
    }

    /// Reads `len` bytes that are known to be there, from `pipe` or the scratch pipe.
    fn fill(&mut self, pipe: Option<BorrowedFd>, len: usize) -> io::Result<usize> {
        let from = pipe.unwrap_or(self.output.as_fd());
        let mut done = 0;
        while done < len {
            match pipe::read(from, &mut self.buffer[done..len])? {
                Moved::Bytes(n) => done += n,
                Moved::Empty | Moved::End => break,
            }
        }
        Ok(done)
    }
}
