//! Folders, credentials and verified programs: what a service finds, what is left, and what an attacker gets.

use crate::{
    Test,
    identity::identity,
    rig::{Rig, child, read_all, read_line, root, service, until},
    steps::report,
};
use keepd::{
    keeper::protocol::{News, Request},
    plan::{Credentials, Exit, Job, Place, Reload, Sandbox, ServiceSpec, Verify},
};
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

pub const TESTS: &[Test] = &[
    ("folders_are_the_service_s_own", folders_are_the_service_s_own),
    ("a_run_s_folders_go_with_it", a_run_s_folders_go_with_it),
    ("a_run_that_fails_leaves_no_folder", a_run_that_fails_leaves_no_folder),
    ("folders_go_when_keepd_ends", folders_go_when_keepd_ends),
    ("folders_are_refused_by_name", folders_are_refused_by_name),
    ("credentials_are_seen_by_the_service_alone", credentials_are_seen_by_the_service_alone),
    ("credentials_go_with_every_sandbox", credentials_go_with_every_sandbox),
    ("credentials_are_refused_by_name", credentials_are_refused_by_name),
    ("a_service_s_own_links_give_it_nothing", a_service_s_own_links_give_it_nothing),
    ("a_program_must_be_the_one_that_is_meant", a_program_must_be_the_one_that_is_meant),
    ("a_program_that_is_swapped_never_runs", a_program_that_is_swapped_never_runs),
];

const NOBODY: u32 = 65534;

/// Ends an attacker's thread, however its test ends.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// A folder that root alone can change.
fn base() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

fn place(base: &tempfile::TempDir, name: &str) -> Place {
    Place { base: base.path().into(), name: name.into() }
}

fn folders_are_the_service_s_own() {
    let base = base();
    let mut s = service("a", &["print", "up", "sleep"]);
    s.launch.umask = 0o027;
    s.launch.provision.runtime_dirs = vec![place(&base, "run"), place(&base, "deep/run")];
    s.launch.provision.state_dirs = vec![place(&base, "state")];
    let own = keepd::sys::identity::effective_uid();
    if root() {
        s.launch.identity = Some(identity(NOBODY, 4321, &[4321]));
    }
    let owner = if root() { (NOBODY, 4321) } else { (own, keepd::sys::identity::effective_gid()) };
    let mut rig = Rig::new(vec![s]);
    rig.started("a");
    for name in ["run", "deep/run", "state"] {
        let meta = fs::metadata(base.path().join(name)).unwrap();
        assert_eq!((meta.uid(), meta.gid()), owner, "{name}");
        assert_eq!(meta.mode() & 0o7777, 0o750, "{name}");
    }
    let between = fs::metadata(base.path().join("deep")).unwrap();
    assert_eq!((between.uid(), between.mode() & 0o7777), (own, 0o755));
}

fn a_run_s_folders_go_with_it() {
    let base = base();
    let run = base.path().join("run");
    let kept = base.path().join("state/kept");
    // The second one finds what the first one left, or says so.
    let mark = run.join("mark");
    let (mark, kept_text) = (mark.to_str().unwrap(), kept.to_str().unwrap());
    let mut s =
        service("a", &["fail-if-exists", mark, "9", "touch", mark, "append", kept_text, "x", "exit", "0"]);
    s.launch.provision.runtime_dirs = vec![place(&base, "run")];
    s.launch.provision.state_dirs = vec![place(&base, "state")];
    let mut rig = Rig::new(vec![s]);
    // Asked for at once: each waits until the folders of the one before are gone.
    for _ in 0..20 {
        let (id, _, _) = rig.started("a");
        assert_eq!(rig.exited(id).0, Exit::Code(0), "it found what an earlier run had left");
    }
    until("the folder is gone", || !run.exists());
    assert_eq!(fs::read_to_string(kept).unwrap(), "x\n".repeat(20), "what is state stays");
    assert!(base.path().exists());
}

fn a_run_that_fails_leaves_no_folder() {
    let base = base();
    let mut s = service("a", &[]);
    s.launch.argv = vec!["/no/such/program".into()];
    s.launch.provision.runtime_dirs = vec![place(&base, "new"), place(&base, "old")];
    fs::create_dir(base.path().join("old")).unwrap();
    let mut rig = Rig::new(vec![s]);
    assert_eq!(rig.fails("a").0, "cannot execute /no/such/program: No such file or directory");
    assert!(!base.path().join("new").exists());
    assert!(base.path().join("old").exists(), "what was there before is not that run's");
}

fn folders_go_when_keepd_ends() {
    let base = base();
    let mut s = service("a", &["ignore-term", "print", "up", "sleep"]);
    s.launch.provision.runtime_dirs = vec![place(&base, "run")];
    let mut rig = Rig::new(vec![s]);
    rig.started("a");
    assert!(base.path().join("run").exists());
    rig.send(&[Request::Exit { status: 0 }]);
    assert_eq!(rig.wait_keeper().code(), Some(0));
    assert!(!base.path().join("run").exists());
}

