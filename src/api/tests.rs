//! The API over real sockets, with an actor that answers by the name of the service and callers of any identity.

use super::{
    Rights,
    accept::{Context, Limits, accept, converse},
    route::{ROUTES, Role},
};
use crate::{
    logs::Engine,
    manager::{
        Action, Handle, Refusal,
        events::EventLog,
        handle::Ask,
        snapshot::{Now, Snapshot, View},
    },
    plan::Principal,
    sys::peer::Peer,
    wire,
};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response, StatusCode, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{UnixListener, UnixStream},
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

/// Nothing here takes so long; it only ends a test that would hang.
const DEADLINE: Duration = Duration::from_secs(20);
const PATIENT: Limits = Limits {
    connections: 64,
    reserved: 8,
    strangers: 8,
    head: DEADLINE,
    body: DEADLINE,
    stall: DEADLINE,
    pause: Duration::from_millis(1),
};
const ADMIN: u32 = 0;
const READER: u32 = 1001;
const STRANGER: u32 = 1002;

/// A daemon without a machine.
pub(crate) struct World {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) events: Arc<EventLog>,
    pub(crate) snapshot: watch::Sender<Arc<Snapshot>>,
    /// What has reached the actor.
    pub(crate) asked: Arc<Mutex<Vec<String>>>,
    /// Calls that `slow` services keep waiting.
    pub(crate) kept: Arc<Mutex<Vec<oneshot::Sender<Vec<wire::ActionResult>>>>>,
    actor: tokio::task::JoinHandle<()>,
    listeners: Mutex<Vec<tokio::task::JoinHandle<()>>>,
    context: Arc<Context>,
}

impl World {
    pub(crate) fn new() -> World {
        World::with(PATIENT)
    }

    fn with(limits: Limits) -> World {
        let dir = tempfile::tempdir().unwrap();
        let events = Arc::new(EventLog::new(1));
        let (snapshot, seen) = watch::channel(Arc::default());
        let rights = Rights { own_uid: ADMIN, admins: Vec::new(), readers: vec![Principal::Uid(READER)] };
        let (asks, incoming) = mpsc::channel(4);
        let (asked, kept) = (Arc::default(), Arc::default());
        let actor = tokio::spawn(act(incoming, Arc::clone(&asked), Arc::clone(&kept)));
        let handle = Handle::new(asks, seen, events.clone(), Arc::new(Engine::start(|_| {}).unwrap()));
        let context = Arc::new(Context { handle, rights: Arc::new(rights), limits });
        World { dir, events, snapshot, asked, kept, actor, listeners: Mutex::default(), context }
    }

    /// Publishes these services: `(name, state)`.
    pub(crate) fn services(&self, list: &[(&str, &'static str)]) {
        let view = |(name, state): &(&str, &'static str)| {
            let service = name.split('@').next().unwrap();
            let log_dir = self.dir.path().join(name);
            let base = wire::Service {
                name: (*name).into(),
                service: service.into(),
                log: wire::Log { file: Some("current".into()), ..wire::Log::default() },
                ..wire::Service::default()
            };
            let now = Now { state, ready: *state == "running", ..Now::default() };
            Arc::new(View { base: base.into(), now, log_dir, log: Some(Arc::default()), ..View::default() })
        };
        let mut services: Vec<Arc<View>> = list.iter().map(view).collect();
        services.sort_by(|a, b| a.base.name.cmp(&b.base.name));
        let status =
            wire::Status { version: "1.2.3".into(), state: "running".into(), ..wire::Status::default() };
        self.snapshot.send_replace(Arc::new(Snapshot {
            status,
            ready: true,
            services: services.into_iter().collect(),
            ..Snapshot::default()
        }));
    }

    pub(crate) fn log(&self, name: &str, text: &[u8]) {
        std::fs::create_dir_all(self.dir.path().join(name)).unwrap();
        std::fs::write(self.dir.path().join(name).join("current"), text).unwrap();
    }

    pub(crate) fn event(&self, message: &str) {
        let event = wire::Event { kind: "state".into(), message: message.into(), ..wire::Event::default() };
        self.events.push(event);
    }

    /// A connection of this user.
    fn connect(&self, uid: u32) -> UnixStream {
        let (ours, theirs) = UnixStream::pair().unwrap();
        tokio::spawn(converse(theirs, peer(uid), self.context.clone()));
        ours
    }

    /// A socket on which every caller is this user.
    pub(crate) fn listen_as(&self, uid: u32) -> PathBuf {
        let path = self.dir.path().join(format!("{uid}.sock"));
        let listener = UnixListener::from_std(super::bind(&path).unwrap()).unwrap();
        let context = self.context.clone();
        let served = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(converse(stream, peer(uid), context.clone()));
            }
        });
        self.listeners.lock().unwrap().push(served);
        path
    }

    /// Ends the listeners and their connections, as the end of the daemon would.
    pub(crate) fn hang_up(&self) {
        self.listeners.lock().unwrap().iter().for_each(tokio::task::JoinHandle::abort);
    }

    async fn call(&self, uid: u32, method: &str, target: &str, body: &str) -> Answer {
        let request = Request::builder().method(method).uri(target).header("host", "x");
        let request = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).unwrap();
        Answer::of(self.send(uid, request).await).await
    }

    async fn get(&self, target: &str) -> Answer {
        self.call(ADMIN, "GET", target, "").await
    }

    async fn post(&self, target: &str, body: &str) -> Answer {
        self.call(ADMIN, "POST", target, body).await
    }

    async fn send(&self, uid: u32, request: Request<Full<Bytes>>) -> Response<Incoming> {
        let (mut sender, connection) = http1::handshake(TokioIo::new(self.connect(uid))).await.unwrap();
        tokio::spawn(connection);
        timeout(DEADLINE, sender.send_request(request)).await.unwrap().unwrap()
    }
}

