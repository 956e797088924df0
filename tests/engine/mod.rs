//! The fixture of the log engine's tests: an engine with a folder of its own, pipes as the keeper makes them,
//! and lines that tell when one is lost, doubled, torn or out of order.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::disallowed_methods)]

use keepd::{
    logs::{Engine, Report, rotate},
    plan::{LogFormat, LogSpec, Name, OnFull, Rotate, RunId},
    sys::pipe,
};
use std::{
    fmt::Write as _,
    fs,
    io::PipeWriter,
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

pub const LIMIT: Duration = Duration::from_secs(60);

/// An engine, what it reported, and a folder for its files.
pub struct Rig {
    pub engine: Engine,
    pub reports: mpsc::Receiver<Report>,
    pub folder: TempDir,
}

impl Rig {
    pub fn new() -> Rig {
        let (send, reports) = mpsc::channel();
        let engine = Engine::start(move |report| drop(send.send(report))).unwrap();
        Rig { engine, reports, folder: tempfile::tempdir().unwrap() }
    }

    pub fn dir(&self, service: &str) -> PathBuf {
        self.folder.path().join(service)
    }

    pub fn spec(&self, service: &str, max_size: u64) -> LogSpec {
        spec(&self.dir(service), max_size)
    }

    pub fn attach(&self, service: &str, run: u64, spec: &LogSpec) -> PipeWriter {
        let (output, input) = pipe();
        self.engine.attach(&Name::new(service), RunId(run), spec, Some(output), None);
        input
    }

    /// Waits for a report of this kind, and passes over others.
    pub fn until(&self, what: &str, wanted: impl Fn(&Report) -> bool) -> Report {
        let deadline = Instant::now() + LIMIT;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.reports.recv_timeout(left) {
                Ok(report) if wanted(&report) => return report,
                Ok(_) => {}
                Err(e) => panic!("no report of {what}: {e}"),
            }
        }
    }

    pub fn finish(&self, run: u64) {
        self.engine.finish(RunId(run));
        self.until("the end of the run", |r| *r == Report::Finished { run: RunId(run) });
    }

    pub fn in_trouble(&self, service: &str) -> String {
        let report = self.until(
            "trouble",
            |r| matches!(r, Report::Trouble { service: s, message: Some(_) } if s.as_str() == service),
        );
        let Report::Trouble { message: Some(message), .. } = report else { unreachable!() };
        message
    }

    pub fn recovered(&self, service: &str) {
        self.until(
            "recovery",
            |r| matches!(r, Report::Trouble { service: s, message: None } if s.as_str() == service),
        );
    }

    /// (in, written, dropped, lines dropped)
    pub fn totals(&self, service: &str) -> (u64, u64, u64, u64) {
        let mut t = (0, 0, 0, 0);
        self.engine.counters(&Name::new(service)).fill(&mut t.0, &mut t.1, &mut t.2, &mut t.3);
        t
    }

    pub fn written(&self, service: &str, bytes: u64) {
        wait_until("bytes are written", || self.totals(service).1 >= bytes);
    }
}

pub fn wait_until(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !done() {
        assert!(Instant::now() < deadline, "still not: {what}");
        thread::yield_now();
    }
}

/// A pipe as the keeper makes it: 1 MiB, non-blocking for the reader only.
pub fn pipe() -> (OwnedFd, PipeWriter) {
    let (output, input) = small_pipe();
    pipe::set_capacity(input.as_fd(), 1 << 20).unwrap();
    (output, input)
}

/// An ordinary user may not have many large ones.
pub fn small_pipe() -> (OwnedFd, PipeWriter) {
    let (output, input) = std::io::pipe().unwrap();
    let output = OwnedFd::from(output);
    nix::fcntl::fcntl(&output, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).unwrap();
    (output, input)
}

/// Every rotated file in order, then `current`.
pub fn files(dir: &Path) -> Vec<PathBuf> {
    let names = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut rotated: Vec<_> = names.filter_map(|n| Some((rotate::sequence("", &n)?, n))).collect();
    rotated.sort();
    let mut files: Vec<_> = rotated.into_iter().map(|(_, n)| dir.join(n)).collect();
    files.extend(Some(dir.join("current")).filter(|f| f.exists()));
    files
}

pub fn text(dir: &Path) -> String {
    String::from_utf8(files(dir).iter().flat_map(|f| fs::read(f).unwrap()).collect()).unwrap()
}

/// Line number `n`: its length depends on `n`, so that a shifted or torn one is noticed.
pub fn line(n: u64) -> String {
    let padding = "................................................................................";
    format!("{n:012} {}\n", &padding[..(n * 31 % 80) as usize])
}

pub fn lines(range: std::ops::Range<u64>) -> String {
    range.fold(String::new(), |mut text, n| {
        let _ = write!(text, "{}", line(n));
        text
    })
}

/// Raw, of this size, and never pruned.
pub fn spec(dir: &Path, max_size: u64) -> LogSpec {
    LogSpec {
        dir: dir.into(),
        max_size,
        rotate: Rotate::Off,
        keep: 1_000_000,
        keep_for: None,
        max_total: None,
        compress: false,
        on_full: OnFull::Drop,
        format: LogFormat::Raw,
        max_line: 65_536,
        forward: Vec::new(),
    }
}

/// Checks that `text` is `written` with one piece cut out at line ends and a marker in its place, and
/// returns how many lines and bytes are missing.
pub fn cut(text: &str, written: &str) -> (u64, u64) {
    let at = text.find("keepd: dropped ").expect("no marker");
    let (before, rest) = text.split_at(at);
    let (marker, after) = rest.split_once('\n').unwrap();
    let numbers: Vec<u64> =
        marker.split(|c: char| !c.is_ascii_digit()).filter_map(|n| n.parse().ok()).collect();
    let (lines, bytes) = (numbers[0], numbers[1]);
    assert_eq!(marker, format!("keepd: dropped {lines} lines ({bytes} bytes) here"));
    // What stands before the marker may be the beginning of a line whose rest was dropped.
    let kept = if written.starts_with(before) { before } else { before.strip_suffix('\n').unwrap() };
    assert!(written.starts_with(kept) && written.ends_with(after), "what was kept is not what was written");
    let missing = &written[kept.len()..written.len() - after.len()];
    assert_eq!(missing.len() as u64, bytes);
    assert_eq!(missing.matches('\n').count() as u64, lines);
    (lines, bytes)
}
