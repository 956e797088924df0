//! The command line of `import`. Names here are a contract with scripts.

use clap::Args;
use std::path::PathBuf;

#[derive(Debug, Args)]
#[command(after_help = "\
The configuration goes to stdout, what was not kept to stderr and into comments beside each service.
Exit status: 0 everything was kept; 5 something was left out; 1 a file cannot be imported at all.")]
pub(in crate::ctl) struct ImportArgs {
    /// Whose configuration it is
    #[arg(value_enum, value_name = "FORMAT")]
    pub(super) from: From,
    /// Its files: of supervisord, units, Procfiles, JSON of PM2
    #[arg(required = true, value_name = "FILE")]
    pub(super) files: Vec<PathBuf>,
    /// For the keepd of an ordinary user, even as root
    #[arg(long)]
    pub(super) user: bool,
    /// Whom services run as that name no user
    #[arg(long, value_name = "USER", default_value = "root", conflicts_with = "user")]
    pub(super) run_as: String,
    /// What supervisord's `%(ENV_NAME)s` stands for; may be repeated
    #[arg(long, value_name = "NAME=VALUE", value_parser = variable)]
    pub(super) env: Vec<(String, String)>,
}

/// Whose configuration is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum From {
    /// supervisord.conf and what it includes
    Supervisor,
    /// *.service, with the drop-ins beside it
    Systemd,
    /// NAME: COMMAND, as of foreman and honcho
    Procfile,
    /// An ecosystem file as JSON
    Pm2,
}

impl From {
    /// For a sentence.
    pub(super) fn whose(self) -> &'static str {
        match self {
            From::Supervisor => "supervisord",
            From::Systemd => "systemd",
            From::Procfile => "a Procfile",
            From::Pm2 => "PM2",
        }
    }
}

fn variable(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.into(), value.into())),
        _ => Err("it must be NAME=VALUE".into()),
    }
}
