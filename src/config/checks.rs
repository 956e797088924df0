//! Settings that are each fine and together are not: what can be refused before anything runs.

use super::{diagnostic::Problems, service::Service};
use crate::plan::{Backoff, ExitMatch, Millis, Restart, signal::signal_name, unit::size_text};

/// Reports what contradicts itself in one service.
pub(super) fn service(service: &Service<'_>, shutdown_timeout: Millis, problems: &mut Problems) {
    let s = &service.settings;
    let at = |keys: &[&str]| s.written(keys).unwrap_or(service.at);
    let backoff = service.backoff();
    if backoff.max < backoff.delay {
        problems.error(
            at(&["backoff.max", "backoff.delay"]),
            format!("`backoff.max` ({}) is less than `backoff.delay` ({})", backoff.max, backoff.delay),
        );
    } else if service.restart() != Restart::Never {
        let breaker = service.breaker();
        let least = least_time(&backoff, breaker.failures);
        if least > breaker.within {
            let keys = [
                "breaker.failures",
                "breaker.within",
                "backoff.delay",
                "backoff.max",
                "backoff.factor",
                "backoff.jitter",
            ];
            problems.error(
                at(&keys),
                format!(
                    "the breaker can never open: {} failures take at least {least} with this backoff, and \
                     `breaker.within` is {}",
                    breaker.failures, breaker.within
                ),
            );
        }
    }
    let success = s.exits("success-exit");
    if let Some(both) = s.exits("no-restart-exit").iter().find(|e| success.contains(e)) {
        let end = match both {
            ExitMatch::Code(code) => format!("exit status {code}"),
            ExitMatch::Signal(signal) => signal_name(*signal),
        };
        problems.error(
            at(&["no-restart-exit", "success-exit"]),
            format!("{end} cannot be both in `success-exit` and in `no-restart-exit`"),
        );
    }
    let last = s.count("port").unwrap_or(1) + u64::from(service.instances()) - 1;
    if last > 65_535 {
        problems.error(
            at(&["port", "instances"]),
            format!("`port` plus the index of the last instance is {last}, above 65535"),
        );
    }
    warnings(service, shutdown_timeout, problems);
}

fn warnings(service: &Service<'_>, shutdown_timeout: Millis, problems: &mut Problems) {
    let s = &service.settings;
    let timeout = s.time("stop-timeout").unwrap_or_default();
    if timeout > shutdown_timeout {
        problems.warn(
            s.written(&["stop-timeout"]).unwrap_or(service.at),
            format!(
                "`stop-timeout` of service `{}` ({timeout}) is longer than `daemon.shutdown-timeout` \
                 ({shutdown_timeout}), which ends it when the host or keepd stops",
                service.name
            ),
        );
    }
    let (size, total) = (s.size("logs.max-size").unwrap_or(1), s.size("logs.max-total"));
    if let Some(total) = total.filter(|t| *t < size) {
        problems.warn(
            s.written(&["logs.max-total", "logs.max-size"]).unwrap_or(service.at),
            format!(
                "`logs.max-total` of service `{}` ({}) is less than `logs.max-size` ({}): no rotated file will be kept",
                service.name,
                size_text(total),
                size_text(size)
            ),
        );
    }
}

/// The shortest time in which so many failures can happen: each but the first waits for its delay, and
/// jitter may shorten each delay.
fn least_time(backoff: &Backoff, failures: u32) -> Millis {
    let mut sum: u128 = 0;
    let mut delay = u128::from(backoff.delay.0);
    let max = u128::from(backoff.max.0);
    let mut left = u128::from(failures.saturating_sub(1));
    while left > 0 {
        let next = (delay * u128::from(backoff.factor_permille) / 1000).min(max);
        if next <= delay {
            // It grows no more.
            sum += delay * left;
            break;
        }
        sum += delay;
        delay = next;
        left -= 1;
    }
    let kept = u128::from(1000u32.saturating_sub(backoff.jitter_permille));
    Millis(u64::try_from(sum * kept / 1000).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn backoff(delay: u64, factor: u32, max: u64, jitter: u32) -> Backoff {
        Backoff {
            delay: Millis(delay),
            factor_permille: factor,
            max: Millis(max),
            jitter_permille: jitter,
            reset_after: Millis::secs(60),
        }
    }

    #[test]
    fn the_least_time_is_the_sum_of_the_shortest_delays() {
        // 500ms 1s 2s 4s 8s 16s 30s 30s 30s
        assert_eq!(least_time(&backoff(500, 2000, 30_000, 0), 10), Millis(121_500));
        assert_eq!(least_time(&backoff(500, 2000, 30_000, 200), 10), Millis(97_200));
        assert_eq!(least_time(&backoff(500, 2000, 30_000, 200), 1), Millis(0));
        assert_eq!(least_time(&backoff(100, 1000, 100, 0), 4), Millis(300));
        assert_eq!(least_time(&backoff(0, 2000, 100, 0), u32::MAX), Millis(0));
        assert_eq!(least_time(&backoff(1, 1001, u64::MAX, 1000), u32::MAX), Millis(0));
    }
}
