//! Splits one string into words as a POSIX shell does: blanks, quotes and backslashes. Nothing is expanded
//! and nothing is run.

/// A command line in words.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Split {
    pub(super) words: Vec<String>,
    /// The first unquoted word that a shell would take for an operator: likely a mistake.
    pub(super) operator: Option<String>,
}

/// Splits; the error is a clause.
pub(super) fn split(text: &str) -> Result<Split, &'static str> {
    let mut out = Split { words: Vec::new(), operator: None };
    // `None` between words, so that '' is a word and a blank is not.
    let mut word: Option<String> = None;
    let mut quoted = false;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match c {
            '\0' => return Err("it holds a NUL character"),
            ' ' | '\t' | '\n' => end(&mut out, &mut word, &mut quoted),
            '\'' => {
                quoted = true;
                let w = word.get_or_insert_default();
                loop {
                    match chars.next() {
                        None => return Err("a ' is never closed"),
                        Some('\'') => break,
                        Some('\0') => return Err("it holds a NUL character"),
                        Some(c) => w.push(c),
                    }
                }
            }
            '"' => {
                quoted = true;
                double_quoted(&mut chars, word.get_or_insert_default())?;
            }
            '\\' => match chars.next() {
                None => return Err("it ends with a backslash"),
                Some('\n') => {}
                Some(c) => {
                    quoted = true;
                    word.get_or_insert_default().push(c);
                }
            },
            c => word.get_or_insert_default().push(c),
        }
    }
    end(&mut out, &mut word, &mut quoted);
    Ok(out)
}

/// The words of a command line; the error is a clause.
pub fn split_words(text: &str) -> Result<Vec<String>, &'static str> {
    split(text).map(|s| s.words)
}

fn double_quoted(chars: &mut std::str::Chars<'_>, word: &mut String) -> Result<(), &'static str> {
    loop {
        match chars.next() {
            None => return Err("a \" is never closed"),
            Some('"') => return Ok(()),
            Some('\0') => return Err("it holds a NUL character"),
            Some('\\') => match chars.next() {
                None => return Err("a \" is never closed"),
                Some('\n') => {}
                Some(c @ ('$' | '`' | '"' | '\\')) => word.push(c),
                Some(c) => word.extend(['\\', c]),
            },
            Some(c) => word.push(c),
        }
    }
}

fn end(out: &mut Split, word: &mut Option<String>, quoted: &mut bool) {
    if let Some(w) = word.take() {
        let operator = matches!(w.as_str(), "|" | "||" | "&" | "&&" | ";" | "<" | ">" | ">>" | "2>" | "2>&1");
        if operator && !*quoted {
            out.operator.get_or_insert_with(|| w.clone());
        }
        out.words.push(w);
    }
    *quoted = false;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        split(text).unwrap().words
    }

    #[test]
    fn words_are_split_as_a_shell_does() {
        assert_eq!(words("  a  b\tc\n"), ["a", "b", "c"]);
        assert_eq!(words(r#"a 'b c' "d e""#), ["a", "b c", "d e"]);
        assert_eq!(words(r#"a'b'"c"\d"#), ["abcd"]);
        assert_eq!(words(r#"'' "" a"#), ["", "", "a"]);
        assert_eq!(words(r#"\  "\$x \n \"" '\n'"#), [" ", r#"$x \n ""#, r"\n"]);
        assert_eq!(words("a\\\nb \"c\\\nd\""), ["ab", "cd"]);
        assert_eq!(words(""), Vec::<String>::new());
        assert_eq!(words("a #b *"), ["a", "#b", "*"]);
    }

    #[test]
    fn what_is_never_closed_is_refused() {
        for bad in ["'a", "\"a", "a\\", "\"a\\", "a\0", "'\0'", "\"\0\""] {
            assert!(split(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn shell_operators_are_noticed_unless_quoted() {
        assert_eq!(split("a > b").unwrap().operator.as_deref(), Some(">"));
        assert_eq!(split("a '>' b \\| c").unwrap().operator, None);
    }
}
