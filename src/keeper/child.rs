//! What a child does to become a service: one linear list of steps, from birth to exec. The first step that
//! fails is reported in the record and ends it; nothing is retried or skipped.
//!
//! The child runs in its launcher's memory: what it needs is prepared before it is born, and what it allocates it
//! must free before exec.

#![forbid(unsafe_code)]

use super::{
    base::Base,
    confine,
    environment::Command,
    exec,
    identity::Becoming,
    order::Kind,
    pipes::Pipes,
    provide::Provided,
    spare::Taken,
    step::{Failure, Step},
    verify::Known,
};
use crate::{
    plan::{LaunchSpec, Limit, Scheduling, Stderr, Syscalls},
    sys::{
        Errno, caps, cgroup, fd, file,
        landlock::Rules,
        limits, prctl, process,
        record::{self, Record},
        schedule,
        seccomp::{self, Filter},
        signal, syscalls, terminal,
    },
};
use std::{
    convert::Infallible,
    os::fd::{AsFd, BorrowedFd, OwnedFd, RawFd},
};

/// Exit status of a child that did not get to its command; the record says why.
const NOT_EXECED: i32 = 127;

/// What a launcher is, and its children are with it unless they change it; and what they all share.
#[derive(Debug)]
pub(super) struct Own {
    /// Its bounding set of capabilities.
    bounding: u64,
    oom_score: i32,
    /// Programs that were checked.
    known: Known,
    /// What its children can be held to: `syscalls = "default"` and `"service"`.
    filters: [Filter; 2],
    /// It holds itself to the first of these, and to gaining no privileges.
    restricted: bool,
}

impl Own {
    /// Looks, and becomes what `kind` says. Where the kernel will not have that, each child finds out, and says so.
    pub(super) fn new(kind: Kind) -> Own {
        let filters = [syscalls::deny_dangerous(), syscalls::allow_service()];
        let restrict = || prctl::no_new_privileges().and_then(|()| filters[0].install());
        let restricted = kind == Kind::Restricted && restrict().is_ok();
        // Where /proc does not tell, it is what it nearly always is.
        let (bounding, known) = (caps::bounding(), Known::default());
        let oom_score = schedule::oom_score().unwrap_or(0);
        Own { bounding, oom_score, known, filters, restricted }
    }
}

/// What become stdin, stdout and stderr.
#[derive(Debug, Clone, Copy)]
pub(super) struct Streams<'a> {
    pub(super) all: [BorrowedFd<'a>; 3],
    /// Stdin is the terminal that the child is to be controlled by.
    pub(super) terminal: bool,
}

impl<'a> Streams<'a> {
    /// The write ends of `pipes`, as `launch` wants it, and elsewhere `null`.
    pub(super) fn new(launch: &LaunchSpec, pipes: &'a Pipes, null: BorrowedFd<'a>) -> Streams<'a> {
        let stdout = pipes.stdout.write.as_ref().map_or(null, AsFd::as_fd);
        let stderr = match launch.stderr {
            Stderr::Merge => stdout,
            Stderr::Separate => pipes.stderr.write.as_ref().map_or(null, AsFd::as_fd),
            Stderr::Discard => null,
        };
        Streams { all: [null, stdout, stderr], terminal: false }
    }

    /// With another stdin.
    pub(super) fn reading(mut self, stdin: BorrowedFd<'a>) -> Streams<'a> {
        self.all[0] = stdin;
        self
    }

    /// Both outputs to the same pipe.
    pub(super) fn of_probe(pipes: &'a Pipes, null: BorrowedFd<'a>) -> Streams<'a> {
        let output = pipes.stdout.write.as_ref().map_or(null, AsFd::as_fd);
        Streams { all: [null, output, output], terminal: false }
    }
}

