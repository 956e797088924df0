//! The way from fork to exec.

use crate::{
    Test,
    identity::identity,
    rig::{Rig, content, read_all, root, service},
};
use keepd::{
    keeper::protocol::{News, Request},
    plan::{EnvFile, Exit, Generation, Limit, Name, RunId, ServiceSpec, Stderr, Stdout},
};
use serde_json::{Value, json};
use std::{fs, os::unix::fs::PermissionsExt, path::Path};

pub const TESTS: &[Test] = &[
    ("output_and_exit_status_arrive", output_and_exit_status_arrive),
    ("streams_go_where_they_are_sent", streams_go_where_they_are_sent),
    ("a_service_gets_a_clean_place", a_service_gets_a_clean_place),
    ("signals_are_reset", signals_are_reset),
    ("env_files_win_in_order", env_files_win_in_order),
    ("every_step_fails_by_name", every_step_fails_by_name),
    ("a_launch_must_fit_the_plan", a_launch_must_fit_the_plan),
];

pub fn report(file: &Path) -> Value {
    serde_json::from_str(&content(file)).unwrap()
}

fn output_and_exit_status_arrive() {
    let mut rig = Rig::new(vec![service("a", &["lines", "3", "line", "exit", "42"])]);
    let (run, _, pipes) = rig.started("a");
    assert_eq!(pipes.len(), 1, "stderr goes the way of stdout");
    assert_eq!(read_all(&pipes[0]), "line 1\nline 2\nline 3\n");
    assert_eq!(rig.exited(run), (Exit::Code(42), false));
    rig.send(&[Request::Release { run }]);
    assert_eq!(rig.exit(), Some(0));
}

fn streams_go_where_they_are_sent() {
    let with = |name, stdout, stderr| {
        let mut s = service(name, &["print", "out", "eprint", "err"]);
        (s.launch.stdout, s.launch.stderr) = (stdout, stderr);
        s
    };
    let mut rig = Rig::new(vec![
        with("apart", Stdout::Capture, Stderr::Separate),
        with("merged", Stdout::Capture, Stderr::Merge),
        with("none", Stdout::Discard, Stderr::Merge),
        with("only-err", Stdout::Discard, Stderr::Separate),
        with("only-out", Stdout::Capture, Stderr::Discard),
    ]);
    let wanted: [(&str, &[&str]); 5] = [
        ("apart", &["out\n", "err\n"]),
        ("merged", &["out\nerr\n"]),
        ("none", &[]),
        ("only-err", &["err\n"]),
        ("only-out", &["out\n"]),
    ];
    for (name, wanted) in wanted {
        let (_, _, pipes) = rig.started(name);
        let got: Vec<String> = pipes.iter().map(read_all).collect();
        assert_eq!(got, wanted, "{name}");
    }
}

fn a_service_gets_a_clean_place() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("report");
    let mut s = service("a", &["report", file.to_str().unwrap()]);
    s.launch.directory = dir.path().into();
    s.launch.umask = 0o027;
    s.launch.limits = vec![Limit { name: "core".into(), resource: 4, soft: Some(0), hard: Some(4096) }];
    s.launch.env.insert("COLOUR".into(), "blue".into());
    let mut rig = Rig::new(vec![s]);
    let (run, pid, _) = rig.started("a");
    let r = report(&file);
    assert_eq!(rig.exited(run).0, Exit::Code(0));

    assert_eq!(r["pid"], json!(pid));
    assert_eq!((&r["sid"], &r["pgid"]), (&r["pid"], &r["pid"]), "a session of its own");
    assert_eq!(r["ppid"], json!(rig.keeper_pid()));
    assert_eq!(r["cwd"], json!(dir.path()));
    assert_eq!(r["status"]["Umask"], json!(["0027"]));
    assert_eq!(r["status"]["NoNewPrivs"], json!(["1"]));
    assert_eq!(r["limits"]["4"], json!([0, 4096]));
    let own = keepd::sys::limits::get(keepd::sys::limits::OPEN_FILES).unwrap();
    assert_eq!(r["limits"]["7"], json!([own.soft, own.hard]), "not the limit that the keeper needs");
    let fds = r["fds"].as_object().unwrap();
    assert_eq!(fds.keys().collect::<Vec<_>>(), ["0", "1", "2"]);
    assert_eq!(fds["0"], "/dev/null");
    assert!(fds["1"].as_str().unwrap().starts_with("pipe:") && fds["1"] == fds["2"], "{fds:?}");
    let env = r["env"].as_object().unwrap();
    assert_eq!(env.keys().collect::<Vec<_>>(), ["COLOUR", "INVOCATION_ID", "PATH"]);
    let id = env["INVOCATION_ID"].as_str().unwrap();
    assert!(id.len() == 32 && id.bytes().all(|b| b.is_ascii_hexdigit()), "{id}");
    if rig.cgroup().is_some() {
        let at = r["cgroup"].as_str().unwrap();
        assert!(at.ends_with(&format!("/a.{run}")), "{at}");
    }
}

