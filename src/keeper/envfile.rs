//! Environment files: `NAME=value` lines as systemd's `EnvironmentFile=` reads them, and `export NAME=value`.
//!
//! - Empty lines and lines that begin with `#` or `;` are comments.
//! - A value loses its outer white space. `'…'` is literal and may span lines; in `"…"` a backslash escapes
//!   `"`, `\`, `` ` `` and `$`; outside of quotes it escapes any character. A backslash at the end of a line
//!   continues it. Quoted and unquoted parts follow each other as in a shell.
//! - Nothing is expanded: `$HOME` is five characters.
//!
//! Unlike systemd, what is not understood is an error, not skipped: a service does not start without the
//! setting that its operator believes it has. No file is opened here.

#![forbid(unsafe_code)]

use std::{iter::Peekable, str::Chars};

/// The assignments in order; the error is a clause for people ("line 3 has no `=`").
pub(super) fn parse(text: &str) -> Result<Vec<(String, String)>, String> {
    if text.contains('\0') {
        return Err("it contains a NUL character".into());
    }
    let mut at = Cursor { chars: text.strip_prefix('\u{feff}').unwrap_or(text).chars().peekable(), line: 1 };
    let mut out = Vec::new();
    loop {
        match at.peek() {
            None => return Ok(out),
            Some(c) if c.is_whitespace() => drop(at.next()),
            Some('#' | ';') => at.skip_line(),
            Some(_) => out.push(assignment(&mut at)?),
        }
    }
}

struct Cursor<'a> {
    chars: Peekable<Chars<'a>>,
    line: usize,
}

impl Cursor<'_> {
    fn peek(&mut self) -> Option<char> {
        self.chars.peek().copied()
    }

    fn next(&mut self) -> Option<char> {
        let c = self.chars.next();
        self.line += usize::from(c == Some('\n'));
        c
    }

    fn skip_line(&mut self) {
        while self.next().is_some_and(|c| c != '\n') {}
    }
}

fn assignment(at: &mut Cursor<'_>) -> Result<(String, String), String> {
    let line = at.line;
    let mut name = String::new();
    loop {
        match at.peek() {
            None | Some('\n') => return Err(format!("line {line} has no `=`")),
            Some('=') => break,
            Some(c) => name.push(c),
        }
        at.next();
    }
    at.next();
    let name = match name.trim_end().strip_prefix("export") {
        Some(rest) if rest.starts_with([' ', '\t']) => rest.trim(),
        _ => name.trim(),
    };
    let good = |i: usize, c: char| c == '_' || c.is_ascii_alphabetic() || i > 0 && c.is_ascii_digit();
    if name.is_empty() || !name.chars().enumerate().all(|(i, c)| good(i, c)) {
        // The name only: what follows may be a secret.
        return Err(format!("line {line}: `{name}` is no name of a variable"));
    }
    Ok((name.to_owned(), value(at)?))
}

/// The rest of the line, and of those that it continues on.
fn value(at: &mut Cursor<'_>) -> Result<String, String> {
    let mut out = String::new();
    // How much of `out` is kept whatever follows: trailing white space only goes where it was not quoted.
    let mut kept = 0;
    while at.peek().is_some_and(|c| c == ' ' || c == '\t') {
        at.next();
    }
    loop {
        match at.next() {
            None | Some('\n') => break,
            Some('\'') => {
                quoted(at, '\'', &mut out)?;
                kept = out.len();
            }
            Some('"') => {
                quoted(at, '"', &mut out)?;
                kept = out.len();
            }
            Some('\\') => match at.next() {
                None | Some('\n') => {}
                Some(c) => {
                    out.push(c);
                    kept = out.len();
                }
            },
            Some(c) => {
                out.push(c);
                if !c.is_whitespace() {
                    kept = out.len();
                }
            }
        }
    }
    out.truncate(kept);
    Ok(out)
}

fn quoted(at: &mut Cursor<'_>, quote: char, out: &mut String) -> Result<(), String> {
    let line = at.line;
    loop {
        match at.next() {
            None => return Err(format!("the quote that opens in line {line} is not closed")),
            Some(c) if c == quote => return Ok(()),
            Some('\\') if quote == '"' => match at.next() {
                Some('\n') | None => {}
                Some(c @ ('"' | '\\' | '`' | '$')) => out.push(c),
                Some(c) => out.extend(['\\', c]),
            },
            Some(c) => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> String {
        let mut all = parse(text).unwrap();
        assert_eq!(all.len(), 1, "{all:?}");
        let (name, value) = all.remove(0);
        assert_eq!(name, "A");
        value
    }

    #[test]
    fn plain_lines_and_comments() {
        let text = "\u{feff}# one\n; two\n\nA=1\nexport B = two words \r\n  C=\nexport=x\nD=a=b#c";
        let want = [("A", "1"), ("B", "two words"), ("C", ""), ("export", "x"), ("D", "a=b#c")];
        let got = parse(text).unwrap();
        assert_eq!(got, want.map(|(n, v)| (n.to_owned(), v.to_owned())));
    }

    #[test]
    fn quotes_and_escapes() {
        assert_eq!(one(r#"A="x y" "#), "x y");
        assert_eq!(one(r#"A=" x ""#), " x ");
        assert_eq!(one(r"A='$HOME \n'"), r"$HOME \n");
        assert_eq!(one(r#"A="\$5 \"q\" \n \\""#), r#"$5 "q" \n \"#);
        assert_eq!(one(r"A=a\ b\'c"), "a b'c");
        assert_eq!(one("A=one\\\ntwo"), "onetwo");
        assert_eq!(one("A='one\ntwo'"), "one\ntwo");
        assert_eq!(one(r#"A=pre"mid"'post'"#), "premidpost");
        assert_eq!(one("A=x\\ "), "x ");
    }

    #[test]
    fn what_is_not_understood_is_refused() {
        assert_eq!(parse("A=1\n\nnonsense\n").unwrap_err(), "line 3 has no `=`");
        assert_eq!(parse("1A=secret").unwrap_err(), "line 1: `1A` is no name of a variable");
        assert_eq!(parse("=x").unwrap_err(), "line 1: `` is no name of a variable");
        assert_eq!(parse("A='x\n").unwrap_err(), "the quote that opens in line 1 is not closed");
        assert_eq!(parse("A=\0").unwrap_err(), "it contains a NUL character");
    }
}
