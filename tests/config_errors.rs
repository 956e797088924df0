//! Golden tests of the configuration: what is refused, in which words, and what a good one becomes.
//! `UPDATE_GOLDEN=1` writes the expected files anew.
//!
//! A case is a file, or a folder with `keepd.toml` and `conf.d`. A first line `# load: user profile=NAME`
//! chooses how it is loaded; the default is system mode without a profile.

#![allow(clippy::unwrap_used, reason = "a test that cannot set itself up has failed")]

use keepd::{
    config::{Account, Databases, Diagnostic, Format, Options, load, render_all},
    plan::{Mode, Plan},
    sys::clock,
};
use proptest::prelude::*;
use std::{
    collections::BTreeSet,
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/config")
}

fn databases() -> Databases {
    Databases { passwd: golden().join("passwd"), group: golden().join("group"), getent: false }
}

fn root() -> Account {
    Account {
        name: "root".into(),
        shell: "/bin/bash".into(),
        home: "/root".into(),
        ..Account::nameless(0, 0)
    }
}

fn ann() -> Account {
    Account { name: "ann".into(), home: "/home/ann".into(), ..Account::nameless(1000, 1000) }
}

fn system() -> Options {
    Options { host: "box".into(), ..Options::system(root(), databases()) }
}

fn user() -> Options {
    let mut options = Options::user(ann(), databases(), &|_| None);
    options.host = "box".into();
    // Depends on whether this host has /run/user/1000.
    options.runtime_dir = "/run/user/1000/keepd".into();
    options
}

fn case(path: &Path) -> Result<Plan, Vec<Diagnostic>> {
    let main = if path.is_dir() { path.join("keepd.toml") } else { path.to_owned() };
    let text = fs::read(&main).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let how = text.lines().next().and_then(|l| l.strip_prefix("# load: ")).unwrap_or("");
    let mut options = system();
    for word in how.split_ascii_whitespace() {
        match word.strip_prefix("profile=") {
            Some(profile) => options.profile = Some(profile.into()),
            None => {
                assert_eq!(word, "user", "{}", main.display());
                options = user();
            }
        }
    }
    load(&options.with_main(&main).unwrap())
}

fn cases(dir: &str) -> BTreeSet<PathBuf> {
    let entries = fs::read_dir(golden().join(dir)).unwrap().map(|e| e.unwrap().path());
    entries.filter(|p| p.is_dir() || p.extension().is_some_and(|e| e == "toml")).collect()
}

/// Compares with, or writes, the file beside the case. Returns what differs.
fn compare(case: &Path, extension: &str, found: &str) -> Option<String> {
    let file = case.with_extension(extension);
    // Where the checkout lies must not matter.
    let found = found.replace(golden().to_str().unwrap(), "$GOLDEN");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&file, &found).unwrap();
    }
    let expected = fs::read_to_string(&file).unwrap_or_default();
    (expected != found)
        .then(|| format!("{}:\n--- expected\n{expected}\n--- found\n{found}\n", file.display()))
}

