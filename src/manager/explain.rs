//! What is told of what the machine says: events; and from its incidents to dossiers: what the actor knows of a run
//! besides. A dossier is written once the output of its run is in the log; that is when the run is forgotten.

use super::{
    actor::{Actor, LiveRun, now},
    dossiers::{Case, LogsOf},
    publish::{event, last_exit},
    snapshot::wall_of,
};
use crate::{
    keeper::protocol::{Request, Usage},
    logs::Report,
    machine::{Incident, Notice, ServiceId, Time},
    plan::{Generation, Name},
    wire,
};

impl Actor {
    /// Handles a word of the log thread.
    pub(super) fn report(&mut self, report: Report) {
        match report {
            Report::Finished { run } => {
                self.tell(Request::Release { run });
                self.forget_run(run);
            }
            Report::Trouble { service, message: Some(message) } => {
                tracing::error!("{service}: {message}");
                self.publisher.tell(event("log", Some(&service), message));
            }
            Report::Trouble { service, message: None } => {
                let message = "the trouble with its log is over".to_string();
                tracing::info!("{service}: {message}");
                self.publisher.tell(event("log", Some(&service), message));
                self.tell_loss(&service);
            }
            Report::Rotated { service, file } => {
                tracing::debug!("{service}: log rotated to {}", file.display())
            }
        }
    }

    /// Something of a service is worth telling.
    pub(super) fn announce(&mut self, notice: Notice) {
        let id = notice.service.as_ref().and_then(|n| self.machine.id(n.as_str()));
        let view = id.map(|id| self.machine.view(id));
        let last = notice.exit.zip(notice.run).map(|(exit, run)| {
            let seen = view.as_ref().and_then(|v| v.last_exit).filter(|e| e.run == run);
            let (at, ran) = seen.map_or((now(), 0), |e| (e.at, e.ran.0));
            last_exit(exit, at, run.0, ran)
        });
        if let Some((view, last)) = view.as_ref().zip(last.as_ref()).filter(|(v, _)| v.spec.oneshot.is_some())
        {
            self.dossiers.ran(view.name, last.clone());
        }
        self.publisher.notice(notice, last, view.map(|v| v.state.as_str()));
    }

    /// The trouble with a log is over: what it has cost.
    pub(super) fn tell_loss(&mut self, service: &Name) {
        let mut log = wire::Log::default();
        let counters = self.logs.counters(service);
        counters.fill(
            &mut log.bytes_in,
            &mut log.bytes_written,
            &mut log.bytes_dropped,
            &mut log.lines_dropped,
        );
        let before = self.losses.insert(service.clone(), log.bytes_dropped).unwrap_or(0);
        if let lost @ 1.. = log.bytes_dropped.saturating_sub(before) {
            let message = format!("{lost} bytes of the output of {service} were dropped meanwhile");
            tracing::warn!("{message}");
            self.publisher.tell(event("log_loss", Some(service), message));
        }
    }

    /// A run has ended unplanned, and what happens next is decided.
    pub(super) fn explain(&mut self, service: ServiceId, incident: Box<Incident>) {
        let ran = incident.started.map_or(0, |started| incident.at.since(started).0);
        let at = |t: Time| wire::timestamp(wall_of(t.0));
        let name = self.machine.view(service).name.clone();
        self.publisher.tell(wire::Event {
            run_id: Some(incident.run.0),
            exit: incident.exit.map(|exit| last_exit(exit, incident.at, incident.run.0, ran)),
            next: Some(wire::why::Next { what: incident.next.what.clone(), at: incident.next.at.map(at) }),
            ..event("incident", Some(&name), incident.cause.clone())
        });
        match self.runs.get_mut(&incident.run) {
            Some(live) => live.incident = Some(incident),
            // One that the keeper does not hold any more.
            None => self.dossiers.write(self.case(name, incident, None)),
        }
    }

    /// A run is let go: its output is drained.
    pub(super) fn file_dossier(&self, gone: &mut LiveRun) {
        if let Some(incident) = gone.incident.take() {
            self.dossiers.write(self.case(gone.service.clone(), incident, gone.usage));
        }
    }

    /// What the last manager may not have written: of runs that are held it is written when they are let go.
    pub(super) fn restore_dossiers(&mut self) {
        for id in self.machine.ids().collect::<Vec<_>>() {
            let view = self.machine.view(id);
            let (name, live) = (view.name.clone(), view.run);
            let Some(incident) = self.machine.incident(id).cloned().map(Box::new) else { continue };
            match self.runs.get_mut(&incident.run) {
                // Its end is not finished yet; then the machine tells.
                _ if live == Some(incident.run) => {}
                Some(run) => run.incident = Some(incident),
                None => self.dossiers.restore(self.case(name, incident, None)),
            }
        }
    }

    fn case(&self, name: Name, incident: Box<Incident>, usage: Option<Usage>) -> Case {
        let logs = self.spec_of(incident.generation, &name).unwrap_or_default();
        Case { name, incident, usage, logs }
    }

    fn spec_of(&self, generation: Generation, name: &Name) -> Option<LogsOf> {
        let current = self.plans.generation();
        let spec = self.plans.spec(generation, name).or_else(|| self.plans.spec(current, name));
        spec.map(LogsOf::of)
    }
}
