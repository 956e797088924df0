//! Commands that ask whether a run is ready, or alive: run as the service, each in a cgroup of its own below the
//! run's. When such a command ends, or its time is up, everything that it left behind is killed with it, and what it
//! wrote is read as far as it is there: nobody who holds its output open is waited for.

#![forbid(unsafe_code)]

use super::{
    errand::Errand,
    launch::Sendable,
    order::{Launch, Order, Role},
    run::{Phase, Run},
    state::{Keeper, Owner},
    step::{Failure, Step},
    tree::Tree,
};
use crate::{
    keeper::protocol::News,
    plan::{Generation, Millis, RunId, Verdict, Which},
    sys::{clock, fd, pidfd, reap::Ended, signal},
};
use std::{
    collections::BTreeMap,
    os::fd::{AsFd, OwnedFd},
    rc::Rc,
};

/// Bytes of the output that are read at a time, and kept of its end.
const READ: usize = 4096;
/// So often.
const READS: usize = 256;
/// Characters of it that are told.
const SHOWN: usize = 200;

/// All that are under way; at most one of a kind for each run.
#[derive(Debug, Default)]
pub(super) struct Probes {
    all: BTreeMap<(RunId, Which), Asking>,
    /// What was killed, and has a cgroup still.
    graves: Vec<Tree>,
}

#[derive(Debug)]
struct Asking {
    /// Of the question.
    number: u64,
    /// Of the command: that of the first manager that asked.
    born: u64,
    generation: Generation,
    /// That plan, which may not be launched from any more by the time it is read.
    plan: Rc<OwnedFd>,
    entry: u32,
    until: u64,
    timeout: Millis,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    tree: Tree,
    output: Option<OwnedFd>,
}

impl Probes {
    /// When the next one's time is up, in ms of boot time.
    pub(super) fn deadline(&self) -> Option<u64> {
        self.all.values().map(|p| p.until).min()
    }

    /// The plan and the entry that a probe's command is of.
    pub(super) fn entry(&self, run: RunId, which: Which) -> Option<(Generation, u32)> {
        self.all.get(&(run, which)).map(|p| (p.generation, p.entry))
    }
}

impl Keeper {
    /// Answers `Probe`. While one of the kind is under way there is no second.
    pub(super) fn probe(
        &mut self,
        (run, which): (RunId, Which),
        number: u64,
        (generation, entry): (Generation, u32),
        timeout: Millis,
    ) {
        if let Some(asking) = self.probes.all.get_mut(&(run, which)) {
            // Another manager asks: what comes is the answer to it.
            asking.number = number;
            return;
        }
        let plan = self.plans.get(generation).map(|held| held.fd.clone());
        let Some(plan) = plan.filter(|_| self.runs.contains_key(&run)) else {
            let verdict = Verdict::Unasked("its plan or its run is not held any more".into());
            return self.tell(News::Probed { run, which, number, verdict });
        };
        let until = clock::boottime_ms() + timeout.0;
        let asking = Asking { number, born: number, generation, plan, entry, until, timeout, running: None };
        self.probes.all.insert((run, which), asking);
        self.send_out(Errand::Probe(run, which, number));
    }

    /// What a launcher is told to do for a probe.
    pub(super) fn probe_order(&self, id: RunId, which: Which, number: u64) -> Result<Sendable, Failure> {
        let gone = || Failure::ours(Step::Killed, "the main process is not running", "");
        let running = |r: &&Run| matches!(r.phase, Phase::Running { .. }) && r.pidfd.is_some() && !r.killing;
        let run = self.runs.get(&id).filter(running).ok_or_else(gone)?;
        let asking = self.probes.all.get(&(id, which)).ok_or_else(gone)?;
        let launch = Launch {
            role: Role::Probe { which, main: run.pid },
            service: run.service.clone(),
            entry: asking.entry,
            cgroup: run.tree.cgroup().map(|name| folder(name, number)),
            invocation: run.invocation.clone(),
            pipes: (false, false),
            subject: None,
        };
        let fds = run.pidfd.iter().cloned().collect();
        Ok((Some((asking.generation, asking.plan.clone())), Order::Launch(launch), fds))
    }

