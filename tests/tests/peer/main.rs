//! Real SIP peers against the real daemon with the real (small) models: sipp, baresip, Kamailio.
//!
//! ```text
//! home 192.0.2.1: the daemon  ----  192.0.2.2 away: the peers
//! ```
//! Each test runs itself once more within `tests/peer/net.sh`, a network of its own. The peers' packages come with
//! `make test`.

mod daemon;

use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use attendant_store::Store;
use attendant_tests::network::{away, in_own_network};

use crate::daemon::{Daemon, wait_for};

const TRUNK: &str = "[[sip.peer]]\nname = \"away\"\naddress = \"192.0.2.2\"";
/// "Which folder should I save the message to?", 8 kHz, from Debian's asterisk-core-sounds-en-wav.
const HUMAN: &str = "/usr/share/asterisk/sounds/en_US_f_Allison/vm-savefolder.wav";

/// What a peer's script said in its one line, if it is content.
fn said(command: &mut Command) -> Result<String> {
    let output = command.stderr(Stdio::inherit()).output()?;
    let line = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    println!("{line}");
    ensure!(output.status.success(), "{command:?}: {line}");
    Ok(line)
}

#[test]
fn many_short_calls() -> Result<()> {
    in_own_network("many_short_calls", || {
        let daemon = Daemon::start(TRUNK)?;
        let hundred =
            |transport| said(away("sipp/sipp.sh").args(["192.0.2.1:5060", "100", "10", "300", transport]));
        // The first hundred fills pools and caches; after that nothing may grow.
        hundred("udp")?;
        daemon.wait_idle(Duration::from_secs(20))?;
        let (memory_kib, files) = (daemon.memory_kib()?, daemon.open_files()?);
        hundred("udp")?;
        hundred("tcp")?;
        daemon.wait_idle(Duration::from_secs(20))?;
        let grown_kib = daemon.memory_kib()?.saturating_sub(memory_kib);
        println!("memory {memory_kib} KiB, grown by {grown_kib} KiB in 200 calls; {files} files open");
        ensure!(grown_kib < 4096, "memory grew by {grown_kib} KiB in 200 calls");
        // TCP connections may linger a little.
        ensure!(
            daemon.open_files()? <= files + 4,
            "sockets leaked: {files} before, {} now",
            daemon.open_files()?
        );
        Ok(())
    })
}

#[test]
fn a_softphone_converses() -> Result<()> {
    in_own_network("a_softphone_converses", || {
        let daemon = Daemon::start(TRUNK)?;
        let dir = tempfile::tempdir()?;
        said(
            away("baresip/baresip.sh")
                .args(["sip:attendant@192.0.2.1", HUMAN, "25"])
                .arg(dir.path()),
        )?;
        daemon.wait_idle(Duration::from_secs(20))?;
        let store = Store::open_read_only(daemon.data_dir())?;
        let last = store
            .list_sessions(1, None)?
            .pop()
            .context("the call left no record")?;
        let record = store.session(last.session.id)?;
        let turn = record
            .turns
            .iter()
            .find(|turn| !turn.caller_text.is_empty())
            .context("nothing was understood")?;
        println!("heard: {}\nsaid:  {}", turn.caller_text, turn.reply_text);
        let heard = turn.caller_text.to_lowercase();
        ensure!(
            heard.contains("folder") || heard.contains("message"),
            "misheard: {heard}"
        );
        ensure!(!turn.reply_text.is_empty(), "no reply");
        Ok(())
    })
}

#[test]
fn registers_and_comes_back_after_the_pbx_restarted() -> Result<()> {
    in_own_network("registers_and_comes_back_after_the_pbx_restarted", || {
        let account = "[[sip.account]]\nname = \"pbx\"\nregistrar = \"192.0.2.2\"\nusername = \"200\"\npassword = \"correct\"\nexpires_s = 30";
        let pbx = Kamailio::start("")?;
        let daemon = Daemon::start(account)?;
        wait_for("a call through the PBX", Duration::from_secs(20), || {
            Ok(call_through_pbx())
        })?;
        drop(pbx);
        // It has forgotten us, and asks for a stronger digest (RFC 8760) than before: the next refresh brings us back,
        // within the 30 s of the registration.
        let _pbx = Kamailio::start("sha256")?;
        wait_for(
            "a call through the restarted PBX",
            Duration::from_secs(75),
            || Ok(call_through_pbx()),
        )?;
        daemon.wait_idle(Duration::from_secs(20))?;
        Ok(())
    })
}

/// One short call from the PBX's host to extension 200.
fn call_through_pbx() -> bool {
    let mut call = away("sipp/sipp.sh");
    call.args(["192.0.2.2:5060", "1", "1", "300"])
        .env("SIPP_SERVICE", "200");
    call.stderr(Stdio::null())
        .stdout(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// A registrar on the other host that knows extension 200; forgets everything when dropped.
struct Kamailio(Child);

impl Kamailio {
    fn start(algorithm: &str) -> Result<Kamailio> {
        let mut command = away("kamailio/kamailio.sh");
        command.args(["192.0.2.2", "5060", "200", "correct"]);
        if !algorithm.is_empty() {
            command.arg(algorithm);
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Kamailio(child))
    }
}

impl Drop for Kamailio {
    fn drop(&mut self) {
        // The script ends its Kamailio on SIGTERM.
        let _ = Command::new("kill").arg(self.0.id().to_string()).status();
        let _ = self.0.wait();
    }
}
