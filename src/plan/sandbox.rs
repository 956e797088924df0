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
    /// CPUs that it may run on, sorted, each once; empty: any.
    pub cpus: Vec<u32>,
}
