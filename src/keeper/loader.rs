//! Running `keepd load`: text to plan, in a process of its own, so that a broken configuration can fail no
//! more than that. The answer is a memfd: a sealed plan, or a report.

#![forbid(unsafe_code)]

use super::{
    own::{self, Own},
    plans::Held,
    protocol::{LOADER_FD, News, NoteLevel},
    state::{Keeper, Owner},
};
use crate::{
    plan::DaemonSpec,
    sys::{
        self, clock, memory, pidfd,
        process::{Child, SingleThread},
        reap::{self, Ended},
        signal,
    },
};
use std::{
    ffi::OsString,
    os::fd::{AsFd, OwnedFd},
    rc::Rc,
};

/// How long it may take.
const LIMIT_MS: u64 = 30_000;
/// Exit status of a loader whose memfd holds a report.
const BAD_CONFIG: i32 = 78;
/// Exit status where it is nobody's fault but ours.
const INTERNAL: i32 = 70;

/// A loader at work.
#[derive(Debug)]
pub(super) struct Loading {
    child: Child,
    answer: OwnedFd,
    started: u64,
    overdue: bool,
}

impl Loading {
    /// Starts one. `aloud`: it shows people what is wrong on stderr.
    fn start(proof: SingleThread, argv: &[OsString], aloud: bool) -> sys::Result<Loading> {
        let answer = memory::create(c"keepd-plan")?;
        let extra = aloud.then_some((own::LOAD_ALOUD, "1".to_owned()));
        let own = Own {
            program: None,
            argv,
            fd: answer.as_fd(),
            number: LOADER_FD,
            also: Vec::new(),
            env: extra,
            role: own::Role::Loader,
        };
        let child = own::start(proof, &own)?;
        Ok(Loading { child, answer, started: clock::boottime_ms(), overdue: false })
    }

    /// When it is killed, in ms of boot time.
    pub(super) fn deadline(&self) -> u64 {
        if self.overdue { u64::MAX } else { self.started + LIMIT_MS }
    }
}

/// The first load, for which the whole start waits. The error is the status to exit with; people have been
/// told why on stderr.
pub(super) fn load_first(proof: SingleThread, argv: &[OsString]) -> Result<(Held, DaemonSpec), i32> {
    let failed = |why: String| {
        super::state::complain(&format!("cannot load the configuration: {why}"));
        INTERNAL
    };
    let in_words = |e| failed(format!("cannot run the loader: {}", sys::describe(e)));
    let mut loading = Loading::start(proof, argv, true).map_err(in_words)?;
    let pidfd = loading.child.pidfd.as_fd();
    while !pidfd::wait_end(pidfd, loading.deadline().saturating_sub(clock::boottime_ms()))
        .map_err(in_words)?
    {
        if clock::boottime_ms() >= loading.deadline() {
            let _ = pidfd::send_signal(pidfd, signal::SIGKILL);
            loading.overdue = true;
            break;
        }
    }
    while !pidfd::wait_end(loading.child.pidfd.as_fd(), 1000).map_err(in_words)? {}
    match reap::reap(loading.child.pidfd.as_fd()).map_err(in_words)? {
        Some((Ended::Code(0), _)) => Held::accept(loading.answer).map_err(failed),
        // What is wrong, the loader has said.
        Some((Ended::Code(status), _)) => Err(status),
        Some((ended, _)) => Err(failed(why_dead(ended, loading.overdue))),
        None => Err(failed("the loader's end was not told".into())),
    }
}

impl Keeper {
    /// Starts a loader; one at a time.
    pub(super) fn load(&mut self) {
        if self.loading.is_some() {
            return self.note(NoteLevel::Warn, "a load is asked for while another one is running".into());
        }
        match Loading::start(self.proof, &self.argv.loader, false) {
            Ok(loading) => {
                self.pids.insert(loading.child.pid, Owner::Loader);
                self.loading = Some(loading);
            }
            Err(e) => self.report(format!("cannot run the loader: {}", sys::describe(e))),
        }
    }

    /// Kills a loader that takes too long.
    pub(super) fn expire_loader(&mut self, now: u64) {
        if let Some(loading) = self.loading.as_mut().filter(|l| now >= l.deadline()) {
            loading.overdue = true;
            let _ = pidfd::send_signal(loading.child.pidfd.as_fd(), signal::SIGKILL);
        }
    }

    /// The loader has ended: its answer goes to the manager.
    pub(super) fn loader_ended(&mut self) {
        let Some(loading) = self.loading.take() else { return };
        match reap::reap(loading.child.pidfd.as_fd()) {
            Ok(Some((Ended::Code(0), _))) => match Held::accept(loading.answer) {
                Ok((held, _)) => {
                    let fd = held.fd.clone();
                    let generation = Some(self.plans.add(held));
                    self.tell_with(News::Loaded { generation }, vec![fd]);
                }
                Err(why) => self.report(why),
            },
            Ok(Some((Ended::Code(BAD_CONFIG), _))) => {
                self.tell_with(News::Loaded { generation: None }, vec![Rc::new(loading.answer)]);
            }
            Ok(Some((ended, _))) => self.report(why_dead(ended, loading.overdue)),
            Ok(None) => self.report("the loader's end was not told".into()),
            Err(e) => self.report(format!("the loader's end was not told: {}", sys::describe(e))),
        }
    }

    /// A report of our own, where the loader left none.
    fn report(&mut self, why: String) {
        let message = format!("cannot load the configuration: {why}; the present one stays in force");
        let rendered = format!("error: {message}");
        let json = serde_json::json!({ "diagnostics": [
            { "message": message, "file": "", "line": 0, "column": 0, "rendered": rendered }
        ]});
        let filled = memory::create(c"keepd-report")
            .map_err(std::io::Error::from)
            .and_then(|fd| memory::fill_and_seal(fd, json.to_string().as_bytes()));
        match filled {
            Ok(fd) => self.tell_with(News::Loaded { generation: None }, vec![Rc::new(fd)]),
            Err(e) => self.note(NoteLevel::Error, format!("{message} (and no report can be made: {e})")),
        }
    }
}

fn why_dead(ended: Ended, overdue: bool) -> String {
    match ended {
        _ if overdue => format!("it took longer than {} s", LIMIT_MS / 1000),
        Ended::Code(status) => format!("the loader exited with status {status}"),
        Ended::Signal { signal, .. } => format!("the loader was killed by {}", signal::name(signal)),
    }
}
