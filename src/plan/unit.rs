//! Units of measure as people write them: durations, which are whole milliseconds everywhere in keepd, and
//! sizes, which are bytes. Only text and numbers here: who reads them from where is the caller's business.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A length of time in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub u64);

impl Millis {
    /// So many whole seconds.
    pub const fn secs(s: u64) -> Millis {
        Millis(s * 1000)
    }
}

impl fmt::Display for Millis {
    /// The shortest form the configuration would read back: `1h30m`, `2m40s`, `1.5s`, `500ms`, `0s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0;
        if ms == 0 {
            return f.write_str("0s");
        }
        if ms < 1000 {
            return write!(f, "{ms}ms");
        }
        let (d, h, m) = (ms / 86_400_000, ms / 3_600_000 % 24, ms / 60_000 % 60);
        let (s, rest) = (ms / 1000 % 60, ms % 1000);
        for (n, unit) in [(d, "d"), (h, "h"), (m, "m")] {
            if n > 0 {
                write!(f, "{n}{unit}")?;
            }
        }
        match (s, rest) {
            (0, 0) => Ok(()),
            (s, 0) => write!(f, "{s}s"),
            (s, rest) => write!(f, "{}s", format!("{s}.{rest:03}").trim_end_matches('0')),
        }
    }
}

/// Units of time, largest first, in milliseconds.
const TIME: [(&str, u64); 5] = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// Longest duration that can be written: about a hundred years. Deadlines are sums of a few of them, and
/// those must stay far from the end of a u64.
pub const MILLIS_MAX: Millis = Millis(36_525 * 86_400_000);

/// Reads a duration: `500ms`, `10s`, `5m`, `1h30m`, `2d`, `1.5s`; each unit once, larger ones first.
/// The error is a clause that can follow a colon.
pub fn parse_duration(text: &str) -> Result<Millis, String> {
    if text.is_empty() {
        return Err("it is empty".into());
    }
    let mut rest = text;
    let mut total: u128 = 0;
    let mut units = &TIME[..];
    while !rest.is_empty() {
        let (number, after) = split_number(rest)?;
        let len = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, after) = after.split_at(len);
        if unit.is_empty() {
            return Err(format!("`{number}` has no unit, such as `{number}s`"));
        }
        let Some(at) = units.iter().position(|(name, _)| *name == unit) else {
            return Err(match TIME.iter().any(|(name, _)| *name == unit) {
                true => format!("`{unit}` is out of order (each unit once, larger ones first)"),
                false => format!("`{unit}` is no unit of time (d, h, m, s, ms)"),
            });
        };
        let (ms, exact) = scale(number, units[at].1).ok_or("it is too long")?;
        if !exact {
            return Err("it is finer than a millisecond".into());
        }
        total += ms;
        units = &units[at + 1..];
        rest = after;
    }
    match u64::try_from(total) {
        Ok(ms) if ms <= MILLIS_MAX.0 => Ok(Millis(ms)),
        _ => Err("it is longer than a hundred years".into()),
    }
}

/// Units of size, largest first, in bytes.
const SIZE: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// Reads a size in bytes: `64KiB`, `50MiB`, `1GiB`, `64K`, `1.5G`, `512`; K, M, G and T are powers of 1024.
/// The error is a clause that can follow a colon.
pub fn parse_size(text: &str) -> Result<u64, String> {
    if text.is_empty() {
        return Err("it is empty".into());
    }
    let (number, unit) = split_number(text)?;
    let factor = match unit {
        "" | "B" => 1,
        _ => match SIZE.iter().find(|(name, _)| *name == unit || name[..1] == *unit) {
            Some((_, factor)) => *factor,
            None => return Err(format!("`{unit}` is no unit of size (KiB, MiB, GiB, TiB)")),
        },
    };
    let (bytes, exact) = scale(number, factor).ok_or("it is too large")?;
    if !exact && factor == 1 {
        return Err("it is finer than a byte".into());
    }
    u64::try_from(bytes).map_err(|_| "it is too large".into())
}

/// A size in the largest unit that divides it: `50MiB`, `1025B` is `1025`.
pub fn size_text(bytes: u64) -> String {
    match SIZE.iter().find(|(_, factor)| bytes > 0 && bytes.is_multiple_of(*factor)) {
        Some((name, factor)) => format!("{}{name}", bytes / factor),
        None => bytes.to_string(),
    }
}

/// The leading decimal number and what follows it.
fn split_number(text: &str) -> Result<(&str, &str), String> {
    let len = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, rest) = text.split_at(len);
    let whole = number.split('.').next().unwrap_or("");
    let plain = number.matches('.').count() <= 1 && !whole.is_empty() && !number.ends_with('.');
    match (plain, number.is_empty()) {
        (true, _) => Ok((number, rest)),
        (false, true) => Err(format!("no number stands before `{rest}`")),
        (false, false) => Err(format!("`{number}` is not a number")),
    }
}

/// A decimal number times a unit: the whole part of the product, and whether that is all of it.
/// `None` where it is out of any range.
fn scale(number: &str, unit: u64) -> Option<(u128, bool)> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    // Twenty digits are more than a u64 holds; a longer fraction says nothing in any unit we have.
    if whole.trim_start_matches('0').len() > 20 || fraction.len() > 15 {
        return None;
    }
    let whole = whole.parse::<u128>().ok()? * u128::from(unit);
    if fraction.is_empty() {
        return Some((whole, true));
    }
    let part = fraction.parse::<u128>().ok()? * u128::from(unit);
    let ten = 10u128.pow(u32::try_from(fraction.len()).ok()?);
    Some((whole + part / ten, part % ten == 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn durations_are_read() {
        for (text, ms) in [
            ("0s", 0),
            ("500ms", 500),
            ("10s", 10_000),
            ("5m", 300_000),
            ("1h30m", 5_400_000),
            ("2d", 172_800_000),
            ("1.5s", 1500),
            ("1m0.25s", 60_250),
        ] {
            assert_eq!(parse_duration(text), Ok(Millis(ms)), "{text}");
        }
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in
            ["", "10", "s", "10x", "10 s", "-1s", "1s1s", "1s1m", "1.2.3s", ".5s", "1.s", "0.0001s", "36526d"]
        {
            assert!(parse_duration(text).is_err(), "{text}");
        }
        assert_eq!(parse_duration("10").unwrap_err(), "`10` has no unit, such as `10s`");
        assert!(parse_duration("10us").unwrap_err().contains("no unit of time"));
    }

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in [
            ("0", 0),
            ("512", 512),
            ("512B", 512),
            ("64KiB", 65_536),
            ("64K", 65_536),
            ("50MiB", 52_428_800),
            ("1.5GiB", 1_610_612_736),
            ("1T", 1 << 40),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "KiB", "64KB", "64kib", "-1", "1.5", "17179869184GiB", "1 MiB"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_duration_reads_back_as_it_is_shown(ms in 0..=MILLIS_MAX.0) {
            prop_assert_eq!(parse_duration(&Millis(ms).to_string()), Ok(Millis(ms)));
        }

        #[test]
        fn a_size_reads_back_as_it_is_shown(bytes: u64, shift in 0u32..50) {
            let bytes = (bytes >> shift) << (shift / 2);
            prop_assert_eq!(parse_size(&size_text(bytes)), Ok(bytes));
        }

        #[test]
        fn no_text_makes_the_readers_panic(text in ".{0,24}") {
            let _ = (parse_duration(&text), parse_size(&text));
        }
    }
}
