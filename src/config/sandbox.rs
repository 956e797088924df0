//! The `sandbox` table and the scheduler's part of `resources`: what they come to for one service, and which of
//! their settings contradict each other or what keepd can do here.

#![forbid(unsafe_code)]

use super::{
    Context,
    diagnostic::{At, Problems},
    service::Service,
    settings::Settings,
};
use crate::plan::{Capabilities, Identity, LaunchSpec, Mode, ReadOnly, Sandbox, Scheduling, Syscalls};

/// Keys that take root to hold.
pub(super) const ROOTS: [&str; 7] = [
    "sandbox.capabilities",
    "sandbox.private-tmp",
    "sandbox.read-only",
    "sandbox.writable",
    "sandbox.hide-home",
    "sandbox.private-devices",
    "sandbox.private-network",
];

/// What is asked for, or follows from whom the service becomes: an ordinary user has no capability unless
/// some are given, and root has all.
pub(super) fn sandbox(service: &Service<'_>, context: &Context<'_>, identity: Option<&Identity>) -> Sandbox {
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
    let read_only = match s.choice("sandbox.read-only") {
        "system" => ReadOnly::System,
        "strict" => ReadOnly::Strict,
        _ => ReadOnly::No,
    };
    let mut writable: Vec<_> =
        s.items("sandbox.writable").iter().map(|i| context.path(&i.text, i.at)).collect();
    // Outer ones first: what is put on a place hides what was put below it before.
    writable.sort_unstable();
    writable.dedup();
    Sandbox {
        capabilities,
        syscalls,
        private_tmp: s.flag("sandbox.private-tmp"),
        read_only,
        writable,
        hide_home: s.flag("sandbox.hide-home"),
        private_devices: s.flag("sandbox.private-devices"),
        private_network: s.flag("sandbox.private-network"),
    }
}

/// What is asked for.
pub(super) fn scheduling(s: &Settings<'_>) -> Scheduling {
    Scheduling {
        nice: s.whole("resources.nice"),
        oom_score_adjust: s.whole("resources.oom-score-adjust"),
        io: s.io_priority("resources.io-priority"),
        cpus: s.cpus("resources.cpu-affinity").to_vec(),
    }
}

/// Reports what cannot be had, or not together.
pub(super) fn check(
    service: &Service<'_>,
    context: &Context<'_>,
    identity: Option<&Identity>,
    problems: &mut Problems,
) {
    let s = &service.settings;
    let mode = context.options.mode;
    let wanted = sandbox(service, context, identity);
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
    together(s, &wanted, service.at, problems);
}

fn together(s: &Settings<'_>, wanted: &Sandbox, service: At, problems: &mut Problems) {
    let at = |key: &str| s.written(&[key]).unwrap_or(service);
    for path in &wanted.writable {
        let shown = path.display();
        let why = if wanted.read_only == ReadOnly::No {
            "nothing is read-only without `sandbox.read-only`".into()
        } else if path.parent().is_none() {
            "that is everything: leave out `sandbox.read-only`".into()
        } else if let Some(key) = wanted.hidden_by(path) {
            format!("`{key}` puts something else there")
        } else {
            continue;
        };
        problems.error(at("sandbox.writable"), format!("`sandbox.writable` cannot name {shown}: {why}"));
    }
    let devices = wanted.capabilities.is_some_and(|c| c.meets(Capabilities::DEVICES));
    if wanted.private_devices && devices {
        problems.error(
            at("sandbox.capabilities"),
            "`sandbox.private-devices` takes away CAP_MKNOD and CAP_SYS_RAWIO: they cannot be in \
             `sandbox.capabilities`",
        );
    }
}

/// Reports what a service needs to begin and would not find.
pub(super) fn reachable(launch: &LaunchSpec, s: &Settings<'_>, service: At, problems: &mut Problems) {
    let mut needed = vec![("directory", launch.directory.clone())];
    needed.extend(launch.argv.first().map(|program| ("command", program.into())));
    let provision = &launch.provision;
    needed.extend(provision.runtime_dirs.iter().map(|p| ("runtime-dirs", p.path())));
    needed.extend(provision.state_dirs.iter().map(|p| ("state-dirs", p.path())));
    needed.extend(provision.credentials.iter().map(|c| ("credentials", c.at.clone())));
    for (key, path) in &needed {
        if let Some(hider) = launch.sandbox.hidden_by(path) {
            let message =
                format!("`{hider}` hides {} from the service, which is its `{key}`", path.display());
            problems.error(s.written(&[hider, *key]).unwrap_or(service), message);
        }
    }
}
