//! Lines as they stand in the file where they are not kept as they came. Pure: no clock, no pipe.

use super::scratch::LOOK;
use crate::plan::{LogFormat, LogSpec};
use jiff::Timestamp;
use std::io::{BufRead, Write};

/// Stands at the end of a timestamped line whose rest follows on the next one.
pub(super) const CONTINUES: &[u8] = b" [line continues]";

/// How one stream's lines are written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Form<'a> {
    pub(super) format: LogFormat,
    /// `stdout` or `stderr`.
    pub(super) stream: &'a str,
    /// Longer lines are split; at least 1.
    pub(super) max_line: usize,
}

impl Form<'_> {
    /// That of a service's stdout (0) or stderr (1).
    pub(super) fn of(spec: &LogSpec, which: usize) -> Form<'static> {
        let stream = if which == 0 { "stdout" } else { "stderr" };
        let max_line = usize::try_from(spec.max_line).unwrap_or(LOOK).clamp(1, LOOK - 1);
        Form { format: spec.format, stream, max_line }
    }

    /// Writes the lines in `seen` to `out` until that has at least `enough` bytes, and returns how many bytes
    /// of `seen` are done. `whole`: nothing follows, so a line without its end is ended here; else it is left
    /// for the next call, unless it is too long.
    pub(super) fn write(
        &self,
        seen: &[u8],
        whole: bool,
        time_us: u64,
        enough: u64,
        out: &mut Vec<u8>,
    ) -> usize {
        let stamp = stamp(time_us);
        let mut done = 0;
        while done < seen.len() && (out.len() as u64) < enough {
            let rest = &seen[done..];
            match line_end(&rest[..rest.len().min(self.max_line + 1)]) {
                Some(at) => {
                    self.line(&rest[..at], false, &stamp, out);
                    done += at + 1;
                }
                None if rest.len() > self.max_line || whole && rest.len() == self.max_line => {
                    self.line(&rest[..self.max_line], true, &stamp, out);
                    done += self.max_line;
                }
                None if whole => {
                    self.line(rest, false, &stamp, out);
                    done = seen.len();
                }
                None => break,
            }
        }
        done
    }

    /// Writes `seen` as the beginning of a line.
    pub(super) fn piece(&self, seen: &[u8], time_us: u64, out: &mut Vec<u8>) -> usize {
        self.line(seen, true, &stamp(time_us), out);
        seen.len()
    }

    fn line(&self, message: &[u8], continues: bool, stamp: &str, out: &mut Vec<u8>) {
        if self.format == LogFormat::Json {
            out.extend(format!("{{\"time\":\"{stamp}\",\"stream\":\"{}\",\"message\":", self.stream).bytes());
            // Neither a Vec nor a string can fail.
            let _ = serde_json::to_writer(&mut *out, &*String::from_utf8_lossy(message));
            out.extend(if continues { &b",\"continues\":true}\n"[..] } else { b"}\n" });
        } else {
            out.extend_from_slice(stamp.as_bytes());
            out.push(b' ');
            out.extend_from_slice(message);
            if continues {
                out.extend_from_slice(CONTINUES);
            }
            out.push(b'\n');
        }
    }
}

/// Where the first line ends.
fn line_end(text: &[u8]) -> Option<usize> {
    // Many times as fast as a search byte by byte. Reading from a slice cannot fail.
    let passed = (&mut &*text).skip_until(b'\n').unwrap_or(0);
    passed.checked_sub(1).filter(|at| text[*at] == b'\n')
}

/// RFC 3339, UTC, microseconds.
pub(super) fn stamp(us: u64) -> String {
    let time = i64::try_from(us).ok().and_then(|us| Timestamp::from_microsecond(us).ok());
    format!("{:.6}", time.unwrap_or(Timestamp::UNIX_EPOCH))
}

