//! The README's demonstration, as its reader runs it.
#![allow(clippy::unwrap_used)]

mod common;

use common::{LATER, Setup, is_alive, rotated, signal, wait_for};
use nix::sys::signal::Signal;
use std::{fs, path::Path};

#[test]
fn the_demonstration_shows_what_it_promises_and_ends_with_ctrl_c() {
    let mut d = Setup { args: &["--user"], ..Setup::default() }.prepare();
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/quickstart.toml");
    d.config = d.path().join("quickstart.toml");
    fs::copy(&demo, &d.config).unwrap_or_else(|e| panic!("{}: {e}", demo.display()));
    d.socket = d.path().join("xdg/keepd/api.sock");
    d.launch();
    d.await_api();
    assert_eq!(d.services().len(), 4);
    let crashing =
        d.wait_service("crashing", "a few failures", |s| s["consecutive_failures"].as_u64() >= Some(2));
    assert!(!crashing["reason"].as_str().unwrap().is_empty());
    wait_for("all others to run", LATER, || (d.status()["counts"]["running"] == 3).then_some(()));
    let chatty = d.service("chatty");
    let current = chatty["log"]["file"].as_str().unwrap().to_owned();
    let folder = Path::new(&current).parent().unwrap();
    assert!(folder.starts_with(d.path()), "{current} is not under the user's home");
    wait_for("a rotated log", LATER, || (!rotated(folder).is_empty()).then_some(()));
    assert!(d.ctl_ok(&["logs", "-n", "5", "chatty"]).lines().count() == 5);
    d.ctl(&["status", "crashing"]);

    let pids: Vec<u32> =
        d.services().iter().filter_map(|s| s["pid"].as_u64()).map(|p| u32::try_from(p).unwrap()).collect();
    signal(d.keeper(), Signal::SIGINT);
    let status = d.wait_exit(LATER);
    assert_eq!(status.code(), Some(0), "{status}\n{}", d.output());
    assert!(pids.iter().all(|p| !is_alive(*p)), "the demonstration left processes");
    d.assert_nothing_left();
}
