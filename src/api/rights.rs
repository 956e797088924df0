//! Who may do what.

use super::route::Role;
use crate::{plan::Principal, sys::peer::Peer};

/// The callers that are known; all others may do nothing.
#[derive(Debug, Clone, Default)]
pub struct Rights {
    /// The daemon's own user, who may do everything, as root may.
    pub own_uid: u32,
    /// Who may act.
    pub admins: Vec<Principal>,
    /// Who may look.
    pub readers: Vec<Principal>,
}

impl Rights {
    /// What this caller may do.
    pub fn role(&self, peer: &Peer) -> Role {
        if peer.uid == 0 || peer.uid == self.own_uid || any(&self.admins, peer) {
            Role::Admin
        } else if any(&self.readers, peer) {
            Role::Reader
        } else {
            Role::Stranger
        }
    }
}

fn any(principals: &[Principal], peer: &Peer) -> bool {
    principals.iter().any(|p| match *p {
        Principal::Uid(uid) => peer.uid == uid,
        Principal::Gid(gid) => peer.gid == gid || peer.groups.contains(&gid),
        Principal::Everyone => true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(uid: u32, gid: u32, groups: &[u32]) -> Peer {
        Peer { pid: 1, uid, gid, groups: groups.into() }
    }

    #[test]
    fn rights_default_to_none() {
        let rights = Rights { own_uid: 990, ..Rights::default() };
        assert_eq!(rights.role(&peer(0, 0, &[])), Role::Admin);
        assert_eq!(rights.role(&peer(990, 990, &[])), Role::Admin);
        // Group 0 and the daemon's group give nothing by themselves.
        assert_eq!(rights.role(&peer(1000, 0, &[0, 990])), Role::Stranger);
        // The kernel shows ids of another user namespace as this one.
        assert_eq!(rights.role(&peer(65_534, 65_534, &[65_534])), Role::Stranger);
    }

    #[test]
    fn groups_count_whether_primary_or_supplementary() {
        let rights = Rights {
            own_uid: 990,
            admins: vec![Principal::Uid(7), Principal::Gid(50)],
            readers: vec![Principal::Gid(4)],
        };
        for (caller, role) in [
            (peer(7, 7, &[]), Role::Admin),
            (peer(8, 50, &[]), Role::Admin),
            (peer(8, 8, &[9, 50]), Role::Admin),
            (peer(8, 8, &[4, 50]), Role::Admin),
            (peer(8, 4, &[]), Role::Reader),
            (peer(8, 8, &[4]), Role::Reader),
            (peer(50, 7, &[7]), Role::Stranger),
        ] {
            assert_eq!(rights.role(&caller), role, "{caller:?}");
        }
    }

    #[test]
    fn everybody_may_be_a_reader() {
        let rights = Rights { own_uid: 990, admins: Vec::new(), readers: vec![Principal::Everyone] };
        assert_eq!(rights.role(&peer(1000, 1000, &[])), Role::Reader);
    }
}
