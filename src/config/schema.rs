//! Every key there is: what it takes, and which are not supported by this version. The one table that
//! decides between "take it", "not supported" and "unknown, did you mean". Data only.

/// One key of a table.
#[derive(Debug)]
pub(super) struct Key {
    /// Dotted, from the table that it belongs to: `backoff.delay` in a service.
    pub(super) path: &'static str,
    pub(super) kind: Kind,
}

impl Key {
    /// The last part of the path.
    pub(super) fn name(&self) -> &'static str {
        self.path.rsplit('.').next().unwrap_or(self.path)
    }
}

/// What a key takes.
#[derive(Debug)]
pub(super) enum Kind {
    /// true or false.
    Flag,
    /// One line of text.
    Text,
    /// A path, not empty.
    Path,
    /// A user or group: its name, or its number.
    Account,
    /// An array of strings.
    Names,
    /// A command: an array, or one string that is split.
    Command,
    /// A whole number in this range.
    Count(u64, u64),
    /// A whole number in this range, which may be negative.
    Whole(i64, i64),
    /// A number in this range, kept in thousandths.
    Permille(u32, u32),
    /// A duration of at least so many milliseconds.
    Time(u64),
    /// A duration of at least a millisecond, or `"never"`.
    TimeOrNever,
    /// A size of at least so many bytes.
    Size(u64),
    /// Bytes, at least and at most so many.
    SizeIn(u64, u64),
    /// A size, or a percentage.
    Share,
    /// A whole number of percent in this range, as in `"150%"`.
    Percent(u32, u32),
    /// When logs are rotated by time.
    Rotate,
    Signal,
    /// An array of exit statuses and signal names.
    Exits,
    /// File mode bits in octal.
    Mask,
    /// An array of names of capabilities.
    Capabilities,
    /// An array of some of these words, each at most once.
    Words(&'static [&'static str]),
    /// A class of turns at the disks, and a level in it.
    IoPriority,
    /// Numbers of CPUs and ranges of them.
    Cpus,
    /// A table of strings.
    Map,
    /// A resource limit with the kernel's number; true: in bytes.
    Limit(u32, bool),
    /// One of these words; only those of the second list are supported.
    Choice(&'static [&'static str], &'static [&'static str]),
    /// A table of these.
    Table(&'static [Key]),
    /// Part of the schema, refused by this version; with its own keys where it is a table.
    Future(&'static [&'static str]),
    /// `[service.NAME]`, each a table of [`SERVICE`].
    Services,
    /// `[hook.NAME]`, each a table of [`HOOK`](super::hooks::HOOK).
    Hooks,
    /// `profile = "P"`, or `[profile.P]` with `defaults` and `service`.
    Profiles,
}

use Kind::*;

const fn key(path: &'static str, kind: Kind) -> Key {
    Key { path, kind }
}

const LEAF: Kind = Future(&[]);
const ANY: u64 = u32::MAX as u64;

/// The top level of a file.
pub(super) static ROOT: &[Key] = &[
    key("profile", Profiles),
    key("daemon", Table(DAEMON)),
    key("api", Table(API)),
    key("defaults", Table(SERVICE)),
    key("service", Services),
    key("logs", Table(HOST_LOGS)),
    key("compat", LEAF),
    key("hook", Hooks),
];

/// `[profile.P]`
pub(super) static PROFILE: &[Key] = &[key("defaults", Table(SERVICE)), key("service", Services)];

static DAEMON: &[Key] = &[
    key("user", Account),
    key("runtime-dir", Path),
    key("state-dir", Path),
    key("log-dir", Path),
    key("log-level", choice(&["error", "warn", "info", "debug", "trace"])),
    key("log-file", Path),
    key("max-concurrent-starts", Count(1, ANY)),
    key(
        "restart-budget",
        Table(&[key("restart-budget.starts", Count(1, ANY)), key("restart-budget.within", Time(1))]),
    ),
    key("shutdown-timeout", Time(0)),
];

