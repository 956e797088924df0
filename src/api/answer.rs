//! From a request to its answer: rights, route, parameters, call.

use super::{
    accept::{Context, Limits},
    events, logs, metrics,
    query::Query,
    reply::{Body, Refused, json, stream, whole},
    route::{self, Call, Miss, Role, Route},
};
use crate::{
    manager::{
        Action, Handle,
        snapshot::{Snapshot, View},
    },
    plan::signal::parse_signal,
    sys::{self, peer::Peer},
    wire,
};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{
    Request, Response, StatusCode,
    body::{Body as _, Incoming},
    header::{ALLOW, CACHE_CONTROL, EXPECT, HeaderMap, HeaderValue},
};
use serde::Serialize;
use std::time::Duration;

/// How long an action is waited for where the caller says nothing.
const WAIT: Duration = Duration::from_secs(60);
const BODY_MAX: usize = 64 * 1024;
/// So much of a longer one is read before it is refused.
const DROPPED_MAX: usize = 16 * 1024 * 1024;

/// Answers one request of this caller.
pub(super) async fn answer(context: &Context, peer: &Peer, request: Request<Incoming>) -> Response<Body> {
    let role = context.rights.role(peer);
    if role == Role::Stranger {
        return forbidden(peer, "use this API", "readers or admins").into_response();
    }
    let (route, name) = match route::find(request.method().as_str(), request.uri().path()) {
        Ok(found) => found,
        Err(miss) => return missed(&miss, &request),
    };
    if role < route.needs {
        return forbidden(peer, "act, only look", "admins").into_response();
    }
    match call(context, route, &name, request).await {
        Ok(response) => response,
        Err(refused) => refused.into_response(),
    }
}

fn forbidden(peer: &Peer, what: &str, list: &str) -> Refused {
    let detail = format!("user {} may not {what}; [api] {list} says who may", peer.uid);
    Refused::new(StatusCode::FORBIDDEN, detail)
}

fn missed(miss: &Miss, request: &Request<Incoming>) -> Response<Body> {
    let path = request.uri().path();
    match miss {
        Miss::Path => {
            Refused::new(StatusCode::NOT_FOUND, format!("there is no `{path}` here")).into_response()
        }
        Miss::Method(allowed) => {
            let detail = format!("cannot {} `{path}`: it takes {allowed}", request.method());
            let mut response = Refused::new(StatusCode::METHOD_NOT_ALLOWED, detail).into_response();
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
            response
        }
    }
}

async fn call(
    context: &Context,
    route: &Route,
    name: &str,
    request: Request<Incoming>,
) -> Result<Response<Body>, Refused> {
    let handle = &context.handle;
    let (head, body) = request.into_parts();
    let query = Query::parse(head.uri.query().unwrap_or_default(), route.query)?;
    let waits = head.headers.contains_key(EXPECT);
    let body = read(body, waits, &context.limits).await?;
    match route.call {
        Call::Status => Ok(json(StatusCode::OK, &status(handle))),
        Call::Services if query.flag("brief", false)? => Ok(services(&handle.snapshot(), 256, View::brief)),
        Call::Services => Ok(services(&handle.snapshot(), 768, View::at)),
        Call::Service => {
            let mut found = handle.detail(name);
            if found.len() > 1 {
                return Err(several(name, found.iter().map(|s| s.name.as_str())));
            }
            found.pop().map(|s| json(StatusCode::OK, &s)).ok_or_else(|| unknown(handle, name))
        }
        Call::Why => why(handle, name).await,
        Call::Act(action) => act(handle, name, action, &query).await,
        Call::Signal => act(handle, name, Action::Signal(signal(&body)?), &query).await,
        Call::Logs => logs::one(handle, name, &query).await,
        Call::LogsOfMany => logs::many(handle, &query).await,
        Call::Events => event_stream(handle, &head.headers, &query),
        Call::Metrics => metrics::answer(handle, &head.headers).await,
        Call::Plan => Ok(json(StatusCode::OK, &handle.plan().await?)),
        Call::Apply => Ok(json(StatusCode::OK, &handle.apply(query.wait(WAIT)?).await?)),
        Call::Reopen => {
            handle.reopen().await;
            Ok(condition(StatusCode::OK, "reopened"))
        }
        Call::Upgrade => {
            let why = handle.upgrade().await?;
            Err(Refused::new(StatusCode::CONFLICT, format!("cannot upgrade: {why}")))
        }
        Call::Shutdown => {
            handle.shutdown(query.flag("force", false)?).await?;
            Ok(condition(StatusCode::ACCEPTED, "stopping"))
        }
        Call::Alive if handle.alive() => Ok(condition(StatusCode::OK, "alive")),
        Call::Alive => Err(Refused::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "the manager has ended; it is being started again",
        )),
        Call::Ready if handle.snapshot().ready => Ok(condition(StatusCode::OK, "ready")),
        Call::Ready => {
            let state = handle.snapshot().status.state.clone();
            Err(Refused::new(StatusCode::SERVICE_UNAVAILABLE, format!("keepd is not ready: it is {state}")))
        }
    }
}

