//! Calls that we place: the daemon's own way to dial, by `attendant call`.

use std::process::{Command, Stdio};

use anyhow::Result;
use serde_json::Value;

use crate::cell::Cell;
use crate::daemon::program;
use crate::phones::{self, BARESIP, HUMAN, LINPHONE};
use crate::proxy;
use crate::sipp::Script;
use crate::site::Site;

/// Longest such call \[s\].
const LONGEST_S: &str = "10";

/// Dials; at least so many packets have to come back.
fn place(uri: &str, packets: u64) -> Result<Cell> {
    let output = Command::new(program("attendant")?)
        .args([
            "call",
            uri,
            "--wav",
            HUMAN,
            "--no-transcribe",
            "--json",
            "--longest",
            LONGEST_S,
        ])
        .stdin(Stdio::null())
        .output()?;
    // Whoever answers need not converse: its exit code is about that.
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    Ok(match report["packets"].as_u64() {
        Some(got) if got >= packets => Cell::Yes,
        Some(got) => Cell::Fails(format!("{got} packets came back, not {packets}: {report}")),
        None => Cell::Fails(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    })
}

/// sipp is called; it sends no audio.
fn call_sipp(callee: &Script) -> Result<Cell> {
    let callee = callee.start("", &[])?;
    let placed = place("sip:callee@192.0.2.2:15060", 0)?;
    let called = callee.finish()?;
    Ok(called.and(|| placed))
}

/// Its ringing is acknowledged by our PRACK.
pub fn to_sipp(_: &Site) -> Result<Cell> {
    call_sipp(&Script::called().pick_up())
}

/// It asks before it answers.
pub fn options_while_ringing(_: &Site) -> Result<Cell> {
    call_sipp(&Script::called().ask_while_ringing("OPTIONS").pick_up())
}

fn to_phone(script: &str, uri: &str) -> Result<Cell> {
    let phone = phones::callee(script, 16)?;
    let placed = place(uri, 100)?;
    let called = phone.finish()?;
    Ok(called.and(|| placed))
}

pub fn to_baresip(_: &Site) -> Result<Cell> {
    to_phone(BARESIP, "sip:baresip@192.0.2.2:5072")
}

pub fn to_linphone(_: &Site) -> Result<Cell> {
    to_phone(LINPHONE, "sip:linphone@192.0.2.2:5062")
}

/// By the proxy back to the daemon, which is registered there.
pub fn to_kamailio(site: &Site) -> Result<Cell> {
    proxy::registered(site)?;
    site.call(|| place("sip:200@192.0.2.2:5070", 100), |_| Cell::Yes)
}

/// An extension that rings before it answers; Asterisk wants the ringing acknowledged.
pub fn to_asterisk(site: &Site) -> Result<Cell> {
    to_extension(site, "sip:304@192.0.2.2")
}

fn to_extension(site: &Site, uri: &str) -> Result<Cell> {
    let heard = site.heard("300-rx.wav");
    let placed = place(uri, 100)?;
    Ok(placed.and(|| match phones::voiced_ms(&heard) {
        Ok(ms) if ms > 500 => Cell::Yes,
        other => Cell::Fails(format!("Asterisk heard {other:?} ms of us")),
    }))
}

/// At a name whose first server is dead (RFC 3263 §4.3).
pub fn to_asterisk_by_name(site: &Site) -> Result<Cell> {
    to_extension(site, "sip:304@pbx.example")
}

pub fn to_kamailio_by_name(site: &Site) -> Result<Cell> {
    proxy::registered_by_name(site)?;
    site.wait_idle()?;
    site.call(|| place("sip:203@proxy.example", 100), |_| Cell::Yes)
}
