//! Limits, resources and the sandbox.

use super::{
    super::{
        draft::Draft,
        text::{binary_size, boolean},
        toml::Value,
    },
    Mapped,
    unit::{Entry, Unit},
    values::limit,
};
use crate::plan::{Capabilities, unit::parse_size};

/// `Limit…=`, keepd's key, and whether it is in bytes or seconds.
const LIMITS: [(&str, &str, bool, bool); 16] = [
    ("LimitCPU", "limits.cpu-time", false, true),
    ("LimitFSIZE", "limits.file-size", true, false),
    ("LimitDATA", "limits.data", true, false),
    ("LimitSTACK", "limits.stack", true, false),
    ("LimitCORE", "limits.core", true, false),
    ("LimitRSS", "limits.rss", true, false),
    ("LimitNPROC", "limits.processes", false, false),
    ("LimitNOFILE", "limits.open-files", false, false),
    ("LimitMEMLOCK", "limits.memlock", true, false),
    ("LimitAS", "limits.address-space", true, false),
    ("LimitLOCKS", "limits.locks", false, false),
    ("LimitSIGPENDING", "limits.sigpending", false, false),
    ("LimitMSGQUEUE", "limits.msgqueue", true, false),
    ("LimitNICE", "limits.nice", false, false),
    ("LimitRTPRIO", "limits.rtprio", false, false),
    ("LimitRTTIME", "limits.rttime", false, false),
];

pub(super) fn map(entry: &Entry, unit: &Unit, draft: &mut Draft) -> Mapped {
    let value = entry.last();
    let key = entry.key.as_str();
    if let Some((_, path, bytes, seconds)) = LIMITS.iter().find(|(k, ..)| *k == key) {
        return Some(limit(value, *bytes, *seconds).and_then(|l| match l.parse::<i64>() {
            Ok(n) => draft.set(path, n),
            Err(_) => draft.set(path, l),
        }));
    }
    Some(match key {
        "Nice" => whole(value, "resources.nice", draft),
        "OOMScoreAdjust" => whole(value, "resources.oom-score-adjust", draft),
        "CPUAffinity" => draft.set("resources.cpu-affinity", entry.words().join(",")),
        "CPUWeight" => whole(value, "resources.cpu-weight", draft),
        "IOWeight" => whole(value, "resources.io-weight", draft),
        "IOSchedulingClass" | "IOSchedulingPriority" => io_priority(unit, draft),
        "CPUQuota" => draft.set("resources.cpu-max", value),
        "TasksMax" if value == "infinity" => Ok(()),
        "TasksMax" => whole(value, "resources.pids-max", draft),
        "MemoryMax" | "MemoryLimit" => memory(value, "resources.memory-max", draft),
        "MemoryHigh" => high(value, unit).and_then(|()| memory(value, "resources.memory-high", draft)),
        "CapabilityBoundingSet" | "AmbientCapabilities" => capabilities(unit, draft),
        "NoNewPrivileges" => new_privileges(value, unit, draft),
        "PrivateTmp" if value == "disconnected" => flag("yes", "sandbox.private-tmp", draft),
        "PrivateTmp" => flag(value, "sandbox.private-tmp", draft),
        "PrivateDevices" => flag(value, "sandbox.private-devices", draft),
        "PrivateNetwork" => flag(value, "sandbox.private-network", draft),
        "ProtectHome" => match value {
            "read-only" => Err("keepd hides the homes, or leaves them as they are".into()),
            "tmpfs" => flag("yes", "sandbox.hide-home", draft),
            _ => flag(value, "sandbox.hide-home", draft),
        },
        "ProtectSystem" => system(value, draft),
        "ReadWritePaths" | "ReadWriteDirectories" => writable(entry, unit, draft),
        "SystemCallFilter" => calls(entry, draft),
        // keepd's own list of system calls holds these for every service.
        "ProtectKernelModules" | "ProtectClock" => held(boolean(value), draft),
        "SystemCallArchitectures" if value == "native" => held(Ok(true), draft),
        _ => return None,
    })
}

