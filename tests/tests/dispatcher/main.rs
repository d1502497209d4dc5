//! Two appliances behind one Kamailio (`dispatcher`): calls are spread, a full one is passed over, and a killed one gets no
//! more calls within one probe interval. Both are whole daemons with models.
//!
//! ```text
//! sipp, away 192.0.2.2 --> Kamailio, away 192.0.2.2:5060 --> home 192.0.2.1 and 192.0.2.3: two daemons
//! ```

#[path = "../peer/daemon.rs"]
mod daemon;

use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use attendant_store::Store;
use attendant_tests::network::{away, in_own_network};

use crate::daemon::Daemon;

/// What a probe may miss [s].
const PROBE_S: u32 = 2;
/// After this silence Kamailio gives a probe or an INVITE up [s].
const SILENCE_S: u32 = 1;
const TRUNK: &str = "[[sip.peer]]\nname = \"away\"\naddress = \"192.0.2.2\"";

struct Kamailio(Child);

impl Kamailio {
    fn start(appliances: &[&str]) -> Result<Kamailio> {
        let child = away("kamailio/dispatcher.sh")
            .args(["192.0.2.2", "5060", &PROBE_S.to_string()])
            .args(appliances)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        // Both have answered a probe by then.
        thread::sleep(Duration::from_secs(u64::from(2 * PROBE_S)));
        Ok(Kamailio(child))
    }
}

impl Drop for Kamailio {
    fn drop(&mut self) {
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}

/// sipp's own line, e.g. `calls=100 failed=0 setup_ms=12`, as its numbers; refused calls are no error here.
fn sipp(calls: u32, per_second: u32, hold_ms: u32) -> Result<(u32, u32)> {
    let output = away("sipp/sipp.sh")
        .arg("192.0.2.2:5060")
        .args([calls, per_second, hold_ms].map(|n| n.to_string()))
        .stderr(Stdio::null())
        .output()?;
    let line = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    println!("{line}");
    let number = |name: &str| -> Result<u32> {
        let word = line.split(' ').find_map(|word| word.strip_prefix(name));
        word.and_then(|n| n.parse().ok())
            .with_context(|| format!("no {name} in '{line}'"))
    };
    Ok((number("calls=")?, number("failed=")?))
}

fn sessions(daemon: &Daemon) -> Result<u32> {
    let store = Store::open_read_only(daemon.data_dir())?;
    Ok(u32::try_from(store.list_sessions(100_000, None)?.len())?)
}

/// A daemon on this address that takes so many calls at once.
fn appliance(address: &str, calls: usize) -> Result<Daemon> {
    Daemon::start_with_calls(&format!("{address}:5060"), calls, TRUNK)
}

fn two(calls: usize) -> Result<(Daemon, Daemon)> {
    let added = Command::new("ip")
        .args(["address", "add", "192.0.2.3/24", "dev", "home0"])
        .status()?;
    ensure!(added.success(), "no second address");
    Ok((appliance("192.0.2.1", calls)?, appliance("192.0.2.3", calls)?))
}

#[test]
#[ignore = "two daemons: part of make peer-test"]
fn a_full_appliance_is_passed_over() -> Result<()> {
    in_own_network("a_full_appliance_is_passed_over", || {
        let (a, b) = two(2)?;
        // Kamailio believes that each takes 64: what they say themselves decides.
        let _kamailio = Kamailio::start(&["192.0.2.1:5060/64", "192.0.2.3:5060/64"])?;
        let (calls, failed) = sipp(4, 4, 6_000)?;
        ensure!((calls, failed) == (4, 0), "two and two calls find room");
        ensure!((sessions(&a)?, sessions(&b)?) == (2, 2), "each has taken its two");
        for daemon in [&a, &b] {
            daemon.wait_idle(Duration::from_secs(20))?;
        }
        // Full ones answer no probe with 200, so they get active again only at a later one.
        thread::sleep(Duration::from_secs(u64::from(2 * PROBE_S)));
        let (calls, failed) = sipp(6, 6, 6_000)?;
        ensure!(
            (calls, failed) == (6, 2),
            "of six calls at once two hear that all are busy"
        );
        Ok(())
    })
}

#[test]
#[ignore = "two daemons: part of make peer-test"]
fn a_killed_appliance_gets_no_more_calls() -> Result<()> {
    in_own_network("a_killed_appliance_gets_no_more_calls", || {
        let (mut a, b) = two(16)?;
        let _kamailio = Kamailio::start(&["192.0.2.1:5060/16", "192.0.2.3:5060/16"])?;
        let (before, after) = (20, 15);
        let load = thread::spawn(move || sipp(5 * (before + after), 5, 1_000));
        thread::sleep(Duration::from_secs(u64::from(before)));
        let spread = (sessions(&a)?, sessions(&b)?);
        a.kill()?;
        let killed = Instant::now();
        let last = sessions(&a)?;
        let b_at_kill = sessions(&b)?;
        let (calls, failed) = load.join().expect("sipp")?;
        b.wait_idle(Duration::from_secs(30))?;
        let (taken_a, taken_b) = (sessions(&a)?, sessions(&b)?);
        println!(
            "calls={calls} failed={failed} before the kill {spread:?}, in all {taken_a} and {taken_b}; {:.0} s after it",
            killed.elapsed().as_secs_f64()
        );
        // Spread evenly: both take the same number.
        ensure!(spread.0.abs_diff(spread.1) <= 6, "not spread: {spread:?}");
        ensure!(taken_a == last, "the dead one took calls");
        // Whoever talked to it, one second's calls and what came in at that moment, is cut off. New calls find the other one
        // after Kamailio's one second of patience at most: they do not fail.
        let lost = 5 * (1 + SILENCE_S) + 2;
        ensure!(
            failed <= lost,
            "{failed} calls failed, {lost} at most were in progress"
        );
        // Each call is in exactly one record; what was answered for twice or by nobody would show here.
        ensure!(
            taken_a + taken_b >= calls - failed && taken_a + taken_b <= calls,
            "{calls} calls, {failed} failed, but {taken_a} + {taken_b} in the records"
        );
        ensure!(
            taken_b - b_at_kill >= 5 * (after - PROBE_S - SILENCE_S) - failed,
            "new calls did not go to the other one"
        );
        Ok(())
    })
}
