//! Hooks: which events go to which, commands one at a time, and what is left out because a hook is too slow. A
//! command is a run like a service's, that the machine knows nothing of. Nothing here waits.

mod fold;
mod webhook;

use super::{
    actor::{Actor, LiveRun, now},
    publish::event,
};
use crate::{
    keeper::protocol::{Call, Request},
    machine::Time,
    plan::{
        Exit, Generation, Name, RunId,
        hook::{Hook, Subject},
        signal::signal_name,
    },
    wire,
};
use fold::Folder;
use std::collections::{BTreeMap, VecDeque};
use tokio::sync::mpsc;
use webhook::Post;

/// Events that may wait for one hook; more are counted and left out.
const WAITING: usize = 64;
/// Events that are looked at together.
const BATCH: usize = 256;

/// All hooks of the plan in force.
#[derive(Debug, Default)]
pub(super) struct Hooks {
    /// The number of the last event that was looked at.
    seen: u64,
    generation: Generation,
    all: BTreeMap<String, One>,
}

#[derive(Debug)]
struct One {
    hook: Hook,
    folder: Folder,
    /// For the command.
    waiting: VecDeque<wire::Event>,
    running: Option<Running>,
    /// To the task that sends.
    post: Option<mpsc::Sender<wire::Event>>,
    left_out: u64,
}

#[derive(Debug)]
struct Running {
    run: RunId,
    /// `None`: it is being killed.
    until: Option<Time>,
}

impl Hooks {
    /// Those that happen after event number `seen`.
    pub(super) fn after(seen: u64) -> Hooks {
        Hooks { seen, ..Hooks::default() }
    }

    /// When something is due.
    pub(super) fn deadline(&self) -> Option<Time> {
        let of = |one: &One| {
            let running = one.running.as_ref().and_then(|r| r.until);
            running.into_iter().chain(one.folder.deadline()).min()
        };
        self.all.values().filter_map(of).min()
    }

    fn running(&mut self, run: RunId) -> Option<&mut One> {
        self.all.values_mut().find(|one| one.running.as_ref().is_some_and(|r| r.run == run))
    }
}

impl Actor {
    /// Calls hooks for what has happened in this turn, and for what is due.
    pub(super) fn call_hooks(&mut self) {
        if self.hooks.generation != self.plans.generation() {
            self.take_hooks();
        }
        let now = now();
        loop {
            let new = self.publisher.events.after(self.hooks.seen, BATCH);
            let Some(last) = new.last() else { break };
            self.hooks.seen = last.id;
            for one in self.hooks.all.values_mut() {
                for event in &new {
                    if !one.hook.on.contains(&event.kind) {
                        continue;
                    }
                    if let Some(event) = one.folder.offer(now, event.clone()) {
                        one.deliver(event);
                    }
                }
            }
        }
        for one in self.hooks.all.values_mut() {
            for event in one.folder.due(now) {
                one.deliver(event);
            }
        }
        for name in self.hooks.all.keys().cloned().collect::<Vec<_>>() {
            self.serve_hook(&name, now);
        }
    }

    /// The hooks of another plan; what waits for one that stays, waits on.
    fn take_hooks(&mut self) {
        let (plan, log) = (self.plans.current(), &self.publisher.events);
        let mut old = std::mem::take(&mut self.hooks.all);
        for hook in &plan.hooks {
            let one = match old.remove(&hook.name) {
                Some(mut one) if one.hook.webhook == hook.webhook && one.hook.timeout == hook.timeout => {
                    one.hook = hook.clone();
                    one
                }
                before => One::new(hook.clone(), log.clone(), before.and_then(|one| one.running)),
            };
            self.hooks.all.insert(hook.name.clone(), one);
        }
        self.hooks.generation = self.plans.generation();
        for gone in old.into_values().filter_map(|one| one.running) {
            self.tell(Request::KillTree { run: gone.run });
        }
    }

