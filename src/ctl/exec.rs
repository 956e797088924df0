//! `exec`: runs a command inside a service and is as transparent as can be. The keeper gets our stdin, stdout and
//! stderr themselves, or one side of a terminal of its own where we run in one: nothing that is typed or printed
//! goes through keepd, and what runs in the service never holds the terminal that we are in.

use super::{
    args::ExecArgs,
    client::Server,
    fail::{FORBIDDEN, Fail, NOT_RUNNING, UNREACHABLE, USAGE},
    select,
};
use crate::{
    sys::{
        self, Errno, identity, packet, peer,
        terminal::{self, Raw},
    },
    wire::{
        Status,
        exec::{Answer, Ask, PACKET_MAX, SOCKET, Signal},
    },
};
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2, SIGWINCH};
use std::{
    fs::File,
    io::{self, IsTerminal, Read, Write},
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
    sync::{Arc, mpsc},
    thread,
    time::Duration,
};

/// What a shell adds to the number of the signal that ended a process.
const KILLED: u8 = 128;
/// When nothing comes for so long after the end, nothing will.
const STILL: Duration = Duration::from_millis(200);
/// What the keeper is told of in the place of the command's own signals.
const PASSED_ON: [i32; 6] = [SIGINT, SIGTERM, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2];

pub(super) async fn run(server: &Server, args: &ExecArgs) -> Result<u8, Fail> {
    let mut client = server.connect().await?;
    let list = select::list(&mut client).await?;
    let chosen = select::select(&mut client, &list, std::slice::from_ref(&args.name)).await?;
    let name = match &chosen[..] {
        [one] if one.state == "running" => one.name.to_string(),
        [one] => {
            let why = if one.reason.is_empty() { String::new() } else { format!(": {}", one.reason) };
            return Err(Fail::new(NOT_RUNNING, format!("{} is {}{why}", one.name, one.state)));
        }
        several => {
            let names: Vec<&str> = several.iter().map(|s| &*s.name).collect();
            let text = format!("`{}` means {}: name one of them", args.name, names.join(", "));
            return Err(Fail::new(USAGE, text));
        }
    };
    let status: Status = client.get("/v1/status", super::client::SOON).await?;
    let socket = connect(&Path::new(&status.runtime_dir).join(SOCKET))?;
    let (stdin, stdout) = (io::stdin(), io::stdout());
    let terminal = !args.no_terminal && stdin.is_terminal() && stdout.is_terminal();
    let ask =
        |term: Option<String>| Ask { service: name.clone(), argv: args.command.clone(), terminal: term };
    if terminal {
        let (ours, theirs) = terminal::pair(stdin.as_fd()).map_err(trouble("a terminal for it"))?;
        let term = std::env::var("TERM").unwrap_or_else(|_| "dumb".into());
        send(&socket, &ask(Some(term)), [theirs.as_fd(); 3])?;
        // When the command and all that came from it have ended, nobody holds that side any more.
        drop(theirs);
        within_terminal(socket, ours)
    } else {
        send(&socket, &ask(None), [stdin.as_fd(), stdout.as_fd(), io::stderr().as_fd()])?;
        pass_signals_on(socket)
    }
}

fn trouble(what: &'static str) -> impl Fn(Errno) -> Fail {
    move |e| Fail::new(super::fail::FAILED, format!("cannot have {what}: {}", sys::describe(e)))
}

/// The keeper itself is at the other end, or nobody gets our descriptors.
fn connect(path: &Path) -> Result<OwnedFd, Fail> {
    let socket = packet::connect(path).map_err(|e| match e {
        Errno::EACCES | Errno::EPERM => {
            Fail::new(FORBIDDEN, "only root may run commands inside services; try it with sudo")
        }
        e => {
            Fail::new(UNREACHABLE, format!("cannot reach keepd at {}: {}", path.display(), sys::describe(e)))
        }
    })?;
    let peer = peer::credentials(socket.as_fd())
        .map_err(|e| Fail::new(UNREACHABLE, format!("cannot tell who listens at {}: {e}", path.display())))?;
    if peer.uid != 0 && peer.uid != identity::effective_uid() {
        let text = format!("{} belongs to uid {}, not to keepd; nothing was sent", path.display(), peer.uid);
        return Err(Fail::new(FORBIDDEN, text));
    }
    Ok(socket)
}

