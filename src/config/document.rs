//! One file: TOML to checked tables. Every key that is unknown, not supported or of the wrong kind is
//! reported with its place; what several files say together is not looked at here.

use super::{
    diagnostic::{At, Problems},
    hooks::HOOK,
    schema::{Key, Kind, PROFILE, ROOT, SERVICE, suggest},
    settings::{Entry, Layer},
    source::{Source, boundary},
    value::{Reader, Value, name_of},
};
use crate::plan::Name;
use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

/// A service's table, or an overlay of one.
#[derive(Debug)]
pub(super) struct Table {
    pub(super) name: String,
    /// Of the name.
    pub(super) at: At,
    pub(super) layer: Layer,
}

/// `[profile.P]`
#[derive(Debug)]
pub(super) struct Profile {
    pub(super) name: String,
    pub(super) defaults: Layer,
    pub(super) services: Vec<Table>,
}

/// What one file says.
#[derive(Debug, Default)]
pub(super) struct Document {
    /// `profile = "P"`
    pub(super) profile: Option<(String, At)>,
    pub(super) daemon: Layer,
    pub(super) api: Layer,
    pub(super) logs: Layer,
    pub(super) defaults: Layer,
    pub(super) services: Vec<Table>,
    pub(super) hooks: Vec<Table>,
    pub(super) profiles: Vec<Profile>,
}

/// Reads a source. False where it is not TOML: then what is missing from the document may only have been lost.
pub(super) fn parse(index: u32, sources: &[Source], problems: &mut Problems) -> (Document, bool) {
    let source = &sources[index as usize];
    let (root, errors) = DeTable::parse_recoverable(&source.text);
    for e in &errors {
        let at = e.span().map_or(At::file(index), |span| At::new(index, span));
        problems.error(at, syntax(e.message(), at, &source.text));
    }
    let mut found = Problems::default();
    let mut walker = Walker { source: index, problems: &mut found };
    let document = walker.root(root.get_ref());
    problems.absorb(found, index, sources);
    (document, errors.is_empty())
}

/// A syntax error in our words where the parser's would not help.
fn syntax(message: &str, at: At, text: &str) -> String {
    let start = boundary(text, at.start);
    let line = &text[text[..start].rfind('\n').map_or(0, |n| n + 1)..];
    let profile = line.strip_prefix('[').is_some_and(|l| l.trim_start().starts_with("profile."));
    if profile && message.contains("type string") {
        return "`profile = …` and `[profile.…]` cannot stand in one file, TOML takes them for one key: choose \
                the profile in another file, with --profile or with $KEEPD_PROFILE"
            .into();
    }
    format!("not TOML: {}", message.strip_suffix(", expected nothing").unwrap_or(message))
}

struct Walker<'p> {
    source: u32,
    problems: &'p mut Problems,
}

type Raw<'a> = Spanned<DeValue<'a>>;
type RawKey<'a> = Spanned<std::borrow::Cow<'a, str>>;

