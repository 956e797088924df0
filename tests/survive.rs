//! SIGKILL of the keeper, of the keeper and its manager, and a manager that hangs: services run on as the same
//! processes, and the next keepd takes them over.
//!
//! KEEPD_KEEPER_KILLS (10 unless set) says how often where it is done again and again.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod common;

use common::{Daemon, Dice, LATER, Setup, is_alive, rotated, service, signal, wait_for};
use nix::sys::signal::Signal;
use std::{fs, time::Duration};

fn kills() -> u64 {
    std::env::var("KEEPD_KEEPER_KILLS").map_or(10, |n| n.parse().unwrap())
}

/// Starts keepd again over what is there.
fn start_again(d: &mut Daemon) {
    d.launch();
    d.await_api();
}

#[test]
fn a_killed_keeper_costs_no_service_its_process() {
    let services = service("web", "trap 'echo bye; exit 7' TERM; while :; do sleep 0.02; done", "")
        + &service("down", "exec sleep 792001", "")
        + &service(
            "late",
            "while [ ! -e go ]; do sleep 0.02; done; echo said; exit 37",
            "restart = \"never\"\n",
        );
    let mut d = Daemon::start(&services);
    let (web, late) = (d.wait_running("web"), d.wait_running("late"));
    let run = d.service("web")["run_id"].clone();
    d.wait_running("down");
    d.ctl_ok(&["stop", "down"]);
    let manager = d.manager();

    d.kill_keeper();
    assert!(is_alive(web) && is_alive(late));
    start_again(&mut d);

    assert_ne!(d.manager(), manager);
    assert!(!is_alive(manager), "two managers");
    assert_eq!((d.pid("web"), d.pid("late")), (web, late));
    assert_eq!(d.service("web")["run_id"], run);
    assert_eq!(d.service("down")["state"], "stopped");
    assert!(d.output().contains("its runs are taken over: 2 alive"), "{}", d.output());
    // How they end is known as far as the kernel can tell, and what they say.
    fs::write(d.path().join("go"), "").unwrap();
    let ended = d.wait_service("late", "its end", |s| !s["last_exit"].is_null());
    assert_known(&ended, "code", 37);
    assert_eq!(d.wait_log("late", "said"), "said\n");
    d.ctl_ok(&["stop", "web"]);
    assert_known(&d.service("web"), "code", 7);
    assert_eq!(d.wait_log("web", "bye"), "bye\n");
    d.shutdown();
}

/// The status of an adopted run: exact where the kernel tells it (Linux 6.15), else said to be unknown.
fn assert_known(service: &serde_json::Value, key: &str, value: u64) {
    let exit = &service["last_exit"];
    if kernel() >= (6, 15) {
        assert_eq!(exit[key], value, "{exit}");
    } else {
        assert!(exit["code"].is_null() && exit["signal"].is_null(), "{exit}");
    }
}

fn kernel() -> (u32, u32) {
    let text = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut parts = text.split('.').map(|p| p.parse().unwrap_or(0));
    (parts.next().unwrap(), parts.next().unwrap())
}

#[test]
fn what_ends_while_there_is_no_keeper_is_told_and_started_again() {
    let script = "echo run >> runs; while [ ! -e go.$(wc -l < runs) ]; do sleep 0.02; done; exit 3";
    let more = "restart = \"always\"\nbackoff = { delay = \"1ms\", max = \"1ms\", jitter = 0.0 }\n";
    let mut d = Daemon::start(&service("web", script, more));
    let web = d.wait_running("web");
    wait_for("the first run", LATER, || (d.lines("runs").len() == 1).then_some(()));
    d.kill_keeper();
    fs::write(d.path().join("go.1"), "").unwrap();
    wait_for("its end", LATER, || (!is_alive(web)).then_some(()));
    start_again(&mut d);
    let s = d.wait_service("web", "another run", |s| s["pid"].as_u64().is_some_and(|p| p != u64::from(web)));
    // Known if nobody has reaped it by then.
    let exit = &s["last_exit"];
    assert!(exit["code"] == 3 || exit["code"].is_null() && exit["signal"].is_null(), "{s}");
    assert_eq!(s["restarts"], 1);
    wait_for("the second run", LATER, || (d.lines("runs").len() == 2).then_some(()));
    d.shutdown();
}

