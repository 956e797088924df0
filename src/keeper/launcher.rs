//! The role `keepd launch`: does the keeper's orders one by one, so that whatever a launch waits for (a file of
//! the environment, a folder on a network, a service's user who stops his own child) the keeper does not wait.
//! Its children are the keeper's: it makes them, and the keeper holds them. It decides nothing.

#![forbid(unsafe_code)]

use super::{
    base::{Base, Place},
    child::{self, Own, Prepared, Streams},
    control,
    environment::Command,
    measure,
    order::{Kind, LAUNCHER_FD, Launch, Order, PACKET_MAX, Report, Role},
    pipes::Pipes,
    spare::{Spares, Taken},
    state::complain,
    step::{Failure, Step},
    tidy,
    ways::Ways,
};
use crate::{
    plan::{
        self, Check, Generation, Job, Name, Reload, ServiceSpec, Which,
        image::{Image, ImageError, Launched},
    },
    sys::{
        self, Errno,
        birth::Cradle,
        cgroup, fd, file, identity,
        limits::{self, Pair},
        memory::Mapping,
        packet,
        poll::{Interest, Poll},
        prctl,
        process::SingleThread,
        record::{Progress, Record},
        signal,
    },
};
use std::{
    cell::RefCell,
    mem,
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
};

const INTERNAL: i32 = 70;

/// Is a launcher until the keeper closes its socket; the status to exit with.
pub(super) fn run() -> i32 {
    let Ok(socket) = fd::inherited(LAUNCHER_FD) else {
        complain("a launcher is started by keepd, which gives it a socket");
        return INTERNAL;
    };
    let Err((what, e)) = serve(&socket) else { return 0 };
    let broken = Report::Broken { why: format!("{what}: {}", sys::describe(e)) };
    // Whether or not the keeper can still hear it.
    let _ = serde_json::to_vec(&broken).map(|bytes| packet::send(socket.as_fd(), &bytes, &[]));
    INTERNAL
}

fn serve(socket: &OwnedFd) -> Result<(), (&'static str, Errno)> {
    let at = |what: &'static str| move |e: Errno| (what, e);
    signal::ignore(signal::SIGPIPE);
    if identity::effective_uid() == 0 {
        // Environment files pass through it.
        prctl::hide_memory();
    }
    // Nobody's terminal is to be held by it.
    fd::stdio_to_null().map_err(at("/dev/null"))?;
    let proof = SingleThread::check().ok_or(("it is not alone in its process", Errno::EBUSY))?;
    let mut poll = Poll::new(1).map_err(at("its event loop"))?;
    poll.add(socket.as_fd(), Interest::Read, 0).map_err(at("its event loop"))?;
    let mut buffer = vec![0; PACKET_MAX];
    let mut launcher = None;
    loop {
        let (len, fds) = match packet::receive(socket.as_fd(), &mut buffer) {
            Ok(Some(got)) => got,
            Ok(None) => return Ok(()),
            Err(Errno::EAGAIN) => {
                poll.wait(None).map_err(at("its event loop"))?;
                continue;
            }
            Err(e) => return Err(("its socket", e)),
        };
        let order = serde_json::from_slice(&buffer[..len]).map_err(|_| ("an order", Errno::EBADMSG))?;
        let (report, sent) = match (order, &mut launcher) {
            (Order::Begin { base, sockets, open_files, kind }, _) => {
                launcher = Some(Launcher::new(proof, base, sockets, open_files, kind, fds)?);
                continue;
            }
            (_, None) => return Err(("its first order", Errno::EBADMSG)),
            (Order::Plan { generation }, Some(launcher)) => {
                launcher.take_plan(generation, &fds);
                continue;
            }
            (Order::Launch(launch), Some(launcher)) => launcher.launch(&launch, fds),
            (Order::Adjust { service, entry, cgroup }, Some(launcher)) => {
                let failure = launcher.adjust(&service, entry, cgroup.as_deref()).err();
                (Report::Adjusted { failure }, Vec::new())
            }
            (Order::Measure { cgroup, main, invocation }, Some(launcher)) => {
                let (memory, cpu_us) = match (&launcher.base, cgroup) {
                    (Some(base), Some(name)) => measure::of_cgroup(base, &name),
                    _ => measure::of_group(main, &invocation),
                };
                (Report::Measured { memory, cpu_us }, Vec::new())
            }
            (Order::Remove { folders }, Some(launcher)) => (launcher.remove(folders), Vec::new()),
            (Order::Tidy { folders }, Some(_)) => {
                (Report::Tidied { failed: tidy::remove(&folders) }, Vec::new())
            }
        };
        let bytes = serde_json::to_vec(&report).map_err(|_| ("a report", Errno::EBADMSG))?;
        let sent: Vec<_> = sent.iter().map(|fd| fd.as_fd()).collect();
        match packet::send(socket.as_fd(), &bytes, &sent) {
            Ok(()) => {}
            Err(Errno::EPIPE | Errno::ECONNRESET) => return Ok(()),
            Err(e) => return Err(("a report", e)),
        }
        if let Some(launcher) = &mut launcher {
            launcher.spares.get_mut().lay_in().map_err(at("its way back to its network"))?;
        }
    }
}

