//! `${name} ${instance} ${port} ${profile} ${host}` and `$$` in text. Nothing else is expanded, neither the
//! environment nor anything a shell would.

use std::borrow::Cow;

/// What the variables stand for, for one instance of a service.
#[derive(Debug)]
pub(super) struct Vars<'a> {
    /// `web`, or `web@1`.
    pub(super) name: &'a str,
    /// 0 where there is only one.
    pub(super) instance: u32,
    /// `port` plus the instance's index.
    pub(super) port: Option<u64>,
    pub(super) profile: Option<&'a str>,
    pub(super) host: &'a str,
}

/// Expands; the error is a sentence without its subject's place.
pub(super) fn expand<'t>(text: &'t str, vars: &Vars<'_>) -> Result<Cow<'t, str>, String> {
    if !text.contains('$') {
        return Ok(text.into());
    }
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(after) = rest.strip_prefix('{') {
            let Some((name, after)) = after.split_once('}') else {
                return Err("`${` is never closed (write `$${` for the text itself)".into());
            };
            out.push_str(&value(name, vars)?);
            rest = after;
        } else {
            out.push('$');
        }
    }
    out.push_str(rest);
    Ok(out.into())
}

fn value<'v>(name: &str, vars: &'v Vars<'_>) -> Result<Cow<'v, str>, String> {
    Ok(match name {
        "name" => vars.name.into(),
        "instance" => vars.instance.to_string().into(),
        "host" => vars.host.into(),
        "port" => vars.port.ok_or("`${port}` has no value: the service has no `port`")?.to_string().into(),
        "profile" => vars.profile.ok_or("`${profile}` has no value: no profile is chosen")?.into(),
        _ => {
            let name = name.escape_debug();
            return Err(format!(
                "unknown variable `${{{name}}}`: there are ${{name}}, ${{instance}}, ${{port}}, ${{profile}} \
                 and ${{host}} (write `$${{{name}}}` for the text itself)"
            ));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const VARS: Vars<'_> = Vars { name: "web@1", instance: 1, port: Some(3001), profile: None, host: "box" };

    #[test]
    fn variables_and_dollars() {
        for (text, result) in [
            ("plain", "plain"),
            ("${name}-${instance}:${port} on ${host}", "web@1-1:3001 on box"),
            ("$HOME $ $5 $$ $${name} $$$${x}", "$HOME $ $5 $ ${name} $${x}"),
            ("$", "$"),
        ] {
            assert_eq!(expand(text, &VARS).unwrap(), result, "{text}");
        }
    }

    #[test]
    fn what_has_no_value_is_refused() {
        for (text, why) in [
            ("${prot}", "unknown variable `${prot}`"),
            ("${}", "unknown variable"),
            ("${HOME:-x}", "unknown variable"),
            ("${name", "never closed"),
            ("${profile}", "no profile is chosen"),
        ] {
            assert!(expand(text, &VARS).unwrap_err().contains(why), "{text}");
        }
        assert!(expand("${port}", &Vars { port: None, ..VARS }).unwrap_err().contains("no `port`"));
    }
}
