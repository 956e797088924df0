//! Looking at what lies in a pipe without taking it.

use super::stage::Stage;
use crate::sys::pipe::{self, Moved};
use std::{io, os::fd::BorrowedFd};

/// How much one look shows at most: as much as is written in another form at a time, and the longest line.
pub(super) const LOOK: usize = (256 << 10) + 1;
/// As much as is read at a time where nothing asks for more: it stays in the processor's cache.
pub(super) const GLANCE: usize = 64 << 10;

/// A pipe and a buffer for bytes that are looked at. Empty between calls.
#[derive(Debug)]
pub(super) struct Scratch {
    pipe: Stage,
    buffer: Box<[u8]>,
}

/// What a look found; see [`Moved`].
pub(super) enum Look<'a> {
    Bytes(&'a [u8]),
    Empty,
    End,
}

impl Scratch {
    /// Over a pipe of its own. Where the host keeps it small, a look shows less of a pipe that was filled in
    /// small pieces.
    pub(super) fn new() -> io::Result<Scratch> {
        Ok(Scratch::over(Stage::create(0, 1 << 20)?))
    }

    /// Over a stage that belongs to no stream.
    pub(super) fn over(pipe: Stage) -> Scratch {
        Scratch { pipe, buffer: vec![0; LOOK].into() }
    }

    /// The first bytes in `pipe`, which stay there.
    pub(super) fn look(&mut self, pipe: BorrowedFd) -> io::Result<Look<'_>> {
        self.look_at(pipe, GLANCE)
    }

    /// The first bytes in `pipe`, at most `most` of them, which stay there.
    pub(super) fn look_at(&mut self, pipe: BorrowedFd, most: usize) -> io::Result<Look<'_>> {
        let copied = match pipe::tee(pipe, self.pipe.input(), most.clamp(1, LOOK))? {
            Moved::Bytes(n) => n,
            Moved::Empty => return Ok(Look::Empty),
            Moved::End => return Ok(Look::End),
        };
        let mut done = 0;
        while done < copied {
            match pipe::read(self.pipe.output(), &mut self.buffer[done..copied])? {
                Moved::Bytes(n) => done += n,
                Moved::Empty | Moved::End => break,
            }
        }
        Ok(Look::Bytes(&self.buffer[..done]))
    }
}
