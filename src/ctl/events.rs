//! `events`: what the daemon still knows of, and what comes.

use super::{
    args::EventsArgs,
    client::{Client, SOON, Server, broken},
    fail::{Fail, UNREACHABLE},
    text::clean,
};
use crate::wire::Event;
use http_body_util::BodyExt;
use std::{
    collections::VecDeque,
    io::{self, Write},
    time::Duration,
};

/// How many earlier events `--follow` begins with.
const LAST: usize = 10;
/// No line of the stream is longer; an event holds one service's name and a sentence.
const LINE_MAX: usize = 1024 * 1024;
/// How often a new connection is tried when the stream has broken off, and with which pause.
const TRIES: u32 = 100;
const PAUSE: Duration = Duration::from_millis(100);

pub(super) async fn run(server: &Server, args: &EventsArgs, out: &mut impl Write) -> Result<u8, Fail> {
    let mut client = server.connect().await?;
    let keep = args.last.unwrap_or(if args.follow { LAST } else { usize::MAX });
    let mut body = client.open("/v1/events?after=0&follow=false").await?;
    let mut parser = Parser::default();
    let mut kept = VecDeque::new();
    let mut newest = 0;
    while let Some(frame) = body.frame().await {
        for item in parser.feed(frame.map_err(broken)?.data_ref().map_or(&[], |d| d))? {
            if let Item::Event(event, _) = &item {
                newest = event.id;
                kept.push_back(item);
            }
            while kept.len() > keep {
                kept.pop_front();
            }
        }
    }
    kept.iter().try_for_each(|item| print(out, item, args.json))?;
    if !args.follow {
        return Ok(0);
    }
    out.flush()?;
    follow(server, client, newest, args.json, out).await
}

/// Prints what comes, over restarts of the manager too: a new one goes on where the last one was.
async fn follow(
    server: &Server,
    client: Client,
    mut newest: u64,
    json: bool,
    out: &mut impl Write,
) -> Result<u8, Fail> {
    let mut client = Some(client);
    loop {
        let Some(mut present) = client.take() else { break };
        let mut stopping = false;
        if let Ok(mut body) = present.open(&format!("/v1/events?after={newest}")).await {
            let mut parser = Parser::default();
            while let Some(Ok(frame)) = body.frame().await {
                for item in parser.feed(frame.data_ref().map_or(&[], |d| d))? {
                    if let Item::Event(event, _) = &item {
                        newest = event.id;
                        stopping = event.kind == "shutdown" || stopping;
                    }
                    print(out, &item, json)?;
                }
                out.flush()?;
            }
        }
        if !stopping {
            client = again(server).await;
        }
    }
    Err(Fail::new(UNREACHABLE, "keepd ended the stream of events; it has stopped or is being restarted"))
}

/// A new connection, as soon as somebody answers; `None`: nobody has for a while.
#[allow(clippy::disallowed_methods, reason = "a client has nothing else to wait for")]
async fn again(server: &Server) -> Option<Client> {
    for _ in 0..TRIES {
        if let Ok(mut client) = server.connect().await
            && client.get_text("/v1/status", SOON).await.is_ok()
        {
            return Some(client);
        }
        tokio::time::sleep(PAUSE).await;
    }
    None
}

/// What the stream brings.
#[derive(Debug, Clone, PartialEq)]
enum Item {
    /// An event, and its JSON as it came.
    Event(Box<Event>, String),
    /// Some are missing.
    Lost,
}

fn print(out: &mut impl Write, item: &Item, json: bool) -> io::Result<()> {
    match item {
        Item::Event(_, text) if json => writeln!(out, "{text}"),
        Item::Event(e, _) => {
            // Most messages are sentences about the service; the others get its name.
            let name = match &e.service {
                Some(service) if !e.message.contains(service.as_str()) => format!("{service}: "),
                _ => String::new(),
            };
            writeln!(out, "{}  {:<13}  {}{}", clean(&e.at), clean(&e.kind), clean(&name), clean(&e.message))
        }
        Item::Lost => {
            writeln!(io::stderr(), "keepctl: some events are missing here: keepd no longer has them")
        }
    }
}

/// Takes Server-Sent Events apart, whatever the chunks they come in.
#[derive(Debug, Default)]
struct Parser {
    line: Vec<u8>,
    kind: String,
    data: String,
}

impl Parser {
    fn feed(&mut self, chunk: &[u8]) -> Result<Vec<Item>, Fail> {
        let mut items = Vec::new();
        for piece in chunk.split_inclusive(|b| *b == b'\n') {
            self.line.extend_from_slice(piece);
            if self.line.len() > LINE_MAX {
                return Err(unreadable("a line is too long"));
            }
            if piece.ends_with(b"\n") {
                let line = std::mem::take(&mut self.line);
                items.extend(self.end_of_line(&line[..line.len() - 1])?);
            }
        }
        Ok(items)
    }

    fn end_of_line(&mut self, line: &[u8]) -> Result<Option<Item>, Fail> {
        let line = std::str::from_utf8(line).map_err(|e| unreadable(&e.to_string()))?;
        if let Some(kind) = line.strip_prefix("event: ") {
            self.kind = kind.into();
        } else if let Some(data) = line.strip_prefix("data: ") {
            self.data = data.into();
        } else if line.is_empty() {
            let (kind, data) = (std::mem::take(&mut self.kind), std::mem::take(&mut self.data));
            if kind == "lost" {
                return Ok(Some(Item::Lost));
            }
            if !data.is_empty() {
                let event = serde_json::from_str(&data).map_err(|e| unreadable(&e.to_string()))?;
                return Ok(Some(Item::Event(Box::new(event), data)));
            }
        }
        Ok(None)
    }
}

fn unreadable(why: &str) -> Fail {
    let detail = format!("cannot read keepd's events: {why}; keepctl and keepd may be of different versions");
    Fail::new(UNREACHABLE, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &str = ": hello\nid: 7\nevent: state\ndata: {\"id\":7,\"at\":\"T\",\"kind\":\"state\",\
        \"service\":\"web\",\"message\":\"a\\u001b[2Jb\"}\n\nevent: lost\ndata: {}\n\n";

    #[test]
    fn events_are_read_from_chunks_of_any_size() {
        for size in 1..STREAM.len() {
            let mut parser = Parser::default();
            let mut items = Vec::new();
            for chunk in STREAM.as_bytes().chunks(size) {
                items.extend(parser.feed(chunk).unwrap());
            }
            let [Item::Event(e, _), Item::Lost] = items.as_slice() else { panic!("{items:?}") };
            assert_eq!((e.id, e.service.as_deref()), (7, Some("web")));
        }
    }

    #[test]
    fn an_event_is_one_harmless_line() {
        let items = Parser::default().feed(STREAM.as_bytes()).unwrap();
        let mut out = Vec::new();
        print(&mut out, &items[0], false).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "T  state          web: a\\x1b[2Jb\n");
    }

    #[test]
    fn what_is_no_event_is_an_error() {
        assert_eq!(Parser::default().feed(b"data: {\n\n").unwrap_err().status, UNREACHABLE);
        assert!(Parser::default().feed(&vec![b'x'; LINE_MAX + 1]).is_err());
    }
}
