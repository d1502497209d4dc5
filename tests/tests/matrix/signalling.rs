//! Features that sipp tries, message by message.

use anyhow::Result;

use crate::cell::Cell;
use crate::sipp::{SDP, Script};
use crate::site::{DAEMON, DAEMON_SIX, Site, has, keyed, stayed};

fn connected() -> Script {
    Script::new().invite("", SDP).expect(200, "").ack("")
}

fn run(site: &Site, script: &Script) -> Result<Cell> {
    site.call(|| script.run(DAEMON, &["-s", "attendant"]), |_| Cell::Yes)
}

pub fn call(site: &Site) -> Result<Cell> {
    run(site, &connected().pause(500).bye())
}

pub fn tcp(site: &Site) -> Result<Cell> {
    let script = connected().pause(500).bye();
    site.call(
        || script.run(DAEMON, &["-s", "attendant", "-t", "t1"]),
        |_| Cell::Yes,
    )
}

pub fn six(site: &Site) -> Result<Cell> {
    site.six()?;
    connected().pause(500).bye().run(DAEMON_SIX, &["-s", "attendant"])
}

/// Nobody speaks: after a while the attendant asks, then says goodbye.
pub fn we_hang_up(site: &Site) -> Result<Cell> {
    run(site, &connected().wait_for("BYE", 60_000))
}

pub fn cancel(_: &Site) -> Result<Cell> {
    Script::new()
        .invite("", SDP)
        .early(100, "")
        .cancel()
        .expect(200, "CSeq: 1 CANCEL")
        .expect(487, "CSeq: 1 INVITE")
        .ack_refusal()
        .run(DAEMON, &["-s", "attendant"])
}

pub fn late_offer(site: &Site) -> Result<Cell> {
    let script = Script::new()
        .invite("", "")
        .expect(200, "m=audio")
        .ack(SDP)
        .pause(500)
        .bye();
    run(site, &script)
}

/// The three ways to hold, each with a way back.
pub fn hold(site: &Site) -> Result<Cell> {
    let mut script = connected().pause(300);
    for (held, answer) in [
        (format!("{SDP}\na=sendonly"), "a=recvonly"),
        (format!("{SDP}\na=inactive"), "a=inactive"),
        (format!("{SDP}\nc=IN IP4 0.0.0.0"), "m=audio"),
    ] {
        script = script.invite("", &held).expect(200, answer).ack("").pause(300);
        script = script
            .invite("", &format!("{SDP}\na=sendrecv"))
            .expect(200, "a=sendrecv")
            .ack("")
            .pause(300);
    }
    let script = script.bye();
    site.call(
        || script.run(DAEMON, &["-s", "attendant"]),
        |record| has(record, "hold", 3).and(|| has(record, "resume", 3)),
    )
}

pub fn moved(site: &Site) -> Result<Cell> {
    let script = connected()
        .pause(300)
        .invite("", &SDP.replace("[media_port]", "16100"))
        .expect(200, "")
        .ack("")
        .pause(500)
        .bye();
    site.call(
        || script.run(DAEMON, &["-s", "attendant"]),
        |record| has(record, "media_changed", 1),
    )
}

pub fn update(site: &Site) -> Result<Cell> {
    let script = connected()
        .pause(300)
        .request("UPDATE", "", "")
        .expect(200, "")
        .bye();
    run(site, &script)
}

/// 1 2 3 4 from the package's own captures.
pub fn keys(site: &Site) -> Result<Cell> {
    let mut script = connected().pause(1_500);
    for key in 1..=4 {
        script = script.play(&format!("dtmf_2833_{key}")).pause(900);
    }
    let script = script.pause(7_000).bye();
    site.call(
        || script.run(DAEMON, &["-s", "attendant"]),
        |record| keyed(record, "1234"),
    )
}

