//! Many legs on the realtime thread for a while: its share of a core, and how late packets leave.
//!
//! ```text
//! cargo run --release -p attendant-rt --example idle_legs [legs, default 100] [seconds, default 300] [codec, default pcma] [srtp]
//! ```
//!
//! Two of the legs send to sockets of ours that stamp what arrives (the first and the last to be served in a tick); the
//! others call each other in pairs. "Late" is against a grid of 20 ms laid through the earliest packet. Beside them a thread of
//! a higher priority only sleeps until each 20 ms are over: how late it wakes up, and what the host took, is the machine's
//! share. Exit code 1 when the bounds are missed: half a core, and 5 ms at 99.9 %.

#![allow(
    unsafe_code,
    clippy::disallowed_methods,
    clippy::disallowed_macros,
    clippy::disallowed_types
)]

use attendant_media::Codec;
use attendant_media::rtcp;
use attendant_media::srtp::{Keys, MasterKey, Suite};
use attendant_media::stream::{Rtcp, Stream};
use attendant_rt::{Leg, LegConfig, Rt, RtConfig};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Bounds of issue 4's "Must show".
const MAX_CORE_SHARE: f64 = 0.5;
const MAX_LATE: Duration = Duration::from_millis(5);
/// Asks for the kernel's time of the last packet read (`asm-generic/sockios.h`; not in the libc crate).
const SIOCGSTAMPNS: u16 = 0x8907;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |n: usize, otherwise| args.get(n).and_then(|arg| arg.parse().ok()).unwrap_or(otherwise);
    let (legs, seconds) = (number(0, 100usize).max(4) / 2 * 2, number(1, 300) as u64);
    let codec = args
        .get(2)
        .and_then(|name| Codec::from_name(name))
        .unwrap_or(Codec::Pcma);
    let sealed = args.iter().any(|arg| arg == "srtp");
    let rt = Rt::spawn(RtConfig {
        max_legs: legs,
        priority: 20,
    })
    .expect("a thread");
    let probes: Vec<UdpSocket> = (0..2).map(|_| socket()).collect();
    let mut up: Vec<Leg> = Vec::new();
    up.push(leg(&rt, socket(), address(&probes[0]), codec, sealed, 0));
    for pair in 1..legs as u32 / 2 {
        let (a, b) = (socket(), socket());
        let (to_a, to_b) = (address(&a), address(&b));
        up.push(leg(&rt, a, to_b, codec, sealed, 2 * pair));
        up.push(leg(&rt, b, to_a, codec, sealed, 2 * pair + 1));
    }
    up.push(leg(&rt, socket(), address(&probes[1]), codec, sealed, 1));
    std::thread::sleep(Duration::from_secs(1));
    let thread = thread_named("rt-audio").expect("rt-audio runs");
    let (cpu_before, stolen_before, started) = (cpu(&thread), stolen(), Instant::now());
    let end = started + Duration::from_secs(seconds);
    let stamps: Vec<_> = probes
        .into_iter()
        .map(|probe| std::thread::spawn(move || arrivals(&probe, end)))
        .collect();
    let sleeper = std::thread::spawn(move || sleeper(end));
    while Instant::now() < end {
        std::thread::sleep(Duration::from_millis(20));
        for leg in &mut up {
            while leg.rx.pop().is_ok() {}
        }
    }
    let share = (cpu(&thread) - cpu_before).as_secs_f64() / started.elapsed().as_secs_f64();
    let stats = rt.stats();
    println!(
        "{legs} legs, {}{}, {seconds} s",
        codec.name(),
        if sealed { ", SRTP" } else { "" }
    );
    println!(
        "rt-audio: {:.1} % of a core; longest tick {} µs",
        share * 100.0,
        stats.max_busy_us
    );
    println!(
        "ticks: {}, skipped {}, {:?}, latest {} µs",
        stats.ticks, stats.skipped_ticks, stats.late_ticks, stats.max_late_us
    );
    println!(
        "SCHED_FIFO: {}{}",
        stats.realtime,
        stats
            .realtime_refused_errno
            .map_or(String::new(), |errno| format!(" (errno {errno})"))
    );
    let mut worst = Duration::ZERO;
    for (stamps, place) in stamps.into_iter().zip(["first", "last"]) {
        let stamps = stamps.join().expect("the probe ran");
        worst = worst.max(tell(&format!("{place} leg"), &lateness(&stamps)));
    }
    let (stolen, of) = (stolen().0 - stolen_before.0, stolen().1 - stolen_before.1);
    tell("a thread that only sleeps", &sleeper.join().expect("it slept"));
    println!(
        "the host took {:.1} % of the machine",
        100.0 * stolen as f64 / of.max(1) as f64
    );
    let lost: u64 = up.iter().map(|leg| leg.control.stats().rx_lost).sum();
    println!("packets lost between legs: {lost}");
    if share < MAX_CORE_SHARE && worst <= MAX_LATE {
        ExitCode::SUCCESS
    } else {
        println!(
            "missed: wanted less than {} % and p99.9 within {MAX_LATE:?}",
            MAX_CORE_SHARE * 100.0
        );
        ExitCode::FAILURE
    }
}