fn folders_are_refused_by_name() {
    let base = base();
    let at = |name: &str| base.path().join(name);
    symlink("/etc", at("link")).unwrap();
    fs::write(at("file"), "").unwrap();
    fs::create_dir(at("open")).unwrap();
    fs::set_permissions(at("open"), fs::Permissions::from_mode(0o777)).unwrap();
    let with = |name: &str, folder: &str| {
        let mut s = service(name, &["touch", at("ran").to_str().unwrap()]);
        s.launch.provision.state_dirs = vec![place(&base, folder)];
        s
    };
    let services = vec![
        with("a", "link"),
        with("b", "link/keepd"),
        with("c", "file"),
        with("d", "open/x"),
        with("e", "file/x"),
    ];
    let mut rig = Rig::new(services);
    let link = "there is a link or a file on the way to it, or in its place";
    let others = "a folder that it is to lie in can be changed by others than root";
    for (name, folder, why) in [
        ("a", "link", link),
        ("b", "link/keepd", link),
        ("c", "file", link),
        ("d", "open/x", others),
        ("e", "file/x", link),
    ] {
        let wanted = format!("cannot make the folder {}: {why}", at(folder).display());
        assert_eq!(rig.fails(name), (wanted, false), "{name}");
    }
    assert!(!at("ran").exists() && !Path::new("/etc/keepd-none").exists());
}

/// A service of nobody's that runs this script, with a credential `key` from `source`.
fn with_credential(dir: &Path, source: PathBuf, script: &str) -> ServiceSpec {
    let mut s = service("a", &[]);
    s.launch.argv = vec!["/bin/sh".into(), "-c".into(), script.into()];
    s.launch.identity = Some(identity(NOBODY, NOBODY, &[NOBODY]));
    s.launch.sandbox.capabilities = Some(Default::default());
    s.launch.provision.credentials =
        Some(Credentials { at: dir.join("credentials"), files: vec![("key".into(), source)] });
    s.launch.env.insert("CREDENTIALS_DIRECTORY".into(), dir.join("credentials").display().to_string());
    s
}

/// Root's own secret.
fn secret(dir: &Path) -> PathBuf {
    let path = dir.join("secret");
    fs::write(&path, "canary-of-root\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    path
}

/// A folder of root's own, not below /tmp.
fn roots_base() -> tempfile::TempDir {
    let dir = tempfile::tempdir_in("/var/lib").unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    dir
}

fn credentials_are_seen_by_the_service_alone() {
    if !root() {
        return println!("SKIPPED credentials_are_seen_by_the_service_alone: it takes root to mount");
    }
    let dir = roots_base();
    let source = secret(dir.path());
    let script = "cd \"$CREDENTIALS_DIRECTORY\" && cat key && stat -c '%a %u %g' . key && stat -f -c %T . && ls -A && \
                  (echo x >key || echo refused; chmod 644 key || echo refused; mv key b || echo refused) 2>/dev/null; \
                  echo done; exec sleep 1000";
    let mut s = with_credential(dir.path(), source.clone(), script);
    let found = dir.path().join("credentials/key");
    s.reload = Reload::Command(vec!["/usr/bin/test".into(), "-r".into(), found.display().to_string()]);
    let mut rig = Rig::new(vec![s]);
    let (run, pid, pipes) = rig.started("a");
    let lines: Vec<String> = (0..9).map(|_| read_line(&pipes[0])).collect();
    let said = lines.concat();
    let kind = said.lines().nth(3).unwrap();
    assert!(["tmpfs", "ramfs"].contains(&kind), "{said}");
    let wanted = format!(
        "canary-of-root\n500 65534 65534\n400 65534 65534\n{kind}\nkey\nrefused\nrefused\nrefused\ndone\n"
    );
    assert_eq!(said, wanted);
    assert_eq!(
        fs::read_dir(dir.path().join("credentials")).unwrap().count(),
        0,
        "on the host there is nothing"
    );
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains(dir.path().to_str().unwrap()), "{mounts}");
    rig.send(&[Request::RunJob { run, job: Job::Reload }]);
    let (why, _) = rig.wait("the job's end", |n| match n {
        News::JobEnded { run: r, why, .. } if *r == run => Some(why.clone()),
        _ => None,
    });
    assert_eq!(why, "", "a job finds the credentials of its service");
    // Nothing has to be cleaned up, so nothing is left when everybody dies at once.
    rig.signal_keeper(9);
    rig.wait_keeper();
    keepd::sys::pidfd::open(pid)
        .map(|fd| keepd::sys::pidfd::send_signal(std::os::fd::AsFd::as_fd(&fd), 9).unwrap())
        .unwrap();
    assert_eq!(fs::read_dir(dir.path().join("credentials")).unwrap().count(), 0);
    assert!(!fs::read_to_string("/proc/self/mountinfo").unwrap().contains(dir.path().to_str().unwrap()));
}

