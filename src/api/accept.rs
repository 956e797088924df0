//! The socket: who connects, how many may, and how long each may take. A slow, stuck or hostile client costs its
//! own slot for a bounded time and nothing else.

use super::{Rights, answer, route::Role, stall::StallGuard};
use crate::{
    manager::Handle,
    sys::peer::{self, Peer},
};
use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use std::{
    convert::Infallible,
    fs, io,
    os::{
        fd::AsFd,
        unix::fs::{FileTypeExt, MetadataExt, PermissionsExt},
    },
    path::Path,
    sync::Arc,
    time::Duration,
};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinSet,
};

/// Bounds of what clients can cost.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// Connections in all.
    pub(super) connections: usize,
    /// Of these, kept free for admins.
    pub(super) reserved: usize,
    /// Of these, at most so many from callers without rights.
    pub(super) strangers: usize,
    /// A request's head must be complete so long after the last answer (or the connection).
    pub(super) head: Duration,
    /// And its body so long after the head.
    pub(super) body: Duration,
    /// A client that takes nothing of its answer for so long is given up.
    pub(super) stall: Duration,
    /// Pause after a failed accept (such as: out of descriptors).
    pub(super) pause: Duration,
}

const LIMITS: Limits = Limits {
    connections: 256,
    reserved: 8,
    strangers: 16,
    head: Duration::from_secs(5),
    body: Duration::from_secs(10),
    stall: Duration::from_secs(30),
    pause: Duration::from_millis(100),
};
const HEADERS_MAX: usize = 64;
const HEAD_BYTES_MAX: usize = 16 * 1024;

/// Sent instead of an answer where there is no slot.
const FULL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/problem+json\r\n\
retry-after: 1\r\nconnection: close\r\ncontent-length: 131\r\n\r\n\
{\"type\":\"about:blank\",\"title\":\"Service Unavailable\",\"status\":503,\
\"detail\":\"cannot serve another connection now; try again shortly\"}";

/// Makes the socket and listens. Everybody may connect, as rights follow from the kernel's record of the caller.
/// A socket that an earlier process left is replaced in one step, so clients never find none.
///
/// # Errors
/// Of the file system; where something else than a socket has this path.
pub fn bind(path: &Path) -> io::Result<std::os::unix::net::UnixListener> {
    if fs::symlink_metadata(path).is_ok_and(|m| !m.file_type().is_socket()) {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "there is a file that is no socket"));
    }
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push("~");
    let fresh = path.with_file_name(name);
    match fs::remove_file(&fresh) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(e),
        _ => {}
    }
    let listener = std::os::unix::net::UnixListener::bind(&fresh)?;
    fs::set_permissions(&fresh, fs::Permissions::from_mode(0o666))?;
    fs::rename(&fresh, path)?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// What the socket at `path` is known by: as long as this stays the same, so does the socket.
///
/// # Errors
/// Of the file system.
pub fn mark(path: &Path) -> io::Result<String> {
    let file = fs::symlink_metadata(path)?;
    Ok(format!("api-{:x}-{:x}", file.dev(), file.ino()))
}

/// What every connection uses.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) handle: Handle,
    pub(super) rights: Arc<Rights>,
    pub(super) limits: Limits,
}

/// Serves for ever; dropping the future ends every connection. The rights hold for the life of
/// the manager.
pub async fn serve(listener: UnixListener, handle: Handle, rights: Arc<Rights>) {
    accept(listener, Context { handle, rights, limits: LIMITS }).await;
}

pub(super) async fn accept(listener: UnixListener, context: Context) {
    let limits = context.limits;
    let context = Arc::new(context);
    let slots = Slots::new(&limits);
    let mut connections = JoinSet::new();
    let mut failing = false;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
        };
        match accepted {
            Ok((stream, _)) => {
                failing = false;
                admit(stream, &context, &slots, &mut connections);
            }
            Err(e) => {
                if !failing {
                    tracing::warn!("cannot accept a connection to the API: {e}; it is tried again and again");
                }
                failing = true;
                #[expect(clippy::disallowed_methods, reason = "a pause of this loop that decides nothing")]
                tokio::time::sleep(limits.pause).await;
            }
        }
    }
}

