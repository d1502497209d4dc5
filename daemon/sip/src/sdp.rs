//! SDP: parse and build, as much of it as a telephone call needs.
//!
//! Reads any session description of bounded size; unknown lines and attributes are skipped. What is built here parses
//! back to the same value. Source: RFC 8866 (SDP), RFC 3264 (directions), RFC 4733 (telephone-event).

use std::fmt::{self, Write as _};
use std::net::IpAddr;

/// A description larger than this is refused \[bytes\]; real ones stay below 4 KiB.
pub const MAX_BYTES: usize = 16 * 1024;
/// More media lines than this are refused.
pub const MAX_MEDIA: usize = 16;
/// More formats in one media line than this are refused.
pub const MAX_FORMATS: usize = 32;
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
    /// No audio stream over plain RTP was offered.
    #[error("no plain RTP audio stream is offered")]
    NoAudio,
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
    /// `RTP/AVP`, `RTP/SAVP`, `udptl` …
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

    /// The first audio stream in use, with its place among the media lines.
    pub fn audio(&self) -> Option<(usize, &Media)> {
        self.media
            .iter()
            .enumerate()
            .find(|(_, m)| m.kind == "audio" && m.proto == "RTP/AVP" && m.port != 0)
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
        direction: None,
    })
}

fn parse_rtpmap(argument: &str) -> Option<RtpMap> {
    let (payload_type, encoding) = argument.split_once(' ')?;
    let mut encoding = encoding.trim().split('/');
    let name = encoding.next()?.to_string();
    let clock_hz = encoding.next()?.parse().ok()?;
    let payload_type = payload_type.parse().ok().filter(|pt| *pt < 128)?;
    Some(RtpMap {
        payload_type,
        name,
        clock_hz,
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
        write!(
            out,
            "a=rtpmap:{} {}/{}\r\n",
            map.payload_type, map.name, map.clock_hz
        )?;
    }
    for (payload_type, parameters) in &media.fmtps {
        write!(out, "a=fmtp:{payload_type} {parameters}\r\n")?;
    }
    if let Some(ptime_ms) = media.ptime_ms {
        write!(out, "a=ptime:{ptime_ms}\r\n")?;
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
        let (index, audio) = sdp.audio().unwrap();
        assert_eq!((index, audio.port), (0, 7078));
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
        let rtpmap = (0u8..128, token(), any::<u32>()).prop_map(|(payload_type, name, clock_hz)| RtpMap {
            payload_type,
            name,
            clock_hz,
        });
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
            prop::option::of(any::<u16>()),
            prop::option::of(direction()),
        )
            .prop_map(
                |((kind, port, proto, formats), connection, rtpmaps, fmtps, ptime_ms, direction)| Media {
                    kind,
                    port,
                    proto,
                    formats,
                    connection,
                    rtpmaps,
                    fmtps,
                    ptime_ms,
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
                let _ = (sdp.audio().map(|(_, m)| sdp.direction_of(m)), sdp.to_string());
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
