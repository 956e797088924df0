//! The keeper's state in one form that outlives its process: plain data, and descriptors by name. The keeper that
//! executes itself anew reads it, as does the one that finds what a killed one has left. Nothing is decided here.

#![forbid(unsafe_code)]

use super::{
    base::Place as CgroupPlace,
    protocol::Kept,
    run::{JobState, Phase},
};
use crate::{
    plan::{DaemonSpec, Generation, Job, Name, Place, RunId, Told, hook::Subject},
    sys::{Errno, fd, limits, memory},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read, Seek, Write},
    os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd},
    rc::Rc,
};

/// The form that this version writes. One that a version cannot read is another form; what is only added, is not.
pub(super) const FORM: u32 = 1;
/// Tells a keepd where its predecessor's state is: the number of a descriptor.
pub(super) const VARIABLE: &str = "KEEPD_STATE";

/// Everything that a keeper must know of what its predecessor held.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Saved {
    pub(super) form: u32,
    /// Of the keepd that wrote it.
    pub(super) version: String,
    pub(super) spec: DaemonSpec,
    pub(super) base: Option<CgroupPlace>,
    pub(super) degraded: Vec<String>,
    /// The limit of open files that keepd was started with.
    pub(super) open_files: Option<limits::Pair>,
    pub(super) began_ms: u64,
    /// Each, and whether nothing more is launched from it.
    pub(super) plans: BTreeMap<Generation, bool>,
    pub(super) current: Generation,
    pub(super) last: Generation,
    pub(super) last_run: RunId,
    /// How many managers there have been.
    pub(super) managers: u32,
    /// How often keepd was upgraded.
    pub(super) upgrades: u32,
    /// Whether by force, and when patience ends.
    pub(super) shutdown: Option<(bool, u64)>,
    pub(super) runs: BTreeMap<RunId, SavedRun>,
    /// The processes of jobs that run.
    pub(super) jobs: Vec<(i32, RunId, Job)>,
    pub(super) remembered: BTreeMap<Name, Kept>,
    /// How many descriptors the manager wants to be kept under each name.
    pub(super) kept: BTreeMap<String, usize>,
    /// Empty cgroups, and folders of ended runs, that are to be removed.
    pub(super) remains: Vec<String>,
    pub(super) tidying: BTreeMap<Name, Vec<Place>>,
    pub(super) sessions: Vec<SavedSession>,
}

/// One run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct SavedRun {
    pub(super) service: Name,
    pub(super) generation: Generation,
    pub(super) entry: u32,
    pub(super) pid: i32,
    /// What the kernel says of when it began: with the pid, one process of this boot.
    pub(super) born: Option<u64>,
    pub(super) invocation: String,
    pub(super) cgroup: Option<String>,
    pub(super) folders: Vec<Place>,
    pub(super) phase: Phase,
    pub(super) killing: bool,
    pub(super) adjust: Option<(Generation, u32)>,
    pub(super) refused: Option<String>,
    pub(super) stop_job: JobState,
    pub(super) reload_job: JobState,
    /// Which outputs it has, and the pipes that those are.
    pub(super) pipes: (Option<Identity>, Option<Identity>),
    /// The sum of what it has told of itself, and the pipe that it would write a newline to.
    pub(super) told: Told,
    pub(super) newline: Option<Identity>,
    /// Of a hook's command.
    pub(super) subject: Option<Subject>,
    /// It is no child of ours.
    pub(super) adopted: bool,
}

/// A command that somebody runs inside a service.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct SavedSession {
    pub(super) number: u64,
    pub(super) run: RunId,
    pub(super) pid: i32,
    pub(super) caller: String,
}

/// What a descriptor refers to: device, inode, and how it was opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Identity((u64, u64, i32));

impl Identity {
    pub(super) fn inode(self) -> u64 {
        self.0.1
    }
}

/// What this descriptor refers to.
pub(super) fn identity(fd: BorrowedFd<'_>) -> Option<Identity> {
    fd::identity(fd).ok().map(Identity)
}

/// The same of several.
pub(super) fn identities(fds: &[Rc<OwnedFd>]) -> Vec<Identity> {
    fds.iter().filter_map(|fd| identity(fd.as_fd())).collect()
}

/// Descriptors by name.
pub(super) type Named<'a> = Vec<(String, BorrowedFd<'a>)>;
pub(super) type Found = BTreeMap<String, OwnedFd>;

/// The names that descriptors go by; those of runs begin with their service, which never begins with a `+`.
pub(super) mod name {
    use crate::plan::{Generation, Name, RunId};

    pub(crate) const LOCK: &str = "+lock";
    pub(crate) const SESSIONS: &str = "+sessions";

    pub(crate) fn run(service: &Name, run: RunId, kind: &str) -> String {
        format!("{service}/{run}/{kind}")
    }

