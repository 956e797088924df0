//! The two lists of system calls that services can be held to, and the filters made of them.

use super::{
    Errno,
    seccomp::{Filter, Verdict},
};
use libc::*;

/// The first number that none of these lists know, of any architecture.
const END: u32 = 472;

/// All but what no service needs.
pub fn deny_dangerous() -> Filter {
    Filter::new(END, |n| match has(&[DANGEROUS, DANGEROUS_OLD], n) {
        true => Verdict::Deny(Errno::EPERM),
        false => Verdict::Allow,
    })
}

/// Only what ordinary services need. A call that is newer than this list fails as on an older kernel, which
/// programs are prepared for.
pub fn allow_service() -> Filter {
    Filter::new(END, |n| match has(&[SERVICE, SERVICE_OLD], n) {
        true => Verdict::Allow,
        false if n >= END => Verdict::Deny(Errno::ENOSYS),
        false => Verdict::Deny(Errno::EPERM),
    })
}

fn has(lists: &[&[c_long]], number: u32) -> bool {
    lists.iter().any(|list| list.contains(&c_long::from(number)))
}

/// Modules, another kernel, reboot, swap, the clock, and what is long obsolete.
#[rustfmt::skip]
const DANGEROUS: &[c_long] = &[
    SYS_init_module, SYS_finit_module, SYS_delete_module,
    SYS_kexec_load, SYS_kexec_file_load, SYS_reboot, SYS_swapon, SYS_swapoff,
    SYS_clock_settime, SYS_clock_adjtime, SYS_settimeofday, SYS_adjtimex,
    SYS_nfsservctl, SYS_lookup_dcookie,
];

/// Those of x86-64 alone: raw input and output among them.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const DANGEROUS_OLD: &[c_long] = &[
    SYS_iopl, SYS_ioperm,
    // create_module, get_kernel_syms, query_module.
    174, 177, 178,
    SYS_uselib, SYS_ustat, SYS_sysfs, SYS__sysctl,
    SYS_getpmsg, SYS_putpmsg, SYS_afs_syscall, SYS_tuxcall, SYS_security, SYS_vserver,
    SYS_epoll_ctl_old, SYS_epoll_wait_old,
];
#[cfg(not(target_arch = "x86_64"))]
const DANGEROUS_OLD: &[c_long] = &[];

