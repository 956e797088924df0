//! `check --explain NAME`: what a configuration means for one service in time: what starts before it, and when it is
//! restarted if it fails.

use super::{
    fail::{Fail, UNKNOWN},
    text::clean,
};
use crate::plan::{Millis, Name, Plan, Restart, ServiceSpec};
use std::{
    collections::BTreeSet,
    io::{self, Write},
};

/// Delays that are shown one by one.
const SHOWN: u32 = 8;

pub(super) fn run(plan: &Plan, name: &str, out: &mut impl Write) -> Result<(), Fail> {
    let meant: Vec<&ServiceSpec> = plan.services.iter().filter(|s| s.name.is_meant_by(name)).collect();
    if meant.is_empty() {
        return Err(Fail::new(UNKNOWN, format!("no service is named `{name}`")));
    }
    for spec in meant {
        one(plan, spec, out)?;
    }
    Ok(())
}

fn one(plan: &Plan, spec: &ServiceSpec, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "{}", clean(spec.name.as_str()))?;
    let order = start_order(plan, spec);
    let names: Vec<&str> = order.iter().map(|n| n.as_str()).collect();
    writeln!(out, "  start order  {}", clean(&names.join(", ")))?;
    let wait = match (&spec.oneshot, &spec.ready) {
        (Some(_), _) => "once it has succeeded".into(),
        (None, Some(ready)) => format!("once its `ready` check says so, within {}", ready.within),
        (None, None) => "as soon as its command is executed".into(),
    };
    writeln!(out, "  ready        {wait}")?;
    if let Some(schedule) = spec.oneshot.as_ref().and_then(|o| o.schedule.as_ref()) {
        writeln!(out, "  runs         at `{}`, local time; never twice at once", clean(schedule.as_str()))?;
    }
    writeln!(out, "  restarts     {}", restarts(spec))?;
    let stop = &spec.stop;
    let signal = crate::plan::signal::signal_name(stop.signal);
    let first = if stop.command.is_empty() { signal } else { format!("its stop-command, then {signal}") };
    writeln!(out, "  stop         {first}; after {} SIGKILL to all of it", stop.timeout)
}

/// What is brought up before it, and itself: each after what it comes after.
fn start_order<'p>(plan: &'p Plan, spec: &'p ServiceSpec) -> Vec<&'p Name> {
    fn walk<'p>(
        plan: &'p Plan,
        spec: &'p ServiceSpec,
        seen: &mut BTreeSet<&'p Name>,
        out: &mut Vec<&'p Name>,
    ) {
        if !seen.insert(&spec.name) {
            return;
        }
        for name in spec.requires.iter().chain(&spec.binds_to).chain(&spec.wants).chain(&spec.after) {
            if let Some(other) = plan.find(name.as_str()) {
                walk(plan, other, seen, out);
            }
        }
        out.push(&spec.name);
    }
    let mut out = Vec::new();
    walk(plan, spec, &mut BTreeSet::new(), &mut out);
    out
}

/// "after 500ms, 1s, 2s, …; opens after 10 failures, about 2m; then every 5m"
fn restarts(spec: &ServiceSpec) -> String {
    if spec.restart == Restart::Never {
        return "never".into();
    }
    let when = if spec.restart == Restart::Always { "whenever it ends" } else { "when it fails" };
    let (backoff, breaker) = (&spec.backoff, &spec.breaker);
    // So many restarts fail before the breaker opens with the next failure.
    let before = breaker.failures.saturating_sub(1);
    let mut delays: Vec<String> = (1..=before.min(SHOWN)).map(|n| backoff.base(n).to_string()).collect();
    if before > SHOWN {
        delays.push("...".into());
    }
    // Beyond the ceiling each takes as long.
    let growing = (1..=before).take_while(|n| backoff.base(*n) < backoff.max).count() as u64;
    let sum: u64 = (1..=before).take(growing as usize).map(|n| backoff.base(n).0).sum();
    let rest = u64::from(before).saturating_sub(growing).saturating_mul(backoff.base(before.max(1)).0);
    let total = Millis(sum.saturating_add(rest));
    let spread = match backoff.jitter_permille {
        0 => String::new(),
        permille => format!(", each up to {}% shorter or longer", f64::from(permille) / 10.0),
    };
    let pauses = match delays.is_empty() {
        true => String::new(),
        false => format!(" after {}{spread}", delays.join(", ")),
    };
    let then = match breaker.retry_every {
        Some(every) => format!("then one retry every {every}"),
        None => "then it waits for an operator".into(),
    };
    let noun = if breaker.failures == 1 { "failure" } else { "failures" };
    format!(
        "{when}{pauses}; opens after {} {noun} within {}, about {total} if each run fails at once; {then}; \
         a run of {} forgets them",
        breaker.failures, breaker.within, backoff.reset_after
    )
}
