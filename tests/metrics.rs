//! `GET /metrics` as Prometheus reads it: checked by its own tool, and against what the API says of the same services.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)]

mod common;

use common::{Daemon, LATER, service, skip, wait_for, which};
use std::{
    collections::{BTreeMap, BTreeSet},
    io::Write,
    process::{Command, Stdio},
};

const CLASSIC: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Values by what stands before them.
fn samples(text: &str) -> BTreeMap<&str, f64> {
    let lines = text.lines().filter(|l| !l.starts_with('#'));
    lines
        .map(|l| l.rsplit_once(' ').unwrap_or_else(|| panic!("{l}")))
        .map(|(k, v)| (k, v.parse().unwrap()))
        .collect()
}

fn families(text: &str) -> BTreeSet<String> {
    text.lines().filter_map(|l| Some(l.strip_prefix("# TYPE ")?.split(' ').next()?.to_owned())).collect()
}

fn metrics(d: &Daemon, accept: &str) -> (String, String) {
    let socket = d.path().join("run/api.sock");
    let done = Command::new("curl")
        .args(["-s", "-i", "-H", &format!("Accept: {accept}"), "--unix-socket"])
        .arg(socket)
        .arg("http://localhost/metrics")
        .output()
        .unwrap();
    let all = String::from_utf8(done.stdout).unwrap();
    let (head, body) = all.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{all}"));
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    let kind = head.lines().find_map(|l| l.strip_prefix("content-type: ")).unwrap();
    (kind.to_owned(), body.to_owned())
}

#[test]
fn metrics_say_what_the_api_says() {
    let services = service("web", "echo hello; exec sleep 1000", "instances = 2\n")
        + &service("idle", "exec sleep 1000", "autostart = false\n");
    let d = Daemon::start(&services);
    d.wait_running("web@0");
    d.wait_running("web@1");
    d.wait_log("web@0", "hello");
    let (code, text) = d.http("GET", "/metrics", "");
    assert_eq!(code, 200, "{text}");
    let seen = samples(&text);
    for (key, wanted) in [
        ("keepd_ready", 1.0),
        ("keepd_services{state=\"running\"}", 2.0),
        ("keepd_services{state=\"stopped\"}", 1.0),
        ("keepd_services{state=\"failed\"}", 0.0),
        ("keepd_service_state{name=\"web@0\",service=\"web\",state=\"running\"}", 1.0),
        ("keepd_service_state{name=\"web@0\",service=\"web\",state=\"stopped\"}", 0.0),
        ("keepd_service_state{name=\"idle\",service=\"idle\",state=\"stopped\"}", 1.0),
        ("keepd_service_desired_up{name=\"idle\",service=\"idle\"}", 0.0),
        ("keepd_service_ready{name=\"web@1\",service=\"web\"}", 1.0),
        ("keepd_service_restarts_total{name=\"web@1\",service=\"web\"}", 0.0),
        ("keepd_service_log_trouble{name=\"web@1\",service=\"web\"}", 0.0),
    ] {
        assert_eq!(seen.get(key), Some(&wanted), "{key}\n{text}");
    }
    let written = d.service("web@0")["log"]["bytes_written"].as_f64().unwrap();
    assert_eq!(seen["keepd_service_log_written_bytes_total{name=\"web@0\",service=\"web\"}"], written);
    let started = seen["keepd_service_start_time_seconds{name=\"web@0\",service=\"web\"}"];
    assert!(started >= seen["keepd_start_time_seconds"], "{text}");
    assert!(!text.contains("keepd_service_start_time_seconds{name=\"idle\""), "{text}");
    assert!(seen["process_open_fds"] > 3.0 && seen["process_resident_memory_bytes"] > 1e6, "{text}");
    d.shutdown();
}

#[test]
fn a_restart_is_counted() {
    let d = Daemon::start(&service("crash", "exit 3", "backoff = { delay = \"10ms\", max = \"10ms\" }\n"));
    wait_for("two restarts in the metrics", LATER, || {
        let text = d.http("GET", "/metrics", "").1;
        let seen = samples(&text);
        let of =
            |name: &str| seen.get(format!("{name}{{name=\"crash\",service=\"crash\"}}").as_str()).copied();
        (of("keepd_service_restarts_total")? >= 2.0 && of("keepd_service_consecutive_failures")? >= 2.0)
            .then_some(())
    });
    d.shutdown();
}

#[test]
fn prometheus_itself_finds_nothing_to_mend() {
    if which("curl").is_none() {
        return skip("there is no curl");
    }
    let d = Daemon::start(&service("web", "echo hello; exec sleep 1000", ""));
    d.wait_running("web");
    let (kind, classic) = metrics(&d, "*/*");
    assert_eq!(kind, CLASSIC);
    let (kind, open) = metrics(&d, "application/openmetrics-text;version=1.0.0,text/plain;q=0.5");
    assert_eq!(kind, OPEN);
    assert!(open.ends_with("\n# EOF\n") && !classic.contains("# EOF"), "{open}");
    let counters = |text: &str| families(text).iter().filter(|f| f.ends_with("_total")).count();
    assert!(counters(&classic) > 5 && counters(&open) == 0, "{open}");
    assert_eq!(families(&classic).len(), families(&open).len());
    d.shutdown();
    let Some(promtool) = which("promtool") else { return skip("there is no promtool") };
    let mut check = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    check.stdin.take().unwrap().write_all(classic.as_bytes()).unwrap();
    let done = check.wait_with_output().unwrap();
    let said = common::text(&done);
    assert!(done.status.success() && said.trim().is_empty(), "{said}\n{classic}");
}

#[test]
fn every_family_is_in_the_manual_and_the_manual_names_no_other() {
    let d = Daemon::start(&service("web", "exec sleep 1000", ""));
    d.wait_running("web");
    let told = families(&d.http("GET", "/metrics", "").1);
    d.shutdown();
    let manual = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md")).unwrap();
    let rows = manual.lines().filter_map(|l| l.strip_prefix("| `")?.split('`').next());
    let documented: BTreeSet<String> = rows.map(|r| r.split('{').next().unwrap_or(r).to_owned()).collect();
    assert_eq!(documented, told);
}

#[test]
fn alerts_fire_when_they_should_and_use_only_what_there_is() {
    let root = env!("CARGO_MANIFEST_DIR");
    let alerts = format!("{root}/config/monitoring/alerts.yml");
    let manual = std::fs::read_to_string(format!("{root}/docs/metrics.md")).unwrap();
    let rules = std::fs::read_to_string(&alerts).unwrap();
    let words = rules.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    for metric in words.filter(|w| w.starts_with("keepd_")) {
        assert!(manual.contains(&format!("| `{metric}")), "{metric} is not in docs/metrics.md");
    }
    let Some(promtool) = which("promtool") else { return skip("there is no promtool") };
    let folder = tempfile::tempdir().unwrap();
    let test = std::fs::read_to_string(format!("{root}/tests/metrics/alerts_test.yml")).unwrap();
    let file = folder.path().join("test.yml");
    std::fs::write(&file, test.replace("ALERTS", &alerts)).unwrap();
    for arguments in [vec!["check", "rules", &alerts], vec!["test", "rules", file.to_str().unwrap()]] {
        let done = Command::new(&promtool).args(&arguments).output().unwrap();
        assert!(done.status.success(), "{arguments:?}: {}", common::text(&done));
    }
}
