//! The `ready` and `live` tables: what they come to for one instance, and what in them contradicts itself.

#![forbid(unsafe_code)]

use super::{diagnostic::At, service::Instance, settings::Settings};
use crate::plan::{Check, Http, Live, LiveAction, Probe, Ready, Target, Tells};
use regex::bytes::Regex;
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

/// The keys of which exactly one says what is asked. Those of a stronger layer replace those of a weaker one.
pub(super) static READY: [&str; 7] =
    ["ready.notify", "ready.fd", "ready.http", "ready.tcp", "ready.unix", "ready.exec", "ready.log"];
pub(super) static LIVE: [&str; 5] = ["live.notify", "live.http", "live.tcp", "live.unix", "live.exec"];

/// The keys of one of the two tables.
struct Keys {
    all: &'static [&'static str],
    /// The table's name.
    table: &'static str,
    interval: &'static str,
    timeout: &'static str,
    failures: &'static str,
    successes: &'static str,
    http: [&'static str; 3],
}

static KEYS: [Keys; 2] = [
    Keys {
        all: &READY,
        table: "ready",
        interval: "ready.interval",
        timeout: "ready.timeout",
        failures: "ready.failures",
        successes: "ready.successes",
        http: ["ready.http-status", "ready.http-body", "ready.http-headers"],
    },
    Keys {
        all: &LIVE,
        table: "live",
        interval: "live.interval",
        timeout: "live.timeout",
        failures: "live.failures",
        successes: "",
        http: ["live.http-status", "live.http-body", "live.http-headers"],
    },
];

impl Instance<'_, '_> {
    pub(super) fn ready(&mut self) -> Option<Ready> {
        let probe = self.probe(&KEYS[0])?;
        let within = self.service.settings.time("ready.within").unwrap_or_default();
        Some(Ready { probe: Arc::new(probe), within })
    }

    pub(super) fn live(&mut self) -> Option<Live> {
        let probe = self.probe(&KEYS[1])?;
        let alert = self.service.settings.choice("live.action") == "alert";
        let action = if alert { LiveAction::Alert } else { LiveAction::Restart };
        Some(Live { probe: Arc::new(probe), action })
    }

    fn probe(&mut self, keys: &Keys) -> Option<Probe> {
        let s = &self.service.settings;
        let at = |keys: &[&str]| s.written(keys).unwrap_or(self.service.at);
        let chosen: Vec<&'static str> = keys.all.iter().copied().filter(|key| is_asked_for(s, key)).collect();
        let (key, others) = match chosen.split_first() {
            Some((key, others)) => (*key, others),
            None => return None,
        };
        if let Some(other) = others.first() {
            let message = format!("`{key}` and `{other}` cannot both be given: a service is asked one thing");
            self.problems.error(at(&[other]), message);
        }
        let interval = s.time(keys.interval).unwrap_or_default();
        let (given, usual) = (s.written(&[keys.timeout]), s.time(keys.timeout).unwrap_or_default());
        let timeout = if given.is_some() { usual } else { usual.min(interval) };
        if let Some(at) = given.filter(|_| timeout > interval) {
            let message = format!(
                "`{}` ({timeout}) is longer than `{}` ({interval}): an answer is waited for until the next question",
                keys.timeout, keys.interval
            );
            self.problems.error(at, message);
        }
        self.check_idle_keys(keys, key, given);
        let check = self.check(keys, key)?;
        let s = &self.service.settings;
        Some(Probe {
            check,
            interval,
            timeout,
            failures: s.small(keys.failures).max(1),
            successes: s.small(keys.successes).max(1),
        })
    }

    /// Refuses what could have no effect with this choice.
    fn check_idle_keys(&mut self, keys: &Keys, key: &str, timeout: Option<At>) {
        let s = &self.service.settings;
        if let Some(at) = timeout.filter(|_| key.ends_with(".notify")) {
            let message = format!(
                "`{}` has no effect with `{key}`: nobody is asked, the service tells by itself",
                keys.timeout
            );
            self.problems.error(at, message);
        }
        if !key.ends_with(".http") {
            for idle in keys.http {
                if let Some(at) = s.written(&[idle]).or_else(|| s.map(idle).next().map(|(_, item)| item.at)) {
                    self.problems.error(at, format!("`{idle}` has no effect without `{}.http`", keys.table));
                }
            }
        }
    }

