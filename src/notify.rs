//! sd_notify, upwards: readiness, status and the watchdog. Where no socket is given everything is silently
//! nothing. A message never waits and never fails the caller: whom systemd does not hear, it asks for nothing.

#![forbid(unsafe_code)]

use crate::sys::{clock, process};
use sd_notify::NotifyState;
use std::{
    ffi::OsString,
    os::linux::net::SocketAddrExt,
    os::unix::{
        ffi::OsStrExt,
        net::{SocketAddr, UnixDatagram},
    },
};

/// Variables that are for keepd alone; no child gets them.
pub const VARIABLES: [&str; 6] =
    ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"];

/// The way to the service manager that started us.
#[derive(Debug, Default)]
pub struct Upward {
    socket: Option<UnixDatagram>,
    watchdog: Option<Watchdog>,
}

/// The kept promise that the manager answers: half of the time allowed after a `Ping`, another is due.
#[derive(Debug)]
struct Watchdog {
    half_ms: u64,
    next: u64,
    answered: bool,
}

impl Upward {
    /// From the environment that systemd gave us.
    pub fn from_env() -> Upward {
        let get = |name| std::env::var_os(name).filter(|v: &OsString| !v.is_empty());
        let number = |name| get(name)?.to_str()?.parse::<u64>().ok();
        let socket = get("NOTIFY_SOCKET").and_then(|path| connect(path.as_bytes()));
        let ours = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(process::pid()));
        let watchdog = number("WATCHDOG_USEC").filter(|us| ours && *us > 0 && socket.is_some()).map(|us| {
            let half_ms = (us / 2000).max(1);
            Watchdog { half_ms, next: clock::boottime_ms() + half_ms, answered: true }
        });
        Upward { socket, watchdog }
    }

    /// Whether anybody listens.
    pub fn heard(&self) -> bool {
        self.socket.is_some()
    }

    /// READY=1: loaded, or reloaded.
    pub fn ready(&self) {
        self.send(&[NotifyState::Ready]);
    }

    /// RELOADING=1.
    pub fn reloading(&self) {
        let now = i128::from(clock::monotonic_us());
        self.send(&[NotifyState::Reloading, NotifyState::MonotonicUsec(now)]);
    }

    /// STATUS: one sentence; of several lines the first.
    pub fn status(&self, text: &str) {
        self.send(&[NotifyState::Status(text.lines().next().unwrap_or(""))]);
    }

    /// STOPPING=1.
    pub fn stopping(&self) {
        self.send(&[NotifyState::Stopping]);
    }

    /// Give us so many milliseconds more.
    pub fn extend(&self, ms: u64) {
        let us = u32::try_from(ms.saturating_mul(1000)).unwrap_or(u32::MAX);
        self.send(&[NotifyState::ExtendTimeoutUsec(us)]);
    }

    /// When the next `Ping` is due, in ms of boot time.
    pub fn ping_at(&self) -> Option<u64> {
        self.watchdog.as_ref().map(|w| w.next)
    }

    /// Whether a `Ping` is due now; the next one is then half of the watchdog's time away.
    pub fn ping_due(&mut self, now: u64) -> bool {
        let Some(w) = self.watchdog.as_mut().filter(|w| now >= w.next) else { return false };
        w.next = now + w.half_ms;
        w.answered = false;
        true
    }

    /// The manager answered: WATCHDOG=1, once per `Ping`.
    pub fn pong(&mut self) {
        if let Some(w) = self.watchdog.as_mut().filter(|w| !w.answered) {
            w.answered = true;
            self.send(&[NotifyState::Watchdog]);
        }
    }

    fn send(&self, states: &[NotifyState<'_>]) {
        let Some(socket) = &self.socket else { return };
        let text: String = states.iter().map(|s| format!("{s}\n")).collect();
        let _ = socket.send(text.as_bytes());
    }
}

/// A path, or `@name` in the abstract namespace.
fn connect(path: &[u8]) -> Option<UnixDatagram> {
    let address = match path.strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path)),
    };
    let socket = UnixDatagram::unbound().ok()?;
    socket.set_nonblocking(true).ok()?;
    socket.connect_addr(&address.ok()?).ok()?;
    Some(socket)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upward(watchdog: Option<Watchdog>) -> (Upward, UnixDatagram) {
        let (ours, theirs) = UnixDatagram::pair().unwrap();
        theirs.set_nonblocking(true).unwrap();
        (Upward { socket: Some(ours), watchdog }, theirs)
    }

    fn heard(socket: &UnixDatagram) -> Option<String> {
        let mut buf = [0u8; 512];
        let n = socket.recv(&mut buf).ok()?;
        Some(String::from_utf8_lossy(&buf[..n]).into_owned())
    }

    #[test]
    fn says_what_systemd_expects() {
        let (up, socket) = upward(None);
        up.ready();
        assert_eq!(heard(&socket).unwrap(), "READY=1\n");
        up.status("one\ntwo=3");
        assert_eq!(heard(&socket).unwrap(), "STATUS=one\n");
        up.extend(1500);
        assert_eq!(heard(&socket).unwrap(), "EXTEND_TIMEOUT_USEC=1500000\n");
        up.reloading();
        let text = heard(&socket).unwrap();
        assert!(text.starts_with("RELOADING=1\nMONOTONIC_USEC="), "{text}");
        up.stopping();
        assert_eq!(heard(&socket).unwrap(), "STOPPING=1\n");
    }

    #[test]
    fn the_watchdog_is_fed_by_answers_only() {
        let (mut up, socket) = upward(Some(Watchdog { half_ms: 50, next: 1000, answered: true }));
        up.pong();
        assert!(!up.ping_due(999));
        assert_eq!(heard(&socket), None);
        assert!(up.ping_due(1000) && !up.ping_due(1049) && up.ping_due(1050));
        assert_eq!(heard(&socket), None);
        up.pong();
        up.pong();
        assert_eq!(heard(&socket).unwrap(), "WATCHDOG=1\n");
        assert_eq!(heard(&socket), None);
        assert_eq!(up.ping_at(), Some(1100));
    }

    #[test]
    fn reaches_an_abstract_socket() {
        let name = format!("keepd-test-{}", process::pid());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        let server = UnixDatagram::bind_addr(&address).unwrap();
        let up = Upward { socket: connect(format!("@{name}").as_bytes()), watchdog: None };
        up.ready();
        assert_eq!(heard(&server).unwrap(), "READY=1\n");
    }
}
