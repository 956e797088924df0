//! Several logs as one: their lines in the order of time.

use super::{
    files::Place,
    lines::{Line, Step},
    log::{Log, Query},
};
use std::{cmp::Reverse, collections::BinaryHeap, io};

/// Bytes of all blocks together, and of each at least and at most.
const BLOCKS: usize = 4 << 20;
const BLOCK: (usize, usize) = (4 * 1024, 64 * 1024);
/// Steps of one call.
const STEPS: u32 = 1024;

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    /// A line of the log of this index.
    Line(usize, Line),
    /// Nothing wanted was found yet; ask again. It gives whoever asks the chance to do something else.
    Busy,
    /// Everything that is written so far is read.
    End,
}

/// See the head of this file. Within a log the order is that of the file, whatever the clock did.
#[derive(Debug)]
pub struct View {
    logs: Vec<Log>,
    /// The next line of each.
    heads: Vec<Option<Line>>,
    /// Time of the head, and whose it is; what is not in here has none.
    order: BinaryHeap<Reverse<(u64, usize)>>,
    /// Those to look at before the next line can be chosen.
    look: Vec<usize>,
    follow: bool,
}

impl View {
    /// Opens all of them; `follow`: there will be more. `stop` is asked now and then whether anybody still waits.
    ///
    /// # Errors
    /// Of the file system, with the folder that it is about; `Interrupted` where nobody waits any more.
    pub fn open(places: &[Place], query: &Query, follow: bool, stop: &dyn Fn() -> bool) -> io::Result<View> {
        let block = (BLOCKS / places.len().max(1)).clamp(BLOCK.0, BLOCK.1);
        let open = |place| {
            if stop() {
                Err(io::ErrorKind::Interrupted.into())
            } else {
                Log::open(place, query, follow, block, stop)
            }
        };
        let logs = places.iter().map(open).collect::<io::Result<Vec<_>>>()?;
        let count = logs.len();
        Ok(View {
            logs,
            heads: (0..count).map(|_| None).collect(),
            order: BinaryHeap::new(),
            look: (0..count).rev().collect(),
            follow,
        })
    }

    /// The next line in the order of time, after a bounded amount of work.
    pub fn advance(&mut self) -> io::Result<Next> {
        for _ in 0..STEPS {
            let Some(&log) = self.look.last() else {
                let Some(Reverse((_, log))) = self.order.pop() else { return Ok(Next::End) };
                self.look.push(log);
                return Ok(self.heads[log].take().map_or(Next::Busy, |line| Next::Line(log, line)));
            };
            match self.logs[log].next()? {
                Step::More => {}
                Step::End => {
                    // Whoever waits for more waits for the end of a line too.
                    let last = if self.follow { None } else { self.logs[log].last() };
                    self.found(log, last);
                }
                Step::Line(line) => self.found(log, Some(line)),
            }
        }
        Ok(Next::Busy)
    }

    fn found(&mut self, log: usize, line: Option<Line>) {
        self.look.pop();
        if let Some(line) = line {
            self.order.push(Reverse((line.time_ms, log)));
            self.heads[log] = Some(line);
        }
    }

    /// This log may have grown since [`View::advance`] came to its end.
    pub fn grown(&mut self, log: usize) {
        if self.heads[log].is_none() && !self.look.contains(&log) {
            self.look.push(log);
        }
    }
}
