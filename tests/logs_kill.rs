//! SIGKILL of the process that writes logs, at any instant, while its files can be written and while they cannot:
//! what stands in the files and what they say was dropped is what was produced, in order, nothing torn.
//!
//! KEEPD_LOG_KILLS (60 unless set) says how often, for each way to write.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod engine;

use engine::{LIMIT, files, line, pipe, spec};
use keepd::{
    logs::{Engine, Housekeeper, Keep, Report, Vault, rotate},
    plan::{LogFormat, LogSpec, Name, RunId},
    sys::{Errno, packet},
};
use std::{
    collections::BTreeMap,
    fs,
    io::Write,
    os::fd::{AsFd, OwnedFd},
    path::Path,
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

const MAX_SIZE: u64 = 30_000;

fn soak_spec(dir: &Path, format: &str) -> LogSpec {
    let format = match format {
        "timestamp" => LogFormat::Timestamp,
        "json" => LogFormat::Json,
        _ => LogFormat::Raw,
    };
    LogSpec { format, ..spec(dir, MAX_SIZE) }
}

/// Not a test: the process that the others start and kill. Its stdin is the service's pipe, its stdout the
/// socket to somebody who keeps things, as the keeper does.
#[test]
fn soak_engine() {
    let Ok(dir) = std::env::var("KEEPD_LOG_SOAK_DIR") else { return };
    let format = std::env::var("KEEPD_LOG_SOAK_FORMAT").unwrap();
    let output = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let socket = std::io::stdout().as_fd().try_clone_to_owned().unwrap();
    let (mut kept, mut buffer) = (Vec::new(), [0; 100]);
    loop {
        match packet::receive(socket.as_fd(), &mut buffer) {
            Ok(Some((len, _))) if &buffer[..len] == b"end" => break,
            Ok(Some((len, fds))) => kept.push((String::from_utf8_lossy(&buffer[..len]).into_owned(), fds)),
            Err(Errno::EAGAIN) => thread::yield_now(),
            other => panic!("{other:?}"),
        }
    }
    let vault = Vault::new(kept, move |keep| {
        let (name, fds) = match keep {
            Keep::Hold(name, fds) => (format!("+{name}"), fds),
            Keep::Release(name) => (format!("-{name}"), &[][..]),
        };
        while let Err(Errno::EAGAIN) = packet::send(socket.as_fd(), name.as_bytes(), fds) {}
        Ok(())
    });
    let engine = Engine::with(vault.unwrap(), Housekeeper::default(), |_| ()).unwrap();
    engine.attach(&Name::new("web"), RunId(1), &soak_spec(Path::new(&dir), &format), Some(output), None);
    let (_alive, never) = mpsc::channel::<()>();
    let _ = never.recv();
}

/// What a keeper keeps.
#[derive(Default)]
struct Kept(BTreeMap<String, Vec<OwnedFd>>);

impl Kept {
    /// A socket that gives all of it, and takes more.
    fn socket(&self) -> (OwnedFd, OwnedFd) {
        let (ours, theirs) = packet::pair(1 << 20).unwrap();
        for (name, fds) in &self.0 {
            let fds: Vec<_> = fds.iter().map(AsFd::as_fd).collect();
            packet::send(ours.as_fd(), name.as_bytes(), &fds).unwrap();
        }
        packet::send(ours.as_fd(), b"end", &[]).unwrap();
        (ours, theirs)
    }

    /// Takes in what the process has said before it was killed.
    fn hear(&mut self, ours: &OwnedFd) {
        let mut buffer = [0; 4096];
        while let Ok(Some((len, fds))) = packet::receive(ours.as_fd(), &mut buffer) {
            // The test harness speaks on this socket too.
            match (buffer[0], String::from_utf8_lossy(&buffer[1..len])) {
                (b'+', name) => drop(self.0.insert(name.into_owned(), fds)),
                (b'-', name) => drop(self.0.remove(&*name)),
                _ => {}
            }
        }
    }
}

/// Compares what is in the files with what was written, and removes all but the newest rotated file.
#[derive(Default)]
struct Audit {
    format: String,
    number: u64,
    rest: Vec<u8>,
    files: u64,
    seen: u64,
    dropped: u64,
}

impl Audit {
    fn file(&mut self, path: &Path, last: bool) {
        self.rest.extend(fs::read(path).unwrap());
        let rest = std::mem::take(&mut self.rest);
        for text in rest.split_inclusive(|b| *b == b'\n') {
            if !text.ends_with(b"\n") {
                self.rest = text.to_vec();
                break;
            }
            let text = std::str::from_utf8(text).unwrap();
            let message = match &*self.format {
                "timestamp" => {
                    text.split_once("Z ").unwrap_or_else(|| panic!("{path:?}: {text:?}")).1.to_owned()
                }
                "json" => {
                    let value: serde_json::Value = serde_json::from_str(text).unwrap();
                    format!("{}\n", value["message"].as_str().unwrap())
                }
                _ => text.to_owned(),
            };
            self.line(path, &message);
        }
        assert!(last || self.rest.is_empty(), "{path:?} ends within a line");
        self.files += 1;
    }

    fn line(&mut self, path: &Path, text: &str) {
        let Some(told) = text.strip_prefix("keepd: dropped ") else {
            assert_eq!(text, line(self.number), "{path:?}: line {} is not as written", self.number);
            self.number += 1;
            return;
        };
        let (lines, bytes) = told.split_once(" lines (").unwrap();
        let bytes: u64 = bytes.strip_suffix(" bytes) here\n").unwrap().parse().unwrap();
        let after = self.number + lines.parse::<u64>().unwrap();
        let missing: u64 = (self.number..after).map(|n| line(n).len() as u64).sum();
        assert_eq!(bytes, missing, "{path:?}: {text} after line {}", self.number);
        self.dropped += after - self.number;
        self.number = after;
    }

    fn rotated(&mut self, dir: &Path) {
        let mut rotated = files(dir);
        rotated.retain(|f| !f.ends_with("current"));
        // The newest stays, so that the numbers go on.
        rotated.pop();
        for file in rotated {
            let number = rotate::sequence("", file.file_name().unwrap().to_str().unwrap()).unwrap();
            assert_eq!(number, self.seen + 1, "{file:?} does not follow");
            self.seen = number;
            self.file(&file, false);
            fs::remove_file(&file).unwrap();
        }
    }
}

/// Kills the writer again and again; where `troubled`, its folder cannot be written for a part of the time.
fn soak(format: &str, troubled: bool) -> Audit {
    let kills: u64 = std::env::var("KEEPD_LOG_KILLS").map_or(60, |n| n.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let (dir, away) = (folder.path().join("web"), folder.path().join("away"));
    fs::create_dir(&dir).unwrap();
    let (output, mut input) = pipe();
    let (enough, count) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let writer = thread::spawn({
        let (enough, count) = (enough.clone(), count.clone());
        move || {
            for n in 0.. {
                if enough.load(SeqCst) {
                    break;
                }
                input.write_all(line(n).as_bytes()).unwrap();
                count.store(n + 1, SeqCst);
            }
        }
    });
    let mut audit = Audit { format: format.into(), ..Audit::default() };
    let mut kept = Kept::default();
    let mut random = u64::from(std::process::id()) * 2 + 1;
    eprintln!("seed {random}");
    for _ in 0..kills {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        if troubled && dir.is_dir() && (random >> 20).is_multiple_of(3) {
            fs::rename(&dir, &away).unwrap();
            fs::write(&dir, "in the way").unwrap();
        }
        let (ours, theirs) = kept.socket();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "soak_engine", "--nocapture"])
            .env("KEEPD_LOG_SOAK_DIR", &dir)
            .env("KEEPD_LOG_SOAK_FORMAT", format)
            .stdin(Stdio::from(output.try_clone().unwrap()))
            .stdout(Stdio::from(theirs))
            .spawn()
            .unwrap();
        thread::sleep(Duration::from_micros((random >> 33) % 25_000));
        child.kill().unwrap();
        child.wait().unwrap();
        kept.hear(&ours);
        if away.exists() && (random >> 10).is_multiple_of(2) {
            fs::remove_file(&dir).unwrap();
            fs::rename(&away, &dir).unwrap();
        }
        if dir.is_dir() {
            audit.rotated(&dir);
        }
    }
    if away.exists() {
        fs::remove_file(&dir).unwrap();
        fs::rename(&away, &dir).unwrap();
    }
    enough.store(true, SeqCst);
    let (send, reports) = mpsc::channel();
    let vault = Vault::new(kept.0.into_iter().collect(), |_| Ok(())).unwrap();
    let engine = Engine::with(vault, Housekeeper::default(), move |report| drop(send.send(report))).unwrap();
    engine.attach(&Name::new("web"), RunId(1), &soak_spec(&dir, format), Some(output), None);
    writer.join().unwrap();
    engine.finish(RunId(1));
    let deadline = Instant::now() + LIMIT;
    while reports.recv_timeout(deadline - Instant::now()).unwrap() != (Report::Finished { run: RunId(1) }) {}
    engine.stop();
    audit.rotated(&dir);
    for file in files(&dir) {
        audit.file(&file, true);
    }
    assert!(audit.rest.is_empty(), "the end is missing");
    assert_eq!(audit.number, count.load(SeqCst), "the last lines are missing");
    eprintln!(
        "{kills} kills, {} lines, {} of them dropped, {} files",
        audit.number, audit.dropped, audit.files
    );
    assert!(audit.files > kills / 4, "hardly anything was written between the kills");
    audit
}

#[test]
fn no_line_is_lost_over_sigkills() {
    assert_eq!(soak("raw", false).dropped, 0);
}

#[test]
fn no_timestamped_line_is_lost_or_doubled_over_sigkills() {
    assert_eq!(soak("timestamp", false).dropped, 0);
}

#[test]
fn no_json_line_is_lost_or_doubled_over_sigkills() {
    assert_eq!(soak("json", false).dropped, 0);
}

#[test]
fn every_line_is_written_or_counted_over_sigkills_in_trouble() {
    assert!(soak("raw", true).dropped > 0, "nothing was dropped");
}

#[test]
fn every_timestamped_line_is_written_or_counted_over_sigkills_in_trouble() {
    assert!(soak("timestamp", true).dropped > 0, "nothing was dropped");
}
