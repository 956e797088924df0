//! The dependency graph: cycles named in full.

use std::collections::BTreeMap;

/// Finds a cycle in `edges` (name -> names it must start after) and returns it in full, first name repeated
/// at the end (`a -> b -> a`); `None` where there is none. Names without an entry are leaves.
pub fn find_cycle<'a>(edges: &BTreeMap<&'a str, Vec<&'a str>>) -> Option<Vec<&'a str>> {
    // Iterative depth-first walk, so that a chain of thousands cannot exhaust the stack.
    let mut done: std::collections::BTreeSet<&str> = Default::default();
    for &root in edges.keys() {
        if done.contains(root) {
            continue;
        }
        let mut path: Vec<(&str, usize)> = vec![(root, 0)];
        while let Some((node, next)) = path.last_mut() {
            let Some(&to) = edges.get(*node).and_then(|out| out.get(*next)) else {
                done.insert(node);
                path.pop();
                continue;
            };
            *next += 1;
            if let Some(at) = path.iter().position(|(n, _)| *n == to) {
                return Some(path[at..].iter().map(|(n, _)| *n).chain([to]).collect());
            }
            if !done.contains(to) {
                path.push((to, 0));
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edges<'a>(pairs: &[(&'a str, &[&'a str])]) -> BTreeMap<&'a str, Vec<&'a str>> {
        pairs.iter().map(|(n, to)| (*n, to.to_vec())).collect()
    }

    #[test]
    fn a_cycle_is_named_in_full() {
        let e = edges(&[("a", &["b"]), ("b", &["c"]), ("c", &["b"])]);
        assert_eq!(find_cycle(&e), Some(vec!["b", "c", "b"]));
        assert_eq!(find_cycle(&edges(&[("a", &["a"])])), Some(vec!["a", "a"]));
    }

    #[test]
    fn a_diamond_is_no_cycle() {
        let e = edges(&[("top", &["l", "r"]), ("l", &["base"]), ("r", &["base"])]);
        assert_eq!(find_cycle(&e), None);
    }
}
