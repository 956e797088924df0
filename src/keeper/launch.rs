//! The keeper's side of a launch: what a launcher is asked for, and what follows from its report. Nothing here
//! waits for a child.

#![forbid(unsafe_code)]

use super::{
    errand::Errand,
    hearing::Ears,
    order::{Launch, Order, Role},
    protocol::{Call, News, NoteLevel},
    run::{Adjust, Calling, JobState, Phase, Run},
    state::{Keeper, Owner},
    step::{Failure, Step},
    tree::Tree,
};
use crate::{
    plan::{Generation, Job, Name, RunId, hook},
    sys::{
        self, Errno, clock, memory, pidfd, random,
        reap::{Ended, Used},
    },
};
use std::{
    fmt::Write,
    fs::File,
    io::{self, Seek},
    os::fd::OwnedFd,
    rc::Rc,
};

/// Cgroups whose removal is not worth the way to a launcher.
const FEW: usize = 4;
/// Cgroups that one launcher removes at a time: that takes it about a millisecond.
const MANY: usize = 32;

/// A plan that the launcher may have to be given, the order, and the descriptors that go with that.
pub(super) type Sendable = (Option<(Generation, Rc<OwnedFd>)>, Order, Vec<Rc<OwnedFd>>);

impl Keeper {
    /// Answers `Launch`: a launcher is sent, or the reason why not is told.
    pub(super) fn launch(
        &mut self,
        id: RunId,
        service: Name,
        generation: Generation,
        entry: u32,
        call: Option<Box<Call>>,
    ) {
        if self.runs.contains_key(&id) {
            return self.note(NoteLevel::Error, format!("ignoring a second launch of run {id} ({service})"));
        }
        let sound = call.as_ref().map(|call| call.subject.is_sound());
        if sound.is_some() != (entry & hook::ENTRY != 0) || sound == Some(false) {
            return self
                .note(NoteLevel::Error, format!("ignoring run {id} ({service}): it is called wrongly"));
        }
        self.last_run = self.last_run.max(id);
        let prepared = invocation().and_then(|i| Ok((i, call.map(|c| calling(*c)).transpose()?)));
        let (invocation, call) = match prepared {
            Ok(prepared) => prepared,
            Err(e) => {
                let failure = Failure::call(Step::Fork, e, "");
                let (why, transient) = (failure.sentence(), failure.transient());
                return self.tell(News::LaunchFailed { run: id, why, transient });
            }
        };
        let tree = match &self.base {
            None => Tree::Group { main: 0, invocation: invocation.clone() },
            Some(base) => Tree::Cgroup {
                base: base.clone(),
                name: format!("{service}.{id}"),
                removed: Default::default(),
            },
        };
        let run = Run {
            service,
            generation,
            entry,
            pid: 0,
            pidfd: None,
            stdout: None,
            stderr: None,
            pipes_given: false,
            invocation,
            tree,
            folders: Vec::new(),
            phase: Phase::Launching { signals: Vec::new() },
            killing: false,
            watch: None,
            ears: Ears::default(),
            adjust: None,
            refused: None,
            measuring: false,
            call,
            stop_job: JobState::None,
            reload_job: JobState::None,
        };
        let service = run.service.clone();
        self.runs.insert(id, run);
        self.launch_when_tidy(id, &service);
    }

    /// What a launcher is told to do for a run.
    pub(super) fn main_order(&self, id: RunId) -> Result<Sendable, Failure> {
        let killed = || Failure::ours(Step::Killed, "it was stopped before it was launched", "");
        let run = self.runs.get(&id).filter(|r| !r.killing).ok_or_else(killed)?;
        self.order(run, Role::Main, run.call.iter().map(|call| call.stdin.clone()).collect())
    }

    /// What a launcher is told to do for a job.
    pub(super) fn job_order(&self, id: RunId, job: Job) -> Result<Sendable, Failure> {
        let gone = || Failure::ours(Step::Killed, "the main process is not running", "");
        let running = |r: &&Run| matches!(r.phase, Phase::Running { .. }) && r.pidfd.is_some();
        let run = self.runs.get(&id).filter(running).ok_or_else(gone)?;
        self.order(run, Role::Job { job, main: run.pid }, run.pipe_fds())
    }

