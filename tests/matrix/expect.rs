//! What a drawn configuration ought to come to, said anew from what the manual says of each key, and where what a
//! service has found differs from it.

use crate::{
    common::{Daemon, Dice, cgroup_mount},
    draw::{CAPABILITIES, Drawn},
};
use serde_json::{Map, Value, json};
use std::{fs, os::unix::fs::MetadataExt, path::Path};

/// Signals 32 and 33 as bits of SigIgn.
const GLIBC_OWN: u64 = 3 << 31;

/// What a program finds here that was prepared by nobody: whatever no key changes is as it is there.
pub(crate) struct Host {
    pub(crate) report: Value,
    pub(crate) user_mode: bool,
}

impl Host {
    /// The bounding set.
    fn bounding(&self) -> u64 {
        u64::from_str_radix(self.report["status"]["CapBnd"][0].as_str().unwrap(), 16).unwrap()
    }

    /// Whether this capability can be given.
    pub(crate) fn has(&self, number: u64) -> bool {
        self.bounding() >> number & 1 == 1
    }

    pub(crate) fn nice(&self) -> i64 {
        self.report["nice"].as_i64().unwrap()
    }

    pub(crate) fn oom_score(&self) -> i64 {
        self.report["oom_score"].as_str().unwrap().parse().unwrap()
    }

    pub(crate) fn hard_limit(&self, resource: u32) -> u64 {
        self.report["limits"][resource.to_string()][1].as_u64().unwrap_or(u64::MAX)
    }

    /// One of those that a program may run on.
    pub(crate) fn one_cpu(&self, dice: &mut Dice) -> String {
        let all = self.report["status"]["Cpus_allowed_list"][0].as_str().unwrap();
        let ranges = all.split(',').map(|r| r.split_once('-').unwrap_or((r, r)));
        let cpus: Vec<u32> =
            ranges.flat_map(|(a, b)| a.parse().unwrap()..=b.parse::<u32>().unwrap()).collect();
        cpus[usize::try_from(dice.below(cpus.len() as u64)).unwrap()].to_string()
    }
}

/// An entry of the user database.
struct Account {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
    shell: String,
}

impl Account {
    fn find(name: &str) -> Account {
        let text = fs::read_to_string("/etc/passwd").unwrap();
        let mut lines = text.lines().map(|l| l.split(':').collect::<Vec<_>>());
        let or = |s: &str, other: &str| if s.is_empty() { other.to_owned() } else { s.to_owned() };
        match lines.find(|l| l[0] == name || l[2] == name) {
            Some(l) => Account {
                name: l[0].into(),
                uid: l[2].parse().unwrap(),
                gid: l[3].parse().unwrap(),
                home: or(l[5], "/"),
                shell: or(l[6], "/bin/sh"),
            },
            None => {
                let uid = name.parse().unwrap();
                Account { name: name.into(), uid, gid: 0, home: "/".into(), shell: "/bin/sh".into() }
            }
        }
    }
}

/// (number, members)
fn group(name: &str) -> (u32, Vec<String>) {
    let text = fs::read_to_string("/etc/group").unwrap();
    let line = text.lines().map(|l| l.split(':').collect::<Vec<_>>()).find(|l| l[0] == name);
    match line {
        Some(l) => (l[2].parse().unwrap(), l[3].split(',').map(str::to_owned).collect()),
        None => (name.parse().unwrap(), Vec::new()),
    }
}

fn groups_that_list(user: &str) -> Vec<u32> {
    let text = fs::read_to_string("/etc/group").unwrap();
    let names = text.lines().map(|l| l.split(':').next().unwrap());
    let all = names.map(group).filter(|(_, members)| members.iter().any(|m| m == user));
    all.map(|(gid, _)| gid).collect()
}

