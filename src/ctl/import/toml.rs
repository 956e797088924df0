//! Values and tables as TOML 1.0 text. Quoting is decided here and nowhere else.

use std::fmt;

/// A value of the configuration.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Text(String),
    Flag(bool),
    Number(i64),
    /// With a fraction.
    Float(f64),
    List(Vec<String>),
    Mixed(Vec<Value>),
    Map(Vec<(String, String)>),
}

impl From<String> for Value {
    fn from(text: String) -> Value {
        Value::Text(text)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Value {
        Value::Text(text.into())
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Value {
        Value::Flag(flag)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Value {
        Value::Number(number)
    }
}

impl From<Vec<String>> for Value {
    fn from(list: Vec<String>) -> Value {
        Value::List(list)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let joined = |parts: Vec<String>| parts.join(", ");
        match self {
            Value::Text(text) => f.write_str(&quoted(text)),
            Value::Flag(flag) => write!(f, "{flag}"),
            Value::Number(n) => write!(f, "{n}"),
            Value::Float(x) => write!(f, "{x:?}"),
            Value::List(items) => write!(f, "[{}]", joined(items.iter().map(|i| quoted(i)).collect())),
            Value::Mixed(items) => write!(f, "[{}]", joined(items.iter().map(Value::to_string).collect())),
            Value::Map(entries) if entries.is_empty() => f.write_str("{}"),
            Value::Map(entries) => {
                let entry = |(name, value): &(String, String)| format!("{} = {}", key(name), quoted(value));
                write!(f, "{{ {} }}", joined(entries.iter().map(entry).collect()))
            }
        }
    }
}

/// A basic string: everything can be written in one, on one line.
pub(super) fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A key, bare where TOML lets it be.
pub(super) fn key(name: &str) -> String {
    let bare =
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    if bare { name.into() } else { quoted(name) }
}

/// Comment lines of at most about a screen's width; what is no text is escaped, so that no comment ends early.
pub(super) fn comment(text: &str) -> String {
    const WIDTH: usize = 110;
    let clean = crate::ctl::text::clean(text);
    let (mut out, mut line) = (String::new(), String::from("#"));
    for word in clean.split(' ') {
        if line.len() > 1 && line.chars().count() + 1 + word.chars().count() > WIDTH {
            out.push_str(&line);
            out.push('\n');
            line = String::from("#  ");
        }
        line.push(' ');
        line.push_str(word);
    }
    out.push_str(line.trim_end());
    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &str) -> toml::Table {
        text.parse().unwrap_or_else(|e| panic!("{text}: {e}"))
    }

    #[test]
    fn a_comment_is_one_whatever_it_says() {
        let text = comment(&format!("a\nb = 1\r\u{7f} {}", "word ".repeat(60)));
        assert!(text.lines().count() > 2 && text.lines().all(|l| l.starts_with('#')), "{text}");
        assert!(read(&text).is_empty());
        assert_eq!(comment(""), "#\n");
    }

    proptest! {
        #[test]
        fn whatever_is_written_is_read_back(
            name in ".{1,12}",
            text in "(?s).{0,40}",
            list in prop::collection::vec("(?s).{0,9}", 0..4),
        ) {
            let value = Value::Map(vec![(name.clone(), text.clone())]);
            let long = key(&format!("k{name}"));
            let back = read(&format!("a = {value}\nb = {}\n{long} = 1\n", Value::List(list.clone())));
            prop_assert_eq!(back["a"][&name].as_str(), Some(text.as_str()));
            let items = back["b"].as_array().unwrap().iter();
            let items: Vec<_> = items.map(|v| v.as_str().unwrap().to_owned()).collect();
            prop_assert_eq!(items, list);
            let name = format!("k{name}");
            prop_assert!(back.contains_key(&name));
            prop_assert!(read(&comment(&text)).is_empty());
        }
    }
}
