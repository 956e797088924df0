//! Rotation in the whole daemon: by time, compressed, within budgets, and under SIGKILL of the manager.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Daemon, Dice, LATER, SOON, Setup, holds_for, read_log, rotated, service, signal, wait_for};
use flate2::write::GzEncoder;
use nix::sys::signal::Signal;
use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

/// Writes `line 1 …`, `line 2 …` until the file `stop` is there, and then how many to `last.NAME`.
fn writer(name: &str) -> String {
    format!(
        "i=0; while [ ! -e stop ]; do i=$((i+1)); echo \"line $i .................................\"; done; \
         echo $i > last.{name}"
    )
}

/// Its number, once it is in a file.
fn last_line(d: &Daemon, name: &str) -> usize {
    let last: usize = d.lines(&format!("last.{name}"))[0].parse().unwrap();
    wait_for("the last line", LATER, || {
        let folder = d.path().join("log").join(name);
        let newest =
            Some(folder.join("current")).filter(|f| f.exists()).or_else(|| rotated(&folder).pop())?;
        read_log(&newest)?.contains(&format!("line {last} ")).then_some(())
    });
    last
}

fn assert_every_line(d: &Daemon, name: &str, last: usize) {
    let log = d.log(name);
    for (found, wanted) in log.lines().zip(1..) {
        assert_eq!(found, format!("line {wanted} ................................."), "in the log of {name}");
    }
    assert_eq!(log.lines().count(), last, "{name}");
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten();
    let mut names: Vec<String> = entries.map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    // The marks of times are no log.
    names.retain(|name| name != ".times");
    names.sort();
    names
}

/// Every rotated file is compressed, once, and nothing half done is left.
fn wait_settled(folder: &Path) -> Vec<String> {
    wait_for("all to be compressed", LATER, || {
        let names = names(folder);
        names.iter().all(|n| n == "current" || n.ends_with(".log.gz")).then_some(names)
    })
}

fn number(name: &str) -> Option<u64> {
    name.split('.').nth(1)?.parse().ok()
}

/// Kills of one daemon: with many more its files would take longer to check than to write.
const KILLS: u32 = 100;

#[test]
fn rotation_and_compression_lose_nothing_over_sigkills_of_the_manager() {
    let kills: u32 = std::env::var("KEEPD_ROTATE_KILLS").map_or(25, |n| n.parse().unwrap());
    let mut dice = Dice(u64::from(std::process::id()) * 2 + 1);
    eprintln!("seed {}", dice.0);
    for begun in (0..kills).step_by(KILLS as usize) {
        kill_while_rotating(&mut dice, (kills - begun).min(KILLS));
        eprintln!("{} kills", (begun + KILLS).min(kills));
    }
}

fn kill_while_rotating(dice: &mut Dice, kills: u32) {
    let more = "logs = { max-size = \"48KiB\", keep = 100000 }\nrestart = \"never\"\n";
    let d = Daemon::start(&(service("w1", &writer("w1"), more) + &service("w2", &writer("w2"), more)));
    let folder = |name: &str| d.path().join("log").join(name);
    let mut last = 0;
    for _ in 0..kills {
        let manager = wait_for("a new manager", LATER, || {
            d.try_service("w1")?;
            Some(d.manager()).filter(|m| *m != last)
        });
        // In the midst of rotating and compressing.
        let before = names(&folder("w1")).len();
        wait_for("rotations", LATER, || (names(&folder("w1")).len() > before).then_some(()));
        std::thread::park_timeout(Duration::from_micros(dice.below(20_000)));
        signal(manager, Signal::SIGKILL);
        last = manager;
    }
    fs::write(d.path().join("stop"), "").unwrap();
    for name in ["w1", "w2"] {
        d.wait_state(name, "exited");
        let last = last_line(&d, name);
        let names = wait_settled(&folder(name));
        let numbers: Vec<u64> = names.iter().filter_map(|n| number(n)).collect();
        assert_eq!(numbers, (1..=numbers.len() as u64).collect::<Vec<_>>(), "{name}");
        // Only the rotations of the first are waited for.
        let least = if name == "w1" { kills as usize / 2 } else { 0 };
        assert!(numbers.len() > least, "{name}: only {} files", numbers.len());
        assert_every_line(&d, name, last);
    }
    d.shutdown();
}

