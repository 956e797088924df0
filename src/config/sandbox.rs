//! The `sandbox` table and the scheduler's part of `resources`: what they come to for one service, and which of
//! their settings contradict each other or what keepd can do here.

#![forbid(unsafe_code)]

use super::{diagnostic::Problems, service::Service, settings::Settings};
use crate::plan::{Capabilities, Identity, Mode, Sandbox, Scheduling, Syscalls};

/// Keys that take root to hold.
const ROOTS: [&str; 1] = ["sandbox.capabilities"];

/// What is asked for, or follows from whom the service becomes: an ordinary user has no capability unless
/// some are given, and root has all.
pub(super) fn sandbox(service: &Service<'_>, identity: Option<&Identity>) -> Sandbox {
    let s = &service.settings;
    let capabilities = match (s.capabilities("sandbox.capabilities"), identity) {
        (_, None) => None,
        (Some(set), _) => Some(set),
        (None, Some(who)) => (who.uid != 0).then(Capabilities::default),
    };
    let syscalls = match s.choice("sandbox.syscalls") {
        "service" => Syscalls::Service,
        "off" => Syscalls::Off,
        _ => Syscalls::Default,
    };
    Sandbox { capabilities, syscalls }
}

/// What is asked for.
pub(super) fn scheduling(s: &Settings<'_>) -> Scheduling {
    Scheduling {
        nice: s.whole("resources.nice"),
        oom_score_adjust: s.whole("resources.oom-score-adjust"),
        cpus: s.cpus("resources.cpu-affinity").to_vec(),
    }
}

/// Reports what cannot be had, or not together.
pub(super) fn check(service: &Service<'_>, mode: Mode, identity: Option<&Identity>, problems: &mut Problems) {
    let s = &service.settings;
    let wanted = sandbox(service, identity);
    let mighty = match wanted.capabilities {
        Some(set) => set.meets(Capabilities::SYS_ADMIN),
        None => mode == Mode::System,
    };
    if wanted.syscalls != Syscalls::Off && !s.flag("sandbox.no-new-privileges") && !mighty {
        problems.error(
            s.written(&["sandbox.syscalls", "sandbox.no-new-privileges"]).unwrap_or(service.at),
            format!(
                "`sandbox.syscalls = \"{}\"` needs `sandbox.no-new-privileges = true`: write `syscalls = \"off\"` \
                 where privileges are to be gained",
                wanted.syscalls.as_str()
            ),
        );
    }
    if mode == Mode::User {
        for key in ROOTS {
            if let Some(at) = s.written(&[key]) {
                problems.error(at, format!("`{key}` cannot be set here: it takes a keepd that root started"));
            }
        }
    }
}
