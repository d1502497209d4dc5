//! Ten thousand calls by sipp, fifty a second, to the whole daemon: engines loaded, every call answered, greeted, recorded
//! and cleared; nothing said. Part of `make peer-test` (six minutes), not of `make test`.
//!
//! ```text
//! 2,000 calls | at rest: before | ramp, 2,000 calls | first tenth … 10,000 calls … last tenth | at rest: after
//! ```
//! Under load a tenth is compared with a tenth, both with as many transactions as SIP has to keep. At rest these are over, and
//! what is in use beyond that tells what a call leaves behind; both without the database's cache, which fills up to a bound of
//! its own as the database grows.

#[path = "../peer/daemon.rs"]
mod daemon;

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use attendant_tests::network::{away, in_own_network};

use crate::daemon::Daemon;

const CALLS: u32 = 10_000;
const PER_SECOND: u32 = 50;
/// What the caller waits before hanging up \[ms\].
const HOLD_MS: u32 = 200;
/// Fill pools and caches.
const WARM_UP: u32 = 2_000;
/// Finished transactions are kept for 32 s (RFC 3261 §17: 64·T1); only then are there as many as there will be \[s\].
const RAMP_S: u32 = 40;
/// Threads that had a disk to wait for end when idle for 10 s, and with them what they keep of the heap.
const THREADS_END: Duration = Duration::from_secs(12);

/// Two connections of at most 2 MB each, statements and what SQLite needs beside.
const DATABASE_KIB: u64 = 6 << 10;

#[test]
#[ignore = "six minutes: part of make peer-test"]
fn ten_thousand_calls_leave_nothing_behind() -> Result<()> {
    in_own_network("ten_thousand_calls_leave_nothing_behind", || {
        let daemon = Daemon::start("[[sip.peer]]\nname = \"away\"\naddress = \"192.0.2.2\"")?;
        // sipp's own line, and what went wrong, if anything.
        let run = |calls: u32| -> Result<(String, Option<String>)> {
            let [calls, rate, hold] = [calls, PER_SECOND, HOLD_MS].map(|n| n.to_string());
            let output = away("sipp/sipp.sh")
                .args(["192.0.2.1:5060", &calls, &rate, &hold, "udp"])
                .output()?;
            let line = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            let wrong =
                (!output.status.success()).then(|| String::from_utf8_lossy(&output.stderr).into_owned());
            Ok((line, wrong))
        };
        let (_, wrong) = run(WARM_UP)?;
        ensure!(wrong.is_none(), "calls failed: {}", wrong.unwrap_or_default());
        let before = at_rest(&daemon)?;
        let over = AtomicBool::new(false);
        let started = Instant::now();
        let ((line, wrong), samples) = thread::scope(|scope| -> Result<_> {
            let sampler = scope.spawn(|| {
                let mut samples = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    let sample = daemon.memory_kib();
                    samples.extend(sample.map(|kib| (started.elapsed().as_secs(), kib)));
                    thread::sleep(Duration::from_millis(500));
                }
                samples
            });
            let line = run(RAMP_S * PER_SECOND + CALLS);
            over.store(true, Ordering::Relaxed);
            Ok((line?, sampler.join().expect("the sampler")))
        })?;
        let after = at_rest(&daemon)?;
        let loaded_s = u64::from(CALLS / PER_SECOND);
        let mean = |from_s: u64| {
            let until_s = from_s + loaded_s / 10;
            let part = samples
                .iter()
                .filter(|(s, _)| (from_s..until_s).contains(s))
                .map(|(_, kib)| kib);
            part.clone().sum::<u64>() / part.count().max(1) as u64
        };
        let ramp_s = u64::from(RAMP_S);
        let (first, last) = (mean(ramp_s), mean(ramp_s + loaded_s - loaded_s / 10));
        println!(
            "{line} cps={PER_SECOND} loaded: rss_kib_first_tenth={first} rss_kib_last_tenth={last}\nat rest: before {before:?}\n          after {after:?}"
        );
        ensure!(wrong.is_none(), "calls failed: {}", wrong.unwrap_or_default());
        flat("resident memory under load", first, last)?;
        let resident = |rest: &Rest| rest.resident_kib - rest.database_kib;
        flat("resident memory at rest", resident(&before), resident(&after))?;
        flat("the heap in use at rest", before.heap_kib, after.heap_kib)?;
        ensure!(
            after.database_kib <= DATABASE_KIB,
            "the database's cache holds {} KiB",
            after.database_kib
        );
        ensure!(
            after.rtp_ports == 0,
            "{} RTP ports are still open",
            after.rtp_ports
        );
        ensure!(after.files <= before.files + 4, "files or sockets leaked");
        Ok(())
    })
}

/// The daemon without a call.
#[derive(Debug)]
struct Rest {
    resident_kib: u64,
    /// As the allocator counts it, without the database's cache: what rises here is kept, not scattered.
    heap_kib: u64,
    database_kib: u64,
    files: usize,
    rtp_ports: usize,
}

/// Waits until no call, no dialog and no transaction is left.
fn at_rest(daemon: &Daemon) -> Result<Rest> {
    daemon.wait_idle(Duration::from_secs(60))?;
    daemon.wait_forgotten(Duration::from_secs(90))?;
    thread::sleep(THREADS_END);
    let (heap_kib, database_kib) = daemon.heap_kib()?;
    Ok(Rest {
        resident_kib: daemon.memory_kib()?,
        heap_kib: heap_kib.saturating_sub(database_kib),
        database_kib,
        files: daemon.open_files()?,
        rtp_ports: rtp_ports(daemon.pid())?,
    })
}

/// Refuses a rise of more than 5 %.
fn flat(what: &str, before: u64, after: u64) -> Result<()> {
    ensure!(before > 0 && after > 0, "{what} was not measured");
    ensure!(
        after * 100 <= before * 105,
        "{what} rose from {before} to {after} KiB"
    );
    Ok(())
}

/// UDP sockets within the configured range of RTP ports, of anybody in this network.
fn rtp_ports(pid: u32) -> Result<usize> {
    let table = fs::read_to_string(format!("/proc/{pid}/net/udp"))?;
    let mut open = 0;
    for line in table.lines().skip(1) {
        let local = line
            .split_whitespace()
            .nth(1)
            .context("a line without an address")?;
        let (_, port) = local.split_once(':').context("no port")?;
        open += usize::from((16_384..=16_583).contains(&u16::from_str_radix(port, 16)?));
    }
    Ok(open)
}
