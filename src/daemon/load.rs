//! The loader: configuration text to a checked plan in a sealed memfd, then it is gone. It may run as root;
//! nothing that it has parsed does.

use super::{EXIT_CONFIG, EXIT_INTERNAL, args::ConfigArgs};
use crate::{
    config::{self, Diagnostic, Format},
    keeper::protocol::LOADER_FD,
    plan::image,
    sys::{identity, memory, prctl},
    wire,
};
use std::{fs::File, io::Write, os::fd::AsFd};

/// Where the keeper says that there is nobody else to show errors to.
const SHOW_ERRORS: &str = "KEEPD_LOAD_STDERR";

/// Returns 0 (the descriptor holds a sealed plan), 78 (it holds a report), 70.
pub(super) fn main(args: &ConfigArgs) -> i32 {
    if identity::effective_uid() == 0 {
        prctl::hide_memory();
    }
    let out = match crate::sys::fd::inherited(LOADER_FD) {
        Ok(fd) => File::from(fd),
        Err(e) => {
            eprintln!(
                "keepd load: descriptor {LOADER_FD} is not open ({e}); this role is started by keepd itself"
            );
            return EXIT_INTERNAL;
        }
    };
    let options = match config::Options::current(args.user, args.config.as_deref(), args.profile.clone()) {
        Ok(options) => options,
        Err(e) => {
            eprintln!("keepd load: cannot find out where the configuration is: {e}");
            return EXIT_INTERNAL;
        }
    };
    let mut plan = match config::load(&options) {
        Ok(plan) => plan,
        Err(diagnostics) => return refuse(out, &diagnostics),
    };
    if args.daemonize && plan.daemon.log_file.is_none() {
        plan.daemon.log_file = Some(plan.daemon.log_dir.join("keepd.log"));
    }
    let written = image::encode(&plan)
        .map_err(std::io::Error::other)
        .and_then(|bytes| (&out).write_all(&bytes))
        .and_then(|()| memory::seal(out.as_fd()).map_err(Into::into));
    match written {
        Ok(()) => 0,
        Err(e) => {
            eprintln!("keepd load: cannot hand the plan over: {e}");
            EXIT_INTERNAL
        }
    }
}

fn refuse(mut out: File, diagnostics: &[Diagnostic]) -> i32 {
    if std::env::var_os(SHOW_ERRORS).is_some() {
        eprint!("{}", config::render_all(diagnostics, Format::Full));
    }
    let report = wire::LoadReport { diagnostics: diagnostics.iter().map(diagnostic).collect() };
    let written = serde_json::to_vec(&report).map_err(std::io::Error::other).and_then(|b| out.write_all(&b));
    match written {
        Ok(()) => EXIT_CONFIG,
        Err(e) => {
            eprintln!("keepd load: cannot hand the report over: {e}");
            EXIT_INTERNAL
        }
    }
}

fn diagnostic(d: &Diagnostic) -> wire::Diagnostic {
    wire::Diagnostic {
        message: d.message.clone(),
        file: d.file.clone(),
        line: u32::try_from(d.line).unwrap_or(u32::MAX),
        column: u32::try_from(d.column).unwrap_or(u32::MAX),
        rendered: d.rendered(),
    }
}
