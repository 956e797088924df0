//! The way to the manager: what is still to be sent, and what it asked for. Sending never waits; while too
//! much is unsent, nothing more is read, so that a manager that does not listen cannot make it grow.

#![forbid(unsafe_code)]

use super::{
    protocol::{News, NoteLevel, PACKET_MAX, Request, Turn},
    pulse::Pulse,
    state::{Keeper, TOKEN_MANAGER},
};
use crate::sys::{Errno, clock, packet, poll::Interest, process::Child};
use std::{
    collections::VecDeque,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    rc::Rc,
};

/// Unsent packets beyond those of the runs themselves, at which nothing more is read.
const UNSENT_MAX: usize = 1024;
/// When to try again where no event will tell.
const AGAIN_MS: u64 = 10;
/// How long a manager that has closed its end may take to end.
const LAST_WORDS_MS: u64 = 1_000;
/// So much news of launches is sent at once while more is about to come: a packet costs the manager more than a
/// message in it.
const LAUNCHES: usize = 8;
/// And none waits longer than so for others.
const PATIENCE_MS: u64 = 2;

/// The manager and what is under way to and from it.
#[derive(Debug, Default)]
pub(super) struct Link {
    pub(super) socket: Option<OwnedFd>,
    pub(super) child: Option<Child>,
    out: VecDeque<Message>,
    /// Each with its descriptors.
    requests: VecDeque<(Request, Vec<OwnedFd>)>,
    interest: Option<Interest>,
    again_at: Option<u64>,
    /// Since when news of launches wait for more.
    held_since: Option<u64>,
    buffer: Vec<u8>,
    pub(super) started_at: u64,
    /// How many managers there have been.
    pub(super) managers: u32,
    /// How it ended, until it is restarted.
    pub(super) cause: Option<String>,
    /// The present manager has said that it is ready.
    pub(super) ready: bool,
    /// Whether it answers.
    pub(super) pulse: Pulse,
    /// When to kill one that has closed its end.
    pub(super) kill_at: Option<u64>,
    /// Why we have killed it ourselves.
    pub(super) verdict: Option<String>,
    /// Managers in a row that ended before they were ready.
    pub(super) failures: u32,
    pub(super) delay_ms: u64,
    pub(super) restart_at: Option<u64>,
    /// What people asked for while there was no manager.
    pub(super) missed: Vec<News>,
}

#[derive(Debug)]
struct Message {
    bytes: Vec<u8>,
    fds: Vec<Rc<OwnedFd>>,
    /// It may wait for others of its kind.
    patient: bool,
}

/// The next packet: as many messages as fit, their descriptors, and how many messages that is. A message that
/// is too long for any packet goes alone.
fn gather(out: &VecDeque<Message>) -> (Vec<u8>, Vec<BorrowedFd<'_>>, usize) {
    let (mut bytes, mut fds, mut count) = (vec![b'['], Vec::new(), 0);
    for message in out {
        let fits = bytes.len() + message.bytes.len() + 1 < PACKET_MAX
            && fds.len() + message.fds.len() <= packet::FDS_MAX;
        if count > 0 {
            if !fits {
                break;
            }
            bytes.push(b',');
        }
        bytes.extend(&message.bytes);
        fds.extend(message.fds.iter().map(|f| f.as_fd()));
        count += 1;
    }
    bytes.push(b']');
    (bytes, fds, count)
}

impl Link {
    pub(super) fn connected(&self) -> bool {
        self.socket.is_some() && self.child.is_some()
    }

    /// There is no manager, and all that the last one asked for was done.
    pub(super) fn gone(&self) -> bool {
        self.socket.is_none() && self.child.is_none() && self.requests.is_empty()
    }

    pub(super) fn has_requests(&self) -> bool {
        !self.requests.is_empty()
    }

    fn push(&mut self, requests: Vec<Request>, fds: &mut impl Iterator<Item = OwnedFd>) {
        for request in requests {
            let own = fds.by_ref().take(request.descriptors()).collect();
            self.requests.push_back((request, own));
        }
    }

    pub(super) fn deadline(&self) -> Option<u64> {
        let pulse = self.connected().then(|| self.pulse.deadline());
        [self.restart_at, self.again_at, self.kill_at, pulse].into_iter().flatten().min()
    }

    /// Nothing of what is unsent can arrive any more.
    pub(super) fn forget_unsent(&mut self) {
        self.out.clear();
        self.again_at = None;
    }

    /// The connection is new: watched for nothing yet.
    pub(super) fn renew(&mut self, socket: OwnedFd, child: Child) {
        self.socket = Some(socket);
        self.child = Some(child);
        self.interest = None;
        self.forget_unsent();
        self.requests.clear();
        self.started_at = clock::boottime_ms();
        self.pulse = Pulse::of_new(self.started_at);
        (self.verdict, self.kill_at) = (None, None);
        self.managers += 1;
        self.ready = false;
        self.restart_at = None;
        self.cause = None;
    }
}

impl Keeper {
    /// Queues news for the manager. Without one it is dropped: the next one is told what is true by then.
    pub(super) fn tell(&mut self, news: News) {
        self.tell_with(news, Vec::new());
    }

