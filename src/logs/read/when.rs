//! Points in time as people write them. Pure: the present is an argument.

use jiff::{Span, Timestamp, Zoned, civil};

/// What is understood, for messages.
pub const FORMS: &str = "such as 1h, 2d12h, today, yesterday, 10:42, 2026-11-21, \"2026-11-21 10:42:52\" \
                         or 2026-11-21T10:42:52Z";

/// Milliseconds since 1970 of a time in the past: how long ago (`1h`, `-1h`, `1h30m ago`), `now`, `today`,
/// `yesterday`, a local time of today, a local date with or without a time, or RFC 3339.
///
/// # Errors
/// A sentence without its subject, for people.
pub fn parse(text: &str, now: &Zoned) -> Result<u64, String> {
    let found = point(text.trim(), now).ok_or_else(|| format!("it must be a time {FORMS}"))?;
    u64::try_from(found.as_millisecond()).map_err(|_| "it is before 1970".into())
}

fn point(text: &str, now: &Zoned) -> Option<Timestamp> {
    let midnight = |day: Zoned| day.start_of_day().ok().map(|d| d.timestamp());
    match text {
        "now" => return Some(now.timestamp()),
        "today" => return midnight(now.clone()),
        "yesterday" => return midnight(now.yesterday().ok()?),
        _ => {}
    }
    if let Ok(exact) = text.parse::<Timestamp>() {
        return Some(exact);
    }
    let local = |time: civil::DateTime| time.to_zoned(now.time_zone().clone()).ok().map(|z| z.timestamp());
    if let Some(time) = ["%Y-%m-%dT%H:%M:%S%.f", "%Y-%m-%d %H:%M:%S%.f", "%Y-%m-%dT%H:%M", "%Y-%m-%d %H:%M"]
        .iter()
        .find_map(|form| civil::DateTime::strptime(form, text).ok())
    {
        return local(time);
    }
    if let Ok(date) = civil::Date::strptime("%Y-%m-%d", text) {
        // On a day without midnight it begins when it does.
        return midnight(date.to_zoned(now.time_zone().clone()).ok()?);
    }
    if let Some(time) =
        ["%H:%M:%S%.f", "%H:%M"].iter().find_map(|form| civil::Time::strptime(form, text).ok())
    {
        return local(now.date().to_datetime(time));
    }
    ago(text, now)
}

fn ago(text: &str, now: &Zoned) -> Option<Timestamp> {
    let text = text.strip_prefix('-').unwrap_or(text);
    // ISO durations (`P1D`) are nobody's habit here, and `P` and `p` would be.
    if !text.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    let span: Span = text.strip_suffix("ago").unwrap_or(text).trim_end().parse().ok()?;
    now.checked_sub(span).ok().map(|then| then.timestamp())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn now() -> Zoned {
        "2026-11-21T10:42:52.5+01:00[Europe/Berlin]".parse().unwrap()
    }

    #[test]
    fn times_are_what_people_mean() {
        for (text, wanted) in [
            ("now", "2026-11-21T09:42:52.5Z"),
            ("today", "2026-11-20T23:00:00Z"),
            ("yesterday", "2026-11-19T23:00:00Z"),
            ("1h", "2026-11-21T08:42:52.5Z"),
            ("-1h", "2026-11-21T08:42:52.5Z"),
            ("1h30m", "2026-11-21T08:12:52.5Z"),
            ("90s ago", "2026-11-21T09:41:22.5Z"),
            ("2 days", "2026-11-19T09:42:52.5Z"),
            ("10:00", "2026-11-21T09:00:00Z"),
            ("10:00:01.25", "2026-11-21T09:00:01.25Z"),
            ("2026-11-21", "2026-11-20T23:00:00Z"),
            ("2026-07-01", "2026-06-30T22:00:00Z"),
            ("2026-11-21 10:42", "2026-11-21T09:42:00Z"),
            ("2026-11-21T10:42:52", "2026-11-21T09:42:52Z"),
            ("2026-11-21T10:42:52.125Z", "2026-11-21T10:42:52.125Z"),
            ("2026-11-21T10:42:52-05:00", "2026-11-21T15:42:52Z"),
        ] {
            let wanted: Timestamp = wanted.parse().unwrap();
            assert_eq!(parse(text, &now()).map(|ms| ms as i64), Ok(wanted.as_millisecond()), "{text}");
        }
    }

    #[test]
    fn a_day_ago_is_a_day_on_the_wall_and_hours_are_hours() {
        let now: Zoned = "2026-03-29T12:00:00+02:00[Europe/Berlin]".parse().unwrap();
        let at = |text| Timestamp::from_millisecond(parse(text, &now).unwrap() as i64).unwrap().to_string();
        assert_eq!(at("1d"), "2026-03-28T11:00:00Z");
        assert_eq!(at("24h"), "2026-03-28T10:00:00Z");
        // 02:30 did not exist that day.
        assert_eq!(at("02:30"), "2026-03-29T01:30:00Z");
    }

    #[test]
    fn what_is_no_time_is_said_to_be_none() {
        for text in
            ["", "-", "soon", "5", "1x", "2026-13-01", "25:00", "P1D", "--1h", "tomorrow", "10:42 2026-11-21"]
        {
            let said = parse(text, &now()).unwrap_err();
            assert!(said.starts_with("it must be a time such as 1h"), "{text}: {said}");
        }
        assert_eq!(parse("1960-01-01", &now()).unwrap_err(), "it is before 1970");
    }

    proptest! {
        #[test]
        fn nothing_that_is_typed_panics(text in ".{0,24}", near in "[-0-9:T .dhmsago]{0,20}") {
            let _ = (parse(&text, &now()), parse(&near, &now()));
        }
    }
}
