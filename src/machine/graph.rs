//! Who depends on whom, as indices in both directions. Rebuilt whole when the plan changes.

use super::{Machine, ServiceId};

/// The edges of one service. Names that nobody has are left out.
#[derive(Debug, Clone, Default)]
pub(super) struct Edges {
    /// `requires` and `binds-to`.
    pub(super) needs: Vec<ServiceId>,
    /// `binds-to` alone.
    pub(super) bound: Vec<ServiceId>,
    /// `wants` alone.
    pub(super) wants: Vec<ServiceId>,
    /// `wants` and `after`: order only.
    pub(super) follows: Vec<ServiceId>,
    /// Those that need us.
    pub(super) needed_by: Vec<ServiceId>,
    /// Those that only follow us.
    pub(super) followed_by: Vec<ServiceId>,
}

impl Machine {
    /// Builds the edges of all services from their specs.
    pub(super) fn link(&mut self) {
        for svc in &mut self.services {
            svc.edges = Edges::default();
        }
        for id in self.all() {
            let spec = self.at(id).spec.clone();
            let find = |names: &[crate::plan::Name]| -> Vec<ServiceId> {
                let mut ids: Vec<_> = names.iter().filter_map(|n| self.id(n.as_str())).collect();
                ids.retain(|to| *to != id);
                ids.sort_unstable();
                ids.dedup();
                ids
            };
            let (mut needs, bound, wants) = (find(&spec.requires), find(&spec.binds_to), find(&spec.wants));
            needs.extend(&bound);
            needs.sort_unstable();
            needs.dedup();
            let mut follows = find(&spec.after);
            follows.extend(&wants);
            follows.sort_unstable();
            follows.dedup();
            follows.retain(|to| needs.binary_search(to).is_err());
            for to in &needs {
                self.at_mut(*to).edges.needed_by.push(id);
            }
            for to in &follows {
                self.at_mut(*to).edges.followed_by.push(id);
            }
            let edges = &mut self.at_mut(id).edges;
            (edges.needs, edges.bound, edges.wants, edges.follows) = (needs, bound, wants, follows);
        }
    }

    /// `start` and everything that it needs or wants, through any number of steps.
    pub(super) fn pulled_in(&self, start: &[ServiceId]) -> Vec<ServiceId> {
        let mut seen: std::collections::BTreeSet<ServiceId> = start.iter().copied().collect();
        let mut open: Vec<ServiceId> = start.to_vec();
        while let Some(id) = open.pop() {
            let edges = &self.at(id).edges;
            open.extend(edges.needs.iter().chain(&edges.wants).filter(|to| seen.insert(**to)));
        }
        seen.into_iter().collect()
    }
}
