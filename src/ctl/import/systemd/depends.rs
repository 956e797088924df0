//! `[Unit]` and `[Install]`: names of other units. What is imported along becomes a dependency of keepd's, what keepd
//! itself is started after needs none, and the rest is named.

use super::{
    super::{
        batch::Batch,
        draft::{Draft, Wish},
    },
    Mapped,
    unit::{Entry, Unit},
};

/// What is up before keepd is: by `After=` of its unit, and since it is an ordinary service.
const BEFORE_KEEPD: [&str; 24] = [
    "-.mount",
    "basic.target",
    "cryptsetup.target",
    "dbus.socket",
    "dev-log.socket",
    "local-fs-pre.target",
    "local-fs.target",
    "network-pre.target",
    "network.target",
    "nss-user-lookup.target",
    "paths.target",
    "slices.target",
    "sockets.target",
    "swap.target",
    "sysinit.target",
    "syslog.socket",
    "syslog.target",
    "systemd-journald.socket",
    "systemd-modules-load.service",
    "systemd-sysctl.service",
    "systemd-sysusers.service",
    "systemd-tmpfiles-setup.service",
    "systemd-udevd.service",
    "tmp.mount",
];
/// What comes after every ordinary service anyway.
const AFTER_SERVICES: [&str; 5] =
    ["multi-user.target", "graphical.target", "shutdown.target", "default.target", "umount.target"];

pub(super) fn map(entry: &Entry, draft: &mut Draft) -> Mapped {
    let kind = match (entry.section.as_str(), entry.key.as_str()) {
        ("Unit", "Description") => {
            return Some(draft.set("description", entry.last()));
        }
        ("Unit", "Documentation") => {
            draft.remarks.note(format!("documented in {}", entry.words().join(" ")));
            return Some(Ok(()));
        }
        ("Unit", "After") => "after",
        ("Unit", "Before") => "before",
        ("Unit", "Wants") => "wants",
        ("Unit", "Requires") => "requires",
        ("Unit", "BindsTo") => "binds-to",
        ("Unit", "Conflicts") if entry.last() == "shutdown.target" => return Some(Ok(())),
        ("Install", "Alias") => {
            draft.aliases.extend(entry.words().iter().map(|w| w.trim_end_matches(".service").to_owned()));
            draft.remarks.note(format!("Alias={}: keepd knows it by one name", entry.words().join(" ")));
            return Some(Ok(()));
        }
        ("Install", "WantedBy" | "RequiredBy") => return Some(boot(entry)),
        _ => return None,
    };
    for other in entry.words() {
        let settled = match kind {
            "before" => AFTER_SERVICES.contains(&other.as_str()),
            _ => BEFORE_KEEPD.contains(&other.as_str()),
        };
        if !settled {
            let what = format!("{}={other}", entry.key);
            draft.wishes.push(Wish { kind, other, what });
        }
    }
    Some(Ok(()))
}

fn boot(entry: &Entry) -> Result<(), String> {
    match entry.words().iter().any(|w| w.ends_with(".target")) {
        true => Ok(()),
        false => Err("nothing but keepd and other services' requires and wants start it".into()),
    }
}

/// A unit that no target wants is started by others, or by hand.
pub(super) fn defaults(unit: &Unit, draft: &mut Draft) {
    let wanted = unit.entries.iter().any(|e| {
        e.section == "Install" && matches!(e.key.as_str(), "WantedBy" | "RequiredBy") && boot(e).is_ok()
    });
    if !wanted && draft.set("autostart", false).is_ok() {
        draft.remarks.note("autostart = false: no target wants it at boot, others or people start it");
    }
}

/// Puts dependencies between the services of a batch whose names are known. One that would close a circle is left out.
pub(in super::super) fn order(batch: &mut Batch) {
    super::folders::apart(batch);
    for index in 0..batch.drafts.len() {
        for wish in std::mem::take(&mut batch.drafts[index].wishes) {
            let name = wish.other.trim_end_matches(".service");
            let usable = |d: &Draft| d.refused.is_none() && d.aliases.iter().any(|a| a == name);
            let Some(other) = batch.drafts.iter().position(usable).filter(|o| *o != index) else {
                batch.drafts[index].remarks.lost(wish.what, reason(&wish.other));
                continue;
            };
            let (from, to, kind) = match wish.kind {
                "before" => (other, index, "after"),
                kind => (index, other, kind),
            };
            if reaches(batch, to, from) {
                batch.drafts[index]
                    .remarks
                    .lost(wish.what, "services of keepd wait for each other in one direction only");
                continue;
            }
            let target = batch.drafts[to].name.clone();
            let outcome = batch.drafts[from].add(kind, vec![target]);
            batch.drafts[index].key(wish.what, outcome);
        }
    }
}

fn reason(other: &str) -> &'static str {
    if other.ends_with(".service") {
        "it is not imported along with this one"
    } else {
        "keepd's dependencies are services; what all of keepd is to wait for belongs into its own unit"
    }
}

/// Whether `from` depends on `to`, over any number of steps.
fn reaches(batch: &Batch, from: usize, to: usize) -> bool {
    let (mut seen, mut open) = (vec![false; batch.drafts.len()], vec![from]);
    while let Some(at) = open.pop() {
        if at == to {
            return true;
        }
        if std::mem::replace(&mut seen[at], true) {
            continue;
        }
        for kind in ["after", "wants", "requires", "binds-to"] {
            if let Some(super::super::toml::Value::List(names)) = batch.drafts[at].get(kind) {
                open.extend(names.iter().filter_map(|n| batch.drafts.iter().position(|d| d.name == *n)));
            }
        }
    }
    false
}
