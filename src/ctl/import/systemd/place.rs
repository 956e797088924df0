//! Whom a service runs as, where, with which environment and folders, and where its output goes.

use super::{
    super::{
        draft::Draft,
        text::{boolean, literal},
        toml::Value,
    },
    Mapped,
    exec::split,
    unit::{Entry, Unit},
};

pub(super) fn map(entry: &Entry, unit: &Unit, draft: &mut Draft) -> Mapped {
    let value = entry.last();
    Some(match entry.key.as_str() {
        "User" => draft.set("user", value),
        "Group" => draft.set("group", value),
        "SupplementaryGroups" => draft.set("groups", entry.words()),
        "DynamicUser" => match boolean(value) {
            Ok(true) => Err("keepd makes no users: it is to be made before".into()),
            other => other.map(drop),
        },
        "WorkingDirectory" => directory(value, draft),
        "UMask" => draft.set("umask", value),
        "Environment" => environment(entry, draft),
        "EnvironmentFile" => environment_files(entry, draft),
        "PIDFile" if unit.get("Type") != Some("forking") => {
            draft.remarks.note("PIDFile is not needed: keepd holds the process itself");
            Ok(())
        }
        "RuntimeDirectory" => folders(entry, draft, "runtime-dirs"),
        "StateDirectory" => folders(entry, draft, "state-dirs"),
        "RuntimeDirectoryMode" | "StateDirectoryMode" => folder_mode(value, unit),
        "LoadCredential" => credentials(entry, draft),
        "StandardInput" if value == "null" => Ok(()),
        "StandardInput" => {
            draft.refused = Some(format!("its standard input is to be a {value}, and keepd gives /dev/null"));
            Err("a service reads from /dev/null".into())
        }
        "StandardOutput" | "StandardError" => output(&entry.key, value, draft),
        _ => return None,
    })
}

/// A user that systemd would have made up is not to be root here.
pub(super) fn defaults(unit: &Unit, draft: &mut Draft) {
    if unit.get("DynamicUser").is_some_and(|v| boolean(v) == Ok(true))
        && unit.get("User").is_none()
        && draft.set("user", "nobody").is_ok()
    {
        draft.remarks.note("DynamicUser: it runs as nobody until it has a user of its own");
    }
}

fn directory(value: &str, draft: &mut Draft) -> Result<(), String> {
    let path = match value.strip_prefix('-') {
        Some(path) => {
            draft.remarks.note(format!("WorkingDirectory: {path} must exist"));
            path
        }
        None => value,
    };
    if path == "~" {
        return Err("write the home of its user".into());
    }
    draft.set("directory", literal(path))
}

fn environment(entry: &Entry, draft: &mut Draft) -> Result<(), String> {
    let mut vars = Vec::new();
    for value in &entry.values {
        for (word, _) in split(value)? {
            match word.split_once('=') {
                Some((name, value)) if !name.is_empty() => vars.push((name.to_owned(), literal(value))),
                _ => draft.remarks.lost(format!("Environment={word}"), "it is no NAME=VALUE"),
            }
        }
    }
    draft.env(vars)
}

fn environment_files(entry: &Entry, draft: &mut Draft) -> Result<(), String> {
    let mut files = Vec::new();
    for value in &entry.values {
        if value.contains(['*', '?', '[']) {
            draft.remarks.lost(format!("EnvironmentFile={value}"), "keepd reads files by their names");
        } else {
            files.push(literal(value));
        }
    }
    draft.add("env-files", files)
}

/// Folders that are made for the service.
fn folders(entry: &Entry, draft: &mut Draft, path: &'static str) -> Result<(), String> {
    let mut names = Vec::new();
    for word in entry.words() {
        let plain = word.chars().all(|c| c.is_ascii_alphanumeric() || "._-@/".contains(c));
        let inside = !word.split('/').any(|part| matches!(part, "" | "." | ".."));
        if word.contains(':') {
            draft.remarks.lost(format!("{}={word}", entry.key), "keepd makes no links to folders");
        } else if !plain || !inside || word.split('/').next() == Some("keepd") {
            draft.remarks.lost(format!("{}={word}", entry.key), "it is no name for a folder of a service");
        } else {
            names.push(word);
        }
    }
    if names.is_empty() { Ok(()) } else { draft.add(path, names) }
}

/// What a folder of keepd's gets by itself.
fn folder_mode(value: &str, unit: &Unit) -> Result<(), String> {
    let octal = |text: &str| u32::from_str_radix(text, 8).map_err(|_| "it is no mode".to_owned());
    let umask = unit.get("UMask").map_or(Ok(0o022), octal)?;
    match octal(value)? == 0o777 & !umask {
        true => Ok(()),
        false => Err("a folder gets 0777 without umask".into()),
    }
}

/// `ID:PATH`, each a file that the service gets to read.
fn credentials(entry: &Entry, draft: &mut Draft) -> Result<(), String> {
    let mut all = Vec::new();
    for value in &entry.values {
        match value.split_once(':') {
            Some((id, path)) if path.starts_with('/') && credential(id) => {
                all.push((id.to_owned(), literal(path)));
            }
            _ => draft.remarks.lost(
                format!("LoadCredential={value}"),
                "keepd takes a credential from a file that is named in full",
            ),
        }
    }
    if all.is_empty() { Ok(()) } else { draft.set("credentials", Value::Map(all)) }
}

fn credential(id: &str) -> bool {
    !id.starts_with('.') && id.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
}

fn output(key: &str, value: &str, draft: &mut Draft) -> Result<(), String> {
    let stdout = key == "StandardOutput";
    match value.split(':').next().unwrap_or(value) {
        "null" if stdout => draft.set("logs.stdout", "discard"),
        "null" => draft.set("logs.stderr", "discard"),
        "inherit" => Ok(()),
        // Beside keepd's own file, and of both streams.
        "journal" | "journal+console" => draft.set("logs.forward", vec!["journal".to_owned()]),
        "syslog" | "syslog+console" => draft.set("logs.forward", vec!["syslog".to_owned()]),
        "file" | "append" | "truncate" => {
            Err("keepd has a folder for each service's log, [daemon] log-dir".into())
        }
        _ => Err("keepd keeps all output, or none of it".into()),
    }
}
