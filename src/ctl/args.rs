//! The command line. Names here are a contract with scripts.

use super::complete;
use clap::{Args, Parser, Subcommand};
use clap_complete::ArgValueCandidates;
use std::path::PathBuf;

const STATUSES: &str = "\
Exit status: 0 as wished; 1 did not get there; 2 usage; 3 a listed service is not running; 4 unknown name; \
5 not all was imported; 69 keepd not reachable; 77 not permitted; 78 configuration broken.
The socket is the one of --socket, else of $KEEPD_SOCKET, else /run/keepd/api.sock, else the user's own.";

/// As the API has it.
const LINES_MAX: u64 = 1_000_000;

/// Control keepd, the process supervisor.
#[derive(Debug, Parser)]
#[command(name = "keepctl", version, after_help = STATUSES, disable_help_subcommand = true)]
pub(super) struct Cli {
    /// Socket of the daemon
    #[arg(long, global = true, value_name = "PATH")]
    pub(super) socket: Option<PathBuf>,
    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Show all services, or one in full
    Status(StatusArgs),
    /// Start services and wait until they are ready
    Start(ActArgs),
    /// Stop services and wait until nothing of them is left
    Stop(ActArgs),
    /// Stop and start services, and wait until they are ready again
    Restart(ActArgs),
    /// Let services re-read their own configuration
    Reload(ActArgs),
    /// Send a signal to the main processes of services
    Signal(SignalArgs),
    /// Show what services have printed
    Logs(LogsArgs),
    /// Show why a service ended or did not start, and what happens next
    Why(WhyArgs),
    /// Show what has happened
    Events(EventsArgs),
    /// Run a command in a service: as its user, in its sandbox, environment and cgroup
    Exec(ExecArgs),
    /// Check configuration files, without keepd
    Check(CheckArgs),
    /// Print what another supervisor is configured with as keepd's configuration
    Import(super::import::ImportArgs),
    /// Show what `apply` would change
    Plan(PlanArgs),
    /// Take the configuration files over, all or nothing
    Apply(ApplyArgs),
    /// Open all log files by their names again, after somebody moved them
    Reopen,
    /// Show how much of what keepd promises this host can hold, and what would raise it
    Doctor(DoctorArgs),
    /// Let keepd go on as the program that is installed now; no service notices
    Upgrade,
    /// Stop all services in order, then keepd itself
    Shutdown(ShutdownArgs),
    /// Print a completion script for a shell
    Completions {
        /// The shell that is to load it
        shell: clap_complete::Shell,
    },
}

#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Services, instances, or patterns such as `web*`
    #[arg(add = ArgValueCandidates::new(complete::services))]
    pub(super) names: Vec<String>,
    /// Show who depends on whom
    #[arg(long, conflicts_with = "json")]
    pub(super) tree: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ActArgs {
    /// Services, instances, or patterns such as `web*`
    #[arg(required_unless_present = "all", value_name = "NAME", add = ArgValueCandidates::new(complete::services))]
    pub(super) names: Vec<String>,
    /// All services
    #[arg(long, conflicts_with = "names")]
    pub(super) all: bool,
    #[command(flatten)]
    pub(super) wait: WaitArgs,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct SignalArgs {
    /// Such as SIGUSR1, USR1 or 10
    #[arg(value_name = "SIG")]
    pub(super) signal: String,
    /// Services, instances, or patterns such as `web*`
    #[arg(required = true, value_name = "NAME", add = ArgValueCandidates::new(complete::services))]
    pub(super) names: Vec<String>,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Clone, Args)]
pub(super) struct WaitArgs {
    /// Do not wait for the outcome
    #[arg(long)]
    pub(super) no_wait: bool,
    /// Give up waiting after so long (it goes on nevertheless)
    #[arg(long, value_name = "DURATION", default_value = "10m", conflicts_with = "no_wait")]
    pub(super) timeout: String,
}

