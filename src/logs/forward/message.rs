//! A line as its receiver wants it. Pure: no clock, no socket.

use super::super::format::CONTINUES;
use crate::plan::{LogFormat, Receiver};
use jiff::{Timestamp, tz::TimeZone};
use serde::Deserialize;
use std::borrow::Cow;

/// `LOG_DAEMON`
const FACILITY: u8 = 3;
const WARNING: u8 = 4;
const INFO: u8 = 6;
/// Before the message of a timestamped line: the time, `2026-11-21T10:00:00.123456Z`, and a space.
const STAMP: usize = 28;
/// Bytes of one message to syslog: its receivers cut longer ones off.
const SYSLOG: usize = 8000;

/// What is sent at once: a line, or a part of a longer one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    /// Milliseconds since 1970.
    pub(super) time_ms: u64,
    pub(super) priority: u8,
    pub(super) text: Vec<u8>,
    /// The rest of the line follows.
    pub(super) continues: bool,
}

/// Whose it is.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sender<'a> {
    pub(super) service: &'a str,
    /// 0: stdout, 1: stderr.
    pub(super) which: usize,
}

#[derive(Deserialize)]
struct Object<'a> {
    #[serde(borrow)]
    message: Cow<'a, str>,
    #[serde(default)]
    continues: bool,
}

/// What the service wrote, from a line as it stands in the file; whether the rest follows on the next one.
/// What is no such line stays as it is.
pub(super) fn original(format: LogFormat, line: &[u8]) -> (Cow<'_, [u8]>, bool) {
    match format {
        LogFormat::Timestamp if line.len() >= STAMP && line[STAMP - 2..STAMP] == *b"Z " => {
            let message = &line[STAMP..];
            match message.strip_suffix(CONTINUES) {
                Some(part) => (part.into(), true),
                None => (message.into(), false),
            }
        }
        LogFormat::Json => match serde_json::from_slice::<Object<'_>>(line) {
            Ok(object) => (object.message.into_owned().into_bytes().into(), object.continues),
            Err(_) => (line.into(), false),
        },
        LogFormat::Raw | LogFormat::Timestamp => (line.into(), false),
    }
}

/// The messages of a line, or of a part of one. `first`: it is the beginning, where `<0>` to `<7>` may say how
/// important it is.
pub(super) fn split(
    receiver: Receiver,
    which: usize,
    time_ms: u64,
    (text, continues): (&[u8], bool),
    first: bool,
) -> Vec<Message> {
    let (priority, text) = match text {
        [b'<', digit @ b'0'..=b'7', b'>', rest @ ..] if first => (digit - b'0', rest),
        text => (if which == 0 { INFO } else { WARNING }, text),
    };
    let most = if receiver == Receiver::Syslog { SYSLOG } else { usize::MAX };
    let parts = text.len().div_ceil(most).max(1);
    let part = |n: usize| Message {
        time_ms,
        priority,
        text: text[n * most.min(text.len())..text.len().min((n + 1).saturating_mul(most))].to_vec(),
        continues: continues || n + 1 < parts,
    };
    (0..parts).map(part).collect()
}

/// One that tells of lines that were not sent.
pub(super) fn lost(time_ms: u64, lines: u64, bytes: u64) -> Message {
    let text = format!("keepd: {lines} lines ({bytes} bytes) were not forwarded here").into_bytes();
    Message { time_ms, priority: WARNING, text, continues: false }
}

