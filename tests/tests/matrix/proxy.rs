//! Features that sipp tries through Kamailio, where the daemon is registered as 200: the PBX stays in the path.

use std::time::Duration;

use anyhow::Result;

use crate::cell::Cell;
use crate::daemon::wait_for;
use crate::signalling::{blind_script, info_script};
use crate::sipp::{SDP, Script};
use crate::site::{KAMAILIO, KAMAILIO_NAMED, KAMAILIO_SHA256, Site, has, keyed};

fn connected() -> Script {
    Script::new().invite("", SDP).expect(200, "").ack("")
}

fn run(site: &Site, script: &Script) -> Result<Cell> {
    registered(site)?;
    site.call(|| script.run(KAMAILIO, &["-s", "200"]), |_| Cell::Yes)
}

fn reaches(pbx: &str, user: &str) -> Result<Cell> {
    let mut last = Cell::Cannot;
    // Registration is tried again after a pause that grows.
    wait_for("a call through the PBX", Duration::from_secs(90), || {
        last = connected().pause(300).bye().run(pbx, &["-s", user])?;
        Ok(last == Cell::Yes)
    })
    .map_or_else(
        |error| Ok(Cell::Fails(format!("{error:#}: {last:?}"))),
        |()| Ok(Cell::Yes),
    )
}

pub fn registered(site: &Site) -> Result<Cell> {
    let cell = reaches(KAMAILIO, "200")?;
    site.wait_idle()?;
    Ok(cell)
}

pub fn registered_sha256(_: &Site) -> Result<Cell> {
    reaches(KAMAILIO_SHA256, "200")
}

/// By a name whose first server is dead (RFC 3263 §4.3).
pub fn registered_by_name(_: &Site) -> Result<Cell> {
    reaches(KAMAILIO_NAMED, "203")
}

pub fn call(site: &Site) -> Result<Cell> {
    run(site, &connected().pause(500).bye())
}

pub fn we_hang_up(site: &Site) -> Result<Cell> {
    run(site, &connected().wait_for("BYE", 60_000))
}

pub fn tcp(site: &Site) -> Result<Cell> {
    registered(site)?;
    let script = connected().pause(500).bye();
    site.call(|| script.run(KAMAILIO, &["-s", "200", "-t", "t1"]), |_| Cell::Yes)
}

pub fn cancel(site: &Site) -> Result<Cell> {
    registered(site)?;
    Script::new()
        .invite("", SDP)
        .early(100, "")
        .cancel()
        .expect(200, "CANCEL")
        .expect(487, "INVITE")
        .ack_refusal()
        .run(KAMAILIO, &["-s", "200"])
}

pub fn late_offer(site: &Site) -> Result<Cell> {
    run(
        site,
        &Script::new()
            .invite("", "")
            .expect(200, "m=audio")
            .ack(SDP)
            .pause(500)
            .bye(),
    )
}

pub fn hold(site: &Site) -> Result<Cell> {
    registered(site)?;
    let script = connected()
        .pause(300)
        .invite("", &format!("{SDP}\na=sendonly"))
        .expect(200, "a=recvonly")
        .ack("")
        .pause(300)
        .invite("", SDP)
        .expect(200, "")
        .ack("")
        .pause(300)
        .bye();
    site.call(
        || script.run(KAMAILIO, &["-s", "200"]),
        |record| has(record, "hold", 1).and(|| has(record, "resume", 1)),
    )
}

pub fn info_keys(site: &Site) -> Result<Cell> {
    registered(site)?;
    site.call(
        || info_script().run(KAMAILIO, &["-s", "200"]),
        |record| keyed(record, "1234"),
    )
}

/// The REFER, its NOTIFY and the BYE go by the proxy.
pub fn blind_transfer(site: &Site) -> Result<Cell> {
    registered(site)?;
    site.call(
        || {
            blind_script("200 OK")
                .wait_for("BYE", 10_000)
                .run(KAMAILIO, &["-s", "200"])
        },
        |record| has(record, "transfer_answered", 1),
    )
}
