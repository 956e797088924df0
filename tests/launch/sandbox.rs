//! Each key of the sandbox against what somebody inside would try.

use crate::{
    Test,
    identity::identity,
    rig::{Rig, child, content, read_all, read_line, root, service},
    steps::report,
};
use keepd::{
    keeper::protocol::{News, Request},
    plan::{Capabilities, Exit, Job, ReadOnly, Reload, Sandbox, ServiceSpec, Syscalls},
    sys::landlock::Rules,
};
use serde_json::json;
use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
};

pub const TESTS: &[Test] = &[
    ("nothing_is_changed_where_nothing_is_asked", nothing_is_changed_where_nothing_is_asked),
    ("private_tmp_is_seen_by_the_service_alone", private_tmp_is_seen_by_the_service_alone),
    ("the_system_is_read_only", the_system_is_read_only),
    ("everything_is_read_only", everything_is_read_only),
    ("everything_is_read_only_for_those_too_who_can_gain_privileges", privileges_can_be_gained),
    ("homes_are_hidden", homes_are_hidden),
    ("devices_are_harmless", devices_are_harmless),
    ("the_network_is_its_own", the_network_is_its_own),
    ("all_keys_go_together", all_keys_go_together),
    ("a_place_must_be_there_and_no_link", a_place_must_be_there_and_no_link),
];

/// A folder that no key hides, with the helper in it, in which everybody may write.
struct Place(tempfile::TempDir);

impl Place {
    /// `None` without root, which is said.
    fn new(test: &str) -> Option<Place> {
        if !root() {
            println!("SKIPPED {test}: it takes root to open namespaces");
            return None;
        }
        let dir = tempfile::tempdir_in("/usr/local").unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o777)).unwrap();
        fs::copy(child(), dir.path().join("child")).unwrap();
        Some(Place(dir))
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.at(name).display().to_string()
    }

    /// A service of root's in this sandbox.
    fn service(&self, sandbox: Sandbox, verbs: &[&str]) -> ServiceSpec {
        let mut s = service("a", verbs);
        s.launch.argv[0] = self.text("child");
        s.launch.sandbox = sandbox;
        s
    }

    /// What such a service says about its attempts.
    fn said(&self, sandbox: Sandbox, verbs: &[&str]) -> String {
        let mut rig = Rig::new(vec![self.service(sandbox, verbs)]);
        let (run, _, pipes) = rig.started("a");
        let said = read_all(&pipes[0]);
        assert_eq!(rig.exited(run).0, Exit::Code(0), "{said}");
        said
    }
}

fn nothing_is_changed_where_nothing_is_asked() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("report");
    let mut rig = Rig::new(vec![service("a", &["report", file.to_str().unwrap(), "sleep"])]);
    let (_, pid, _) = rig.started("a");
    content(&file);
    for kind in ["mnt", "net", "user", "pid"] {
        let of = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/{kind}")).unwrap();
        assert_eq!(of(&pid.to_string()), of("self"), "{kind}");
    }
}

/// Its jobs are where it is, and nobody else.
fn private_tmp_is_seen_by_the_service_alone() {
    let Some(place) = Place::new("private_tmp_is_seen_by_the_service_alone") else { return };
    let mark = format!("/tmp/keepd-mark-{}", std::process::id());
    let other = mark.replace("/tmp/", "/var/tmp/");
    let sandbox = Sandbox { private_tmp: true, ..Sandbox::default() };
    let verbs = ["fail-if-exists", &mark, "9", "touch", &mark, "touch", &other, "print", "made", "sleep"];
    let mut s = place.service(sandbox, &verbs);
    let child = place.text("child");
    s.reload = Reload::Command(vec![child, "fail-unless-exists".into(), mark.clone(), "8".into()]);
    let mut rig = Rig::new(vec![s]);
    let (run, _, pipes) = rig.started("a");
    assert_eq!(read_line(&pipes[0]), "made\n");
    assert!(!Path::new(&mark).exists() && !Path::new(&other).exists());
    rig.send(&[Request::RunJob { run, job: Job::Reload }]);
    let (why, _) = rig.wait("the job's end", |n| match n {
        News::JobEnded { run: r, why, .. } if *r == run => Some(why.clone()),
        _ => None,
    });
    assert_eq!(why, "", "the job does not see the file of its service");
}

