//! What a child sees of the host: its own mounts and network, as `sandbox` asks. A job goes where its service is.
//! All of it is done as root, before the child becomes its user; Landlock is prepared here and holds later.

#![forbid(unsafe_code)]

use super::{
    spare::{KEPT_OF_DEV, Taken},
    step::{Failure, Step},
};
use crate::{
    plan::{LaunchSpec, ReadOnly, Sandbox},
    sys::{
        Errno, Result as Sys,
        landlock::Rules,
        namespace::{self as ns, Memory},
    },
};
use std::{
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::Path,
};

/// What `read-only = "system"` covers.
const SYSTEM: [&str; 4] = ["/usr", "/etc", "/boot", "/efi"];
/// What even `read-only = "strict"` leaves as it is: no files of the host's.
const KERNELS: [&str; 3] = ["/dev", "/proc", "/sys"];
const TEMPORARY: [&str; 2] = ["/tmp", "/var/tmp"];
/// Bounds of what a service can put into memory there.
const TEMPORARY_SIZE: &str = "mode=1777,size=10%,nr_inodes=400k";

/// Goes where the service is to be: a new place, or that of the main process behind `main`. The rules that it is
/// to be held to once it is the service's user, where the kernel has such. `credentials`: the file system with them.
pub(super) fn enter(
    launch: &LaunchSpec,
    credentials: Option<&OwnedFd>,
    taken: &Taken,
    main: Option<BorrowedFd<'_>>,
) -> Result<Option<Rules>, Failure> {
    let sandbox = &launch.sandbox;
    let secrets = launch.provision.credentials.as_ref();
    let (mounts, network) = (sandbox.own_mounts() || secrets.is_some(), sandbox.private_network);
    if !mounts && !network {
        return Ok(None);
    }
    if let Some(main) = main {
        ns::join(main, mounts, network).map_err(failed(Step::Namespaces, "join those of the service"))?;
        return rules(sandbox);
    }
    if let Some(network) = &taken.network {
        ns::join_network(network.as_fd()).map_err(failed(Step::Namespaces, "join a new network"))?;
    }
    if mounts {
        ns::open().map_err(failed(Step::Namespaces, "open new ones"))?;
        read_only(sandbox)?;
        if sandbox.hide_home {
            for at in Sandbox::HOMES.into_iter().filter(|at| Path::new(at).exists()) {
                ns::in_memory(Path::new(at), Memory::Empty, "mode=755,size=4k,nr_inodes=2")
                    .map_err(failed(Step::Mount, &format!("hide {at}")))?;
            }
        }
        if sandbox.private_tmp {
            for at in TEMPORARY.into_iter().filter(|at| Path::new(at).exists()) {
                ns::in_memory(Path::new(at), Memory::Files, TEMPORARY_SIZE)
                    .map_err(failed(Step::Mount, &format!("give it a {at} of its own")))?;
            }
        }
        if let Some(tree) = &taken.devices {
            devices(tree).map_err(failed(Step::Mount, "give it a /dev of its own"))?;
        }
        // Nobody else ever sees them, and they are gone with the last process that does.
        if let (Some(secrets), Some(tree)) = (secrets, credentials) {
            ns::place(&secrets.at)
                .and_then(|place| ns::put_tree(tree.as_fd(), place.as_fd()))
                .map_err(failed(Step::Mount, &format!("put credentials on {}", secrets.at.display())))?;
        }
    }
    rules(sandbox)
}

fn failed(step: Step, object: &str) -> impl FnOnce(Errno) -> Failure {
    move |e| match e {
        Errno::ENOSYS => Failure::ours(step, object, "this kernel is older than Linux 5.12"),
        Errno::EPERM => Failure::ours(step, object, "keepd may not (it takes CAP_SYS_ADMIN)"),
        Errno::ELOOP => Failure::ours(step, object, "there is a symbolic link on the way to it"),
        e => Failure::call(step, e, object),
    }
}

fn read_only(sandbox: &Sandbox) -> Result<(), Failure> {
    if sandbox.read_only == ReadOnly::No {
        return Ok(());
    }
    let strict = sandbox.read_only == ReadOnly::Strict;
    let kernels = KERNELS.iter().map(Path::new).filter(|at| strict && at.exists());
    // What stays as it is, is taken aside.
    let mut aside = Vec::new();
    for at in kernels.chain(sandbox.writable.iter().map(|p| p.as_path())) {
        let copy = ns::place(at).and_then(|place| ns::copy_tree(place.as_fd()));
        aside.push((at, copy.map_err(failed(Step::Mount, &format!("keep {} writable", at.display())))?));
    }
    if strict {
        ns::place(Path::new("/"))
            .and_then(|root| ns::read_only(root.as_fd(), true))
            .map_err(failed(Step::Mount, "make / read-only"))?;
    } else {
        for at in SYSTEM.into_iter().filter(|at| Path::new(at).exists()) {
            freeze(at).map_err(failed(Step::Mount, &format!("make {at} read-only")))?;
        }
    }
    for (at, tree) in aside {
        ns::place(at)
            .and_then(|place| ns::put_tree(tree.as_fd(), place.as_fd()))
            .map_err(failed(Step::Mount, &format!("keep {} writable", at.display())))?;
    }
    Ok(())
}

fn freeze(at: &str) -> Sys<()> {
    let place = ns::place(Path::new(at))?;
    let tree = ns::copy_tree(place.as_fd())?;
    ns::read_only(tree.as_fd(), true)?;
    ns::put_tree(tree.as_fd(), place.as_fd())
}

fn devices(tree: &OwnedFd) -> Sys<()> {
    let dev = Path::new("/dev");
    let mut kept = Vec::new();
    for at in KEPT_OF_DEV.into_iter().map(|name| dev.join(name)).filter(|at| at.exists()) {
        let copy = ns::copy_tree(ns::place(&at)?.as_fd())?;
        kept.push((at, copy));
    }
    ns::put_tree(tree.as_fd(), ns::place(dev)?.as_fd())?;
    for (at, tree) in kept {
        ns::put_tree(tree.as_fd(), ns::place(&at)?.as_fd())?;
    }
    ns::read_only(ns::place(dev)?.as_fd(), false)
}

/// The second wall behind `read-only = "strict"`.
fn rules(sandbox: &Sandbox) -> Result<Option<Rules>, Failure> {
    if sandbox.read_only != ReadOnly::Strict {
        return Ok(None);
    }
    let wall = || -> Sys<Option<Rules>> {
        let Some(rules) = Rules::new()? else { return Ok(None) };
        let own = TEMPORARY.iter().filter(|_| sandbox.private_tmp);
        let known = KERNELS.iter().chain(own).map(Path::new).filter(|at| at.exists());
        for at in known.chain(sandbox.writable.iter().map(|p| p.as_path())) {
            rules.allow(ns::place(at)?.as_fd())?;
        }
        Ok(Some(rules))
    };
    wall().map_err(|e| Failure::call(Step::Landlock, e, ""))
}
