//! File systems that fail: with an error at any byte, with an error now and then, for good until they are repaired.
//! In the end the file has what was written, in order, nothing torn, nothing doubled.
//!
//! What went wrong with logs elsewhere (stories) and what may (rows of the fault matrix), and the tests that hold it:
//!
//! - 35, row 13 (the log is deleted, renamed, replaced): `deleted_files_and_folders_come_back`,
//!   `a_folder_that_is_replaced_by_a_link_again_and_again_leads_nowhere`
//! - 36, row 10 (one failed write, a read-only file):
//!   `a_file_that_may_not_be_changed_is_written_again_when_it_may`, and here
//! - 37, row 11 (the daemon or the disk hangs): `a_write_that_hangs_holds_neither_its_service_nor_others`
//! - 38, row 9 (a failed read or write ends the log): `errors_of_the_disk_lose_nothing_that_fits_into_the_pipe`
//! - 39 (a pipe that nobody reads): `both_pipes_are_read`
//! - 40, row 7 (a full disk blocks the service): `a_service_does_not_block_and_every_dropped_byte_is_counted`,
//!   `every_line_is_accounted_for`
//! - 41, row 33 (no line end, bytes that are no text): `output_without_line_ends_takes_no_memory`,
//!   `bytes_that_are_no_text_are_kept_as_they_came`
//! - 43 (a leftover that holds the pipe): `a_leftover_that_holds_the_pipe_does_not_hold_the_run`
//! - 44 (NULs, an emptied file): `bytes_that_are_no_text_are_kept_as_they_came`,
//!   `deleted_files_and_folders_come_back`
//! - 45, row 8 (a record that is written in part): `a_write_that_ends_at_any_byte_tears_and_loses_nothing`,
//!   `a_disk_that_is_full_at_any_byte_tears_and_loses_nothing`
//! - 46, row 35 (following stops at a rotation):
//!   `following_over_a_thousand_rotations_and_compression_is_byte_exact`
//! - 47 (what is written while a file is moved): `sigusr1_reopens_files_that_others_have_moved`
//! - 48 (two writers of one file): `a_file_has_one_writer`
//! - 49, row 29 (days that turn the clock):
//!   `each_local_time_has_one_rotation_in_all_zones_on_all_days_that_turn_the_clock`
//! - 50 (a timer that is early): `early_and_late_timers_rotate_once_at_midnight`
//! - 51 (a wrong clock): `a_clock_of_1970_keeps_everything_young`, `a_clock_that_is_set_makes_no_storm`
//! - 52 (torn state): `every_crash_point_is_recovered_from`, `a_kill_at_any_byte_costs_one_mark_at_most`
//! - 53, row 12 (a sync that hangs; loss of power):
//!   `a_sync_that_hangs_holds_up_neither_writing_nor_other_file_systems`,
//!   `what_is_written_is_brought_to_the_disk_and_a_failure_of_that_stops_nothing`,
//!   `a_compressed_file_and_its_name_are_on_the_disk_before_the_original_goes`
//! - 54 (last words): `the_last_words_of_many_short_runs_are_all_there`
//! - 55 (terminal escapes): `a_terminal_is_not_given_what_would_command_it`
//! - 56 (non-blocking output): `the_pipes_of_a_service_block`
//! - 57 (output after the request to stop): `output_after_the_request_to_stop_is_kept`
//! - 58 (the pipe dies with the daemon): `kills_of_the_manager_cost_nothing`
//! - row 34 (one starves another): `none_of_many_busy_services_starves`, `a_round_is_short_however_many_take_part`
//!
//! Not held by a test: what a disk makes of writes when power is lost; only that the kernel is asked for them in
//! the right order. There are no probes yet (42).
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod engine;

