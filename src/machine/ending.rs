//! What an end that nobody asked for means: success or failure, and what follows.

use super::{
    IncidentKind, Machine, NoticeKind, Outcome, ServiceId, Time, backoff,
    service::{After, Asked, Because, State},
    words,
};
use crate::plan::{Exit, ExitMatch, Millis, Restart, ServiceSpec};

const SIGKILL: i32 = 9;

fn matches(exit: Exit, list: &[ExitMatch]) -> bool {
    list.iter().any(|m| match (*m, exit) {
        (ExitMatch::Code(a), Exit::Code(b)) => a == b,
        (ExitMatch::Signal(a), Exit::Signal { signal, .. }) => a == signal,
        (ExitMatch::Signal(a), Exit::Oom) => a == SIGKILL,
        (ExitMatch::Code(_), Exit::Signal { .. } | Exit::Oom | Exit::Unknown)
        | (ExitMatch::Signal(_), Exit::Code(_) | Exit::Unknown) => false,
    })
}

/// Whether the exit status or signal is one that the configuration calls success.
pub(super) fn succeeded(spec: &ServiceSpec, exit: Exit) -> bool {
    matches(exit, &spec.success_exit)
}

/// Whether the configuration says that this end is never followed by a restart.
pub(super) fn is_final(spec: &ServiceSpec, exit: Exit) -> bool {
    matches(exit, &spec.no_restart_exit)
}

impl Machine {
    /// Accounts for the unplanned end of a run, which was ready for the first time so long before, and says what
    /// follows it.
    pub(super) fn judge_exit(&mut self, id: ServiceId, exit: Exit, lasted: Millis, at: Time) -> After {
        let spec = self.at(id).spec.clone();
        let failed = !succeeded(&spec, exit);
        let oneshot = spec.oneshot.is_some();
        if if oneshot { !failed } else { lasted >= spec.backoff.reset_after } {
            self.stable(id);
        }
        self.ended_by_itself(id);
        // Whose dependency is away has not failed by itself; it is started again once that is back.
        let excused = self.at(id).edges.needs.iter().any(|to| !self.at(*to).face.up);
        let looping = failed && !excused && self.count_failure(id, at);
        let (kind, why) = match exit {
            Exit::Oom => (IncidentKind::Oom, Machine::oom_sentence(self.at(id))),
            Exit::Code(_) | Exit::Signal { .. } | Exit::Unknown => (IncidentKind::Exit, words::ended(exit)),
        };
        if failed || !oneshot {
            self.note_incident(id, kind, &why, Some(exit), at);
        }
        let after = match (spec.restart, failed) {
            // Others may wait for its success: that it failed must be seen.
            (restart, true) if oneshot && (restart == Restart::Never || is_final(&spec, exit)) => {
                After::Failed { retry: false }
            }
            _ if is_final(&spec, exit) => After::Exited,
            (Restart::Never, _) | (Restart::OnFailure, false) => After::Exited,
            (Restart::Always | Restart::OnFailure, _) if looping => After::Failed { retry: true },
            (Restart::Always, _) | (Restart::OnFailure, true) => After::Backoff,
        };
        self.announce_loop(id, after);
        let name = &self.at(id).name;
        let outcome = match failed {
            true => Outcome::Failed(format!("{name} {}", words::ended(exit))),
            false => Outcome::Done(format!("{name} ran and {}", words::ended(exit))),
        };
        self.answer(id, Asked::Up, &outcome);
        after
    }

    /// Accounts for a launch that came to nothing and says what follows it.
    pub(super) fn judge_launch(&mut self, id: ServiceId, why: &str, transient: bool) -> After {
        let message = format!("{} did not start: {why}", self.at(id).name);
        self.judge_failure(id, Because::Launch(why.into()), message, transient)
    }

    /// The same for any failure other than the end of a run; `message` is for those who wait for a start.
    pub(super) fn judge_failure(
        &mut self,
        id: ServiceId,
        because: Because,
        message: String,
        transient: bool,
    ) -> After {
        let looping = !transient && self.count_failure(id, self.now);
        let svc = self.at_mut(id);
        svc.rec.because = because;
        self.note_failure(id);
        let svc = self.at_mut(id);
        let after = match svc.spec.restart {
            // The host was short of something; the service had no chance yet.
            _ if transient => After::Backoff,
            Restart::Never => After::Failed { retry: false },
            Restart::Always | Restart::OnFailure if looping => After::Failed { retry: true },
            Restart::Always | Restart::OnFailure => After::Backoff,
        };
        self.touch(id);
        self.announce_loop(id, after);
        self.answer(id, Asked::Up, &Outcome::Failed(message));
        after
    }

    /// True where that makes a crash loop.
    fn count_failure(&mut self, id: ServiceId, at: Time) -> bool {
        let svc = self.at_mut(id);
        svc.rec.failures = svc.rec.failures.saturating_add(1);
        let spec = svc.spec.clone();
        svc.rec.breaker.fail(&spec.breaker, at)
    }

    /// The breaker opens with its first failure too many; those of later retries are ordinary news.
    fn announce_loop(&mut self, id: ServiceId, after: After) {
        let svc = self.at_mut(id);
        if after != (After::Failed { retry: true }) || std::mem::replace(&mut svc.rec.loop_told, true) {
            return;
        }
        let message = format!("{} is in a {}", svc.name, words::crash_loop(&svc.spec.breaker));
        self.notice(id, NoticeKind::Failed, message, None);
    }

    /// The run has lasted: earlier failures no longer count.
    pub(super) fn stable(&mut self, id: ServiceId) {
        let svc = self.at_mut(id);
        let was_open = svc.rec.breaker.open;
        let name = svc.name.clone();
        self.forgive(id);
        if let State::Running { stable_at, .. } = &mut self.at_mut(id).rec.state {
            *stable_at = None;
            self.sync_deadline(id);
        }
        if was_open {
            let message = format!("{name} is stable again");
            self.notice(id, NoticeKind::Recovered, message, None);
        }
    }

    /// Forgets failures: after a stable run, or because somebody starts it.
    pub(super) fn forgive(&mut self, id: ServiceId) {
        let rec = &mut self.at_mut(id).rec;
        (rec.failures, rec.attempts, rec.loop_told) = (0, 0, false);
        rec.breaker.reset();
        self.touch(id);
    }

    /// Nothing of the run is left: the state that follows.
    pub(super) fn follow(&mut self, id: ServiceId, after: After, auto: bool) {
        let (now, wanted) = (self.now, self.at(id).wanted());
        let state = match after {
            _ if !wanted => State::Stopped,
            After::Rest => State::Waiting { auto },
            After::Backoff => match self.next_delay(id) {
                Millis(0) => State::Waiting { auto: true },
                delay => State::Backoff { until: now + delay },
            },
            After::Failed { retry } => {
                // A crash loop is never retried faster than a crash.
                let delay = self.next_delay(id);
                let every = self.at(id).spec.breaker.retry_every.filter(|_| retry);
                State::Failed { retry_at: every.map(|d| now + d.max(delay)) }
            }
            // Its next time comes.
            After::Exited if self.at(id).scheduled() => State::Waiting { auto: false },
            After::Exited => State::Exited,
        };
        self.set(id, state);
    }

    fn next_delay(&mut self, id: ServiceId) -> Millis {
        let svc = &mut self.services[id.0 as usize];
        svc.rec.attempts = svc.rec.attempts.saturating_add(1);
        backoff::delay(&svc.spec.backoff, svc.rec.attempts, &mut self.rng)
    }
}
