//! Logs: which lines of which services, as text or as JSON.

use super::{
    answer::{several, unknown},
    query::{Query, wrong},
    reply::{Body, Refused, stream},
};
use crate::{
    manager::{Handle, LogFormat, LogWish, Query as Lines, Which, read},
    plan::Name,
};
use bytes::Bytes;
use hyper::{Response, StatusCode};

/// So many lines of each log where neither a number nor a time is given.
const LINES: u64 = 100;
const LINES_MAX: u64 = 1_000_000;
const PATTERN_MAX: usize = 4096;

/// `GET /v1/services/{name}/logs`
pub(super) async fn one(handle: &Handle, name: &str, query: &Query) -> Result<Response<Body>, Refused> {
    let format = match query.text("format") {
        None | Some("text") => LogFormat::Text,
        Some("json") => LogFormat::Json,
        Some(other) => return Err(wrong("format", other, "it must be text or json")),
    };
    let wish = wish(query, Which::Stdout, format)?;
    let snapshot = handle.snapshot();
    let instances = snapshot.instances(name);
    let instance = match instances.as_slice() {
        [] => return Err(unknown(handle, name)),
        [one] => one,
        all => return Err(several(name, all.iter().map(Name::as_str))),
    };
    if snapshot.find(instance.as_str()).is_some_and(|s| s.log.is_none()) {
        let detail = format!("the output of {instance} is discarded: there is no log");
        return Err(Refused::new(StatusCode::CONFLICT, detail));
    }
    answer(handle, std::slice::from_ref(instance), &wish, &format!("the log of {instance}")).await
}

/// `GET /v1/logs`
pub(super) async fn many(handle: &Handle, query: &Query) -> Result<Response<Body>, Refused> {
    let wish = wish(query, Which::All, LogFormat::Json)?;
    let snapshot = handle.snapshot();
    // Whoever asks for many does not ask for those that have none.
    let mut names: Vec<Name> =
        snapshot.services.iter().filter(|s| s.log.is_some()).map(|s| Name::new(&s.base.name)).collect();
    if let Some(patterns) = query.text("services") {
        for pattern in patterns.split(',') {
            if !snapshot.services.iter().any(|s| Name::new(&s.base.name).is_meant_by(pattern)) {
                return Err(unknown(handle, pattern));
            }
        }
        names.retain(|name| patterns.split(',').any(|pattern| name.is_meant_by(pattern)));
    }
    answer(handle, &names, &wish, "the logs").await
}

fn wish(query: &Query, default: Which, format: LogFormat) -> Result<LogWish, Refused> {
    let follow = query.flag("follow", false)?;
    let which = match query.text("stream") {
        None => default,
        Some("stdout") => Which::Stdout,
        Some("stderr") => Which::Stderr,
        Some("all") => Which::All,
        Some(other) => return Err(wrong("stream", other, "it must be stdout, stderr or all")),
    };
    let now = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::system());
    let time = |key| match query.text(key) {
        None => Ok(None),
        Some(text) => read::when::parse(text, &now).map(Some).map_err(|rule| wrong(key, text, &rule)),
    };
    let (since, until) = (time("since")?, time("until")?);
    if let (true, Some(text)) = (follow, query.text("until")) {
        return Err(wrong("until", text, "whoever follows wants no end"));
    }
    let grep = match query.text("grep") {
        None => None,
        Some(text) if text.len() > PATTERN_MAX => {
            return Err(wrong("grep", "...", &format!("it is longer than {PATTERN_MAX} bytes")));
        }
        Some(text) => Some(read::pattern(text).map_err(|rule| wrong("grep", text, &rule))?),
    };
    let lines = query.number("lines", LINES_MAX)?;
    // Whoever names a time wants all of it.
    let lines = lines.or(if since.is_none() { Some(LINES) } else { None });
    Ok(LogWish { query: Lines { lines, since, until, grep }, follow, stream: which, format })
}

async fn answer(
    handle: &Handle,
    names: &[Name],
    wish: &LogWish,
    what: &str,
) -> Result<Response<Body>, Refused> {
    let kind = match wish.format {
        LogFormat::Text => "text/plain",
        LogFormat::Json => "application/x-ndjson",
    };
    let mut log = handle.open_logs(names, wish)?;
    if wish.follow {
        return Ok(stream(kind, Bytes::new(), log.0));
    }
    // An error at the very start can still be told as one.
    let first = match log.0.recv().await {
        None => Bytes::new(),
        Some(Ok(first)) => first,
        Some(Err(e)) => {
            let detail = format!("cannot read {what}: {e}");
            return Err(Refused::new(StatusCode::INTERNAL_SERVER_ERROR, detail));
        }
    };
    Ok(stream(kind, first, log.0))
}
