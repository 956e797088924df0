//! Sends events to one receiver, one after the other, on a task of its own: a receiver that hangs or is away costs
//! nobody else anything.

use crate::{
    manager::{events::EventLog, publish},
    plan::{Millis, hook::Webhook},
    wire,
};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{
    Request, StatusCode,
    client::conn::http1::handshake,
    header::{CONTENT_TYPE, HOST, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use std::{sync::Arc, time::Duration};
use tokio::{net::TcpStream, sync::mpsc, task::JoinSet};

/// Pauses before an event is tried again.
const PAUSES: [Duration; 4] =
    [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4), Duration::from_secs(8)];

/// Whom to send to, and how long that may take.
pub(super) struct Post {
    pub(super) name: String,
    pub(super) webhook: Webhook,
    pub(super) timeout: Millis,
    pub(super) log: Arc<EventLog>,
}

/// Why an event was not taken, and whether trying again may help.
struct Trouble {
    why: String,
    again: bool,
}

impl Post {
    /// Sends what comes until the other end is dropped.
    pub(super) async fn work(self, mut events: mpsc::Receiver<wire::Event>) {
        while let Some(event) = events.recv().await {
            if let Err(why) = self.deliver(&event).await {
                let message = format!("hook {}: event {} was not delivered: {why}", self.name, event.id);
                tracing::error!("{message}");
                self.log.push(publish::event("hook", None, message));
            }
        }
    }

    #[allow(clippy::disallowed_methods, reason = "this task alone waits, and nothing depends on it")]
    async fn deliver(&self, event: &wire::Event) -> Result<(), String> {
        let body: Bytes = serde_json::to_vec(event).map_err(|e| e.to_string())?.into();
        let mut pauses = PAUSES.into_iter();
        loop {
            let limit = Duration::from_millis(self.timeout.0);
            let late = || Trouble {
                why: format!("{} did not answer within {}", self.webhook.authority(), self.timeout),
                again: true,
            };
            let sent = tokio::time::timeout(limit, self.send(body.clone())).await;
            let Err(trouble) = sent.unwrap_or_else(|_| Err(late())) else { return Ok(()) };
            match pauses.next().filter(|_| trouble.again) {
                Some(pause) => tokio::time::sleep(pause).await,
                None => return Err(trouble.why),
            }
        }
    }

    async fn send(&self, body: Bytes) -> Result<(), Trouble> {
        let authority = self.webhook.authority();
        let failed = |why: String| Trouble { why: format!("{authority}: {why}"), again: true };
        let stream = TcpStream::connect((self.webhook.host.as_str(), self.webhook.port)).await;
        let stream = stream.map_err(|e| failed(e.to_string()))?;
        let (mut sender, connection) =
            handshake(TokioIo::new(stream)).await.map_err(|e| failed(e.to_string()))?;
        // Ends with this call, however that ends.
        let mut driver = JoinSet::new();
        driver.spawn(connection);
        let request = Request::post(&self.webhook.path)
            .header(HOST, &authority)
            .header(USER_AGENT, concat!("keepd/", env!("CARGO_PKG_VERSION")))
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|e| Trouble { why: e.to_string(), again: false })?;
        let status = sender.send_request(request).await.map_err(|e| failed(e.to_string()))?.status();
        if status.is_success() {
            return Ok(());
        }
        let again = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
        Err(Trouble { why: format!("{authority} answered {status}"), again })
    }
}