static HOST_LOGS: &[Key] = &[key("max-total", Share), key("keep-free", Share)];

static API: &[Key] = &[
    key("socket", Path),
    key("admins", Names),
    key("readers", Names),
    key("listen", LEAF),
    key("token-file", LEAF),
];

const fn choice(words: &'static [&'static str]) -> Kind {
    Choice(words, words)
}

/// A service, `[defaults]`, and a profile's overlays of both.
pub(super) static SERVICE: &[Key] = &[
    key("description", Text),
    key("command", Command),
    key("type", choice(&["daemon", "oneshot"])),
    key("directory", Path),
    key("user", Account),
    key("group", Account),
    key("groups", Names),
    key("umask", Mask),
    key("env", Map),
    key("env-files", Names),
    key("credentials", Map),
    key("runtime-dirs", Names),
    key("state-dirs", Names),
    key("autostart", Flag),
    key("instances", Count(1, 10_000)),
    key("port", Count(1, 65_535)),
    key("stdin", choice(&["null"])),
    key("requires", Names),
    key("wants", Names),
    key("after", Names),
    key("binds-to", Names),
    key("restart", choice(&["always", "on-failure", "never"])),
    key("success-exit", Exits),
    key("no-restart-exit", Exits),
    key("stop-signal", Signal),
    key("stop-timeout", Time(0)),
    key("stop-command", Command),
    key("reload-signal", Signal),
    key("reload-command", Command),
    key("schedule", Text),
    key("timeout", TimeOrNever),
    key("verify", Table(VERIFY)),
    key("backoff", Table(BACKOFF)),
    key("breaker", Table(BREAKER)),
    key("limits", Table(LIMITS)),
    key("sandbox", Table(SANDBOX)),
    key("logs", Table(LOGS)),
    key("ready", Table(READY)),
    key("live", Table(LIVE)),
    key("resources", Table(RESOURCES)),
    key("watch", Table(WATCH)),
    key("sockets", LEAF),
    key("rollout", Future(&["strategy", "max-unavailable", "canary", "observe", "on-failure"])),
];

static VERIFY: &[Key] = &[key("verify.sha256", Text), key("verify.minisign-key", Text)];

static BACKOFF: &[Key] = &[
    key("backoff.delay", Time(0)),
    key("backoff.factor", Permille(1000, 1_000_000)),
    key("backoff.max", Time(0)),
    key("backoff.jitter", Permille(0, 1000)),
    key("backoff.reset-after", Time(1)),
];

static BREAKER: &[Key] = &[
    key("breaker.failures", Count(1, ANY)),
    key("breaker.within", Time(1)),
    key("breaker.retry-every", TimeOrNever),
];

/// Linux's limits with their numbers on x86-64 and arm64.
pub(super) static LIMITS: &[Key] = &[
    key("limits.cpu-time", Limit(0, false)),
    key("limits.file-size", Limit(1, true)),
    key("limits.data", Limit(2, true)),
    key("limits.stack", Limit(3, true)),
    key("limits.core", Limit(4, true)),
    key("limits.rss", Limit(5, true)),
    key("limits.processes", Limit(6, false)),
    key("limits.open-files", Limit(7, false)),
    key("limits.memlock", Limit(8, true)),
    key("limits.address-space", Limit(9, true)),
    key("limits.locks", Limit(10, false)),
    key("limits.sigpending", Limit(11, false)),
    key("limits.msgqueue", Limit(12, true)),
    key("limits.nice", Limit(13, false)),
    key("limits.rtprio", Limit(14, false)),
    key("limits.rttime", Limit(15, false)),
];

