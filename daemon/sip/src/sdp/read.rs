//! Reading: lines into an [`Sdp`]. What is not known is skipped; everything is bounded.

use std::net::IpAddr;

use attendant_media::srtp::{MASTER_OCTETS, MasterKey, Suite};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::{Connection, Crypto, Direction, MAX_BYTES, MAX_FORMATS, MAX_MEDIA, Media, RtpMap, Sdp, SdpError};

/// More keys in one media line than this are not looked at.
const MAX_CRYPTOS: usize = 16;
/// More lines than this are refused.
pub const MAX_LINES: usize = 512;

impl Sdp {
    /// Reads a description.
    ///
    /// # Errors
    /// [`SdpError::TooLarge`] or [`SdpError::Malformed`]; unknown lines are no error.
    pub fn parse(body: &[u8]) -> Result<Sdp, SdpError> {
        if body.len() > MAX_BYTES {
            return Err(SdpError::TooLarge("size"));
        }
        let text = String::from_utf8_lossy(body);
        let mut reader = Reader::default();
        let mut saw_version = false;
        for (number, line) in text
            .lines()
            .map(str::trim_end)
            .filter(|line| !line.is_empty())
            .enumerate()
        {
            if number >= MAX_LINES {
                return Err(SdpError::TooLarge("lines"));
            }
            let Some((kind, value)) = line.split_once('=') else {
                return Err(SdpError::Malformed("type"));
            };
            if number == 0 {
                saw_version = kind == "v" && value.trim() == "0";
            }
            if !saw_version {
                return Err(SdpError::Malformed("v="));
            }
            reader.handle_line(kind, value.trim())?;
        }
        reader.finish()
    }
}

#[derive(Default)]
struct Reader {
    origin: Option<(String, u64, IpAddr)>,
    connection: Option<Connection>,
    direction: Option<Direction>,
    media: Vec<Media>,
}

impl Reader {
    fn handle_line(&mut self, kind: &str, value: &str) -> Result<(), SdpError> {
        match kind {
            "o" => self.origin = Some(parse_origin(value)?),
            "c" => {
                let connection = parse_connection(value)?;
                match self.media.last_mut() {
                    Some(media) => media.connection = Some(connection),
                    None => self.connection = Some(connection),
                }
            }
            "m" => {
                if self.media.len() >= MAX_MEDIA {
                    return Err(SdpError::TooLarge("media lines"));
                }
                self.media.push(parse_media(value)?);
            }
            "a" => self.handle_attribute(value),
            // s, i, u, e, p, b, t, r, z, k and what is not known: of no use to a call.
            _ => {}
        }
        Ok(())
    }

    /// A bad attribute is skipped: the stream may still be usable without it.
    fn handle_attribute(&mut self, value: &str) {
        let (name, argument) = value.split_once(':').unwrap_or((value, ""));
        if let Some(direction) = Direction::parse(name) {
            match self.media.last_mut() {
                Some(media) => media.direction = Some(direction),
                None => self.direction = Some(direction),
            }
            return;
        }
        let Some(media) = self.media.last_mut() else {
            return;
        };
        match name {
            "rtpmap" if media.rtpmaps.len() < MAX_FORMATS => media.rtpmaps.extend(parse_rtpmap(argument)),
            "fmtp" if media.fmtps.len() < MAX_FORMATS => {
                if let Some((payload_type, parameters)) = argument.split_once(' ')
                    && let Ok(payload_type) = payload_type.parse::<u8>()
                {
                    media.fmtps.push((payload_type, parameters.trim().to_string()));
                }
            }
            "ptime" => media.ptime_ms = argument.trim().parse().ok(),
            "maxptime" => media.max_ptime_ms = argument.trim().parse().ok(),
            "rtcp" => media.rtcp = parse_rtcp(argument),
            "rtcp-mux" => media.rtcp_mux = true,
            "crypto" if media.cryptos.len() < MAX_CRYPTOS => media.cryptos.extend(parse_crypto(argument)),
            _ => {}
        }
    }

    fn finish(self) -> Result<Sdp, SdpError> {
        let Some((session_id, version, origin)) = self.origin else {
            return Err(SdpError::Malformed("o="));
        };
        Ok(Sdp {
            session_id,
            version,
            origin,
            connection: self.connection,
            direction: self.direction,
            media: self.media,
        })
    }
}

