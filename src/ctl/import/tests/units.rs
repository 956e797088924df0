//! What keys of a unit of systemd mean here.

use super::*;

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
         IOSchedulingClass=2\nIOSchedulingPriority=6\n\
         OOMScoreAdjust=-100\nCPUAffinity=0-1 3\nUMask=0027\nRuntimeDirectory=x\nRuntimeDirectoryMode=0750\n\
         StateDirectory=x x/cache\nLoadCredential=key:/etc/x/key\nStandardOutput=journal\nStandardError=inherit",
    );
    assert_eq!(lost(&batch), ["x/cache of state-dirs"]);
    let x = plan.find("x").unwrap();
    let r = &x.resources;
    assert_eq!((r.memory_max, r.memory_high, r.cpu_max), (Some(1 << 30), Some(512 << 20), Some(150)));
    assert_eq!((r.pids_max, r.cpu_weight, r.io_weight), (Some(100), Some(50), Some(20)));
    assert_eq!((x.launch.scheduling.nice, x.launch.scheduling.cpus.as_slice()), (Some(5), &[0, 1, 3][..]));
    assert_eq!(x.launch.scheduling.io.map(|io| io.to_string()).as_deref(), Some("best-effort:6"));
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