    fn check(&mut self, keys: &Keys, key: &'static str) -> Option<Check> {
        let s = &self.service.settings;
        if key.ends_with(".notify") {
            return Some(Check::Notify);
        }
        if key.ends_with(".exec") {
            let argv = self.command(s.items(key));
            if argv.is_empty() {
                let at = s.written(&[key]).unwrap_or(self.service.at);
                self.problems.error(at, format!("`{key}` is empty"));
            }
            return (!argv.is_empty()).then_some(Check::Exec(argv));
        }
        if let Some(number) = s.count(key) {
            return i32::try_from(number).ok().map(Check::Fd);
        }
        let (text, at) = s.text(key)?;
        let text = if key.ends_with(".log") { text.to_owned() } else { self.expand(text, at) };
        let made = match key.rsplit('.').next() {
            Some("http") => self.http(keys, &text).map(Check::Http),
            Some("tcp") => address(&text, None).map(Check::Tcp),
            Some("unix") => Ok(Check::Unix(self.context.path(&text, at))),
            _ => self.line(text).map(Check::Log),
        };
        let made = made.and_then(|check| self.reachable(check));
        made.map_err(|why| self.problems.error(at, format!("`{key}`: {why}"))).ok()
    }

    /// Where nobody outside of the service can connect to, only a command run as the service can ask.
    fn reachable(&self, check: Check) -> Result<Check, String> {
        let tcp = match &check {
            Check::Tcp(_) => true,
            Check::Http(get) => matches!(get.to, Target::Tcp(_)),
            Check::Notify | Check::Fd(_) | Check::Unix(_) | Check::Exec(_) | Check::Log(_) => false,
        };
        if tcp && self.service.settings.flag("sandbox.private-network") {
            return Err("nobody can connect to a service with `sandbox.private-network`; use `exec`".into());
        }
        Ok(check)
    }

    fn line(&self, pattern: String) -> Result<String, String> {
        let s = &self.service.settings;
        if s.choice("logs.stdout") == "discard" && s.choice("logs.stderr") != "separate" {
            return Err("its output is discarded, see `logs.stdout`".into());
        }
        regex(pattern)
    }

    fn http(&mut self, keys: &Keys, url: &str) -> Result<Http, String> {
        let [status, body, headers] = keys.http;
        let (to, host, path) = target(url)?;
        let status = match self.service.settings.text(status) {
            Some((text, at)) => statuses(text).unwrap_or_else(|why| {
                self.problems.error(at, format!("`{status}`: {why}"));
                (200, 399)
            }),
            None => (200, 399),
        };
        let body = match self.service.settings.text(body) {
            Some((text, at)) => {
                regex(text.to_owned()).map_err(|why| self.problems.error(at, format!("`{body}`: {why}"))).ok()
            }
            None => None,
        };
        let mut out = std::collections::BTreeMap::new();
        let written: Vec<_> = self.service.settings.map(headers).cloned().collect();
        for (name, item) in written {
            let value = self.expand(&item.text, item.at);
            let token = |c: char| c.is_ascii_alphanumeric() || "-_.!#$%&'*+^`|~".contains(c);
            if name.is_empty() || !name.chars().all(token) || value.chars().any(char::is_control) {
                self.problems.error(item.at, format!("`{headers}`: `{name}` cannot be sent as a header"));
            }
            out.insert(name, value);
        }
        Ok(Http { url: url.to_owned(), to, path, host, status, body, headers: out })
    }
}

/// What it can tell us through.
pub(super) fn tells(ready: Option<&Ready>, live: Option<&Live>) -> Tells {
    let watchdog = live.filter(|live| live.probe.check == Check::Notify).map(|live| live.probe.interval);
    let notify = watchdog.is_some() || ready.is_some_and(|ready| ready.probe.check == Check::Notify);
    let fd = ready.and_then(|ready| if let Check::Fd(fd) = ready.probe.check { Some(fd) } else { None });
    Tells { notify, watchdog, fd }
}

fn is_asked_for(s: &Settings<'_>, key: &str) -> bool {
    if key.ends_with(".notify") { s.flag(key) } else { s.entry(key).is_some() }
}

