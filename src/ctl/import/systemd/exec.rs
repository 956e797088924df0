//! Command lines of units: systemd's words, prefixes and variables, and what they come to without systemd. keepd runs a
//! program as it is and puts no variables in, so that lines with variables, and several lines, go through a shell.

use super::super::text::{literal, literals, shell_word};

/// One line, in words.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) words: Vec<Word>,
    /// `-`: whether it fails does not matter.
    pub(super) ignore: bool,
    /// Prefixes that have no counterpart: `+`, `!`, `|`.
    pub(super) odd: String,
}

/// A word in pieces: text, and variables that the value is put in for.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub(super) struct Word(pub(super) Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Piece {
    Text(String),
    /// `${X}`, and `$X` as a part of a word: its value as it is.
    Value(String),
    /// `$X` as a whole word: its value in words.
    Words(String),
}

impl Line {
    /// Reads a line whose specifiers are put in already. The error is a clause.
    pub(super) fn parse(text: &str) -> Result<Line, String> {
        let mut line = Line::default();
        let (mut variables, mut named) = (true, false);
        let mut rest = text.trim();
        while let Some(c) = rest.chars().next().filter(|c| "-@:+!|".contains(*c)) {
            match c {
                '-' => line.ignore = true,
                '@' => named = true,
                ':' => variables = false,
                c => line.odd.push(c),
            }
            rest = &rest[c.len_utf8()..];
        }
        for (word, bare) in split(rest)? {
            line.words.push(if variables { Word::of(&word, bare) } else { Word(vec![Piece::Text(word)]) });
        }
        if line.words.iter().any(|w| w.0 == [Piece::Text(";".into())]) {
            return Err("it is several commands with ; between them".into());
        }
        if named && line.words.len() > 1 {
            line.words.remove(1);
        }
        if line.words.is_empty() { Err("it is empty".into()) } else { Ok(line) }
    }

    /// The words, where no variable is among them.
    pub(super) fn plain(&self) -> Option<Vec<String>> {
        self.words.iter().map(Word::plain).collect()
    }

    /// A signal that the line sends to the main process, as `kill -HUP $MAINPID`.
    pub(super) fn signal(&self) -> Option<String> {
        let [program, middle @ .., last] = self.words.as_slice() else { return None };
        let main = matches!(last.0.as_slice(), [Piece::Words(v) | Piece::Value(v)] if v == "MAINPID");
        if !main || program.plain()?.rsplit('/').next() != Some("kill") {
            return None;
        }
        let words: Vec<String> = middle.iter().map(Word::plain).collect::<Option<_>>()?;
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let signal = match words.as_slice() {
            [] => "TERM",
            ["-s", signal] | ["--signal", signal] => signal,
            [option] => option.strip_prefix("-s").or(option.strip_prefix('-'))?,
            _ => return None,
        };
        crate::plan::signal::parse_signal(signal).ok().map(crate::plan::signal::signal_name)
    }

    fn shell(&self) -> String {
        self.words.iter().map(Word::shell).collect::<Vec<_>>().join(" ")
    }
}

impl Word {
    fn of(text: &str, bare: bool) -> Word {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find('$') {
            plain.push_str(&rest[..at]);
            rest = &rest[at + 1..];
            if let Some(after) = rest.strip_prefix('$') {
                plain.push('$');
                rest = after;
                continue;
            }
            let name_end =
                |t: &str| t.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(t.len());
            let (name, after) = match rest.strip_prefix('{').and_then(|r| r.split_once('}')) {
                Some((name, after)) if name_end(name) == name.len() => (name, after),
                _ => rest.split_at(name_end(rest)),
            };
            if name.is_empty() {
                plain.push('$');
                continue;
            }
            let whole = bare && text.len() == name.len() + 1;
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(if whole { Piece::Words(name.into()) } else { Piece::Value(name.into()) });
            rest = after;
        }
        plain.push_str(rest);
        if !plain.is_empty() || pieces.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Word(pieces)
    }

    fn plain(&self) -> Option<String> {
        match self.0.as_slice() {
            [Piece::Text(text)] => Some(text.clone()),
            _ => None,
        }
    }

    fn shell(&self) -> String {
        let piece = |p: &Piece| match p {
            Piece::Text(text) => shell_word(text),
            Piece::Value(name) => format!("\"${{{name}}}\""),
            Piece::Words(name) => format!("${name}"),
        };
        self.0.iter().map(piece).collect()
    }
}

/// What runs `before` and then becomes `main`: the program itself where that is all, else a shell. Words of keepd's.
pub(super) fn command(before: &[Line], main: &Line) -> Vec<String> {
    match main.plain() {
        Some(words) if before.is_empty() => literals(&words),
        _ => {
            let mut script = String::new();
            for line in before {
                script.push_str(&line.shell());
                script.push_str(if line.ignore { " || true; " } else { " || exit; " });
            }
            script.push_str("exec ");
            script.push_str(&main.shell());
            shell(&script, before.iter().chain([main]))
        }
    }
}

