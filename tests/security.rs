//! Claims of docs/security.md that take a whole daemon: who may touch what it leaves on disk, what it listens on, what
//! a lie in a file makes it do, how its program is built.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod common;

use common::{SOON, Setup, is_alive, is_root, passwd, service, skip, wait_for};
use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    path::Path,
    process::{Command, Stdio},
};

/// Every file and folder below, with what its owner and others may do.
fn walk(dir: &Path, seen: &mut Vec<(String, fs::Metadata)>) {
    for entry in fs::read_dir(dir).unwrap().map(|e| e.unwrap()) {
        let meta = fs::symlink_metadata(entry.path()).unwrap();
        seen.push((entry.path().display().to_string(), meta.clone()));
        if meta.is_dir() {
            walk(&entry.path(), seen);
        }
    }
}

#[test]
fn what_is_kept_on_disk_is_for_nobody_else() {
    if !is_root() {
        return skip("needs root: there is one user else");
    }
    let services = service("web", "echo hello; exec sleep 1000", "user = \"nobody\"\ngroup = \"nogroup\"");
    let d = Setup {
        services: &services,
        daemon: "user = \"daemon\"\nlog-file = \"keepd.log\"",
        ..Setup::default()
    }
    .start();
    d.wait_running("web");
    d.wait_log("web", "hello");
    let (uid, gid) = passwd("daemon").unwrap();
    for (folder, of_folders, of_files) in [("log", 0o750, 0o640), ("state", 0o750, 0o640)] {
        let mut seen = Vec::new();
        walk(&d.path().join(folder), &mut seen);
        assert!(folder == "state" || seen.len() >= 3, "{seen:?}");
        for (path, meta) in seen {
            assert_eq!((meta.uid(), meta.gid()), (uid, gid), "{path}");
            let most = if meta.is_dir() { of_folders } else { of_files };
            assert_eq!(meta.mode() & 0o7777 & !most, 0, "{path} has mode {:o}", meta.mode());
        }
    }
    // In the runtime folder everybody may look for the socket, and change nothing.
    let mut seen = Vec::new();
    walk(&d.path().join("run"), &mut seen);
    for (path, meta) in seen.iter().filter(|(_, meta)| !meta.file_type().is_socket()) {
        assert!([0, uid].contains(&meta.uid()) && meta.mode() & 0o022 == 0, "{path}: {:o}", meta.mode());
    }
    d.shutdown();
}

/// The inodes of the sockets that a process has.
fn sockets(pid: u32) -> BTreeSet<String> {
    let fds = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().map(|e| fs::read_link(e.unwrap().path()));
    let names = fds.filter_map(Result::ok).map(|l| l.to_string_lossy().into_owned());
    names.filter_map(|n| Some(n.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned())).collect()
}

#[test]
fn nothing_is_listened_on_but_unix_sockets() {
    let d = Setup { services: &service("web", "exec sleep 1000", ""), ..Setup::default() }.start();
    d.wait_running("web");
    let mut own = sockets(d.keeper());
    own.extend(sockets(d.manager()));
    assert!(!own.is_empty());
    let table = |name: &str| fs::read_to_string(format!("/proc/net/{name}")).unwrap_or_default();
    for name in ["tcp", "tcp6", "udp", "udp6", "raw", "raw6"] {
        for line in table(name).lines() {
            let inode = line.split_whitespace().nth(9).unwrap_or_default();
            assert!(!own.contains(inode), "a socket of {name}: {line}");
        }
    }
    let named: BTreeSet<String> = table("unix")
        .lines()
        .filter(|l| l.split_whitespace().nth(6).is_some_and(|inode| own.contains(inode)))
        // It got its present name once it was ready.
        .filter_map(|l| Some(l.split_whitespace().nth(7)?.trim_end_matches('~').to_owned()))
        .collect();
    let sessions = d.path().join("run/exec.sock");
    let wanted = [&d.socket, &sessions].map(|path| path.display().to_string());
    assert_eq!(named, BTreeSet::from(wanted), "abstract ones begin with @");
    d.shutdown();
}

