//! KEEPS output: one thread that moves bytes from pipes to files, rotates and accounts; and for each file system
//! one that prunes, compresses and brings files to the disk behind it. No view of supervision.
//!
//! Bytes are in a pipe or in a file, never in our memory, so a SIGKILL at any instruction loses, doubles
//! and tears nothing.

#![forbid(unsafe_code)]

mod alarm;
pub mod budget;
pub mod counters;
pub mod engine;
mod gzip;
pub mod history;
pub mod housekeeper;
mod marks;
mod place;
mod pump;
pub mod read;
pub mod rolling;
pub mod rotate;
pub mod schedule;
mod scratch;
mod store;
mod stream;
mod upkeep;

pub use counters::Counters;
pub use engine::{Engine, Report};
pub use housekeeper::Housekeeper;
pub use read::{From, Line, Next, Place, Query, Reader, View};
pub use rolling::RollingFile;

#[cfg(test)]
mod history_tests;
#[cfg(test)]
mod schedule_tests;
