//! The keeper's launchers: processes that do what may wait, each one errand at a time. More are started while all
//! are busy and something waits. An errand is lost only with its launcher, and that is an answer too. Each kind
//! does errands of its own, and errands of one kind never wait for those of the other.

#![forbid(unsafe_code)]

use super::{
    errand::Errand,
    order::{Kind, LAUNCHER_FD, Order, PACKET_MAX, Report},
    own::{self, Own},
    protocol::NoteLevel,
    state::{Keeper, Owner, TOKEN_LAUNCHER},
    step::{Failure, Step},
};
use crate::{
    plan::Generation,
    sys::{
        self, Errno, clock, packet, pidfd,
        poll::Interest,
        process::Child,
        reap::{self, Ended, Used},
        record::Record,
        signal,
    },
};
use std::{
    collections::{BTreeMap, VecDeque},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};

/// So many of a kind are kept: while the children of two are in their exec, on two processors, a third can prepare the
/// next. A choice, not a measured optimum.
const USUAL: usize = 3;
/// So many at most, where launches hang.
const MOST: usize = 32;
/// When an errand has taken this long, its launcher does not count for [`USUAL`].
const SLOW_MS: u64 = 100;
/// When to try again to start one.
const AGAIN_MS: u64 = 100;
/// How long launchers may take to end.
const FAREWELL_MS: u64 = 1_000;

/// One launcher.
#[derive(Debug)]
struct Launcher {
    kind: Kind,
    child: Child,
    socket: OwnedFd,
    record: Record,
    plan: Option<Generation>,
    busy: Option<Busy>,
    /// It was told to end, and gets nothing more to do.
    leaving: bool,
}

impl Launcher {
    fn free(&self) -> bool {
        self.busy.is_none() && !self.leaving
    }
}

#[derive(Debug)]
struct Busy {
    errand: Errand,
    since: u64,
    /// The newborn has ended already, before it was reported.
    ended: Option<(Ended, Used)>,
}

/// All of them.
#[derive(Debug, Default)]
pub(super) struct Launchers {
    all: BTreeMap<u64, Launcher>,
    /// Errands for which no launcher was free, by kind.
    waiting: [VecDeque<Errand>; 2],
    next: u64,
    /// When to see to what waits.
    again_at: Option<u64>,
    buffer: Vec<u8>,
}

impl Launchers {
    /// When to see to errands that wait, in ms of boot time.
    pub(super) fn deadline(&self) -> Option<u64> {
        self.again_at
    }

    /// Whether a report is about to come.
    pub(super) fn busy(&self) -> bool {
        self.all.values().any(|l| l.busy.is_some())
    }

    fn of(&self, kind: Kind) -> impl Iterator<Item = (u64, &Launcher)> {
        self.all.iter().filter(move |(_, l)| l.kind == kind).map(|(n, l)| (*n, l))
    }

    /// Those that do not hang; looked at only while something waits.
    fn prompt(&self, kind: Kind, now: u64) -> usize {
        self.of(kind).filter(|(_, l)| l.busy.as_ref().is_none_or(|b| now < b.since + SLOW_MS)).count()
    }
}

impl Keeper {
    /// Gives an errand to a free launcher, or starts one, or lets it wait.
    pub(super) fn send_out(&mut self, errand: Errand) {
        let kind = self.kind(&errand);
        self.launchers.waiting[kind as usize].push_back(errand);
        self.serve_waiting();
    }

    /// Starts the first launcher, so that the first launch finds one.
    pub(super) fn prepare_launcher(&mut self) -> sys::Result<()> {
        self.start_launcher(Kind::Restricted).map(drop)
    }

    /// Gives errands that wait to launchers, as far as there are free ones or more may be started.
    pub(super) fn serve_waiting(&mut self) {
        self.launchers.again_at = None;
        self.serve(Kind::Restricted);
        self.serve(Kind::Free);
    }

    fn serve(&mut self, kind: Kind) {
        while !self.launchers.waiting[kind as usize].is_empty() {
            let free = self.launchers.of(kind).find(|(_, l)| l.free()).map(|(n, _)| n);
            let number = match free {
                Some(number) => number,
                None => match self.one_more(kind) {
                    Ok(Some(number)) => number,
                    Ok(None) => return,
                    Err(e) => return self.no_launcher(kind, e),
                },
            };
            if let Some(errand) = self.launchers.waiting[kind as usize].pop_front() {
                self.hand(number, errand);
            }
        }
    }

    /// Starts one more, if that is due; else says when to look again.
    fn one_more(&mut self, kind: Kind) -> sys::Result<Option<u64>> {
        let now = clock::boottime_ms();
        if self.launchers.of(kind).count() < MOST {
            if self.launchers.prompt(kind, now) < USUAL {
                return self.start_launcher(kind).map(Some);
            }
            self.launchers.again_at = Some(now + SLOW_MS);
        }
        Ok(None)
    }