static RESOURCES: &[Key] = &[
    key("resources.memory-max", MEMORY),
    key("resources.memory-high", MEMORY),
    key("resources.cpu-max", Percent(1, 100_000)),
    key("resources.cpu-weight", Count(1, 10_000)),
    key("resources.pids-max", Count(1, 4 << 20)),
    key("resources.io-weight", Count(1, 10_000)),
    key("resources.nice", Whole(-20, 19)),
    key("resources.io-priority", IoPriority),
    key("resources.oom-score-adjust", Whole(-1000, 1000)),
    key("resources.cpu-affinity", Cpus),
];

/// Below a MiB no program can even be executed, and whoever writes a plain number may have meant another unit.
const MEMORY: Kind = SizeIn(1 << 20, 1 << 50);

static WATCH: &[Key] = &[
    key("watch.memory", MEMORY),
    key("watch.cpu", Percent(1, 100_000)),
    key("watch.for", Time(1000)),
    key("watch.action", choice(&["restart", "alert"])),
];

static READY: &[Key] = &[
    key("ready.notify", Flag),
    key("ready.fd", Count(3, 255)),
    key("ready.http", Text),
    key("ready.http-status", Text),
    key("ready.http-body", Text),
    key("ready.http-headers", Map),
    key("ready.tcp", Text),
    key("ready.unix", Path),
    key("ready.exec", Command),
    key("ready.log", Text),
    key("ready.within", Time(1)),
    key("ready.interval", Time(10)),
    key("ready.timeout", Time(1)),
    key("ready.failures", Count(1, 1000)),
    key("ready.successes", Count(1, 1000)),
];

static LIVE: &[Key] = &[
    key("live.notify", Flag),
    key("live.http", Text),
    key("live.http-status", Text),
    key("live.http-body", Text),
    key("live.http-headers", Map),
    key("live.tcp", Text),
    key("live.unix", Path),
    key("live.exec", Command),
    key("live.interval", Time(10)),
    key("live.timeout", Time(1)),
    key("live.failures", Count(1, 1000)),
    key("live.action", choice(&["restart", "alert"])),
];

static SANDBOX: &[Key] = &[
    key("sandbox.no-new-privileges", Flag),
    key("sandbox.capabilities", Capabilities),
    key("sandbox.private-tmp", Flag),
    key("sandbox.read-only", choice(&["no", "system", "strict"])),
    key("sandbox.writable", Names),
    key("sandbox.hide-home", Flag),
    key("sandbox.private-devices", Flag),
    key("sandbox.private-network", Flag),
    key("sandbox.syscalls", choice(&["default", "service", "off"])),
];

static LOGS: &[Key] = &[
    key("logs.max-size", Size(1)),
    key("logs.rotate", Rotate),
    key("logs.keep", Count(0, ANY)),
    key("logs.keep-for", TimeOrNever),
    key("logs.max-total", Size(1)),
    key("logs.compress", choice(&["gzip", "none"])),
    key("logs.format", choice(&["raw", "timestamp", "json"])),
    key("logs.stdout", choice(&["capture", "discard"])),
    key("logs.stderr", choice(&["merge", "separate", "discard"])),
    key("logs.on-full", choice(&["drop", "block"])),
    key("logs.max-line", SizeIn(64, 256 << 10)),
    key("logs.forward", Words(&["journal", "syslog"])),
];

/// The path of every key there is, also of those that this version refuses: for documentation that leaves none out.
pub fn keys() -> Vec<&'static str> {
    fn walk(keys: &'static [Key], out: &mut Vec<&'static str>) {
        for key in keys {
            out.push(key.path);
            if let Table(inner) = key.kind {
                walk(inner, out);
            }
        }
    }
    let mut paths = Vec::new();
    walk(ROOT, &mut paths);
    paths
}

