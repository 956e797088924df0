//! KEEPS output: threads that move bytes from pipes to files, rotate and account; and for each file system one that
//! prunes, compresses and brings files to the disk behind them. No view of supervision.
//!
//! Bytes are in a service's pipe, in a stage (a pipe that the keeper keeps too) or in a file, never in our memory
//! alone, so a SIGKILL at any instruction loses, doubles and tears nothing. One thread writes for each file
//! system; one more, the guard, looks after the services whose writer is stuck in a file system. Where lines are
//! forwarded, a thread for each file system reads them back.

#![forbid(unsafe_code)]

pub mod budget;
mod calendar;
pub mod counters;
pub mod engine;
mod fair;
mod feed;
mod format;
mod forward;
mod guard;
mod gzip;
pub mod history;
pub mod housekeeper;
mod intake;
mod ledger;
mod marks;
mod place;
mod pour;
pub mod read;
mod register;
pub mod rolling;
pub mod rotate;
pub mod schedule;
mod scratch;
mod stage;
mod store;
mod stream;
mod upkeep;
pub mod vault;
mod writer;

pub use counters::Counters;
pub use engine::{Engine, Report};
pub use forward::Receivers;
pub use housekeeper::Housekeeper;
pub use read::{From, Line, Next, Place, Query, Reader, View};
pub use rolling::RollingFile;
pub use vault::{Keep, Vault};

#[cfg(test)]
mod history_tests;
#[cfg(test)]
mod schedule_tests;