    /// As [`Keeper::tell`], but without a manager the next one is told, once.
    pub(super) fn tell_or_keep(&mut self, news: News) {
        if self.link.connected() {
            self.tell(news);
        } else if !self.link.missed.contains(&news) {
            self.link.missed.push(news);
        }
    }

    /// As [`Keeper::tell`], with descriptors.
    pub(super) fn tell_with(&mut self, news: News, fds: Vec<Rc<OwnedFd>>) {
        if !self.link.connected() {
            return;
        }
        // These types have no map with keys that are not strings, which is all that could fail.
        let Ok(bytes) = serde_json::to_vec(&news) else { return };
        let patient = matches!(news, News::Started { .. });
        self.link.out.push_back(Message { bytes, fds, patient });
    }

    /// Sends what there is room for, and says what to be woken for.
    pub(super) fn flush(&mut self) {
        self.link.again_at = None;
        let waits = self.news_waits();
        let Some(socket) = self.link.socket.as_ref().map(AsFd::as_fd) else { return };
        let mut full = false;
        while !waits && !self.link.out.is_empty() {
            let (bytes, fds, count) = gather(&self.link.out);
            match packet::send(socket, &bytes, &fds) {
                Ok(()) => drop(self.link.out.drain(..count)),
                Err(Errno::EAGAIN) => {
                    full = true;
                    break;
                }
                Err(Errno::ETOOMANYREFS | Errno::ENOBUFS | Errno::ENOMEM) => {
                    self.link.again_at = Some(clock::boottime_ms() + AGAIN_MS);
                    break;
                }
                // Too long for one packet: nothing that the next try would change.
                Err(Errno::EMSGSIZE) => drop(self.link.out.drain(..count)),
                // It is gone; its end is told by SIGCHLD.
                Err(_) => {
                    self.link.out.clear();
                    break;
                }
            }
        }
        let listen = self.link.out.len() < UNSENT_MAX + 4 * self.runs.len() && self.link.requests.is_empty();
        let interest = match (listen, full) {
            (true, true) => Interest::ReadWrite,
            (true, false) => Interest::Read,
            (false, true) => Interest::Write,
            (false, false) => Interest::Hangup,
        };
        if self.link.interest != Some(interest) {
            let done = match self.link.interest {
                None => self.poll.add(socket, interest, TOKEN_MANAGER),
                Some(_) => self.poll.modify(socket, interest, TOKEN_MANAGER),
            };
            self.link.interest = done.is_ok().then_some(interest);
        }
    }

    /// Whether what is unsent is to wait for more of its kind, which is under way.
    fn news_waits(&mut self) -> bool {
        let link = &mut self.link;
        let more_comes = link.out.len() < LAUNCHES && self.launchers.busy();
        if link.out.is_empty() || !more_comes || link.out.iter().any(|m| !m.patient) {
            link.held_since = None;
            return false;
        }
        let now = clock::boottime_ms();
        let until = *link.held_since.get_or_insert(now) + PATIENCE_MS;
        if now >= until {
            link.held_since = None;
            return false;
        }
        link.again_at = Some(until);
        true
    }

    /// Takes in one packet, if all earlier ones are done.
    pub(super) fn receive(&mut self) {
        if self.link.has_requests() {
            return;
        }
        let mut buffer = std::mem::take(&mut self.link.buffer);
        buffer.resize(PACKET_MAX, 0);
        let Some(socket) = &self.link.socket else { return };
        match packet::receive(socket.as_fd(), &mut buffer) {
            Ok(Some((len, fds))) => self.take_in(&buffer[..len], fds),
            Ok(None) => self.closed(),
            Err(Errno::EAGAIN) => {}
            Err(Errno::EMSGSIZE) => {
                self.note(NoteLevel::Error, "ignoring a packet of the manager: it is too long".into());
            }
            Err(_) => self.closed(),
        }
        self.link.buffer = buffer;
    }

    /// What cannot be read is ignored, request by request.
    fn take_in(&mut self, bytes: &[u8], fds: Vec<OwnedFd>) {
        let mut fds = fds.into_iter();
        if let Ok(Turn(requests)) = serde_json::from_slice(bytes) {
            return self.link.push(requests, &mut fds);
        }
        let all: Vec<serde_json::Value> = match serde_json::from_slice(bytes) {
            Ok(all) => all,
            Err(e) => {
                return self.note(NoteLevel::Error, format!("ignoring a packet of the manager: {e}"));
            }
        };
        for value in all {
            match serde_json::from_value(value) {
                Ok(request) => self.link.push(vec![request], &mut fds),
                Err(e) => self.note(NoteLevel::Error, format!("ignoring a request of the manager: {e}")),
            }
        }
    }

    pub(super) fn next_request(&mut self) -> Option<(Request, Vec<OwnedFd>)> {
        self.link.requests.pop_front()
    }

    /// The manager's end is closed and everything that it sent was read.
    fn closed(&mut self) {
        if let Some(socket) = self.link.socket.take() {
            self.poll.remove(socket.as_fd());
        }
        self.link.forget_unsent();
        match &self.link.child {
            // It cannot be talked to and is of no use any more. Mostly it is about to end, and is to say how.
            Some(_) => self.link.kill_at = Some(clock::boottime_ms() + LAST_WORDS_MS),
            None => self.manager_lost(),
        }
    }
}
