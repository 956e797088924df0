//! Landlock: from now on this process, and all that comes from it, may change files only below given folders,
//! whatever is mounted or remounted.

use super::{Errno, Result};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Writing, removing and making of every kind, as the first version has them.
const CHANGES: u64 = 1 << 1 | 0b1_1111_1111 << 4;
/// Moving between folders, since version 2.
const MOVES: u64 = 1 << 13;
/// Truncating, since version 3.
const TRUNCATES: u64 = 1 << 14;
/// Of these, what can be done to a file that is no folder.
const OF_FILES: u64 = 1 << 1 | TRUNCATES;

/// Rules that are being written.
#[derive(Debug)]
pub struct Rules {
    fd: OwnedFd,
    handled: u64,
}

impl Rules {
    /// Rules that allow no change at all; `None` where the kernel has no Landlock.
    pub fn new() -> Result<Option<Rules>> {
        const VERSION: libc::c_int = 1;
        let none = std::ptr::null::<u64>();
        // SAFETY: with this flag the call takes no struct, and tells the version.
        let version = unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, none, 0, VERSION) };
        let handled = CHANGES
            | match version {
                ..1 => return Ok(None),
                1 => 0,
                2 => MOVES,
                3.. => MOVES | TRUNCATES,
            };
        // SAFETY: the first field of the struct is the one that every version has, and its size is given.
        let fd = unsafe {
            libc::syscall(libc::SYS_landlock_create_ruleset, &raw const handled, size_of::<u64>(), 0)
        };
        let fd = Errno::result(fd)?;
        // SAFETY: new, and nobody else's.
        Ok(Some(Rules { fd: unsafe { OwnedFd::from_raw_fd(fd as i32) }, handled }))
    }

    /// Allows changes at a place and below it.
    pub fn allow(&self, place: BorrowedFd<'_>) -> Result<()> {
        #[repr(C, packed)]
        struct Below {
            access: u64,
            parent: i32,
        }
        const PATH_BENEATH: libc::c_int = 1;
        let add = |access: u64| {
            let rule = Below { access, parent: place.as_raw_fd() };
            // SAFETY: this kind of rule is such a struct.
            Errno::result(unsafe {
                libc::syscall(
                    libc::SYS_landlock_add_rule,
                    self.fd.as_raw_fd(),
                    PATH_BENEATH,
                    &raw const rule,
                    0,
                )
            })
        };
        match add(self.handled) {
            // What only folders have is refused for anything else.
            Err(Errno::EINVAL) => add(self.handled & OF_FILES).map(drop),
            done => done.map(drop),
        }
    }

    /// Lets them hold, for good. Takes no_new_privs or CAP_SYS_ADMIN.
    pub fn hold(&self) -> Result<()> {
        // SAFETY: the call takes a descriptor and no flag.
        Errno::result(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, self.fd.as_raw_fd(), 0) })
            .map(drop)
    }
}