fn the_system_is_read_only() {
    let Some(place) = Place::new("the_system_is_read_only") else { return };
    fs::create_dir(place.at("mine")).unwrap();
    let mine = place.text("mine");
    let sandbox =
        Sandbox { read_only: ReadOnly::System, writable: vec![place.at("mine")], ..Sandbox::default() };
    let here = place.0.path().display().to_string();
    let all = ["/usr", &here, "/etc", "/etc/passwd", &mine, "/var/lib", "/dev/null"];
    let verbs: Vec<&str> = all.iter().flat_map(|at| ["try-write", at]).collect();
    let said = place.said(sandbox, &verbs);
    let wanted = format!(
        "/usr EROFS\n{here} EROFS\n/etc EROFS\n/etc/passwd EROFS\n{mine} ok\n/var/lib ok\n/dev/null ok\n"
    );
    assert_eq!(said, wanted);
}

fn everything_is_read_only() {
    let Some(place) = Place::new("everything_is_read_only") else { return };
    fs::create_dir(place.at("mine")).unwrap();
    let mine = place.text("mine");
    let sandbox = Sandbox {
        read_only: ReadOnly::Strict,
        writable: vec![place.at("mine")],
        private_tmp: true,
        ..Sandbox::default()
    };
    // Root's own attempts: with Landlock, mounting something else over it is no way out either.
    let wall = Rules::new().unwrap().is_some();
    let all = ["/", "/usr", "/etc/passwd", "/var/lib", &mine, "/tmp", "/dev/null", "/proc/self/comm"];
    let mut verbs: Vec<&str> = all.iter().flat_map(|at| ["try-write", at]).collect();
    if wall {
        verbs.extend(["try", "mount", "try", "umount-dev"]);
    }
    let said = place.said(sandbox, &verbs);
    // Landlock is asked before the mount is: EACCES, or EROFS where there is none.
    let said = said.replace("EROFS", "EACCES");
    let mut wanted = format!(
        "/ EACCES\n/usr EACCES\n/etc/passwd EACCES\n/var/lib EACCES\n{mine} ok\n/tmp ok\n/dev/null ok\n\
         /proc/self/comm ok\n"
    );
    if wall {
        wanted += "mount EPERM\numount-dev EPERM\n";
    }
    assert_eq!(said, wanted);
}

/// Landlock is for those who gave that up, or for the mighty: an ordinary user with set-uid programs is neither.
fn privileges_can_be_gained() {
    let test = "everything_is_read_only_for_those_too_who_can_gain_privileges";
    let Some(place) = Place::new(test) else { return };
    let mine = place.0.path().display().to_string();
    let sandbox =
        Sandbox { read_only: ReadOnly::Strict, writable: vec![mine.clone().into()], ..Sandbox::default() };
    let mut s = place.service(sandbox, &["try-write", "/var/tmp", "try-write", &mine]);
    s.launch.identity = Some(identity(65534, 65534, &[65534]));
    s.launch.no_new_privileges = false;
    let mut rig = Rig::new(vec![s]);
    let (run, _, pipes) = rig.started("a");
    let said = read_all(&pipes[0]).replace("EROFS", "EACCES");
    assert_eq!(said, format!("/var/tmp EACCES\n{mine} ok\n"));
    assert_eq!(rig.exited(run).0, Exit::Code(0));
}

fn homes_are_hidden() {
    let Some(place) = Place::new("homes_are_hidden") else { return };
    let secret = tempfile::NamedTempFile::new_in("/root").unwrap();
    let sandbox = Sandbox { hide_home: true, ..Sandbox::default() };
    let path = secret.path().to_str().unwrap();
    assert_eq!(place.said(sandbox, &["fail-if-exists", path, "9", "try-write", "/root"]), "/root EROFS\n");
    assert!(secret.path().exists());
}

