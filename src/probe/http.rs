//! One GET over a connection of its own. Only as much of the answer is read as the question needs: the status line, or
//! with `http-body` a bounded part of the body.

use super::{connect, trouble};
use crate::plan::{Http, Verdict};
use bytes::BufMut;
use regex::bytes::Regex;
use std::{fmt::Write, io};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// Bytes that are read of an answer at most.
const MOST: usize = 256 << 10;
/// Bytes that are read at a time.
const PIECE: usize = 4096;

/// Asks, and judges the answer. Waits for as long as the caller lets it.
pub(super) async fn get(get: &Http) -> Verdict {
    match answer(get).await {
        Ok(answer) => judge(get, &answer),
        Err(e) => trouble(&e),
    }
}

async fn answer(get: &Http) -> io::Result<Vec<u8>> {
    let mut stream = connect(&get.to).await?;
    stream.write_all(request(get).as_bytes()).await?;
    let mut answer = Vec::with_capacity(512);
    while answer.len() < MOST {
        if enough(get, &answer) || stream.read_buf(&mut (&mut answer).limit(PIECE)).await? == 0 {
            break;
        }
    }
    Ok(answer)
}

fn request(get: &Http) -> String {
    let mut text = format!("GET {} HTTP/1.1\r\n", get.path);
    let mut put = |name: &str, value: &str| {
        if !get.headers.keys().any(|own| own.eq_ignore_ascii_case(name)) {
            // Writing to a String cannot fail.
            let _ = write!(text, "{name}: {value}\r\n");
        }
    };
    put("Host", &get.host);
    put("User-Agent", concat!("keepd/", env!("CARGO_PKG_VERSION")));
    put("Accept", "*/*");
    for (name, value) in &get.headers {
        let _ = write!(text, "{name}: {value}\r\n");
    }
    text + "Connection: close\r\n\r\n"
}

/// Whether the answer can be judged by what there is of it.
fn enough(get: &Http, answer: &[u8]) -> bool {
    match status(answer) {
        None => false,
        Some(Err(())) => true,
        Some(Ok(status)) if get.body.is_none() || !in_range(get, status) => true,
        Some(Ok(_)) => body(answer).is_some_and(|(_, whole)| whole),
    }
}

fn in_range(get: &Http, status: u16) -> bool {
    (get.status.0..=get.status.1).contains(&status)
}

/// The status, once its line is there; an error where that is none.
fn status(answer: &[u8]) -> Option<Result<u16, ()>> {
    let Some(end) = memchr::memchr(b'\n', answer) else {
        return (answer.len() > 8192).then_some(Err(()));
    };
    let line = String::from_utf8_lossy(&answer[..end]);
    let mut words = line.split_ascii_whitespace();
    let known = words.next().is_some_and(|version| version.starts_with("HTTP/1."));
    let number = words.next().and_then(|word| word.parse::<u16>().ok()).filter(|n| (100..600).contains(n));
    Some(number.filter(|_| known).ok_or(()))
}

/// What there is of the body, and whether that is all of it as far as its head says.
fn body(answer: &[u8]) -> Option<(Vec<u8>, bool)> {
    let at = memchr::memmem::find(answer, b"\r\n\r\n")?;
    let (head, body) = (String::from_utf8_lossy(&answer[..at]), &answer[at + 4..]);
    let field = |name: &str| {
        let mut lines = head.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(key, _)| key.trim().eq_ignore_ascii_case(name)).map(|(_, value)| value.trim().to_owned())
    };
    if field("transfer-encoding").is_some_and(|v| v.to_ascii_lowercase().contains("chunked")) {
        return Some(unchunked(body));
    }
    let length = field("content-length").and_then(|v| v.parse::<usize>().ok());
    Some((body.to_vec(), length.is_some_and(|length| body.len() >= length)))
}

