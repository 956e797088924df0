//! `doctor`: how much of what keepd promises this host can hold, point by point, and what would raise it. It looks at
//! the host, and asks keepd where that runs; it changes nothing.

use super::{
    args::DoctorArgs,
    client::{SOON, Server},
    fail::Fail,
};
use crate::{sys, wire::Status};
use serde::Serialize;
use std::{fs, io::Write, os::unix::fs::MetadataExt, path::Path};

/// The exit status where something is less than it could be.
const DEGRADED: u8 = 1;

/// What was found out about the host.
#[derive(Debug, Clone)]
struct Host {
    /// As in 6.18.
    kernel: (u32, u32),
    /// The controllers of the cgroup v2 that there is, or why there is none.
    controllers: Result<Vec<String>, String>,
    systemd: bool,
    /// Descriptors of another process can be copied.
    copies: bool,
    /// keepd, where it answers; and who its manager runs as.
    keepd: Option<(Status, Option<u32>)>,
}

impl Host {
    /// How a process that is no child has ended can be asked.
    fn exit_statuses(&self) -> bool {
        self.kernel >= (6, 15)
    }
}

/// One guarantee.
#[derive(Debug, Serialize, PartialEq, Eq)]
struct Point {
    name: &'static str,
    /// Held in full.
    full: bool,
    found: String,
    /// What would raise it; empty where it is held in full.
    remedy: String,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    degraded: bool,
    points: Vec<Point>,
}

pub(super) async fn run(server: &Server, args: &DoctorArgs, out: &mut impl Write) -> Result<u8, Fail> {
    let mut host = look();
    if let Ok(mut client) = server.connect().await
        && let Ok(status) = client.get::<Status>("/v1/status", SOON).await
    {
        let owner = fs::metadata(format!("/proc/{}", status.manager_pid)).ok().map(|m| m.uid());
        host.keepd = Some((status, owner));
    }
    let points = points(&host);
    let degraded = points.iter().any(|p| !p.full);
    if args.json {
        let report = Report { degraded, points };
        let text = serde_json::to_string(&report).map_err(|e| Fail::new(DEGRADED, e.to_string()))?;
        writeln!(out, "{text}")?;
    } else {
        for Point { name, full, found, remedy } in &points {
            writeln!(out, "{} {name}: {found}", if *full { "full    " } else { "degraded" })?;
            if !remedy.is_empty() {
                writeln!(out, "         to raise it: {remedy}")?;
            }
        }
    }
    Ok(if degraded { DEGRADED } else { 0 })
}

fn look() -> Host {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Host {
        kernel: version(&release),
        controllers: controllers(),
        systemd: Path::new("/run/systemd/system").exists(),
        copies: sys::identity::effective_uid() == 0 || !yama(),
        keepd: None,
    }
}

fn version(release: &str) -> (u32, u32) {
    let mut parts = release.split(|c: char| !c.is_ascii_digit()).map(|p| p.parse().unwrap_or(0));
    (parts.next().unwrap_or(0), parts.next().unwrap_or(0))
}

/// Those of the whole hierarchy: which keepd is given is told by keepd.
fn controllers() -> Result<Vec<String>, String> {
    let own = sys::cgroup::own_folder()?;
    let top = own.ancestors().filter(|dir| dir.join("cgroup.controllers").exists()).last().unwrap_or(&own);
    let text = fs::read_to_string(top.join("cgroup.controllers")).map_err(|e| e.to_string())?;
    Ok(text.split_ascii_whitespace().map(str::to_owned).collect())
}

/// Whether a process may look only into its own descendants.
fn yama() -> bool {
    fs::read_to_string("/proc/sys/kernel/yama/ptrace_scope").is_ok_and(|text| text.trim() != "0")
}

