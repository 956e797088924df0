//! config/keepd.schema.json: a JSON Schema of the configuration for editors, made from the key table, the built-in
//! defaults and the descriptions in docs/configuration.md. `UPDATE_GOLDEN=1` writes it anew. Draft 7, and nothing in it
//! that draft 4 reads otherwise, since some editors know no other. It says what a value looks like; what values mean
//! together is for `keepctl check`.

use super::{
    BUILT_IN,
    hooks::HOOK,
    schema::{Key, Kind, ROOT, SERVICE},
};
use crate::plan::{Capabilities, Name};
use serde_json::{Map, Value, json};
use std::{fs, path::Path};

const TIME: &str = concat!(
    r"^([0-9]+(\.[0-9]+)?d)?([0-9]+(\.[0-9]+)?h)?([0-9]+(\.[0-9]+)?m)?",
    r"([0-9]+(\.[0-9]+)?s)?([0-9]+(\.[0-9]+)?ms)?$",
);
const SIZE: &str = r"[0-9]+(\.[0-9]+)?(B|[KMGT](iB)?)?";
const SIGNAL: &str = r"^[A-Za-z][A-Za-z0-9]*([+-][0-9]+)?$";

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// What one value looks like. `None` for what this version does not take.
fn shape(kind: &Kind) -> Option<Value> {
    let size = |min: u64, max: Option<u64>| {
        let mut number = json!({ "type": "integer", "minimum": min });
        if let Some(max) = max {
            number["maximum"] = max.into();
        }
        json!({ "anyOf": [number, { "type": "string", "pattern": format!("^{SIZE}$") }] })
    };
    Some(match kind {
        Kind::Flag => json!({ "type": "boolean" }),
        Kind::Text => json!({ "type": "string" }),
        Kind::Path => json!({ "type": "string", "minLength": 1 }),
        Kind::Account => json!({ "type": ["string", "integer"] }),
        Kind::Names => json!({ "type": "array", "items": { "type": "string" } }),
        Kind::Command => {
            let words = json!({ "type": "array", "items": { "type": "string" } });
            json!({ "anyOf": [words, { "type": "string", "minLength": 1 }] })
        }
        Kind::Count(min, max) => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Kind::Whole(min, max) => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Kind::Permille(min, max) => {
            json!({ "type": "number", "minimum": f64::from(*min) / 1e3, "maximum": f64::from(*max) / 1e3 })
        }
        Kind::Time(_) => json!({ "type": "string", "minLength": 2, "pattern": TIME }),
        Kind::TimeOrNever => {
            json!({ "anyOf": [{ "enum": ["never"] }, { "type": "string", "minLength": 2, "pattern": TIME }] })
        }
        Kind::Size(min) => size(*min, None),
        Kind::SizeIn(min, max) => size(*min, Some(*max)),
        Kind::Share => {
            let text = format!("^({SIZE}|[0-9]+%)$");
            json!({ "anyOf": [{ "type": "integer", "minimum": 0 }, { "type": "string", "pattern": text }] })
        }
        Kind::Percent(..) => json!({ "type": "string", "pattern": "^[0-9]+%$" }),
        Kind::Words(known) => json!({ "type": "array", "items": { "enum": known }, "uniqueItems": true }),
        Kind::Rotate => json!({ "anyOf": [
            { "enum": ["off", "hourly", "daily"] },
            { "type": "string", "pattern": "^([01][0-9]|2[0-3]):[0-5][0-9]$" },
        ] }),
        Kind::Signal => json!({ "anyOf": [
            { "type": "integer", "minimum": 1, "maximum": 64 },
            { "type": "string", "pattern": format!("{SIGNAL}|^[0-9]+$") },
        ] }),
        Kind::Exits => json!({ "type": "array", "items": { "anyOf": [
            { "type": "integer", "minimum": 0, "maximum": 255 },
            { "type": "string", "pattern": SIGNAL },
        ] } }),
        Kind::Mask => json!({ "type": "string", "pattern": "^0?[0-7]{1,3}$" }),
        Kind::Capabilities => {
            // Editors offer the first list; the other spellings that people use are taken.
            let names: Vec<&str> = Capabilities::known().collect();
            let bare = |n: &&str| n.trim_start_matches("CAP_").to_owned();
            let others = names.iter().flat_map(|n| [bare(n), n.to_lowercase(), bare(n).to_lowercase()]);
            let others: Vec<String> = others.collect();
            json!({ "type": "array", "items": { "anyOf": [{ "enum": names }, { "enum": others }] } })
        }
        Kind::Cpus => {
            json!({ "type": "string", "pattern": "^ *[0-9]+ *(- *[0-9]+ *)?(, *[0-9]+ *(- *[0-9]+ *)?)*$" })
        }
        Kind::IoPriority => {
            json!({ "type": "string", "pattern": "^(idle|(best-effort|realtime)(:[0-7])?)$" })
        }
        Kind::Map => json!({ "type": "object", "additionalProperties": { "type": "string" } }),
        Kind::Limit(_, bytes) => {
            let one = if *bytes { format!("(unlimited|{SIZE})") } else { "(unlimited|[0-9]+)".into() };
            json!({ "anyOf": [
                { "type": "integer", "minimum": 0 },
                { "type": "string", "pattern": format!("^{one}(:{one})?$") },
            ] })
        }
        Kind::Choice(_, here) => json!({ "enum": here }),
        Kind::Future(_) => return None,
        Kind::Table(_) | Kind::Services | Kind::Hooks | Kind::Profiles => unreachable!("tables are walked"),
    })
}

