//! Old plan against new plan: what an apply would do, and why.

use super::{Name, Plan, ServiceSpec};
use serde_json::Value;
use std::collections::BTreeSet;

/// What an apply of a new plan changes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Diff {
    /// Only in the new plan.
    pub added: Vec<Name>,
    /// Only in the old plan: they are stopped and forgotten.
    pub removed: Vec<Name>,
    /// In both, and different.
    pub changed: Vec<Changed>,
    /// Fields of the daemon's own settings that differ.
    pub daemon: Vec<Field>,
}

/// A service that differs between two plans.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// Which.
    pub name: Name,
    /// What launches differently only takes effect with a new process; the rest is taken over as it runs.
    pub restart_needed: bool,
    /// Field by field.
    pub fields: Vec<Field>,
}

/// One difference; values are shown as JSON, those of the environment never.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// Path of the field, such as `launch.argv` or `backoff.delay`.
    pub path: String,
    /// `None` where the value is secret or absent.
    pub old: Option<String>,
    /// `None` where the value is secret or absent.
    pub new: Option<String>,
}

impl Diff {
    /// True where the two plans are the same.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.removed.is_empty() && self.changed.is_empty() && self.daemon.is_empty()
    }
}

/// Compares two plans.
pub fn diff(old: &Plan, new: &Plan) -> Diff {
    let mut d = Diff { daemon: fields(&old.daemon, &new.daemon), ..Diff::default() };
    // What is in them may be secret, such as the path of a webhook.
    let names: BTreeSet<&str> = old.hooks.iter().chain(&new.hooks).map(|h| h.name.as_str()).collect();
    let find = |plan: &'_ Plan, name: &str| plan.hooks.iter().find(|h| h.name == name).cloned();
    let changed = names.into_iter().filter(|name| find(old, name) != find(new, name));
    d.daemon.extend(changed.map(|name| Field { path: format!("hook.{name}"), old: None, new: None }));
    d.removed =
        old.services.iter().filter(|s| new.find(s.name.as_str()).is_none()).map(|s| s.name.clone()).collect();
    for s in &new.services {
        match old.find(s.name.as_str()) {
            None => d.added.push(s.name.clone()),
            Some(o) if o != s => d.changed.push(Changed {
                name: s.name.clone(),
                restart_needed: restart_needed(o, s),
                fields: fields(o, s),
            }),
            Some(_) => {}
        }
    }
    d
}

/// Whether a running process must be replaced for `new` to hold.
pub fn restart_needed(old: &ServiceSpec, new: &ServiceSpec) -> bool {
    old.launch != new.launch || old.logs.dir != new.logs.dir
}

fn fields<T: serde::Serialize>(old: &T, new: &T) -> Vec<Field> {
    let mut out = Vec::new();
    if let (Ok(a), Ok(b)) = (serde_json::to_value(old), serde_json::to_value(new)) {
        walk("", Some(&a), Some(&b), &mut out);
    }
    out
}

fn walk(path: &str, old: Option<&Value>, new: Option<&Value>, out: &mut Vec<Field>) {
    if old == new {
        return;
    }
    if let (Some(Value::Object(a)), Some(Value::Object(b))) = (old, new) {
        let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
        for k in keys {
            let at = if path.is_empty() { k.clone() } else { format!("{path}.{k}") };
            walk(&at, a.get(k), b.get(k), out);
        }
        return;
    }
    let secret = path.starts_with("launch.env.");
    let show = |v: Option<&Value>| v.filter(|_| !secret).map(Value::to_string);
    out.push(Field { path: path.into(), old: show(old), new: show(new) });
}