fn send(socket: &OwnedFd, ask: &Ask, stdio: [BorrowedFd<'_>; 3]) -> Result<(), Fail> {
    let failed = |e: String| Fail::new(UNREACHABLE, format!("cannot ask keepd: {e}"));
    let bytes = serde_json::to_vec(ask).map_err(|e| failed(e.to_string()))?;
    if bytes.len() > PACKET_MAX {
        let text = format!("the command line is longer than {PACKET_MAX} bytes; put it into a script");
        return Err(Fail::new(USAGE, text));
    }
    packet::send(socket.as_fd(), &bytes, &stdio).map_err(|e| failed(sys::describe(e).into()))
}

/// Waits for the end; until then our signals are the command's.
fn pass_signals_on(socket: OwnedFd) -> Result<u8, Fail> {
    let socket = Arc::new(socket);
    let to = socket.clone();
    on_signals(&PASSED_ON, move |signal| {
        // Whoever does not listen any more has ended.
        let _ = serde_json::to_vec(&Signal { signal }).map(|bytes| packet::send(to.as_fd(), &bytes, &[]));
    })?;
    outcome(&socket)
}

/// Goes between our terminal and the command's until the end.
fn within_terminal(socket: OwnedFd, master: OwnedFd) -> Result<u8, Fail> {
    let master = Arc::new(File::from(master));
    let (input, output, sized) = (master.clone(), master.clone(), master);
    on_signals(&[SIGWINCH], move |_| {
        let _ = terminal::resize(sized.as_fd(), io::stdin().as_fd());
    })?;
    // It may have changed since the pair was made.
    let _ = terminal::resize(input.as_fd(), io::stdin().as_fd());
    let stdin = io::stdin();
    let raw = Raw::new(stdin.as_fd()).map_err(trouble("the terminal to itself"))?;
    // Descriptors of our own: the streams of the library have buffers, and locks that the main thread holds.
    let own = |fd: BorrowedFd<'_>| fd.try_clone_to_owned().map(File::from);
    let (typed, screen) = (own(io::stdin().as_fd())?, own(io::stdout().as_fd())?);
    let (moved, shown) = mpsc::channel();
    thread::spawn(move || copy(&output, &screen, || moved.send(()).is_ok()));
    thread::spawn(move || copy(&typed, &input, || true));
    let ended = outcome(&socket);
    // What was printed last may be under way. The thread ends where nobody holds the other side any more; what the
    // command left running in the service may hold it, and is not waited for.
    while ended.is_ok() && shown.recv_timeout(STILL).is_ok() {}
    drop(raw);
    ended
}

/// Until the end, which a terminal tells by an error, or until `goes_on` says so after some bytes.
fn copy(mut from: &File, mut to: &File, mut goes_on: impl FnMut() -> bool) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(n @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..n]).is_err() || !goes_on() {
            return;
        }
    }
}

fn on_signals(signals: &[i32], mut act: impl FnMut(i32) + Send + 'static) -> Result<(), Fail> {
    let mut signals = signal_hook::iterator::Signals::new(signals)
        .map_err(|e| Fail::new(super::fail::FAILED, format!("cannot listen for signals: {e}")))?;
    thread::spawn(move || signals.forever().for_each(&mut act));
    Ok(())
}

/// How it ended, as an exit status.
fn outcome(socket: &OwnedFd) -> Result<u8, Fail> {
    let mut buffer = vec![0; PACKET_MAX];
    loop {
        let gone = || Fail::new(UNREACHABLE, "keepd has gone; what became of the command is not known");
        packet::wait(socket.as_fd()).map_err(|_| gone())?;
        let len = match packet::receive(socket.as_fd(), &mut buffer) {
            Ok(Some((len, _))) => len,
            Err(Errno::EAGAIN) => continue,
            Ok(None) | Err(_) => return Err(gone()),
        };
        match serde_json::from_slice(&buffer[..len]).map_err(|_| gone())? {
            Answer::Started { .. } => {}
            Answer::Exited { code } => return Ok(u8::try_from(code).unwrap_or(u8::MAX)),
            Answer::Killed { signal } => return Ok(KILLED.saturating_add(u8::try_from(signal).unwrap_or(0))),
            Answer::Refused { status, why } => return Err(Fail::new(status, why)),
        }
    }
}
