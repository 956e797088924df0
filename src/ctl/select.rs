//! Which services the names and patterns of a command line mean.

use super::{
    client::{Client, SOON, segment},
    fail::{Fail, UNKNOWN},
};
use crate::wire::{Service, Services};

/// All services, sorted by name.
pub(super) async fn all(client: &mut Client) -> Result<Vec<Service>, Fail> {
    Ok(client.get::<Services>("/v1/services", SOON).await?.services)
}

/// True where a name has to be looked up in the list to know what it means.
pub(super) fn is_pattern(name: &str) -> bool {
    name.contains(['*', '?'])
}

/// The services that `names` mean, in the order of the list, each once; all where there are no names. Fails as a
/// whole if one of them means nothing, so that nothing is done by halves.
pub(super) async fn select(
    client: &mut Client,
    mut services: Vec<Service>,
    names: &[String],
) -> Result<Vec<Service>, Fail> {
    for name in names {
        if services.iter().any(|s| means(name, s)) {
            continue;
        }
        if is_pattern(name) {
            return Err(Fail::new(
                UNKNOWN,
                format!("no service matches `{name}`; `keepctl status` lists them"),
            ));
        }
        // The daemon knows the nearest name.
        let path = format!("/v1/services/{}", segment(name));
        client.get::<serde_json::Value>(&path, SOON).await?;
    }
    if !names.is_empty() {
        services.retain(|s| names.iter().any(|n| means(n, s)));
    }
    Ok(services)
}

fn means(name: &str, service: &Service) -> bool {
    if is_pattern(name) {
        matches(name, &service.name) || matches(name, &service.service)
    } else {
        name == service.name || name == service.service
    }
}

/// `*` stands for any text, `?` for any one character.
fn matches(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n) = (0, 0);
    // Where to go on if the text behind the last star turns out wrong: it then stands for one character more.
    let mut retry: Option<(usize, usize)> = None;
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                retry = Some((p, n));
                p += 1;
            }
            Some(&c) if c == '?' || c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => {
                let Some((star, from)) = retry else { return false };
                retry = Some((star, from + 1));
                p = star + 1;
                n = from + 1;
            }
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name) in [
            ("*", ""),
            ("web*", "web"),
            ("web*", "web@12"),
            ("*b*@?", "web@1"),
            ("w?b", "web"),
            ("**b", "b"),
            ("a*b*c", "abxbc"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in
            [("web*", "aweb"), ("?", ""), ("w?b", "wb"), ("*a", "ab"), ("", "a"), ("a*b*c", "acb")]
        {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn a_name_means_the_service_or_the_instance() {
        let s = Service { name: "web@0".into(), service: "web".into(), ..Service::default() };
        for name in ["web", "web@0", "w*", "*@0"] {
            assert!(means(name, &s), "{name}");
        }
        for name in ["we", "web@1", "*@1", "WEB"] {
            assert!(!means(name, &s), "{name}");
        }
    }
}
