//! One application of PM2: each of its keys to keepd's.

use super::super::{
    draft::{Draft, Setting},
    file_name,
    text::{binary_size, boolean, literal, literals},
    toml::Value,
};
use crate::{config::split_words, plan::Millis};
use serde_json::{Map, Value as Json};
use std::path::{Path, PathBuf};

type App = Map<String, Json>;

/// The service of an application. The error is a clause.
pub(super) fn application(app: &App, file: &Path, setting: &Setting) -> Result<Draft, String> {
    let script = app.get("script").map(text).unwrap_or_default();
    let stem = Path::new(&script).file_stem().map(|s| s.to_string_lossy().into_owned());
    let name = app.get("name").map(text).or(stem).filter(|n| !n.is_empty());
    let name = name.ok_or("an application has neither a `name` nor a `script`")?;
    let mut draft = Draft::new(&name, format!("{name} of {}", file_name(file)), setting);
    let folder = folder(app, file);
    draft.set("directory", literal(&folder.display().to_string()))?;
    // What PM2 does where nobody says otherwise.
    draft.set("restart", "always")?;
    draft.set("stop-signal", "SIGINT")?;
    for (key, value) in app {
        let outcome = map(&mut draft, app, key, value, &folder);
        if key == "script"
            && let Err(why) = &outcome
        {
            draft.refused = Some(why.clone());
        }
        draft.key(format!("{key} = {value}"), outcome);
    }
    Ok(draft)
}

/// The folder that an application is run in.
fn folder(app: &App, file: &Path) -> PathBuf {
    let own = file.parent().unwrap_or(Path::new("/"));
    let folder = app.get("cwd").map_or_else(|| own.to_owned(), |cwd| own.join(text(cwd)));
    folder.components().collect()
}

/// A string, number or boolean as text; anything else as JSON.
fn text(value: &Json) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

fn yes(value: &Json) -> Result<bool, String> {
    boolean(&text(value))
}

/// Words of a list, or of one string.
fn words(value: Option<&Json>) -> Result<Vec<String>, String> {
    match value {
        None | Some(Json::Null) => Ok(Vec::new()),
        Some(Json::Array(items)) => Ok(items.iter().map(text).collect()),
        Some(value) => Ok(split_words(&text(value))?),
    }
}

/// `1600`, in milliseconds, or `"10s"`.
fn time(value: &Json) -> Result<String, String> {
    let text = text(value);
    match text.parse::<u64>() {
        Ok(ms) => Ok(Millis(ms).to_string()),
        Err(_) => crate::plan::unit::parse_duration(&text).map(|t| t.to_string()),
    }
}

fn map(draft: &mut Draft, app: &App, key: &str, value: &Json, folder: &Path) -> Result<(), String> {
    match key {
        "script" => command(draft, app, &text(value), folder),
        // Read where the command is put together, or where the folder is.
        "name" | "args" | "cwd" | "interpreter" | "exec_interpreter" | "node_args" | "interpreter_args" => {
            Ok(())
        }
        "instances" => instances(draft, app, value),
        "exec_mode" if matches!(text(value).as_str(), "fork" | "fork_mode") => Ok(()),
        "exec_mode" => {
            Err("keepd shares no port between instances: give each its own by `port`, or let the \
             program share it"
                .into())
        }
        "env" => env(value).and_then(|vars| draft.env(vars)),
        "increment_var" => port(draft, app, &text(value)),
        "instance_var" if app.contains_key("instances") => {
            draft.env(vec![(text(value), "${instance}".into())])
        }
        "kill_timeout" => time(value).and_then(|t| draft.set("stop-timeout", t)),
        "min_uptime" => time(value).and_then(|t| draft.set("backoff.reset-after", t)),
        "max_restarts" => breaker(draft, app, value),
        "restart_delay" => {
            let delay = time(value)?;
            draft.set("backoff.factor", Value::Float(1.0))?;
            draft.set("backoff.delay", delay.as_str())?;
            draft.set("backoff.max", delay)
        }
        "exp_backoff_restart_delay" => {
            draft.set("backoff.delay", time(value)?)?;
            draft.set("backoff.factor", Value::Float(1.5))?;
            draft.set("backoff.max", "15s")
        }
        "autorestart" => match (yes(value)?, app.contains_key("stop_exit_codes")) {
            (true, _) => Ok(()),
            (false, _) => draft.set("restart", "never"),
        },
        "stop_exit_codes" => exits(draft, app, value),
        "max_memory_restart" => {
            let size = binary_size(&text(value))?;
            draft.set("watch.memory", size)
        }
        "wait_ready" | "listen_timeout" if value == &Json::Bool(false) => Ok(()),
        "wait_ready" | "listen_timeout" => Err("[ready] is not supported by this version, and would not \
             speak node's protocol"
            .into()),
        "uid" | "user" => draft.set("user", text(value)),
        "gid" => draft.set("group", text(value)),
        "merge_logs" | "combine_logs" => {
            draft
                .remarks
                .note(format!("{key}: each instance has a log of its own; keepctl logs shows them together"));
            Ok(())
        }
        "log_date_format" | "time" => draft.set("logs.format", "timestamp"),
        "log_type" if text(value) == "json" => draft.set("logs.format", "json"),
        "out_file" | "output" | "error_file" | "error" | "log_file" | "log" | "out" | "err" => {
            match text(value).as_str() {
                "/dev/null" | "NULL" if key.starts_with("out") => draft.set("logs.stdout", "discard"),
                "/dev/null" | "NULL" if key.starts_with("err") => draft.set("logs.stderr", "discard"),
                _ => Err("keepd has a folder for each service's log, [daemon] log-dir".into()),
            }
        }
        _ if key.starts_with("env_") => {
            let vars = env(value)?;
            draft.remarks.note(format!("{key}: it is in effect with --profile {}", &key[4..]));
            draft.overlays.push((key[4..].to_owned(), Value::Map(vars)));
            Ok(())
        }
        "treekill" if value == &Json::Bool(true) => Ok(()),
        "vizion" | "automation" | "pmx" | "watch" | "source_map_support" | "disable_source_map_support"
            if value == &Json::Bool(false) =>
        {
            Ok(())
        }
        _ => Err(reason(key).into()),
    }
}

