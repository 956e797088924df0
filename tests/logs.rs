//! The log engine against the real kernel: pipes, files, full disks, deleted folders, and SIGKILL.

// Processes are killed at moments that are the input of a test; nothing else here waits for time to pass.
#![allow(clippy::disallowed_methods)]
#![allow(clippy::unwrap_used)]

use keepd::{
    logs::{Engine, From, Reader, Report, rotate},
    plan::{LogSpec, Name, Rotate, RunId},
    sys::pipe,
};
use std::{
    fmt::Write as _,
    fs::{self, File},
    io::{PipeWriter, Write},
    os::fd::{AsFd, OwnedFd},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(60);

/// An engine, what it reported, and a folder for its files.
struct Rig {
    engine: Engine,
    reports: mpsc::Receiver<Report>,
    folder: TempDir,
}

impl Rig {
    fn new() -> Rig {
        let (send, reports) = mpsc::channel();
        let engine = Engine::start(move |report| drop(send.send(report))).unwrap();
        Rig { engine, reports, folder: tempfile::tempdir().unwrap() }
    }

    fn dir(&self, service: &str) -> PathBuf {
        self.folder.path().join(service)
    }

    fn spec(&self, service: &str, max_size: u64) -> LogSpec {
        spec(self.dir(service), max_size)
    }

    fn attach(&self, service: &str, run: u64, spec: &LogSpec) -> PipeWriter {
        let (output, input) = pipe();
        self.engine.attach(&Name::new(service), RunId(run), spec, Some(output), None);
        input
    }

    /// Waits for a report of this kind, and passes over others.
    fn until(&self, what: &str, wanted: impl Fn(&Report) -> bool) -> Report {
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

    fn finish(&self, run: u64) {
        self.engine.finish(RunId(run));
        self.until("the end of the run", |r| *r == Report::Finished { run: RunId(run) });
    }

    fn in_trouble(&self, service: &str) -> String {
        let report = self.until(
            "trouble",
            |r| matches!(r, Report::Trouble { service: s, message: Some(_) } if s.as_str() == service),
        );
        let Report::Trouble { message: Some(message), .. } = report else { unreachable!() };
        message
    }

    fn recovered(&self, service: &str) {
        self.until(
            "recovery",
            |r| matches!(r, Report::Trouble { service: s, message: None } if s.as_str() == service),
        );
    }

    /// (in, written, dropped, lines dropped)
    fn totals(&self, service: &str) -> (u64, u64, u64, u64) {
        let mut t = (0, 0, 0, 0);
        self.engine.counters(&Name::new(service)).fill(&mut t.0, &mut t.1, &mut t.2, &mut t.3);
        t
    }

    fn written(&self, service: &str, bytes: u64) {
        wait_until("bytes are written", || self.totals(service).1 >= bytes);
    }
}

/// Rotated by size only, and neither pruned nor compressed.
fn spec(dir: PathBuf, max_size: u64) -> LogSpec {
    LogSpec {
        dir,
        max_size,
        rotate: Rotate::Off,
        keep: 1_000_000,
        keep_for: None,
        max_total: None,
        compress: false,
    }
}

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !done() {
        assert!(Instant::now() < deadline, "still not: {what}");
        thread::yield_now();
    }
}

/// A pipe as the keeper makes it: 1 MiB, non-blocking for the reader only.
fn pipe() -> (OwnedFd, PipeWriter) {
    let (output, input) = small_pipe();
    pipe::set_capacity(input.as_fd(), 1 << 20).unwrap();
    (output, input)
}

/// An ordinary user may not have many large ones.
fn small_pipe() -> (OwnedFd, PipeWriter) {
    let (output, input) = std::io::pipe().unwrap();
    let output = OwnedFd::from(output);
    nix::fcntl::fcntl(&output, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).unwrap();
    (output, input)
}

/// Every rotated file in order, then `current`.
fn files(dir: &Path) -> Vec<PathBuf> {
    let names = fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap());
    let mut rotated: Vec<_> = names.filter_map(|n| Some((rotate::sequence("", &n)?, n))).collect();
    rotated.sort();
    let mut files: Vec<_> = rotated.into_iter().map(|(_, n)| dir.join(n)).collect();
    files.extend(Some(dir.join("current")).filter(|f| f.exists()));
    files
}

