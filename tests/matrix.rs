//! Services whose configuration is drawn at random run under the real daemon, and each field of what they find is
//! compared with what was drawn.
//!
//! A failure names its seed: `KEEPD_MATRIX_SEED=N` draws that one again. `KEEPD_MATRIX=N` goes through N seeds.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod common;
#[path = "matrix/draw.rs"]
mod draw;
#[path = "matrix/expect.rs"]
mod expect;

use common::{Daemon, Dice, LATER, Setup, USER, helper, is_root, skip, wait_for};
use draw::Drawn;
use expect::Host;
use serde_json::Value;
use std::{
    collections::BTreeSet,
    fs,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
};

/// Services of one daemon.
const SERVICES: usize = 40;

fn seeds() -> std::ops::Range<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|n| n.parse::<u64>().unwrap());
    let first = number("KEEPD_MATRIX_SEED").unwrap_or(1);
    first..first + number("KEEPD_MATRIX").unwrap_or(1)
}

/// A folder in which everybody may write, and where no key of the sandbox puts anything else, with the helper in it.
struct Bench {
    dir: tempfile::TempDir,
    child: PathBuf,
}

impl Bench {
    fn new() -> Bench {
        let dir = match is_root() {
            true => tempfile::tempdir_in("/var/lib").unwrap(),
            false => tempfile::tempdir().unwrap(),
        };
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        let child = dir.path().join("child");
        fs::copy(helper(), &child).unwrap();
        let out = dir.path().join("out");
        fs::create_dir(&out).unwrap();
        fs::set_permissions(&out, fs::Permissions::from_mode(0o777)).unwrap();
        Bench { dir, child }
    }

    fn report(&self, name: &str) -> PathBuf {
        self.dir.path().join("out").join(name)
    }

    /// What a program finds that nobody has prepared anything for.
    fn host(&self, uid: Option<u32>) -> Host {
        let file = self.report("host");
        let mut plain = Command::new(&self.child);
        plain.arg("report").arg(&file);
        if let Some(uid) = uid {
            plain.uid(uid).gid(uid);
        }
        let done = plain.output().unwrap();
        assert!(done.status.success(), "{}", common::text(&done));
        Host { report: read(&file), user_mode: uid.is_some() || !is_root() }
    }
}

fn read(file: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap()
}

#[test]
fn a_service_finds_all_that_was_drawn_for_it() {
    if !is_root() {
        return skip("needs root: most of what is drawn takes it");
    }
    seeds().for_each(|seed| try_seed(seed, None));
}

#[test]
fn an_ordinary_user_s_service_finds_all_that_was_drawn_for_it() {
    let uid = if is_root() { USER } else { nix::unistd::geteuid().as_raw() };
    seeds().for_each(|seed| try_seed(seed, Some(uid)));
}

/// One daemon with as many services as are drawn from `seed`; as an ordinary user where there is a `uid`.
fn try_seed(seed: u64, uid: Option<u32>) {
    let bench = Bench::new();
    let host = bench.host(uid.filter(|_| is_root()));
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let drawn: Vec<Drawn> = (0..SERVICES).map(|n| Drawn::new(&mut dice, n, &host)).collect();
    let mut d =
        Setup { within: Some(bench.dir.path()), as_user: uid.is_some(), ..Setup::default() }.prepare();
    fs::write(d.path().join("secret"), "hidden\n").unwrap();
    let mut config = String::new();
    for one in &drawn {
        fs::write(d.path().join(format!("{}.env", one.name)), one.env_file_text()).unwrap();
        config += &one.toml(&bench.child, &bench.report(&one.name), d.path());
    }
    d.write_config(&config);
    d.launch();
    d.await_api();
    let mut wrong = Vec::new();
    let mut keyrings = BTreeSet::new();
    for one in &drawn {
        let file = bench.report(&one.name);
        wait_for(&format!("the report of {} of seed {seed}:\n{}", one.name, config), LATER, || {
            let service = d.service(&one.name);
            assert!(service["consecutive_failures"] == 0, "seed {seed}: {service:#}");
            file.exists().then_some(())
        });
        let found = read(&file);
        d.wait_running(&one.name);
        keyrings.insert(found["keyring"].to_string());
        for difference in expect::differences(one, &host, &d, found, &bench.child, &file) {
            wrong.push(format!("{}: {difference}", one.name));
        }
        wrong.extend(said(one, &d));
    }
    let own = host.user_mode || keyrings.len() == SERVICES;
    assert!(own, "seed {seed}: services share a keyring: {keyrings:?}");
    assert!(wrong.is_empty(), "KEEPD_MATRIX_SEED={seed}:\n{}\n{config}", wrong.join("\n"));
    d.shutdown();
}

/// Where its words are not where they belong.
fn said(one: &Drawn, d: &Daemon) -> Option<String> {
    let folder = d.path().join("log").join(&one.name);
    let file = |name: &str| fs::read_to_string(folder.join(name)).unwrap_or_default();
    let wanted = one.output();
    let done = || (file("current"), file("stderr/current"));
    // What is missing may be on its way; what is wrong stays wrong.
    let complete = |got: &(String, String)| got.0.len() >= wanted.0.len() && got.1.len() >= wanted.1.len();
    let got = wait_for(&format!("the output of {}", one.name), LATER, || Some(done()).filter(complete));
    (got != wanted).then(|| format!("{}: it said {got:?}, not {wanted:?}", one.name))
}
