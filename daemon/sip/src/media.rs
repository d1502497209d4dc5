//! Offer and answer: which codec, where to, which way.
//!
//! Pure: descriptions in, descriptions and [`Negotiated`] out. Source: RFC 3264.

use std::net::{IpAddr, SocketAddr};

use attendant_media::codec::Codec;

use crate::sdp::{Connection, Direction, Media, RtpMap, Sdp, SdpError};

/// What we can speak, best first.
pub(crate) const CODECS: &[Codec] = &[Codec::Pcmu, Codec::Pcma];
/// Payload type we offer for telephone-event; dynamic, 101 is what every gateway expects.
const EVENT_PAYLOAD_TYPE: u8 = 101;
/// Packet time we send and ask for \[ms\].
const PTIME_MS: u16 = 20;

/// What both sides agreed on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Negotiated {
    /// Codec in both directions.
    pub codec: Codec,
    /// Where our RTP goes.
    pub remote: SocketAddr,
    /// Payload type of telephone-event, if the peer knows it.
    pub event_pt: Option<u8>,
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
}

impl LocalMedia {
    /// A full offer with our codecs.
    pub fn offer(&mut self, direction: Direction) -> Sdp {
        let formats = CODECS
            .iter()
            .map(|c| c.payload_type())
            .chain([EVENT_PAYLOAD_TYPE]);
        let media = self.stream(
            formats.map(|pt| pt.to_string()).collect(),
            CODECS,
            Some(EVENT_PAYLOAD_TYPE),
            direction,
        );
        self.describe(vec![media])
    }

    /// Answers `offer`. `fallback` is where the INVITE came from, used when the offer names a host.
    ///
    /// # Errors
    /// [`SdpError`] when no audio stream can be agreed on: refuse with 488.
    pub fn answer(&mut self, offer: &Sdp, fallback: IpAddr) -> Result<(Sdp, Negotiated), SdpError> {
        let (index, audio) = offer.audio().ok_or(SdpError::NoAudio)?;
        let agreed = agree(offer, audio, fallback)?;
        let mut formats = vec![agreed.codec.payload_type().to_string()];
        formats.extend(agreed.event_pt.map(|pt| pt.to_string()));
        let media = offer.media.iter().enumerate().map(|(i, m)| {
            if i == index {
                self.stream(
                    formats.clone(),
                    &[agreed.codec],
                    agreed.event_pt,
                    agreed.direction,
                )
            } else {
                refused(m)
            }
        });
        let media = media.collect();
        Ok((self.describe(media), agreed))
    }

    /// Reads the answer to our offer.
    ///
    /// # Errors
    /// [`SdpError`] when it accepts nothing we offered: end the call.
    pub fn accept(&self, answer: &Sdp, fallback: IpAddr) -> Result<Negotiated, SdpError> {
        let (_, audio) = answer.audio().ok_or(SdpError::NoAudio)?;
        agree(answer, audio, fallback)
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

    fn stream(
        &self,
        formats: Vec<String>,
        codecs: &[Codec],
        event_pt: Option<u8>,
        direction: Direction,
    ) -> Media {
        let map = |payload_type, name: &str, clock_hz| RtpMap {
            payload_type,
            name: name.to_string(),
            clock_hz,
        };
        let mut rtpmaps: Vec<RtpMap> = codecs
            .iter()
            .map(|c| map(c.payload_type(), c.name(), c.rtp_clock_hz()))
            .collect();
        rtpmaps.extend(event_pt.map(|pt| map(pt, "telephone-event", 8000)));
        Media {
            kind: "audio".to_string(),
            port: self.port,
            proto: "RTP/AVP".to_string(),
            formats,
            connection: None,
            rtpmaps,
            fmtps: event_pt.map(|pt| (pt, "0-15".to_string())).into_iter().collect(),
            ptime_ms: Some(PTIME_MS),
            direction: Some(direction),
        }
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
        direction: None,
        kind: media.kind.clone(),
        proto: media.proto.clone(),
    }
}

fn agree(sdp: &Sdp, audio: &Media, fallback: IpAddr) -> Result<Negotiated, SdpError> {
    // The writer's order decides.
    let codec = audio
        .formats
        .iter()
        .filter_map(|f| f.parse::<u8>().ok())
        .find_map(|pt| CODECS.iter().copied().find(|c| c.payload_type() == pt))
        .ok_or_else(|| SdpError::NoCommonCodec {
            offered: offered(audio),
        })?;
    let event_pt = audio
        .rtpmaps
        .iter()
        .find(|m| m.name.eq_ignore_ascii_case("telephone-event") && m.clock_hz == codec.rtp_clock_hz())
        .map(|m| m.payload_type)
        .filter(|pt| audio.formats.contains(&pt.to_string()));
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
    Ok(Negotiated {
        codec,
        remote: SocketAddr::new(ip, audio.port),
        event_pt,
        direction,
    })
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
        LocalMedia {
            ip: [127, 0, 0, 1].into(),
            port: 4000,
            session_id: 7,
            version: 0,
        }
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
            answered(&offer("192.0.2.1", "96 8 0", "")).unwrap().1.codec,
            Codec::Pcma
        );
        assert_eq!(
            answered(&offer("192.0.2.1", "0 8", "")).unwrap().1.codec,
            Codec::Pcmu
        );
    }

    #[test]
    fn no_common_codec_names_what_was_offered() {
        let error = answered(&offer("192.0.2.1", "96 18", "a=rtpmap:96 opus/48000/2\r\n")).unwrap_err();
        assert_eq!(
            error,
            SdpError::NoCommonCodec {
                offered: "opus, payload type 18".to_string()
            }
        );
    }

    #[test]
    fn telephone_event_keeps_the_offered_payload_type() {
        let sdp = offer("192.0.2.1", "0 97", "a=rtpmap:97 telephone-event/8000\r\n");
        let (answer, agreed) = answered(&sdp).unwrap();
        assert_eq!(agreed.event_pt, Some(97));
        assert_eq!(answer.media[0].formats, ["0", "97"]);
        assert_eq!(answered(&offer("192.0.2.1", "0", "")).unwrap().1.event_pt, None);
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
        let mut ours = local();
        let offer = ours.offer(Direction::SendRecv);
        let (answer, theirs) = answered(&offer).unwrap();
        let agreed = ours.accept(&answer, [192, 0, 2, 9].into()).unwrap();
        assert_eq!((agreed.codec, agreed.event_pt), (Codec::Pcmu, Some(101)));
        assert_eq!((theirs.codec, theirs.event_pt), (Codec::Pcmu, Some(101)));
    }

    #[test]
    fn encrypted_or_removed_audio_is_no_audio() {
        let text = "v=0\r\no=- 1 1 IN IP4 1.2.3.4\r\nc=IN IP4 1.2.3.4\r\nm=audio 5000 RTP/SAVP 0\r\nm=audio 0 RTP/AVP 0\r\n";
        assert_eq!(
            answered(&Sdp::parse(text.as_bytes()).unwrap()).unwrap_err(),
            SdpError::NoAudio
        );
    }

    #[test]
    fn a_host_name_falls_back_to_the_signalling_address() {
        let (_, agreed) = answered(&offer("pbx.example", "0", "")).unwrap();
        assert_eq!(agreed.remote, "192.0.2.9:5000".parse().unwrap());
    }
}
