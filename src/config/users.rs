//! Users and groups: /etc/passwd and /etc/group first, then the host's `getent`, which knows LDAP, SSSD and
//! whatever else nsswitch.conf names. Every answer is kept, so that a thousand services cost one look-up.

use super::getent;
use std::{
    collections::{BTreeSet, HashMap},
    fs,
    path::PathBuf,
};

/// Where users and groups are looked up.
#[derive(Debug, Clone)]
pub struct Databases {
    /// In the format of passwd(5).
    pub passwd: PathBuf,
    /// In the format of group(5).
    pub group: PathBuf,
    /// Ask `getent` for what these two do not have.
    pub getent: bool,
}

impl Default for Databases {
    fn default() -> Databases {
        Databases { passwd: "/etc/passwd".into(), group: "/etc/group".into(), getent: true }
    }
}

/// An entry of the user database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    pub name: String,
    pub uid: u32,
    /// The primary group.
    pub gid: u32,
    pub home: PathBuf,
    pub shell: PathBuf,
}

impl Account {
    /// Stands for a user id that no database knows.
    pub fn nameless(uid: u32, gid: u32) -> Account {
        Account { name: uid.to_string(), uid, gid, home: "/".into(), shell: "/bin/sh".into() }
    }

    fn parse(line: &str) -> Option<Account> {
        let mut fields = line.split(':');
        let name = fields.next().filter(|n| !n.is_empty())?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        let path = |text: Option<&str>, or: &str| PathBuf::from(text.filter(|t| !t.is_empty()).unwrap_or(or));
        let home = path(fields.nth(1), "/");
        let shell = path(fields.next(), "/bin/sh");
        Some(Account { name: name.into(), uid, gid, home, shell })
    }
}

/// Why a look-up has no answer at all, which is not the same as "there is no such user". A clause.
pub(super) type Unanswered = String;

/// The user database as seen during one load.
pub(super) struct Users {
    by_name: HashMap<String, Option<Account>>,
    by_uid: HashMap<u32, Option<Account>>,
    groups: HashMap<String, Option<u32>>,
    /// User name to the groups that list it as a member.
    member_of: HashMap<String, BTreeSet<u32>>,
    /// Names that the passwd file itself has.
    local: BTreeSet<String>,
    /// Users whose groups `getent` has been asked for.
    asked: BTreeSet<String>,
    getent: bool,
    /// Groups may have members that /etc/group does not list.
    remote_groups: bool,
    /// `getent` failed once; it is not asked again, since each question may cost its whole time limit.
    silent: Option<Unanswered>,
}

impl Users {
    /// Reads the two files. A missing one counts as empty: what is not found in it is not found.
    pub(super) fn new(from: &Databases) -> Users {
        let mut users = Users {
            by_name: HashMap::new(),
            by_uid: HashMap::new(),
            groups: HashMap::new(),
            member_of: HashMap::new(),
            local: BTreeSet::new(),
            asked: BTreeSet::new(),
            getent: from.getent
                && (from.passwd != Databases::default().passwd || beyond_files(&["passwd", "group"])),
            remote_groups: from.getent && beyond_files(&["group", "initgroups"]),
            silent: None,
        };
        let text = |path| String::from_utf8_lossy(&fs::read(path).unwrap_or_default()).into_owned();
        for account in text(&from.passwd).lines().filter_map(Account::parse) {
            // As in getpwnam, the first entry of a name or a number counts.
            users.local.insert(account.name.clone());
            users.by_uid.entry(account.uid).or_insert_with(|| Some(account.clone()));
            users.by_name.entry(account.name.clone()).or_insert(Some(account));
        }
        for line in text(&from.group).lines() {
            users.learn_group(line);
        }
        users
    }

    /// The user of this name.
    pub(super) fn by_name(&mut self, name: &str) -> Result<Option<Account>, Unanswered> {
        if let Some(known) = self.by_name.get(name) {
            return Ok(known.clone());
        }
        let found = self.ask("passwd", name)?.and_then(|line| Account::parse(&line));
        self.by_name.insert(name.into(), found.clone());
        Ok(found)
    }

    /// The user of this number.
    pub(super) fn by_uid(&mut self, uid: u32) -> Result<Option<Account>, Unanswered> {
        if let Some(known) = self.by_uid.get(&uid) {
            return Ok(known.clone());
        }
        let found = self.ask("passwd", &uid.to_string())?.and_then(|line| Account::parse(&line));
        self.by_uid.insert(uid, found.clone());
        Ok(found)
    }

    /// The number of the group of this name.
    pub(super) fn group(&mut self, name: &str) -> Result<Option<u32>, Unanswered> {
        if let Some(known) = self.groups.get(name) {
            return Ok(*known);
        }
        if let Some(line) = self.ask("group", name)? {
            self.learn_group(&line);
        }
        Ok(*self.groups.entry(name.into()).or_insert(None))
    }

    /// The passwd file has a user of this name, whatever else may be known of it.
    pub(super) fn is_local(&self, name: &str) -> bool {
        self.local.contains(name)
    }

    /// Every group that the group file lists this user in.
    pub(super) fn local_groups_of(&self, name: &str) -> BTreeSet<u32> {
        self.member_of.get(name).cloned().unwrap_or_default()
    }

