//! Making a thread one that runs when nobody else wants to, or that at least interrupts nobody.

/// The calling thread gets the processor and the disk only while nothing else wants them, from now on: there
/// is no way back without privileges. Where the kernel refuses, it stays as it was: that is slower for others,
/// and no error.
pub fn lower_priority() {
    const THREAD: libc::c_int = 1; // IOPRIO_WHO_PROCESS, which means a thread
    const IDLE: libc::c_int = 3 << 13; // IOPRIO_CLASS_IDLE
    // SAFETY: zeros are a valid sched_param, which SCHED_IDLE demands; 0 is the calling thread for all three.
    unsafe {
        let none: libc::sched_param = std::mem::zeroed();
        libc::sched_setscheduler(0, libc::SCHED_IDLE, &none);
        libc::setpriority(libc::PRIO_PROCESS, 0, 19);
        libc::syscall(libc::SYS_ioprio_set, THREAD, 0, IDLE);
    }
}

/// The calling thread gets its share of the processor as before, but does not interrupt whoever is running when
/// there is something to do for it. For work that is cheaper in batches. Where the kernel refuses, it stays as it was.
pub fn interrupt_nobody() {
    // SAFETY: zeros are a valid sched_param, which SCHED_BATCH demands; 0 is the calling thread.
    unsafe {
        let none: libc::sched_param = std::mem::zeroed();
        libc::sched_setscheduler(0, libc::SCHED_BATCH, &none);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_interrupts_nobody_is_of_the_batch_class() {
        let policy = || {
            // SAFETY: takes a number; 0 is the calling thread.
            unsafe { libc::sched_getscheduler(0) }
        };
        let seen = std::thread::spawn(move || (policy(), interrupt_nobody(), policy()).2).join().unwrap();
        assert_eq!(seen, libc::SCHED_BATCH);
        assert_eq!(policy(), libc::SCHED_OTHER);
    }
}
