//! Whom a child becomes, and what it may do from then on: groups, group, user, capabilities and securebits, in the
//! one order that works. Then the kernel is asked whether it is so: a call that reports success is no proof
//! (setresuid(-1, -1, -1) does, and stays root).

#![forbid(unsafe_code)]

use super::step::{Failure, Step};
use crate::{
    plan::{Capabilities, Identity, LaunchSpec},
    sys::{Errno, caps, identity, prctl},
};

/// What a child is to be, complete before it is born.
#[derive(Debug)]
pub(super) struct Becoming {
    who: Identity,
    /// Supplementary groups, sorted, each once.
    groups: Vec<u32>,
    /// All that it is to have; none where its capabilities are those that it was born with.
    capabilities: Option<u64>,
    /// The bounding set that it is born with.
    held: u64,
    no_new_privileges: bool,
}

impl Becoming {
    /// `None` in user mode, where nobody becomes anybody. `held`: our own bounding set.
    pub(super) fn new(launch: &LaunchSpec, held: u64) -> Result<Option<Becoming>, Failure> {
        let Some(who) = launch.identity.clone() else { return Ok(None) };
        let wanted = launch.sandbox.capabilities;
        // A device that is not in its /dev must not be made either.
        let wanted = match launch.sandbox.private_devices {
            true => Some(wanted.unwrap_or(Capabilities(held)).without(Capabilities::DEVICES)),
            false => wanted,
        };
        if let Some(missing) = wanted.map(|w| w.without(Capabilities(held))).filter(|m| !m.is_empty()) {
            let cause = format!("keepd itself does not have {}", missing.names().join(" and "));
            return Err(Failure::ours(Step::Capabilities, format!("user {}", who.user), cause));
        }
        let mut groups = who.groups.clone();
        groups.sort_unstable();
        groups.dedup();
        let capabilities = wanted.map(|w| w.0);
        let no_new_privileges = launch.no_new_privileges;
        Ok(Some(Becoming { who, groups, capabilities, held, no_new_privileges }))
    }

    /// Where a service needs no root, root gives it nothing, for good.
    fn no_root(&self) -> bool {
        self.who.uid != 0 && self.no_new_privileges && self.capabilities.is_some()
    }

    /// Becomes it.
    pub(super) fn take_on(&self) -> Result<(), Failure> {
        let failed = |step| move |e| Failure::call(step, e, format!("user {}", self.who.user));
        identity::new_keyring().map_err(failed(Step::Keyring))?;
        let ambient = self.capabilities.filter(|_| self.who.uid != 0).unwrap_or(0);
        if let Some(wanted) = self.capabilities {
            caps::drop_bounding(self.held & !wanted).map_err(failed(Step::Capabilities))?;
        }
        if self.no_root() || ambient != 0 {
            caps::set_securebits(self.no_root(), ambient != 0).map_err(failed(Step::Capabilities))?;
        }
        identity::set_groups(&self.groups).map_err(failed(Step::Groups))?;
        identity::set_gid(self.who.gid).map_err(failed(Step::Gid))?;
        identity::set_uid(self.who.uid).map_err(failed(Step::Uid))?;
        caps::clear_inheritable().map_err(failed(Step::Capabilities))?;
        if let Some(wanted) = self.capabilities.filter(|w| self.who.uid == 0 || *w != 0) {
            let sets = caps::Sets { effective: wanted, permitted: wanted, inheritable: ambient };
            caps::set(sets).map_err(failed(Step::Capabilities))?;
        }
        if ambient != 0 {
            caps::raise_ambient(ambient).map_err(failed(Step::Capabilities))?;
            caps::keep_no_more().map_err(failed(Step::Capabilities))?;
        }
        Ok(())
    }

    /// Asks the kernel for everything that was set.
    pub(super) fn verify(&self) -> Result<(), Failure> {
        let user = || format!("user {}", self.who.user);
        let wrong = |what: &str| {
            Err(Failure::ours(
                Step::Verify,
                user(),
                format!("the kernel reports another {what} than was set"),
            ))
        };
        let (uid, gid) = (self.who.uid, self.who.gid);
        if identity::uids() != Ok((uid, uid, uid)) {
            return wrong("user id");
        }
        if identity::gids() != Ok((gid, gid, gid)) {
            return wrong("group id");
        }
        if identity::file_ids() != (uid, gid) {
            return wrong("id for files");
        }
        if identity::groups().as_deref() != Ok(&self.groups) {
            return wrong("list of groups");
        }
        if self.no_new_privileges && prctl::has_no_new_privileges() != Ok(true) {
            return wrong("no_new_privs");
        }
        let bits = if self.no_root() { caps::NO_ROOT } else { 0 };
        if caps::securebits() != Ok(bits) {
            return wrong("set of securebits");
        }
        self.verify_capabilities().or_else(wrong)?;
        // Last, because where it succeeds nothing else holds.
        let may = self.capabilities.is_none_or(|c| Capabilities(c).meets(Capabilities::SETUID));
        if uid != 0 && !may && identity::set_uid(0) != Err(Errno::EPERM) {
            return Err(Failure::ours(Step::Verify, user(), "root's rights could be taken back"));
        }
        Ok(())
    }

    fn verify_capabilities(&self) -> Result<(), &'static str> {
        let Some(wanted) = self.capabilities else { return Ok(()) };
        let ambient = if self.who.uid == 0 { 0 } else { wanted };
        let sets = caps::Sets { effective: wanted, permitted: wanted, inheritable: ambient };
        if caps::get() != Ok(sets) {
            return Err("set of capabilities");
        }
        if caps::bounding() != wanted {
            return Err("bounding set of capabilities");
        }
        if caps::ambient(ambient) != ambient {
            return Err("ambient set of capabilities");
        }
        Ok(())
    }
}