fn socket() -> UdpSocket {
    UdpSocket::bind("127.0.0.1:0").expect("a port")
}

fn address(socket: &UdpSocket) -> SocketAddr {
    socket.local_addr().expect("bound")
}

fn leg(rt: &Rt, socket: UdpSocket, remote: SocketAddr, codec: Codec, sealed: bool, number: u32) -> Leg {
    // Two that call each other have each other's keys.
    let key = |of: u32| MasterKey::new([of as u8; 30]);
    let stream = Stream {
        rtcp: Rtcp::Mux,
        srtp: sealed.then_some(Keys {
            suite: Suite::Tag80,
            local: key(number),
            remote: key(number ^ 1),
        }),
        ..Stream::plain(remote, codec)
    };
    rt.add_leg(LegConfig {
        socket,
        rtcp_socket: None,
        stream,
        symmetric: true,
        ssrc: 1000 + number,
    })
    .expect("a place")
}

/// When RTP arrived, until `end`, by the kernel: when the probe itself got a core does not matter.
fn arrivals(probe: &UdpSocket, end: Instant) -> Vec<Duration> {
    // From the first question on packets are stamped.
    stamp(probe);
    probe
        .set_read_timeout(Some(Duration::from_millis(100)))
        .expect("a timeout");
    let (mut stamps, mut wire) = (Vec::new(), [0; 1500]);
    while Instant::now() < end {
        if let Ok(octets) = probe.recv(&mut wire)
            && !rtcp::is_rtcp(&wire[..octets])
        {
            stamps.push(stamp(probe));
        }
    }
    // What had piled up before we looked.
    stamps.split_off(stamps.len().min(60))
}

/// Prints what is in order of size; the 99.9th percentile.
fn tell(of: &str, late: &[Duration]) -> Duration {
    let at = |share: f64| late[((late.len() - 1) as f64 * share) as usize];
    let [p50, p99, p999, max] = [0.5, 0.99, 0.999, 1.0].map(|share| at(share).as_secs_f64() * 1000.0);
    println!(
        "{of}: {} times, late p50 {p50:.2}, p99 {p99:.2}, p99.9 {p999:.2}, max {max:.2} ms",
        late.len()
    );
    at(0.999)
}

/// Wakes up every 20 ms until `end`, ahead of everything else if the system allows it: how late, in order of size.
fn sleeper(end: Instant) -> Vec<Duration> {
    let parameters = libc::sched_param { sched_priority: 30 };
    // SAFETY: the parameters live for the call. Refused, it sleeps like anybody.
    unsafe { libc::pthread_setschedparam(libc::pthread_self(), libc::SCHED_FIFO, &parameters) };
    let started = Instant::now();
    let mut late = Vec::new();
    for tick in 1.. {
        let due = started + tick * Duration::from_millis(20);
        if due >= end {
            break;
        }
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        late.push(due.elapsed());
    }
    late.sort_unstable();
    late
}

/// What the host gave to others while this machine wanted it, and all time, both since it started \[1/100 s\].
fn stolen() -> (u64, u64) {
    let text = std::fs::read_to_string("/proc/stat").expect("/proc/stat");
    let line = text.lines().next().unwrap_or_default();
    let times: Vec<u64> = line
        .split_whitespace()
        .filter_map(|time| time.parse().ok())
        .collect();
    (times.get(7).copied().unwrap_or(0), times.iter().sum())
}

/// The kernel's time of the last packet read; zero before there is one. Source: socket(7), `SIOCGSTAMPNS`.
fn stamp(socket: &UdpSocket) -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the kernel writes one timespec into `time`, which lives for the call.
    unsafe { libc::ioctl(socket.as_raw_fd(), SIOCGSTAMPNS.into(), &raw mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// How late each is against the grid, in order of size.
fn lateness(stamps: &[Duration]) -> Vec<Duration> {
    let first = stamps[0];
    let offset = |n: usize, stamp: &Duration| {
        stamp.as_nanos() as i128 - first.as_nanos() as i128 - n as i128 * 20_000_000
    };
    let earliest = stamps
        .iter()
        .enumerate()
        .map(|(n, stamp)| offset(n, stamp))
        .min()
        .unwrap_or(0);
    let late = |(n, stamp)| Duration::from_nanos((offset(n, stamp) - earliest) as u64);
    let mut late: Vec<Duration> = stamps.iter().enumerate().map(late).collect();
    late.sort_unstable();
    late
}

/// Processor time of a thread.
fn cpu(thread: &str) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/self/task/{thread}/schedstat")).expect("schedstat");
    Duration::from_nanos(
        text.split_whitespace()
            .next()
            .and_then(|ns| ns.parse().ok())
            .unwrap_or(0),
    )
}

fn thread_named(name: &str) -> Option<String> {
    let tasks = std::fs::read_dir("/proc/self/task").ok()?.flatten();
    let mut named = tasks.filter(|task| {
        std::fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim() == name)
    });
    named.next()?.file_name().into_string().ok()
}
