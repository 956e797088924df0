//! What all services' logs together may take, and whose files go when it is too much. Pure: numbers only.
//!
//! Whoever has most rotated bytes gives its oldest file, until it is enough: so a noisy service eats its own
//! history, and one that stays below its fair share loses nothing.

use crate::plan::HostLogs;
use std::collections::BinaryHeap;

/// A file system, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    pub total: u64,
    /// What may still be written.
    pub free: u64,
}

/// How many bytes have to go, where the logs have `used` on this file system.
pub fn excess(limits: HostLogs, space: Space, used: u64) -> u64 {
    let above = used.saturating_sub(limits.max_total.of(space.total));
    let missing = limits.keep_free.of(space.total).saturating_sub(space.free);
    above.max(missing)
}

/// How many of the oldest files go, for each of these lists of sizes, oldest first, so that at least `excess`
/// bytes do, if there are as many.
pub fn victims(histories: &[Vec<u64>], mut excess: u64) -> Vec<usize> {
    let mut gone = vec![0; histories.len()];
    let mut heap: BinaryHeap<(u64, usize)> =
        histories.iter().enumerate().map(|(i, sizes)| (sizes.iter().sum(), i)).collect();
    while excess > 0
        && let Some((bytes, i)) = heap.pop()
    {
        let Some(size) = histories[i].get(gone[i]) else { continue };
        gone[i] += 1;
        excess = excess.saturating_sub(*size);
        heap.push((bytes - size, i));
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Share;
    use proptest::prelude::*;

    #[test]
    fn shares_of_the_file_system_are_held() {
        let limits = HostLogs { max_total: Share::Percent(10), keep_free: Share::Percent(5) };
        let space = |free| Space { total: 1000, free };
        assert_eq!(excess(limits, space(500), 100), 0);
        assert_eq!(excess(limits, space(500), 130), 30);
        assert_eq!(excess(limits, space(20), 0), 30);
        assert_eq!(excess(limits, space(20), 120), 30);
        let none = HostLogs { max_total: Share::Percent(100), keep_free: Share::Percent(0) };
        assert_eq!(excess(none, space(0), 1000), 0);
    }

    #[test]
    fn a_noisy_service_eats_its_own_history() {
        let histories = [vec![10; 100], vec![10, 10], vec![]];
        assert_eq!(victims(&histories, 950), [95, 0, 0]);
        assert_eq!(victims(&histories, 1010), [99, 2, 0]);
        assert_eq!(victims(&histories, u64::MAX), [100, 2, 0]);
    }

    proptest! {
        #[test]
        fn enough_goes_and_the_largest_give(
            histories in prop::collection::vec(prop::collection::vec(0..100u64, 0..12), 0..8),
            wanted in 0..3000u64,
        ) {
            let gone = victims(&histories, wanted);
            let sum = |i: usize, from: usize| histories[i][from..].iter().sum::<u64>();
            let freed: u64 = (0..gone.len()).map(|i| sum(i, 0) - sum(i, gone[i])).sum();
            let all: u64 = (0..gone.len()).map(|i| sum(i, 0)).sum();
            prop_assert!(freed >= wanted.min(all));
            for (i, n) in gone.iter().enumerate().filter(|(_, n)| **n > 0) {
                // What it had before its last loss was at least what anybody else has now.
                let before = sum(i, n - 1);
                prop_assert!((0..gone.len()).all(|k| sum(k, gone[k]) <= before));
            }
            let mut taken = gone.iter().enumerate().filter(|(_, n)| **n > 0);
            prop_assert!(wanted == 0 || freed == 0 || taken.any(|(i, n)| freed - histories[i][n - 1] < wanted));
        }
    }
}
