//! A service's configuration, drawn from a stream of numbers, and how it is written. What it ought to come to is
//! `expect`'s.

use crate::{
    common::{Dice, passwd},
    expect::Host,
};
use std::{collections::BTreeMap, path::Path};

/// What may be written for one service; `None` or empty is not written.
#[derive(Debug)]
pub(crate) struct Drawn {
    pub(crate) name: String,
    /// Never in user mode.
    pub(crate) user: Option<String>,
    pub(crate) group: Option<&'static str>,
    pub(crate) groups: Option<Vec<&'static str>>,
    pub(crate) directory: &'static str,
    pub(crate) umask: Option<u32>,
    pub(crate) env: BTreeMap<String, String>,
    pub(crate) env_file: BTreeMap<String, String>,
    pub(crate) port: Option<u16>,
    pub(crate) limits: Vec<Limit>,
    pub(crate) nice: Option<i64>,
    pub(crate) io: Option<(&'static str, u64)>,
    pub(crate) oom_score: Option<i64>,
    pub(crate) cpu: Option<String>,
    pub(crate) no_new_privileges: Option<bool>,
    pub(crate) capabilities: Option<Vec<&'static str>>,
    pub(crate) syscalls: Option<&'static str>,
    pub(crate) read_only: Option<&'static str>,
    pub(crate) private_tmp: bool,
    pub(crate) hide_home: bool,
    pub(crate) private_devices: bool,
    pub(crate) private_network: bool,
    pub(crate) stdout: Option<&'static str>,
    pub(crate) stderr: Option<&'static str>,
    pub(crate) runtime_dir: bool,
    pub(crate) state_dir: bool,
    pub(crate) credential: bool,
}

#[derive(Debug)]
pub(crate) struct Limit {
    pub(crate) key: &'static str,
    /// The kernel's number.
    pub(crate) resource: u32,
    pub(crate) soft: u64,
    pub(crate) hard: u64,
}

/// Key, number, and a value that no service of ours needs more than, and no host grants less than.
const LIMITS: &[(&str, u32, u64)] = &[
    ("cpu-time", 0, 600),
    ("file-size", 1, 1 << 30),
    ("stack", 3, 8 << 20),
    ("core", 4, 1 << 20),
    ("processes", 6, 2000),
    ("open-files", 7, 512),
    ("memlock", 8, 64 << 10),
    ("locks", 10, 100),
    ("sigpending", 11, 200),
    ("msgqueue", 12, 4096),
];

/// By the kernel's number; the helper and this test need none of them.
pub(crate) const CAPABILITIES: &[(&str, u64)] = &[
    ("CAP_CHOWN", 0),
    ("CAP_KILL", 5),
    ("CAP_NET_BIND_SERVICE", 10),
    ("CAP_IPC_LOCK", 14),
    ("CAP_SYS_NICE", 23),
];

fn one_of<T: Copy>(dice: &mut Dice, all: &[T]) -> T {
    all[usize::try_from(dice.below(all.len() as u64)).unwrap()]
}

fn maybe<T>(dice: &mut Dice, draw: impl FnOnce(&mut Dice) -> T) -> Option<T> {
    (dice.below(2) == 0).then(|| draw(dice))
}

fn some<T: Copy>(dice: &mut Dice, all: &[T]) -> Vec<T> {
    all.iter().copied().filter(|_| dice.below(3) == 0).collect()
}

impl Drawn {
    pub(crate) fn new(dice: &mut Dice, n: usize, host: &Host) -> Drawn {
        let system = !host.user_mode;
        let flag = |dice: &mut Dice| system && dice.below(3) == 0;
        let known: Vec<&str> =
            ["root", "daemon", "games", "nobody"].into_iter().filter(|name| passwd(name).is_some()).collect();
        let stranger = system && dice.below(8) == 0;
        let user = match stranger {
            true => Some("61234".to_owned()),
            false => system.then(|| one_of(dice, &known).to_owned()),
        };
        let groups = ["tty", "audio", "60001", "60002"];
        let least = |own: i64, may: bool, lowest: i64| if system && may { lowest } else { own };
        let (nice, oom) = (least(host.nice(), host.has(23), -5), least(host.oom_score(), host.has(24), -200));
        let no_new_privileges = maybe(dice, |dice| dice.below(2) == 0);
        // Where privileges can be gained, nobody but the mighty can be held to a list of calls.
        let syscalls = match no_new_privileges {
            Some(false) => Some("off"),
            _ => maybe(dice, |dice| one_of(dice, &["default", "service", "off"])),
        };
        Drawn {
            name: format!("m{n}"),
            user,
            group: match stranger {
                true => Some("60003"),
                false => maybe(dice, |dice| one_of(dice, &groups)).filter(|_| system),
            },
            groups: maybe(dice, |dice| some(dice, &groups)).filter(|_| system),
            directory: one_of(dice, &["/", "/usr", "/etc", "/var"]),
            umask: maybe(dice, |dice| one_of(dice, &[0o000, 0o002, 0o022, 0o027, 0o077])),
            env: variables(dice, "E"),
            env_file: variables(dice, "F"),
            port: maybe(dice, |dice| u16::try_from(1 + dice.below(65_535)).unwrap()),
            limits: limits(dice, host),
            nice: maybe(dice, |dice| nice + i64::try_from(dice.below(12)).unwrap()),
            io: maybe(dice, |dice| {
                one_of(dice, &[("idle", 3 << 13), ("best-effort:0", 2 << 13), ("best-effort", 2 << 13 | 4)])
            }),
            oom_score: maybe(dice, |dice| oom + i64::try_from(dice.below(700)).unwrap()),
            cpu: maybe(dice, |dice| host.one_cpu(dice)),
            no_new_privileges,
            capabilities: maybe(dice, |dice| some(dice, CAPABILITIES))
                .map(|all| all.into_iter().filter(|c| host.has(c.1)).map(|c| c.0).collect())
                .filter(|_| system),
            syscalls,
            read_only: maybe(dice, |dice| one_of(dice, &["no", "system", "strict"])).filter(|_| system),
            private_tmp: flag(dice),
            hide_home: flag(dice),
            private_devices: flag(dice),
            private_network: flag(dice),
            stdout: maybe(dice, |dice| one_of(dice, &["capture", "discard"])),
            stderr: maybe(dice, |dice| one_of(dice, &["merge", "separate", "discard"])),
            runtime_dir: dice.below(3) == 0,
            state_dir: dice.below(3) == 0,
            credential: flag(dice),
        }
    }

