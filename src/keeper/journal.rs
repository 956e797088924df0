//! What stays of a keeper that is killed: a file beside the lock, to which each turn adds what has changed, and the
//! plans. It lies in memory where the runtime folder does, is read back line by line, and ends at the first line that
//! is not whole, so whatever instant its writer died at, what is read was true.

#![forbid(unsafe_code)]

use super::{
    protocol::Kept,
    saved::{Identity, Saved, SavedRun, Stamp},
};
use crate::{
    plan::{Generation, Name, RunId},
    sys::{self, Errno, private::Private},
};
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    io::{self, Write},
    path::Path,
};

/// The folder, in the runtime folder.
const FOLDER: &str = "keeper";
const FILE: &str = "state";
const FRESH: &str = "state.new";
/// What could not be read, for people to look at.
const REFUSED: &str = "state.refused";
/// Written anew once it has grown to so many bytes, and to several times what is in it.
const ROOM: u64 = 4 << 20;
const GROWTH: u64 = 4;

/// A line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line {
    /// The first: everything, and of which boot.
    State {
        boot: String,
        state: Box<Saved>,
    },
    /// All but runs and what is remembered, instead of before.
    Head(Box<Saved>),
    Run(RunId, Box<SavedRun>),
    Gone(RunId),
    Remember(Name, Kept),
    Forget(Name),
    /// A manager, and when it began.
    Manager(i32, Option<u64>),
    /// What the manager has given to keep: the name, and what is behind it.
    Kept(String, Vec<Identity>),
    Dropped(String),
}

/// What the lines come to.
#[derive(Debug)]
pub(super) struct Left {
    pub(super) state: Saved,
    /// All that may hold something, each with when it began.
    pub(super) managers: Vec<(i32, Option<u64>)>,
    pub(super) kept: std::collections::BTreeMap<String, Vec<Identity>>,
}

/// Open for writing.
#[derive(Debug)]
pub(super) struct Journal {
    folder: Private,
    file: File,
    size: u64,
    /// Its size when it was last written anew.
    base: u64,
}

impl Journal {
    /// Begins one that holds these lines and no others.
    pub(super) fn begin(runtime_dir: &Path, lines: &[Line]) -> io::Result<Journal> {
        let folder = Private::open(&runtime_dir.join(FOLDER))?;
        let (file, size) = write_new(&folder, lines)?;
        Ok(Journal { folder, file, size, base: size })
    }

    /// Adds lines, with one write.
    pub(super) fn add(&mut self, lines: &[Line]) -> io::Result<()> {
        let bytes = encode(lines)?;
        self.file.write_all(&bytes)?;
        self.size += bytes.len() as u64;
        Ok(())
    }

    /// Whether most of it is out of date.
    pub(super) fn overgrown(&self) -> bool {
        self.size > ROOM && self.size > GROWTH * self.base
    }

    /// Writes it anew.
    pub(super) fn renew(&mut self, lines: &[Line]) -> io::Result<()> {
        let (file, size) = write_new(&self.folder, lines)?;
        (self.file, self.size, self.base) = (file, size, size);
        Ok(())
    }

    /// Keeps a plan.
    pub(super) fn put_plan(&self, generation: Generation, image: &[u8]) -> io::Result<()> {
        let name = plan_name(generation);
        let fresh = format!("{name}.new");
        self.folder.create(&fresh)?.write_all(image)?;
        Ok(self.folder.rename(&fresh, &name)?)
    }

    /// Nobody needs a plan any more.
    pub(super) fn remove_plan(&self, generation: Generation) {
        let _ = self.folder.remove(&plan_name(generation));
    }

    /// Nothing is left for anybody: the keeper ends in order, or cannot keep this up.
    pub(super) fn remove(&self, plans: impl IntoIterator<Item = Generation>) {
        let _ = self.folder.remove(FILE);
        let _ = self.folder.remove(FRESH);
        plans.into_iter().for_each(|generation| self.remove_plan(generation));
    }
}

fn plan_name(generation: Generation) -> String {
    format!("plan.{}", generation.0)
}

fn write_new(folder: &Private, lines: &[Line]) -> io::Result<(File, u64)> {
    let bytes = encode(lines)?;
    let mut file = folder.create(FRESH)?;
    file.write_all(&bytes)?;
    folder.rename(FRESH, FILE)?;
    Ok((file, bytes.len() as u64))
}

/// Each line is a checksum of the rest, a space, and JSON.
fn encode(lines: &[Line]) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    for line in lines {
        let json = serde_json::to_vec(line)?;
        out.extend(format!("{:016x} ", checksum(&json)).as_bytes());
        out.extend(json);
        out.push(b'\n');
    }
    Ok(out)
}