fn admit(stream: UnixStream, context: &Arc<Context>, slots: &Slots, connections: &mut JoinSet<()>) {
    let peer = match peer::credentials(stream.as_fd()) {
        Ok(peer) => peer,
        Err(e) => {
            tracing::warn!("cannot tell who has connected to the API: {e}; the connection is closed");
            return;
        }
    };
    let role = context.rights.role(&peer);
    let Some(slot) = slots.take(role) else {
        // Whether the client gets to see it or not, it must not cost us more than this.
        let _ = stream.try_write(FULL);
        return;
    };
    let context = context.clone();
    connections.spawn(async move {
        converse(stream, peer, context).await;
        drop(slot);
    });
}

/// Serves one connection to its end.
pub(super) async fn converse(stream: UnixStream, peer: Peer, context: Arc<Context>) {
    let limits = context.limits;
    let peer = Arc::new(peer);
    let service = service_fn(move |request| {
        let (context, peer) = (context.clone(), peer.clone());
        async move { Ok::<_, Infallible>(answer::answer(&context, &peer, request).await) }
    });
    let result = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        .max_headers(HEADERS_MAX)
        .max_buf_size(HEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(StallGuard::new(stream, limits.stall)), service)
        .await;
    if let Err(e) = result {
        tracing::debug!("a connection to the API ended: {e}");
    }
}

/// Places for connections: all, and those that are not for admins.
struct Slots {
    all: Arc<Semaphore>,
    readers: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
}

impl Slots {
    fn new(limits: &Limits) -> Slots {
        let readers = limits.connections.saturating_sub(limits.reserved + limits.strangers);
        Slots {
            all: Arc::new(Semaphore::new(limits.connections)),
            readers: Arc::new(Semaphore::new(readers)),
            strangers: Arc::new(Semaphore::new(limits.strangers)),
        }
    }

    /// `None`: there is no room for a caller of this role.
    fn take(&self, role: Role) -> Option<(OwnedSemaphorePermit, Option<OwnedSemaphorePermit>)> {
        let of_role = match role {
            Role::Admin => None,
            Role::Reader => Some(self.readers.clone().try_acquire_owned().ok()?),
            Role::Stranger => Some(self.strangers.clone().try_acquire_owned().ok()?),
        };
        Some((self.all.clone().try_acquire_owned().ok()?, of_role))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixStream as Client;

    #[test]
    fn readers_and_strangers_leave_room_for_admins() {
        let slots = Slots::new(&LIMITS);
        let fill = |role| std::iter::from_fn(|| slots.take(role)).collect::<Vec<_>>();
        let (strangers, readers) = (fill(Role::Stranger), fill(Role::Reader));
        assert_eq!((strangers.len(), readers.len()), (16, 232));
        assert_eq!(fill(Role::Admin).len(), 8);
        drop(readers);
        assert_eq!(fill(Role::Admin).len(), 240);
    }

    #[test]
    fn the_answer_without_a_slot_is_well_formed() {
        let text = std::str::from_utf8(FULL).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{}", body.len());
        let problem: crate::wire::Problem = serde_json::from_str(body).unwrap();
        assert_eq!((problem.status, problem.title.as_str()), (503, "Service Unavailable"));
    }

    #[test]
    fn a_stale_socket_is_replaced_and_everybody_may_connect() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api.sock");
        drop(bind(&path).unwrap());
        assert_eq!(Client::connect(&path).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
        // What an interrupted earlier start may have left.
        fs::write(dir.path().join("api.sock~"), "").unwrap();
        let _listener = bind(&path).unwrap();
        Client::connect(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o666);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn other_files_are_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("precious");
        fs::write(&path, "data").unwrap();
        assert_eq!(bind(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "data");
    }
}
