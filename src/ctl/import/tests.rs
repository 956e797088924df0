//! Every fixture is imported and loaded by the real configuration loader; what some of them become is compared word for
//! word. `UPDATE_GOLDEN=1` writes the expected files anew.
//!
//! `tests/import/systemd` has the keys and values of the units of 76 Debian packages.

mod others;
mod units;

use super::{
    args::From,
    batch::Batch,
    draft::{Remark, Setting},
    import, run,
};
use crate::{
    config::{Account, Databases, Format, Options, load, render_all},
    ctl::args::{Cli, Command},
    plan::{Mode, Plan, Restart},
};
use clap::Parser;
use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn fixture(name: &str) -> PathBuf {
    repository().join("tests/import").join(name)
}

fn fixtures(folder: &str, extension: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(fixture(folder)).unwrap().map(|e| e.unwrap().path());
    let mut files: Vec<PathBuf> = entries.filter(|p| p.extension().is_some_and(|e| e == extension)).collect();
    files.sort();
    files
}

fn procfiles() -> Vec<PathBuf> {
    ["rails", "plain", "own-port"].iter().map(|p| fixture(&format!("procfile/{p}/Procfile"))).collect()
}

/// Every file that there is, each by itself.
fn all() -> Vec<(From, PathBuf)> {
    let with = |from, files: Vec<PathBuf>| files.into_iter().map(move |f| (from, f)).collect::<Vec<_>>();
    [
        with(From::Systemd, fixtures("systemd", "service")),
        with(From::Supervisor, fixtures("supervisor", "conf")),
        with(From::Procfile, procfiles()),
        with(From::Pm2, fixtures("pm2", "json")),
    ]
    .concat()
}

fn setting(mode: Mode) -> Setting {
    Setting { mode, run_as: "root".into(), env: Vec::new() }
}

fn imported(from: From, files: &[PathBuf], mode: Mode) -> Batch {
    import(from, files, &setting(mode)).unwrap_or_else(|e| panic!("{files:?}: {e:?}"))
}

/// Loads what was imported on a host that has every user and group that it names.
fn loaded(toml: &str, mode: Mode) -> Plan {
    let dir = tempfile::tempdir().unwrap();
    let (passwd, group, main) =
        (dir.path().join("passwd"), dir.path().join("group"), dir.path().join("keepd.toml"));
    let mut names = BTreeSet::from(["root".to_owned()]);
    for line in toml.lines() {
        if let Some((key, value)) = line.split_once(" = ")
            && matches!(key, "user" | "group" | "groups")
        {
            names.extend(value.split('"').skip(1).step_by(2).map(str::to_owned));
        }
    }
    let id = |n: usize| if n == 0 { 0 } else { n + 100 };
    let mut ordered: Vec<&String> = names.iter().collect();
    ordered.sort_by_key(|n| *n != "root");
    let numbered = || ordered.iter().enumerate();
    let users: String = numbered().map(|(n, u)| format!("{u}:x:{0}:{0}::/:/bin/sh\n", id(n))).collect();
    let groups: String = numbered().map(|(n, g)| format!("{g}:x:{}:\n", id(n))).collect();
    fs::write(&passwd, users).unwrap();
    fs::write(&group, groups).unwrap();
    fs::write(&main, toml).unwrap();
    let me = Account::nameless(if mode == Mode::System { 0 } else { 1000 }, 0);
    let databases = Databases { passwd, group, getent: false };
    let options = match mode {
        Mode::System => Options::system(me, databases),
        // Where this host has no /run/user/1000, folders for runs would lie among keepd's own.
        Mode::User => {
            Options { runtime_dir: "/run/user/1000/keepd".into(), ..Options::user(me, databases, &|_| None) }
        }
    };
    load(&options.with_main(&main).unwrap())
        .unwrap_or_else(|e| panic!("{}\n{toml}", render_all(&e, Format::Full)))
}

fn words(items: &[&str]) -> Vec<String> {
    items.iter().map(|i| (*i).to_owned()).collect()
}

