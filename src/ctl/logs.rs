//! `logs`: one log as it is, or several with the name before each line.

use super::{
    args::LogsArgs,
    client::{Server, broken, segment},
    fail::{FAILED, Fail},
    select::{self, Listed},
    text::{Look, escape, escape_bytes},
};
use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::io::Write;
use tokio::{sync::mpsc, task::JoinSet};

/// A longer line is shown in pieces.
const LINE_MAX: usize = 64 * 1024;

pub(super) async fn run(
    server: &Server,
    args: &LogsArgs,
    look: Look,
    out: &mut impl Write,
) -> Result<u8, Fail> {
    let mut client = server.connect().await?;
    let list = select::list(&mut client).await?;
    let mut chosen = select::select(&mut client, &list, &args.names).await?;
    if chosen.len() != 1 {
        // Whoever asks for many does not ask for those that have none.
        chosen.retain(|s| s.log.file.is_some());
    }
    match chosen.as_slice() {
        [one] => single(client.open(&path(one, args)).await?, look, out).await,
        several if args.follow => follow(server, several, args, look, out).await,
        several => {
            let mut printer = Printer::new(several, look);
            for (i, service) in several.iter().enumerate() {
                let mut body = client.open(&path(service, args)).await?;
                while let Some(chunk) = next(&mut body).await? {
                    printer.chunk(out, i, &chunk)?;
                }
                printer.end(out, i)?;
            }
            Ok(0)
        }
    }
}

fn path(service: &Listed<'_>, args: &LogsArgs) -> String {
    let stream = if args.stderr { "&stream=stderr" } else { "" };
    let name = segment(&service.name);
    format!("/v1/services/{name}/logs?lines={}&follow={}{stream}", args.lines, args.follow)
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
async fn single(mut body: Incoming, look: Look, out: &mut impl Write) -> Result<u8, Fail> {
    let mut carry: Vec<u8> = Vec::new();
    while let Some(chunk) = next(&mut body).await? {
        if look.terminal {
            carry.extend_from_slice(&chunk);
            let mut text = String::new();
            let taken = escape(&mut text, &carry);
            carry.drain(..taken);
            out.write_all(text.as_bytes())?;
        } else {
            out.write_all(&chunk)?;
        }
        out.flush()?;
    }
    let mut rest = String::new();
    escape_bytes(&mut rest, &carry);
    out.write_all(rest.as_bytes())?;
    Ok(0)
}

/// Several logs at once; a line is shown when it is whole.
async fn follow(
    server: &Server,
    services: &[Listed<'_>],
    args: &LogsArgs,
    look: Look,
    out: &mut impl Write,
) -> Result<u8, Fail> {
    // One chunk of each may wait for a slow reader of our output.
    let (chunks, mut incoming) = mpsc::channel(1);
    let mut readers = JoinSet::new();
    for (i, service) in services.iter().enumerate() {
        let (server, path, chunks) = (server.clone(), path(service, args), chunks.clone());
        readers.spawn(async move {
            let mut client = server.connect().await?;
            let mut body = client.open(&path).await?;
            while let Some(chunk) = next(&mut body).await? {
                if chunks.send((i, chunk)).await.is_err() {
                    break;
                }
            }
            Ok::<(), Fail>(())
        });
    }
    drop(chunks);
    let mut printer = Printer::new(services, look);
    while let Some((i, chunk)) = incoming.recv().await {
        printer.chunk(out, i, &chunk)?;
        out.flush()?;
    }
    (0..services.len()).try_for_each(|i| printer.end(out, i))?;
    while let Some(reader) = readers.join_next().await {
        reader.unwrap_or_else(|e| Err(Fail::new(FAILED, format!("cannot follow the logs: {e}"))))?;
    }
    Ok(0)
}

/// Puts chunks together to lines and names before them.
struct Printer {
    /// Each as wide as the widest.
    names: Vec<String>,
    /// The beginning of a line, per service.
    partial: Vec<Vec<u8>>,
    look: Look,
}

impl Printer {
    fn new(services: &[Listed<'_>], look: Look) -> Printer {
        let width = services.iter().map(|s| s.name.len()).max().unwrap_or(0);
        Printer {
            names: services.iter().map(|s| format!("{:width$}", s.name)).collect(),
            partial: vec![Vec::new(); services.len()],
            look,
        }
    }

    fn chunk(&mut self, out: &mut impl Write, of: usize, chunk: &[u8]) -> Result<(), Fail> {
        for piece in chunk.split_inclusive(|b| *b == b'\n') {
            self.partial[of].extend_from_slice(piece);
            if piece.ends_with(b"\n") || self.partial[of].len() >= LINE_MAX {
                self.end(out, of)?;
            }
        }
        Ok(())
    }

    /// Prints what is there of a line.
    fn end(&mut self, out: &mut impl Write, of: usize) -> Result<(), Fail> {
        let line = std::mem::take(&mut self.partial[of]);
        if line.is_empty() {
            return Ok(());
        }
        let line = line.strip_suffix(b"\n").unwrap_or(&line);
        write!(out, "{} | ", self.names[of])?;
        if self.look.terminal {
            let mut text = String::new();
            let taken = escape(&mut text, line);
            escape_bytes(&mut text, &line[taken..]);
            out.write_all(text.as_bytes())?;
        } else {
            out.write_all(line)?;
        }
        out.write_all(b"\n")?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn printer(look: Look) -> Printer {
        let named = |name: &'static str| Listed { name: name.into(), ..Listed::default() };
        Printer::new(&[named("a"), named("web@0")], look)
    }

    #[test]
    fn lines_of_several_logs_are_never_mixed() {
        let (mut p, mut out) = (printer(Look::default()), Vec::new());
        for (of, chunk) in [(0, "on"), (1, "x\ny"), (0, "e\n\ntw"), (1, "\n"), (0, "o")] {
            p.chunk(&mut out, of, chunk.as_bytes()).unwrap();
        }
        p.end(&mut out, 0).unwrap();
        p.end(&mut out, 1).unwrap();
        let wanted = "web@0 | x\na     | one\na     | \nweb@0 | y\na     | two\n";
        assert_eq!(String::from_utf8(out).unwrap(), wanted);
    }

    #[test]
    fn a_line_without_end_is_shown_in_pieces() {
        let (mut p, mut out) = (printer(Look::default()), Vec::new());
        p.chunk(&mut out, 0, &vec![b'x'; LINE_MAX]).unwrap();
        assert_eq!(out.len(), "a     | ".len() + LINE_MAX + 1);
        assert!(p.partial[0].is_empty());
    }

    #[test]
    fn only_a_terminal_gets_escapes() {
        let raw = b"\x1b[2J\xff\xe2\x82\n";
        let (mut p, mut out) = (printer(Look::default()), Vec::new());
        p.chunk(&mut out, 0, raw).unwrap();
        assert_eq!(out, [&b"a     | "[..], raw].concat());
        let (mut p, mut out) = (printer(Look { terminal: true, colour: false }), Vec::new());
        p.chunk(&mut out, 0, raw).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "a     | \\x1b[2J\\xff\\xe2\\x82\n");
    }
}
