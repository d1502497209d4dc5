//! What one media line of the peer says: codecs, events, packet time, where reports go. Source: RFC 3264, RFC 4733.

use std::net::{IpAddr, SocketAddr};

use attendant_media::codec::{Codec, PTIMES_MS};
use attendant_media::stream::Rtcp;

use super::{OPUS_PAYLOAD_TYPE, PTIME_MS};
use crate::sdp::{Media, RtpMap};

/// What stands for Opus in packets to us: as the peer numbers it, unless that number is taken by us for our own offer.
pub fn receive_type(audio: &Media, payload_type: u8) -> u8 {
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

/// The codec that `payload_type` means in `audio`: by its rtpmap, or the static one where it has none.
pub fn codec_of(audio: &Media, payload_type: u8) -> Option<Codec> {
    match audio.rtpmaps.iter().find(|map| map.payload_type == payload_type) {
        Some(map) => Codec::from_name(&map.name).filter(|codec| codec.rtp_clock_hz() == map.clock_hz),
        None => Codec::from_payload_type(payload_type),
    }
}

/// Payload type and clock of telephone-events with this clock.
pub fn event_of(audio: &Media, clock_hz: u32) -> Option<(u8, u32)> {
    let is_event =
        |map: &&RtpMap| map.name.eq_ignore_ascii_case("telephone-event") && map.clock_hz == clock_hz;
    let listed = |pt: &u8| audio.formats.contains(&pt.to_string());
    let mut events = audio.rtpmaps.iter().filter(is_event).map(|map| map.payload_type);
    events.find(listed).map(|pt| (pt, clock_hz))
}

/// The packet time the peer asks for, as near as the codec comes to it.
pub fn ptime(audio: &Media, codec: Codec) -> u16 {
    let wanted = audio.ptime_ms.filter(|ptime| *ptime > 0).unwrap_or(PTIME_MS);
    let most = audio
        .max_ptime_ms
        .filter(|most| *most > 0)
        .unwrap_or(*PTIMES_MS.end());
    codec.nearest_ptime_ms(wanted.min(most))
}

pub fn rtcp(audio: &Media, ip: IpAddr) -> Rtcp {
    if audio.rtcp_mux {
        return Rtcp::Mux;
    }
    let (port, address) = audio.rtcp.unwrap_or((audio.port.saturating_add(1), None));
    Rtcp::Port(SocketAddr::new(address.unwrap_or(ip), port))
}

pub fn offered(audio: &Media) -> String {
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
