//! What `GET /metrics` tells: every service and keepd's own manager, in base units, with no label that grows without
//! bound. It reads the snapshot and, for what the kernel alone knows, cgroups; so it is made off the manager's thread.

use super::{
    exposition::{Exposition, Kind, Kind::Counter, Kind::Gauge},
    reply::{Body, Refused, whole},
};
use crate::{
    manager::{
        Handle, StateKind, Used,
        snapshot::{Snapshot, View, wall_of},
    },
    sys, wire,
};
use hyper::{
    Response, StatusCode,
    header::{ACCEPT, HeaderMap},
};

/// Answers in the format that the caller accepts.
pub(super) async fn answer(handle: &Handle, headers: &HeaderMap) -> Result<Response<Body>, Refused> {
    let accepted = headers.get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok());
    let open = accepted.into_iter().any(Exposition::is_open);
    let snapshot = handle.snapshot();
    let text = tokio::task::spawn_blocking(move || render(&snapshot, open)).await;
    let text = text.map_err(|e| Refused::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()))?;
    Ok(whole(StatusCode::OK, Exposition::content_type(open), text.into()))
}

/// A service, with what is read for it once and told in several families.
struct One<'a> {
    view: &'a View,
    labels: String,
    used: Used,
    log: wire::Log,
}

/// About how long the text of one service is, in bytes.
const ONE: usize = 2_600;

fn render(snapshot: &Snapshot, open: bool) -> String {
    let mut out = Exposition::new(open, 4_096 + snapshot.services.len() * ONE);
    keepd(&mut out, snapshot);
    manager(&mut out);
    let all: Vec<One<'_>> = snapshot.services.iter().map(|view| One::new(view)).collect();
    services(&mut out, &all);
    logs(&mut out, &all);
    out.done()
}

fn keepd(out: &mut Exposition, snapshot: &Snapshot) {
    let s = &snapshot.status;
    out.family("keepd_build_info", Gauge, "The keepd that runs; always 1.");
    out.sample(&format!("{{version=\"{}\"}}", s.version), 1);
    out.family("keepd_start_time_seconds", Gauge, "When keepd was started, in seconds since 1970.");
    out.sample("", seconds(snapshot.began_ms));
    out.family(
        "keepd_ready",
        Gauge,
        "Whether its configuration is in force and nothing is being stopped for good.",
    );
    out.sample("", u8::from(snapshot.ready));
    out.family("keepd_config_generation", Gauge, "Number of the configuration in force.");
    out.sample("", s.generation);
    out.family("keepd_manager_restarts_total", Counter, "How often the manager was started again.");
    out.sample("", s.manager_restarts);
    out.family("keepd_degraded", Gauge, "How many guarantees this host cannot give; see keepctl status.");
    out.sample("", s.degraded.len());
    out.family("keepd_services", Gauge, "Services by state.");
    for state in StateKind::ALL {
        let count = s.counts.get(state.as_str()).copied().unwrap_or(0);
        out.sample(&format!("{{state=\"{}\"}}", state.as_str()), count);
    }
}

/// Of the process that answers, by the names that every exporter uses.
fn manager(out: &mut Exposition) {
    let own = sys::own::usage();
    let mut tell = |name, kind, help: &str, value: Option<f64>| {
        if let Some(value) = value {
            out.family(name, kind, help);
            out.sample("", value);
        }
    };
    tell("process_cpu_seconds_total", Counter, "CPU time of keepd's manager.", own.cpu_seconds);
    tell("process_resident_memory_bytes", Gauge, "Resident memory of keepd's manager.", own.resident_bytes);
    tell("process_open_fds", Gauge, "Open descriptors of keepd's manager.", own.open_files);
    tell("process_max_fds", Gauge, "How many keepd's manager may have open.", own.most_files);
}