/// A section of the documentation and of the built-in defaults.
struct Section<'a> {
    /// `[service.NAME]`
    heading: String,
    defaults: Option<&'a toml::Table>,
}

fn table(keys: &'static [Key], section: &Section<'_>, built_in: &toml::Table, docs: &str) -> Value {
    let mut properties = Map::new();
    for key in keys {
        let name = key.name();
        let mut found = match (&key.kind, key.path) {
            (Kind::Table(_), "defaults") => json!({ "$ref": "#/definitions/service" }),
            (Kind::Table(inner), path) => {
                let top = std::ptr::eq(keys, ROOT);
                let service = std::ptr::eq(keys, SERVICE);
                let defaults = match top {
                    true => built_in.get(path),
                    false => section.defaults.and_then(|d| d.get(name)),
                };
                let heading = match (top, service) {
                    (true, _) => format!("[{path}]"),
                    (_, true) => format!("[service.NAME.{name}]"),
                    _ => String::new(),
                };
                table(
                    inner,
                    &Section { heading, defaults: defaults.and_then(|d| d.as_table()) },
                    built_in,
                    docs,
                )
            }
            (Kind::Services, _) => services(),
            (Kind::Hooks, _) => {
                let section = Section { heading: "[hook.NAME]".into(), defaults: None };
                let name = format!("^[a-z0-9][a-z0-9._-]{{0,{}}}$", Name::MAX - 1);
                json!({
                    "type": "object",
                    "patternProperties": { name: table(HOOK, &section, built_in, docs) },
                    "additionalProperties": false,
                })
            }
            (Kind::Profiles, _) => {
                let overlay = json!({
                    "type": "object",
                    "properties": { "defaults": { "$ref": "#/definitions/service" }, "service": services() },
                    "additionalProperties": false,
                });
                json!({ "anyOf": [
                    { "type": "string", "minLength": 1 },
                    { "type": "object", "additionalProperties": overlay },
                ] })
            }
            (kind, _) => match shape(kind) {
                Some(found) => found,
                None => continue,
            },
        };
        if let Some(text) = description(docs, &section.heading, name) {
            found["description"] = text.into();
        }
        let is_table = matches!(key.kind, Kind::Table(_));
        if let Some(default) = section.defaults.and_then(|d| d.get(name)).filter(|_| !is_table) {
            found["default"] = serde_json::to_value(default).unwrap();
        }
        properties.insert(name.into(), found);
    }
    json!({ "type": "object", "properties": properties, "additionalProperties": false })
}

fn services() -> Value {
    let name = format!("^[a-z0-9][a-z0-9._-]{{0,{}}}$", Name::MAX - 1);
    json!({
        "type": "object",
        "patternProperties": { name: { "$ref": "#/definitions/service" } },
        "additionalProperties": false,
    })
}

/// The last cell of the row of a key, in the section of this heading.
fn description(docs: &str, heading: &str, name: &str) -> Option<String> {
    let title = format!("# `{heading}`");
    let body = docs
        .split("\n#")
        .find(|part| format!("#{part}").lines().next().is_some_and(|l| l.ends_with(&title)))?;
    let row = body.lines().find(|l| l.starts_with(&format!("| `{name}` |")))?;
    let text = row.trim_end_matches('|').rsplit(" | ").next()?.trim();
    (!text.is_empty() && text != "|").then(|| text.to_owned())
}

fn schema() -> Value {
    let built_in: toml::Table = BUILT_IN.parse().unwrap();
    let docs = fs::read_to_string(repository().join("docs/configuration.md")).unwrap();
    let root = Section { heading: String::new(), defaults: None };
    let service = Section { heading: "[service.NAME]".into(), defaults: built_in["defaults"].as_table() };
    let mut whole = table(ROOT, &root, &built_in, &docs);
    whole["$schema"] = "http://json-schema.org/draft-07/schema#".into();
    whole["title"] = "keepd configuration".into();
    whole["definitions"] = json!({ "service": table(SERVICE, &service, &built_in, &docs) });
    whole
}

fn validator() -> jsonschema::Validator {
    jsonschema::draft7::new(&schema()).unwrap()
}

fn errors(validator: &jsonschema::Validator, text: &str) -> Vec<String> {
    let table: toml::Table = text.parse().unwrap();
    let value = serde_json::to_value(table).unwrap();
    validator.iter_errors(&value).map(|e| format!("{}: {e}", e.instance_path())).collect()
}

