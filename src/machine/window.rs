//! How many starts there were lately: the host-wide restart budget, and what each service spent of it.

use super::Time;
use crate::plan::{Budget, Millis};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// A window is kept in this many parts, so that its size does not grow with the number of starts.
const PARTS: u64 = 64;

/// Counts over a sliding window. Starts of one part are counted together and expire with the last of them,
/// so that the true number in any window is never above the counted one.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub(super) struct Window(VecDeque<(Time, u32)>);

impl Window {
    /// Counts one start at `now`.
    pub(super) fn add(&mut self, now: Time, within: Millis) {
        self.prune(now, within);
        let part = (within.0 / PARTS).max(1);
        match self.0.back_mut() {
            Some((at, n)) if at.0 / part == now.0 / part => (*at, *n) = (now.max(*at), n.saturating_add(1)),
            Some(_) | None => self.0.push_back((now, 1)),
        }
    }

    /// When there is room for one more start: `Some(now)` at once, `None` never.
    pub(super) fn room_at(&mut self, now: Time, budget: Budget) -> Option<Time> {
        self.prune(now, budget.within);
        let mut used: u64 = self.0.iter().map(|(_, n)| u64::from(*n)).sum();
        if used < u64::from(budget.starts) {
            return Some(now);
        }
        self.0.iter().find_map(|(at, n)| {
            used -= u64::from(*n);
            (used < u64::from(budget.starts)).then(|| *at + budget.within)
        })
    }

    /// Adds what another window counted.
    pub(super) fn merge(&mut self, other: &Window) {
        self.0.extend(&other.0);
        self.0.make_contiguous().sort_unstable();
    }

    fn prune(&mut self, now: Time, within: Millis) {
        while self.0.front().is_some_and(|(at, _)| *at + within <= now) {
            self.0.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BUDGET: Budget = Budget { starts: 3, within: Millis(6400) };

    #[test]
    fn room_comes_back_when_the_oldest_start_leaves_the_window() {
        let mut w = Window::default();
        for t in [1000, 2000, 3000] {
            assert_eq!(w.room_at(Time(t), BUDGET), Some(Time(t)));
            w.add(Time(t), BUDGET.within);
        }
        assert_eq!(w.room_at(Time(3000), BUDGET), Some(Time(7400)));
        assert_eq!(w.room_at(Time(7400), BUDGET), Some(Time(7400)));
    }

    #[test]
    fn starts_of_one_part_expire_with_the_last() {
        let mut w = Window::default();
        for t in [1000, 1001, 1099] {
            w.add(Time(t), BUDGET.within);
        }
        assert_eq!(w.0.len(), 1);
        assert_eq!(w.room_at(Time(1099), BUDGET), Some(Time(7499)));
    }

    #[test]
    fn a_budget_of_nothing_has_no_room_ever() {
        assert_eq!(Window::default().room_at(Time(5), Budget { starts: 0, within: Millis(1) }), None);
    }
}
