//! Sentences about ends and states. No times that change: those are shown beside.

use super::StateKind;
use crate::plan::{Breaker, Exit, signal::signal_name};

/// What a run did at its end: "exited with status 1", "was killed by SIGSEGV (core dumped)".
pub(super) fn ended(exit: Exit) -> String {
    match exit {
        Exit::Code(code) => format!("exited with status {code}"),
        Exit::Signal { signal, core: true } => format!("was killed by {} (core dumped)", signal_name(signal)),
        Exit::Signal { signal, core: false } => format!("was killed by {}", signal_name(signal)),
        Exit::Oom => "was killed by the kernel: out of memory".into(),
        Exit::Unknown => "ended, and its exit status is not known".into(),
    }
}

/// " (3 failures in a row)", from the second one on.
pub(super) fn in_a_row(failures: u32) -> String {
    if failures > 1 { format!(" ({failures} failures in a row)") } else { String::new() }
}

/// "crash loop: 10 failures within 10m; one retry every 5m"
pub(super) fn crash_loop(b: &Breaker) -> String {
    let next = match b.retry_every {
        Some(every) => format!("one retry every {every}"),
        None => "it waits for an operator".into(),
    };
    format!("crash loop: {} failures within {}; {next}", b.failures, b.within)
}

/// Completes "db, which ...".
pub(super) fn which(state: StateKind) -> &'static str {
    match state {
        StateKind::Stopped => "is stopped",
        StateKind::Waiting => "is waiting itself",
        StateKind::Starting => "is starting",
        StateKind::Running => "is not ready yet",
        StateKind::Stopping => "is stopping",
        StateKind::Backoff => "is in backoff",
        StateKind::Exited => "has exited",
        StateKind::Failed => "has failed",
        StateKind::Stuck => "is stuck",
    }
}
