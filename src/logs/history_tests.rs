//! Rotation, compression and pruning of a folder in a model that is killed at every step.

use super::{
    history::{History, Listed, Step},
    rotate::{Form, Limits, name, parse, sequence},
};
use crate::plan::{Millis, Rotate};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

fn limits(keep: u32, max_total: Option<u64>) -> Limits {
    Limits { max_size: 100, rotate: Rotate::Off, keep, keep_for: None, max_total, compress: true }
}

fn listed(name: &str, size: u64) -> Listed {
    Listed { name: name.into(), size, modified_ms: 0 }
}

/// Name to content: which rotation it came from, and whether all of it is there.
type Folder = BTreeMap<String, (u64, bool)>;

fn history(folder: &Folder) -> History {
    History::new("", folder.iter().map(|(name, (size, _))| listed(name, *size)), &BTreeSet::new())
}

/// What a reader of all files in order finds; compressed files count for their originals.
fn content(folder: &Folder) -> Vec<u64> {
    let mut found = BTreeMap::new();
    for (name, (id, whole)) in folder {
        if let Some((number, Form::Plain | Form::Gzip)) = parse("", name) {
            assert!(whole, "{name} is torn");
            assert_eq!(*found.entry(number).or_insert(*id), *id, "two files have one number");
        }
    }
    found.into_values().collect()
}

/// Counts down to the kill.
struct Fuse(u32);

impl Fuse {
    fn burn(&mut self) -> Option<()> {
        self.0 = self.0.checked_sub(1)?;
        Some(())
    }

    fn take(&mut self, folder: &mut Folder, steps: Vec<Step>) -> Option<()> {
        for step in steps {
            self.burn()?;
            match step {
                Step::Remove(name) => assert!(folder.remove(&name).is_some(), "{name} is not there"),
                Step::Mark(name) => drop(folder.insert(name, (0, true))),
            }
        }
        Some(())
    }
}

/// One life of keepd: rotations, and upkeep after each. `None`: killed.
fn life(
    folder: &mut Folder,
    ids: &mut std::ops::RangeFrom<u64>,
    limits: Limits,
    fuse: &mut Fuse,
) -> Option<()> {
    for wall in 0..4 {
        upkeep(folder, limits, fuse)?;
        let id = ids.next()?;
        fuse.burn()?;
        let name = name("", wall, history(folder).next());
        assert!(folder.insert(name, (id, true)).is_none(), "a name is used again");
    }
    upkeep(folder, limits, fuse)
}

fn upkeep(folder: &mut Folder, limits: Limits, fuse: &mut Fuse) -> Option<()> {
    loop {
        let mut now = history(folder);
        let steps = now.tidy();
        fuse.take(folder, steps)?;
        let steps = now.drop_oldest(now.excess(limits, 0));
        fuse.take(folder, steps)?;
        let Some(next) = now.uncompressed().pop_first() else { return Some(()) };
        let (id, _) = folder[&next];
        fuse.burn()?;
        folder.insert(format!("{next}.gz.tmp"), (id, false));
        fuse.burn()?;
        folder.insert(format!("{next}.gz.tmp"), (id, true));
        fuse.burn()?;
        let whole = folder.remove(&format!("{next}.gz.tmp"))?;
        folder.insert(format!("{next}.gz"), whole);
        fuse.burn()?;
        folder.remove(&next);
    }
}

