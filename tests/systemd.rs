//! The same service under keepd and under systemd on one host, which is a box with a systemd of its own: what it is
//! given is the same, but for what is listed here with the reason why.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod common;

use common::{SOON, helper, is_root, skip, text, wait_for};
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

/// Where `tests/run` says that it has put a root folder with systemd.
const ROOT: &str = "KEEPD_SYSTEMD_ROOT";

/// A booted box.
struct Booted {
    name: String,
}

impl Booted {
    /// `None` where there can be none, which is said.
    fn new() -> Option<Booted> {
        let Some(root) = std::env::var_os(ROOT).filter(|_| is_root()) else {
            skip("needs root, and a root folder with systemd, which tests/run prepares");
            return None;
        };
        let booted = Booted { name: format!("t{}", std::process::id()) };
        let done = booted.command("up").arg(root).output().unwrap();
        if !done.status.success() {
            skip(&format!("systemd cannot be booted in namespaces here: {}", text(&done)));
            return None;
        }
        Some(booted)
    }

    fn command(&self, verb: &str) -> Command {
        let mut command = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/systemd/box"));
        command.arg(verb).arg(&self.name);
        command
    }

    fn run(&self, argv: &[&str]) -> Output {
        self.command("exec").args(argv).output().unwrap()
    }

    fn ok(&self, argv: &[&str]) -> String {
        let done = self.run(argv);
        assert!(done.status.success(), "{argv:?}: {}", text(&done));
        String::from_utf8(done.stdout).unwrap()
    }

    /// A path of the box, as it is seen from here.
    fn path(&self, inside: &str) -> PathBuf {
        let root = String::from_utf8(self.command("root").output().unwrap().stdout).unwrap();
        Path::new(root.trim()).join(inside.trim_start_matches('/'))
    }
}

impl Drop for Booted {
    fn drop(&mut self) {
        let _ = self.command("down").output();
    }
}

/// One service, in the words of both.
struct Pair {
    name: &'static str,
    /// Keys of keepd's service.
    keys: &'static str,
    /// systemd's properties.
    properties: &'static [&'static str],
    /// What it does before it writes its report; its output is compared.
    script: &'static str,
}

const PAIRS: &[Pair] = &[
    Pair {
        name: "plain",
        keys: "",
        properties: &["CapabilityBoundingSet=", "SystemCallFilter=~@reboot", "LimitNOFILE=1024:4096"],
        script: "true",
    },
    Pair {
        name: "bind",
        keys: "umask = \"0027\"\ngroup = \"tty\"\ngroups = [\"audio\", \"tty\"]\ndirectory = \"/usr\"\n\
               env = { A = \"two words\" }\n\
               sandbox = { capabilities = [\"CAP_NET_BIND_SERVICE\"] }\nlimits = { core = 0, stack = \"4MiB:8MiB\" }\n\
               resources = { nice = 5, io-priority = \"best-effort:6\", oom-score-adjust = 100, \
               cpu-affinity = \"0\" }\n",
        properties: &[
            "UMask=0027",
            "Group=tty",
            "SupplementaryGroups=audio",
            "WorkingDirectory=/usr",
            "Environment=\"A=two words\"",
            "AmbientCapabilities=CAP_NET_BIND_SERVICE",
            "CapabilityBoundingSet=CAP_NET_BIND_SERVICE",
            "SystemCallFilter=~@reboot",
            "LimitCORE=0",
            "LimitSTACK=4M:8M",
            "LimitNOFILE=1024:4096",
            "Nice=5",
            "IOSchedulingClass=best-effort",
            "IOSchedulingPriority=6",
            "OOMScoreAdjust=100",
            "CPUAffinity=0",
        ],
        script: "/opt/t/child try bind-81 try setuid-0",
    },
    Pair {
        name: "boxed",
        keys: "runtime-dirs = [\"boxed\"]\nstate-dirs = [\"boxed\", \"deep/boxed\"]\n\
               sandbox = { read-only = \"strict\", writable = [\"/tmp/out\"], hide-home = true, \
               private-network = true, private-devices = true, syscalls = \"service\" }\n",
        properties: &[
            "RuntimeDirectory=boxed",
            "StateDirectory=boxed deep/boxed",
            "ProtectSystem=strict",
            "ReadWritePaths=/tmp/out",
            "ProtectHome=tmpfs",
            "PrivateNetwork=yes",
            "PrivateDevices=yes",
            "CapabilityBoundingSet=",
            "SystemCallFilter=@system-service",
            "SystemCallErrorNumber=EPERM",
            "LimitNOFILE=1024:4096",
        ],
        script: "/opt/t/child try-write / try-write /usr try-write /etc try-write /var/lib try-write /tmp/out \
                 try-write /run/boxed try-write /var/lib/boxed try-write /dev/null try mount try reboot try bpf; \
                 stat -c '%a %U %G %n' /run/boxed /var/lib/boxed /var/lib/deep /var/lib/deep/boxed; \
                 ls -A /home /root; test -e /dev/kmsg || echo no kmsg; \
                 echo $RUNTIME_DIRECTORY $STATE_DIRECTORY",
    },
    Pair {
        name: "secret",
        keys: "credentials = { key = \"/opt/t/secret\" }\n",
        properties: &[
            "LoadCredential=key:/opt/t/secret",
            "CapabilityBoundingSet=",
            "SystemCallFilter=~@reboot",
            "LimitNOFILE=1024:4096",
        ],
        script: "cd $CREDENTIALS_DIRECTORY && stat -c '%a %U %n' . key && cat key && \
                 (test -w key || echo read-only)",
    },
];

