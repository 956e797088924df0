//! What is written down of an end that nobody asked for, and of a launch that came to nothing: the cause in one
//! sentence, how things stood, and what happens next. It stays in the service's record until the next one, so that a
//! new manager can write what the last one could not.

use super::{
    Machine, ServiceId, Time,
    ending::is_final,
    event::Effect,
    probe::Seen,
    service::{Because, Service, State},
    words,
};
use crate::plan::{Exit, Generation, Millis, Name, Restart, RunId, unit::size_text};
use serde::{Deserialize, Serialize};

/// What kind of trouble it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IncidentKind {
    /// The main process ended by itself, or somebody else killed it.
    Exit,
    /// The kernel killed it because memory ran out.
    Oom,
    /// Its command was never executed.
    LaunchFailed,
    /// It was stopped because it used more than its watch allows.
    Watch,
    /// It was stopped because it took longer than a oneshot may.
    Timeout,
    /// It was stopped because it was not ready in time.
    NotReady,
    /// It was stopped because its `live` probe failed.
    Unhealthy,
}

/// One unplanned end of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incident {
    pub run: RunId,
    /// The plan that the run was launched from.
    pub generation: Generation,
    pub kind: IncidentKind,
    /// One sentence.
    pub cause: String,
    /// `None`: there was no process.
    pub exit: Option<Exit>,
    /// When it ended.
    pub at: Time,
    /// When its command was executed.
    pub started: Option<Time>,
    /// Failures in a row, with this one.
    pub failures: u32,
    /// Automatic restarts before it.
    pub restarts: u32,
    /// The plan of the last run that lasted (for `backoff.reset-after`), which may be this one.
    pub good: Option<Generation>,
    /// What its memory was held to, in bytes.
    pub memory_max: Option<u64>,
    /// What it depends on, as that was.
    pub dependencies: Vec<Dependency>,
    /// How its probes were answered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub probes: Vec<Probed>,
    /// What follows; decided once nothing of the run is left.
    #[serde(default)]
    pub next: Next,
}

/// Something that a service depends on, at the instant of an incident.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    pub name: Name,
    /// The key that names it: `requires`, `binds-to`, `wants` or `after`.
    pub relation: String,
    /// Name of its state.
    pub state: String,
    pub ready: bool,
}

/// Answers of one probe, oldest first, those that were alike together.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probed {
    /// `ready` or `live`.
    pub probe: String,
    pub seen: Vec<Seen>,
}

/// What happens next.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Next {
    /// One sentence.
    pub what: String,
    /// When, where time decides.
    pub at: Option<Time>,
}

impl Machine {
    /// The last unplanned end of a service.
    pub fn incident(&self, id: ServiceId) -> Option<&Incident> {
        self.at(id).rec.incident.as_deref()
    }

    /// Writes down that the live run has ended in this way, or never came to be.
    pub(super) fn note_incident(
        &mut self,
        id: ServiceId,
        kind: IncidentKind,
        why: &str,
        exit: Option<Exit>,
        at: Time,
    ) {
        let svc = self.at(id);
        let Some(live) = svc.rec.state.live() else { return };
        let dependencies = self.dependencies(svc);
        let mut cause = format!("{} {why}", svc.name);
        if let Some(started) = live.started.filter(|_| exit.is_some()) {
            cause.push_str(&format!(" after {}", rounded(at.since(started))));
        }
        let missing =
            dependencies.iter().find(|d| !d.ready && matches!(d.relation.as_str(), "requires" | "binds-to"));
        if let Some(d) = missing {
            cause.push_str(&format!("; {}, which it needs, was not ready ({})", d.name, d.state));
        }
        let incident = Incident {
            run: live.run,
            generation: live.generation,
            kind,
            cause,
            exit,
            at,
            started: live.started,
            failures: svc.rec.failures,
            restarts: svc.rec.restarts,
            good: svc.rec.good,
            memory_max: live.resources.memory_max,
            dependencies,
            probes: ["ready", "live"]
                .into_iter()
                .zip(&svc.probing)
                .filter_map(|(probe, probing)| {
                    let seen: Vec<Seen> = probing.probed()?.seen.iter().cloned().collect();
                    Some(Probed { probe: probe.into(), seen })
                })
                .collect(),
            next: Next::default(),
        };
        self.at_mut(id).rec.incident = Some(Box::new(incident));
        self.touch(id);
    }

