//! Who and what a service is: a matrix of identities compared with what the kernel says of the process, and
//! attempts to be more.

use crate::{
    Test,
    rig::{Rig, read_all, root, service},
    steps::report,
};
use keepd::{
    plan::{Capabilities, Exit, Identity, IoPriority, Sandbox, Scheduling, ServiceSpec, Syscalls},
    sys::caps,
};
use serde_json::{Value, json};
use std::{fs, os::unix::fs::PermissionsExt};

pub const TESTS: &[Test] = &[
    ("identities_are_exact", identities_are_exact),
    ("nobody_takes_root_back", nobody_takes_root_back),
    ("a_low_port_takes_one_capability", a_low_port_takes_one_capability),
    ("a_capability_that_keepd_lacks_is_not_given", a_capability_that_keepd_lacks_is_not_given),
    ("dangerous_calls_fail_and_others_do_not", dangerous_calls_fail_and_others_do_not),
    ("the_schedulers_settings_hold", the_schedulers_settings_hold),
    ("schedulers_settings_fail_by_name", schedulers_settings_fail_by_name),
    ("an_identity_that_means_nobody_is_refused", an_identity_that_means_nobody_is_refused),
];

pub fn identity(uid: u32, gid: u32, groups: &[u32]) -> Identity {
    Identity { user: format!("u{uid}"), uid, gid, groups: groups.to_vec() }
}

/// Every identity with every set of capabilities, with and without no_new_privs.
fn matrix() -> Vec<(String, Identity, Option<Capabilities>, bool)> {
    let whos = [
        identity(65534, 65534, &[65534]),
        identity(1234, 4321, &[4, 4321, 27000]),
        identity(4_294_967_294, 70000, &[70000]),
        identity(1000, 0, &[0]),
        identity(0, 0, &[0, 5]),
    ];
    let sets = [
        None,
        Some(&[][..]),
        Some(&["CAP_NET_BIND_SERVICE"][..]),
        Some(&["CAP_CHOWN", "CAP_SETUID", "CAP_SYSLOG"][..]),
    ];
    let mut out = Vec::new();
    for (n, who) in whos.iter().enumerate() {
        for (m, set) in sets.iter().enumerate() {
            // The configuration gives every ordinary user a set.
            if set.is_none() && who.uid != 0 {
                continue;
            }
            let set = set.map(|names| {
                names.iter().fold(Capabilities::default(), |s, n| s.and(Capabilities::named(n).unwrap()))
            });
            for nnp in [true, false] {
                out.push((format!("s{n}-{m}-{}", u8::from(nnp)), who.clone(), set, nnp));
            }
        }
    }
    out
}

fn identities_are_exact() {
    if !root() {
        return println!("SKIPPED identities_are_exact: it takes root to become somebody");
    }
    let dir = tempfile::tempdir().unwrap();
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
    let services = matrix().into_iter().map(|(name, who, set, nnp)| {
        let mut s = service(&name, &["report", dir.path().join(&name).to_str().unwrap()]);
        s.launch.identity = Some(who);
        s.launch.sandbox.capabilities = set;
        s.launch.no_new_privileges = nnp;
        s
    });
    let mut rig = Rig::new(services.collect());
    let held = caps::bounding();
    let mut keyrings = Vec::new();
    for (name, who, set, nnp) in matrix() {
        let (run, _, _) = rig.started(&name);
        assert_eq!(rig.exited(run).0, Exit::Code(0), "{name}");
        let all = report(&dir.path().join(&name));
        let status = &all["status"];
        let four = |id: u32| json!(vec![id.to_string(); 4]);
        assert_eq!(status["Uid"], four(who.uid), "{name}");
        assert_eq!(status["Gid"], four(who.gid), "{name}");
        let groups: Vec<String> = who.groups.iter().map(u32::to_string).collect();
        assert_eq!(status["Groups"], json!(groups), "{name}");
        assert_eq!(status["NoNewPrivs"], json!([u8::from(nnp).to_string()]), "{name}");
        let mask = |bits: u64| json!([format!("{bits:016x}")]);
        let whole = set.map_or(held, |s| s.0);
        let ambient = if who.uid == 0 { 0 } else { whole };
        for (field, wanted) in [
            ("CapInh", ambient),
            ("CapPrm", whole),
            ("CapEff", whole),
            ("CapBnd", whole),
            ("CapAmb", ambient),
        ] {
            assert_eq!(status[field], mask(wanted), "{name} {field}");
        }
        let locked = who.uid != 0 && nnp;
        assert_eq!(all["securebits"], json!(if locked { 3 } else { 0 }), "{name}");
        assert_eq!(all["oom_score"], "0");
        keyrings.push(all["keyring"].clone());
    }
    // Where the kernel has keyrings, each service has another one.
    if keyrings[0].as_i64().unwrap() > 0 {
        let count = keyrings.len();
        keyrings.sort_by_key(Value::as_i64);
        keyrings.dedup();
        assert_eq!(keyrings.len(), count);
    }
}

