//! What is wrong with a configuration, for people and for editors. Text only: nothing is printed here.

use super::source::{Source, boundary};
use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet, renderer::DecorStyle};
use std::{collections::BTreeSet, ops::Range, path::PathBuf};

/// A place in a file that was read: byte offsets into its text. `end == 0` stands for the file as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct At {
    /// Index of the source; 0 is the built-in defaults.
    pub(super) source: u32,
    pub(super) start: u32,
    pub(super) end: u32,
}

impl At {
    /// The built-in defaults.
    pub(super) const BUILT_IN: At = At { source: 0, start: 0, end: 0 };

    pub(super) fn new(source: u32, span: Range<usize>) -> At {
        // Files are far smaller than 4 GiB; a span that does not fit would only be shown wrongly.
        let clamp = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        At { source, start: clamp(span.start), end: clamp(span.end).max(1) }
    }

    pub(super) fn file(source: u32) -> At {
        At { source, start: 0, end: 0 }
    }
}

/// Everything found wrong so far; a problem that is met twice at one place counts once.
#[derive(Debug, Default)]
pub(super) struct Problems {
    errors: BTreeSet<(At, String)>,
    warnings: BTreeSet<(At, String)>,
}

impl Problems {
    pub(super) fn error(&mut self, at: At, message: impl Into<String>) {
        self.errors.insert((at, message.into()));
    }

    pub(super) fn warn(&mut self, at: At, message: impl Into<String>) {
        self.warnings.insert((at, message.into()));
    }

    pub(super) fn none(&self) -> bool {
        self.errors.is_empty()
    }

    /// Takes another file's problems in, but for those on a line that already has one: what follows from a
    /// syntax error is noise.
    pub(super) fn absorb(&mut self, other: Problems, source: u32, sources: &[Source]) {
        let line = |at: &At| (at.source, sources[at.source as usize].position(at.start).0);
        let taken: BTreeSet<_> =
            self.errors.iter().filter(|(at, _)| at.source == source).map(|(at, _)| line(at)).collect();
        // The parser puts what it made up for a broken value at the very beginning.
        let made_up = |at: &At| !taken.is_empty() && (at.start, at.end) == (0, 1);
        let found = other.errors.into_iter().filter(|(at, _)| !taken.contains(&line(at)) && !made_up(at));
        self.errors.extend(found);
        self.warnings.extend(other.warnings);
    }

    /// In the order of files and of places in them.
    pub(super) fn diagnostics(self, sources: &[Source]) -> Vec<Diagnostic> {
        self.errors
            .into_iter()
            .map(|(at, message)| Diagnostic::new(&sources[at.source as usize], at, message))
            .collect()
    }

    /// Each as `file:line:column: sentence`, or only the sentence where it is about no file.
    pub(super) fn warnings(self, sources: &[Source]) -> Vec<String> {
        let show = |(at, message): (At, String)| {
            if at == At::BUILT_IN {
                return message;
            }
            let d = Diagnostic::new(&sources[at.source as usize], at, message);
            format!("{}: {}", d.place(), d.message)
        };
        self.warnings.into_iter().map(show).collect()
    }
}

/// One error of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// What is wrong; one sentence without a full stop.
    pub message: String,
    /// The file, absolute.
    pub path: PathBuf,
    /// The file as it is shown: relative to the main file's folder where it lies under it.
    pub file: String,
    /// Counted from 1; 0 where the file as a whole is meant.
    pub line: usize,
    /// In characters, counted from 1; 0 where the file as a whole is meant.
    pub column: usize,
    /// Byte offsets into the file; empty where the file as a whole is meant.
    pub span: Range<usize>,
    /// The text of that line, without its end.
    pub source: String,
    /// Byte offsets into `source`.
    marked: Range<usize>,
}

impl Diagnostic {
    fn new(source: &Source, at: At, message: String) -> Diagnostic {
        let mut d = Diagnostic {
            message,
            path: source.path.clone(),
            file: source.shown.clone(),
            line: 0,
            column: 0,
            span: 0..0,
            source: String::new(),
            marked: 0..0,
        };
        if at.end == 0 {
            return d;
        }
        let text = &source.text;
        let start = boundary(text, at.start);
        let end = boundary(text, at.end).max(start);
        let from = text[..start].rfind('\n').map_or(0, |n| n + 1);
        let line = text[from..].lines().next().unwrap_or("");
        d.line = source.position(at.start).0;
        d.column = text[from..start].chars().count() + 1;
        d.span = start..end;
        d.source = line.to_owned();
        // A value over several lines is marked on its first one.
        d.marked = (start - from).min(line.len())..(end - from).min(line.len());
        d
    }

    /// `conf.d/web.toml:3:1`, or only the file.
    pub fn place(&self) -> String {
        match self.line {
            0 => self.file.clone(),
            line => format!("{}:{line}:{}", self.file, self.column),
        }
    }

    /// `conf.d/web.toml:3:1: error: …`
    pub fn short(&self) -> String {
        format!("{}: error: {}", self.place(), self.message)
    }

    /// For people, in several lines without an end of line after the last: the message, the place, the source
    /// line and a caret.
    pub fn rendered(&self) -> String {
        self.render(&Renderer::plain())
    }

    /// As [`Diagnostic::rendered`], with terminal colours.
    pub fn rendered_in_color(&self) -> String {
        self.render(&Renderer::styled())
    }

    fn render(&self, renderer: &Renderer) -> String {
        let renderer = renderer.clone().decor_style(DecorStyle::Ascii);
        let title = Level::ERROR.primary_title(self.message.as_str());
        if self.line == 0 {
            return format!(
                "{}\n  --> {}",
                renderer.render(&[annotate_snippets::Group::with_title(title)]),
                self.file
            );
        }
        let snippet = Snippet::source(self.source.as_str())
            .line_start(self.line)
            .path(self.file.as_str())
            .annotation(AnnotationKind::Primary.span(self.marked.clone()));
        let text = renderer.render(&[title.element(snippet)]);
        align(&text, self.line)
    }
}

/// Puts the arrow behind two spaces, whatever the width of the line number, so that it can be searched for.
fn align(text: &str, line: usize) -> String {
    let narrow = line < 10;
    let mut out = String::with_capacity(text.len() + 8);
    let (title, rest) = text.split_once('\n').unwrap_or((text, ""));
    out.push_str(title);
    for (n, l) in rest.lines().enumerate() {
        out.push('\n');
        match (n, narrow) {
            (_, true) => out.extend([" ", l]),
            (0, false) => out.extend(["  ", l.trim_start()]),
            (_, false) => out.push_str(l),
        }
    }
    out
}

/// How [`render_all`] shows errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people, with the source lines.
    Full,
    /// The same with terminal colours.
    Color,
    /// One line each, for editors and scripts.
    Short,
}

/// All errors; the long forms end with a summary line, such as `3 errors in 2 files; nothing was changed`.
pub fn render_all(diagnostics: &[Diagnostic], format: Format) -> String {
    let mut out = String::new();
    for d in diagnostics {
        match format {
            Format::Full => out.extend([&d.rendered(), "\n\n"]),
            Format::Color => out.extend([&d.rendered_in_color(), "\n\n"]),
            Format::Short => out.extend([&d.short(), "\n"]),
        }
    }
    if format != Format::Short && !diagnostics.is_empty() {
        let files = diagnostics.iter().map(|d| &d.path).collect::<BTreeSet<_>>().len();
        let plural = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
        let (errors, files) = (plural(diagnostics.len(), "error"), plural(files, "file"));
        out.push_str(&format!("{errors} in {files}; nothing was changed\n"));
    }
    out
}
