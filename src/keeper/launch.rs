//! The keeper's side of a launch: cgroup, pipes, fork; and, when the status pipe is closed, what became of it.
//! Forking returns at once; nothing here waits for the child.

#![forbid(unsafe_code)]

use super::{
    base::Base,
    child::{self, Birth, Role},
    protocol::{News, NoteLevel},
    run::{JobState, Phase, Run},
    state::{Keeper, Owner, TOKEN_STATUS},
    step::{ABOUT_TO_EXEC, Failure, Step},
    tree::Tree,
};
use crate::{
    plan::{Generation, Name, RunId, ServiceSpec},
    sys::{
        self, Errno, cgroup, clock, fd, file,
        poll::Interest,
        process::{self, Child},
        random,
    },
};
use std::{
    fmt::Write,
    os::fd::{AsFd, OwnedFd},
    rc::Rc,
};

/// Wanted and acceptable size of a log pipe.
const PIPE_SIZES: [i32; 2] = [1 << 20, 256 << 10];

/// A pipe of whose ends the write end goes with the fork.
struct LogPipe {
    read: OwnedFd,
    write: OwnedFd,
}

impl Keeper {
    /// Answers `Launch`: the run is forked, or the reason why not is told.
    pub(super) fn launch(&mut self, id: RunId, service: Name, generation: Generation, entry: u32) {
        if self.runs.contains_key(&id) {
            return self.note(NoteLevel::Error, format!("ignoring a second launch of run {id} ({service})"));
        }
        self.last_run = self.last_run.max(id);
        if let Err(failure) = self.try_launch(id, service, generation, entry) {
            let (why, transient) = (failure.sentence(), failure.transient());
            self.tell(News::LaunchFailed { run: id, why, transient });
        }
    }

    fn try_launch(
        &mut self,
        id: RunId,
        service: Name,
        generation: Generation,
        entry: u32,
    ) -> Result<(), Failure> {
        let plan = |why: String| Failure::ours(Step::Plan, format!(" of {service}"), why);
        let held = self.plans.get(generation).ok_or_else(|| plan("that plan is not held any more".into()))?;
        let spec = held.spec(entry).map_err(plan)?;
        if spec.name != service {
            return Err(plan(format!("entry {entry} is {}", spec.name)));
        }
        let (wants_out, wants_err) = child::captured(spec.launch.stdout, spec.launch.stderr);
        let pipe = |wanted: bool| wanted.then(log_pipe).transpose();
        let (stdout, stderr) = (pipe(wants_out)?, pipe(wants_err)?);
        let invocation = invocation().map_err(|e| Failure::call(Step::Fork, e, ""))?;
        let mut tree = self.plant(&service, id, &invocation)?;
        let made = self.give_birth(
            &spec,
            Role::Main,
            &invocation,
            &tree,
            [stdout.as_ref().map(|p| &p.write), stderr.as_ref().map(|p| &p.write)],
        );
        let (child, status, slot) = match made {
            Ok(made) => made,
            Err(failure) => {
                let _ = tree.remove();
                return Err(failure);
            }
        };
        if let Tree::Group { main, .. } = &mut tree {
            *main = child.pid;
        }
        let read_end = |pipe: Option<LogPipe>| pipe.map(|p| Rc::new(p.read));
        self.pids.insert(child.pid, Owner::Main(id));
        self.watch_status(&status, id, slot.is_some());
        let run = Run {
            service,
            generation,
            entry,
            pid: child.pid,
            pidfd: Some(child.pidfd),
            stdout: read_end(stdout),
            stderr: read_end(stderr),
            pipes_given: false,
            invocation,
            tree,
            phase: Phase::Launching { status, slot },
            killing: false,
            watch: None,
            stop_job: JobState::None,
            reload_job: JobState::None,
        };
        self.runs.insert(id, run);
        Ok(())
    }

