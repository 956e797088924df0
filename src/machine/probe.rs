//! Probes: when a run is asked whether it is ready or alive, and what its answers come to. When the next question is
//! due is a deadline of the machine; one probe is never asked again before its answer has come, or is overdue.
//!
//! Questions of services that are alike are spread over their interval by chance, so that they do not come all at
//! once. While a probe fails it is asked again after its timeout rather than its interval, so that a failure is known
//! `failures * timeout` after the first question that meets it.
//!
//! Nothing of it is saved: a new manager begins to ask anew.

use super::{
    Effect, Machine, ServiceId, Time,
    service::{Live, State},
};
use crate::plan::{Check, Millis, Probe, RunId, Verdict, Which};
use std::{collections::VecDeque, sync::Arc};

/// How long past its timeout an answer may be under way: launchers and sockets have their own ways to be slow.
const OVERDUE: Millis = Millis::secs(15);
/// A deadline that is met later than this was not missed by the service: the host slept, or nobody was there.
pub(super) const LATE: Millis = Millis::secs(1);
/// So many different answers are kept.
const KEPT: usize = 8;

/// Answers in a row that were the same.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Seen {
    /// When the first of them came.
    pub since: Time,
    /// When the last of them did.
    pub last: Time,
    pub times: u64,
    /// Why they were failures; `None`: they were none.
    pub failure: Option<String>,
}

/// What is known of one probe of a run.
#[derive(Debug, Clone, Default)]
pub(super) struct Probing {
    /// Who is asked what; another begins anew.
    of: Option<(RunId, Arc<Probe>)>,
    /// Its entry in the machine's probes.
    due: Option<Time>,
    /// Who was asked the question that is under way, its number, and when it was due.
    asked: Option<(RunId, u64, Time)>,
    /// That question was another than what is asked now: its answer means nothing.
    outdated: bool,
    /// In a row.
    passes: u32,
    pub(super) failures: u32,
    seen: VecDeque<Seen>,
    /// People know that it fails.
    pub(super) alerted: bool,
}

impl Probing {
    fn note(&mut self, now: Time, failure: Option<String>) {
        if let Some(same) = self.seen.back_mut().filter(|seen| seen.failure == failure) {
            (same.last, same.times) = (now, same.times + 1);
            return;
        }
        if self.seen.len() >= KEPT {
            self.seen.pop_front();
        }
        self.seen.push_back(Seen { since: now, last: now, times: 1, failure });
    }

    /// Why the last answer was a failure, if it was.
    pub(super) fn failure(&self) -> Option<&str> {
        self.seen.back()?.failure.as_deref()
    }

    pub(super) fn probed(&self) -> Option<super::Probed<'_>> {
        let asked = self.of.is_some() && !self.seen.is_empty();
        asked.then_some(super::Probed { failures: self.failures, seen: &self.seen })
    }
}

impl Machine {
    /// Follows a change of state or of the plan: what runs is asked, and nothing else.
    pub(super) fn sync_probes(&mut self, id: ServiceId) {
        for which in Which::BOTH {
            let wanted = self.probe_wanted(id, which);
            if self.at(id).probing[which as usize].of != wanted {
                self.begin_probe(id, which, wanted);
            }
        }
    }

    fn probe_wanted(&self, id: ServiceId, which: Which) -> Option<(RunId, Arc<Probe>)> {
        let svc = self.at(id);
        let State::Running { live, .. } = &svc.rec.state else { return None };
        let probe = match which {
            Which::Ready => svc.spec.ready.as_ref().map(|r| &r.probe).filter(|p| p.check.is_asked()),
            Which::Live => svc.spec.live.as_ref().map(|l| &l.probe).filter(|_| live.first_ready.is_some()),
        };
        // A line that was written once is not written again.
        let over = |p: &Probe| matches!(p.check, Check::Log(_)) && live.first_ready.is_some();
        probe.filter(|p| !live.leaving && !over(p)).map(|probe| (live.run, probe.clone()))
    }

    fn begin_probe(&mut self, id: ServiceId, which: Which, of: Option<(RunId, Arc<Probe>)>) {
        let now = self.now;
        let old = &self.at(id).probing[which as usize];
        if old.asked.is_some_and(|(run, ..)| self.at(id).run() == Some(run)) {
            // It is not asked again before the answer has come.
            let (due, asked) = (old.due, old.asked);
            self.at_mut(id).probing[which as usize] =
                Probing { of, due, asked, outdated: true, ..Probing::default() };
            return;
        }
        let due = of.as_ref().map(|(_, probe)| match (which, &probe.check) {
            (Which::Ready, _) if !self.at(id).ready() => now,
            (_, Check::Notify) => now + self.patience(id, probe),
            _ => now + self.spread_over(probe.interval),
        });
        self.probe_at(id, which, due);
        self.at_mut(id).probing[which as usize] = Probing { of, due, ..Probing::default() };
    }

    /// Some part of a time that is more than nothing.
    fn spread_over(&mut self, time: Millis) -> Millis {
        Millis(1 + self.rng.up_to(time.0.saturating_sub(1)))
    }

    /// Moves the entry in the machine's probes.
    fn probe_at(&mut self, id: ServiceId, which: Which, due: Option<Time>) {
        let old = std::mem::replace(&mut self.at_mut(id).probing[which as usize].due, due);
        if let Some(old) = old {
            self.probes.remove(&(old, id, which));
        }
        self.probes.extend(due.map(|due| (due, id, which)));
    }

