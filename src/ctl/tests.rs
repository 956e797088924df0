//! Commands against a daemon without a machine: what they print and how they exit.

use super::{
    act,
    args::{Cli, Command},
    client::Server,
    events,
    fail::Fail,
    logs, plan, shutdown, status,
    text::Look,
};
use crate::{api::tests::World, wire};
use clap::Parser;

/// The user who may do everything, one who may look, one who may do nothing.
const ADMIN: u32 = 0;
const READER: u32 = 1001;
const STRANGER: u32 = 1002;

/// Runs a command line; (exit status, stdout or message).
async fn keepctl(server: &Server, line: &str) -> (u8, String) {
    let mut out = Vec::new();
    let look = Look::default();
    let cli = Cli::try_parse_from(std::iter::once("keepctl").chain(line.split(' '))).unwrap();
    let result = match cli.command {
        Command::Status(a) => status::run(server, &a, look, &mut out).await,
        Command::Start(a) => act::run(server, "start", &a.into(), &mut out).await,
        Command::Stop(a) => act::run(server, "stop", &a.into(), &mut out).await,
        Command::Signal(a) => act::run(server, "signal", &a.into(), &mut out).await,
        Command::Logs(a) => logs::run(server, &a, look, &mut out).await,
        Command::Events(a) => events::run(server, &a, &mut out).await,
        Command::Plan(a) => plan::plan(server, &a, look, &mut out).await,
        Command::Apply(a) => plan::apply(server, &a, look, &mut out).await,
        Command::Reopen => shutdown::reopen(server, &mut out).await,
        Command::Shutdown(a) => shutdown::run(server, &a, &mut out).await,
        other => panic!("not run here: {other:?}"),
    };
    match result {
        Ok(status) => (status, String::from_utf8(out).unwrap()),
        Err(Fail { status, message }) => (status, message),
    }
}

fn world() -> (World, Server) {
    let world = World::new();
    world.services(&[
        ("broken", "failed"),
        ("db", "running"),
        ("idle", "stopped"),
        ("web@0", "running"),
        ("web@1", "running"),
    ]);
    let server = Server::new(vec![world.listen_as(ADMIN)]);
    (world, server)
}

#[tokio::test]
async fn status_is_3_if_a_listed_service_is_not_running() {
    let (_world, server) = world();
    let (code, text) = keepctl(&server, "status").await;
    assert_eq!((code, text.lines().count()), (3, 7), "{text}");
    assert!(text.starts_with("keepd 1.2.3 running for "));
    let (code, text) = keepctl(&server, "status web d?").await;
    assert_eq!((code, text.lines().count()), (0, 4), "{text}");
    assert_eq!(keepctl(&server, "status web idle").await.0, 3);
    let (code, text) = keepctl(&server, "status we").await;
    assert_eq!((code, text.as_str()), (4, "no service is named `we`, did you mean `web`?"));
    assert_eq!(keepctl(&server, "status db x*").await.0, 4);
}

#[tokio::test]
async fn status_of_one_service_shows_it_in_full_with_its_last_lines() {
    let (world, server) = world();
    world.log("db", b"first\nlast\n");
    let (code, text) = keepctl(&server, "status db").await;
    assert_eq!(code, 0);
    assert!(text.starts_with("db\n  state       running, ready"), "{text}");
    assert!(text.ends_with("\n\nfirst\nlast\n"), "{text}");
    // One that a pattern finds is a row of the table.
    assert!(keepctl(&server, "status d*").await.1.starts_with("NAME"));
}

#[tokio::test]
async fn json_has_one_shape_whatever_is_asked_for() {
    let (_world, server) = world();
    for (line, names) in
        [("status --json web db", &["db", "web@0", "web@1"][..]), ("status db --json", &["db"])]
    {
        let (_, text) = keepctl(&server, line).await;
        let list: wire::Services = serde_json::from_str(&text).unwrap();
        assert_eq!(list.services.iter().map(|s| s.name.as_str()).collect::<Vec<_>>(), names);
    }
    let (code, text) = keepctl(&server, "start --json idle db").await;
    let results = serde_json::from_str::<wire::Results>(&text).unwrap().results;
    let seen: Vec<_> = results.iter().map(|r| (r.name.as_str(), r.outcome.as_str())).collect();
    assert_eq!((code, seen), (1, vec![("db", "done"), ("idle", "conflict")]));
}