fn text(dir: &Path) -> String {
    String::from_utf8(files(dir).iter().flat_map(|f| fs::read(f).unwrap()).collect()).unwrap()
}

/// Line number `n`: its length depends on `n`, so that a shifted or torn one is noticed.
fn line(n: u64) -> String {
    let padding = "................................................................................";
    format!("{n:012} {}\n", &padding[..(n * 31 % 80) as usize])
}

fn lines(range: std::ops::Range<u64>) -> String {
    range.fold(String::new(), |mut text, n| {
        let _ = write!(text, "{}", line(n));
        text
    })
}

#[test]
fn runs_keep_their_order() {
    let rig = Rig::new();
    let spec = rig.spec("web", 1 << 20);
    let mut first = rig.attach("web", 1, &spec);
    let mut second = rig.attach("web", 2, &spec);
    second.write_all(b"second\n").unwrap();
    first.write_all(b"first\n").unwrap();
    rig.finish(1);
    drop(second);
    rig.finish(2);
    assert_eq!(text(&rig.dir("web")), "first\nsecond\n");
    assert_eq!(rig.totals("web"), (13, 13, 0, 0));
}

#[test]
fn a_run_is_finished_once_and_only_when_told() {
    let rig = Rig::new();
    rig.finish(7);
    let spec = rig.spec("web", 1 << 20);
    let (out, mut input) = pipe();
    let (err, error) = pipe();
    rig.engine.attach(&Name::new("web"), RunId(1), &spec, Some(out), Some(err));
    input.write_all(b"bye\n").unwrap();
    drop((input, error));
    rig.written("web", 4);
    // Asked in order, so a report for run 1 would come before this one.
    rig.engine.finish(RunId(8));
    assert_eq!(rig.reports.recv_timeout(LIMIT), Ok(Report::Finished { run: RunId(8) }));
    rig.engine.finish(RunId(1));
    assert_eq!(rig.reports.recv_timeout(LIMIT), Ok(Report::Finished { run: RunId(1) }));
    let Rig { engine, reports, .. } = rig;
    engine.stop();
    assert_eq!(reports.try_recv(), Err(mpsc::TryRecvError::Disconnected));
}

#[test]
fn a_leftover_that_holds_the_pipe_does_not_hold_the_run() {
    let rig = Rig::new();
    let spec = rig.spec("web", 1 << 20);
    let mut leftover = rig.attach("web", 1, &spec);
    leftover.write_all(b"last words\n").unwrap();
    rig.finish(1);
    let mut next = rig.attach("web", 2, &spec);
    next.write_all(b"new run\n").unwrap();
    rig.finish(2);
    assert_eq!(text(&rig.dir("web")), "last words\nnew run\n");
    assert!(leftover.write_all(b"nobody listens\n").is_err());
}

#[test]
fn stderr_can_have_a_file_of_its_own() {
    let rig = Rig::new();
    let ((out, mut stdout), (err, mut stderr)) = (pipe(), pipe());
    rig.engine.attach(&Name::new("web"), RunId(1), &rig.spec("web", 1 << 20), Some(out), Some(err));
    stdout.write_all(b"out\n").unwrap();
    stderr.write_all(b"err\n").unwrap();
    drop((stdout, stderr));
    rig.finish(1);
    assert_eq!(text(&rig.dir("web")), "out\n");
    assert_eq!(text(&rig.dir("web").join("stderr")), "err\n");
}

#[test]
fn files_end_at_line_ends_over_thousands_of_rotations() {
    let rig = Rig::new();
    let mut input = rig.attach("web", 1, &rig.spec("web", 300));
    let expected = lines(0..20_000);
    input.write_all(expected.as_bytes()).unwrap();
    drop(input);
    rig.finish(1);
    let files = files(&rig.dir("web"));
    assert!(files.len() > 3_000, "{} files", files.len());
    let (_, rotated) = files.split_last().unwrap();
    for file in rotated {
        let text = fs::read_to_string(file).unwrap();
        assert!(text.ends_with('\n'), "{file:?} is torn");
        let before_last = text[..text.len() - 1].rfind('\n').map_or(0, |i| i + 1);
        assert!(text.len() >= 300 && before_last < 300, "{file:?} has {} bytes", text.len());
    }
    assert!(text(&rig.dir("web")) == expected, "the files together are not what was written");
}