#[derive(Debug, Args)]
pub(super) struct LogsArgs {
    /// Services, instances, or patterns such as `web*`; all where none is named
    #[arg(value_name = "NAME", add = ArgValueCandidates::new(complete::services))]
    pub(super) names: Vec<String>,
    /// Go on with what comes
    #[arg(short, long)]
    pub(super) follow: bool,
    /// Only the last so many lines of each [default: 100, with --since all]
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u64).range(..=LINES_MAX))]
    pub(super) lines: Option<u64>,
    /// Not what was written before: 1h, today, yesterday, 10:42, "2026-11-21 10:42", RFC 3339
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub(super) since: Option<String>,
    /// Not what was written after
    #[arg(long, value_name = "TIME", allow_hyphen_values = true, conflicts_with = "follow")]
    pub(super) until: Option<String>,
    /// Only lines in which this regular expression is found; `(?i)` before it ignores case
    #[arg(long, value_name = "REGEX", allow_hyphen_values = true)]
    pub(super) grep: Option<String>,
    /// Put the time before each line
    #[arg(short, long)]
    pub(super) times: bool,
    /// Only stderr, where it is kept apart
    #[arg(long)]
    pub(super) stderr: bool,
    /// Read the files below this folder, without keepd
    #[arg(long, value_name = "FOLDER")]
    pub(super) dir: Option<PathBuf>,
    /// Print JSON, one object a line
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct WhyArgs {
    /// A service or instance
    #[arg(value_name = "NAME", add = ArgValueCandidates::new(complete::services))]
    pub(super) name: String,
    /// So many dossiers, newest first
    #[arg(short = 'n', long, value_name = "N", default_value_t = 1)]
    pub(super) last: usize,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct EventsArgs {
    /// Go on with what comes
    #[arg(short, long)]
    pub(super) follow: bool,
    /// Only the last so many of those that keepd still has [default: all, with --follow 10]
    #[arg(short = 'n', long, value_name = "N")]
    pub(super) last: Option<usize>,
    /// Print JSON, one event a line
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Exit status: the command's; 128 and the signal's number where one ended it; 127 it is not there; 126 it cannot be \
executed; 125 it was not tried. The command ends with the service's run at the latest. Takes root.")]
pub(super) struct ExecArgs {
    /// Give it our stdin and stdout themselves, not a terminal, even where they are one
    #[arg(short = 'T', long)]
    pub(super) no_terminal: bool,
    /// A service or instance that is running
    #[arg(value_name = "NAME", add = ArgValueCandidates::new(complete::services))]
    pub(super) name: String,
    /// Program and arguments
    #[arg(required = true, last = true, value_name = "COMMAND")]
    pub(super) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(super) struct CheckArgs {
    /// The main file; the `conf.d` folder beside it is read as well [default: where keepd looks]
    pub(super) config: Option<PathBuf>,
    /// How errors are shown
    #[arg(long, value_enum, default_value_t = CheckFormat::Full)]
    pub(super) format: CheckFormat,
    /// Say what starts before this service, and when it is restarted if it fails
    #[arg(long, value_name = "NAME", conflicts_with = "json")]
    pub(super) explain: Option<String>,
    /// As a keepd of an ordinary user, even as root
    #[arg(long)]
    pub(super) user: bool,
    /// Overlay to choose
    #[arg(long, value_name = "NAME", env = "KEEPD_PROFILE")]
    pub(super) profile: Option<String>,
    /// Print JSON
    #[arg(long, conflicts_with = "format")]
    pub(super) json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum CheckFormat {
    /// With the line in question
    Full,
    /// A line each: FILE:LINE:COLUMN: error: ...
    Short,
}

#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct PlanArgs {
    /// Exit with status 2 if there are changes
    #[arg(long)]
    pub(super) exit_code: bool,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ApplyArgs {
    #[command(flatten)]
    pub(super) wait: WaitArgs,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct ShutdownArgs {
    /// Kill at once instead of stopping in order
    #[arg(long)]
    pub(super) force: bool,
    /// Do not wait until keepd has exited
    #[arg(long)]
    pub(super) no_wait: bool,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn usage_errors_are_status_2() {
        for wrong in [
            &["keepctl"][..],
            &["keepctl", "frobnicate"],
            &["keepctl", "start"],
            &["keepctl", "start", "--all", "web"],
            &["keepctl", "stop", "web", "--no-wait", "--timeout", "5s"],
            &["keepctl", "signal", "HUP"],
            &["keepctl", "logs", "-n", "-1"],
        ] {
            assert_eq!(Cli::try_parse_from(wrong).unwrap_err().exit_code(), 2, "{wrong:?}");
        }
        assert_eq!(Cli::try_parse_from(["keepctl", "--help"]).unwrap_err().exit_code(), 0);
        assert!(Cli::try_parse_from(["keepctl", "stop", "web", "--socket", "/x"]).is_ok());
    }
}
