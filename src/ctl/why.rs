//! `why`: how a service is, and the dossiers of its ends that nobody asked for.

use super::{
    args::WhyArgs,
    client::{SOON, Server, decode, segment},
    fail::Fail,
    text::{Look, bytes, clean, duration, style_of},
};
use crate::{
    plan::Millis,
    wire::why::{Dossier, Usage, Why},
};
use anstyle::Style;
use std::io::{self, Write};

pub(super) async fn run(
    server: &Server,
    args: &WhyArgs,
    look: Look,
    out: &mut impl Write,
) -> Result<u8, Fail> {
    let mut client = server.connect().await?;
    let text = client.get_text(&format!("/v1/services/{}/why", segment(&args.name)), SOON).await?;
    if args.json {
        out.write_all(&text)?;
        writeln!(out)?;
        return Ok(0);
    }
    let why: Why = decode(&text)?;
    show(out, look, &why, args.last)?;
    Ok(0)
}

fn show(out: &mut impl Write, look: Look, why: &Why, last: usize) -> io::Result<()> {
    let state = look.paint(style_of(&why.state, why.ready), &why.state);
    let reason = if why.reason.is_empty() { String::new() } else { format!(": {}", clean(&why.reason)) };
    writeln!(out, "{} is {state}{reason}", clean(&why.name))?;
    if let Some(ms) = why.next_start_in_ms {
        writeln!(out, "  next start  in {}", duration(ms))?;
    }
    for run in &why.runs {
        let end = match (&run.code, &run.signal) {
            (Some(code), _) => format!("exited with status {code}"),
            (None, Some(signal)) => format!("was killed by {}", clean(signal)),
            (None, None) => "ended".into(),
        };
        writeln!(out, "  ran         {}, {end} after {}", clean(&run.at), Millis(run.ran_ms))?;
    }
    if why.dossiers.is_empty() {
        return writeln!(out, "  It has not ended without being asked to, as far as keepd knows.");
    }
    for (i, dossier) in why.dossiers.iter().take(last).enumerate() {
        writeln!(out)?;
        one(out, look, dossier, i == 0)?;
    }
    let more = why.dossiers.len().saturating_sub(last);
    if more > 0 {
        writeln!(
            out,
            "\n{more} more; show them with: keepctl why {} -n {}",
            clean(&why.name),
            why.dossiers.len()
        )?;
    }
    Ok(())
}

fn one(out: &mut impl Write, look: Look, d: &Dossier, newest: bool) -> io::Result<()> {
    let bold = Style::new().bold();
    writeln!(out, "{}  {}", clean(&d.at), look.paint(bold, &clean(&d.cause)))?;
    let mut row = |name: &str, text: String| writeln!(out, "  {name:<12}  {}", clean(&text));
    row("run", format!("{} of configuration {}{}", d.run_id, d.generation, since(d)))?;
    if let Some(usage) = &d.usage {
        row("used", used(usage))?;
    }
    if d.consecutive_failures > 1 {
        row("failures", format!("{} in a row", d.consecutive_failures))?;
    }
    for dep in &d.dependencies {
        let ready = if dep.ready { "ready" } else { "not ready" };
        row(&dep.relation, format!("{} was {} ({ready})", dep.name, dep.state))?;
    }
    for seen in &d.probes {
        let what = seen.failure.as_ref().map_or("passed".into(), |why| format!("failed: {why}"));
        let times = if seen.times > 1 {
            format!(" ({} times since {})", seen.times, seen.since)
        } else {
            String::new()
        };
        row(&format!("{} probe", seen.probe), format!("{} {what}{times}", seen.last))?;
    }
    for change in &d.changes {
        for field in &change.fields {
            let value = |v: &Option<String>| v.clone().unwrap_or_else(|| "(not shown)".into());
            let text = format!("{}: {} -> {}", field.path, value(&field.old), value(&field.new));
            row("changed", format!("{text}  (at {})", change.at))?;
        }
    }
    if d.good_generation.is_some() && d.changes.is_empty() {
        row("changed", "nothing in its configuration since a run of it lasted".into())?;
    }
    if newest {
        let at = d.next.at.as_ref().map_or(String::new(), |at| format!(", at {at}"));
        row("then", format!("{}{at}", d.next.what))?;
    }
    if let Some(why) = &d.no_lines {
        row("log", why.clone())?;
    }
    for (name, lines) in [("last lines", &d.stdout), ("of stderr", &d.stderr)] {
        if lines.is_empty() {
            continue;
        }
        writeln!(out, "  {name}")?;
        for line in lines {
            writeln!(out, "    {}", clean(line))?;
        }
    }
    Ok(())
}