    /// Its command was exec'ed; or it has `ended` since.
    pub(super) fn probe_launched(
        &mut self,
        (id, which, number): (RunId, Which, u64),
        pid: i32,
        output: Option<OwnedFd>,
        ended: Option<Ended>,
    ) {
        let cgroup = self.runs.get(&id).and_then(|run| run.tree.cgroup().map(|name| folder(name, number)));
        let tree = match (&self.base, cgroup) {
            (Some(base), Some(name)) => {
                Tree::Cgroup { base: base.clone(), name, removed: Default::default() }
            }
            _ => Tree::Group { main: pid, invocation: format!("probe {number}") },
        };
        let running = Running { tree, output };
        match self.probes.all.get_mut(&(id, which)) {
            Some(asking) if asking.born == number => asking.running = Some(running),
            // Its time was up before it was born.
            _ => {
                let _ = pidfd::open(pid).and_then(|fd| pidfd::send_signal(fd.as_fd(), signal::SIGKILL));
                return self.end_probe(running);
            }
        }
        match ended {
            Some(ended) => self.probe_over((id, which, number), Some(ended)),
            None => drop(self.pids.insert(pid, Owner::Probe(id, which, number))),
        }
    }

    /// It was not.
    pub(super) fn probe_refused(&mut self, (id, which, number): (RunId, Which, u64), failure: &Failure) {
        if !self.is_under_way(id, which, number) {
            return;
        }
        let verdict = match failure.step {
            Step::Exec => Verdict::Failed(failure.sentence()),
            _ => Verdict::Unasked(failure.sentence()),
        };
        self.answer_probe(id, which, |_| verdict);
    }

    /// Its command is reaped, and has ended like this if that is known. One whose time was up is answered already.
    pub(super) fn probe_over(&mut self, (id, which, number): (RunId, Which, u64), ended: Option<Ended>) {
        if !self.is_under_way(id, which, number) {
            return;
        }
        self.answer_probe(id, which, |output| match ended {
            Some(Ended::Code(0)) => Verdict::Passed,
            Some(Ended::Code(status)) => {
                Verdict::Failed(format!("its command exited with status {status}{output}"))
            }
            Some(Ended::Signal { signal, .. }) => {
                Verdict::Failed(format!("its command was killed by {}{output}", signal::name(signal)))
            }
            None => Verdict::Unasked("how its command ended is not known".into()),
        });
    }

    /// Ends those whose time is up.
    pub(super) fn expire_probes(&mut self, now: u64) {
        let late = self.probes.all.iter().filter(|(_, p)| now >= p.until);
        let late: Vec<_> = late.map(|(key, p)| (*key, p.timeout, p.running.is_some())).collect();
        for ((id, which), timeout, born) in late {
            self.answer_probe(id, which, |output| match born {
                true => Verdict::Failed(format!("its command did not end within {timeout}{output}")),
                false => Verdict::Unasked(format!("its command could not be launched within {timeout}")),
            });
        }
    }

    /// The main process of a run has ended: nobody is to be asked any more.
    pub(super) fn end_probes(&mut self, id: RunId) {
        for which in Which::BOTH {
            self.answer_probe(id, which, |_| Verdict::Unasked("the run has ended".into()));
        }
    }

    fn answer_probe(&mut self, run: RunId, which: Which, verdict: impl FnOnce(&str) -> Verdict) {
        let Some(asking) = self.probes.all.remove(&(run, which)) else { return };
        let output = asking.running.as_ref().and_then(|r| r.output.as_ref()).map_or(String::new(), said);
        let number = asking.number;
        self.tell(News::Probed { run, which, number, verdict: verdict(&output) });
        if let Some(running) = asking.running {
            self.end_probe(running);
        }
    }

    fn is_under_way(&self, id: RunId, which: Which, number: u64) -> bool {
        self.probes.all.get(&(id, which)).is_some_and(|p| p.born == number)
    }

    /// Kills what is left of it. Its folder goes with it where that is at once, else later.
    fn end_probe(&mut self, running: Running) {
        if running.tree.populated(true) != Ok(false) {
            let _ = running.tree.kill(true);
        }
        self.probes.graves.push(running.tree);
        self.probes.graves.retain(|tree| tree.remove().is_err());
    }
}

/// The cgroup of a probe of the run whose cgroup is `run`.
fn folder(run: &str, number: u64) -> String {
    format!("{run}/probe.{number}")
}

/// The last line of the output, to be put behind a sentence.
fn said(output: &OwnedFd) -> String {
    let (mut buffer, mut tail) = ([0; READ], Vec::new());
    // No more than the pipe holds; whoever still writes is not waited for.
    for _ in 0..READS {
        match fd::read(output.as_fd(), &mut buffer) {
            Ok(len @ 1..) => tail.extend_from_slice(&buffer[..len]),
            Ok(_) | Err(_) => break,
        }
        tail.drain(..tail.len().saturating_sub(READ));
    }
    let text = String::from_utf8_lossy(&tail);
    let line = text.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or("");
    let line: String = line.chars().filter(|c| !c.is_control()).take(SHOWN).collect();
    if line.is_empty() { line } else { format!(": {line}") }
}
