//! A service while it is being imported: keepd's keys that are known so far, and a remark for whatever of the source
//! was not kept or became something else. Every value is put to the configuration's own reader before it is taken.

use super::toml::Value;
use crate::{config, plan::Mode};

/// What the command line says about all services.
#[derive(Debug)]
pub(super) struct Setting {
    pub(super) mode: Mode,
    /// Whom a service runs as that names no user.
    pub(super) run_as: String,
    /// Variables of the environment that the other supervisor was started in.
    pub(super) env: Vec<(String, String)>,
}

/// What is said beside a service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Remark {
    /// A key, or a part of its value, that has no counterpart.
    Lost { what: String, why: String },
    /// Kept, but not to the letter.
    Note(String),
}

/// What is said beside a service, or for all of them.
#[derive(Debug, Default)]
pub(super) struct Remarks(Vec<Remark>);

impl Remarks {
    pub(super) fn lost(&mut self, what: impl Into<String>, why: impl Into<String>) {
        self.0.push(Remark::Lost { what: what.into(), why: why.into() });
    }

    /// Says it once.
    pub(super) fn note(&mut self, text: impl Into<String>) {
        let note = Remark::Note(text.into());
        if !self.0.contains(&note) {
            self.0.push(note);
        }
    }

    pub(super) fn all(&self) -> &[Remark] {
        &self.0
    }

    /// How many keys, or parts of them, were not kept.
    pub(super) fn lost_ones(&self) -> usize {
        self.0.iter().filter(|r| matches!(r, Remark::Lost { .. })).count()
    }
}

/// A dependency on another service, which may or may not be imported along with this one.
#[derive(Debug, Clone)]
pub(super) struct Wish {
    /// `after`, `wants`, `requires` or `binds-to`; `before` is the other one's `after`.
    pub(super) kind: &'static str,
    pub(super) other: String,
    /// As the source says it.
    pub(super) what: String,
}

/// One service.
#[derive(Debug)]
pub(super) struct Draft {
    /// As the source has it, until the names of all are known.
    pub(super) name: String,
    /// Where it comes from: `[program:web] of web.conf`.
    pub(super) origin: String,
    /// Path and value, in the order in which they came.
    pub(super) settings: Vec<(&'static str, Value)>,
    /// Environments of profiles.
    pub(super) overlays: Vec<(String, Value)>,
    pub(super) remarks: Remarks,
    /// Keys of the source that were mapped.
    pub(super) kept: usize,
    /// Other services that it names, by their names in the source.
    pub(super) wishes: Vec<Wish>,
    /// What the source calls it, besides `name`.
    pub(super) aliases: Vec<String>,
    /// Why it cannot be written as a service at all.
    pub(super) refused: Option<String>,
    mode: Mode,
}

impl Draft {
    pub(super) fn new(name: &str, origin: String, setting: &Setting) -> Draft {
        Draft {
            name: name.into(),
            origin,
            settings: Vec::new(),
            overlays: Vec::new(),
            remarks: Remarks::default(),
            kept: 0,
            wishes: Vec::new(),
            aliases: vec![name.into()],
            refused: None,
            mode: setting.mode,
        }
    }

    /// Takes a value for a key, in place of an earlier one; or says why this version does not.
    pub(super) fn set(&mut self, path: &'static str, value: impl Into<Value>) -> Result<(), String> {
        let value = value.into();
        config::takes(path, &value.to_string(), self.mode)?;
        match self.settings.iter_mut().find(|(p, _)| *p == path) {
            Some((_, old)) => *old = value,
            None => self.settings.push((path, value)),
        }
        Ok(())
    }

    pub(super) fn get(&self, path: &str) -> Option<&Value> {
        self.settings.iter().find(|(p, _)| *p == path).map(|(_, value)| value)
    }

    /// Adds variables; later ones win.
    pub(super) fn env(&mut self, more: Vec<(String, String)>) -> Result<(), String> {
        let mut all = match self.get("env") {
            Some(Value::Map(all)) => all.clone(),
            _ => Vec::new(),
        };
        for (name, value) in more {
            match all.iter_mut().find(|(n, _)| *n == name) {
                Some((_, old)) => *old = value,
                None => all.push((name, value)),
            }
        }
        if all.is_empty() { Ok(()) } else { self.set("env", Value::Map(all)) }
    }

    /// Adds to a list.
    pub(super) fn add(&mut self, path: &'static str, more: Vec<String>) -> Result<(), String> {
        let mut all = match self.get(path) {
            Some(Value::List(all)) => all.clone(),
            _ => Vec::new(),
        };
        all.extend(more);
        self.set(path, Value::List(all))
    }

    /// What became of one key of the source.
    pub(super) fn key(&mut self, what: String, outcome: Result<(), String>) {
        match outcome {
            Ok(()) => self.kept += 1,
            Err(why) => self.remarks.lost(what, why),
        }
    }

    /// How many keys, or parts of them, were not kept.
    pub(super) fn left_out(&self) -> usize {
        self.remarks.lost_ones() + usize::from(self.refused.is_some())
    }

    /// A service of the system's keepd must say whom it runs as.
    pub(super) fn name_user(&mut self, setting: &Setting) -> Result<(), String> {
        if setting.mode == Mode::User || self.get("user").is_some() {
            return Ok(());
        }
        self.remarks
            .note(format!("no user is named, so it runs as {}; --run-as names another", setting.run_as));
        self.set("user", setting.run_as.clone())
    }
}
