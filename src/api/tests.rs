//! The API over real sockets, with an actor that answers by the name of the service and callers of any identity.

mod connections;
mod requests;

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
