//! HTTP/1.1 over the unix socket. Reads are answered from the newest snapshot; wishes go through the manager's
//! handle. Nothing here decides anything, knows the machine, or waits for one client at the cost of another.
//!
//! Everybody on the host may connect; what a caller may do follows from the credentials that the kernel
//! recorded for the connection, and a caller without rights is refused before its request is looked at.

#![forbid(unsafe_code)]

mod accept;
mod answer;
mod events;
mod exposition;
mod logs;
mod metrics;
mod query;
mod reply;
mod rights;
pub mod route;
mod stall;
#[cfg(test)]
pub(crate) mod tests;

pub use accept::{bind, mark, serve};
pub use rights::Rights;
