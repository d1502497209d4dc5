//! `rt-audio` allocates and frees nothing, whatever its legs go through: a counting allocator watches the thread.

#![allow(
    unsafe_code,
    missing_docs,
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    clippy::disallowed_types
)]

use attendant_media::{Codec, tone};
use attendant_rt::{Leg, LegConfig, Rt, RtConfig, TxFrame};
use std::alloc::{GlobalAlloc, Layout, System};
use std::net::UdpSocket;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

struct Counting;

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

// SAFETY: hands everything through to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are the system allocator's conditions.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        count();
        // SAFETY: as above.
        unsafe { System.dealloc(place, layout) }
    }
    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: as above.
        unsafe { System.realloc(place, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn thread_named(name: &str) -> Option<i64> {
    for task in std::fs::read_dir("/proc/self/task").ok()?.flatten() {
        if std::fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim() == name) {
            return task.file_name().to_str()?.parse().ok();
        }
    }
    None
}

fn legs(rt: &Rt, event_pt: Option<u8>) -> (Leg, Leg, UdpSocket) {
    let a = UdpSocket::bind("127.0.0.1:0").unwrap();
    let b = UdpSocket::bind("127.0.0.1:0").unwrap();
    let (addr_a, addr_b) = (a.local_addr().unwrap(), b.local_addr().unwrap());
    let stray = UdpSocket::bind("127.0.0.1:0").unwrap();
    stray.connect(addr_a).unwrap();
    let config = |socket, remote, ssrc| LegConfig {
        socket,
        remote,
        codec: Codec::Pcmu,
        event_pt,
        symmetric: true,
        ssrc,
    };
    (
        rt.add_leg(config(a, addr_b, 1)).unwrap(),
        rt.add_leg(config(b, addr_a, 2)).unwrap(),
        stray,
    )
}

#[test]
fn the_tick_allocates_nothing() {
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
    for round in 0..3u32 {
        let event_pt = [Some(101), None, Some(96)][round as usize];
        let (mut a, mut b, stray) = legs(&rt, event_pt);
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
        let end = Instant::now() + Duration::from_millis(900);
        let mut tick = 0;
        while Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
            tick += 1;
            while let Ok(frame) = b.rx.pop() {
                digits.extend(frame.digit);
            }
            // What legs meet in life: noise, flush, duck, hold, a new codec.
            stray.send(&[0x80; 50]).unwrap();
            match tick {
                15 => a.control.set_gain(300),
                20 => a.control.hold(true),
                24 => a.control.hold(false),
                30 => a.control.flush(1),
                35 => b
                    .control
                    .set_remote("127.0.0.1:9".parse().unwrap(), Codec::Pcma, None)
                    .unwrap(),
                _ => {}
            }
        }
        let stats = b.control.stats();
        assert!(
            stats.rx_packets > 30 && a.control.stats().tx_packets > 30,
            "{stats:?}"
        );
        assert_eq!(stats.rx_lost, 0);
        drop((a, b));
    }
    let ended = Instant::now();
    while rt.stats().legs > 0 {
        assert!(ended.elapsed() < Duration::from_secs(5), "legs were never freed");
        std::thread::sleep(Duration::from_millis(5));
    }
    WATCHED.store(0, SeqCst);
    assert_eq!(CALLS.load(SeqCst), 0, "rt-audio allocated or freed");
    assert_eq!(digits, "444");
    let stats = rt.stats();
    assert!(stats.running && stats.ticks > 100, "{stats:?}");
    println!("{stats:?}");
}