use engine::{Rig, line, lines, pipe, small_pipe, spec, text, wait_until};
use keepd::{
    logs::{Engine, Report},
    plan::{LogFormat, LogSpec, Name, RunId},
    sys::signal,
};
use nix::{
    libc, mount, sched,
    sys::resource::{Resource, getrlimit, setrlimit},
};
use std::{
    fs,
    io::Write,
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

const FORMATS: [LogFormat; 3] = [LogFormat::Raw, LogFormat::Timestamp, LogFormat::Json];

/// What the service wrote, from what is in the file.
fn original(format: LogFormat, log: &str) -> String {
    let message = |l: &str| match format {
        LogFormat::Raw => l.to_owned(),
        LogFormat::Timestamp => l.split_once("Z ").unwrap_or_else(|| panic!("{l:?}")).1.to_owned(),
        LogFormat::Json => {
            let value: serde_json::Value = serde_json::from_str(l).unwrap_or_else(|e| panic!("{l:?}: {e}"));
            value["message"].as_str().unwrap().to_owned()
        }
    };
    log.lines().map(|l| message(l) + "\n").collect()
}

/// Runs another process of this test, because what it does to itself would trouble tests beside it.
fn alone(test: &str, role: &str) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", test, "--nocapture"]).env("KEEPD_FAULT_ROLE", role);
    assert!(command.status().unwrap().success());
}

fn role() -> Option<String> {
    std::env::var("KEEPD_FAULT_ROLE").ok()
}

/// A file may grow to an exact byte and no further, so a write ends at any byte of a line: story 45, matrix row 8.
#[test]
fn a_write_that_ends_at_any_byte_tears_and_loses_nothing() {
    if role().is_none() {
        return alone("a_write_that_ends_at_any_byte_tears_and_loses_nothing", "limited");
    }
    /// How large a file may be, and the longest rest of it; the lines of all forms are shorter.
    const SIZE: usize = 8192;
    const REST: usize = 256;
    signal::ignore(libc::SIGXFSZ);
    let rig = Rig::new();
    let (_, hard) = getrlimit(Resource::RLIMIT_FSIZE).unwrap();
    let written = lines(0..40);
    let mut run = 0;
    for format in FORMATS {
        setrlimit(Resource::RLIMIT_FSIZE, SIZE as u64, hard).unwrap();
        let mut cases = Vec::new();
        for rest in 0..REST {
            run += 1;
            let name = format!("s{run}");
            fs::create_dir(rig.dir(&name)).unwrap();
            fs::write(rig.dir(&name).join("current"), "x".repeat(SIZE - rest - 1) + "\n").unwrap();
            let (output, mut input) = small_pipe();
            let spec = LogSpec { format, ..rig.spec(&name, 1 << 20) };
            rig.engine.attach(&Name::new(&name), RunId(run), &spec, Some(output), None);
            input.write_all(written.as_bytes()).unwrap();
            cases.push((run, name, rest));
        }
        let trouble = |name: &str| rig.engine.counters(&Name::new(name)).trouble();
        for (_, name, rest) in &cases {
            wait_until("trouble", || trouble(name).is_some_and(|t| t.contains("File too large")));
            assert!(fs::read(rig.dir(name).join("current")).unwrap().len() <= SIZE, "{rest}");
        }
        setrlimit(Resource::RLIMIT_FSIZE, hard, hard).unwrap();
        for (run, name, rest) in cases {
            wait_until("recovery", || trouble(&name).is_none());
            rig.finish(run);
            let log = text(&rig.dir(&name));
            assert!(original(format, &log[SIZE - rest..]) == written, "{format:?}, {rest} bytes left: {log}");
            assert_eq!(rig.totals(&name), (written.len() as u64, written.len() as u64, 0, 0));
        }
    }
}

