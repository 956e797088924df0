//! Fifty services that write in all ways, whose files are rotated every second, while the manager is killed at any
//! instant and the file system of the logs is full now and then. In the end what is in the files and what they say
//! was dropped is what each service has produced: in order, nothing torn, nothing doubled.
//!
//! KEEPD_SOAK_SECONDS (20 unless set, 1800 for the long one) says how long. Needs root for the mount.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

#[path = "child/numbered.rs"]
mod numbered;

mod common;

use common::{
    Daemon, Dice, LATER, Setup, helper, is_root, passwd, read_log, rotated, signal, skip, wait_for,
};
use nix::{mount, sched, sys::signal::Signal};
use numbered::{Mode, line};
use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

const SERVICES: usize = 50;
/// Bytes that each of them writes in a second, and the size at which its files are rotated.
const RATE: u64 = 100_000;
/// Of the file system.
const ROOM: &str = "192m";

/// The manager has a user of its own, as where keepd is installed: what the host grants root of pipes is taken by
/// those of the services.
const DAEMON: &str = "user = \"daemon\"\nrestart-budget = { starts = 1000, within = \"1m\" }";

/// What has been read of one log.
struct Audit {
    name: String,
    which: usize,
    mode: Mode,
    format: &'static str,
    dir: PathBuf,
    /// Lines accounted for, and how many of them were dropped.
    number: u64,
    dropped: u64,
    files: u64,
    /// The file that was read last.
    last: String,
}

impl Audit {
    /// Reads and removes what is rotated but the newest, so that the numbers go on.
    fn rotated(&mut self) {
        let mut all = rotated(&self.dir);
        all.pop();
        // What has another name by now is listed anew.
        let _ = all.iter().all(|file| self.file(file, false));
    }

    /// False: it is not there any more.
    fn file(&mut self, path: &Path, current: bool) -> bool {
        let number = path.file_name().unwrap().to_str().unwrap().trim_end_matches(".gz").to_owned();
        if !current && number[20..] <= *self.last.get(20..).unwrap_or("") {
            // It was being compressed when its original was removed.
            let _ = fs::remove_file(path);
            return true;
        }
        let sequence = |name: &str| name.get(20..26).map_or(0, |n| n.parse::<u64>().unwrap());
        if !current && sequence(&number) > sequence(&self.last) + 1 {
            // A folder that is listed while a file in it gets another name may show neither name.
            return false;
        }
        let Some(text) = read_log(path) else { return false };
        for found in text.split_inclusive('\n') {
            assert!(found.ends_with('\n'), "{path:?} ends within a line: {found:?}");
            self.line(path, found);
        }
        if !current {
            let _ = fs::remove_file(path);
            let _ = fs::remove_file(format!("{}.gz", path.display()));
            (self.last, self.files) = (number, self.files + 1);
        }
        true
    }

    fn line(&mut self, path: &Path, found: &str) {
        let found = match self.format {
            "timestamp" => found.split_once("Z ").unwrap_or_else(|| panic!("{path:?}: {found:?}")).1,
            _ => found,
        };
        let Some(told) = found.strip_prefix("keepd: dropped ") else {
            let (wanted, number) = (line(self.mode, self.number), self.number);
            let (same, len) = (found == wanted, (found.len(), wanted.len()));
            let (head, tail) = (&found[..found.len().min(40)], &found[found.len().saturating_sub(40)..]);
            assert!(same, "{path:?}: line {number} is not as written: {head:?}...{tail:?}, {len:?} bytes");
            self.number += 1;
            return;
        };
        let (lines, bytes) = told.split_once(" lines (").unwrap();
        let after = self.number + lines.parse::<u64>().unwrap();
        let missing: usize = (self.number..after).map(|n| line(self.mode, n).len()).sum();
        assert_eq!(bytes, format!("{missing} bytes) here\n"), "{path:?}: after line {}", self.number);
        self.dropped += after - self.number;
        self.number = after;
    }

    /// All that is there when nothing is written any more.
    fn end(&mut self) {
        wait_for(&format!("each rotated file of {}", self.dir.display()), LATER, || {
            rotated(&self.dir).iter().all(|file| self.file(file, false)).then_some(())
        });
        self.file(&self.dir.join("current"), true);
    }
}

fn mount_at(place: &Path, (uid, gid): (u32, u32)) -> bool {
    let private = mount::MsFlags::MS_REC | mount::MsFlags::MS_PRIVATE;
    let options = format!("size={ROOM},mode=0755,uid={uid},gid={gid}");
    sched::unshare(sched::CloneFlags::CLONE_NEWNS)
        .and_then(|()| mount::mount(None::<&str>, "/", None::<&str>, private, None::<&str>))
        .and_then(|()| {
            mount::mount(Some("none"), place, Some("tmpfs"), mount::MsFlags::empty(), Some(&*options))
        })
        .is_ok()
}

/// Takes all the room that there is.
fn fill(ballast: &Path) {
    let mut file = fs::OpenOptions::new().create(true).append(true).open(ballast).unwrap();
    for size in [1 << 20, 4096] {
        let zeros = vec![0; size];
        while file.write_all(&zeros).is_ok() {}
    }
}