#[test]
fn only_so_many_files_and_bytes_are_kept() {
    let rig = Rig::new();
    for (service, keep, max_total, most) in
        [("few", 3, None, 3), ("small", 100, Some(2000), 4), ("one", 0, None, 0)]
    {
        let spec = LogSpec { keep, max_total, ..rig.spec(service, 400) };
        let mut input = rig.attach(service, 1, &spec);
        fs::create_dir(rig.dir(service)).unwrap();
        fs::write(rig.dir(service).join("notes.txt"), "mine").unwrap();
        input.write_all(lines(0..1000).as_bytes()).unwrap();
        input.write_all(line(1000).as_bytes()).unwrap();
        drop(input);
        rig.finish(1);
        let rotated = || files(&rig.dir(service)).iter().filter(|f| !f.ends_with("current")).count();
        wait_until("the excess is gone", || rotated() <= most);
        let files = files(&rig.dir(service));
        assert!(rotated() + 1 >= most, "{service}: {files:?}");
        let bytes: u64 = files.iter().map(|f| f.metadata().unwrap().len()).sum();
        assert!(max_total.is_none_or(|most| bytes <= most), "{service}: {bytes} bytes");
        assert!(
            lines(0..1001).ends_with(&text(&rig.dir(service))),
            "{service}: what is left is not the newest"
        );
        assert_eq!(fs::read_to_string(rig.dir(service).join("notes.txt")).unwrap(), "mine");
    }
}

#[test]
fn a_killed_rotation_is_taken_up() {
    let rig = Rig::new();
    // As a kill leaves it: over the limit and not yet renamed; renamed and no new file; within a line.
    let cases: [(&str, &[(&str, &str)]); 3] = [
        ("over", &[("current", "one line that is long\n")]),
        ("gone", &[("2026-11-21T00-00-00.000007.log", "one line that is long\n")]),
        ("within", &[("current", "one line that ")]),
    ];
    for (run, (service, found)) in cases.into_iter().enumerate() {
        fs::create_dir(rig.dir(service)).unwrap();
        for (name, content) in found {
            fs::write(rig.dir(service).join(name), content).unwrap();
        }
        let mut input = rig.attach(service, run as u64, &rig.spec(service, 10));
        let rest = if service == "within" { "is long\nnext\n" } else { "next\n" };
        input.write_all(rest.as_bytes()).unwrap();
        drop(input);
        rig.finish(run as u64);
        let files = files(&rig.dir(service));
        assert_eq!(files.len(), 2, "{service}: {files:?}");
        assert_eq!(fs::read_to_string(&files[0]).unwrap(), "one line that is long\n", "{service}");
        assert_eq!(fs::read_to_string(&files[1]).unwrap(), "next\n", "{service}");
    }
}

#[test]
fn deleted_files_and_folders_come_back() {
    let rig = Rig::new();
    let mut input = rig.attach("web", 1, &rig.spec("web", 1 << 20));
    let current = rig.dir("web").join("current");
    input.write_all(b"one\n").unwrap();
    rig.written("web", 4);
    fs::remove_file(&current).unwrap();
    input.write_all(b"two\n").unwrap();
    rig.written("web", 8);
    assert_eq!(fs::read_to_string(&current).unwrap(), "two\n");
    fs::remove_dir_all(rig.dir("web")).unwrap();
    input.write_all(b"three\n").unwrap();
    rig.written("web", 14);
    assert_eq!(fs::read_to_string(&current).unwrap(), "three\n");
    // Emptied by somebody: no hole of zeros where it was.
    File::options().write(true).open(&current).unwrap().set_len(0).unwrap();
    input.write_all(b"four\n").unwrap();
    rig.written("web", 19);
    assert_eq!(fs::read_to_string(&current).unwrap(), "four\n");
    // Renamed by logrotate, which then asks for a new file.
    fs::rename(&current, rig.dir("web").join("old")).unwrap();
    rig.engine.reopen();
    input.write_all(b"five\n").unwrap();
    rig.written("web", 24);
    assert_eq!(fs::read_to_string(&current).unwrap(), "five\n");
    assert_eq!(fs::read_to_string(rig.dir("web").join("old")).unwrap(), "four\n");
}