/// Not a test: the process that the next one runs under strace. Its stdin is a service's pipe.
#[test]
fn traced_engine() {
    let Some(role) = role().filter(|role| role.starts_with('/')) else { return };
    let folder = Path::new(&role);
    let output = std::io::stdin().as_fd().try_clone_to_owned().unwrap();
    let (send, reports) = std::sync::mpsc::channel();
    let engine = Engine::start(move |report| drop(send.send(report))).unwrap();
    engine.attach(&Name::new("web"), RunId(1), &spec(&folder.join("web"), 9000), Some(output), None);
    let mut said = fs::File::create(folder.join("said")).unwrap();
    let mut told = false;
    loop {
        match reports.recv_timeout(Duration::from_millis(5)) {
            Ok(Report::Trouble { message, .. }) => {
                writeln!(said, "{}", message.as_deref().unwrap_or("recovered")).unwrap();
            }
            Ok(Report::Finished { .. }) => return,
            _ => {}
        }
        if !told && folder.join("finish").exists() {
            told = true;
            engine.finish(RunId(1));
        }
    }
}

/// Errors of the disk and of a quota, now and then: matrix rows 9 and 10.
#[test]
fn errors_of_the_disk_lose_nothing_that_fits_into_the_pipe() {
    let works = Command::new("strace").args(["-f", "-qq", "-o", "/dev/null", "true"]).status();
    if !works.is_ok_and(|s| s.success()) {
        eprintln!(
            "SKIPPED errors_of_the_disk_lose_nothing_that_fits_into_the_pipe: no strace that can trace"
        );
        return;
    }
    thread::scope(|all| {
        for (error, says) in [("EIO", "Input/output"), ("EDQUOT", "quota"), ("EROFS", "Read-only")] {
            all.spawn(move || now_and_then(error, says));
        }
    });
}

/// Every fourth write to the current file fails.
fn now_and_then(error: &str, says: &str) {
    let folder = tempfile::tempdir().unwrap();
    let (output, mut input) = pipe();
    let inject = format!("inject=splice,pwrite64:error={error}:when=2+4");
    let mut tracer = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=splice,pwrite64", "-e", &inject, "-P"])
        .arg(folder.path().join("web/current"))
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "traced_engine", "--nocapture"])
        .env("KEEPD_FAULT_ROLE", folder.path())
        .stdin(output)
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let said = || fs::read_to_string(folder.path().join("said")).unwrap_or_default();
    let dir = folder.path().join("web");
    for n in 0..3 {
        input.write_all(lines(n * 300..(n + 1) * 300).as_bytes()).unwrap();
        let recovered = usize::try_from(n).unwrap() + 1;
        wait_until("trouble and its end", || said().matches("recovered").count() >= recovered);
        let last = line((n + 1) * 300 - 1);
        wait_until("all is written", || dir.exists() && text(&dir).ends_with(&last));
    }
    assert!(said().to_lowercase().contains(&says.to_lowercase()), "{}", said());
    drop(input);
    fs::write(folder.path().join("finish"), "").unwrap();
    assert!(tracer.wait().unwrap().success());
    assert!(text(&dir) == lines(0..900), "{error}: {}", text(&dir));
}

/// An ext4 file system in a file, unmounted at the end.
struct Image {
    file: PathBuf,
    at: PathBuf,
}

impl Image {
    fn mount(&self) -> bool {
        let (file, at) = (self.file.to_str().unwrap(), self.at.to_str().unwrap());
        run("mount", &["-o", "loop,errors=remount-ro", file, at])
    }

    fn unmount(&self) {
        let _ = mount::umount2(&self.at, mount::MntFlags::MNT_DETACH);
    }

    /// The kernel's switch that makes it find an error in its structures.
    fn break_it(&self) -> bool {
        let mounts = fs::read_to_string("/proc/thread-self/mounts").unwrap();
        let at = self.at.to_str().unwrap();
        let device = mounts.lines().find(|l| l.split(' ').nth(1) == Some(at)).unwrap();
        let device = device.split(' ').next().unwrap().strip_prefix("/dev/").unwrap();
        fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "1").is_ok()
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        self.unmount();
    }
}

fn run(program: &str, args: &[&str]) -> bool {
    Command::new(program).args(args).output().is_ok_and(|done| done.status.success())
}

