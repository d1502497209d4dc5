//! Offer and answer: which codec, where to, which way, sealed or not.
//!
//! Pure: descriptions in, descriptions and [`Negotiated`] out. Source: RFC 3264; RFC 4568 (keys), RFC 7587 (Opus).

use std::net::{IpAddr, SocketAddr};

use attendant_media::codec::{Codec, PTIMES_MS};
use attendant_media::srtp::{Keys, MASTER_OCTETS, MasterKey, Suite};
use attendant_media::stream::{Rtcp, Stream};

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
        let events = events.iter().map(|&(pt, _)| (pt, "0-15".to_string()));
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

/// What stands for Opus in packets to us: as the peer numbers it, unless that number is taken by us for our own offer.
fn receive_type(audio: &Media, payload_type: u8) -> u8 {
    let ours_is_theirs = audio
        .rtpmaps
        .iter()
        .any(|map| map.payload_type == OPUS_PAYLOAD_TYPE);
    if ours_is_theirs {
        payload_type
    } else {
        OPUS_PAYLOAD_TYPE
    }
}

/// The same line with port 0 (RFC 3264 §6).
fn refused(media: &Media) -> Media {
    Media {
        port: 0,
        formats: media.formats.iter().take(1).cloned().collect(),
        connection: None,
        rtpmaps: Vec::new(),
        fmtps: Vec::new(),
        ptime_ms: None,
        max_ptime_ms: None,
        rtcp: None,
        rtcp_mux: false,
        cryptos: Vec::new(),
        direction: None,
        kind: media.kind.clone(),
        proto: media.proto.clone(),
    }
}

/// The codec that `payload_type` means in `audio`: by its rtpmap, or the static one where it has none.
fn codec_of(audio: &Media, payload_type: u8) -> Option<Codec> {
    match audio.rtpmaps.iter().find(|map| map.payload_type == payload_type) {
        Some(map) => Codec::from_name(&map.name).filter(|codec| codec.rtp_clock_hz() == map.clock_hz),
        None => Codec::from_payload_type(payload_type),
    }
}

/// Payload type and clock of telephone-events with this clock.
fn event_of(audio: &Media, clock_hz: u32) -> Option<(u8, u32)> {
    let is_event =
        |map: &&RtpMap| map.name.eq_ignore_ascii_case("telephone-event") && map.clock_hz == clock_hz;
    let listed = |pt: &u8| audio.formats.contains(&pt.to_string());
    let mut events = audio.rtpmaps.iter().filter(is_event).map(|map| map.payload_type);
    events.find(listed).map(|pt| (pt, clock_hz))
}

/// The packet time the peer asks for, as near as the codec comes to it.
fn ptime(audio: &Media, codec: Codec) -> u16 {
    let wanted = audio.ptime_ms.filter(|ptime| *ptime > 0).unwrap_or(PTIME_MS);
    let most = audio
        .max_ptime_ms
        .filter(|most| *most > 0)
        .unwrap_or(*PTIMES_MS.end());
    codec.nearest_ptime_ms(wanted.min(most))
}

fn rtcp(audio: &Media, ip: IpAddr) -> Rtcp {
    if audio.rtcp_mux {
        return Rtcp::Mux;
    }
    let (port, address) = audio.rtcp.unwrap_or((audio.port.saturating_add(1), None));
    Rtcp::Port(SocketAddr::new(address.unwrap_or(ip), port))
}