/// The child's pid, its pipes, its ways to tell how it is, and the folders that are to go with it.
type Newborn = (i32, Pipes, Ways, Vec<plan::Place>);

/// What a launcher has.
struct Launcher {
    cradle: Cradle,
    record: Record,
    null: OwnedFd,
    own: Own,
    base: Option<Base>,
    sockets: PathBuf,
    proof: SingleThread,
    plan: Result<Mapping, String>,
    spares: RefCell<Spares>,
}

impl Launcher {
    fn new(
        proof: SingleThread,
        base: Option<Place>,
        sockets: PathBuf,
        open_files: Option<Pair>,
        kind: Kind,
        fds: Vec<OwnedFd>,
    ) -> Result<Launcher, (&'static str, Errno)> {
        let record = fds.into_iter().next().ok_or(("its record", Errno::EBADF))?;
        // Every child inherits it from here.
        if let Some(before) = open_files {
            limits::set(limits::OPEN_FILES, before).map_err(|e| ("its limit of open files", e))?;
        }
        Ok(Launcher {
            cradle: Cradle::new(proof).map_err(|e| ("a stack", e))?,
            record: Record::open(record.as_fd()).map_err(|e| ("its record", e))?,
            null: fd::open_null().map_err(|e| ("/dev/null", e))?,
            own: Own::new(kind),
            base: base.map(Base::new).transpose().map_err(|e| ("its cgroup", e))?,
            sockets,
            proof,
            plan: Err("no plan is held".into()),
            spares: RefCell::default(),
        })
    }

    fn take_plan(&mut self, generation: Generation, fds: &[OwnedFd]) {
        let map = |fd: &OwnedFd| Mapping::new(fd.as_fd());
        let mapped = fds.first().map_or(Err(Errno::EBADF), map);
        self.plan =
            mapped.map_err(|e| format!("plan {} cannot be mapped: {}", generation.0, sys::describe(e)));
    }

    fn launch(&self, launch: &Launch, fds: Vec<OwnedFd>) -> (Report, Vec<OwnedFd>) {
        match self.try_launch(launch, fds) {
            Ok((pid, pipes, ways, folders)) => {
                let (stdout, stderr) = (pipes.stdout.read, pipes.stderr.read);
                let (socket, newline) = (ways.socket.map(|(fd, _)| fd), ways.newline.map(|(read, _)| read));
                let pipes = (stdout.is_some(), stderr.is_some());
                let ways = (socket.is_some(), newline.is_some());
                let fds = [stdout, stderr, socket, newline].into_iter().flatten().collect();
                (Report::Launched { pid, pipes, ways, folders }, fds)
            }
            Err((pid, failure)) => (Report::Failed { pid, failure }, Vec::new()),
        }
    }

