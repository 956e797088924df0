//! What was written, in layers: built-in < `[defaults]` < the profile's `[defaults]` < the service < the profile's
//! overlay of it. Tables are merged key by key, arrays and single values are replaced.

use super::{
    diagnostic::At,
    probes,
    value::{Item, Value},
};
use crate::plan::{Capabilities, ExitMatch, LimitValue, Millis, Rotate, Share};
use std::collections::BTreeMap;

/// One key that was written.
#[derive(Debug)]
pub(super) struct Entry {
    /// The key's path in the schema.
    pub(super) key: &'static str,
    /// Of the value.
    pub(super) at: At,
    pub(super) value: Value,
}

impl Entry {
    /// Somebody wrote it: it is no built-in default.
    pub(super) fn written(&self) -> bool {
        self.at.source != At::BUILT_IN.source
    }
}

/// The keys of one table of one file.
pub(super) type Layer = Vec<Entry>;

/// The sum of some layers.
#[derive(Debug, Clone, Default)]
pub(super) struct Settings<'a> {
    entries: BTreeMap<&'static str, &'a Entry>,
    /// Of `env` and `credentials`, which are merged by name: weakest first.
    maps: Vec<&'a Entry>,
    /// Keys that are written, but not so that they could be read.
    broken: Vec<&'static str>,
}

impl<'a> Settings<'a> {
    /// Puts a stronger layer on top.
    pub(super) fn put(&mut self, layer: &'a Layer) {
        for ways in [&probes::READY[..], &probes::LIVE[..]] {
            if layer.iter().any(|entry| ways.contains(&entry.key)) {
                self.entries.retain(|key, _| !ways.contains(key));
            }
        }
        for entry in layer {
            if matches!(entry.value, Value::Broken) {
                self.broken.push(entry.key);
                continue;
            }
            match entry.key {
                "env" | "credentials" | "ready.http-headers" | "live.http-headers" => self.maps.push(entry),
                // Two ways to say one thing: the stronger layer chooses.
                "reload-signal" => drop(self.entries.remove("reload-command")),
                "reload-command" if matches!(&entry.value, Value::Items(c) if !c.is_empty()) => {
                    self.entries.remove("reload-signal");
                }
                _ => {}
            }
            self.entries.insert(entry.key, entry);
        }
    }

    pub(super) fn entry(&self, key: &str) -> Option<&'a Entry> {
        self.entries.get(key).copied()
    }

    /// Nothing is written for a key, not even something wrong.
    pub(super) fn missing(&self, key: &str) -> bool {
        !self.entries.contains_key(key) && !self.broken.contains(&key)
    }

    /// Where the first of these keys that somebody wrote stands.
    pub(super) fn written(&self, keys: &[&str]) -> Option<At> {
        keys.iter().filter_map(|k| self.entry(k)).find(|e| e.written()).map(|e| e.at)
    }

    pub(super) fn flag(&self, key: &str) -> bool {
        matches!(self.entry(key), Some(Entry { value: Value::Flag(true), .. }))
    }

    pub(super) fn text(&self, key: &str) -> Option<(&'a str, At)> {
        match self.entry(key) {
            Some(Entry { value: Value::Text(text), at, .. }) => Some((text, *at)),
            _ => None,
        }
    }

    pub(super) fn items(&self, key: &str) -> &'a [Item] {
        match self.entry(key) {
            Some(Entry { value: Value::Items(items), .. }) => items,
            _ => &[],
        }
    }

    /// What a table of strings holds in all layers, weakest first.
    pub(super) fn map(&self, key: &'static str) -> impl Iterator<Item = &'a (String, Item)> {
        self.maps
            .iter()
            .filter_map(move |e| if let Value::Map(all) = &e.value { Some((e.key, all)) } else { None })
            .filter_map(move |(of, all)| (of == key).then_some(all))
            .flatten()
    }

    pub(super) fn count(&self, key: &str) -> Option<u64> {
        match self.entry(key)?.value {
            Value::Count(n) => Some(n),
            _ => None,
        }
    }

    /// A count that the schema keeps within 32 bits, 0 where there is none.
    pub(super) fn small(&self, key: &str) -> u32 {
        self.count(key).map_or(0, |n| u32::try_from(n).unwrap_or(u32::MAX))
    }

    pub(super) fn whole(&self, key: &str) -> Option<i32> {
        match self.entry(key)?.value {
            Value::Whole(n) => i32::try_from(n).ok(),
            _ => None,
        }
    }

    pub(super) fn capabilities(&self, key: &str) -> Option<Capabilities> {
        match self.entry(key)?.value {
            Value::Capabilities(set) => Some(set),
            _ => None,
        }
    }

    pub(super) fn cpus(&self, key: &str) -> &'a [u32] {
        match self.entry(key) {
            Some(Entry { value: Value::Cpus(cpus), .. }) => cpus,
            _ => &[],
        }
    }

    pub(super) fn permille(&self, key: &str) -> u32 {
        match self.entry(key) {
            Some(Entry { value: Value::Permille(n), .. }) => *n,
            _ => 0,
        }
    }

    /// `None` for "never".
    pub(super) fn time(&self, key: &str) -> Option<Millis> {
        match self.entry(key)?.value {
            Value::Time(t) => Some(t),
            _ => None,
        }
    }

    pub(super) fn size(&self, key: &str) -> Option<u64> {
        match self.entry(key)?.value {
            Value::Size(n) => Some(n),
            _ => None,
        }
    }

    /// A part of the file system; nothing of it where there is none.
    pub(super) fn share(&self, key: &str) -> Share {
        match self.entry(key) {
            Some(Entry { value: Value::Share(share), .. }) => *share,
            _ => Share::Bytes(0),
        }
    }

    pub(super) fn percent(&self, key: &str) -> Option<u32> {
        match self.entry(key)?.value {
            Value::Percent(n) => Some(n),
            _ => None,
        }
    }

    pub(super) fn rotate(&self, key: &str) -> Rotate {
        match self.entry(key) {
            Some(Entry { value: Value::Rotate(rotate), .. }) => *rotate,
            _ => Rotate::Off,
        }
    }

    pub(super) fn signal(&self, key: &str) -> Option<i32> {
        match self.entry(key)?.value {
            Value::Signal(n) => Some(n),
            _ => None,
        }
    }

    pub(super) fn exits(&self, key: &str) -> &'a [ExitMatch] {
        match self.entry(key) {
            Some(Entry { value: Value::Exits(exits), .. }) => exits,
            _ => &[],
        }
    }

    pub(super) fn mask(&self, key: &str) -> u32 {
        match self.entry(key) {
            Some(Entry { value: Value::Mask(bits), .. }) => *bits,
            _ => 0o022,
        }
    }

    /// At least one key of this table is written; `prefix` is its path with a dot.
    pub(super) fn any(&self, prefix: &str) -> bool {
        self.entries.range(prefix..).next().is_some_and(|(key, _)| key.starts_with(prefix))
    }

    pub(super) fn limit(&self, key: &str) -> Option<(LimitValue, LimitValue)> {
        match self.entry(key)?.value {
            Value::Limit(soft, hard) => Some((soft, hard)),
            _ => None,
        }
    }

    /// Whether this word is in the list.
    pub(super) fn lists(&self, key: &str, word: &str) -> bool {
        matches!(self.entry(key), Some(Entry { value: Value::Words(words), .. }) if words.contains(&word))
    }

    /// The chosen word; empty where there is none.
    pub(super) fn choice(&self, key: &str) -> &'static str {
        match self.entry(key) {
            Some(Entry { value: Value::Choice(word), .. }) => word,
            _ => "",
        }
    }
}
