//! A real Asterisk 22: extension, trunk, queue, and the phones behind it.

use std::time::Duration;

use anyhow::{Context, Result};
use attendant_store::SessionRecord;

use crate::cell::Cell;
use crate::daemon::wait_for;
use crate::phones::voiced_ms;
use crate::sipp::{SDP, Script};
use crate::site::{Site, encrypted, has, keyed, spoken_in, stayed, understood};

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
    call(site, "trunk-tls", "short")
}

/// A call to the daemon that has no other address; Asterisk's log says that it was answered.
pub fn six(site: &Site) -> Result<Cell> {
    let six = site.six()?;
    let from = log(site).len();
    site.cli("channel originate PJSIP/attendant@trunk-six extension short@tests")?;
    let answered = logged(site, from, "Executing [short@tests");
    six.wait_idle(Duration::from_secs(20))?;
    Ok(answered)
}

/// Within a while these words come in what Asterisk writes from `from` on.
fn logged(site: &Site, from: usize, words: &str) -> Cell {
    let found = wait_for(words, Duration::from_secs(10), || {
        Ok(log(site).get(from..).unwrap_or_default().contains(words))
    });
    found.map_or_else(|error| Cell::Fails(format!("{error:#}")), |()| Cell::Yes)
}

/// As `call`; and Asterisk has said or heard these words.
fn call_with(site: &Site, trunk: &str, script: &str, words: &str) -> Result<Cell> {
    let from = log(site).len();
    let cell = call(site, trunk, script)?;
    Ok(cell.and(|| logged(site, from, words)))
}

/// A caller who has dialled `number` presses `key`; whether extension 300 was reached tells its recording.
fn transfer(site: &Site, number: &str, key: char, judge: fn(&SessionRecord) -> Cell) -> Result<Cell> {
    let heard = site.heard("300-rx.wav");
    let caller = format!("Local/{number}@from-phone/n");
    let cell = site.call(|| originate_to(site, &caller, &format!("transfer{key}")), judge)?;
    Ok(cell.and(|| match (key, heard.exists()) {
        ('0' | '9', true) | ('6'..='8', false) => Cell::Yes,
        ('0' | '9', false) => Cell::Fails("nobody answered at the target".to_owned()),
        (_, _) => Cell::Fails("the caller was put through to somebody else".to_owned()),
    }))
}

fn put_through(record: &SessionRecord) -> Cell {
    has(record, "transfer_asked", 1).and(|| has(record, "transfer_answered", 1))
}

pub fn blind_transfer(site: &Site) -> Result<Cell> {
    transfer(site, "700", '0', put_through)
}

pub fn attended_transfer(site: &Site) -> Result<Cell> {
    transfer(site, "700", '9', put_through)
}

/// The caller waited in a queue, whose agent the attendant is.
pub fn transfer_from_queue(site: &Site) -> Result<Cell> {
    transfer(site, "703", '0', put_through)
}

/// The target is busy: the caller is told and stays with us.
pub fn busy_transfer(site: &Site) -> Result<Cell> {
    transfer(site, "700", '8', |record| {
        has(record, "transfer_failed", 1).and(|| stayed(record))
    })
}

/// The target rings and rings.
pub fn unanswered_transfer(site: &Site) -> Result<Cell> {
    transfer(site, "700", '7', |record| {
        has(record, "transfer_ringing", 1)
            .and(|| has(record, "transfer_failed", 1))
            .and(|| stayed(record))
    })
}

/// Behind the target's number is a menu: Asterisk writes down the keys that we press there.
pub fn keys_out(site: &Site) -> Result<Cell> {
    let keys = site.heard("keys");
    let cell = transfer(site, "700", '6', |record| has(record, "transfer_asked", 1))?;
    let pressed = std::fs::read_to_string(keys).unwrap_or_default();
    Ok(cell.and(|| match pressed.trim() {
        "1234" => Cell::Yes,
        other => Cell::Fails(format!("we pressed 1234, Asterisk heard {other:?}")),
    }))
}

/// Asterisk sends a caller of the daemon without models to extension 300, as the daemon's 302 says.
pub fn redirected(site: &Site) -> Result<Cell> {
    site.redirecting()?;
    let heard = site.heard("300-rx.wav");
    let from = log(site).len();
    let cell = connected().pause(1_500).bye().run(PBX, &["-s", "704"])?;
    Ok(cell
        .and(|| logged(site, from, "SIP/2.0 302"))
        .and(|| match heard.exists() {
            true => Cell::Yes,
            false => Cell::Fails("extension 300 was not reached".to_owned()),
        }))
}

/// Asterisk's caller asks, we understand; we speak, Asterisk records it.
pub fn speech(site: &Site) -> Result<Cell> {
    spoken(site, "trunk")
}

fn spoken(site: &Site, trunk: &str) -> Result<Cell> {
    let heard = site.heard("rx.wav");
    site.call(|| originate(site, trunk, "speak"), understood)
        .map(|cell| {
            cell.and(|| {
                let heard = voiced_ms(&heard);
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

pub fn registered_by_name(site: &Site) -> Result<Cell> {
    registered(site, "202")
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

fn codec(site: &Site, trunk: &str, codec: &str) -> Result<Cell> {
    site.call(
        || originate(site, trunk, "short"),
        |record| spoken_in(record, codec),
    )
}

pub fn pcmu(site: &Site) -> Result<Cell> {
    codec(site, "trunk-ulaw", "PCMU")
}

pub fn pcma(site: &Site) -> Result<Cell> {
    codec(site, "trunk", "PCMA")
}

pub fn g722(site: &Site) -> Result<Cell> {
    codec(site, "trunk-g722", "G722")
}

pub fn opus(site: &Site) -> Result<Cell> {
    codec(site, "trunk-opus", "opus")
}

pub fn sdes(site: &Site) -> Result<Cell> {
    site.call(|| originate(site, "trunk-sdes", "short"), encrypted)
}

/// Asterisk refreshes its session of 90 s after half of it.
pub fn timers(site: &Site) -> Result<Cell> {
    call_with(site, "trunk-timers", "long", "UPDATE sip:attendant@192.0.2.1")
}

pub fn update(site: &Site) -> Result<Cell> {
    call_with(site, "trunk-update", "update", "UPDATE sip:attendant@192.0.2.1")
}

/// Our ringing is acknowledged.
pub fn prack(site: &Site) -> Result<Cell> {
    call_with(site, "trunk-100rel", "short", "PRACK sip:attendant@192.0.2.1")
}

pub fn flash(site: &Site) -> Result<Cell> {
    site.call(
        || originate(site, "trunk", "flash"),
        |record| has(record, "flash", 1),
    )
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
