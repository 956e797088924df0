//! The services that run by a schedule: when each is due, by the wall clock, and telling the machine. What is decided
//! then, whether it runs or not, is the machine's business; when they were looked at last, it remembers.
//!
//! A time that went by while nobody looked (the host slept, the manager was being restarted, the clock was set) is made
//! up for at once, once, however many there were. Those that went by while keepd was not there are not.

use super::{actor::Actor, timetable};
use crate::{
    machine::{Event, Wish},
    plan::{Generation, Name, Schedule},
    sys::{self, timer::WallTimer},
};
use jiff::tz::TimeZone;
use std::{collections::BTreeMap, io};
use tokio::io::unix::AsyncFd;

/// A clock that is set back by no more than this does not bring times again that have been.
const SET_BACK_MS: u64 = 3 * 3_600_000;

/// See the head of the file.
pub(super) struct Schedules {
    generation: Generation,
    /// When each is due next, in milliseconds since 1970.
    next: BTreeMap<Name, u64>,
    timer: AsyncFd<WallTimer>,
    armed: Option<u64>,
}

impl Schedules {
    /// Must be called within a runtime.
    ///
    /// # Errors
    /// If there is no timer to be had.
    pub(super) fn new() -> io::Result<Schedules> {
        let timer = sys::ready::wall_timer(WallTimer::new()?)?;
        Ok(Schedules { generation: Generation::default(), next: BTreeMap::new(), timer, armed: None })
    }

    /// When a service is due next, in milliseconds since 1970.
    pub(super) fn next(&self, name: &Name) -> Option<u64> {
        self.next.get(name).copied()
    }

    /// Waits until something is due, or the clock is set.
    pub(super) async fn due(&self) -> io::Result<()> {
        // Looking sets the timer anew, or off, which makes it quiet.
        self.timer.readable().await?.clear_ready();
        Ok(())
    }

    fn arm(&mut self) {
        let first = self.next.values().min().copied();
        if first == self.armed {
            return;
        }
        self.armed = first;
        if let Err(e) = self.timer.get_ref().set(first) {
            tracing::error!("cannot wait for what is scheduled: {}", sys::describe(e));
        }
    }
}

impl Actor {
    /// Takes up another plan's schedules.
    pub(super) fn keep_time(&mut self) {
        if self.schedules.generation != self.plans.generation() {
            self.schedules.generation = self.plans.generation();
            self.look_at_clock();
        }
    }

    /// What is due runs now; the rest is waited for.
    pub(super) fn look_at_clock(&mut self) {
        let (plan, now, zone) = (self.plans.current(), sys::clock::wall_ms(), TimeZone::system());
        self.schedules.next.clear();
        // The timer has gone off: it is set again in any case.
        self.schedules.armed = None;
        for spec in &plan.services {
            let Some(schedule) = spec.oneshot.as_ref().and_then(|o| o.schedule.as_ref()) else { continue };
            let next = self.look_at(&spec.name, schedule, now, &zone);
            self.schedules.next.extend(next.map(|at| (spec.name.clone(), at)));
        }
        self.schedules.arm();
    }

    fn look_at(&mut self, name: &Name, schedule: &Schedule, now: u64, zone: &TimeZone) -> Option<u64> {
        let service = self.machine.id(name.as_str())?;
        let seen = self.machine.looked_at(service);
        let from = match seen {
            Some(seen) if seen <= now.saturating_add(SET_BACK_MS) => seen,
            Some(_) | None => now,
        };
        let next = timetable::next(schedule, from, zone);
        let run = next.is_some_and(|at| at <= now);
        if run || seen != Some(from) {
            self.step(Event::Wish(Wish::Due { service, at_ms: now.max(from), run }));
            self.stale.insert(service);
        }
        if run { timetable::next(schedule, now, zone) } else { next }
    }
}
