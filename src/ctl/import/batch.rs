//! All services of one import: names that keepd takes and that differ, the TOML text, and the summary for people.

use super::{
    draft::{Draft, Remark, Remarks, Setting},
    toml::{comment, key},
};
use crate::plan::Name;
use std::{collections::BTreeSet, fmt::Write as _};

/// What all files together came to.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) drafts: Vec<Draft>,
    /// What belongs to no service.
    pub(super) remarks: Remarks,
}

impl Batch {
    /// Gives every service a name of its own that keepd takes, and a user.
    pub(super) fn finish(&mut self, setting: &Setting) {
        let mut taken = BTreeSet::new();
        for draft in &mut self.drafts {
            let wanted = service_name(&draft.name);
            let mut name = wanted.clone();
            let mut n = 2;
            while !taken.insert(name.clone()) {
                let suffix = format!("-{n}");
                name = format!("{}{suffix}", &wanted[..wanted.len().min(Name::MAX - suffix.len())]);
                n += 1;
            }
            if name != draft.name {
                let why = if wanted == draft.name { "is taken" } else { "is no name for a service" };
                draft.remarks.note(format!("called {name} here, because {} {why}", draft.name));
                draft.name = name;
            }
            if draft.refused.is_none() && draft.get("command").is_none() {
                draft.refused = Some("it has nothing to run".into());
            }
            if draft.refused.is_none()
                && let Err(why) = draft.name_user(setting)
            {
                draft.refused = Some(why);
            }
        }
    }

    pub(super) fn left_out(&self) -> usize {
        self.remarks.lost_ones() + self.drafts.iter().map(Draft::left_out).sum::<usize>()
    }

    /// The configuration.
    pub(super) fn toml(&self, format: &str) -> String {
        let mut out = comment(&format!("Imported from {format} by `keepctl import`."));
        out += &comment(
            "Read what is said beside each service, then put this into /etc/keepd/conf.d and run `keepctl check`.",
        );
        out += &remarks(self.remarks.all());
        for draft in &self.drafts {
            out.push('\n');
            out += &comment(&draft.origin);
            out += &remarks(draft.remarks.all());
            match &draft.refused {
                Some(why) => out += &comment(&format!("Left out as a whole: {why}.")),
                None => tables(draft, &mut out),
            }
        }
        out
    }

    /// A line for each service of which something was left out, and one for all.
    pub(super) fn summary(&self) -> String {
        let mut out = String::new();
        let mut lost = |name: &str, remarks: &[Remark]| {
            let what: Vec<String> = remarks
                .iter()
                .filter_map(|r| {
                    if let Remark::Lost { what, .. } = r {
                        Some(crate::ctl::text::clean(what).into_owned())
                    } else {
                        None
                    }
                })
                .collect();
            if !what.is_empty() {
                let _ = writeln!(out, "{name}: not kept: {}", what.join(", "));
            }
        };
        lost("all", self.remarks.all());
        for draft in &self.drafts {
            lost(&draft.name, draft.remarks.all());
        }
        for draft in &self.drafts {
            if let Some(why) = &draft.refused {
                let _ = writeln!(out, "{}: left out: {why}", draft.name);
            }
        }
        let services = self.drafts.iter().filter(|d| d.refused.is_none()).count();
        let kept: usize = self.drafts.iter().map(|d| d.kept).sum();
        let count = |n: usize, noun: &str| format!("{n} {noun}{}", if n == 1 { "" } else { "s" });
        let left = match self.left_out() {
            0 => "everything was kept".into(),
            n => format!("{n} not kept"),
        };
        let _ = writeln!(out, "{}, {} mapped, {left}", count(services, "service"), count(kept, "key"));
        out
    }
}

/// What was not kept for one and the same reason stands together.
fn remarks(remarks: &[Remark]) -> String {
    let mut out = String::new();
    let mut said = BTreeSet::new();
    for remark in remarks {
        match remark {
            Remark::Note(text) => out += &comment(&format!("Note: {text}.")),
            Remark::Lost { why, .. } if said.insert(why) => {
                let same = remarks.iter().filter_map(|r| match r {
                    Remark::Lost { what, why: other } if other == why => Some(what.as_str()),
                    _ => None,
                });
                out += &comment(&format!("Not kept: {}: {why}.", same.collect::<Vec<_>>().join(", ")));
            }
            Remark::Lost { .. } => {}
        }
    }
    out
}

fn tables(draft: &Draft, out: &mut String) {
    let name = key(&draft.name);
    let _ = writeln!(out, "[service.{name}]");
    // The plain keys first: what stands below a table belongs to it.
    let mut plain: Vec<_> = draft.settings.iter().filter(|(p, _)| !p.contains('.') && *p != "env").collect();
    plain.sort_by_key(|(path, _)| match *path {
        "description" => 0,
        "command" => 1,
        "user" => 2,
        _ => 3,
    });
    for (path, value) in plain {
        let _ = writeln!(out, "{path} = {value}");
    }
    if let Some(super::toml::Value::Map(vars)) = draft.get("env") {
        let _ = writeln!(out, "\n[service.{name}.env]");
        environment(vars, out);
    }
    let mut inner: Vec<&str> =
        draft.settings.iter().filter_map(|(p, _)| p.split_once('.')).map(|(t, _)| t).collect();
    inner.sort_unstable();
    inner.dedup();
    for table in inner {
        let _ = writeln!(out, "\n[service.{name}.{table}]");
        for (path, value) in &draft.settings {
            if let Some(rest) = path.strip_prefix(table).and_then(|r| r.strip_prefix('.')) {
                let _ = writeln!(out, "{rest} = {value}");
            }
        }
    }
    for (profile, value) in &draft.overlays {
        if let super::toml::Value::Map(vars) = value {
            let _ = writeln!(out, "\n[profile.{}.service.{name}.env]", key(profile));
            environment(vars, out);
        }
    }
}

fn environment(vars: &[(String, String)], out: &mut String) {
    for (name, value) in vars {
        let _ = writeln!(out, "{} = {}", key(name), super::toml::quoted(value));
    }
}

/// The nearest name that keepd takes.
fn service_name(wanted: &str) -> String {
    let mapped: String = wanted
        .chars()
        .map(|c| match c.to_ascii_lowercase() {
            c @ ('a'..='z' | '0'..='9' | '.' | '_' | '-') => c,
            _ => '-',
        })
        .collect();
    let name: String = mapped.trim_start_matches(['.', '_', '-']).chars().take(Name::MAX).collect();
    if name.is_empty() { "service".into() } else { name }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_ones_that_keepd_takes() {
        for (wanted, name) in
            [("web", "web"), ("My App", "my-app"), ("foo@bar", "foo-bar"), ("-_x", "x"), ("ä", "service")]
        {
            assert_eq!(service_name(wanted), name);
            assert_eq!(Name::check(name), Ok(()));
        }
        assert_eq!(service_name(&"x".repeat(100)).len(), Name::MAX);
    }
}
