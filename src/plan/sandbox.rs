//! What a service may do and see beyond what its user may: the `sandbox` table, and its share of the scheduler.

use super::Capabilities;
use serde::{Deserialize, Serialize};

/// The `sandbox` table of a service but for `no-new-privileges`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// All that it has and can ever have; `None`: whatever keepd itself has (root, and user mode).
    pub capabilities: Option<Capabilities>,
    /// Which system calls it may make.
    pub syscalls: Syscalls,
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