    /// `fds`: those of the order but the main process's.
    pub(super) fn order(
        &self,
        run: &Run,
        role: Role,
        mut fds: Vec<Rc<OwnedFd>>,
    ) -> Result<Sendable, Failure> {
        let object = || format!(" of {}", run.service);
        let held = self.plans.get(run.generation);
        let held =
            held.ok_or_else(|| Failure::ours(Step::Plan, object(), "that plan is not held any more"))?;
        if role != Role::Main {
            fds.extend(run.pidfd.clone());
        }
        let role_is_main = role == Role::Main;
        let launch = Launch {
            role,
            service: run.service.clone(),
            entry: run.entry,
            cgroup: run.tree.cgroup().map(str::to_owned),
            invocation: run.invocation.clone(),
            pipes: (run.stdout.is_some(), run.stderr.is_some()),
            subject: run.call.as_ref().map(|call| call.subject.clone()).filter(|_| role_is_main),
        };
        Ok((Some((run.generation, held.fd.clone())), Order::Launch(launch), fds))
    }

    /// Answers `Adjust`: a launcher is sent, once the run is there.
    pub(super) fn adjust(&mut self, id: RunId, generation: Generation, entry: u32) {
        let plan = self.plans.get(generation).map(|held| held.fd.clone());
        let Some(run) = self.runs.get_mut(&id) else { return };
        let Some(plan) = plan else {
            let text =
                format!("ignoring other resources for {} (run {id}): their plan is not held", run.service);
            return self.note(NoteLevel::Error, text);
        };
        run.adjust = Some(Adjust { generation, plan, entry });
        if matches!(run.phase, Phase::Running { .. }) {
            self.send_out(Errand::Adjust(id));
        }
    }

    /// What a launcher is told to do for other resources; `None` where another has been told since.
    pub(super) fn adjust_order(&mut self, id: RunId) -> Option<Sendable> {
        let run = self.runs.get_mut(&id)?;
        let Adjust { generation, plan, entry } = run.adjust.take()?;
        let cgroup = run.tree.cgroup().map(str::to_owned);
        Some((
            Some((generation, plan)),
            Order::Adjust { service: run.service.clone(), entry, cgroup },
            Vec::new(),
        ))
    }

