//! Restarts, their limits, time limits and signals.

use super::{
    super::{draft::Draft, text::number, toml::Value},
    Mapped,
    unit::{Entry, Unit},
    values::span,
};
use crate::plan::{
    Millis,
    signal::{parse_signal, signal_name},
};

/// More failures than keepd's breaker counts, within more time than anybody waits: it never opens.
const NEVER: (i64, &str) = (2000, "36500d");

pub(super) fn map(entry: &Entry, unit: &Unit, draft: &mut Draft) -> Mapped {
    let value = entry.last();
    Some(match entry.key.as_str() {
        "Restart" => restart(value, draft),
        "RestartSec"
        | "RestartSteps"
        | "RestartMaxDelaySec"
        | "StartLimitBurst"
        | "StartLimitInterval"
        | "StartLimitIntervalSec" => restarts(unit, draft),
        "RestartPreventExitStatus" => exits(entry, draft, "no-restart-exit", Vec::new()),
        "SuccessExitStatus" => exits(entry, draft, "success-exit", vec![Value::Number(0)]),
        "TimeoutStopSec" => stop_timeout(value, draft),
        "TimeoutSec" => {
            draft.remarks.lost("TimeoutSec, for the start", WITHIN);
            match unit.get("TimeoutStopSec") {
                Some(_) => Ok(()),
                None => stop_timeout(value, draft),
            }
        }
        "TimeoutStartSec" => match span(value) {
            Ok(Some(ms)) => draft.set("ready.within", Millis(ms).to_string()).map_err(|_| WITHIN.into()),
            Ok(None) => Ok(()),
            Err(why) => Err(why),
        },
        "WatchdogSec" => match span(value) {
            Ok(Some(0)) => Ok(()),
            Ok(_) => {
                draft.set("live.notify", true).map_err(|_| "[live] is not supported by this version".into())
            }
            Err(why) => Err(why),
        },
        "KillSignal" => parse_signal(value).and_then(|n| draft.set("stop-signal", signal_name(n))),
        "ReloadSignal" if unit.get("ExecReload").is_none() => {
            parse_signal(value).and_then(|n| draft.set("reload-signal", signal_name(n)))
        }
        "KillMode" => kill_mode(value, draft),
        "SendSIGKILL" if value == "yes" => Ok(()),
        _ => return None,
    })
}

const WITHIN: &str = "[ready] is not supported by this version: it is ready as soon as it runs";

/// What systemd does where a unit says nothing, and keepd does not.
pub(super) fn defaults(unit: &Unit, draft: &mut Draft) {
    if unit.get("Restart").is_none() && draft.set("restart", "never").is_ok() {
        draft.remarks.note(
            "restart = \"never\" is what systemd does without Restart; keepd's own default is on-failure",
        );
    }
    if draft.get("stop-timeout").is_none() {
        let _ = draft.set("stop-timeout", "90s");
    }
}

fn restart(value: &str, draft: &mut Draft) -> Result<(), String> {
    match value {
        "no" => draft.set("restart", "never"),
        "always" | "on-failure" => draft.set("restart", value),
        "on-abnormal" | "on-abort" | "on-watchdog" => {
            draft.remarks.note(format!(
                "Restart={value}: an exit status that is no success is followed by a restart as well"
            ));
            draft.set("restart", "on-failure")
        }
        "on-success" => {
            draft.set("restart", "never")?;
            Err("keepd restarts always, after a failure, or never".into())
        }
        _ => Err("systemd does not know it either".into()),
    }
}

