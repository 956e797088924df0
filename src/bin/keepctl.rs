//! The client: see `keepd::ctl`.

use std::process::ExitCode;

fn main() -> ExitCode {
    keepd::ctl::main(std::env::args_os())
}