    /// Makes the run's cgroup; its name is new, so no process is in it.
    fn plant(&self, service: &Name, id: RunId, invocation: &str) -> Result<Tree, Failure> {
        let Some(base) = &self.base else {
            return Ok(Tree::Group { main: 0, invocation: invocation.to_owned() });
        };
        let name = format!("{service}.{id}");
        file::make_dir_at(base.dir.as_fd(), &name).map_err(|e| Failure::call(Step::Folder, e, &*name))?;
        Ok(Tree::Cgroup { base: base.clone(), name, removed: Default::default() })
    }

    /// Forks a child that becomes the service (or a job of it) and tells on the status pipe how it went.
    pub(super) fn give_birth(
        &mut self,
        spec: &ServiceSpec,
        role: Role,
        invocation: &str,
        tree: &Tree,
        pipes: [Option<&OwnedFd>; 2],
    ) -> Result<(Child, OwnedFd, Option<usize>), Failure> {
        let failed = |step| move |e| Failure::call(step, e, "");
        let (status, write_end) = fd::pipe().map_err(failed(Step::Pipe))?;
        fd::set_nonblocking(status.as_fd(), true).map_err(failed(Step::Pipe))?;
        let pipes = pipes.map(|p| p.map(AsFd::as_fd));
        // A job needs the run's own descriptors, and one that has to join the base's.
        let slot = match (&mut self.slots, tree, role) {
            (Some(slots), Tree::Cgroup { base, .. }, Role::Main) if !base.join => {
                slots.take(write_end.as_fd(), pipes).map_err(failed(Step::Pipe))?
            }
            _ => None,
        };
        let mut birth = Birth {
            spec,
            role,
            stdout: pipes[0],
            stderr: pipes[1],
            status: write_end.as_fd(),
            foreign: None,
            join: None,
            invocation,
            open_files: self.open_files,
        };
        let Tree::Cgroup { base, name, .. } = tree else {
            let child = process::spawn(self.proof, None, || child::live(&birth));
            return Ok((child.map_err(failed(Step::Fork))?, status, None));
        };
        if let (Some(index), Some(slots)) = (slot, &self.slots) {
            let lent = slots.lent(index);
            birth.status = lent.status;
            birth.stdout = pipes[0].map(|_| lent.stdout);
            birth.stderr = pipes[1].map(|_| lent.stderr);
            birth.foreign = Some(slots.others(index));
            let folder = file::open_dir_at(base.dir.as_fd(), name);
            let made = folder.and_then(|folder| {
                process::spawn_narrow(self.proof, folder.as_fd(), slots.end, || child::live(&birth))
            });
            return match made {
                Ok(child) => Ok((child, status, slot)),
                Err(e) => {
                    self.free(index);
                    Err(Failure::call(Step::Fork, e, ""))
                }
            };
        }
        let child = self.fork_into(base, name, &mut birth).map_err(failed(Step::Fork))?;
        Ok((child, status, None))
    }

    fn free(&mut self, slot: usize) {
        if let Some(slots) = &mut self.slots {
            slots.release(slot);
        }
    }

    fn fork_into(&self, base: &Base, name: &str, birth: &mut Birth<'_>) -> sys::Result<Child> {
        if !base.join {
            let folder = file::open_dir_at(base.dir.as_fd(), name)?;
            match process::spawn(self.proof, Some(folder.as_fd()), || child::live(birth)) {
                Err(e) if cgroup::must_join(e) => {}
                done => return done,
            }
        }
        let joining = Birth { join: Some((base, name)), ..*birth };
        process::spawn(self.proof, None, || child::live(&joining))
    }

    /// Is woken when the pipe is closed (after exec, or at the child's end), and before that, where the child
    /// has a slot, when it is alone.
    fn watch_status(&mut self, status: &OwnedFd, id: RunId, slot: bool) {
        let interest = if slot { Interest::Read } else { Interest::Hangup };
        // Where it cannot be watched, the child's end tells at the latest.
        if let Err(e) = self.poll.add(status.as_fd(), interest, status_token(id)) {
            self.warn("cannot watch a launch", e);
        }
    }