pub fn info_script() -> Script {
    let mut script = connected().pause(1_500);
    for key in 1..=4 {
        let body = format!("Content-Type: application/dtmf-relay\nSignal={key}\nDuration=160\n");
        script = script.request("INFO", "", &body).expect(200, "").pause(300);
    }
    script.pause(7_000).bye()
}

pub fn info_keys(site: &Site) -> Result<Cell> {
    site.call(
        || info_script().run(DAEMON, &["-s", "attendant"]),
        |record| keyed(record, "1234"),
    )
}

fn codec(site: &Site, media: &str, answered: &str) -> Result<Cell> {
    let script = Script::new()
        .invite("", media)
        .expect(200, answered)
        .ack("")
        .pause(500)
        .bye();
    run(site, &script)
}

pub fn pcmu(site: &Site) -> Result<Cell> {
    codec(site, "m=audio [media_port] RTP/AVP 0", "RTP/AVP 0")
}

pub fn pcma(site: &Site) -> Result<Cell> {
    codec(site, "m=audio [media_port] RTP/AVP 8", "RTP/AVP 8")
}

pub fn g722(site: &Site) -> Result<Cell> {
    codec(
        site,
        "m=audio [media_port] RTP/AVP 9\na=rtpmap:9 G722/8000",
        "RTP/AVP 9",
    )
}

pub fn opus(site: &Site) -> Result<Cell> {
    let media = "m=audio [media_port] RTP/AVP 96\na=rtpmap:96 opus/48000/2\na=fmtp:96 useinbandfec=1";
    codec(site, media, "RTP/AVP 96")
}

pub fn sdes(site: &Site) -> Result<Cell> {
    let media = "m=audio [media_port] RTP/SAVP 0\na=crypto:1 AES_CM_128_HMAC_SHA1_80 \
                 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz";
    codec(site, media, "RTP/SAVP 0")
}

/// On hold, so that nobody minds the silence; with these headers in each of its INVITEs.
fn held(headers: &str) -> Script {
    let headers = format!("Allow: INVITE, ACK, BYE, CANCEL, UPDATE\nSupported: timer\n{headers}");
    Script::new()
        .invite(&headers, SDP)
        .expect(200, "Session-Expires: 90")
        .ack("")
        .pause(300)
        .invite(&headers, &format!("{SDP}\na=sendonly"))
        .expect(200, "Session-Expires: 90")
        .ack("")
}

/// We are to refresh a session of 90 s: an UPDATE of ours comes after half of it (RFC 4028 §7.2, §10).
pub fn we_refresh(site: &Site) -> Result<Cell> {
    let ours = "Session-Expires: 90;refresher=uac\n";
    let script = held("Session-Expires: 90;refresher=uas\n")
        .answer(
            "UPDATE",
            50_000,
            "Session-Expires: 90;refresher=uac",
            "200 OK",
            ours,
        )
        .pause(500)
        .bye();
    run(site, &script)
}

/// The caller promises to refresh and does not: the call ends after 60 of 90 s (RFC 4028 §10).
pub fn expiry(site: &Site) -> Result<Cell> {
    let script = held("Session-Expires: 90;refresher=uac\n").wait_for("BYE", 65_000);
    site.call(
        || script.run(DAEMON, &["-s", "attendant"]),
        |record| match record.session.duration_ms() {
            Some(55_000..65_000) => Cell::Yes,
            other => Cell::Fails(format!("the call lasted {other:?} ms")),
        },
    )
}

pub fn prack(site: &Site) -> Result<Cell> {
    let script = Script::new().invite("Require: 100rel\n", SDP).early_reliable();
    // Both answers come, the INVITE's own before the PRACK's or after it; its ACK has the INVITE's CSeq.
    run(
        site,
        &script
            .expect(200, "")
            .expect(200, "")
            .ack_of(1, "")
            .pause(500)
            .bye(),
    )
}

