//! A fake keeper and kernel: runs with a main process, leftovers and jobs, that die when they like, heed
//! signals or not, and whose news arrives late, twice or out of step.

use super::plans::Rng;
use keepd::{
    machine::{Fact, Reading, Time},
    plan::*,
};
use std::collections::{BTreeMap, BTreeSet};

/// How badly this world behaves, in thousandths; drawn anew for each seed so that every world has its own
/// character.
#[derive(Debug, Clone)]
pub struct Odds {
    pub launch_fails: u64,
    pub launch_hangs: u64,
    pub short_life: u64,
    pub failure: u64,
    pub leaves_others: u64,
    pub ignores_term: u64,
    pub immortal: u64,
    pub doubled: u64,
    pub slow_news: u64,
    pub emptied_first: u64,
    pub manager_dies: u64,
    pub dies_in_turn: u64,
    pub corrupt: u64,
    pub wish: u64,
    pub apply: u64,
    pub shutdown: u64,
    /// A service uses much.
    pub greedy: u64,
    /// It answers no, or tells nothing.
    pub sick: u64,
    /// It takes long to answer, or to tell.
    pub sluggish: u64,
}

impl Odds {
    pub fn draw(rng: &mut Rng) -> Odds {
        let mut o = |most: u64| rng.pick(&[0, 0, most / 8, most / 2, most]);
        Odds {
            launch_fails: o(500),
            launch_hangs: o(60),
            short_life: 200 + o(800),
            failure: o(1000),
            leaves_others: o(600),
            ignores_term: o(600),
            immortal: o(150),
            doubled: o(500),
            slow_news: o(500),
            emptied_first: o(200),
            manager_dies: o(60),
            dies_in_turn: o(500),
            corrupt: o(300),
            wish: 50 + o(500),
            apply: o(200),
            shutdown: o(8),
            greedy: o(1000),
            sick: o(800),
            sluggish: o(500),
        }
    }

    /// Everything goes well from now on.
    pub fn heal(&mut self) {
        let wishless = Odds { short_life: 0, ..Odds::zero() };
        *self = wishless;
    }

    pub fn zero() -> Odds {
        Odds {
            launch_fails: 0,
            launch_hangs: 0,
            short_life: 0,
            failure: 0,
            leaves_others: 0,
            ignores_term: 0,
            immortal: 0,
            doubled: 0,
            slow_news: 0,
            emptied_first: 0,
            manager_dies: 0,
            dies_in_turn: 0,
            corrupt: 0,
            wish: 0,
            apply: 0,
            shutdown: 0,
            greedy: 0,
            sick: 0,
            sluggish: 0,
        }
    }
}

/// What will happen in the kernel.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Coming {
    LaunchEnds(u64),
    MainEnds(u64),
    OthersEnd(u64),
    JobEnds(u64, bool),
    Killed(u64),
    /// It tells something of itself.
    Tells(u64, Told),
    /// It answers a probe.
    Answers(u64, Which, u64, Verdict),
    /// News of the moment reaches the manager of that number, or nobody.
    Passing {
        run: u64,
        index: usize,
        manager: u64,
    },
    /// News reaches the manager of that number, or any.
    News {
        run: u64,
        index: usize,
        manager: Option<u64>,
    },
}

/// A run that the keeper holds.
#[derive(Debug, Clone)]
pub struct Run {
    pub name: Name,
    pub generation: Generation,
    pub stop: StopSpec,
    pub resources: Resources,
    pub spec: ServiceSpec,
    /// All that it has told.
    pub sum: Told,
    pub launching: bool,
    pub main: bool,
    pub others: bool,
    pub job: Option<Job>,
    pub exit: Option<Exit>,
    pub ended: Option<Time>,
    pub started: Option<Time>,
    pub immortal: bool,
    pub killed: bool,
    pub released: bool,
    /// All that was told about it, in order.
    pub told: Vec<Fact>,
    /// What was told once, to a manager that was there.
    passing: Vec<Fact>,
    next_news: Time,
    emptied: bool,
}

impl Run {
    pub fn alive(&self) -> bool {
        self.launching || self.main || self.others || self.job.is_some()
    }
}

#[derive(Debug)]
pub struct Kernel {
    pub runs: BTreeMap<u64, Run>,
    pub coming: BTreeSet<(Time, u64, Coming)>,
    seq: u64,
}

impl Kernel {
    pub fn new() -> Kernel {
        Kernel { runs: BTreeMap::new(), coming: BTreeSet::new(), seq: 0 }
    }

