//! The daemon's command line. What it means is decided elsewhere.

use clap::{Parser, Subcommand};
use std::{ffi::OsString, path::PathBuf};

/// keepd supervises services: it starts them, keeps their output, restarts what fails, and tells why.
#[derive(Debug, Clone, Parser)]
#[command(name = "keepd", version, args_conflicts_with_subcommands = true, after_help = AFTER)]
pub struct Args {
    /// What to load.
    #[command(flatten)]
    pub config: ConfigArgs,
    /// Hidden roles.
    #[command(subcommand)]
    pub role: Option<Role>,
}

const AFTER: &str = "\
Signals: TERM and INT stop every service in order (a second one at once), HUP applies the configuration,
USR1 reopens log files.
Exit statuses: 0 stopped, 1 something could not be stopped or another keepd runs, 64 usage, 70 internal,
77 permission, 78 configuration.
Services are looked at and changed with keepctl.";

/// What every role is told.
#[derive(Debug, Clone, clap::Args)]
pub struct ConfigArgs {
    /// Configuration file; /etc/keepd/keepd.toml, or ~/.config/keepd/keepd.toml in user mode, unless given
    #[arg(long, short, value_name = "FILE", global = true)]
    pub config: Option<PathBuf>,
    /// Run as the calling user with files under its home, even as root
    #[arg(long, global = true)]
    pub user: bool,
    /// Overlay to choose
    #[arg(long, value_name = "NAME", env = "KEEPD_PROFILE", global = true)]
    pub profile: Option<String>,
    /// Go to the background once everything is ready; logs go to keepd.log in the log folder
    #[arg(long, global = true)]
    pub daemonize: bool,
}

impl ConfigArgs {
    /// The same again, for a role that is executed.
    pub fn to_argv(&self, role: &str) -> Vec<OsString> {
        let mut argv: Vec<OsString> = vec!["keepd".into(), role.into()];
        if let Some(config) = &self.config {
            argv.extend(["--config".into(), config.clone().into()]);
        }
        if let Some(profile) = &self.profile {
            argv.extend(["--profile".into(), profile.clone().into()]);
        }
        for (flag, set) in [("--user", self.user), ("--daemonize", self.daemonize)] {
            if set {
                argv.push(flag.into());
            }
        }
        argv
    }
}

/// Roles that the keeper starts by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub enum Role {
    /// Text to plan: writes a sealed plan or a report to descriptor 3
    #[command(hide = true)]
    Load,
    /// Decides and serves: talks to the keeper on descriptor 3
    #[command(hide = true)]
    Manage,
    /// Makes the keeper's children: talks to it on descriptor 3
    #[command(hide = true)]
    Launch,
    /// Looks whether it could go on from the state of the keepd that asks
    #[command(hide = true)]
    CheckState,
}

/// Parses the command line; on a usage error prints it and gives the exit status instead.
pub fn parse(argv: impl IntoIterator<Item = OsString>) -> Result<Args, i32> {
    Args::try_parse_from(argv).map_err(|e| {
        let _ = e.print();
        if e.use_stderr() { super::EXIT_USAGE } else { 0 }
    })
}
