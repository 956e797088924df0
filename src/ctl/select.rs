//! Which services the names and patterns of a command line mean.

use super::{
    client::{Client, SOON, decode, segment},
    fail::{Fail, UNKNOWN},
};
use crate::{
    plan::Name,
    wire::{Brief, Briefs},
};
use bytes::Bytes;

/// The list of all services, with what most commands need of each.
pub(super) async fn list(client: &mut Client) -> Result<Bytes, Fail> {
    client.get_text("/v1/services?brief=true", SOON).await
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
) -> Result<Vec<Brief<'a>>, Fail> {
    let mut services = decode::<Briefs<'_>>(list)?.services;
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

fn means(name: &str, service: &Brief<'_>) -> bool {
    // Names cannot contain what stands for something else in patterns.
    Name::new(&service.name).is_meant_by(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::borrow::Cow;

    #[test]
    fn a_name_means_the_service_or_the_instance() {
        let s = Brief { name: "web@0".into(), service: "web".into(), ..Brief::default() };
        for name in ["web", "web@0", "w*", "*@0"] {
            assert!(means(name, &s), "{name}");
        }
        for name in ["we", "web@1", "*@1", "WEB"] {
            assert!(!means(name, &s), "{name}");
        }
    }

    #[test]
    fn the_list_is_read_in_place_and_escapes_are_undone() {
        let text = br#"{"services":[{"name":"web","reason":"a\nb","log":{"file":"/x"}}]}"#;
        let list = decode::<Briefs<'_>>(text).unwrap().services;
        assert!(matches!(list[0].name, Cow::Borrowed("web")));
        assert_eq!((list[0].reason.as_ref(), list[0].log.file.is_some()), ("a\nb", true));
    }
}
