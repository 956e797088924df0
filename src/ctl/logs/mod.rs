//! `logs`: one log byte for byte, or lines of several in the order of time; from keepd, or from the files where it
//! is not running.

mod offline;
mod show;

use super::{
    args::LogsArgs,
    client::{Server, broken, segment},
    fail::{FAILED, Fail, UNREACHABLE, USAGE},
    select,
    text::{Look, escape, escape_bytes},
};
use crate::{
    logs::{Query, read},
    wire,
};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use jiff::{Timestamp, tz::TimeZone};
use show::Printer;
use std::io::Write;

/// So many lines of each log where neither a number nor a time is given.
const LINES: u64 = 100;

pub(super) async fn run(
    server: &Server,
    args: &LogsArgs,
    look: Look,
    out: &mut impl Write,
) -> Result<u8, Fail> {
    let query = query(args)?;
    if let Some(dir) = &args.dir {
        return offline::run(offline::folders(dir, &args.names)?, args, query, look, out).await;
    }
    let mut client = match server.connect().await {
        Ok(client) => client,
        Err(mut fail) if fail.status == UNREACHABLE && server.is_named() => {
            fail.message += "; `keepctl logs --dir FOLDER` reads the files without it";
            return Err(fail);
        }
        Err(fail) if fail.status == UNREACHABLE => {
            let logs = offline::configured(&args.names)?;
            eprintln!("keepctl: keepd is not running; this is what its files hold");
            return offline::run(logs, args, query, look, out).await;
        }
        Err(fail) => return Err(fail),
    };
    let list = select::list(&mut client).await?;
    let mut chosen = select::select(&mut client, &list, &args.names).await?;
    if chosen.len() != 1 {
        // Whoever asks for many does not ask for those that have none.
        chosen.retain(|s| s.log.file.is_some());
    }
    let apart = !args.stderr && chosen.iter().any(|s| s.log.stderr_file.is_some());
    let wish = wish(args, &query);
    if let ([one], true) = (&*chosen, !apart && is_plain(args, look)) {
        let stream = if args.stderr { "stderr" } else { "stdout" };
        let path = format!("/v1/services/{}/logs?{wish}&stream={stream}", segment(&one.name));
        return bytes(client.open(&path).await?, look, out).await;
    }
    if chosen.is_empty() {
        return Ok(0);
    }
    let stream = if args.stderr { "stderr" } else { "all" };
    let names: Vec<String> = args.names.iter().map(|n| segment(n)).collect();
    let services = if names.is_empty() { String::new() } else { format!("&services={}", names.join(",")) };
    let body = client.open(&format!("/v1/logs?{wish}&stream={stream}{services}")).await?;
    let names = chosen.iter().map(|s| s.name.to_string());
    lines(body, args, Printer::new(names, apart, args.times, look, query.grep), out).await
}

/// What the options say; what they mean is known here, where the user's clock and zone are.
fn query(args: &LogsArgs) -> Result<Query, Fail> {
    let now = Timestamp::now().to_zoned(TimeZone::system());
    let time = |option: &str, text: &Option<String>| {
        let parse = |text: &String| {
            read::when::parse(text, &now)
                .map_err(|rule| Fail::new(USAGE, format!("cannot use `--{option} {text}`: {rule}")))
        };
        text.as_ref().map(parse).transpose()
    };
    let (since, until) = (time("since", &args.since)?, time("until", &args.until)?);
    let grep = args.grep.as_deref().map(|text| {
        read::pattern(text).map_err(|rule| Fail::new(USAGE, format!("cannot use `--grep {text}`: {rule}")))
    });
    let lines = args.lines.or(if since.is_none() { Some(LINES) } else { None });
    Ok(Query { lines, since, until, grep: grep.transpose()? })
}

/// The same as parameters of the API.
fn wish(args: &LogsArgs, query: &Query) -> String {
    let mut wish = format!("follow={}", args.follow);
    let time = |ms: u64| segment(&wire::timestamp(ms));
    for (key, value) in [
        ("lines", query.lines.map(|n| n.to_string())),
        ("since", query.since.map(time)),
        ("until", query.until.map(time)),
        ("grep", args.grep.as_deref().map(segment)),
    ] {
        if let Some(value) = value {
            wish += &format!("&{key}={value}");
        }
    }
    wish
}

/// Whether a single log can be printed as it is. What was searched for is shown in colour.
fn is_plain(args: &LogsArgs, look: Look) -> bool {
    !(args.times || args.json || look.colour && args.grep.is_some())
}

async fn next(body: &mut Incoming) -> Result<Option<Bytes>, Fail> {
    loop {
        match body.frame().await {
            None => return Ok(None),
            Some(Err(e)) => return Err(broken(e)),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

/// One log: byte for byte, but for a terminal.
async fn bytes(mut body: Incoming, look: Look, out: &mut impl Write) -> Result<u8, Fail> {
    let mut plain = Plain::new(look);
    while let Some(chunk) = next(&mut body).await? {
        plain.chunk(out, &chunk)?;
    }
    plain.end(out)
}

/// Bytes to stdout, harmless where that is a terminal.
struct Plain {
    look: Look,
    /// The beginning of a character.
    carry: Vec<u8>,
}

impl Plain {
    fn new(look: Look) -> Plain {
        Plain { look, carry: Vec::new() }
    }

    fn chunk(&mut self, out: &mut impl Write, chunk: &[u8]) -> Result<(), Fail> {
        if self.look.terminal {
            self.carry.extend_from_slice(chunk);
            let mut text = String::new();
            let taken = escape(&mut text, &self.carry);
            self.carry.drain(..taken);
            out.write_all(text.as_bytes())?;
        } else {
            out.write_all(chunk)?;
        }
        Ok(out.flush()?)
    }

    fn end(&self, out: &mut impl Write) -> Result<u8, Fail> {
        let mut rest = String::new();
        escape_bytes(&mut rest, &self.carry);
        out.write_all(rest.as_bytes())?;
        Ok(0)
    }
}

/// Lines as the API gives them.
async fn lines(
    mut body: Incoming,
    args: &LogsArgs,
    printer: Printer,
    out: &mut impl Write,
) -> Result<u8, Fail> {
    let mut carry: Vec<u8> = Vec::new();
    while let Some(chunk) = next(&mut body).await? {
        if args.json {
            out.write_all(&chunk)?;
        } else {
            carry.extend_from_slice(&chunk);
            let whole = carry.iter().rposition(|b| *b == b'\n').map_or(0, |at| at + 1);
            for line in carry[..whole].split(|b| *b == b'\n').filter(|line| !line.is_empty()) {
                let line: wire::LogLine = super::client::decode(line)?;
                printer.line(out, &line)?;
            }
            carry.drain(..whole);
        }
        out.flush()?;
    }
    Ok(0)
}

/// Of reading files.
fn unreadable(what: &str, e: &std::io::Error) -> Fail {
    let status = match e.kind() {
        std::io::ErrorKind::PermissionDenied => super::fail::FORBIDDEN,
        _ => FAILED,
    };
    Fail::new(status, format!("cannot read {what}: {e}"))
}
