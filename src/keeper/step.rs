//! The steps of a launch by name, and what is said when one of them fails. The child reports which step and the
//! kernel's error; the sentences are made on the keeper's side. Nothing is decided here.

#![forbid(unsafe_code)]

use crate::sys::{self, Errno};
use serde::{Deserialize, Serialize};

/// What was being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Step {
    Launcher,
    Folder,
    Pipe,
    Notify,
    Fork,
    Plan,
    Stdio,
    Session,
    Terminal,
    Join,
    Resource,
    EnvFile,
    Program,
    Credentials,
    Folders,
    Limit,
    Namespaces,
    Mount,
    Landlock,
    OomScore,
    Nice,
    Affinity,
    Keyring,
    Capabilities,
    Groups,
    Gid,
    Uid,
    Verify,
    Privileges,
    Directory,
    Descriptors,
    Syscalls,
    Exec,
    Killed,
}

/// Why a launch did not get to its command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Failure {
    pub(super) step: Step,
    /// 0 where `cause` says it all.
    pub(super) errno: i32,
    /// The path, user, limit that it is about.
    pub(super) object: String,
    /// In our words, where the kernel's would not do.
    pub(super) cause: String,
}

impl Failure {
    /// A failed system call.
    pub(super) fn call(step: Step, errno: Errno, object: impl Into<String>) -> Failure {
        Failure { step, errno: errno as i32, object: object.into(), cause: String::new() }
    }

    /// A refusal of our own.
    pub(super) fn ours(step: Step, object: impl Into<String>, cause: impl Into<String>) -> Failure {
        Failure { step, errno: 0, object: object.into(), cause: cause.into() }
    }

    /// As at most `room` bytes for the record; texts are cut where they have to be.
    pub(super) fn encode(&self, room: usize) -> Vec<u8> {
        // A character takes six bytes at worst.
        for longest in [usize::MAX, room / 16] {
            let cut = |s: &str| {
                let mut end = s.len().min(longest);
                while !s.is_char_boundary(end) {
                    end -= 1;
                }
                s[..end].to_owned()
            };
            let short = Failure { object: cut(&self.object), cause: cut(&self.cause), ..*self };
            // These types have no map with keys that are not strings, which is all that could fail.
            let bytes = serde_json::to_vec(&short).unwrap_or_default();
            if bytes.len() <= room {
                return bytes;
            }
        }
        Vec::new()
    }

    /// From the bytes of the record; `None` if they are none of ours.
    pub(super) fn decode(bytes: &[u8]) -> Option<Failure> {
        serde_json::from_slice(bytes).ok()
    }

    /// For people: "cannot change directory to /srv/web: No such file or directory".
    pub(super) fn sentence(&self) -> String {
        let o = &self.object;
        let what = match self.step {
            Step::Launcher => "cannot start a launcher".into(),
            Step::Killed if !o.is_empty() => return o.clone(),
            Step::Killed => "the child process was killed before it could execute the command".into(),
            Step::Folder => format!("cannot create the cgroup {o}"),
            Step::Pipe => "cannot create a pipe".into(),
            Step::Notify => "cannot create the socket for its notifications".into(),
            Step::Fork => "cannot fork".into(),
            Step::Plan => format!("cannot read the plan{o}"),
            Step::Stdio => format!("cannot set up {o}"),
            Step::Session => "cannot create a session".into(),
            Step::Terminal => "cannot give it the terminal".into(),
            Step::Join => format!("cannot join the cgroup {o}"),
            Step::Resource => format!("cannot set {o}"),
            Step::EnvFile => format!("cannot read environment file {o}"),
            Step::Program => format!("cannot verify {o}"),
            Step::Credentials => format!("cannot provide the credential {o}"),
            Step::Folders => format!("cannot make the folder {o}"),
            Step::Limit => format!("cannot set limit {o}"),
            Step::Namespaces => format!("cannot use namespaces for the sandbox ({o})"),
            Step::Mount => format!("cannot {o}"),
            Step::Landlock => "cannot hold it to its writable folders".into(),
            Step::OomScore => format!("cannot set oom-score-adjust to {o}"),
            Step::Nice => format!("cannot set nice to {o}"),
            Step::Affinity => format!("cannot keep to the CPUs {o}"),
            Step::Keyring => "cannot open a session keyring".into(),
            Step::Capabilities => format!("cannot take on the capabilities of {o}"),
            Step::Groups => format!("cannot take on the groups of {o}"),
            Step::Gid => format!("cannot take on the group of {o}"),
            Step::Uid | Step::Verify => format!("cannot become {o}"),
            Step::Privileges => "cannot give up gaining privileges".into(),
            Step::Directory => format!("cannot change directory to {o}"),
            Step::Descriptors => "cannot mark descriptors close-on-exec".into(),
            Step::Syscalls => format!("cannot limit the system calls to sandbox.syscalls = \"{o}\""),
            Step::Exec => format!("cannot execute {o}"),
        };
        if self.cause.is_empty() && self.errno == 0 {
            what
        } else if self.cause.is_empty() {
            format!("{what}: {}", sys::describe(Errno::from_raw(self.errno)))
        } else {
            format!("{what}: {}", self.cause)
        }
    }

    /// Whether the host was short of something, which is no fault of the service.
    pub(super) fn transient(&self) -> bool {
        let errno = Errno::from_raw(self.errno);
        match self.step {
            Step::Launcher => true,
            Step::Folder | Step::Pipe | Step::Fork => {
                matches!(errno, Errno::EAGAIN | Errno::ENOMEM | Errno::EMFILE | Errno::ENFILE | Errno::EBUSY)
            }
            Step::Exec | Step::Uid => errno == Errno::EAGAIN,
            _ => errno == Errno::ENFILE,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_survives_the_record() {
        let failed = Failure::call(Step::Directory, Errno::ENOENT, "/srv/wéb");
        assert_eq!(Failure::decode(&failed.encode(4000)), Some(failed));
        for letter in ["x", "é", "\u{1}"] {
            let long = Failure::ours(Step::Exec, letter.repeat(9000), letter.repeat(9000)).encode(4000);
            assert!(long.len() <= 4000 && Failure::decode(&long).is_some_and(|f| f.step == Step::Exec));
        }
        assert_eq!(Failure::decode(&[200, 0, 0, 0]), None);
    }

    #[test]
    fn sentences_name_object_and_cause() {
        let f = Failure::call(Step::Directory, Errno::ENOENT, "/srv/web");
        assert_eq!(f.sentence(), "cannot change directory to /srv/web: No such file or directory");
        assert!(!f.transient());
        assert!(Failure::call(Step::Fork, Errno::EAGAIN, "").transient());
        assert!(!Failure::call(Step::Exec, Errno::ENOMEM, "/x").transient());
    }
}