    /// Every group that lists this user as a member, as initgroups(3) would find.
    pub(super) fn groups_of(&mut self, name: &str) -> Result<BTreeSet<u32>, Unanswered> {
        if self.remote_groups && !self.asked.contains(name) {
            // `name  gid gid ...`
            let line = self.ask("initgroups", name)?.unwrap_or_default();
            self.asked.insert(name.into());
            let found = line.split_ascii_whitespace().skip(1).filter_map(|g| g.parse::<u32>().ok());
            self.member_of.entry(name.into()).or_default().extend(found);
        }
        Ok(self.local_groups_of(name))
    }

    /// Names of all users seen so far.
    pub(super) fn known_names(&self) -> impl Iterator<Item = &str> {
        self.by_name.iter().filter(|(_, account)| account.is_some()).map(|(name, _)| name.as_str())
    }

    fn learn_group(&mut self, line: &str) {
        let mut fields = line.split(':');
        let (Some(name), Some(gid)) = (fields.next(), fields.nth(1).and_then(|g| g.parse::<u32>().ok()))
        else {
            return;
        };
        self.groups.entry(name.into()).or_insert(Some(gid));
        for member in fields.next().unwrap_or("").split(',').filter(|m| !m.is_empty()) {
            self.member_of.entry(member.into()).or_default().insert(gid);
        }
    }

    fn ask(&mut self, database: &str, key: &str) -> Result<Option<String>, Unanswered> {
        if !self.getent {
            return Ok(None);
        }
        if let Some(why) = &self.silent {
            return Err(why.clone());
        }
        getent::ask(database, key).inspect_err(|why| self.silent = Some(why.clone()))
    }
}

/// Whether nsswitch.conf has any of these databases come from more than files: asking costs two processes. A
/// host without it has files only.
fn beyond_files(databases: &[&str]) -> bool {
    let text = fs::read_to_string("/etc/nsswitch.conf").unwrap_or_default();
    let lines = text.lines().filter_map(|l| l.split('#').next()?.split_once(':'));
    let sources = lines.filter(|(db, _)| databases.contains(&db.trim())).map(|(_, s)| s);
    sources.flat_map(str::split_ascii_whitespace).any(|s| match s {
        "files" | "compat" => false,
        // Of its own it has the users of systemd-homed and of dynamic units, and tells them over sockets.
        "systemd" => fs::exists("/run/systemd/userdb").unwrap_or(true),
        // `[SUCCESS=merge]` and the like are actions, not sources.
        other => !other.starts_with('[') && !other.ends_with(']'),
    })
}

/// Checks a user's or group's name or number as written: `Ok(Some(number))` for digits. The error is a clause.
pub(super) fn check_name(name: &str) -> Result<Option<u32>, &'static str> {
    let digits = !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit());
    if digits {
        return match name.parse::<u32>() {
            // (uid_t)-1 means "no change" to the kernel, and 65535 is what is left of it in 16 bits.
            Ok(u32::MAX | 65_535) => Err("this number is reserved, it stands for no one"),
            Ok(number) => Ok(Some(number)),
            Err(_) => Err("it is larger than any id"),
        };
    }
    let body = name.strip_suffix('$').unwrap_or(name);
    let first = body.bytes().next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_');
    let rest = body.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
    if first && rest {
        return Ok(None);
    }
    Err("it is neither a name (letters, digits, `_` and `-`, no digit first) nor a number")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixture() -> Users {
        let dir = tempfile::tempdir().unwrap();
        let (passwd, group) = (dir.path().join("passwd"), dir.path().join("group"));
        fs::write(
            &passwd,
            "root:x:0:0:root:/root:/bin/bash\nweb:x:33:33::/srv/web:\nbroken\nweb:x:34:34:::\n",
        )
        .unwrap();
        fs::write(&group, "root:x:0:\nweb:x:33:\nssl-cert:x:110:db,web\nadm:x:4:web\n").unwrap();
        Users::new(&Databases { passwd, group, getent: false })
    }

    #[test]
    fn users_and_groups_come_from_the_files() {
        let mut users = fixture();
        let web = users.by_name("web").unwrap().unwrap();
        assert_eq!((web.uid, web.gid, web.home.to_str()), (33, 33, Some("/srv/web")));
        assert_eq!(web.shell.to_str(), Some("/bin/sh"));
        assert_eq!(users.by_uid(0).unwrap().unwrap().name, "root");
        assert_eq!(users.by_name("nobody").unwrap(), None);
        assert_eq!(users.group("ssl-cert").unwrap(), Some(110));
        assert_eq!(users.groups_of("web").unwrap().into_iter().collect::<Vec<_>>(), [4, 110]);
    }

    #[test]
    fn names_that_look_like_numbers_are_refused() {
        for bad in ["", "0day", "-1", "4294967295", "65535", "99999999999", "a b", "web:x", "$", "ä"] {
            assert!(check_name(bad).is_err(), "{bad}");
        }
        assert_eq!(check_name("www-data"), Ok(None));
        assert_eq!(check_name("HOST$"), Ok(None));
        assert_eq!(check_name("_apt"), Ok(None));
        assert_eq!(check_name("1000"), Ok(Some(1000)));
    }

    #[test]
    fn the_hosts_own_databases_answer() {
        let mut users = Users::new(&Databases {
            passwd: "/nonexistent".into(),
            group: "/nonexistent".into(),
            getent: true,
        });
        assert_eq!(users.by_name("root").unwrap().unwrap().uid, 0);
        assert_eq!(users.group("root").unwrap(), Some(0));
        assert_eq!(users.by_name("no-such-user-here").unwrap(), None);
    }
}