/// FNV-1a, 64 bits: against tearing, not against malice.
fn checksum(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

/// What an earlier keeper has left; `Ok(None)`: nothing, or something of before the last boot. The error is a clause
/// for people; what it is about has been set aside.
pub(super) fn read(runtime_dir: &Path, boot: &str) -> Result<Option<Left>, String> {
    let folder = match Private::open(&runtime_dir.join(FOLDER)) {
        Ok(folder) => folder,
        Err(Errno::EPERM) => return Err("its folder is not ours alone".into()),
        Err(e) => return Err(sys::describe(e).into()),
    };
    let bytes = match folder.read(FILE) {
        Ok(bytes) => bytes,
        Err(Errno::ENOENT) => return Ok(None),
        Err(e) => return Err(sys::describe(e).into()),
    };
    decode(&bytes, boot).inspect_err(|_| {
        let _ = folder.rename(FILE, REFUSED);
    })
}

/// A plan that an earlier keeper kept.
pub(super) fn read_plan(runtime_dir: &Path, generation: Generation) -> sys::Result<Vec<u8>> {
    Private::open(&runtime_dir.join(FOLDER))?.read(&plan_name(generation))
}

fn decode(bytes: &[u8], boot: &str) -> Result<Option<Left>, String> {
    let mut lines = bytes.split_inclusive(|b| *b == b'\n').map_while(whole);
    let first = lines.next().ok_or("it is damaged from its first line on")?;
    let damaged = |e: serde_json::Error| format!("it is damaged ({e})");
    serde_json::from_slice::<First>(first).map_err(damaged)?.state.state.acceptable()?;
    let first = serde_json::from_slice(first).map_err(damaged)?;
    let Line::State { boot: of, state } = first else { return Err("it does not begin with a state".into()) };
    if of != boot {
        return Ok(None);
    }
    let mut left = Left { state: *state, managers: Vec::new(), kept: Default::default() };
    for json in lines {
        let Ok(line) = serde_json::from_slice(json) else { return Err("it is damaged".into()) };
        left.take(line);
    }
    Ok(Some(left))
}

/// As much of the first line as every version must be able to read.
#[derive(Deserialize)]
struct First {
    state: FirstState,
}

#[derive(Deserialize)]
struct FirstState {
    state: Stamp,
}

/// The JSON of a line, if all of it is there.
fn whole(line: &[u8]) -> Option<&[u8]> {
    let line = line.strip_suffix(b"\n")?;
    let (sum, rest) = line.split_at_checked(17)?;
    (format!("{:016x} ", checksum(rest)).as_bytes() == sum).then_some(rest)
}

impl Left {
    fn take(&mut self, line: Line) {
        let state = &mut self.state;
        match line {
            Line::State { .. } => {}
            Line::Head(head) => {
                let runs = std::mem::take(&mut state.runs);
                let remembered = std::mem::take(&mut state.remembered);
                *state = Saved { runs, remembered, ..*head };
            }
            Line::Run(id, run) => {
                state.last_run = state.last_run.max(id);
                state.runs.insert(id, *run);
            }
            Line::Gone(id) => drop(state.runs.remove(&id)),
            Line::Remember(service, kept) => drop(state.remembered.insert(service, kept)),
            Line::Forget(service) => drop(state.remembered.remove(&service)),
            Line::Manager(pid, born) if self.managers.contains(&(pid, born)) => {}
            Line::Manager(pid, born) => self.managers.push((pid, born)),
            Line::Kept(name, inodes) => drop(self.kept.insert(name, inodes)),
            Line::Dropped(name) => drop(self.kept.remove(&name)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(json: &str) -> Vec<u8> {
        format!("{:016x} {json}\n", checksum(json.as_bytes())).into_bytes()
    }

    #[test]
    fn only_whole_lines_count() {
        let good = line("[1]");
        assert_eq!(whole(&good), Some(&b"[1]"[..]));
        for cut in 0..good.len() {
            assert_eq!(whole(&good[..cut]), None, "{cut}");
        }
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert_eq!(whole(&bad), None, "{at}");
        }
    }

    #[test]
    fn a_state_of_another_version_is_refused_by_name() {
        let of = |form: u32, version: &str| {
            let stamp = format!(r#"{{"form":{form},"version":"{version}"}}"#);
            decode(&line(&format!(r#"{{"state":{{"boot":"x","state":{stamp}}}}}"#)), "x").err().unwrap()
        };
        assert!(of(99, "0.0.1").contains("has form 99"), "{}", of(99, "0.0.1"));
        assert!(of(super::super::saved::FORM, "99.0.0").contains("is older than keepd 99.0.0"));
        assert!(decode(b"", "x").err().unwrap().contains("damaged from its first line on"));
        assert!(decode(b"\0\0\0", "x").err().unwrap().contains("damaged from its first line on"));
    }
}
