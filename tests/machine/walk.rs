//! Every way through small worlds: one or two services, everything that can happen next tried in every state
//! that can be reached, states that differ only in the time of day counted once.

use super::plans::{names, plan, service};
use keepd::{
    machine::{Desired, Effect, Event, Fact, Machine, StateKind, Ticket, Time, Wish},
    plan::*,
};
use serde_json::Value;
use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    sync::Arc,
};

/// What the keeper holds of a run.
#[derive(Debug, Clone, Default)]
struct Run {
    name: String,
    launching: bool,
    main: bool,
    others: bool,
    job: bool,
    killed: bool,
    told: Vec<Fact>,
}

#[derive(Debug, Clone)]
struct Node {
    machine: Machine,
    runs: BTreeMap<u64, Run>,
    now: Time,
    shutdown: bool,
    exited: bool,
    last: Option<Fact>,
}

#[derive(Debug, Clone)]
enum Move {
    Hear(Fact),
    Again(Fact),
    Wish(Wish),
    Deadline,
    NewManager,
}

/// Keys of a saved state that hold instants.
const INSTANTS: [&str; 11] = [
    "first_ready",
    "ready_by",
    "until",
    "give_up_at",
    "stable_at",
    "kill_at",
    "stuck_at",
    "retry_at",
    "started",
    "recent",
    "at",
];
/// Keys that change nothing about what comes next.
const HISTORY: [&str; 8] =
    ["last_exit", "spent", "restarts", "fingerprint", "pid", "generation", "incident", "good"];

/// A saved state with instants relative to now, without history.
fn relative(value: &mut Value, now: i64, newest: i64) {
    if let Value::Object(map) = value {
        for key in HISTORY {
            map.remove(key);
        }
        for (key, v) in map.iter_mut() {
            match (INSTANTS.contains(&key.as_str()), v.as_i64()) {
                (true, Some(t)) => *v = Value::from(t - now),
                (false, Some(n)) if key == "run" => *v = Value::from(n - newest),
                _ if key == "recent" => {
                    for t in v.as_array_mut().into_iter().flatten() {
                        *t = Value::from(t.as_i64().unwrap() - now);
                    }
                }
                _ => relative(v, now, newest),
            }
        }
    }
}

impl Node {
    fn key(&self) -> String {
        let newest = self.runs.keys().next_back().copied().unwrap_or(0) as i64;
        let mut key = format!("{} {} ", self.shutdown, self.exited);
        for id in self.machine.ids() {
            let text = self.machine.save(id).unwrap_or_else(|| "{}".into());
            let mut value: Value = serde_json::from_str(&text).unwrap();
            relative(&mut value, self.now.0 as i64, newest);
            key += &value.to_string();
        }
        for (n, r) in &self.runs {
            key += &format!("{} {:?}", *n as i64 - newest, (r.launching, r.main, r.others, r.job, r.killed));
        }
        key
    }

    fn moves(&self) -> Vec<Move> {
        let mut moves = vec![];
        for (n, r) in &self.runs {
            let run = RunId(*n);
            let exited = |code, leftovers| {
                Move::Hear(Fact::Exited { run, exit: Exit::Code(code), leftovers, at: self.now })
            };
            if r.launching {
                moves.push(Move::Hear(Fact::Started { run, pid: 100 + *n as u32, at: self.now }));
                let why = "cannot exec".to_string();
                moves.push(Move::Hear(Fact::LaunchFailed { run, why, transient: false }));
            } else if r.main {
                moves.extend([exited(0, r.job), exited(1, r.job), exited(1, true)]);
                if r.job {
                    moves.push(Move::Hear(Fact::JobEnded { run, job: Job::Stop, why: String::new() }));
                }
            } else if r.others || r.job {
                moves.push(Move::Hear(Fact::Emptied { run }));
            }
        }
        for service in self.machine.ids() {
            let ticket = Ticket(1);
            moves.push(Move::Wish(Wish::Start { ticket, service }));
            moves.push(Move::Wish(Wish::Stop { ticket, service }));
            moves.push(Move::Wish(Wish::Restart { ticket, service }));
        }
        moves.push(Move::Wish(Wish::Shutdown { force: false }));
        moves.extend(self.last.clone().map(Move::Again));
        if self.machine.next_deadline().is_some() {
            moves.push(Move::Deadline);
        }
        moves.push(Move::NewManager);
        moves
    }

