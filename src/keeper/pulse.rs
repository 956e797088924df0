//! Whether the manager answers. One that does not is of no use to anybody: it is killed, and the next one goes on
//! from what the keeper holds. Services have no part in it.

#![forbid(unsafe_code)]

use super::{protocol::News, state::Keeper};
use crate::sys::{clock, pidfd, signal};
use std::os::fd::AsFd;

/// How often it is asked.
const PERIOD_MS: u64 = 5_000;
/// How long it may take to answer.
const LIMIT_MS: u64 = 10_000;
/// How long a new one may take to take over.
const START_MS: u64 = 60_000;
/// Looked at so late, we were held up as well, as when the host was suspended: it gets the whole time once more.
const HELD_UP_MS: u64 = 1_000;

/// What is between a question and its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Pulse {
    /// A new manager takes over, until then at most.
    Starting(u64),
    /// It has answered; it is asked again then.
    Good(u64),
    /// It was asked, and has until then.
    Asked(u64),
}

/// What is due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    Nothing,
    Ask,
    Kill,
}

impl Default for Pulse {
    fn default() -> Pulse {
        Pulse::Starting(u64::MAX)
    }
}

impl Pulse {
    pub(super) fn of_new(now: u64) -> Pulse {
        Pulse::Starting(now + START_MS)
    }

    /// It has answered, or has said that it is ready.
    pub(super) fn beat(&mut self, now: u64) {
        *self = Pulse::Good(now + PERIOD_MS);
    }

    pub(super) fn deadline(self) -> u64 {
        match self {
            Pulse::Starting(at) | Pulse::Good(at) | Pulse::Asked(at) => at,
        }
    }

    fn due(&mut self, now: u64) -> Due {
        let late = now.saturating_sub(self.deadline());
        match *self {
            _ if now < self.deadline() => Due::Nothing,
            Pulse::Good(_) => {
                *self = Pulse::Asked(now + LIMIT_MS);
                Due::Ask
            }
            Pulse::Asked(_) | Pulse::Starting(_) if late > HELD_UP_MS => {
                *self = Pulse::Asked(now + LIMIT_MS);
                Due::Nothing
            }
            Pulse::Asked(_) | Pulse::Starting(_) => {
                *self = Pulse::Starting(u64::MAX);
                Due::Kill
            }
        }
    }
}

impl Keeper {
    /// Asks the manager, or ends one that has not answered.
    pub(super) fn feel_pulse(&mut self, now: u64) {
        if self.link.kill_at.is_some_and(|at| now >= at) {
            self.link.kill_at = None;
            self.kill_manager();
        }
        if !self.link.connected() {
            return;
        }
        let what = if self.link.ready { "did not answer" } else { "did not get ready" };
        match self.link.pulse.due(now) {
            Due::Nothing => {}
            Due::Ask => self.tell(News::Ping),
            Due::Kill => {
                self.link.verdict = Some(format!("{what} in time and was killed"));
                self.kill_manager();
            }
        }
    }

    fn kill_manager(&self) {
        if let Some(child) = &self.link.child {
            let _ = pidfd::send_signal(child.pidfd.as_fd(), signal::SIGKILL);
        }
    }

    /// It has answered.
    pub(super) fn pulse_felt(&mut self) {
        self.link.pulse.beat(clock::boottime_ms());
        self.up.pong();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_that_answers_is_asked_again_and_one_that_does_not_is_killed_once() {
        let mut pulse = Pulse::of_new(0);
        assert_eq!(pulse.due(START_MS - 1), Due::Nothing);
        pulse.beat(1_000);
        assert_eq!(pulse.due(1_000 + PERIOD_MS), Due::Ask);
        pulse.beat(7_000);
        assert_eq!(pulse.due(7_000 + PERIOD_MS), Due::Ask);
        let until = 7_000 + PERIOD_MS + LIMIT_MS;
        assert_eq!(pulse.due(until - 1), Due::Nothing);
        assert_eq!(pulse.due(until), Due::Kill);
        assert_eq!(pulse.due(until + 1_000_000), Due::Nothing);
    }

    #[test]
    fn one_that_never_gets_ready_is_killed() {
        assert_eq!(Pulse::of_new(5).due(5 + START_MS), Due::Kill);
    }

    #[test]
    fn a_host_that_was_suspended_is_no_reason_to_kill() {
        let mut pulse = Pulse::Asked(10_000);
        assert_eq!(pulse.due(3_600_000), Due::Nothing);
        assert_eq!(pulse.due(3_600_000 + LIMIT_MS), Due::Kill);
    }
}