/// What of a report is compared: the rest is either's own.
fn comparable(mut report: Value) -> Value {
    let all = report.as_object_mut().unwrap();
    // Numbers of processes, and names of where they are. Each has a keyring of its own, with its own number.
    // Which calls are refused is tried where it is drawn at random.
    for key in ["pid", "ppid", "cgroup", "argv", "mounts", "keyring", "namespaces", "calls"] {
        all.remove(key);
    }
    let own = all["sid"] == all["pgid"];
    assert!(own, "each leads a session of its own");
    all.remove("sid");
    all.remove("pgid");
    // keepd locks root out for good where it is not needed; with systemd that is SecureBits=, and few write it.
    all.remove("securebits");
    // systemd tells the service about its journal, and gives it the locale of the host; keepd gives it its shell.
    let env = all["env"].as_object_mut().unwrap();
    for key in ["INVOCATION_ID", "JOURNAL_STREAM", "SYSTEMD_EXEC_PID", "LANG", "SHELL", "PWD", "OLDPWD", "_"]
    {
        env.remove(key);
    }
    // Theirs lies in a folder named after the unit.
    env.entry("CREDENTIALS_DIRECTORY").and_modify(|v| *v = Value::from("somewhere"));
    // Signals 32 and 33 are glibc's own; some test runners ignore them, and so does all that they start.
    let ignored = &mut all["status"]["SigIgn"][0];
    let mask = u64::from_str_radix(ignored.as_str().unwrap(), 16).unwrap();
    *ignored = format!("{:x}", mask & !(3 << 31)).into();
    // A pipe, or the journal's socket; both merge the two.
    let fds = all["fds"].as_object_mut().unwrap();
    assert_eq!(fds["1"], fds["2"]);
    fds.retain(|number, _| number != "1" && number != "2");
    report
}