/// All that the child needs.
pub(super) struct Prepared<'a> {
    launch: &'a LaunchSpec,
    streams: Streams<'a>,
    becoming: Option<Becoming>,
    /// Of the main process, for a job.
    main: Option<BorrowedFd<'a>>,
    /// What it gets beside its standard streams, and as which number.
    given: Option<(BorrowedFd<'a>, RawFd)>,
    /// What is not inherited.
    filter: Option<&'a Filter>,
    /// The launcher's own oom_score_adj.
    oom_score: i32,
    command: Command,
    provided: Provided,
    taken: Taken,
}

impl<'a> Prepared<'a> {
    /// Reads and allocates all that is to be read and allocated.
    pub(super) fn new(
        launch: &'a LaunchSpec,
        command: Command,
        own: &'a Own,
        streams: Streams<'a>,
        main: Option<&'a OwnedFd>,
        taken: Taken,
    ) -> Result<Prepared<'a>, Failure> {
        let becoming = Becoming::new(launch, own.bounding)?;
        let main = main.map(AsFd::as_fd);
        let oom_score = own.oom_score;
        if own.restricted && !launch.is_restricted() {
            let (object, why) = (launch.sandbox.syscalls.as_str(), "the launcher itself is held to more");
            return Err(Failure::ours(Step::Syscalls, object, why));
        }
        let filter = match launch.sandbox.syscalls {
            Syscalls::Default if own.restricted => None,
            Syscalls::Default => Some(&own.filters[0]),
            Syscalls::Service => Some(&own.filters[1]),
            Syscalls::Off => None,
        };
        // Last, because what it makes is unmade where nothing comes of it.
        let provided = match main {
            None => Provided::new(launch, &command.program, &own.known)?,
            // A job finds what its service has.
            Some(_) => Provided::default(),
        };
        Ok(Prepared {
            launch,
            streams,
            becoming,
            main,
            given: None,
            filter,
            oom_score,
            command,
            provided,
            taken,
        })
    }

    /// Gives it one more descriptor.
    pub(super) fn give(&mut self, fd: BorrowedFd<'a>, number: RawFd) -> Result<(), Failure> {
        if let Some(program) = &mut self.provided.program {
            // What is executed must not be what is replaced.
            *program = fd::copy_above(program.as_fd(), number + 1)
                .map_err(|e| Failure::call(Step::Descriptors, e, ""))?;
        }
        self.given = Some((fd, number));
        Ok(())
    }

    fn enter(&self) -> Result<Option<Rules>, Failure> {
        confine::enter(self.launch, self.provided.credentials.as_ref(), &self.taken, self.main)
    }

    /// The child has become the service.
    pub(super) fn settle(self) {
        self.provided.settle();
    }
}

/// Becomes the service; returns only if that failed, with the exit status. `join`: the cgroup to join, where
/// it was not born in it.
pub(super) fn live(prepared: &Prepared<'_>, join: Option<(&Base, &str)>, record: &Record) -> i32 {
    let Err(failure) = steps(prepared, join, record);
    record.failed(&failure.encode(record::WORDS));
    NOT_EXECED
}

