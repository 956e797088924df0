//! `[program:x]`: each of its keys to keepd's.

use super::{
    super::{
        batch::Batch,
        draft::{Draft, Setting},
        text::{boolean, literal, literals, number, seconds, size},
        toml::Value,
    },
    Common,
    expand::{Names, padded},
    ini::Section,
};
use crate::{
    config::split_words,
    plan::{signal::parse_signal, unit::size_text},
};

pub(super) const PRIORITY: &str = "keepd orders by `after` and `requires`, service by service";
/// So many processes are services of their own at most.
const MOST: u64 = 1000;
/// keepd's breaker counts so many failures.
const COUNTED: u64 = 1024;

/// Adds the services of a program: one with instances, or one for each process where their numbers do not begin at
/// 0 or are written with leading zeros.
pub(super) fn program(
    name: &str,
    section: &Section,
    origin: String,
    mut names: Names,
    common: &Common,
    setting: &Setting,
    batch: &mut Batch,
) {
    let one = |key: &str, or: u64| section.get(key).map_or(Ok(or), number).unwrap_or(or);
    let (count, first) = (one("numprocs", 1).min(MOST), one("numprocs_start", 0));
    for (key, value) in [("program_name", name), ("group_name", name), ("numprocs", &count.to_string())] {
        names.known.push((key.into(), value.into()));
    }
    let shown = ["command", "environment", "directory"].iter().filter_map(|k| section.get(k)).any(padded);
    if count == 1 || first == 0 && !shown {
        if count == 1 {
            names.process = Some(first);
        }
        let mut draft = Draft::new(name, origin, setting);
        if count > 1 {
            let _ = draft.set("instances", i64::try_from(count).unwrap_or(1));
            draft.remarks.note(format!("its processes are {name}@0 to {name}@{}", count - 1));
        }
        keys(&mut draft, section, &names, common);
        batch.drafts.push(draft);
        return;
    }
    for process in first..first + count {
        names.process = Some(process);
        let named = section.get("process_name").map(|n| names.expand(n)).and_then(Result::ok);
        let name = named.unwrap_or_else(|| format!("{name}_{process:02}"));
        let mut draft = Draft::new(&name, format!("{origin}, process {process}"), setting);
        draft
            .remarks
            .note("a service of its own, because keepd counts instances from 0 and without leading zeros");
        keys(&mut draft, section, &names, common);
        batch.drafts.push(draft);
    }
}

fn keys(draft: &mut Draft, section: &Section, names: &Names, common: &Common) {
    if !common.environment.is_empty() {
        let all = common.environment.iter().map(|(n, v)| (n.clone(), literal(v))).collect();
        let outcome = draft.env(all);
        draft.key("[supervisord] environment".into(), outcome);
    }
    for (key, value) in &section.keys {
        let outcome = names.expand(value).and_then(|value| map(draft, section, key, value.trim()));
        if key == "command"
            && let Err(why) = &outcome
        {
            draft.refused = Some(format!("its command cannot be taken over: {why}"));
        }
        draft.key(format!("{key} = {value}"), outcome);
    }
    let log = section.get("stdout_logfile").unwrap_or("AUTO");
    if section.get("redirect_stderr").is_none() && draft.get("logs.stderr").is_none() && !console(log) {
        // supervisord's default.
        let _ = draft.set("logs.stderr", "separate");
    }
    if section.get("autorestart").is_none() {
        let _ = draft.set("restart", "on-failure");
    }
    for (path, value) in [("limits.open-files", common.open_files), ("limits.processes", common.processes)] {
        if let Some(n) = value {
            let outcome = draft.set(path, n);
            draft.key(format!("[supervisord] {path}"), outcome);
        }
    }
    if let Some(umask) = common.umask.as_ref().filter(|_| section.get("umask").is_none()) {
        let outcome = draft.set("umask", umask.as_str());
        draft.key(format!("[supervisord] umask = {umask}"), outcome);
    }
    if let Some(user) = common.user.as_ref().filter(|_| section.get("user").is_none()) {
        let outcome = draft.set("user", user.as_str());
        draft.key(format!("[supervisord] user = {user}"), outcome);
    }
}

