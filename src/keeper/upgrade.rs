//! The upgrade: the installed program is asked, in a child, whether it can go on from a copy of the state; then
//! launchers come to rest and the manager ends, and the keeper executes that program in its own place: same pid,
//! same children, same descriptors. Whatever goes wrong before that leaves everything as it was, and is said.

#![forbid(unsafe_code)]

use super::{
    own::{self, Own},
    protocol::{News, NoteLevel},
    saved::{FINE, VARIABLE, answered, inherit},
    state::{Keeper, Owner, complain},
};
use crate::{
    plan::RunId,
    sys::{
        self, Errno, clock, fd, pidfd,
        process::{self, Child, Strings},
        reap::{self, Ended},
        signal,
    },
};
use std::{
    convert::Infallible,
    ffi::{CString, OsString},
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::ffi::{OsStrExt, OsStringExt},
    },
};

/// How long the check may take.
const CHECK_MS: u64 = 10_000;
/// How long launches that are under way may take to come to rest, and the manager to end.
const REST_MS: u64 = 5_000;
/// Exit status of a program that does not know what it is asked: an older keepd.
const USAGE: i32 = 64;

/// How far an upgrade has come.
#[derive(Debug)]
pub(super) enum Upgrade {
    /// The installed program looks at a copy of the state.
    Checking { child: Child, state: OwnedFd, until: u64 },
    /// It can read it: nothing more is launched, and the manager goes once no launch is under way.
    Resting { until: u64, manager_told: bool },
}

impl Upgrade {
    /// When it is given up, in ms of boot time.
    pub(super) fn deadline(&self) -> u64 {
        match self {
            Upgrade::Checking { until, .. } | Upgrade::Resting { until, .. } => *until,
        }
    }
}

impl Keeper {
    /// Answers `Upgrade`: the check begins, or the reason why not is told.
    pub(super) fn upgrade(&mut self) {
        let begun = match () {
            () if self.upgrade.is_some() => Err("another upgrade is under way".to_owned()),
            () if self.shutdown.is_some() => Err("keepd is stopping".to_owned()),
            () if self.ready_fd.is_some() => Err("keepd is not ready yet".to_owned()),
            () => self.begin_check(),
        };
        match begun {
            Ok(upgrade) => self.upgrade = Some(upgrade),
            Err(why) => self.refuse_upgrade(why),
        }
    }

    fn begin_check(&mut self) -> Result<Upgrade, String> {
        let program = self.program.display();
        if let Err(e) = std::fs::metadata(&self.program) {
            return Err(format!("{program}: {}", e.kind()));
        }
        let failed = |what: &str, e: &dyn std::fmt::Display| format!("{what}: {e}");
        let table = self.descriptors();
        let state = self.save().write(&table).map_err(|e| failed("the state cannot be copied", &e))?;
        let own = Own {
            program: Some(&self.program),
            argv: &self.argv.check,
            fd: state.as_fd(),
            number: state.as_raw_fd(),
            also: table.iter().map(|(_, fd)| *fd).collect(),
            env: Some((VARIABLE, state.as_raw_fd().to_string())),
            role: own::Role::Check,
        };
        let child = own::start(self.proof, &own)
            .map_err(|e| failed("the check cannot be started", &sys::describe(e)))?;
        self.pids.insert(child.pid, Owner::Check);
        Ok(Upgrade::Checking { child, state, until: clock::boottime_ms() + CHECK_MS })
    }

    /// The check has ended.
    pub(super) fn check_ended(&mut self) {
        let Some(Upgrade::Checking { child, state, until }) = self.upgrade.take() else { return };
        let ended = reap::reap(child.pidfd.as_fd()).ok().flatten().map(|(ended, _)| ended);
        let late = clock::boottime_ms() >= until;
        match verdict(ended, late, &answered(state.as_fd()).unwrap_or_default()) {
            Ok(()) => {
                self.launchers.hold(true);
                let until = clock::boottime_ms() + REST_MS;
                self.upgrade = Some(Upgrade::Resting { until, manager_told: false });
            }
            Err(why) => self.refuse_upgrade(format!("{}: {why}", self.program.display())),
        }
    }

    /// Goes on with an upgrade as far as it can now.
    pub(super) fn on_upgrade(&mut self, now: u64) {
        match &mut self.upgrade {
            None => {}
            Some(Upgrade::Checking { child, until, .. }) if now >= *until => {
                let _ = pidfd::send_signal(child.pidfd.as_fd(), signal::SIGKILL);
            }
            Some(Upgrade::Checking { .. }) => {}
            Some(Upgrade::Resting { until, .. }) if now >= *until => {
                self.give_up_upgrade("launches that are under way do not come to an end".into());
            }
            Some(Upgrade::Resting { manager_told, .. }) => {
                if self.launchers.busy() {
                    return;
                }
                if self.link.gone() {
                    return self.change_over();
                }
                if !std::mem::replace(manager_told, true)
                    && let Some(child) = &self.link.child
                {
                    // What it sent before is still read and done.
                    let _ = pidfd::send_signal(child.pidfd.as_fd(), signal::SIGKILL);
                }
            }
        }
    }

