//! The log thread: waits for pipes, times and commands, and gives each stream its turns. One wait serves
//! all of them; with nothing to do it does not wake up.

use super::{
    Housekeeper,
    alarm::{ALARM, Alarm},
    engine::{Account, Command, Report, Shared},
    place::Place,
    scratch::Scratch,
    stream::{Next, Source, Stream, Why},
};
use crate::{
    plan::{LogSpec, Name, RunId},
    sys::{clock, poller::Poller},
};
use std::{
    collections::{BTreeSet, HashMap},
    io,
    os::fd::{AsFd, OwnedFd},
    sync::{Arc, atomic::Ordering::Relaxed, mpsc},
};

/// Until the poller is asked again to watch a pipe that it refused, in microseconds.
const REARM: u64 = 100_000;

struct Service {
    name: Name,
    account: Arc<Account>,
    streams: [Stream; 2],
    due: [Option<u64>; 2],
    /// What was reported last.
    trouble: Option<String>,
}

/// How far a run is.
struct Run {
    service: u64,
    pipes: u32,
    finishing: bool,
}

/// See the head of this file.
pub(super) struct Pump {
    poller: Poller,
    commands: mpsc::Receiver<Command>,
    shared: Arc<Shared>,
    report: Box<dyn Fn(Report) + Send>,
    housekeeper: Housekeeper,
    alarm: Alarm,
    scratch: Scratch,
    names: HashMap<Name, u64>,
    /// By number; a number is never used again, so late events and times find nobody.
    services: HashMap<u64, Service>,
    runs: HashMap<RunId, Run>,
    /// (when, token): token = 2 * service + stream.
    due: BTreeSet<(u64, u64)>,
    next_number: u64,
}

impl Pump {
    pub(super) fn new(
        poller: Poller,
        commands: mpsc::Receiver<Command>,
        shared: Arc<Shared>,
        report: Box<dyn Fn(Report) + Send>,
        housekeeper: Housekeeper,
    ) -> io::Result<Pump> {
        Ok(Pump {
            poller,
            commands,
            shared,
            report,
            housekeeper,
            alarm: Alarm::new()?,
            scratch: Scratch::new()?,
            names: HashMap::new(),
            services: HashMap::new(),
            runs: HashMap::new(),
            due: BTreeSet::new(),
            next_number: 0,
        })
    }

    pub(super) fn run(mut self) {
        let mut ready = Vec::new();
        loop {
            ready.clear();
            let alarm = self.due.first().map(|(at, _)| *at);
            if let Err(e) = self.poller.wait(alarm, &mut ready) {
                tracing::error!("cannot wait for the output of services: {e}; it is not written any more");
                return;
            }
            self.shared.turns.fetch_add(1, Relaxed);
            loop {
                match self.commands.try_recv() {
                    Ok(Command::Stop) | Err(mpsc::TryRecvError::Disconnected) => return self.drain(),
                    Ok(command) => self.obey(command),
                    Err(mpsc::TryRecvError::Empty) => break,
                }
            }
            for &token in &ready {
                if token == ALARM {
                    self.tick();
                } else {
                    self.turn(token, Why::Ready);
                }
            }
            self.alarm.arm(&self.poller);
            let now = clock::monotonic_us();
            let due: Vec<u64> = self.due.range(..=(now, u64::MAX)).map(|(_, token)| *token).collect();
            for token in due {
                self.turn(token, Why::Due);
            }
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Attach { service, run, spec, stdout, stderr } => {
                self.attach(service, run, &spec, [stdout, stderr]);
            }
            Command::Finish { run } => self.finish(run),
            Command::Update { service, spec } => self.update(&service, &spec),
            Command::Forget { service } => self.forget(&service),
            Command::Reopen(_done) => {
                for stream in self.services.values_mut().flat_map(|s| &mut s.streams) {
                    stream.store().close();
                }
            }
            Command::Stop => {}
        }
    }

    fn attach(&mut self, name: Name, run: RunId, spec: &LogSpec, pipes: [Option<OwnedFd>; 2]) {
        self.update(&name, spec);
        let number = *self.names.entry(name.clone()).or_insert_with(|| {
            self.next_number += 1;
            self.next_number
        });
        let service = self.services.entry(number).or_insert_with(|| Service {
            account: self.shared.account(&name),
            name,
            streams: places(spec).map(|place| Stream::new(place, spec.into(), &self.housekeeper)),
            due: [None; 2],
            trouble: None,
        });
        for (which, pipe) in pipes.into_iter().enumerate() {
            if let Some(pipe) = pipe {
                service.streams[which].push(Source::new(run, pipe));
                let fresh = Run { service: number, pipes: 0, finishing: false };
                self.runs.entry(run).or_insert(fresh).pipes += 1;
            }
        }
        self.turn(number * 2, Why::Due);
        self.turn(number * 2 + 1, Why::Due);
    }

    fn update(&mut self, name: &Name, spec: &LogSpec) {
        let Some(service) = self.names.get(name).and_then(|n| self.services.get_mut(n)) else { return };
        for (stream, place) in service.streams.iter_mut().zip(places(spec)) {
            stream.store().update(place, spec.into());
        }
    }

