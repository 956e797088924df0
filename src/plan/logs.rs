//! What may be said about keeping logs: when a file is rotated by time, and shares of a file system.

use super::unit::parse_size;
use serde::{Deserialize, Serialize};

/// When files are rotated by time, besides by size. Local time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rotate {
    /// By size only.
    #[default]
    Off,
    /// At the beginning of each hour.
    Hourly,
    /// Each day, so many minutes after its beginning as a clock shows them: 0 to 1439.
    Daily { minute: u16 },
}

impl Rotate {
    /// Reads `off`, `hourly`, `daily` or `HH:MM`. The error is a clause that can follow a colon.
    pub fn parse(text: &str) -> Result<Rotate, String> {
        let digits = |part: &str, most: u16| {
            let plain = part.len() == 2 && part.bytes().all(|b| b.is_ascii_digit());
            part.parse::<u16>().ok().filter(|n| plain && *n <= most)
        };
        match text {
            "off" => return Ok(Rotate::Off),
            "hourly" => return Ok(Rotate::Hourly),
            "daily" => return Ok(Rotate::Daily { minute: 0 }),
            _ => {}
        }
        let time = text.split_once(':').and_then(|(h, m)| Some(digits(h, 23)? * 60 + digits(m, 59)?));
        let minute =
            time.ok_or("it must be one of \"off\", \"hourly\", \"daily\", or a time such as \"03:30\"")?;
        Ok(Rotate::Daily { minute })
    }
}

/// So many bytes, or a part of a file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Share {
    Bytes(u64),
    /// 0 to 100.
    Percent(u8),
}

impl Share {
    /// Reads `10%` or a size. The error is a clause that can follow a colon.
    pub fn parse(text: &str) -> Result<Share, String> {
        let Some(number) = text.strip_suffix('%') else { return parse_size(text).map(Share::Bytes) };
        let plain = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        let percent = number.parse::<u8>().ok().filter(|n| plain && *n <= 100);
        percent.map(Share::Percent).ok_or_else(|| "it must be a whole number of percent, 0% to 100%".into())
    }

    /// In bytes, of a file system of so many bytes.
    pub fn of(self, file_system: u64) -> u64 {
        match self {
            Share::Bytes(bytes) => bytes,
            Share::Percent(percent) => {
                u64::try_from(u128::from(file_system) * u128::from(percent) / 100).unwrap_or(u64::MAX)
            }
        }
    }
}

/// `[logs]`: what all services' logs together may take of the file system of `log-dir`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostLogs {
    /// All log files together are to be at most this.
    pub max_total: Share,
    /// So much of the file system is to stay free.
    pub keep_free: Share,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_rotation_are_read() {
        for (text, rotate) in [
            ("off", Rotate::Off),
            ("hourly", Rotate::Hourly),
            ("daily", Rotate::Daily { minute: 0 }),
            ("00:00", Rotate::Daily { minute: 0 }),
            ("23:59", Rotate::Daily { minute: 1439 }),
        ] {
            assert_eq!(Rotate::parse(text), Ok(rotate), "{text}");
        }
        for text in ["", "24:00", "00:60", "1:00", "01:0", "+1:00", "01:00:00", "weekly", "Daily"] {
            assert!(Rotate::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn shares_are_read_and_taken() {
        assert_eq!(Share::parse("10%").map(|s| s.of(2000)), Ok(200));
        assert_eq!(Share::parse("1GiB").map(|s| s.of(2000)), Ok(1 << 30));
        assert_eq!(Share::parse("100%").map(|s| s.of(u64::MAX)), Ok(u64::MAX));
        for text in ["", "%", "101%", "-1%", "1.5%", "+1%", "10 %", "x"] {
            assert!(Share::parse(text).is_err(), "{text}");
        }
    }
}
