//! What is done behind the writers' backs, against the real kernel: syncs that hang or fail, folders that are
//! swapped, and SIGKILL of the process that compresses.
#![allow(clippy::disallowed_methods)]
#![allow(clippy::unwrap_used)]

use keepd::{
    logs::Engine,
    plan::{LogFormat, LogSpec, Name, OnFull, Rotate, RunId},
    sys::pipe,
};
use std::{
    collections::BTreeMap,
    fs::{self},
    io::{PipeWriter, Write},
    os::{
        fd::{AsFd, OwnedFd},
        unix::fs::{MetadataExt, symlink},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

const LIMIT: Duration = Duration::from_secs(60);

fn wait_until(what: &str, done: impl Fn() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !done() {
        assert!(Instant::now() < deadline, "still not: {what}");
        thread::park_timeout(Duration::from_millis(2));
    }
}

fn spec(dir: &Path, max_size: u64, keep: u32) -> LogSpec {
    let dir = dir.to_owned();
    LogSpec {
        dir,
        max_size,
        rotate: Rotate::Off,
        keep,
        keep_for: None,
        max_total: None,
        compress: true,
        on_full: OnFull::Drop,
        format: LogFormat::Raw,
        max_line: 65_536,
        forward: Vec::new(),
    }
}

fn pipe() -> (OwnedFd, PipeWriter) {
    let (output, input) = std::io::pipe().unwrap();
    let output = OwnedFd::from(output);
    nix::fcntl::fcntl(&output, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK)).unwrap();
    pipe::set_capacity(input.as_fd(), 1 << 20).unwrap();
    (output, input)
}

fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten();
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    // The marks of times are no log.
    names.retain(|name| name != ".times");
    names.sort();
    names
}

/// Not a test: a process that the tests below start, which keeps what it reads from stdin in the folders of
/// KEEPD_UPKEEP_DIRS: in the first of them, while the others get lines of their own without end; with
/// KEEPD_UPKEEP_ECHO in each of them, and nothing else.
#[test]
fn upkeep_process() {
    let Ok(dirs) = std::env::var("KEEPD_UPKEEP_DIRS") else { return };
    let engine = Engine::start(|_| ()).unwrap();
    let echo = std::env::var_os("KEEPD_UPKEEP_ECHO").is_some();
    let mut inputs = Vec::new();
    for (run, dir) in dirs.split(':').enumerate() {
        let (output, input) = if run == 0 && !echo {
            (std::io::stdin().as_fd().try_clone_to_owned().unwrap(), None)
        } else {
            let (output, input) = pipe();
            (output, Some(input))
        };
        let spec = spec(Path::new(dir), 20_000, 1_000_000);
        engine.attach(&Name::new(&run.to_string()), RunId(run as u64 + 1), &spec, Some(output), None);
        inputs.extend(input);
    }
    if echo {
        for line in std::io::stdin().lines().map_while(Result::ok) {
            inputs.iter_mut().for_each(|input| writeln!(input, "{line}").unwrap());
        }
        return;
    }
    loop {
        for input in &mut inputs {
            input
                .write_all(b"a line of some length, so that files are full after a while .......\n")
                .unwrap();
        }
        thread::park_timeout(Duration::from_millis(1));
    }
}

/// The process, and the strace that is attached to it.
struct Process(Child, Option<Child>);

impl Process {
    /// `strace`: arguments of a strace that is attached before this returns.
    fn start(dirs: &[&Path], strace: &[&str], output: impl Into<Stdio>, env: &[(&str, &str)]) -> Process {
        let dirs: Vec<&str> = dirs.iter().map(|d| d.to_str().unwrap()).collect();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "upkeep_process", "--nocapture"]).env("KEEPD_UPKEEP_DIRS", dirs.join(":"));
        command.envs(env.iter().copied()).stdin(output).stdout(Stdio::null());
        let mut process = Process(command.spawn().unwrap(), None);
        if !strace.is_empty() {
            let pid = process.0.id().to_string();
            let engine = || tasks(&pid).iter().any(|t| t.contains("Name:\tlogs-guard\n"));
            wait_until("the log thread", engine);
            let tracer = Command::new("strace").args(["-f", "-qq", "-p", &pid]).args(strace).spawn().unwrap();
            process.1 = Some(tracer);
            wait_until("it is traced", || tasks(&pid).iter().all(|t| !t.contains("TracerPid:\t0\n")));
        }
        process
    }
}

/// The status of each thread.
fn tasks(pid: &str) -> Vec<String> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    tasks.filter_map(|t| fs::read_to_string(t.ok()?.path().join("status")).ok()).collect()
}