    pub(crate) fn plan(generation: Generation) -> String {
        format!("+plan/{}", generation.0)
    }

    pub(crate) fn kept(name: &str, number: usize) -> String {
        format!("+kept/{name}/{number}")
    }

    pub(crate) fn session(number: u64) -> String {
        format!("+session/{number}")
    }
}

/// As it stands in the memfd.
#[derive(Serialize, Deserialize)]
struct Written<S> {
    fds: BTreeMap<String, RawFd>,
    state: S,
}

/// Only as much as every version must be able to read.
#[derive(Debug, Deserialize)]
pub(super) struct Stamp {
    form: u32,
    version: String,
}

impl Saved {
    /// In a memfd, with the numbers that these descriptors have in this process.
    pub(super) fn write(&self, fds: &Named<'_>) -> io::Result<OwnedFd> {
        let fds = fds.iter().map(|(name, fd)| (name.clone(), fd.as_raw_fd())).collect();
        let bytes = serde_json::to_vec(&Written { fds, state: self })?;
        let mut file = File::from(memory::create(c"keepd-state")?);
        file.write_all(&bytes)?;
        Ok(file.into())
    }

    /// What a predecessor wrote, and the descriptors that it left open. The error is a clause for people.
    pub(super) fn read(state: BorrowedFd<'_>) -> Result<(Saved, Found), String> {
        let unreadable = |e: io::Error| format!("its state cannot be read: {e}");
        let mut file = File::from(state.try_clone_to_owned().map_err(unreadable)?);
        let mut bytes = Vec::new();
        file.rewind().and_then(|()| file.read_to_end(&mut bytes)).map_err(unreadable)?;
        let Written { fds, state } = decode(&bytes)?;
        let mut found = Found::new();
        for (name, number) in fds {
            let fd = fd::inherited(number).map_err(|e| format!("its descriptor {name} is not open ({e})"))?;
            found.insert(name, fd);
        }
        Ok((state, found))
    }
}

fn decode(bytes: &[u8]) -> Result<Written<Saved>, String> {
    let stamp = serde_json::from_slice::<Written<Stamp>>(bytes);
    let stamp = stamp.map_err(|e| format!("its state is damaged ({e})"))?.state;
    stamp.acceptable()?;
    serde_json::from_slice(bytes)
        .map_err(|e| format!("the state of keepd {} is damaged ({e})", stamp.version))
}

impl Stamp {
    /// Whether this version can go on from the state that it is on.
    pub(super) fn acceptable(&self) -> Result<(), String> {
        let (own, Stamp { form, version }) = (env!("CARGO_PKG_VERSION"), self);
        if *form != FORM {
            return Err(format!(
                "the state of keepd {version} has form {form}, keepd {own} reads form {FORM}"
            ));
        }
        if numbers(version) > numbers(own) {
            return Err(format!("keepd {own} is older than keepd {version}, which runs"));
        }
        Ok(())
    }
}

/// To compare versions by.
fn numbers(version: &str) -> Vec<u64> {
    version.split(['.', '-', '+']).map_while(|part| part.parse().ok()).collect()
}

/// What a check says where all is well: no other program says so.
pub(super) const FINE: &str = "keepd can go on";

/// Answers a check: the state is replaced by the answer.
pub(super) fn answer(state: BorrowedFd<'_>, text: &str) -> io::Result<()> {
    let mut file = File::from(state.try_clone_to_owned()?);
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(text.as_bytes())
}

/// What stands in place of the state after a check, at most so much as people can read.
pub(super) fn answered(state: BorrowedFd<'_>) -> io::Result<String> {
    let mut file = File::from(state.try_clone_to_owned()?);
    file.rewind()?;
    let mut bytes = Vec::new();
    file.take(4096).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Whether the descriptors survive exec.
pub(super) fn inherit(fds: &Named<'_>, yes: bool) -> Result<(), Errno> {
    fds.iter().try_for_each(|(_, fd)| fd::set_cloexec(fd.as_fd(), !yes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_number() {
        assert!(numbers("0.10.0") > numbers("0.9.3"));
        assert!(numbers("1.0.0-rc1") == numbers("1.0.0"));
    }

    #[test]
    fn a_state_of_another_form_or_of_a_newer_keepd_is_refused_by_name() {
        let of = |form: u32, version: &str| {
            let text = format!(r#"{{"fds":{{}},"state":{{"form":{form},"version":"{version}"}}}}"#);
            decode(text.as_bytes()).err().unwrap()
        };
        assert!(of(FORM + 1, "99.0.0").starts_with("the state of keepd 99.0.0 has form 2"), "{}", of(2, "1"));
        assert!(of(FORM, "99.0.0").contains("is older than keepd 99.0.0"));
        assert!(of(FORM, "0.0.1").contains("the state of keepd 0.0.1 is damaged"));
        assert!(decode(b"").err().unwrap().starts_with("its state is damaged"));
    }
}
