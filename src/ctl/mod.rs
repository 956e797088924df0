//! The client, `keepctl`: arguments to calls of the API, answers to text and an exit status. It holds no state and
//! decides nothing; all but `check`, `import` and `completions` is asked of the daemon.

#![forbid(unsafe_code)]

mod act;
mod args;
mod check;
mod client;
mod complete;
mod doctor;
mod events;
mod exec;
mod explain;
mod fail;
mod import;
mod logs;
mod plan;
mod select;
mod shutdown;
mod socket;
mod status;
mod table;
#[cfg(test)]
mod tests;
mod text;
mod tree;
mod upgrade;
mod why;

use args::{Cli, Command};
use clap::{CommandFactory, Parser};
use client::Server;
use fail::Fail;
use std::{
    ffi::OsString,
    io::{self, Write},
    process::ExitCode,
};
use text::Look;

/// So much is printed with one write.
const OUTPUT: usize = 64 * 1024;

/// Does what the command line says and returns the exit status.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    match complete::answer(&args) {
        Ok(false) => {}
        Ok(true) => return ExitCode::SUCCESS,
        Err(e) => {
            let _ = e.print();
            return ExitCode::from(fail::USAGE);
        }
    }
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(e) => {
            // Help for a reader that has gone away is no error.
            let _ = e.print();
            return ExitCode::from(u8::try_from(e.exit_code()).unwrap_or(fail::USAGE));
        }
    };
    match run(cli) {
        Ok(status) => ExitCode::from(status),
        Err(fail) => {
            if !fail.message.is_empty() {
                let _ = writeln!(io::stderr(), "keepctl: {}", fail.message);
            }
            ExitCode::from(fail.status)
        }
    }
}

fn run(cli: Cli) -> Result<u8, Fail> {
    let look = Look::of_stdout();
    let server = Server::new(socket::candidates(cli.socket, &socket::Surroundings::of_process()));
    let mut out = io::BufWriter::with_capacity(OUTPUT, io::stdout().lock());
    let done = async {
        match cli.command {
            Command::Status(a) => status::run(&server, &a, look, &mut out).await,
            Command::Start(a) => act::run(&server, "start", &a.into(), &mut out).await,
            Command::Stop(a) => act::run(&server, "stop", &a.into(), &mut out).await,
            Command::Restart(a) => act::run(&server, "restart", &a.into(), &mut out).await,
            Command::Reload(a) => act::run(&server, "reload", &a.into(), &mut out).await,
            Command::Signal(a) => act::run(&server, "signal", &a.into(), &mut out).await,
            Command::Logs(a) => logs::run(&server, &a, look, &mut out).await,
            Command::Why(a) => why::run(&server, &a, look, &mut out).await,
            Command::Events(a) => events::run(&server, &a, &mut out).await,
            Command::Exec(a) => exec::run(&server, &a).await,
            Command::Check(a) => check::run(&a, look, &mut out),
            Command::Import(a) => import::run(&a, &mut out, &mut io::stderr()),
            Command::Plan(a) => plan::plan(&server, &a, look, &mut out).await,
            Command::Apply(a) => plan::apply(&server, &a, look, &mut out).await,
            Command::Reopen => shutdown::reopen(&server, &mut out).await,
            Command::Doctor(a) => doctor::run(&server, &a, &mut out).await,
            Command::Upgrade => upgrade::run(&server, &mut out).await,
            Command::Shutdown(a) => shutdown::run(&server, &a, &mut out).await,
            Command::Completions { shell } => Ok(completion_script(shell, &mut out).map(|()| 0)?),
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let result = runtime.map_err(|e| Fail::new(1, format!("cannot start: {e}")))?.block_on(done);
    // What was printed comes before the message about what failed.
    out.flush()?;
    result
}

/// The command line as clap knows it, for documentation.
pub fn command() -> clap::Command {
    Cli::command()
}

/// Writes the completion script for a shell, as `keepctl completions` prints it.
pub fn completion_script(shell: clap_complete::Shell, out: &mut impl Write) -> io::Result<()> {
    complete::script(shell, out)
}
