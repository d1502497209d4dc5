//! `rt-audio` allocates and frees nothing, whatever its legs go through: a counting allocator watches the thread,
//! in Rust and in the libraries in C.

#![allow(
    unsafe_code,
    missing_docs,
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    clippy::disallowed_types
)]

use attendant_media::srtp::{Keys, MasterKey, Suite};
use attendant_media::stream::{Rtcp, Stream};
use attendant_media::{Codec, tone};
use attendant_rt::{Leg, LegConfig, Rt, RtConfig, TxFrame};
use std::ffi::c_void;
use std::net::UdpSocket;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

/// Thread whose calls count; 0: none.
static WATCHED: AtomicI64 = AtomicI64::new(0);
static CALLS: AtomicU64 = AtomicU64::new(0);

fn count() {
    let watched = WATCHED.load(SeqCst);
    // SAFETY: gettid has no conditions.
    if watched != 0 && watched == i64::from(unsafe { libc::gettid() }) {
        CALLS.fetch_add(1, SeqCst);
    }
}

// The C library's allocator under its other names. What is defined here in its stead serves the whole process:
// Rust's own allocations and those of the libraries in C (libopus).
unsafe extern "C" {
    fn __libc_malloc(size: usize) -> *mut c_void;
    fn __libc_calloc(count: usize, size: usize) -> *mut c_void;
    fn __libc_realloc(place: *mut c_void, size: usize) -> *mut c_void;
    fn __libc_free(place: *mut c_void);
}