    fn try_launch(&self, launch: &Launch, fds: Vec<OwnedFd>) -> Result<Newborn, (i32, Failure)> {
        let unborn = |failure| (0, failure);
        let (Launched { launch: spec, resources, .. }, argv) = self.spec(launch).map_err(unborn)?;
        let mut fds = fds;
        let main = if launch.role == Role::Main { None } else { fds.pop() };
        let (pipes, given) = match launch.role {
            Role::Main => (Pipes::new(&spec), fds),
            Role::Job { .. } => (Pipes::beside(launch.pipes, fds), Vec::new()),
            Role::Exec { .. } => (Ok(Pipes::default()), fds),
            Role::Probe { .. } => (Pipes::of_probe(), Vec::new()),
        };
        let pipes = pipes.map_err(unborn)?;
        let ways = match launch.role {
            Role::Main => Ways::new(self.proof, &spec, &self.sockets, &launch.invocation).map_err(unborn)?,
            Role::Job { .. } | Role::Exec { .. } | Role::Probe { .. } => Ways::default(),
        };
        let vars = ways.variables(&spec);
        let command = Command::new(&spec, &argv, &launch.role, &launch.invocation, vars).map_err(unborn)?;
        let streams = match (&launch.role, &given[..]) {
            (Role::Exec { terminal, .. }, [stdin, stdout, stderr]) => {
                Streams { all: [stdin.as_fd(), stdout.as_fd(), stderr.as_fd()], terminal: terminal.is_some() }
            }
            (Role::Main, [stdin]) => Streams::new(&spec, &pipes, self.null.as_fd()).reading(stdin.as_fd()),
            (Role::Probe { .. }, _) => Streams::of_probe(&pipes, self.null.as_fd()),
            _ => Streams::new(&spec, &pipes, self.null.as_fd()),
        };
        let taken = match launch.role {
            Role::Main => self.spares.borrow_mut().take(&spec.sandbox).map_err(unborn)?,
            // They go where the main process is.
            Role::Job { .. } | Role::Exec { .. } | Role::Probe { .. } => Taken::default(),
        };
        let prepared = Prepared::new(&spec, command, &self.own, streams, main.as_ref(), taken);
        let mut prepared = prepared.map_err(unborn)?;
        if let (Some(fd), Some((_, newline))) = (spec.tells.fd, &ways.newline) {
            prepared.give(newline.as_fd(), fd).map_err(unborn)?;
        }
        let planted = match (&self.base, &launch.cgroup) {
            (Some(base), Some(name)) => {
                match launch.role {
                    Role::Main => control::plant(base, name, &resources).map_err(unborn)?,
                    Role::Probe { .. } => file::make_dir_at(base.dir.as_fd(), name)
                        .map_err(|e| unborn(Failure::call(Step::Folder, e, name.as_str())))?,
                    Role::Job { .. } | Role::Exec { .. } => {}
                }
                Some((base, name.as_str()))
            }
            _ => match control::without_cgroups(&resources) {
                Some(failure) => return Err(unborn(failure)),
                None => None,
            },
        };
        let born = self.bear(&prepared, planted);
        if born.is_err()
            && matches!(launch.role, Role::Main | Role::Probe { .. })
            && let Some((base, name)) = planted
        {
            // Nothing is in it but a child that is gone; what is left of it, the keeper removes.
            let _ = file::remove_dir_at(base.dir.as_fd(), name);
        }
        let pid = born?;
        prepared.settle();
        let folders = if launch.role == Role::Main { spec.provision.runtime_dirs } else { Vec::new() };
        Ok((pid, pipes, ways, folders))
    }

    fn adjust(&self, service: &Name, entry: u32, cgroup: Option<&str>) -> Result<(), Failure> {
        let wanted = self.entry(service, entry)?.resources;
        match (&self.base, cgroup) {
            (Some(base), Some(name)) => control::adjust(base, name, &wanted),
            _ => control::without_cgroups(&wanted).map_or(Ok(()), Err),
        }
    }

