//! Words, numbers and colours as people see them, and what must not reach their terminal.

use anstyle::{AnsiColor, Style};
use std::{borrow::Cow, fmt::Write as _, io::IsTerminal};

/// What stdout can show.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Look {
    /// It is a terminal: what services have printed is made harmless.
    pub(super) terminal: bool,
    pub(super) colour: bool,
}

impl Look {
    pub(super) fn of_stdout() -> Look {
        let set = |name: &str| std::env::var_os(name).is_some_and(|v| !v.is_empty());
        let terminal = std::io::stdout().is_terminal();
        let dumb = std::env::var_os("TERM").is_none_or(|t| t == "dumb");
        Look { terminal, colour: terminal && !dumb && !set("NO_COLOR") }
    }

    /// `text` in this style, where there are colours.
    pub(super) fn paint(self, style: Style, text: &str) -> String {
        if self.colour { format!("{style}{text}{style:#}") } else { text.to_string() }
    }
}

/// The colour of a state.
pub(super) fn style_of(state: &str, ready: bool) -> Style {
    match state {
        "running" if ready => AnsiColor::Green.on_default(),
        "failed" | "stuck" => AnsiColor::Red.on_default().bold(),
        "stopped" | "exited" => Style::new().dimmed(),
        _ => AnsiColor::Yellow.on_default(),
    }
}

/// The two largest units that say something: `3d 4h`, `12m`, `5s`, `0s`.
pub(super) fn duration(ms: u64) -> String {
    let s = ms / 1000;
    let units = [(s / 86_400, "d"), (s / 3600 % 24, "h"), (s / 60 % 60, "m"), (s % 60, "s")];
    let Some(first) = units.iter().position(|(n, _)| *n > 0) else { return "0s".into() };
    let (n, unit) = units[first];
    match units.get(first + 1) {
        // Ten minutes and more are not counted in seconds.
        Some((more, small)) if *more > 0 && (*small != "s" || n < 10) => format!("{n}{unit} {more}{small}"),
        _ => format!("{n}{unit}"),
    }
}

/// `512 B`, `1.5 MiB`.
pub(super) fn bytes(n: u64) -> String {
    let mut value = n as f64;
    let mut unit = "B";
    for larger in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1024.0 {
            break;
        }
        value /= 1024.0;
        unit = larger;
    }
    if unit == "B" { format!("{n} B") } else { format!("{value:.1} {unit}") }
}

/// One line of text from elsewhere, with every control character escaped.
pub(super) fn clean(text: &str) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    text.chars().for_each(|c| push_escaped(&mut out, c));
    Cow::Owned(out)
}

/// Appends what a service has printed, harmless: lines and tabs stay, other control characters and what is no
/// UTF-8 are escaped. Returns how many bytes it took; what is left is the beginning of a character.
pub(super) fn escape(out: &mut String, raw: &[u8]) -> usize {
    let mut rest = raw;
    loop {
        let (text, wrong) = match std::str::from_utf8(rest) {
            Ok(text) => (text, None),
            Err(e) => {
                let (good, bad) = rest.split_at(e.valid_up_to());
                (std::str::from_utf8(good).unwrap_or_default(), Some((bad, e.error_len())))
            }
        };
        for c in text.chars() {
            if matches!(c, '\n' | '\t') { out.push(c) } else { push_escaped(out, c) }
        }
        match wrong {
            None => return raw.len(),
            Some((bad, None)) => return raw.len() - bad.len(),
            Some((bad, Some(len))) => {
                escape_bytes(out, &bad[..len]);
                rest = &bad[len..];
            }
        }
    }
}

/// Appends bytes that are no text.
pub(super) fn escape_bytes(out: &mut String, raw: &[u8]) {
    for b in raw {
        let _ = write!(out, "\\x{b:02x}");
    }
}

fn push_escaped(out: &mut String, c: char) {
    match c {
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        c if c.is_ascii_control() => escape_bytes(out, &[c as u8]),
        c if c.is_control() => {
            let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
        }
        c => out.push(c),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        for (ms, text) in [
            (0, "0s"),
            (999, "0s"),
            (5_000, "5s"),
            (65_000, "1m 5s"),
            (60_000, "1m"),
            (720_000, "12m"),
            (725_000, "12m"),
            (3_600_000, "1h"),
            (5_400_000, "1h 30m"),
            (3_605_000, "1h"),
            (273_600_000, "3d 4h"),
            (86_400_000, "1d"),
            (u64::MAX, "213503982334d 14h"),
        ] {
            assert_eq!(duration(ms), text, "{ms}");
        }
    }

    #[test]
    fn sizes_are_short() {
        for (n, text) in
            [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (50 << 20, "50.0 MiB"), (3 << 40, "3.0 TiB")]
        {
            assert_eq!(bytes(n), text);
        }
    }

    #[test]
    fn nothing_of_a_service_reaches_the_terminal_as_a_command() {
        let mut out = String::new();
        let raw = "a\x1b[2J\r\n\tb\u{9b}31m\x7f\u{e9}\0".as_bytes();
        assert_eq!(escape(&mut out, raw), raw.len());
        assert_eq!(out, "a\\x1b[2J\\r\n\tb\\u{9b}31m\\x7f\u{e9}\\x00");
        assert_eq!(clean("x\ny\x1b"), "x\\ny\\x1b");
        assert!(matches!(clean("plain \u{e9}"), Cow::Borrowed(_)));
    }

    #[test]
    fn a_character_in_two_chunks_is_one() {
        let mut out = String::new();
        let raw = b"\xff\xc3\xa9x\xe2\x82";
        assert_eq!(escape(&mut out, raw), raw.len() - 2);
        assert_eq!(out, "\\xff\u{e9}x");
        assert_eq!(escape(&mut out, b"\xe2\x82\xac"), 3);
        assert!(out.ends_with('\u{20ac}'));
    }

    #[test]
    fn colours_only_where_they_are_wanted() {
        let style = style_of("failed", false);
        assert_eq!(Look::default().paint(style, "failed"), "failed");
        assert_eq!(Look { terminal: true, colour: true }.paint(style, "x"), "\x1b[1m\x1b[31mx\x1b[0m");
    }
}