/// One key with its value, expanded.
fn map(draft: &mut Draft, section: &Section, key: &str, value: &str) -> Result<(), String> {
    match key {
        "command" => command(draft, value),
        // Names of instances are keepd's; the rest is in `program`.
        "process_name" | "numprocs" | "numprocs_start" => Ok(()),
        "autostart" => draft.set("autostart", boolean(value)?),
        "autorestart" => match value.to_ascii_lowercase().as_str() {
            "unexpected" => draft.set("restart", "on-failure"),
            _ => draft.set("restart", if boolean(value)? { "always" } else { "never" }),
        },
        "startsecs" => match number(value)? {
            0 => Ok(()),
            n => draft.set("backoff.reset-after", seconds(n)),
        },
        "startretries" => retries(draft, section, number(value)?),
        "exitcodes" => {
            let codes: Result<Vec<Value>, String> = value
                .split(',')
                .map(str::trim)
                .filter(|c| !c.is_empty())
                .map(|c| c.parse().map(Value::Number).map_err(|_| format!("{c} is no exit status")))
                .collect();
            draft.set("success-exit", Value::Mixed(codes?))
        }
        "stopsignal" => {
            parse_signal(value)?;
            let name = value.to_ascii_uppercase();
            let bare = name.trim_start_matches("SIG");
            draft.set(
                "stop-signal",
                if bare.bytes().all(|b| b.is_ascii_digit()) { name.clone() } else { format!("SIG{bare}") },
            )
        }
        "stopwaitsecs" => draft.set("stop-timeout", seconds(number(value)?)),
        "stopasgroup" | "killasgroup" => {
            if boolean(value)? {
                draft.remarks.note(format!(
                    "{key}: a stop always ends every process of the service; stop-signal \
                     goes to the main one first"
                ));
            }
            Ok(())
        }
        "user" => draft.set("user", value),
        "directory" => draft.set("directory", literal(value)),
        "umask" => draft.set("umask", value),
        "environment" => draft.env(environment(value)?.into_iter().map(|(n, v)| (n, literal(&v))).collect()),
        "redirect_stderr" => draft.set("logs.stderr", if boolean(value)? { "merge" } else { "separate" }),
        _ if key.starts_with("stdout_") || key.starts_with("stderr_") => log(draft, section, key, value),
        "priority" if value == "999" => Ok(()),
        "priority" => Err(PRIORITY.into()),
        "serverurl" => Err("no service of keepd is told of its API".into()),
        "socket" | "socket_backlog" | "socket_owner" | "socket_mode" => {
            Err("services with a socket of keepd's are not supported by this version".into())
        }
        _ => Err("keepd has no such setting".into()),
    }
}

fn command(draft: &mut Draft, value: &str) -> Result<(), String> {
    let words = split_words(value)?;
    if words.first().is_some_and(|p| p.contains('/') && !p.starts_with('/')) {
        return Err(format!(
            "{} is relative to the folder that supervisord was started in: write a whole path",
            words[0]
        ));
    }
    draft.set("command", literals(&words))
}

/// supervisord waits 1 s, 2 s and so on and gives up for good; keepd's delays double up to a ceiling.
fn retries(draft: &mut Draft, section: &Section, retries: u64) -> Result<(), String> {
    let startsecs = section.get("startsecs").map_or(Ok(1), number)?;
    let longest = retries.clamp(1, 3600);
    // All that many failed starts with their delays, twice over.
    let within = 2 * (retries + 1).saturating_mul(startsecs.saturating_add(longest));
    draft.set("backoff.delay", "1s")?;
    draft.set("backoff.max", seconds(longest))?;
    if retries >= COUNTED {
        draft.set("breaker.failures", i64::try_from(2 * COUNTED).unwrap_or(i64::MAX))?;
        draft.set("breaker.within", "36500d")?;
        draft
            .remarks
            .note("startretries: it is restarted for ever, since keepd counts 1024 failures at most");
        return Ok(());
    }
    draft.set("breaker.failures", i64::try_from(retries + 1).unwrap_or(i64::MAX))?;
    draft.set("breaker.within", seconds(within))?;
    draft.set("breaker.retry-every", "never")?;
    draft.remarks.note(format!(
        "startretries: after {} failures within {} it stays failed; later failures of a long \
         run count as well",
        retries + 1,
        seconds(within)
    ));
    Ok(())
}