#[test]
fn trouble_holds_nothing_but_its_own_service_and_loses_nothing_that_fits() {
    let rig = Rig::new();
    fs::write(rig.dir("bad"), "a file where a folder should be").unwrap();
    let mut bad = rig.attach("bad", 1, &rig.spec("bad", 1 << 20));
    bad.write_all(lines(0..1000).as_bytes()).unwrap();
    let message = rig.in_trouble("bad");
    assert!(message.starts_with("cannot write ") && message.contains("/bad/current"), "{message}");
    let mut good = rig.attach("good", 2, &rig.spec("good", 1 << 20));
    good.write_all(b"fine\n").unwrap();
    rig.finish(2);
    assert_eq!(text(&rig.dir("good")), "fine\n");
    let counters = rig.engine.counters(&Name::new("bad"));
    assert_eq!(counters.trouble(), Some(message));
    fs::remove_file(rig.dir("bad")).unwrap();
    rig.recovered("bad");
    assert_eq!(counters.trouble(), None);
    rig.finish(1);
    assert_eq!(text(&rig.dir("bad")), lines(0..1000));
    assert_eq!(rig.totals("bad").2, 0);
}

/// Checks that `text` is `written` with one piece cut out at line ends and a marker in its place, and
/// returns how many lines and bytes are missing.
fn cut(text: &str, written: &str) -> (u64, u64) {
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

#[test]
fn a_service_does_not_block_and_every_dropped_byte_is_counted() {
    let rig = Rig::new();
    fs::write(rig.dir("web"), "in the way").unwrap();
    let mut input = rig.attach("web", 1, &rig.spec("web", 1 << 30));
    let written = lines(0..100_000);
    // Five times what the pipe holds: this ends only because the oldest is dropped.
    input.write_all(written.as_bytes()).unwrap();
    fs::remove_file(rig.dir("web")).unwrap();
    rig.recovered("web");
    drop(input);
    rig.finish(1);
    let (lines, bytes) = cut(&text(&rig.dir("web")), &written);
    let totals = rig.totals("web");
    assert_eq!(totals, (written.len() as u64, written.len() as u64 - bytes, bytes, lines));
}

#[test]
fn a_finished_run_in_trouble_makes_room_for_the_next() {
    let rig = Rig::new();
    fs::write(rig.dir("web"), "in the way").unwrap();
    let spec = rig.spec("web", 1 << 30);
    let mut first = rig.attach("web", 1, &spec);
    first.write_all(b"dropped\n").unwrap();
    rig.in_trouble("web");
    rig.engine.finish(RunId(1));
    let mut second = rig.attach("web", 2, &spec);
    let written = lines(0..50_000);
    second.write_all(written.as_bytes()).unwrap();
    rig.until("the end of the first run", |r| *r == Report::Finished { run: RunId(1) });
    fs::remove_file(rig.dir("web")).unwrap();
    rig.recovered("web");
    rig.finish(2);
    cut(&text(&rig.dir("web")), &format!("dropped\n{written}"));
}

#[test]
fn a_full_disk_is_survived() {
    use nix::{mount, sched};
    let rig = Rig::new();
    let disk = rig.folder.path().join("disk");
    fs::create_dir(&disk).unwrap();
    // A mount namespace of this thread and of the engine that it starts.
    let private = mount::MsFlags::MS_REC | mount::MsFlags::MS_PRIVATE;
    let mounted = sched::unshare(sched::CloneFlags::CLONE_NEWNS)
        .and_then(|()| mount::mount(None::<&str>, "/", None::<&str>, private, None::<&str>))
        .and_then(|()| {
            let none = mount::MsFlags::empty();
            mount::mount(Some("none"), &disk, Some("tmpfs"), none, Some("size=512k"))
        });
    if let Err(e) = mounted {
        eprintln!("SKIPPED a_full_disk_is_survived: cannot mount a tmpfs: {e}; run the tests as root");
        return;
    }
    let rig = Rig { folder: tempfile::tempdir_in(&disk).unwrap(), ..Rig::new() };
    let ballast = rig.folder.path().join("ballast");
    fs::write(&ballast, vec![0; 400 << 10]).unwrap();
    let mut input = rig.attach("web", 1, &rig.spec("web", 40 << 10));
    let written = lines(0..20_000);
    let half = lines(0..4_000).len();
    // More than the disk has, less than disk and pipe have together.
    input.write_all(&written.as_bytes()[..half]).unwrap();
    let message = rig.in_trouble("web");
    assert!(message.contains("No space left on device"), "{message}");
    input.write_all(&written.as_bytes()[half..]).unwrap();
    wait_until("something is dropped", || rig.totals("web").2 > 0);
    fs::remove_file(&ballast).unwrap();
    // The rest is more than the disk has, so old files have to go; the marker is among what stays.
    rig.engine.update(&Name::new("web"), &LogSpec { keep: 8, ..rig.spec("web", 40 << 10) });
    rig.until("recovery", |r| matches!(r, Report::Trouble { message: None, .. } | Report::Rotated { .. }));
    drop(input);
    rig.engine.finish(RunId(1));
    rig.until("the end of the run", |r| *r == Report::Finished { run: RunId(1) });
    let (read, kept, dropped, _) = rig.totals("web");
    assert_eq!((read, kept + dropped), (written.len() as u64, written.len() as u64));
    let mut left = text(&rig.dir("web"));
    if let Some((_, after)) = left.rsplit_once(" bytes) here\n") {
        left = after.to_owned();
    }
    assert!(written.ends_with(&left) && !left.is_empty(), "what is left is not the end of what was written");
}

#[test]
fn output_without_line_ends_takes_no_memory() {
    let rig = Rig::new();
    let mut input = rig.attach("web", 1, &LogSpec { keep: 2, ..rig.spec("web", 10 << 20) });
    let block = vec![b'x'; 1 << 16];
    let before = resident();
    for _ in 0..1600 {
        input.write_all(&block).unwrap();
    }
    drop(input);
    rig.finish(1);
    let grown = resident().saturating_sub(before);
    assert!(grown < 40 << 20, "grown by {grown} bytes");
    assert_eq!(rig.totals("web").1, 1600 << 16);
    for file in files(&rig.dir("web")) {
        assert!(file.metadata().unwrap().len() <= (11 << 20) + (1 << 16), "{file:?}");
    }
}

fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[test]
fn a_follower_sees_every_byte_over_a_thousand_rotations() {
    let rig = Rig::new();
    let dir = rig.dir("web");
    let mut input = rig.attach("web", 1, &rig.spec("web", 500));
    let mut reader = Reader::open(&dir, From::Start).unwrap();
    let expected = lines(0..15_000);
    let writer = thread::spawn({
        let expected = expected.clone();
        move || expected.as_bytes().chunks(777).for_each(|chunk| input.write_all(chunk).unwrap())
    });
    let (mut seen, mut buf) = (Vec::new(), [0; 4096]);
    let deadline = Instant::now() + LIMIT;
    while seen.len() < expected.len() {
        assert!(Instant::now() < deadline, "only {} of {} bytes", seen.len(), expected.len());
        match reader.read(&mut buf).unwrap() {
            0 => thread::yield_now(),
            n => seen.extend_from_slice(&buf[..n]),
        }
    }
    writer.join().unwrap();
    assert!(seen == expected.as_bytes(), "the follower saw something else");
    assert_eq!(reader.read(&mut buf).unwrap(), 0);
    assert!(files(&dir).len() > 1_000);
}

#[test]
fn silence_costs_nothing() {
    let rig = Rig::new();
    let mut silent = Vec::new();
    for n in 0..50 {
        let (output, input) = small_pipe();
        let name = format!("silent{n}");
        rig.engine.attach(&Name::new(&name), RunId(n), &rig.spec(&name, 1 << 20), Some(output), None);
        silent.push(input);
    }
    let mut input = rig.attach("web", 100, &rig.spec("web", 1 << 20));
    let mut changed = rig.engine.changed(&Name::new("web"));
    input.write_all(b"hello\n").unwrap();
    rig.written("web", 6);
    wait_until("the change is told", || changed.has_changed().unwrap());
    assert_eq!(*changed.borrow_and_update(), 1);
    // What another engine does meanwhile stands for time that passes.
    let busy = Rig::new();
    let block = vec![b'\n'; 1 << 16];
    let mut moved = 0;
    let mut stream = busy.attach("busy", 1, &LogSpec { keep: 0, ..busy.spec("busy", 1 << 20) });
    let quiet = (0..100).any(|_| {
        let before = rig.engine.turns();
        for _ in 0..100 {
            stream.write_all(&block).unwrap();
            moved += block.len() as u64;
        }
        busy.written("busy", moved);
        rig.engine.turns() == before
    });
    assert!(quiet, "an idle engine wakes up all the time");
    assert_eq!(fs::read_dir(rig.folder.path()).unwrap().count(), 1, "silent services have no files");
    drop(silent);
}

#[test]
fn what_is_in_the_pipes_is_written_before_the_end() {
    let Rig { engine, reports, folder } = Rig::new();
    let mut inputs = Vec::new();
    for n in 0..20 {
        let (output, mut input) = pipe();
        input.write_all(lines(0..100).as_bytes()).unwrap();
        let spec = spec(folder.path().join(n.to_string()), 1000);
        engine.attach(&Name::new(&n.to_string()), RunId(n), &spec, Some(output), None);
        inputs.push(input);
    }
    engine.stop();
    assert!(reports.iter().all(|r| matches!(r, Report::Rotated { .. })));
    for n in 0..20 {
        assert_eq!(text(&folder.path().join(n.to_string())), lines(0..100));
    }
}

/// Not a test: the process that `no_line_is_lost_over_sigkills` starts and kills.
#[test]
fn soak_engine() {
    let Ok(dir) = std::env::var("KEEPD_LOG_SOAK_DIR") else { return };
    let output = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let engine = Engine::start(|_| ()).unwrap();
    let spec = spec(dir.into(), 30_000);
    engine.attach(&Name::new("web"), RunId(1), &spec, Some(output), None);
    let (_alive, never) = mpsc::channel::<()>();
    let _ = never.recv();
}

/// Compares what is in the files with what was written, and removes all but the newest rotated file.
#[derive(Default)]
struct Audit {
    number: u64,
    line: Vec<u8>,
    files: u64,
}

impl Audit {
    fn file(&mut self, path: &Path, last: bool) {
        let content = fs::read(path).unwrap();
        for byte in content {
            if self.line.is_empty() {
                self.line = line(self.number).into_bytes();
                self.line.reverse();
                self.number += 1;
            }
            assert_eq!(self.line.pop(), Some(byte), "{path:?}: line {} is not as written", self.number - 1);
        }
        assert!(last || self.line.is_empty(), "{path:?} ends within a line");
        self.files += 1;
    }

    fn rotated(&mut self, dir: &Path, seen: &mut u64) {
        let mut rotated = files(dir);
        rotated.retain(|f| !f.ends_with("current"));
        // The newest stays, so that the numbers go on.
        rotated.pop();
        for file in rotated {
            let number = rotate::sequence("", file.file_name().unwrap().to_str().unwrap()).unwrap();
            assert_eq!(number, *seen + 1, "{file:?} does not follow");
            *seen = number;
            self.file(&file, false);
            fs::remove_file(&file).unwrap();
        }
    }
}

#[test]
fn no_line_is_lost_over_sigkills() {
    let kills: u64 = std::env::var("KEEPD_LOG_KILLS").map_or(60, |n| n.parse().unwrap());
    let folder = tempfile::tempdir().unwrap();
    let dir = folder.path().join("web");
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
    let (mut audit, mut seen) = (Audit::default(), 0);
    let mut random = u64::from(std::process::id()) * 2 + 1;
    eprintln!("seed {random}");
    for _ in 0..kills {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "soak_engine", "--nocapture"])
            .env("KEEPD_LOG_SOAK_DIR", &dir)
            .stdin(Stdio::from(output.try_clone().unwrap()))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        thread::sleep(Duration::from_micros((random >> 33) % 25_000));
        child.kill().unwrap();
        child.wait().unwrap();
        if dir.exists() {
            audit.rotated(&dir, &mut seen);
        }
    }
    enough.store(true, SeqCst);
    let rig = Rig::new();
    let spec = LogSpec { dir: dir.clone(), ..rig.spec("web", 30_000) };
    rig.engine.attach(&Name::new("web"), RunId(1), &spec, Some(output), None);
    writer.join().unwrap();
    rig.finish(1);
    audit.rotated(&dir, &mut seen);
    for file in files(&dir) {
        audit.file(&file, true);
    }
    assert!(audit.line.is_empty(), "the end is missing");
    assert_eq!(audit.number, count.load(SeqCst), "the last lines are missing");
    eprintln!("{kills} kills, {} lines, {} files", audit.number, audit.files);
    assert!(audit.files > kills / 4, "hardly anything was written between the kills");
}
