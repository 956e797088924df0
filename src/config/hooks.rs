//! `[hook.NAME]`: what is called when something happens, to entries of the plan. A hook's command is built as a
//! service is, from the built-in defaults alone.

use super::{
    Context,
    diagnostic::{At, Problems},
    document::{Document, Table},
    identity,
    schema::{Key, Kind},
    service::{Dependencies, Service},
    settings::{Entry, Layer, Settings},
    users::Users,
    value::{Item, Value},
};
use crate::plan::{
    Millis,
    hook::{Hook, INSTANCE, NAME, Webhook},
};

/// The kinds of events that a hook may be called for.
const KINDS: &[&str] = &[
    "state",
    "exit",
    "incident",
    "launch-failed",
    "oom",
    "watch",
    "failed",
    "ready",
    "unhealthy",
    "recovered",
    "stuck",
    "log",
    "log-loss",
    "applied",
    "shutdown",
    "manager",
];
const TIMEOUT: Millis = Millis::secs(30);

const fn key(path: &'static str, kind: Kind) -> Key {
    Key { path, kind }
}

/// `[hook.NAME]`
pub(super) static HOOK: &[Key] = &[
    key("on", Kind::Words(KINDS)),
    key("exec", Kind::Command),
    key("webhook", Kind::Text),
    key("user", Kind::Account),
    key("timeout", Kind::Time(1)),
];

/// What holds for every hook's command: little is kept of what it prints, and it is never in anybody's way.
fn own() -> Layer {
    let entry = |key, value| Entry { key, at: At::BUILT_IN, value };
    vec![
        entry("restart", Value::Choice("never")),
        entry("logs.max-size", Value::Size(64 << 10)),
        entry("logs.keep", Value::Count(1)),
    ]
}

/// All hooks of all files. `own_user` is the manager's; empty in user mode, where everybody is one.
pub(super) fn build(
    documents: &[Document],
    own_user: Option<&str>,
    context: &Context<'_>,
    users: &mut Users,
    problems: &mut Problems,
) -> Vec<Hook> {
    let mut out: Vec<Hook> = Vec::new();
    let own = own();
    for table in documents.iter().flat_map(|d| &d.hooks) {
        if out.iter().any(|h| h.name == table.name) {
            problems.error(table.at, format!("hook `{}` is defined twice", table.name));
            continue;
        }
        out.extend(hook(table, &documents[0].defaults, &own, own_user, context, users, problems));
    }
    out.sort_by(|a, b| a.name.cmp(&b.name));
    out
}

fn hook(
    table: &Table,
    built_in: &Layer,
    own: &Layer,
    own_user: Option<&str>,
    context: &Context<'_>,
    users: &mut Users,
    problems: &mut Problems,
) -> Option<Hook> {
    let name = &table.name;
    let mut settings = Settings::default();
    settings.put(&table.layer);
    let on: Vec<String> =
        KINDS.iter().filter(|k| settings.lists("on", k)).map(|k| k.replace('-', "_")).collect();
    let mut fail = |message: String| {
        problems.error(table.at, message);
        None
    };
    if settings.missing("on") || settings.entry("on").is_some() && on.is_empty() {
        return fail(format!("`on` is missing: hook `{name}` is called for nothing"));
    }
    if settings.missing("exec") && settings.missing("webhook") {
        return fail(format!("`exec` or `webhook` is missing: hook `{name}` does nothing"));
    }
    let webhook = settings.text("webhook").and_then(|(url, at)| match Webhook::parse(url) {
        Ok(webhook) => Some(webhook),
        Err(why) => {
            problems.error(at, format!("`webhook` cannot be \"{}\": {why}", url.escape_debug()));
            None
        }
    });
    let exec = if settings.missing("exec") {
        if let Some(at) = settings.written(&["user"]) {
            problems.error(at, "`user` is for `exec`, which this hook has not");
        }
        None
    } else {
        if settings.missing("user") && own_user.is_none() {
            let why = "keepd has no user of its own on this host, so name one";
            problems.error(table.at, format!("`user` is missing: {why} for hook `{name}`"));
            return None;
        }
        let layer = command(&table.layer, own_user);
        let mut service = Settings::default();
        [built_in, own, &layer].into_iter().for_each(|l| service.put(l));
        let service = Service { name, at: table.at, settings: service };
        let mode = context.options.mode;
        let (account, identity) =
            identity::resolve(&service.settings, table.at, mode, &context.options.me, users, problems)?;
        let none = Dependencies { requires: vec![], wants: vec![], after: vec![], binds_to: vec![] };
        let mut spec = service.build(&account, identity.as_ref(), &none, context, problems).pop()?;
        spec.name = Hook::service(name);
        spec.logs.dir = context.log_dir.join(spec.name.as_str());
        Some(Box::new(spec))
    };
    let timeout = settings.time("timeout").unwrap_or(TIMEOUT);
    Some(Hook { name: name.clone(), on, exec, webhook, timeout })
}

/// The hook's table as that of a service. Without `user`, it is the manager's.
fn command(table: &Layer, own_user: Option<&str>) -> Layer {
    let mut out = Layer::new();
    for entry in table {
        let Entry { at, .. } = *entry;
        match (entry.key, &entry.value) {
            ("exec", Value::Items(items)) => {
                let value = Value::Items(items.iter().map(|i| Item { text: held(&i.text), ..*i }).collect());
                out.push(Entry { key: "command", at, value });
            }
            ("exec", _) => out.push(Entry { key: "command", at, value: Value::Broken }),
            ("user", Value::Text(text)) => {
                out.push(Entry { key: "user", at, value: Value::Text(text.clone()) })
            }
            ("user", _) => out.push(Entry { key: "user", at, value: Value::Broken }),
            _ => {}
        }
    }
    if !out.iter().any(|e| e.key == "user")
        && let Some(user) = own_user.filter(|user| !user.is_empty())
    {
        out.push(Entry { key: "user", at: At::BUILT_IN, value: Value::Text(user.into()) });
    }
    out
}

/// What is not known before there is an event is filled in then.
fn held(text: &str) -> String {
    text.replace("${name}", NAME).replace("${instance}", INSTANCE)
}