/// A service that makes these attempts as nobody, and its output.
fn attempts(sandbox: Sandbox, no_new_privileges: bool, names: &[&str]) -> String {
    let verbs: Vec<&str> = names.iter().flat_map(|n| ["try", n]).collect();
    let mut s = service("a", &verbs);
    s.launch.identity = Some(identity(65534, 65534, &[65534]));
    s.launch.sandbox = sandbox;
    s.launch.no_new_privileges = no_new_privileges;
    let (_, _, pipes) = Rig::new(vec![s]).started("a");
    read_all(&pipes[0])
}

fn only(name: &str) -> Sandbox {
    Sandbox { capabilities: Some(Capabilities::named(name).unwrap()), ..Sandbox::default() }
}

fn none() -> Sandbox {
    Sandbox { capabilities: Some(Capabilities::default()), ..Sandbox::default() }
}

fn nobody_takes_root_back() {
    if !root() {
        return println!("SKIPPED nobody_takes_root_back: it takes root to become somebody");
    }
    for nnp in [true, false] {
        let out = attempts(none(), nnp, &["setuid-0", "setgid-0", "setgroups", "capset", "ptrace-parent"]);
        let refused = "setuid-0 EPERM\nsetgid-0 EPERM\nsetgroups EPERM\ncapset EPERM\nptrace-parent EPERM\n";
        assert_eq!(out, refused);
    }
    // Where it is asked for, it is given, and no more.
    let out = attempts(only("CAP_SETUID"), true, &["setgid-0", "setgroups", "capset", "setuid-0"]);
    assert_eq!(out, "setgid-0 EPERM\nsetgroups EPERM\ncapset EPERM\nsetuid-0 ok\n");
}

fn a_low_port_takes_one_capability() {
    if !root() {
        return println!("SKIPPED a_low_port_takes_one_capability: it takes root to give it");
    }
    assert_eq!(attempts(none(), true, &["bind-81"]), "bind-81 EACCES\n");
    assert_eq!(attempts(only("CAP_NET_BIND_SERVICE"), true, &["bind-81"]), "bind-81 ok\n");
}

