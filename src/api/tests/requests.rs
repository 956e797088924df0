//! What is asked, by whom, and what is answered.

use super::*;

#[tokio::test]
async fn each_route_answers_those_who_may_and_nobody_else() {
    let world = World::new();
    world.services(&[("web", "running")]);
    world.log("web", b"hello\n");
    for (route, target, body) in requests() {
        world.call(STRANGER, route.method, &target, body).await.problem(403);
        let reader = world.call(READER, route.method, &target, body).await;
        if route.needs == Role::Admin {
            reader.problem(403);
        } else {
            assert!(reader.status.is_success(), "{target}: {:?}", reader.body);
        }
    }
    assert_eq!(*world.asked.lock().unwrap(), ["Plan false None"], "a call without rights reached the actor");
    for (route, target, body) in requests() {
        let admin = world.call(ADMIN, route.method, &target, body).await;
        // This world's configuration is, and nothing else is installed.
        let broken = target.ends_with("apply") || target.ends_with("upgrade");
        assert!(admin.status.is_success() || broken, "{target}: {:?}", admin.body);
    }
}

#[tokio::test]
async fn a_stranger_learns_nothing_of_what_exists() {
    let world = World::new();
    for target in ["/v1/services/web", "/v1/nothing", "/healthz", "/v1/status?x=y"] {
        for method in ["GET", "PUT"] {
            let p = world.call(STRANGER, method, target, "").await.problem(403);
            assert_eq!(p.detail, "user 1002 may not use this API; [api] readers or admins says who may");
        }
    }
}

