//! When a file is full and what files are called: decided from names and sizes alone. Pure: no I/O, no clock.
//! The sequence number alone says which of two files is older; the time in a name is for people, and may
//! jump as the clock does.

use crate::plan::{LogSpec, Millis, Rotate};
use jiff::Timestamp;

/// A line longer than this may be cut by a rotation.
pub const LONGEST_LINE: u64 = 1 << 20;

/// How much a file is to hold, when it is rotated and what is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Rotate at the first line end at or past this many bytes; at least 1.
    pub max_size: u64,
    /// Rotate at these times too.
    pub rotate: Rotate,
    /// How many rotated files are kept.
    pub keep: u32,
    /// How long rotated files are kept after the last write to them.
    pub keep_for: Option<Millis>,
    /// Rotated files and a full current one are to be at most this many bytes together.
    pub max_total: Option<u64>,
    /// Rotated files are compressed.
    pub compress: bool,
}

impl From<&LogSpec> for Limits {
    fn from(spec: &LogSpec) -> Limits {
        Limits {
            max_size: spec.max_size.max(1),
            rotate: spec.rotate,
            keep: spec.keep,
            keep_for: spec.keep_for,
            max_total: spec.max_total,
            compress: spec.compress,
        }
    }
}

/// What may be added to a file of a certain size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Room {
    /// So many bytes, whatever they are: no line end among them is at or past the limit.
    Free(u64),
    /// Only up to the next line end; then the file is full.
    Line,
}

/// See [`Room`].
pub fn room(size: u64, max_size: u64) -> Room {
    match max_size.saturating_sub(1).saturating_sub(size) {
        0 => Room::Line,
        free => Room::Free(free),
    }
}

/// Names beyond this are not ours; so the next number always fits.
const LAST: u64 = 999_999_999_999_999;

/// What a name of ours stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Form {
    /// `…log`: a rotated file.
    Plain,
    /// `…log.gz`: the same, compressed, complete.
    Gzip,
    /// `…log.gz.tmp`: it is being compressed, or was when keepd was killed.
    Partial,
    /// `.last-000007`: no file has this number any more, nor will one have it again.
    Mark,
}

