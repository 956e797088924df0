//! A spec for a service that left the plan and is still being stopped by a manager that never had its own.

use super::service::Live;
use crate::plan::{
    Backoff, Breaker, LaunchSpec, LogFormat, LogSpec, Millis, Name, OnFull, Reload, Restart, Rotate,
    ServiceSpec, Stderr, Stdout, StopSpec,
};

/// Just enough to end its run and to show it. It is never launched.
pub(super) fn stand_in(name: &Name, live: Option<&Live>) -> ServiceSpec {
    let stop = StopSpec { signal: 15, timeout: Millis::secs(10), command: Vec::new() };
    ServiceSpec {
        name: name.clone(),
        instance: None,
        description: "no longer in the configuration".into(),
        oneshot: None,
        autostart: false,
        requires: Vec::new(),
        wants: Vec::new(),
        after: Vec::new(),
        binds_to: Vec::new(),
        restart: Restart::Never,
        success_exit: Vec::new(),
        no_restart_exit: Vec::new(),
        backoff: Backoff {
            delay: Millis(0),
            factor_permille: 1000,
            max: Millis(0),
            jitter_permille: 0,
            reset_after: Millis(0),
        },
        breaker: Breaker { failures: 1, within: Millis(0), retry_every: None },
        stop: live.map_or(stop, |live| live.stop.clone()),
        reload: live.map_or(Reload::Signal(1), |live| live.reload.clone()),
        launch: LaunchSpec {
            argv: Vec::new(),
            directory: "/".into(),
            identity: None,
            umask: 0o027,
            env: Default::default(),
            env_files: Vec::new(),
            limits: Vec::new(),
            no_new_privileges: true,
            sandbox: Default::default(),
            scheduling: Default::default(),
            provision: Default::default(),
            tells: Default::default(),
            stdout: Stdout::Capture,
            stderr: Stderr::Merge,
        },
        resources: Default::default(),
        watch: None,
        ready: None,
        live: None,
        logs: LogSpec {
            dir: "/".into(),
            max_size: u64::MAX,
            rotate: Rotate::Off,
            keep: u32::MAX,
            keep_for: None,
            max_total: None,
            compress: false,
            on_full: OnFull::Drop,
            format: LogFormat::Raw,
            max_line: 65_536,
            forward: Vec::new(),
        },
    }
}