fn since(d: &Dossier) -> String {
    d.started_at.as_ref().map_or_else(|| ", never started".into(), |at| format!(", started {at}"))
}

/// "1.2s of cpu, at most 63.9 MiB of memory (memory-max 64.0 MiB, 1 killed for it)"
fn used(u: &Usage) -> String {
    let cpu = Millis((u.user_usec + u.system_usec) / 1000);
    let peak = u.memory_peak_bytes.unwrap_or(u.max_rss_bytes);
    let mut more = Vec::new();
    if let Some(max) = u.memory_max_bytes {
        more.push(format!("memory-max {}", bytes(max)));
    }
    if let Some(kills @ 1..) = u.oom_kills {
        more.push(format!("{kills} killed because memory ran out"));
    }
    let more = if more.is_empty() { String::new() } else { format!(" ({})", more.join(", ")) };
    format!("{cpu} of cpu, at most {} of memory{more}", bytes(peak))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{
        ChangedField,
        why::{Change, Dependency, Next},
    };

    #[test]
    fn a_dossier_is_read_from_top_to_bottom_and_is_harmless() {
        let dossier = Dossier {
            run_id: 7,
            kind: "oom".into(),
            at: "2026-11-21T10:42:52.662Z".into(),
            cause: "web ran out of memory: its memory-max is 64MiB after 1.5s".into(),
            consecutive_failures: 3,
            usage: Some(Usage {
                user_usec: 1_000_000,
                system_usec: 200_000,
                memory_peak_bytes: Some(64 << 20),
                memory_max_bytes: Some(64 << 20),
                oom_kills: Some(1),
                ..Usage::default()
            }),
            dependencies: vec![Dependency {
                name: "db".into(),
                relation: "requires".into(),
                state: "backoff".into(),
                ready: false,
            }],
            generation: 2,
            good_generation: Some(1),
            changes: vec![Change {
                generation: 2,
                at: "T".into(),
                fields: vec![ChangedField { path: "launch.umask".into(), old: Some("18".into()), new: None }],
            }],
            next: Next { what: "it is started again".into(), at: Some("T2".into()) },
            stdout: vec!["allocating\u{1b}[2J".into()],
            ..Dossier::default()
        };
        let why = Why {
            name: "web".into(),
            state: "backoff".into(),
            reason: "was killed".into(),
            next_start_in_ms: Some(2000),
            dossiers: vec![dossier.clone(), dossier],
            ..Why::default()
        };
        let mut out = Vec::new();
        show(&mut out, Look::default(), &why, 1).unwrap();
        let wanted = "web is backoff: was killed\n  next start  in 2s\n\n\
            2026-11-21T10:42:52.662Z  web ran out of memory: its memory-max is 64MiB after 1.5s\n  \
            run           7 of configuration 2, never started\n  \
            used          1.2s of cpu, at most 64.0 MiB of memory (memory-max 64.0 MiB, \
            1 killed because memory ran out)\n  \
            failures      3 in a row\n  \
            requires      db was backoff (not ready)\n  \
            changed       launch.umask: 18 -> (not shown)  (at T)\n  \
            then          it is started again, at T2\n  \
            last lines\n    allocating\\x1b[2J\n\n\
            1 more; show them with: keepctl why web -n 2\n";
        assert_eq!(String::from_utf8(out).unwrap(), wanted);
    }

    #[test]
    fn a_service_without_trouble_says_so() {
        let mut out = Vec::new();
        let why = Why { name: "web".into(), state: "running".into(), ready: true, ..Why::default() };
        show(&mut out, Look::default(), &why, 1).unwrap();
        assert!(String::from_utf8(out).unwrap().starts_with("web is running\n  It has not ended"));
    }
}