proptest! {
    #[test]
    fn every_crash_point_is_recovered_from(
        keep in 0..5u32,
        max_total in prop::option::of(100..150u64),
        kills in prop::collection::vec(0..40u32, 1..12),
    ) {
        let foreign = ["current", "notes.txt", "2026-11-21T00-00-00.000001.log.bz2"];
        let mut folder: Folder = foreign.iter().map(|n| ((*n).to_owned(), (7, true))).collect();
        let (mut ids, mut highest) = (1.., 0);
        for kill in kills {
            let _ = life(&mut folder, &mut ids, limits(keep, max_total), &mut Fuse(kill));
            // In order, none torn, none twice, whatever the moment.
            let found = content(&folder);
            prop_assert!(found.is_sorted_by(|a, b| a < b), "{found:?}");
            // Numbers only ever rise, also where everything was pruned.
            let next = history(&folder).next();
            prop_assert!(next >= highest);
            highest = next;
        }
        prop_assert!(upkeep(&mut folder, limits(keep, max_total), &mut Fuse(u32::MAX)).is_some());
        let settled = folder.clone();
        prop_assert!(upkeep(&mut folder, limits(keep, max_total), &mut Fuse(u32::MAX)).is_some());
        prop_assert_eq!(&settled, &folder, "a second round finds work");
        prop_assert_eq!(history(&folder).next(), highest);
        prop_assert!(foreign.iter().all(|n| folder.contains_key(*n)));
        let ours: Vec<_> = folder.keys().filter_map(|n| parse("", n)).map(|(_, form)| form).collect();
        prop_assert!(ours.iter().all(|f| matches!(f, Form::Gzip | Form::Mark)), "{ours:?}");
        prop_assert!(ours.iter().filter(|f| **f == Form::Mark).count() <= 1);
        prop_assert!(content(&folder).len() <= keep as usize);
    }

    /// Without limits nothing that was rotated is ever missing.
    #[test]
    fn a_kill_loses_no_file(kills in prop::collection::vec(0..40u32, 1..8)) {
        let (mut folder, mut ids) = (Folder::new(), 1..);
        let mut rotated: BTreeSet<u64> = BTreeSet::new();
        for kill in kills {
            let _ = life(&mut folder, &mut ids, limits(u32::MAX, None), &mut Fuse(kill));
            let found: BTreeSet<u64> = content(&folder).into_iter().collect();
            prop_assert!(found.is_superset(&rotated), "{rotated:?} {found:?}");
            rotated = found;
        }
    }

    #[test]
    fn the_oldest_go_first(numbers in prop::collection::btree_set(1..100_000u64, 1..30), keep in 0..30u32) {
        // Times in the names run backwards: only the number counts.
        let listing = numbers.iter().map(|n| listed(&name("", 1_000_000_000_000 - n * 1000, *n), 1));
        let mut all = History::new("", listing, &BTreeSet::new());
        let steps = all.drop_oldest(all.excess(limits(keep, None), 0));
        let gone: Vec<u64> = steps
            .iter()
            .filter_map(|s| if let Step::Remove(name) = s { sequence("", name) } else { None })
            .collect();
        let expected: Vec<_> =
            numbers.iter().copied().take(numbers.len().saturating_sub(keep as usize)).collect();
        prop_assert_eq!(gone, expected);
    }

    #[test]
    fn bytes_and_age_are_held(
        files in prop::collection::vec((1..200u64, 0..10_000u64), 0..30),
        max_total in prop::option::of(100..2000u64),
        keep_for in prop::option::of(1..10_000u64),
    ) {
        let listing = files.iter().zip(1..).map(|((size, modified_ms), n)| Listed {
            modified_ms: *modified_ms,
            ..listed(&name("", 0, n), *size)
        });
        let limits = Limits { keep_for: keep_for.map(Millis), ..limits(u32::MAX, max_total) };
        let mut all = History::new("", listing, &BTreeSet::new());
        let _ = all.drop_oldest(all.excess(limits, 10_000));
        prop_assert!(all.rotated().is_empty() || max_total.is_none_or(|most| all.bytes() + 100 <= most));
        let oldest = all.rotated().front().map(|r| r.file.modified_ms);
        prop_assert!(oldest.is_none_or(|at| keep_for.is_none_or(|age| at + age >= 10_000)));
        prop_assert_eq!(all.excess(limits, 10_000), 0);
    }
}

#[test]
fn a_file_that_is_being_compressed_is_left_alone() {
    let first = name("", 0, 1);
    let busy = BTreeSet::from([first.clone()]);
    let files = [first.clone(), format!("{first}.gz"), format!("{first}.gz.tmp"), name("", 0, 2)];
    let mut all = History::new("", files.iter().map(|n| listed(n, 1)), &busy);
    assert_eq!(all.rotated().iter().map(|r| r.sequence).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(all.tidy(), []);
    // It may go all the same; then its compressed form goes with it.
    assert_eq!(all.drop_oldest(1), [Step::Remove(first.clone())]);
    let mut all = History::new("", files.iter().map(|n| listed(n, 1)), &BTreeSet::new());
    assert_eq!(all.tidy(), [Step::Remove(first.clone()), Step::Remove(format!("{first}.gz.tmp"))]);
}

#[test]
fn a_clock_of_1970_keeps_everything_young() {
    let all =
        History::new("", [Listed { modified_ms: 1 << 40, ..listed(&name("", 0, 1), 1) }], &BTreeSet::new());
    let limits = Limits { keep_for: Some(Millis(1)), ..limits(9, None) };
    assert_eq!((all.excess(limits, 0), all.excess(limits, 1 << 41)), (0, 1));
}