    /// The entry and the command that are meant.
    fn spec(&self, launch: &Launch) -> Result<(Launched, Vec<String>), Failure> {
        let mut entry = self.entry(&launch.service, launch.entry)?;
        let job = match &launch.role {
            Role::Main => {
                let argv = mem::take(&mut entry.launch.argv);
                let argv = launch.subject.as_ref().map_or(argv.clone(), |subject| subject.fill(&argv));
                return Ok((entry, argv));
            }
            Role::Exec { argv, .. } => return Ok((entry, argv.clone())),
            Role::Job { job, .. } => Ok(*job),
            Role::Probe { which, .. } => Err(*which),
        };
        let spec = self.image(&launch.service, |image| image.service(launch.entry))?;
        let job = match job {
            Ok(job) => job,
            Err(which) => return Ok((entry, asking(&spec, which))),
        };
        let argv = match (job, spec.reload) {
            (Job::Stop, _) => spec.stop.command,
            (Job::Reload, Reload::Command(argv)) => argv,
            (Job::Reload, Reload::Signal(_)) => Vec::new(),
        };
        Ok((entry, argv))
    }

    fn entry(&self, service: &Name, entry: u32) -> Result<Launched, Failure> {
        let found = self.image(service, |image| image.launch(entry))?;
        if found.name != *service {
            let why = format!("entry {entry} is {}", found.name);
            return Err(Failure::ours(Step::Plan, format!(" of {service}"), why));
        }
        Ok(found)
    }

    /// Something of the plan, for this service.
    fn image<T>(
        &self,
        service: &Name,
        part: impl FnOnce(&Image<'_>) -> Result<T, ImageError>,
    ) -> Result<T, Failure> {
        let failed = |why: String| Failure::ours(Step::Plan, format!(" of {service}"), why);
        let image = self.plan.as_ref().map_err(|why| failed(why.clone()))?;
        Image::new(image).and_then(|image| part(&image)).map_err(|e| failed(e.to_string()))
    }

    /// The child, born in its cgroup where it can be, or else joining it.
    fn bear(&self, prepared: &Prepared<'_>, planted: Option<(&Base, &str)>) -> Result<i32, (i32, Failure)> {
        let forked = |e| (0, Failure::call(Step::Fork, e, ""));
        let born = match planted {
            None => self.child(prepared, None, None),
            Some((base, name)) if !base.at.join => {
                let folder = file::open_dir_at(base.dir.as_fd(), name).map_err(forked)?;
                match self.child(prepared, Some(&folder), None) {
                    Err(e) if cgroup::must_join(e) => self.child(prepared, None, planted),
                    done => done,
                }
            }
            Some(_) => self.child(prepared, None, planted),
        };
        let pid = born.map_err(forked)?;
        match self.record.progress() {
            Progress::Executing => Ok(pid),
            Progress::Failed(words) => Err((pid, Failure::decode(&words).unwrap_or_else(silent))),
            Progress::Underway => Err((pid, silent())),
        }
    }

    fn child(
        &self,
        prepared: &Prepared<'_>,
        cgroup: Option<&OwnedFd>,
        join: Option<(&Base, &str)>,
    ) -> sys::Result<i32> {
        self.record.clear();
        let cgroup = cgroup.map(AsFd::as_fd);
        self.cradle.bear(&self.record, cgroup, &mut || child::live(prepared, join, &self.record))
    }

    fn remove(&self, folders: Vec<String>) -> Report {
        let Some(base) = &self.base else { return Report::Removed { failed: Vec::new() } };
        let failed =
            folders.into_iter().filter_map(|name| match file::remove_dir_at(base.dir.as_fd(), &name) {
                Ok(()) | Err(Errno::ENOENT) => None,
                Err(e) => Some((name, e as i32)),
            });
        Report::Removed { failed: failed.collect() }
    }
}

/// The command that asks; empty where there is none.
fn asking(spec: &ServiceSpec, which: Which) -> Vec<String> {
    let probe = match which {
        Which::Ready => spec.ready.as_ref().map(|ready| &ready.probe),
        Which::Live => spec.live.as_ref().map(|live| &live.probe),
    };
    match probe.map(|probe| &probe.check) {
        Some(Check::Exec(argv)) => argv.clone(),
        _ => Vec::new(),
    }
}

fn silent() -> Failure {
    Failure::ours(Step::Killed, "", "")
}
