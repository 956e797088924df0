//! Watches: whether a service uses too much for too long. Readings come in as facts; when the next one is to be taken
//! is a deadline of the machine, so that one timer does for all services and none is set where nothing is watched.
//!
//! Nothing of it is saved: a new manager begins to measure anew. Only what follows from it, a restart, is.

use super::{
    Effect, Machine, NoticeKind, ServiceId, Time,
    event::Reading,
    service::{Bounce, Live, State},
};
use crate::plan::{Meter, Millis, RunId, Watch, WatchAction};

/// So many readings are taken in the time for which it must be too much.
const READINGS: u64 = 4;
/// Readings are not closer than this.
const CLOSEST: u64 = 250;
/// Nor further apart.
const FURTHEST: u64 = 30_000;

/// After so many readings without an answer people are told; one may come just when a process ends.
const BLIND: u32 = 3;

/// What is known of a running service that is watched.
#[derive(Debug, Clone, Default)]
pub(super) struct Gauge {
    /// What it is watched for; another watch begins anew.
    watch: Option<Watch>,
    /// The kernel tells when it uses more memory than this, which is within its watch: below, nothing is read.
    mark: Option<u64>,
    /// Its entry in the machine's readings; none while the kernel is to tell.
    due: Option<Time>,
    /// The last reading: when it was taken, and the CPU time used by then.
    last: Option<(Time, Option<u64>)>,
    /// Readings in a row in which something was missing.
    blind: u32,
    memory: Excess,
    cpu: Excess,
}

/// Whether one meter shows too much.
#[derive(Debug, Clone, Copy, Default)]
struct Excess {
    /// Since when without a break.
    since: Option<Time>,
    /// It has lasted, and people know.
    told: bool,
}

/// How far apart readings are.
fn interval(watch: &Watch) -> u64 {
    (watch.lasting.0 / READINGS).clamp(CLOSEST, FURTHEST)
}

/// The next instant for a reading. Services with like watches are read at the same instants.
fn next(now: Time, watch: &Watch) -> Time {
    let interval = interval(watch);
    Time((now.0 / interval + 1) * interval)
}

/// Where the kernel tells, by the events of memory.high, that there may be too much: at or below the watch's limit.
fn mark(watch: &Watch, live: &Live) -> Option<u64> {
    let high = live.resources.memory_high.filter(|_| live.refused.is_none())?;
    watch.memory.filter(|limit| *limit >= high && watch.cpu.is_none()).map(|_| high)
}

impl Machine {
    /// When the next reading is to be taken.
    pub(super) fn reading_deadline(&self) -> Option<Time> {
        self.readings.first().map(|(t, _)| *t)
    }

    /// Follows a change of state or of the watch: what runs is measured, and nothing else.
    pub(super) fn sync_watch(&mut self, id: ServiceId) {
        let svc = &mut self.services[id.0 as usize];
        let runs = matches!(svc.rec.state, State::Running { .. });
        let watch = svc.spec.watch.filter(|_| runs);
        let mark = watch.zip(svc.rec.state.live()).and_then(|(watch, live)| mark(&watch, live));
        if (svc.gauge.watch, svc.gauge.mark) == (watch, mark) {
            return;
        }
        self.begin_watch(id, watch, mark);
    }

    /// Forgets all readings: what is known of a watched run may be true no more.
    pub(super) fn watch_anew(&mut self, id: ServiceId) {
        self.begin_watch(id, None, None);
        self.sync_watch(id);
    }

    fn begin_watch(&mut self, id: ServiceId, watch: Option<Watch>, mark: Option<u64>) {
        let now = self.now;
        let svc = &mut self.services[id.0 as usize];
        if let Some(due) = svc.gauge.due {
            self.readings.remove(&(due, id));
        }
        let due = watch.as_ref().map(|w| next(now, w));
        svc.gauge = Gauge { watch, mark, due, ..Gauge::default() };
        self.readings.extend(due.map(|due| (due, id)));
    }

    /// Has every reading taken that is due.
    pub(super) fn read_due(&mut self) {
        while let Some(&(due, id)) = self.readings.first().filter(|(due, _)| *due <= self.now) {
            self.readings.remove(&(due, id));
            let now = self.now;
            let svc = &mut self.services[id.0 as usize];
            svc.gauge.due = svc.gauge.watch.as_ref().map(|w| next(now, w));
            self.readings.extend(svc.gauge.due.map(|due| (due, id)));
            if let (State::Running { live, .. }, Some(watch)) = (&svc.rec.state, &svc.gauge.watch) {
                self.out.push(Effect::Measure { run: live.run, memory: watch.memory.is_some() });
            }
        }
    }

