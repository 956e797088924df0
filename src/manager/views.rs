//! All services' views, sorted by name, as a value that costs little to copy and to change: every turn of the
//! machine publishes one. No view is made here.

use super::snapshot::View;
use std::sync::Arc;

/// Views in one chunk: at most so many pointers are copied for one change, and one pointer a chunk for a copy.
const CHUNK: usize = 32;

/// See the head of this file. No chunk is empty; copies share all chunks that were not changed since.
#[derive(Debug, Clone, Default)]
pub struct Views {
    chunks: Vec<Arc<Vec<Arc<View>>>>,
}

impl Views {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.chunks.iter().map(|c| c.len()).sum()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.chunks.is_empty()
    }

    /// Sorted by name.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<View>> {
        self.chunks.iter().flat_map(|c| c.iter())
    }

    /// The instance of this name.
    pub fn find(&self, name: &str) -> Option<&Arc<View>> {
        let chunk = self.chunks.get(self.chunk(name))?;
        place(chunk, name).ok().map(|i| &chunk[i])
    }

    /// Adds a view, or replaces that of the same name.
    pub fn put(&mut self, view: Arc<View>) {
        let at = self.chunk(&view.base.name);
        let Some(chunk) = self.chunks.get_mut(at) else { return self.chunks.push(Arc::new(vec![view])) };
        let chunk = Arc::make_mut(chunk);
        match place(chunk, &view.base.name) {
            Ok(i) => chunk[i] = view,
            Err(i) => chunk.insert(i, view),
        }
        if chunk.len() > CHUNK {
            let tail = chunk.split_off(CHUNK / 2);
            self.chunks.insert(at + 1, Arc::new(tail));
        }
    }

    /// Takes the view of this name out, if there is one.
    pub fn remove(&mut self, name: &str) {
        let at = self.chunk(name);
        let Some(chunk) = self.chunks.get_mut(at) else { return };
        if let Ok(i) = place(chunk, name) {
            Arc::make_mut(chunk).remove(i);
        }
        if self.chunks[at].is_empty() {
            self.chunks.remove(at);
        }
    }

    /// The chunk in which the name is, or would be.
    fn chunk(&self, name: &str) -> usize {
        self.chunks.partition_point(|c| c.first().is_some_and(|v| *v.base.name <= *name)).saturating_sub(1)
    }
}

impl FromIterator<Arc<View>> for Views {
    fn from_iter<I: IntoIterator<Item = Arc<View>>>(views: I) -> Views {
        let mut all = Views::default();
        views.into_iter().for_each(|v| all.put(v));
        all
    }
}

fn place(chunk: &[Arc<View>], name: &str) -> Result<usize, usize> {
    chunk.binary_search_by(|v| (*v.base.name).cmp(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{manager::snapshot::Now, wire};
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    fn view(name: &str, restarts: u32) -> Arc<View> {
        let base = Arc::new(wire::Service { name: name.into(), ..Default::default() });
        let now = Now { restarts, ..Default::default() };
        Arc::new(View { base, now, ..Default::default() })
    }

    proptest! {
        /// It is a map, and a copy stays what it was.
        #[test]
        fn it_is_a_sorted_map(steps in prop::collection::vec(("[a-d]{1,4}", any::<bool>()), 0..400)) {
            let (mut views, mut map) = (Views::default(), BTreeMap::new());
            for (step, (name, add)) in steps.iter().enumerate() {
                let before: Vec<_> = views.iter().map(|v| v.now.restarts).collect();
                let copy = views.clone();
                if *add {
                    views.put(view(name, step as u32));
                    map.insert(name.clone(), step as u32);
                } else {
                    views.remove(name);
                    map.remove(name);
                }
                let here: Vec<_> = views.iter().map(|v| (v.base.name.clone(), v.now.restarts)).collect();
                let there: Vec<_> = map.iter().map(|(n, r)| (n.clone(), *r)).collect();
                prop_assert_eq!(here, there);
                prop_assert_eq!(views.find(name).map(|v| v.now.restarts), map.get(name).copied());
                prop_assert_eq!((views.len(), views.is_empty()), (map.len(), map.is_empty()));
                prop_assert_eq!(copy.iter().map(|v| v.now.restarts).collect::<Vec<_>>(), before);
            }
            prop_assert!(views.chunks.iter().all(|c| (1..=CHUNK).contains(&c.len())));
        }
    }
}
