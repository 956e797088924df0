//! What a program of supervisord and an app of pm2 mean here, and how the command ends.

use super::*;

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