    /// A status pipe was closed, or says that the child is alone.
    pub(super) fn read_status(&mut self, token: u64) {
        let id = RunId(token.wrapping_sub(TOKEN_STATUS));
        if !self.alone(id) {
            self.launched(id);
        }
    }

    /// Frees the slot of a launch, if it has one, and waits on for the pipe's end.
    fn alone(&mut self, id: RunId) -> bool {
        let Some(Phase::Launching { status, slot }) = self.runs.get_mut(&id).map(|r| &mut r.phase) else {
            return false;
        };
        let Some(index) = slot.take() else { return false };
        // What it says is `ALONE`; a child that ended without a word needs its slot no more either.
        let _ = fd::read(status.as_fd(), &mut [0]);
        let _ = self.poll.modify(status.as_fd(), Interest::Hangup, status_token(id));
        self.free(index);
        true
    }

    /// The main process' status pipe was closed: exec'ed, or not.
    pub(super) fn launched(&mut self, id: RunId) {
        self.alone(id);
        let Some(run) = self.runs.get_mut(&id) else { return };
        let Phase::Launching { status, slot: _ } = &run.phase else { return };
        // Closing it would not do: a child that was forked meanwhile has it until it execs.
        self.poll.remove(status.as_fd());
        match outcome(status) {
            Outcome::Executed => {
                let at_ms = clock::boottime_ms();
                run.phase = Phase::Running { at_ms };
                let given = std::mem::replace(&mut run.pipes_given, true);
                let (pipes, fds) = if given { Default::default() } else { (run.pipes(), run.pipe_fds()) };
                let pid = run.pid as u32;
                self.tell_with(News::Started { run: id, pid, pipes, at_ms }, fds);
            }
            Outcome::Failed(failure) => {
                run.phase = Phase::Failed { why: failure.sentence(), transient: failure.transient() };
            }
            Outcome::Silent => {
                let why = "the child process was killed before it could execute the command".into();
                run.phase = Phase::Failed { why, transient: false };
            }
        }
    }
}

/// What a closed status pipe says.
pub(super) enum Outcome {
    Executed,
    Failed(Failure),
    Silent,
}

/// Reads what the child wrote.
pub(super) fn outcome(status: &OwnedFd) -> Outcome {
    let mut buf = [0u8; 4096];
    let mut len = 0;
    while let Ok(n @ 1..) = fd::read(status.as_fd(), &mut buf[len..]) {
        len += n;
    }
    let said = &buf[..len];
    let said = said.strip_prefix(&[ABOUT_TO_EXEC]).map_or((said, false), |rest| (rest, true));
    match (Failure::decode(said.0), said.1) {
        (Some(failure), _) => Outcome::Failed(failure),
        (None, true) => Outcome::Executed,
        (None, false) => Outcome::Silent,
    }
}

/// Numbers that wrap around would only mean a needless look at some other run.
fn status_token(id: RunId) -> u64 {
    TOKEN_STATUS.wrapping_add(id.0)
}

fn log_pipe() -> Result<LogPipe, Failure> {
    let failed = |e: Errno| Failure::call(Step::Pipe, e, "");
    let (read, write) = fd::pipe().map_err(failed)?;
    fd::set_nonblocking(read.as_fd(), true).map_err(failed)?;
    // A smaller pipe is no reason not to start.
    let _ = PIPE_SIZES.iter().find(|size| fd::set_pipe_size(write.as_fd(), **size).is_ok());
    Ok(LogPipe { read, write })
}

fn invocation() -> sys::Result<String> {
    let mut out = String::with_capacity(32);
    for b in random::bytes16()? {
        // Writing to a String cannot fail.
        let _ = write!(out, "{b:02x}");
    }
    Ok(out)
}
