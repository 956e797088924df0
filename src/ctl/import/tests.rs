//! Every fixture is imported and loaded by the real configuration loader; what some of them become is compared word for
//! word. `UPDATE_GOLDEN=1` writes the expected files anew.
//!
//! `tests/import/systemd` has the keys and values of the units of 76 Debian packages.

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

/// One unit with this text in `[Service]`.
fn unit(service: &str) -> (Plan, Batch) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.service");
    fs::write(
        &file,
        format!("[Service]\nExecStart=/bin/x\n{service}\n[Install]\nWantedBy=multi-user.target\n"),
    )
    .unwrap();
    let batch = imported(From::Systemd, &[file], Mode::System);
    (loaded(&batch.toml("systemd"), Mode::System), batch)
}

fn lost(batch: &Batch) -> Vec<&str> {
    fn what(remark: &Remark) -> Option<&str> {
        if let Remark::Lost { what, .. } = remark { Some(what) } else { None }
    }
    batch.drafts.iter().flat_map(|d| &d.remarks).chain(&batch.remarks).filter_map(what).collect()
}

#[test]
fn a_unit_means_the_same_here() {
    let (plan, batch) = unit(
        "User=web\nRestart=on-failure\nRestartSec=2\nStartLimitBurst=3\nStartLimitIntervalSec=60\nKillSignal=INT\n\
         TimeoutStopSec=1min 30s\nAmbientCapabilities=CAP_NET_BIND_SERVICE\n\
         CapabilityBoundingSet=CAP_NET_BIND_SERVICE\n\
         LimitNOFILE=1024:infinity\nEnvironment=\"A=x y\" B=${Z}\nEnvironmentFile=-/etc/default/x\nUMask=0027\n\
         SuccessExitStatus=143\nProtectSystem=strict\nReadWritePaths=/var/lib/x\nExecReload=/bin/kill -USR1 $MAINPID",
    );
    assert_eq!((lost(&batch), batch.left_out()), (vec![], 0));
    let x = plan.find("x").unwrap();
    assert_eq!(x.launch.argv, words(&["/bin/x"]));
    assert_eq!((x.restart, x.stop.signal, x.stop.timeout.0), (Restart::OnFailure, 2, 90_000));
    assert_eq!((x.backoff.delay.0, x.backoff.max.0, x.backoff.jitter_permille), (2000, 2000, 0));
    assert_eq!((x.breaker.failures, x.breaker.within.0, x.breaker.retry_every), (3, 60_000, None));
    assert_eq!((x.launch.env["A"].as_str(), x.launch.env["B"].as_str()), ("x y", "${Z}"));
    assert!(x.launch.env_files[0].optional && x.launch.umask == 0o027);
    assert_eq!((x.launch.limits[0].soft, x.launch.limits[0].hard), (Some(1024), None));
    assert_eq!(x.launch.sandbox.capabilities.unwrap().names(), ["CAP_NET_BIND_SERVICE"]);
    assert_eq!(x.launch.sandbox.writable, [PathBuf::from("/var/lib/x")]);
    assert!(x.autostart);
}

#[test]
fn what_systemd_does_by_itself_is_written() {
    let (plan, _) = unit("");
    let x = plan.find("x").unwrap();
    assert_eq!((x.restart, x.stop.timeout.0), (Restart::Never, 90_000));
    // Its start limit cannot be reached with 30 s between the starts.
    let (plan, _) = unit("Restart=always\nRestartSec=30");
    assert!(plan.find("x").unwrap().breaker.failures > 1024);
    let (plan, _) = unit("Restart=always\nRestartSec=1\nRestartSteps=4\nRestartMaxDelaySec=16");
    assert_eq!(plan.find("x").unwrap().backoff.factor_permille, 2000);
}