fn credentials_go_with_every_sandbox() {
    if !root() {
        return println!("SKIPPED credentials_go_with_every_sandbox: it takes root to mount");
    }
    let dir = roots_base();
    let source = secret(dir.path());
    let mut s = with_credential(dir.path(), source, "cat \"$CREDENTIALS_DIRECTORY/key\"");
    s.launch.sandbox = Sandbox {
        capabilities: Some(Default::default()),
        private_tmp: true,
        read_only: keepd::plan::ReadOnly::Strict,
        hide_home: true,
        private_devices: true,
        private_network: true,
        syscalls: keepd::plan::Syscalls::Service,
        ..Sandbox::default()
    };
    let mut rig = Rig::new(vec![s]);
    let (_, _, pipes) = rig.started("a");
    assert_eq!(read_all(&pipes[0]), "canary-of-root\n");
}

fn credentials_are_refused_by_name() {
    if !root() {
        return println!("SKIPPED credentials_are_refused_by_name: it takes root to mount");
    }
    let dir = roots_base();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("large"), vec![b'x'; (1 << 20) + 1]).unwrap();
    fs::write(at("fits"), vec![b'x'; 1 << 20]).unwrap();
    nix::unistd::mkfifo(&at("fifo"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    let named = |name: &str, source: &str| {
        let mut s = with_credential(dir.path(), at(source), "exit 0");
        s.name = keepd::plan::Name::new(name);
        s
    };
    let names = [("a", "missing"), ("b", "fifo"), ("c", "large"), ("d", "fits")];
    let mut rig = Rig::new(names.map(|(name, source)| named(name, source)).into());
    for (name, source, why) in [
        ("a", "missing", "No such file or directory"),
        ("b", "fifo", "it is not a regular file"),
        ("c", "large", "all credentials together are larger than 1 MiB"),
    ] {
        let wanted = format!("cannot provide the credential key ({}): {why}", at(source).display());
        assert_eq!(rig.fails(name), (wanted, false));
    }
    let (run, _, _) = rig.started("d");
    assert_eq!(rig.exited(run).0, Exit::Code(0));
}

/// A service whose files are named by a folder of its own swaps links there, all the time.
fn a_service_s_own_links_give_it_nothing() {
    if !root() {
        return println!("SKIPPED a_service_s_own_links_give_it_nothing: it takes root to have a secret");
    }
    let dir = roots_base();
    let source = secret(dir.path());
    let own = dir.path().join("own");
    fs::create_dir(&own).unwrap();
    fs::write(own.join("plain"), "plain\n").unwrap();
    fs::write(own.join("plain-env"), "PLAIN=1\n").unwrap();
    fs::write(dir.path().join("secret-env"), "SECRET=canary-of-root\n").unwrap();
    fs::set_permissions(dir.path().join("secret-env"), fs::Permissions::from_mode(0o600)).unwrap();
    for name in ["plain", "plain-env"] {
        fs::set_permissions(own.join(name), fs::Permissions::from_mode(0o644)).unwrap();
    }
    chown(&own, Some(NOBODY), Some(NOBODY)).unwrap();
    let script = "env; cat \"$CREDENTIALS_DIRECTORY/key\"";
    let mut s = with_credential(dir.path(), own.join("link"), script);
    s.launch.env_files = vec![keepd::plan::EnvFile { path: own.join("env"), optional: false }];
    let mut rig = Rig::new(vec![s]);
    let stop = AtomicBool::new(false);
    let point = |name: &str, to: &Path| {
        let draft = own.join(format!("{name}.new"));
        let _ = fs::remove_file(&draft);
        symlink(to, &draft).unwrap();
        fs::rename(&draft, own.join(name)).unwrap();
    };
    let swap = |secret: bool| {
        let (file, env) = match secret {
            true => (source.clone(), dir.path().join("secret-env")),
            false => (own.join("plain"), own.join("plain-env")),
        };
        point("link", &file);
        point("env", &env);
    };
    swap(false);
    let (mut ran, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        let _ends = Ends(&stop);
        scope.spawn(|| {
            let mut secret = false;
            while !stop.load(Ordering::Relaxed) {
                secret = !secret;
                swap(secret);
            }
        });
        for _ in 0..200 {
            let run = rig.launch("a");
            let (failed, fds) = rig.wait("its start or its failure", |n| match n {
                News::Started { run: r, .. } if *r == run => Some(None),
                News::LaunchFailed { run: r, why, .. } if *r == run => Some(Some(why.clone())),
                _ => None,
            });
            match failed {
                None => {
                    let said = read_all(&fds[0]);
                    assert!(!said.contains("canary-of-root"), "it was given root's secret:\n{said}");
                    assert!(said.contains("plain") && said.contains("PLAIN=1"), "{said}");
                    ran += 1;
                }
                Some(why) => {
                    assert!(why.ends_with("Permission denied"), "{why}");
                    refused += 1;
                }
            }
        }
    });
    assert!(refused > 0, "the attacker never met the launcher ({ran} runs)");
}

