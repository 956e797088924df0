//! What readers see: the state of everything after a turn of the machine. Immutable once published.

use super::views::Views;
use crate::{
    plan::{Name, ServiceSpec},
    sys, wire,
};
use std::{path::PathBuf, sync::Arc};

/// All services, sorted by name.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Everything of `GET /v1/status` but what changes with time alone.
    pub status: wire::Status,
    /// Milliseconds of CLOCK_BOOTTIME at which the keeper began.
    pub began_ms: u64,
    /// Autostart has begun and nothing is being stopped for good: `/readyz`.
    pub ready: bool,
    /// Sorted by name.
    pub services: Views,
}

/// One service as it was after the turn.
#[derive(Debug, Default)]
pub struct View {
    /// What its specification says; made anew only with another one.
    pub base: Arc<wire::Service>,
    /// The specification that `base` is of.
    pub spec: Option<Arc<ServiceSpec>>,
    /// How it is.
    pub now: Now,
    /// CLOCK_BOOTTIME in ms at which the live run was started.
    pub started_ms: Option<u64>,
    /// CLOCK_BOOTTIME in ms of the next automatic start.
    pub next_start_ms: Option<u64>,
    /// Folder of its log.
    pub log_dir: PathBuf,
    /// Accounting of its output.
    pub log: Option<Arc<crate::logs::Counters>>,
    /// Folder of the live run's cgroup, where there is one.
    pub cgroup: Option<PathBuf>,
}

/// How a service is, but for what changes with time alone. The fields are those of [`wire::Service`].
#[derive(Debug, Clone, Default)]
pub struct Now {
    pub desired: &'static str,
    pub state: &'static str,
    pub ready: bool,
    pub reason: String,
    pub pid: Option<u32>,
    pub run_id: Option<u64>,
    pub restarts: u32,
    pub consecutive_failures: u32,
    pub last_exit: Option<wire::LastExit>,
    pub status_text: Option<String>,
    pub probes: wire::Probes,
}

impl View {
    /// Completes the view for the instant `now_ms` (CLOCK_BOOTTIME).
    pub fn at(&self, now_ms: u64) -> wire::Service {
        let now = self.now.clone();
        let mut s = wire::Service {
            desired: now.desired.into(),
            state: now.state.into(),
            ready: now.ready,
            reason: now.reason,
            pid: now.pid,
            run_id: now.run_id,
            restarts: now.restarts,
            consecutive_failures: now.consecutive_failures,
            last_exit: now.last_exit,
            status_text: now.status_text,
            probes: now.probes,
            started_at: self.started_ms.map(|t| wire::timestamp(wall_of(t))),
            ..(*self.base).clone()
        };
        s.uptime_ms = self.started_ms.map(|t| now_ms.saturating_sub(t));
        s.next_start_in_ms = self.next_start_ms.map(|t| t.saturating_sub(now_ms));
        if let Some(c) = &self.log {
            c.fill(
                &mut s.log.bytes_in,
                &mut s.log.bytes_written,
                &mut s.log.bytes_dropped,
                &mut s.log.lines_dropped,
            );
            (s.log.forwarded, s.log.forward_dropped) = c.forwards();
            s.log.trouble = c.trouble();
        }
        s
    }
}

impl Snapshot {
    /// The instance of this name.
    pub fn find(&self, name: &str) -> Option<&Arc<View>> {
        self.services.find(name)
    }

    /// The instances that `name` means: the instance of that name, or all of the service of that name.
    pub fn instances(&self, name: &str) -> Vec<Name> {
        let own = |s: &&Arc<View>| s.base.name == name || s.base.service == name;
        self.services.iter().filter(own).map(|s| Name::new(&s.base.name)).collect()
    }
}

/// The boot time of a wall-clock time, by the clocks as they stand now; for display only.
pub(super) fn boot_of(wall_ms: u64) -> u64 {
    let ahead = wall_ms.saturating_sub(sys::clock::wall_ms());
    sys::clock::boottime_ms().saturating_add(ahead)
}

/// The wall-clock time of a boot time, by the clocks as they stand now; for display only.
pub(super) fn wall_of(boottime_ms: u64) -> u64 {
    let ago = sys::clock::boottime_ms().saturating_sub(boottime_ms);
    sys::clock::wall_ms().saturating_sub(ago)
}
