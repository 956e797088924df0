//! Text between two worlds: keepd's `${…}` against literal dollars, words for a shell, other supervisors' numbers.

use crate::plan::{Millis, unit::size_text};

/// Stands for keepd's `${instance}` until [`literal`] writes it: private use characters, since sources have none.
pub(super) const INSTANCE: char = '\u{f0000}';
/// Stands for keepd's `${host}`.
pub(super) const HOST: char = '\u{f0001}';

/// Text for a key that keepd expands, which is to mean just this text.
pub(super) fn literal(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '$' if matches!(chars.peek(), Some('{' | '$')) => out.push_str("$$"),
            // What stands behind it will be `${`.
            '$' if matches!(chars.peek(), Some(&(INSTANCE | HOST))) => out.push_str("$$"),
            INSTANCE => out.push_str("${instance}"),
            HOST => out.push_str("${host}"),
            c => out.push(c),
        }
    }
    out
}

/// The words of a command for a key that keepd expands.
pub(super) fn literals(words: &[String]) -> Vec<String> {
    words.iter().map(|w| literal(w)).collect()
}

/// A word as a shell reads it back.
pub(super) fn shell_word(word: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"_-./:=,@%+".contains(&b);
    if !word.is_empty() && word.bytes().all(plain) {
        word.into()
    } else {
        format!("'{}'", word.replace('\'', "'\\''"))
    }
}

/// A duration as keepd writes it.
pub(super) fn seconds(s: u64) -> String {
    Millis(s.saturating_mul(1000)).to_string()
}

/// supervisord's size: `50MB`, `1024`; units are powers of 1024.
pub(super) fn size(text: &str) -> Result<u64, String> {
    let upper = text.trim().to_ascii_uppercase();
    let (digits, factor) = [("KB", 1u64 << 10), ("MB", 1 << 20), ("GB", 1 << 30)]
        .iter()
        .find_map(|(unit, factor)| upper.strip_suffix(unit).map(|d| (d.trim(), *factor)))
        .unwrap_or((&upper, 1));
    let number = digits.parse::<u64>().ok().and_then(|n| n.checked_mul(factor));
    number.ok_or_else(|| "it is not a size".into())
}

/// A size with a one-letter unit, as systemd and PM2 have them: `512M`, `1G`, `1.5G`, `1024`.
pub(super) fn binary_size(text: &str) -> Result<String, String> {
    let text = text.trim();
    let upper = text.to_ascii_uppercase();
    let body = upper.strip_suffix("IB").or(upper.strip_suffix('B')).unwrap_or(&upper);
    crate::plan::unit::parse_size(body).map(size_text)
}

/// The words of other supervisors for yes and no.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text.trim().to_ascii_lowercase().as_str() {
        "true" | "yes" | "on" | "1" | "y" | "t" => Ok(true),
        "false" | "no" | "off" | "0" | "n" | "f" => Ok(false),
        _ => Err("it is neither yes nor no".into()),
    }
}

/// A number of at least 0.
pub(super) fn number(text: &str) -> Result<u64, String> {
    text.trim().parse().map_err(|_| "it is not a whole number".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_read_in_their_own_units() {
        assert_eq!((size("50MB"), size("0"), size("1kb")), (Ok(50 << 20), Ok(0), Ok(1024)));
        assert!(size("fifty").is_err() && size("MB").is_err());
        for (text, same) in [("512M", "512MiB"), ("1.5G", "1536MiB"), ("100MB", "100MiB"), ("2048", "2KiB")] {
            assert_eq!(binary_size(text).as_deref(), Ok(same));
        }
        assert!(binary_size("50%").is_err());
    }

    #[test]
    fn a_literal_dollar_stays_one() {
        assert_eq!(literal("$HOME ${X} $$ a$"), "$HOME $${X} $$$ a$");
        assert_eq!(literal(&format!("${INSTANCE}-{HOST}")), "$$${instance}-${host}");
    }

    proptest! {
        /// keepd's own words, read as a shell does.
        #[test]
        fn a_quoted_word_is_one_word(word in "[^\0]{0,30}") {
            prop_assert_eq!(crate::config::split_words(&shell_word(&word)).unwrap(), [word]);
        }
    }
}
