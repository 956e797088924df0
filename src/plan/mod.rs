//! WHAT should run: the checked, immutable result of a configuration.
//!
//! Everything here is plain data. Nothing in this room does I/O, reads a clock or starts a thread; the text
//! that a plan comes from is the business of `config`, and what happens with it is the business of `machine`.

#![forbid(unsafe_code)]

pub mod capability;
pub mod daemon;
pub mod diff;
pub mod hook;
pub mod image;
pub mod logs;
pub mod name;
pub mod order;
pub mod probe;
pub mod provision;
pub mod resources;
pub mod run;
pub mod sandbox;
pub mod schedule;
pub mod service;
pub mod signal;
pub mod unit;

pub use capability::Capabilities;
pub use daemon::{ApiSpec, Budget, DaemonSpec, LogLevel, Mode, Principal};
pub use logs::{HostLogs, Rotate, Share};
pub use name::Name;
pub use probe::{Check, Http, Live, LiveAction, Probe, Ready, Target, Told, Verdict, Which};
pub use provision::{Credentials, Place, Provision, Verify};
pub use resources::{Meter, Resources, Setting, Watch, WatchAction};
pub use run::{Exit, Job, RunId};
pub use sandbox::{IoPriority, ReadOnly, Sandbox, Scheduling, Syscalls};
pub use schedule::Schedule;
pub use service::{
    Backoff, Breaker, EnvFile, ExitMatch, Identity, LaunchSpec, Limit, LimitValue, LogFormat, LogSpec,
    OnFull, Oneshot, Receiver, Reload, Restart, ServiceSpec, Stderr, Stdout, StopSpec, Tells,
};
pub use unit::Millis;

use serde::{Deserialize, Serialize};

/// A checked configuration: the daemon's own settings and every service instance, sorted by name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Settings of the daemon itself.
    pub daemon: DaemonSpec,
    /// One entry per instance, sorted by `name`; names are unique and the dependency graph has no cycle.
    pub services: Vec<ServiceSpec>,
    /// Sorted by name.
    pub hooks: Vec<hook::Hook>,
    /// What deserves a word but no refusal, one sentence each.
    pub warnings: Vec<String>,
}

impl Plan {
    /// The command of a hook, by the name that it has among services.
    pub fn hook(&self, name: &str) -> Option<(u32, &ServiceSpec)> {
        let mut all = (0u32..).zip(&self.hooks);
        all.find_map(|(i, hook)| {
            hook.exec.as_deref().filter(|e| e.name.as_str() == name).map(|e| (i | hook::ENTRY, e))
        })
    }

    /// The entry of this name, by binary search.
    pub fn find(&self, name: &str) -> Option<&ServiceSpec> {
        self.services.binary_search_by(|s| s.name.as_str().cmp(name)).ok().map(|i| &self.services[i])
    }
}

/// The number of a loaded plan within the life of a keeper; the first is 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Generation(pub u64);