fn sha256(path: &Path) -> String {
    let done = std::process::Command::new("sha256sum").arg(path).output().unwrap();
    String::from_utf8(done.stdout).unwrap()[..64].to_owned()
}

fn a_program_must_be_the_one_that_is_meant() {
    let dir = base();
    let at = |name: &str| dir.path().join(name);
    let good = PathBuf::from(child());
    let hash = sha256(&good);
    fs::write(at("script"), "#!/bin/sh\nexit 0\n").unwrap();
    let file = at("report");
    let with = |name: &str, program: &Path, hash: &str, verbs: &[&str]| {
        let mut s = service(name, verbs);
        s.launch.argv[0] = program.display().to_string();
        s.launch.provision.verify = Some(Verify::Sha256(hash.into()));
        if root() {
            s.launch.identity = Some(identity(NOBODY, NOBODY, &[NOBODY]));
        }
        s
    };
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let zeros = "0".repeat(64);
    let ran = at("ran");
    let mut rig = Rig::new(vec![
        with("a", &good, &hash, &["report", file.to_str().unwrap(), "print", "up", "sleep"]),
        with("b", &good, &zeros, &["touch", ran.to_str().unwrap()]),
        with("c", &at("script"), &sha256(&at("script")), &[]),
    ]);
    let (_, pid, pipes) = rig.started("a");
    assert_eq!(read_line(&pipes[0]), "up\n");
    assert_eq!(fs::read_link(format!("/proc/{pid}/exe")).unwrap(), good);
    let fds = report(&file)["fds"].as_object().unwrap().clone();
    assert_eq!(fds.keys().collect::<Vec<_>>(), ["0", "1", "2"]);
    let why = format!("cannot verify {}: its sha256 is {hash}, not {zeros}", good.display());
    assert_eq!(rig.fails("b"), (why, false));
    assert!(!ran.exists());
    assert!(rig.fails("c").0.contains("it is a script"));
}

/// The program is replaced by another all the time; that one never runs.
fn a_program_that_is_swapped_never_runs() {
    let dir = base();
    let at = |name: &str| dir.path().join(name);
    let good = PathBuf::from("/usr/bin/sleep");
    fs::copy(&good, at("good")).unwrap();
    let mut bytes = fs::read(&good).unwrap();
    bytes.push(b'\n');
    fs::write(at("bad"), bytes).unwrap();
    fs::set_permissions(at("bad"), fs::Permissions::from_mode(0o755)).unwrap();
    let ino = fs::metadata(at("bad")).unwrap().ino();
    let mut s = service("a", &[]);
    s.launch.argv = vec![at("program").display().to_string(), "1000".into()];
    s.launch.provision.verify = Some(Verify::Sha256(sha256(&good)));
    fs::hard_link(at("good"), at("program")).unwrap();
    let mut rig = Rig::new(vec![s]);
    let stop = AtomicBool::new(false);
    let (mut ran, mut refused) = (0, 0);
    std::thread::scope(|scope| {
        let _ends = Ends(&stop);
        scope.spawn(|| {
            for name in ["bad", "good"].into_iter().cycle() {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                let _ = fs::remove_file(at("new"));
                fs::hard_link(at(name), at("new")).unwrap();
                fs::rename(at("new"), at("program")).unwrap();
            }
        });
        for _ in 0..100 {
            let run = rig.launch("a");
            let (started, _) = rig.wait("its start or its failure", |n| match n {
                News::Started { run: r, pid, .. } if *r == run => Some(Ok(*pid)),
                News::LaunchFailed { run: r, why, .. } if *r == run => Some(Err(why.clone())),
                _ => None,
            });
            match started {
                Ok(pid) => {
                    let exe = fs::metadata(format!("/proc/{pid}/exe")).unwrap();
                    assert_ne!(exe.ino(), ino, "the other program runs");
                    ran += 1;
                    rig.send(&[Request::KillTree { run }]);
                }
                Err(why) => {
                    assert!(why.contains("cannot verify"), "{why}");
                    refused += 1;
                }
            }
        }
    });
    assert!(ran > 0 && refused > 0, "{ran} ran, {refused} were refused: they never met");
}