fn whole(value: &str, path: &'static str, draft: &mut Draft) -> Result<(), String> {
    match value.parse::<i64>() {
        Ok(n) => draft.set(path, n),
        Err(_) => Err("keepd takes a whole number here".into()),
    }
}

fn memory(value: &str, path: &'static str, draft: &mut Draft) -> Result<(), String> {
    match value {
        "infinity" => Ok(()),
        _ if value.ends_with('%') => Err("keepd takes a size here".into()),
        _ => draft.set(path, binary_size(value)?),
    }
}

/// Where the kernel would kill it first, there is nothing to slow down.
fn high(value: &str, unit: &Unit) -> Result<(), String> {
    let bytes = |text: &str| binary_size(text).and_then(|t| parse_size(&t)).ok();
    let max = unit.get("MemoryMax").or_else(|| unit.get("MemoryLimit")).and_then(bytes);
    match (bytes(value), max) {
        (Some(high), Some(max)) if high >= max => Err("it is not below MemoryMax".into()),
        _ => Ok(()),
    }
}

/// Of two keys there, each of which may be missing.
fn io_priority(unit: &Unit, draft: &mut Draft) -> Result<(), String> {
    let class = match unit.get("IOSchedulingClass").unwrap_or("best-effort") {
        "0" | "none" => return Ok(()),
        "1" => "realtime",
        "2" => "best-effort",
        "3" => "idle",
        class => class,
    };
    match unit.get("IOSchedulingPriority").filter(|_| class != "idle") {
        Some(level) => draft.set("resources.io-priority", format!("{class}:{level}")),
        None => draft.set("resources.io-priority", class),
    }
}

fn flag(value: &str, path: &'static str, draft: &mut Draft) -> Result<(), String> {
    match boolean(value)? {
        true => draft.set(path, true),
        false => Ok(()),
    }
}

/// systemd's `yes` leaves /etc as it is, keepd has no such step.
fn system(value: &str, draft: &mut Draft) -> Result<(), String> {
    match value {
        "full" => draft.set("sandbox.read-only", "system"),
        "strict" => draft.set("sandbox.read-only", "strict"),
        _ if boolean(value)? => {
            draft.remarks.note(
                "ProtectSystem=yes: /etc cannot be changed either; name what must be in sandbox.writable",
            );
            draft.set("sandbox.read-only", "system")
        }
        _ => Ok(()),
    }
}

fn on(unit: &Unit, key: &str) -> bool {
    unit.get(key).is_some_and(|v| !matches!(boolean(v), Ok(false)))
}

fn writable(entry: &Entry, unit: &Unit, draft: &mut Draft) -> Result<(), String> {
    if !on(unit, "ProtectSystem") {
        return Err("nothing is read-only without ProtectSystem".into());
    }
    let mut paths = Vec::new();
    for word in entry.words() {
        let path = word.trim_start_matches(['-', '+']).trim_end_matches('/');
        let below = |places: &[&str]| places.iter().any(|p| std::path::Path::new(path).starts_with(p));
        let hidden = on(unit, "ProtectHome") && below(&["/home", "/root", "/run/user"])
            || on(unit, "PrivateTmp") && below(&["/tmp", "/var/tmp"])
            || on(unit, "PrivateDevices") && below(&["/dev"]);
        if hidden || path.is_empty() {
            draft.remarks.lost(format!("{}={word}", entry.key), "another key hides or opens it as a whole");
            continue;
        }
        if word.starts_with('-') {
            draft.remarks.note(format!("{}: {path} must exist", entry.key));
        }
        paths.push(path.to_owned());
    }
    if paths.is_empty() { Ok(()) } else { draft.add("sandbox.writable", paths) }
}

