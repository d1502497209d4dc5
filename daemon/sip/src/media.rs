//! Offer and answer: which codec, where to, which way, sealed or not.
//!
//! Pure: descriptions in, descriptions and [`Negotiated`] out. Source: RFC 3264; RFC 4568 (keys), RFC 7587 (Opus).

mod line;
#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};

use attendant_media::codec::{Codec, PTIMES_MS};
use attendant_media::srtp::{Keys, MASTER_OCTETS, MasterKey, Suite};
use attendant_media::stream::Stream;

use self::line::{codec_of, event_of, offered, ptime, receive_type, rtcp};
use crate::sdp::{Connection, Crypto, Direction, Media, Profile, RtpMap, Sdp, SdpError};

/// Payload type we offer for telephone-event; dynamic, 101 is what every gateway expects.
const EVENT_PAYLOAD_TYPE: u8 = 101;
/// The same at the clock of Opus (RFC 4733 §2.1: an event has the clock of the stream it belongs to).
const WIDE_EVENT_PAYLOAD_TYPE: u8 = 102;
/// Payload type we offer for Opus; dynamic, 107 is what Asterisk uses and collides with nothing usual.
const OPUS_PAYLOAD_TYPE: u8 = 107;
/// What we say of the Opus we take (RFC 7587 §6.1): copies of lost speech help, more than this is no gain at 16 kHz, and
/// one channel is heard.
const OPUS_FMTP: &str =
    "useinbandfec=1;maxaveragebitrate=32000;maxplaybackrate=16000;sprop-maxcapturerate=16000;stereo=0";
/// Packet time we ask for \[ms\].
const PTIME_MS: u16 = 20;
/// Events we take: the keys, and the hook's flash (RFC 4733 §3.2).
const EVENTS: &str = "0-16";
/// Clock of telephone-events that everybody has \[Hz\].
const EVENT_CLOCK_HZ: u32 = 8000;

/// Whether calls are encrypted (SRTP with keys in SDP). Keys in SDP are as secret as the signalling: use TLS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SrtpPolicy {
    /// Encrypted audio is refused (488).
    Off,
    /// Encrypted when the peer offers it; what we offer is not.
    #[default]
    Offered,
    /// Audio in clear is refused (488); what we offer is encrypted.
    Required,
}

/// What both sides agreed on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Negotiated {
    /// Codec, addresses, packet time, keys: what the audio leg obeys.
    pub stream: Stream,
    /// Which way media flows, from our point of view.
    pub direction: Direction,
}

impl Negotiated {
    /// Whether the far end has put us on hold: it does not want to hear us.
    pub fn on_hold(&self) -> bool {
        matches!(self.direction, Direction::RecvOnly | Direction::Inactive)
    }
}

/// What an INVITE brought.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum MediaOffer {
    /// The peer offered and we agree.
    Negotiated(Negotiated),
    /// No offer: ours goes out with the 200, the answer comes with the ACK.
    Late,
}

/// Our end of the session: one per call.
#[derive(Debug, Clone)]
pub(crate) struct LocalMedia {
    pub ip: IpAddr,
    pub port: u16,
    pub session_id: u64,
    /// Rises with every description sent (RFC 3264 §8).
    pub version: u64,
    /// What we speak, best first.
    codecs: Vec<Codec>,
    srtp: SrtpPolicy,
    /// What we seal with, the same for the whole call: a key that starts anew would repeat its stream.
    key: MasterKey,
}

impl LocalMedia {
    /// `codecs` best first; a session id and a key of its own.
    pub fn new(ip: IpAddr, port: u16, codecs: &[Codec], srtp: SrtpPolicy) -> LocalMedia {
        LocalMedia {
            ip,
            port,
            session_id: u64::from(rand::random::<u32>()),
            version: 0,
            codecs: codecs.to_vec(),
            srtp,
            key: MasterKey::new(rand::random::<[u8; MASTER_OCTETS]>()),
        }
    }

