//! How a line of a log looks: time, name, and what was printed, made harmless for a terminal.

use super::super::text::{Look, escape, escape_bytes};
use crate::wire;
use anstyle::{AnsiColor, Style};
use jiff::{Timestamp, tz::TimeZone};
use regex::bytes::Regex;
use std::{
    collections::BTreeMap,
    io::{self, Write},
};

/// Colours that can be told from each other and from what means trouble.
const COLOURS: [AnsiColor; 8] = [
    AnsiColor::Cyan,
    AnsiColor::Green,
    AnsiColor::Magenta,
    AnsiColor::Blue,
    AnsiColor::BrightCyan,
    AnsiColor::BrightGreen,
    AnsiColor::BrightMagenta,
    AnsiColor::BrightBlue,
];

/// Prints lines of one or several logs.
pub(super) struct Printer {
    /// What stands before the lines of each, as wide as the widest; nothing where there is one log only.
    names: BTreeMap<String, String>,
    /// stderr is marked.
    apart: bool,
    times: bool,
    zone: TimeZone,
    look: Look,
    grep: Option<Regex>,
}

impl Printer {
    /// For these services; `apart`: some of them have a stderr of their own.
    pub(super) fn new(
        names: impl Iterator<Item = String>,
        apart: bool,
        times: bool,
        look: Look,
        grep: Option<Regex>,
    ) -> Printer {
        let all: Vec<String> = names.collect();
        let width = all.iter().map(String::len).max().unwrap_or(0);
        let painted = |(i, name): (usize, &String)| {
            let style = COLOURS[i % COLOURS.len()].on_default();
            (name.clone(), look.paint(style, &format!("{name:width$}")) + " ")
        };
        let names =
            if all.len() > 1 { all.iter().enumerate().map(painted).collect() } else { BTreeMap::new() };
        Printer { names, apart, times, zone: TimeZone::system(), look, grep }
    }

    pub(super) fn line(&self, out: &mut impl Write, line: &wire::LogLine) -> io::Result<()> {
        if self.times {
            let time = self.local(&line.time);
            write!(out, "{} ", self.look.paint(Style::new().dimmed(), &time))?;
        }
        let name = match line.instance {
            Some(n) => self.names.get(&format!("{}@{n}", line.service)),
            None => self.names.get(&line.service),
        };
        out.write_all(name.map_or("", |n| n).as_bytes())?;
        if !self.names.is_empty() || self.apart {
            let (mark, style) = match &*line.stream {
                "stderr" => ("! ", AnsiColor::Red.on_default().bold()),
                _ => ("| ", Style::new().dimmed()),
            };
            out.write_all(self.look.paint(style, mark).as_bytes())?;
        }
        let text = line.message.as_ref();
        if line.stream == "keepd" {
            let style = AnsiColor::Yellow.on_default();
            out.write_all(self.look.paint(style, &harmless(text)).as_bytes())?;
        } else if self.look.terminal {
            self.text(out, text.strip_suffix(b"\r").unwrap_or(text))?;
        } else {
            out.write_all(text)?;
        }
        out.write_all(b"\n")
    }

    /// For a terminal, with what was searched for in colour.
    fn text(&self, out: &mut impl Write, text: &[u8]) -> io::Result<()> {
        let mut done = 0;
        let hits = self.grep.iter().filter(|_| self.look.colour).flat_map(|grep| grep.find_iter(text));
        for hit in hits.filter(|hit| !hit.is_empty()) {
            out.write_all(harmless(&text[done..hit.start()]).as_bytes())?;
            let style = AnsiColor::Red.on_default().bold();
            out.write_all(self.look.paint(style, &harmless(hit.as_bytes())).as_bytes())?;
            done = hit.end();
        }
        out.write_all(harmless(&text[done..]).as_bytes())
    }

    /// `2026-11-21 10:42:52.183`, as the clock on the wall showed it.
    fn local(&self, time: &str) -> String {
        let parsed: Option<Timestamp> = time.parse().ok();
        parsed.map_or_else(
            || harmless(time.as_bytes()),
            |t| t.to_zoned(self.zone.clone()).strftime("%Y-%m-%d %H:%M:%S%.3f").to_string(),
        )
    }
}

fn harmless(text: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    let taken = escape(&mut out, text);
    escape_bytes(&mut out, &text[taken..]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logs::read::pattern;

    const COLOUR: Look = Look { terminal: true, colour: true };
    const TERMINAL: Look = Look { terminal: true, colour: false };

    fn line(service: &str, stream: &'static str, message: &[u8]) -> wire::LogLine {
        wire::LogLine {
            time: "2026-11-21T10:42:52.183Z".into(),
            service: service.into(),
            instance: service.starts_with("web").then_some(0),
            stream: stream.into(),
            message: message.to_vec().into(),
            partial: false,
        }
    }

    fn shown(printer: &Printer, lines: &[wire::LogLine]) -> Vec<u8> {
        let mut out = Vec::new();
        lines.iter().for_each(|l| printer.line(&mut out, l).unwrap());
        out
    }

    fn several(apart: bool, times: bool, look: Look, grep: Option<&str>) -> Printer {
        let grep = grep.map(|g| pattern(g).unwrap());
        let names = ["a", "web@0"].map(str::to_owned).into_iter();
        Printer { zone: TimeZone::UTC, ..Printer::new(names, apart, times, look, grep) }
    }

    #[test]
    fn names_are_aligned_and_bytes_stay_as_they_are_in_a_pipe() {
        let raw = b"\x1b[2J\xff\xe2\x82\0\r";
        let printer = several(true, false, Look::default(), None);
        let out = shown(&printer, &[line("a", "stdout", raw), line("web", "stderr", b"x")]);
        assert_eq!(out, [&b"a     | "[..], raw, b"\nweb@0 ! x\n"].concat());
    }

    #[test]
    fn a_terminal_is_not_given_what_would_command_it() {
        let out =
            shown(&several(false, false, TERMINAL, None), &[line("a", "stdout", b"\x1b[2J\xff\xe2\x82\0\r")]);
        assert_eq!(String::from_utf8(out).unwrap(), "a     | \\x1b[2J\\xff\\xe2\\x82\\x00\n");
    }

    #[test]
    fn one_log_has_no_names_and_times_are_local() {
        let mut printer = Printer::new(std::iter::once("web@0".into()), false, true, TERMINAL, None);
        printer.zone = TimeZone::fixed(jiff::tz::offset(2));
        let out = shown(&printer, &[line("web", "stdout", b"x")]);
        assert_eq!(String::from_utf8(out).unwrap(), "2026-11-21 12:42:52.183 x\n");
        printer.apart = true;
        let out = shown(&printer, &[line("web", "stderr", b"x")]);
        assert_eq!(String::from_utf8(out).unwrap(), "2026-11-21 12:42:52.183 ! x\n");
    }

    #[test]
    fn what_was_searched_for_stands_out() {
        let printer = several(false, false, COLOUR, Some("b+|\x1b"));
        let out = String::from_utf8(shown(&printer, &[line("a", "stdout", b"abbc\x1b\xff")])).unwrap();
        let red = |t: &str| format!("\x1b[1m\x1b[31m{t}\x1b[0m");
        assert!(out.ends_with(&format!("a{}c{}\\xff\n", red("bb"), red("\\x1b"))), "{out:?}");
    }
}
