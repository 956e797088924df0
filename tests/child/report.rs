//! What a process was given, as JSON: the fields of /proc/self/status that matter, and the rest of its
//! surroundings.

use keepd::sys::limits;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Lines of /proc/self/status that go into `status`, word by word.
const FIELDS: [&str; 15] = [
    "Name",
    "Umask",
    "Uid",
    "Gid",
    "Groups",
    "NoNewPrivs",
    "Seccomp",
    "CapInh",
    "CapPrm",
    "CapEff",
    "CapBnd",
    "CapAmb",
    "SigBlk",
    "SigIgn",
    "Cpus_allowed_list",
];

/// Writes it, whole or not at all.
pub(crate) fn write(file: &str) -> Result<(), Box<dyn std::error::Error>> {
    let draft = format!("{file}.{}", std::process::id());
    std::fs::write(&draft, serde_json::to_vec_pretty(&collect()?)?)?;
    Ok(std::fs::rename(draft, file)?)
}

fn collect() -> Result<Value, Box<dyn std::error::Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let mut fields = Map::new();
    for line in status.lines() {
        if let Some((name, rest)) = line.split_once(':').filter(|(n, _)| FIELDS.contains(n)) {
            fields.insert(name.into(), rest.split_whitespace().collect::<Vec<_>>().into());
        }
    }
    let env: BTreeMap<String, String> = std::env::vars().collect();
    let mut limit = Map::new();
    for resource in 0..16u32 {
        let pair = limits::get(resource)?;
        limit.insert(resource.to_string(), json!([pair.soft, pair.hard]));
    }
    Ok(json!({
        "pid": std::process::id(),
        "ppid": nix::unistd::getppid().as_raw(),
        "sid": nix::unistd::getsid(None)?.as_raw(),
        "pgid": nix::unistd::getpgrp().as_raw(),
        "cwd": std::env::current_dir()?,
        "argv": std::env::args().collect::<Vec<_>>(),
        "env": env,
        "status": fields,
        "limits": limit,
        "securebits": nix::errno::Errno::result(unsafe { libc::prctl(libc::PR_GET_SECUREBITS) })?,
        "keyring": unsafe { libc::syscall(libc::SYS_keyctl, 0, -3, 0) },
        "oom_score": read("/proc/self/oom_score_adj")?.trim(),
        "nice": unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) },
        "io_priority": unsafe { libc::syscall(libc::SYS_ioprio_get, 1, 0) },
        "mounts": mounts()?,
        "interfaces": interfaces()?,
        "namespaces": namespaces()?,
        "calls": {
            "sysfs": crate::attempt::attempt("sysfs")?,
            "ptrace-nobody": crate::attempt::attempt("ptrace-nobody")?,
        },
        "fds": descriptors()?,
        "cgroup": std::fs::read_to_string("/proc/self/cgroup")?.lines().find_map(|l| l.strip_prefix("0::")),
    }))
}

fn read(file: &str) -> std::io::Result<String> {
    std::fs::read_to_string(file)
}

/// Kind to number.
fn namespaces() -> std::io::Result<BTreeMap<&'static str, String>> {
    let link = |kind| Ok((kind, std::fs::read_link(format!("/proc/self/ns/{kind}"))?.display().to_string()));
    ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"].into_iter().map(link).collect()
}

/// Place to options and type, of the topmost mount at each place: the one that no other at that place lies on. The
/// order of the lines tells nothing of it.
fn mounts() -> std::io::Result<BTreeMap<String, String>> {
    let text = read("/proc/self/mountinfo")?;
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split(' ').collect()).collect();
    let covered = |m: &[&str]| lines.iter().any(|other| other[4] == m[4] && other[1] == m[0]);
    let top = lines.iter().filter(|m| !covered(m));
    let kind = |m: &[&str]| m.iter().skip_while(|w| **w != "-").nth(1).map_or("?", |kind| *kind).to_owned();
    Ok(top.map(|m| (m[4].to_owned(), format!("{} {}", m[5], kind(m)))).collect())
}

fn interfaces() -> std::io::Result<Vec<String>> {
    let text = read("/proc/self/net/dev")?;
    Ok(text.lines().skip(2).filter_map(|l| Some(l.split_once(':')?.0.trim().to_owned())).collect())
}

/// Number to what is behind it, without the descriptor that the looking itself takes.
fn descriptors() -> std::io::Result<BTreeMap<String, String>> {
    let mut out = BTreeMap::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        let Ok(target) = std::fs::read_link(entry.path()) else { continue };
        if !target.to_string_lossy().ends_with(&format!("/{}/fd", std::process::id())) {
            out.insert(entry.file_name().to_string_lossy().into_owned(), target.display().to_string());
        }
    }
    Ok(out)
}