    /// The run is held to other resources, or not, and why.
    pub(super) fn adjusted(&mut self, id: RunId, failure: Option<&Failure>) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        run.refused = failure.map(Failure::sentence);
        let why = run.refused.clone().unwrap_or_default();
        self.tell(News::Adjusted { run: id, why });
    }

    /// Answers `Measure`. One that hangs is not joined by others.
    pub(super) fn measure(&mut self, id: RunId) {
        let live = |r: &&mut Run| matches!(r.phase, Phase::Running { .. });
        let Some(run) = self.runs.get_mut(&id).filter(live) else { return };
        if !std::mem::replace(&mut run.measuring, true) {
            self.send_out(Errand::Measure(id));
        }
    }

    /// Whose use a launcher is told to find out.
    pub(super) fn measure_order(&self, id: RunId) -> Option<Sendable> {
        let run = self.runs.get(&id)?;
        let cgroup = run.tree.cgroup().map(str::to_owned);
        let order = Order::Measure { cgroup, main: run.pid, invocation: run.invocation.clone() };
        Some((None, order, Vec::new()))
    }

    /// What a run uses, as far as that could be found out.
    pub(super) fn measured(&mut self, id: RunId, memory: Option<u64>, cpu_us: Option<u64>) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        run.measuring = false;
        self.tell(News::Measured { run: id, at_ms: clock::boottime_ms(), memory, cpu_us });
    }

    /// The main process was exec'ed; or it has `ended` since.
    pub(super) fn launched(
        &mut self,
        id: RunId,
        pid: i32,
        pipes: (bool, bool),
        fds: Vec<OwnedFd>,
        ended: Option<(Ended, Used)>,
    ) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        run.pid = pid;
        if let Tree::Group { main, .. } = &mut run.tree {
            *main = pid;
        }
        let mut fds = fds.into_iter().map(Rc::new);
        run.stdout = if pipes.0 { fds.next() } else { None };
        run.stderr = if pipes.1 { fds.next() } else { None };
        run.pipes_given = true;
        // It is our child and not reaped, so the number is its own.
        let held = if ended.is_none() { pidfd::open(pid).map(|fd| Some(Rc::new(fd))) } else { Ok(None) };
        let lost = held.as_ref().err().copied();
        run.pidfd = held.unwrap_or(None);
        run.killing |= lost.is_some();
        let at_ms = clock::boottime_ms();
        let signals = match std::mem::replace(&mut run.phase, Phase::Running { at_ms }) {
            Phase::Launching { signals } => signals,
            Phase::Failed { .. } | Phase::Running { .. } | Phase::Ended(_) => Vec::new(),
        };
        let (pipes, fds) = (run.pipes(), run.pipe_fds());
        self.tell_with(News::Started { run: id, pid: pid as u32, pipes, at_ms }, fds);
        if let Some(ended) = ended {
            return self.main_over(id, Some(ended));
        }
        self.pids.insert(pid, Owner::Main(id));
        if let Some(e) = lost {
            self.warn(&format!("cannot hold on to run {id}; killing it"), e);
        }
        for signal in signals {
            self.signal(id, signal);
        }
        if self.runs.get(&id).is_some_and(|r| r.adjust.is_some()) {
            self.send_out(Errand::Adjust(id));
        }
        if self.runs.get(&id).is_some_and(|r| r.killing) {
            self.kill_tree(id);
        }
    }

    /// The launch has failed. `pid`: the child that found out, which is about to end; 0 where there is none.
    pub(super) fn launch_refused(&mut self, id: RunId, pid: i32, failure: &Failure) {
        let Some(run) = self.runs.get_mut(&id) else { return };
        run.phase = Phase::Failed { why: failure.sentence(), transient: failure.transient() };
        if pid == 0 {
            return self.launch_failed(id);
        }
        run.pid = pid;
        self.pids.insert(pid, Owner::Main(id));
    }

    /// The command of a job was exec'ed; or it has `ended` since.
    pub(super) fn job_launched(&mut self, id: RunId, job: Job, pid: i32, ended: Option<(Ended, Used)>) {
        if let Some((ended, _)) = ended {
            return self.job_over(id, job, Some(ended));
        }
        self.pids.insert(pid, Owner::Job(id, job));
    }

    /// It was not.
    pub(super) fn job_refused(&mut self, id: RunId, job: Job, why: String) {
        if let Some(run) = self.runs.get_mut(&id) {
            *run.job(job) = JobState::Ended { why: why.clone() };
        }
        self.tell(News::JobEnded { run: id, job, why });
    }

    /// Removes cgroups of runs that are over: few at once, many by way of launchers.
    pub(super) fn clear_away(&mut self) {
        let remains = std::mem::take(&mut self.remains);
        if remains.len() <= FEW {
            return remains.iter().for_each(|name| self.remove_late(name));
        }
        for some in remains.chunks(MANY) {
            self.send_out(Errand::Remove(some.to_vec()));
        }
    }

    /// Cgroups that a launcher could not remove.
    pub(super) fn not_removed(&mut self, failed: &[(String, i32)]) {
        for (name, _) in failed {
            self.remove_late(name);
        }
    }

    /// Removes the empty cgroup of a run, which may be forgotten already.
    pub(super) fn remove_late(&mut self, name: &str) {
        if let Some(Err(e)) = self.base.as_ref().map(|base| base.remove(name)) {
            self.warn(&format!("cannot remove the cgroup {name}"), e);
        }
    }
}

/// A hook's call as it is kept: what is to be read is in memory that nobody can change.
fn calling(call: Call) -> sys::Result<Calling> {
    let failed = |e: io::Error| e.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
    let stdin =
        memory::fill_and_seal(memory::create(c"keepd-event")?, call.stdin.as_bytes()).map_err(failed)?;
    let mut stdin = File::from(stdin);
    stdin.rewind().map_err(failed)?;
    Ok(Calling { stdin: Rc::new(stdin.into()), subject: call.subject })
}

fn invocation() -> sys::Result<String> {
    let mut out = String::with_capacity(32);
    for b in random::bytes16()? {
        // Writing to a String cannot fail.
        let _ = write!(out, "{b:02x}");
    }
    Ok(out)
}
