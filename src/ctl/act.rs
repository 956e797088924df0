//! `start`, `stop`, `restart`, `reload`, `signal`: one call per name, at once, and what became of each.

use super::{
    args::{ActArgs, SignalArgs, WaitArgs},
    client::{SOON, Server, segment},
    fail::{FAILED, Fail},
    select,
    text::clean,
};
use crate::wire::{ActionResult, Results, SignalBody};
use bytes::Bytes;
use std::{
    io::{self, Write},
    sync::Arc,
    time::Duration,
};
use tokio::{sync::Semaphore, task::JoinSet};

/// How many calls may be under way; keepd has places for 256 connections.
const AT_ONCE: usize = 32;
/// The daemon ends the waiting; this is for a daemon that does not.
const PATIENCE: Duration = Duration::from_secs(25 * 60 * 60);

/// What is to be done.
#[derive(Debug)]
pub(super) struct Act {
    /// Empty: all services.
    names: Vec<String>,
    /// Of the call, such as `wait=false`.
    query: String,
    /// Of the call.
    body: Bytes,
    waits: bool,
    json: bool,
}

impl From<ActArgs> for Act {
    fn from(a: ActArgs) -> Act {
        Act {
            names: a.names,
            query: query(&a.wait),
            body: Bytes::new(),
            waits: !a.wait.no_wait,
            json: a.json,
        }
    }
}

impl From<SignalArgs> for Act {
    fn from(a: SignalArgs) -> Act {
        // A struct of one string always serialises.
        let body = serde_json::to_vec(&SignalBody { signal: a.signal }).unwrap_or_default().into();
        Act { names: a.names, query: "timeout=60s".into(), body, waits: true, json: a.json }
    }
}

/// How long a call is to wait, as its query.
pub(super) fn query(wait: &WaitArgs) -> String {
    if wait.no_wait { "wait=false".into() } else { format!("timeout={}", segment(&wait.timeout)) }
}

/// Does `verb` and prints each result as it comes.
pub(super) async fn run(
    server: &Server,
    verb: &'static str,
    act: &Act,
    out: &mut impl Write,
) -> Result<u8, Fail> {
    let names = targets(server, act).await?;
    let places = Arc::new(Semaphore::new(AT_ONCE));
    let mut calls = JoinSet::new();
    for name in names {
        let (server, places, body) = (server.clone(), places.clone(), act.body.clone());
        let path = format!("/v1/services/{}/{verb}?{}", segment(&name), act.query);
        let within = if act.waits { PATIENCE } else { SOON };
        calls.spawn(async move {
            let _place = places.acquire().await;
            server.connect().await?.act(&path, body, within).await
        });
    }
    let mut all = Results::default();
    let mut failure: Option<Fail> = None;
    while let Some(call) = calls.join_next().await {
        match call.unwrap_or_else(|e| Err(Fail::new(FAILED, format!("cannot {verb}: {e}")))) {
            Ok(results) => {
                if !act.json {
                    results.iter().try_for_each(|r| print(out, r))?;
                    out.flush()?;
                }
                all.results.extend(results);
            }
            // The worst is told by the last exit; the others are told at once.
            Err(fail) => {
                if let Some(earlier) = failure.replace(fail) {
                    let _ = writeln!(io::stderr(), "keepctl: {}", earlier.message);
                }
            }
        }
    }
    if act.json {
        all.results.sort_by(|a, b| a.name.cmp(&b.name));
        serde_json::to_writer(&mut *out, &all).map_err(io::Error::from)?;
        writeln!(out)?;
    }
    match failure {
        Some(fail) => Err(fail),
        None => Ok(status(&all.results)),
    }
}

/// Whom to name in the calls. A single name needs no list: the daemon knows it or does not.
async fn targets(server: &Server, act: &Act) -> Result<Vec<String>, Fail> {
    if let [name] = act.names.as_slice()
        && !select::is_pattern(name)
    {
        return Ok(vec![name.clone()]);
    }
    let mut client = server.connect().await?;
    let list = select::list(&mut client).await?;
    let chosen = select::select(&mut client, &list, &act.names).await?;
    Ok(chosen.into_iter().map(|s| s.name.into_owned()).collect())
}

/// 0 if every instance got where it was to go.
pub(super) fn status(results: &[ActionResult]) -> u8 {
    if results.iter().all(succeeded) { 0 } else { FAILED }
}

fn succeeded(r: &ActionResult) -> bool {
    r.outcome == "done" || r.outcome == "accepted"
}

/// One line per instance; what went wrong goes to stderr, with where to look.
pub(super) fn print(out: &mut impl Write, r: &ActionResult) -> io::Result<()> {
    let message = clean(&r.message);
    let name = if message.contains(&r.name) { String::new() } else { format!("{}: ", r.name) };
    if succeeded(r) {
        return writeln!(out, "{name}{message}");
    }
    let next = match r.outcome.as_str() {
        "failed" => format!("; see `keepctl status {}`", r.name),
        "timeout" => format!("; it goes on, see `keepctl status {}`", r.name),
        _ => String::new(),
    };
    // What was printed so far comes first.
    out.flush()?;
    writeln!(io::stderr(), "keepctl: {name}{message}{next}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(outcome: &str, message: &str) -> ActionResult {
        ActionResult { name: "web".into(), outcome: outcome.into(), message: message.into() }
    }

    #[test]
    fn one_that_did_not_get_there_makes_it_1() {
        assert_eq!(status(&[result("done", ""), result("accepted", "")]), 0);
        for outcome in ["failed", "conflict", "timeout", "something new"] {
            assert_eq!(status(&[result("done", ""), result(outcome, "")]), FAILED);
        }
    }

    #[test]
    fn every_line_names_its_service() {
        let mut out = Vec::new();
        print(&mut out, &result("done", "web is running, pid 4711")).unwrap();
        print(&mut out, &result("accepted", "is starting\n")).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "web is running, pid 4711\nweb: is starting\\n\n");
    }

    #[test]
    fn the_time_limit_is_passed_on_as_it_was_written() {
        let wait = |no_wait, timeout: &str| query(&WaitArgs { no_wait, timeout: timeout.into() });
        assert_eq!(wait(false, "1m30s"), "timeout=1m30s");
        assert_eq!(wait(false, "1&x=2"), "timeout=1%26x%3D2");
        assert_eq!(wait(true, "10m"), "wait=false");
    }
}
