//! KEEPS output: one thread that moves bytes from pipes to files, rotates and accounts. No view of supervision.

pub mod counters;

pub use counters::Counters;