fn devices_are_harmless() {
    let Some(place) = Place::new("devices_are_harmless") else { return };
    let sandbox = Sandbox { private_devices: true, ..Sandbox::default() };
    let file = place.text("report");
    let verbs = [
        "fail-if-exists",
        "/dev/kmsg",
        "9",
        "fail-if-exists",
        "/dev/mem",
        "9",
        "fail-unless-exists",
        "/dev/urandom",
        "8",
        "try-write",
        "/dev/null",
        "try-write",
        "/dev",
        "try",
        "mknod-mem",
        "report",
        &file,
    ];
    let said = place.said(sandbox, &verbs);
    assert_eq!(said, "/dev/null ok\n/dev EROFS\nmknod-mem EROFS\n");
    assert!(report(Path::new(&file))["mounts"]["/dev"].as_str().unwrap().contains("nosuid"));
    // It cannot make one elsewhere either: as somebody, its capabilities are known.
    let mut s = place.service(Sandbox { private_devices: true, ..Sandbox::default() }, &["report", &file]);
    s.launch.identity = Some(identity(0, 0, &[0]));
    let mut rig = Rig::new(vec![s]);
    let (run, _, _) = rig.started("a");
    assert_eq!(rig.exited(run).0, Exit::Code(0));
    let r = report(Path::new(&file));
    for set in ["CapBnd", "CapEff", "CapPrm"] {
        let bits = u64::from_str_radix(r["status"][set][0].as_str().unwrap(), 16).unwrap();
        assert!(bits != 0 && !Capabilities(bits).meets(Capabilities::DEVICES), "{set} {bits:x}");
    }
}

fn the_network_is_its_own() {
    let Some(place) = Place::new("the_network_is_its_own") else { return };
    let sandbox = Sandbox { private_network: true, ..Sandbox::default() };
    let file = place.text("report");
    assert_eq!(place.said(sandbox, &["try", "bind-81", "report", &file]), "bind-81 ok\n");
    assert_eq!(report(Path::new(&file))["interfaces"], json!(["lo"]));
}

fn all_keys_go_together() {
    let Some(place) = Place::new("all_keys_go_together") else { return };
    let file = place.text("report");
    let mut s = place.service(
        Sandbox {
            capabilities: Some(Capabilities::named("CAP_NET_BIND_SERVICE").unwrap()),
            syscalls: Syscalls::Service,
            private_tmp: true,
            read_only: ReadOnly::Strict,
            writable: vec![place.0.path().into()],
            hide_home: true,
            private_devices: true,
            private_network: true,
        },
        &[
            "try",
            "bind-81",
            "try",
            "setuid-0",
            "try",
            "mount",
            "try-write",
            "/tmp",
            "try-write",
            "/var",
            "report",
            &file,
        ],
    );
    s.launch.identity = Some(identity(65534, 65534, &[65534]));
    let mut rig = Rig::new(vec![s]);
    let (run, _, pipes) = rig.started("a");
    let said = read_all(&pipes[0]).replace("EROFS", "EACCES");
    assert_eq!(said, "bind-81 ok\nsetuid-0 EPERM\nmount EPERM\n/tmp ok\n/var EACCES\n");
    assert_eq!(rig.exited(run).0, Exit::Code(0));
    let r = report(Path::new(&file));
    assert_eq!(r["status"]["Seccomp"], json!(["2"]));
    assert_eq!(r["status"]["CapEff"], json!(["0000000000000400"]));
    assert_eq!(r["fds"].as_object().unwrap().keys().collect::<Vec<_>>(), ["0", "1", "2"]);
}

fn a_place_must_be_there_and_no_link() {
    let Some(place) = Place::new("a_place_must_be_there_and_no_link") else { return };
    symlink("/etc", place.at("link")).unwrap();
    for (name, why) in
        [("link", "there is a symbolic link on the way to it"), ("missing", "No such file or directory")]
    {
        let sandbox =
            Sandbox { read_only: ReadOnly::Strict, writable: vec![place.at(name)], ..Sandbox::default() };
        let sentence = format!("cannot keep {} writable: {why}", place.text(name));
        assert_eq!(Rig::new(vec![place.service(sandbox, &["sleep"])]).fails("a"), (sentence, false));
    }
}
