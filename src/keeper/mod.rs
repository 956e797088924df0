//! HOLDS: the root process. It forks, waits and keeps; it decides nothing.

pub mod protocol;
