//! The manager's end of the socket to the keeper: packets out in order, packets in with their descriptors.
//! Sending never blocks: what the socket will not take now waits here until it is writable.

use crate::{
    keeper::protocol::{News, PACKET_MAX, Request, Turn},
    logs::Keep,
    sys::{
        self, packet,
        poll::{self, Poll},
    },
};
use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};
use tokio::io::{Interest, unix::AsyncFd};

/// One message of the keeper, with its descriptors.
#[derive(Debug)]
pub(super) struct Packet {
    pub(super) news: News,
    pub(super) fds: Vec<OwnedFd>,
}

/// See the head of the file.
#[derive(Debug)]
pub(super) struct Link {
    socket: AsyncFd<OwnedFd>,
    out: VecDeque<Vec<u8>>,
    buffer: Vec<u8>,
}

impl Link {
    /// Takes the (non-blocking) socket; must be called within a tokio runtime.
    pub(super) fn new(socket: OwnedFd) -> io::Result<Link> {
        let socket = sys::ready::socket(socket, Interest::READABLE | Interest::WRITABLE)?;
        Ok(Link { socket, out: VecDeque::new(), buffer: vec![0; PACKET_MAX] })
    }

    /// Sends requests, as few packets as they fit in; one `group` is never split over two packets. Each packet goes
    /// as soon as it is full, so that the keeper does what stands in it while the next is being made.
    pub(super) fn send(&mut self, groups: Vec<Vec<Request>>) {
        let mut turn = Turn::default();
        let mut size = 0;
        for group in groups {
            let group_size: usize = group.iter().map(estimate).sum();
            if size + group_size > PACKET_MAX / 2 && !turn.0.is_empty() {
                self.queue(&std::mem::take(&mut turn));
                self.flush();
                size = 0;
            }
            size += group_size;
            turn.0.extend(group);
        }
        if !turn.0.is_empty() {
            self.queue(&turn);
        }
        self.flush();
    }

    /// True while something waits for the socket to take it.
    pub(super) fn waiting(&self) -> bool {
        !self.out.is_empty()
    }

    /// Sends what the socket takes now.
    pub(super) fn flush(&mut self) {
        while let Some(packet) = self.out.front() {
            match packet::send(self.socket.get_ref().as_fd(), packet, &[]) {
                Ok(()) => drop(self.out.pop_front()),
                Err(sys::Errno::EAGAIN) => return,
                // The keeper is gone: the read side tells, and acts on it.
                Err(_) => return self.out.clear(),
            }
        }
    }

    /// Waits until the socket takes more: then call [`Link::flush`].
    pub(super) async fn writable(&self) -> io::Result<()> {
        // Cleared before the attempt: `flush` goes on until the socket refuses, so the next edge will come.
        self.socket.writable().await?.clear_ready();
        Ok(())
    }

    /// Waits until there is something to receive.
    pub(super) async fn readable(&self) -> io::Result<()> {
        // Readiness is kept: `receive` clears it once the socket is empty.
        self.socket.readable().await?.retain_ready();
        Ok(())
    }

    /// The messages of the next packet; none where no packet has come yet.
    ///
    /// # Errors
    /// `UnexpectedEof` when the keeper is gone, `InvalidData` for a packet that this version cannot read.
    pub(super) fn receive(&mut self) -> io::Result<Vec<Packet>> {
        let buffer = &mut self.buffer;
        let mut got = None;
        let result = self.socket.try_io(Interest::READABLE, |fd| {
            got = packet::receive(fd.as_fd(), buffer)?;
            Ok(())
        });
        match result {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(Vec::new()),
            other => other?,
        }
        let Some((len, fds)) = got else { return Err(io::ErrorKind::UnexpectedEof.into()) };
        unpack(&self.buffer[..len], fds)
    }

    fn queue(&mut self, turn: &Turn) {
        match serde_json::to_vec(turn) {
            Ok(bytes) => self.out.push_back(bytes),
            Err(e) => tracing::error!("cannot encode a message for the keeper: {e}; it is left out"),
        }
    }
}

/// How long a log writer waits for room in the socket, and for the receipt, before it gives up, in milliseconds.
const PATIENCE_MS: u64 = 5_000;

/// Lets the keeper keep descriptors: for threads that cannot go on before they are kept. A packet that the socket
/// has taken reaches the keeper whatever becomes of us; but the keeper may be killed before it has taken it out and
/// written it down for the next, so it says when it has.
pub(super) fn deposit(socket: OwnedFd) -> impl Fn(Keep<'_>) -> io::Result<()> + Send + Sync {
    move |keep| match keep {
        Keep::Hold(name, fds) => {
            let (receipt, written) = sys::fd::pipe()?;
            let fds: Vec<_> = fds.iter().copied().chain([written.as_fd()]).collect();
            let descriptors = u32::try_from(fds.len()).unwrap_or(u32::MAX);
            send_in_time(&socket, Request::Keep { name: name.into(), descriptors }, &fds)?;
            drop(fds);
            drop(written);
            await_receipt(&receipt)
        }
        Keep::Release(name) => send_in_time(&socket, Request::Drop { name: name.into() }, &[]),
    }
}

fn send_in_time(socket: &OwnedFd, request: Request, fds: &[BorrowedFd<'_>]) -> io::Result<()> {
    let bytes = serde_json::to_vec(&Turn(vec![request]))?;
    let until = sys::clock::boottime_ms() + PATIENCE_MS;
    loop {
        match packet::send(socket.as_fd(), &bytes, fds) {
            Err(sys::Errno::EAGAIN | sys::Errno::ETOOMANYREFS) if sys::clock::boottime_ms() < until => {
                let mut room = Poll::new(1)?;
                room.add(socket.as_fd(), poll::Interest::Write, 0)?;
                room.wait(Some(100))?;
            }
            done => return Ok(done?),
        }
    }
}

/// Waits until a byte says that what was sent is kept; the end of the pipe without one says that it is not.
fn await_receipt(receipt: &OwnedFd) -> io::Result<()> {
    let mut told = Poll::new(1)?;
    told.add(receipt.as_fd(), poll::Interest::Read, 0)?;
    let ready = told.wait(Some(PATIENCE_MS))?;
    match ready.is_empty() {
        false if sys::fd::read(receipt.as_fd(), &mut [0])? == 1 => Ok(()),
        _ => Err(io::Error::other("the keeper did not confirm that it keeps it")),
    }
}

/// A packet's messages, each with its descriptors.
pub(super) fn unpack(bytes: &[u8], fds: Vec<OwnedFd>) -> io::Result<Vec<Packet>> {
    let all: Vec<News> =
        serde_json::from_slice(bytes).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))?;
    let mut fds = fds.into_iter();
    let own = |news: News| {
        let fds = fds.by_ref().take(news.descriptors()).collect();
        Packet { news, fds }
    };
    Ok(all.into_iter().map(own).collect())
}

/// An upper bound of the encoded size of a request, in bytes, but for escapes (hence half of the packet).
fn estimate(r: &Request) -> usize {
    match r {
        Request::Remember { service, state } => state.as_str().len() + service.as_str().len() + 64,
        Request::Launch { service, .. } | Request::Forget { service } => service.as_str().len() + 160,
        Request::Notify(crate::keeper::protocol::Up::Status(s)) => s.len() * 2 + 64,
        _ => 96,
    }
}