fn parse_origin(value: &str) -> Result<(String, u64, IpAddr), SdpError> {
    let bad = SdpError::Malformed("o=");
    let fields: Vec<&str> = value.split_whitespace().collect();
    let [_user, session_id, version, _net, _family, address] = fields[..] else {
        return Err(bad);
    };
    if session_id.len() > 64 || !session_id.bytes().all(|b| b.is_ascii_digit()) {
        return Err(bad);
    }
    // Versions beyond 64 bits and host names in o= occur in the field; neither decides anything.
    let version = version.parse().unwrap_or(u64::MAX);
    let origin = address.parse().unwrap_or(IpAddr::from([0, 0, 0, 0]));
    Ok((session_id.to_string(), version, origin))
}

fn parse_connection(value: &str) -> Result<Connection, SdpError> {
    let fields: Vec<&str> = value.split_whitespace().collect();
    let [net, family, address] = fields[..] else {
        return Err(SdpError::Malformed("c="));
    };
    if net != "IN" || !matches!(family, "IP4" | "IP6") || address.len() > 255 {
        return Err(SdpError::Malformed("c="));
    }
    // A multicast TTL may follow after a slash.
    let address = address.split('/').next().unwrap_or(address);
    match address.parse() {
        Ok(ip) => Ok(Connection::Ip(ip)),
        Err(_) if address.is_empty() => Err(SdpError::Malformed("c=")),
        Err(_) => Ok(Connection::Host(address.to_string())),
    }
}

fn parse_media(value: &str) -> Result<Media, SdpError> {
    let bad = SdpError::Malformed("m=");
    let mut fields = value.split_whitespace();
    let (Some(kind), Some(port), Some(proto)) = (fields.next(), fields.next(), fields.next()) else {
        return Err(bad);
    };
    let port = port
        .split('/')
        .next()
        .unwrap_or(port)
        .parse()
        .map_err(|_| bad.clone())?;
    let formats: Vec<String> = fields.take(MAX_FORMATS + 1).map(str::to_string).collect();
    if formats.is_empty() {
        return Err(bad);
    }
    if formats.len() > MAX_FORMATS {
        return Err(SdpError::TooLarge("formats"));
    }
    Ok(Media {
        kind: kind.to_string(),
        port,
        proto: proto.to_string(),
        formats,
        ..Media::default()
    })
}

/// `port [IN IP4 address]`.
fn parse_rtcp(argument: &str) -> Option<(u16, Option<IpAddr>)> {
    let mut fields = argument.split_whitespace();
    let port = fields.next()?.parse().ok()?;
    let address = fields.nth(2).and_then(|address| address.parse().ok());
    Some((port, address))
}

/// `tag suite inline:key[|lifetime][|MKI:length] [session parameters]`. A line that asks for more than we do is none of
/// ours (RFC 4568 §6.3: unknown parameters must not be ignored, unless they begin with a hyphen).
pub fn parse_crypto(argument: &str) -> Option<Crypto> {
    let mut fields = argument.split_whitespace();
    let tag = fields.next()?.parse().ok().filter(|tag| *tag < 1_000_000_000)?;
    let suite = Suite::from_name(fields.next()?)?;
    let mut inline = fields.next()?.strip_prefix("inline:")?.split('|');
    let octets = BASE64.decode(inline.next()?).ok()?;
    let octets: [u8; MASTER_OCTETS] = octets.try_into().ok()?;
    let mut key = MasterKey::new(octets);
    for extra in inline {
        // A lifetime (2^31, 4096) is longer than any call.
        if let Some((_, length)) = extra.split_once(':') {
            key = key.with_mki(length.parse().ok().filter(|length| *length <= 128)?);
        }
    }
    // The hint for the window's size changes nothing on the wire.
    let harmless = |field: &str| field.starts_with('-') || field.starts_with("WSH=") || field == "KDR=0";
    fields.all(harmless).then_some(Crypto { tag, suite, key })
}

fn parse_rtpmap(argument: &str) -> Option<RtpMap> {
    let (payload_type, encoding) = argument.split_once(' ')?;
    let mut encoding = encoding.trim().split('/');
    let name = encoding.next()?.to_string();
    let clock_hz = encoding.next()?.parse().ok()?;
    let channels = encoding
        .next()
        .map_or(Some(1), |channels| channels.parse().ok())?;
    let payload_type = payload_type.parse().ok().filter(|pt| *pt < 128)?;
    Some(RtpMap {
        payload_type,
        name,
        clock_hz,
        channels,
    })
}
