//! What watched runs use: read here where their cgroups tell, else found out by the keeper. The readings go to the
//! machine, which judges them.

use super::{
    actor::{Actor, now},
    usage,
};
use crate::{
    keeper::protocol::Request,
    machine::{Fact, Reading},
    plan::RunId,
};

impl Actor {
    /// Has the kernel tell when a run may use more memory than this.
    pub(super) fn listen(&mut self, run: RunId, above: u64) {
        let Some(cgroup) = self.runs.get(&run).and_then(|l| self.publisher.cgroup(&l.service, run)) else {
            return;
        };
        let listening = self.listener.add(run, &cgroup);
        // What happened before is not told; where nothing can be told, it is looked at as if it were.
        if listening.is_err() || usage::memory(&cgroup).is_some_and(|used| used > above) {
            self.listener.remove(run);
            self.measure(run, true);
        }
    }

    /// Some runs may use much memory.
    pub(super) fn heard(&mut self) {
        for run in self.listener.take() {
            self.measure(run, true);
        }
        self.perform(Vec::new());
    }

    /// Reads what a run uses from its cgroup; where that does not tell, the keeper finds it out.
    pub(super) fn measure(&mut self, run: RunId, with_memory: bool) {
        let cgroup = self.runs.get(&run).and_then(|live| self.publisher.cgroup(&live.service, run));
        let memory = cgroup.as_deref().filter(|_| with_memory).and_then(usage::memory);
        let cpu_us = cgroup.as_deref().and_then(usage::cpu);
        if cpu_us.is_none() || with_memory && memory.is_none() {
            return self.tell(Request::Measure { run });
        }
        let reading = Reading { at: now(), memory, cpu_us };
        self.readings.push(Fact::Measured { run, reading });
    }
}
