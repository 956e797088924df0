//! Names of services and their instances.

use serde::{Deserialize, Serialize};
use std::{borrow::Borrow, fmt, sync::Arc};

/// The name of a service instance: `web`, or `web@0` where a service has several. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Name(Arc<str>);

impl Name {
    /// Longest name of a service, without the instance suffix.
    pub const MAX: usize = 64;

    /// Wraps an already checked name (see [`Name::check`]).
    pub fn new(name: &str) -> Name {
        Name(name.into())
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The service this instance belongs to: the part before `@`.
    pub fn service(&self) -> &str {
        self.0.split('@').next().unwrap_or(&self.0)
    }

    /// Checks a service name against `[a-z0-9][a-z0-9._-]{0,63}`; the error is a sentence for people.
    pub fn check(name: &str) -> Result<(), String> {
        let Some(first) = name.chars().next() else { return Err("a service name cannot be empty".into()) };
        if name.len() > Self::MAX {
            return Err(format!(
                "a service name has at most {} characters, this one has {}",
                Self::MAX,
                name.len()
            ));
        }
        if !first.is_ascii_lowercase() && !first.is_ascii_digit() {
            return Err(format!("a service name begins with a small letter or a digit, not with `{first}`"));
        }
        match name.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '.' | '_' | '-')) {
            Some(c) => Err(format!("`{c}` cannot stand in a service name (allowed: a-z 0-9 . _ -)")),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for Name {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Name {
    fn from(s: &str) -> Name {
        Name::new(s)
    }
}
