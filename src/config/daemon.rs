//! `[daemon]` and `[api]`: settings of the daemon itself.

use super::{
    Context,
    diagnostic::Problems,
    identity::{find_account, find_group},
    settings::{Entry, Settings},
    users::{Users, check_name},
};
use crate::plan::{ApiSpec, Budget, DaemonSpec, HostLogs, LogLevel, Millis, Mode, Principal};
use std::path::{Path, PathBuf};

/// Longest path of a unix socket, sun_path without its NUL.
const SOCKET_MAX: usize = 107;

/// Builds the daemon's settings; what cannot be is reported, and then the result is not used.
pub(super) fn build(
    daemon: &Settings<'_>,
    api: &Settings<'_>,
    logs: &Settings<'_>,
    context: &Context<'_>,
    users: &mut Users,
    problems: &mut Problems,
) -> DaemonSpec {
    let options = context.options;
    let folder = |key: &str, default: &Path| {
        daemon.text(key).map_or_else(|| default.to_owned(), |(text, at)| context.path(text, at))
    };
    let log_dir = folder("log-dir", &options.log_dir);
    let runtime_dir = folder("runtime-dir", &options.runtime_dir);
    DaemonSpec {
        mode: options.mode,
        profile: context.profile.map(str::to_owned),
        manager: manager(daemon, options.mode, users, problems),
        state_dir: folder("state-dir", &options.state_dir),
        log_level: level(daemon.choice("log-level")),
        log_file: daemon.text("log-file").map(|(text, _)| log_dir.join(text)),
        logs: HostLogs { max_total: logs.share("max-total"), keep_free: logs.share("keep-free") },
        max_concurrent_starts: daemon.small("max-concurrent-starts"),
        restart_budget: Budget {
            starts: daemon.small("restart-budget.starts"),
            within: daemon.time("restart-budget.within").unwrap_or_default(),
        },
        shutdown_timeout: daemon.time("shutdown-timeout").unwrap_or(Millis(0)),
        api: ApiSpec {
            socket: socket(api, &runtime_dir, context, problems),
            admins: principals(api.entry("admins"), options.mode, users, problems),
            readers: principals(api.entry("readers"), options.mode, users, problems),
        },
        runtime_dir,
        log_dir,
    }
}

fn level(word: &str) -> LogLevel {
    match word {
        "error" => LogLevel::Error,
        "warn" => LogLevel::Warn,
        "debug" => LogLevel::Debug,
        "trace" => LogLevel::Trace,
        _ => LogLevel::Info,
    }
}

fn socket(api: &Settings<'_>, runtime_dir: &Path, context: &Context<'_>, problems: &mut Problems) -> PathBuf {
    let Some((text, at)) = api.text("socket") else { return runtime_dir.join("api.sock") };
    let path = context.path(text, at);
    if path.as_os_str().len() > SOCKET_MAX {
        problems
            .error(at, format!("`api.socket` cannot be longer than {SOCKET_MAX} bytes, the kernel's limit"));
    }
    path
}

/// The manager's user. The default one may be missing from the host, one that was written may not.
fn manager(
    daemon: &Settings<'_>,
    mode: Mode,
    users: &mut Users,
    problems: &mut Problems,
) -> Option<(u32, u32)> {
    let entry = daemon.entry("user")?;
    let (name, at) = daemon.text("user")?;
    if mode == Mode::User {
        if entry.written() {
            problems.error(at, "`daemon.user` cannot be set here: this keepd runs as an ordinary user");
        }
        return None;
    }
    match find_account(name, users) {
        Ok(ids) => Some(ids),
        Err(why) => {
            if entry.written() {
                problems.error(at, why);
            }
            None
        }
    }
}

/// Users and `@groups`. Default ones that this host does not have are left out; in user mode the defaults do
/// not apply at all: the API is that user's, and root's.
fn principals(
    entry: Option<&Entry>,
    mode: Mode,
    users: &mut Users,
    problems: &mut Problems,
) -> Vec<Principal> {
    let Some(Entry { key, value: super::value::Value::Items(items), .. }) = entry else { return Vec::new() };
    let written = entry.is_some_and(Entry::written);
    if mode == Mode::User && !written {
        return Vec::new();
    }
    let mut out = Vec::new();
    for item in items {
        let found = match item.text.strip_prefix('@') {
            _ if item.text == "*" && *key == "admins" => Err(
                "`api.admins` cannot hold `*`: that would let everybody on this host run anything as any \
                     user"
                    .into(),
            ),
            _ if item.text == "*" => Ok(Principal::Everyone),
            Some(group) => find_group(group, users).map(Principal::Gid),
            // A number needs no entry here: it is compared with the caller's, nobody becomes it.
            None => match check_name(&item.text) {
                Ok(Some(uid)) => Ok(Principal::Uid(uid)),
                _ => find_account(&item.text, users).map(|(uid, _)| Principal::Uid(uid)),
            },
        };
        match found {
            Ok(principal) if !out.contains(&principal) => out.push(principal),
            Err(why) if written => problems.error(item.at, why),
            _ => {}
        }
    }
    out
}