/// Output that goes where supervisord's own goes, as in containers.
fn console(path: &str) -> bool {
    path.starts_with("/dev/") || path.starts_with("/proc/")
}

fn log(draft: &mut Draft, section: &Section, key: &str, value: &str) -> Result<(), String> {
    let (stream, what) = key.split_once('_').unwrap_or((key, ""));
    let stdout = stream == "stdout";
    let merged = || section.get("redirect_stderr").map_or(Ok(false), boolean);
    match what {
        "logfile" => match value.to_ascii_lowercase().as_str() {
            "auto" => Ok(()),
            "none" | "off" => match stdout {
                true => draft.set("logs.stdout", "discard"),
                false if merged()? => Ok(()),
                false => draft.set("logs.stderr", "discard"),
            },
            "syslog" => syslog(draft),
            path if console(path) => {
                draft.remarks.note(format!("{key}: keepd keeps the output itself; keepctl logs -f shows it"));
                Ok(())
            }
            _ => Err("keepd has a folder for each service's log, [daemon] log-dir".into()),
        },
        "logfile_maxbytes" => match size(value)? {
            0 if section.get(&format!("{stream}_logfile")).is_some_and(console) => Ok(()),
            0 => Err("a log of keepd's always has a limit".into()),
            bytes if stdout => {
                draft.set("logs.max-size", size_text(bytes))?;
                draft.set("logs.rotate", "off")
            }
            bytes => as_stdout(section, "stdout_logfile_maxbytes", "50MB", |v| size(v) == Ok(bytes)),
        },
        "logfile_backups" if stdout => {
            draft.set("logs.keep", i64::try_from(number(value)?).unwrap_or(i64::MAX))?;
            draft.set("logs.rotate", "off")
        }
        "logfile_backups" => as_stdout(section, "stdout_logfile_backups", "10", |v| v == value),
        "syslog" | "events_enabled" if !boolean(value)? => Ok(()),
        "syslog" => syslog(draft),
        "capture_maxbytes" if size(value)? == 0 => Ok(()),
        "events_enabled" | "capture_maxbytes" => Err("keepd makes no events of output".into()),
        _ => Err("keepd has no such setting".into()),
    }
}

/// Beside keepd's own file.
fn syslog(draft: &mut Draft) -> Result<(), String> {
    draft.set("logs.forward", vec!["syslog".to_owned()])
}

/// stderr's log has the limits of stdout's.
fn as_stdout(section: &Section, key: &str, default: &str, same: impl Fn(&str) -> bool) -> Result<(), String> {
    match same(section.get(key).unwrap_or(default)) {
        true => Ok(()),
        false => Err("both logs of a service have the same limits, those of stdout".into()),
    }
}

/// `A="1",B=2`, over several lines as well. The error is a clause.
pub(super) fn environment(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut out = Vec::new();
    // A comma separates unless it is quoted: where it stands in a quote, the pieces have an open one.
    let mut piece = String::new();
    for part in text.split(',') {
        if !piece.is_empty() {
            piece.push(',');
        }
        piece.push_str(part);
        let Ok(words) = split_words(piece.trim()) else { continue };
        if words.len() > 1 {
            return Err(format!("{} is followed by no comma", words[0]));
        }
        if let Some(word) = words.into_iter().next() {
            let (name, value) = word.split_once('=').ok_or_else(|| format!("{word} is no NAME=value"))?;
            out.push((name.trim().to_owned(), value.to_owned()));
        }
        piece.clear();
    }
    if piece.is_empty() { Ok(out) } else { Err("a quote in it is never closed".into()) }
}

#[cfg(test)]
mod tests {
    use super::environment;

    #[test]
    fn environments_are_lists_of_quoted_values() {
        let pairs = environment("A=\"1,2\",B='x y',\nC=3 , D=\"a\"").unwrap();
        let expected = [("A", "1,2"), ("B", "x y"), ("C", "3"), ("D", "a")];
        assert_eq!(pairs, expected.map(|(n, v)| (n.to_owned(), v.to_owned())));
        assert_eq!(environment("").unwrap(), []);
        for bad in ["A", "A=\"1", "A=1 B=2"] {
            assert!(environment(bad).is_err(), "{bad}");
        }
    }
}