impl Walker<'_> {
    fn error(&mut self, span: std::ops::Range<usize>, message: String) {
        self.problems.error(At::new(self.source, span), message);
    }

    fn root(&mut self, table: &DeTable<'_>) -> Document {
        let mut doc = Document::default();
        for (name, raw) in table {
            let Some(key) = self.find(name, ROOT, "") else { continue };
            match (&key.kind, key.path) {
                (Kind::Services, _) => doc.services = self.services(raw, "service"),
                (Kind::Hooks, _) => doc.hooks = self.tables(raw, "hook", HOOK),
                (Kind::Profiles, _) => self.profiles(raw, &mut doc),
                (Kind::Table(keys), "daemon") => doc.daemon = self.layer(raw, keys, "daemon"),
                (Kind::Table(keys), "api") => doc.api = self.layer(raw, keys, "api"),
                (Kind::Table(keys), "logs") => doc.logs = self.layer(raw, keys, "logs"),
                (Kind::Table(keys), _) => doc.defaults = self.layer(raw, keys, "defaults"),
                _ => self.value(key, name, raw, &mut Vec::new(), ""),
            }
        }
        doc
    }

    /// The key of this name; reported where there is none. `section` is put before it in messages.
    fn find(&mut self, name: &RawKey<'_>, keys: &'static [Key], section: &str) -> Option<&'static Key> {
        let text = name.get_ref().as_ref();
        let found = keys.iter().find(|k| k.path.ends_with(text) && k.name() == text);
        if found.is_none() {
            // Siblings share all of their path but the name.
            let parent = keys.first().map_or("", |k| k.path.strip_suffix(k.name()).unwrap_or(""));
            let shown = format!("{section}{parent}{}", text.escape_debug());
            let hint =
                suggest(text, keys).map_or(String::new(), |s| format!(", did you mean `{section}{s}`?"));
            self.error(name.span(), format!("unknown key `{shown}`{hint}"));
        }
        found
    }

    fn table<'r, 'a>(&mut self, raw: &'r Raw<'a>, what: &str) -> Option<&'r DeTable<'a>> {
        let table = raw.get_ref().as_table();
        if table.is_none() {
            self.error(raw.span(), format!("`{what}` must be a table, not {}", name_of(raw.get_ref())));
        }
        table
    }

    /// All keys of a table and of the tables in it, flat.
    fn layer(&mut self, raw: &Raw<'_>, keys: &'static [Key], what: &str) -> Layer {
        let mut out = Vec::new();
        let section = match what {
            "daemon" | "api" | "logs" => format!("{what}."),
            _ => String::new(),
        };
        match self.table(raw, what) {
            Some(table) => self.keys(table, keys, &mut out, &section),
            // Nothing of it is known, so nothing of it is missing.
            None => out.extend(keys.iter().map(|k| Entry {
                key: k.path,
                at: At::new(self.source, raw.span()),
                value: Value::Broken,
            })),
        }
        self.one_way_to_reload(&out);
        out
    }

    fn keys(&mut self, table: &DeTable<'_>, keys: &'static [Key], out: &mut Layer, section: &str) {
        for (name, raw) in table {
            if let Some(key) = self.find(name, keys, section) {
                self.value(key, name, raw, out, section);
            }
        }
    }

    fn value(&mut self, key: &'static Key, name: &RawKey<'_>, raw: &Raw<'_>, out: &mut Layer, section: &str) {
        let path = format!("{section}{}", key.path);
        match key.kind {
            Kind::Table(keys) => {
                if let Some(table) = self.table(raw, &path) {
                    self.keys(table, keys, out, section);
                }
            }
            Kind::Future(known) => self.future(&path, known, name, raw),
            _ => {
                let mut reader = Reader { path: &path, source: self.source, problems: self.problems };
                let value = reader.read(&key.kind, raw).unwrap_or(Value::Broken);
                out.push(Entry { key: key.path, at: At::new(self.source, raw.span()), value });
            }
        }
    }

    /// What is part of the schema but not of this version: each key that is known, by its full name.
    fn future(&mut self, path: &str, known: &'static [&'static str], name: &RawKey<'_>, raw: &Raw<'_>) {
        let keys = raw.get_ref().as_table().filter(|t| !t.is_empty() && !known.is_empty());
        let Some(table) = keys else {
            return self.error(name.span(), format!("`{path}` is not supported by this version"));
        };
        for (inner, _) in table {
            let text = inner.get_ref().as_ref();
            let message = match known.contains(&text) {
                true => format!("`{path}.{text}` is not supported by this version"),
                false => format!("unknown key `{path}.{}`", text.escape_debug()),
            };
            self.error(inner.span(), message);
        }
    }

    fn one_way_to_reload(&mut self, layer: &Layer) {
        let find = |key: &str| layer.iter().find(|e| e.key == key && !matches!(e.value, Value::Broken));
        if let (Some(_), Some(command)) = (find("reload-signal"), find("reload-command")) {
            let message = "`reload-signal` and `reload-command` cannot both be written: a service has one way \
                           to reload";
            self.problems.error(command.at, message);
        }
    }

    fn services(&mut self, raw: &Raw<'_>, what: &str) -> Vec<Table> {
        self.tables(raw, what, SERVICE)
    }

    /// Tables by name.
    fn tables(&mut self, raw: &Raw<'_>, what: &str, keys: &'static [Key]) -> Vec<Table> {
        let mut out = Vec::new();
        let Some(table) = self.table(raw, what) else { return out };
        for (name, raw) in table {
            let text = name.get_ref().as_ref();
            if let Err(why) = Name::check(text) {
                let kind = if what == "hook" { "hook" } else { "service" };
                self.error(name.span(), format!("cannot name a {kind} \"{}\": {why}", text.escape_debug()));
                continue;
            }
            let layer = self.layer(raw, keys, &format!("{what}.{text}"));
            out.push(Table { name: text.to_owned(), at: At::new(self.source, name.span()), layer });
        }
        out
    }

    fn profiles(&mut self, raw: &Raw<'_>, doc: &mut Document) {
        let profiles = match raw.get_ref() {
            DeValue::String(name) if name.is_empty() => {
                return self.error(raw.span(), "`profile` cannot be empty: leave it out for none".into());
            }
            DeValue::String(name) => {
                doc.profile = Some((name.to_string(), At::new(self.source, raw.span())));
                return;
            }
            DeValue::Table(profiles) => profiles,
            other => {
                let found = name_of(other);
                return self.error(raw.span(), format!("`profile` must be a string or a table, not {found}"));
            }
        };
        for (name, raw) in profiles {
            let path = format!("profile.{}", name.get_ref());
            let Some(table) = self.table(raw, &path) else { continue };
            let mut profile =
                Profile { name: name.get_ref().to_string(), defaults: Vec::new(), services: Vec::new() };
            for (key, raw) in table {
                match self.find(key, PROFILE, &format!("{path}.")).map(|k| &k.kind) {
                    Some(Kind::Services) => profile.services = self.services(raw, &format!("{path}.service")),
                    Some(_) => profile.defaults = self.layer(raw, SERVICE, "defaults"),
                    None => {}
                }
            }
            doc.profiles.push(profile);
        }
    }
}
