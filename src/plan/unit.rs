//! Units of measure as people write them. Durations are whole milliseconds everywhere in keepd.

use serde::{Deserialize, Serialize};
use std::fmt;

/// A length of time in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Millis(pub u64);

impl Millis {
    /// So many whole seconds.
    pub const fn secs(s: u64) -> Millis {
        Millis(s * 1000)
    }
}

impl fmt::Display for Millis {
    /// The shortest form the configuration would read back: `1h30m`, `2m40s`, `1.5s`, `500ms`, `0s`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = self.0;
        if ms == 0 {
            return f.write_str("0s");
        }
        if ms < 1000 {
            return write!(f, "{ms}ms");
        }
        let (d, h, m) = (ms / 86_400_000, ms / 3_600_000 % 24, ms / 60_000 % 60);
        let (s, rest) = (ms / 1000 % 60, ms % 1000);
        for (n, unit) in [(d, "d"), (h, "h"), (m, "m")] {
            if n > 0 {
                write!(f, "{n}{unit}")?;
            }
        }
        match (s, rest) {
            (0, 0) => Ok(()),
            (s, 0) => write!(f, "{s}s"),
            (s, rest) => write!(f, "{}s", format!("{s}.{rest:03}").trim_end_matches('0')),
        }
    }
}
