//! Stamp: the kernel's own time of a packet's arrival, and a sleep that ends on time.
//!
//! `SO_TIMESTAMPNS` stamps a datagram when it enters the socket's queue, so that figures do not depend on when the
//! measuring thread gets a core. Source: socket(7), cmsg(3), clock_nanosleep(2).
#![allow(unsafe_code)]

use std::{io, mem, net::UdpSocket, os::fd::AsRawFd, ptr};

use super::measure::WireNs;

/// Room for the control messages of one datagram [bytes]; aligned like a `cmsghdr` by its element type.
const CONTROL_WORDS: usize = 16;
/// Priority asked for the caller's audio thread: under the daemon's own audio thread (20), which it must not disturb.
const PRIORITY: i32 = 10;

/// Asks the kernel to stamp what arrives on `socket`, and makes reading it never wait.
///
/// # Errors
/// The system's own.
pub fn enable(socket: &UdpSocket) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    let on: libc::c_int = 1;
    // SAFETY: `on` lives through the call and its size is given.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_TIMESTAMPNS,
            ptr::from_ref(&on).cast(),
            mem::size_of_val(&on) as libc::socklen_t,
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Takes one datagram, with the time it arrived; `None` when none is waiting. A longer one than `buffer` is cut.
///
/// # Errors
/// The system's own, `WouldBlock` excepted.
pub fn try_recv(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Option<(usize, WireNs)>> {
    let mut control = [0u64; CONTROL_WORDS];
    let mut piece = libc::iovec {
        iov_base: buffer.as_mut_ptr().cast(),
        iov_len: buffer.len(),
    };
    // SAFETY: an all-zero msghdr is valid: null pointers with zero lengths.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut piece;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = mem::size_of_val(&control);
    // SAFETY: `message` points at `piece` (over `buffer`) and `control`, which outlive the call.
    let got = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, libc::MSG_DONTWAIT) };
    if got < 0 {
        let error = io::Error::last_os_error();
        return if error.kind() == io::ErrorKind::WouldBlock {
            Ok(None)
        } else {
            Err(error)
        };
    }
    Ok(Some((got as usize, stamp_of(&message).unwrap_or_else(realtime))))
}

fn stamp_of(message: &libc::msghdr) -> Option<WireNs> {
    // SAFETY: the kernel filled `message` and its control buffer; CMSG_* walk it within `msg_controllen`.
    unsafe {
        let mut header = libc::CMSG_FIRSTHDR(message);
        while !header.is_null() {
            if (*header).cmsg_level == libc::SOL_SOCKET && (*header).cmsg_type == libc::SCM_TIMESTAMPNS {
                let time: libc::timespec = ptr::read_unaligned(libc::CMSG_DATA(header).cast());
                return Some(nanoseconds(time));
            }
            header = libc::CMSG_NXTHDR(message, header);
        }
    }
    None
}

/// The clock of the stamps [ns since the Unix epoch].
#[must_use]
pub fn realtime() -> WireNs {
    clock(libc::CLOCK_REALTIME)
}

/// A clock that never jumps [ns]; for [`sleep_until`].
#[must_use]
pub fn monotonic() -> u64 {
    clock(libc::CLOCK_MONOTONIC)
}

/// Sleeps until this time of [`monotonic`]; returns at once when it has passed.
pub fn sleep_until(at: u64) {
    let time = libc::timespec {
        tv_sec: (at / 1_000_000_000) as _,
        tv_nsec: (at % 1_000_000_000) as _,
    };
    loop {
        // SAFETY: `time` lives through the call; no remaining time is asked for.
        let done = unsafe {
            libc::clock_nanosleep(
                libc::CLOCK_MONOTONIC,
                libc::TIMER_ABSTIME,
                &raw const time,
                ptr::null_mut(),
            )
        };
        if done != libc::EINTR {
            return;
        }
    }
}

/// Asks for realtime scheduling of this thread, so that a busy machine does not make the caller stutter. Whether it
/// was granted.
pub fn ask_realtime() -> bool {
    // SAFETY: an all-zero sched_param is valid, and lives through the call; pid 0 is this thread.
    unsafe {
        let mut param: libc::sched_param = mem::zeroed();
        param.sched_priority = PRIORITY;
        libc::sched_setscheduler(0, libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK, &raw const param) == 0
    }
}

fn clock(id: libc::clockid_t) -> u64 {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `time` lives through the call; both clocks always exist on Linux.
    unsafe { libc::clock_gettime(id, &raw mut time) };
    nanoseconds(time)
}

fn nanoseconds(time: libc::timespec) -> u64 {
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_carries_the_time_it_came_not_the_time_it_was_read() {
        let (to, from) = (
            UdpSocket::bind("127.0.0.1:0").unwrap(),
            UdpSocket::bind("127.0.0.1:0").unwrap(),
        );
        enable(&to).unwrap();
        let mut buffer = [0; 64];
        assert!(try_recv(&to, &mut buffer).unwrap().is_none());
        let before = realtime();
        from.send_to(b"hello", to.local_addr().unwrap()).unwrap();
        let after = realtime();
        sleep_until(monotonic() + 20_000_000);
        let (len, at) = try_recv(&to, &mut buffer).unwrap().unwrap();
        assert_eq!(&buffer[..len], b"hello");
        // The kernel's stamp may use a coarser read of the same clock.
        assert!(
            at + 5_000_000 >= before && at <= after + 5_000_000,
            "{before} {at} {after}"
        );
    }
}
