//! Tells a crash loop from a crash: so many failures within so long open the breaker.

use super::Time;
use crate::plan;
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// Failures remembered at most, so that a saved state always fits a packet. A breaker that wants more never
/// opens.
const KEPT: usize = 1024;

/// The failures of one service that still count, and whether they were too many.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Breaker {
    /// Oldest first.
    recent: VecDeque<Time>,
    /// A crash loop was found. Then each further failure is one too many, until a run is stable.
    pub(super) open: bool,
}

impl Breaker {
    /// Counts a failure; true where the service is (or still is) in a crash loop.
    pub(super) fn fail(&mut self, spec: &plan::Breaker, at: Time) -> bool {
        let needed = usize::try_from(spec.failures).unwrap_or(usize::MAX).max(1);
        if needed > KEPT {
            self.recent.clear();
            return self.open;
        }
        while self.recent.front().is_some_and(|t| *t + spec.within <= at) {
            self.recent.pop_front();
        }
        while self.recent.len() >= needed {
            self.recent.pop_front();
        }
        self.recent.push_back(at);
        self.open |= self.recent.len() >= needed;
        self.open
    }

    /// Forgets everything: a stable run, or an operator.
    pub(super) fn reset(&mut self) {
        *self = Breaker::default();
    }

    /// Nothing to forget.
    pub(super) fn is_clean(&self) -> bool {
        !self.open && self.recent.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Millis;

    const SPEC: plan::Breaker = plan::Breaker { failures: 3, within: Millis(1000), retry_every: None };

    #[test]
    fn one_that_wants_more_than_is_remembered_never_opens() {
        let spec = plan::Breaker { failures: 1025, ..SPEC };
        let mut b = Breaker::default();
        assert!((0..3000).all(|_| !b.fail(&spec, Time(1))));
        assert!(b.is_clean());
    }

    #[test]
    fn slow_failures_never_open_it() {
        let mut b = Breaker::default();
        assert!((0..100).all(|n| !b.fail(&SPEC, Time(n * 500))));
    }

    #[test]
    fn fast_failures_do_and_it_stays_open() {
        let mut b = Breaker::default();
        assert!(!b.fail(&SPEC, Time(0)) && !b.fail(&SPEC, Time(10)) && b.fail(&SPEC, Time(20)));
        assert!(b.fail(&SPEC, Time(1_000_000)), "half-open: one failure is enough");
        b.reset();
        assert!(!b.fail(&SPEC, Time(1_000_001)));
    }
}
