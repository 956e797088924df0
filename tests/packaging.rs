//! What packages tell of keepd is what keepd is: man pages and completions know every key, command and option.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod common;

use clap::{Command, CommandFactory};
use std::{fs, path::Path, process};

/// The generated files, in a folder.
fn pages() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let generator = common::helper().with_file_name("pages");
    assert!(generator.exists(), "{} is missing: run `cargo build --examples` first", generator.display());
    let done = process::Command::new(generator).arg(folder.path()).arg("2026-11-21").status().unwrap();
    assert!(done.success());
    folder
}

/// A page as its reader would search it.
fn read(folder: &Path, page: &str) -> String {
    fs::read_to_string(folder.join(page)).unwrap().replace("\\-", "-").replace("\\(aq", "'")
}

/// Every option that is not hidden, as it is typed.
fn options(command: &Command) -> Vec<String> {
    let shown = command.get_arguments().filter(|a| !a.is_hide_set());
    shown
        .flat_map(|a| [a.get_long().map(|l| format!("--{l}")), a.get_short().map(|s| format!("-{s}"))])
        .flatten()
        .collect()
}

#[test]
fn man_pages_tell_of_every_key_command_and_option() {
    let folder = pages();
    let page = read(folder.path(), "keepd.toml.5");
    for key in keepd::config::keys() {
        let name = key.rsplit('.').next().unwrap();
        let forms = [format!("\\fB{name}\\fR"), format!("[{name}"), format!(".{name}]"), format!("{name} =")];
        assert!(forms.iter().any(|f| page.contains(f)), "keepd.toml(5): {key}");
    }
    let page = read(folder.path(), "keepd.8");
    for option in options(&keepd::daemon::args::Args::command()) {
        assert!(page.contains(&format!("\\fB{option}\\fR")), "keepd(8): {option}");
    }
    let page = read(folder.path(), "keepctl.1");
    let mut keepctl = keepd::ctl::command();
    keepctl.build();
    let mut commands = 0;
    for sub in keepctl.get_subcommands() {
        let start = page.find(&format!(".SS {}\n", sub.get_name()));
        let section = &page[start.unwrap_or_else(|| panic!("keepctl(1): {}", sub.get_name()))..];
        let section = section[1..].split(".SS ").next().unwrap_or(section);
        for option in options(sub) {
            let global = ["--socket", "--help", "-h"].contains(&option.as_str());
            let told = if global { page.as_str() } else { section };
            assert!(told.contains(&format!("\\fB{option}\\fR")), "keepctl(1): {} {option}", sub.get_name());
        }
        commands += 1;
    }
    assert!(commands >= 15, "{commands}");
}

#[test]
fn completions_offer_every_command_and_option() {
    let mut keepctl = keepd::ctl::command();
    keepctl.build();
    let offered = |words: &[&str]| {
        let index = (words.len() - 1).to_string();
        let mut asked = process::Command::new(env!("CARGO_BIN_EXE_keepctl"));
        asked.args(["--", "keepctl"]).args(&words[1..]).env("KEEPCTL_COMPLETE", "bash");
        asked.env("KEEPD_SOCKET", "/nonexistent").env("_CLAP_COMPLETE_INDEX", index).env("_CLAP_IFS", "\n");
        let done = asked.output().unwrap();
        assert!(done.status.success() && done.stderr.is_empty(), "{done:?}");
        String::from_utf8(done.stdout).unwrap().lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let commands = offered(&["keepctl", ""]);
    for sub in keepctl.get_subcommands() {
        assert!(commands.iter().any(|c| c == sub.get_name()), "{}: {commands:?}", sub.get_name());
        let found = offered(&["keepctl", sub.get_name(), "--"]);
        for option in options(sub).iter().filter(|o| o.starts_with("--")) {
            assert!(found.contains(option), "{} {option}: {found:?}", sub.get_name());
        }
    }
}

#[test]
fn completions_name_the_services_that_there_are() {
    let d = common::Setup { services: &common::service("web", "exec sleep 1000", ""), ..Default::default() }
        .start();
    for (words, index) in
        [(&["restart", "w"][..], "2"), (&["signal", "HUP", "w"], "3"), (&["logs", "w"], "2")]
    {
        let mut asked = process::Command::new(env!("CARGO_BIN_EXE_keepctl"));
        asked.args(["--", "keepctl"]).args(words).env("KEEPCTL_COMPLETE", "bash");
        let done = asked.env("KEEPD_SOCKET", &d.socket).env("_CLAP_COMPLETE_INDEX", index).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&done.stdout).trim(), "web", "{words:?}");
    }
}

#[test]
fn the_newest_entry_of_the_changelog_is_this_version() {
    let changelog =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/debian/changelog")).unwrap();
    let start = format!("keepd ({}-1) ", env!("CARGO_PKG_VERSION"));
    assert!(changelog.starts_with(&start), "not {start}");
}