    fn go(&mut self, what: Move, plan: &Arc<Plan>) {
        match what {
            Move::Hear(fact) => {
                self.kernel(&fact);
                self.last = Some(fact.clone());
                self.step(Event::Fact(fact));
            }
            Move::Again(fact) => {
                let before = self.key();
                let effects = self.machine.step(self.now, Event::Fact(fact.clone()));
                assert_eq!(effects, [], "{fact:?} came twice");
                assert_eq!(self.key(), before, "{fact:?} came twice");
            }
            Move::Wish(wish) => {
                self.shutdown |= matches!(wish, Wish::Shutdown { .. });
                self.step(Event::Wish(wish));
            }
            Move::Deadline => {
                self.now = self.now.max(self.machine.next_deadline().unwrap());
                self.step(Event::Tick);
            }
            Move::NewManager => self.new_manager(plan),
        }
    }

    /// Invariants 19 and 20: the next manager is where the last one was, and need do nothing.
    fn new_manager(&mut self, plan: &Arc<Plan>) {
        let before = self.key();
        let saved: BTreeMap<Name, String> = self
            .machine
            .ids()
            .filter_map(|id| Some((self.machine.view(id).name.clone(), self.machine.save(id)?)))
            .collect();
        let next = RunId(self.runs.keys().next_back().copied().unwrap_or(0) + 1);
        self.machine = Machine::restore(1, plan.clone(), Generation(1), next, &saved, self.now);
        let told: Vec<Fact> = self.runs.values().flat_map(|r| r.told.clone()).collect();
        for fact in told {
            assert_eq!(self.machine.step(self.now, Event::Fact(fact)), []);
        }
        let effects = match self.shutdown {
            true => self.machine.step(self.now, Event::Wish(Wish::Shutdown { force: false })),
            false => self.machine.step(self.now, Event::Tick),
        };
        let acts: Vec<&Effect> = effects
            .iter()
            .filter(|e| !matches!(e, Effect::Emit(_) | Effect::Explain { .. } | Effect::Exit { .. }))
            .collect();
        if self.machine.next_deadline().is_none_or(|t| t > self.now) {
            assert!(acts.is_empty(), "a new manager acts: {acts:?} at {before}");
            assert_eq!(self.key(), before, "a new manager differs");
        } else {
            self.effects(effects);
        }
    }

    fn step(&mut self, event: Event) {
        let effects = self.machine.step(self.now, event);
        self.effects(effects);
        self.check();
    }

    fn kernel(&mut self, fact: &Fact) {
        let run = super::world::run_of(fact);
        let r = self.runs.get_mut(&run.0).unwrap();
        r.told.push(fact.clone());
        match fact {
            Fact::Started { .. } => (r.launching, r.main) = (false, true),
            Fact::LaunchFailed { .. } => r.launching = false,
            Fact::Exited { leftovers, .. } => (r.main, r.others) = (false, *leftovers),
            Fact::Emptied { .. } => (r.others, r.job) = (false, false),
            Fact::JobEnded { .. } => r.job = false,
            Fact::Adjusted { .. } | Fact::Measured { .. } | Fact::Probed { .. } | Fact::Told { .. } => {}
        }
    }