fn peer(uid: u32) -> Peer {
    Peer { pid: 1, uid, gid: uid, groups: vec![uid] }
}

/// Answers by name: `broken` fails, `idle` conflicts, `slow` never answers, all others get there.
async fn act(
    mut incoming: mpsc::Receiver<Ask>,
    asked: Arc<Mutex<Vec<String>>>,
    kept: Arc<Mutex<Vec<oneshot::Sender<Vec<wire::ActionResult>>>>>,
) {
    while let Some(ask) = incoming.recv().await {
        match ask {
            Ask::Act { names, action, wait, reply } => {
                let list: Vec<&str> = names.iter().map(|n| n.as_str()).collect();
                asked.lock().unwrap().push(format!("{action:?} {} {wait:?}", list.join(" ")));
                let outcome = |n: &str| match n {
                    _ if wait.is_none() => "accepted",
                    "broken" => "failed",
                    "idle" => "conflict",
                    _ => "done",
                };
                let result = |n: &&str| wire::ActionResult {
                    name: (*n).into(),
                    outcome: outcome(n).into(),
                    message: format!("{n} is as it is"),
                };
                if list.contains(&"slow") {
                    kept.lock().unwrap().push(reply);
                } else {
                    drop(reply.send(list.iter().map(result).collect()));
                }
            }
            Ask::Plan { apply, wait, reply } => {
                asked.lock().unwrap().push(format!("Plan {apply} {wait:?}"));
                let error = wire::Diagnostic { rendered: "error: no".into(), ..wire::Diagnostic::default() };
                let report = wire::PlanReport { added: vec!["new".into()], ..wire::PlanReport::default() };
                drop(reply.send(if apply { Err(Refusal::Configuration(vec![error])) } else { Ok(report) }));
            }
            Ask::Upgrade { reply } => drop(reply.send("it is a dream; keepd goes on".into())),
            Ask::Shutdown { force } => asked.lock().unwrap().push(format!("Shutdown {force}")),
        }
    }
}

struct Answer {
    status: StatusCode,
    headers: hyper::HeaderMap,
    body: Bytes,
}

impl Answer {
    async fn of(response: Response<Incoming>) -> Answer {
        let (head, body) = response.into_parts();
        let body = timeout(DEADLINE, body.collect()).await.unwrap().unwrap().to_bytes();
        Answer { status: head.status, headers: head.headers, body }
    }

