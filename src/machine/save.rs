//! What the keeper remembers of each service for the next manager, and how that manager takes it up.
//!
//! The keeper gets the effects of a turn and the state they lead to in one packet, so a state that is read
//! back is never ahead of or behind what was asked for. What happened since comes as facts, perhaps twice.

use super::standin::stand_in;
use super::{
    Machine, RunId, ServiceId, Time,
    service::{Live, Record, Service, State, Want},
    stop::LAUNCH_LIMIT,
};
use crate::plan::{Generation, Name, Plan, ServiceSpec};
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    io::{self, Write},
    sync::Arc,
};

/// Fingerprints of another version are not compared: a new version may know more fields.
const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A record as it is kept.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
struct Saved<R> {
    version: String,
    #[serde(flatten)]
    record: R,
}

/// Stands for everything that needs a new process when it differs.
pub(super) fn fingerprint(spec: &ServiceSpec) -> u64 {
    let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
    // Writing to a hash cannot fail; these types always have a JSON form.
    let _ = serde_json::to_writer(&mut hash, &(&spec.launch, &spec.logs.dir));
    hash.0
}

impl Live {
    /// A run that is about to be launched.
    pub(super) fn new(run: RunId, generation: Generation, spec: &ServiceSpec) -> Live {
        Live {
            run,
            generation,
            stop: spec.stop.clone(),
            reload: spec.reload.clone(),
            resources: spec.resources,
            refused: None,
            fingerprint: fingerprint(spec),
            pid: None,
            started: None,
            ready: false,
            first_ready: None,
            reloading: false,
            leaving: false,
            status: None,
            watchdog: None,
            dead: false,
            empty: false,
        }
    }
}

/// FNV-1a, 64 bits.
struct Fnv(u64);

impl Write for Fnv {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        for b in bytes {
            self.0 = (self.0 ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Machine {
    /// Everything about a service that the next manager must know, as JSON; `None` where it is as new.
    pub fn save(&self, id: ServiceId) -> Option<String> {
        let record = &self.at(id).rec;
        if *record == Record::default() {
            return None;
        }
        serde_json::to_string(&Saved { version: VERSION.into(), record }).ok()
    }

    /// A machine that carries on from `saved` (by name, as [`Machine::save`] gave it). Until the first wish
    /// or tick it only takes in facts and launches or stops nothing. What cannot be read counts as new; see
    /// [`Machine::claim`]. Services that nobody has decided on are treated as [`Machine::begin`] would.
    pub fn restore(
        seed: u64,
        plan: Arc<Plan>,
        generation: Generation,
        next_run: RunId,
        saved: &BTreeMap<Name, String>,
        now: Time,
    ) -> Machine {
        let mut machine = Machine::new(seed, plan, generation, next_run);
        (machine.now, machine.replaying) = (now, true);
        for (name, text) in saved {
            let Ok(Saved { version, record }) = serde_json::from_str::<Saved<Record>>(text) else {
                if let Some(id) = machine.id(name.as_str()) {
                    // What is kept of it must be replaced, or the next manager may read what this one could not.
                    machine.touch(id);
                }
                continue;
            };
            machine.spent.merge(&record.spent);
            match machine.id(name.as_str()) {
                Some(id) => machine.resume(id, record, version == VERSION),
                None => machine.resume_gone(name, record),
            }
        }
        machine.link();
        machine.decide_rest();
        machine.settle();
        machine
    }

    fn resume(&mut self, id: ServiceId, record: Record, comparable: bool) {
        if let Some(live) = record.state.live() {
            self.next_run = self.next_run.max(RunId(live.run.0 + 1));
            self.runs.insert(live.run, id);
            let differs = comparable && live.fingerprint != fingerprint(&self.at(id).spec);
            self.at_mut(id).replace = differs;
        }
        let mut state = record.state.clone();
        if let (State::Running { live, .. }, None) = (&mut state, &self.at(id).spec.ready) {
            // Its last manager may have known nothing of readiness.
            live.first_ready = live.first_ready.or(live.started);
            live.ready = !live.leaving;
        }
        self.at_mut(id).told = state.kind();
        self.at_mut(id).rec = Record { state: State::Stopped, ..record };
        self.set(id, state);
    }

    /// It left the plan while it was being stopped: enough of a service to end it.
    fn resume_gone(&mut self, name: &Name, record: Record) {
        let spec = stand_in(name, record.state.live());
        let mut svc = Service::new(Arc::new(spec), record);
        svc.gone = true;
        self.add(svc);
    }

    /// A start of everything, or an apply, may have been cut short.
    fn decide_rest(&mut self) {
        let unset = |m: &Machine, id: ServiceId| m.at(id).rec.want == Want::Unset;
        let own = |id: &ServiceId| {
            let svc = self.at(*id);
            svc.wanted() || (svc.rec.want == Want::Unset && svc.spec.autostart && !svc.gone)
        };
        let own: Vec<ServiceId> = self.all().filter(own).collect();
        for id in self.pulled_in(&own) {
            if unset(self, id) {
                self.want_up(id, false);
            }
        }
    }

    /// Takes a run into account that the keeper holds for a service whose saved state could not be read, so
    /// that it is not started twice: the service is wanted up, or is ended where the plan has none of that
    /// name. To be called between [`Machine::restore`] and the first fact. False where the run is known
    /// already, or the service has another: then this one is to be killed and released.
    pub fn claim(&mut self, now: Time, service: &Name, run: RunId, generation: Generation) -> bool {
        self.now = self.now.max(now);
        if self.knows(run) {
            return false;
        }
        if self.id(service.as_str()).is_none() {
            self.resume_gone(service, Record::default());
        }
        let Some(id) = self.id(service.as_str()) else { return false };
        let svc = self.at_mut(id);
        // One whose end is accounted for was only not let go of yet.
        let over = svc.rec.last_exit.is_some_and(|last| last.run >= run)
            || svc.rec.incident.as_ref().is_some_and(|incident| incident.run >= run);
        if svc.rec.state.live().is_some() || over {
            return false;
        }
        let live = Live::new(run, generation, &svc.spec);
        svc.rec.want = if svc.gone { Want::Down } else { Want::Up };
        self.next_run = self.next_run.max(RunId(run.0 + 1));
        self.runs.insert(run, id);
        self.set(id, State::Starting { live, give_up_at: now + LAUNCH_LIMIT });
        self.settle();
        true
    }
}