/// The chunks' bytes, and whether the last one has come.
fn unchunked(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut out = Vec::new();
    while let Some(end) = memchr::memmem::find(rest, b"\r\n") {
        let line = String::from_utf8_lossy(&rest[..end]);
        let size = line.split(';').next().unwrap_or("").trim();
        let Ok(size) = usize::from_str_radix(size, 16) else { return (out, true) };
        rest = &rest[end + 2..];
        if size == 0 {
            return (out, true);
        }
        out.extend_from_slice(&rest[..size.min(rest.len())]);
        rest = rest.get(size.saturating_add(2)..).unwrap_or_default();
    }
    (out, false)
}

fn judge(get: &Http, answer: &[u8]) -> Verdict {
    let status = match status(answer) {
        Some(Ok(status)) => status,
        Some(Err(())) => return Verdict::Failed("its answer is not HTTP".into()),
        None if answer.is_empty() => {
            return Verdict::Failed("it closed the connection without an answer".into());
        }
        None => return Verdict::Failed("it closed the connection within its answer".into()),
    };
    if !in_range(get, status) {
        return Verdict::Failed(format!("it answered {status}"));
    }
    let Some(pattern) = &get.body else { return Verdict::Passed };
    // It was compiled once when the configuration was checked.
    match Regex::new(pattern) {
        Ok(regex) if body(answer).is_some_and(|(body, _)| regex.is_match(&body)) => Verdict::Passed,
        Ok(_) => Verdict::Failed(format!("it answered {status}, and its body does not match `{pattern}`")),
        Err(e) => Verdict::Unasked(e.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Target;

    fn want(body: Option<&str>) -> Http {
        Http {
            url: String::new(),
            to: Target::Unix("/x".into()),
            path: "/health".into(),
            host: "localhost".into(),
            status: (200, 399),
            body: body.map(str::to_owned),
            headers: [("host".to_owned(), "web.example".to_owned())].into(),
        }
    }

    #[test]
    fn a_request_has_one_host() {
        let text = request(&want(None));
        assert!(text.starts_with("GET /health HTTP/1.1\r\n") && text.ends_with("Connection: close\r\n\r\n"));
        assert_eq!(text.to_ascii_lowercase().matches("host:").count(), 1, "{text}");
    }

    #[test]
    fn the_status_decides() {
        for (answer, verdict) in [
            ("HTTP/1.1 200 OK\r\n", Verdict::Passed),
            ("HTTP/1.0 302 Found\n", Verdict::Passed),
            ("HTTP/1.1 500 Oh\r\n", Verdict::Failed("it answered 500".into())),
            ("HTTP/1.1 20\r\n", Verdict::Failed("its answer is not HTTP".into())),
            ("SSH-2.0-OpenSSH\r\n", Verdict::Failed("its answer is not HTTP".into())),
            ("", Verdict::Failed("it closed the connection without an answer".into())),
            ("HTTP/1.1 20", Verdict::Failed("it closed the connection within its answer".into())),
        ] {
            assert_eq!(judge(&want(None), answer.as_bytes()), verdict, "{answer:?}");
        }
        assert!(!enough(&want(None), b"HTTP/1.1 200"), "the number may go on");
        assert!(enough(&want(None), &[b'x'; 9000]), "a line without an end is not waited for");
    }

    #[test]
    fn a_body_is_matched_whole_or_in_chunks() {
        let get = want(Some("^\\{\"up\":true"));
        let plain = b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{\"up\":true}";
        let chunks = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n\
              5\r\n{\"up\"\r\n6;x=y\r\n:true}\r\n0\r\n\r\n";
        for answer in [&plain[..], &chunks[..]] {
            assert_eq!(judge(&get, answer), Verdict::Passed);
            assert!(enough(&get, answer));
            assert!(!enough(&get, &answer[..answer.len() - 8]), "{}", String::from_utf8_lossy(answer));
        }
        let down = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{\"up\":false}";
        assert!(matches!(judge(&get, down), Verdict::Failed(_)));
    }

    #[test]
    fn no_size_of_a_chunk_is_believed() {
        assert_eq!(unchunked(b"ffffffffffffffff\r\nabc"), (b"abc".to_vec(), false));
        assert_eq!(unchunked(b"zz\r\nabc"), (Vec::new(), true));
    }
}
