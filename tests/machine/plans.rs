//! Plans for tests: hand-made and random.

use keepd::plan::*;
use std::sync::Arc;

/// A small generator; the same as the machine's, so that tests need no crate for it.
#[derive(Debug, Clone)]
pub struct Rng(pub u64);

impl Rng {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
    /// 0..n
    pub fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }
    pub fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize].clone()
    }
    /// True `permille` times in a thousand.
    pub fn chance(&mut self, permille: u64) -> bool {
        self.below(1000) < permille
    }
}

pub fn service(name: &str) -> ServiceSpec {
    ServiceSpec {
        name: name.into(),
        instance: None,
        description: String::new(),
        oneshot: None,
        autostart: true,
        requires: vec![],
        wants: vec![],
        after: vec![],
        binds_to: vec![],
        restart: Restart::OnFailure,
        success_exit: vec![ExitMatch::Code(0)],
        no_restart_exit: vec![ExitMatch::Code(78)],
        backoff: Backoff {
            delay: Millis(500),
            factor_permille: 2000,
            max: Millis::secs(30),
            jitter_permille: 0,
            reset_after: Millis::secs(60),
        },
        breaker: Breaker { failures: 10, within: Millis::secs(600), retry_every: Some(Millis::secs(300)) },
        stop: StopSpec { signal: 15, timeout: Millis::secs(10), command: vec![] },
        reload: Reload::Signal(1),
        launch: LaunchSpec {
            argv: vec!["/bin/true".into()],
            directory: "/".into(),
            identity: None,
            umask: 0o027,
            env: Default::default(),
            env_files: vec![],
            limits: vec![],
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
            dir: format!("/var/log/keepd/{name}").into(),
            max_size: 1,
            rotate: Rotate::Off,
            keep: 1,
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

pub fn daemon() -> DaemonSpec {
    DaemonSpec {
        mode: Mode::System,
        profile: None,
        manager: None,
        runtime_dir: "/run/keepd".into(),
        state_dir: "/var/lib/keepd".into(),
        log_dir: "/var/log/keepd".into(),
        log_level: LogLevel::Info,
        log_file: None,
        logs: HostLogs { max_total: Share::Percent(10), keep_free: Share::Percent(5) },
        max_concurrent_starts: 32,
        restart_budget: Budget { starts: 600, within: Millis::secs(60) },
        shutdown_timeout: Millis::secs(90),
        api: ApiSpec { socket: "/run/keepd/api.sock".into(), admins: vec![], readers: vec![] },
    }
}

pub fn plan(mut services: Vec<ServiceSpec>) -> Arc<Plan> {
    services.sort_by(|a, b| a.name.cmp(&b.name));
    Arc::new(Plan { daemon: daemon(), services, hooks: vec![], warnings: vec![] })
}

pub fn names(list: &[&str]) -> Vec<Name> {
    list.iter().map(|n| Name::new(n)).collect()
}

/// How the names of a random plan are ordered by their dependencies: fixed per world, so that plans differ in
/// their edges but never make a cycle together.
const POOL: [&str; 9] = ["m", "c", "x", "a", "z", "k", "b", "y", "d"];

pub fn random(rng: &mut Rng, most: u64) -> Arc<Plan> {
    let count = 1 + rng.below(most.min(POOL.len() as u64));
    let mut chosen: Vec<&str> = POOL.to_vec();
    while chosen.len() as u64 > count {
        let at = rng.below(chosen.len() as u64) as usize;
        chosen.remove(at);
    }
    let density = rng.pick(&[0, 150, 400]);
    let services = (0..chosen.len()).map(|n| random_service(rng, chosen[n], &chosen[..n], density)).collect();
    let mut plan = Arc::unwrap_or_clone(plan(services));
    plan.daemon.max_concurrent_starts = rng.pick(&[1, 2, 32]);
    plan.daemon.restart_budget =
        Budget { starts: rng.pick(&[2, 5, 1000]) as u32, within: Millis(rng.pick(&[1000, 60_000])) };
    plan.daemon.shutdown_timeout = Millis(rng.pick(&[5_000, 90_000]));
    Arc::new(plan)
}

pub fn tcp() -> Check {
    Check::Tcp(vec!["127.0.0.1:1".parse().unwrap()])
}

/// Half of the interval for an answer.
pub fn probe(check: Check, interval: u64, failures: u32, successes: u32) -> Arc<Probe> {
    Arc::new(Probe { check, interval: Millis(interval), timeout: Millis(interval / 2), failures, successes })
}

fn random_service(rng: &mut Rng, name: &str, earlier: &[&str], density: u64) -> ServiceSpec {
    let mut s = service(name);
    for to in earlier {
        if rng.chance(density) {
            let list = match rng.below(4) {
                0 => &mut s.requires,
                1 => &mut s.wants,
                2 => &mut s.after,
                _ => &mut s.binds_to,
            };
            list.push(Name::new(to));
        }
    }
    s.autostart = !rng.chance(250);
    s.restart = rng.pick(&[Restart::Always, Restart::OnFailure, Restart::OnFailure, Restart::Never]);
    s.backoff.delay = Millis(rng.pick(&[0, 1, 100, 500]));
    s.backoff.max = Millis(rng.pick(&[500, 30_000]));
    s.backoff.jitter_permille = rng.pick(&[0, 200, 1000]) as u32;
    s.backoff.reset_after = Millis(rng.pick(&[1000, 10_000, 60_000]));
    s.breaker.failures = rng.pick(&[1, 3, 10]) as u32;
    s.breaker.within = Millis(rng.pick(&[1000, 600_000]));
    s.breaker.retry_every = rng.pick(&[None, Some(Millis(2000)), Some(Millis(300_000))]);
    s.stop.timeout = Millis(rng.pick(&[0, 50, 1000, 10_000]));
    if rng.chance(300) {
        s.resources.memory_max = rng.pick(&[None, Some(1 << 20), Some(1 << 30)]);
        s.resources.memory_high = rng.pick(&[None, Some(1 << 19)]);
    }
    if rng.chance(200) {
        s.watch = Some(Watch {
            memory: Some(1 << 20),
            cpu: rng.pick(&[None, Some(50)]),
            lasting: Millis::secs(rng.pick(&[60, 120])),
            action: rng.pick(&[WatchAction::Alert, WatchAction::Restart]),
        });
    }
    if rng.chance(350) {
        let check = rng.pick(&[Check::Notify, Check::Fd(3), tcp(), Check::Log("up".into())]);
        let within = Millis(if check.is_asked() { 100_000 } else { rng.pick(&[50, 5_000, 100_000]) });
        let interval = rng.pick(&[20_000, 40_000]);
        s.ready = Some(Ready { probe: probe(check, interval, rng.pick(&[1, 3]), rng.pick(&[1, 2])), within });
    }
    if rng.chance(200) {
        let check = rng.pick(&[Check::Notify, tcp()]);
        let action = rng.pick(&[LiveAction::Restart, LiveAction::Restart, LiveAction::Alert]);
        s.live = Some(Live { probe: probe(check, 20_000, rng.pick(&[1, 3]), 1), action });
    }
    if rng.chance(300) {
        s.stop.command = vec!["/bin/stop".into()];
    }
    if rng.chance(300) {
        s.reload = Reload::Command(vec!["/bin/reload".into()]);
    }
    s
}
