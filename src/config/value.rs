//! One TOML value against what its key takes. Whatever does not fit is reported here, once, and counts as not
//! written; nothing is looked up or resolved.

use super::{
    diagnostic::{At, Problems},
    lists::cpus,
    schema::Kind,
};
use crate::plan::{
    Capabilities, ExitMatch, IoPriority, LimitValue, Millis, Rotate, Share,
    signal::parse_signal,
    unit::{parse_duration, parse_size, size_text},
};
use std::ops::Range;
use toml::{Spanned, de::DeValue};

/// A string inside a value.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) text: String,
    pub(super) at: At,
}

/// A value that fits its key.
#[derive(Debug)]
pub(super) enum Value {
    Flag(bool),
    Text(String),
    Items(Vec<Item>),
    Map(Vec<(String, Item)>),
    Count(u64),
    Whole(i64),
    Permille(u32),
    Time(Millis),
    Never,
    Size(u64),
    Share(Share),
    Percent(u32),
    Rotate(Rotate),
    Signal(i32),
    Exits(Vec<ExitMatch>),
    Mask(u32),
    Capabilities(Capabilities),
    Words(Vec<&'static str>),
    Cpus(Vec<u32>),
    IoPriority(IoPriority),
    Limit(LimitValue, LimitValue),
    Choice(&'static str),
    /// Did not fit; has been reported.
    Broken,
}

/// The key that a value is read for, and where its problems go.
pub(super) struct Reader<'a> {
    pub(super) path: &'a str,
    pub(super) source: u32,
    pub(super) problems: &'a mut Problems,
}

pub(super) type Raw<'a> = Spanned<DeValue<'a>>;

impl Reader<'_> {
    pub(super) fn at(&self, span: Range<usize>) -> At {
        At::new(self.source, span)
    }

    /// `None` where the value does not fit, which has been reported.
    pub(super) fn read(&mut self, kind: &Kind, raw: &Raw<'_>) -> Option<Value> {
        let result = match kind {
            Kind::Names => return self.items(raw).map(Value::Items),
            Kind::Command => return self.command(raw).map(Value::Items),
            Kind::Map => return self.map(raw).map(Value::Map),
            Kind::Exits => return self.exits(raw).map(Value::Exits),
            Kind::Capabilities => return self.capabilities(raw).map(Value::Capabilities),
            Kind::Words(known) => return self.words(kind, raw, known).map(Value::Words),
            Kind::Flag => raw.as_ref().as_bool().map(Value::Flag).ok_or_else(String::new),
            Kind::Text => text(raw).and_then(line).map(Value::Text),
            Kind::Path => text(raw).and_then(path).map(Value::Text),
            Kind::Account => account(raw).map(Value::Text),
            Kind::Count(min, max) => count(raw, *min, *max).map(Value::Count),
            Kind::Whole(min, max) => whole(raw, *min, *max).map(Value::Whole),
            Kind::Cpus => text(raw).and_then(cpus).map(Value::Cpus),
            Kind::IoPriority => text(raw).and_then(IoPriority::parse).map(Value::IoPriority),
            Kind::Permille(min, max) => permille(raw, *min, *max).map(Value::Permille),
            Kind::Time(min) => time(raw, *min).map(Value::Time),
            Kind::TimeOrNever if raw.as_ref().as_str() == Some("never") => Ok(Value::Never),
            Kind::TimeOrNever => time(raw, 1).map(Value::Time),
            Kind::Size(min) => size(raw, *min).map(Value::Size),
            Kind::SizeIn(min, max) => size_in(raw, *min, *max).map(Value::Size),
            Kind::Share => share(raw).map(Value::Share),
            Kind::Percent(min, max) => percent(raw, *min, *max).map(Value::Percent),
            Kind::Rotate => text(raw).and_then(Rotate::parse).map(Value::Rotate),
            Kind::Signal => signal(raw).map(Value::Signal),
            Kind::Mask => mask(raw).map(Value::Mask),
            Kind::Limit(_, bytes) => limit(raw, *bytes).map(|(soft, hard)| Value::Limit(soft, hard)),
            Kind::Choice(all, here) => choice(raw, all, here).map(Value::Choice),
            // Tables are walked by `document`, which never asks for their value.
            Kind::Table(_) | Kind::Future(_) | Kind::Services | Kind::Hooks | Kind::Profiles => return None,
        };
        result.map_err(|why| self.refuse(kind, raw, &why)).ok()
    }