    /// None could be started: with others at work the errands wait for those, else launches fail for now.
    fn no_launcher(&mut self, kind: Kind, e: Errno) {
        self.launchers.again_at = Some(clock::boottime_ms() + AGAIN_MS);
        if self.launchers.of(kind).next().is_some() {
            return;
        }
        for errand in std::mem::take(&mut self.launchers.waiting[kind as usize]) {
            match errand {
                Errand::Remove(_) | Errand::Tidy(_) => {
                    self.launchers.waiting[kind as usize].push_back(errand);
                }
                errand => self.failed(&errand, 0, Failure::call(Step::Launcher, e, ""), None),
            }
        }
    }

    fn start_launcher(&mut self, kind: Kind) -> sys::Result<u64> {
        let (ours, theirs) = packet::pair(8 * PACKET_MAX)?;
        let (record, page) = Record::create()?;
        let own = Own {
            argv: &self.launcher_argv,
            fd: theirs.as_fd(),
            number: LAUNCHER_FD,
            env: None,
            role: own::Role::Launcher,
        };
        let child = own::start(self.proof, &own)?;
        let begin = Order::Begin {
            base: self.base.as_ref().map(|b| b.at.clone()),
            sockets: self.sockets(),
            open_files: self.open_files,
            kind,
        };
        send(ours.as_fd(), &begin, &[page.as_fd()])?;
        let number = self.launchers.next;
        self.poll.add(ours.as_fd(), Interest::Read, TOKEN_LAUNCHER.wrapping_add(number))?;
        self.launchers.next += 1;
        self.pids.insert(child.pid, Owner::Launcher(number));
        let launcher = Launcher { kind, child, socket: ours, record, plan: None, busy: None, leaving: false };
        self.launchers.all.insert(number, launcher);
        Ok(number)
    }

    fn hand(&mut self, number: u64, errand: Errand) {
        let sent = match &errand {
            Errand::Main(id) => self.main_order(*id).map(Some),
            Errand::Job(id, job) => self.job_order(*id, *job).map(Some),
            Errand::Exec(number) => self.exec_order(*number).map(Some),
            Errand::Probe(id, which, number) => self.probe_order(*id, *which, *number).map(Some),
            Errand::Adjust(id) => Ok(self.adjust_order(*id)),
            Errand::Measure(id) => Ok(self.measure_order(*id)),
            Errand::Remove(folders) => {
                Ok(Some((None, Order::Remove { folders: folders.clone() }, Vec::new())))
            }
            Errand::Tidy(service) => {
                let folders = self.tidying.get(service).map(|t| t.folders.clone()).unwrap_or_default();
                Ok(Some((None, Order::Tidy { folders }, Vec::new())))
            }
        };
        let (plan, order, fds) = match sent {
            Ok(Some(order)) => order,
            Ok(None) => return,
            Err(failure) => return self.failed(&errand, 0, failure, None),
        };
        let Some(launcher) = self.launchers.all.get_mut(&number) else { return };
        launcher.record.clear();
        let mut done = Ok(());
        if let Some((generation, fd)) = plan
            && launcher.plan != Some(generation)
        {
            launcher.plan = Some(generation);
            done = send(launcher.socket.as_fd(), &Order::Plan { generation }, &[fd.as_fd()]);
        }
        let fds: Vec<_> = fds.iter().map(|fd| fd.as_fd()).collect();
        let done = done.and_then(|()| send(launcher.socket.as_fd(), &order, &fds));
        launcher.busy = Some(Busy { errand, since: clock::boottime_ms(), ended: None });
        if done.is_err() {
            // It is of no use any more; its end answers the errand.
            let _ = pidfd::send_signal(launcher.child.pidfd.as_fd(), signal::SIGKILL);
        }
    }

    /// A launcher has something to report.
    pub(super) fn hear_launcher(&mut self, token: u64) {
        self.take_report(token.wrapping_sub(TOKEN_LAUNCHER));
        self.serve_waiting();
        self.retire_launchers();
    }

    /// Ends those that were only needed because others hung.
    fn retire_launchers(&mut self) {
        for kind in [Kind::Restricted, Kind::Free] {
            let free = self.launchers.all.values_mut().filter(|l| l.kind == kind && l.free());
            for launcher in free.skip(USUAL) {
                launcher.leaving = true;
                packet::finish(&launcher.socket);
            }
        }
    }

