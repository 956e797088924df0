//! What a service might try in order to get out: each as the system call itself, and what the kernel says to it.

use nix::errno::Errno;
use std::ptr::null;

type Call = fn() -> i64;

/// The attempts by name.
const CALLS: &[(&str, Call)] = &[
    ("setuid-0", || unsafe { libc::syscall(libc::SYS_setresuid, 0, 0, 0) }),
    ("setgid-0", || unsafe { libc::syscall(libc::SYS_setresgid, 0, 0, 0) }),
    ("setgroups", || unsafe { libc::syscall(libc::SYS_setgroups, 1, [0u32].as_ptr()) }),
    ("capset", all_capabilities),
    ("ptrace-parent", || unsafe { libc::ptrace(libc::PTRACE_ATTACH, libc::getppid(), 0, 0) }),
    // Of the obsolete calls the one that anybody may make, and that does nothing.
    #[cfg(target_arch = "x86_64")]
    ("sysfs", || unsafe { libc::syscall(libc::SYS_sysfs, 3) }),
    #[cfg(not(target_arch = "x86_64"))]
    ("sysfs", || 0),
    ("ptrace-nobody", || unsafe { libc::syscall(libc::SYS_ptrace, libc::PTRACE_DETACH, -1, 0, 0) }),
    ("bind-81", || bind_low(81)),
    ("init_module", || unsafe { libc::syscall(libc::SYS_init_module, 0, 0, null::<u8>()) }),
    ("kexec_load", || unsafe { libc::syscall(libc::SYS_kexec_load, 0, 0, 0, 0) }),
    ("reboot", || unsafe { libc::syscall(libc::SYS_reboot, 0, 0, 0, 0) }),
    ("swapoff", || unsafe { libc::syscall(libc::SYS_swapoff, c"/nowhere".as_ptr()) }),
    ("clock_settime", || unsafe { libc::syscall(libc::SYS_clock_settime, libc::CLOCK_REALTIME, 0) }),
    #[cfg(target_arch = "x86_64")]
    ("iopl", || unsafe { libc::syscall(libc::SYS_iopl, 0) }),
    #[cfg(target_arch = "x86_64")]
    ("ioperm", || unsafe { libc::syscall(libc::SYS_ioperm, 0x80, 1, 1) }),
    #[cfg(target_arch = "x86_64")]
    ("uselib", || unsafe { libc::syscall(libc::SYS_uselib, c"/nowhere".as_ptr()) }),
    #[cfg(target_arch = "x86_64")]
    ("x32-getpid", || unsafe { libc::syscall(0x4000_0000 | libc::SYS_getpid) }),
    ("bpf", || unsafe { libc::syscall(libc::SYS_bpf, -1, 0, 0) }),
    ("getpid", || unsafe { libc::syscall(libc::SYS_getpid) }),
    ("no-such-call", || unsafe { libc::syscall(0xffff) }),
    ("mount", || unsafe { libc::mount(null(), c"/tmp".as_ptr(), c"tmpfs".as_ptr(), 0, null()) }.into()),
    ("umount-dev", || unsafe { libc::umount2(c"/dev".as_ptr(), libc::MNT_DETACH) }.into()),
    ("mknod-mem", || unsafe { libc::mknod(c"/dev/mem2".as_ptr(), libc::S_IFCHR | 0o600, 0x101) }.into()),
];

/// `ok`, or the name of the error.
pub(crate) fn attempt(name: &str) -> Result<String, String> {
    let call = CALLS.iter().find(|c| c.0 == name).ok_or_else(|| format!("no attempt is called {name}"))?.1;
    Ok(match Errno::result(call()) {
        Ok(_) => "ok".into(),
        Err(e) => format!("{e:?}"),
    })
}

/// Writes one byte to a new file in a folder, or to a file that is there, and takes a new one away again.
pub(crate) fn write_in(place: &str) -> String {
    let name = std::path::Path::new(place);
    let file = if name.is_dir() { name.join(".keepd-attempt") } else { name.to_owned() };
    let opened = std::fs::OpenOptions::new().append(true).create(name.is_dir()).open(&file);
    if name.is_dir() && opened.is_ok() {
        let _ = std::fs::remove_file(&file);
    }
    match opened {
        Ok(_) => "ok".into(),
        Err(e) => format!("{:?}", Errno::from_raw(e.raw_os_error().unwrap_or(0))),
    }
}

fn all_capabilities() -> i64 {
    let head = [0x2008_0522u32, 0];
    let data = [u32::MAX; 6];
    unsafe { libc::syscall(libc::SYS_capset, head.as_ptr(), data.as_ptr()) }
}

fn bind_low(port: u16) -> i64 {
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as u16,
        sin_port: port.to_be(),
        sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes([127, 0, 0, 1]) },
        sin_zero: [0; 8],
    };
    unsafe {
        let fd = libc::socket(libc::AF_INET, libc::SOCK_STREAM, 0);
        let bound = libc::bind(fd, (&raw const address).cast(), size_of_val(&address) as u32);
        let error = Errno::last();
        libc::close(fd);
        error.set();
        bound.into()
    }
}