fn points(host: &Host) -> Vec<Point> {
    let (major, minor) = host.kernel;
    let (trees, controllers) = match &host.controllers {
        Ok(all) => ("a cgroup v2 for each run".to_owned(), all.clone()),
        Err(why) => (format!("processes can leave a service unseen, because {why}"), Vec::new()),
    };
    let lacking: Vec<&str> = ["memory", "pids", "cpu", "io"]
        .into_iter()
        .filter(|c| !controllers.iter().any(|have| have == c))
        .collect();
    let resources = if lacking.is_empty() {
        "all controllers are there".to_owned()
    } else {
        format!("resources that take {} cannot be set", lacking.join(", "))
    };
    let ends = if host.exit_statuses() {
        "exact after a keeper's death too"
    } else {
        "unknown for runs that outlive their keeper"
    };
    let logs = if host.copies {
        "what a killed keeper's manager holds can be taken over"
    } else {
        "what lies between pipe and file when a keeper is killed can be lost"
    };
    let again = if host.systemd {
        "systemd starts a killed keeper again"
    } else {
        "nobody is known to start a killed keeper again"
    };
    let mut all = vec![
        point(
            "kernel",
            host.kernel >= (5, 14),
            format!("Linux {major}.{minor}"),
            "Linux 5.14: a tree is killed in one step",
        ),
        point(
            "trees",
            host.controllers.is_ok(),
            trees,
            "boot with cgroup v2 (systemd.unified_cgroup_hierarchy=1), start keepd as root",
        ),
        point(
            "resources",
            lacking.is_empty(),
            resources,
            "boot with cgroup v2 alone, and Delegate=yes in the unit",
        ),
        point("exit statuses", host.exit_statuses(), ends.into(), "Linux 6.15 (PIDFD_GET_INFO)"),
        point("logs", host.copies, logs.into(), "run keepd as root, or set kernel.yama.ptrace_scope = 0"),
        point(
            "restart",
            host.systemd,
            again.into(),
            "have systemd, or whoever starts keepd, start it again when it ends",
        ),
    ];
    all.extend(of_keepd(host));
    all
}

/// What keepd says of itself.
fn of_keepd(host: &Host) -> Vec<Point> {
    let Some((status, owner)) = &host.keepd else {
        return vec![point(
            "keepd",
            false,
            "it does not answer".into(),
            "start keepd; --socket names another one",
        )];
    };
    let manager = match owner {
        Some(0) => "it runs as root",
        Some(_) => "it runs as a user of its own",
        None => "it cannot be seen from here",
    };
    let remedy = "make the user that [daemon] user names (the packages do), and restart keepd";
    let own = point("manager", owner.is_some_and(|uid| uid != 0), manager.into(), remedy);
    let said =
        status.degraded.iter().map(|why| point("keepd", false, why.clone(), "what the sentence names"));
    [own].into_iter().chain(said).collect()
}

fn point(name: &'static str, full: bool, found: String, remedy: &str) -> Point {
    let remedy = if full { String::new() } else { remedy.to_owned() };
    Point { name, full, found, remedy }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn best() -> Host {
        let status = Status { version: "1.0.0".into(), ..Status::default() };
        Host {
            kernel: (6, 15),
            controllers: Ok(["cpu", "io", "memory", "pids", "misc"].map(String::from).into()),
            systemd: true,
            copies: true,
            keepd: Some((status, Some(990))),
        }
    }

    fn degraded(host: &Host) -> Vec<&'static str> {
        let lacking: Vec<Point> = points(host).into_iter().filter(|p| !p.full).collect();
        assert!(lacking.iter().all(|p| !p.remedy.is_empty()), "{lacking:?}");
        lacking.iter().map(|p| p.name).collect()
    }

    #[test]
    fn a_host_that_lacks_something_is_told_what_and_what_would_help() {
        let none: [&str; 0] = [];
        assert_eq!(degraded(&best()), none);
        assert_eq!(degraded(&Host { kernel: (5, 10), ..best() }), ["kernel", "exit statuses"]);
        assert_eq!(
            degraded(&Host { controllers: Err("it is not mounted".into()), ..best() }),
            ["trees", "resources"]
        );
        assert_eq!(degraded(&Host { controllers: Ok(vec!["memory".into()]), ..best() }), ["resources"]);
        assert_eq!(degraded(&Host { kernel: (6, 14), ..best() }), ["exit statuses"]);
        assert_eq!(degraded(&Host { copies: false, ..best() }), ["logs"]);
        assert_eq!(degraded(&Host { systemd: false, ..best() }), ["restart"]);
        assert_eq!(degraded(&Host { keepd: None, ..best() }), ["keepd"]);
        let as_root = Some((Status::default(), Some(0)));
        assert_eq!(degraded(&Host { keepd: as_root, ..best() }), ["manager"]);
        let said = Status { degraded: vec!["one".into(), "two".into()], ..Status::default() };
        assert_eq!(degraded(&Host { keepd: Some((said, Some(1))), ..best() }), ["keepd", "keepd"]);
    }

    #[test]
    fn versions_of_kernels_are_read_whatever_follows() {
        for (text, wanted) in [("6.18.44-fc-v445\n", (6, 18)), ("5.10-rc1", (5, 10)), ("", (0, 0))] {
            assert_eq!(version(text), wanted, "{text}");
        }
    }
}
