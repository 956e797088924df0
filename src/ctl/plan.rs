//! `plan` and `apply`: what the files change, field by field.

use super::{
    act,
    args::{ApplyArgs, PlanArgs},
    client::{LOAD, Server},
    fail::{CHANGES, Fail},
    text::{Look, clean},
};
use crate::wire::{ChangedField, PlanReport};
use anstyle::{AnsiColor, Style};
use bytes::Bytes;
use std::{
    io::{self, Write},
    time::Duration,
};

/// The daemon ends the waiting for services; this is for a daemon that does not.
const PATIENCE: Duration = Duration::from_secs(25 * 60 * 60);

pub(super) async fn plan(
    server: &Server,
    args: &PlanArgs,
    look: Look,
    out: &mut impl Write,
) -> Result<u8, Fail> {
    let report: PlanReport = server.connect().await?.get("/v1/plan", LOAD).await?;
    show(out, look, &report, args.json)?;
    Ok(if args.exit_code && changes(&report) { CHANGES } else { 0 })
}

pub(super) async fn apply(
    server: &Server,
    args: &ApplyArgs,
    look: Look,
    out: &mut impl Write,
) -> Result<u8, Fail> {
    let path = format!("/v1/apply?{}", act::query(&args.wait));
    let within = if args.wait.no_wait { LOAD } else { PATIENCE };
    let report: PlanReport = server.connect().await?.post(&path, Bytes::new(), within).await?;
    show(out, look, &report, args.json)?;
    if !args.json {
        report.results.iter().try_for_each(|r| act::print(out, r))?;
    }
    Ok(act::status(&report.results))
}

fn changes(r: &PlanReport) -> bool {
    !(r.added.is_empty() && r.removed.is_empty() && r.changed.is_empty() && r.daemon.is_empty())
}

fn show(out: &mut impl Write, look: Look, report: &PlanReport, json: bool) -> io::Result<()> {
    if json {
        serde_json::to_writer(&mut *out, report)?;
        return writeln!(out);
    }
    let colour = |c: AnsiColor| c.on_default();
    for (names, sign, style) in
        [(&report.added, '+', colour(AnsiColor::Green)), (&report.removed, '-', colour(AnsiColor::Red))]
    {
        for name in names {
            writeln!(out, "{}", look.paint(style, &format!("{sign} {}", clean(name))))?;
        }
    }
    for c in &report.changed {
        let how = if c.restarts { "restarts" } else { "takes over as it runs" };
        let name = look.paint(colour(AnsiColor::Yellow), &format!("~ {}", clean(&c.name)));
        writeln!(out, "{name}: {how}")?;
        fields(out, &c.fields)?;
    }
    if !report.daemon.is_empty() {
        let name = look.paint(Style::new().bold(), "keepd itself");
        writeln!(out, "{name}: takes effect when keepd is next started")?;
        fields(out, &report.daemon)?;
    }
    if !changes(report) {
        writeln!(out, "no changes")?;
    }
    report.warnings.iter().try_for_each(|w| writeln!(out, "warning: {}", clean(w)))
}

fn fields(out: &mut impl Write, fields: &[ChangedField]) -> io::Result<()> {
    for f in fields {
        let path = clean(&f.path);
        match (&f.old, &f.new) {
            (None, None) => writeln!(out, "    {path}: changed (the value is not shown)")?,
            (old, new) => {
                let value =
                    |v: &Option<String>| v.as_deref().map_or("none".into(), |v| clean(v).into_owned());
                writeln!(out, "    {path}: {} -> {}", value(old), value(new))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::ChangedService;

    fn text(report: &PlanReport) -> String {
        let mut out = Vec::new();
        show(&mut out, Look::default(), report, false).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn changes_are_shown_field_by_field() {
        let field = |path: &str, old: Option<&str>, new: Option<&str>| ChangedField {
            path: path.into(),
            old: old.map(Into::into),
            new: new.map(Into::into),
        };
        let report = PlanReport {
            added: vec!["new".into()],
            removed: vec!["old".into()],
            changed: vec![ChangedService {
                name: "web".into(),
                restarts: true,
                fields: vec![
                    field("launch.umask", Some("18"), Some("23")),
                    field("launch.env.KEY", None, None),
                ],
            }],
            daemon: vec![field("log_level", Some("\"info\""), None)],
            ..PlanReport::default()
        };
        let wanted = "\
+ new
- old
~ web: restarts
    launch.umask: 18 -> 23
    launch.env.KEY: changed (the value is not shown)
keepd itself: takes effect when keepd is next started
    log_level: \"info\" -> none
";
        assert_eq!(text(&report), wanted);
        assert!(changes(&report));
    }

    #[test]
    fn a_warning_is_no_change() {
        let report = PlanReport { warnings: vec!["w".into()], ..PlanReport::default() };
        assert_eq!(text(&report), "no changes\nwarning: w\n");
        assert!(!changes(&report));
    }
}