#[test]
fn what_is_bad_is_refused_in_these_words() {
    let cases = cases("bad");
    assert!(cases.len() > 40, "only {} cases", cases.len());
    let differences: Vec<String> = cases
        .iter()
        .filter_map(|path| match case(path) {
            Ok(_) => Some(format!("{} was loaded", path.display())),
            Err(errors) => compare(path, "err", &render_all(&errors, Format::Full)),
        })
        .collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn what_is_good_becomes_this_plan() {
    let differences: Vec<String> = cases("good")
        .iter()
        .filter_map(|path| match case(path) {
            Ok(plan) => compare(path, "plan", &(serde_json::to_string_pretty(&plan).unwrap() + "\n")),
            Err(errors) => Some(render_all(&errors, Format::Full)),
        })
        .collect();
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}

#[test]
fn every_example_loads() {
    let config = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
    let mut files: Vec<PathBuf> = vec![config.join("keepd.toml")];
    let examples = fs::read_dir(config.join("examples")).unwrap().map(|e| e.unwrap().path());
    files.extend(examples.map(|path| if path.is_dir() { path.join("stack.toml") } else { path }));
    assert!(files.len() >= 5, "{files:?}");
    for file in files {
        let plan = load(&system().with_main(&file).unwrap());
        let plan = plan.unwrap_or_else(|e| panic!("{}", render_all(&e, Format::Full)));
        assert_eq!(plan.services.is_empty(), file.ends_with("config/keepd.toml"), "{}", file.display());
        let expected: &[&str] = if plan.services.is_empty() { &["no service is configured"] } else { &[] };
        assert_eq!(plan.warnings, expected, "{}", file.display());
    }
    let quickstart = load(&user().with_main(&config.join("quickstart.toml")).unwrap());
    let quickstart = quickstart.unwrap_or_else(|e| panic!("{}", render_all(&e, Format::Full)));
    assert!(quickstart.services.len() >= 4 && quickstart.warnings.is_empty(), "{:?}", quickstart.warnings);
}

/// `#key = value` in the reference file claims to be a default; `# words` is prose.
#[test]
fn what_the_reference_file_calls_defaults_are_the_defaults() {
    let reference = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/keepd.toml");
    let text = fs::read_to_string(reference).unwrap();
    let is_key = |l: &str| {
        l.strip_prefix('#').is_some_and(|l| l.starts_with(|c: char| c.is_ascii_lowercase() || c == '['))
    };
    let lines: Vec<&str> = text.lines().map(|l| if is_key(l) { &l[1..] } else { l }).collect();
    assert!(lines.iter().filter(|l| l.contains(" = ") && !l.starts_with('#')).count() > 35);
    let dir = tempfile::tempdir().unwrap();
    let services = "[service.a]\ncommand = [\"/bin/a\"]\nuser = \"web\"\n";
    let plan_of = |main: &str| {
        let file = dir.path().join("keepd.toml");
        fs::write(&file, format!("{main}\n{services}")).unwrap();
        load(&system().with_main(&file).unwrap())
            .unwrap_or_else(|e| panic!("{}", render_all(&e, Format::Full)))
    };
    assert_eq!(plan_of(&lines.join("\n")), plan_of(""));
}

/// Three folders of drop-ins under one temporary root, the strongest first.
struct Tree {
    dir: tempfile::TempDir,
}

impl Tree {
    fn new() -> Tree {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["etc/conf.d", "run", "usr"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        Tree { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> &Tree {
        fs::write(self.path(name), text).unwrap();
        self
    }

    fn load(&self) -> Result<Plan, Vec<Diagnostic>> {
        load(&Options {
            main: self.path("etc/keepd.toml"),
            drop_ins: vec![self.path("etc/conf.d"), self.path("run"), self.path("usr")],
            ..system()
        })
    }
}

fn service(name: &str) -> String {
    format!("[service.{name}]\ncommand = [\"/bin/{name}\"]\nuser = \"web\"\n")
}

fn names(plan: &Plan) -> Vec<&str> {
    plan.services.iter().map(|s| s.name.as_str()).collect()
}

#[test]
fn drop_ins_of_one_name_win_by_folder_and_are_masked() {
    let tree = Tree::new();
    for folder in ["etc/conf.d", "run", "usr"] {
        let own = folder.replace("/conf.d", "");
        tree.write(&format!("{folder}/same.toml"), &service(&format!("same-{own}")));
        tree.write(&format!("{folder}/{own}.toml"), &service(&format!("only-{own}")));
    }
    tree.write("usr/empty.toml", &service("masked")).write("run/empty.toml", "");
    tree.write("usr/link.toml", &service("linked"));
    symlink("/dev/null", tree.path("etc/conf.d/link.toml")).unwrap();
    tree.write("etc/conf.d/.hidden.toml", "broken").write("etc/conf.d/note.txt", "broken");
    let plan = tree.load().unwrap();
    assert_eq!(names(&plan), ["only-etc", "only-run", "only-usr", "same-etc"]);
    assert_eq!(plan.warnings, Vec::<String>::new());
}

#[test]
fn files_apply_in_the_order_of_their_names_over_all_folders() {
    let tree = Tree::new();
    tree.write(
        "etc/keepd.toml",
        "[defaults]\nstop-timeout = \"1s\"\numask = \"0001\"\nenv = { A = \"1\", B = \"1\" }\n",
    );
    tree.write("usr/20-b.toml", "[defaults]\nstop-timeout = \"3s\"\nenv.B = \"3\"\n");
    tree.write("etc/conf.d/10-a.toml", &format!("[defaults]\nstop-timeout = \"2s\"\n{}", service("x")));
    let plan = tree.load().unwrap();
    let x = plan.find("x").unwrap();
    assert_eq!(x.stop.timeout.0, 3000);
    assert_eq!(x.launch.umask, 1);
    assert_eq!((x.launch.env["A"].as_str(), x.launch.env["B"].as_str()), ("1", "3"));
}

#[test]
fn a_missing_main_file_is_an_error_only_where_it_was_named() {
    let tree = Tree::new();
    assert_eq!(tree.load().unwrap().warnings, ["no service is configured"]);
    let missing = system().with_main(&tree.path("etc/keepd.toml")).unwrap();
    let errors = load(&missing).unwrap_err();
    assert_eq!(errors.len(), 1);
    assert_eq!(
        errors[0].short(),
        "keepd.toml: error: cannot read keepd.toml: No such file or directory (os error 2)"
    );
    assert!(errors[0].rendered().ends_with("\n  --> keepd.toml"), "{}", errors[0].rendered());
}

#[test]
fn what_cannot_be_read_is_said_for_every_file() {
    let tree = Tree::new();
    tree.write("usr/big.toml", &"#".repeat((4 << 20) + 1)).write("usr/nul.toml", "\n\0");
    fs::write(tree.path("usr/latin.toml"), b"# a\n# \xe9\n").unwrap();
    fs::create_dir(tree.path("usr/folder.toml")).unwrap();
    symlink("/nonexistent", tree.path("usr/gone.toml")).unwrap();
    tree.write("etc/conf.d/bad.toml", "[service.a]\ncolour = 1\n");
    let errors = tree.load().unwrap_err();
    let lines: Vec<String> =
        errors.iter().map(|e| e.short().replace(tree.path("").to_str().unwrap(), "")).collect();
    assert_eq!(
        lines,
        [
            "conf.d/bad.toml:2:1: error: unknown key `colour`",
            "usr/big.toml: error: cannot read usr/big.toml: it is larger than 4 MiB",
            "usr/folder.toml: error: cannot read usr/folder.toml: it is not a regular file",
            "usr/gone.toml: error: cannot read usr/gone.toml: No such file or directory (os error 2)",
            "usr/latin.toml: error: cannot read usr/latin.toml: it is not UTF-8 in line 2",
            "usr/nul.toml: error: cannot read usr/nul.toml: it has a NUL byte in line 2",
        ]
    );
    assert!(render_all(&errors, Format::Full).ends_with("\n\n6 errors in 6 files; nothing was changed\n"));
}

#[test]
fn a_file_that_everybody_can_write_is_a_warning_for_root() {
    let tree = Tree::new();
    tree.write("etc/conf.d/a.toml", &service("a"));
    fs::set_permissions(tree.path("etc/conf.d/a.toml"), fs::Permissions::from_mode(0o666)).unwrap();
    let warnings = tree.load().unwrap().warnings;
    assert_eq!(
        warnings,
        ["conf.d/a.toml: everybody on this host can write this file, and so run anything as root"]
    );
    fs::set_permissions(tree.path("etc/conf.d/a.toml"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::set_permissions(tree.path("etc/conf.d"), fs::Permissions::from_mode(0o777)).unwrap();
    let warnings = tree.load().unwrap().warnings;
    assert_eq!(
        warnings,
        ["conf.d: everybody on this host can write this folder, and so run anything as root"]
    );
}

#[test]
fn short_and_colored_forms() {
    let tree = Tree::new();
    tree.write("etc/conf.d/web.toml", &format!("{}comand = \"x\"\n", service("web")));
    let errors = tree.load().unwrap_err();
    assert_eq!(
        render_all(&errors, Format::Short),
        "conf.d/web.toml:4:1: error: unknown key `comand`, did you mean `command`?\n"
    );
    let full = render_all(&errors, Format::Full);
    assert!(full.contains("`command`?\n  --> conf.d/web.toml:4:1\n"), "{full}");
    assert!(!full.contains('\u{1b}') && render_all(&errors, Format::Color).contains('\u{1b}'));
    assert_eq!((errors[0].span.clone(), errors[0].source.as_str()), (50..56, "comand = \"x\""));
}

#[test]
fn user_mode_runs_everything_as_its_user() {
    let dir = tempfile::tempdir().unwrap();
    let main = dir.path().join("keepd.toml");
    fs::write(&main, "[service.a]\ncommand = [\"a\"]\n").unwrap();
    let plan = load(&user().with_main(&main).unwrap()).unwrap();
    assert_eq!(plan.daemon.mode, Mode::User);
    assert_eq!(
        (plan.daemon.manager, plan.daemon.api.admins.len(), plan.daemon.api.readers.len()),
        (None, 0, 0)
    );
    assert_eq!(plan.daemon.api.socket, Path::new("/run/user/1000/keepd/api.sock"));
    let a = plan.find("a").unwrap();
    assert_eq!((a.launch.identity.clone(), a.launch.directory.as_path()), (None, Path::new("/home/ann")));
    assert_eq!((a.launch.env["USER"].as_str(), a.launch.env["HOME"].as_str()), ("ann", "/home/ann"));
    assert_eq!(a.logs.dir, Path::new("/home/ann/.local/state/keepd/log/a"));
}

/// What a file may be damaged with.
const CUT: &str = "[\\[\\]=\"'#.,{}$@ä0-9a-z\n -]{0,4}";

/// A budget, wide enough for a debug build on a busy machine: what grows with the square of the services is
/// far above it.
#[test]
fn a_thousand_services_load_at_once() {
    let tree = Tree::new();
    for file in 0..10 {
        let one = |n: usize| {
            let name = format!("service-{:04}", file * 100 + n);
            let before = (file * 100 + n).saturating_sub(1);
            let after = if file * 100 + n > 0 {
                format!("after = [\"service-{before:04}\"]\n")
            } else {
                String::new()
            };
            format!(
                "{}port = 3000\nenv = {{ A = \"${{name}}\" }}\nlimits.open-files = 1024\n{after}",
                service(&name)
            )
        };
        tree.write(&format!("etc/conf.d/{file}.toml"), &(0..100).map(one).collect::<String>());
    }
    let start = clock::boottime_ms();
    let plan = tree.load().unwrap();
    let took = clock::boottime_ms() - start;
    assert_eq!(plan.services.len(), 1000);
    println!("1000 services: {took} ms");
    assert!(took < 2000, "{took} ms");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens to a file, it is loaded or refused with errors that can be shown.
    #[test]
    fn no_text_breaks_the_loader(
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 0usize..12, CUT), 1..6)
    ) {
        let mut text: Vec<char> = fs::read_to_string(golden().join("good/full.toml")).unwrap().chars().collect();
        for (at, length, new) in cuts {
            let start = at.index(text.len());
            let end = (start + length).min(text.len());
            text.splice(start..end, new.chars());
        }
        let tree = Tree::new();
        tree.write("etc/keepd.toml", &text.into_iter().collect::<String>());
        if let Err(errors) = tree.load() {
            prop_assert!(!errors.is_empty());
            let full = render_all(&errors, Format::Full);
            prop_assert_eq!(full.matches("\n  --> ").count(), errors.len());
            prop_assert_eq!(render_all(&errors, Format::Short).lines().count(), errors.len());
        }
    }
}