#[test]
fn a_service_is_the_same_under_keepd_and_systemd() {
    let Some(booted) = Booted::new() else { return };
    booted.ok(&["mkdir", "-p", "/opt/t"]);
    booted.ok(&["mkdir", "-m", "777", "/tmp/out"]);
    let programs = [env!("CARGO_BIN_EXE_keepd").into(), env!("CARGO_BIN_EXE_keepctl").into(), helper()];
    for program in programs {
        fs::copy(&program, booted.path("/opt/t").join(program.file_name().unwrap())).unwrap();
    }
    booted.ok(&["sh", "-c", "echo hidden >/opt/t/secret && chmod 600 /opt/t/secret"]);
    let script = |who: &str, pair: &Pair| {
        format!(
            "({}) >/tmp/out/{}.{who}.said 2>&1; cd /; exec /opt/t/child report /tmp/out/{}.{who}",
            pair.script, pair.name, pair.name
        )
    };
    let mut config = "[daemon]\nuser = \"daemon\"\n[defaults]\nrestart = \"never\"\nuser = \"games\"\n\
                      limits = { open-files = \"1024:4096\" }\n"
        .to_owned();
    for pair in PAIRS {
        config += &format!("[service.{}]\n{}{}", pair.name, common::sh(&script("keepd", pair)), pair.keys);
    }
    fs::write(booted.path("/opt/t/keepd.toml"), config).unwrap();
    // It says READY to this systemd, which is what ends the command.
    booted.ok(&[
        "systemd-run",
        "--quiet",
        "--unit=keepd",
        "--property=Type=notify",
        "--property=Delegate=yes",
        "/opt/t/keepd",
        "--config",
        "/opt/t/keepd.toml",
    ]);
    for pair in PAIRS {
        let script = script("systemd", pair);
        let mut argv = vec!["systemd-run", "--quiet", "--wait", "--property=User=games"];
        argv.push("--property=NoNewPrivileges=yes");
        argv.push("--property=KeyringMode=private");
        let properties: Vec<String> = pair.properties.iter().map(|p| format!("--property={p}")).collect();
        argv.extend(properties.iter().map(String::as_str));
        argv.extend(["/bin/sh", "-c", &script]);
        booted.ok(&argv);
        let read = |who: &str, what: &str| {
            let path = booted.path(&format!("/tmp/out/{}.{who}{what}", pair.name));
            wait_for(&format!("{}", path.display()), SOON, || fs::read_to_string(&path).ok())
        };
        let report = |who: &str| comparable(serde_json::from_str(&read(who, "")).unwrap());
        assert_eq!(report("keepd"), report("systemd"), "{}", pair.name);
        // Landlock refuses with EACCES what a mount refuses with EROFS.
        let said = |who: &str| read(who, ".said").replace("EROFS", "EACCES");
        assert_eq!(said("keepd"), said("systemd"), "{}", pair.name);
        assert!(pair.script == "true" || !said("keepd").is_empty());
    }
    let socket = "/run/keepd/api.sock";
    booted.ok(&["/opt/t/keepctl", "--socket", socket, "shutdown"]);
    assert!(!booted.path("/run/boxed").exists() && booted.path("/var/lib/boxed").exists());
}

#[test]
fn under_systemd_a_killed_keeper_is_started_again_and_takes_its_services_over() {
    let Some(booted) = Booted::new() else { return };
    let programs = [env!("CARGO_BIN_EXE_keepd"), env!("CARGO_BIN_EXE_keepctl")];
    for program in programs.map(Path::new) {
        fs::copy(program, booted.path("/usr/bin").join(program.file_name().unwrap())).unwrap();
    }
    fs::create_dir_all(booted.path("/etc/keepd")).unwrap();
    fs::write(
        booted.path("/etc/keepd/keepd.toml"),
        "[daemon]\nuser = \"daemon\"\n[service.web]\ncommand = [\"sleep\", \"1000\"]\nuser = \"games\"\n",
    )
    .unwrap();
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/keepd.service");
    fs::copy(unit, booted.path("/etc/systemd/system/keepd.service")).unwrap();
    booted.ok(&["systemctl", "daemon-reload"]);
    booted.ok(&["systemctl", "start", "keepd"]);
    let main = || booted.ok(&["systemctl", "show", "--property=MainPID", "--value", "keepd"]);
    let status = || -> Option<Value> {
        let done = booted.run(&["keepctl", "status", "web", "--json"]);
        serde_json::from_slice(&done.stdout).ok()
    };
    let pid = |status: &Value| {
        let text = status.to_string();
        text.split("\"pid\":").nth(1)?.split(',').next()?.parse::<u32>().ok()
    };
    let web = wait_for("the service", SOON, || pid(&status()?));
    for reexec in [false, true] {
        let before = main();
        if reexec {
            booted.ok(&["systemctl", "daemon-reexec"]);
            assert_eq!(main(), before);
        }
        booted.ok(&["sh", "-c", &format!("kill -KILL {}", before.trim())]);
        wait_for("another keeper", SOON, || Some(main()).filter(|m| *m != before && m.trim() != "0"));
        let after = wait_for("the service", SOON, || pid(&status()?));
        assert_eq!(after, web, "{}", booted.ok(&["journalctl", "--no-pager", "-u", "keepd"]));
    }
    // And upgraded in place it is the same to systemd.
    let before = main();
    booted.ok(&["keepctl", "upgrade"]);
    assert_eq!((main(), pid(&status().unwrap())), (before, Some(web)));
    booted.ok(&["systemctl", "stop", "keepd"]);
    assert!(!booted.run(&["sh", "-c", &format!("kill -0 {web}")]).status.success(), "it outlives its keepd");
}
