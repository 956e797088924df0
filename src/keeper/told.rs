//! What a datagram of sd_notify says: lines of `NAME=value`. Whatever it holds, this neither fails nor takes long;
//! names that are not known mean nothing here.

#![forbid(unsafe_code)]

use crate::plan::{Millis, Told};

/// The longest message, in bytes; longer ones are not believed.
pub(super) const MESSAGE_MAX: usize = 4096;

/// Reads a message; `None` where no line of it means anything to us.
pub(super) fn parse(message: &[u8]) -> Option<Told> {
    let text = String::from_utf8_lossy(message);
    let mut told = Told::default();
    let mut known = false;
    for (name, value) in text.lines().filter_map(|line| line.split_once('=')) {
        let number = || value.parse::<u64>().ok();
        let time = || number().map(|us| Millis(us.div_ceil(1000)));
        let yes = value == "1";
        let understood = match name {
            "READY" if yes => set(&mut told.ready),
            "RELOADING" if yes => set(&mut told.reloading),
            "STOPPING" if yes => set(&mut told.stopping),
            "WATCHDOG" if yes => set(&mut told.alive),
            "WATCHDOG" if value == "trigger" => set(&mut told.failing),
            "STATUS" => {
                told.status = Some(value.to_owned());
                true
            }
            "WATCHDOG_USEC" => take(&mut told.watchdog, time()),
            "EXTEND_TIMEOUT_USEC" => take(&mut told.extend, time()),
            "MAINPID" => take(&mut told.main, number().and_then(|n| u32::try_from(n).ok())),
            // That it came is all: whoever sent it waits for its descriptor to be closed.
            "BARRIER" => yes,
            _ => false,
        };
        known |= understood;
    }
    known.then_some(told)
}

fn set(flag: &mut bool) -> bool {
    *flag = true;
    true
}

fn take<T>(to: &mut Option<T>, value: Option<T>) -> bool {
    let there = value.is_some();
    *to = value.or(to.take());
    there
}

/// Adds a later message to the sum of the earlier ones: what a new manager must hear.
pub(super) fn add(sum: &mut Told, told: &Told) {
    if told.ready {
        (sum.ready, sum.reloading) = (true, false);
    }
    sum.reloading |= told.reloading;
    sum.stopping |= told.stopping;
    sum.status = told.status.clone().or(sum.status.take());
    sum.watchdog = told.watchdog.or(sum.watchdog);
    sum.main = told.main.or(sum.main);
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_known_is_read() {
        let text = b"READY=1\nSTATUS=serving 3 of 5\nMAINPID=4711\nWATCHDOG_USEC=1500001\nX_FOO=bar\n";
        let told = Told {
            ready: true,
            status: Some("serving 3 of 5".into()),
            main: Some(4711),
            watchdog: Some(Millis(1501)),
            ..Told::default()
        };
        assert_eq!(parse(text), Some(told));
        assert_eq!(parse(b"BARRIER=1"), Some(Told::default()));
        assert_eq!(parse(b"WATCHDOG=trigger"), Some(Told { failing: true, ..Told::default() }));
        assert_eq!(parse(b"EXTEND_TIMEOUT_USEC=5000000").and_then(|t| t.extend), Some(Millis(5000)));
    }

    #[test]
    fn junk_means_nothing() {
        for junk in
            ["", "\n\n", "READY", "READY=0", "READY=yes", "MAINPID=-1", "MAINPID=99999999999", "=1", "\0\0"]
        {
            assert_eq!(parse(junk.as_bytes()), None, "{junk:?}");
        }
    }

    #[test]
    fn a_sum_is_how_it_is_now() {
        let mut sum = Told::default();
        for text in ["READY=1\nSTATUS=up", "RELOADING=1", "WATCHDOG=1", "STATUS=busy"] {
            add(&mut sum, &parse(text.as_bytes()).unwrap());
        }
        assert!(sum.ready && sum.reloading && !sum.alive, "{sum:?}");
        add(&mut sum, &parse(b"READY=1").unwrap());
        assert_eq!(sum, Told { ready: true, status: Some("busy".into()), ..Told::default() });
    }

    proptest! {
        /// War story 89: no message stops its reader, of whatever bytes and length.
        #[test]
        fn no_message_is_too_strange(bytes in prop::collection::vec(any::<u8>(), 0..65_536)) {
            let _ = parse(&bytes);
        }
    }
}