/// A zone in which it is so many seconds before midnight.
fn before_midnight(seconds: u64) -> String {
    let now = keepd::sys::clock::wall_ms() / 1000 % 86_400;
    let offset = (86_400 - seconds - now) % 86_400;
    format!("NEAR-{:02}:{:02}:{:02}", offset / 3600, offset / 60 % 60, offset % 60)
}

#[test]
fn a_silent_service_is_rotated_when_its_time_comes_and_an_empty_one_is_not() {
    let zone = before_midnight(4);
    let services = service("web", "echo early; read x < late; echo late; exec sleep 1000", "")
        + &service("mute", "exec sleep 1000", "")
        + &service("torn", "printf begun; read x < rest; echo -rest; echo next; exec sleep 1000", "");
    let d = Setup { services: &services, env: &[("TZ", &zone)], ..Default::default() }.prepare();
    for fifo in ["late", "rest"] {
        nix::unistd::mkfifo(&d.path().join(fifo), nix::sys::stat::Mode::S_IRWXU).unwrap();
    }
    let mut d = d;
    d.launch();
    d.await_api();
    let folder = |name: &str| d.path().join("log").join(name);
    d.wait_log("torn", "begun");
    let files = wait_for("the rotation", SOON, || Some(rotated(&folder("web"))).filter(|f| !f.is_empty()));
    assert_eq!(read_log(&files[0]).as_deref(), Some("early\n"));
    assert!(!folder("web").join("current").exists() && !folder("mute").exists());
    // A line that is not finished is waited for.
    assert_eq!(names(&folder("torn")), ["current"]);
    for fifo in ["late", "rest"] {
        fs::write(d.path().join(fifo), "\n").unwrap();
    }
    let files = wait_for("the rest of the line", SOON, || {
        Some(rotated(&folder("torn"))).filter(|f| f.len() == 1 && folder("torn").join("current").exists())
    });
    assert_eq!(read_log(&files[0]).as_deref(), Some("begun-rest\n"));
    wait_for("what came late", SOON, || {
        (read_log(&folder("web").join("current"))? == "late\n").then_some(())
    });
    assert_eq!(wait_settled(&folder("web")).len(), 2);
    d.shutdown();
}

#[test]
fn a_noisy_service_eats_its_own_history_before_that_of_others() {
    let flood = "i=0; while [ $i -lt 400 ]; do i=$((i+1)); head -c 10000 /dev/urandom | base64; done; exec sleep 1000";
    let quiet =
        "i=0; while [ $i -lt 3 ]; do i=$((i+1)); head -c 3000 /dev/urandom | base64; done; exec sleep 1000";
    let services = "[logs]\nmax-total = \"1MiB\"\nkeep-free = \"0%\"\n".to_owned()
        + &service("quiet", quiet, "logs = { max-size = \"4KiB\" }\n")
        + &service(
            "flood",
            flood,
            "autostart = false\nlogs = { max-size = \"64KiB\", keep = 1000, compress = \"none\" }\n",
        );
    let d = Daemon::start(&services);
    let folder = |name: &str| d.path().join("log").join(name);
    let kept = wait_for("a history", SOON, || Some(rotated(&folder("quiet"))).filter(|f| f.len() >= 2));
    d.ctl_ok(&["start", "flood"]);
    let total = || -> u64 {
        let all = [rotated(&folder("quiet")), rotated(&folder("flood"))].concat();
        all.iter().filter_map(|f| f.metadata().ok()).map(|m| m.len()).sum()
    };
    wait_for("a flood", LATER, || {
        (d.service("flood")["log"]["bytes_in"].as_u64()? > 5_300_000).then_some(())
    });
    wait_for("the budget to hold", LATER, || (total() < 1 << 20).then_some(()));
    assert_eq!(rotated(&folder("quiet")).len(), kept.len(), "a quiet service paid for a noisy one");
    assert!(total() > 700_000, "{} bytes are left: too much was removed", total());
    let numbers: Vec<u64> =
        rotated(&folder("flood")).iter().filter_map(|f| number(f.file_name()?.to_str()?)).collect();
    assert!(numbers[0] > 10 && numbers.is_sorted(), "the newest are kept: {numbers:?}");
    d.shutdown();
}

