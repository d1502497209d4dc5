//! The scheduler calls: priority, locked memory, the monotonic clock and sleeping to an instant.
//!
//! All of it is best effort but the clock: a container or a desktop session refuses realtime priority, and
//! then the thread runs with normal priority (raised by niceness where that is allowed).

#![allow(unsafe_code)]

/// What the system granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Granted {
    /// `SCHED_FIFO` runs.
    pub realtime: bool,
    /// Why it does not \[errno\]; 0: it does, or was not asked for.
    pub refused_errno: i32,
    /// All of the process's present memory is locked.
    pub memory_locked: bool,
}

/// Niceness asked for when realtime priority is refused.
const FALLBACK_NICENESS: libc::c_int = -15;

/// Gives the calling thread `SCHED_FIFO` with this priority (0: do not ask) and locks the process's present memory.
pub fn become_realtime(priority: u8) -> Granted {
    let refused_errno = if priority == 0 { 0 } else { set_fifo(priority) };
    let realtime = priority > 0 && refused_errno == 0;
    if !realtime {
        // SAFETY: sets only scheduling attributes of the calling thread; failure is harmless and ignored.
        unsafe {
            libc::setpriority(libc::PRIO_PROCESS, 0, FALLBACK_NICENESS);
            // A normal thread's timers may be 50 µs late for the sake of saving power.
            libc::prctl(libc::PR_SET_TIMERSLACK, 1 as libc::c_ulong, 0, 0, 0);
        }
    }
    Granted {
        realtime,
        refused_errno,
        memory_locked: lock_memory(),
    }
}

fn set_fifo(priority: u8) -> i32 {
    let parameters = libc::sched_param {
        sched_priority: libc::c_int::from(priority.min(99)),
    };
    // SAFETY: pthread_self is always valid; `parameters` outlives the call.
    unsafe { libc::pthread_setschedparam(libc::pthread_self(), libc::SCHED_FIFO, &parameters) }
}

/// Locks what is mapped now, and only where no limit could be hit. Not `MCL_FUTURE`: the daemon's other threads
/// map files and grow, and with a limit every such call would start to fail.
fn lock_memory() -> bool {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is valid for writing; mlockall has no memory-safety conditions.
    unsafe {
        libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) == 0
            && limit.rlim_cur == libc::RLIM_INFINITY
            && libc::mlockall(libc::MCL_CURRENT) == 0
    }
}

/// The monotonic clock \[µs\].
pub fn now_us() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` is valid for writing.
    unsafe { libc::clock_gettime(libc::CLOCK_MONOTONIC, &mut now) };
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1000
}

/// Sleeps until the monotonic clock shows `until_us` \[µs\]; at once when that is past.
pub fn sleep_until(until_us: u64) {
    let until = libc::timespec {
        tv_sec: (until_us / 1_000_000) as libc::time_t,
        tv_nsec: ((until_us % 1_000_000) * 1000) as libc::c_long,
    };
    // SAFETY: `until` outlives the call; no remainder is asked for. A signal interrupts: sleep on.
    while unsafe {
        libc::clock_nanosleep(
            libc::CLOCK_MONOTONIC,
            libc::TIMER_ABSTIME,
            &until,
            std::ptr::null_mut(),
        )
    } == libc::EINTR
    {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleeps_to_the_instant() {
        let until = now_us() + 5000;
        sleep_until(until);
        assert!(now_us() >= until);
        sleep_until(0);
    }

    #[test]
    fn a_refusal_is_reported_and_not_fatal() {
        std::thread::spawn(|| {
            let granted = become_realtime(20);
            assert_eq!(granted.realtime, granted.refused_errno == 0);
        })
        .join()
        .unwrap();
    }
}
