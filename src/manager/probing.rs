//! Performs the machine's probes: what is asked over a connection here, what is asked by a command through the keeper,
//! which alone can run one as the service. Answers come back as facts.

use super::actor::Actor;
use crate::{
    keeper::protocol::Request,
    machine::{Effect, Fact},
    plan::{Check, Generation, Name, Probe, RunId, Verdict, Which},
    probe::{self, Tail},
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, mpsc::sync_channel},
    time::Duration,
};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

/// How long opening a log may take before it is left for later.
const PATIENCE: Duration = Duration::from_millis(100);

/// Questions that are under way, and logs that are looked at.
#[derive(Debug)]
pub(super) struct Prober {
    /// Not bounded, because the machine has at most two questions under way for each run.
    answers: UnboundedSender<Fact>,
    tails: HashMap<RunId, Arc<Mutex<Vec<Tail>>>>,
}

impl Prober {
    /// It, and where its answers come out.
    pub(super) fn new() -> (Prober, UnboundedReceiver<Fact>) {
        let (answers, out) = unbounded_channel();
        (Prober { answers, tails: HashMap::new() }, out)
    }

    fn connect(&self, run: RunId, which: Which, number: u64, probe: Arc<Probe>) {
        let answers = self.answers.clone();
        tokio::spawn(async move {
            let verdict = probe::ask(&probe.check, probe.timeout).await;
            // That nobody is there to hear it any more is no loss.
            let _ = answers.send(Fact::Probed { run, which, number, verdict });
        });
    }

    fn look(&self, run: RunId, which: Which, number: u64, pattern: String) {
        let answers = self.answers.clone();
        let tails = self.tails.get(&run).cloned().unwrap_or_default();
        // A file system may hang: its own thread waits for it then, and no more than one for each run.
        tokio::task::spawn_blocking(move || {
            let Ok(mut tails) = tails.try_lock() else { return };
            let mut verdict = Verdict::Unasked("its output is not captured".into());
            for tail in tails.iter_mut() {
                verdict = tail.look(&pattern);
                if verdict == Verdict::Passed {
                    break;
                }
            }
            let _ = answers.send(Fact::Probed { run, which, number, verdict });
        });
    }
}

impl Actor {
    /// Performs `Effect::Probe`.
    pub(super) fn probe(&mut self, effect: Effect, groups: &mut BTreeMap<Name, Vec<Request>>) {
        let Effect::Probe { service, run, generation, which, number, probe } = effect else { return };
        match &probe.check {
            Check::Exec(_) => {
                let name = self.machine.view(service).spec.name.clone();
                match self.plans.entry(generation, &name) {
                    Some(entry) => {
                        let timeout_ms = probe.timeout.0;
                        let request = Request::Probe { run, generation, entry, which, number, timeout_ms };
                        self.to_run(groups, run, request);
                    }
                    None => tracing::error!("{name}: plan {} has no such service; not asked", generation.0),
                }
            }
            Check::Log(pattern) => {
                if !self.prober.tails.contains_key(&run) {
                    // Its launch was not ours to see: a line too many is better than one that was missed.
                    self.put_tails(run, generation, false);
                }
                self.prober.look(run, which, number, pattern.clone());
            }
            Check::Http(_) | Check::Tcp(_) | Check::Unix(_) | Check::Notify | Check::Fd(_) => {
                self.prober.connect(run, which, number, probe);
            }
        }
    }

    /// What came of a command of the keeper's.
    pub(super) fn probed(&mut self, run: RunId, which: Which, number: u64, verdict: Verdict) {
        self.fact(run, Fact::Probed { run, which, number, verdict });
    }

    /// Before a run with `ready.log` is launched: what its log holds by then is of earlier runs.
    pub(super) fn begin_tail(&mut self, run: RunId, generation: Generation) {
        self.put_tails(run, generation, true);
    }

    /// Looks for the files, and does not wait for long: a file system that hangs is looked at later, as it is then.
    fn put_tails(&mut self, run: RunId, generation: Generation, at_end: bool) {
        let Some(live) = self.runs.get(&run) else { return };
        let Some(spec) = self.plans.spec(generation, &live.service) else { return };
        if !spec.ready.as_ref().is_some_and(|ready| matches!(ready.probe.check, Check::Log(_))) {
            return;
        }
        let files = [spec.logs.dir.join("current"), spec.logs.dir.join("stderr/current")];
        let (made, tails) = sync_channel(1);
        tokio::task::spawn_blocking(move || {
            let open = if at_end { Tail::at_end } else { Tail::from_start };
            let _ = made.send(files.map(open).into());
        });
        if let Ok(tails) = tails.recv_timeout(PATIENCE) {
            self.prober.tails.insert(run, Arc::new(Mutex::new(tails)));
        }
    }

    /// A run's output has come to its end: what is in the log by now is not of the one that came after it.
    pub(super) fn end_tail(&mut self, run: RunId, service: &Name) {
        self.prober.tails.remove(&run);
        let looked_at = |run: &RunId| self.prober.tails.contains_key(run);
        let later = self.runs.iter().filter(|(run, live)| live.service == *service && looked_at(run));
        let later: Vec<_> = later.map(|(run, live)| (*run, live.generation)).collect();
        for (run, generation) in later {
            self.begin_tail(run, generation);
        }
    }
}
