//! Softphones: baresip and linphonec speak, listen, hold and press keys.

use std::path::Path;
use std::process::Stdio;

use anyhow::Result;
use attendant_media::wav;
use attendant_tests::network::away;

use crate::cell::Cell;
use crate::site::{Part, Site, has, keyed, understood};

/// "Which folder should I save the message to?", 8 kHz, from Debian's asterisk-core-sounds-en-wav.
const HUMAN: &str = "/usr/share/asterisk/sounds/en_US_f_Allison/vm-savefolder.wav";
const UDP: &str = "sip:attendant@192.0.2.1";

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

/// One call of a softphone's script: `phone` of `tests/peer`, with these variables in its environment.
fn phone(phone: &str, uri: &str, seconds: u32, settings: &[(&str, &str)]) -> Result<Cell> {
    let dir = tempfile::tempdir()?;
    let output = away(phone)
        .args([uri, HUMAN, &seconds.to_string()])
        .arg(dir.path())
        .envs(settings.iter().copied())
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()?;
    let line = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    if output.status.success() {
        return Ok(Cell::Yes);
    }
    let log = std::fs::read_to_string(dir.path().join("log")).unwrap_or_default();
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

fn baresip(uri: &str, seconds: u32, settings: &[(&str, &str)]) -> Result<Cell> {
    phone("baresip/baresip.sh", uri, seconds, settings)
}

fn linphone(uri: &str, seconds: u32, settings: &[(&str, &str)]) -> Result<Cell> {
    phone("linphone/linphone.sh", uri, seconds, settings)
}

pub fn baresip_speech(site: &Site) -> Result<Cell> {
    site.call(|| baresip(UDP, 25, &[]), understood)
}

pub fn baresip_tcp(site: &Site) -> Result<Cell> {
    site.call(
        || baresip("sip:attendant@192.0.2.1;transport=tcp", 5, &[]),
        |_| Cell::Yes,
    )
}

pub fn baresip_tls(site: &Site) -> Result<Cell> {
    if let no @ Cell::NotYet(_) = site.knows(Part::Tls) {
        return Ok(no);
    }
    let uri = "sip:attendant@192.0.2.1:5061;transport=tls";
    site.call(|| baresip(uri, 5, &[]), |_| Cell::Yes)
}

pub fn baresip_six(site: &Site) -> Result<Cell> {
    site.six()?;
    baresip("sip:attendant@[2001:db8::1]", 5, &[])
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

fn baresip_codec(site: &Site, codec: &str) -> Result<Cell> {
    site.call(|| baresip(UDP, 5, &[("CODECS", codec)]), |_| Cell::Yes)
}

pub fn baresip_pcmu(site: &Site) -> Result<Cell> {
    baresip_codec(site, "PCMU/8000/1")
}

pub fn baresip_pcma(site: &Site) -> Result<Cell> {
    baresip_codec(site, "PCMA/8000/1")
}

pub fn baresip_g722(site: &Site) -> Result<Cell> {
    baresip_codec(site, "G722/16000/1")
}

pub fn baresip_opus(site: &Site) -> Result<Cell> {
    baresip_codec(site, "opus/48000/2")
}

pub fn baresip_sdes(site: &Site) -> Result<Cell> {
    site.call(|| baresip(UDP, 5, &[("MEDIAENC", "srtp-mand")]), |_| Cell::Yes)
}

pub fn linphone_speech(site: &Site) -> Result<Cell> {
    site.call(|| linphone(UDP, 25, &[]), understood)
}

pub fn linphone_tcp(site: &Site) -> Result<Cell> {
    site.call(
        || linphone("sip:attendant@192.0.2.1;transport=tcp", 5, &[]),
        |_| Cell::Yes,
    )
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
    site.call(|| linphone(UDP, 5, &[("CODECS", codec)]), |_| Cell::Yes)
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
