//! The time that a line itself carries: as its first word, or as the field `time` that a JSON object begins with.

use jiff::Timestamp;

const JSON: &[u8] = b"{\"time\":\"";
/// `2026-11-21T10:42:52.123456789+00:00` and a little more.
const LONGEST: usize = 40;

/// Milliseconds since 1970; `None`: it carries none in RFC 3339.
pub(super) fn time(line: &[u8]) -> Option<u64> {
    let (text, end) = match line.strip_prefix(JSON) {
        Some(rest) => (rest, b'"'),
        None => (line, b' '),
    };
    // Cheap for the many lines that have none.
    if !text.first()?.is_ascii_digit() || *text.get(4)? != b'-' || !matches!(text.get(10)?, b'T' | b't') {
        return None;
    }
    let head = &text[..text.len().min(LONGEST)];
    let length = head.iter().position(|b| *b == end)?;
    let stamp: Timestamp = std::str::from_utf8(&head[..length]).ok()?.parse().ok()?;
    u64::try_from(stamp.as_millisecond()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_may_carry_their_time() {
        let t = Some(1_795_219_200_250);
        for line in [
            "2026-11-21T00:00:00.250Z hello",
            "2026-11-21T01:00:00.25+01:00 hello",
            "{\"time\":\"2026-11-21T00:00:00.250999Z\",\"message\":\"x\"}",
        ] {
            assert_eq!(time(line.as_bytes()), t, "{line}");
        }
        for line in [
            "",
            "hello",
            "2026-11-21",
            "2026-11-21T00:00:00.250Z",
            "2026-11-21T00:00:00 no offset",
            "2026-11-21T99:00:00Z x",
            "{\"time\":\"2026-11-21T00:00:00.250Z",
            "{\"time\":5}",
            " 2026-11-21T00:00:00Z x",
        ] {
            assert_eq!(time(line.as_bytes()), None, "{line}");
        }
        assert_eq!(time(b"2026-11-21T\xff\xff\xff x"), None);
    }
}