impl<'a> One<'a> {
    fn new(view: &'a View) -> One<'a> {
        let labels = format!("{{name=\"{}\",service=\"{}\"}}", view.base.name, view.base.service);
        let used = view.cgroup.as_deref().map(Used::read).unwrap_or_default();
        One { view, labels, used, log: view.log() }
    }

    /// The labels with one more.
    fn with(&self, key: &str, value: &str) -> String {
        format!("{},{key}=\"{value}\"}}", self.labels.trim_end_matches('}'))
    }
}

/// A family with one value of each service that has one.
fn each<V: std::fmt::Display>(
    out: &mut Exposition,
    all: &[One<'_>],
    (name, kind, help): (&'static str, Kind, &str),
    value: impl Fn(&One<'_>) -> Option<V>,
) {
    out.family(name, kind, help);
    for one in all {
        if let Some(value) = value(one) {
            out.sample(&one.labels, value);
        }
    }
}

fn services(out: &mut Exposition, all: &[One<'_>]) {
    out.family("keepd_service_state", Gauge, "1 for the state that the service is in, 0 for the others.");
    for one in all {
        for state in StateKind::ALL {
            let is = state.as_str() == one.view.now.state;
            out.sample(&one.with("state", state.as_str()), u8::from(is));
        }
    }
    let family = ("keepd_service_desired_up", Gauge, "Whether it is wanted up.");
    each(out, all, family, |s| Some(u8::from(s.view.now.desired == "up")));
    let family = ("keepd_service_ready", Gauge, "Whether it is ready.");
    each(out, all, family, |s| Some(u8::from(s.view.now.ready)));
    let family =
        ("keepd_service_start_time_seconds", Gauge, "When its run was started, in seconds since 1970.");
    each(out, all, family, |s| s.view.started_ms.map(seconds));
    let family = ("keepd_service_restarts_total", Counter, "Automatic restarts since somebody started it.");
    each(out, all, family, |s| Some(s.view.now.restarts));
    let family = ("keepd_service_consecutive_failures", Gauge, "Failed runs in a row.");
    each(out, all, family, |s| Some(s.view.now.consecutive_failures));
    let family = ("keepd_service_memory_bytes", Gauge, "Memory of all its processes.");
    each(out, all, family, |s| s.used.memory_bytes);
    let family = ("keepd_service_cpu_seconds_total", Counter, "CPU time of all processes of its run.");
    each(out, all, family, |s| s.used.cpu_us.map(|us| us as f64 / 1e6));
    let family = ("keepd_service_tasks", Gauge, "Its processes and threads.");
    each(out, all, family, |s| s.used.tasks);
    let family =
        ("keepd_service_oom_kills_total", Counter, "Processes of its run killed for lack of memory.");
    each(out, all, family, |s| s.used.oom_kills);
}

fn logs(out: &mut Exposition, all: &[One<'_>]) {
    type Family = (&'static str, &'static str, fn(&wire::Log) -> u64);
    let counters: [Family; 6] = [
        ("keepd_service_log_received_bytes_total", "Output taken from the service.", |l| l.bytes_in),
        ("keepd_service_log_written_bytes_total", "Output written to its log.", |l| l.bytes_written),
        ("keepd_service_log_dropped_bytes_total", "Output dropped.", |l| l.bytes_dropped),
        ("keepd_service_log_dropped_lines_total", "Lines dropped.", |l| l.lines_dropped),
        ("keepd_service_log_forwarded_lines_total", "Lines given to journald or syslog.", |l| l.forwarded),
        ("keepd_service_log_unforwarded_lines_total", "Lines that they were not given.", |l| {
            l.forward_dropped
        }),
    ];
    for (name, help, value) in counters {
        each(out, all, (name, Counter, help), |s| s.view.log.as_ref().map(|_| value(&s.log)));
    }
    let family = ("keepd_service_log_trouble", Gauge, "Whether something keeps its log from being written.");
    each(out, all, family, |s| s.view.log.as_ref().map(|_| u8::from(s.log.trouble.is_some())));
}

/// The wall-clock time of a boot time in milliseconds, in seconds since 1970: whole ones, so that the clocks' being
/// read one after the other does not show as a change.
fn seconds(boottime_ms: u64) -> u64 {
    (wall_of(boottime_ms) + 500) / 1000
}
