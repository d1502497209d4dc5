//! Ten thousand calls by sipp, fifty a second, to the whole daemon: engines loaded, every call answered, greeted, recorded
//! and cleared; nothing said. Part of `make peer-test` (four minutes), not of `make test`.

#[path = "../peer/daemon.rs"]
mod daemon;

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use attendant_tests::network::{away, in_own_network};

use crate::daemon::Daemon;

const CALLS: u32 = 10_000;
const PER_SECOND: u32 = 50;
/// What the caller waits before hanging up \[ms\].
const HOLD_MS: u32 = 200;

#[test]
#[ignore = "four minutes: part of make peer-test"]
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
        // The first thousand fills pools and caches.
        run(CALLS / 10)?;
        daemon.wait_idle(Duration::from_secs(60))?;
        let (files, rest) = (daemon.open_files()?, daemon.memory_kib()?);
        let over = AtomicBool::new(false);
        let ((line, wrong), samples) = thread::scope(|scope| -> Result<_> {
            let sampler = scope.spawn(|| {
                let mut samples = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    samples.extend(daemon.memory_kib());
                    thread::sleep(Duration::from_millis(500));
                }
                samples
            });
            let line = run(CALLS);
            over.store(true, Ordering::Relaxed);
            Ok((line?, sampler.join().expect("the sampler")))
        })?;
        daemon.wait_idle(Duration::from_secs(60))?;
        let after = daemon.memory_kib()?;
        // The first tenth under load against the last one.
        let tenth = (samples.len() / 10).max(1);
        let mean = |part: &[u64]| part.iter().sum::<u64>() / part.len().max(1) as u64;
        let (first, last) = (mean(&samples[..tenth]), mean(&samples[samples.len() - tenth..]));
        let ports = rtp_ports(daemon.pid())?;
        println!(
            "{line} cps={PER_SECOND} rss_kib_before={rest} rss_kib_first_tenth={first} rss_kib_last_tenth={last} rss_kib_after={after} files_before={files} files_after={} rtp_ports_open={ports}",
            daemon.open_files()?
        );
        ensure!(wrong.is_none(), "calls failed: {}", wrong.unwrap_or_default());
        ensure!(
            last * 100 <= first * 105,
            "memory rose from {first} to {last} KiB"
        );
        ensure!(ports == 0, "{ports} RTP ports are still open");
        ensure!(daemon.open_files()? <= files + 4, "files or sockets leaked");
        Ok(())
    })
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
