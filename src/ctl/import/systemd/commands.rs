//! `Exec…=` and `Type=`: what is run, and how it is reloaded and stopped.

use super::{
    super::{draft::Draft, text::boolean},
    Mapped,
    exec::{Line, command, sequence},
    unit::{Entry, Unit},
};

pub(super) fn map(entry: &Entry, unit: &Unit, draft: &mut Draft) -> Mapped {
    Some(match entry.key.as_str() {
        "Type" => kind(entry.last(), draft),
        "ExecStart" => start(entry, unit, draft),
        "ExecStartPre" => before(entry, draft),
        "ExecReload" => reload(entry, draft),
        "ExecStop" => stop(entry, draft),
        "RemainAfterExit" => {
            if boolean(entry.last()) == Ok(true) {
                draft.remarks.note("RemainAfterExit: once its processes have ended it is shown as exited");
            }
            Ok(())
        }
        // There is nothing to guess: it is the process that was started.
        "GuessMainPID" => Ok(()),
        _ => return None,
    })
}

fn kind(kind: &str, draft: &mut Draft) -> Result<(), String> {
    match kind {
        "simple" | "exec" => Ok(()),
        "idle" => {
            draft.remarks.note("Type=idle: it is started along with all others");
            Ok(())
        }
        "oneshot" => draft.set("type", "oneshot"),
        "notify" | "notify-reload" => draft
            .set("ready.notify", true)
            .map_err(|_| "[ready] is not supported by this version: it is ready as soon as it runs".into()),
        "dbus" => Err("keepd does not wait for a name on D-Bus: it is ready as soon as it runs".into()),
        "forking" => {
            draft.set("autostart", false)?;
            Err("keepd holds the program itself: give `command` its option to stay in the foreground (often \
                 -f, -F, -D or --foreground), then remove autostart = false"
                .into())
        }
        _ => Err("systemd does not know it either".into()),
    }
}

/// Lines that keepd can run as the service's user; the others are named.
fn lines(entry: &Entry, draft: &mut Draft) -> Vec<Line> {
    let mut out = Vec::new();
    for value in &entry.values {
        match Line::parse(value) {
            Ok(line) if line.odd.is_empty() => out.push(line),
            Ok(line) => draft.remarks.lost(
                format!("{}={value}", entry.key),
                format!("`{}` gives it other rights than the service has, and keepd does not", line.odd),
            ),
            Err(why) => draft.remarks.lost(format!("{}={value}", entry.key), why),
        }
    }
    out
}

fn start(entry: &Entry, unit: &Unit, draft: &mut Draft) -> Result<(), String> {
    let mut all: Vec<Line> = Vec::new();
    for value in &entry.values {
        let line = Line::parse(value)
            .inspect_err(|why| draft.refused = Some(format!("ExecStart={value}: {why}")))?;
        if !line.odd.is_empty() {
            draft.remarks.note(format!(
                "ExecStart: `{}` is left out, it runs as its user and with its sandbox",
                line.odd
            ));
        }
        all.push(line);
    }
    let Some(main) = all.pop() else { return Err("it is empty".into()) };
    if main.ignore {
        draft.remarks.note("ExecStart: `-` is left out, a failure is one");
    }
    // Named where ExecStartPre is mapped, if something of it is lost.
    let mut pre: Vec<Line> = unit
        .entries
        .iter()
        .filter(|e| e.key == "ExecStartPre")
        .flat_map(|e| &e.values)
        .filter_map(|v| Line::parse(v).ok())
        .filter(|l| l.odd.is_empty())
        .collect();
    pre.append(&mut all);
    if !pre.is_empty() {
        draft.remarks.note("a shell runs what comes before the program, at each start");
    }
    if pre.iter().chain([&main]).any(|l| l.plain().is_none()) {
        draft.remarks.note("a shell puts the variables in; quotes within their values are not read");
    }
    draft.set("command", command(&pre, &main))
}

fn before(entry: &Entry, draft: &mut Draft) -> Result<(), String> {
    lines(entry, draft);
    Ok(())
}

fn reload(entry: &Entry, draft: &mut Draft) -> Result<(), String> {
    let lines = lines(entry, draft);
    match lines.as_slice() {
        [] => Ok(()),
        [line] if line.signal().is_some() => draft.set("reload-signal", line.signal().unwrap_or_default()),
        lines => draft.set("reload-command", sequence(lines)),
    }
}

fn stop(entry: &Entry, draft: &mut Draft) -> Result<(), String> {
    let lines = lines(entry, draft);
    match lines.as_slice() {
        [] => Ok(()),
        [line] if line.signal().is_some() => draft.set("stop-signal", line.signal().unwrap_or_default()),
        lines => draft.set("stop-command", sequence(lines)),
    }
}