    fn json<T: serde::de::DeserializeOwned>(&self) -> T {
        assert_eq!(self.headers["content-type"], "application/json");
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The body as RFC 9457 wants it.
    fn problem(&self, status: u16) -> wire::Problem {
        assert_eq!(self.status, status, "{:?}", self.body);
        assert_eq!(self.headers["content-type"], "application/problem+json");
        let p: wire::Problem = serde_json::from_slice(&self.body).unwrap();
        let title = self.status.canonical_reason().unwrap();
        assert_eq!((p.kind.as_str(), p.title.as_str(), p.status), ("about:blank", title, status));
        assert!(!p.detail.is_empty());
        p
    }
}

/// Every route with a request that is right.
fn requests() -> impl Iterator<Item = (&'static super::route::Route, String, &'static str)> {
    ROUTES.iter().map(|r| {
        let mut target = r.path.replace("{name}", "web");
        if r.query.contains(&"follow") {
            target += "?follow=false";
        }
        (r, target, if r.path.ends_with("/signal") { r#"{"signal":"USR1"}"# } else { "" })
    })
}

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
    let p = world.get("/v1/services?sort=name").await.problem(422);
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
async fn bodies_end_at_64_kib() {
    let world = World::new();
    world.services(&[("web", "running")]);
    let most = 64 * 1024;
    world.post("/v1/services/web/signal", &" ".repeat(most)).await.problem(422);
    world.post("/v1/services/web/signal", &" ".repeat(most + 1)).await.problem(413);
    // Whoever sends first and listens then gets the answer as well.
    world.post("/v1/services/web/signal", &" ".repeat(4 << 20)).await.problem(413);
    // Without a length in the head it is found out on the way; one without end is broken off.
    let mut raw = world.connect(ADMIN);
    raw.write_all(b"POST /v1/apply HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n").await.unwrap();
    let chunk = [b"10000\r\n", &[b'x'; 0x10000][..], b"\r\n"].concat();
    let endless = async { while raw.write_all(&chunk).await.is_ok() {} };
    timeout(DEADLINE, endless).await.expect("an endless body is taken");
    // Asked first, the daemon does not even let it come.
    let mut raw = world.connect(ADMIN);
    let head = b"POST /v1/apply HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 65537\r\n\r\n";
    raw.write_all(head).await.unwrap();
    let mut answer = [0; 12];
    timeout(DEADLINE, raw.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
    assert!(world.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_caller_that_goes_away_is_forgotten() {
    let world = World::new();
    world.services(&[("slow", "starting")]);
    let mut raw = world.connect(ADMIN);
    raw.write_all(b"POST /v1/services/slow/start HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let arrived = async {
        loop {
            if let Some(reply) = world.kept.lock().unwrap().pop() {
                return reply;
            }
            tokio::task::yield_now().await;
        }
    };
    let mut reply = timeout(DEADLINE, arrived).await.unwrap();
    assert!(!reply.is_closed());
    drop(raw);
    timeout(DEADLINE, reply.closed()).await.expect("the call outlived its caller");
}

#[tokio::test]
async fn a_slow_head_costs_its_own_connection_only() {
    let world = World::with(Limits { head: Duration::from_millis(50), ..PATIENT });
    let mut slow = world.connect(ADMIN);
    slow.write_all(b"GET /v1/status HTTP/1.1\r\nx: ").await.unwrap();
    let idle = &mut world.connect(ADMIN);
    assert_eq!(world.get("/v1/status").await.status, 200);
    for stream in [&mut slow, idle] {
        let mut rest = Vec::new();
        timeout(DEADLINE, stream.read_to_end(&mut rest)).await.expect("the connection is kept").unwrap();
    }
}

#[tokio::test]
async fn a_slow_body_is_answered_408() {
    let world = World::with(Limits { body: Duration::from_millis(50), ..PATIENT });
    let mut slow = world.connect(ADMIN);
    slow.write_all(b"POST /v1/apply HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\nx").await.unwrap();
    let mut head = [0; 12];
    timeout(DEADLINE, slow.read_exact(&mut head)).await.unwrap().unwrap();
    assert_eq!(&head, b"HTTP/1.1 408");
}

#[tokio::test]
async fn who_does_not_read_is_given_up() {
    let world = World::with(Limits { stall: Duration::from_millis(50), ..PATIENT });
    let description = "x".repeat(8 << 20);
    let base = wire::Service { name: "web".into(), description, ..wire::Service::default() };
    let services = vec![Arc::new(View { base: base.into(), ..View::default() })];
    world
        .snapshot
        .send_replace(Arc::new(Snapshot { services: services.into_iter().collect(), ..Snapshot::default() }));
    let (mut stuck, theirs) = UnixStream::pair().unwrap();
    let served = tokio::spawn(converse(theirs, peer(ADMIN), world.context.clone()));
    stuck.write_all(b"GET /v1/services HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    timeout(DEADLINE, served).await.expect("a stuck reader holds its connection").unwrap();
    let mut got = Vec::new();
    // Part of the answer, then the end.
    let _ = stuck.read_to_end(&mut got).await;
    assert!(got.len() < 8 << 20);
}

#[tokio::test]
async fn above_the_cap_a_connection_is_refused_at_once() {
    let world = World::new();
    let path = world.dir.path().join("api.sock");
    let listener = UnixListener::from_std(super::bind(&path).unwrap()).unwrap();
    let (handle, limits) = (world.context.handle.clone(), Limits { connections: 2, ..PATIENT });
    // Whoever runs the tests is an admin here.
    let rights = Rights { admins: vec![Principal::Everyone], ..Rights::default() };
    let rights = Arc::new(rights);
    let server = tokio::spawn(accept(listener, Context { handle, rights, limits }));
    let ask = async |stream: &mut UnixStream| {
        stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut head = [0; 12];
        timeout(DEADLINE, stream.read_exact(&mut head)).await.unwrap().unwrap();
        String::from_utf8(head.into()).unwrap()
    };
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = UnixStream::connect(&path).await.unwrap();
        assert_eq!(ask(&mut stream).await, "HTTP/1.1 200");
        held.push(stream);
    }
    let mut third = UnixStream::connect(&path).await.unwrap();
    let mut text = String::new();
    timeout(DEADLINE, third.read_to_string(&mut text)).await.unwrap().unwrap();
    assert!(text.starts_with("HTTP/1.1 503 Service Unavailable\r\n"), "{text}");
    // A place that becomes free is given again.
    drop(held.pop());
    timeout(DEADLINE, async {
        loop {
            let mut stream = UnixStream::connect(&path).await.unwrap();
            if stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.is_ok() {
                let mut head = [0; 12];
                if stream.read_exact(&mut head).await.is_ok() && &head == b"HTTP/1.1 200" {
                    return;
                }
            }
        }
    })
    .await
    .expect("a place was lost");
    server.abort();
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