    /// An empty `why` stands for a value of the wrong type.
    pub(super) fn refuse(&mut self, kind: &Kind, raw: &Raw<'_>, why: &str) {
        let at = self.at(raw.span());
        let (path, found) = (self.path, name_of(raw.as_ref()));
        let message = match (why, raw.as_ref().as_str()) {
            ("", _) => format!("`{path}` must be {}, not {found}", expected(kind)),
            (why, Some(text)) if !text.is_empty() && text.len() < 80 && !text.contains(char::is_control) => {
                format!("`{path}` cannot be \"{text}\": {why}")
            }
            (why, Some(_)) => format!("`{path}` cannot have this value: {why}"),
            (why, None) => match raw.as_ref() {
                DeValue::Integer(i) => format!("`{path}` cannot be {i}: {why}"),
                DeValue::Float(f) => format!("`{path}` cannot be {f}: {why}"),
                _ => format!("`{path}` cannot have this value: {why}"),
            },
        };
        let unsupported = why.strip_prefix(UNSUPPORTED);
        let message = unsupported
            .map_or(message, |word| format!("`{path} = \"{word}\"` is not supported by this version"));
        self.problems.error(at, message);
    }
}

/// Marks a word of the schema that this version does not support.
const UNSUPPORTED: &str = "\0";

/// `an integer`, `a string` and so on.
pub(super) fn name_of(raw: &DeValue<'_>) -> &'static str {
    match raw {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

fn expected(kind: &Kind) -> String {
    match kind {
        Kind::Flag => "true or false",
        Kind::Text => "a string",
        Kind::Path => "a path (a string)",
        Kind::Account => "a name (a string) or a number",
        Kind::Names => "an array of strings",
        Kind::Command => "an array of strings, or one string",
        Kind::Count(..) | Kind::Whole(..) => "a whole number",
        Kind::Permille(..) => "a number",
        Kind::Time(_) => "a duration such as \"10s\"",
        Kind::TimeOrNever => "a duration such as \"10s\", or \"never\"",
        Kind::Size(_) | Kind::SizeIn(..) => "a size such as \"50MiB\", or a number of bytes",
        Kind::Share => "a size such as \"50GiB\", or a percentage such as \"10%\"",
        Kind::Percent(..) => "a percentage such as \"150%\"",
        Kind::Rotate => "\"off\", \"hourly\", \"daily\" or a time such as \"03:30\"",
        Kind::Signal => "a signal such as \"SIGTERM\"",
        Kind::Exits => "an array of exit statuses (0 to 255) and signal names",
        Kind::Capabilities => "an array of names such as \"CAP_NET_BIND_SERVICE\"",
        Kind::Words(known) => return format!("an array of {}", quoted(known, " and ")),
        Kind::Cpus => "numbers of CPUs such as \"0-3,6\"",
        Kind::IoPriority => "a class and a level such as \"best-effort:4\", or \"idle\"",
        Kind::Mask => "an octal string such as \"0022\"",
        Kind::Map => "a table of strings",
        Kind::Limit(_, false) => "a number, \"soft:hard\" or \"unlimited\"",
        Kind::Limit(_, true) => "a size such as \"64MiB\", \"soft:hard\" or \"unlimited\"",
        Kind::Choice(_, here) if here.len() == 1 => return quoted(here, ""),
        Kind::Choice(_, here) => return format!("one of {}", quoted(here, ", ")),
        Kind::Table(_) | Kind::Future(_) | Kind::Services | Kind::Hooks | Kind::Profiles => "a table",
    }
    .into()
}

pub(super) fn quoted(words: &[&str], between: &str) -> String {
    words.iter().map(|w| format!("\"{w}\"")).collect::<Vec<_>>().join(between)
}

fn text<'a>(raw: &'a Raw<'_>) -> Result<&'a str, String> {
    raw.as_ref().as_str().ok_or_else(String::new)
}

fn line(text: &str) -> Result<String, String> {
    match text.contains(char::is_control) {
        true => Err("it must be one line without control characters".into()),
        false => Ok(text.to_owned()),
    }
}

fn path(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("it is empty".into()) } else { line(text) }
}

fn integer(raw: &Raw<'_>) -> Option<Result<u64, String>> {
    let i = raw.as_ref().as_integer()?;
    let (digits, radix) = (i.as_str(), i.radix());
    Some(match u64::from_str_radix(digits, radix) {
        Ok(n) => Ok(n),
        Err(_) if digits.starts_with('-') => Err("it is negative".into()),
        Err(_) => Err("it is too large".into()),
    })
}

pub(super) fn count(raw: &Raw<'_>, min: u64, max: u64) -> Result<u64, String> {
    let n = integer(raw).ok_or_else(String::new)??;
    match n {
        n if n < min => Err(format!("it must be at least {min}")),
        n if n > max => Err(format!("it must be at most {max}")),
        n => Ok(n),
    }
}

fn whole(raw: &Raw<'_>, min: i64, max: i64) -> Result<i64, String> {
    let i = raw.as_ref().as_integer().ok_or_else(String::new)?;
    match i64::from_str_radix(i.as_str(), i.radix()) {
        Ok(n) if (min..=max).contains(&n) => Ok(n),
        _ => Err(format!("it must be from {min} to {max}")),
    }
}

fn account(raw: &Raw<'_>) -> Result<String, String> {
    match integer(raw) {
        Some(number) => number.map(|n| n.to_string()),
        None => text(raw).and_then(line),
    }
}

fn permille(raw: &Raw<'_>, min: u32, max: u32) -> Result<u32, String> {
    let value = match raw.as_ref() {
        DeValue::Integer(i) => i.as_str().parse::<f64>().map_err(|_| "it is no plain number")?,
        DeValue::Float(f) => f.as_str().parse::<f64>().map_err(|_| "it is no plain number")?,
        _ => return Err(String::new()),
    };
    let (low, high) = (f64::from(min) / 1000.0, f64::from(max) / 1000.0);
    // NaN is in no range.
    if !(low..=high).contains(&value) {
        return Err(format!("it must be between {low} and {high}"));
    }
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked against the range above"
    )]
    Ok((value * 1000.0).round() as u32)
}