    pub fn next(&self) -> Option<Time> {
        self.coming.first().map(|(t, ..)| *t)
    }

    fn at(&mut self, t: Time, what: Coming) {
        self.seq += 1;
        self.coming.insert((t, self.seq, what));
    }

    fn after(&mut self, now: Time, ms: u64, what: Coming) {
        self.at(now + Millis(ms), what);
    }

    /// Tells a fact, to the manager that is there now, late or twice as the odds say.
    fn tell(&mut self, now: Time, rng: &mut Rng, odds: &Odds, manager: u64, run: u64, fact: Fact) {
        let Some(r) = self.runs.get_mut(&run) else { return };
        r.told.push(fact);
        let index = r.told.len() - 1;
        let late = if rng.chance(odds.slow_news) { rng.below(3000) } else { 0 };
        r.next_news = r.next_news.max(now + Millis(late));
        let when = r.next_news;
        self.at(when, Coming::News { run, index, manager: Some(manager) });
        while rng.chance(odds.doubled) {
            let later = when + Millis(rng.pick(&[0, 1, 700, 30_000]));
            self.at(later, Coming::News { run, index, manager: None });
        }
    }

    pub fn launch(
        &mut self,
        now: Time,
        rng: &mut Rng,
        odds: &Odds,
        run: u64,
        generation: Generation,
        spec: &ServiceSpec,
    ) {
        let r = Run {
            name: spec.name.clone(),
            generation,
            stop: spec.stop.clone(),
            resources: spec.resources,
            spec: spec.clone(),
            sum: Told::default(),
            launching: true,
            main: false,
            others: false,
            job: None,
            exit: None,
            ended: None,
            started: None,
            immortal: rng.chance(odds.immortal),
            killed: false,
            released: false,
            told: vec![],
            passing: vec![],
            next_news: now,
            emptied: false,
        };
        self.runs.insert(run, r);
        if !rng.chance(odds.launch_hangs) {
            let ms = rng.pick(&[0, 1, 20]);
            self.after(now, ms, Coming::LaunchEnds(run));
        }
    }

    /// A reading, of a service that behaves or not.
    pub fn measure(&mut self, now: Time, rng: &mut Rng, odds: &Odds, manager: u64, run: u64) {
        let memory = if rng.chance(odds.greedy) { 1 << 30 } else { 1 << 10 };
        let cpu_us = rng.chance(900).then_some(now.0 * if rng.chance(odds.greedy) { 1000 } else { 10 });
        let reading = Reading { at: now, memory: Some(memory), cpu_us };
        self.tell(now, rng, odds, manager, run, Fact::Measured { run: RunId(run), reading });
    }

    /// Asks a service that is well or not; whether it is dead by then does not matter to whoever asks.
    pub fn probe(
        &mut self,
        now: Time,
        rng: &mut Rng,
        odds: &Odds,
        run: u64,
        which: Which,
        number: u64,
        timeout: Millis,
    ) {
        let (verdict, ms) = match rng.below(1000) {
            n if n < odds.sick => (Verdict::Failed("it answered 503".into()), rng.pick(&[0, timeout.0])),
            n if n < odds.sick + 20 => (Verdict::Unasked("too many open files".into()), 0),
            _ => (Verdict::Passed, rng.below(timeout.0)),
        };
        if !rng.chance(odds.launch_hangs) {
            self.after(now, ms, Coming::Answers(run, which, number, verdict));
        }
    }

    /// What a service tells of itself after its start: that it is ready at last, and that it is alive.
    fn begin_telling(&mut self, now: Time, rng: &mut Rng, odds: &Odds, run: u64) {
        let Some(r) = self.runs.get(&run) else { return };
        let (ready, live) = (r.spec.ready.clone(), r.spec.live.clone());
        if ready.is_some_and(|ready| !ready.probe.check.is_asked()) && !rng.chance(odds.sick) {
            let ms = if rng.chance(odds.sluggish) { rng.below(20_000) } else { rng.below(40) };
            let told = Told { ready: true, status: Some(format!("{ms}")), ..Told::default() };
            self.after(now, ms, Coming::Tells(run, told));
        }
        if live.is_some_and(|live| live.probe.check == Check::Notify) {
            self.after(now, 1, Coming::Tells(run, Told { alive: true, ..Told::default() }));
        }
    }

