//! From the machine's view to what readers see: snapshots after each turn, and events.

use super::{
    actor::Actor,
    events::EventLog,
    schedules::Schedules,
    snapshot::{Now, Snapshot, View, boot_of, wall_of},
    views::Views,
};
use crate::{
    keeper::protocol::{Hello, Request, Up},
    logs,
    machine::{Desired, Machine, Notice, NoticeKind, Probed, ServiceId, Time},
    plan::{Check, Exit, Name, Plan, Resources, RunId, ServiceSpec, Stderr, Stdout, signal::signal_name},
    sys, wire,
};
use std::{collections::BTreeMap, path::PathBuf, sync::Arc};
use tokio::sync::watch;

/// Keeps the views of all services and publishes them.
pub(super) struct Publisher {
    views: Views,
    pub(super) snapshot: watch::Sender<Arc<Snapshot>>,
    pub(super) events: Arc<EventLog>,
    hello: Hello,
}

impl Publisher {
    pub(super) fn new(hello: Hello, events: EventLog) -> Publisher {
        let events = Arc::new(events);
        let snapshot = watch::Sender::new(Arc::default());
        Publisher { views: Views::default(), snapshot, events, hello }
    }

    /// Whether systemd wants to know how things stand.
    pub(super) fn status_wanted(&self) -> bool {
        self.hello.status_wanted
    }

    /// The folder of a run's cgroup, where there are any.
    pub(super) fn cgroup(&self, service: &Name, run: RunId) -> Option<PathBuf> {
        self.hello.cgroup.as_ref().map(|base| PathBuf::from(base).join(format!("{service}.{run}")))
    }

    /// Renews the view of a service.
    pub(super) fn update(
        &mut self,
        machine: &Machine,
        id: ServiceId,
        logs: &logs::Engine,
        schedules: &Schedules,
    ) {
        let v = machine.view(id);
        let spec = v.spec;
        let before = self.views.find(spec.name.as_str());
        let same = before.filter(|view| view.spec.as_ref().is_some_and(|s| Arc::ptr_eq(s, spec)));
        let captured = spec.launch.stdout == Stdout::Capture || spec.launch.stderr == Stderr::Separate;
        let cgroup = v.run.and_then(|run| self.cgroup(&spec.name, run));
        let view = View {
            base: same.map_or_else(|| Arc::new(base(spec, captured)), |view| view.base.clone()),
            spec: Some(spec.clone()),
            now: Now {
                desired: v.desired.as_str(),
                state: v.state.as_str(),
                ready: v.ready,
                reason: v.reason,
                pid: v.pid,
                run_id: v.run.map(|r| r.0),
                restarts: v.restarts,
                consecutive_failures: v.consecutive_failures,
                last_exit: v.last_exit.map(|e| last_exit(e.exit, e.at, e.run.0, e.ran.0)),
                status_text: v.status.map(str::to_owned),
                probes: wire::Probes {
                    ready: spec.ready.as_ref().map(|r| probe(&r.probe.check, v.probes[0])),
                    live: spec.live.as_ref().map(|l| probe(&l.probe.check, v.probes[1])),
                },
            },
            started_ms: v.started.map(|t| t.0),
            next_start_ms: v.next_start.map(|t| t.0).or_else(|| {
                let due = schedules.next(&spec.name).filter(|_| v.desired == Desired::Up && v.run.is_none());
                due.map(boot_of)
            }),
            log_dir: spec.logs.dir.clone(),
            log: captured.then(|| logs.counters(&spec.name)),
            cgroup,
        };
        self.views.put(Arc::new(view));
    }

    /// A service is gone for good.
    pub(super) fn remove(&mut self, name: &Name) {
        self.views.remove(name.as_str());
    }

    /// Makes the present views what readers see.
    pub(super) fn publish(&self, machine: &Machine, plan: &Plan, generation: u64, state: &str) {
        let counts = machine.counts().into_iter().map(|(k, n)| (k.to_string(), n)).collect();
        let status = wire::Status {
            version: env!("CARGO_PKG_VERSION").into(),
            pid: self.hello.pid,
            manager_pid: std::process::id(),
            state: state.into(),
            uptime_ms: 0,
            profile: plan.daemon.profile.clone(),
            generation,
            runtime_dir: plan.daemon.runtime_dir.display().to_string(),
            manager_restarts: self.hello.managers_before,
            upgrades: self.hello.upgrades,
            counts,
            degraded: self.hello.degraded.clone(),
        };
        let ready = state == "running" || state == "reloading";
        self.snapshot.send_replace(Arc::new(Snapshot {
            status,
            began_ms: self.hello.began_ms,
            ready,
            services: self.views.clone(),
        }));
    }

    /// Tells the event stream and the daemon's own log. The message names its service.
    pub(super) fn notice(&self, n: Notice, last: Option<wire::LastExit>, state: Option<&str>) {
        match n.kind {
            NoticeKind::Failed | NoticeKind::Stuck => tracing::error!("{}", n.message),
            NoticeKind::LaunchFailed | NoticeKind::Oom | NoticeKind::Watch | NoticeKind::Unhealthy => {
                tracing::warn!("{}", n.message)
            }
            NoticeKind::Exit
            | NoticeKind::State
            | NoticeKind::Ready
            | NoticeKind::Recovered
            | NoticeKind::Applied
            | NoticeKind::Shutdown => tracing::info!("{}", n.message),
        }
        let kind =
            serde_json::to_value(n.kind).ok().and_then(|v| v.as_str().map(String::from)).unwrap_or_default();
        let event = event(&kind, n.service.as_ref(), n.message);
        let state = state.map(str::to_owned).filter(|_| n.kind == NoticeKind::State);
        self.tell(wire::Event { run_id: n.run.map(|r| r.0), exit: last, state, ..event });
    }

