//! What a new manager is given before it decides anything: plans, kept states, live runs, and the facts about
//! them that are still true. Read synchronously, before there is a runtime.

use super::link::{Packet, unpack};
use crate::{
    keeper::protocol::{Hello, News, PACKET_MAX, Pipes},
    plan::{Generation, Name, Plan, RunId, image::Image},
    sys::{
        Errno,
        memory::Mapping,
        packet,
        poll::{Interest, Poll},
    },
};
use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::Arc,
};

/// A run that the keeper holds.
#[derive(Debug)]
pub(super) struct HeldRun {
    pub(super) run: RunId,
    pub(super) service: Name,
    pub(super) generation: Generation,
    pub(super) pipes: RunPipes,
}

/// The read ends of a run's output.
#[derive(Debug, Default)]
pub(super) struct RunPipes {
    pub(super) stdout: Option<OwnedFd>,
    pub(super) stderr: Option<OwnedFd>,
}

impl RunPipes {
    /// Takes the descriptors of a message in the order that `pipes` names them.
    pub(super) fn take(pipes: Pipes, fds: Vec<OwnedFd>) -> RunPipes {
        let mut fds = fds.into_iter();
        let stdout = if pipes.stdout { fds.next() } else { None };
        let stderr = if pipes.stderr { fds.next() } else { None };
        RunPipes { stdout, stderr }
    }
}

/// Everything between `Hello` and `HelloEnd`, and what came right behind it.
#[derive(Debug, Default)]
pub(super) struct HandOver {
    pub(super) hello: Hello,
    pub(super) plans: BTreeMap<Generation, Arc<Plan>>,
    pub(super) remembered: BTreeMap<Name, String>,
    /// What an earlier manager asked to keep, by the names that it gave.
    pub(super) kept: Vec<(String, Vec<OwnedFd>)>,
    pub(super) runs: Vec<HeldRun>,
    pub(super) facts: Vec<Packet>,
    complete: bool,
}

impl HandOver {
    fn take(&mut self, message: Packet) -> io::Result<()> {
        let invalid = |e: &str| io::Error::new(io::ErrorKind::InvalidData, e);
        let Packet { news, fds } = message;
        match news {
            News::Hello(h) => self.hello = h,
            News::Plan { generation } => {
                let fd = fds.into_iter().next().ok_or_else(|| invalid("a plan without its memfd"))?;
                self.plans.insert(generation, Arc::new(read_plan(&fd)?));
            }
            News::Remembered { service, state } => {
                self.remembered.insert(service, state.as_str().to_owned());
            }
            News::Run { run, service, generation, entry: _, pipes } => {
                self.runs.push(HeldRun { run, service, generation, pipes: RunPipes::take(pipes, fds) });
            }
            News::Kept { name, descriptors: _ } => self.kept.push((name, fds)),
            News::HelloEnd => self.complete = true,
            fact => self.facts.push(Packet { news: fact, fds }),
        }
        Ok(())
    }
}

/// Reads the hand-over, waiting for it.
///
/// # Errors
/// Of the socket, and `InvalidData` for a message or a plan that this version cannot read.
pub(super) fn receive(socket: BorrowedFd<'_>) -> io::Result<HandOver> {
    let mut buffer = vec![0; PACKET_MAX];
    let mut poll = Poll::new(1)?;
    poll.add(socket, Interest::Read, 0)?;
    let mut handed = HandOver::default();
    loop {
        let (len, fds) = match packet::receive(socket.as_fd(), &mut buffer) {
            Ok(Some(got)) => got,
            Ok(None) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Err(Errno::EAGAIN) => {
                poll.wait(None)?;
                continue;
            }
            Err(e) => return Err(e.into()),
        };
        for message in unpack(&buffer[..len], fds)? {
            handed.take(message)?;
        }
        if handed.complete {
            return Ok(handed);
        }
    }
}

/// Reads a whole plan from its memfd.
pub(super) fn read_plan(fd: &OwnedFd) -> io::Result<Plan> {
    let mapping = Mapping::new(fd.as_fd())?;
    Image::new(&mapping)
        .and_then(|image| image.plan())
        .map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.to_string()))
}
