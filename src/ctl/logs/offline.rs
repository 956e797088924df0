//! Logs without keepd: the files themselves, from the folders that the configuration names, or from a given one.

use super::{super::text::Look, LogsArgs, Plain, Printer, is_plain, unreadable};
use crate::{
    config,
    ctl::fail::{CONFIGURATION, FAILED, Fail, UNKNOWN},
    logs::{From, Line, Next, Place, Query, Reader, View},
    plan::Name,
    wire,
};
use std::{
    io::Write,
    path::{Path, PathBuf},
    time::Duration,
};

/// Between looks at files that nobody tells us about.
const LOOK: Duration = Duration::from_millis(200);
const CHUNK: usize = 64 * 1024;

/// The folder of a service.
#[derive(Debug)]
pub(super) struct Log {
    name: Name,
    dir: PathBuf,
}

/// Those below `dir` that `patterns` mean; all where there are none.
pub(super) fn folders(dir: &Path, patterns: &[String]) -> Result<Vec<Log>, Fail> {
    let read = || -> std::io::Result<Vec<Log>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let entry = entry?;
            let name = entry.file_name().into_string().map(|n| Name::new(&n)).ok();
            let Some(name) = name.filter(|n| Name::check(n.service()).is_ok()) else { continue };
            if entry.file_type()?.is_dir() {
                found.push(Log { name, dir: entry.path() });
            }
        }
        Ok(found)
    };
    let found = read().map_err(|e| unreadable(&format!("the folder {}", dir.display()), &e))?;
    choose(found, patterns, &format!("in {}", dir.display()))
}

/// Those of the services in the configuration that `patterns` mean; all where there are none.
pub(super) fn configured(patterns: &[String]) -> Result<Vec<Log>, Fail> {
    let options = config::Options::current(false, None, None);
    let options =
        options.map_err(|e| Fail::new(FAILED, format!("cannot find out where the configuration is: {e}")))?;
    let plan = config::load(&options).map_err(|_| {
        let detail = "keepd is not running, and the configuration that would tell where its logs are is broken \
                      (see `keepctl check`); `keepctl logs --dir FOLDER` reads them from a given folder";
        Fail::new(CONFIGURATION, detail)
    })?;
    let found = plan.services.iter().map(|s| Log { name: s.name.clone(), dir: s.logs.dir.clone() });
    choose(found.collect(), patterns, &format!("in {}", options.main.display()))
}

fn choose(mut found: Vec<Log>, patterns: &[String], place: &str) -> Result<Vec<Log>, Fail> {
    found.sort_by(|a, b| a.name.cmp(&b.name));
    for pattern in patterns {
        if !found.iter().any(|log| log.name.is_meant_by(pattern)) {
            let names: Vec<&str> = found.iter().map(|l| l.name.as_str()).take(20).collect();
            let there = if names.is_empty() { "none".into() } else { names.join(", ") };
            return Err(Fail::new(UNKNOWN, format!("no service `{pattern}` {place}; there are: {there}")));
        }
    }
    if !patterns.is_empty() {
        found.retain(|log| patterns.iter().any(|pattern| log.name.is_meant_by(pattern)));
    }
    Ok(found)
}

/// Prints them.
pub(super) async fn run(
    logs: Vec<Log>,
    args: &LogsArgs,
    query: Query,
    look: Look,
    out: &mut impl Write,
) -> Result<u8, Fail> {
    let mut sources: Vec<(&Log, bool, Place)> = Vec::new();
    for log in &logs {
        let stderr = Place::stderr(&log.dir);
        let apart = stderr.open().map_err(|e| unreadable(&log.dir.display().to_string(), &e))?.is_some();
        if !args.stderr {
            sources.push((log, false, Place::stdout(&log.dir)));
        }
        if args.stderr || apart {
            sources.push((log, true, stderr));
        }
    }
    let apart = !args.stderr && sources.iter().any(|s| s.1);
    if let ([(log, _, place)], true) = (&*sources, is_plain(args, look) && !query.filters()) {
        let from = query.lines.map_or(From::Start, From::LastLines);
        return bytes(log, place, from, args.follow, look, out).await;
    }
    let names = logs.iter().map(|l| l.name.to_string());
    let printer = Printer::new(names, apart, args.times, look, query.grep.clone());
    let places: Vec<Place> = sources.iter().map(|s| s.2.clone()).collect();
    let failed = |e| unreadable("the logs", &e);
    let mut view = View::open(&places, &query, args.follow, &|| false).map_err(failed)?;
    let print = |out: &mut _, of: usize, line| show(out, args, &printer, sources[of].0, sources[of].1, line);
    loop {
        match view.advance().map_err(failed)? {
            Next::Line(of, line) => print(out, of, line)?,
            Next::Busy => {}
            Next::End if args.follow => {
                out.flush()?;
                pause().await;
                (0..places.len()).for_each(|of| view.grown(of));
            }
            Next::End => return Ok(0),
        }
    }
}

fn show(
    out: &mut impl Write,
    args: &LogsArgs,
    printer: &Printer,
    log: &Log,
    stderr: bool,
    line: Line,
) -> Result<(), Fail> {
    let instance = log.name.as_str().split_once('@').and_then(|(_, n)| n.parse().ok());
    let line = wire::LogLine::new(log.name.service(), instance, stderr, line.note, line.time_ms, line.text)
        .partial(line.partial);
    if args.json {
        serde_json::to_writer(&mut *out, &line).map_err(std::io::Error::from)?;
        out.write_all(b"\n")?;
    } else {
        printer.line(out, &line)?;
    }
    Ok(())
}

async fn bytes(
    log: &Log,
    place: &Place,
    from: From,
    follow: bool,
    look: Look,
    out: &mut impl Write,
) -> Result<u8, Fail> {
    let failed = |e| unreadable(&format!("the log of {}", log.name), &e);
    let begin = if follow { Reader::begin } else { Reader::until_now };
    let mut reader = begin(place.clone(), from).map_err(failed)?;
    let (mut plain, mut chunk) = (Plain::new(look), vec![0; CHUNK]);
    loop {
        let n = reader.read(&mut chunk).map_err(failed)?;
        if let Some(note) = reader.take_note() {
            plain.chunk(out, format!("{note}\n").as_bytes())?;
        }
        match n {
            0 if follow => pause().await,
            0 => return plain.end(out),
            n => plain.chunk(out, &chunk[..n])?,
        }
    }
}

async fn pause() {
    #[expect(
        clippy::disallowed_methods,
        reason = "files that nobody tells us about are looked at now and then"
    )]
    tokio::time::sleep(LOOK).await;
}