    /// Whether the manager has to go for an upgrade and none is started.
    pub(super) fn upgrade_needs_no_manager(&self) -> bool {
        matches!(self.upgrade, Some(Upgrade::Resting { manager_told: true, .. }))
    }

    fn give_up_upgrade(&mut self, why: String) {
        self.upgrade = None;
        self.launchers.hold(false);
        self.serve_waiting();
        self.refuse_upgrade(why);
    }

    fn refuse_upgrade(&mut self, why: String) {
        let why = format!("{why}; keepd {} goes on", env!("CARGO_PKG_VERSION"));
        self.note(NoteLevel::Error, format!("cannot upgrade: {why}"));
        self.tell_or_keep(News::UpgradeRefused { why });
    }

    /// Executes the installed program. Returns where that is not possible, and everything goes on.
    fn change_over(&mut self) {
        self.refuse_waiting_sessions();
        // Their answers are for the manager that has gone; the next one asks anew.
        let runs: Vec<RunId> = self.runs.keys().copied().collect();
        runs.into_iter().for_each(|id| self.end_probes(id));
        let Err(why) = self.try_change_over();
        self.give_up_upgrade(why);
    }

    fn try_change_over(&self) -> Result<Infallible, String> {
        let mut table = self.descriptors();
        let mut saved = self.save();
        saved.upgrades += 1;
        let state = saved.write(&table).map_err(|e| format!("the state cannot be written: {e}"))?;
        table.push((String::new(), state.as_fd()));
        let text = |b: Vec<u8>| CString::new(b).map_err(|_| "a NUL in the arguments".to_owned());
        let program = text(self.program.as_os_str().as_bytes().to_vec())?;
        let (argv, env) = (arguments().map_err(text_error)?, environment(&state).map_err(text_error)?);
        inherit(&table, true).map_err(|e| sys::describe(e).to_owned())?;
        let Err(e) = process::exec(&program, &argv, &env);
        let _ = inherit(&table, false);
        Err(format!("{}: {}", self.program.display(), sys::describe(e)))
    }
}

fn text_error(e: Errno) -> String {
    format!("arguments or environment cannot be passed on: {}", sys::describe(e))
}

fn arguments() -> Result<Strings, Errno> {
    strings(std::env::args_os())
}

/// Ours, and where the state is.
fn environment(state: &OwnedFd) -> Result<Strings, Errno> {
    let kept = std::env::vars_os().filter(|(name, _)| name != VARIABLE);
    let both = kept.map(|(name, value)| {
        let mut both = name;
        both.push("=");
        both.push(value);
        both
    });
    strings(both.chain([OsString::from(format!("{VARIABLE}={}", state.as_raw_fd()))]))
}

fn strings(all: impl Iterator<Item = OsString>) -> Result<Strings, Errno> {
    let one = |s: OsString| CString::new(s.into_vec()).map_err(|_| Errno::EINVAL);
    all.map(one).collect::<Result<Vec<_>, _>>().map(Strings::from)
}

/// What a check that has ended so, and has left this answer, means.
fn verdict(ended: Option<Ended>, late: bool, answer: &str) -> Result<(), String> {
    match ended {
        Some(Ended::Code(0)) if answer == FINE => Ok(()),
        _ if late => Err("its check takes too long".into()),
        Some(Ended::Code(0)) => Err("it is no keepd that can be upgraded to".into()),
        Some(Ended::Code(USAGE)) => Err("it is an older keepd, which cannot go on from this one".into()),
        Some(Ended::Code(own::CANNOT_EXECUTE)) => Err("it cannot be executed".into()),
        Some(Ended::Code(1)) if !answer.is_empty() => Err(answer.to_owned()),
        Some(Ended::Code(status)) => Err(format!("its check exited with status {status}")),
        Some(Ended::Signal { signal, .. }) => {
            Err(format!("its check was killed by {}", signal::name(signal)))
        }
        None => Err("how its check ended is not known".into()),
    }
}

/// Is the check: what it finds stands in the state's place. Returns the exit status.
pub(super) fn check() -> i32 {
    let number = std::env::var(VARIABLE).ok().and_then(|n| n.parse().ok());
    let Some(state) = number.and_then(|n| fd::inherited(n).ok()) else {
        complain(&format!("{VARIABLE} names no descriptor; this role is started by keepd itself"));
        return USAGE;
    };
    let found = super::resume::check(state.as_fd());
    let told: io::Result<()> =
        super::saved::answer(state.as_fd(), found.as_ref().err().map_or(FINE, String::as_str));
    i32::from(found.is_err() || told.is_err())
}

/// What the environment says of a predecessor's state: its descriptor.
pub(super) fn predecessor() -> Option<OwnedFd> {
    std::env::var(VARIABLE).ok()?.parse().ok().and_then(|n| fd::inherited(n).ok())
}
