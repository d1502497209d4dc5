//! SDP: parse and build, as much of it as a telephone call needs.
//!
//! Reads any session description of bounded size; unknown lines and attributes are skipped. What is built here parses
//! back to the same value. Source: RFC 8866 (SDP), RFC 3264 (directions), RFC 4733 (telephone-event), RFC 4568 (keys),
//! RFC 3605 and RFC 5761 (RTCP).

mod read;
#[cfg(test)]
mod tests;
mod write;

use std::net::IpAddr;

use attendant_media::srtp::{MasterKey, Suite};

/// A description larger than this is refused \[bytes\]; real ones stay below 4 KiB.
pub const MAX_BYTES: usize = 16 * 1024;
/// More media lines than this are refused.
pub const MAX_MEDIA: usize = 16;
/// More formats in one media line than this are refused.
pub const MAX_FORMATS: usize = 32;

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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
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
