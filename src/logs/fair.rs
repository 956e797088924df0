//! How much each of many streams moves before the next one has its turn. Pure.

/// Bytes of one turn at least and at most, and of all turns of a round.
const TURN: (usize, usize) = (64 << 10, 1 << 20);
const ROUND: usize = 16 << 20;

/// Bytes that each of so many streams may move in one turn. A service whose pipe is full waits for a round; one
/// that is alone moves in large steps, which cost less.
pub(super) fn share(streams: usize) -> usize {
    (ROUND / streams.max(1)).clamp(TURN.0, TURN.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// At a gigabyte a second none of two hundred waits for longer than 16 ms.
    #[test]
    fn a_round_is_short_however_many_take_part() {
        assert_eq!((share(0), share(1), share(16)), (TURN.1, TURN.1, TURN.1));
        for streams in 1..10_000 {
            let round = streams * share(streams);
            assert!(round <= ROUND || share(streams) == TURN.0, "{streams}");
            assert!(round * 2 >= ROUND || share(streams) == TURN.1, "{streams}");
        }
        assert!(200 * share(200) <= ROUND);
    }
}