/// One sentence for each field that is not as it ought to be.
pub(crate) fn differences(
    one: &Drawn,
    host: &Host,
    d: &Daemon,
    found: Value,
    child: &Path,
    file: &Path,
) -> Vec<String> {
    let mut check = Check { found, wrong: Vec::new() };
    let service = d.service(&one.name);
    let who = identity(one, host, &mut check, &service);
    privileges(one, host, &mut check, &who, &service);
    surroundings(one, host, &mut check, d, &service);
    environment(one, &mut check, d, &who, host);
    files(one, host, &mut check, d, file);
    let mut argv = vec![child.to_str().unwrap().to_owned()];
    argv.extend(one.arguments(file));
    check.is("argv", json!(argv));
    provided(one, &mut check, d, &who);
    check.wrong
}

struct Check {
    found: Value,
    wrong: Vec<String>,
}

impl Check {
    /// `path`: keys with slashes between them.
    fn is(&mut self, path: &str, wanted: Value) {
        let got = self.found.pointer(&format!("/{path}")).cloned().unwrap_or_default();
        self.same(path, &got, &wanted);
    }

    fn same(&mut self, what: &str, got: &Value, wanted: &Value) {
        if got != wanted {
            self.wrong.push(format!("{what} is {got}, not {wanted}"));
        }
    }

    fn as_on(&mut self, host: &Host, path: &str) {
        self.is(path, host.report.pointer(&format!("/{path}")).cloned().unwrap());
    }

    fn status(&mut self, field: &str, wanted: &str) {
        self.is(&format!("status/{field}"), json!(wanted.split_whitespace().collect::<Vec<_>>()));
    }
}

/// Whom it is; in user mode it stays who keepd is.
fn identity(one: &Drawn, host: &Host, check: &mut Check, service: &Value) -> Account {
    let Some(user) = &one.user else {
        for field in ["Uid", "Gid", "Groups"] {
            check.as_on(host, &format!("status/{field}"));
        }
        return Account::find(host.report["status"]["Uid"][0].as_str().unwrap());
    };
    let mut who = Account::find(user);
    who.gid = one.group.map_or(who.gid, |g| group(g).0);
    let mut groups = match &one.groups {
        Some(named) => named.iter().map(|g| group(g).0).collect(),
        None => groups_that_list(&who.name),
    };
    groups.push(who.gid);
    groups.sort_unstable();
    groups.dedup();
    let shown = |all: &[u32]| all.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
    check.status("Uid", &shown(&[who.uid; 4]));
    check.status("Gid", &shown(&[who.gid; 4]));
    check.status("Groups", &shown(&groups));
    let said = &service["identity"];
    check.same("the API's user", &said["user"], &json!(who.name));
    check.same("the API's ids", &json!([said["uid"], said["gid"]]), &json!([who.uid, who.gid]));
    check.same("the API's groups", &said["groups"], &json!(groups));
    who
}

fn privileges(one: &Drawn, host: &Host, check: &mut Check, who: &Account, service: &Value) {
    let none = one.no_new_privileges.unwrap_or(true);
    check.status("NoNewPrivs", if none { "1" } else { "0" });
    let named = one.capabilities.as_ref().map(|names| {
        let bit = |name: &&str| 1u64 << CAPABILITIES.iter().find(|c| c.0 == *name).unwrap().1;
        names.iter().map(bit).sum::<u64>()
    });
    let hex = |set: u64| format!("{set:016x}");
    if host.user_mode {
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            check.as_on(host, &format!("status/{set}"));
        }
    } else {
        let root = who.uid == 0;
        let mut set = named.unwrap_or(if root { host.bounding() } else { 0 });
        if one.private_devices {
            set &= !(1 << 27 | 1 << 17);
        }
        for field in ["CapPrm", "CapEff", "CapBnd"] {
            check.status(field, &hex(set));
        }
        for field in ["CapInh", "CapAmb"] {
            check.status(field, &hex(if root { 0 } else { set }));
        }
        // Root gives nothing back to a service that is not root's and can gain nothing.
        check.is("securebits", json!(if !root && none { 0b11 } else { 0 }));
    }
    let syscalls = one.syscalls.unwrap_or("default");
    let denied = |check: &mut Check, call: &str, by: &[&str]| match by.contains(&syscalls) {
        true => check.is(&format!("calls/{call}"), json!("EPERM")),
        false => check.as_on(host, &format!("calls/{call}")),
    };
    if cfg!(target_arch = "x86_64") {
        denied(check, "sysfs", &["default", "service"]);
    }
    denied(check, "ptrace-nobody", &["service"]);
    match syscalls {
        "off" => check.as_on(host, "status/Seccomp"),
        _ => check.status("Seccomp", "2"),
    }
    let said = &service["identity"];
    check.same("the API's no_new_privileges", &said["no_new_privileges"], &json!(none));
    check.same("the API's seccomp", &said["seccomp"], &json!(syscalls));
    if let Some(names) = &one.capabilities {
        check.same("the API's capabilities", &said["capabilities"], &json!(names));
    }
}

