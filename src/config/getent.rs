//! Runs the host's `getent`, with a time limit: right for static and dynamic builds alike, and a directory
//! service that hangs cannot hang a load. The only process that this room starts.

use std::{
    io::Read,
    process::{Command, Stdio},
    sync::mpsc,
    time::Duration,
};

/// How long one question may take.
const LIMIT: Duration = Duration::from_secs(5);

/// The first line of the answer, `None` where the database has no such entry or the host has no `getent`.
/// The error is a clause: why there is no answer.
pub(super) fn ask(database: &str, key: &str) -> Result<Option<String>, String> {
    #[allow(
        clippy::disallowed_methods,
        reason = "the loader is short-lived and single-purpose; no service is started"
    )]
    let mut command = Command::new("getent");
    command.args(["--", database, key]).env_clear().env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = match command.spawn() {
        Ok(child) => child,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(format!("getent cannot be started: {e}")),
    };
    let Some(mut out) = child.stdout.take() else { return Err("getent has no output".into()) };
    let (tell, told) = mpsc::channel();
    std::thread::spawn(move || {
        let mut text = String::new();
        let _ = out.read_to_string(&mut text);
        // Nobody listens any more where the time was up.
        let _ = tell.send(text);
    });
    let Ok(text) = told.recv_timeout(LIMIT) else {
        // Not waited for: a process that hangs in the kernel would hang us too. The loader ends soon.
        let _ = child.kill();
        let _ = child.try_wait();
        return Err(format!("getent did not answer within {} s", LIMIT.as_secs()));
    };
    let status = child.wait().map_err(|e| format!("getent cannot be waited for: {e}"))?;
    match status.code() {
        Some(0) => Ok(text.lines().next().map(str::to_owned)),
        // 1: this getent does not know the database; 2: no such entry.
        Some(1 | 2) => Ok(None),
        _ => Err(format!("getent failed ({status})")),
    }
}
