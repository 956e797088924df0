//! KEEPS output: threads that move bytes from pipes to files, rotate and account. No view of supervision.
//!
//! Bytes are in a service's pipe, in a stage (a pipe that the keeper keeps too) or in a file, never in our memory
//! alone, so a SIGKILL at any instruction loses, doubles and tears nothing. One thread writes for each file
//! system; one more, the guard, looks after the services whose writer is stuck in a file system.

#![forbid(unsafe_code)]

pub mod counters;
pub mod engine;
mod feed;
mod format;
mod guard;
mod intake;
mod ledger;
mod pour;
pub mod read;
mod register;
pub mod rolling;
pub mod rotate;
mod scratch;
mod stage;
mod store;
mod stream;
pub mod vault;
mod writer;

pub use counters::Counters;
pub use engine::{Engine, Report};
pub use read::{From, Reader};
pub use rolling::RollingFile;
pub use vault::{Keep, Vault};
