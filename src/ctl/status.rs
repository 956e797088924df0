//! `status`: the table, or one service in full.

use super::{
    args::StatusArgs,
    client::{Client, SOON, Server, decode, segment},
    fail::{Fail, NOT_RUNNING},
    select::{self, Listed},
    table::{self, Cell},
    text::{Look, bytes, clean, duration, escape, style_of},
    tree,
};
use crate::wire::{LastExit, Probe, Service, Status};
use anstyle::Style;
use http_body_util::BodyExt;
use serde_json::Value;
use std::io::{self, Write};

/// How many lines of its log are shown with a service in full.
const LINES: u32 = 10;

pub(super) async fn run(
    server: &Server,
    args: &StatusArgs,
    look: Look,
    out: &mut impl Write,
) -> Result<u8, Fail> {
    let mut client = server.connect().await?;
    let list = select::list(&mut client).await?;
    let services = select::select(&mut client, &list, &args.names).await?;
    let status = if services.iter().all(|s| s.state == "running") { 0 } else { NOT_RUNNING };
    if args.tree {
        let chosen: Vec<String> = match args.names.is_empty() {
            true => Vec::new(),
            false => services.iter().map(|s| s.name.to_string()).collect(),
        };
        tree::print(out, look, &list, &chosen)?;
        return Ok(status);
    }
    match (args.names.as_slice(), services.as_slice()) {
        // A pattern asks for a list, even if one service is all that it matches.
        ([name], [one]) if !select::is_pattern(name) => {
            let path = format!("/v1/services/{}", segment(&one.name));
            if args.json {
                json(out, &client.get_text(&path, SOON).await?)?;
            } else {
                let service = client.get(&path, SOON).await?;
                full(out, look, &service)?;
                log_tail(&mut client, out, look, &service).await?;
            }
        }
        ([], _) if args.json => {
            out.write_all(&list)?;
            writeln!(out)?;
        }
        (_, some) if args.json => {
            let Value::Object(mut all) = decode(&list)? else { return Ok(status) };
            if let Some(Value::Array(each)) = all.get_mut("services") {
                each.retain(|s| some.iter().any(|chosen| s["name"] == *chosen.name));
            }
            serde_json::to_writer(&mut *out, &all).map_err(io::Error::from)?;
            writeln!(out)?;
        }
        (names, some) => {
            if names.is_empty() {
                head(out, look, &client.get("/v1/status", SOON).await?)?;
            }
            table(out, look, some)?;
        }
    }
    Ok(status)
}

/// One service in the shape of a list, so that scripts meet one shape only.
fn json(out: &mut impl Write, service: &[u8]) -> io::Result<()> {
    out.write_all(b"{\"services\":[")?;
    out.write_all(service)?;
    out.write_all(b"]}\n")
}

fn head(out: &mut impl Write, look: Look, s: &Status) -> io::Result<()> {
    let total: u32 = s.counts.values().sum();
    let noun = if total == 1 { "service" } else { "services" };
    write!(out, "keepd {} {} for {}: {total} {noun}", s.version, s.state, duration(s.uptime_ms))?;
    for (state, n) in s.counts.iter().filter(|(_, n)| **n > 0) {
        write!(out, ", {}", look.paint(style_of(state, true), &format!("{n} {state}")))?;
    }
    writeln!(out)?;
    s.degraded.iter().try_for_each(|d| writeln!(out, "degraded: {}", clean(d)))
}

