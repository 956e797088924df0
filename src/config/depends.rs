//! Who depends on whom: names in `requires`, `wants`, `after` and `binds-to` resolved to instances, and cycles
//! over all four kinds together.

use super::{
    diagnostic::{At, Problems},
    schema::closest,
    value::Item,
};
use crate::plan::{Name, order::find_cycle};
use std::collections::{BTreeMap, HashMap};

/// How many cycles are named before the rest is left for the next check.
const CYCLES: usize = 20;

/// Services by name with their number of instances.
pub(super) struct Services<'a> {
    instances: HashMap<&'a str, u32>,
}

/// What one service depends on, with the place that says so: (service, place).
pub(super) type Edges<'a> = Vec<(&'a str, At)>;

impl<'a> Services<'a> {
    pub(super) fn new(services: impl Iterator<Item = (&'a str, u32)>) -> Services<'a> {
        Services { instances: services.collect() }
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.instances.contains_key(name)
    }

    /// `, did you mean …?` or nothing.
    pub(super) fn near(&self, name: &str) -> String {
        let names = self.instances.keys().copied();
        closest(name, names).map_or(String::new(), |c| format!(", did you mean `{c}`?"))
    }

    /// The instances that these names mean; the services they belong to are added to `edges`.
    pub(super) fn resolve(
        &self,
        kind: &str,
        items: &'a [Item],
        edges: &mut Edges<'a>,
        problems: &mut Problems,
    ) -> Vec<Name> {
        let mut out = Vec::new();
        for item in items {
            match self.find(&item.text) {
                Ok((service, names)) => {
                    edges.push((service, item.at));
                    out.extend(names);
                }
                Err(why) => problems.error(
                    item.at,
                    format!("`{kind}` names an unknown service `{}`{why}", item.text.escape_debug()),
                ),
            }
        }
        out.sort_unstable();
        out.dedup();
        out
    }

    fn find<'i>(&self, text: &'i str) -> Result<(&'i str, Vec<Name>), String> {
        let (service, index) = match text.split_once('@') {
            Some((service, index)) => (service, Some(index)),
            None => (text, None),
        };
        let Some(&count) = self.instances.get(service) else { return Err(self.near(text)) };
        match index {
            None => Ok((service, names(service, count))),
            Some(_) if count == 1 => Err(format!(": `{service}` has one instance, named `{service}`")),
            // `web@01` would be a second name of `web@1`.
            Some(index) => match index.parse::<u32>() {
                Ok(n) if n < count && n.to_string() == index => Ok((service, vec![Name::new(text)])),
                _ => Err(format!(
                    ": the instances of `{service}` are `{service}@0` to `{service}@{}`",
                    count - 1
                )),
            },
        }
    }
}

/// The names of a service's instances.
pub(super) fn names(service: &str, count: u32) -> Vec<Name> {
    match count {
        1 => vec![Name::new(service)],
        n => (0..n).map(|i| Name::new(&format!("{service}@{i}"))).collect(),
    }
}

/// Reports every cycle, in full, where its first step is written. Instances of a service have the same
/// dependencies, so a cycle of instances is one of services and the other way round.
pub(super) fn refuse_cycles(graph: &BTreeMap<&str, Edges<'_>>, problems: &mut Problems) {
    let mut edges: BTreeMap<&str, Vec<&str>> =
        graph.iter().map(|(name, to)| (*name, to.iter().map(|(n, _)| *n).collect())).collect();
    for _ in 0..CYCLES {
        let Some(cycle) = find_cycle(&edges) else { return };
        let [from, to, ..] = cycle.as_slice() else { return };
        let (from, to) = (*from, *to);
        let place = graph.get(from).and_then(|e| e.iter().find(|(n, _)| *n == to));
        if let Some((_, at)) = place {
            problems.error(*at, format!("dependency cycle: {}", cycle.join(" -> ")));
        }
        // Without this step the next search finds another cycle, if there is one.
        if let Some(out) = edges.get_mut(from) {
            out.retain(|n| *n != to);
        }
    }
}
