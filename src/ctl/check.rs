//! `check`: reads a configuration as keepd would, without keepd, and says everything that is wrong with it.

use super::{
    args::{CheckArgs, CheckFormat},
    explain,
    fail::{CONFIGURATION, FAILED, Fail},
    text::{Look, clean},
};
use crate::{
    config::{self, Diagnostic, Format},
    plan::Plan,
    wire,
};
use serde::Serialize;
use std::io::{self, Write};

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report<'a> {
    valid: bool,
    services: Vec<&'a str>,
    warnings: &'a [String],
    diagnostics: Vec<wire::Diagnostic>,
}

pub(super) fn run(args: &CheckArgs, look: Look, out: &mut impl Write) -> Result<u8, Fail> {
    let options = config::Options::current(args.user, args.config.as_deref(), args.profile.clone());
    let options =
        options.map_err(|e| Fail::new(FAILED, format!("cannot find out where the configuration is: {e}")))?;
    let loaded = config::load(&options);
    let status = if loaded.is_ok() { 0 } else { CONFIGURATION };
    match loaded {
        loaded if args.json => json(out, &loaded)?,
        Ok(plan) => {
            plan.warnings.iter().try_for_each(|w| writeln!(out, "warning: {}", clean(w)))?;
            let noun = if plan.services.len() == 1 { "service" } else { "services" };
            writeln!(out, "{}: {} {noun}, no errors", options.main.display(), plan.services.len())?;
            if let Some(name) = &args.explain {
                writeln!(out)?;
                explain::run(&plan, name, out)?;
            }
        }
        Err(diagnostics) => {
            let format = match args.format {
                CheckFormat::Short => Format::Short,
                CheckFormat::Full if look.colour => Format::Color,
                CheckFormat::Full => Format::Full,
            };
            out.write_all(config::render_all(&diagnostics, format).as_bytes())?;
        }
    }
    Ok(status)
}

fn json(out: &mut impl Write, loaded: &Result<Plan, Vec<Diagnostic>>) -> io::Result<()> {
    let report = match loaded {
        Ok(plan) => Report {
            valid: true,
            services: plan.services.iter().map(|s| s.name.as_str()).collect(),
            warnings: &plan.warnings,
            diagnostics: Vec::new(),
        },
        Err(diagnostics) => Report {
            valid: false,
            services: Vec::new(),
            warnings: &[],
            diagnostics: diagnostics.iter().map(diagnostic).collect(),
        },
    };
    serde_json::to_writer(&mut *out, &report)?;
    writeln!(out)
}

fn diagnostic(d: &Diagnostic) -> wire::Diagnostic {
    let number = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    wire::Diagnostic {
        message: d.message.clone(),
        file: d.file.clone(),
        line: number(d.line),
        column: number(d.column),
        rendered: d.rendered(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ctl::args::{Cli, Command};
    use clap::Parser;

    fn check(text: &str, options: &[&str]) -> (u8, String) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("keepd.toml");
        std::fs::write(&file, text).unwrap();
        let line = ["keepctl", "check", "--user", file.to_str().unwrap()];
        let cli = Cli::try_parse_from(line.iter().chain(options)).unwrap();
        let Command::Check(args) = cli.command else { panic!("{cli:?}") };
        let mut out = Vec::new();
        let status = run(&args, Look::default(), &mut out).unwrap();
        (status, String::from_utf8(out).unwrap())
    }

    #[test]
    fn what_is_right_is_counted() {
        let (status, text) = check("[service.web]\ncommand = [\"/bin/true\"]\n", &[]);
        assert_eq!(status, 0, "{text}");
        assert!(text.ends_with("/keepd.toml: 1 service, no errors\n"), "{text}");
    }

    #[test]
    fn every_error_is_told_in_the_form_that_is_asked_for() {
        let broken = "[service.web]\ncomand = [\"/bin/true\"]\nstop-timeout = \"soon\"\n";
        let (status, text) = check(broken, &["--format", "short"]);
        assert_eq!(status, 78);
        assert!(text.contains("keepd.toml:2:1: error: unknown key `comand`"), "{text}");
        assert!(text.lines().count() >= 2 && text.lines().all(|l| l.contains(": error: ")), "{text}");
        let (status, text) = check(broken, &[]);
        assert_eq!(status, 78);
        assert!(text.contains("\n  --> keepd.toml:2:1\n"), "{text}");
        let (status, text) = check(broken, &["--json"]);
        let report: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((status, &report["valid"]), (78, &false.into()));
        let at_key = |d: &serde_json::Value| d["line"] == 2 && d["column"] == 1 && d["file"] == "keepd.toml";
        assert!(report["diagnostics"].as_array().unwrap().iter().any(at_key), "{report}");
    }
}
