//! The README's demonstration, as its reader runs it.
#![allow(clippy::unwrap_used)]

mod common;

use common::{LATER, Setup, is_alive, rotated, signal, wait_for};
use nix::sys::signal::Signal;
use std::{fs, path::Path};

/// The service that the README's command `words` is about.
fn shown_by_readme(words: &str) -> String {
    let readme = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let start = format!("target/release/keepctl {words} ");
    let name = readme
        .lines()
        .find_map(|l| l.strip_prefix(&start))
        .unwrap_or_else(|| panic!("README: no `{start}…`"));
    name.to_owned()
}

#[test]
fn the_demonstration_shows_what_it_promises_and_ends_with_ctrl_c() {
    let (crashing, chatty) = (shown_by_readme("status"), shown_by_readme("logs -f"));
    let mut d = Setup { args: &["--user"], ..Setup::default() }.prepare();
    let demo = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/quickstart.toml");
    d.config = d.path().join("quickstart.toml");
    fs::copy(&demo, &d.config).unwrap_or_else(|e| panic!("{}: {e}", demo.display()));
    d.socket = d.path().join("xdg/keepd/api.sock");
    d.launch();
    d.await_api();
    assert_eq!(d.services().len(), 4);
    wait_for("all but one to run", LATER, || {
        (d.services().iter().filter(|s| s["state"] == "running" && s["name"] != *crashing).count() == 3)
            .then_some(())
    });
    let s = d.wait_service(&crashing, "its first backoff", |s| s["state"] == "backoff");
    assert!(!s["reason"].as_str().unwrap().is_empty());
    let log = d.service(&chatty)["log"].clone();
    let folder = Path::new(log["file"].as_str().unwrap()).parent().unwrap();
    assert!(folder.starts_with(d.path()), "{log} is not under the user's home");
    wait_for("lines", LATER, || (d.ctl_ok(&["logs", "-n", "5", &chatty]).lines().count() == 5).then_some(()));
    wait_for("a rotated log", LATER, || (!rotated(folder).is_empty()).then_some(()));

    let pids: Vec<u32> =
        d.services().iter().filter_map(|s| s["pid"].as_u64()).map(|p| u32::try_from(p).unwrap()).collect();
    assert!(pids.len() >= 3);
    signal(d.keeper(), Signal::SIGINT);
    let status = d.wait_exit(LATER);
    assert_eq!(status.code(), Some(0), "{status}\n{}", d.output());
    assert!(pids.iter().all(|p| !is_alive(*p)), "the demonstration left processes");
    d.assert_nothing_left();
}
