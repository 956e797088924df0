//! Whom a service becomes: `user`, `group` and `groups` resolved to numbers. Looks up, and decides nothing else.

use super::{
    diagnostic::{At, Problems},
    schema::closest,
    settings::Settings,
    users::{Account, Users, check_name},
};
use crate::plan::{Identity, Mode};
use std::collections::BTreeSet;

/// A service's user and what it becomes; `None` where that cannot be said, which has been reported.
/// In user mode it is `me` and no identity.
pub(super) fn resolve(
    settings: &Settings<'_>,
    service: At,
    mode: Mode,
    me: &Account,
    users: &mut Users,
    problems: &mut Problems,
) -> Option<(Account, Option<Identity>)> {
    if mode == Mode::User {
        let mut fine = true;
        for key in ["user", "group", "groups"] {
            if let Some(at) = settings.written(&[key]) {
                problems.error(
                    at,
                    format!("`{key}` cannot be set here: this keepd runs everything as {}", me.name),
                );
                fine = false;
            }
        }
        return fine.then(|| (me.clone(), None));
    }
    let Some((name, at)) = settings.text("user") else {
        if settings.missing("user") {
            problems
                .error(service, "`user` is missing: name one, or write `user = \"root\"` if that is meant");
        }
        return None;
    };
    let group = match settings.text("group") {
        Some((group, at)) => match find_group(group, users) {
            Ok(gid) => Some(gid),
            Err(why) => {
                problems.error(at, why);
                return None;
            }
        },
        None => None,
    };
    let (mut account, known) = match find_user(name, group, users) {
        Ok(found) => found,
        Err(why) => {
            problems.error(at, why);
            return None;
        }
    };
    account.gid = group.unwrap_or(account.gid);
    let groups = supplementary(settings, &account, known, at, users, problems)?;
    let identity = Identity {
        user: account.name.clone(),
        uid: account.uid,
        gid: account.gid,
        groups: groups.into_iter().collect(),
    };
    Some((account, Some(identity)))
}

fn supplementary(
    settings: &Settings<'_>,
    account: &Account,
    known: bool,
    user: At,
    users: &mut Users,
    problems: &mut Problems,
) -> Option<BTreeSet<u32>> {
    let mut groups = BTreeSet::from([account.gid]);
    if settings.entry("groups").is_none() {
        if known {
            match users.groups_of(&account.name) {
                Ok(found) => groups.extend(found),
                // A host must come up with its local services while a directory service is away.
                Err(why) if users.is_local(&account.name) => {
                    groups.extend(users.local_groups_of(&account.name));
                    let name = &account.name;
                    problems.warn(user, format!("only the local groups of `{name}` are known: {why}"));
                }
                Err(why) => {
                    problems.error(user, format!("cannot look up the groups of `{}`: {why}", account.name));
                    return None;
                }
            }
        }
        return Some(groups);
    }
    let mut fine = true;
    for item in settings.items("groups") {
        match find_group(&item.text, users) {
            Ok(gid) => drop(groups.insert(gid)),
            Err(why) => {
                problems.error(item.at, why);
                fine = false;
            }
        }
    }
    fine.then_some(groups)
}

/// The account, and whether a database knows it. The error is a sentence.
fn find_user(name: &str, group: Option<u32>, users: &mut Users) -> Result<(Account, bool), String> {
    match (look_up(name, users)?, group) {
        (Found::Account(account), _) => Ok((account, true)),
        (Found::OnlyANumber(uid), Some(gid)) => Ok((Account::nameless(uid, gid), false)),
        (Found::OnlyANumber(_), None) => {
            Err(format!("unknown user `{name}`: a number without a user needs a `group` as well"))
        }
    }
}

enum Found {
    Account(Account),
    OnlyANumber(u32),
}

fn look_up(name: &str, users: &mut Users) -> Result<Found, String> {
    let number = check_name(name).map_err(|why| format!("cannot use `{name}` as a user: {why}"))?;
    let found = match number {
        Some(uid) => users.by_uid(uid),
        None => users.by_name(name),
    };
    match (found.map_err(|why| format!("cannot look up user `{name}`: {why}"))?, number) {
        (Some(account), _) => Ok(Found::Account(account)),
        (None, Some(uid)) => Ok(Found::OnlyANumber(uid)),
        (None, None) => Err(format!("unknown user `{name}`{}", users.near(name))),
    }
}

/// The number of a group. The error is a sentence.
pub(super) fn find_group(name: &str, users: &mut Users) -> Result<u32, String> {
    let number = check_name(name).map_err(|why| format!("cannot use `{name}` as a group: {why}"))?;
    if let Some(gid) = number {
        return Ok(gid);
    }
    let found = users.group(name).map_err(|why| format!("cannot look up group `{name}`: {why}"))?;
    found.ok_or_else(|| format!("unknown group `{name}`"))
}

/// The uid and primary gid of a user who must exist. The error is a sentence.
pub(super) fn find_account(name: &str, users: &mut Users) -> Result<(u32, u32), String> {
    match look_up(name, users)? {
        Found::Account(account) => Ok((account.uid, account.gid)),
        Found::OnlyANumber(_) => Err(format!("unknown user `{name}`")),
    }
}

impl Users {
    fn near(&self, name: &str) -> String {
        closest(name, self.known_names()).map_or(String::new(), |c| format!(", did you mean `{c}`?"))
    }
}
