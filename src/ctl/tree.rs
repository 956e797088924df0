//! `status --tree`: who waits for whom. Each service that nobody depends on, with what it needs below it.

use super::{
    fail::Fail,
    text::{Look, clean, style_of},
};
use serde::Deserialize;
use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, Write},
};

/// What is shown of a service.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Node {
    name: String,
    state: String,
    ready: bool,
    reason: String,
    requires: Vec<String>,
    wants: Vec<String>,
    after: Vec<String>,
}

#[derive(Debug, Deserialize)]
struct List {
    services: Vec<Node>,
}

impl Node {
    /// What it depends on, and how.
    fn below(&self) -> Vec<(&'static str, &str)> {
        let mut all: Vec<(&'static str, &str)> = Vec::new();
        for (word, names) in [("requires ", &self.requires), ("wants ", &self.wants), ("after ", &self.after)]
        {
            for name in names {
                if all.iter().all(|(_, known)| known != name) {
                    all.push((word, name));
                }
            }
        }
        all
    }
}

/// Prints the trees of the chosen services, or where there are none chosen of all that nobody depends on.
pub(super) fn print(out: &mut impl Write, look: Look, list: &[u8], chosen: &[String]) -> Result<(), Fail> {
    let List { services } = super::client::decode(list)?;
    let all: BTreeMap<&str, &Node> = services.iter().map(|s| (s.name.as_str(), s)).collect();
    let needed: BTreeSet<&str> = services.iter().flat_map(Node::below).map(|(_, name)| name).collect();
    let roots: Vec<&str> = match chosen {
        [] => all.keys().copied().filter(|name| !needed.contains(name)).collect(),
        some => all.keys().copied().filter(|name| some.iter().any(|c| c == name)).collect(),
    };
    let mut shown = BTreeSet::new();
    for name in roots {
        branch(out, look, &all, ("", name), "", "", &mut shown)?;
    }
    Ok(())
}

/// One service and what is below it; what was shown before is not shown again in full.
fn branch<'a>(
    out: &mut impl Write,
    look: Look,
    all: &BTreeMap<&'a str, &'a Node>,
    (word, name): (&str, &'a str),
    first: &str,
    rest: &str,
    shown: &mut BTreeSet<&'a str>,
) -> io::Result<()> {
    let Some(node) = all.get(name) else { return Ok(()) };
    let ready = if node.state == "running" && !node.ready { ", not ready" } else { "" };
    let state = look.paint(style_of(&node.state, node.ready), &format!("{}{ready}", clean(&node.state)));
    let why = if node.reason.is_empty() { String::new() } else { format!(": {}", clean(&node.reason)) };
    let below = node.below();
    let again = !shown.insert(name) && !below.is_empty();
    writeln!(out, "{first}{word}{} {state}{why}{}", clean(name), if again { " (see above)" } else { "" })?;
    if again {
        return Ok(());
    }
    let count = below.len();
    for (at, (word, name)) in below.into_iter().enumerate() {
        let (first, more) = if at + 1 == count { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        branch(out, look, all, (word, name), &format!("{rest}{first}"), &format!("{rest}{more}"), shown)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_needed_stands_below_and_in_full_once() {
        let list = r#"{"services":[
            {"name":"db","state":"running","ready":false,"reason":"not ready yet"},
            {"name":"cache","state":"running","ready":true,"reason":"","requires":["db"]},
            {"name":"web","state":"waiting","ready":false,"reason":"waiting for db",
                "requires":["db","cache"],"after":["db"]},
            {"name":"worker","state":"running","ready":true,"reason":"","wants":["cache"]}]}"#;
        let mut out = Vec::new();
        print(&mut out, Look::default(), list.as_bytes(), &[]).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "web waiting: waiting for db\n\
             ├─ requires db running, not ready: not ready yet\n\
             └─ requires cache running\n   └─ requires db running, not ready: not ready yet\n\
             worker running\n\
             └─ wants cache running (see above)\n"
        );
    }
}
