//! The daemon: see `keepd::daemon`.
fn main() {}
