//! Names of signals. Numbers are those of Linux on x86-64 and arm64, which agree.

const NAMES: [&str; 31] = [
    "SIGHUP",
    "SIGINT",
    "SIGQUIT",
    "SIGILL",
    "SIGTRAP",
    "SIGABRT",
    "SIGBUS",
    "SIGFPE",
    "SIGKILL",
    "SIGUSR1",
    "SIGSEGV",
    "SIGUSR2",
    "SIGPIPE",
    "SIGALRM",
    "SIGTERM",
    "SIGSTKFLT",
    "SIGCHLD",
    "SIGCONT",
    "SIGSTOP",
    "SIGTSTP",
    "SIGTTIN",
    "SIGTTOU",
    "SIGURG",
    "SIGXCPU",
    "SIGXFSZ",
    "SIGVTALRM",
    "SIGPROF",
    "SIGWINCH",
    "SIGIO",
    "SIGPWR",
    "SIGSYS",
];

/// First real-time signal that programs may use; glibc keeps 32 and 33 for itself.
const RTMIN: i32 = 34;

/// `SIGTERM` for 15, `SIGRTMIN+1` for 35; `signal 99` for what Linux does not have.
pub fn signal_name(signal: i32) -> String {
    if let Some(name) = usize::try_from(signal).ok().and_then(|n| NAMES.get(n.wrapping_sub(1))) {
        return (*name).into();
    }
    match signal {
        RTMIN => "SIGRTMIN".into(),
        n if n > RTMIN && n <= 64 => format!("SIGRTMIN+{}", n - RTMIN),
        n => format!("signal {n}"),
    }
}

#[cfg(test)]
mod tests {
    use super::signal_name;

    #[test]
    fn names_are_those_of_linux() {
        assert_eq!(signal_name(1), "SIGHUP");
        assert_eq!(signal_name(9), "SIGKILL");
        assert_eq!(signal_name(31), "SIGSYS");
        assert_eq!(signal_name(36), "SIGRTMIN+2");
        assert_eq!(signal_name(0), "signal 0");
        assert_eq!(signal_name(-3), "signal -3");
    }
}