fn reason(key: &str) -> &'static str {
    match key {
        "watch" | "ignore_watch" | "watch_delay" | "watch_options" => {
            "keepd does not watch files; keepctl restart after a deployment"
        }
        "cron_restart" | "cron" => "`schedule` is not supported by this version",
        "treekill" => "nothing of a service outlives its stop",
        "shutdown_with_message" => "a stop is a signal",
        "namespace" => {
            "keepd has no groups: name services so that a pattern means them, as in `keepctl restart 'web*'`"
        }
        "filter_env" => "nothing of keepd's own environment is passed on",
        _ => "keepd has no such setting",
    }
}

/// PM2 chooses an interpreter by the end of the script's name, and takes what it does not know for a program.
fn command(draft: &mut Draft, app: &App, script: &str, folder: &Path) -> Result<(), String> {
    let given = app.get("interpreter").or_else(|| app.get("exec_interpreter")).map(text);
    let by_name = match Path::new(script).extension().and_then(|e| e.to_str()).unwrap_or("") {
        "js" | "cjs" | "mjs" => Some("node"),
        "py" => Some("python3"),
        "sh" => Some("bash"),
        "rb" => Some("ruby"),
        "pl" => Some("perl"),
        "php" => Some("php"),
        "ts" | "tsx" => Some("bun"),
        _ => None,
    };
    let interpreter = given.or_else(|| by_name.map(str::to_owned)).filter(|i| i != "none" && !i.is_empty());
    let mut argv = Vec::new();
    let mut program = script.to_owned();
    // A bare name such as `npm` is looked for in PATH, anything else from the folder on.
    if interpreter.is_some() || script.contains('/') {
        program = folder.join(script).components().collect::<PathBuf>().display().to_string();
    }
    if let Some(interpreter) = interpreter {
        argv.push(interpreter);
        argv.extend(words(app.get("node_args").or_else(|| app.get("interpreter_args")))?);
    }
    argv.push(program);
    argv.extend(words(app.get("args"))?);
    draft.set("command", literals(&argv))
}

fn instances(draft: &mut Draft, app: &App, value: &Json) -> Result<(), String> {
    match text(value).parse::<i64>() {
        Ok(1) => Ok(()),
        Ok(n) if n > 1 => {
            let var = app.get("instance_var").map_or("NODE_APP_INSTANCE".into(), text);
            draft.set("instances", n)?;
            draft.env(vec![(var, "${instance}".into())])
        }
        _ => Err("keepd does not count CPUs: write how many there are to be".into()),
    }
}

/// A variable that is one more for each instance.
fn port(draft: &mut Draft, app: &App, variable: &str) -> Result<(), String> {
    let first = app.get("env").and_then(|e| e.get(variable)).map(text).and_then(|p| p.parse::<i64>().ok());
    match first {
        Some(first) if variable == "PORT" => {
            draft.set("port", first)?;
            draft.env(vec![(variable.into(), "${port}".into())])
        }
        _ => Err("keepd counts `port` up, in the variable PORT".into()),
    }
}

/// So many ends before `min_uptime` in a row, and PM2 gives up.
fn breaker(draft: &mut Draft, app: &App, value: &Json) -> Result<(), String> {
    let failures = text(value).parse::<u32>().map_err(|_| "it is no number")?.max(1);
    let delay = |key: &str, least: u64| {
        let of = |v: &Json| text(v).parse::<u64>().ok();
        app.get(key).and_then(of).unwrap_or(least).max(least)
    };
    // As long as all of them can take with their delays, twice over.
    let one = delay("min_uptime", 1000) + delay("restart_delay", 30_000);
    let within = Millis(2 * u64::from(failures) * one);
    draft.set("breaker.failures", i64::from(failures))?;
    draft.set("breaker.within", within.to_string())?;
    draft.set("breaker.retry-every", "never")?;
    draft.remarks.note(format!("max_restarts: after {failures} failures within {within} it stays failed"));
    Ok(())
}

fn exits(draft: &mut Draft, app: &App, value: &Json) -> Result<(), String> {
    let list = match value {
        Json::Array(list) => list.clone(),
        one => vec![one.clone()],
    };
    let codes: Result<Vec<i64>, String> =
        list.iter().map(|v| text(v).parse().map_err(|_| format!("{v} is no exit status"))).collect();
    let (success, others): (Vec<i64>, Vec<i64>) = codes?.into_iter().partition(|c| *c == 0);
    // Success is what is not followed by a restart.
    if !success.is_empty() && app.get("autorestart").is_none_or(|v| yes(v) == Ok(true)) {
        draft.set("restart", "on-failure")?;
    }
    draft.set("no-restart-exit", Value::Mixed(others.into_iter().map(Value::Number).collect()))
}

fn env(value: &Json) -> Result<Vec<(String, String)>, String> {
    let Json::Object(vars) = value else { return Err("it is no object".into()) };
    Ok(vars.iter().map(|(name, value)| (name.clone(), literal(&text(value)))).collect())
}
