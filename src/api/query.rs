//! The query of a request. Whatever is not understood is refused by name; nothing is ignored.

use super::{reply::Refused, route::decode};
use hyper::StatusCode;
use std::time::Duration;

/// The longest time that a caller can ask to wait.
const WAIT_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// Parameters, decoded; each at most once.
#[derive(Debug, Default)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    /// Reads a query, of which only `known` keys may be there.
    pub(super) fn parse(raw: &str, known: &[&str]) -> Result<Query, Refused> {
        let mut found: Vec<(String, String)> = Vec::new();
        for pair in raw.split('&').filter(|p| !p.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, "true"));
            let (Some(key), Some(value)) = (decode(key), decode(value)) else {
                return Err(bad(format!(
                    "cannot read the parameter `{pair}`: its percent-encoding is broken"
                )));
            };
            if !known.contains(&key.as_str()) {
                return Err(bad(format!("cannot use the parameter `{key}`: {}", hint(known))));
            }
            if found.iter().any(|(k, _)| *k == key) {
                return Err(bad(format!("cannot use the parameter `{key}`: it is given twice")));
            }
            found.push((key, value));
        }
        Ok(Query(found))
    }

    pub(super) fn text(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }

    /// `true` or `false`; a key without a value is true.
    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool, Refused> {
        match self.text(key) {
            None => Ok(default),
            Some("true" | "1") => Ok(true),
            Some("false" | "0") => Ok(false),
            Some(other) => Err(wrong(key, other, "it must be true or false")),
        }
    }

    /// A whole number up to `max`.
    pub(super) fn number(&self, key: &str, max: u64) -> Result<Option<u64>, Refused> {
        let Some(text) = self.text(key) else { return Ok(None) };
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        match text.parse() {
            Ok(n) if digits && n <= max => Ok(Some(n)),
            _ => Err(wrong(key, text, &format!("it must be a whole number from 0 to {max}"))),
        }
    }

    /// How long to wait for an outcome (`wait`, `timeout`); `None`: not at all.
    pub(super) fn wait(&self, default: Duration) -> Result<Option<Duration>, Refused> {
        let limit = match self.text("timeout") {
            None => default,
            Some(text) => duration(text).filter(|d| *d <= WAIT_MAX).ok_or_else(|| {
                wrong("timeout", text, "it must be a duration such as 500ms, 30s or 1h30m, at most a day")
            })?,
        };
        Ok(self.flag("wait", true)?.then_some(limit))
    }
}

fn hint(known: &[&str]) -> String {
    match known {
        [] => "this call has none".into(),
        known => format!("this call knows {}", known.join(", ")),
    }
}

pub(super) fn wrong(key: &str, value: &str, rule: &str) -> Refused {
    bad(format!("cannot use `{key}={value}`: {rule}"))
}

fn bad(detail: String) -> Refused {
    Refused::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
}

/// Reads `500ms`, `30s`, `1h30m`, `2d`, as the configuration writes durations.
fn duration(text: &str) -> Option<Duration> {
    let mut total_ms: u64 = 0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest.get(..digits)?.parse().ok()?;
        rest = rest.get(digits..)?;
        let letters = rest.bytes().take_while(u8::is_ascii_alphabetic).count();
        let unit = match rest.get(..letters)? {
            "ms" => 1,
            "s" => 1000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        rest = rest.get(letters..)?;
        total_ms = total_ms.checked_add(number.checked_mul(unit)?)?;
    }
    (!text.is_empty()).then(|| Duration::from_millis(total_ms))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&str] = &["wait", "timeout", "lines"];

    fn refusal<T: std::fmt::Debug>(result: Result<T, Refused>) -> String {
        let problem = result.unwrap_err().0;
        assert_eq!(problem.status, 422);
        problem.detail
    }

    #[test]
    fn parameters_are_decoded() {
        let q = Query::parse("wait=fal%73e&&timeout=1h30m&lines=7", KNOWN).unwrap();
        assert_eq!(q.wait(Duration::ZERO).unwrap(), None);
        assert_eq!(q.number("lines", 10).unwrap(), Some(7));
        let q = Query::parse("wait&timeout=1m30s", KNOWN).unwrap();
        assert_eq!(q.wait(Duration::ZERO).unwrap(), Some(Duration::from_secs(90)));
        let q = Query::parse("", KNOWN).unwrap();
        assert_eq!(q.wait(Duration::from_secs(60)).unwrap(), Some(Duration::from_secs(60)));
        assert_eq!(q.number("lines", 10).unwrap(), None);
    }

    #[test]
    fn what_is_not_understood_is_refused_by_name() {
        let refused = refusal(Query::parse("wiat=1", KNOWN));
        assert_eq!(refused, "cannot use the parameter `wiat`: this call knows wait, timeout, lines");
        assert!(refusal(Query::parse("x", &[])).ends_with("this call has none"));
        assert!(refusal(Query::parse("wait=1&wait=0", KNOWN)).contains("twice"));
        assert!(refusal(Query::parse("lines=%f", KNOWN)).contains("percent-encoding"));
        let q = |raw: &str| Query::parse(raw, KNOWN).unwrap();
        assert!(refusal(q("wait=maybe").wait(Duration::ZERO)).contains("wait=maybe"));
        for lines in ["", "-1", "+1", "11", "1.0", "99999999999999999999"] {
            assert!(refusal(q(&format!("lines={lines}")).number("lines", 10)).contains("0 to 10"), "{lines}");
        }
        for time in ["", "5", "s", "1.5s", "1 s", "-1s", "1w", "25h", "99999999999999999d", "1s2"] {
            assert!(
                refusal(q(&format!("timeout={time}")).wait(Duration::ZERO)).contains("duration"),
                "{time}"
            );
        }
    }
}