/// The bytes that are sent.
pub(super) fn encode(receiver: Receiver, sender: Sender<'_>, message: &Message, zone: &TimeZone) -> Vec<u8> {
    let time = i64::try_from(message.time_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    let time = time.unwrap_or(Timestamp::UNIX_EPOCH);
    match receiver {
        Receiver::Journal => journal(sender, message, time),
        Receiver::Syslog => syslog(sender, message, &time.to_zoned(zone.clone())),
    }
}

/// <https://systemd.io/JOURNAL_NATIVE_PROTOCOL/>
fn journal(sender: Sender<'_>, message: &Message, time: Timestamp) -> Vec<u8> {
    let mut out = Vec::with_capacity(message.text.len() + 200);
    let mut field = |name: &str, value: &[u8]| {
        out.extend_from_slice(name.as_bytes());
        if value.contains(&b'\n') {
            out.push(b'\n');
            out.extend_from_slice(&(value.len() as u64).to_le_bytes());
        } else {
            out.push(b'=');
        }
        out.extend_from_slice(value);
        out.push(b'\n');
    };
    field("PRIORITY", &[b'0' + message.priority]);
    field("SYSLOG_FACILITY", &[b'0' + FACILITY]);
    field("SYSLOG_IDENTIFIER", sender.service.as_bytes());
    field("KEEPD_SERVICE", sender.service.as_bytes());
    field("KEEPD_STREAM", if sender.which == 0 { b"stdout" } else { b"stderr" });
    field("KEEPD_TIME", format!("{time:.3}").as_bytes());
    if message.continues {
        field("KEEPD_CONTINUES", b"1");
    }
    field("MESSAGE", &message.text);
    out
}

/// As syslog(3) writes it, which every receiver at `/dev/log` understands: rsyslog and journald take RFC 5424's
/// header there for part of the message.
fn syslog(sender: Sender<'_>, message: &Message, time: &jiff::Zoned) -> Vec<u8> {
    let priority = FACILITY * 8 + message.priority;
    let time = time.strftime("%b %e %H:%M:%S");
    let mut out = format!("<{priority}>{time} {}: ", sender.service).into_bytes();
    for byte in &message.text {
        match byte {
            // For many of them it ends the message.
            0 => out.extend_from_slice(b"#000"),
            byte => out.push(*byte),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: u64 = 1_795_255_200_123;
    const WEB: Sender<'_> = Sender { service: "web", which: 0 };

    fn only(receiver: Receiver, which: usize, text: &[u8]) -> Message {
        let [one] = <[Message; 1]>::try_from(split(receiver, which, TIME, (text, false), true)).unwrap();
        one
    }

    #[test]
    fn the_journal_gets_fields() {
        let message = only(Receiver::Journal, 1, b"hi \xff\0");
        let sender = Sender { which: 1, ..WEB };
        let bytes = encode(Receiver::Journal, sender, &message, &TimeZone::UTC);
        let head = "PRIORITY=4\nSYSLOG_FACILITY=3\nSYSLOG_IDENTIFIER=web\nKEEPD_SERVICE=web\n\
                    KEEPD_STREAM=stderr\nKEEPD_TIME=2026-11-21T10:00:00.123Z\nMESSAGE=hi ";
        assert_eq!(bytes, [head.as_bytes(), b"\xff\0\n"].concat());
        let message = Message { text: b"a\nb".to_vec(), continues: true, ..message };
        let bytes = encode(Receiver::Journal, WEB, &message, &TimeZone::UTC);
        assert!(bytes.ends_with(b"KEEPD_CONTINUES=1\nMESSAGE\n\x03\0\0\0\0\0\0\0a\nb\n"));
    }

    #[test]
    fn syslog_gets_what_every_receiver_understands() {
        let zone = TimeZone::get("Europe/Berlin").unwrap();
        let message = only(Receiver::Syslog, 0, b"<3>hi\0\xff");
        assert_eq!(encode(Receiver::Syslog, WEB, &message, &zone), b"<27>Nov 21 11:00:00 web: hi#000\xff");
        let early = Message { time_ms: 1_788_652_800_000, ..only(Receiver::Syslog, 1, b"") };
        assert_eq!(encode(Receiver::Syslog, WEB, &early, &TimeZone::UTC), b"<28>Sep  6 00:00:00 web: ");
    }

    #[test]
    fn a_line_may_say_how_important_it_is_at_its_beginning_only() {
        let of = |text: &[u8], first| split(Receiver::Journal, 0, TIME, (text, false), first).remove(0);
        for (text, first, priority, left) in [
            ("<2>bad", true, 2, "bad"),
            ("<2>bad", false, INFO, "<2>bad"),
            ("<8>no", true, INFO, "<8>no"),
            ("<html>", true, INFO, "<html>"),
            ("<7>", true, 7, ""),
        ] {
            let message = of(text.as_bytes(), first);
            assert_eq!((message.priority, message.text), (priority, left.as_bytes().to_vec()), "{text}");
        }
    }

    #[test]
    fn long_lines_come_to_syslog_in_parts() {
        let text = [b"<4>".to_vec(), (0..20_000).map(|n| b'a' + (n % 26) as u8).collect()].concat();
        let parts = split(Receiver::Syslog, 0, TIME, (&text, false), true);
        assert_eq!(parts.iter().map(|m| m.text.len()).collect::<Vec<_>>(), [8000, 8000, 4000]);
        assert_eq!(parts.iter().map(|m| m.continues).collect::<Vec<_>>(), [true, true, false]);
        assert!(parts.iter().all(|m| m.priority == 4));
        assert_eq!(parts.iter().flat_map(|m| m.text.clone()).collect::<Vec<_>>(), text[3..]);
        let whole = split(Receiver::Journal, 0, TIME, (&text, true), true);
        assert_eq!((whole.len(), whole[0].continues), (1, true));
    }

    #[test]
    fn what_the_file_adds_is_taken_off() {
        let plain = |format, line: &[u8]| {
            let (text, continues) = original(format, line);
            (String::from_utf8(text.into_owned()).unwrap(), continues)
        };
        let stamp = "2026-11-21T00:00:00.123456Z";
        let timed = |text: &str| plain(LogFormat::Timestamp, format!("{stamp} {text}").as_bytes());
        assert_eq!(timed("hello"), ("hello".into(), false));
        assert_eq!(timed(""), ("".into(), false));
        assert_eq!(timed("part [line continues]"), ("part".into(), true));
        assert_eq!(plain(LogFormat::Timestamp, b"from before"), ("from before".into(), false));
        let json = |text: &str| plain(LogFormat::Json, text.as_bytes());
        let object = r#"{"time":"x","stream":"stdout","message":"a \"b\"\u0000","continues":true}"#;
        assert_eq!(json(object), ("a \"b\"\0".into(), true));
        assert_eq!(json(r#"{"message":"é"}"#), ("é".into(), false));
        assert_eq!(json("no json"), ("no json".into(), false));
        assert_eq!(plain(LogFormat::Raw, b"raw"), ("raw".into(), false));
    }
}