    /// A full offer with our codecs.
    pub fn offer(&mut self, direction: Direction) -> Sdp {
        let codecs: Vec<(Codec, u8)> = self
            .codecs
            .iter()
            .map(|&codec| (codec, offered_type(codec)))
            .collect();
        let narrow = codecs
            .iter()
            .any(|(codec, _)| codec.rtp_clock_hz() == EVENT_CLOCK_HZ);
        let wide = codecs.iter().any(|(codec, _)| *codec == Codec::Opus);
        let events = [
            narrow.then_some((EVENT_PAYLOAD_TYPE, EVENT_CLOCK_HZ)),
            wide.then_some((WIDE_EVENT_PAYLOAD_TYPE, Codec::Opus.rtp_clock_hz())),
        ];
        let crypto = (self.srtp == SrtpPolicy::Required).then_some(Crypto {
            tag: 1,
            suite: Suite::Tag80,
            key: self.key,
        });
        let proto = if crypto.is_some() { "RTP/SAVP" } else { "RTP/AVP" };
        let events: Vec<(u8, u32)> = events.into_iter().flatten().collect();
        let mut media = self.line(proto, &codecs, &events, crypto, direction);
        media.rtcp_mux = true;
        self.describe(vec![media])
    }

    /// Answers `offer`. `fallback` is where the INVITE came from, used when the offer names a host.
    ///
    /// # Errors
    /// [`SdpError`] when no audio stream can be agreed on: refuse with 488.
    pub fn answer(&mut self, offer: &Sdp, fallback: IpAddr) -> Result<(Sdp, Negotiated), SdpError> {
        let (index, audio, crypto) = self.choose(offer)?;
        let agreed = self.agree(offer, audio, crypto, fallback)?;
        let stream = agreed.stream;
        let codecs = [(stream.codec, stream.payload_type)];
        let events: Vec<(u8, u32)> = stream
            .event_pt
            .map(|pt| (pt, stream.event_clock_hz))
            .into_iter()
            .collect();
        let crypto = crypto.map(|crypto| Crypto {
            key: self.key,
            ..crypto
        });
        let mut line = self.line(&audio.proto, &codecs, &events, crypto, agreed.direction);
        line.rtcp_mux = audio.rtcp_mux;
        let media = offer
            .media
            .iter()
            .enumerate()
            .map(|(i, m)| if i == index { line.clone() } else { refused(m) });
        let media = media.collect();
        Ok((self.describe(media), agreed))
    }

    /// Reads the answer to our offer.
    ///
    /// # Errors
    /// [`SdpError`] when it accepts nothing we offered: end the call.
    pub fn accept(&self, answer: &Sdp, fallback: IpAddr) -> Result<Negotiated, SdpError> {
        let (_, audio, crypto) = self.choose(answer)?;
        self.agree(answer, audio, crypto, fallback)
    }

