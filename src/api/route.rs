//! Every route, in one table: what it is called with, who may call it, which parameters it knows. A request that
//! fits no row reaches no code; there is no other way in.

use crate::manager::Action;

/// What a caller may do; each role may do what those before it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Nothing.
    Stranger,
    /// Look.
    Reader,
    /// Look and act.
    Admin,
}

/// What a route does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    Status,
    Services,
    Service,
    Why,
    Act(Action),
    Signal,
    Logs,
    LogsOfMany,
    Events,
    Plan,
    Metrics,
    Apply,
    Reopen,
    Upgrade,
    Shutdown,
    Alive,
    Ready,
}

/// One row of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// `GET` (and then `HEAD` too) or `POST`.
    pub method: &'static str,
    /// `{name}` stands for one segment.
    pub path: &'static str,
    /// The least role that may call it.
    pub needs: Role,
    /// The keys of its query; any other is refused.
    pub query: &'static [&'static str],
    pub call: Call,
}

const WAIT: &[&str] = &["wait", "timeout"];

/// The table.
pub const ROUTES: &[Route] = &[
    get("/v1/status", &[], Call::Status),
    get("/v1/services", &["brief"], Call::Services),
    get("/v1/services/{name}", &[], Call::Service),
    get("/v1/services/{name}/why", &[], Call::Why),
    get(
        "/v1/services/{name}/logs",
        &["lines", "follow", "stream", "since", "until", "grep", "format"],
        Call::Logs,
    ),
    get("/v1/logs", &["services", "lines", "follow", "stream", "since", "until", "grep"], Call::LogsOfMany),
    get("/v1/events", &["after", "follow"], Call::Events),
    get("/v1/plan", &[], Call::Plan),
    get("/metrics", &[], Call::Metrics),
    get("/healthz", &[], Call::Alive),
    get("/readyz", &[], Call::Ready),
    post("/v1/services/{name}/start", WAIT, Call::Act(Action::Start)),
    post("/v1/services/{name}/stop", WAIT, Call::Act(Action::Stop)),
    post("/v1/services/{name}/restart", WAIT, Call::Act(Action::Restart)),
    post("/v1/services/{name}/reload", WAIT, Call::Act(Action::Reload)),
    post("/v1/services/{name}/signal", WAIT, Call::Signal),
    post("/v1/apply", WAIT, Call::Apply),
    post("/v1/reopen", &[], Call::Reopen),
    post("/v1/upgrade", &[], Call::Upgrade),
    post("/v1/shutdown", &["force"], Call::Shutdown),
];

const fn get(path: &'static str, query: &'static [&'static str], call: Call) -> Route {
    Route { method: "GET", path, needs: Role::Reader, query, call }
}

const fn post(path: &'static str, query: &'static [&'static str], call: Call) -> Route {
    Route { method: "POST", path, needs: Role::Admin, query, call }
}

/// Why there is no route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Miss {
    /// Nothing has this path.
    Path,
    /// The path exists with these methods only, as the `Allow` header wants them.
    Method(&'static str),
}

/// Looks a request up; with it comes the text that stands where the path has `{name}`, decoded, else "".
pub fn find(method: &str, path: &str) -> Result<(&'static Route, String), Miss> {
    let mut miss = Miss::Path;
    for route in ROUTES {
        let Some(name) = matches(route.path, path) else { continue };
        if route.method == method || (route.method == "GET" && method == "HEAD") {
            return Ok((route, name));
        }
        miss = Miss::Method(if route.method == "GET" { "GET, HEAD" } else { "POST" });
    }
    Err(miss)
}

fn matches(pattern: &str, path: &str) -> Option<String> {
    let mut name = String::new();
    let mut given = path.split('/');
    for wanted in pattern.split('/') {
        let part = given.next()?;
        if wanted == "{name}" {
            name = decode(part).filter(|n| !n.is_empty())?;
        } else if wanted != part {
            return None;
        }
    }
    given.next().is_none().then_some(name)
}

/// Undoes percent-encoding; `None` where it is malformed or no UTF-8. A `+` stays what it is.
pub(super) fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        if b != b'%' {
            out.push(b);
            continue;
        }
        let mut digit = || char::from(bytes.next()?).to_digit(16);
        out.push(u8::try_from(digit()? * 16 + digit()?).ok()?);
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_is_found_by_its_method_only() {
        for route in ROUTES {
            let path = route.path.replace("{name}", "web@0");
            let (found, name) = find(route.method, &path).unwrap();
            assert_eq!(found.call, route.call);
            assert_eq!(name, if route.path.contains("{name}") { "web@0" } else { "" });
            for method in ["PUT", "DELETE", "PATCH", "OPTIONS", "get"] {
                assert!(matches!(find(method, &path), Err(Miss::Method(_))), "{method} {path}");
            }
            for wrong in [format!("{path}/"), format!("{path}/x"), format!("/{path}"), path.to_uppercase()] {
                let hit = find(route.method, &wrong);
                assert!(
                    hit.as_ref().is_ok_and(|h| h.0.call != route.call) || hit == Err(Miss::Path),
                    "{wrong}"
                );
            }
        }
        assert_eq!(find("GET", "/v1/apply").unwrap_err(), Miss::Method("POST"));
        assert_eq!(find("POST", "/v1/plan").unwrap_err(), Miss::Method("GET, HEAD"));
        assert_eq!(find("HEAD", "/v1/plan").unwrap().0.call, Call::Plan);
    }

    #[test]
    fn what_changes_something_needs_an_admin_and_nothing_is_open_to_strangers() {
        for route in ROUTES {
            assert_eq!(route.needs, if route.method == "GET" { Role::Reader } else { Role::Admin });
        }
    }

    #[test]
    fn names_are_decoded_and_cannot_reach_other_paths() {
        assert_eq!(find("GET", "/v1/services/web%400").unwrap().1, "web@0");
        assert_eq!(find("GET", "/v1/services/a%2Flogs").unwrap().1, "a/logs");
        assert_eq!(find("GET", "/v1/services/..%2f..").unwrap().1, "../..");
        for path in ["/v1/services/", "/v1/services/%", "/v1/services/%zz", "/v1/services/%ff", "", "/", "*"]
        {
            assert_eq!(find("GET", path).unwrap_err(), Miss::Path, "{path}");
        }
    }

    #[test]
    fn the_documentation_has_every_row_and_no_other() {
        let rows = include_str!("../../docs/api.md").lines().filter(|l| l.starts_with("| `"));
        let told: Vec<(&str, Vec<&str>, &str)> = rows
            .map(|l| l.split('|').map(str::trim).collect::<Vec<_>>())
            .filter(|cells| cells.len() == 5)
            .map(|cells| {
                let query = cells[2].split(';').next().unwrap_or_default();
                (
                    cells[1].trim_matches('`'),
                    query.split_whitespace().map(|q| q.trim_matches('`')).collect(),
                    cells[3],
                )
            })
            .collect();
        let known: Vec<(String, Vec<&str>, &str)> = ROUTES
            .iter()
            .map(|r| {
                let needs = if r.needs == Role::Reader { "reader" } else { "admin" };
                (format!("{} {}", r.method, r.path), r.query.to_vec(), needs)
            })
            .collect();
        let known: Vec<_> =
            known.iter().map(|(call, query, needs)| (call.as_str(), query.clone(), *needs)).collect();
        assert_eq!(told, known);
    }
}
