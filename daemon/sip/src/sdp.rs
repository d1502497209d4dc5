//! SDP: parse and build, as much of it as a telephone call needs.
//!
//! Reads any session description of bounded size; unknown lines and attributes are skipped. What is built here parses
//! back to the same value. Source: RFC 8866 (SDP), RFC 3264 (directions), RFC 4733 (telephone-event), RFC 4568 (keys),
//! RFC 3605 and RFC 5761 (RTCP).

use std::fmt::{self, Write as _};
use std::net::IpAddr;

use attendant_media::srtp::{MASTER_OCTETS, MasterKey, Suite};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

/// A description larger than this is refused \[bytes\]; real ones stay below 4 KiB.
pub const MAX_BYTES: usize = 16 * 1024;
/// More media lines than this are refused.
pub const MAX_MEDIA: usize = 16;
/// More formats in one media line than this are refused.
pub const MAX_FORMATS: usize = 32;
/// More keys in one media line than this are not looked at.
const MAX_CRYPTOS: usize = 16;
/// More lines than this are refused.
const MAX_LINES: usize = 512;

/// Why a description or a negotiation failed; answer 488 (400 where it is no SDP at all).
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SdpError {
    /// Too large, or too many lines, media or formats.
    #[error("the session description exceeds the limit on {0}")]
    TooLarge(&'static str),
    /// Not SDP.
    #[error("the session description has a bad {0} line")]
    Malformed(&'static str),
    /// No audio stream over RTP was offered.
    #[error("no RTP audio stream is offered")]
    NoAudio,
    /// The audio is in clear, and the configuration wants it sealed.
    #[error(
        "the audio is not encrypted, and srtp = \"required\" is configured; offer RTP/SAVP with a=crypto"
    )]
    NotSealed,
    /// The audio is sealed, and the configuration or the offered keys leave no way to open it.
    #[error("the audio is encrypted in a way that is not accepted here: {0}")]
    Sealed(&'static str),
    /// Audio was offered in codecs we do not have.
    #[error("no common codec; the peer offers {offered}")]
    NoCommonCodec {
        /// What the peer can do.
        offered: String,
    },
    /// No address to send to.
    #[error("the session description names no usable address")]
    NoAddress,
}

/// Which way media flows, from the writer's point of view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Direction {
    /// Both ways.
    #[default]
    SendRecv,
    /// The writer only sends (holds the other).
    SendOnly,
    /// The writer only receives.
    RecvOnly,
    /// Neither.
    Inactive,
}

impl Direction {
    /// The same agreement seen from the other side (RFC 3264 §6.1).
    pub fn reversed(self) -> Direction {
        match self {
            Direction::SendRecv => Direction::SendRecv,
            Direction::SendOnly => Direction::RecvOnly,
            Direction::RecvOnly => Direction::SendOnly,
            Direction::Inactive => Direction::Inactive,
        }
    }

    /// Whether the writer wants to hear the other side.
    pub fn receives(self) -> bool {
        matches!(self, Direction::SendRecv | Direction::RecvOnly)
    }

    fn parse(text: &str) -> Option<Direction> {
        match text {
            "sendrecv" => Some(Direction::SendRecv),
            "sendonly" => Some(Direction::SendOnly),
            "recvonly" => Some(Direction::RecvOnly),
            "inactive" => Some(Direction::Inactive),
            _ => None,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Direction::SendRecv => "sendrecv",
            Direction::SendOnly => "sendonly",
            Direction::RecvOnly => "recvonly",
            Direction::Inactive => "inactive",
        }
    }
}

/// A whole session description.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sdp {
    /// `sess-id` of the o= line: digits, any length.
    pub session_id: String,
    /// `sess-version` of the o= line: rises with every change.
    pub version: u64,
    /// Address of the o= line.
    pub origin: IpAddr,
    /// Session-level c= line.
    pub connection: Option<Connection>,
    /// Session-level direction.
    pub direction: Option<Direction>,
    /// Media lines in order.
    pub media: Vec<Media>,
}

/// A c= line's address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Connection {
    /// Numeric address.
    Ip(IpAddr),
    /// A host name; not resolved here.
    Host(String),
}

