//! Features that sipp tries, message by message.

use anyhow::Result;

use crate::cell::Cell;
use crate::sipp::{SDP, Script};
use crate::site::{DAEMON, DAEMON_SIX, Site, has, keyed};

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

/// We are to refresh a session of 90 s: a re-INVITE or UPDATE of ours comes after half of it (RFC 4028 §7.2, §10).
pub fn timers(site: &Site) -> Result<Cell> {
    let script = Script::new()
        .invite(
            "Supported: timer\nSession-Expires: 90;refresher=uas\nMin-SE: 90\n",
            SDP,
        )
        .expect(200, "Session-Expires:")
        .ack("")
        .pause(500)
        .bye();
    run(site, &script)
}

pub fn prack(site: &Site) -> Result<Cell> {
    let script = Script::new().invite("Require: 100rel\n", SDP).early_reliable();
    // The INVITE's own answer comes after the PRACK's; its ACK has the INVITE's CSeq.
    run(
        site,
        &script
            .expect(200, "CSeq: 2 PRACK")
            .expect(200, "CSeq: 1 INVITE")
            .ack_of(1, "")
            .pause(500)
            .bye(),
    )
}

pub fn require(_: &Site) -> Result<Cell> {
    Script::new()
        .invite("Require: nothing-known\n", SDP)
        .expect(420, "Unsupported: nothing-known")
        .ack_refusal()
        .run(DAEMON, &["-s", "attendant"])
}

/// A stranger's REFER in a call must not make us call anywhere; but we must know the method.
pub fn refer(site: &Site) -> Result<Cell> {
    let script = connected()
        .pause(300)
        .request("OPTIONS", "", "")
        .expect(200, "Allow:.*REFER")
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
