//! The same bytes through s6-log, svlogd, multilog and keepd end as the same lines. Where they differ by design is
//! said here and taken into account, nothing else is:
//!
//! - s6-log writes a NUL as a line end, and cuts lines after 8 KiB unless told not to (`-l 0`).
//! - What follows the last line end, s6-log and svlogd leave out; multilog ends it; keepd keeps it as it is.
//! - All of them rotate at about the size that they are told; keepd cuts no line for it, and neither do these here.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod common;
mod engine;

use common::{skip, which};
use engine::{Rig, files};
use keepd::plan::{LogFormat, LogSpec};
use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

const SIZE: u64 = 4096;
const SEEDS: std::ops::Range<u64> = 1..9;

/// Numbers that look random; xorshift64.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % n as u64).unwrap()
    }
}

/// Numbered lines, empty and long ones, escapes, invalid UTF-8 and NULs; the last may have no end.
fn stream(random: &mut Random) -> Vec<u8> {
    let mut out = Vec::new();
    for n in 0..400 + random.below(400) {
        let kind = random.below(8);
        if kind > 0 {
            write!(out, "{n} ").unwrap();
        }
        match kind {
            1 => out.extend(std::iter::repeat_n(b'x', random.below(6_000))),
            2 => out.extend((0..random.below(200)).map(|_| random.below(256) as u8).filter(|b| *b != b'\n')),
            3 => out.extend(std::iter::repeat_n(0, random.below(20))),
            4 => out.extend(b"\xc3\xa9\xff\xfe\x1b[1m\r\t\x7f"),
            _ => {}
        }
        if n == 200 {
            out.extend(std::iter::repeat_n(b'y', 100_000));
        }
        out.push(b'\n');
    }
    if random.below(2) == 1 {
        out.extend(b"no end");
    }
    out
}

/// The contents of the files in the order in which they were written.
fn content(dir: &Path) -> Vec<u8> {
    let names = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    // Labels of TAI64N sort by time.
    let mut names: Vec<_> = names.filter(|n| n.starts_with('@')).collect();
    names.sort();
    assert!(names.len() > 10, "it has rotated: {names:?}");
    names.push("current".into());
    names.iter().flat_map(|n| fs::read(dir.join(n)).unwrap()).collect()
}

fn through(program: &str, args: &[&str], input: &Path, dir: &Path) -> Vec<u8> {
    fs::create_dir(dir).unwrap();
    // For svlogd; the others do not look at it.
    fs::write(dir.join("config"), format!("s{SIZE}\nn100000\n")).unwrap();
    let mut command = Command::new(program);
    command.args(args).arg(dir).stdin(File::open(input).unwrap()).stderr(Stdio::null());
    assert!(command.status().unwrap().success(), "{program}");
    content(dir)
}

fn through_keepd(
    rig: &Rig,
    name: &str,
    run: u64,
    spec: &LogSpec,
    bytes: &[u8],
    random: &mut Random,
) -> Vec<u8> {
    let mut input = rig.attach(name, run, spec);
    let mut rest = bytes;
    while !rest.is_empty() {
        let most = [1, 10, 100, 5_000, 100_000][random.below(5)];
        let (now, later) = rest.split_at((1 + random.below(most)).min(rest.len()));
        input.write_all(now).unwrap();
        rest = later;
    }
    drop(input);
    rig.finish(run);
    let files = files(&rig.dir(name));
    assert!(files.len() > 10);
    files.iter().flat_map(|f| fs::read(f).unwrap()).collect()
}

/// What was written as whole lines, and what follows.
fn split(bytes: &[u8]) -> (&[u8], &[u8]) {
    bytes.split_at(bytes.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1))
}

fn differ(program: &str, args: &[&str], expected: impl Fn(&[u8]) -> Vec<u8>) {
    if which(program).is_none() {
        return skip(&format!("needs {program}"));
    }
    for seed in SEEDS {
        let rig = Rig::new();
        let mut random = Random(seed);
        let bytes = stream(&mut random);
        let input = rig.folder.path().join("input");
        fs::write(&input, &bytes).unwrap();
        let theirs = through(program, args, &input, &rig.folder.path().join("theirs"));
        let ours = through_keepd(&rig, "web", 1, &rig.spec("web", SIZE), &bytes, &mut random);
        assert!(ours == bytes, "seed {seed}: keepd");
        assert!(theirs == expected(&ours), "seed {seed}: {program}");
    }
}

#[test]
fn svlogd_writes_the_same_lines() {
    differ("svlogd", &[], |ours| split(ours).0.to_vec());
}

#[test]
fn multilog_writes_the_same_lines() {
    differ("multilog", &["s4096", "n100000"], |ours| match split(ours) {
        (_, []) => ours.to_vec(),
        _ => [ours, b"\n"].concat(),
    });
}

#[test]
fn s6_log_writes_the_same_lines() {
    let nul = |b: &u8| if *b == 0 { b'\n' } else { *b };
    differ("s6-log", &["-b", "-l", "0", "n100000", "s4096"], |ours| split(ours).0.iter().map(nul).collect());
}

/// With the time before each line they are the same lines all the same.
#[test]
fn s6_log_and_keepd_stamp_the_same_lines() {
    if which("s6-log").is_none() {
        return skip("needs s6-log");
    }
    let bodies = |text: &[u8], head: usize| -> Vec<Vec<u8>> {
        text.split_inclusive(|b| *b == b'\n').map(|line| line[head..].to_vec()).collect()
    };
    for seed in SEEDS {
        let rig = Rig::new();
        let mut random = Random(seed);
        let all: Vec<u8> = stream(&mut random).into_iter().filter(|b| *b != 0).collect();
        let bytes = split(&all).0;
        let input = rig.folder.path().join("input");
        fs::write(&input, bytes).unwrap();
        let args = ["-b", "-l", "0", "t", "n100000", "s4096"];
        let theirs = through("s6-log", &args, &input, &rig.folder.path().join("theirs"));
        let spec = LogSpec { format: LogFormat::Timestamp, max_line: 200_000, ..rig.spec("web", SIZE) };
        let ours = through_keepd(&rig, "web", 1, &spec, bytes, &mut random);
        // `@`, 24 digits and a space; a time as in RFC 3339 and a space.
        assert!(bodies(&theirs, 26) == bodies(&ours, 28), "seed {seed}");
    }
}