#[test]
fn keeper_and_manager_killed_together_lose_no_process_and_no_service_dies_of_its_output() {
    let writer = "i=0; run=1; trap 'run=0' TERM; while [ $run = 1 ]; do i=$((i+1)); echo \"line $i\"; \
                  [ $((i % 50)) != 0 ] || sleep 0.01; done; echo $i > last";
    let mut d = Daemon::start(&service("web", writer, "restart = \"never\"\n"));
    let web = d.wait_running("web");
    for _ in 0..3 {
        d.wait_log("web", "line 50\n");
        let manager = d.manager();
        signal(d.keeper(), Signal::SIGSTOP);
        signal(manager, Signal::SIGKILL);
        d.kill_keeper();
        wait_for("the end of the manager", LATER, || (!is_alive(manager)).then_some(()));
        start_again(&mut d);
        assert_eq!(d.pid("web"), web);
    }
    d.ctl_ok(&["stop", "web"]);
    let last: u64 = d.lines("last")[0].parse().unwrap();
    wait_for("the last line", LATER, || d.log("web").contains(&format!("line {last}\n")).then_some(()));
    d.shutdown();
}

#[test]
fn kills_of_the_keeper_under_load_lose_no_line_and_double_no_run() {
    let writer = "i=0; run=1; trap 'run=0' TERM; while [ $run = 1 ]; do n=0; while [ $n -lt 300 ]; do n=$((n+1)); \
                  i=$((i+1)); echo \"line $i .........................\"; done; sleep 0.02; done; echo $i > last";
    let exiter = "echo run >> runs; n=$(wc -l < runs); echo \"run $n\"; sleep 0.03; exit $((n % 200 + 1))";
    let services = service(
        "writer",
        writer,
        "restart = \"never\"\nstop-timeout = \"1m\"\n\
         logs = { max-size = \"128KiB\", keep = 100000, compress = \"none\" }\n",
    ) + &service(
        "exiter",
        exiter,
        "restart = \"always\"\nbackoff = { delay = \"1ms\", max = \"1ms\", jitter = 0.0 }\n\
         breaker = { failures = 1000000, within = \"1d\" }\n",
    );
    let daemon = "restart-budget = { starts = 1000000, within = \"1m\" }";
    let mut d = Setup { services: &services, daemon, ..Setup::default() }.start();
    let writer = d.wait_running("writer");
    let mut dice = Dice(0x6b65_6570_6572_0001);
    for _ in 0..kills() {
        std::thread::park_timeout(Duration::from_micros(dice.below(60_000)));
        d.kill_keeper();
        start_again(&mut d);
        assert_eq!(d.pid("writer"), writer, "the writer was replaced");
        assert!(d.processes_with("last").len() <= 2, "two writers");
    }
    d.ctl_ok(&["stop", "exiter", "writer"]);
    let last: u64 = d.lines("last")[0].parse().unwrap();
    wait_for("the last line", LATER, || d.log("writer").contains(&format!("line {last} ")).then_some(()));
    let wanted: String = (1..=last).map(|n| format!("line {n} .........................\n")).collect();
    let log = d.log("writer");
    if let Some(n) = log.lines().zip(wanted.lines()).position(|(is, was)| is != was) {
        let around: Vec<&str> = log.lines().skip(n.saturating_sub(2)).take(5).collect();
        panic!("the log of the writer goes wrong at line {}: {around:#?}", n + 1);
    }
    assert!(log == wanted, "the log of the writer has {} bytes, it wrote {}", log.len(), wanted.len());
    assert!(!rotated(&d.path().join("log/writer")).is_empty(), "nothing was rotated");
    d.shutdown();
}

#[test]
fn a_state_that_is_torn_or_no_state_starts_keepd_all_the_same_and_doubles_nothing() {
    let mut d = Daemon::start(&service("web", "exec sleep 792003", ""));
    let state = d.path().join("run/keeper/state");
    d.wait_running("web");
    for tear in 0..8 {
        let web = d.pid("web");
        d.kill_keeper();
        let whole = fs::read(&state).unwrap();
        let first = whole.iter().position(|b| *b == b'\n').unwrap() + 1;
        // Within its first line it is worth nothing; behind that, every whole line counts.
        let (left, readable) = match tear {
            0 => (Vec::new(), false),
            1 => (whole[..first / 2].to_vec(), false),
            2 => (b"an essay".to_vec(), false),
            3 => (whole.iter().map(|b| b ^ 1).collect(), false),
            4 => (whole[..whole.len() - 1].to_vec(), true),
            5 => ([&whole[..], b"0123 half a li"].concat(), true),
            6 => ([&whole[..], &[0; 64]].concat(), true),
            _ => (whole.clone(), true),
        };
        fs::write(&state, left).unwrap();
        start_again(&mut d);
        let after = d.wait_running("web");
        // The very last line may be the one that says that it runs.
        assert!(after == web || !readable || tear == 4, "tear {tear}: {web} became {after}");
        assert_eq!(d.processes_with("sleep 792003").len(), 1, "tear {tear}");
        assert_eq!(!readable, state.with_file_name("state.refused").exists(), "tear {tear}");
        let _ = fs::remove_file(state.with_file_name("state.refused"));
    }
    let said = d.output();
    assert!(said.contains("cannot go on from the state that an earlier keepd has left in"), "{said}");
    d.ctl_ok(&["shutdown"]);
    d.wait_exit(LATER);
    assert!(!state.exists(), "an orderly end leaves a state");
}

