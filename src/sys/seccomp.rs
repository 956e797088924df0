//! Filters of system calls (seccomp): which calls this process and all that come from it may make. A filter is
//! compiled once, and put in place by whoever is about to exec.
//!
//! It is a binary search over the numbers, not the usual chain of comparisons: when a filter is put in place the
//! kernel runs it for every number there is, and that is most of what it costs.

use super::{Errno, Result};
use libc::{sock_filter, sock_fprog};

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Allow,
    /// It fails with this error, and does nothing.
    Deny(Errno),
}

/// A compiled filter.
#[derive(Debug)]
pub struct Filter(Vec<sock_filter>);

#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xC000_003E;
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xC000_00B7;
/// Numbers from here on are x32's on x86-64, and nobody's elsewhere.
const FOREIGN: u32 = 0x4000_0000;

const LOAD: u16 = 0x20;
const EQUAL: u16 = 0x15;
const AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;
/// Offsets within what a filter is shown.
const AT_NUMBER: u32 = 0;
const AT_ARCH: u32 = 4;

impl Filter {
    /// Compiles: `verdict` says of each number below `end` what becomes of it, and of `end` what becomes of that
    /// and all above. Calls of other architectures, x32's and 32-bit ones among them, fail with EPERM.
    pub fn new(end: u32, verdict: impl Fn(u32) -> Verdict) -> Filter {
        let foreign = Verdict::Deny(Errno::EPERM);
        let mut ranges: Vec<(u32, Verdict)> = Vec::new();
        for (from, verdict) in (0..=end).map(|n| (n, verdict(n))).chain([(FOREIGN, foreign)]) {
            if ranges.last().is_none_or(|last| last.1 != verdict) {
                ranges.push((from, verdict));
            }
        }
        let mut program = vec![
            line(LOAD, 0, 0, AT_ARCH),
            line(EQUAL, 1, 0, ARCH),
            leaf(foreign),
            line(LOAD, 0, 0, AT_NUMBER),
        ];
        search(&ranges, &mut program);
        Filter(program)
    }

    /// Puts it in place, for good. Takes no_new_privs or CAP_SYS_ADMIN (EACCES); ENOSYS or EINVAL where the
    /// kernel has none. EPERM if the kernel does not confirm it.
    pub fn install(&self) -> Result<()> {
        const SET_MODE_FILTER: libc::c_long = 1;
        // Mitigations that a filter would otherwise bring along slow down the whole program.
        const SPEC_ALLOW: libc::c_long = 4;
        let len = u16::try_from(self.0.len()).map_err(|_| Errno::E2BIG)?;
        let program = sock_fprog { len, filter: self.0.as_ptr().cast_mut() };
        // SAFETY: `program` names `len` instructions, which the kernel checks and copies and does not change.
        let done =
            unsafe { libc::syscall(libc::SYS_seccomp, SET_MODE_FILTER, SPEC_ALLOW, &raw const program) };
        Errno::result(done)?;
        verify()
    }
}

/// EPERM unless the kernel confirms that some filter is in place.
pub fn verify() -> Result<()> {
    // SAFETY: prctl with this constant takes no argument.
    match unsafe { libc::prctl(libc::PR_GET_SECCOMP, 0, 0, 0, 0) } {
        2 => Ok(()),
        _ => Err(Errno::EPERM),
    }
}

fn line(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

fn leaf(verdict: Verdict) -> sock_filter {
    let answer = match verdict {
        Verdict::Allow => 0x7fff_0000,
        Verdict::Deny(e) => 0x0005_0000 | e as u32,
    };
    line(RETURN, 0, 0, answer)
}

/// Ranges by where they begin, to comparisons.
fn search(ranges: &[(u32, Verdict)], program: &mut Vec<sock_filter>) {
    if let [(_, verdict)] = ranges {
        return program.push(leaf(*verdict));
    }
    let (low, high) = ranges.split_at(ranges.len() / 2);
    let at = program.len();
    program.push(line(AT_LEAST, 0, 0, high[0].0));
    search(low, program);
    // n ranges make 2n - 1 lines, so that 255 are never reached with fewer than 256 ranges: see the tests.
    program[at].jt = u8::try_from(program.len() - at - 1).unwrap_or(u8::MAX);
    search(high, program);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the kernel would make of a call.
    fn run(filter: &Filter, arch: u32, number: u32) -> u32 {
        let (mut at, mut value) = (0, 0);
        loop {
            let l = &filter.0[at];
            at += 1;
            match l.code {
                LOAD => value = if l.k == AT_ARCH { arch } else { number },
                EQUAL => at += usize::from(if value == l.k { l.jt } else { l.jf }),
                AT_LEAST => at += usize::from(if value >= l.k { l.jt } else { l.jf }),
                _ => return l.k,
            }
        }
    }

    fn answer(verdict: Verdict) -> u32 {
        leaf(verdict).k
    }

    #[test]
    fn every_number_gets_its_verdict() {
        let worst = |n: u32| match n {
            n if n.is_multiple_of(2) => Verdict::Allow,
            n if n < 200 => Verdict::Deny(Errno::EPERM),
            _ => Verdict::Deny(Errno::ENOSYS),
        };
        let filter = Filter::new(240, worst);
        for n in (0..240).chain([240, 241, 0x3fff_ffff]) {
            assert_eq!(run(&filter, ARCH, n), answer(worst(n.min(240))), "{n}");
        }
        for (arch, n) in [(ARCH, FOREIGN), (ARCH, FOREIGN | 39), (ARCH, u32::MAX), (0x4000_0003, 20), (0, 0)]
        {
            assert_eq!(run(&filter, arch, n), answer(Verdict::Deny(Errno::EPERM)), "{arch:x} {n}");
        }
    }
}