fn offered(audio: &Media) -> String {
    let name = |format: &String| {
        let map = audio
            .rtpmaps
            .iter()
            .find(|m| m.payload_type.to_string() == *format);
        map.map_or_else(|| format!("payload type {format}"), |m| m.name.clone())
    };
    audio
        .formats
        .iter()
        .take(8)
        .map(name)
        .collect::<Vec<_>>()
        .join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local() -> LocalMedia {
        with_policy(SrtpPolicy::Offered)
    }

    fn with_policy(srtp: SrtpPolicy) -> LocalMedia {
        LocalMedia::new([127, 0, 0, 1].into(), 4000, &Codec::ALL, srtp)
    }

    fn offer(connection: &str, formats: &str, attributes: &str) -> Sdp {
        let text = format!(
            "v=0\r\no=- 1 1 IN IP4 192.0.2.1\r\ns=-\r\nc=IN IP4 {connection}\r\nt=0 0\r\nm=audio 5000 RTP/AVP {formats}\r\n{attributes}"
        );
        Sdp::parse(text.as_bytes()).unwrap()
    }

    fn answered(sdp: &Sdp) -> Result<(Sdp, Negotiated), SdpError> {
        local().answer(sdp, [192, 0, 2, 9].into())
    }

    #[test]
    fn the_callers_order_of_codecs_decides() {
        assert_eq!(
            answered(&offer("192.0.2.1", "97 8 0", ""))
                .unwrap()
                .1
                .stream
                .codec,
            Codec::Pcma
        );
        assert_eq!(
            answered(&offer("192.0.2.1", "0 8", "")).unwrap().1.stream.codec,
            Codec::Pcmu
        );
    }

    #[test]
    fn no_common_codec_names_what_was_offered() {
        let error = answered(&offer("192.0.2.1", "96 18", "a=rtpmap:96 speex/16000\r\n")).unwrap_err();
        assert_eq!(
            error,
            SdpError::NoCommonCodec {
                offered: "speex, payload type 18".to_string()
            }
        );
    }

    #[test]
    fn telephone_event_keeps_the_offered_payload_type() {
        let sdp = offer("192.0.2.1", "0 97", "a=rtpmap:97 telephone-event/8000\r\n");
        let (answer, agreed) = answered(&sdp).unwrap();
        assert_eq!(agreed.stream.event_pt, Some(97));
        assert_eq!(answer.media[0].formats, ["0", "97"]);
        assert_eq!(
            answered(&offer("192.0.2.1", "0", "")).unwrap().1.stream.event_pt,
            None
        );
    }

    #[test]
    fn every_kind_of_hold_is_seen() {
        let cases = [
            ("192.0.2.1", "", Direction::SendRecv, false),
            ("192.0.2.1", "a=sendonly\r\n", Direction::RecvOnly, true),
            ("192.0.2.1", "a=inactive\r\n", Direction::Inactive, true),
            ("192.0.2.1", "a=recvonly\r\n", Direction::SendOnly, false),
            ("0.0.0.0", "", Direction::RecvOnly, true),
            ("0.0.0.0", "a=inactive\r\n", Direction::Inactive, true),
        ];
        for (connection, attribute, direction, hold) in cases {
            let (answer, agreed) = answered(&offer(connection, "0", attribute)).unwrap();
            assert_eq!(
                (agreed.direction, agreed.on_hold()),
                (direction, hold),
                "{connection} {attribute}"
            );
            assert_eq!(answer.direction_of(&answer.media[0]), direction);
        }
    }

    #[test]
    fn other_streams_are_refused_in_place() {
        let sdp = offer("192.0.2.1", "0", "m=video 6000 RTP/AVP 98 99\r\n");
        let (answer, _) = answered(&sdp).unwrap();
        assert_eq!(answer.media.len(), 2);
        assert_eq!(
            (answer.media[1].kind.as_str(), answer.media[1].port),
            ("video", 0)
        );
    }

    #[test]
    fn our_offer_and_our_answer_agree() {
        for (policy, sealed) in [(SrtpPolicy::Offered, false), (SrtpPolicy::Required, true)] {
            for codec in Codec::ALL {
                let mut ours = LocalMedia::new([127, 0, 0, 1].into(), 4000, &[codec, Codec::Pcmu], policy);
                let mut theirs = with_policy(SrtpPolicy::Offered);
                let offer = ours.offer(Direction::SendRecv);
                let text = offer.to_string();
                assert_eq!(text.contains("RTP/SAVP"), sealed);
                let (answer, there) = theirs
                    .answer(&Sdp::parse(text.as_bytes()).unwrap(), [192, 0, 2, 9].into())
                    .unwrap();
                let answer = Sdp::parse(answer.to_string().as_bytes()).unwrap();
                let here = ours.accept(&answer, [192, 0, 2, 9].into()).unwrap();
                let (here, there) = (here.stream, there.stream);
                assert_eq!((here.codec, there.codec), (codec, codec));
                assert_eq!((here.payload_type, here.ptime_ms), (there.payload_type, 20));
                let event = if codec == Codec::Opus {
                    (102, 48_000)
                } else {
                    (101, 8000)
                };
                assert_eq!((here.event_pt, here.event_clock_hz), (Some(event.0), event.1));
                assert_eq!((there.event_pt, there.event_clock_hz), (Some(event.0), event.1));
                assert_eq!((here.rtcp, there.rtcp), (Rtcp::Mux, Rtcp::Mux));
                match (here.srtp, there.srtp) {
                    (Some(here), Some(there)) if sealed => {
                        assert_eq!((here.local, here.remote), (there.remote, there.local));
                        assert_ne!(here.local, here.remote);
                    }
                    (None, None) if !sealed => {}
                    other => panic!("{other:?}"),
                }
            }
        }
    }

    #[test]
    fn opus_as_softphones_offer_it() {
        let sdp = offer(
            "192.0.2.1",
            "96 0 97 98",
            "a=rtpmap:96 opus/48000/2\r\na=fmtp:96 useinbandfec=1\r\na=rtpmap:97 telephone-event/8000\r\n\
             a=rtpmap:98 telephone-event/48000\r\na=ptime:40\r\na=maxptime:30\r\n",
        );
        let (answer, agreed) = answered(&sdp).unwrap();
        let stream = agreed.stream;
        assert_eq!(
            (stream.codec, stream.payload_type, stream.ptime_ms),
            (Codec::Opus, 96, 20)
        );
        assert_eq!((stream.event_pt, stream.event_clock_hz), (Some(98), 48_000));
        let line = answer.to_string();
        assert!(
            line.contains("a=rtpmap:96 opus/48000/2\r\n") && line.contains("useinbandfec=1"),
            "{line}"
        );
        assert_eq!(answer.media[0].formats, ["96", "98"]);
        // Without events at its clock, those at 8 kHz are taken.
        let sdp = offer(
            "192.0.2.1",
            "96 97",
            "a=rtpmap:96 opus/48000/2\r\na=rtpmap:97 telephone-event/8000\r\n",
        );
        let stream = answered(&sdp).unwrap().1.stream;
        assert_eq!((stream.event_pt, stream.event_clock_hz), (Some(97), 8000));
    }

    #[test]
    fn an_answer_may_renumber_opus() {
        let mut ours = local();
        ours.offer(Direction::SendRecv);
        let answer = offer("192.0.2.1", "120", "a=rtpmap:120 OPUS/48000/2\r\n");
        let stream = ours.accept(&answer, [192, 0, 2, 9].into()).unwrap().stream;
        assert_eq!(
            (stream.payload_type, stream.receive_type),
            (120, OPUS_PAYLOAD_TYPE)
        );
        assert_eq!(stream.codec_of(120), Some(Codec::Opus));
        assert_eq!(stream.codec_of(OPUS_PAYLOAD_TYPE), Some(Codec::Opus));
    }

    #[test]
    fn a_dynamic_number_means_what_its_map_says() {
        let sdp = offer(
            "192.0.2.1",
            "97 9",
            "a=rtpmap:97 PCMA/8000\r\na=rtpmap:9 G722/8000\r\n",
        );
        let stream = answered(&sdp).unwrap().1.stream;
        assert_eq!((stream.codec, stream.payload_type), (Codec::Pcma, 97));
        // G.722 at its real rate is none (RFC 3551 §4.5.2), and a static number may mean another thing.
        let sdp = offer(
            "192.0.2.1",
            "9 0",
            "a=rtpmap:9 G722/16000\r\na=rtpmap:0 PCMU/8000\r\n",
        );
        assert_eq!(answered(&sdp).unwrap().1.stream.codec, Codec::Pcmu);
    }

    #[test]
    fn only_configured_codecs_are_spoken() {
        let mut narrow = LocalMedia::new([127, 0, 0, 1].into(), 4000, &[Codec::Pcma], SrtpPolicy::Off);
        assert_eq!(narrow.offer(Direction::SendRecv).media[0].formats, ["8", "101"]);
        let (_, agreed) = narrow
            .answer(&offer("192.0.2.1", "9 0 8", ""), [192, 0, 2, 9].into())
            .unwrap();
        assert_eq!(agreed.stream.codec, Codec::Pcma);
        assert!(
            narrow
                .answer(&offer("192.0.2.1", "9 0", ""), [192, 0, 2, 9].into())
                .is_err()
        );
        let mut all = local();
        assert_eq!(
            all.offer(Direction::SendRecv).media[0].formats,
            ["107", "9", "0", "8", "101", "102"]
        );
    }

    #[test]
    fn packet_times_are_met_as_near_as_possible() {
        for (attributes, pcmu, opus) in [
            ("", 20, 20),
            ("a=ptime:10\r\n", 10, 10),
            ("a=ptime:30\r\n", 30, 20),
            ("a=ptime:60\r\n", 60, 60),
            ("a=ptime:60\r\na=maxptime:40\r\n", 40, 40),
            ("a=ptime:5\r\n", 10, 10),
            ("a=ptime:150\r\n", 60, 60),
            ("a=ptime:0\r\n", 20, 20),
            ("a=maxptime:10\r\n", 10, 10),
        ] {
            let stream = answered(&offer("192.0.2.1", "0", attributes)).unwrap().1.stream;
            assert_eq!(stream.ptime_ms, pcmu, "{attributes}");
            let attributes = format!("a=rtpmap:96 opus/48000/2\r\n{attributes}");
            let stream = answered(&offer("192.0.2.1", "96", &attributes)).unwrap().1.stream;
            assert_eq!(stream.ptime_ms, opus, "{attributes}");
        }
    }

    #[test]
    fn reports_go_where_the_peer_wants_them() {
        let port = |text: &str| Rtcp::Port(text.parse().unwrap());
        for (attributes, want) in [
            ("", port("192.0.2.1:5001")),
            ("a=rtcp:7000\r\n", port("192.0.2.1:7000")),
            ("a=rtcp:7000 IN IP4 192.0.2.77\r\n", port("192.0.2.77:7000")),
            ("a=rtcp:5000\r\na=rtcp-mux\r\n", Rtcp::Mux),
        ] {
            let (answer, agreed) = answered(&offer("192.0.2.1", "0", attributes)).unwrap();
            assert_eq!(agreed.stream.rtcp, want, "{attributes}");
            assert_eq!(answer.media[0].rtcp_mux, want == Rtcp::Mux);
        }
    }

    const KEY: &str = "a=crypto:3 F8_128_HMAC_SHA1_80 inline:AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0e\r\n\
        a=crypto:4 AES_CM_128_HMAC_SHA1_32 inline:AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0e|2^31|1:1\r\n";

    fn lines(media: &str) -> Sdp {
        let text = format!("v=0\r\no=- 1 1 IN IP4 1.2.3.4\r\nc=IN IP4 1.2.3.4\r\n{media}");
        Sdp::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_key_is_answered_with_ours_under_its_number() {
        for proto in ["RTP/SAVP", "RTP/SAVPF"] {
            let (answer, agreed) = answered(&lines(&format!("m=audio 5000 {proto} 0\r\n{KEY}"))).unwrap();
            let keys = agreed.stream.srtp.unwrap();
            assert_eq!(keys.suite, Suite::Tag32);
            assert_eq!(keys.remote.expose()[..4], [1, 2, 3, 4]);
            let line = &answer.media[0];
            assert_eq!((line.proto.as_str(), line.cryptos.len()), (proto, 1));
            assert_eq!((line.cryptos[0].tag, line.cryptos[0].key), (4, keys.local));
        }
    }

    #[test]
    fn a_key_stays_for_the_whole_call() {
        let mut local = local();
        let sdp = lines(&format!("m=audio 5000 RTP/SAVP 0\r\n{KEY}"));
        let key = |local: &mut LocalMedia| {
            local
                .answer(&sdp, [1, 2, 3, 4].into())
                .unwrap()
                .1
                .stream
                .srtp
                .unwrap()
                .local
        };
        let first = key(&mut local);
        assert_eq!(first, key(&mut local));
        assert_ne!(first, key(&mut self::local()));
    }

    #[test]
    fn policies_decide_about_encryption() {
        let (plain, sealed) = (
            "m=audio 5000 RTP/AVP 0\r\n".to_string(),
            format!("m=audio 5002 RTP/SAVP 0\r\n{KEY}"),
        );
        let both = format!("{plain}{sealed}");
        let port = |policy, text: &str| {
            let answer = with_policy(policy).answer(&lines(text), [1, 2, 3, 4].into());
            answer.map(|(_, agreed)| (agreed.stream.remote.port(), agreed.stream.srtp.is_some()))
        };
        use SrtpPolicy::{Off, Offered, Required};
        assert_eq!(port(Off, &plain), Ok((5000, false)));
        assert!(matches!(port(Off, &sealed), Err(SdpError::Sealed(_))));
        assert_eq!(port(Off, &both), Ok((5000, false)));
        assert_eq!(port(Offered, &plain), Ok((5000, false)));
        assert_eq!(port(Offered, &sealed), Ok((5002, true)));
        assert_eq!(port(Offered, &both), Ok((5002, true)));
        assert_eq!(port(Required, &plain), Err(SdpError::NotSealed));
        assert_eq!(port(Required, &sealed), Ok((5002, true)));
        // Sealed without a key for us, and with keys agreed on elsewhere (DTLS).
        assert!(matches!(
            port(Offered, "m=audio 5000 RTP/SAVP 0\r\n"),
            Err(SdpError::Sealed(_))
        ));
        assert_eq!(
            port(Offered, "m=audio 5000 UDP/TLS/RTP/SAVPF 0\r\n"),
            Err(SdpError::NoAudio)
        );
        assert_eq!(port(Offered, "m=audio 0 RTP/AVP 0\r\n"), Err(SdpError::NoAudio));
    }

    #[test]
    fn a_host_name_falls_back_to_the_signalling_address() {
        let (_, agreed) = answered(&offer("pbx.example", "0", "")).unwrap();
        assert_eq!(agreed.stream.remote, "192.0.2.9:5000".parse().unwrap());
    }
}
