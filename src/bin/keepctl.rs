//! The client: see `keepd::ctl`.
fn main() {}