/// Not with our own helper: its runtime ignores SIGPIPE. And a program that is searched in PATH.
fn signals_are_reset() {
    let mut s = service("a", &[]);
    s.launch.argv = vec!["cat".into(), "/proc/self/status".into()];
    let mut rig = Rig::new(vec![s]);
    let (_, _, pipes) = rig.started("a");
    let text = read_all(&pipes[0]);
    for mask in ["SigBlk", "SigIgn", "SigCgt"] {
        let line = text.lines().find(|l| l.starts_with(mask)).unwrap();
        assert!(line.ends_with("\t0000000000000000"), "{line}");
    }
}

fn env_files_win_in_order() {
    let dir = tempfile::tempdir().unwrap();
    // Where nobody but root leads the way, root reads.
    let files = if root() { tempfile::tempdir_in("/var/lib") } else { tempfile::tempdir() }.unwrap();
    fs::set_permissions(files.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let (one, two, file) = (files.path().join("one"), files.path().join("two"), dir.path().join("report"));
    fs::write(&one, "# first\nexport A='from one'\nB=one\n").unwrap();
    fs::write(&two, "B=\"two\"\n").unwrap();
    // Only root may read it; it is read before the service becomes anybody else.
    fs::set_permissions(&one, fs::Permissions::from_mode(0o600)).unwrap();
    let mut s = service("a", &["report", file.to_str().unwrap()]);
    s.launch.env.extend([("A".into(), "plan".into()), ("C".into(), "plan".into())]);
    s.launch.env_files = [(one, false), (dir.path().join("missing"), true), (two, false)]
        .map(|(path, optional)| EnvFile { path, optional })
        .into();
    if root() {
        s.launch.identity = Some(identity(65534, 65534, &[65534]));
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    }
    let mut rig = Rig::new(vec![s]);
    rig.started("a");
    let env = &report(&file)["env"];
    assert_eq!((&env["A"], &env["B"], &env["C"]), (&json!("from one"), &json!("two"), &json!("plan")));
}

/// Each cannot be launched, for the reason in its name.
fn unlaunchable(dir: &Path) -> Vec<ServiceSpec> {
    let at = |name: &str| dir.join(name).display().to_string();
    let changed = |name: &str, change: &dyn Fn(&mut ServiceSpec)| {
        let mut s = service(name, &[]);
        change(&mut s);
        s
    };
    let argv =
        |name: &'static str, program: String| changed(name, &move |s| s.launch.argv = vec![program.clone()]);
    let env_file = |name: &'static str, path: String| {
        changed(name, &move |s| {
            s.launch.env_files = vec![EnvFile { path: path.clone().into(), optional: false }];
        })
    };
    let huge = Limit { name: "open-files".into(), resource: 7, soft: Some(1), hard: Some(1 << 40) };
    vec![
        argv("a-exec-missing", at("missing")),
        argv("b-exec-denied", at("plain")),
        argv("c-exec-folder", at("folder")),
        argv("d-exec-format", at("nothing")),
        argv("e-exec-script", at("script")),
        argv("f-exec-path", "no-such-program".into()),
        changed("g-directory", &|s| s.launch.directory = at("missing").into()),
        env_file("h-env-missing", at("missing")),
        env_file("i-env-bad", at("bad-env")),
        env_file("j-env-fifo", at("fifo")),
        changed("k-limit", &|s| s.launch.limits = vec![huge.clone()]),
        argv("l-exec-empty", String::new()),
    ]
}