#[test]
fn the_schema_is_made_from_the_key_table() {
    let file = repository().join("config/keepd.schema.json");
    let found = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&file, &found).unwrap();
    }
    assert!(
        fs::read_to_string(&file).unwrap_or_default() == found,
        "config/keepd.schema.json is not what the key table says: UPDATE_GOLDEN=1 writes it anew"
    );
    assert!(jsonschema::meta::is_valid(&schema()));
}

#[test]
fn every_key_is_described() {
    let schema = schema();
    let mut silent = Vec::new();
    fn walk(at: &str, table: &Value, silent: &mut Vec<String>) {
        for (name, key) in table["properties"].as_object().unwrap() {
            let path = format!("{at}.{name}");
            if key.get("properties").is_some() {
                walk(&path, key, silent);
            } else if key.get("description").is_none() && key.get("$ref").is_none() {
                silent.push(path);
            }
        }
    }
    walk("", &schema, &mut silent);
    walk("service", &schema["definitions"]["service"], &mut silent);
    // The limits are listed together, and keys of these two tables stand in the row of their table.
    silent.retain(|p| !p.starts_with("service.limits.") && !p.starts_with(".daemon.restart-budget."));
    silent.retain(|p| !p.starts_with("service.verify."));
    silent.retain(|p| ![".profile", ".service", ".hook"].contains(&p.as_str()));
    assert!(silent.is_empty(), "{silent:?}");
}

#[test]
fn whatever_keepd_takes_the_schema_takes() {
    let validator = validator();
    let config = repository().join("config");
    let mut files = vec![config.join("keepd.toml"), config.join("quickstart.toml")];
    let below = |folder: &Path, ending: &str| -> Vec<_> {
        let entries = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path());
        entries.filter(|p| p.extension().is_some_and(|e| e == ending)).collect()
    };
    files.extend(below(&config.join("examples"), "toml"));
    let golden = repository().join("tests/golden");
    files.extend(below(&golden.join("config/good"), "toml"));
    files.extend(below(&golden.join("import"), "toml"));
    assert!(files.len() >= 20, "{files:?}");
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        assert_eq!(errors(&validator, &text), Vec::<String>::new(), "{}", file.display());
    }
    // The reference file shows every default in a comment.
    let text = fs::read_to_string(config.join("keepd.toml")).unwrap();
    let is_key = |l: &str| {
        l.strip_prefix('#').is_some_and(|l| l.starts_with(|c: char| c.is_ascii_lowercase() || c == '['))
    };
    let lines: Vec<&str> = text.lines().map(|l| if is_key(l) { &l[1..] } else { l }).collect();
    assert_eq!(errors(&validator, &lines.join("\n")), Vec::<String>::new());
    assert_eq!(errors(&validator, BUILT_IN), Vec::<String>::new());
}

#[test]
fn slips_are_seen_by_the_schema() {
    let validator = validator();
    for wrong in [
        "colour = 1",
        "comand = [\"/bin/x\"]",
        "command = 1",
        "stop-timeout = 10",
        "stop-timeout = \"10 s\"",
        "stop-timeout = \"\"",
        "restart = \"sometimes\"",
        "type = \"sometimes\"",
        "instances = 0",
        "port = 70000",
        "umask = \"0999\"",
        "umask = 18",
        "env = { A = 1 }",
        "success-exit = [256]",
        "success-exit = [\"0\"]",
        "limits.open-files = \"many\"",
        "limits.open-file = 1",
        "logs.max-size = \"50MBit\"",
        "logs.rotate = \"24:00\"",
        "logs.keep-for = \"always\"",
        "sandbox.capabilities = [\"CAP_NONE\"]",
        "resources.nice = 20",
        "backoff.jitter = 2.0",
        "backoff = 1",
        "resources.cpu-max = \"half\"",
        "resources.memory-max = 1024",
        "logs.forward = [\"mail\"]",
    ] {
        assert!(!errors(&validator, &format!("[service.x]\n{wrong}\n")).is_empty(), "{wrong}");
    }
    for wrong in [
        "[service.Web]\ncommand = \"x\"",
        "[deamon]",
        "[logs]\nmax-total = \"a lot\"",
        "[api]\nadmins = \"root\"",
        "profile = 1",
    ] {
        assert!(!errors(&validator, wrong).is_empty(), "{wrong}");
    }
}

#[test]
fn every_example_names_the_schema() {
    let config = repository().join("config");
    let mut files = vec![config.join("keepd.toml"), config.join("quickstart.toml")];
    let examples = fs::read_dir(config.join("examples")).unwrap().map(|e| e.unwrap().path());
    files.extend(examples.map(|path| if path.is_dir() { path.join("stack.toml") } else { path }));
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        let named = text.lines().next().and_then(|l| l.strip_prefix("#:schema ")).unwrap_or_default();
        let schema = file.parent().unwrap().join(named);
        assert!(!named.is_empty() && schema.is_file(), "{}: #:schema {named}", file.display());
    }
}
