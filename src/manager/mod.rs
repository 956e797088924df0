//! ACTS: the one actor that owns the machine and performs its effects through the keeper.

pub mod events;
pub mod handle;
mod logstream;
pub mod snapshot;

pub use handle::{Action, Handle, Refusal};
pub use logstream::LogStream;