/// As root, who could otherwise make all of these.
fn dangerous_calls_fail_and_others_do_not() {
    let calls = ["init_module", "kexec_load", "reboot", "swapoff", "clock_settime"];
    let old =
        if cfg!(target_arch = "x86_64") { &["iopl", "ioperm", "uselib", "x32-getpid"][..] } else { &[] };
    let all: Vec<&str> = calls.iter().chain(old).copied().chain(["bpf", "no-such-call", "getpid"]).collect();
    let made = |syscalls: Syscalls, bpf: &str| {
        let verbs: Vec<&str> = all.iter().flat_map(|n| ["try", n]).collect();
        let mut s = service("a", &verbs);
        s.launch.sandbox.syscalls = syscalls;
        let (_, _, pipes) = Rig::new(vec![s]).started("a");
        let out = read_all(&pipes[0]);
        let answers: Vec<(&str, &str)> = out.lines().map(|l| l.split_once(' ').unwrap()).collect();
        assert_eq!(answers.len(), all.len(), "{out}");
        for (name, answer) in answers {
            match name {
                "getpid" => assert_eq!(answer, "ok"),
                "no-such-call" => assert_eq!(answer, "ENOSYS"),
                "bpf" => assert_eq!(answer, bpf),
                // Without the filter each fails in another way, or not at all.
                name => assert_eq!(answer, "EPERM", "{name} under {}", syscalls.as_str()),
            }
        }
    };
    made(Syscalls::Default, "EINVAL");
    made(Syscalls::Service, "EPERM");
}

fn a_capability_that_keepd_lacks_is_not_given() {
    let mut s = service("a", &["sleep"]);
    s.launch.identity = Some(identity(65534, 65534, &[65534]));
    s.launch.sandbox.capabilities = Some(Capabilities(1 << 62));
    let why = "cannot take on the capabilities of user u65534: keepd itself does not have CAP_62";
    assert_eq!(Rig::new(vec![s]).fails("a"), (why.into(), false));
}

fn the_schedulers_settings_hold() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("report");
    let mut s = service("a", &["report", file.to_str().unwrap()]);
    s.launch.scheduling = Scheduling {
        nice: Some(7),
        io: Some(IoPriority::parse("best-effort:6").unwrap()),
        oom_score_adjust: Some(321),
        cpus: vec![0],
    };
    let mut rig = Rig::new(vec![s]);
    let (run, _, _) = rig.started("a");
    let r = report(&file);
    assert_eq!(rig.exited(run).0, Exit::Code(0));
    assert_eq!((&r["nice"], &r["oom_score"]), (&json!(7), &json!("321")));
    assert_eq!(r["io_priority"], json!(2 << 13 | 6));
    assert_eq!(r["status"]["Cpus_allowed_list"], json!(["0"]));
}

fn schedulers_settings_fail_by_name() {
    let with = |name: &str, scheduling: Scheduling| {
        let mut s = service(name, &["sleep"]);
        s.launch.scheduling = scheduling;
        s
    };
    let services: Vec<ServiceSpec> = vec![
        with("cpus", Scheduling { cpus: vec![0, 1000], ..Scheduling::default() }),
        with("far", Scheduling { cpus: vec![8000], ..Scheduling::default() }),
        with("oom", Scheduling { oom_score_adjust: Some(2000), ..Scheduling::default() }),
    ];
    let mut rig = Rig::new(services);
    for (name, why) in [
        ("cpus", "cannot keep to the CPUs 0, 1000: the host does not let it have all of them"),
        ("far", "cannot keep to the CPUs 8000: the host does not let it have all of them"),
        ("oom", "cannot set oom-score-adjust to 2000: Invalid argument"),
    ] {
        assert_eq!(rig.fails(name), (why.into(), false), "{name}");
    }
}

fn an_identity_that_means_nobody_is_refused() {
    let mut uid = service("uid", &["sleep"]);
    uid.launch.identity = Some(identity(u32::MAX, 65534, &[65534]));
    let mut gid = service("gid", &["sleep"]);
    gid.launch.identity = Some(identity(65534, u32::MAX, &[65534]));
    let mut rig = Rig::new(vec![gid, uid]);
    let (uid, gid) = (rig.fails("uid").0, rig.fails("gid").0);
    if root() {
        assert_eq!(uid, "cannot become user u4294967295: Invalid argument");
        assert_eq!(gid, "cannot take on the group of user u65534: Invalid argument");
    } else {
        // An ordinary user cannot even begin.
        assert_eq!(uid, "cannot take on the groups of user u4294967295: Operation not permitted");
        assert_eq!(gid, "cannot take on the groups of user u65534: Operation not permitted");
    }
}
