//! The manager's role: log, runtime, API, and then the actor.

use super::{EXIT_INTERNAL, args::ConfigArgs, log};
use crate::{
    api,
    keeper::protocol::MANAGER_FD,
    logs::Housekeeper,
    manager::{Keep, Manager},
    plan::Mode,
    sys,
};
use std::{
    io,
    os::{fd::AsFd, unix::net::UnixListener},
    path::Path,
    sync::Arc,
};

/// Runs until everything is stopped; returns an exit status.
pub(super) fn main(args: &ConfigArgs) -> i32 {
    sys::prctl::set_name(c"keepd-manage");
    let inherited = sys::fd::inherited(MANAGER_FD).map_err(io::Error::from);
    let mut manager = match inherited.and_then(Manager::take_over) {
        Ok(manager) => manager,
        Err(e) => {
            eprintln!("keepd manage: cannot take over from the keeper on descriptor {MANAGER_FD}: {e}");
            return EXIT_INTERNAL;
        }
    };
    if manager.spec().mode == Mode::System {
        sys::prctl::hide_memory();
    }
    // Lives as long as the process: dropping it flushes what is still queued for the log file.
    let housekeeper = Housekeeper::default();
    let _log = log::init(manager.spec(), &housekeeper);
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(e) => {
            tracing::error!("cannot start: {e}");
            return EXIT_INTERNAL;
        }
    };
    let socket = manager.spec().api.socket.clone();
    let rights = Arc::new(api::Rights {
        own_uid: sys::identity::effective_uid(),
        admins: manager.spec().api.admins.clone(),
        readers: manager.spec().api.readers.clone(),
    });
    let daemonize = args.daemonize;
    let listener = listen(&mut manager, &socket)
        .map_err(|e| io::Error::new(e.kind(), format!("cannot listen on {}: {e}", socket.display())));
    let result = runtime.block_on(manager.run(housekeeper, |handle| {
        let listener = listener?;
        let listener = tokio::net::UnixListener::from_std(listener)?;
        tokio::spawn(api::serve(listener, handle, rights));
        if daemonize {
            sys::fd::stdio_to_null()?;
        }
        Ok(())
    }));
    match result {
        Ok(status) => status,
        Err(e) => {
            tracing::error!("the manager ends: {e}");
            EXIT_INTERNAL
        }
    }
}

/// What the last manager listened with, so that no caller is ever refused; or a new socket, which is then kept.
fn listen(manager: &mut Manager, path: &Path) -> io::Result<UnixListener> {
    let there = api::mark(path).ok();
    for (name, fd) in manager.kept("api-") {
        if Some(&name) == there.as_ref() {
            return Ok(UnixListener::from(fd));
        }
        manager.keep(Keep::Release(&name))?;
    }
    let listener = api::bind(path)?;
    manager.keep(Keep::Hold(&api::mark(path)?, &[listener.as_fd()]))?;
    Ok(listener)
}
