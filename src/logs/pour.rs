//! From a stage into the file: as it came, or line by line in another form. What is in doubt after a kill is
//! said in the ledger before, so that the next process can cut it off and do it again.

use super::{
    format::{Form, marker},
    ledger::{Count, Place},
    rotate::{LONGEST_LINE, Room, room},
    scratch::{GLANCE, Look, Scratch},
    stage::Stage,
    store::{Open, Store},
    vault::Vault,
};
use crate::{
    plan::LogFormat,
    sys::{
        clock,
        pipe::{self, Moved},
    },
};
use std::{io, os::unix::fs::MetadataExt, path::PathBuf};

/// Bytes of one write: between two of them the guard sees that the file system takes something.
const BATCH: usize = 256 << 10;

/// The file of a stream, and how lines stand in it.
pub(super) struct File<'a> {
    pub(super) store: &'a mut Store,
    pub(super) form: Form<'a>,
    pub(super) rotated: &'a mut Vec<PathBuf>,
}

impl File<'_> {
    fn ready(&mut self) -> io::Result<&mut Open> {
        if self.store.ready()?.full {
            self.rotated.extend(self.store.rotate()?);
        }
        self.store.ready()
    }

    /// Cuts off a line about drops that an earlier process may not have finished.
    pub(super) fn repair(&mut self, vault: &Vault, record: u32) -> io::Result<()> {
        let stream = vault.ledger.stream(record);
        if let Some(place) = stream.doubtful() {
            cut(self.store.ready()?, place)?;
        }
        stream.telling_done();
        Ok(())
    }

    /// Writes the line that tells of drops, at a line's start.
    pub(super) fn tell(&mut self, vault: &Vault, record: u32, untold: Count) -> io::Result<()> {
        let mut text = marker(&self.form, untold.lines, untold.bytes, clock::wall_us());
        let open = self.ready()?;
        if !open.ends_line() {
            text.insert(0, b'\n');
        }
        let stream = vault.ledger.stream(record);
        stream.tell_at(place(open)?);
        open.append(&text)?;
        stream.told().add(untold);
        stream.telling_done();
        open.full = open.size >= open.limit;
        Ok(())
    }

    /// Writes all that is in the stage; `begun`: that ends within a line. `moved` rises by what was taken out of
    /// it, also before an error.
    pub(super) fn pour(
        &mut self,
        (stage, begun): (&Stage, bool),
        vault: &Vault,
        scratch: &mut Scratch,
        step: &dyn Fn(),
        moved: &mut u64,
    ) -> io::Result<()> {
        let label = stage.label(&vault.ledger);
        let mut left = stage.fill()?;
        if let Some((place, after)) = label.doubtful() {
            if left as u64 > after {
                cut(self.store.ready()?, place)?;
            }
            label.written();
        }
        while left > 0 {
            step();
            let taken = if self.form.format == LogFormat::Raw {
                self.move_on(stage, left, scratch)?
            } else {
                self.write_lines(stage, (left, begun), vault, scratch)?
            };
            if taken == 0 {
                break;
            }
            *moved += taken as u64;
            left = left.saturating_sub(taken);
        }
        Ok(())
    }

    /// Moves one batch as it came, at most to the end of the file's last line.
    fn move_on(&mut self, stage: &Stage, most: usize, scratch: &mut Scratch) -> io::Result<usize> {
        let open = self.ready()?;
        let limit = open.limit;
        let (len, ends) = match room(open.size, limit) {
            Room::Free(free) => (most.min(BATCH).min(usize::try_from(free).unwrap_or(BATCH)), false),
            Room::Line => match scratch.look(stage.output())? {
                Look::Bytes(seen) => match seen.iter().position(|b| *b == b'\n') {
                    Some(at) => (at + 1, true),
                    None => (seen.len(), false),
                },
                Look::Empty | Look::End => return Ok(0),
            },
        };
        let Moved::Bytes(n) = pipe::splice(stage.output(), &open.file, open.size, len)? else { return Ok(0) };
        if open.size + 1 >= limit {
            open.overlong += n as u64;
            open.full = ends && n == len || open.overlong >= LONGEST_LINE;
        }
        open.wrote(n as u64);
        Ok(n)
    }

    /// Writes as many lines as one look shows, at most to the end of the file's last line.
    fn write_lines(
        &mut self,
        stage: &Stage,
        (fill, begun): (usize, bool),
        vault: &Vault,
        scratch: &mut Scratch,
    ) -> io::Result<usize> {
        let form = self.form;
        let open = self.ready()?;
        let Look::Bytes(seen) = scratch.look_at(stage.output(), GLANCE.max(form.max_line + 1))? else {
            return Ok(0);
        };
        let mut text = Vec::with_capacity(seen.len() * 2);
        if !open.ends_line() {
            text.push(b'\n');
        }
        let enough = open.limit.saturating_sub(open.size).max(1);
        let (now, whole) = (clock::wall_us(), seen.len() >= fill && !begun);
        let mut used = form.write(seen, whole, now, enough, &mut text);
        if used == 0 {
            // One look does not show the end of this line, or it is not there yet.
            used = form.piece(seen, now, &mut text);
        }
        let label = stage.label(&vault.ledger);
        label.write_at(place(open)?, fill.saturating_sub(used) as u64);
        open.append(&text)?;
        stage.discard(vault.null(), used)?;
        label.written();
        open.full = open.size >= open.limit;
        Ok(used)
    }
}

/// The end of the file, where the next byte goes.
fn place(open: &Open) -> io::Result<Place> {
    let facts = open.file.metadata()?;
    Ok(Place { file: (facts.dev(), facts.ino()), offset: open.size })
}

/// Cuts off what stands behind `from`, if it is this file.
fn cut(open: &mut Open, from: Place) -> io::Result<()> {
    if place(open)?.file == from.file && open.size > from.offset {
        open.file.set_len(from.offset)?;
        open.size = from.offset;
        open.full = false;
        open.wrote(0);
    }
    Ok(())
}
