//! Dossiers: what is known of an end that nobody asked for, through the real daemon.
#![allow(clippy::unwrap_used)]

mod common;

use common::{Daemon, LATER, Setup, service, signal, wait_for};
use nix::sys::signal::Signal;
use serde_json::Value;

const AT_ONCE: &str = "backoff = { delay = \"1ms\", max = \"1ms\", jitter = 0.0 }\n";

/// Waits for a dossier that fits; gives it.
fn dossier(d: &Daemon, name: &str, fits: impl Fn(&Value) -> bool) -> Value {
    wait_for(&format!("a dossier of {name}"), LATER, || {
        let (code, body) = d.try_get(&format!("/v1/services/{name}/why")).ok()?;
        let why: Value = (code == 200).then(|| serde_json::from_str(&body).ok())??;
        why["dossiers"].as_array()?.iter().find(|d| fits(d)).cloned()
    })
}

fn texts(lines: &Value) -> Vec<&str> {
    lines.as_array().unwrap().iter().map(|l| l.as_str().unwrap()).collect()
}

#[test]
fn the_dossier_of_a_crash_loop_has_the_last_lines_and_what_happens_next() {
    let more = "backoff = { delay = \"1ms\", max = \"1ms\", jitter = 0.0 }\n\
                breaker = { failures = 3, within = \"1m\", retry-every = \"5m\" }\n\
                logs = { stderr = \"separate\" }\n";
    let script = "n=$(cat runs | wc -l); echo >> runs; i=0; while [ $i -lt 30 ]; do i=$((i+1)); echo run $n line $i; \
                  done; echo trouble >&2; exit 3";
    let d = Daemon::start(&service("crashing", &format!("touch runs; {script}"), more));
    d.wait_state("crashing", "failed");
    let last = dossier(&d, "crashing", |d| d["consecutive_failures"] == 3);
    let cause = last["cause"].as_str().unwrap();
    assert!(cause.starts_with("crashing exited with status 3 after "), "{cause}");
    assert_eq!((&last["kind"], &last["exit"]["code"]), (&"exit".into(), &3.into()));
    let lines = texts(&last["stdout"]);
    assert_eq!((lines.len(), lines[0], lines[19]), (20, "run 2 line 11", "run 2 line 30"));
    assert_eq!(texts(&last["stderr"]).last(), Some(&"trouble"));
    assert!(last["next"]["what"].as_str().unwrap().starts_with("crash loop: 3 failures within 1m"), "{last}");
    assert!(last["next"]["at"].is_string());
    assert!(last["usage"]["max_rss_bytes"].as_u64().unwrap() > 0);
    let first = dossier(&d, "crashing", |d| d["consecutive_failures"] == 1);
    assert!(first["next"]["what"].as_str().unwrap().starts_with("it is started again after a pause of 1ms"));

    let text = d.ctl_ok(&["why", "crashing"]);
    assert!(text.contains("crashing is failed") && text.contains("run 2 line 30"), "{text}");
    assert!(text.contains("2 more; show them with: keepctl why crashing -n 3"), "{text}");
    let json: Value = serde_json::from_str(&d.ctl_ok(&["why", "crashing", "--json"])).unwrap();
    assert_eq!(json["dossiers"].as_array().unwrap().len(), 3);
    d.ctl_fails(4, &["why", "nobody"]);
    d.shutdown();
}

#[test]
fn a_launch_that_fails_and_a_missing_dependency_are_explained() {
    let services = service("db", "exec sleep 1000", AT_ONCE)
        + &service("web", "exec sleep 1000", "requires = [\"db\"]\nrestart = \"never\"\n")
        + "[service.gone]\ncommand = [\"/nowhere/at/all\"]\nrestart = \"never\"\n";
    let d = Daemon::start(&services);
    let gone = dossier(&d, "gone", |_| true);
    assert!(gone["cause"].as_str().unwrap().contains("/nowhere/at/all"), "{gone}");
    assert_eq!((&gone["kind"], &gone["exit"]), (&"launch_failed".into(), &Value::Null));
    assert_eq!(gone["next"]["what"], "nothing, until somebody starts it: keepctl start gone");
    signal(d.wait_running("web"), Signal::SIGKILL);
    let web = dossier(&d, "web", |_| true);
    let dependencies = &web["dependencies"][0];
    assert_eq!((&dependencies["name"], &dependencies["relation"]), (&"db".into(), &"requires".into()));
    assert_eq!(dependencies["ready"], true);
    assert_eq!(web["next"]["what"], "it stays down: restart is \"never\"");
    let well = d.get("/v1/services/db/why");
    assert_eq!(well["dossiers"], serde_json::json!([]));
    d.shutdown();
}

#[test]
fn what_an_apply_changed_since_the_last_good_run_is_told() {
    let good = service(
        "web",
        "exec sleep 1000",
        "backoff = { reset-after = \"1ms\", delay = \"40s\", max = \"40s\" }\n",
    );
    let d = Daemon::start(&good);
    signal(d.wait_running("web"), Signal::SIGKILL);
    let first = dossier(&d, "web", |_| true);
    assert_eq!(
        (&first["good_generation"], &first["changes"]),
        (&first["generation"], &serde_json::json!([]))
    );
    d.write_config(&service(
        "web",
        "exit 1",
        "backoff = { reset-after = \"1m\", delay = \"40s\", max = \"40s\" }\n",
    ));
    d.ctl_ok(&["apply", "--no-wait"]);
    d.ctl(&["start", "web"]);
    let second = dossier(&d, "web", |d| d["exit"]["code"] == 1);
    let paths: Vec<&str> = second["changes"][0]["fields"]
        .as_array()
        .unwrap()
        .iter()
        .map(|f| f["path"].as_str().unwrap())
        .collect();
    assert!(paths.contains(&"launch.argv"), "{second}");
    assert_eq!(second["good_generation"], first["generation"]);
    d.shutdown();
}

/// War story 4: which processes died while nobody looked, and how?
#[test]
fn a_crash_while_the_manager_is_dead_has_its_dossier() {
    let d = Daemon::start(&service("web", "echo here I am; exec sleep 1000", "restart = \"never\"\n"));
    let web = d.wait_running("web");
    d.wait_log("web", "here I am");
    let manager = d.manager();
    signal(manager, Signal::SIGSTOP);
    signal(web, Signal::SIGABRT);
    signal(manager, Signal::SIGKILL);
    let dossier = dossier(&d, "web", |_| true);
    assert_eq!(dossier["exit"]["signal"], "SIGABRT");
    assert_eq!(texts(&dossier["stdout"]), ["here I am"]);
    // It is written once, and is there for the manager after that, too.
    signal(d.manager(), Signal::SIGKILL);
    wait_for("the next manager", LATER, || {
        d.try_get("/v1/status").is_ok_and(|(code, _)| code == 200).then_some(())
    });
    assert_eq!(d.get("/v1/services/web/why")["dossiers"].as_array().unwrap().len(), 1);
    d.shutdown();
}

#[test]
fn dossiers_outlive_keepd() {
    let mut d =
        Setup { services: &service("web", "exit 7", "restart = \"never\"\n"), ..Setup::default() }.start();
    dossier(&d, "web", |d| d["exit"]["code"] == 7);
    d.ctl_ok(&["shutdown"]);
    d.wait_exit(LATER);
    d.write_config(&service("web", "exit 7", "autostart = false\n"));
    d.launch();
    d.await_api();
    assert_eq!(d.get("/v1/services/web/why")["dossiers"][0]["exit"]["code"], 7);
    d.shutdown();
}