fn calls(entry: &Entry, draft: &mut Draft) -> Result<(), String> {
    let words = entry.words();
    if words.first().is_some_and(|w| w == "@system-service") {
        let rest: Vec<&str> = words[1..].iter().map(String::as_str).collect();
        if !rest.is_empty() {
            draft.remarks.lost(
                format!("SystemCallFilter={}", rest.join(" ")),
                "keepd's list of calls for services is fixed",
            );
        }
        return draft.set("sandbox.syscalls", "service");
    }
    Err("keepd has lists of its own, sandbox.syscalls, and holds its default one".into())
}

fn held(wanted: Result<bool, String>, draft: &mut Draft) -> Result<(), String> {
    let off = matches!(draft.get("sandbox.syscalls"), Some(Value::Text(word)) if word == "off");
    match wanted? && off {
        true => Err("sandbox.syscalls is off".into()),
        false => Ok(()),
    }
}

fn new_privileges(value: &str, unit: &Unit, draft: &mut Draft) -> Result<(), String> {
    if boolean(value)? {
        return draft.set("sandbox.no-new-privileges", true);
    }
    if unit.get("SystemCallFilter").is_some() {
        return Err("a list of system calls goes without new privileges".into());
    }
    draft.set("sandbox.syscalls", "off")?;
    draft.set("sandbox.no-new-privileges", false)
}

const BOUNDED: &str = "CapabilityBoundingSet: a service of an ordinary user has none but AmbientCapabilities";

/// Both keys at once: an ordinary user's service has the ambient ones, root's has what the bounding set leaves it.
fn capabilities(unit: &Unit, draft: &mut Draft) -> Result<(), String> {
    let entry = |key: &str| unit.entries.iter().find(|e| e.section == "Service" && e.key == key);
    let root = unit.get("User").is_none_or(|u| matches!(u, "root" | "0")) && !on(unit, "DynamicUser");
    let chosen = match (root, entry("AmbientCapabilities"), entry("CapabilityBoundingSet")) {
        (true, _, Some(bounding)) => bounding,
        (true, ..) => return Ok(()),
        (false, Some(ambient), bounding) => {
            let more = |b: &Entry| Some(!set(&b.values).ok()?.without(set(&ambient.values).ok()?).is_empty());
            if bounding.and_then(more) == Some(true) {
                draft.remarks.note(BOUNDED);
            }
            ambient
        }
        (false, None, _) => {
            draft.remarks.note(
                "CapabilityBoundingSet: a service of an ordinary user has none but AmbientCapabilities",
            );
            return Ok(());
        }
    };
    let mut set = set(&chosen.values)?;
    if on(unit, "PrivateDevices") {
        set = set.without(Capabilities::DEVICES);
    }
    // The default list of system calls would take back what these are for.
    let host = ["CAP_SYS_TIME", "CAP_SYS_MODULE", "CAP_SYS_BOOT", "CAP_SYS_RAWIO"];
    let listed = chosen.values.iter().all(|v| !v.starts_with('~'));
    let needs: Vec<&str> =
        host.into_iter().filter(|name| Capabilities::named(name).is_some_and(|c| set.meets(c))).collect();
    if listed && !needs.is_empty() {
        draft.remarks.note(format!("sandbox.syscalls is off, because it has {}", needs.join(" and ")));
        draft.set("sandbox.syscalls", "off")?;
    }
    draft.set("sandbox.capabilities", set.names())
}

fn set(values: &[String]) -> Result<Capabilities, String> {
    let all = || {
        Capabilities::known().filter_map(Capabilities::named).fold(Capabilities::default(), Capabilities::and)
    };
    let mut set = match values.first().is_some_and(|v| v.starts_with('~')) {
        true => all(),
        false => Capabilities::default(),
    };
    for value in values {
        let without = value.starts_with('~');
        for name in value.trim_start_matches('~').split_whitespace() {
            let one = Capabilities::named(name).ok_or_else(|| format!("there is no capability {name}"))?;
            set = if without { set.without(one) } else { set.and(one) };
        }
    }
    Ok(set)
}
