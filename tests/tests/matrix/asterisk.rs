//! A real Asterisk 22: extension, trunk, queue, and the phones behind it.

use std::time::Duration;

use anyhow::{Context, Result};
use attendant_store::SessionRecord;

use crate::cell::Cell;
use crate::daemon::wait_for;
use crate::phones::voiced_ms;
use crate::sipp::{SDP, Script};
use crate::site::{Part, Site, has, keyed, understood};

/// Where telephones on the other host find it.
const PBX: &str = "192.0.2.2:5060";

/// Asterisk calls the attendant by `trunk`, and runs `script` of its dial plan on its own side; until the call is over.
fn originate(site: &Site, trunk: &str, script: &str) -> Result<Cell> {
    originate_to(site, &format!("PJSIP/attendant@{trunk}"), script)
}

fn originate_to(site: &Site, trunk: &str, script: &str) -> Result<Cell> {
    let (before, logged) = (site.sessions()?, log(site).len());
    site.cli(&format!("channel originate {trunk} extension {script}@tests"))?;
    let mut refusal = None;
    let began = wait_for("the call", Duration::from_secs(20), || {
        refusal = refused(log(site).get(logged..).unwrap_or_default());
        Ok(refusal.is_some() || site.sessions()? > before)
    });
    match (began, refusal) {
        (_, Some(refusal)) => return Ok(refusal),
        (Err(error), None) => return Ok(Cell::Fails(format!("{error:#}"))),
        (Ok(()), None) => {}
    }
    site.daemon.wait_idle(Duration::from_secs(90))?;
    Ok(Cell::Yes)
}

fn log(site: &Site) -> String {
    let log = std::fs::read(site.dir.path().join("log/messages")).unwrap_or_default();
    String::from_utf8_lossy(&log).into_owned()
}

/// Whether an answer to an INVITE in this piece of Asterisk's log refuses what the call asked for.
fn refused(log: &str) -> Option<Cell> {
    ["415", "420", "488"]
        .into_iter()
        .find(|status| log.contains(&format!("SIP/2.0 {status} ")))
        .map(|status| Cell::NotYet(format!("answered {status}")))
}

fn call(site: &Site, trunk: &str, script: &str) -> Result<Cell> {
    site.call(|| originate(site, trunk, script), |_| Cell::Yes)
}

pub fn short_call(site: &Site) -> Result<Cell> {
    call(site, "trunk", "short")
}

pub fn we_hang_up(site: &Site) -> Result<Cell> {
    call(site, "trunk", "wait")
}

pub fn tcp(site: &Site) -> Result<Cell> {
    call(site, "trunk-tcp", "short")
}

pub fn tls(site: &Site) -> Result<Cell> {
    match site.knows(Part::Tls) {
        Cell::Yes => call(site, "trunk-tls", "short"),
        no => Ok(no),
    }
}

/// The caller presses `key`; who answers at extension 300 is recorded by Asterisk.
fn transfer(site: &Site, key: char, judge: fn(&SessionRecord) -> Cell) -> Result<Cell> {
    if let no @ Cell::NotYet(_) = site.knows(Part::Transfer) {
        return Ok(no);
    }
    let heard = site.dir.path().join("heard/300-rx.wav");
    let _ = std::fs::remove_file(&heard);
    let cell = site.call(|| originate(site, "trunk", &format!("transfer{key}")), judge)?;
    let reached = heard.exists();
    Ok(cell.and(|| match (key, reached) {
        ('8', true) => Cell::Fails("the caller was put through to somebody else".to_owned()),
        ('8', false) | (_, true) => Cell::Yes,
        (_, false) => Cell::Fails("nobody answered at the target".to_owned()),
    }))
}

pub fn blind_transfer(site: &Site) -> Result<Cell> {
    transfer(site, '0', |record| {
        has(record, "transfer_asked", 1).and(|| has(record, "transfer_answered", 1))
    })
}

pub fn attended_transfer(site: &Site) -> Result<Cell> {
    transfer(site, '9', |record| {
        has(record, "transfer_asked", 1).and(|| has(record, "transfer_answered", 1))
    })
}

/// The target is busy: the caller is told and stays with us.
pub fn failed_transfer(site: &Site) -> Result<Cell> {
    transfer(site, '8', |record| has(record, "transfer_failed", 1))
}

