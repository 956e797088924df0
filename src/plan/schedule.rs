//! `schedule`: five fields of cron as sets of numbers. What they mean where a zone turns its clock is decided by
//! whoever has a clock.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
use std::fmt;

/// A schedule that has been read; it is kept as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule {
    text: String,
    /// Bit by number.
    minutes: u64,
    hours: u64,
    days: u64,
    months: u64,
    /// 0 is Sunday.
    weekdays: u64,
    /// It is due in every hour of the day: hours are no choice.
    hourly: bool,
    /// Both days of the month and of the week are restricted: either fits.
    either: bool,
}

/// Names of whole schedules.
const NAMED: [(&str, &str); 6] = [
    ("@hourly", "0 * * * *"),
    ("@daily", "0 0 * * *"),
    ("@midnight", "0 0 * * *"),
    ("@weekly", "0 0 * * 0"),
    ("@monthly", "0 0 1 * *"),
    ("@yearly", "0 0 1 1 *"),
];
const MONTHS: [&str; 12] =
    ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

impl Schedule {
    /// Reads `*/5 * * * *`, `0 3 * * mon-fri` or `@daily`.
    ///
    /// # Errors
    /// A sentence for people.
    pub fn parse(text: &str) -> Result<Schedule, String> {
        let text = text.trim();
        let named = NAMED.iter().find(|(name, _)| *name == text).map(|(_, fields)| *fields);
        if named.is_none() && text.starts_with('@') {
            let all: Vec<&str> = NAMED.iter().map(|(name, _)| *name).collect();
            return Err(format!("`{text}` is none of {}", all.join(", ")));
        }
        let fields: Vec<&str> = named.unwrap_or(text).split_whitespace().collect();
        let [minute, hour, day, month, weekday] = fields[..] else {
            return Err(format!("it has {} fields, not five: minute hour day month weekday", fields.len()));
        };
        let weekdays = field("weekday", weekday, 0, 7, &WEEKDAYS)?;
        let schedule = Schedule {
            text: text.into(),
            minutes: field("minute", minute, 0, 59, &[])?,
            hours: field("hour", hour, 0, 23, &[])?,
            days: field("day", day, 1, 31, &[])?,
            months: field("month", month, 1, 12, &MONTHS)?,
            // 7 is Sunday too.
            weekdays: (weekdays | weekdays >> 7) & 0x7f,
            hourly: hour.starts_with('*'),
            either: !day.starts_with('*') && !weekday.starts_with('*'),
        };
        let longest = [31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
        let possible = (1..).zip(longest).any(|(month, days)| {
            has(schedule.months, month) && (1..=days).any(|day| has(schedule.days, day))
        });
        if !possible && !schedule.either {
            return Err("no month has such a day".into());
        }
        Ok(schedule)
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it is due in every hour of its days.
    pub fn is_hourly(&self) -> bool {
        self.hourly
    }

    /// Whether it is due on such a day; `weekday` 0 is Sunday.
    pub fn fits(&self, month: i8, day: i8, weekday: i8) -> bool {
        let (on_day, on_weekday) = (has(self.days, day), has(self.weekdays, weekday));
        has(self.months, month) && if self.either { on_day || on_weekday } else { on_day && on_weekday }
    }

    /// Whether it is due at this minute of its days.
    pub fn at(&self, hour: i8, minute: i8) -> bool {
        has(self.hours, hour) && has(self.minutes, minute)
    }
}

fn has(bits: u64, n: i8) -> bool {
    u32::try_from(n).is_ok_and(|n| bits >> n & 1 == 1)
}

/// One field: `*`, numbers, names, ranges and steps, separated by commas.
fn field(what: &str, text: &str, min: u8, max: u8, names: &[&str]) -> Result<u64, String> {
    let mut bits = 0;
    for part in text.split(',') {
        let wrong = |why: &str| format!("its {what} `{part}` {why}");
        let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
        let step = match step.map(str::parse::<u8>) {
            None => 1,
            Some(Ok(step @ 1..)) => step,
            Some(_) => return Err(wrong("has a step that is no number from 1")),
        };
        let number = |text: &str| {
            let text = text.to_ascii_lowercase();
            let named = names.iter().zip(if names.len() == 12 { 1.. } else { 0.. });
            let named = named.filter(|(name, _)| **name == text).map(|(_, n)| n).next();
            let n: Option<u8> = named.or_else(|| text.parse().ok());
            n.filter(|n| (min..=max).contains(n)).ok_or_else(|| wrong(&format!("is not from {min} to {max}")))
        };
        let (first, last) = match range.split_once('-') {
            _ if range == "*" => (min, max),
            Some((first, last)) => (number(first)?, number(last)?),
            None if part.contains('/') => (number(range)?, max),
            None => (number(range)?, number(range)?),
        };
        if first > last {
            return Err(wrong("ends before it begins"));
        }
        (first..=last).step_by(step.into()).for_each(|n| bits |= 1 << n);
    }
    Ok(bits)
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Schedule {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Schedule {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Schedule, D::Error> {
        let text = String::deserialize(from)?;
        Schedule::parse(&text).map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_schedule_is_refused_with_its_reason() {
        for (text, why) in [
            ("", "0 fields"),
            ("* * * *", "4 fields"),
            ("60 * * * *", "minute `60` is not from 0 to 59"),
            ("* 9-8 * * *", "hour `9-8` ends before it begins"),
            ("*/0 * * * *", "step"),
            ("* * 31 2 *", "no month has such a day"),
            ("@fortnightly", "`@fortnightly` is none of"),
            ("* * * * funday", "weekday `funday`"),
        ] {
            let said = Schedule::parse(text).unwrap_err();
            assert!(said.contains(why), "{text}: {said}");
        }
    }

    #[test]
    fn a_schedule_is_kept_as_it_was_written() {
        let schedule = Schedule::parse(" @daily ").unwrap();
        assert_eq!(serde_json::to_string(&schedule).unwrap(), "\"@daily\"");
        assert_eq!(serde_json::from_str::<Schedule>("\"@daily\"").unwrap(), schedule);
        assert!(serde_json::from_str::<Schedule>("\"no\"").is_err());
    }
}