impl Drop for Process {
    fn drop(&mut self) {
        // Without its tracer it is not held any more.
        if let Some(strace) = &mut self.1 {
            let _ = strace.kill();
            let _ = strace.wait();
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Whether strace can attach to a process here.
fn strace_works() -> bool {
    let works = Command::new("strace").args(["-f", "-qq", "-o", "/dev/null", "true"]).status();
    let works = works.is_ok_and(|s| s.success());
    if !works {
        eprintln!("SKIPPED: no strace that can trace");
    }
    works
}

/// A folder on another file system than that of temporary files, if this host has one.
fn elsewhere(folder: &Path) -> Option<tempfile::TempDir> {
    let other = tempfile::tempdir_in("/dev/shm").ok()?;
    let device = |p: &Path| fs::metadata(p).unwrap().dev();
    (device(other.path()) != device(folder)).then_some(other)
}

#[test]
fn a_sync_that_hangs_holds_up_neither_writing_nor_other_file_systems() {
    let folder = tempfile::tempdir().unwrap();
    let Some(other) = elsewhere(folder.path()).filter(|_| strace_works()) else { return };
    let (sick, well) = (folder.path().join("sick"), other.path().join("well"));
    let (output, mut input) = pipe();
    let trace = folder.path().join("trace");
    let out = trace.to_str().unwrap();
    let path = sick.join("current");
    // Ten minutes for every sync of the first service's file.
    let strace = [
        "-o",
        out,
        "-P",
        path.to_str().unwrap(),
        "-e",
        "trace=fdatasync",
        "-e",
        "inject=fdatasync:delay_enter=600000000",
    ];
    let _process = Process::start(&[&sick, &well], &strace, output, &[]);
    input.write_all(b"first\n").unwrap();
    wait_until("a sync hangs", || fs::read_to_string(&trace).is_ok_and(|t| t.contains("fdatasync(")));
    input.write_all(b"second\n").unwrap();
    let written = || fs::read(sick.join("current")).is_ok_and(|text| text == b"first\nsecond\n");
    wait_until("lines are written all the same", written);
    let compressed = || names(&well).iter().any(|n| n.ends_with(".log.gz"));
    wait_until("the other file system is looked after", compressed);
    assert!(!fs::read_to_string(&trace).unwrap().contains("= 0"), "the sync did not hang");
}

#[test]
fn what_is_written_is_brought_to_the_disk_and_a_failure_of_that_stops_nothing() {
    let folder = tempfile::tempdir().unwrap();
    if !strace_works() {
        return;
    }
    let dir = folder.path().join("web");
    let (output, mut input) = pipe();
    let trace = folder.path().join("trace");
    let out = trace.to_str().unwrap();
    let strace = ["-o", out, "-e", "trace=fdatasync", "-e", "inject=fdatasync:error=EIO"];
    let _process = Process::start(&[&dir], &strace, output, &[]);
    let syncs = || fs::read_to_string(&trace).map_or(0, |t| t.matches("fdatasync(").count());
    for n in 0..3 {
        let before = syncs();
        input.write_all(format!("line {n}\n").as_bytes()).unwrap();
        wait_until("a sync", || syncs() > before);
    }
    assert_eq!(fs::read(dir.join("current")).unwrap(), b"line 0\nline 1\nline 2\n");
}

/// What a loss of power leaves at any point: either name leads to a whole file that is on the disk.
#[test]
fn a_compressed_file_and_its_name_are_on_the_disk_before_the_original_goes() {
    let folder = tempfile::tempdir().unwrap();
    if !strace_works() {
        return;
    }
    let dir = folder.path().join("web");
    let (output, mut input) = pipe();
    let trace = folder.path().join("trace");
    let calls = "trace=fsync,fdatasync,syncfs,rename,renameat,renameat2,unlink,unlinkat";
    let strace = ["-y", "-s", "256", "-o", trace.to_str().unwrap(), "-e", calls];
    let _process = Process::start(&[&dir], &strace, output, &[]);
    for n in 0..3000 {
        writeln!(input, "line {n} ............................").unwrap();
    }
    let files = wait_for_three(&dir);
    let text = || fs::read_to_string(&trace).unwrap();
    let at = dir.to_str().unwrap();
    for whole in files {
        let original = whole.strip_suffix(".gz").unwrap();
        let gone = format!("\"{original}\"");
        wait_until("it is traced", || text().lines().any(|l| l.contains("unlink") && l.contains(&gone)));
        let text = text();
        let named = |l: &&str| l.contains(" rename") && l.contains(&format!("\"{whole}\""));
        let thread = text.lines().find(named).and_then(|l| l.split(' ').next()).unwrap();
        // One thread does it all, one call after the other.
        let own = text.lines().filter(|l| l.split(' ').next() == Some(thread) && !l.contains(" resumed>"));
        let about = [format!("{original}.gz"), gone.clone(), format!("<{at}>)"), format!("<{at}> ")];
        let own: Vec<&str> = own.filter(|l| about.iter().any(|a| l.contains(a))).collect();
        let begin = own.iter().position(named).unwrap();
        let call = |n: usize| own[n].split(' ').filter(|w| !w.is_empty()).nth(1).unwrap();
        assert!(call(begin - 1).contains("sync(") && own[begin - 1].contains(".gz.tmp>"), "{own:#?}");
        assert!(call(begin + 1).contains("sync(") && own[begin + 1].contains(&format!("<{at}>")), "{own:#?}");
        assert!(call(begin + 2).starts_with("unlink") && own[begin + 2].contains(&gone), "{own:#?}");
    }
}

/// The names of three compressed files, once they are all that is left of their originals.
fn wait_for_three(dir: &Path) -> Vec<String> {
    let compressed = || names(dir).into_iter().filter(|n| n.ends_with(".log.gz")).collect::<Vec<_>>();
    wait_until("three compressed files", || compressed().len() >= 3);
    compressed()
}

#[test]
fn each_of_several_files_is_brought_to_the_disk_again_and_again() {
    let folder = tempfile::tempdir().unwrap();
    if !strace_works() {
        return;
    }
    let dirs: Vec<PathBuf> = (0..8).map(|n| folder.path().join(n.to_string())).collect();
    let dirs: Vec<&Path> = dirs.iter().map(PathBuf::as_path).collect();
    let (output, mut input) = std::io::pipe().unwrap();
    let trace = folder.path().join("trace");
    let out = trace.to_str().unwrap();
    let strace = ["-o", out, "-e", "trace=fdatasync"];
    let _process = Process::start(&dirs, &strace, output, &[("KEEPD_UPKEEP_ECHO", "1")]);
    let syncs = || fs::read_to_string(&trace).map_or(0, |t| t.matches("fdatasync(").count());
    for n in 0..4 {
        let before = syncs();
        writeln!(input, "line {n}").unwrap();
        wait_until("a sync of each", || syncs() >= before + dirs.len());
    }
}

#[test]
fn many_files_are_brought_to_the_disk_together() {
    let folder = tempfile::tempdir().unwrap();
    if !strace_works() {
        return;
    }
    let dirs: Vec<PathBuf> = (0..150).map(|n| folder.path().join(n.to_string())).collect();
    let dirs: Vec<&Path> = dirs.iter().map(PathBuf::as_path).collect();
    let (output, _input) = pipe();
    let trace = folder.path().join("trace");
    let out = trace.to_str().unwrap();
    let strace = ["-o", out, "-e", "trace=fdatasync,syncfs"];
    let _process = Process::start(&dirs, &strace, output, &[]);
    wait_until("all at once", || fs::read_to_string(&trace).is_ok_and(|t| t.contains("syncfs(")));
}

/// Every name and content below a folder.
fn picture(dir: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()) {
        if entry.is_dir() {
            found.extend(picture(&entry));
            found.insert(entry, None);
        } else {
            let content = fs::read(&entry).unwrap();
            found.insert(entry, Some(content));
        }
    }
    found
}

#[test]
fn a_folder_that_is_swapped_for_a_link_leads_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let outside = folder.path().join("outside");
    let old = ["current", "2026-11-21T00-00-00.000001.log", "2026-11-21T00-00-00.000002.log.gz.tmp"];
    for dir in [outside.clone(), outside.join("stderr")] {
        fs::create_dir(&dir).unwrap();
        old.iter().for_each(|name| fs::write(dir.join(name), "canary\n").unwrap());
    }
    let before = picture(&outside);
    let engine = Engine::start(|_| ()).unwrap();
    let over = Arc::new(AtomicBool::new(false));
    let mut writers = Vec::new();
    let services = 6;
    for n in 0..services {
        let dir = folder.path().join(format!("web{n}"));
        let ((out, stdout), (err, stderr)) = (pipe(), pipe());
        engine.attach(&Name::new(&format!("web{n}")), RunId(n), &spec(&dir, 200, 2), Some(out), Some(err));
        for mut input in [stdout, stderr] {
            let over = over.clone();
            writers.push(thread::spawn(move || {
                while !over.load(SeqCst) {
                    input
                        .write_all(&b"a line that soon fills a file of two hundred bytes\n".repeat(20))
                        .unwrap();
                    thread::yield_now();
                }
            }));
        }
    }
    let mut swaps = 0;
    for round in 0..1500u64 {
        let service = folder.path().join(format!("web{}", round % services));
        let (dir, target) = match round / services % 2 {
            0 => (service, outside.clone()),
            _ => (service.join("stderr"), outside.join("stderr")),
        };
        let aside = folder.path().join("aside");
        if fs::rename(&dir, &aside).is_err() {
            // Not made yet.
            thread::park_timeout(Duration::from_millis(1));
            continue;
        }
        if symlink(&target, &dir).is_ok() {
            swaps += 1;
            thread::park_timeout(Duration::from_micros(round * 7 % 500));
            fs::remove_file(&dir).unwrap();
        }
        // Where the writer made a new one meanwhile, that one goes.
        if fs::rename(&aside, &dir).is_err() {
            fs::remove_dir_all(&aside).unwrap();
        }
        thread::park_timeout(Duration::from_millis(1));
    }
    over.store(true, SeqCst);
    writers.into_iter().for_each(|w| w.join().unwrap());
    assert!(swaps > 500, "only {swaps} swaps");
    assert!(picture(&outside) == before, "something outside was touched: {:?}", picture(&outside).keys());
    assert!(engine.turns() > 0);
}