/// One media line with its attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Media {
    /// `audio`, `video`, `image` …
    pub kind: String,
    /// UDP port; 0 refuses or removes the stream.
    pub port: u16,
    /// `RTP/AVP`, `RTP/SAVP`, `udptl` …; see [`Media::profile`].
    pub proto: String,
    /// Formats in order of preference; for RTP, payload types.
    pub formats: Vec<String>,
    /// Media-level c= line.
    pub connection: Option<Connection>,
    /// `a=rtpmap` lines.
    pub rtpmaps: Vec<RtpMap>,
    /// `a=fmtp` lines: payload type and parameters.
    pub fmtps: Vec<(u8, String)>,
    /// `a=ptime` \[ms\].
    pub ptime_ms: Option<u16>,
    /// `a=maxptime` \[ms\].
    pub max_ptime_ms: Option<u16>,
    /// `a=rtcp`: port, and address if it is another one (RFC 3605).
    pub rtcp: Option<(u16, Option<IpAddr>)>,
    /// `a=rtcp-mux` (RFC 5761).
    pub rtcp_mux: bool,
    /// `a=crypto` lines that we can use.
    pub cryptos: Vec<Crypto>,
    /// Media-level direction.
    pub direction: Option<Direction>,
}

/// One `a=rtpmap` line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RtpMap {
    /// Payload type, 0–127.
    pub payload_type: u8,
    /// Encoding name.
    pub name: String,
    /// RTP clock \[Hz\].
    pub clock_hz: u32,
    /// Channels; 1 where nothing is said.
    pub channels: u8,
}

/// One `a=crypto` line (RFC 4568 §9.1): one key, for a suite we have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crypto {
    /// Number of the line, which the answer repeats.
    pub tag: u32,
    /// Algorithms.
    pub suite: Suite,
    /// Key and salt of its writer.
    pub key: MasterKey,
}

/// How RTP is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Profile {
    /// `RTP/AVP`, `RTP/AVPF`.
    Plain,
    /// `RTP/SAVP`, `RTP/SAVPF`: SRTP with keys in SDP.
    Sealed,
}

