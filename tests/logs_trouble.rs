//! What the log engine does when its files cannot be written: full, failing, read-only, hanging file systems,
//! folders that others replace, and output that is no text. Needs root for the mounts.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod engine;

use engine::{LIMIT, Rig, cut, files, line, lines, pipe, spec, text, wait_until};
use keepd::{
    logs::Report,
    plan::{LogFormat, LogSpec, Name, OnFull, RunId},
};
use nix::{
    fcntl::{AT_FDCWD, RenameFlags, renameat2},
    mount, sched,
};
use std::{
    fs,
    io::Write,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    thread,
    time::Instant,
};

fn run(program: &str, args: &[&str]) -> bool {
    Command::new(program).args(args).output().is_ok_and(|done| done.status.success())
}

/// From here on this thread, and those that it starts, have mounts of their own. False where that is not allowed.
fn own_mounts(test: &str) -> bool {
    let private = mount::MsFlags::MS_REC | mount::MsFlags::MS_PRIVATE;
    let done = sched::unshare(sched::CloneFlags::CLONE_NEWNS)
        .and_then(|()| mount::mount(None::<&str>, "/", None::<&str>, private, None::<&str>));
    if let Err(e) = &done {
        eprintln!("SKIPPED {test}: cannot have mounts of its own: {e}; run the tests as root");
    }
    done.is_ok()
}

fn tmpfs(at: &Path, size: &str) {
    fs::create_dir_all(at).unwrap();
    let options = format!("size={size}");
    mount::mount(Some("none"), at, Some("tmpfs"), mount::MsFlags::empty(), Some(&*options)).unwrap();
}

/// An ext4 file system that can be made to hang; thawed and unmounted at the end, whatever happens.
struct Disk {
    at: PathBuf,
    frozen: bool,
}

impl Disk {
    /// `None` where the host has no loop devices.
    fn new(folder: &Path, at: &Path, test: &str) -> Option<Disk> {
        let image = folder.join("image");
        fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
        fs::create_dir_all(at).unwrap();
        let (file, place) = (image.to_str().unwrap(), at.to_str().unwrap());
        let made = run("mkfs.ext4", &["-q", "-F", file]) && run("mount", &["-o", "loop", file, place]);
        if !made {
            eprintln!("SKIPPED {test}: cannot mount an ext4 image");
        }
        made.then(|| Disk { at: at.into(), frozen: false })
    }

    fn freeze(&mut self) {
        self.frozen = true;
        assert!(run("fsfreeze", &["--freeze", self.at.to_str().unwrap()]));
    }

