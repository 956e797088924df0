//! systemd's service units: which file is which unit, and who maps which of its keys. Each key goes to the first
//! of `commands`, `life`, `place`, `confine` and `depends` that knows it; what nobody knows has a reason in `reasons`.

mod commands;
mod confine;
mod depends;
mod exec;
mod folders;
mod life;
mod place;
mod reasons;
mod unit;
mod values;

pub(super) use depends::order;

use super::{
    batch::Batch,
    draft::{Draft, Setting},
    file_name, read,
};
use std::path::{Path, PathBuf};
use unit::{Entry, Unit};
use values::Specifiers;

/// What became of one key; `None` where it is another module's.
type Mapped = Option<Result<(), String>>;

/// Adds the service of a unit file and its drop-ins. The error is a clause.
pub(super) fn import(path: &Path, text: &str, setting: &Setting, batch: &mut Batch) -> Result<(), String> {
    let file = file_name(path);
    let Some(name) = file.strip_suffix(".service") else {
        return Err("only units of services are read, files named NAME.service".into());
    };
    let mut unit = Unit::default();
    unit.read(text)?;
    let drop_ins = drop_ins(path);
    for drop_in in &drop_ins {
        let text = read(drop_in).map_err(|why| format!("{}: {why}", drop_in.display()))?;
        unit.read(&text).map_err(|why| format!("{}: {why}", drop_in.display()))?;
    }
    let mut origin = file.clone();
    for drop_in in &drop_ins {
        origin += &format!(", {}", file_name(drop_in));
    }
    let mut draft = Draft::new(name, origin, setting);
    if name.ends_with('@') {
        draft.refused =
            Some(format!("it is a template: import it as an instance, from a file named {name}NAME.service"));
    }
    keys(&mut unit, &mut draft, &Specifiers { name: name.into() });
    batch.drafts.push(draft);
    Ok(())
}

/// The files in `NAME.service.d` beside the unit, in order.
fn drop_ins(path: &Path) -> Vec<PathBuf> {
    let mut folder = path.as_os_str().to_owned();
    folder.push(".d");
    let entries = std::fs::read_dir(folder).into_iter().flatten().filter_map(Result::ok);
    let mut files: Vec<PathBuf> = entries
        .map(|e| e.path())
        .filter(|p| p.is_file() && p.extension().is_some_and(|e| e == "conf"))
        .collect();
    files.sort();
    files
}

fn keys(unit: &mut Unit, draft: &mut Draft, specifiers: &Specifiers) {
    let mut known = Vec::new();
    for mut entry in std::mem::take(&mut unit.entries) {
        let values: Result<Vec<String>, String> = entry.values.iter().map(|v| specifiers.expand(v)).collect();
        match values {
            Ok(values) => {
                entry.values = values;
                known.push(entry);
            }
            Err(why) => draft.remarks.lost(shown(&entry), why),
        }
    }
    unit.entries = known;
    for entry in &unit.entries {
        let wishes = draft.wishes.len();
        let outcome = map(entry, unit, draft);
        // What became of a dependency is known once all files are read.
        if draft.wishes.len() == wishes {
            draft.key(shown(entry), outcome);
        }
    }
    life::defaults(unit, draft);
    place::defaults(unit, draft);
    depends::defaults(unit, draft);
}

fn map(entry: &Entry, unit: &Unit, draft: &mut Draft) -> Result<(), String> {
    let mapped = match entry.section.as_str() {
        "Unit" | "Install" => depends::map(entry, draft).or_else(|| life::map(entry, unit, draft)),
        "Service" => commands::map(entry, unit, draft)
            .or_else(|| life::map(entry, unit, draft))
            .or_else(|| place::map(entry, unit, draft))
            .or_else(|| confine::map(entry, unit, draft)),
        _ => None,
    };
    mapped.unwrap_or_else(|| Err(reasons::reason(&entry.section, &entry.key).into()))
}

/// The key as the unit has it, for a remark.
fn shown(entry: &Entry) -> String {
    format!("{}={}", entry.key, entry.values.join(" "))
}