/// The kernel found an error and made the file system read-only; it is repaired and mounted anew under the open
/// files: matrix row 10.
#[test]
fn a_file_system_that_turned_read_only_is_written_again_once_it_is_repaired() {
    let name = "a_file_system_that_turned_read_only_is_written_again_once_it_is_repaired";
    let private = mount::MsFlags::MS_REC | mount::MsFlags::MS_PRIVATE;
    let own = sched::unshare(sched::CloneFlags::CLONE_NEWNS)
        .and_then(|()| mount::mount(None::<&str>, "/", None::<&str>, private, None::<&str>));
    let rig = Rig::new();
    let image = Image { file: rig.folder.path().join("image"), at: rig.dir("disk") };
    fs::create_dir(&image.at).unwrap();
    fs::File::create(&image.file).unwrap().set_len(16 << 20).unwrap();
    if own.is_err() || !run("mkfs.ext4", &["-q", "-F", image.file.to_str().unwrap()]) || !image.mount() {
        return eprintln!("SKIPPED {name}: cannot mount an ext4 image");
    }
    let dir = image.at.join("log");
    let mut input = rig.attach("web", 1, &spec(&dir, 1 << 20));
    input.write_all(lines(0..1000).as_bytes()).unwrap();
    rig.written("web", lines(0..1000).len() as u64);
    // What is not on the disk by now would be gone.
    assert!(run("sync", &["-f", dir.to_str().unwrap()]));
    if !image.break_it() {
        return eprintln!("SKIPPED {name}: this kernel cannot be asked to find an error");
    }
    input.write_all(lines(1000..2000).as_bytes()).unwrap();
    let message = rig.in_trouble("web");
    assert!(message.contains("Read-only file system") || message.contains("Input/output"), "{message}");
    input.write_all(lines(2000..3000).as_bytes()).unwrap();
    // Not lazily: it would be the same broken one that is mounted again, as long as a try to write holds a file.
    wait_until("it can be unmounted", || mount::umount2(&image.at, mount::MntFlags::empty()).is_ok());
    let check = || run("e2fsck", &["-fy", image.file.to_str().unwrap()]);
    // It says 1 where it has repaired something, and 0 the next time.
    wait_until("it is repaired", || check() || check());
    assert!(image.mount());
    rig.recovered("web");
    drop(input);
    rig.finish(1);
    assert!(text(&dir) == lines(0..3000), "{}", text(&dir));
}

/// Two who write the same file would overwrite each other: story 48.
#[test]
fn a_file_has_one_writer() {
    let rig = Rig::new();
    let mut first = rig.attach("web", 1, &rig.spec("web", 1 << 20));
    first.write_all(b"first\n").unwrap();
    rig.written("web", 6);
    let mut second = rig.attach("other", 2, &rig.spec("web", 1 << 20));
    second.write_all(b"second\n").unwrap();
    rig.in_trouble("other");
    first.write_all(b"first again\n").unwrap();
    drop(first);
    rig.finish(1);
    assert_eq!(text(&rig.dir("web")), "first\nfirst again\n");
    rig.recovered("other");
    drop(second);
    rig.finish(2);
    assert_eq!(text(&rig.dir("web")), "first\nfirst again\nsecond\n");
}

/// Story 54: the last words of runs that end at once.
#[test]
fn the_last_words_of_many_short_runs_are_all_there() {
    let rig = Rig::new();
    let spec = rig.spec("web", 10_000);
    let last = 5_000;
    for run in 0..last {
        let mut input = rig.attach("web", run, &spec);
        input.write_all(line(run).as_bytes()).unwrap();
        drop(input);
        rig.engine.finish(RunId(run));
    }
    for run in 0..last {
        let report = rig.until("the end of a run", |r| matches!(r, Report::Finished { .. }));
        assert_eq!(report, Report::Finished { run: RunId(run) });
    }
    assert!(text(&rig.dir("web")) == lines(0..last));
}
