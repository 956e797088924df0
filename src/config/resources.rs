//! The control group's part of `resources`, and the `watch` table: what they come to for one service, and what in them
//! contradicts itself.

#![forbid(unsafe_code)]

use super::{diagnostic::Problems, service::Service, settings::Settings};
use crate::plan::{Resources, Watch, WatchAction, unit::size_text};

/// What is asked for.
pub(super) fn resources(s: &Settings<'_>) -> Resources {
    let small = |key| s.count(key).and_then(|n| u32::try_from(n).ok());
    Resources {
        memory_max: s.size("resources.memory-max"),
        memory_high: s.size("resources.memory-high"),
        cpu_max: s.percent("resources.cpu-max"),
        cpu_weight: small("resources.cpu-weight"),
        pids_max: s.count("resources.pids-max"),
        io_weight: small("resources.io-weight"),
    }
}

/// What is watched, if anything is.
pub(super) fn watch(s: &Settings<'_>) -> Option<Watch> {
    let watch = Watch {
        memory: s.size("watch.memory"),
        cpu: s.percent("watch.cpu"),
        lasting: s.time("watch.for").unwrap_or_default(),
        action: if s.choice("watch.action") == "alert" { WatchAction::Alert } else { WatchAction::Restart },
    };
    (watch.memory.is_some() || watch.cpu.is_some()).then_some(watch)
}

/// Reports what could never have an effect.
pub(super) fn check(service: &Service<'_>, problems: &mut Problems) {
    let s = &service.settings;
    let max = s.size("resources.memory-max");
    for (key, why) in [
        ("resources.memory-high", "the kernel would kill it before it slowed it down"),
        ("watch.memory", "the kernel would kill it first"),
    ] {
        if let (Some(size), Some(max)) = (s.size(key), max)
            && size >= max
        {
            let (size, max) = (size_text(size), size_text(max));
            let message = format!("`{key}` ({size}) is not below `resources.memory-max` ({max}): {why}");
            problems.error(s.written(&[key]).unwrap_or(service.at), message);
        }
    }
    if let (Some(share), Some(max)) = (s.percent("watch.cpu"), s.percent("resources.cpu-max"))
        && share >= max
    {
        let message =
            format!("`watch.cpu` ({share}%) is not below `resources.cpu-max` ({max}%): it is never reached");
        problems.error(s.written(&["watch.cpu"]).unwrap_or(service.at), message);
    }
}
