//! The helper service.
fn main() {}
