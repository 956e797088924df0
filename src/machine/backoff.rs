//! How long an automatic restart waits. Arithmetic only; when it is forgotten is decided in `ending`.

use super::rng::Rng;
use crate::plan::{Backoff, Millis};

/// The delay before the `attempt`-th restart in a row (the first is 1), jitter included.
pub(super) fn delay(spec: &Backoff, attempt: u32, rng: &mut Rng) -> Millis {
    let base = spec.base(attempt).0;
    let spread = scale(base, spec.jitter_permille.min(1000));
    if spread == 0 {
        return Millis(base);
    }
    Millis((base - spread).saturating_add(rng.up_to(spread.saturating_mul(2))))
}

fn scale(ms: u64, permille: u32) -> u64 {
    u64::try_from(u128::from(ms) * u128::from(permille) / 1000).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(delay: u64, factor: u32, max: u64, jitter: u32) -> Backoff {
        Backoff {
            delay: Millis(delay),
            factor_permille: factor,
            max: Millis(max),
            jitter_permille: jitter,
            reset_after: Millis(60_000),
        }
    }

    #[test]
    fn doubles_up_to_the_ceiling() {
        let s = spec(500, 2000, 30_000, 0);
        let got: Vec<u64> = (1..=9).map(|n| delay(&s, n, &mut Rng::new(1)).0).collect();
        assert_eq!(got, [500, 1000, 2000, 4000, 8000, 16_000, 30_000, 30_000, 30_000]);
        assert_eq!(delay(&s, u32::MAX, &mut Rng::new(1)).0, 30_000);
    }

    #[test]
    fn extremes_neither_overflow_nor_hang() {
        assert_eq!(delay(&spec(0, 2000, 30_000, 1000), u32::MAX, &mut Rng::new(1)).0, 0);
        assert_eq!(delay(&spec(7, 1000, 30_000, 0), u32::MAX, &mut Rng::new(1)).0, 7);
        assert_eq!(delay(&spec(u64::MAX, u32::MAX, u64::MAX, 0), 9, &mut Rng::new(1)).0, u64::MAX);
        delay(&spec(u64::MAX, 5000, u64::MAX, 1000), 9, &mut Rng::new(1));
    }

    #[test]
    fn jitter_spreads_to_both_sides_and_no_further() {
        let (s, mut rng) = (spec(1000, 2000, 30_000, 200), Rng::new(7));
        let got: Vec<u64> = (0..2000).map(|_| delay(&s, 1, &mut rng).0).collect();
        assert!(got.iter().all(|d| (800..=1200).contains(d)));
        assert!(got.iter().any(|d| *d < 820) && got.iter().any(|d| *d > 1180));
    }
}
