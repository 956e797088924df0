//! From the project's documentation to the text of a man page: headings, paragraphs, lists, tables, commands, `code`,
//! **strong** and links, which is all the Markdown that `docs/` uses. It reads and writes no file.

/// The text below the title, in man(7).
pub(crate) fn from_markdown(text: &str) -> String {
    let mut out = String::new();
    let mut lines = text.lines().peekable();
    let mut header: Vec<String> = Vec::new();
    // Between items of one list no space, before and after it some.
    let mut in_list = false;
    while let Some(line) = lines.next() {
        let item = line.strip_prefix("- ").map(|l| ("\\(bu", l)).or_else(|| numbered(line));
        if !line.starts_with('|') {
            header.clear();
        }
        if let Some(title) = line.strip_prefix("### ") {
            out += &format!(".SS {}\n", quoted(title));
        } else if let Some(title) = line.strip_prefix("## ") {
            out += &format!(".SH {}\n", quoted(&title.to_uppercase()));
        } else if line.starts_with("# ") || line.is_empty() {
            in_list &= lines.peek().is_some_and(|l| l.starts_with("  "));
        } else if let Some(code) = line.strip_prefix("    ") {
            let mut block = vec![code];
            while let Some(next) = lines.next_if(|l| l.is_empty() || l.starts_with("    ")) {
                block.push(next.strip_prefix("    ").unwrap_or(""));
            }
            while block.last().is_some_and(|l| l.is_empty()) {
                block.pop();
            }
            out += ".PP\n.in +4n\n.nf\n";
            for code in block {
                out += &(escaped(code) + "\n");
            }
            out += ".fi\n.in\n";
        } else if line.starts_with('|') {
            if line.starts_with("|--") {
                continue;
            }
            let cells = cells(line);
            if header.is_empty() {
                header = cells;
            } else {
                out += &row(&header, &cells);
            }
        } else if let Some((mark, first)) = item {
            out += &format!(".IP {mark} 3\n{}\n", inline(&paragraph(first, &mut lines)));
            in_list = true;
        } else {
            let text = inline(&paragraph(line, &mut lines));
            out += &format!("{}{text}\n", if in_list { ".IP \"\" 3\n" } else { ".PP\n" });
        }
    }
    out
}

/// The rest of a paragraph that began with `first`.
fn paragraph<'a>(first: &str, lines: &mut std::iter::Peekable<impl Iterator<Item = &'a str>>) -> String {
    let mut text = first.trim().to_owned();
    let begins =
        |l: &str| l.is_empty() || l.starts_with(['|', '#']) || l.starts_with("- ") || numbered(l).is_some();
    while let Some(next) = lines.next_if(|l| !begins(l)) {
        text += " ";
        text += next.trim();
    }
    text
}

/// `1. text`: the mark and the text.
fn numbered(line: &str) -> Option<(&str, &str)> {
    let (mark, text) = line.split_once(". ")?;
    (!mark.is_empty() && mark.bytes().all(|b| b.is_ascii_digit())).then_some((mark, text))
}

fn cells(line: &str) -> Vec<String> {
    line.trim_matches('|').split(" | ").map(|c| c.trim().to_owned()).collect()
}

/// One row of a table as an entry: the first cell, in a table of keys with what stands between it and the last one,
/// and below it what is said of it. A cell whose heading says more than "this is the explanation" keeps it.
fn row(header: &[String], cells: &[String]) -> String {
    let labelled = |(head, cell): (&String, &String)| match (head.as_str(), cell.as_str()) {
        (_, "") => None,
        ("" | "type" | "meaning" | "is" | "does" | "notes" | "examples", cell) => Some(cell.to_owned()),
        (head, cell) => Some(format!("{head}: {cell}")),
    };
    let of_keys = header.first().is_some_and(|h| h == "key");
    let beside = if of_keys { cells.len().saturating_sub(1).max(1) } else { 1 };
    let texts = |range: std::ops::Range<usize>, between: &str| {
        header
            .iter()
            .zip(cells)
            .skip(range.start)
            .take(range.len())
            .filter_map(labelled)
            .collect::<Vec<_>>()
            .join(between)
    };
    let (tag, text) = (texts(1..beside, ", "), texts(beside..cells.len(), "; "));
    let tag = if tag.is_empty() { String::new() } else { format!(" ({tag})") };
    let text = if text.is_empty() { "\\&".to_owned() } else { inline(&text) };
    format!(".TP\n{}\n{text}\n", inline(&(cells[0].clone() + &tag)))
}

/// A line of text: code and strong words bold, links without their targets.
fn inline(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find(['`', '*', '[']) {
        let (before, here) = rest.split_at(at);
        out += &escaped(before);
        let span = |mark: &str| {
            here.strip_prefix(mark).and_then(|h| h.split_once(mark)).filter(|(s, _)| !s.is_empty())
        };
        let link = || {
            here.strip_prefix('[')?.split_once("](").and_then(|(name, r)| Some((name, r.split_once(')')?.1)))
        };
        if let Some((code, after)) = span("`") {
            out += &format!("\\fB{}\\fR", escaped(code));
            rest = after;
        } else if let Some((strong, after)) = span("**") {
            out += &format!("\\fB{}\\fR", inline(strong));
            rest = after;
        } else if let Some((name, after)) = link().filter(|(name, _)| !name.contains([']', '`'])) {
            out += &escaped(name);
            rest = after;
        } else {
            let mut chars = here.chars();
            out += &escaped(&chars.next().map(String::from).unwrap_or_default());
            rest = chars.as_str();
        }
    }
    guarded(out + &escaped(rest))
}

/// The argument of a heading.
fn quoted(title: &str) -> String {
    format!("\"{}\"", escaped(&title.replace('`', "")).replace('"', "\\(dq"))
}

/// Text in which nothing means anything to roff, of one line.
pub(crate) fn escaped(text: &str) -> String {
    guarded(text.replace('\\', "\\e").replace('-', "\\-").replace('\'', "\\(aq").replace('`', "\\(ga"))
}

/// A line cannot begin as a request does.
fn guarded(text: String) -> String {
    if text.starts_with('.') { format!("\\&{text}") } else { text }
}
