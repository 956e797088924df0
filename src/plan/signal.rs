//! Signals by name and number, as Linux numbers them on x86-64 and arm64. Nothing is sent from here.

/// Names without `SIG`, in the order of their numbers from 1.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];
/// Other names of the same signals.
const ALIASES: [(&str, i32); 3] = [("IOT", 6), ("CLD", 17), ("POLL", 29)];
/// glibc keeps 32 and 33 for itself.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

/// Reads a signal: `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3`, `SIGRTMAX-1`; capitals or not.
/// The error is a clause that can follow a colon.
pub fn parse_signal(text: &str) -> Result<i32, String> {
    let unknown = || format!("`{text}` is no signal");
    if text.bytes().all(|b| b.is_ascii_digit()) && !text.is_empty() {
        return text.parse().ok().filter(|n| (1..=RTMAX).contains(n)).ok_or("signals go from 1 to 64".into());
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(rest) = name.strip_prefix("RTMIN") {
        return real_time(RTMIN, rest, '+').ok_or_else(unknown);
    }
    if let Some(rest) = name.strip_prefix("RTMAX") {
        return real_time(RTMAX, rest, '-').ok_or_else(unknown);
    }
    if let Some((_, number)) = ALIASES.iter().find(|(alias, _)| *alias == name) {
        return Ok(*number);
    }
    NAMES.iter().zip(1..).find(|(n, _)| **n == name).map(|(_, number)| number).ok_or_else(unknown)
}

fn real_time(base: i32, rest: &str, sign: char) -> Option<i32> {
    let offset = match rest.strip_prefix(sign) {
        _ if rest.is_empty() => 0,
        Some(digits) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse::<i32>().ok()?,
        _ => return None,
    };
    let number = if sign == '+' { base.checked_add(offset)? } else { base.checked_sub(offset)? };
    (RTMIN..=RTMAX).contains(&number).then_some(number)
}

/// The name of a signal: `SIGTERM`, `SIGRTMIN+3`, or `signal 33` for one without a name.
pub fn signal_name(number: i32) -> String {
    match number {
        RTMIN => "SIGRTMIN".into(),
        RTMAX => "SIGRTMAX".into(),
        n if (RTMIN..RTMAX).contains(&n) => format!("SIGRTMIN+{}", n - RTMIN),
        n => match usize::try_from(n).ok().and_then(|i| i.checked_sub(1)).and_then(|i| NAMES.get(i)) {
            Some(name) => format!("SIG{name}"),
            None => format!("signal {n}"),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_read_in_every_form() {
        for (text, number) in [
            ("SIGTERM", 15),
            ("TERM", 15),
            ("sigterm", 15),
            ("15", 15),
            ("64", 64),
            ("SIGRTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("SIGIOT", 6),
            ("SIGSYS", 31),
        ] {
            assert_eq!(parse_signal(text), Ok(number), "{text}");
        }
        for text in
            ["", "SIG", "0", "65", "-9", "SIGFOO", "SIGRTMIN+31", "SIGRTMIN-1", "SIGRTMIN++1", "SIGRTMAX+1"]
        {
            assert!(parse_signal(text).is_err(), "{text}");
        }
    }

    #[test]
    fn every_named_signal_reads_back() {
        for number in (1..=31).chain(RTMIN..=RTMAX) {
            assert_eq!(parse_signal(&signal_name(number)), Ok(number));
        }
        assert_eq!(signal_name(33), "signal 33");
        assert_eq!(signal_name(i32::MIN), format!("signal {}", i32::MIN));
    }
}