    /// The words of its command behind the program.
    pub(crate) fn arguments(&self, report: &Path) -> Vec<String> {
        let report = report.to_str().unwrap();
        let words = ["print", &self.name, "eprint", "err", "report", report, "sleep"];
        words.map(str::to_owned).to_vec()
    }

    /// What is in its log of stdout, and in that of stderr.
    pub(crate) fn output(&self) -> (String, String) {
        let (stdout, stderr) = (self.stdout.unwrap_or("capture"), self.stderr.unwrap_or("merge"));
        let (mut first, mut second) = (String::new(), String::new());
        if stdout == "capture" {
            first += &format!("{}\n", self.name);
        }
        match stderr {
            "merge" if stdout == "capture" => first += "err\n",
            "separate" => second += "err\n",
            _ => {}
        }
        (first, second)
    }

    pub(crate) fn env_file_text(&self) -> String {
        let quoted =
            |s: &str| format!("\"{}\"", s.replace('\\', "\\\\").replace('"', "\\\"").replace('$', "\\$"));
        self.env_file.iter().map(|(name, value)| format!("{name}={}\n", quoted(value))).collect()
    }

    /// `[service.NAME]`; `home` is the daemon's own folder.
    pub(crate) fn toml(&self, child: &Path, report: &Path, home: &Path) -> String {
        let dollars = |s: &str| s.replace('$', "$$");
        let mut command = vec![child.to_str().unwrap().to_owned()];
        command.extend(self.arguments(report));
        let mut out = format!("\n[service.{}]\n", self.name);
        let mut key = |name: &str, value: String| out += &format!("{name} = {value}\n");
        key("command", list(&command));
        key("directory", text(self.directory));
        key("env-files", list(&[home.join(format!("{}.env", self.name)).to_str().unwrap()]));
        self.user.iter().for_each(|user| key("user", text(user)));
        self.group.iter().for_each(|group| key("group", text(group)));
        self.groups.iter().for_each(|groups| key("groups", list(groups)));
        self.umask.iter().for_each(|umask| key("umask", text(&format!("{umask:04o}"))));
        self.port.iter().for_each(|port| key("port", port.to_string()));
        for (name, value) in &self.env {
            key(&format!("env.{name}"), text(&dollars(value)));
        }
        for l in &self.limits {
            key(&format!("limits.{}", l.key), text(&format!("{}:{}", l.soft, l.hard)));
        }
        self.nice.iter().for_each(|nice| key("resources.nice", nice.to_string()));
        self.io.iter().for_each(|io| key("resources.io-priority", text(io.0)));
        self.oom_score.iter().for_each(|score| key("resources.oom-score-adjust", score.to_string()));
        self.cpu.iter().for_each(|cpu| key("resources.cpu-affinity", text(cpu)));
        self.no_new_privileges.iter().for_each(|flag| key("sandbox.no-new-privileges", flag.to_string()));
        self.capabilities.iter().for_each(|all| key("sandbox.capabilities", list(all)));
        self.syscalls.iter().for_each(|word| key("sandbox.syscalls", text(word)));
        self.read_only.iter().for_each(|word| key("sandbox.read-only", text(word)));
        if self.read_only == Some("strict") {
            key("sandbox.writable", list(&[report.parent().unwrap().to_str().unwrap()]));
        }
        let flags = [
            ("private-tmp", self.private_tmp),
            ("hide-home", self.hide_home),
            ("private-devices", self.private_devices),
            ("private-network", self.private_network),
        ];
        for (name, _) in flags.iter().filter(|flag| flag.1) {
            key(&format!("sandbox.{name}"), "true".into());
        }
        self.stdout.iter().for_each(|word| key("logs.stdout", text(word)));
        self.stderr.iter().for_each(|word| key("logs.stderr", text(word)));
        if self.runtime_dir {
            key("runtime-dirs", list(&[format!("r-{}", self.name)]));
        }
        if self.state_dir {
            key("state-dirs", list(&[format!("s-{}", self.name)]));
        }
        if self.credential {
            key("credentials.key", text(home.join("secret").to_str().unwrap()));
        }
        out
    }
}

/// Strings of JSON are strings of TOML.
fn text(value: &str) -> String {
    serde_json::to_string(value).unwrap()
}

fn list<T: serde::Serialize>(values: &[T]) -> String {
    serde_json::to_string(values).unwrap()
}

fn variables(dice: &mut Dice, letter: &str) -> BTreeMap<String, String> {
    let values =
        ["", "1", "two words", "a=b", "\"quoted\" 'and so on'", "back\\slash", "${HOME} $x", "ünïcode", "#;"];
    (0..dice.below(4)).map(|n| (format!("{letter}{n}"), one_of(dice, &values).to_owned())).collect()
}

fn limits(dice: &mut Dice, host: &Host) -> Vec<Limit> {
    let mut out = Vec::new();
    for &(key, resource, most) in LIMITS.iter().filter(|l| host.hard_limit(l.1) >= l.2) {
        if dice.below(4) == 0 {
            // Half of it is still enough.
            let soft = most / 2 + dice.below(most / 2 + 1);
            let hard = soft + dice.below(most - soft + 1);
            out.push(Limit { key, resource, soft, hard });
        }
    }
    out
}