    fn tells(&mut self, now: Time, rng: &mut Rng, odds: &Odds, manager: u64, run: u64, told: Told) {
        let Some(r) = self.runs.get_mut(&run).filter(|r| r.main) else { return };
        r.sum.ready |= told.ready;
        r.sum.stopping |= told.stopping;
        if told.alive && !rng.chance(odds.sick) {
            self.after(now, 9_000, Coming::Tells(run, told.clone()));
        }
        if told.ready && rng.chance(odds.sick / 4) {
            let next = rng.pick(&[
                Told { stopping: true, ..Told::default() },
                Told { reloading: true, ..Told::default() },
                Told { failing: true, ..Told::default() },
                Told { extend: Some(Millis(700)), ..Told::default() },
            ]);
            self.after(now, rng.pick(&[0, 3_000]), Coming::Tells(run, next));
        }
        // What passes is not told again: pings, extensions and complaints belong to their moment.
        let passing = !told.ready && !told.stopping;
        let fact = Fact::Told { run: RunId(run), told };
        match passing {
            true => {
                let r = self.runs.get_mut(&run).unwrap();
                let at = r.next_news.max(now);
                r.passing.push(fact);
                let index = r.passing.len() - 1;
                self.at(at, Coming::Passing { run, index, manager });
            }
            false => self.tell(now, rng, odds, manager, run, fact),
        }
    }

    pub fn signal_main(&mut self, now: Time, rng: &mut Rng, odds: &Odds, run: u64, signal: i32) {
        let Some(r) = self.runs.get(&run) else { return };
        if r.main && signal == r.stop.signal && !rng.chance(odds.ignores_term) {
            let ms = rng.pick(&[0, 5, 400]);
            self.after(now, ms, Coming::MainEnds(run));
        }
    }

    pub fn signal_tree(&mut self, now: Time, rng: &mut Rng, odds: &Odds, run: u64) {
        let Some(r) = self.runs.get(&run) else { return };
        if r.alive() && !rng.chance(odds.ignores_term) {
            let ms = rng.pick(&[0, 5, 400]);
            self.after(now, ms, Coming::OthersEnd(run));
        }
    }

    pub fn kill_tree(&mut self, now: Time, rng: &mut Rng, run: u64) {
        let Some(r) = self.runs.get_mut(&run) else { return };
        r.killed = true;
        let ms = match r.immortal {
            true => rng.pick(&[9_000, 15_000, 600_000]),
            false => rng.pick(&[0, 1, 30]),
        };
        self.after(now, ms, Coming::Killed(run));
    }

    pub fn run_job(&mut self, now: Time, rng: &mut Rng, odds: &Odds, run: u64, job: Job) {
        let Some(r) = self.runs.get_mut(&run) else { return };
        if !r.main {
            return;
        }
        r.job = Some(job);
        if job == Job::Stop && !rng.chance(odds.ignores_term) && rng.chance(500) {
            let ms = rng.pick(&[0, 5, 400]);
            self.after(now, ms, Coming::MainEnds(run));
        }
        let ms = rng.pick(&[0, 10, 1500, 60_000]);
        let fails = rng.chance(200);
        self.after(now, ms, Coming::JobEnds(run, fails));
    }

    /// Lets the next thing happen; gives a fact if one reaches the manager.
    pub fn happen(&mut self, now: Time, rng: &mut Rng, odds: &Odds, manager: u64) -> Option<Fact> {
        let (_, _, what) = self.coming.pop_first()?;
        match what {
            Coming::News { run, index, manager: to } if to.is_none_or(|m| m == manager) => {
                return self.runs.get(&run).map(|r| r.told[index].clone());
            }
            Coming::News { .. } => {}
            Coming::Passing { run, index, manager: to } => {
                return self.runs.get(&run).filter(|_| to == manager).map(|r| r.passing[index].clone());
            }
            Coming::Tells(run, told) => self.tells(now, rng, odds, manager, run, told),
            Coming::Answers(run, which, number, verdict) => {
                let again = (run, which, number, verdict.clone());
                if rng.chance(odds.doubled) {
                    let later = rng.pick(&[0, 1, 700, 30_000]);
                    self.after(now, later, Coming::Answers(again.0, again.1, again.2, again.3));
                }
                return Some(Fact::Probed { run: RunId(run), which, number, verdict });
            }
            Coming::LaunchEnds(run) => self.launch_ends(now, rng, odds, manager, run),
            Coming::MainEnds(run) => {
                let exit = match rng.chance(odds.failure) {
                    true => rng.pick(&[
                        Exit::Code(1),
                        Exit::Code(78),
                        Exit::Signal { signal: 11, core: true },
                        Exit::Signal { signal: 9, core: false },
                        Exit::Oom,
                        Exit::Unknown,
                    ]),
                    false => rng.pick(&[Exit::Code(0), Exit::Signal { signal: 15, core: false }]),
                };
                self.main_ends(now, rng, odds, manager, run, exit);
            }
            Coming::OthersEnd(run) => {
                if let Some(r) = self.runs.get_mut(&run) {
                    r.others = false;
                    if !r.main {
                        r.job = None;
                    }
                }
                self.check_empty(now, rng, odds, manager, run);
            }
            Coming::JobEnds(run, fails) => {
                if let Some(job) = self.runs.get_mut(&run).and_then(|r| r.job.take()) {
                    let why = if fails { "exited with status 3".into() } else { String::new() };
                    self.tell(now, rng, odds, manager, run, Fact::JobEnded { run: RunId(run), job, why });
                    self.check_empty(now, rng, odds, manager, run);
                }
            }
            Coming::Killed(run) => {
                let r = self.runs.get_mut(&run)?;
                r.others = false;
                r.job = None;
                if std::mem::take(&mut r.launching) {
                    let fact =
                        Fact::LaunchFailed { run: RunId(run), why: "it was killed".into(), transient: false };
                    self.tell(now, rng, odds, manager, run, fact);
                } else if r.main {
                    let exit = Exit::Signal { signal: 9, core: false };
                    self.main_ends(now, rng, &Odds { leaves_others: 0, ..odds.clone() }, manager, run, exit);
                }
                self.check_empty(now, rng, odds, manager, run);
            }
        }
        None
    }