fn steps(
    prepared: &Prepared<'_>,
    join: Option<(&Base, &str)>,
    record: &Record,
) -> Result<Infallible, Failure> {
    // The keeper gave all others their default action when it began, and handlers end with exec.
    signal::set_default(signal::SIGPIPE);
    signal::unblock_all().map_err(|e| Failure::call(Step::Session, e, ""))?;
    for ((fd, number), name) in prepared.streams.all.into_iter().zip(0..).zip(["stdin", "stdout", "stderr"]) {
        fd::place(fd, number).map_err(|e| Failure::call(Step::Stdio, e, name))?;
    }
    process::setsid().map_err(|e| Failure::call(Step::Session, e, ""))?;
    if prepared.streams.terminal {
        terminal::control_by_stdin().map_err(|e| Failure::call(Step::Terminal, e, ""))?;
    }
    if let Some((base, name)) = join {
        join_cgroup(base, name)?;
    }
    let launch = prepared.launch;
    let rules = prepared.enter()?;
    schedule(&launch.scheduling, prepared.oom_score)?;
    set_limits(&launch.limits)?;
    process::umask(launch.umask);
    // Here, because later it would take a service that can gain no privileges.
    if let Some(rules) = rules {
        rules.hold().map_err(|e| Failure::call(Step::Landlock, e, ""))?;
    }
    if let Some(becoming) = &prepared.becoming {
        becoming.take_on()?;
    }
    if launch.no_new_privileges {
        prctl::no_new_privileges().map_err(|e| Failure::call(Step::Privileges, e, ""))?;
    }
    if let Some(becoming) = &prepared.becoming {
        becoming.verify()?;
    }
    file::change_dir(&launch.directory)
        .map_err(|e| Failure::call(Step::Directory, e, launch.directory.display().to_string()))?;
    fd::cloexec_from(3).map_err(|e| Failure::call(Step::Descriptors, e, ""))?;
    if launch.sandbox.syscalls != Syscalls::Off {
        let object = launch.sandbox.syscalls.as_str();
        let held = prepared.filter.map_or_else(seccomp::verify, Filter::install);
        held.map_err(|e| match e {
            Errno::ENOSYS | Errno::EINVAL => {
                Failure::ours(Step::Syscalls, object, "this kernel has no filters of system calls (seccomp)")
            }
            e => Failure::call(Step::Syscalls, e, object),
        })?;
    }
    if let Some((fd, number)) = prepared.given {
        fd::place(fd, number).map_err(|e| Failure::call(Step::Descriptors, e, ""))?;
    }
    exec::exec(&prepared.command, prepared.provided.program.as_ref(), record)
}

/// Joins, and looks whether it did.
fn join_cgroup(base: &Base, name: &str) -> Result<(), Failure> {
    let object = || base.at.path.join(name).display().to_string();
    cgroup::join(base.dir.as_fd(), name).map_err(|e| Failure::call(Step::Join, e, object()))?;
    let text = std::fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    if base.holds(name, &text) {
        return Ok(());
    }
    Err(Failure::ours(Step::Join, object(), "the kernel accepted it, but we are not in it"))
}

/// `own`: the oom_score_adj that we were born with.
fn schedule(wanted: &Scheduling, own: i32) -> Result<(), Failure> {
    // What protects keepd from the kernel's choice is not passed on.
    let score = wanted.oom_score_adjust.unwrap_or(own.max(0));
    if score != own {
        schedule::set_oom_score(score).map_err(|e| Failure::call(Step::OomScore, e, score.to_string()))?;
    }
    if let Some(nice) = wanted.nice {
        schedule::set_nice(nice).map_err(|e| Failure::call(Step::Nice, e, nice.to_string()))?;
    }
    if let Some(io) = wanted.io {
        schedule::set_io_priority(io.0).map_err(|e| Failure::call(Step::IoPriority, e, io.to_string()))?;
    }
    if !wanted.cpus.is_empty() {
        let object = || format!("{:?}", wanted.cpus).trim_matches(['[', ']']).to_owned();
        schedule::set_cpus(&wanted.cpus).map_err(|e| match e {
            Errno::ENXIO => {
                Failure::ours(Step::Affinity, object(), "the host does not let it have all of them")
            }
            e => Failure::call(Step::Affinity, e, object()),
        })?;
    }
    Ok(())
}

fn set_limits(wanted: &[Limit]) -> Result<(), Failure> {
    let show = |v: Option<u64>| v.map_or("unlimited".into(), |v| v.to_string());
    for l in wanted {
        limits::set(l.resource, limits::Pair { soft: l.soft, hard: l.hard }).map_err(|e| {
            let to =
                if l.soft == l.hard { show(l.soft) } else { format!("{}:{}", show(l.soft), show(l.hard)) };
            Failure::call(Step::Limit, e, format!("{} to {to}", l.name))
        })?;
    }
    Ok(())
}
