//! Softphones: baresip and linphonec speak, listen, hold and press keys.

use std::path::Path;
use std::process::{Child, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::Result;
use attendant_media::wav;
use attendant_tests::network::away;
use tempfile::TempDir;

use crate::cell::Cell;
use crate::site::{Site, encrypted, has, keyed, spoken_in, understood};

/// "Which folder should I save the message to?", 8 kHz, from Debian's asterisk-core-sounds-en-wav.
pub const HUMAN: &str = "/usr/share/asterisk/sounds/en_US_f_Allison/vm-savefolder.wav";
/// Their scripts in `tests/peer`.
pub const BARESIP: &str = "baresip/baresip.sh";
pub const LINPHONE: &str = "linphone/linphone.sh";
const UDP: &str = "sip:attendant@192.0.2.1";
const TCP: &str = "sip:attendant@192.0.2.1;transport=tcp";
const TLS: &str = "sip:attendant@192.0.2.1:5061;transport=tls";
const SIX: &str = "sip:attendant@[2001:db8::1]";

/// How long a recording is louder than a quiet line [ms].
pub fn voiced_ms(path: &Path) -> Result<u64> {
    let sound = wav::read(path)?;
    let frame = usize::try_from(sound.rate / 50)?;
    let loud = |samples: &[i16]| {
        let energy: f64 = samples.iter().map(|s| f64::from(*s).powi(2)).sum();
        energy / samples.len() as f64 > (32_768.0 * 10f64.powf(-45.0 / 20.0)).powi(2)
    };
    Ok(20
        * sound
            .samples
            .chunks(frame)
            .filter(|samples| loud(samples))
            .count() as u64)
}

/// A softphone's script of `tests/peer` under way.
pub struct Phone {
    child: Child,
    dir: TempDir,
}

impl Phone {
    /// Starts `script` with these variables in its environment.
    fn start(script: &str, uri: &str, seconds: u32, settings: &[(&str, &str)]) -> Result<Phone> {
        let dir = tempfile::tempdir()?;
        let child = away(script)
            .args([uri, HUMAN, &seconds.to_string()])
            .arg(dir.path())
            .envs(settings.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()?;
        Ok(Phone { child, dir })
    }

    /// Waits for its end.
    pub fn finish(self) -> Result<Cell> {
        let output = self.child.wait_with_output()?;
        let line = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        if output.status.success() {
            return Ok(Cell::Yes);
        }
        let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        let refused = ["488", "415", "420"]
            .into_iter()
            .find(|status| log.contains(&format!(" {status} ")));
        if line.starts_with("answered=no")
            && let Some(status) = refused
        {
            return Ok(Cell::NotYet(format!("answered {status}")));
        }
        let tail: Vec<&str> = log.lines().rev().take(12).collect();
        Ok(Cell::Fails(format!("{line} {tail:?}")))
    }
}

/// A softphone that waits for a call, as `sip:NAME@192.0.2.2` at its port.
pub fn callee(script: &str, seconds: u32) -> Result<Phone> {
    let phone = Phone::start(script, "answer", seconds, &[])?;
    // Until it listens.
    thread::sleep(Duration::from_secs(3));
    Ok(phone)
}

fn phone(script: &str, uri: &str, seconds: u32, settings: &[(&str, &str)]) -> Result<Cell> {
    Phone::start(script, uri, seconds, settings)?.finish()
}

fn baresip(uri: &str, seconds: u32, settings: &[(&str, &str)]) -> Result<Cell> {
    phone(BARESIP, uri, seconds, settings)
}

fn linphone(uri: &str, seconds: u32, settings: &[(&str, &str)]) -> Result<Cell> {
    phone(LINPHONE, uri, seconds, settings)
}

pub fn baresip_speech(site: &Site) -> Result<Cell> {
    site.call(|| baresip(UDP, 25, &[]), understood)
}

pub fn baresip_tcp(site: &Site) -> Result<Cell> {
    site.call(|| baresip(TCP, 5, &[]), |_| Cell::Yes)
}

pub fn baresip_tls(site: &Site) -> Result<Cell> {
    site.call(|| baresip(TLS, 5, &[]), |_| Cell::Yes)
}

pub fn baresip_six(site: &Site) -> Result<Cell> {
    site.six()?;
    baresip(SIX, 5, &[])
}

pub fn baresip_hold(site: &Site) -> Result<Cell> {
    site.call(
        || baresip(UDP, 12, &[("COMMANDS", "5:x 8:X")]),
        |record| has(record, "hold", 1).and(|| has(record, "resume", 1)),
    )
}

pub fn baresip_keys(site: &Site) -> Result<Cell> {
    site.call(
        || baresip(UDP, 18, &[("COMMANDS", "7:1 8:2 9:3 10:4")]),
        |record| keyed(record, "1234"),
    )
}

/// `offered` as baresip writes it.
fn baresip_codec(site: &Site, offered: &str, codec: &str) -> Result<Cell> {
    site.call(
        || baresip(UDP, 5, &[("CODECS", offered)]),
        |record| spoken_in(record, codec),
    )
}

pub fn baresip_pcmu(site: &Site) -> Result<Cell> {
    baresip_codec(site, "PCMU/8000/1", "PCMU")
}

pub fn baresip_pcma(site: &Site) -> Result<Cell> {
    baresip_codec(site, "PCMA/8000/1", "PCMA")
}

pub fn baresip_g722(site: &Site) -> Result<Cell> {
    baresip_codec(site, "G722/16000/1", "G722")
}

pub fn baresip_opus(site: &Site) -> Result<Cell> {
    baresip_codec(site, "opus/48000/2", "opus")
}

pub fn baresip_sdes(site: &Site) -> Result<Cell> {
    site.call(|| baresip(UDP, 5, &[("MEDIAENC", "srtp-mand")]), encrypted)
}

/// The caller presses a key, and the telephone calls whom our REFER names: Asterisk's extension 300.
fn transfer(site: &Site, script: &str, key: char) -> Result<Cell> {
    let heard = site.heard("300-rx.wav");
    let pressed = format!("7:{key}");
    let cell = site.call(
        || phone(script, UDP, 30, &[("COMMANDS", &pressed)]),
        |record| has(record, "transfer_asked", 1).and(|| has(record, "transfer_answered", 1)),
    )?;
    Ok(cell.and(|| match heard.exists() {
        true => Cell::Yes,
        false => Cell::Fails("extension 300 was not reached".to_owned()),
    }))
}

pub fn baresip_transfer(site: &Site) -> Result<Cell> {
    transfer(site, BARESIP, '0')
}

pub fn linphone_transfer(site: &Site) -> Result<Cell> {
    transfer(site, LINPHONE, '0')
}

pub fn linphone_attended(site: &Site) -> Result<Cell> {
    transfer(site, LINPHONE, '9')
}

/// The telephone follows the 302 of the daemon without models to extension 300.
fn redirected(site: &Site, script: &str) -> Result<Cell> {
    let uri = format!("sip:attendant@{}", site.redirecting()?);
    phone(script, &uri, 8, &[])
}

pub fn baresip_redirected(site: &Site) -> Result<Cell> {
    redirected(site, BARESIP)
}

pub fn linphone_redirected(site: &Site) -> Result<Cell> {
    redirected(site, LINPHONE)
}

pub fn linphone_sdes(site: &Site) -> Result<Cell> {
    site.call(|| linphone(UDP, 5, &[("MEDIAENC", "srtp")]), encrypted)
}

pub fn linphone_speech(site: &Site) -> Result<Cell> {
    site.call(|| linphone(UDP, 25, &[]), understood)
}

pub fn linphone_tcp(site: &Site) -> Result<Cell> {
    site.call(|| linphone(TCP, 5, &[]), |_| Cell::Yes)
}

pub fn linphone_tls(site: &Site) -> Result<Cell> {
    site.call(|| linphone(TLS, 5, &[]), |_| Cell::Yes)
}

pub fn linphone_six(site: &Site) -> Result<Cell> {
    site.six()?;
    linphone(SIX, 5, &[])
}

pub fn linphone_hold(site: &Site) -> Result<Cell> {
    site.call(
        || linphone(UDP, 12, &[("COMMANDS", "5:pause 8:resume")]),
        |record| has(record, "hold", 1).and(|| has(record, "resume", 1)),
    )
}

pub fn linphone_keys(site: &Site) -> Result<Cell> {
    site.call(
        || linphone(UDP, 18, &[("COMMANDS", "7:1 8:2 9:3 10:4")]),
        |record| keyed(record, "1234"),
    )
}

fn linphone_codec(site: &Site, codec: &str) -> Result<Cell> {
    site.call(
        || linphone(UDP, 5, &[("CODECS", codec)]),
        |record| spoken_in(record, codec),
    )
}

pub fn linphone_pcmu(site: &Site) -> Result<Cell> {
    linphone_codec(site, "PCMU")
}

pub fn linphone_pcma(site: &Site) -> Result<Cell> {
    linphone_codec(site, "PCMA")
}

pub fn linphone_g722(site: &Site) -> Result<Cell> {
    linphone_codec(site, "G722")
}

pub fn linphone_opus(site: &Site) -> Result<Cell> {
    linphone_codec(site, "opus")
}