    fn thaw(&mut self) {
        if std::mem::take(&mut self.frozen) {
            assert!(run("fsfreeze", &["--unfreeze", self.at.to_str().unwrap()]));
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.thaw();
        let _ = mount::umount2(&self.at, mount::MntFlags::MNT_DETACH);
    }
}

fn timed(spec: LogSpec) -> LogSpec {
    LogSpec { format: LogFormat::Timestamp, ..spec }
}

/// Messages of timestamped lines.
fn messages(text: &str) -> String {
    text.lines().map(|l| l.split_once("Z ").unwrap_or_else(|| panic!("{l:?}")).1.to_owned() + "\n").collect()
}

/// Matrix row 11, stories 37, 40, 53.
#[test]
fn a_write_that_hangs_holds_neither_its_service_nor_others() {
    if !own_mounts("a_write_that_hangs_holds_neither_its_service_nor_others") {
        return;
    }
    let rig = Rig::new();
    let Some(mut disk) = Disk::new(rig.folder.path(), &rig.dir("web"), "a_write_that_hangs") else { return };
    let spec = LogSpec { dir: rig.dir("web").join("log"), ..rig.spec("web", 1 << 30) };
    let mut web = rig.attach("web", 1, &spec);
    web.write_all(line(0).as_bytes()).unwrap();
    rig.written("web", line(0).len() as u64);
    disk.freeze();
    // Twenty times what pipe and stage hold: this ends only because the oldest lines are dropped.
    let written = lines(1..400_000);
    web.write_all(written.as_bytes()).unwrap();
    let message = rig.in_trouble("web");
    assert!(message.contains("does not answer"), "{message}");
    // Another file system is written, and runs that end on the frozen one keep nobody from starting.
    let mut good = rig.attach("good", 2, &rig.spec("good", 1 << 20));
    good.write_all(b"fine\n").unwrap();
    rig.finish(2);
    assert_eq!(text(&rig.dir("good")), "fine\n");
    let mut next = rig.attach("web", 3, &spec);
    next.write_all(b"the next run\n").unwrap();
    disk.thaw();
    rig.recovered("web");
    drop((web, next));
    rig.finish(1);
    rig.finish(3);
    let all = format!("{}{written}the next run\n", line(0));
    let log = text(&spec.dir);
    let (lost_lines, lost_bytes) = cut(&log, &all);
    assert!(lost_lines > 0);
    let totals = rig.totals("web");
    assert_eq!(totals, (all.len() as u64, all.len() as u64 - lost_bytes, lost_bytes, lost_lines));
    for found in log.lines().filter(|l| !l.starts_with("keepd: ") && *l != "the next run") {
        let number = found.split(' ').next().unwrap().parse().unwrap();
        assert_eq!(format!("{found}\n"), line(number), "a torn line");
    }
}

#[test]
fn a_service_that_asked_for_it_waits_for_a_write_that_hangs() {
    if !own_mounts("a_service_that_asked_for_it_waits_for_a_write_that_hangs") {
        return;
    }
    let rig = Rig::new();
    let Some(mut disk) = Disk::new(rig.folder.path(), &rig.dir("web"), "a_service_that_asked") else {
        return;
    };
    let dir = rig.dir("web").join("log");
    let mut web = rig.attach("web", 1, &LogSpec { on_full: OnFull::Block, ..spec(&dir, 1 << 30) });
    web.write_all(line(0).as_bytes()).unwrap();
    rig.written("web", line(0).len() as u64);
    disk.freeze();
    let done = Arc::new(AtomicBool::new(false));
    let writer = thread::spawn({
        let done = done.clone();
        move || {
            web.write_all(lines(1..100_000).as_bytes()).unwrap();
            done.store(true, SeqCst);
        }
    });
    rig.in_trouble("web");
    assert!(!done.load(SeqCst), "it has not waited");
    disk.thaw();
    writer.join().unwrap();
    rig.finish(1);
    assert!(text(&dir) == lines(0..100_000));
    assert_eq!(rig.totals("web").2, 0);
}

/// Matrix rows 7 and 8, stories 36, 45, 52.
#[test]
fn a_disk_that_is_full_at_any_byte_tears_and_loses_nothing() {
    if !own_mounts("a_disk_that_is_full_at_any_byte_tears_and_loses_nothing") {
        return;
    }
    let rig = Rig::new();
    let (written, mut cases) = (lines(0..300), Vec::new());
    for offset in (0..4096).step_by(331) {
        for format in [LogFormat::Raw, LogFormat::Timestamp, LogFormat::Json] {
            let run = cases.len() as u64;
            let name = format!("s{run}");
            tmpfs(&rig.dir(&name), "16k");
            let dir = rig.dir(&name).join("log");
            fs::create_dir(&dir).unwrap();
            // The first page ends within some line of ours, two are taken by somebody else.
            fs::write(dir.join("current"), "x".repeat(offset) + "\n").unwrap();
            fs::write(rig.dir(&name).join("ballast"), vec![0; 2 * 4096]).unwrap();
            let mut input = rig.attach(&name, run, &LogSpec { format, ..spec(&dir, 1 << 20) });
            input.write_all(written.as_bytes()).unwrap();
            cases.push((run, name, dir, offset, format));
        }
    }
    let trouble = |name: &str| rig.engine.counters(&Name::new(name)).trouble();
    for (_, name, ..) in &cases {
        wait_until("trouble", || trouble(name).is_some());
        let message = trouble(name).unwrap();
        assert!(message.contains("No space left on device"), "{message}");
        let more = mount::MsFlags::MS_REMOUNT;
        mount::mount(None::<&str>, &rig.dir(name), None::<&str>, more, Some("size=1m")).unwrap();
    }
    for (run, name, dir, offset, format) in cases {
        wait_until("recovery", || trouble(&name).is_none());
        rig.finish(run);
        let log = text(&dir);
        let log = log[offset..].strip_prefix('\n').unwrap();
        let json = |l| serde_json::from_str::<serde_json::Value>(l).unwrap();
        let got = match format {
            LogFormat::Raw => log.to_owned(),
            LogFormat::Timestamp => messages(log),
            LogFormat::Json => {
                log.lines().map(|l| json(l)["message"].as_str().unwrap().to_owned() + "\n").collect()
            }
        };
        assert!(got == written, "{format:?} at {offset}");
        assert_eq!(rig.totals(&name), (written.len() as u64, written.len() as u64, 0, 0));
    }
}

/// Matrix row 10, story 36.
#[test]
fn a_file_that_may_not_be_changed_is_written_again_when_it_may() {
    let rig = Rig::new();
    let mut web = rig.attach("web", 1, &rig.spec("web", 1 << 30));
    web.write_all(line(0).as_bytes()).unwrap();
    rig.written("web", line(0).len() as u64);
    let current = rig.dir("web").join("current");
    if !run("chattr", &["+i", current.to_str().unwrap()]) {
        eprintln!("SKIPPED a_file_that_may_not_be_changed_is_written_again_when_it_may: no chattr +i here");
        return;
    }
    let written = lines(1..50_000);
    web.write_all(written.as_bytes()).unwrap();
    let message = rig.in_trouble("web");
    // Its neighbour on the same file system is not touched by it.
    let mut good = rig.attach("good", 2, &rig.spec("good", 1 << 20));
    good.write_all(b"fine\n").unwrap();
    rig.finish(2);
    assert!(run("chattr", &["-i", current.to_str().unwrap()]));
    assert!(message.contains("Operation not permitted"), "{message}");
    rig.recovered("web");
    drop(web);
    rig.finish(1);
    let (read, kept, dropped, _) = rig.totals("web");
    let all = line(0) + &written;
    assert_eq!((read, kept + dropped), (all.len() as u64, all.len() as u64));
    let log = text(&rig.dir("web"));
    if dropped > 0 {
        assert_eq!(cut(&log, &all).1, dropped);
    } else {
        assert!(log == all);
    }
}

/// Matrix row 13, story 35.
#[test]
fn a_folder_that_is_replaced_by_a_link_again_and_again_leads_nowhere() {
    let rig = Rig::new();
    let (dir, away, canary) = (rig.dir("web"), rig.dir("away"), rig.dir("canary"));
    fs::create_dir(&canary).unwrap();
    fs::write(canary.join("current"), "canary\n").unwrap();
    fs::create_dir(&dir).unwrap();
    symlink(&canary, &away).unwrap();
    let mut input = rig.attach("web", 1, &rig.spec("web", 2_000));
    let enough = Arc::new(AtomicBool::new(false));
    let swapper = thread::spawn({
        let (dir, away, enough) = (dir.clone(), away.clone(), enough.clone());
        move || {
            let mut swaps = 0;
            // In one step, so that the engine never finds nothing there, and makes a folder in our way.
            while !enough.load(SeqCst) || swaps % 2 == 1 {
                renameat2(AT_FDCWD, &dir, AT_FDCWD, &away, RenameFlags::RENAME_EXCHANGE).unwrap();
                thread::yield_now();
                swaps += 1;
            }
            let current = fs::read_to_string(canary.join("current")).unwrap();
            (swaps, current, fs::read_dir(&canary).unwrap().count())
        }
    });
    let written = lines(0..20_000);
    written.as_bytes().chunks(5_000).for_each(|chunk| input.write_all(chunk).unwrap());
    drop(input);
    rig.engine.finish(RunId(1));
    rig.until("the end of the run", |r| *r == Report::Finished { run: RunId(1) });
    enough.store(true, SeqCst);
    let (swaps, current, count) = swapper.join().unwrap();
    assert_eq!((current.as_str(), count), ("canary\n", 1), "something was written through the link");
    assert!(swaps > 10, "only {swaps} swaps");
    // What was on its way when the folder was gone comes when it is back.
    wait_until("everything is written or counted", || {
        let (read, kept, dropped, _) = rig.totals("web");
        (read, kept + dropped) == (written.len() as u64, written.len() as u64)
    });
}

/// Matrix row 33, story 44.
#[test]
fn bytes_that_are_no_text_are_kept_as_they_came() {
    let rig = Rig::new();
    let mut input = rig.attach("web", 1, &rig.spec("web", 10_000));
    let mut expected = Vec::new();
    for n in 0..60_000u32 {
        let byte = [n.to_le_bytes()[0] ^ (n >> 5).to_le_bytes()[0], 0, 0xff][n as usize % 3];
        expected.push(byte);
        // One at a time.
        input.write_all(&[byte]).unwrap();
    }
    drop(input);
    rig.finish(1);
    let found: Vec<u8> = files(&rig.dir("web")).iter().flat_map(|f| fs::read(f).unwrap()).collect();
    assert!(found == expected);
}

#[test]
fn lines_get_their_time_and_long_ones_are_split() {
    let rig = Rig::new();
    let spec = LogSpec { max_line: 1000, ..timed(rig.spec("web", 1 << 20)) };
    let mut input = rig.attach("web", 1, &spec);
    // The beginning of a line waits for its end.
    input.write_all(b"first ").unwrap();
    input.write_all(b"line\nsecond\n").unwrap();
    input.write_all(&[b'x'; 2500]).unwrap();
    input.write_all(b"\nno end").unwrap();
    drop(input);
    rig.finish(1);
    let log = text(&rig.dir("web"));
    let x = "x".repeat(1000);
    let long = format!("{x} [line continues]\n{x} [line continues]\n{}\n", &x[..500]);
    assert_eq!(messages(&log), format!("first line\nsecond\n{long}no end\n"));
    for found in log.lines() {
        let stamp = found.split_once(' ').unwrap().0;
        assert!(stamp.len() == 27 && stamp.parse::<jiff::Timestamp>().is_ok(), "{found}");
    }
    assert_eq!(rig.totals("web").0, 2525);
}

#[test]
fn the_beginning_of_a_line_costs_nothing_while_its_end_does_not_come() {
    let rig = Rig::new();
    let mut input = rig.attach("web", 1, &timed(rig.spec("web", 1 << 20)));
    input.write_all(b"whole\nlogin: ").unwrap();
    rig.written("web", 6);
    let busy = Rig::new();
    let mut stream = busy.attach("busy", 1, &LogSpec { keep: 0, ..busy.spec("busy", 1 << 20) });
    let mut moved = 0;
    let quiet = (0..100).any(|_| {
        let before = rig.engine.turns();
        for _ in 0..100 {
            stream.write_all(&[b'\n'; 1 << 16]).unwrap();
            moved += 1 << 16;
        }
        busy.written("busy", moved);
        rig.engine.turns() == before
    });
    assert!(quiet, "it wakes up all the time");
    input.write_all(b"root\n").unwrap();
    rig.written("web", 6 + 12);
    assert_eq!(messages(&text(&rig.dir("web"))), "whole\nlogin: root\n");
}

#[test]
fn rotated_files_of_lines_in_another_form_end_at_line_ends_too() {
    let rig = Rig::new();
    let mut input = rig.attach("web", 1, &timed(rig.spec("web", 1000)));
    let written = lines(0..5000);
    input.write_all(written.as_bytes()).unwrap();
    drop(input);
    rig.finish(1);
    let files = files(&rig.dir("web"));
    assert!(files.len() > 100);
    for file in &files[..files.len() - 1] {
        let text = fs::read_to_string(file).unwrap();
        assert!(text.ends_with('\n') && text.len() >= 1000 && text.len() < 1200, "{file:?}: {}", text.len());
    }
    assert!(messages(&text(&rig.dir("web"))) == written);
}

/// Story 39.
#[test]
fn both_pipes_are_read() {
    let rig = Rig::new();
    let ((out, mut stdout), (err, mut stderr)) = (pipe(), pipe());
    rig.engine.attach(&Name::new("web"), RunId(1), &rig.spec("web", 1 << 30), Some(out), Some(err));
    let block = lines(0..50_000);
    stderr.write_all(block.as_bytes()).unwrap();
    stdout.write_all(block.as_bytes()).unwrap();
    drop((stdout, stderr));
    rig.finish(1);
    assert!(text(&rig.dir("web")) == block && text(&rig.dir("web").join("stderr")) == block);
}

/// Matrix row 34.
#[test]
fn none_of_many_busy_services_starves() {
    let rig = Rig::new();
    let written = Arc::new(AtomicU64::new(0));
    let enough = Arc::new(AtomicBool::new(false));
    // Two that never pause, and fifty that want little.
    let mut flood = Vec::new();
    for n in 0..2 {
        let name = format!("flood{n}");
        let mut input = rig.attach(&name, 1000 + n, &LogSpec { keep: 0, ..rig.spec(&name, 1 << 20) });
        let (written, enough) = (written.clone(), enough.clone());
        flood.push(thread::spawn(move || {
            let block = vec![b'\n'; 1 << 16];
            while !enough.load(SeqCst) {
                input.write_all(&block).unwrap();
                written.fetch_add(block.len() as u64, SeqCst);
            }
        }));
    }
    let block = lines(0..200);
    let mut small: Vec<_> = (0..50)
        .map(|n| rig.attach(&format!("small{n}"), n, &rig.spec(&format!("small{n}"), 1 << 20)))
        .collect();
    for round in 1..=10 {
        small.iter_mut().for_each(|input| input.write_all(block.as_bytes()).unwrap());
        let (before, deadline) = (written.load(SeqCst), Instant::now() + LIMIT);
        for n in 0..50 {
            let counters = rig.engine.counters(&Name::new(&format!("small{n}")));
            wait_until("a small service is written", || {
                let mut t = [0; 4];
                let [a, b, c, d] = &mut t;
                counters.fill(a, b, c, d);
                t[1] >= round * block.len() as u64
            });
        }
        assert!(Instant::now() < deadline, "{} bytes of others later", written.load(SeqCst) - before);
    }
    enough.store(true, SeqCst);
    flood.into_iter().for_each(|thread| thread.join().unwrap());
    assert_eq!(rig.totals("flood0").2 + rig.totals("flood1").2, 0, "something was dropped");
    small.clear();
    for n in 0..50 {
        rig.finish(n);
        assert!(text(&rig.dir(&format!("small{n}"))) == block.repeat(10));
    }
}