fn table(out: &mut impl Write, look: Look, services: &[Listed<'_>]) -> io::Result<()> {
    let rows: Vec<[Cell; 7]> = services.iter().map(row).collect();
    let heading = ["NAME", "STATE", "READY", "PID", "UPTIME", "RESTARTS", "REASON / DESCRIPTION"];
    table::print(out, look, heading, &[3, 5], &rows)
}

fn row(s: &Listed<'_>) -> [Cell; 7] {
    let dash = || "-".to_string();
    let next = s.next_start_in_ms.map(|ms| format!("; next start in {}", duration(ms))).unwrap_or_default();
    let note = if s.reason.is_empty() { &s.description } else { &s.reason };
    [
        clean(&s.name).into_owned().into(),
        Cell { text: clean(&s.state).into_owned(), style: style_of(&s.state, s.ready) },
        if s.ready { "yes" } else { "no" }.to_string().into(),
        s.pid.map_or_else(dash, |p| p.to_string()).into(),
        s.uptime_ms.map_or_else(dash, duration).into(),
        s.restarts.to_string().into(),
        format!("{}{next}", clean(note)).into(),
    ]
}

/// Everything that is known about one service.
fn full(out: &mut impl Write, look: Look, s: &Service) -> io::Result<()> {
    write!(out, "{}", look.paint(Style::new().bold(), &s.name))?;
    if !s.description.is_empty() {
        write!(out, ": {}", clean(&s.description))?;
    }
    let state = look.paint(style_of(&s.state, s.ready), &s.state);
    let ready = if s.ready { "ready" } else { "not ready" };
    let since = s.uptime_ms.map(|ms| format!(", up for {}", duration(ms))).unwrap_or_default();
    write!(out, "\n  state       {state}, {ready}, desired {}{since}\n", s.desired)?;
    let mut line = |label: &str, text: String| match text.is_empty() {
        true => Ok(()),
        false => writeln!(out, "  {label:<11} {}", clean(&text)),
    };
    line("reason", s.reason.clone())?;
    if let (Some(pid), Some(run)) = (s.pid, s.run_id) {
        let since = s.started_at.as_ref().map(|at| format!(", since {at}")).unwrap_or_default();
        line("process", format!("pid {pid}, run {run}{since}"))?;
    }
    line("says", s.status_text.clone().unwrap_or_default())?;
    for (label, probe) in [("ready by", &s.probes.ready), ("alive by", &s.probes.live)] {
        line(label, probe.as_ref().map(probed).unwrap_or_default())?;
    }
    line("restarts", format!("{}, {} failures in a row", s.restarts, s.consecutive_failures))?;
    line("next start", s.next_start_in_ms.map(|ms| format!("in {}", duration(ms))).unwrap_or_default())?;
    line("last exit", s.last_exit.as_ref().map(exit).unwrap_or_default())?;
    line("uses", usage(s))?;
    line("waits for", pressure(s))?;
    line("held to", held_to(s))?;
    line("identity", identity(s))?;
    line("log", log(s))?;
    line("trouble", s.log.trouble.clone().unwrap_or_default())?;
    line("requires", s.requires.join(" "))?;
    line("wants", s.wants.join(" "))?;
    line("after", s.after.join(" "))
}

/// `status 1 after 3s, at 2026-…, run 7`
fn exit(e: &LastExit) -> String {
    let how = match (e.code, &e.signal) {
        (Some(code), _) => format!("status {code}"),
        (None, Some(signal)) => format!("killed by {signal}{}", if e.core { ", core dumped" } else { "" }),
        (None, None) => "unknown (nobody was there to see it)".into(),
    };
    let oom = if e.oom { ", out of memory" } else { "" };
    format!("{how}{oom} after {}, at {}, run {}", duration(e.ran_ms), e.at, e.run_id)
}

/// `http, failing (3 in a row): it answered 503`
fn probed(p: &Probe) -> String {
    let how = match (p.passing, p.failures) {
        (Some(false), n) => format!(", failing ({n} in a row)"),
        (Some(true), _) => ", passing".into(),
        (None, _) => String::new(),
    };
    format!("{}{how}{}", p.kind, p.message.as_ref().map(|m| format!(": {m}")).unwrap_or_default())
}

fn usage(s: &Service) -> String {
    let cpu = |us: u64| format!("cpu {}.{:03} s", us / 1_000_000, us / 1000 % 1000);
    let of = |limit: Option<String>| limit.map(|l| format!(" of {l}")).unwrap_or_default();
    let limits = s.resources.unwrap_or_default();
    let peak = s.memory_peak_bytes.map(|n| format!(" (at most {})", bytes(n))).unwrap_or_default();
    let memory = |n| format!("memory {}{}{peak}", bytes(n), of(limits.memory_max_bytes.map(bytes)));
    let tasks = |n| match (n, limits.pids_max) {
        (1, None) => "1 task".into(),
        (n, max) => format!("{n}{} tasks", of(max.map(|m| m.to_string()))),
    };
    let kills = s.oom_kills.filter(|n| *n > 0).map(|n| format!("{n} killed for memory"));
    let parts = [s.memory_bytes.map(memory), s.cpu_usage_usec.map(cpu), s.tasks.map(tasks), kills];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

/// What it waits for, if that is worth a word.
fn pressure(s: &Service) -> String {
    let p = s.pressure.unwrap_or_default();
    let parts = [("cpu", p.cpu), ("memory", p.memory), ("io", p.io)];
    let some = parts.into_iter().filter_map(|(what, share)| Some((what, share.filter(|s| *s > 0.0)?)));
    let some: Vec<String> = some.map(|(what, share)| format!("{what} {share:.1}%")).collect();
    match some.is_empty() {
        true => String::new(),
        false => format!("{} of the last 10s", some.join(", ")),
    }
}

/// What it is held to.
fn held_to(s: &Service) -> String {
    let Some(r) = s.resources else { return String::new() };
    let parts = [
        r.memory_max_bytes.map(|n| format!("memory-max {}", bytes(n))),
        r.memory_high_bytes.map(|n| format!("memory-high {}", bytes(n))),
        r.cpu_max_percent.map(|n| format!("cpu-max {n}%")),
        r.cpu_weight.map(|n| format!("cpu-weight {n}")),
        r.pids_max.map(|n| format!("pids-max {n}")),
        r.io_weight.map(|n| format!("io-weight {n}")),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn identity(s: &Service) -> String {
    let i = &s.identity;
    let user = i.user.as_ref().map(|u| format!("{u}, ")).unwrap_or_default();
    let groups: Vec<String> = i.groups.iter().map(u32::to_string).collect();
    let groups = if groups.is_empty() { String::new() } else { format!(", groups {}", groups.join(" ")) };
    let privileges = if i.no_new_privileges { ", no new privileges" } else { "" };
    let syscalls = match i.seccomp.as_str() {
        "" | "off" => String::new(),
        list => format!(", syscalls {list}"),
    };
    let capabilities = match i.capabilities.as_deref() {
        None | Some([]) => String::new(),
        Some(names) => format!(", {}", names.join(" ")),
    };
    format!("{user}uid {}, gid {}{groups}{capabilities}{privileges}{syscalls}", i.uid, i.gid)
}

fn log(s: &Service) -> String {
    let Some(file) = &s.log.file else { return String::new() };
    let dropped = match (s.log.bytes_dropped, s.log.lines_dropped) {
        (0, 0) => String::new(),
        (b, lines) => format!(", {} in {lines} lines dropped", bytes(b)),
    };
    let forwarded = match (s.log.forwarded, s.log.forward_dropped) {
        (0, 0) => String::new(),
        (lines, 0) => format!(", {lines} lines forwarded"),
        (lines, lost) => format!(", {lines} lines forwarded and {lost} left out"),
    };
    format!("{file}, {} written{dropped}{forwarded}", bytes(s.log.bytes_written))
}

async fn log_tail(client: &mut Client, out: &mut impl Write, look: Look, s: &Service) -> Result<(), Fail> {
    if s.log.file.is_none() {
        return Ok(());
    }
    let path = format!("/v1/services/{}/logs?lines={LINES}", segment(&s.name));
    let tail = match client.open(&path).await {
        Ok(body) => body.collect().await.map(|b| b.to_bytes()),
        Err(e) => return Ok(writeln!(out, "\n{}", clean(&e.message))?),
    };
    // A log that breaks off is no reason to fail: the rest has been shown.
    let Ok(tail) = tail else { return Ok(()) };
    if tail.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    if look.terminal {
        let mut text = String::new();
        escape(&mut text, &tail);
        out.write_all(text.as_bytes())?;
    } else {
        out.write_all(&tail)?;
    }
    if !tail.ends_with(b"\n") {
        writeln!(out)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn web() -> Service {
        Service {
            name: "web".into(),
            service: "web".into(),
            description: "public API".into(),
            desired: "up".into(),
            state: "running".into(),
            ready: true,
            pid: Some(4711),
            run_id: Some(12),
            uptime_ms: Some(273_600_000),
            ..Service::default()
        }
    }

    fn text(print: impl FnOnce(&mut Vec<u8>) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        print(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_table_is_terse_and_nothing_in_it_breaks_a_line() {
        let db = Listed {
            name: "db".into(),
            state: "backoff".into(),
            reason: "exit status 1\x1b[2J\n".into(),
            restarts: 3,
            next_start_in_ms: Some(5_300),
            ..Listed::default()
        };
        let web = serde_json::to_string(&web()).unwrap();
        let web = serde_json::from_str(&web).unwrap();
        let shown = text(|out| table(out, Look::default(), &[db, web]));
        let wanted = "\
NAME  STATE    READY   PID  UPTIME  RESTARTS  REASON / DESCRIPTION
db    backoff  no        -  -              3  exit status 1\\x1b[2J\\n; next start in 5s
web   running  yes    4711  3d 4h          0  public API
";
        assert_eq!(shown, wanted);
    }

    #[test]
    fn the_head_counts_by_state() {
        let status = Status {
            version: "1.2.3".into(),
            state: "running".into(),
            uptime_ms: 65_000,
            counts: [("running".into(), 2), ("failed".into(), 1), ("stuck".into(), 0)].into(),
            degraded: vec!["no cgroup v2".into()],
            ..Status::default()
        };
        let shown = text(|out| head(out, Look::default(), &status));
        assert_eq!(
            shown,
            "keepd 1.2.3 running for 1m 5s: 3 services, 1 failed, 2 running\ndegraded: no cgroup v2\n"
        );
    }

    #[test]
    fn a_service_in_full_says_what_is_known_and_no_more() {
        let shown = text(|out| full(out, Look::default(), &Service { last_exit: None, ..web() }));
        let wanted = "\
web: public API
  state       running, ready, desired up, up for 3d 4h
  process     pid 4711, run 12
  restarts    0, 0 failures in a row
  identity    uid 0, gid 0
";
        assert_eq!(shown, wanted);
    }

    #[test]
    fn what_it_uses_stands_beside_what_it_may() {
        let mut s = Service {
            memory_bytes: Some(12 << 20),
            memory_peak_bytes: Some(40 << 20),
            cpu_usage_usec: Some(1_500_000),
            tasks: Some(1),
            oom_kills: Some(0),
            pressure: Some(crate::wire::Pressure { cpu: Some(0.0), memory: Some(2.56), io: None }),
            ..web()
        };
        assert_eq!(usage(&s), "memory 12.0 MiB (at most 40.0 MiB), cpu 1.500 s, 1 task");
        assert_eq!((pressure(&s).as_str(), held_to(&s).as_str()), ("memory 2.6% of the last 10s", ""));
        let limits =
            crate::wire::Resources { pids_max: Some(20), cpu_max_percent: Some(150), ..Default::default() };
        (s.resources, s.oom_kills) = (Some(limits), Some(2));
        assert!(usage(&s).ends_with("1 of 20 tasks, 2 killed for memory"), "{}", usage(&s));
        assert_eq!(held_to(&s), "cpu-max 150%, pids-max 20");
        assert_eq!(pressure(&web()), "");
    }

    #[test]
    fn an_exit_is_never_invented() {
        let base = LastExit { at: "T".into(), run_id: 7, ran_ms: 3000, ..LastExit::default() };
        let code = LastExit { code: Some(1), ..base.clone() };
        assert_eq!(exit(&code), "status 1 after 3s, at T, run 7");
        let killed = LastExit { signal: Some("SIGKILL".into()), oom: true, ..base.clone() };
        assert_eq!(exit(&killed), "killed by SIGKILL, out of memory after 3s, at T, run 7");
        assert!(exit(&LastExit { unknown: true, ..base }).starts_with("unknown"));
    }
}