#[test]
fn whatever_is_imported_is_loaded() {
    let files = all();
    assert!(files.len() > 120, "only {} fixtures", files.len());
    for mode in [Mode::System, Mode::User] {
        for (from, file) in &files {
            let batch = imported(*from, std::slice::from_ref(file), mode);
            let plan = loaded(&batch.toml("x"), mode);
            let services = batch.drafts.iter().filter(|d| d.refused.is_none()).count();
            let found: BTreeSet<&str> = plan.services.iter().map(|s| s.name.service()).collect();
            assert_eq!(found.len(), services, "{}", file.display());
        }
    }
}

#[test]
fn all_units_together_are_loaded_in_an_order() {
    let batch = imported(From::Systemd, &fixtures("systemd", "service"), Mode::System);
    let plan = loaded(&batch.toml("systemd"), Mode::System);
    assert!(plan.services.len() > 100, "{}", plan.services.len());
    let edges = plan.services.iter().map(|s| s.after.len() + s.requires.len() + s.wants.len()).sum::<usize>();
    assert!(edges > 5, "{edges} dependencies");
}

/// Each key of a unit changes what is printed, be it a key or a remark, or else stands in the list of those that mean
/// what keepd does anyway.
#[test]
fn no_key_of_a_unit_gets_lost_in_silence() {
    let dir = tempfile::tempdir().unwrap();
    let mut silent = BTreeSet::new();
    let mut keys = 0;
    for file in fixtures("systemd", "service") {
        let text = fs::read_to_string(&file).unwrap();
        let copy = dir.path().join(file.file_name().unwrap());
        let printed = |text: &str| {
            fs::write(&copy, text).unwrap();
            let batch = imported(From::Systemd, std::slice::from_ref(&copy), Mode::System);
            (batch.toml("x"), batch.drafts[0].refused.is_some())
        };
        let whole = printed(&text);
        // What is left out as a whole is not told key by key.
        if whole.1 {
            continue;
        }
        let lines: Vec<&str> = text.lines().collect();
        for (index, line) in lines.iter().enumerate().filter(|(_, l)| l.contains('=')) {
            keys += 1;
            let rest: Vec<&str> =
                lines.iter().enumerate().filter(|(i, _)| *i != index).map(|(_, l)| *l).collect();
            if printed(&(rest.join("\n") + "\n")) == whole {
                silent.insert((*line).to_owned());
            }
        }
    }
    assert!(keys > 1500, "only {keys} keys");
    golden("systemd-same.txt", &(silent.into_iter().collect::<Vec<_>>().join("\n") + "\n"));
}

fn golden(name: &str, found: &str) {
    let file = repository().join("tests/golden/import").join(name);
    let found = found.replace(repository().to_str().unwrap(), "/repository");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&file, &found).unwrap();
    }
    let expected = fs::read_to_string(&file).unwrap_or_default();
    assert!(expected == found, "{}:\n--- expected\n{expected}\n--- found\n{found}", file.display());
}

#[test]
fn some_become_these_words() {
    let unit = |name: &str| fixture(&format!("systemd/{name}.service"));
    let cases = [
        ("systemd-ssh", From::Systemd, vec![unit("ssh")]),
        ("systemd-php", From::Systemd, vec![unit("php8.2-fpm")]),
        ("systemd-dovecot", From::Systemd, vec![unit("dovecot"), unit("apache2")]),
        ("supervisor-queue", From::Supervisor, vec![fixture("supervisor/queue.conf")]),
        ("supervisor-django", From::Supervisor, vec![fixture("supervisor/django.conf")]),
        ("supervisor-container", From::Supervisor, vec![fixture("supervisor/container.conf")]),
        ("supervisor-listeners", From::Supervisor, vec![fixture("supervisor/listeners.conf")]),
        ("supervisor-main", From::Supervisor, vec![fixture("supervisor/main.conf")]),
        ("procfile", From::Procfile, procfiles()),
        ("pm2", From::Pm2, fixtures("pm2", "json")),
    ];
    for (name, from, files) in cases {
        let batch = imported(from, &files, Mode::System);
        golden(&format!("{name}.toml"), &batch.toml(from.whose()));
        golden(&format!("{name}.summary"), &batch.summary());
    }
}

fn lost(batch: &Batch) -> Vec<&str> {
    fn what(remark: &Remark) -> Option<&str> {
        if let Remark::Lost { what, .. } = remark { Some(what) } else { None }
    }
    batch.drafts.iter().flat_map(|d| d.remarks.all()).chain(batch.remarks.all()).filter_map(what).collect()
}