fn services(folder: &Path) -> (String, Vec<Audit>) {
    // keepd makes no room: what is rotated stays until it has been looked at.
    let text = "[logs]\nmax-total = \"100%\"\nkeep-free = 0\n";
    let (mut text, mut audits) = (text.to_owned(), Vec::new());
    for n in 0..SERVICES {
        let mode = Mode::ALL[n % Mode::ALL.len()];
        let format = if n % 5 == 1 { "timestamp" } else { "raw" };
        let compress = if n % 3 == 0 { "gzip" } else { "none" };
        let (name, child) = (format!("s{n}"), helper());
        write!(
            text,
            "[service.{name}]\ncommand = [\"{}\", \"numbered\", \"{}\", \"{RATE}\", \"count.{name}\"]\n\
             restart = \"never\"\nstop-timeout = \"1m\"\n\
             logs = {{ max-size = {RATE}, keep = 1000000, compress = \"{compress}\", format = \"{format}\", \
             stderr = \"separate\" }}\n",
            child.display(),
            mode.word()
        )
        .unwrap();
        let outputs = if mode == Mode::Both { 2 } else { 1 };
        for which in 0..outputs {
            let dir = folder.join(&name);
            let dir = if which == 0 { dir } else { dir.join("stderr") };
            let (name, last) = (name.clone(), String::new());
            audits.push(Audit { name, which, mode, format, dir, number: 0, dropped: 0, files: 0, last });
        }
    }
    (text, audits)
}

/// Kills, fills and frees until the time is over; how often it did.
fn torment(d: &Daemon, audits: &mut [Audit], length: Duration) -> (u64, u64) {
    let ballast = d.path().join("log").join(".ballast");
    // So long, so often: a minute each five minutes of the long one.
    let (full, every) =
        (length.mul_f64(0.4).min(Duration::from_secs(60)), length.min(Duration::from_secs(300)));
    let (mut dice, begin) = (Dice(0x50a1_2b3c_4d5e_6f70), Instant::now());
    let (mut kills, mut fills, mut next_kill) = (0, 0, Duration::ZERO);
    while begin.elapsed() < length {
        let now = begin.elapsed();
        let phase = Duration::from_nanos((now.as_nanos() % every.as_nanos()) as u64);
        // In the middle of each stretch, so that it ends with room.
        let is_full = phase > every.mul_f64(0.25) && phase < every.mul_f64(0.25) + full;
        if is_full {
            fills += u64::from(!ballast.exists());
            fill(&ballast);
        } else if ballast.exists() {
            fs::remove_file(&ballast).unwrap();
        }
        if now > next_kill
            && let Some(manager) = d.find_manager()
        {
            signal(manager, Signal::SIGKILL);
            kills += 1;
            next_kill = now + Duration::from_millis(dice.below(3_000));
        }
        audits.iter_mut().for_each(Audit::rotated);
    }
    let _ = fs::remove_file(&ballast);
    (kills, fills)
}

#[test]
fn every_line_is_accounted_for() {
    let (true, Some(user)) = (is_root(), passwd("daemon")) else {
        return skip("needs root to mount a file system, and the user daemon");
    };
    let seconds = std::env::var("KEEPD_SOAK_SECONDS").map_or(20, |n| n.parse().unwrap());
    let mut d = Setup { daemon: DAEMON, ..Setup::default() }.prepare();
    let folder = d.path().join("log");
    if !mount_at(&folder, user) {
        return skip("needs to be allowed to mount a file system");
    }
    let (text, mut audits) = services(&folder);
    d.write_config(&text);
    d.launch();
    d.await_api();
    for n in 0..SERVICES {
        d.wait_running(&format!("s{n}"));
    }

    let (kills, fills) = torment(&d, &mut audits, Duration::from_secs(seconds));

    wait_for("an answer", LATER, || d.try_service("s0"));
    let names: BTreeSet<String> = audits.iter().map(|a| a.name.clone()).collect();
    let mut stop = vec!["stop"];
    stop.extend(names.iter().map(String::as_str));
    d.ctl_ok(&stop);
    let (mut lines, mut dropped, mut files) = (0, 0, 0);
    for audit in &mut audits {
        let produced: u64 = d.lines(&format!("count.{}", audit.name))[audit.which].parse().unwrap();
        wait_for("the output is written", LATER, || {
            let s = d.try_service(&audit.name)?;
            (s["log"]["trouble"].is_null() && s["state"] == "stopped").then_some(())
        });
        audit.end();
        assert_eq!(audit.number, produced, "{:?}: the last lines are missing", audit.dir);
        (lines, dropped, files) = (lines + produced, dropped + audit.dropped, files + audit.files);
    }
    eprintln!(
        "{seconds} s, {kills} kills, {fills} times full, {lines} lines, {dropped} dropped, {files} files"
    );
    assert!(kills > seconds / 10 && fills > 0 && dropped > 0 && files > seconds * SERVICES as u64 / 10);
    d.shutdown();
}