fn time(raw: &Raw<'_>, min: u64) -> Result<Millis, String> {
    let t = parse_duration(text(raw)?)?;
    match min {
        _ if t.0 >= min => Ok(t),
        1 => Err("it must be more than nothing".into()),
        _ => Err(format!("it must be at least {}", Millis(min))),
    }
}

fn size(raw: &Raw<'_>, min: u64) -> Result<u64, String> {
    let bytes = match integer(raw) {
        Some(number) => number?,
        None => parse_size(text(raw)?)?,
    };
    if bytes < min { Err(format!("it must be at least {min} byte")) } else { Ok(bytes) }
}

fn size_in(raw: &Raw<'_>, min: u64, max: u64) -> Result<u64, String> {
    let bytes = size(raw, 0)?;
    if (min..=max).contains(&bytes) {
        return Ok(bytes);
    }
    Err(format!("it must be between {} and {}", size_text(min), size_text(max)))
}

fn share(raw: &Raw<'_>) -> Result<Share, String> {
    match integer(raw) {
        Some(bytes) => bytes.map(Share::Bytes),
        None => Share::parse(text(raw)?),
    }
}

fn percent(raw: &Raw<'_>, min: u32, max: u32) -> Result<u32, String> {
    let range = || format!("it must be a whole percentage from \"{min}%\" to \"{max}%\"");
    let digits = text(raw)?.strip_suffix('%').filter(|d| d.bytes().all(|b| b.is_ascii_digit()));
    digits.and_then(|d| d.parse().ok()).filter(|n| (min..=max).contains(n)).ok_or_else(range)
}

fn signal(raw: &Raw<'_>) -> Result<i32, String> {
    match integer(raw) {
        Some(number) => parse_signal(&number?.to_string()),
        None => parse_signal(text(raw)?),
    }
}

fn mask(raw: &Raw<'_>) -> Result<u32, String> {
    let digits = text(raw)?;
    let octal = (1..=4).contains(&digits.len()) && digits.bytes().all(|b| (b'0'..=b'7').contains(&b));
    match u32::from_str_radix(digits, 8) {
        Ok(bits) if octal && bits <= 0o777 => Ok(bits),
        _ => Err("it must be octal, 0000 to 0777".into()),
    }
}

fn limit(raw: &Raw<'_>, bytes: bool) -> Result<(LimitValue, LimitValue), String> {
    if let Some(number) = integer(raw) {
        let n = number?;
        return Ok((Some(n), Some(n)));
    }
    let text = text(raw)?;
    let one = |part: &str| match part {
        "unlimited" => Ok(None),
        _ if bytes => parse_size(part).map(Some),
        _ if part.is_empty() || !part.bytes().all(|b| b.is_ascii_digit()) => {
            Err("it is not a number".to_owned())
        }
        _ => part.parse::<u64>().map(Some).map_err(|_| "it is too large".to_owned()),
    };
    let (soft, hard) = match text.split_once(':') {
        Some((soft, hard)) => (one(soft)?, one(hard)?),
        None => (one(text)?, one(text)?),
    };
    let show =
        |v: LimitValue| v.map_or("unlimited".into(), |n| if bytes { size_text(n) } else { n.to_string() });
    match (soft, hard) {
        (None, Some(_)) => Err("the soft limit is above the hard one".into()),
        (Some(s), Some(h)) if s > h => {
            Err(format!("the soft limit {} is above the hard one {}", show(soft), show(hard)))
        }
        pair => Ok(pair),
    }
}

fn choice(raw: &Raw<'_>, all: &[&'static str], here: &[&'static str]) -> Result<&'static str, String> {
    let word = text(raw)?;
    if let Some(found) = here.iter().find(|w| **w == word) {
        return Ok(found);
    }
    if all.contains(&word) {
        return Err(format!("{UNSUPPORTED}{word}"));
    }
    let words: Vec<String> = here.iter().map(|w| format!("\"{w}\"")).collect();
    Err(match words.as_slice() {
        [one] => format!("it must be {one}"),
        _ => format!("it must be one of {}", words.join(", ")),
    })
}