#[tokio::test]
async fn actions_exit_by_their_outcome() {
    let (_world, server) = world();
    assert_eq!(keepctl(&server, "start db").await, (0, "db is as it is\n".into()));
    assert_eq!(keepctl(&server, "start broken").await.0, 1);
    assert_eq!(keepctl(&server, "stop idle").await.0, 1);
    assert_eq!(keepctl(&server, "start broken --no-wait").await.0, 0);
    assert_eq!(keepctl(&server, "start nothing").await.0, 4);
    let (code, text) = keepctl(&server, "start db --timeout soon").await;
    assert_eq!(code, 2);
    assert!(text.starts_with("cannot use `timeout=soon`: "), "{text}");
    assert_eq!(keepctl(&server, "signal NONE db").await.0, 2);
    assert_eq!(keepctl(&server, "signal usr1 db").await.0, 0);
}

#[tokio::test]
async fn with_an_unknown_name_nothing_is_done() {
    let (world, server) = world();
    let (code, text) = keepctl(&server, "stop db nothing").await;
    assert_eq!((code, text.as_str()), (4, "no service is named `nothing`"));
    assert!(world.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn patterns_and_all_reach_each_instance_once() {
    let (world, server) = world();
    assert_eq!(keepctl(&server, "start web@* w* db").await.0, 0);
    let mut asked = std::mem::take(&mut *world.asked.lock().unwrap());
    asked.sort();
    assert_eq!(asked, ["db", "web@0", "web@1"].map(|n| format!("Start {n} Some(600s)")));
    assert_eq!(keepctl(&server, "stop --all --no-wait").await.0, 0);
    assert_eq!(world.asked.lock().unwrap().len(), 5);
}

#[tokio::test]
async fn those_without_rights_get_77() {
    let (world, _) = world();
    let reader = Server::new(vec![world.listen_as(READER)]);
    assert_eq!(keepctl(&reader, "status db").await.0, 0);
    let (code, text) = keepctl(&reader, "stop db").await;
    assert_eq!((code, text.as_str()), (77, "user 1001 may not act, only look; [api] admins says who may"));
    let stranger = Server::new(vec![world.listen_as(STRANGER)]);
    for line in ["status", "logs db", "events", "plan", "reopen", "shutdown"] {
        assert_eq!(keepctl(&stranger, line).await.0, 77, "{line}");
    }
    assert!(world.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn plan_and_apply_have_statuses_for_scripts() {
    let (_world, server) = world();
    assert_eq!(keepctl(&server, "plan").await, (0, "+ new\n".into()));
    assert_eq!(keepctl(&server, "plan --exit-code").await.0, 2);
    let (code, text) = keepctl(&server, "apply").await;
    assert_eq!(code, 78);
    assert!(text.ends_with("nothing was changed\n\nerror: no"), "{text}");
}

#[tokio::test]
async fn one_log_is_as_it_is_and_several_are_named() {
    let (world, server) = world();
    world.log("db", b"one\ntwo\x1b[m\nno end");
    world.log("idle", b"x\n");
    assert_eq!(keepctl(&server, "logs db -n 2").await, (0, "two\x1b[m\nno end".into()));
    let (code, text) = keepctl(&server, "logs db idle -n 1").await;
    assert_eq!((code, text.as_str()), (0, "db   | no end\nidle | x\n"));
    assert_eq!(keepctl(&server, "logs nothing").await.0, 4);
}

#[tokio::test]
async fn events_are_those_that_are_still_known() {
    let (world, server) = world();
    for n in 1..=3 {
        world.event(&format!("number {n}"));
    }
    let (code, text) = keepctl(&server, "events").await;
    assert_eq!((code, text.lines().count()), (0, 3));
    let (_, text) = keepctl(&server, "events -n 1 --json").await;
    assert_eq!(serde_json::from_str::<wire::Event>(&text).unwrap().message, "number 3");
}

#[tokio::test]
async fn shutdown_waits_until_the_daemon_has_gone() {
    let world = World::new();
    let path = world.listen_as(ADMIN);
    let server = Server::new(vec![path]);
    assert_eq!(keepctl(&server, "shutdown --no-wait").await, (0, "keepd is stopping\n".into()));
    let waiting = tokio::spawn(async move { keepctl(&server, "shutdown").await });
    let mut changes = 0;
    while world.asked.lock().unwrap().len() < 2 {
        changes += 1;
        tokio::task::yield_now().await;
        assert!(changes < 1_000_000, "the wish never came");
    }
    assert!(!waiting.is_finished());
    world.hang_up();
    assert_eq!(waiting.await.unwrap(), (0, "keepd has stopped\n".into()));
}
