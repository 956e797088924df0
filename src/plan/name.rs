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

    /// Whether `pattern` means this instance, by its own name or that of its service. `*` stands for any text, `?`
    /// for any one character.
    pub fn is_meant_by(&self, pattern: &str) -> bool {
        matches(pattern, self.as_str()) || matches(pattern, self.service())
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

/// `*` stands for any text, `?` for any one character.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // Where to go on if the text behind the last star turns out wrong: it then stands for one character more.
    let mut retry: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                retry = Some((p, n));
                p += 1;
            }
            Some(&c) if c == '?' || c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((star, from)) = retry else { return false };
                retry = Some((star, from + 1));
                p = star + 1;
                n = from + 1;
            }
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name) in [
            ("*", ""),
            ("web*", "web"),
            ("web*", "web@12"),
            ("*b*@?", "web@1"),
            ("w?b", "web"),
            ("**b", "b"),
            ("a*b*c", "abxbc"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in
            [("web*", "aweb"), ("?", ""), ("w?b", "wb"), ("*a", "ab"), ("", "a"), ("a*b*c", "acb")]
        {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }
}