    /// Launches the command for the next event, or kills the one that takes too long.
    fn serve_hook(&mut self, name: &str, now: Time) {
        let generation = self.plans.generation();
        let Some(one) = self.hooks.all.get_mut(name) else { return };
        let left_out = std::mem::take(&mut one.left_out);
        if left_out > 0 {
            tracing::warn!("hook {name} is too slow, events left out: {left_out}");
        }
        match &mut one.running {
            Some(running) if running.until.is_some_and(|until| until <= now) => {
                running.until = None;
                let (run, timeout) = (running.run, one.hook.timeout);
                self.tell(Request::KillTree { run });
                return self.hook_trouble(name, &format!("took longer than {timeout} and was killed"));
            }
            Some(_) => return,
            None => {}
        }
        let service = Hook::service(name);
        let Some(entry) = self.plans.entry(generation, &service) else { return };
        let Some(event) = one.waiting.pop_front() else { return };
        let run = self.machine.lend_run();
        one.running = Some(Running { run, until: Some(now + one.hook.timeout) });
        let subject = subject(&event);
        let stdin = serde_json::to_string(&event).unwrap_or_default();
        self.runs.insert(run, LiveRun { stray: true, ..LiveRun::new(service.clone(), generation) });
        let call = Some(Box::new(Call { stdin, subject }));
        self.tell(Request::Launch { run, service, generation, entry, call });
    }

    /// The command of a hook has ended.
    pub(super) fn hook_exited(&mut self, run: RunId, exit: Exit, leftovers: bool) {
        let Some(one) = self.hooks.running(run) else { return };
        let (name, killed) = (one.hook.name.clone(), one.running.as_ref().is_some_and(|r| r.until.is_none()));
        if let Some(running) = &mut one.running {
            running.until = None;
        }
        if leftovers {
            // What it left behind holds nobody up.
            self.tell(Request::KillTree { run });
        }
        let what = match exit {
            Exit::Code(0) => return,
            Exit::Code(status) => format!("exited with status {status}"),
            Exit::Signal { signal, .. } => format!("was killed by {}", signal_name(signal)),
            Exit::Oom => "ran out of memory".into(),
            Exit::Unknown => "ended, and nobody knows how".into(),
        };
        if !killed {
            self.hook_trouble(&name, &what);
        }
    }

    /// The command of a hook could not be launched.
    pub(super) fn hook_refused(&mut self, run: RunId, why: &str) {
        if let Some(name) = self.hooks.running(run).map(|one| one.hook.name.clone()) {
            self.hook_trouble(&name, &format!("did not start: {why}"));
        }
    }

    /// Nothing is left of a run, and its output is in the log.
    pub(super) fn hook_over(&mut self, run: RunId) {
        if let Some(one) = self.hooks.running(run) {
            one.running = None;
        }
    }

    fn hook_trouble(&mut self, name: &str, what: &str) {
        let folder = self.plans.current().daemon.log_dir.join(Hook::service(name).as_str());
        let message = format!("hook {name} {what}; what it printed is in {}", folder.display());
        tracing::error!("{message}");
        self.publisher.tell(event("hook", None, message));
    }
}

impl One {
    fn new(hook: Hook, log: std::sync::Arc<super::events::EventLog>, running: Option<Running>) -> One {
        let post = hook.webhook.clone().map(|webhook| {
            let (post, events) = mpsc::channel(WAITING);
            tokio::spawn(Post { name: hook.name.clone(), webhook, timeout: hook.timeout, log }.work(events));
            post
        });
        One { hook, folder: Folder::default(), waiting: VecDeque::new(), running, post, left_out: 0 }
    }

    fn deliver(&mut self, event: wire::Event) {
        if let Some(post) = &self.post
            && post.try_send(event.clone()).is_err()
        {
            self.left_out += 1;
        }
        match self.hook.exec {
            Some(_) if self.waiting.len() < WAITING => self.waiting.push_back(event),
            Some(_) => self.left_out += 1,
            None => {}
        }
    }
}

/// What the event is about.
fn subject(event: &wire::Event) -> Subject {
    let Some(service) = &event.service else {
        return Subject { name: "keepd".into(), instance: "0".into() };
    };
    let instance = Name::new(service).as_str().split_once('@').map_or("0", |(_, i)| i).to_owned();
    Subject { name: service.clone(), instance }
}