fn regex(pattern: String) -> Result<String, String> {
    match Regex::new(&pattern) {
        Ok(_) => Ok(pattern),
        Err(e) => {
            let last = e.to_string().lines().last().unwrap_or_default().trim().to_owned();
            Err(format!("no regular expression: {}", last.strip_prefix("error: ").unwrap_or(&last)))
        }
    }
}

/// `"200-399"` or `"204"`.
fn statuses(text: &str) -> Result<(u16, u16), String> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |s: &str| s.trim().parse::<u16>().ok().filter(|n| (100..600).contains(n));
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => Ok((first, last)),
        _ => Err(format!("`{text}` is no range of status codes such as \"200-399\"")),
    }
}

/// `http://HOST[:PORT][/PATH]` or `http://unix:/SOCKET:/PATH`: where to, the Host header, and the path.
fn target(url: &str) -> Result<(Target, String, String), String> {
    let rest = match url.split_once("://") {
        Some(("http", rest)) => rest,
        Some(("https", _)) => {
            return Err("https is not supported; ask over plain HTTP, or with `exec`".into());
        }
        _ => return Err(format!("`{url}` does not begin with http://")),
    };
    if url.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err(format!("`{url}` has a blank in it"));
    }
    if let Some(rest) = rest.strip_prefix("unix:") {
        let (socket, path) = rest.split_once(':').unwrap_or((rest, "/"));
        if !socket.starts_with('/') || !path.starts_with('/') {
            return Err(format!("`{url}` is not of the form http://unix:/run/web.sock:/health"));
        }
        return Ok((Target::Unix(PathBuf::from(socket)), "localhost".into(), path.to_owned()));
    }
    let at = rest.find(['/', '?']).unwrap_or(rest.len());
    let (host, path) = rest.split_at(at);
    if host.contains('@') {
        return Err("a user in the URL is not supported; use `http-headers`".into());
    }
    let path = path.split('#').next().unwrap_or("");
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    Ok((Target::Tcp(address(host, Some(80))?), host.to_owned(), path))
}

/// `HOST:PORT`; a name would have to be looked up, which may take long and needs others.
fn address(text: &str, usual: Option<u16>) -> Result<Vec<SocketAddr>, String> {
    let bad = || format!("`{text}` is no address such as 127.0.0.1:8080, [::1]:8080 or localhost:8080");
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port.parse::<u16>().map_err(|_| bad())?)),
        _ => (text, usual),
    };
    let port = port.filter(|port| *port > 0).ok_or_else(bad)?;
    if host == "localhost" {
        let both = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
        return Ok(both.map(|ip| SocketAddr::new(ip, port)).to_vec());
    }
    let ip = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(six) => six.parse::<Ipv6Addr>().map(IpAddr::V6).map_err(|_| bad())?,
        None => host.parse::<Ipv4Addr>().map(IpAddr::V4).map_err(|_| bad())?,
    };
    Ok(vec![SocketAddr::new(ip, port)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_lead_to_addresses_and_sockets() {
        let (to, host, path) = target("http://127.0.0.1:3000/health?x=1#top").unwrap();
        assert_eq!(
            (to, host.as_str()),
            (Target::Tcp(vec!["127.0.0.1:3000".parse().unwrap()]), "127.0.0.1:3000")
        );
        assert_eq!(path, "/health?x=1");
        let (to, host, path) = target("http://unix:/run/web.sock:/up").unwrap();
        assert_eq!(
            (to, host.as_str(), path.as_str()),
            (Target::Unix("/run/web.sock".into()), "localhost", "/up")
        );
        let (to, _, path) = target("http://localhost").unwrap();
        assert_eq!(path, "/");
        assert!(matches!(to, Target::Tcp(both) if both.len() == 2 && both[0].port() == 80));
        assert!(matches!(target("http://[::1]:8/").unwrap().0, Target::Tcp(one) if one[0].is_ipv6()));
        for bad in
            ["https://127.0.0.1/", "127.0.0.1/", "http://example.org/", "http://127.0.0.1:0/", "http://a b/"]
        {
            assert!(target(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn statuses_are_a_range() {
        assert_eq!((statuses("204"), statuses("200-399")), (Ok((204, 204)), Ok((200, 399))));
        for bad in ["", "99", "600", "300-200", "2xx", "200-"] {
            assert!(statuses(bad).is_err(), "{bad}");
        }
    }
}