/// Reads the whole body, within bounds of length and time. What is too long is read on for a while and dropped, for
/// many clients hear no answer before they have sent everything; not from one that `waits` to be told to send it.
async fn read(mut body: Incoming, waits: bool, limits: &Limits) -> Result<Bytes, Refused> {
    let too_long = || {
        let detail = format!("cannot take a body of more than {BODY_MAX} bytes");
        Refused::new(StatusCode::PAYLOAD_TOO_LARGE, detail)
    };
    if waits && body.size_hint().lower() > BODY_MAX as u64 {
        return Err(too_long());
    }
    let whole = async {
        let (mut whole, mut length) = (Vec::new(), 0);
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame?.into_data() else { continue };
            length += data.len();
            if length <= BODY_MAX {
                whole.extend_from_slice(&data);
            } else if length > DROPPED_MAX {
                break;
            }
        }
        Ok::<_, hyper::Error>((whole, length))
    };
    match tokio::time::timeout(limits.body, whole).await {
        Ok(Ok((whole, length))) if length <= BODY_MAX => Ok(whole.into()),
        Ok(Ok(_)) => Err(too_long()),
        Ok(Err(e)) => Err(Refused::new(StatusCode::BAD_REQUEST, format!("cannot read the body: {e}"))),
        Err(_) => Err(Refused::new(StatusCode::REQUEST_TIMEOUT, "cannot read the body: it takes too long")),
    }
}

fn condition(status: StatusCode, state: &str) -> Response<Body> {
    json(status, &wire::Condition { state: state.into() })
}

fn status(handle: &Handle) -> wire::Status {
    let snapshot = handle.snapshot();
    let uptime_ms = sys::clock::boottime_ms().saturating_sub(snapshot.began_ms);
    wire::Status { uptime_ms, ..snapshot.status.clone() }
}

/// One service after the other goes into the text, so that a thousand of them need no thousand copies at once.
/// `size`: of one, about.
fn services<'a, T: Serialize>(
    snapshot: &'a Snapshot,
    size: usize,
    show: impl Fn(&'a View, u64) -> T,
) -> Response<Body> {
    let now_ms = sys::clock::boottime_ms();
    let mut text = Vec::with_capacity(64 + snapshot.services.len() * size);
    text.extend_from_slice(b"{\"services\":[");
    for (i, view) in snapshot.services.iter().enumerate() {
        if i > 0 {
            text.push(b',');
        }
        if let Err(e) = serde_json::to_writer(&mut text, &show(view, now_ms)) {
            // The type is plain data; only a bug could bring this about.
            return Refused::new(StatusCode::INTERNAL_SERVER_ERROR, e.to_string()).into_response();
        }
    }
    text.extend_from_slice(b"]}");
    whole(StatusCode::OK, "application/json", text.into())
}

async fn act(handle: &Handle, name: &str, action: Action, query: &Query) -> Result<Response<Body>, Refused> {
    let wait = query.wait(WAIT)?;
    if handle.snapshot().instances(name).is_empty() {
        return Err(unknown(handle, name));
    }
    let results = handle.act(name, action, wait).await?;
    if !results.is_empty() && results.iter().all(|r| r.outcome == "conflict") {
        let sentences: Vec<&str> = results.iter().map(|r| r.message.as_str()).collect();
        let mut refused = Refused::new(StatusCode::CONFLICT, sentences.join("; "));
        refused.0.results = results;
        return Err(refused);
    }
    let status = if wait.is_none() { StatusCode::ACCEPTED } else { StatusCode::OK };
    Ok(json(status, &wire::Results { results }))
}

async fn why(handle: &Handle, name: &str) -> Result<Response<Body>, Refused> {
    match handle.snapshot().instances(name).as_slice() {
        [] => Err(unknown(handle, name)),
        [one] => Ok(json(StatusCode::OK, &handle.why(one).await?)),
        all => Err(several(name, all.iter().map(|n| n.as_str()))),
    }
}

fn signal(body: &[u8]) -> Result<i32, Refused> {
    let bad = |why: String| {
        let detail =
            format!("cannot tell which signal to send: {why}; the body is {{\"signal\":\"SIGUSR1\"}}");
        Refused::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
    };
    let body: wire::SignalBody = serde_json::from_slice(body).map_err(|e| bad(e.to_string()))?;
    parse_signal(&body.signal).map_err(bad)
}

fn event_stream(handle: &Handle, headers: &HeaderMap, query: &Query) -> Result<Response<Body>, Refused> {
    let log = handle.events();
    let mut after = query.number("after", u64::MAX)?;
    if let Some(id) = headers.get("last-event-id").filter(|id| !id.is_empty()) {
        let number = id.to_str().ok().and_then(|id| id.parse().ok());
        after = Some(number.ok_or_else(|| {
            let detail = "cannot resume: Last-Event-ID is not the number of an event";
            Refused::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
        })?);
    }
    let follow = query.flag("follow", true)?;
    // Whoever follows begins now, whoever does not wants all there is.
    let after = after.unwrap_or_else(|| if follow { log.last() } else { 0 });
    let chunks = events::open(log.clone(), after, follow);
    let mut response = stream("text/event-stream", Bytes::new(), chunks);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// 404, with the nearest name if there is one.
pub(super) fn unknown(handle: &Handle, name: &str) -> Refused {
    let snapshot = handle.snapshot();
    let near = |s: &&str| strsim::damerau_levenshtein(s, name);
    let names = snapshot.services.iter().map(|s| s.base.service.as_str());
    let nearest = if name.len() <= 64 { names.min_by_key(near) } else { None };
    let hint = match nearest.filter(|s| near(s) <= 2) {
        Some(s) => format!(", did you mean `{s}`?"),
        None => String::new(),
    };
    Refused::new(StatusCode::NOT_FOUND, format!("no service is named `{name}`{hint}"))
}

pub(super) fn several<'a>(name: &str, instances: impl Iterator<Item = &'a str>) -> Refused {
    let list: Vec<&str> = instances.collect();
    let detail = format!("`{name}` has {} instances, this call takes one: {}", list.len(), list.join(", "));
    Refused::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
}
