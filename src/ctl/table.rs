//! Aligned columns.

use super::text::Look;
use anstyle::Style;
use std::io::{self, Write};

/// One cell: its text, already without control characters, and how it is painted.
#[derive(Debug, Clone)]
pub(super) struct Cell {
    pub(super) text: String,
    pub(super) style: Style,
}

impl From<String> for Cell {
    fn from(text: String) -> Cell {
        Cell { text, style: Style::new() }
    }
}

/// Prints a heading and rows; each column is as wide as its widest cell, those in `right` are aligned to the right,
/// the last is not padded.
pub(super) fn print<const N: usize>(
    out: &mut impl Write,
    look: Look,
    heading: [&str; N],
    right: &[usize],
    rows: &[[Cell; N]],
) -> io::Result<()> {
    let mut widths = heading.map(str::len);
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.text.chars().count());
        }
    }
    let bold = Style::new().bold();
    let heading = heading.map(|h| Cell { text: h.into(), style: bold });
    for row in std::iter::once(&heading).chain(rows) {
        // Blanks are written only before the next text, so that no line ends with any.
        let mut blanks = 0;
        for (i, cell) in row.iter().enumerate() {
            let pad = widths[i] - cell.text.chars().count();
            if right.contains(&i) {
                blanks += pad;
            }
            if !cell.text.is_empty() {
                write!(out, "{:blanks$}", "")?;
                out.write_all(look.paint(cell.style, &cell.text).as_bytes())?;
                blanks = 0;
            }
            blanks += 2 + if right.contains(&i) { 0 } else { pad };
        }
        out.write_all(b"\n")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_whatever_the_colours() {
        let row = |a: &str, b: &str, c: &str| [a, b, c].map(|t| Cell::from(t.to_string()));
        let rows = [row("web", "1", "x y"), row("\u{e9}-long", "10000", "")];
        let mut out = Vec::new();
        print(&mut out, Look::default(), ["NAME", "PID", "NOTE"], &[1], &rows).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text, "NAME      PID  NOTE\nweb         1  x y\n\u{e9}-long  10000\n");

        let mut painted = Vec::new();
        let look = Look { terminal: true, colour: true };
        print(&mut painted, look, ["NAME", "PID", "NOTE"], &[1], &rows).unwrap();
        let painted = String::from_utf8(painted).unwrap();
        assert_eq!(painted.replace("\x1b[1m", "").replace("\x1b[0m", ""), text);
    }
}