#[test]
fn what_a_unit_may_use_is_kept() {
    let (plan, batch) = unit(
        "User=web\nMemoryMax=1G\nMemoryHigh=512M\nCPUQuota=150%\nTasksMax=100\nCPUWeight=50\nIOWeight=20\nNice=5\n\
         OOMScoreAdjust=-100\nCPUAffinity=0-1 3\nUMask=0027\nRuntimeDirectory=x\nRuntimeDirectoryMode=0750\n\
         StateDirectory=x x/cache\nLoadCredential=key:/etc/x/key\nStandardOutput=journal\nStandardError=inherit",
    );
    assert_eq!(lost(&batch), ["x/cache of state-dirs"]);
    let x = plan.find("x").unwrap();
    let r = &x.resources;
    assert_eq!((r.memory_max, r.memory_high, r.cpu_max), (Some(1 << 30), Some(512 << 20), Some(150)));
    assert_eq!((r.pids_max, r.cpu_weight, r.io_weight), (Some(100), Some(50), Some(20)));
    assert_eq!((x.launch.scheduling.nice, x.launch.scheduling.cpus.as_slice()), (Some(5), &[0, 1, 3][..]));
    let provision = &x.launch.provision;
    assert_eq!((provision.runtime_dirs.len(), provision.state_dirs.len()), (1, 1));
    assert!(provision.credentials.is_some() && x.logs.forward.len() == 1);
    let (_, batch) =
        unit("MemoryMax=1G\nMemoryHigh=1G\nTasksMax=50%\nRuntimeDirectory=keepd ../x\nUMask=0077");
    let named = ["MemoryHigh=1G", "TasksMax=50%", "RuntimeDirectory=keepd", "RuntimeDirectory=../x"];
    assert_eq!(lost(&batch), named);
}

#[test]
fn nobody_becomes_root_by_being_imported() {
    let (plan, batch) = unit("DynamicUser=yes");
    assert_eq!(plan.find("x").unwrap().launch.env["USER"], "nobody");
    assert_eq!(lost(&batch), ["DynamicUser=yes"]);
}

#[test]
fn a_key_that_nobody_knows_is_named() {
    let (_, batch) = unit("Frobnicate=1\nX-Own=2\nMemoryDenyWriteExecute=yes");
    assert_eq!(lost(&batch), ["Frobnicate=1", "X-Own=2", "MemoryDenyWriteExecute=yes"]);
    assert!(batch.summary().ends_with("not kept\n") && batch.toml("x").contains("Not kept: Frobnicate=1"));
}

#[test]
fn what_cannot_be_run_is_left_out_with_a_reason() {
    let dir = tempfile::tempdir().unwrap();
    for (name, text, says) in [
        ("a@.service", "[Service]\nExecStart=/bin/a %i\n", "it is a template"),
        ("b.service", "[Service]\nExecStart=/bin/b\nStandardInput=socket\n", "its standard input"),
        ("c.service", "[Service]\nType=oneshot\n", "nothing to run"),
        ("d.service", "[Service]\nExecStart='/bin/d\n", "never closed"),
    ] {
        let file = dir.path().join(name);
        fs::write(&file, text).unwrap();
        let batch = imported(From::Systemd, &[file], Mode::System);
        assert!(batch.drafts[0].refused.as_ref().is_some_and(|r| r.contains(says)), "{name}");
        assert!(batch.left_out() > 0);
        assert_eq!(loaded(&batch.toml("x"), Mode::System).services.len(), 0);
    }
}

#[test]
fn units_that_wait_for_each_other_do_so_one_way_round() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, unit: &str| {
        let file = dir.path().join(format!("{name}.service"));
        fs::write(&file, format!("[Unit]\n{unit}\n[Service]\nExecStart=/bin/x\n")).unwrap();
        file
    };
    let files = [
        write("a", "Requires=b.service\nAfter=b.service network.target"),
        write("b", "After=a.service\nBefore=c.service"),
        write("c", "BindsTo=gone.service"),
    ];
    let batch = imported(From::Systemd, &files, Mode::System);
    let plan = loaded(&batch.toml("x"), Mode::System);
    let names = |list: &[crate::plan::Name]| list.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(names(&plan.find("a").unwrap().requires), ["b"]);
    assert_eq!(names(&plan.find("c").unwrap().after), ["b"]);
    assert_eq!(lost(&batch), ["After=a.service", "BindsTo=gone.service"]);
}

#[test]
fn drop_ins_beside_a_unit_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("x.service");
    fs::write(&file, "[Service]\nExecStart=/bin/old\nUser=a\n").unwrap();
    fs::create_dir(dir.path().join("x.service.d")).unwrap();
    fs::write(dir.path().join("x.service.d/o.conf"), "[Service]\nExecStart=\nExecStart=/bin/new\n").unwrap();
    let batch = imported(From::Systemd, &[file], Mode::System);
    let plan = loaded(&batch.toml("x"), Mode::System);
    assert_eq!(plan.find("x").unwrap().launch.argv, words(&["/bin/new"]));
    assert_eq!(batch.drafts[0].origin, "x.service, o.conf");
}

fn program(text: &str, env: &[(&str, &str)]) -> (Plan, Batch) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("s.conf");
    fs::write(&file, text).unwrap();
    let env = env.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    let batch = import(From::Supervisor, &[file], &Setting { env, ..setting(Mode::System) }).unwrap();
    (loaded(&batch.toml("x"), Mode::System), batch)
}