#[test]
fn a_number_is_never_used_again() {
    let more = "logs = { max-size = 1, keep = 0 }\nrestart = \"never\"\n";
    let d = Daemon::start(&service("web", "echo one; echo two; exec sleep 1000", more));
    let folder = d.path().join("log/web");
    let marked = |last: u64| {
        wait_for("all to be pruned", SOON, || {
            let names = names(&folder);
            (names == [format!(".last-{last:06}"), "current".into()]).then_some(())
        });
    };
    marked(1);
    signal(d.manager(), Signal::SIGKILL);
    let again = wait_for("an answer", LATER, || d.try_service("web"));
    assert_eq!(again["state"], "running");
    d.ctl_ok(&["restart", "web"]);
    marked(3);
    d.shutdown();
}

#[test]
fn a_file_that_was_moved_away_is_let_go_of_by_keepctl_reopen() {
    let d = Daemon::start(&service(
        "web",
        "echo before; trap 'echo after' USR1; while :; do sleep 100 & wait $!; done",
        "",
    ));
    d.wait_log("web", "before");
    let (folder, moved) = (d.path().join("log/web"), d.path().join("moved"));
    fs::rename(folder.join("current"), &moved).unwrap();
    d.ctl_ok(&["reopen"]);
    d.ctl_ok(&["signal", "SIGUSR1", "web"]);
    wait_for("the new file", SOON, || (read_log(&folder.join("current"))? == "after\n").then_some(()));
    assert_eq!(read_log(&moved).as_deref(), Some("before\n"));
    // Once its last lines are on the disk, nobody holds it.
    wait_for("the file to be closed", SOON, || {
        let open = fs::read_dir(format!("/proc/{}/fd", d.manager())).unwrap();
        let held = open.filter_map(|fd| fs::read_link(fd.ok()?.path()).ok()).any(|file| file == moved);
        (!held).then_some(())
    });
    d.shutdown();
}

#[test]
fn the_daemons_own_log_is_kept_like_any_other() {
    let services = service("web", "exec sleep 1000", "");
    let zone = before_midnight(5);
    let daemon = "log-file = \"keepd.log\"\n";
    let d = Setup { services: &services, daemon, env: &[("TZ", &zone)], ..Default::default() }.start();
    d.wait_running("web");
    let folder: PathBuf = d.path().join("log");
    wait_for("a record", SOON, || folder.join("keepd.log").exists().then_some(()));
    wait_for("its rotation and compression", LATER, || {
        d.ctl_ok(&["restart", "web"]);
        names(&folder)
            .iter()
            .any(|n| n.starts_with("keepd-20") && n.ends_with(".000001.log.gz"))
            .then_some(())
    });
    assert!(names(&folder).contains(&"keepd.log".to_owned()));
    d.shutdown();
}

#[test]
fn what_a_killed_keepd_left_half_done_is_finished_by_the_next_one() {
    let d = Setup { services: &service("web", "exec sleep 1000", ""), ..Default::default() }.prepare();
    let folder = d.path().join("log/web");
    fs::create_dir_all(&folder).unwrap();
    let name = |n: u32| format!("2026-11-21T00-00-00.{n:06}.log");
    // Renamed but the original not yet removed; half written; not begun.
    for n in 1..=3 {
        fs::write(folder.join(name(n)), format!("file {n}\n")).unwrap();
    }
    let whole = fs::File::create(folder.join(name(1) + ".gz")).unwrap();
    let mut whole = GzEncoder::new(whole, flate2::Compression::default());
    whole.write_all(b"file 1\n").unwrap();
    whole.finish().unwrap();
    fs::write(folder.join(name(2) + ".gz.tmp"), "half").unwrap();
    let mut d = d;
    d.launch();
    d.await_api();
    let names = wait_settled(&folder);
    assert_eq!(names, [1, 2, 3].map(|n| name(n) + ".gz"));
    for n in 1..=3 {
        assert_eq!(read_log(&folder.join(name(n) + ".gz")), Some(format!("file {n}\n")));
    }
    // With nothing to do nobody wakes up.
    let threads = fs::read_dir(format!("/proc/{}/task", d.manager())).unwrap().map(|e| e.unwrap().path());
    let upkeep = threads
        .into_iter()
        .find(|t| fs::read_to_string(t.join("comm")).is_ok_and(|name| name == "logs-upkeep\n"))
        .expect("no such thread");
    let switches = || fs::read_to_string(upkeep.join("status")).unwrap();
    wait_for("it to fall asleep", SOON, || {
        let before = switches();
        holds_for("time passes", Duration::from_millis(300), || false);
        (before == switches()).then_some(())
    });
    d.shutdown();
}
