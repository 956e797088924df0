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
        s.log = self.log();
        s
    }

    /// The accounting of its output so far.
    pub fn log(&self) -> wire::Log {
        let mut log = self.base.log.clone();
        if let Some(c) = &self.log {
            c.fill(&mut log.bytes_in, &mut log.bytes_written, &mut log.bytes_dropped, &mut log.lines_dropped);
            (log.forwarded, log.forward_dropped) = c.forwards();
            log.trouble = c.trouble();
        }
        log
    }

    /// What a line of a table shows of it at that instant.
    pub fn brief(&self, now_ms: u64) -> wire::Brief<'_> {
        wire::Brief {
            name: (&self.base.name).into(),
            service: (&self.base.service).into(),
            description: (&self.base.description).into(),
            state: self.now.state.into(),
            ready: self.now.ready,
            reason: (&self.now.reason).into(),
            pid: self.now.pid,
            uptime_ms: self.started_ms.map(|t| now_ms.saturating_sub(t)),
            restarts: self.now.restarts,
            next_start_in_ms: self.next_start_ms.map(|t| t.saturating_sub(now_ms)),
            log: wire::BriefLog {
                file: self.base.log.file.as_ref().map(Into::into),
                stderr_file: self.base.log.stderr_file.as_ref().map(Into::into),
            },
        }
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
pub fn wall_of(boottime_ms: u64) -> u64 {
    // Also of an instant to come.
    (sys::clock::wall_ms() + boottime_ms).saturating_sub(sys::clock::boottime_ms())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_instant_to_come_is_later_than_now() {
        let (now, hour) = (sys::clock::boottime_ms(), 3_600_000);
        let apart = wall_of(now + hour).abs_diff(wall_of(now));
        assert!(apart.abs_diff(hour) < 60_000, "{apart}");
    }

    #[test]
    fn what_is_brief_is_part_of_the_whole() {
        let base = wire::Service {
            name: "web@1".into(),
            service: "web".into(),
            description: "public \"API\"".into(),
            log: wire::Log { file: Some("/l".into()), stderr_file: Some("/e".into()), ..Default::default() },
            ..Default::default()
        };
        let now = Now {
            state: "backoff",
            ready: true,
            reason: "why".into(),
            pid: Some(7),
            restarts: 3,
            ..Now::default()
        };
        let (started_ms, next_start_ms) = (Some(1_000), Some(9_000));
        let view = View { base: Arc::new(base), now, started_ms, next_start_ms, ..View::default() };
        let whole = serde_json::to_value(view.at(5_000)).unwrap();
        let brief = serde_json::to_value(view.brief(5_000)).unwrap();
        for (key, value) in brief.as_object().unwrap().iter().filter(|(key, _)| *key != "log") {
            assert_eq!(value, &whole[key], "{key}");
        }
        assert_eq!(brief["uptime_ms"], 4_000);
        assert_eq!(brief["next_start_in_ms"], 4_000);
        assert_eq!(brief["log"]["file"], whole["log"]["file"]);
        assert_eq!(brief["log"]["stderr_file"], whole["log"]["stderr_file"]);
        assert_eq!(brief.as_object().unwrap().len(), 11);
    }
}