/// In the spirit of systemd's `@system-service`.
#[rustfmt::skip]
const SERVICE: &[c_long] = &[
    // Memory.
    SYS_brk, SYS_mmap, SYS_munmap, SYS_mprotect, SYS_mremap, SYS_madvise, SYS_mincore, SYS_msync, SYS_mlock,
    SYS_mlock2, SYS_munlock, SYS_mlockall, SYS_munlockall, SYS_membarrier, SYS_memfd_create, SYS_memfd_secret,
    SYS_pkey_alloc, SYS_pkey_free, SYS_pkey_mprotect, SYS_remap_file_pages, SYS_get_mempolicy,
    SYS_set_mempolicy, SYS_mbind, SYS_process_madvise, SYS_process_mrelease, SYS_userfaultfd,
    // mseal.
    462,
    // Reading, writing, files.
    SYS_read, SYS_write, SYS_readv, SYS_writev, SYS_pread64, SYS_pwrite64, SYS_preadv, SYS_pwritev, SYS_preadv2,
    SYS_pwritev2, SYS_close, SYS_close_range, SYS_dup, SYS_dup3, SYS_lseek, SYS_fcntl, SYS_ioctl, SYS_flock,
    SYS_openat, SYS_openat2, SYS_fstat, SYS_newfstatat, SYS_statx, SYS_statfs, SYS_fstatfs, SYS_faccessat,
    SYS_faccessat2, SYS_fallocate, SYS_ftruncate, SYS_truncate, SYS_fchdir, SYS_chdir, SYS_getcwd, SYS_getdents64,
    SYS_mkdirat, SYS_mknodat, SYS_unlinkat, SYS_linkat, SYS_symlinkat, SYS_readlinkat, SYS_renameat2,
    SYS_utimensat, SYS_umask, SYS_fchmod, SYS_fchmodat, SYS_fchown, SYS_fchownat, SYS_fsync, SYS_fdatasync,
    SYS_sync, SYS_syncfs, SYS_sync_file_range, SYS_copy_file_range, SYS_sendfile, SYS_splice, SYS_tee,
    SYS_vmsplice, SYS_fadvise64, SYS_readahead, SYS_getxattr, SYS_lgetxattr, SYS_fgetxattr, SYS_setxattr,
    SYS_lsetxattr, SYS_fsetxattr, SYS_listxattr, SYS_llistxattr, SYS_flistxattr, SYS_removexattr,
    SYS_lremovexattr, SYS_fremovexattr, SYS_name_to_handle_at, SYS_inotify_init1, SYS_inotify_add_watch,
    SYS_inotify_rm_watch,
    // cachestat, fchmodat2.
    451, 452,
    // Waiting and timers.
    SYS_pipe2, SYS_ppoll, SYS_pselect6, SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_pwait, SYS_epoll_pwait2,
    SYS_eventfd2, SYS_signalfd4, SYS_timerfd_create, SYS_timerfd_settime, SYS_timerfd_gettime, SYS_timer_create,
    SYS_timer_settime, SYS_timer_gettime, SYS_timer_getoverrun, SYS_timer_delete, SYS_getitimer, SYS_setitimer,
    SYS_nanosleep, SYS_clock_nanosleep, SYS_clock_gettime, SYS_clock_getres, SYS_gettimeofday, SYS_times,
    SYS_io_setup, SYS_io_destroy, SYS_io_submit, SYS_io_cancel, SYS_io_getevents,
    SYS_io_uring_setup, SYS_io_uring_enter, SYS_io_uring_register,
    // Sockets and other ways to talk.
    SYS_socket, SYS_socketpair, SYS_bind, SYS_listen, SYS_accept, SYS_accept4, SYS_connect, SYS_getsockname,
    SYS_getpeername, SYS_sendto, SYS_recvfrom, SYS_sendmsg, SYS_recvmsg, SYS_sendmmsg, SYS_recvmmsg,
    SYS_setsockopt, SYS_getsockopt, SYS_shutdown, SYS_shmget, SYS_shmat, SYS_shmdt, SYS_shmctl, SYS_semget,
    SYS_semop, SYS_semtimedop, SYS_semctl, SYS_msgget, SYS_msgsnd, SYS_msgrcv, SYS_msgctl, SYS_mq_open,
    SYS_mq_unlink, SYS_mq_timedsend, SYS_mq_timedreceive, SYS_mq_notify, SYS_mq_getsetattr,
    SYS_process_vm_readv, SYS_process_vm_writev,
    // Processes, threads and signals.
    SYS_clone, SYS_clone3, SYS_execve, SYS_execveat, SYS_exit, SYS_exit_group, SYS_wait4, SYS_waitid, SYS_kill,
    SYS_tkill, SYS_tgkill, SYS_pidfd_open, SYS_pidfd_send_signal, SYS_rt_sigaction, SYS_rt_sigprocmask,
    SYS_rt_sigpending, SYS_rt_sigqueueinfo, SYS_rt_tgsigqueueinfo, SYS_rt_sigreturn, SYS_rt_sigsuspend,
    SYS_rt_sigtimedwait, SYS_sigaltstack, SYS_restart_syscall, SYS_futex, SYS_futex_waitv,
    // futex_wake, futex_wait, futex_requeue.
    454, 455, 456,
    SYS_get_robust_list, SYS_set_robust_list, SYS_set_tid_address, SYS_rseq, SYS_getpid, SYS_getppid, SYS_gettid,
    SYS_getpgid, SYS_setpgid, SYS_getsid, SYS_setsid, SYS_prctl, SYS_personality, SYS_kcmp, SYS_setns,
    SYS_unshare, SYS_getrusage, SYS_getcpu, SYS_uname, SYS_sysinfo, SYS_getrandom,
    SYS_landlock_create_ruleset, SYS_landlock_add_rule, SYS_landlock_restrict_self, SYS_seccomp,
    // Who it is.
    SYS_getuid, SYS_geteuid, SYS_getgid, SYS_getegid, SYS_getresuid, SYS_getresgid, SYS_getgroups, SYS_setuid,
    SYS_setgid, SYS_setreuid, SYS_setregid, SYS_setresuid, SYS_setresgid, SYS_setgroups, SYS_setfsuid,
    SYS_setfsgid, SYS_capget, SYS_capset, SYS_keyctl, SYS_add_key, SYS_request_key,
    // What it may use.
    SYS_getrlimit, SYS_setrlimit, SYS_prlimit64, SYS_getpriority, SYS_setpriority, SYS_ioprio_get,
    SYS_ioprio_set, SYS_sched_yield, SYS_sched_getaffinity, SYS_sched_setaffinity, SYS_sched_getattr,
    SYS_sched_setattr, SYS_sched_getparam, SYS_sched_setparam, SYS_sched_getscheduler,
    SYS_sched_setscheduler, SYS_sched_get_priority_max, SYS_sched_get_priority_min, SYS_sched_rr_get_interval,
];

/// What x86-64 has from before those that every architecture has.
#[cfg(target_arch = "x86_64")]
#[rustfmt::skip]
const SERVICE_OLD: &[c_long] = &[
    SYS_open, SYS_creat, SYS_stat, SYS_lstat, SYS_access, SYS_getdents, SYS_mkdir, SYS_rmdir, SYS_mknod,
    SYS_unlink, SYS_link, SYS_symlink, SYS_readlink, SYS_rename, SYS_renameat, SYS_chmod, SYS_chown, SYS_lchown,
    SYS_utime, SYS_utimes, SYS_futimesat, SYS_dup2, SYS_pipe, SYS_poll, SYS_select, SYS_epoll_create,
    SYS_epoll_wait, SYS_eventfd, SYS_signalfd, SYS_inotify_init, SYS_fork, SYS_vfork, SYS_getpgrp, SYS_pause,
    SYS_alarm, SYS_time, SYS_arch_prctl, SYS_set_thread_area, SYS_get_thread_area,
    // io_pgetevents.
    333,
];
#[cfg(not(target_arch = "x86_64"))]
const SERVICE_OLD: &[c_long] = &[SYS_renameat, 292];
