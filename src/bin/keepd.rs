//! The daemon: see `keepd::daemon`.

use std::process::ExitCode;

fn main() -> ExitCode {
    ExitCode::from(u8::try_from(keepd::daemon::main(std::env::args_os())).unwrap_or(70))
}
