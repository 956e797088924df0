//! HTTP/1.1 over the daemon's unix socket.

use super::fail::{FORBIDDEN, Fail, UNREACHABLE};
use crate::wire;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::Incoming,
    client::conn::http1::{SendRequest, handshake},
    header::{CONTENT_TYPE, HOST},
};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, de::DeserializeOwned};
use std::{io, path::PathBuf, time::Duration};
use tokio::net::UnixStream;

/// How long keepd may take for what it answers from a snapshot.
pub(super) const SOON: Duration = Duration::from_secs(10);
/// How long the files may take to be loaded.
pub(super) const LOAD: Duration = Duration::from_secs(120);

/// The daemon, by the sockets where it may be.
#[derive(Debug, Clone)]
pub(super) struct Server {
    sockets: Vec<PathBuf>,
}

impl Server {
    pub(super) fn new(sockets: Vec<PathBuf>) -> Server {
        Server { sockets }
    }

    /// The user said which one.
    pub(super) fn is_named(&self) -> bool {
        self.sockets.len() == 1
    }

    /// A connection to the first socket that somebody listens on.
    pub(super) async fn connect(&self) -> Result<Client, Fail> {
        let mut failures = Vec::new();
        for socket in &self.sockets {
            match UnixStream::connect(socket).await {
                Ok(stream) => return Client::new(stream).await,
                Err(e) => failures.push((socket, e)),
            }
        }
        // Where nobody said which socket, those that are not there are not worth a word beside others.
        let there = failures.iter().any(|(_, e)| e.kind() != io::ErrorKind::NotFound);
        failures.retain(|(_, e)| !there || e.kind() != io::ErrorKind::NotFound);
        if !there {
            failures.truncate(1);
        }
        let denied = failures.iter().any(|(_, e)| e.kind() == io::ErrorKind::PermissionDenied);
        let each: Vec<String> = failures
            .iter()
            .map(|(s, e)| format!("cannot reach keepd at {}: {}", s.display(), plain(e)))
            .collect();
        let status = if denied { FORBIDDEN } else { UNREACHABLE };
        Err(Fail::new(status, format!("{}; is it running? (--socket names another socket)", each.join("; "))))
    }
}

/// The cause without the number that Rust adds to it.
fn plain(e: &io::Error) -> String {
    let text = e.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_string()
}

/// One connection; calls follow one another.
#[derive(Debug)]
pub(super) struct Client {
    sender: SendRequest<Full<Bytes>>,
}

impl Client {
    async fn new(stream: UnixStream) -> Result<Client, Fail> {
        let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(broken)?;
        // It ends with the connection; what went wrong is seen by the call that waits for it.
        tokio::spawn(connection);
        Ok(Client { sender })
    }

    /// `GET path`, as JSON.
    pub(super) async fn get<T: DeserializeOwned>(&mut self, path: &str, within: Duration) -> Result<T, Fail> {
        decode(&self.get_text(path, within).await?)
    }

    /// `GET path`, as it comes.
    pub(super) async fn get_text(&mut self, path: &str, within: Duration) -> Result<Bytes, Fail> {
        limited(within, async { text(self.open(path).await?).await }).await
    }

    /// `POST path`, as JSON.
    pub(super) async fn post<T: DeserializeOwned>(
        &mut self,
        path: &str,
        body: Bytes,
        within: Duration,
    ) -> Result<T, Fail> {
        decode(&limited(within, async { text(self.send(Method::POST, path, body).await?).await }).await?)
    }

    /// As [`Client::post`] for an action: one result per instance. A conflict is a result as well.
    pub(super) async fn act(
        &mut self,
        path: &str,
        body: Bytes,
        within: Duration,
    ) -> Result<Vec<wire::ActionResult>, Fail> {
        let answer = limited(within, async {
            let response = self.call(Method::POST, path, body).await?;
            let status = response.status();
            Ok((status, text(response.into_body()).await?))
        });
        let (status, body) = answer.await?;
        if status.is_success() {
            return Ok(decode::<wire::Results>(&body)?.results);
        }
        let problem = problem(status, &body);
        if problem.results.is_empty() { Err(problem.into()) } else { Ok(problem.results) }
    }