fn every_step_fails_by_name() {
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let at = |name: &str| dir.path().join(name).display().to_string();
    let file = |name: &str, mode: u32, text: &str| {
        fs::write(at(name), text).unwrap();
        fs::set_permissions(at(name), fs::Permissions::from_mode(mode)).unwrap();
    };
    file("plain", 0o644, "no program");
    file("nothing", 0o755, "neither fish nor fowl");
    file("script", 0o755, "#!/no/such/shell -e\n");
    file("bad-env", 0o644, "A=1\nnonsense\n");
    fs::create_dir(at("folder")).unwrap();
    nix::unistd::mkfifo(at("fifo").as_str(), nix::sys::stat::Mode::from_bits_truncate(0o644)).unwrap();

    let mut rig = Rig::new(unlaunchable(dir.path()));
    let wanted = [
        ("a-exec-missing", format!("cannot execute {}: No such file or directory", at("missing"))),
        ("b-exec-denied", format!("cannot execute {}: Permission denied", at("plain"))),
        ("c-exec-folder", format!("cannot execute {}: Permission denied", at("folder"))),
        (
            "d-exec-format",
            format!(
                "cannot execute {}: Exec format error (no `#!` line, or built for another machine)",
                at("nothing")
            ),
        ),
        (
            "e-exec-script",
            format!("cannot execute {}: its interpreter /no/such/shell does not exist", at("script")),
        ),
        (
            "f-exec-path",
            "cannot execute no-such-program: it is in none of the folders of PATH \
             (/usr/local/bin:/usr/bin:/bin)"
                .into(),
        ),
        ("g-directory", format!("cannot change directory to {}: No such file or directory", at("missing"))),
        (
            "h-env-missing",
            format!("cannot read environment file {}: No such file or directory", at("missing")),
        ),
        ("i-env-bad", format!("cannot read environment file {}: line 2 has no `=`", at("bad-env"))),
        ("j-env-fifo", format!("cannot read environment file {}: it is not a regular file", at("fifo"))),
        ("k-limit", "cannot set limit open-files to 1:1099511627776: Operation not permitted".into()),
    ];
    for (name, sentence) in wanted {
        assert_eq!(rig.fails(name), (sentence, false), "{name}");
    }
    assert!(rig.fails("l-exec-empty").0.starts_with("cannot execute "));
    // Nothing of all these is left.
    if let Some(cgroup) = rig.cgroup() {
        let left: Vec<_> = fs::read_dir(cgroup)
            .unwrap()
            .flatten()
            .filter(|e| e.file_type().unwrap().is_dir())
            .map(|e| e.file_name())
            .collect();
        assert!(left.is_empty(), "{left:?}");
    }
}

fn a_launch_must_fit_the_plan() {
    let mut rig = Rig::new(vec![service("a", &["sleep"]), service("b", &["sleep"])]);
    let mut ask = |service: &str, generation, entry| {
        let run = RunId(1000 + u64::from(entry) + generation);
        let service = Name::new(service);
        rig.send(&[Request::Launch { run, service, generation: Generation(generation), entry, call: None }]);
        rig.wait("LaunchFailed", |n| match n {
            News::LaunchFailed { run: r, why, transient: false } if *r == run => Some(why.clone()),
            News::Started { run: r, .. } if *r == run => panic!("it started"),
            _ => None,
        })
        .0
    };
    assert_eq!(ask("a", 7, 0), "cannot read the plan of a: that plan is not held any more");
    assert_eq!(ask("b", 1, 0), "cannot read the plan of b: entry 0 is a");
    assert!(ask("a", 1, 9).contains("there is no entry 9"));
    assert!(ask("../../escape", 1, 1).starts_with("cannot read the plan"));
}