#[test]
fn a_state_of_before_the_last_boot_and_numbers_that_others_have_now_mean_nothing() {
    let mut d = Daemon::start(&service("web", "exec sleep 792004", ""));
    let web = d.wait_running("web");
    d.kill_keeper();
    // As if the numbers had been given to others: the service ends, and a stranger has what it had.
    signal(web, Signal::SIGKILL);
    wait_for("its end", LATER, || (!is_alive(web)).then_some(()));
    let mut stranger = std::process::Command::new("sleep").arg("792005").spawn().unwrap();
    start_again(&mut d);
    let after = d.wait_running("web");
    assert_ne!(after, web);
    d.ctl_ok(&["stop", "web"]);
    assert!(stranger.try_wait().unwrap().is_none(), "a stranger was signalled");
    stranger.kill().unwrap();
    stranger.wait().unwrap();
    d.shutdown();
}

#[test]
fn a_second_keepd_does_nothing_and_says_who_is_there() {
    let mut d = Daemon::start(&service("web", "exec sleep 792006", ""));
    let web = d.wait_running("web");
    let second = d.keepd().output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains(&format!("another keepd (pid {}) holds the lock", d.keeper())), "{said}");
    assert_eq!((d.pid("web"), d.status()["upgrades"].as_u64()), (web, Some(0)));
    // Nor has it touched what the first has written down.
    d.kill_keeper();
    start_again(&mut d);
    assert_eq!(d.pid("web"), web);
    d.shutdown();
}

#[test]
fn a_wiped_runtime_folder_costs_no_service_its_process() {
    let mut d = Daemon::start(&service("web", "exec sleep 792008", ""));
    let web = d.wait_running("web");
    let (keeper, manager) = (d.keeper(), d.manager());
    fs::remove_dir_all(d.path().join("run")).unwrap();
    if common::cgroup_of(web).is_some_and(|c| c.parent().unwrap().to_string_lossy().contains("keepd-")) {
        // The lock is gone, but not what it protects.
        let second = d.keepd().output().unwrap();
        assert_eq!(second.status.code(), Some(1));
        let said = String::from_utf8_lossy(&second.stderr).into_owned();
        assert!(said.contains("another keepd holds the cgroup"), "{said}");
        assert!(is_alive(web));
        fs::remove_dir_all(d.path().join("run")).unwrap();
    }
    signal(manager, Signal::SIGKILL);
    wait_for("an answer", LATER, || d.try_service("web"));
    assert_eq!((d.keeper(), d.pid("web")), (keeper, web));
    // And what is written down is written down again.
    d.kill_keeper();
    start_again(&mut d);
    assert_eq!(d.pid("web"), web);
    d.shutdown();
}

#[test]
fn a_manager_that_fails_at_every_start_leaves_services_alone_and_says_why() {
    let above = tempfile::tempdir().unwrap();
    let path = above.path().join("notify");
    let socket = std::os::unix::net::UnixDatagram::bind(&path).unwrap();
    socket.set_nonblocking(true).unwrap();
    let env = [("NOTIFY_SOCKET", path.to_str().unwrap())];
    let d =
        Setup { services: &service("web", "exec sleep 792007", ""), env: &env, ..Setup::default() }.start();
    let web = d.wait_running("web");
    let manager = d.manager();
    fs::remove_file(&d.socket).unwrap();
    fs::create_dir(&d.socket).unwrap();
    signal(manager, Signal::SIGKILL);
    let mut buffer = [0; 4096];
    wait_for("why", LATER, || {
        let n = socket.recv(&mut buffer).ok()?;
        let text = String::from_utf8_lossy(&buffer[..n]).into_owned();
        (text.starts_with("STATUS=the manager exited") && text.contains("failed to start 3 times"))
            .then_some(())
    });
    assert!(is_alive(web));
    fs::remove_dir(&d.socket).unwrap();
    wait_for("an answer", LATER, || d.try_service("web"));
    assert_eq!(d.pid("web"), web);
    d.shutdown();
}

#[test]
fn a_manager_that_hangs_is_replaced() {
    let d = Daemon::start(&service("web", "exec sleep 792002", ""));
    let (web, manager) = (d.wait_running("web"), d.manager());
    signal(manager, Signal::SIGSTOP);
    wait_for("another manager", LATER, || {
        d.find_manager().filter(|m| *m != manager && d.try_service("web").is_some())
    });
    assert!(!is_alive(manager));
    assert_eq!(d.pid("web"), web);
    assert!(d.output().contains("the manager did not answer in time and was killed"), "{}", d.output());
    d.shutdown();
}