    /// `GET path`; the body comes as it comes.
    pub(super) async fn open(&mut self, path: &str) -> Result<Incoming, Fail> {
        self.send(Method::GET, path, Bytes::new()).await
    }

    async fn send(&mut self, method: Method, path: &str, body: Bytes) -> Result<Incoming, Fail> {
        let response = self.call(method, path, body).await?;
        let status = response.status();
        if status.is_success() {
            return Ok(response.into_body());
        }
        Err(problem(status, &text(response.into_body()).await?).into())
    }

    async fn call(&mut self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>, Fail> {
        let mut request = Request::builder().method(method).uri(path).header(HOST, "keepd");
        if !body.is_empty() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let request = request
            .body(Full::new(body))
            .map_err(|e| Fail::new(super::fail::USAGE, format!("cannot ask for {path}: {e}")))?;
        self.sender.ready().await.map_err(broken)?;
        self.sender.send_request(request).await.map_err(broken)
    }
}

fn problem(status: StatusCode, body: &[u8]) -> wire::Problem {
    serde_json::from_slice(body).unwrap_or_else(|_| wire::Problem {
        status: status.as_u16(),
        detail: format!("keepd answered {status}"),
        ..wire::Problem::default()
    })
}

async fn text(body: Incoming) -> Result<Bytes, Fail> {
    Ok(body.collect().await.map_err(broken)?.to_bytes())
}

async fn limited<T>(within: Duration, call: impl Future<Output = Result<T, Fail>>) -> Result<T, Fail> {
    let late = || {
        let detail =
            format!("keepd has not answered within {} s; it may be overloaded or stopped", within.as_secs());
        Fail::new(UNREACHABLE, detail)
    };
    tokio::time::timeout(within, call).await.unwrap_or_else(|_| Err(late()))
}

/// Reads JSON; what is borrowed stays in `body`.
pub(super) fn decode<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Fail> {
    serde_json::from_slice(body).map_err(|e| {
        let detail =
            format!("cannot read keepd's answer: {e}; keepctl and keepd may be of different versions");
        Fail::new(UNREACHABLE, detail)
    })
}

/// The connection ended in the middle.
pub(super) fn broken(e: hyper::Error) -> Fail {
    let detail = format!("keepd closed the connection before it had answered ({e}); see `keepctl status`");
    Fail::new(UNREACHABLE, detail)
}

/// One segment of a path, percent-encoded.
pub(super) fn segment(name: &str) -> String {
    let mut out = String::with_capacity(name.len());
    for b in name.bytes() {
        if b.is_ascii_alphanumeric() || b"-._~@".contains(&b) {
            out.push(char::from(b));
        } else {
            out.push_str(&format!("%{b:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_segment() {
        assert_eq!(segment("web@0"), "web@0");
        assert_eq!(segment("a/b?c#d e%\u{e9}"), "a%2Fb%3Fc%23d%20e%25%C3%A9");
    }

    #[tokio::test]
    async fn an_absent_daemon_is_status_69_and_named() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("api.sock");
        let fail =
            Server::new(vec![socket.clone(), dir.path().join("other.sock")]).connect().await.unwrap_err();
        let wanted =
            format!("cannot reach keepd at {}: No such file or directory; is it running?", socket.display());
        assert!(fail.message.starts_with(&wanted), "{}", fail.message);
        assert_eq!(fail.status, UNREACHABLE);
    }

    #[tokio::test]
    async fn a_stale_socket_does_not_hide_the_next_one() {
        let dir = tempfile::tempdir().unwrap();
        let (stale, live) = (dir.path().join("a.sock"), dir.path().join("b.sock"));
        drop(std::os::unix::net::UnixListener::bind(&stale).unwrap());
        let server = Server::new(vec![stale.clone(), live.clone()]);
        let fail = server.connect().await.unwrap_err();
        assert!(
            fail.message.contains(&format!("{}: Connection refused;", stale.display())),
            "{}",
            fail.message
        );
        assert!(!fail.message.contains("b.sock"));
        let _listener = std::os::unix::net::UnixListener::bind(&live).unwrap();
        assert!(server.connect().await.is_ok());
    }
}