/// Session, signals, limits, share of the scheduler.
fn surroundings(one: &Drawn, host: &Host, check: &mut Check, d: &Daemon, service: &Value) {
    for field in ["pid", "sid", "pgid"] {
        check.is(field, service["pid"].clone());
    }
    check.is("ppid", json!(d.keeper()));
    check.status("Name", "child");
    check.status("Umask", &format!("{:04o}", one.umask.unwrap_or(0o022)));
    check.status("SigBlk", "0000000000000000");
    // The helper's own runtime ignores SIGPIPE. What glibc keeps for itself may be as whoever runs this test left it.
    let ignored = check.found["status"]["SigIgn"][0].as_str().unwrap_or_default();
    let ignored = u64::from_str_radix(ignored, 16).map(|mask| mask & !GLIBC_OWN).ok();
    check.same("the signals it ignores", &json!(ignored), &json!(1 << 12));
    let mut limits = host.report["limits"].as_object().unwrap().clone();
    limits.extend(one.limits.iter().map(|l| (l.resource.to_string(), json!([l.soft, l.hard]))));
    check.is("limits", Value::Object(limits));
    check.is("nice", json!(one.nice.unwrap_or_else(|| host.nice())));
    match one.io {
        Some((_, io)) => check.is("io_priority", json!(io)),
        None if one.nice.is_none() => check.as_on(host, "io_priority"),
        // What the kernel tells then goes with the nice value.
        None => {}
    }
    check.is("oom_score", json!(one.oom_score.unwrap_or(host.oom_score().max(0)).to_string()));
    match &one.cpu {
        Some(cpu) => check.status("Cpus_allowed_list", cpu),
        None => check.as_on(host, "status/Cpus_allowed_list"),
    }
    if cgroup_mount().is_some() && !host.user_mode {
        let cgroup = check.found["cgroup"].as_str().unwrap_or_default().to_owned();
        let name = cgroup.rsplit('/').next().map(str::to_owned);
        check.same("its cgroup", &json!(name), &json!(format!("{}.{}", one.name, service["run_id"])));
    }
}

fn environment(one: &Drawn, check: &mut Check, d: &Daemon, who: &Account, host: &Host) {
    let beside = |name: String| d.path().join(name).display().to_string();
    let mut env = Map::from_iter(
        [
            ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
            ("USER", &who.name),
            ("LOGNAME", &who.name),
            ("HOME", &who.home),
            ("SHELL", &who.shell),
        ]
        .map(|(name, value)| (name.to_owned(), json!(value))),
    );
    if host.user_mode {
        // Its home is where keepd was told that it is.
        env.insert("HOME".into(), check.found["env"]["HOME"].clone());
    }
    env.extend(one.port.map(|port| ("PORT".into(), json!(port.to_string()))));
    if one.runtime_dir {
        env.insert("RUNTIME_DIRECTORY".into(), json!(beside(format!("r-{}", one.name))));
    }
    if one.state_dir {
        env.insert("STATE_DIRECTORY".into(), json!(beside(format!("s-{}", one.name))));
    }
    if one.credential {
        env.insert("CREDENTIALS_DIRECTORY".into(), json!(beside("run/credentials".into())));
    }
    env.extend(one.env.iter().chain(&one.env_file).map(|(name, value)| (name.clone(), json!(value))));
    let id = check.found["env"].as_object_mut().unwrap().remove("INVOCATION_ID").unwrap_or_default();
    let fine = id.as_str().is_some_and(|id| id.len() == 32 && id.chars().all(|c| c.is_ascii_hexdigit()));
    check.same("INVOCATION_ID is one", &json!(fine), &json!(true));
    check.is("env", Value::Object(env));
}

