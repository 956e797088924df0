//! KEEPS output: one thread that moves bytes from pipes to files, rotates and accounts. No view of supervision.
//!
//! Bytes are in a pipe or in a file, never in our memory, so a SIGKILL at any instruction loses, doubles
//! and tears nothing.

#![forbid(unsafe_code)]

pub mod counters;
pub mod engine;
mod marks;
mod pump;
pub mod read;
pub mod rolling;
pub mod rotate;
mod scratch;
mod store;
mod stream;

pub use counters::Counters;
pub use engine::{Engine, Report};
pub use read::{From, Line, Next, Place, Query, Reader, View};
pub use rolling::RollingFile;
