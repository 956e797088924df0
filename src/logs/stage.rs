//! A pipe of our own between services' pipes and files. A write to a file holds the lock of the pipe that it
//! takes from: with a stage in between it never holds a service's, however long the file system takes.

use super::ledger::{Ledger, StageLabel};
use crate::sys::pipe::{self, Moved};
use std::{
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

/// See the head of this file. Its number is that of its label.
#[derive(Debug)]
pub(super) struct Stage {
    pub(super) number: u32,
    output: OwnedFd,
    input: OwnedFd,
    pub(super) capacity: usize,
}

impl Stage {
    /// Over the two ends of a pipe (read end, write end).
    pub(super) fn new(number: u32, output: OwnedFd, input: OwnedFd) -> Stage {
        let capacity = pipe::capacity(output.as_fd()).unwrap_or(0);
        Stage { number, output, input, capacity }
    }

    /// A new pipe with room for so many bytes, or fewer where the host grants no more.
    pub(super) fn create(number: u32, capacity: usize) -> io::Result<Stage> {
        let (output, input) = pipe::pair()?;
        // A smaller one only means smaller steps.
        let _ = pipe::set_capacity(output.as_fd(), capacity);
        Ok(Stage::new(number, output, input))
    }

    pub(super) fn label<'a>(&self, ledger: &'a Ledger) -> StageLabel<'a> {
        ledger.stage(self.number)
    }

    pub(super) fn ends(&self) -> [BorrowedFd<'_>; 2] {
        [self.output.as_fd(), self.input.as_fd()]
    }

    pub(super) fn output(&self) -> BorrowedFd<'_> {
        self.output.as_fd()
    }

    pub(super) fn input(&self) -> BorrowedFd<'_> {
        self.input.as_fd()
    }

    pub(super) fn fill(&self) -> io::Result<usize> {
        pipe::fill(self.output.as_fd())
    }

    /// Makes it so large, if the host grants that.
    pub(super) fn resize(&mut self, bytes: usize) -> bool {
        let done = pipe::set_capacity(self.output(), bytes);
        self.capacity = *done.as_ref().unwrap_or(&self.capacity);
        done.is_ok()
    }

    /// Gives the host back what is not needed for its contents: a user is granted only so much for all pipes.
    pub(super) fn shrink(&mut self) {
        let Ok(fill) = self.fill() else { return };
        let mut bytes = fill.next_power_of_two().max(4096);
        while bytes < self.capacity && !self.resize(bytes) {
            // Its pages are not all full.
            bytes *= 2;
        }
    }

    /// Takes bytes in, at most `len`; how many there are at the end, 0 if there are none to take.
    pub(super) fn take_from(&self, source: BorrowedFd, len: usize) -> io::Result<usize> {
        let mut taken = 0;
        while taken < len {
            match pipe::transfer(source, self.input.as_fd(), len - taken)? {
                Moved::Bytes(n) => taken += n,
                Moved::Empty | Moved::End => break,
            }
        }
        Ok(taken)
    }

    /// Throws the first `len` bytes away.
    pub(super) fn discard(&self, null: BorrowedFd, len: usize) -> io::Result<()> {
        let mut left = len;
        while left > 0 {
            match pipe::discard(self.output.as_fd(), null, left)? {
                Moved::Bytes(n) => left -= n,
                Moved::Empty | Moved::End => break,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_takes_no_more_room_than_it_needs() {
        let mut stage = Stage::create(0, 1 << 16).unwrap();
        let (source, input) = pipe::pair().unwrap();
        std::io::Write::write_all(&mut std::fs::File::from(input), &[b'x'; 10_000]).unwrap();
        assert_eq!(stage.take_from(source.as_fd(), 20_000).unwrap(), 10_000);
        stage.shrink();
        assert_eq!((stage.capacity, stage.fill().unwrap()), (16_384, 10_000));
        assert!(stage.resize(1 << 16));
        assert_eq!((stage.capacity, stage.fill().unwrap()), (1 << 16, 10_000));
    }
}
