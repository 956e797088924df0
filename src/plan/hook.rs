//! Hooks: what is called when something happens to services.

use super::{Millis, Name, ServiceSpec};
use serde::{Deserialize, Serialize};

/// `[hook.NAME]`
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// As configured.
    pub name: String,
    /// The kinds of events that it is called for, as they are called in the API: `log_loss`.
    pub on: Vec<String>,
    /// A command that gets the event as JSON on stdin: launched as a service is, and named `hook:NAME`.
    pub exec: Option<Box<ServiceSpec>>,
    /// Where the event is sent to.
    pub webhook: Option<Webhook>,
    /// How long a call may take.
    pub timeout: Millis,
}

/// An `http` URL, taken apart.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Webhook {
    /// A name or an address; that of IPv6 without its brackets.
    pub host: String,
    pub port: u16,
    /// Begins with a slash; with the query.
    pub path: String,
}

/// What an event is about, for the words of a command that name it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// `web@1`, or `keepd`.
    pub name: String,
    /// `1`
    pub instance: String,
}

/// A bit of the index of an entry of the plan: it is that of a hook's command.
pub const ENTRY: u32 = 1 << 31;

/// Stands for `${name}` and `${instance}` in the arguments of a hook until an event is known. Whoever builds the plan
/// puts them there; no other text can hold them.
pub const NAME: &str = "\u{1}name\u{1}";
pub const INSTANCE: &str = "\u{1}instance\u{1}";

impl Hook {
    /// What its command is called where services have their names.
    pub fn service(name: &str) -> Name {
        Name::new(&format!("hook:{name}"))
    }

    /// Whether that is the name of a hook's command and of no service.
    pub fn is_hook(name: &Name) -> bool {
        name.as_str().starts_with("hook:")
    }
}

impl Subject {
    /// Whether it is the name of a service or instance, and nothing else that an argument could be.
    pub fn is_sound(&self) -> bool {
        let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        let (service, instance) = self.name.split_once('@').unwrap_or((&self.name, "0"));
        Name::check(service).is_ok() && number(instance) && number(&self.instance)
    }

    /// The arguments of a hook's command for this event.
    pub fn fill(&self, argv: &[String]) -> Vec<String> {
        argv.iter().map(|arg| arg.replace(NAME, &self.name).replace(INSTANCE, &self.instance)).collect()
    }
}

impl Webhook {
    /// Reads `http://HOST[:PORT][/PATH]`.
    ///
    /// # Errors
    /// A sentence for people.
    pub fn parse(url: &str) -> Result<Webhook, String> {
        if url.starts_with("https:") {
            return Err("https is not supported by this version: name a proxy on this host, by http".into());
        }
        let rest = url.strip_prefix("http://").ok_or("it must begin with http://")?;
        let rest = rest.split('#').next().unwrap_or_default();
        let (authority, path) = rest.find(['/', '?']).map_or((rest, ""), |at| rest.split_at(at));
        if authority.contains('@') {
            return Err("it cannot hold a user or a password".into());
        }
        if url.contains(|c: char| c.is_whitespace() || c.is_control() || !c.is_ascii()) {
            return Err("it cannot hold spaces, control characters or what is not ASCII; use %XX".into());
        }
        let (host, port) = match authority.strip_prefix('[') {
            Some(v6) => {
                let (host, port) = v6.split_once(']').ok_or("its address is never closed with `]`")?;
                (host, port)
            }
            None => authority.find(':').map_or((authority, ""), |at| authority.split_at(at)),
        };
        if host.is_empty() {
            return Err("it names no host".into());
        }
        let port = match port {
            "" => 80,
            port => port
                .strip_prefix(':')
                .and_then(|p| p.parse().ok())
                .filter(|p| *p > 0)
                .ok_or("its port is no number from 1 to 65535")?,
        };
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(Webhook { host: host.into(), port, path })
    }

    /// As it stands in the head of a request.
    pub fn authority(&self) -> String {
        let Webhook { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_taken_apart() {
        let of = |url: &str| Webhook::parse(url).map(|w| (w.authority(), w.path));
        let fine = |authority: &str, path: &str| Ok((authority.to_owned(), path.to_owned()));
        assert_eq!(of("http://127.0.0.1:9093/hook?a=b#c"), fine("127.0.0.1:9093", "/hook?a=b"));
        assert_eq!(of("http://[::1]:9/x"), fine("[::1]:9", "/x"));
        assert_eq!(of("http://host"), fine("host:80", "/"));
        assert_eq!(of("http://host?q"), fine("host:80", "/?q"));
        for wrong in [
            "https://x/",
            "ftp://x",
            "http://",
            "http://:80/",
            "http://h:0/",
            "http://h:x/",
            "http://u:p@h/",
            "http://[::1/",
            "http://h/a b",
            "http://h/\u{e4}",
        ] {
            assert!(of(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_command_names_what_the_event_is_about() {
        let subject = Subject { name: "web@1".into(), instance: "1".into() };
        let argv = ["page".into(), format!("--service={NAME}/{INSTANCE}")];
        assert_eq!(subject.fill(&argv), ["page", "--service=web@1/1"]);
        assert!(subject.is_sound());
        for name in ["", "--evil", "web@", "web@x", "a b", "../web"] {
            assert!(!Subject { name: name.into(), ..subject.clone() }.is_sound(), "{name}");
        }
    }
}
