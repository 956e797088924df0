//! How a command fails: an exit status and a sentence that says what to do.

use crate::wire;
use std::io;

/// It did not get there.
pub(super) const FAILED: u8 = 1;
/// Wrong arguments.
pub(super) const USAGE: u8 = 2;
/// `plan --exit-code` found changes.
pub(super) const CHANGES: u8 = 2;
/// Some listed service is not running.
pub(super) const NOT_RUNNING: u8 = 3;
/// No service has this name.
pub(super) const UNKNOWN: u8 = 4;
/// `import` could not take everything over.
pub(super) const LEFT_OUT: u8 = 5;
/// keepd cannot be reached.
pub(super) const UNREACHABLE: u8 = 69;
/// Not permitted.
pub(super) const FORBIDDEN: u8 = 77;
/// The configuration is broken.
pub(super) const CONFIGURATION: u8 = 78;
/// What a shell shows for a process that SIGPIPE has ended.
const PIPE: u8 = 128 + 13;

/// The end of a command that did not succeed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fail {
    pub(super) status: u8,
    /// Empty: nothing more is to be said.
    pub(super) message: String,
}

impl Fail {
    pub(super) fn new(status: u8, message: impl Into<String>) -> Fail {
        Fail { status, message: message.into() }
    }
}

/// Of writing to stdout; whoever read it may have had enough.
impl From<io::Error> for Fail {
    fn from(e: io::Error) -> Fail {
        match e.kind() {
            io::ErrorKind::BrokenPipe => Fail::new(PIPE, ""),
            _ => Fail::new(FAILED, format!("cannot write the output: {e}")),
        }
    }
}

/// What the daemon refused.
impl From<wire::Problem> for Fail {
    fn from(p: wire::Problem) -> Fail {
        if !p.diagnostics.is_empty() {
            let errors: Vec<&str> = p.diagnostics.iter().map(|d| d.rendered.trim_end()).collect();
            return Fail::new(CONFIGURATION, format!("{}\n\n{}", p.detail, errors.join("\n\n")));
        }
        let status = match p.status {
            400 | 422 => USAGE,
            403 => FORBIDDEN,
            404 => UNKNOWN,
            _ => FAILED,
        };
        Fail::new(status, p.detail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_refusal_has_its_exit_status() {
        let status = |code| Fail::from(wire::Problem { status: code, ..Default::default() }).status;
        let seen = [400, 403, 404, 409, 413, 422, 500, 503].map(status);
        assert_eq!(seen, [USAGE, FORBIDDEN, UNKNOWN, FAILED, FAILED, USAGE, FAILED, FAILED]);
        let diagnostics = vec![wire::Diagnostic { rendered: "error: x\n".into(), ..Default::default() }];
        let broken =
            Fail::from(wire::Problem { status: 422, detail: "d".into(), diagnostics, ..Default::default() });
        assert_eq!(broken, Fail::new(CONFIGURATION, "d\n\nerror: x"));
    }

    #[test]
    fn a_reader_that_has_had_enough_is_no_news() {
        assert_eq!(Fail::from(io::Error::from(io::ErrorKind::BrokenPipe)), Fail::new(141, ""));
        assert_eq!(Fail::from(io::Error::from(io::ErrorKind::StorageFull)).status, FAILED);
    }
}