    fn finish(&mut self, run: RunId) {
        let Some(state) = self.runs.get_mut(&run) else {
            return (self.report)(Report::Finished { run });
        };
        state.finishing = true;
        let number = state.service;
        let Some(service) = self.services.get_mut(&number) else { return };
        let [stdout, stderr] = service.streams.each_mut().map(|stream| stream.finish(run));
        if stdout {
            self.turn(number * 2, Why::Due);
        }
        if stderr {
            self.turn(number * 2 + 1, Why::Due);
        }
    }

    fn forget(&mut self, name: &Name) {
        self.shared.forget(name);
        let Some(number) = self.names.remove(name) else { return };
        let Some(mut service) = self.services.remove(&number) else { return };
        for (which, stream) in service.streams.iter_mut().enumerate() {
            if let Some(at) = service.due[which] {
                self.due.remove(&(at, number * 2 + which as u64));
            }
            for source in stream.abandon() {
                self.retire(source);
            }
        }
    }

    /// One turn of one stream, and all that follows from it. Returns whether anything moved.
    fn turn(&mut self, token: u64, why: Why) -> bool {
        let (number, which) = (token / 2, usize::from(token % 2 == 1));
        let Some(service) = self.services.get_mut(&number) else { return false };
        let turn = service.streams[which].turn(why, &mut self.scratch, &service.account.counters);
        let moved = turn.bytes > 0 || !turn.retired.is_empty();
        if (turn.bytes > 0 || !turn.rotated.is_empty()) && service.account.changed.receiver_count() > 0 {
            service.account.changed.send_modify(|n| *n = n.wrapping_add(1));
        }
        for file in turn.rotated {
            (self.report)(Report::Rotated { service: service.name.clone(), file });
        }
        let trouble = service.streams.iter().find_map(Stream::trouble);
        if trouble != service.trouble.as_deref() {
            service.trouble = trouble.map(str::to_owned);
            service.account.counters.set_trouble(service.trouble.clone());
            (self.report)(Report::Trouble {
                service: service.name.clone(),
                message: service.trouble.clone(),
            });
        }
        let due = service.streams[which].store().due_ms();
        self.alarm.not_later_than(due);
        self.schedule(token, turn.next);
        for source in turn.retired {
            self.retire(source);
        }
        moved
    }

    /// The time of a rotation has come, or the clock was set. What cannot be rotated now is with the next write.
    fn tick(&mut self) {
        self.alarm.clear();
        for service in self.services.values_mut() {
            for stream in &mut service.streams {
                if let Ok(Some(file)) = stream.store().tick() {
                    service.account.changed.send_modify(|n| *n = n.wrapping_add(1));
                    (self.report)(Report::Rotated { service: service.name.clone(), file });
                }
                self.alarm.not_later_than(stream.store().due_ms());
            }
        }
    }

    /// What the stream waits for from now on.
    fn schedule(&mut self, token: u64, next: Next) {
        let (number, which) = (token / 2, usize::from(token % 2 == 1));
        let Some(service) = self.services.get_mut(&number) else { return };
        let at = match next {
            Next::Nothing => None,
            Next::At(at) => {
                // A pipe that is watched costs its writer a fifth more per write, even while nobody waits.
                if let Some(source) = service.streams[which].head()
                    && source.known
                {
                    self.poller.remove(source.pipe.as_fd());
                    source.known = false;
                }
                Some(at)
            }
            Next::Arm => service.streams[which].head().and_then(|source| {
                match self.poller.arm(source.pipe.as_fd(), token, source.known) {
                    Ok(()) => {
                        source.known = true;
                        None
                    }
                    Err(_) => Some(clock::monotonic_us() + REARM),
                }
            }),
        };
        if let Some(old) = service.due[which].take() {
            self.due.remove(&(old, token));
        }
        service.due[which] = at;
        self.due.extend(at.map(|at| (at, token)));
    }

    /// A pipe is done, and with it perhaps its run.
    fn retire(&mut self, source: Source) {
        if source.known {
            self.poller.remove(source.pipe.as_fd());
        }
        let run = source.run;
        let Some(state) = self.runs.get_mut(&run) else { return };
        state.pipes -= 1;
        if state.pipes == 0 {
            let finishing = state.finishing;
            self.runs.remove(&run);
            if finishing {
                (self.report)(Report::Finished { run });
            }
        }
    }

    /// Writes what is in the pipes, as far as it can be written, and ends.
    fn drain(mut self) {
        let tokens: Vec<u64> = self.services.keys().flat_map(|n| [n * 2, n * 2 + 1]).collect();
        for token in tokens {
            // A pipe that is written without pause is not waited for.
            for _ in 0..8 {
                if !self.turn(token, Why::Due) {
                    break;
                }
            }
        }
    }
}

/// Where stdout and stderr go.
fn places(spec: &LogSpec) -> [Place; 2] {
    [false, true].map(|stderr| Place::of(&spec.dir, stderr))
}