#[test]
fn a_program_means_the_same_here() {
    let (plan, batch) = program(
        "[program:w]\ncommand=/bin/w 'a b' $X %(process_num)d\n\
         process_name=%(program_name)s_%(process_num)d\nnumprocs=2\n\
         user=web\nautorestart=false\nexitcodes=0,3\nstopsignal=USR1\nstopwaitsecs=5\numask=027\n\
         redirect_stderr=false\n\
         stdout_logfile_maxbytes=1MB\nstdout_logfile_backups=2\nenvironment=A=\"${B}\"\n",
        &[],
    );
    assert_eq!(lost(&batch), Vec::<&str>::new());
    let w = plan.find("w@1").unwrap();
    assert_eq!(w.launch.argv, words(&["/bin/w", "a b", "$X", "1"]));
    assert_eq!((w.restart, w.stop.signal, w.stop.timeout.0), (Restart::Never, 10, 5000));
    assert_eq!((w.logs.max_size, w.logs.keep, w.launch.env["A"].as_str()), (1 << 20, 2, "${B}"));
}

#[test]
fn the_environment_of_supervisord_is_asked_for() {
    let text = "[program:w]\ncommand=%(ENV_BIN)s/w\n";
    let (plan, batch) = program(text, &[]);
    assert!(plan.services.is_empty());
    assert!(batch.toml("x").contains("give it with --env BIN="), "{}", batch.toml("x"));
    let (plan, batch) = program(text, &[("BIN", "/opt/bin")]);
    assert_eq!(plan.find("w").unwrap().launch.argv, words(&["/opt/bin/w"]));
    assert_eq!(batch.left_out(), 0);
}

#[test]
fn an_environment_of_pm2_is_a_profile() {
    let toml = imported(From::Pm2, &[fixture("pm2/api.json")], Mode::System).toml("x");
    assert!(
        toml.contains("[profile.production.service.api.env]\nDATABASE = \"postgres://$${x}\"\n"),
        "{toml}"
    );
    let plan = loaded(&toml, Mode::System);
    let third = &plan.find("api@2").unwrap().launch;
    assert_eq!((third.env["PORT"].as_str(), third.env["NODE_ENV"].as_str()), ("3002", "development"));
    assert_eq!(third.env["NODE_APP_INSTANCE"], "2");
}

/// As on the command line; its exit status, stdout and stderr.
fn called(args: &[&str]) -> (u8, String, String) {
    let cli = Cli::try_parse_from([&["keepctl", "import"], args].concat()).unwrap();
    let Command::Import(args) = cli.command else { panic!("{cli:?}") };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let (status, why) = match run(&args, &mut out, &mut err) {
        Ok(status) => (status, String::new()),
        Err(fail) => (fail.status, fail.message),
    };
    (status, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap() + &why)
}

#[test]
fn the_exit_status_says_whether_everything_was_kept() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let write = |name: &str, text: &str| {
        fs::write(dir.path().join(name), text).unwrap();
        path(name)
    };
    let (status, out, err) = called(&["procfile", "--user", &write("Procfile", "web: ./run\n")]);
    assert_eq!((status, err.as_str()), (0, "1 service, 1 key mapped, everything was kept\n"));
    assert_eq!(loaded(&out, Mode::User).services.len(), 1);
    let (status, _, err) =
        called(&["supervisor", "--user", &write("s.conf", "[program:a]\ncommand=/bin/a\nuser=x\n")]);
    assert_eq!((status, err.lines().next()), (5, Some("a: not kept: user = x")));
    for (name, text, says) in [
        (
            "ecosystem.config.js",
            "module.exports = {}",
            "node -p 'JSON.stringify(require(\"./ecosystem.config.js\"))'",
        ),
        ("x.yaml", "apps: []", "only JSON"),
        ("bad.json", "{", "it is not JSON"),
    ] {
        let (status, out, err) = called(&["pm2", &write(name, text)]);
        assert_eq!((status, out.as_str()), (1, ""));
        assert!(err.starts_with("cannot import ") && err.contains(says), "{err}");
    }
    let (status, _, err) = called(&["systemd", &path("gone.service")]);
    assert!(status == 1 && err.contains("No such file"), "{err}");
    assert_eq!(called(&["systemd", &write("x.timer", "[Timer]\n")]).0, 1);
    assert_eq!(called(&["procfile", &write("P", "no colon\n")]).0, 1);
}
