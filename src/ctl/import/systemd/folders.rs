//! Folders that several units name. keepd makes a folder for one service, or for several of one user where it stays;
//! the first unit that names it has it.

use super::super::{batch::Batch, draft::Draft, toml::Value};
use std::path::Path;

const KEYS: [&str; 2] = ["runtime-dirs", "state-dirs"];

/// Takes from each service what lies in, or around, a folder of one before it.
pub(super) fn apart(batch: &mut Batch) {
    // Key, name and the user with the groups.
    let mut taken: Vec<(&str, String, String)> = Vec::new();
    for draft in batch.drafts.iter_mut().filter(|d| d.refused.is_none()) {
        let whose = ["user", "group", "groups"]
            .map(|k| draft.get(k).map(Value::to_string).unwrap_or_default())
            .join(" ");
        for key in KEYS {
            let names = match draft.get(key) {
                Some(Value::List(names)) => names.clone(),
                _ => continue,
            };
            let mut kept: Vec<String> = Vec::new();
            for name in names {
                let meets = |other: &str| {
                    let (a, b) = (Path::new(other), Path::new(&name));
                    a.starts_with(b) || b.starts_with(a)
                };
                let shared = |k: &str, n: &str, w: &str| k == "state-dirs" && *n == name && w == whose;
                let clash = taken.iter().any(|(k, n, w)| *k == key && meets(n) && !shared(k, n, w));
                if clash || kept.iter().any(|k| meets(k)) {
                    draft.remarks.lost(
                        format!("{name} of {key}"),
                        "keepd makes a folder for one service, and none within another",
                    );
                } else {
                    kept.push(name);
                }
            }
            replace(draft, key, &kept);
            taken.extend(kept.into_iter().map(|name| (key, name, whose.clone())));
        }
    }
}

fn replace(draft: &mut Draft, key: &str, names: &[String]) {
    if names.is_empty() {
        draft.settings.retain(|(path, _)| *path != key);
    } else if let Some((_, value)) = draft.settings.iter_mut().find(|(path, _)| *path == key) {
        *value = Value::List(names.to_vec());
    }
}