    /// Takes in one report; false if there is none.
    fn take_report(&mut self, number: u64) -> bool {
        let Launchers { all, buffer, .. } = &mut self.launchers;
        buffer.resize(PACKET_MAX, 0);
        let Some(launcher) = all.get_mut(&number) else { return false };
        let report = match packet::receive(launcher.socket.as_fd(), buffer) {
            Ok(Some((len, fds))) => serde_json::from_slice(&buffer[..len]).ok().map(|r: Report| (r, fds)),
            Err(Errno::EAGAIN) => return false,
            // Its end is told by SIGCHLD.
            Ok(None) | Err(_) => {
                self.poll.remove(launcher.socket.as_fd());
                return false;
            }
        };
        if let Some((Report::Broken { why }, _)) = &report {
            let text = format!("a launcher has ended: {why}");
            self.note(NoteLevel::Error, text);
            return false;
        }
        let busy = launcher.busy.take();
        let (Some((report, fds)), Some(Busy { errand, since: _, ended })) = (report, busy) else {
            return false;
        };
        match (report, errand) {
            (Report::Launched { pid, pipes, ways, folders }, Errand::Main(id)) => {
                self.keep_folders(id, folders);
                let fds = self.listen_to(id, ways, fds);
                self.launched(id, pid, pipes, fds, ended);
            }
            (Report::Launched { pid, .. }, Errand::Job(id, job)) => self.job_launched(id, job, pid, ended),
            (Report::Launched { pid, .. }, Errand::Exec(number)) => {
                self.exec_launched(number, pid, ended.map(|(ended, _)| ended));
            }
            (Report::Launched { pid, .. }, Errand::Probe(id, which, number)) => {
                let output = fds.into_iter().next();
                self.probe_launched((id, which, number), pid, output, ended.map(|(ended, _)| ended));
            }
            (Report::Failed { pid, failure }, errand) => self.failed(&errand, pid, failure, ended),
            (Report::Adjusted { failure }, Errand::Adjust(id)) => self.adjusted(id, failure.as_ref()),
            (Report::Measured { memory, cpu_us }, Errand::Measure(id)) => self.measured(id, memory, cpu_us),
            (Report::Removed { failed }, Errand::Remove(_)) => self.not_removed(&failed),
            (Report::Tidied { failed }, Errand::Tidy(service)) => self.tidied(&service, &failed),
            (
                Report::Launched { .. }
                | Report::Adjusted { .. }
                | Report::Measured { .. }
                | Report::Removed { .. }
                | Report::Tidied { .. }
                | Report::Broken { .. },
                _,
            ) => {}
        }
        true
    }

    /// A child has ended that is not known: if a launcher has just made it, its end is kept for the report.
    pub(super) fn newborn_ended(&mut self, pid: i32) {
        let mut busy =
            self.launchers.all.values_mut().filter_map(|l| Some((l.record.pid(), l.busy.as_mut()?)));
        let newborn = busy.find(|(born, b)| *born == pid && b.ended.is_none());
        let ended = reap::reap_peeked(pid);
        if let Some((_, busy)) = newborn {
            busy.ended = ended.ok().flatten();
        }
    }

    /// A launcher has ended. What it reported before counts; what it was sent to do has failed.
    pub(super) fn launcher_ended(&mut self, number: u64) {
        while self.take_report(number) {}
        let Some(launcher) = self.launchers.all.remove(&number) else { return };
        let _: sys::Result<_> = reap::reap(launcher.child.pidfd.as_fd());
        self.poll.remove(launcher.socket.as_fd());
        if let Some(Busy { errand, ended, .. }) = launcher.busy {
            let pid = launcher.record.pid();
            if pid != 0 && ended.is_none() {
                // A child whose way cannot be followed any more must not become the service unseen.
                let _ = pidfd::open(pid).and_then(|fd| pidfd::send_signal(fd.as_fd(), signal::SIGKILL));
            }
            let failure = Failure::ours(Step::Launcher, "", "it ended during the launch");
            self.failed(&errand, pid, failure, ended);
        }
        self.serve_waiting();
    }

    /// Ends every launcher, so that nothing is born any more. Waits, as nothing else is to be done.
    pub(super) fn dismiss_launchers(&mut self) {
        self.launchers.waiting = Default::default();
        for launcher in std::mem::take(&mut self.launchers.all).into_values() {
            let pidfd = launcher.child.pidfd.as_fd();
            if launcher.busy.is_some() {
                let _ = pidfd::send_signal(pidfd, signal::SIGKILL);
            }
            drop(launcher.socket);
            if !matches!(pidfd::wait_end(pidfd, FAREWELL_MS), Ok(true)) {
                let _ = pidfd::send_signal(pidfd, signal::SIGKILL);
                let _ = pidfd::wait_end(pidfd, FAREWELL_MS);
            }
            let _: sys::Result<_> = reap::reap(pidfd);
            if let Some(Busy { ended: None, .. }) = launcher.busy
                && let pid @ 1.. = launcher.record.pid()
            {
                let _ = pidfd::open(pid).and_then(|fd| pidfd::send_signal(fd.as_fd(), signal::SIGKILL));
            }
        }
    }
}

fn send(socket: BorrowedFd<'_>, order: &Order, fds: &[BorrowedFd<'_>]) -> sys::Result<()> {
    let bytes = serde_json::to_vec(order).map_err(|_| Errno::EBADMSG)?;
    packet::send(socket, &bytes, fds)
}