#[unsafe(no_mangle)]
unsafe extern "C" fn malloc(size: usize) -> *mut c_void {
    count();
    // SAFETY: the caller's promises are this function's conditions.
    unsafe { __libc_malloc(size) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn calloc(number: usize, size: usize) -> *mut c_void {
    count();
    // SAFETY: as above.
    unsafe { __libc_calloc(number, size) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn realloc(place: *mut c_void, size: usize) -> *mut c_void {
    count();
    // SAFETY: as above.
    unsafe { __libc_realloc(place, size) }
}

#[unsafe(no_mangle)]
unsafe extern "C" fn free(place: *mut c_void) {
    count();
    // SAFETY: as above.
    unsafe { __libc_free(place) }
}

fn thread_named(name: &str) -> Option<i64> {
    for task in std::fs::read_dir("/proc/self/task").ok()?.flatten() {
        if std::fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim() == name) {
            return task.file_name().to_str()?.parse().ok();
        }
    }
    None
}

/// Two legs that call each other, and a socket of a stranger's that sends to the first.
fn legs(rt: &Rt, round: &Round) -> (Leg, Leg, UdpSocket) {
    let a = UdpSocket::bind("127.0.0.1:0").unwrap();
    let b = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (addr_a, addr_b) = (a.local_addr().unwrap(), b.local_addr().unwrap());
    let stray = UdpSocket::bind("127.0.0.1:0").unwrap();
    stray.connect(addr_a).unwrap();
    let (key_a, key_b) = (MasterKey::new([1; 30]), MasterKey::new([2; 30]));
    let config = |socket, remote, ssrc, local, theirs| LegConfig {
        socket,
        rtcp_socket: None,
        stream: Stream {
            event_pt: round.event_pt,
            ptime_ms: round.ptime_ms,
            rtcp: Rtcp::Mux,
            srtp: round.sealed.then_some(Keys {
                suite: Suite::Tag80,
                local,
                remote: theirs,
            }),
            ..Stream::plain(remote, round.codec)
        },
        symmetric: true,
        ssrc,
    };
    (
        rt.add_leg(config(a, addr_b, 1, key_a, key_b)).unwrap(),
        rt.add_leg(config(b, addr_a, 2, key_b, key_a)).unwrap(),
        stray,
    )
}

struct Round {
    codec: Codec,
    event_pt: Option<u8>,
    ptime_ms: u16,
    sealed: bool,
}

const ROUNDS: [Round; 5] = [
    Round {
        codec: Codec::Pcmu,
        event_pt: Some(101),
        ptime_ms: 20,
        sealed: false,
    },
    Round {
        codec: Codec::Pcmu,
        event_pt: None,
        ptime_ms: 10,
        sealed: false,
    },
    Round {
        codec: Codec::G722,
        event_pt: Some(96),
        ptime_ms: 30,
        sealed: true,
    },
    Round {
        codec: Codec::Opus,
        event_pt: Some(97),
        ptime_ms: 20,
        sealed: true,
    },
    Round {
        codec: Codec::Opus,
        event_pt: Some(97),
        ptime_ms: 60,
        sealed: false,
    },
];

/// The C library's own allocations go through ours: otherwise libopus would not be watched.
fn check_the_watch() {
    // SAFETY: gettid has no conditions.
    WATCHED.store(i64::from(unsafe { libc::gettid() }), SeqCst);
    // SAFETY: a string literal ends in a zero; free takes what strdup gave.
    unsafe { libc::free(libc::strdup(c"watched".as_ptr()).cast()) };
    WATCHED.store(0, SeqCst);
    assert_eq!(CALLS.swap(0, SeqCst), 2, "malloc in strdup, and free");
}

#[test]
fn the_tick_allocates_nothing() {
    check_the_watch();
    let rt = Rt::spawn(RtConfig {
        max_legs: 8,
        priority: 20,
    })
    .unwrap();
    let started = Instant::now();
    let thread = loop {
        if let Some(thread) = thread_named("rt-audio") {
            break thread;
        }
        assert!(
            started.elapsed() < Duration::from_secs(5),
            "rt-audio never started"
        );
        std::thread::yield_now();
    };
    while rt.stats().ticks < 2 {
        std::thread::yield_now();
    }
    WATCHED.store(thread, SeqCst);

    let sound = tone::sine(300.0, -12.0, 2000);
    let mut digits = String::new();
    for round in &ROUNDS {
        let (mut a, mut b, stray) = legs(&rt, round);
        for (n, frame) in attendant_media::frame::frames(&sound).enumerate() {
            a.tx.push(TxFrame {
                frame,
                epoch: 0,
                mark: 1,
                last: n == 99,
            })
            .unwrap();
        }
        a.control.send_digit('4').unwrap();
        // Long enough for the first reports, 2.5 s after the start.
        let end = Instant::now() + Duration::from_millis(2800);
        let mut tick = 0;
        while Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
            tick += 1;
            while let Ok(frame) = b.rx.pop() {
                digits.extend(frame.digit);
            }
            // What legs meet in life: noise, flush, duck, hold, a new codec.
            // (Once the peer's own packets have come: before, whoever is first is answered.)
            if tick > 5 {
                stray.send(&[0x80; 50]).unwrap();
            }
            match tick {
                15 => a.control.set_gain(300),
                20 => a.control.hold(true),
                24 => a.control.hold(false),
                30 => a.control.flush(1),
                // What b sends goes nowhere from here on, in another codec.
                35 => {
                    let nowhere = "127.0.0.1:9".parse().unwrap();
                    let other = if round.codec == Codec::Opus {
                        Codec::Pcma
                    } else {
                        Codec::Opus
                    };
                    let stream = Stream {
                        event_pt: round.event_pt,
                        ..Stream::plain(nowhere, other)
                    };
                    b.control.set_remote(stream).unwrap();
                }
                _ => {}
            }
        }
        let stats = b.control.stats();
        assert!(
            stats.rx_packets > 10 && a.control.stats().tx_packets > 30,
            "{stats:?}"
        );
        assert_eq!(
            stats.rx_lost,
            0,
            "{:?}: {stats:?} {:?}",
            round.codec,
            a.control.stats()
        );
        assert!(a.control.stats().tx_reports > 0, "{:?}", a.control.stats());
        drop((a, b));
    }
    let ended = Instant::now();
    while rt.stats().legs > 0 {
        assert!(ended.elapsed() < Duration::from_secs(5), "legs were never freed");
        std::thread::sleep(Duration::from_millis(5));
    }
    WATCHED.store(0, SeqCst);
    assert_eq!(CALLS.load(SeqCst), 0, "rt-audio allocated or freed");
    assert_eq!(digits, "44444");
    let stats = rt.stats();
    assert!(stats.running && stats.ticks > 100, "{stats:?}");
    println!("{stats:?}");
}
