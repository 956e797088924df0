//! What a service may do and see beyond what its user may: the `sandbox` table, and its share of the scheduler.

use super::Capabilities;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The `sandbox` table of a service but for `no-new-privileges`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// All that it has and can ever have; `None`: whatever keepd itself has (root, and user mode).
    pub capabilities: Option<Capabilities>,
    /// Which system calls it may make.
    pub syscalls: Syscalls,
    /// A /tmp and a /var/tmp that nobody else sees, and that go with it.
    pub private_tmp: bool,
    /// What of the files it cannot change.
    pub read_only: ReadOnly,
    /// What it can change nevertheless, absolute.
    pub writable: Vec<PathBuf>,
    /// It finds [`Sandbox::HOMES`] empty.
    pub hide_home: bool,
    /// A /dev with harmless devices only.
    pub private_devices: bool,
    /// No network but a loopback interface that nobody else has.
    pub private_network: bool,
}

/// `sandbox.read-only`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReadOnly {
    #[default]
    No,
    /// /usr, /etc and /boot.
    System,
    /// Everything but what is `writable`, and what the kernel shows in /dev, /proc and /sys.
    Strict,
}

impl Sandbox {
    /// Where people keep their own.
    pub const HOMES: [&str; 3] = ["/home", "/root", "/run/user"];

    /// It needs another view of the files than the host's.
    pub fn own_mounts(&self) -> bool {
        self.private_tmp || self.read_only != ReadOnly::No || self.hide_home || self.private_devices
    }

    /// The key that hides this path from it, or puts something else there.
    pub fn hidden_by(&self, path: &Path) -> Option<&'static str> {
        let below = |places: &[&str]| places.iter().any(|p| path.starts_with(p));
        if self.hide_home && below(&Sandbox::HOMES) {
            Some("sandbox.hide-home")
        } else if self.private_tmp && below(&["/tmp", "/var/tmp"]) {
            Some("sandbox.private-tmp")
        } else if self.private_devices && below(&["/dev"]) {
            Some("sandbox.private-devices")
        } else {
            None
        }
    }
}

/// `sandbox.syscalls`
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Syscalls {
    /// All but what no service needs.
    Default,
    /// Only what ordinary services need.
    Service,
    /// All.
    #[default]
    Off,
}

impl Syscalls {
    /// As it is written.
    pub fn as_str(self) -> &'static str {
        match self {
            Syscalls::Default => "default",
            Syscalls::Service => "service",
            Syscalls::Off => "off",
        }
    }
}

/// Its place among the host's processes; what is `None` or empty is keepd's own.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduling {
    /// -20 (first) to 19.
    pub nice: Option<i32>,
    /// -1000 (never killed) to 1000; `None`: as keepd's own, but not below 0.
    pub oom_score_adjust: Option<i32>,
    /// Its turn at the disks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub io: Option<IoPriority>,
    /// CPUs that it may run on, sorted, each once; empty: any.
    pub cpus: Vec<u32>,
}

/// `resources.io-priority`, as ioprio_set(2) takes it: the class and the level in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct IoPriority(
    /// The class from bit 13 on, below it the level.
    pub u16,
);

impl IoPriority {
    const CLASSES: [(&str, u16); 3] = [("realtime", 1), ("best-effort", 2), ("idle", 3)];
    /// Of a class that is written without one, as the kernel has it.
    const LEVEL: u16 = 4;

    /// From `best-effort:3`, `realtime` or `idle`. The error is a clause that can follow a colon.
    pub fn parse(text: &str) -> Result<IoPriority, String> {
        let (word, level) = text.split_once(':').map_or((text, None), |(word, level)| (word, Some(level)));
        let Some((_, class)) = Self::CLASSES.iter().find(|c| c.0 == word) else {
            return Err(format!("`{word}` is no class: it is realtime, best-effort or idle"));
        };
        let level = match (level, *class) {
            (None, 3) => 0,
            (None, _) => Self::LEVEL,
            (Some(_), 3) => return Err("`idle` has no levels".into()),
            (Some(level), _) => match level.parse() {
                Ok(level @ 0..=7) => level,
                _ => return Err(format!("`{level}` is no level: they go from 0, the first, to 7")),
            },
        };
        Ok(IoPriority(class << 13 | level))
    }
}

impl std::fmt::Display for IoPriority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (class, level) = (self.0 >> 13, self.0 & 0x1fff);
        let word = Self::CLASSES.iter().find(|c| c.1 == class).map_or("none", |c| c.0);
        if class == 3 { f.write_str(word) } else { write!(f, "{word}:{level}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_at_the_disks_are_read_as_they_are_written() {
        for (text, number, shown) in [
            ("idle", 3 << 13, "idle"),
            ("best-effort", 2 << 13 | 4, "best-effort:4"),
            ("best-effort:0", 2 << 13, "best-effort:0"),
            ("realtime:7", 1 << 13 | 7, "realtime:7"),
        ] {
            let read = IoPriority::parse(text).unwrap();
            assert_eq!((read.0, read.to_string()), (number, shown.to_owned()));
        }
        for text in ["", "none", "idle:0", "best-effort:8", "best-effort:", "realtime:-1", "4"] {
            assert!(IoPriority::parse(text).is_err(), "{text}");
        }
    }
}
