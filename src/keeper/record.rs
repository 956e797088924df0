//! What has changed in a turn, on its way into the journal. Nobody waits for more than the write of a few lines.

#![forbid(unsafe_code)]

use super::{
    journal::{Journal, Line},
    saved::{Saved, identities},
    state::Keeper,
};
use crate::{
    plan::{Generation, RunId},
    sys::process,
};
use std::{collections::BTreeSet, io};

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    journal: Option<Journal>,
    lines: Vec<Line>,
    runs: BTreeSet<RunId>,
    head: Option<Head>,
}

/// When this changes, all but runs and what is remembered is written.
#[derive(Debug, PartialEq, Eq)]
struct Head {
    plans: Vec<(Generation, bool)>,
    current: Generation,
    managers: u32,
    upgrades: u32,
    shutdown: Option<(bool, u64)>,
}

impl Head {
    fn holds(&self, generation: Generation) -> bool {
        self.plans.iter().any(|(g, _)| *g == generation)
    }
}

impl Keeper {
    /// Begins a journal with all that is held now.
    pub(super) fn begin_record(&mut self) {
        self.recorder = Recorder::default();
        let begun = Journal::begin(&self.spec.runtime_dir, &self.all_lines());
        let begun = begun.and_then(|journal| {
            self.recorder.journal = Some(journal);
            self.write_head()
        });
        if let Err(e) = begun {
            self.stop_recording(&e);
        }
    }

    /// Something about a run has changed.
    pub(super) fn touch(&mut self, id: RunId) {
        self.recorder.runs.insert(id);
    }

    /// Something else has changed.
    pub(super) fn jot(&mut self, line: Line) {
        self.recorder.lines.push(line);
    }

    /// Writes down what has changed since the last time.
    pub(super) fn record(&mut self) {
        if self.recorder.journal.is_none() {
            self.recorder.lines.clear();
            self.recorder.runs.clear();
            return;
        }
        let done = self.write_head().and_then(|()| self.write_lines());
        if let Err(e) = done {
            self.stop_recording(&e);
        }
    }

    fn write_lines(&mut self) -> io::Result<()> {
        let mut lines = std::mem::take(&mut self.recorder.lines);
        for id in std::mem::take(&mut self.recorder.runs) {
            lines.push(match self.runs.get(&id) {
                Some(run) => Line::Run(id, Box::new(run.save())),
                None => Line::Gone(id),
            });
        }
        if lines.is_empty() {
            return Ok(());
        }
        let overgrown = self.recorder.journal.as_ref().is_some_and(Journal::overgrown);
        let anew = overgrown.then(|| self.all_lines());
        let Some(journal) = &mut self.recorder.journal else { return Ok(()) };
        match anew {
            Some(all) => journal.renew(&all),
            None => journal.add(&lines),
        }
    }

    fn write_head(&mut self) -> io::Result<()> {
        let head = Head {
            plans: self.plans.iter().map(|(g, held)| (g, held.dropped())).collect(),
            current: self.plans.current,
            managers: self.link.managers,
            upgrades: self.upgrades,
            shutdown: self.shutdown.map(|s| (s.force, s.deadline)),
        };
        if self.recorder.head.as_ref() == Some(&head) {
            return Ok(());
        }
        let before = self.recorder.head.take();
        let Some(journal) = &self.recorder.journal else { return Ok(()) };
        for (generation, held) in self.plans.iter() {
            if !before.as_ref().is_some_and(|b| b.holds(generation)) {
                journal.put_plan(generation, held.image())?;
            }
        }
        for (generation, _) in before.iter().flat_map(|b| &b.plans) {
            if !head.holds(*generation) {
                journal.remove_plan(*generation);
            }
        }
        let state = Saved { runs: Default::default(), remembered: Default::default(), ..self.save() };
        let manager = self.link.child.as_ref().map(|c| Line::Manager(c.pid, process::born(c.pid)));
        self.recorder.lines.insert(0, Line::Head(Box::new(state)));
        self.recorder.lines.extend(manager);
        self.recorder.head = Some(head);
        Ok(())
    }

    fn all_lines(&self) -> Vec<Line> {
        let boot = process::boot_id();
        let mut lines = vec![Line::State { boot, state: Box::new(self.save()) }];
        lines.extend(self.formers.iter().map(|f| Line::Manager(f.pid, f.born)));
        lines.extend(self.link.child.as_ref().map(|c| Line::Manager(c.pid, process::born(c.pid))));
        lines.extend(self.kept.iter().map(|(name, fds)| Line::Kept(name.clone(), identities(fds))));
        lines
    }

    /// Goes on without: what is left of it would tell lies.
    fn stop_recording(&mut self, e: &io::Error) {
        self.forget_record();
        let path = self.spec.runtime_dir.display();
        let text =
            format!("cannot write down the state in {path}: {e}; services would not survive a kill of keepd");
        self.degraded.push(text.clone());
        self.note(super::protocol::NoteLevel::Error, text);
    }

    /// Nothing is left of it for a next keeper.
    pub(super) fn forget_record(&mut self) {
        let generations: Vec<Generation> = self.plans.iter().map(|(g, _)| g).collect();
        if let Some(journal) = self.recorder.journal.take() {
            journal.remove(generations);
        }
    }
}