/// The key that somebody who wrote `wrong` may have meant: the same name in another table of a service, or
/// else a sibling of a like name.
pub(super) fn suggest(wrong: &str, siblings: &'static [Key]) -> Option<&'static str> {
    let supported = |k: &&Key| !matches!(k.kind, Future(_));
    let in_service = siblings.iter().any(|k| k.path == "command");
    let tables = SERVICE.iter().filter_map(|k| if let Table(keys) = k.kind { Some(keys) } else { None });
    if let Some(key) = tables.flatten().filter(supported).find(|k| in_service && k.name() == wrong) {
        return Some(key.path);
    }
    let name = closest(wrong, siblings.iter().filter(supported).map(Key::name))?;
    siblings.iter().find(|k| k.name() == name).map(|k| k.path)
}

/// The candidate nearest to `wrong`, if it is near enough to be a slip.
pub(super) fn closest<'a>(wrong: &str, candidates: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (wrong.chars().count() / 3).clamp(1, 3);
    candidates
        .filter(|c| c.len().abs_diff(wrong.len()) <= allowed + 1)
        .map(|c| (strsim::damerau_levenshtein(wrong, c), c))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, c)| c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_find_their_key() {
        for (wrong, meant) in [
            ("comand", Some("command")),
            ("stop_timeout", Some("stop-timeout")),
            ("usr", Some("user")),
            ("max-size", Some("logs.max-size")),
            ("open-files", Some("limits.open-files")),
            ("colour", None),
        ] {
            assert_eq!(suggest(wrong, SERVICE), meant, "{wrong}");
        }
        assert_eq!(suggest("dleay", BACKOFF), Some("backoff.delay"));
        assert_eq!(suggest("logs", DAEMON), None);
    }

    /// Every key under its name, also where it is named as not supported.
    fn all(keys: &'static [Key], out: &mut Vec<&'static Key>) {
        for key in keys {
            out.push(key);
            if let Table(inner) = key.kind {
                all(inner, out);
            }
        }
    }

    #[test]
    fn every_key_is_documented() {
        let (docs, reference) =
            (include_str!("../../docs/configuration.md"), include_str!("../../config/keepd.toml"));
        let mut keys = Vec::new();
        all(ROOT, &mut keys);
        for key in keys {
            let name = key.name();
            let forms = [
                format!("`{name}`"),
                format!("`[{name}"),
                format!(".{name}]`"),
                format!(".{name}."),
                format!("[{name}."),
            ];
            let inline = ["starts", "within"].contains(&name);
            assert!(inline || forms.iter().any(|f| docs.contains(f.as_str())), "docs: {}", key.path);
            let limit = matches!(key.kind, Limit(..));
            let unsupported = matches!(key.kind, Future(_));
            let written = [format!("{name} = "), format!(".{name}]"), format!("[{name}")];
            assert!(
                limit || unsupported || written.iter().any(|f| reference.contains(f.as_str())),
                "keepd.toml: {}",
                key.path
            );
            assert!(!limit || reference.contains(name), "keepd.toml: {}", key.path);
        }
    }

    /// Flat settings need paths that say where they are.
    #[test]
    fn paths_follow_their_tables() {
        fn walk(keys: &'static [Key], prefix: &str) {
            for key in keys {
                let rest =
                    key.path.strip_prefix(prefix).unwrap_or_else(|| panic!("{} in {prefix}", key.path));
                assert!(!rest.contains('.'), "{}", key.path);
                if let Table(inner) = key.kind {
                    let inner_prefix = format!("{}.", key.path);
                    // The sections of a file are sets of settings of their own.
                    let host = std::ptr::eq(inner, HOST_LOGS);
                    let section =
                        host || matches!(key.path, "daemon" | "api" | "defaults") && prefix.is_empty();
                    walk(inner, if section { "" } else { &inner_prefix });
                }
            }
        }
        walk(ROOT, "");
        walk(PROFILE, "");
    }

    #[test]
    fn the_sixteen_limits_are_numbered_as_the_kernel_does() {
        let numbers: Vec<u32> =
            LIMITS.iter().filter_map(|k| if let Limit(n, _) = k.kind { Some(n) } else { None }).collect();
        assert_eq!(numbers, (0..16).collect::<Vec<u32>>());
    }
}