impl Media {
    /// How its RTP is carried; `None` for what is no RTP, or SRTP with another way to agree on keys.
    pub fn profile(&self) -> Option<Profile> {
        match self.proto.as_str() {
            "RTP/AVP" | "RTP/AVPF" => Some(Profile::Plain),
            "RTP/SAVP" | "RTP/SAVPF" => Some(Profile::Sealed),
            _ => None,
        }
    }
}

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

    /// The audio streams in use that are RTP, with their places among the media lines.
    pub fn audio(&self) -> impl Iterator<Item = (usize, &Media, Profile)> {
        self.media.iter().enumerate().filter_map(|(n, media)| {
            let profile = media
                .profile()
                .filter(|_| media.kind == "audio" && media.port != 0);
            profile.map(|profile| (n, media, profile))
        })
    }

    /// Where `media` is to be sent: its own c= line, or the session's.
    pub fn connection_of<'a>(&'a self, media: &'a Media) -> Option<&'a Connection> {
        media.connection.as_ref().or(self.connection.as_ref())
    }

    /// The direction that holds for `media`.
    pub fn direction_of(&self, media: &Media) -> Direction {
        media.direction.or(self.direction).unwrap_or_default()
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
        connection: None,
        rtpmaps: Vec::new(),
        fmtps: Vec::new(),
        ptime_ms: None,
        max_ptime_ms: None,
        rtcp: None,
        rtcp_mux: false,
        cryptos: Vec::new(),
        direction: None,
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
fn parse_crypto(argument: &str) -> Option<Crypto> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LINPHONE: &str = "v=0\r\no=bob 3104 2310 IN IP4 192.0.2.4\r\ns=Talk\r\nc=IN IP4 192.0.2.4\r\nt=0 0\r\n\
        a=rtcp-xr:rcvr-rtt=all:10000\r\nm=audio 7078 RTP/AVP 96 0 8 97\r\na=rtpmap:96 opus/48000/2\r\n\
        a=fmtp:96 useinbandfec=1\r\na=rtpmap:97 telephone-event/8000\r\nm=video 9078 RTP/AVP 98\r\na=rtpmap:98 VP8/90000\r\n";

    #[test]
    fn reads_a_softphone_offer() {
        let sdp = Sdp::parse(LINPHONE.as_bytes()).unwrap();
        let (index, audio, profile) = sdp.audio().next().unwrap();
        assert_eq!((index, audio.port, profile), (0, 7078, Profile::Plain));
        assert_eq!(
            (audio.rtpmaps[0].clock_hz, audio.rtpmaps[0].channels),
            (48_000, 2)
        );
        assert_eq!(audio.formats, ["96", "0", "8", "97"]);
        assert_eq!(
            sdp.connection_of(audio),
            Some(&Connection::Ip([192, 0, 2, 4].into()))
        );
        assert_eq!(sdp.direction_of(audio), Direction::SendRecv);
        assert_eq!(sdp.media.len(), 2);
    }

    #[test]
    fn refuses_what_is_not_sdp() {
        let cases: &[(&str, &[u8])] = &[
            ("empty", b""),
            ("text", b"hello"),
            ("no version", b"o=- 1 1 IN IP4 1.2.3.4\r\n"),
            ("no origin", b"v=0\r\ns=-\r\n"),
            ("short origin", b"v=0\r\no=- 1 1\r\n"),
            (
                "bad port",
                b"v=0\r\no=- 1 1 IN IP4 1.2.3.4\r\nm=audio x RTP/AVP 0\r\n",
            ),
            (
                "port too large",
                b"v=0\r\no=- 1 1 IN IP4 1.2.3.4\r\nm=audio 70000 RTP/AVP 0\r\n",
            ),
            (
                "no format",
                b"v=0\r\no=- 1 1 IN IP4 1.2.3.4\r\nm=audio 4000 RTP/AVP\r\n",
            ),
            (
                "bad connection",
                b"v=0\r\no=- 1 1 IN IP4 1.2.3.4\r\nc=ATM x y\r\n",
            ),
        ];
        for (case, body) in cases {
            assert!(Sdp::parse(body).is_err(), "{case}");
        }
    }

    #[test]
    fn refuses_what_is_too_large() {
        let head = "v=0\r\no=- 1 1 IN IP4 1.2.3.4\r\n";
        let cases = [
            ("bytes", format!("{head}{}", "a=x\r\n".repeat(MAX_BYTES))),
            ("lines", format!("{head}{}", "a=x\r\n".repeat(MAX_LINES))),
            (
                "media",
                format!("{head}{}", "m=audio 1 RTP/AVP 0\r\n".repeat(MAX_MEDIA + 1)),
            ),
            (
                "formats",
                format!("{head}m=audio 1 RTP/AVP{}\r\n", " 0".repeat(MAX_FORMATS + 1)),
            ),
        ];
        for (case, body) in cases {
            assert!(
                matches!(Sdp::parse(body.as_bytes()), Err(SdpError::TooLarge(_))),
                "{case}"
            );
        }
    }

    #[test]
    fn keys_are_read_or_left_alone() {
        let key = "inline:AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0e";
        let cases = [
            ("1 AES_CM_128_HMAC_SHA1_80", key.to_string(), "", true),
            ("2 aes_cm_128_hmac_sha1_32", key.to_string(), "", true),
            ("1 AES_CM_128_HMAC_SHA1_80", format!("{key}|2^31"), "", true),
            ("1 AES_CM_128_HMAC_SHA1_80", format!("{key}|2^20|1:4"), "", true),
            (
                "1 AES_CM_128_HMAC_SHA1_80",
                key.to_string(),
                "WSH=128 -FUTURE",
                true,
            ),
            (
                "1 AES_CM_128_HMAC_SHA1_80",
                key.to_string(),
                "UNENCRYPTED_SRTP",
                false,
            ),
            ("1 AES_CM_128_HMAC_SHA1_80", format!("{key}|1:900"), "", false),
            ("1 AES_CM_128_HMAC_SHA1_80", format!("{key};{key}"), "", false),
            ("1 AES_CM_128_HMAC_SHA1_80", "inline:AQID".to_string(), "", false),
            ("1 AES_CM_128_HMAC_SHA1_80", "prompt:x".to_string(), "", false),
            ("1 F8_128_HMAC_SHA1_80", key.to_string(), "", false),
            ("x AES_CM_128_HMAC_SHA1_80", key.to_string(), "", false),
        ];
        for (head, key, parameters, usable) in cases {
            let line = format!("{head} {key} {parameters}");
            let crypto = parse_crypto(&line);
            assert_eq!(crypto.is_some(), usable, "{line}");
            if let Some(crypto) = crypto {
                assert_eq!(crypto.key.expose()[..3], [1, 2, 3]);
                assert!(format!("{crypto:?}").contains("[redacted]"));
            }
        }
    }

    fn token() -> impl Strategy<Value = String> {
        "[a-zA-Z0-9_+-]{1,12}"
    }

    fn ip() -> impl Strategy<Value = IpAddr> {
        prop_oneof![
            any::<[u8; 4]>().prop_map(IpAddr::from),
            any::<[u16; 8]>().prop_map(IpAddr::from)
        ]
    }

    fn connection() -> impl Strategy<Value = Connection> {
        prop_oneof![
            ip().prop_map(Connection::Ip),
            "[a-z]{1,8}[.]example".prop_map(Connection::Host)
        ]
    }

    fn direction() -> impl Strategy<Value = Direction> {
        prop_oneof![
            Just(Direction::SendRecv),
            Just(Direction::SendOnly),
            Just(Direction::RecvOnly),
            Just(Direction::Inactive)
        ]
    }

    fn media() -> impl Strategy<Value = Media> {
        let rtpmap = (0u8..128, token(), any::<u32>(), any::<u8>()).prop_map(
            |(payload_type, name, clock_hz, channels)| RtpMap {
                payload_type,
                name,
                clock_hz,
                channels,
            },
        );
        let crypto = (0u32..1_000_000_000, any::<bool>(), any::<[u8; 30]>(), 0u8..=128).prop_map(
            |(tag, long, key, mki_octets)| Crypto {
                tag,
                suite: if long { Suite::Tag80 } else { Suite::Tag32 },
                key: MasterKey::new(key).with_mki(mki_octets),
            },
        );
        (
            (
                token(),
                any::<u16>(),
                "[A-Z]{2,5}/[A-Z]{2,5}",
                prop::collection::vec(token(), 1..6),
            ),
            prop::option::of(connection()),
            prop::collection::vec(rtpmap, 0..4),
            prop::collection::vec((any::<u8>(), "[a-z0-9=;-]{1,20}"), 0..3),
            (prop::option::of(any::<u16>()), prop::option::of(any::<u16>())),
            (
                prop::option::of((any::<u16>(), prop::option::of(ip()))),
                any::<bool>(),
                prop::collection::vec(crypto, 0..3),
            ),
            prop::option::of(direction()),
        )
            .prop_map(
                |(
                    (kind, port, proto, formats),
                    connection,
                    rtpmaps,
                    fmtps,
                    (ptime_ms, max_ptime_ms),
                    (rtcp, rtcp_mux, cryptos),
                    direction,
                )| Media {
                    kind,
                    port,
                    proto,
                    formats,
                    connection,
                    rtpmaps,
                    fmtps,
                    ptime_ms,
                    max_ptime_ms,
                    rtcp,
                    rtcp_mux,
                    cryptos,
                    direction,
                },
            )
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let _ = Sdp::parse(&bytes);
        }

        #[test]
        fn nearly_sdp_never_panics(tail in "([a-z]=[ -~]{0,40}\r?\n){0,30}") {
            if let Ok(sdp) = Sdp::parse(format!("v=0\r\no=- 1 1 IN IP4 1.2.3.4\r\n{tail}").as_bytes()) {
                let directions: Vec<Direction> = sdp.audio().map(|(_, m, _)| sdp.direction_of(m)).collect();
                let _ = (directions, sdp.to_string());
            }
        }

        #[test]
        fn what_is_built_parses_back(
            session_id in "[0-9]{1,20}", version in any::<u64>(), origin in ip(),
            connection in prop::option::of(connection()), direction in prop::option::of(direction()),
            media in prop::collection::vec(media(), 0..4),
        ) {
            let sdp = Sdp { session_id, version, origin, connection, direction, media };
            prop_assert_eq!(Sdp::parse(sdp.to_string().as_bytes()), Ok(sdp));
        }
    }
}
