//! supervisord's files: which sections there are and what becomes of each. Programs are mapped in `program`.

mod expand;
mod ini;
mod program;

use super::{batch::Batch, draft::Setting, file_name, read};
use crate::plan::Name;
use expand::Names;
use ini::Section;
use std::path::{Path, PathBuf};

/// What `[supervisord]` says for all programs.
#[derive(Debug, Default)]
struct Common {
    user: Option<String>,
    umask: Option<String>,
    environment: Vec<(String, String)>,
    open_files: Option<i64>,
    processes: Option<i64>,
}

/// Adds what a file, and those that it includes, has. The error is a clause.
pub(super) fn import(path: &Path, text: &str, setting: &Setting, batch: &mut Batch) -> Result<(), String> {
    let mut sections: Vec<(PathBuf, Section)> = Vec::new();
    for section in ini::parse(text)? {
        if section.name != "include" {
            sections.push((path.into(), section));
            continue;
        }
        for (key, value) in &section.keys {
            if key != "files" {
                batch.remarks.lost(format!("[include] {key}"), "supervisord does not know it either");
                continue;
            }
            for pattern in value.split_whitespace() {
                include(path, pattern, &mut sections, batch)?;
            }
        }
    }
    let mut common = Common::default();
    for (file, section) in sections.iter().filter(|(_, s)| s.name == "supervisord") {
        supervisord(section, &names(file, setting, &[]), &mut common, batch);
    }
    for (file, section) in &sections {
        let names = names(file, setting, &common.environment);
        match section
            .name
            .split_once(':')
            .map_or((section.name.as_str(), ""), |(kind, name)| (kind, name.trim()))
        {
            ("program" | "fcgi-program", name) => {
                let origin = format!("[{}] of {}", section.name, file_name(file));
                program::program(name, section, origin, names, &common, setting, batch);
            }
            ("supervisord", _) => {}
            ("group", name) => group(name, section, batch),
            (kind, _) => {
                let why = match kind {
                    "eventlistener" => {
                        "keepd's events are on its API (`keepctl events --json -f`), which no service is fed with"
                    }
                    "unix_http_server" | "inet_http_server" => "keepd has a socket of its own, [api]",
                    "supervisorctl" => "keepctl takes the place of supervisorctl",
                    "rpcinterface" | "ctlplugin" => "it is a plug-in of supervisord",
                    _ => "keepd knows no such section",
                };
                batch.remarks.lost(format!("[{}] of {}", section.name, file_name(file)), why);
            }
        }
    }
    Ok(())
}

fn names(file: &Path, setting: &Setting, environment: &[(String, String)]) -> Names {
    let here = file.parent().unwrap_or(Path::new("/")).display().to_string();
    let given =
        setting.env.iter().chain(environment).map(|(name, value)| (format!("ENV_{name}"), value.clone()));
    Names { known: given.chain([("here".to_owned(), here)]).collect(), process: None }
}

/// Files of a pattern whose last part may have `*` and `?` in it, relative to the including file, in order.
fn include(
    main: &Path,
    pattern: &str,
    sections: &mut Vec<(PathBuf, Section)>,
    batch: &mut Batch,
) -> Result<(), String> {
    let here = main.parent().unwrap_or(Path::new("/"));
    let whole = here.join(pattern.replace("%(here)s", &here.display().to_string()));
    let (Some(folder), last) = (whole.parent(), file_name(&whole)) else { return Ok(()) };
    let mut files: Vec<PathBuf> = match std::fs::read_dir(folder) {
        Ok(entries) => entries.filter_map(Result::ok).map(|e| e.path()).collect(),
        Err(_) => Vec::new(),
    };
    files.retain(|f| f.is_file() && Name::new(&file_name(f)).is_meant_by(&last));
    files.sort();
    if files.is_empty() {
        batch.remarks.lost(format!("[include] files = {pattern}"), "no file matches");
    }
    for file in files {
        let text = read(&file).map_err(|why| format!("{}: {why}", file.display()))?;
        let found = ini::parse(&text).map_err(|why| format!("{}: {why}", file.display()))?;
        sections.extend(found.into_iter().map(|s| (file.clone(), s)));
    }
    Ok(())
}

fn supervisord(section: &Section, names: &Names, common: &mut Common, batch: &mut Batch) {
    for (key, value) in &section.keys {
        let outcome = names.expand(value).and_then(|value| match key.as_str() {
            "user" => {
                common.user = Some(value);
                Ok(())
            }
            "umask" => {
                common.umask = Some(value);
                Ok(())
            }
            "environment" => program::environment(&value).map(|e| common.environment = e),
            "minfds" => {
                value.parse().map(|n| common.open_files = Some(n)).map_err(|_| "it is no number".into())
            }
            "minprocs" => {
                value.parse().map(|n| common.processes = Some(n)).map_err(|_| "it is no number".into())
            }
            "nodaemon" => {
                batch
                    .remarks
                    .note("nodaemon: keepd stays in the foreground unless it is called with --daemonize");
                Ok(())
            }
            "logfile" | "logfile_maxbytes" | "logfile_backups" | "loglevel" | "silent" | "strip_ansi" => {
                Err("keepd's own log is set in [daemon]: log-file, log-level".into())
            }
            "directory" | "childlogdir" | "pidfile" | "nocleanup" => {
                Err("keepd keeps its files where [daemon] says: runtime-dir, state-dir, log-dir".into())
            }
            _ => Err("keepd has no such setting".into()),
        });
        if let Err(why) = outcome {
            batch.remarks.lost(format!("[supervisord] {key} = {value}"), why);
        }
    }
}

fn group(name: &str, section: &Section, batch: &mut Batch) {
    let programs = section.get("programs").unwrap_or("");
    batch.remarks.lost(
        format!("[group:{name}] programs = {programs}"),
        "keepd has no groups: name services so that a pattern means them, as in `keepctl restart 'web*'`",
    );
    for (key, value) in section.keys.iter().filter(|(k, _)| k != "programs") {
        batch.remarks.lost(format!("[group:{name}] {key} = {value}"), program::PRIORITY);
    }
}
