//! systemd's ways to write durations and limits, and its `%` specifiers.

use super::super::text::{HOST, binary_size};

/// Milliseconds; `None` for `infinity`. The error is a clause.
pub(super) fn span(text: &str) -> Result<Option<u64>, String> {
    let text = text.trim();
    if text == "infinity" {
        return Ok(None);
    }
    let bad = || format!("{text} is no length of time");
    let mut total = 0f64;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let number: f64 = rest[..end].parse().map_err(|_| bad())?;
        rest = rest[end..].trim_start();
        let end = rest.find(|c: char| !c.is_alphabetic()).unwrap_or(rest.len());
        let ms = match &rest[..end] {
            "us" | "usec" | "µs" | "μs" => 0.001,
            "ms" | "msec" => 1.0,
            "" | "s" | "sec" | "second" | "seconds" => 1e3,
            "m" | "min" | "minute" | "minutes" => 60e3,
            "h" | "hr" | "hour" | "hours" => 3600e3,
            "d" | "day" | "days" => 86_400e3,
            "w" | "week" | "weeks" => 604_800e3,
            _ => return Err(bad()),
        };
        total += number * ms;
        rest = rest[end..].trim_start();
    }
    if text.is_empty() || !(0.0..3e12).contains(&total) {
        return Err(bad());
    }
    #[allow(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "checked against the range above"
    )]
    Ok(Some(total.round() as u64))
}

/// `LimitNOFILE=1024:infinity` as keepd writes it.
pub(super) fn limit(text: &str, bytes: bool, seconds: bool) -> Result<String, String> {
    let one = |part: &str| match part.trim() {
        "infinity" => Ok("unlimited".to_owned()),
        part if bytes => binary_size(part),
        part if seconds && part.parse::<u64>().is_err() => Ok((span(part)?.unwrap_or(0) / 1000).to_string()),
        part => part.parse::<u64>().map(|n| n.to_string()).map_err(|_| format!("{part} is no number")),
    };
    match text.split_once(':') {
        Some((soft, hard)) => Ok(format!("{}:{}", one(soft)?, one(hard)?)),
        None => one(text),
    }
}

/// The unit that specifiers speak of.
#[derive(Debug, Clone)]
pub(super) struct Specifiers {
    /// `nginx`, `postgresql@15-main`.
    pub(super) name: String,
}

impl Specifiers {
    /// Of `NAME@INSTANCE`.
    fn parts(&self) -> (&str, &str) {
        self.name.split_once('@').unwrap_or((&self.name, ""))
    }

    /// The text with specifiers put in. The error is a clause.
    pub(super) fn expand(&self, text: &str) -> Result<String, String> {
        let mut out = String::with_capacity(text.len());
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                out.push(c);
                continue;
            }
            let (prefix, instance) = self.parts();
            match chars.next() {
                Some('%') => out.push('%'),
                Some('i') => out.push_str(instance),
                Some('I') => out.push_str(&unescape(instance)),
                Some('n') => out.push_str(&format!("{}.service", self.name)),
                Some('N') => out.push_str(&self.name),
                Some('p') => out.push_str(prefix),
                Some('P') => out.push_str(&unescape(prefix)),
                Some('j') => out.push_str(prefix.rsplit('-').next().unwrap_or(prefix)),
                Some('f') => out
                    .push_str(&format!("/{}", unescape(if instance.is_empty() { prefix } else { instance }))),
                Some('H') => out.push(HOST),
                Some('t') => out.push_str("/run"),
                Some('S') => out.push_str("/var/lib"),
                Some('C') => out.push_str("/var/cache"),
                Some('L') => out.push_str("/var/log"),
                Some('E') => out.push_str("/etc"),
                Some('T') => out.push_str("/tmp"),
                Some('V') => out.push_str("/var/tmp"),
                Some('h') => out.push_str("/root"),
                Some('u' | 'g') => out.push_str("root"),
                Some('U' | 'G') => out.push('0'),
                Some(c) => return Err(format!("%{c} is known to systemd only")),
                None => out.push('%'),
            }
        }
        Ok(out)
    }
}

/// systemd-escape backwards: `-` is `/`, `\x2d` is `-`.
fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let code =
            rest.strip_prefix("\\x").and_then(|r| r.get(..2)).and_then(|d| u8::from_str_radix(d, 16).ok());
        match (c, code) {
            (_, Some(code)) => {
                out.push(char::from(code));
                rest = &rest[4..];
                continue;
            }
            ('-', _) => out.push('/'),
            (c, _) => out.push(c),
        }
        rest = &rest[c.len_utf8()..];
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_systemd_reads_them() {
        for (text, ms) in
            [("5", 5000), ("1min 30s", 90_000), ("2h", 7_200_000), ("100ms", 100), ("0", 0), ("1.5s", 1500)]
        {
            assert_eq!(span(text), Ok(Some(ms)), "{text}");
        }
        assert_eq!(span("infinity"), Ok(None));
        for bad in ["", "soon", "5 parsecs", "-1"] {
            assert!(span(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn limits_have_a_soft_and_a_hard_side() {
        assert_eq!(limit("1024:infinity", false, false).as_deref(), Ok("1024:unlimited"));
        assert_eq!(limit("64M", true, false).as_deref(), Ok("64MiB"));
        assert_eq!(limit("2min", false, true).as_deref(), Ok("120"));
        assert!(limit("many", false, false).is_err());
    }

    #[test]
    fn specifiers_are_put_in() {
        let unit = Specifiers { name: "db@a-b\\x2dc".into() };
        assert_eq!(
            unit.expand("%i %I %p %t/%N 100%%"),
            Ok("a-b\\x2dc a/b-c db /run/db@a-b\\x2dc 100%".into())
        );
        assert_eq!(unit.expand("%H"), Ok(HOST.into()));
        assert!(unit.expand("%m").unwrap_err().contains("%m"));
    }
}
