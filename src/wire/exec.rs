//! How `keepctl exec` and the keeper talk: packets of a SOCK_SEQPACKET socket, each one JSON message. The keeper
//! answers root, or its own user, and nobody else: whoever may ask can become any service's user.

use serde::{Deserialize, Serialize};

/// Name of the socket in keepd's runtime folder.
pub const SOCKET: &str = "exec.sock";
/// Longest packet either side sends, in bytes.
pub const PACKET_MAX: usize = 12 * 1024;

/// The client's first packet. Descriptors: what is to be stdin, stdout and stderr.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// A service instance that is running.
    pub service: String,
    /// Program and arguments.
    pub argv: Vec<String>,
    /// Where stdin is a terminal that the command is to control: what its TERM is to be.
    pub terminal: Option<String>,
}

/// All further packets of the client: a signal for the command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Signal {
    pub signal: i32,
}

/// The keeper's packets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// The command was executed.
    Started { pid: i32 },
    /// It was not; the last packet. `status`: what a shell would exit with.
    Refused { status: u8, why: String },
    /// It has exited; the last packet.
    Exited { code: i32 },
    /// It was killed; the last packet.
    Killed { signal: i32 },
}
