//! Events: of the stream, and as hooks get them.

use super::{LastExit, why};
use serde::{Deserialize, Serialize};

/// One event, as `data` of the event stream.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Rises by one; the `id` of the stream.
    pub id: u64,
    /// RFC 3339, UTC.
    pub at: String,
    /// state, ready, exit, incident, launch_failed, unhealthy, oom, watch, failed, recovered, stuck, applied,
    /// shutdown, log, log_loss, hook, manager
    pub kind: String,
    /// `null`: the daemon as a whole.
    pub service: Option<String>,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub run_id: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub exit: Option<LastExit>,
    /// Of a `state`: the one that it has now.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub state: Option<String>,
    /// Of an `incident`: what happens next.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub next: Option<why::Next>,
    /// For a hook: so many more of this kind were folded into this one, within so long.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub folded: Option<Folded>,
}

/// Events of a service and kind that a hook was not called for one by one.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Folded {
    pub more: u64,
    pub within_ms: u64,
}
