//! The daemon's own log: stderr (with syslog priorities under journald) or a rolling file in the log folder.

use crate::{
    logs::{Housekeeper, RollingFile, rotate::Limits},
    plan::{DaemonSpec, LogLevel, Rotate},
    sys,
};
use std::{fmt, io::IsTerminal, os::unix::fs::MetadataExt};
use tracing::{Event, Level, Subscriber, level_filters::LevelFilter};
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::{
    fmt::{
        FmtContext, FormatEvent, FormatFields, MakeWriter,
        format::{DefaultFields, Writer},
    },
    registry::LookupSpan,
};

/// When the daemon's own log file is rotated, and how many old ones stay.
const FILES: Limits = Limits {
    max_size: 10 << 20,
    rotate: Rotate::Daily { minute: 0 },
    keep: 14,
    keep_for: None,
    max_total: None,
    compress: true,
};

/// Sends everything that is traced to where the configuration says. A log file that cannot be opened is
/// reported on stderr, which then takes its place.
pub(super) fn init(spec: &DaemonSpec, housekeeper: &Housekeeper) -> Option<WorkerGuard> {
    let level = match spec.log_level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    if let Some(path) = &spec.log_file {
        match RollingFile::new(path, FILES, housekeeper) {
            Ok(file) => {
                // Lossless: the daemon's own log is small, and its end is what explains a crash.
                let (writer, guard) = NonBlockingBuilder::default().lossy(false).finish(file);
                install(level, Line::Plain, writer);
                return Some(guard);
            }
            Err(e) => {
                eprintln!("keepd: cannot write the log file {}: {e}; logging to stderr", path.display())
            }
        }
    }
    let line = if to_journal() {
        Line::Journal
    } else if std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        Line::Colour
    } else {
        Line::Plain
    };
    install(level, line, std::io::stderr);
    None
}

fn install<W>(level: LevelFilter, line: Line, writer: W)
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_ansi(line == Line::Colour)
        .fmt_fields(DefaultFields::new())
        .event_format(line)
        .with_writer(writer)
        .finish();
    // Fails only if a subscriber is installed already, as in a test.
    let _ = tracing::subscriber::set_global_default(subscriber);
}

/// How a line looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    /// `2026-11-21T10:00:00.123Z INFO web: running`
    Plain,
    /// The same with a coloured level.
    Colour,
    /// `<6>web: running`: journald has the time and reads the priority.
    Journal,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, ctx: &FmtContext<'_, S, N>, mut w: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let (priority, word, colour) = match *event.metadata().level() {
            Level::ERROR => (3, "ERROR", "31"),
            Level::WARN => (4, "WARN", "33"),
            Level::INFO => (6, "INFO", "32"),
            Level::DEBUG | Level::TRACE => (7, "DEBUG", "34"),
        };
        match self {
            Line::Journal => write!(w, "<{priority}>")?,
            Line::Plain => write!(w, "{} {word:5} ", time())?,
            Line::Colour => write!(w, "\x1b[2m{}\x1b[0m \x1b[{colour}m{word:5}\x1b[0m ", time())?,
        }
        ctx.format_fields(w.by_ref(), event)?;
        writeln!(w)
    }
}

/// Whether stderr goes to journald, which says so by device and inode.
fn to_journal() -> bool {
    let Some(stream) = std::env::var("JOURNAL_STREAM").ok() else { return false };
    std::fs::metadata("/proc/self/fd/2").is_ok_and(|m| stream == format!("{}:{}", m.dev(), m.ino()))
}

fn time() -> String {
    let ms = i64::try_from(sys::clock::wall_ms()).unwrap_or(i64::MAX);
    jiff::Timestamp::from_millisecond(ms).map(|t| format!("{t:.3}")).unwrap_or_default()
}