    /// Has every question asked that is due.
    pub(super) fn probe_due(&mut self) {
        while let Some(&(due, id, which)) = self.probes.first().filter(|(due, ..)| *due <= self.now) {
            let probing = &mut self.at_mut(id).probing[which as usize];
            if probing.due != Some(due) {
                // Of a service that is gone, whose place another one has.
                self.probes.remove(&(due, id, which));
                continue;
            }
            let Some((run, probe)) = probing.of.clone() else {
                probing.asked = None;
                self.probe_at(id, which, None);
                continue;
            };
            match (&probe.check, probing.asked.take()) {
                (Check::Notify, _) => self.silent(id, &probe, due),
                (_, Some(_)) => {
                    probing.outdated = false;
                    self.probe_at(id, which, Some(self.now + probe.interval));
                    self.answered(id, which, Verdict::Unasked("nothing has come of it".into()));
                }
                (_, None) => self.ask_run(id, run, which, probe, due),
            }
        }
    }

    fn ask_run(&mut self, id: ServiceId, run: RunId, which: Which, probe: Arc<Probe>, due: Time) {
        let (number, generation) = (self.next_probe, self.generation);
        self.next_probe = number.wrapping_add(1);
        // One that comes late is not made up for.
        let slot = if self.now.since(due) < probe.interval { due } else { self.now };
        self.probe_at(id, which, Some(self.now + Millis(probe.timeout.0 + OVERDUE.0)));
        self.at_mut(id).probing[which as usize].asked = Some((run, number, slot));
        self.out.push(Effect::Probe { service: id, run, generation, which, number, probe });
    }

    /// What has come of a question.
    pub(super) fn probed(&mut self, run: RunId, which: Which, number: u64, verdict: Verdict) {
        let Some(&id) = self.runs.get(&run) else { return };
        let probing = &mut self.at_mut(id).probing[which as usize];
        let Some((.., slot)) = probing.asked.filter(|(_, asked, _)| *asked == number) else { return };
        probing.asked = None;
        let Some((_, probe)) = probing.of.clone() else { return self.probe_at(id, which, None) };
        let outdated = std::mem::take(&mut probing.outdated);
        let verdict = if outdated { Verdict::Unasked("it was asked something else".into()) } else { verdict };
        let pause = if matches!(verdict, Verdict::Failed(_)) { probe.timeout } else { probe.interval };
        self.probe_at(id, which, Some((slot + pause).max(self.now)));
        self.answered(id, which, verdict);
    }

    fn answered(&mut self, id: ServiceId, which: Which, verdict: Verdict) {
        let now = self.now;
        let svc = self.at_mut(id);
        let (held, was_ready) = (svc.face.held, svc.ready());
        let probing = &mut svc.probing[which as usize];
        let Some((_, probe)) = probing.of.clone() else { return };
        let before = (probing.failures, probing.seen.back().map(|seen| seen.failure.clone()));
        let failure = match verdict {
            Verdict::Unasked(_) => return,
            Verdict::Passed => None,
            Verdict::Failed(why) => Some(why),
        };
        (probing.passes, probing.failures) = match &failure {
            None => (probing.passes.saturating_add(1), 0),
            Some(_) => (0, probing.failures.saturating_add(1)),
        };
        probing.note(now, failure.clone());
        let (passed, failed) = (probing.passes >= probe.successes, probing.failures >= probe.failures);
        if before != (probing.failures, Some(failure.clone())) {
            self.touch(id);
        }
        if held {
            return;
        }
        match (which, failure) {
            (Which::Ready, None) if passed && !was_ready => {
                self.become_ready(id);
                let at = now + self.spread_over(probe.interval);
                if self.at(id).probing[which as usize].due.is_some() {
                    self.probe_at(id, which, Some(at));
                }
            }
            (Which::Ready, Some(why)) if failed && was_ready => self.lose_ready(id, &why),
            (Which::Live, None) => self.healthy(id),
            (Which::Live, Some(why)) if failed => self.unhealthy(id, &why),
            (Which::Ready | Which::Live, _) => {}
        }
    }

    /// How long a run may be silent.
    fn patience(&self, id: ServiceId, probe: &Probe) -> Millis {
        let own = self.at(id).rec.state.live().and_then(|live: &Live| live.watchdog);
        own.unwrap_or(probe.interval)
    }

    /// A run that is to tell that it is alive has not done so.
    fn silent(&mut self, id: ServiceId, probe: &Probe, due: Time) {
        let patience = self.patience(id, probe);
        self.probe_at(id, Which::Live, Some(self.now + patience));
        if self.now.since(due) <= LATE {
            let why = format!("it sent no WATCHDOG=1 for {patience}");
            self.answered(id, Which::Live, Verdict::Failed(why));
        }
    }

    /// A run has told that it is alive, or how often it will.
    pub(super) fn heard_of(&mut self, id: ServiceId, alive: bool) {
        let Some((_, probe)) = self.at(id).probing[Which::Live as usize].of.clone() else { return };
        if probe.check == Check::Notify {
            let due = self.now + self.patience(id, &probe);
            self.probe_at(id, Which::Live, Some(due));
            if alive {
                self.answered(id, Which::Live, Verdict::Passed);
            }
        }
    }
}