/// Asterisk's caller asks, we understand; we speak, Asterisk records it.
pub fn speech(site: &Site) -> Result<Cell> {
    spoken(site, "trunk")
}

fn spoken(site: &Site, trunk: &str) -> Result<Cell> {
    site.call(|| originate(site, trunk, "speak"), understood)
        .map(|cell| {
            cell.and(|| {
                let heard = voiced_ms(&site.dir.path().join("heard/rx.wav"));
                match heard {
                    Ok(ms) if ms > 2_000 => Cell::Yes,
                    other => Cell::Fails(format!("Asterisk heard {other:?} ms of us")),
                }
            })
        })
}

/// Registers, and is reached at what it registered.
fn registered(site: &Site, extension: &str) -> Result<Cell> {
    let mut contacts = String::new();
    let came = wait_for("the registration", Duration::from_secs(90), || {
        contacts = site.cli("pjsip show contacts")?;
        Ok(contacts.contains(&format!("{extension}/sip:")))
    });
    if let Err(error) = came {
        return Ok(Cell::Fails(format!("{error:#}: {contacts}")));
    }
    site.call(
        || originate_to(site, &format!("PJSIP/{extension}"), "short"),
        |_| Cell::Yes,
    )
}

pub fn registered_md5(site: &Site) -> Result<Cell> {
    registered(site, "200")
}

pub fn registered_sha256(site: &Site) -> Result<Cell> {
    registered(site, "201")
}

fn keys_by(site: &Site, trunk: &str) -> Result<Cell> {
    site.call(|| originate(site, trunk, "keys"), |record| keyed(record, "1234"))
}

pub fn keys(site: &Site) -> Result<Cell> {
    keys_by(site, "trunk")
}

pub fn info_keys(site: &Site) -> Result<Cell> {
    keys_by(site, "trunk-info")
}

pub fn inband_keys(site: &Site) -> Result<Cell> {
    keys_by(site, "trunk-inband")
}

pub fn pcmu(site: &Site) -> Result<Cell> {
    call(site, "trunk-ulaw", "short")
}

pub fn pcma(site: &Site) -> Result<Cell> {
    call(site, "trunk", "short")
}

pub fn g722(site: &Site) -> Result<Cell> {
    call(site, "trunk-g722", "short")
}

pub fn opus(site: &Site) -> Result<Cell> {
    call(site, "trunk-opus", "short")
}

pub fn sdes(site: &Site) -> Result<Cell> {
    call(site, "trunk-sdes", "short")
}

pub fn timers(site: &Site) -> Result<Cell> {
    call(site, "trunk-timers", "short")
}

pub fn prack(site: &Site) -> Result<Cell> {
    call(site, "trunk-100rel", "short")
}

/// A telephone behind Asterisk: sipp dials `number`.
fn dial(site: &Site, number: &str, script: &Script, judge: fn(&SessionRecord) -> Cell) -> Result<Cell> {
    site.call(|| script.run(PBX, &["-s", number]), judge)
}

fn connected() -> Script {
    Script::new().invite("", SDP).expect(200, "").ack("")
}

/// The telephone holds; Asterisk passes it on to us by a re-INVITE of its own.
pub fn hold(site: &Site) -> Result<Cell> {
    let script = connected()
        .pause(1_000)
        .invite("", &format!("{SDP}\na=sendonly"))
        .expect(200, "")
        .ack("")
        .pause(1_500)
        .invite("", &format!("{SDP}\na=sendrecv"))
        .expect(200, "")
        .ack("")
        .pause(1_500)
        .bye();
    dial(site, "701", &script, |record| {
        has(record, "hold", 1).and(|| has(record, "resume", 1))
    })
}

/// Once the call is up, Asterisk takes itself out of the audio: its re-INVITE names the telephone's port.
pub fn direct_media(site: &Site) -> Result<Cell> {
    let script = connected().answer_reinvite().pause(2_000).bye();
    dial(site, "702", &script, |record| has(record, "media_changed", 1))
}

pub fn queue(site: &Site) -> Result<Cell> {
    dial(site, "703", &connected().pause(4_000).bye(), |_| Cell::Yes).context("the queue")
}