/// What runs all lines, one after the other, as long as they succeed. Words of keepd's.
pub(super) fn sequence(lines: &[Line]) -> Vec<String> {
    if let [line] = lines
        && let Some(words) = line.plain()
        && !line.ignore
    {
        return literals(&words);
    }
    let one = |l: &Line| if l.ignore { format!("{{ {} || true; }}", l.shell()) } else { l.shell() };
    shell(&lines.iter().map(one).collect::<Vec<_>>().join(" && "), lines.iter())
}

fn shell<'a>(script: &str, mut lines: impl Iterator<Item = &'a Line>) -> Vec<String> {
    let words = |l: &Line| l.words.iter().flat_map(|w| &w.0).any(|p| matches!(p, Piece::Words(_)));
    // systemd splits a value into words and leaves `*` in it alone.
    let set = if lines.any(words) { "set -f; " } else { "" };
    vec!["/bin/sh".into(), "-c".into(), literal(&format!("{set}{script}"))]
}

/// Words as systemd splits them, each with whether nothing of it was quoted.
pub(super) fn split(text: &str) -> Result<Vec<(String, bool)>, String> {
    let mut out = Vec::new();
    let mut word: Option<(String, bool)> = None;
    let mut quote: Option<char> = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (Some(q), c) if c == q => quote = None,
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default().1 = false;
            }
            (None, c) if c.is_whitespace() => out.extend(word.take()),
            (_, '\\') => escaped(&mut chars, &mut word.get_or_insert((String::new(), true)).0)?,
            (_, c) => word.get_or_insert((String::new(), true)).0.push(c),
        }
    }
    if quote.is_some() {
        return Err("a quote in it is never closed".into());
    }
    out.extend(word);
    Ok(out)
}

fn escaped(chars: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), String> {
    let Some(c) = chars.next() else { return Err("it ends with a backslash".into()) };
    let code = match c {
        'x' => 2,
        'u' => 4,
        _ => 0,
    };
    if code > 0 {
        let digits: String = chars.by_ref().take(code).collect();
        let char = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32).filter(|c| *c != '\0');
        word.push(char.ok_or_else(|| format!("\\{c}{digits} is no character"))?);
        return Ok(());
    }
    match c {
        'a' => word.push('\u{7}'),
        'b' => word.push('\u{8}'),
        'f' => word.push('\u{c}'),
        'n' => word.push('\n'),
        'r' => word.push('\r'),
        't' => word.push('\t'),
        'v' => word.push('\u{b}'),
        's' => word.push(' '),
        '\\' | '"' | '\'' => word.push(c),
        // What is no escape stays as it is.
        c => word.extend(['\\', c]),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(text: &str) -> Line {
        Line::parse(text).unwrap()
    }

    #[test]
    fn a_line_without_variables_is_run_as_it_is() {
        let words = |text| command(&[], &line(text));
        assert_eq!(
            words("/bin/a -g 'daemon off;' \"x y\" a\\x20b"),
            ["/bin/a", "-g", "daemon off;", "x y", "a b"]
        );
        assert_eq!(words("@/bin/a argv0 -x"), ["/bin/a", "-x"]);
        assert_eq!(words("-:/bin/a ${X}"), ["/bin/a", "$${X}"]);
        assert_eq!(words("/bin/a $$X"), ["/bin/a", "$X"]);
        assert_eq!((line("-/bin/a").ignore, line("+!/bin/a").odd.as_str()), (true, "+!"));
        for bad in ["", "'", "/bin/a ; /bin/b", "/bin/a \\"] {
            assert!(Line::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn variables_are_left_to_a_shell() {
        let script = |text| command(&[], &line(text))[2].clone();
        assert_eq!(script("/bin/a $OPTIONS"), "set -f; exec /bin/a $OPTIONS");
        assert_eq!(
            script("/bin/a --x=${Y}z '$Q' \"it's\""),
            "exec /bin/a --x=\"$${Y}\"z \"$${Q}\" 'it'\\''s'"
        );
    }

    #[test]
    fn what_runs_before_may_stop_it() {
        let before = [line("/bin/test -q"), line("-/bin/mkdir x")];
        let words = command(&before, &line("/bin/a"));
        assert_eq!(words[2], "/bin/test -q || exit; /bin/mkdir x || true; exec /bin/a");
        assert_eq!(sequence(&[line("/bin/a -t")]), ["/bin/a", "-t"]);
        assert_eq!(
            sequence(&[line("/bin/a -t"), line("-/bin/kill $MAINPID")])[2],
            "set -f; /bin/a -t && { /bin/kill $MAINPID || true; }"
        );
    }

    #[test]
    fn a_signal_to_the_main_process_is_seen() {
        for (text, signal) in [
            ("/bin/kill -HUP $MAINPID", Some("SIGHUP")),
            ("kill -s SIGQUIT ${MAINPID}", Some("SIGQUIT")),
            ("/bin/kill -1 $MAINPID", Some("SIGHUP")),
            ("/bin/kill $MAINPID", Some("SIGTERM")),
            ("/bin/kill -HUP $OTHER", None),
            ("/bin/a -HUP $MAINPID", None),
        ] {
            assert_eq!(line(text).signal().as_deref(), signal, "{text}");
        }
    }
}
