//! What services have of their own, takes long to make, and is the same for all until they have it: a network, and
//! the folder of devices. A launcher has one of each at hand once a service has wanted it; the next is made when a
//! launch is done and nobody waits. Each is given away once.

#![forbid(unsafe_code)]

use super::step::{Failure, Step};
use crate::{
    plan::Sandbox,
    sys::{Errno, Result as Sys, detached, namespace as ns},
};
use std::{
    os::fd::{AsFd, OwnedFd},
    path::Path,
};

/// Devices that no service can do harm with.
const DEVICES: [(&str, u64, u64); 6] =
    [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("random", 1, 8), ("urandom", 1, 9), ("tty", 5, 0)];
const LINKS: [(&str, &str); 6] = [
    ("fd", "/proc/self/fd"),
    ("stdin", "/proc/self/fd/0"),
    ("stdout", "/proc/self/fd/1"),
    ("stderr", "/proc/self/fd/2"),
    ("ptmx", "pts/ptmx"),
    // Where systemd's journal listens; elsewhere it leads nowhere.
    ("log", "/run/systemd/journal/dev-log"),
];
/// What stays of the host's /dev.
pub(super) const KEPT_OF_DEV: [&str; 3] = ["pts", "shm", "mqueue"];

/// For one service.
#[derive(Debug, Default)]
pub(super) struct Taken {
    pub(super) network: Option<OwnedFd>,
    /// A file system that is mounted nowhere.
    pub(super) devices: Option<OwnedFd>,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(super) struct Spares {
    next: Taken,
    wanted: (bool, bool),
    /// The launcher's own network, and that it could not go back to it.
    own: Option<OwnedFd>,
    lost: Option<Errno>,
}

impl Spares {
    /// What a service of this sandbox is to have.
    pub(super) fn take(&mut self, sandbox: &Sandbox) -> Result<Taken, Failure> {
        self.wanted = (sandbox.private_network, sandbox.private_devices);
        let mut taken = Taken::default();
        if sandbox.private_network {
            let failed = |e| Failure::call(Step::Namespaces, e, "open a new network");
            taken.network = Some(match self.next.network.take() {
                Some(network) => network,
                None => self.network().map_err(failed)?,
            });
        }
        if sandbox.private_devices {
            let failed = |e| Failure::call(Step::Mount, e, "give it a /dev of its own");
            taken.devices = Some(match self.next.devices.take() {
                Some(devices) => devices,
                None => devices().map_err(failed)?,
            });
        }
        Ok(taken)
    }

    /// Makes what was taken last anew. What cannot be made, the next launch finds out about; the error is that the
    /// launcher is in a network that is not its own, in which it may launch nothing.
    pub(super) fn lay_in(&mut self) -> Sys<()> {
        let (network, devices_) = std::mem::take(&mut self.wanted);
        if network && self.next.network.is_none() {
            self.next.network = self.network().ok();
        }
        if devices_ && self.next.devices.is_none() {
            self.next.devices = devices().ok();
        }
        self.lost.map_or(Ok(()), Err)
    }

    fn network(&mut self) -> Sys<OwnedFd> {
        if let Some(e) = self.lost {
            return Err(e);
        }
        let own = match self.own.take() {
            Some(own) => own,
            None => ns::own_network()?,
        };
        let made = ns::new_network(own.as_fd()).inspect_err(|e| self.lost = Some(*e));
        self.own = Some(own);
        made?
    }
}

fn devices() -> Sys<OwnedFd> {
    let dev = detached::Devices::new()?;
    DEVICES.iter().try_for_each(|(name, major, minor)| dev.device(name, *major, *minor))?;
    LINKS.iter().try_for_each(|(name, to)| dev.link(name, to))?;
    let kept = KEPT_OF_DEV.iter().filter(|name| Path::new("/dev").join(name).exists());
    kept.into_iter().try_for_each(|name| dev.folder(name))?;
    Ok(dev.done())
}