/// The caller presses 0, gets a REFER to extension 300, and tells us this of it.
pub fn blind_script(told: &str) -> Script {
    let key = "Content-Type: application/dtmf-relay\nSignal=0\nDuration=160\n";
    connected()
        .pause(1_500)
        .request("INFO", "", key)
        .expect(200, "")
        .transferred("Refer-To: *.sip:300@192.0.2.2", told)
}

pub fn blind_transfer(site: &Site) -> Result<Cell> {
    site.call(
        || {
            let script = blind_script("200 OK").wait_for("BYE", 10_000);
            script.run(DAEMON, &["-s", "attendant"])
        },
        |record| has(record, "transfer_asked", 1).and(|| has(record, "transfer_answered", 1)),
    )
}

/// The target is called first, told, and named in the REFER (RFC 3891).
pub fn attended_transfer(site: &Site) -> Result<Cell> {
    let key = "Content-Type: application/dtmf-relay\nSignal=9\nDuration=160\n";
    let script = connected()
        .pause(1_500)
        .request("INFO", "", key)
        .expect(200, "")
        .transferred("Refer-To: *.sip:.*192.0.2.2.*Replaces=.*to-tag", "200 OK")
        .wait_for("BYE", 10_000);
    site.call(
        || script.run(DAEMON, &["-s", "attendant"]),
        |record| has(record, "transfer_answered", 1),
    )
}

/// What the caller's telephone says of the target: we tell the caller, who stays.
fn failed_transfer(site: &Site, told: &str) -> Result<Cell> {
    let script = blind_script(told).pause(5_000).bye();
    site.call(
        || script.run(DAEMON, &["-s", "attendant"]),
        |record| has(record, "transfer_failed", 1).and(|| stayed(record)),
    )
}

pub fn busy_transfer(site: &Site) -> Result<Cell> {
    failed_transfer(site, "486 Busy Here")
}

pub fn unanswered_transfer(site: &Site) -> Result<Cell> {
    failed_transfer(site, "408 Request Timeout")
}

pub fn redirected(site: &Site) -> Result<Cell> {
    Script::new()
        .invite("", SDP)
        .expect(302, "Contact: *.sip:300@192.0.2.2")
        .ack_refusal()
        .run(site.redirecting()?, &["-s", "attendant"])
}

/// From an analog telephone behind an adapter.
pub fn flash(site: &Site) -> Result<Cell> {
    let hook = "Content-Type: application/hook-flash\nsignal=hf\n";
    let script = connected()
        .pause(500)
        .request("INFO", "", hook)
        .expect(200, "")
        .pause(500)
        .bye();
    site.call(
        || script.run(DAEMON, &["-s", "attendant"]),
        |record| has(record, "flash", 1),
    )
}

pub fn require(_: &Site) -> Result<Cell> {
    Script::new()
        .invite("Require: nothing-known\n", SDP)
        .expect(420, "Unsupported: nothing-known")
        .ack_refusal()
        .run(DAEMON, &["-s", "attendant"])
}

/// In a call: what we can do.
pub fn options(site: &Site) -> Result<Cell> {
    let script = connected()
        .pause(300)
        .request("OPTIONS", "", "")
        .expect(200, "Allow:.*UPDATE")
        .bye();
    run(site, &script)
}

/// Nobody puts us through to anywhere: declined, and the call goes on.
pub fn refer(site: &Site) -> Result<Cell> {
    let script = connected()
        .pause(300)
        .request("REFER", "Refer-To: <sip:900@192.0.2.2>\n", "")
        .expect(603, "")
        .pause(500)
        .bye();
    run(site, &script)
}

/// Of a dialog that does not exist (RFC 3891 §3: 481).
pub fn replaces(_: &Site) -> Result<Cell> {
    Script::new()
        .invite(
            "Require: replaces\nReplaces: none@nowhere;to-tag=1;from-tag=2\n",
            SDP,
        )
        .expect(481, "")
        .ack_refusal()
        .run(DAEMON, &["-s", "attendant"])
}
