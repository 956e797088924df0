//! Numbered lines in the ways in which services write: whoever reads them can tell each that is lost, doubled,
//! torn or out of place.

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Each with a write of its own.
    Single,
    /// Many with one write.
    Block,
    /// Lines of up to 60,000 bytes.
    Long,
    /// One to stdout, one to stderr.
    Both,
}

impl Mode {
    pub(crate) const ALL: [Mode; 4] = [Mode::Single, Mode::Block, Mode::Long, Mode::Both];

    pub(crate) fn word(self) -> &'static str {
        match self {
            Mode::Single => "single",
            Mode::Block => "block",
            Mode::Long => "long",
            Mode::Both => "both",
        }
    }
}

/// Line number `n` of one output; its length depends on the number.
pub(crate) fn line(mode: Mode, n: u64) -> String {
    let length = if mode == Mode::Long { n * 7919 % 60_000 } else { n * 31 % 80 };
    format!("{n:012} {:.<1$}\n", "", usize::try_from(length).unwrap_or(0))
}
