//! ASKS services how they are: one GET, one connection, one look at a log. It keeps no time table and decides
//! nothing; whoever asks says what and for how long, and gets a [`Verdict`].
//!
//! Nothing here holds on to anything between two questions but a [`Tail`], and nothing waits past its time: a
//! service that accepts and is silent, or answers byte by byte, has failed when the time is up.

#![forbid(unsafe_code)]

mod http;
mod tail;

pub use tail::Tail;

use crate::plan::{Check, Millis, Target, Verdict};
use std::{io, net::SocketAddr, path::Path, time::Duration};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};

/// A connection of either kind.
trait Stream: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Stream for T {}

/// Asks once. What is asked of nobody here (notify, fd, exec, log) is `Unasked`.
pub async fn ask(check: &Check, within: Millis) -> Verdict {
    let asked = async {
        match check {
            Check::Http(get) => http::get(get).await,
            Check::Tcp(addresses) => verdict(tcp(addresses).await),
            Check::Unix(path) => verdict(unix(path).await),
            Check::Notify | Check::Fd(_) | Check::Exec(_) | Check::Log(_) => {
                Verdict::Unasked(format!("`{}` is not asked by connecting", check.word()))
            }
        }
    };
    match timeout(Duration::from_millis(within.0), asked).await {
        Ok(verdict) => verdict,
        Err(_) => Verdict::Failed(format!("no answer within {within}")),
    }
}

fn verdict<T>(connected: io::Result<T>) -> Verdict {
    connected.map_or_else(|e| trouble(&e), |_| Verdict::Passed)
}

/// What an error says of the service; that we are short of something says nothing of it.
fn trouble(e: &io::Error) -> Verdict {
    const OURS: [i32; 6] =
        [libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::ENOBUFS, libc::EADDRNOTAVAIL, libc::EPERM];
    let text = match e.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        io::ErrorKind::NotFound => "the socket is not there".to_owned(),
        io::ErrorKind::PermissionDenied => "keepd's manager may not connect to the socket".to_owned(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => "the connection was reset".to_owned(),
        _ => e.to_string(),
    };
    match e.raw_os_error() {
        Some(errno) if OURS.contains(&errno) => Verdict::Unasked(text),
        _ => Verdict::Failed(text),
    }
}

async fn connect(to: &Target) -> io::Result<Box<dyn Stream>> {
    Ok(match to {
        Target::Tcp(addresses) => Box::new(tcp(addresses).await?),
        Target::Unix(path) => Box::new(unix(path).await?),
    })
}

/// The first that takes it; the error is of the last.
async fn tcp(addresses: &[SocketAddr]) -> io::Result<TcpStream> {
    TcpStream::connect(addresses).await
}

async fn unix(path: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(path).await
}