    /// A reading of a run.
    pub(super) fn measured(&mut self, run: RunId, reading: Reading) {
        let Some(&id) = self.runs.get(&run) else { return };
        let now = self.now;
        let svc = &mut self.services[id.0 as usize];
        let gauge = &mut svc.gauge;
        let Some(watch) = gauge.watch.filter(|_| !svc.face.held) else { return };
        let Reading { at, memory, cpu_us } = reading;
        let woken = gauge.due.is_none();
        if woken {
            let due = next(now, &watch);
            gauge.due = Some(due);
            self.readings.insert((due, id));
        }
        let svc = &mut self.services[id.0 as usize];
        let gauge = &mut svc.gauge;
        let before = gauge.last;
        if before.is_some_and(|(last, _)| at <= last) {
            return;
        }
        gauge.last = Some((at, cpu_us));
        let missing = watch.memory.is_some() && memory.is_none() || watch.cpu.is_some() && cpu_us.is_none();
        gauge.blind = if missing { gauge.blind.saturating_add(1) } else { 0 };
        let blind = gauge.blind == BLIND;
        // What was not looked at may not count: the host may have slept.
        let gap = before.is_some_and(|(last, _)| at.since(last).0 > 3 * interval(&watch));
        if gap {
            gauge.memory.since = None;
        }
        let over = watch.memory.zip(memory).map(|(limit, used)| (used > limit, at));
        let cpu = before
            .filter(|_| !gap)
            .and_then(|(last, then)| Some((last, share(then?, cpu_us?, at.since(last)))));
        let busy = watch.cpu.zip(cpu).map(|(limit, (last, used))| (used > u64::from(limit), last));
        if blind {
            let message = format!("{} cannot be watched: what it uses cannot be found out here", svc.name);
            self.notice(id, NoticeKind::Watch, message, Some(run));
        }
        for (meter, found) in [(Meter::Memory, over), (Meter::Cpu, busy)] {
            match found {
                Some((over, since)) => self.judge(id, &watch, meter, over.then_some(since), at),
                // What was not seen does not count.
                None => self.at_mut(id).gauge.of(meter).since = None,
            }
        }
        if !woken {
            self.sleep(id, run, memory);
        }
    }

    /// Takes no more readings until the kernel tells, where it can and little is used.
    fn sleep(&mut self, id: ServiceId, run: RunId, memory: Option<u64>) {
        let gauge = &mut self.services[id.0 as usize].gauge;
        let Some(mark) = gauge.mark.filter(|mark| memory.is_some_and(|used| used <= *mark)) else { return };
        if let Some(due) = gauge.due.take() {
            self.readings.remove(&(due, id));
            self.out.push(Effect::Listen { run, above: mark });
        }
    }

    /// `over`: since when the present reading shows too much, if it does.
    fn judge(&mut self, id: ServiceId, watch: &Watch, meter: Meter, over: Option<Time>, at: Time) {
        let room = self.spent.room_at(self.now, self.plan.daemon.restart_budget) == Some(self.now);
        let svc = self.at_mut(id);
        let (name, run) = (svc.name.clone(), svc.rec.state.live().map(|live| live.run));
        let excess = svc.gauge.of(meter);
        let Some(over) = over else {
            if std::mem::take(excess).told {
                self.touch(id);
                self.notice(id, NoticeKind::Recovered, format!("{name} is within its watch again"), run);
            }
            return;
        };
        let since = *excess.since.get_or_insert(over);
        if at.since(since) < watch.lasting || svc.rec.bounce.is_some() {
            return;
        }
        match watch.action {
            WatchAction::Alert if std::mem::replace(&mut excess.told, true) => {}
            WatchAction::Alert => {
                self.touch(id);
                self.notice(id, NoticeKind::Watch, format!("{name} used {}", watch.excess(meter)), run);
            }
            // What could not be started again at once is not stopped.
            WatchAction::Restart if !room => {}
            WatchAction::Restart => {
                svc.rec.bounce = Some(Bounce::Watched(meter));
                self.touch(id);
                self.dirty(id);
                let message = format!("{name} used {}, it is restarted", watch.excess(meter));
                self.notice(id, NoticeKind::Watch, message, run);
            }
        }
    }
}

impl Gauge {
    fn of(&mut self, meter: Meter) -> &mut Excess {
        match meter {
            Meter::Memory => &mut self.memory,
            Meter::Cpu => &mut self.cpu,
        }
    }

    /// What people have been told that it uses too much of: "used more than ...".
    pub(super) fn told(&self) -> Option<String> {
        let watch = self.watch?;
        let told: Vec<String> = [(Meter::Memory, self.memory), (Meter::Cpu, self.cpu)]
            .into_iter()
            .filter(|(_, excess)| excess.told)
            .map(|(meter, _)| watch.excess(meter))
            .collect();
        (!told.is_empty()).then(|| format!("used {}", told.join(" and ")))
    }
}

/// Percent of one CPU that was used between two readings; of a time that is none, nothing.
fn share(before_us: u64, after_us: u64, between: Millis) -> u64 {
    let used = u128::from(after_us.saturating_sub(before_us));
    u64::try_from(used / 10 / u128::from(between.0.max(1))).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_that_of_one_cpu() {
        assert_eq!(share(1_000_000, 1_900_000, Millis(1000)), 90);
        assert_eq!(share(0, 4_000_000, Millis(2000)), 200);
        assert_eq!(share(5, 4, Millis(1)), 0);
        assert_eq!(share(0, u64::MAX, Millis(0)), u64::MAX / 10);
    }

    #[test]
    fn readings_of_like_watches_fall_together() {
        let watch =
            |s| Watch { memory: Some(1), cpu: None, lasting: Millis::secs(s), action: WatchAction::Alert };
        assert_eq!(next(Time(100_001), &watch(60)), Time(105_000));
        assert_eq!(next(Time(104_999), &watch(60)), Time(105_000));
        assert_eq!((interval(&watch(0)), interval(&watch(3600))), (CLOSEST, FURTHEST));
    }
}
