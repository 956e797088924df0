//! The steps of a launch by name, and what is said when one of them fails. The child reports a failure as a
//! few bytes on its status pipe; the sentences are made here, on the keeper's side. Nothing is decided here.

#![forbid(unsafe_code)]

use crate::sys::{self, Errno};

/// What was being done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Step {
    Folder = 1,
    Pipe,
    Fork,
    Plan,
    Stdio,
    Session,
    Join,
    EnvFile,
    Limit,
    Groups,
    Gid,
    Uid,
    Verify,
    Privileges,
    Directory,
    Descriptors,
    Exec,
}

const ALL: [Step; 17] = [
    Step::Folder,
    Step::Pipe,
    Step::Fork,
    Step::Plan,
    Step::Stdio,
    Step::Session,
    Step::Join,
    Step::EnvFile,
    Step::Limit,
    Step::Groups,
    Step::Gid,
    Step::Uid,
    Step::Verify,
    Step::Privileges,
    Step::Directory,
    Step::Descriptors,
    Step::Exec,
];

/// Written just before exec: end of file after it means that the command was exec'ed.
pub(super) const ABOUT_TO_EXEC: u8 = 0;
/// Written first by a child that has a slot: it does not share the keeper's descriptors any more.
pub(super) const ALONE: u8 = 1;

/// Why a launch did not get to its command.
#[derive(Debug, Clone, PartialEq, Eq)]
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

    /// As bytes for the status pipe.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = vec![self.step as u8];
        out.extend(self.errno.to_le_bytes());
        // Both are cut so that the whole fits into one atomic write.
        for text in [&self.object, &self.cause] {
            let cut = &text.as_bytes()[..text.len().min(1500)];
            out.extend((cut.len() as u16).to_le_bytes());
            out.extend(cut);
        }
        out
    }

    /// From the bytes of the status pipe; `None` if they are none of ours.
    pub(super) fn decode(bytes: &[u8]) -> Option<Failure> {
        let (step, rest) = bytes.split_first()?;
        let step = *ALL.iter().find(|s| **s as u8 == *step)?;
        let (errno, mut rest) = rest.split_first_chunk::<4>()?;
        let mut text = || -> Option<String> {
            let (len, tail) = rest.split_first_chunk::<2>()?;
            let (text, tail) = tail.split_at_checked(u16::from_le_bytes(*len) as usize)?;
            rest = tail;
            Some(String::from_utf8_lossy(text).into_owned())
        };
        Some(Failure { step, errno: i32::from_le_bytes(*errno), object: text()?, cause: text()? })
    }

    /// For people: "cannot change directory to /srv/web: No such file or directory".
    pub(super) fn sentence(&self) -> String {
        let o = &self.object;
        let what = match self.step {
            Step::Folder => format!("cannot create the cgroup {o}"),
            Step::Pipe => "cannot create a pipe".into(),
            Step::Fork => "cannot fork".into(),
            Step::Plan => format!("cannot read the plan{o}"),
            Step::Stdio => format!("cannot set up {o}"),
            Step::Session => "cannot create a session".into(),
            Step::Join => format!("cannot join the cgroup {o}"),
            Step::EnvFile => format!("cannot read environment file {o}"),
            Step::Limit => format!("cannot set limit {o}"),
            Step::Groups => format!("cannot take on the groups of {o}"),
            Step::Gid => format!("cannot take on the group of {o}"),
            Step::Uid | Step::Verify => format!("cannot become {o}"),
            Step::Privileges => "cannot give up gaining privileges".into(),
            Step::Directory => format!("cannot change directory to {o}"),
            Step::Descriptors => "cannot mark descriptors close-on-exec".into(),
            Step::Exec => format!("cannot execute {o}"),
        };
        if self.cause.is_empty() {
            format!("{what}: {}", sys::describe(Errno::from_raw(self.errno)))
        } else {
            format!("{what}: {}", self.cause)
        }
    }

    /// Whether the host was short of something, which is no fault of the service.
    pub(super) fn transient(&self) -> bool {
        let errno = Errno::from_raw(self.errno);
        match self.step {
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
    fn a_failure_survives_the_pipe() {
        for step in ALL {
            let f = Failure::call(step, Errno::ENOENT, "/srv/wéb");
            assert_eq!(Failure::decode(&f.encode()), Some(f));
            let f = Failure::ours(step, "x".repeat(9), "line 3 has no `=`");
            assert_eq!(Failure::decode(&f.encode()), Some(f));
        }
        let long = Failure::ours(Step::Exec, "x".repeat(9000), "y".repeat(9000)).encode();
        assert!(long.len() <= 4096 && Failure::decode(&long).is_some());
    }

    #[test]
    fn garbage_is_no_failure() {
        let whole = Failure::call(Step::Uid, Errno::EPERM, "user web").encode();
        for n in 0..whole.len() {
            assert_eq!(Failure::decode(&whole[..n]), None, "cut at {n}");
        }
        assert_eq!(Failure::decode(&[200, 0, 0, 0, 0, 0, 0, 0, 0]), None);
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