/// The line that tells of drops.
pub(super) fn marker(form: &Form<'_>, lines: u64, bytes: u64, time_us: u64) -> Vec<u8> {
    let text = format!("keepd: dropped {lines} lines ({bytes} bytes) here");
    let mut out = Vec::new();
    if form.format == LogFormat::Raw {
        // Neither a Vec nor a string can fail.
        let _ = writeln!(out, "{text}");
    } else {
        form.line(text.as_bytes(), false, &stamp(time_us), &mut out);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TIME: u64 = 1_795_219_200_123_456;

    fn all(format: LogFormat, max_line: usize, text: &[u8]) -> String {
        let mut out = Vec::new();
        let form = Form { format, stream: "stdout", max_line };
        assert_eq!(form.write(text, true, TIME, u64::MAX, &mut out), text.len());
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_gets_its_time() {
        let written = all(LogFormat::Timestamp, 100, b"one\n\nthree");
        let stamp = "2026-11-21T00:00:00.123456Z";
        assert_eq!(written, format!("{stamp} one\n{stamp} \n{stamp} three\n"));
    }

    #[test]
    fn json_says_what_text_cannot() {
        let written = all(LogFormat::Json, 100, b"a \"quote\"\\\0\x1b[1m\xff\xc3\xa9\n");
        let value: serde_json::Value = serde_json::from_str(&written).unwrap();
        assert_eq!(value["message"], "a \"quote\"\\\0\u{1b}[1m\u{fffd}\u{e9}");
        assert_eq!(
            (&value["time"], &value["stream"]),
            (&"2026-11-21T00:00:00.123456Z".into(), &"stdout".into())
        );
        assert!(written.is_ascii() || written.contains('\u{e9}'));
        assert_eq!(written.matches('\n').count(), 1);
    }

    #[test]
    fn long_lines_are_split_and_say_so() {
        let split = all(LogFormat::Timestamp, 4, b"12345678\n1234\n12345\n");
        let bodies: Vec<&str> = split.lines().map(|l| l.split_once(' ').unwrap().1).collect();
        assert_eq!(bodies, ["1234 [line continues]", "5678", "1234", "1234 [line continues]", "5"]);
        let split = all(LogFormat::Json, 4, b"123456\n");
        let values: Vec<serde_json::Value> =
            split.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!((&values[0]["message"], &values[0]["continues"]), (&"1234".into(), &true.into()));
        assert_eq!((&values[1]["message"], values[1].get("continues")), (&"56".into(), None));
    }

    #[test]
    fn drops_are_told_in_the_form_of_the_file() {
        let form = |format| Form { format, stream: "stderr", max_line: 9 };
        let text = "keepd: dropped 2 lines (30 bytes) here";
        assert_eq!(marker(&form(LogFormat::Raw), 2, 30, TIME), format!("{text}\n").into_bytes());
        assert!(marker(&form(LogFormat::Timestamp), 2, 30, TIME).ends_with(format!("Z {text}\n").as_bytes()));
        let value: serde_json::Value =
            serde_json::from_slice(&marker(&form(LogFormat::Json), 2, 30, TIME)).unwrap();
        assert_eq!(value["message"], text);
    }

    proptest! {
        /// However the bytes are cut into looks, every byte comes out once, in order.
        #[test]
        fn what_goes_in_comes_out(
            text in prop::collection::vec(prop_oneof![4 => Just(b'x'), 1 => Just(b'\n'), 1 => any::<u8>()], 0..300),
            max_line in 1..40usize,
            look in 41..90usize,
            enough in 1..200u64,
        ) {
            let form = Form { format: LogFormat::Timestamp, stream: "stdout", max_line };
            let (mut out, mut at) = (Vec::new(), 0);
            while at < text.len() {
                let seen = &text[at..text.len().min(at + look)];
                let mut piece = Vec::new();
                let used = form.write(seen, at + seen.len() == text.len(), TIME, enough, &mut piece);
                prop_assert!(used > 0);
                prop_assert!(piece.ends_with(b"\n"));
                out.extend(piece);
                at += used;
            }
            let mut back = Vec::new();
            let head = stamp(TIME).len() + 1;
            for line in out.split_inclusive(|b| *b == b'\n') {
                let body = &line[head..line.len() - 1];
                match body.strip_suffix(CONTINUES) {
                    Some(part) => back.extend_from_slice(part),
                    None => { back.extend_from_slice(body); back.push(b'\n'); }
                }
            }
            // The last line is ended where it was not, unless a split came right there.
            if back.last() == Some(&b'\n') && text.last() != Some(&b'\n') { back.pop(); }
            prop_assert_eq!(back, text);
        }
    }
}