    /// Appends to the event stream.
    pub(super) fn tell(&self, event: wire::Event) {
        self.events.push(event);
    }
}

/// An event of this instant.
pub(super) fn event(kind: &str, service: Option<&Name>, message: String) -> wire::Event {
    let at = wire::timestamp(sys::clock::wall_ms());
    wire::Event {
        at,
        kind: kind.into(),
        service: service.map(ToString::to_string),
        message,
        ..wire::Event::default()
    }
}

impl Actor {
    /// Makes what changed in this turn what readers see.
    pub(super) fn publish(&mut self) {
        for id in std::mem::take(&mut self.stale) {
            self.publisher.update(&self.machine, id, &self.logs, &self.schedules);
            self.dirty = true;
        }
        if !std::mem::take(&mut self.dirty) {
            return;
        }
        let state = if self.machine.shutting_down() {
            "stopping"
        } else if self.plans.loading() {
            "reloading"
        } else {
            "running"
        };
        let plan = self.plans.current();
        self.publisher.publish(&self.machine, &plan, self.plans.generation().0, state);
        if !self.publisher.status_wanted() {
            return;
        }
        let line = status_line(&self.machine.counts());
        if line != self.status_line {
            self.tell(Request::Notify(Up::Status(line.clone())));
            self.status_line = line;
        }
    }
}

/// "12 services: 10 running, 1 backoff, 1 failed", for `systemctl status`.
fn status_line(counts: &BTreeMap<&'static str, u32>) -> String {
    let total: u32 = counts.values().sum();
    let parts: Vec<String> =
        counts.iter().filter(|(_, n)| **n > 0).map(|(s, n)| format!("{n} {s}")).collect();
    format!("{total} service{}: {}", if total == 1 { "" } else { "s" }, parts.join(", "))
}

/// An exit as the API shows it.
pub(super) fn last_exit(exit: Exit, at: Time, run_id: u64, ran_ms: u64) -> wire::LastExit {
    let mut e = wire::LastExit { at: wire::timestamp(wall_of(at.0)), run_id, ran_ms, ..Default::default() };
    match exit {
        Exit::Code(code) => e.code = Some(code),
        Exit::Signal { signal, core } => (e.signal, e.core) = (Some(signal_name(signal)), core),
        Exit::Oom => (e.signal, e.oom) = (Some(signal_name(sys::signal::SIGKILL)), true),
        Exit::Unknown => e.unknown = true,
    }
    e
}

/// All of a service that only another specification changes.
fn base(spec: &ServiceSpec, captured: bool) -> wire::Service {
    wire::Service {
        name: spec.name.to_string(),
        service: spec.name.service().to_string(),
        instance: spec.instance,
        description: spec.description.clone(),
        log: wire::Log {
            file: captured.then(|| spec.logs.dir.join("current").display().to_string()),
            stderr_file: (spec.launch.stderr == Stderr::Separate)
                .then(|| spec.logs.dir.join("stderr/current").display().to_string()),
            ..Default::default()
        },
        identity: identity(spec),
        resources: (!spec.resources.is_empty()).then(|| resources(&spec.resources)),
        requires: names(spec.requires.iter().chain(&spec.binds_to)),
        wants: names(&spec.wants),
        after: names(&spec.after),
        ..Default::default()
    }
}

fn probe(check: &Check, probed: Option<Probed<'_>>) -> wire::Probe {
    let last = probed.and_then(|p| p.seen.back());
    wire::Probe {
        kind: check.word().into(),
        passing: last.map(|seen| seen.failure.is_none()),
        failures: probed.map_or(0, |p| p.failures),
        message: last.and_then(|seen| seen.failure.clone()),
    }
}

fn resources(r: &Resources) -> wire::Resources {
    wire::Resources {
        memory_max_bytes: r.memory_max,
        memory_high_bytes: r.memory_high,
        cpu_max_percent: r.cpu_max,
        cpu_weight: r.cpu_weight,
        pids_max: r.pids_max,
        io_weight: r.io_weight,
    }
}

fn identity(spec: &ServiceSpec) -> wire::Identity {
    let no_new_privileges = spec.launch.no_new_privileges;
    let capabilities = spec.launch.sandbox.capabilities.map(|c| c.names());
    let seccomp = spec.launch.sandbox.syscalls.as_str().to_owned();
    match &spec.launch.identity {
        Some(i) => wire::Identity {
            user: Some(i.user.clone()),
            uid: i.uid,
            gid: i.gid,
            groups: i.groups.clone(),
            capabilities,
            no_new_privileges,
            seccomp,
        },
        None => {
            let (uid, gid) = (sys::identity::effective_uid(), sys::identity::effective_gid());
            wire::Identity {
                user: None,
                uid,
                gid,
                groups: Vec::new(),
                capabilities,
                no_new_privileges,
                seccomp,
            }
        }
    }
}

fn names<'a>(of: impl IntoIterator<Item = &'a Name>) -> Vec<String> {
    of.into_iter().map(ToString::to_string).collect()
}