#[tokio::test]
async fn what_is_not_in_the_table_is_refused_as_a_problem() {
    let world = World::new();
    world.services(&[("web", "running")]);
    let wrong = world.call(ADMIN, "DELETE", "/v1/services/web/stop", "").await;
    assert_eq!((wrong.problem(405).status, wrong.headers["allow"].to_str().unwrap()), (405, "POST"));
    let wrong = world.post("/v1/services", "").await;
    assert_eq!((wrong.problem(405).status, wrong.headers["allow"].to_str().unwrap()), (405, "GET, HEAD"));
    world.get("/v1/services/web/nothing").await.problem(404);
    world.get("/").await.problem(404);
    let p = world.get("/v1/status?sort=name").await.problem(422);
    assert_eq!(p.detail, "cannot use the parameter `sort`: this call has none");
    let p = world.post("/v1/services/web/start?wiat=1", "").await.problem(422);
    assert!(p.detail.ends_with("this call knows wait, timeout"), "{}", p.detail);
    assert!(world.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn an_action_is_answered_with_its_outcome() {
    let world = World::new();
    world.services(&[
        ("web", "running"),
        ("broken", "failed"),
        ("idle", "stopped"),
        ("w@0", "x"),
        ("w@1", "x"),
    ]);
    let outcomes =
        |a: &Answer| a.json::<wire::Results>().results.into_iter().map(|r| r.outcome).collect::<Vec<_>>();
    let done = world.post("/v1/services/web/restart", "").await;
    assert_eq!((done.status.as_u16(), outcomes(&done)), (200, vec!["done".into()]));
    let failed = world.post("/v1/services/broken/start?timeout=90s", "").await;
    assert_eq!((failed.status.as_u16(), outcomes(&failed)), (200, vec!["failed".into()]));
    let accepted = world.post("/v1/services/w/stop?wait=false", "").await;
    assert_eq!((accepted.status.as_u16(), outcomes(&accepted).len()), (202, 2));
    let p = world.post("/v1/services/idle/reload", "").await.problem(409);
    assert_eq!((p.detail.as_str(), p.results[0].outcome.as_str()), ("idle is as it is", "conflict"));
    let p = world.post("/v1/services/wbe/start", "").await.problem(404);
    assert_eq!(p.detail, "no service is named `wbe`, did you mean `web`?");
    assert_eq!(
        world.post("/v1/services/zzzzzzzz/start", "").await.problem(404).detail,
        "no service is named `zzzzzzzz`"
    );
    let asked =
        ["Restart web Some(60s)", "Start broken Some(90s)", "Stop w@0 w@1 None", "Reload idle Some(60s)"];
    assert_eq!(*world.asked.lock().unwrap(), asked);
}

#[tokio::test]
async fn a_signal_is_named_in_the_body() {
    let world = World::new();
    world.services(&[("web", "running")]);
    for text in ["SIGHUP", "hup", "1"] {
        let body = format!("{{\"signal\":\"{text}\"}}");
        assert_eq!(world.post("/v1/services/web/signal", &body).await.status, 200);
    }
    let hup = format!("{:?} web Some(60s)", Action::Signal(1));
    assert_eq!(*world.asked.lock().unwrap(), [hup.clone(), hup.clone(), hup]);
    for body in ["", "{}", "[]", r#"{"signal":1}"#, r#"{"signal":"NO"}"#, r#"{"signal":"HUP","x":1}"#] {
        let p = world.post("/v1/services/web/signal", body).await.problem(422);
        assert!(p.detail.starts_with("cannot tell which signal to send: "), "{}", p.detail);
    }
}

#[tokio::test]
async fn reads_never_wait_for_the_actor() {
    let world = World::new();
    world.services(&[("web", "running")]);
    world.actor.abort();
    assert_eq!(world.get("/v1/status").await.json::<wire::Status>().version, "1.2.3");
    assert_eq!(world.get("/v1/services/web").await.json::<wire::Service>().name, "web");
    let list = world.get("/v1/services").await.json::<wire::Services>();
    assert_eq!(list.services.len(), 1);
    // What needs it is refused once it has ended.
    while world.context.handle.alive() {
        tokio::task::yield_now().await;
    }
    world.post("/v1/services/web/start", "").await.problem(503);
    world.get("/healthz").await.problem(503);
}

#[tokio::test]
async fn health_and_readiness_are_two_things() {
    let world = World::new();
    assert_eq!(world.get("/healthz").await.json::<wire::Condition>().state, "alive");
    world.get("/readyz").await.problem(503);
    world.services(&[]);
    assert_eq!(world.get("/readyz").await.json::<wire::Condition>().state, "ready");
    assert_eq!(world.get("/v1/services").await.json::<wire::Services>(), wire::Services::default());
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let world = World::new();
    let get = world.get("/v1/services").await;
    let head = world.call(ADMIN, "HEAD", "/v1/services", "").await;
    assert_eq!((head.status.as_u16(), head.body.len()), (200, 0));
    assert_eq!(head.headers["content-length"], get.headers["content-length"]);
}

#[tokio::test]
async fn a_broken_configuration_is_told_with_every_error() {
    let world = World::new();
    let p = world.post("/v1/apply?timeout=5s", "").await.problem(422);
    assert_eq!((p.diagnostics.len(), p.diagnostics[0].rendered.as_str()), (1, "error: no"));
    assert_eq!(world.get("/v1/plan").await.json::<wire::PlanReport>().added, ["new"]);
    assert_eq!(*world.asked.lock().unwrap(), ["Plan true Some(5s)", "Plan false None"]);
}

#[tokio::test]
async fn log_files_are_reopened_before_the_answer() {
    let world = World::new();
    assert_eq!(world.post("/v1/reopen", "").await.json::<wire::Condition>().state, "reopened");
    world.post("/v1/reopen?now=true", "").await.problem(422);
}

#[tokio::test]
async fn an_upgrade_is_answered_only_where_there_is_none() {
    let world = World::new();
    let detail = world.post("/v1/upgrade", "").await.problem(409).detail;
    assert!(detail.contains("cannot upgrade: it is a dream; keepd goes on"), "{detail}");
    world.post("/v1/upgrade?force=true", "").await.problem(422);
}

#[tokio::test]
async fn shutdown_is_accepted_and_passed_on() {
    let world = World::new();
    assert_eq!(world.post("/v1/shutdown", "").await.status, 202);
    assert_eq!(world.post("/v1/shutdown?force=true", "").await.json::<wire::Condition>().state, "stopping");
    world.post("/v1/shutdown?force=yes", "").await.problem(422);
    tokio::task::yield_now().await;
    assert_eq!(*world.asked.lock().unwrap(), ["Shutdown false", "Shutdown true"]);
}

#[tokio::test]
async fn a_log_is_text_of_one_instance() {
    let world = World::new();
    world.services(&[("web@0", "running"), ("web@1", "running"), ("db", "running")]);
    world.log("db", b"one\ntwo\nthree\n");
    let log = world.get("/v1/services/db/logs?lines=2").await;
    assert_eq!(
        (&log.body[..], log.headers["content-type"].to_str().unwrap()),
        (&b"two\nthree\n"[..], "text/plain")
    );
    let p = world.get("/v1/services/web/logs").await.problem(422);
    assert_eq!(p.detail, "`web` has 2 instances, this call takes one: web@0, web@1");
    world.get("/v1/services/web").await.problem(422);
    world.get("/v1/services/db/logs?stream=both").await.problem(422);
    world.get("/v1/services/db/logs?lines=1000001").await.problem(422);
    world.get("/v1/services/none/logs").await.problem(404);
}

#[tokio::test]
async fn events_resume_where_the_reader_was() {
    let world = World::new();
    for message in ["one", "two", "three"] {
        world.event(message);
    }
    let all = world.get("/v1/events?follow=false").await;
    assert_eq!(all.headers["content-type"], "text/event-stream");
    assert_eq!(all.body.windows(4).filter(|w| w == b"id: ").count(), 3);

    let resumed = Request::get("/v1/events").header("last-event-id", "2").body(Full::default()).unwrap();
    let mut stream = world.send(READER, resumed).await.into_body();
    let mut seen = String::new();
    let mut until = async |text: &str| {
        while !seen.contains(text) {
            let frame = timeout(DEADLINE, stream.frame()).await.unwrap().unwrap().unwrap();
            seen += std::str::from_utf8(frame.data_ref().unwrap()).unwrap();
        }
    };
    until("three").await;
    world.event("four");
    until("four").await;
    assert!(seen.starts_with("id: 3\nevent: state\ndata: {\"id\":3,"), "{seen}");
    assert_eq!(seen.matches("id: ").count(), 2);

    let broken = Request::get("/v1/events").header("last-event-id", "x").body(Full::default()).unwrap();
    Answer::of(world.send(READER, broken).await).await.problem(422);
}

#[tokio::test]
async fn without_a_position_the_stream_begins_now() {
    let world = World::new();
    world.event("before");
    let mut stream =
        world.send(ADMIN, Request::get("/v1/events").body(Full::default()).unwrap()).await.into_body();
    world.event("after");
    let frame = timeout(DEADLINE, stream.frame()).await.unwrap().unwrap().unwrap();
    assert!(frame.data_ref().unwrap().starts_with(b"id: 2\n"));
}