/// `PREFIX2026-11-21T00-00-00.000001.log`: when the file was begun, in UTC, and its sequence number.
pub fn name(prefix: &str, started_ms: u64, sequence: u64) -> String {
    let started = i64::try_from(started_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let started = started.unwrap_or(Timestamp::UNIX_EPOCH).strftime("%Y-%m-%dT%H-%M-%S").to_string();
    format!("{prefix}{started}.{sequence:06}.log")
}

/// The name of the empty file that keeps a number from being used again; see [`Form::Mark`].
pub fn mark(prefix: &str, sequence: u64) -> String {
    format!(".{prefix}last-{sequence:06}")
}

/// The sequence number in the name of a rotated file that is not compressed; `None` for any other.
pub fn sequence(prefix: &str, name: &str) -> Option<u64> {
    parse(prefix, name).filter(|(_, form)| *form == Form::Plain).map(|(number, _)| number)
}

/// The sequence number in a name of ours, and what it stands for; `None` for any other.
pub fn parse(prefix: &str, name: &str) -> Option<(u64, Form)> {
    const PATTERN: &[u8] = b"dddd-dd-ddTdd-dd-dd";
    if let Some(rest) = name.strip_prefix('.') {
        let digits = rest.strip_prefix(prefix)?.strip_prefix("last-")?;
        return number(digits).map(|n| (n, Form::Mark));
    }
    let (time, rest) = name.strip_prefix(prefix)?.split_once('.')?;
    let timely = time.len() == PATTERN.len()
        && time.bytes().zip(PATTERN).all(|(c, p)| if *p == b'd' { c.is_ascii_digit() } else { c == *p });
    let (digits, ending) = rest.split_once('.')?;
    let form = match ending {
        "log" => Form::Plain,
        "log.gz" => Form::Gzip,
        "log.gz.tmp" => Form::Partial,
        _ => return None,
    };
    number(digits).filter(|_| timely).map(|n| (n, form))
}

fn number(digits: &str) -> Option<u64> {
    let plain = digits.bytes().all(|c| c.is_ascii_digit())
        && (digits.len() == 6 || digits.len() > 6 && !digits.starts_with('0'));
    digits.parse().ok().filter(|n| plain && *n <= LAST)
}

/// The time in a name that [`name`] made without a prefix, in milliseconds since 1970.
pub fn started(name: &str) -> Option<u64> {
    let time = name.split('.').next()?;
    let civil = jiff::civil::DateTime::strptime("%Y-%m-%dT%H-%M-%S", time).ok()?;
    let ms = civil.to_zoned(jiff::tz::TimeZone::UTC).ok()?.timestamp().as_millisecond();
    u64::try_from(ms).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    #[test]
    fn names_tell_time_and_sequence() {
        let made = name("", 1_795_219_200_000, 1);
        assert_eq!(made, "2026-11-21T00-00-00.000001.log");
        assert_eq!(sequence("", &made), Some(1));
        assert_eq!(sequence("", &format!("{made}.gz")), None);
        assert_eq!(started(&made), Some(1_795_219_200_000));
        assert_eq!(name("keepd-", 0, 1_234_567), "keepd-1970-01-01T00-00-00.1234567.log");
    }

    #[test]
    fn other_names_are_not_ours() {
        for foreign in [
            "current",
            "2026-11-21T00-00-00.000001.log.bz2",
            "2026-11-21T00-00-00.000001.log.gz.gz",
            "2026-11-21T00-00-00.1.log",
            "2026-11-21T00-00-00.0000001.log",
            "2026-11-21T00-00-00.+00001.log",
            "2026-11-21T00-00-00..log",
            "2026-11-21 00-00-00.000001.log",
            "x2026-11-21T00-00-00.000001.log",
            "2026-11-21T00-00-00.99999999999999999999.log",
            ".last-1",
            ".last-",
            "last-000001",
            ".keepd-last-000001",
        ] {
            assert_eq!(parse("", foreign), None, "{foreign}");
        }
    }

    proptest! {
        #[test]
        fn a_name_is_read_back(ms in any::<u64>(), number in 1..=LAST, prefix in "(keepd-)?") {
            let plain = name(&prefix, ms, number);
            prop_assert_eq!(parse(&prefix, &plain), Some((number, Form::Plain)));
            prop_assert_eq!(parse(&prefix, &format!("{plain}.gz")), Some((number, Form::Gzip)));
            prop_assert_eq!(parse(&prefix, &format!("{plain}.gz.tmp")), Some((number, Form::Partial)));
            prop_assert_eq!(parse(&prefix, &mark(&prefix, number)), Some((number, Form::Mark)));
        }

        #[test]
        fn reading_a_name_never_panics(prefix in ".{0,4}", text in ".{0,48}") {
            parse(&prefix, &text);
        }

        #[test]
        fn a_file_passes_its_limit_by_one_line_at_most(
            max in 1..400u64,
            lines in prop::collection::vec(1..90u64, 1..120),
            batch in 1..200u64,
        ) {
            let ends: BTreeSet<u64> = lines.iter().scan(0, |at, n| { *at += n; Some(*at) }).collect();
            let (mut begin, mut at, total) = (0, 0, lines.iter().sum::<u64>());
            while at < total {
                match room(at - begin, max) {
                    Room::Free(free) => {
                        let step = free.min(batch).min(total - at);
                        prop_assert!(step > 0);
                        let passed = ends.range(at..=at + step).find(|e| **e - begin >= max);
                        prop_assert_eq!(passed, None);
                        at += step;
                    }
                    Room::Line => {
                        at = *ends.range(at + 1..).next().unwrap();
                        prop_assert!(at - begin >= max && at - begin < max + 90);
                        begin = at;
                    }
                }
            }
        }
    }
}
