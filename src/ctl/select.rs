//! Which services the names and patterns of a command line mean.

use super::{
    client::{Client, SOON, decode, segment},
    fail::{Fail, UNKNOWN},
};
use crate::plan::Name;
use bytes::Bytes;
use serde::{Deserialize, de::IgnoredAny};
use std::borrow::Cow;

/// What the commands need of each service of the list; the rest of a long list is not worth its copies.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Listed<'a> {
    #[serde(borrow)]
    pub(super) name: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) service: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) description: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) state: Cow<'a, str>,
    #[serde(borrow)]
    pub(super) reason: Cow<'a, str>,
    pub(super) ready: bool,
    pub(super) pid: Option<u32>,
    pub(super) uptime_ms: Option<u64>,
    pub(super) next_start_in_ms: Option<u64>,
    pub(super) restarts: u32,
    pub(super) log: Log,
}

/// Of [`Listed`].
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Log {
    /// Whether there is one.
    pub(super) file: Option<IgnoredAny>,
    /// Whether stderr has one of its own.
    pub(super) stderr_file: Option<IgnoredAny>,
}

/// All services.
#[derive(Debug, Deserialize)]
pub(super) struct List<'a> {
    #[serde(borrow)]
    pub(super) services: Vec<Listed<'a>>,
}

/// The list of all services as keepd gives it.
pub(super) async fn list(client: &mut Client) -> Result<Bytes, Fail> {
    client.get_text("/v1/services", SOON).await
}

/// True where a name has to be looked up in the list to know what it means.
pub(super) fn is_pattern(name: &str) -> bool {
    name.contains(['*', '?'])
}

/// The services of a [`list`] that `names` mean, in its order, each once; all where there are no names. Fails as a
/// whole if one of them means nothing, so that nothing is done by halves.
pub(super) async fn select<'a>(
    client: &mut Client,
    list: &'a [u8],
    names: &[String],
) -> Result<Vec<Listed<'a>>, Fail> {
    let mut services = decode::<List<'_>>(list)?.services;
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
        client.get_text(&format!("/v1/services/{}", segment(name)), SOON).await?;
    }
    if !names.is_empty() {
        services.retain(|s| names.iter().any(|n| means(n, s)));
    }
    Ok(services)
}

fn means(name: &str, service: &Listed<'_>) -> bool {
    // Names cannot contain what stands for something else in patterns.
    Name::new(&service.name).is_meant_by(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_means_the_service_or_the_instance() {
        let s = Listed { name: "web@0".into(), service: "web".into(), ..Listed::default() };
        for name in ["web", "web@0", "w*", "*@0"] {
            assert!(means(name, &s), "{name}");
        }
        for name in ["we", "web@1", "*@1", "WEB"] {
            assert!(!means(name, &s), "{name}");
        }
    }

    #[test]
    fn the_list_is_read_in_place_and_escapes_are_undone() {
        let full = crate::wire::Service {
            name: "web".into(),
            reason: "a\nb".into(),
            log: crate::wire::Log { file: Some("/x".into()), ..Default::default() },
            ..Default::default()
        };
        let text = serde_json::to_vec(&crate::wire::Services { services: vec![full] }).unwrap();
        let list = decode::<List<'_>>(&text).unwrap().services;
        assert!(matches!(list[0].name, Cow::Borrowed("web")));
        assert_eq!((list[0].reason.as_ref(), list[0].log.file.is_some()), ("a\nb", true));
    }
}
