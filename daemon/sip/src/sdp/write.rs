//! Writing: an [`Sdp`] as lines that parse back to the same value.

use std::fmt::{self, Write as _};
use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::{Connection, Media, Sdp};

impl fmt::Display for Sdp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = String::with_capacity(256);
        out.push_str("v=0\r\n");
        write!(
            out,
            "o=- {} {} IN {}\r\n",
            self.session_id,
            self.version,
            family(&self.origin)
        )?;
        out.push_str("s=-\r\n");
        if let Some(connection) = &self.connection {
            write_connection(&mut out, connection)?;
        }
        out.push_str("t=0 0\r\n");
        if let Some(direction) = self.direction {
            write!(out, "a={}\r\n", direction.name())?;
        }
        for media in &self.media {
            write_media(&mut out, media)?;
        }
        f.write_str(&out)
    }
}

fn write_media(out: &mut String, media: &Media) -> fmt::Result {
    write!(
        out,
        "m={} {} {} {}\r\n",
        media.kind,
        media.port,
        media.proto,
        media.formats.join(" ")
    )?;
    if let Some(connection) = &media.connection {
        write_connection(out, connection)?;
    }
    for map in &media.rtpmaps {
        write!(out, "a=rtpmap:{} {}/{}", map.payload_type, map.name, map.clock_hz)?;
        match map.channels {
            1 => out.push_str("\r\n"),
            channels => write!(out, "/{channels}\r\n")?,
        }
    }
    for (payload_type, parameters) in &media.fmtps {
        write!(out, "a=fmtp:{payload_type} {parameters}\r\n")?;
    }
    if let Some(ptime_ms) = media.ptime_ms {
        write!(out, "a=ptime:{ptime_ms}\r\n")?;
    }
    if let Some(max_ptime_ms) = media.max_ptime_ms {
        write!(out, "a=maxptime:{max_ptime_ms}\r\n")?;
    }
    match media.rtcp {
        Some((port, Some(ip))) => write!(out, "a=rtcp:{port} IN {}\r\n", family(&ip))?,
        Some((port, None)) => write!(out, "a=rtcp:{port}\r\n")?,
        None => {}
    }
    if media.rtcp_mux {
        out.push_str("a=rtcp-mux\r\n");
    }
    for crypto in &media.cryptos {
        let key = BASE64.encode(crypto.key.expose());
        write!(
            out,
            "a=crypto:{} {} inline:{key}",
            crypto.tag,
            crypto.suite.name()
        )?;
        match crypto.key.mki_octets() {
            0 => out.push_str("\r\n"),
            octets => write!(out, "|1:{octets}\r\n")?,
        }
    }
    if let Some(direction) = media.direction {
        write!(out, "a={}\r\n", direction.name())?;
    }
    Ok(())
}

fn write_connection(out: &mut String, connection: &Connection) -> fmt::Result {
    match connection {
        Connection::Ip(ip) => write!(out, "c=IN {}\r\n", family(ip)),
        Connection::Host(host) => write!(out, "c=IN IP4 {host}\r\n"),
    }
}

fn family(ip: &IpAddr) -> String {
    match ip {
        IpAddr::V4(ip) => format!("IP4 {ip}"),
        IpAddr::V6(ip) => format!("IP6 {ip}"),
    }
}
