//! Values of several parts: arrays of strings, commands, variables and exit statuses. Each part that does not
//! fit is reported at its own place.

use super::{
    schema::{Kind, closest},
    value::{Item, Raw, Reader, count, name_of, quoted},
    words,
};
use crate::plan::{Capabilities, ExitMatch, signal::parse_signal};
use toml::de::DeValue;

impl Reader<'_> {
    pub(super) fn items(&mut self, raw: &Raw<'_>) -> Option<Vec<Item>> {
        let Some(array) = raw.as_ref().as_array() else {
            self.refuse(&Kind::Names, raw, "");
            return None;
        };
        let mut out = Vec::with_capacity(array.len());
        for element in array.iter() {
            let at = self.at(element.span());
            match element.as_ref().as_str() {
                Some(text) if text.contains('\0') => {
                    self.problems.error(at, format!("`{}` cannot hold a NUL character", self.path));
                }
                Some(text) => out.push(Item { text: text.to_owned(), at }),
                None => {
                    let found = name_of(element.as_ref());
                    self.problems.error(at, format!("`{}` takes only strings, not {found}", self.path));
                }
            }
        }
        (out.len() == array.len()).then_some(out)
    }

    pub(super) fn command(&mut self, raw: &Raw<'_>) -> Option<Vec<Item>> {
        let DeValue::String(string) = raw.as_ref() else {
            if raw.as_ref().is_array() {
                let items = self.items(raw)?;
                return match items.first() {
                    Some(program) if program.text.is_empty() => {
                        self.problems.error(program.at, format!("`{}` names no program", self.path));
                        None
                    }
                    _ => Some(items),
                };
            }
            self.refuse(&Kind::Command, raw, "");
            return None;
        };
        let at = self.at(raw.span());
        match words::split(string) {
            Ok(split) => {
                if let Some(operator) = split.operator {
                    self.problems.warn(
                        at,
                        format!(
                            "`{operator}` in `{}` is an argument like any other: keepd runs no shell \
                             (write [\"/bin/sh\", \"-c\", \"…\"] where one is meant)",
                            self.path
                        ),
                    );
                }
                if split.words.first().is_some_and(|program| !program.is_empty()) {
                    return Some(split.words.into_iter().map(|text| Item { text, at }).collect());
                }
                self.problems.error(at, format!("`{}` names no program", self.path));
            }
            Err(why) => self.problems.error(at, format!("`{}` cannot be split into words: {why}", self.path)),
        }
        None
    }

    pub(super) fn map(&mut self, raw: &Raw<'_>) -> Option<Vec<(String, Item)>> {
        let Some(table) = raw.as_ref().as_table() else {
            self.refuse(&Kind::Map, raw, "");
            return None;
        };
        let mut out = Vec::with_capacity(table.len());
        for (key, value) in table {
            let (name, at) = (key.as_ref().as_ref(), self.at(value.span()));
            if name.is_empty() || name.contains(['=', '\0']) {
                let at = self.at(key.span());
                self.problems.error(
                    at,
                    format!("`{}` cannot set \"{}\": that is no name", self.path, name.escape_debug()),
                );
            } else if let Some(text) = value.as_ref().as_str().filter(|t| !t.contains('\0')) {
                out.push((name.to_owned(), Item { text: text.to_owned(), at }));
            } else {
                let found = match value.as_ref() {
                    DeValue::Integer(i) => format!("an integer (write \"{i}\")"),
                    DeValue::Boolean(b) => format!("a boolean (write \"{b}\")"),
                    DeValue::String(_) => "one with a NUL character".into(),
                    other => name_of(other).into(),
                };
                self.problems.error(at, format!("`{}.{name}` must be a string, not {found}", self.path));
            }
        }
        (out.len() == table.len()).then_some(out)
    }

    pub(super) fn capabilities(&mut self, raw: &Raw<'_>) -> Option<Capabilities> {
        let names = self.items(raw)?;
        let (mut set, mut known) = (Capabilities::default(), true);
        for Item { text, at } in names {
            if let Some(one) = Capabilities::named(&text) {
                set = set.and(one);
                continue;
            }
            known = false;
            let near = closest(&text.to_ascii_uppercase(), Capabilities::known());
            let hint = near.map_or(String::new(), |n| format!(", did you mean `{n}`?"));
            let text = text.escape_debug();
            self.problems.error(at, format!("`{}`: there is no capability \"{text}\"{hint}", self.path));
        }
        known.then_some(set)
    }

    pub(super) fn words(
        &mut self,
        kind: &Kind,
        raw: &Raw<'_>,
        known: &'static [&'static str],
    ) -> Option<Vec<&'static str>> {
        let Some(array) = raw.as_ref().as_array() else {
            self.refuse(kind, raw, "");
            return None;
        };
        let mut out = Vec::new();
        for element in array.iter() {
            match element.as_ref().as_str().and_then(|text| known.iter().find(|word| **word == text)) {
                Some(word) if out.contains(word) => self.refuse(kind, element, "it is there twice"),
                Some(word) => out.push(*word),
                None if element.as_ref().is_str() => {
                    self.refuse(kind, element, &format!("there are {} only", quoted(known, " and ")));
                }
                None => self.refuse(kind, element, ""),
            }
        }
        (out.len() == array.len()).then_some(out)
    }

    pub(super) fn exits(&mut self, raw: &Raw<'_>) -> Option<Vec<ExitMatch>> {
        let Some(array) = raw.as_ref().as_array() else {
            self.refuse(&Kind::Exits, raw, "");
            return None;
        };
        let mut out = Vec::with_capacity(array.len());
        for element in array.iter() {
            let found = match element.as_ref() {
                DeValue::Integer(_) => {
                    count(element, 0, 255).map(|code| ExitMatch::Code(i32::try_from(code).unwrap_or(255)))
                }
                DeValue::String(s) if s.bytes().all(|b| b.is_ascii_digit()) => {
                    Err("an exit status is written without quotes".into())
                }
                DeValue::String(s) => parse_signal(s).map(ExitMatch::Signal),
                _ => Err(String::new()),
            };
            match found {
                Ok(exit) => out.push(exit),
                Err(why) => self.refuse(&Kind::Exits, element, &why),
            }
        }
        (out.len() == array.len()).then_some(out)
    }
}

/// `0-3,6`: sorted, each once, at least one.
pub(super) fn cpus(text: &str) -> Result<Vec<u32>, String> {
    /// Beyond what any kernel is built for.
    const MOST: u32 = 8191;
    let number = |text: &str| match text.trim().parse::<u32>() {
        Ok(n) if n <= MOST => Ok(n),
        _ => Err(format!("`{text}` is no number of a CPU")),
    };
    let mut out = std::collections::BTreeSet::new();
    for part in text.split(',') {
        let (from, to) = part.split_once('-').unwrap_or((part, part));
        let (from, to) = (number(from)?, number(to)?);
        if from > to {
            return Err(format!("`{part}` goes backwards"));
        }
        out.extend(from..=to);
    }
    Ok(out.into_iter().collect())
}

#[cfg(test)]
mod tests {
    use super::cpus;

    #[test]
    fn cpus_are_numbers_and_ranges() {
        assert_eq!(cpus("0"), Ok(vec![0]));
        assert_eq!(cpus("3, 0-1,1"), Ok(vec![0, 1, 3]));
        for text in ["", "a", "1-", "-1", "2-1", "0,,1", "8192", "0-99999999999"] {
            assert!(cpus(text).is_err(), "{text}");
        }
    }
}