    fn effects(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Launch { service, run, .. } => {
                    let v = self.machine.view(service);
                    let name = v.name.to_string();
                    assert!(self.runs.values().all(|r| r.name != name), "two runs of {name}");
                    assert!(v.desired == Desired::Up && !self.shutdown, "{name} is launched unwanted");
                    self.runs.insert(run.0, Run { name, launching: true, ..Run::default() });
                }
                Effect::RunJob { run, .. } => self.runs.get_mut(&run.0).unwrap().job = true,
                Effect::Signal { run, .. } => assert!(self.runs[&run.0].main, "{run} has no main process"),
                Effect::SignalTree { run, .. } => assert!(self.runs[&run.0].others || self.runs[&run.0].job),
                Effect::KillTree { run } => {
                    let r = self.runs.get_mut(&run.0).unwrap();
                    assert!(!std::mem::replace(&mut r.killed, true), "{run} is killed twice");
                }
                Effect::Release { run } => {
                    let r = self.runs.remove(&run.0).unwrap();
                    assert!(!r.launching && !r.main && !r.others, "{run} is released alive");
                }
                Effect::Exit { left_behind } => {
                    assert!(self.runs.values().all(|r| left_behind.iter().any(|n| n.as_str() == r.name)));
                    self.exited = true;
                }
                Effect::Probe { .. }
                | Effect::Measure { .. }
                | Effect::Listen { .. }
                | Effect::Adjust { .. } => {
                    panic!("nothing here is asked, watched or changes")
                }
                Effect::Reply { .. } | Effect::Emit(_) | Effect::Explain { .. } | Effect::Removed { .. } => {}
            }
        }
    }

    fn check(&self) {
        for id in self.machine.ids() {
            let v = self.machine.view(id);
            let held = self.runs.values().filter(|r| r.name == v.name.as_str()).count();
            assert_eq!(held, usize::from(v.run.is_some()), "{v:?}");
            let timed = matches!(v.state, StateKind::Backoff | StateKind::Starting | StateKind::Stopping);
            assert!(!timed || self.machine.next_deadline().is_some(), "{v:?} has no deadline");
            assert!(!self.shutdown || v.desired == Desired::Down);
            if v.state != StateKind::Running {
                assert!(!v.reason.is_empty(), "{v:?}");
            }
        }
    }
}

/// Walks everything within `depth` moves of the start, and `KEEPD_WALK_DEEPER` more; gives the number of states
/// and of moves.
fn walk(plan: Arc<Plan>, depth: u64) -> (usize, usize) {
    let depth = depth + super::number("KEEPD_WALK_DEEPER").unwrap_or(0);
    let mut machine = Machine::new(1, plan.clone(), Generation(1), RunId(1));
    let now = Time(1_000_000);
    let effects = machine.begin(now);
    let mut root = Node { machine, runs: BTreeMap::new(), now, shutdown: false, exited: false, last: None };
    root.effects(effects);
    let mut seen: HashSet<String> = [root.key()].into();
    let mut open = VecDeque::from([(root, 0)]);
    let mut moves = 0;
    while let Some((node, at)) = open.pop_front() {
        for what in node.moves() {
            let mut next = node.clone();
            next.go(what, &plan);
            moves += 1;
            if at + 1 < depth && !next.exited && seen.insert(next.key()) {
                open.push_back((next, at + 1));
            }
        }
    }
    (seen.len(), moves)
}

fn small(name: &str) -> ServiceSpec {
    let mut s = service(name);
    s.breaker.failures = 2;
    s.backoff.max = Millis(1000);
    s
}

#[test]
fn every_way_through_one_service() {
    let mut s = small("a");
    s.stop.command = vec!["/bin/stop".into()];
    let (states, moves) = walk(plan(vec![s]), 9);
    assert!(states > 500 && moves > 4000, "{states} states, {moves} moves");
}

#[test]
fn every_way_through_two_that_are_bound() {
    let mut b = small("b");
    b.binds_to = names(&["a"]);
    let (states, moves) = walk(plan(vec![small("a"), b]), 5);
    assert!(states > 500 && moves > 5000, "{states} states, {moves} moves");
}

#[test]
fn every_way_through_two_that_require_and_follow() {
    let (mut b, mut c) = (small("b"), small("c"));
    b.requires = names(&["c"]);
    c.backoff.delay = Millis(0);
    c.restart = Restart::Always;
    let (states, moves) = walk(plan(vec![b, c.clone()]), 5);
    assert!(states > 500 && moves > 5000, "{states} states, {moves} moves");
    let mut b = small("b");
    b.after = names(&["c"]);
    let (states, moves) = walk(plan(vec![b, c]), 5);
    assert!(states > 200 && moves > 2000, "{states} states, {moves} moves");
}