    fn launch_ends(&mut self, now: Time, rng: &mut Rng, odds: &Odds, manager: u64, run: u64) {
        let Some(r) = self.runs.get_mut(&run) else { return };
        if !std::mem::take(&mut r.launching) {
            return;
        }
        if rng.chance(odds.launch_fails) {
            let why = "cannot change directory to /srv: No such file or directory".into();
            let fact = Fact::LaunchFailed { run: RunId(run), why, transient: rng.chance(300) };
            return self.tell(now, rng, odds, manager, run, fact);
        }
        r.main = true;
        r.started = Some(now);
        let fact = Fact::Started { run: RunId(run), pid: run as u32 + 1000, at: now };
        self.tell(now, rng, odds, manager, run, fact);
        self.begin_telling(now, rng, odds, run);
        if rng.chance(odds.short_life) {
            let ms = rng.pick(&[0, 3, 300, 2000, 12_000, 70_000]);
            self.after(now, ms, Coming::MainEnds(run));
        }
    }

    fn main_ends(&mut self, now: Time, rng: &mut Rng, odds: &Odds, manager: u64, run: u64, exit: Exit) {
        let Some(r) = self.runs.get_mut(&run) else { return };
        if !std::mem::take(&mut r.main) {
            return;
        }
        r.others = rng.chance(odds.leaves_others);
        (r.exit, r.ended) = (Some(exit), Some(now));
        let leftovers = r.others || r.job.is_some();
        if leftovers && rng.chance(500) {
            let ms = rng.pick(&[0, 50, 5000]);
            self.after(now, ms, Coming::OthersEnd(run));
        }
        let r = self.runs.get_mut(&run).unwrap();
        let fact = Fact::Exited { run: RunId(run), exit, leftovers, at: now };
        r.emptied = !leftovers;
        if leftovers && rng.chance(odds.emptied_first) {
            // They are gone by the time the news is written: told first.
            (r.others, r.job, r.emptied) = (false, None, true);
            self.tell(now, rng, odds, manager, run, Fact::Emptied { run: RunId(run) });
        }
        self.tell(now, rng, odds, manager, run, fact);
    }

    fn check_empty(&mut self, now: Time, rng: &mut Rng, odds: &Odds, manager: u64, run: u64) {
        let Some(r) = self.runs.get_mut(&run) else { return };
        if r.ended.is_some() && !r.alive() && !std::mem::replace(&mut r.emptied, true) {
            self.tell(now, rng, odds, manager, run, Fact::Emptied { run: RunId(run) });
        }
    }

    /// Immortals and hanging launches come to an end.
    pub fn heal(&mut self, now: Time) {
        let runs: Vec<u64> = self.runs.iter().filter(|(_, r)| !r.released).map(|(n, _)| *n).collect();
        for run in runs {
            let r = self.runs.get_mut(&run).unwrap();
            r.immortal = false;
            let (launching, killed) = (r.launching, r.killed);
            if killed {
                self.after(now, 1, Coming::Killed(run));
            } else if launching {
                self.after(now, 1, Coming::LaunchEnds(run));
            }
        }
    }
}