    /// Writes down a failure that is not the end of a run, of the service that says why in `because`.
    pub(super) fn note_failure(&mut self, id: ServiceId) {
        let svc = self.at(id);
        let was_ready = svc.rec.state.live().is_some_and(|live| live.first_ready.is_some());
        let (kind, why) = if let Because::Launch(why) = &svc.rec.because {
            (IncidentKind::LaunchFailed, format!("did not start: {why}"))
        } else if let Because::Unfit(why) = &svc.rec.because {
            let kind = match svc.spec.oneshot {
                Some(_) => IncidentKind::Timeout,
                None if was_ready => IncidentKind::Unhealthy,
                None => IncidentKind::NotReady,
            };
            (kind, why.clone())
        } else {
            return;
        };
        self.note_incident(id, kind, &why, None, self.now);
    }

    /// What an end says of memory that ran out: with the limit, where there is one.
    pub(super) fn oom_sentence(svc: &Service) -> String {
        match svc.rec.state.live().and_then(|live| live.resources.memory_max) {
            Some(bytes) => format!("ran out of memory: its memory-max is {}", size_text(bytes)),
            None => "was killed because the host, or a part of it, ran out of memory".into(),
        }
    }

    fn dependencies(&self, svc: &Service) -> Vec<Dependency> {
        let spec = &svc.spec;
        let lists = [
            ("requires", &spec.requires),
            ("binds-to", &spec.binds_to),
            ("wants", &spec.wants),
            ("after", &spec.after),
        ];
        let mut out: Vec<Dependency> = Vec::new();
        for (relation, names) in lists {
            for name in names {
                let Some(other) = self.id(name.as_str()).map(|id| self.at(id)) else { continue };
                if out.iter().any(|d| d.name == *name) {
                    continue;
                }
                let state = other.rec.state.kind().as_str().to_owned();
                out.push(Dependency {
                    name: name.clone(),
                    relation: relation.into(),
                    state,
                    ready: other.ready(),
                });
            }
        }
        out
    }

    /// Nothing of `run` is left and its state has followed: tells the incident with what happens next.
    pub(super) fn explain(&mut self, id: ServiceId, run: RunId) {
        let next = self.next(id);
        let Some(incident) = self.at_mut(id).rec.incident.as_mut().filter(|i| i.run == run) else { return };
        incident.next = next;
        let incident = incident.clone();
        self.out.push(Effect::Explain { service: id, incident });
    }

    /// What happens next to a service that is not up.
    fn next(&self, id: ServiceId) -> Next {
        let svc = self.at(id);
        let (what, at) = match &svc.rec.state {
            State::Backoff { until } => {
                let pause = rounded(until.since(self.now));
                (
                    format!("it is started again after a pause of {pause} (restart {})", svc.rec.attempts),
                    Some(*until),
                )
            }
            State::Failed { retry_at: Some(at) } => {
                let what = format!("{}; it is tried again", words::crash_loop(&svc.spec.breaker));
                (what, Some(*at))
            }
            State::Failed { retry_at: None } => {
                (format!("nothing, until somebody starts it: keepctl start {}", svc.name), None)
            }
            State::Waiting { .. } if svc.scheduled() && !svc.rec.due => {
                ("it runs again when its schedule says so".into(), None)
            }
            State::Exited => (format!("it stays down: {}", stays(svc)), None),
            State::Stopped => ("it stays down, because it is not wanted up".into(), None),
            State::Waiting { .. } => (
                "it is started again at once, as far as its dependencies and the host's limits allow".into(),
                None,
            ),
            State::Starting { .. } | State::Running { .. } | State::Stopping { .. } | State::Stuck { .. } => {
                (self.reason(id), None)
            }
        };
        Next { what, at }
    }
}

/// Why a service that has exited is not started again.
fn stays(svc: &Service) -> &'static str {
    let finals = svc.rec.last_exit.is_some_and(|last| is_final(&svc.spec, last.exit));
    match svc.spec.restart {
        _ if finals => "no-restart-exit lists this end",
        Restart::Never => "restart is \"never\"",
        Restart::OnFailure => "it succeeded, and restart is \"on-failure\"",
        Restart::Always => "nothing restarts it",
    }
}

/// Long times without their milliseconds.
fn rounded(time: Millis) -> Millis {
    if time.0 < 10_000 { time } else { Millis(time.0 / 1000 * 1000) }
}