/// All that is said of restarts, at once: what there is of it depends on the rest.
fn restarts(unit: &Unit, draft: &mut Draft) -> Result<(), String> {
    let time = |key: &str| unit.get(key).map(span).transpose().map(Option::flatten);
    let delay = time("RestartSec")?.unwrap_or(100);
    let steps = unit.get("RestartSteps").map_or(Ok(0), number)?;
    let max = time("RestartMaxDelaySec")?.filter(|_| steps > 0).unwrap_or(delay).max(delay);
    #[allow(clippy::cast_precision_loss, reason = "a factor is no exact thing")]
    let factor = match (steps, delay) {
        (0, _) | (_, 0) => 1.0,
        (steps, delay) => ((max as f64 / delay as f64).powf(1.0 / steps as f64) * 1000.0).round() / 1000.0,
    };
    draft.set("backoff.delay", Millis(delay).to_string())?;
    draft.set("backoff.factor", Value::Float(factor))?;
    draft.set("backoff.max", Millis(max).to_string())?;
    draft.set("backoff.jitter", Value::Float(0.0))?;
    let burst = unit.get("StartLimitBurst").map_or(Ok(5), number)?;
    let interval = match unit.get("StartLimitIntervalSec").or_else(|| unit.get("StartLimitInterval")) {
        None => Some(10_000),
        Some(text) => span(text)?,
    };
    // Delays between so many failures.
    #[allow(clippy::cast_precision_loss, reason = "compared with a limit that people chose")]
    let (mut least, mut next) = (0f64, delay as f64);
    for _ in 1..burst.min(10_000) {
        least += next;
        #[allow(clippy::cast_precision_loss, reason = "as above")]
        let ceiling = max as f64;
        next = (next * factor).min(ceiling);
    }
    #[allow(clippy::cast_precision_loss, reason = "as above")]
    let reached = interval.is_none_or(|i| least <= i as f64) && interval != Some(0) && burst > 0;
    let (failures, within) = match reached {
        true => (
            i64::try_from(burst).unwrap_or(NEVER.0),
            interval.map_or(NEVER.1.into(), |i| Millis(i).to_string()),
        ),
        false => (NEVER.0, NEVER.1.into()),
    };
    draft.set("breaker.failures", failures)?;
    draft.set("breaker.within", within)?;
    if reached {
        draft.set("breaker.retry-every", "never")
    } else {
        draft
            .remarks
            .note("systemd's start limit is never reached with this delay, so it is restarted for ever");
        Ok(())
    }
}

fn exits(entry: &Entry, draft: &mut Draft, path: &'static str, mut all: Vec<Value>) -> Result<(), String> {
    let other = if path == "success-exit" { "no-restart-exit" } else { "success-exit" };
    for word in entry.words() {
        let value = match word.parse::<i64>() {
            Ok(code) if (0..256).contains(&code) => Value::Number(code),
            _ => match parse_signal(&word) {
                Ok(number) => Value::Text(signal_name(number)),
                Err(_) => {
                    draft.remarks.lost(
                        format!("{}={word}", entry.key),
                        "it is neither an exit status from 0 to 255 nor a signal",
                    );
                    continue;
                }
            },
        };
        let elsewhere = matches!(draft.get(other), Some(Value::Mixed(there)) if there.contains(&value));
        // Success is what an exit status 0 is where nobody says otherwise.
        if elsewhere || path == "no-restart-exit" && value == Value::Number(0) {
            draft.remarks.lost(
                format!("{}={word}", entry.key),
                "keepd takes one end for a success or for one without a restart, not for both",
            );
        } else if !all.contains(&value) {
            all.push(value);
        }
    }
    draft.set(path, Value::Mixed(all))
}

fn stop_timeout(value: &str, draft: &mut Draft) -> Result<(), String> {
    match span(value)? {
        Some(ms) if ms > 0 => draft.set("stop-timeout", Millis(ms).to_string()),
        _ => Err("a stop of keepd's always ends; write a stop-timeout that is long enough".into()),
    }
}

fn kill_mode(value: &str, draft: &mut Draft) -> Result<(), String> {
    match value {
        "mixed" => Ok(()),
        "control-group" => {
            draft.remarks.note(
                "KillMode=control-group: stop-signal goes to the main process first, then to what it \
                 leaves behind",
            );
            Ok(())
        }
        _ => Err("nothing of a service outlives its stop".into()),
    }
}