/// Descriptors, and what of the host's files and network it sees.
fn files(one: &Drawn, host: &Host, check: &mut Check, d: &Daemon, file: &Path) {
    check.is("cwd", json!(one.directory));
    let (captured, stderr) = (one.stdout != Some("discard"), one.stderr.unwrap_or("merge"));
    let fds = check.found["fds"].as_object().unwrap().clone();
    check.same("descriptors", &json!(fds.keys().collect::<Vec<_>>()), &json!(["0", "1", "2"]));
    let is_pipe = |fd: &str| fds[fd].as_str().is_some_and(|to| to.starts_with("pipe:"));
    let null = |fd: &str| fds[fd] == "/dev/null";
    let (out, err) = (
        if captured { is_pipe("1") } else { null("1") },
        match stderr {
            "merge" => fds["1"] == fds["2"],
            "separate" => is_pipe("2") && fds["1"] != fds["2"],
            _ => null("2"),
        },
    );
    let fine = null("0") && out && err;
    check.same(&format!("streams lead where they ought to, {fds:?}"), &json!(fine), &json!(true));

    let strict = one.read_only == Some("strict");
    let system = one.read_only == Some("system");
    let own_mounts =
        strict || system || one.private_tmp || one.hide_home || one.private_devices || one.credential;
    for (kind, number) in host.report["namespaces"].as_object().unwrap() {
        let own = kind == "mnt" && own_mounts || kind == "net" && one.private_network;
        let same = check.found["namespaces"][kind] == *number;
        check.same(&format!("its own namespace `{kind}`"), &json!(!same), &json!(own));
    }
    match one.private_network {
        true => check.is("interfaces", json!(["lo"])),
        false => check.as_on(host, "interfaces"),
    }
    // (place, how its options begin, type)
    let mut wanted = Vec::new();
    let mut mount = |at: &str, begin: &'static str, kind: &'static str| {
        if Path::new(at).exists() {
            wanted.push((at.to_owned(), begin, kind));
        }
    };
    if strict {
        mount("/", "ro", "");
        mount(file.parent().unwrap().to_str().unwrap(), "rw", "");
    }
    if system {
        for at in ["/usr", "/etc", "/boot"] {
            mount(at, "ro", "");
        }
    }
    if one.private_tmp {
        mount("/tmp", "rw,nosuid,nodev", "tmpfs");
        mount("/var/tmp", "rw,nosuid,nodev", "tmpfs");
    }
    if one.hide_home {
        for at in ["/home", "/root", "/run/user"] {
            mount(at, "ro,nosuid,nodev,noexec", "tmpfs");
        }
    }
    if one.private_devices {
        mount("/dev", "ro,nosuid", "tmpfs");
    }
    if one.credential {
        wanted.push((d.path().join("run/credentials").display().to_string(), "ro", ""));
    }
    for (at, begin, kind) in wanted {
        let got = check.found["mounts"][&at].clone();
        let fine = got.as_str().is_some_and(|got| got.starts_with(begin) && got.ends_with(kind));
        check.same(&format!("{at} is mounted {begin} {kind}, {got}"), &json!(fine), &json!(true));
    }
}

/// The folders that were made for it.
fn provided(one: &Drawn, check: &mut Check, d: &Daemon, who: &Account) {
    let gid = if one.user.is_none() { None } else { Some(who.gid) };
    for (asked, letter) in [(one.runtime_dir, "r"), (one.state_dir, "s")] {
        let path = d.path().join(format!("{letter}-{}", one.name));
        let got = fs::metadata(&path).ok().map(|m| (m.uid(), gid.map(|_| m.gid()), m.mode() & 0o7777));
        let wanted = asked.then(|| (who.uid, gid, 0o777 & !one.umask.unwrap_or(0o022)));
        check.same(&path.display().to_string(), &json!(got), &json!(wanted));
    }
}