    /// The audio stream to take: a sealed one before one in clear, as the policy allows.
    fn choose<'a>(&self, sdp: &'a Sdp) -> Result<(usize, &'a Media, Option<Crypto>), SdpError> {
        let mut refusal = SdpError::NoAudio;
        for profile in [Profile::Sealed, Profile::Plain] {
            for (index, media, _) in sdp.audio().filter(|(_, _, of)| *of == profile) {
                match (profile, self.srtp, media.cryptos.first()) {
                    (Profile::Sealed, SrtpPolicy::Off, _) => {
                        refusal = SdpError::Sealed("srtp = \"off\" is configured")
                    }
                    (Profile::Sealed, _, None) => {
                        refusal = SdpError::Sealed("it names no key for AES_CM_128_HMAC_SHA1_80 or _32");
                    }
                    (Profile::Sealed, _, Some(crypto)) => return Ok((index, media, Some(*crypto))),
                    (Profile::Plain, SrtpPolicy::Required, _) => refusal = SdpError::NotSealed,
                    (Profile::Plain, _, _) => return Ok((index, media, None)),
                }
            }
        }
        Err(refusal)
    }

    fn agree(
        &self,
        sdp: &Sdp,
        audio: &Media,
        crypto: Option<Crypto>,
        fallback: IpAddr,
    ) -> Result<Negotiated, SdpError> {
        // The writer's order decides.
        let (codec, payload_type) = audio
            .formats
            .iter()
            .filter_map(|f| f.parse::<u8>().ok())
            .find_map(|pt| {
                codec_of(audio, pt)
                    .filter(|codec| self.codecs.contains(codec))
                    .map(|codec| (codec, pt))
            })
            .ok_or_else(|| SdpError::NoCommonCodec {
                offered: offered(audio),
            })?;
        let event = event_of(audio, codec.rtp_clock_hz()).or_else(|| event_of(audio, EVENT_CLOCK_HZ));
        let ip = match sdp.connection_of(audio) {
            Some(Connection::Ip(ip)) => *ip,
            Some(Connection::Host(_)) => fallback,
            None => return Err(SdpError::NoAddress),
        };
        let mut direction = sdp.direction_of(audio).reversed();
        // Hold as RFC 2543 wrote it: the peer is not to be sent anything.
        if ip.is_unspecified() {
            direction = match direction {
                Direction::SendRecv => Direction::RecvOnly,
                Direction::SendOnly => Direction::Inactive,
                other => other,
            };
        }
        if ip.is_multicast() {
            return Err(SdpError::NoAddress);
        }
        let stream = Stream {
            remote: SocketAddr::new(ip, audio.port),
            codec,
            payload_type,
            // In an answer to our offer, ours: a peer may number its side otherwise (RFC 3264 §5.1).
            receive_type: if codec == Codec::Opus {
                receive_type(audio, payload_type)
            } else {
                payload_type
            },
            ptime_ms: ptime(audio, codec),
            event_pt: event.map(|(pt, _)| pt),
            event_clock_hz: event.map_or(EVENT_CLOCK_HZ, |(_, clock_hz)| clock_hz),
            rtcp: rtcp(audio, ip),
            srtp: crypto.map(|crypto| Keys {
                suite: crypto.suite,
                local: self.key,
                remote: crypto.key,
            }),
        };
        Ok(Negotiated { stream, direction })
    }

    fn describe(&mut self, media: Vec<Media>) -> Sdp {
        self.version += 1;
        Sdp {
            session_id: self.session_id.to_string(),
            version: self.version,
            origin: self.ip,
            connection: Some(Connection::Ip(self.ip)),
            direction: None,
            media,
        }
    }

    fn line(
        &self,
        proto: &str,
        codecs: &[(Codec, u8)],
        events: &[(u8, u32)],
        crypto: Option<Crypto>,
        direction: Direction,
    ) -> Media {
        let codec_maps = codecs.iter().map(|&(codec, payload_type)| RtpMap {
            payload_type,
            name: codec.name().to_string(),
            clock_hz: codec.rtp_clock_hz(),
            channels: codec.sdp_channels(),
        });
        let event_maps = events.iter().map(|&(payload_type, clock_hz)| RtpMap {
            payload_type,
            name: "telephone-event".to_string(),
            clock_hz,
            channels: 1,
        });
        let opus = codecs.iter().filter(|(codec, _)| *codec == Codec::Opus);
        let opus = opus.map(|&(_, pt)| (pt, OPUS_FMTP.to_string()));
        let events = events.iter().map(|&(pt, _)| (pt, EVENTS.to_string()));
        let rtpmaps: Vec<RtpMap> = codec_maps.chain(event_maps).collect();
        Media {
            kind: "audio".to_string(),
            port: self.port,
            proto: proto.to_string(),
            formats: rtpmaps.iter().map(|map| map.payload_type.to_string()).collect(),
            connection: None,
            rtpmaps,
            fmtps: opus.chain(events).collect(),
            ptime_ms: Some(PTIME_MS),
            max_ptime_ms: Some(*PTIMES_MS.end()),
            rtcp: None,
            rtcp_mux: false,
            cryptos: crypto.into_iter().collect(),
            direction: Some(direction),
        }
    }
}

fn offered_type(codec: Codec) -> u8 {
    codec.static_payload_type().unwrap_or(OPUS_PAYLOAD_TYPE)
}

/// The same line with port 0 (RFC 3264 §6).
fn refused(media: &Media) -> Media {
    Media {
        kind: media.kind.clone(),
        proto: media.proto.clone(),
        formats: media.formats.iter().take(1).cloned().collect(),
        ..Media::default()
    }
}
