//! When a file is due for rotation by time. Pure: the time, the zone and when the file was begun are arguments.
//!
//! A rotation is wanted when the local clock first shows a time such as 00:00 or reaches a later one. What a
//! zone does to its clock changes nothing of that: where a time is skipped, the rotation comes with the end of
//! the gap; where it comes twice, the first one counts. Times that one gap swallows come to one rotation.

use crate::plan::Rotate;
use jiff::{
    SignedDuration, Span, Timestamp, ToSpan,
    civil::DateTime,
    tz::{AmbiguousOffset, TimeZone},
};

/// The first boundary after `after`; both in milliseconds since 1970. `None`: there is none.
pub fn next(rotate: Rotate, after_ms: u64, zone: &TimeZone) -> Option<u64> {
    let after = Timestamp::from_millisecond(i64::try_from(after_ms).ok()?).ok()?;
    let local = zone.to_datetime(after);
    // A zone may have turned its clock back by a whole day, or skip one.
    let (first, step): (DateTime, Span) = match rotate {
        Rotate::Off => return None,
        Rotate::Hourly => {
            let hour = local.with().minute(0).second(0).subsec_nanosecond(0).build().ok()?;
            (hour.checked_sub(25.hours()).ok()?, 1.hour())
        }
        Rotate::Daily { minute } => {
            let minute = i8::try_from(minute / 60).ok().zip(i8::try_from(minute % 60).ok())?;
            let day = local.date().at(minute.0, minute.1, 0, 0);
            (day.checked_sub(2.days()).ok()?, 1.day())
        }
    };
    let mut wanted = first;
    for _ in 0..60 {
        let at = reached(wanted, zone)?;
        if at > after {
            return u64::try_from(at.as_millisecond()).ok();
        }
        wanted = wanted.checked_add(step).ok()?;
    }
    None
}

/// When the local clock first shows `wanted` or a later time.
fn reached(wanted: DateTime, zone: &TimeZone) -> Option<Timestamp> {
    match zone.to_ambiguous_timestamp(wanted).offset() {
        AmbiguousOffset::Unambiguous { offset } => offset.to_timestamp(wanted).ok(),
        AmbiguousOffset::Fold { before, .. } => before.to_timestamp(wanted).ok(),
        AmbiguousOffset::Gap { before, .. } => {
            // The gap began before, or just when a clock that is not turned would show it.
            let unturned = before.to_timestamp(wanted).ok()?;
            let later = unturned.checked_add(SignedDuration::from_nanos(1)).ok()?;
            zone.preceding(later).next().map(|turn| turn.timestamp())
        }
    }
}

/// When a file is due that was begun, or last looked at, at `seen_ms`, now that the clock shows `now_ms`.
///
/// Where the clock was turned back over a boundary at which files were rotated, that boundary is not waited
/// for again; turned back further, it begins anew from where it is.
pub fn due(rotate: Rotate, seen_ms: u64, now_ms: u64, zone: &TimeZone) -> Option<u64> {
    if now_ms < seen_ms {
        let coming = next(rotate, now_ms, zone)?;
        if next(rotate, coming, zone)? <= seen_ms {
            return Some(coming);
        }
    }
    next(rotate, seen_ms, zone)
}