/// No number from a file is ever sent a signal.
#[test]
fn a_pid_in_a_file_is_not_believed() {
    let mut victim = Command::new("/bin/sleep").arg("1000").stdin(Stdio::null()).spawn().unwrap();
    for lie in
        [victim.id().to_string(), format!("{}\n", victim.id()), "1".into(), "-1".into(), "x".repeat(9999)]
    {
        let mut d = Setup { services: &service("web", "exec sleep 1000", ""), ..Setup::default() }.prepare();
        let lock = d.path().join("run/keepd.lock");
        fs::write(&lock, lie).unwrap();
        let meta = fs::metadata(d.path().join("run")).unwrap();
        std::os::unix::fs::chown(&lock, Some(meta.uid()), Some(meta.gid())).unwrap();
        d.launch();
        d.await_api();
        d.wait_running("web");
        d.shutdown();
        assert!(is_alive(victim.id()));
    }
    victim.kill().unwrap();
    victim.wait().unwrap();
}

#[test]
fn another_program_than_was_meant_is_a_failed_start_and_an_event() {
    let d = Setup::default().prepare();
    let program = d.path().join("program");
    fs::copy("/bin/sleep", &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let sum = Command::new("sha256sum").arg(&program).output().unwrap().stdout;
    let sum = String::from_utf8(sum).unwrap()[..64].to_owned();
    d.write_config(&format!(
        "[service.web]\ncommand = [\"{}\", \"1000\"]\nverify = {{ sha256 = \"{sum}\" }}\n\
         backoff = {{ delay = \"1ms\", max = \"1ms\" }}\n",
        program.display()
    ));
    let mut d = d;
    d.launch();
    d.await_api();
    d.wait_running("web");
    d.ctl_ok(&["stop", "web"]);
    fs::copy("/bin/cat", d.path().join("other")).unwrap();
    fs::rename(d.path().join("other"), &program).unwrap();
    let said = d.ctl_fails(1, &["start", "web"]);
    let why = format!("cannot verify {}: its sha256 is ", program.display());
    assert!(said.contains(&why), "{said}");
    wait_for("the event", SOON, || d.ctl_ok(&["events"]).contains(&why).then_some(()));
    d.shutdown();
}

/// A position-independent program, whose relocations are read-only before its first instruction, without a page that
/// can be written and executed.
#[test]
fn the_program_is_built_hard() {
    const PT_LOAD: u32 = 1;
    const PT_DYNAMIC: u32 = 2;
    const PT_GNU_STACK: u32 = 0x6474_e551;
    const PT_GNU_RELRO: u32 = 0x6474_e552;
    const DT_FLAGS_1: u64 = 0x6fff_fffb;
    const NOW: u64 = 1;
    let elf = fs::read(env!("CARGO_BIN_EXE_keepd")).unwrap();
    let number =
        |at: usize, bytes: usize| elf[at..at + bytes].iter().rev().fold(0u64, |n, b| n << 8 | u64::from(*b));
    assert_eq!((&elf[..4], elf[4]), (&b"\x7fELF"[..], 2), "64 bits");
    assert_eq!(number(16, 2), 3, "ET_DYN: at an address of the kernel's choice");
    let (table, size, count) = (number(32, 8), number(54, 2), number(56, 2));
    let mut kinds = BTreeSet::new();
    for n in 0..count {
        let at = usize::try_from(table + n * size).unwrap();
        let (kind, flags) = (u32::try_from(number(at, 4)).unwrap(), number(at + 4, 4));
        kinds.insert(kind);
        if kind == PT_LOAD || kind == PT_GNU_STACK {
            assert_ne!(flags & 0b011, 0b011, "segment {n} can be written and executed");
        }
        if kind == PT_DYNAMIC {
            let (from, len) = (number(at + 8, 8), number(at + 32, 8));
            let entries = (from..from + len).step_by(16).map(|e| usize::try_from(e).unwrap());
            let now = entries.into_iter().any(|e| number(e, 8) == DT_FLAGS_1 && number(e + 8, 8) & NOW != 0);
            assert!(now, "all of its relocations are done at the start");
        }
    }
    assert!(kinds.contains(&PT_GNU_RELRO) && kinds.contains(&PT_GNU_STACK), "{kinds:x?}");
}
