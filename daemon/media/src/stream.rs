//! Stream: what SDP agreed on about the packets of a leg, both ways. Made by negotiation, obeyed by the realtime thread.

use crate::codec::Codec;
use crate::srtp;
use std::net::SocketAddr;

/// Everything that may change in mid-call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Where the peer wants its RTP.
    pub remote: SocketAddr,
    /// What is sent, and expected. Codecs with a static payload type are understood besides.
    pub codec: Codec,
    /// Payload type under which the peer wants it.
    pub payload_type: u8,
    /// Payload type under which it may come; differs only from a peer that renumbered our offer.
    pub receive_type: u8,
    /// Length of the packets the peer wants \[ms\].
    pub ptime_ms: u16,
    /// Payload type of telephone-events, if agreed; otherwise digits are tones both ways.
    pub event_pt: Option<u8>,
    /// Clock of their durations \[Hz\].
    pub event_clock_hz: u32,
    /// Where reports go.
    pub rtcp: Rtcp,
    /// Keys, if packets are sealed.
    pub srtp: Option<srtp::Keys>,
}

/// How RTCP is carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rtcp {
    /// On the port of the RTP (RFC 5761).
    Mux,
    /// On a port of its own; this is the peer's (RFC 3550 §11, RFC 3605).
    Port(SocketAddr),
}

impl Stream {
    /// What needs no agreement: a codec at its static payload type (96 if it has none), 20 ms, telephone-events at
    /// 101, RTCP on the next port, nothing sealed.
    #[must_use]
    pub fn plain(remote: SocketAddr, codec: Codec) -> Stream {
        let payload_type = codec.static_payload_type().unwrap_or(96);
        Stream {
            remote,
            codec,
            payload_type,
            receive_type: payload_type,
            ptime_ms: 20,
            event_pt: Some(101),
            event_clock_hz: codec.rtp_clock_hz(),
            rtcp: Rtcp::Port(SocketAddr::new(remote.ip(), remote.port().wrapping_add(1))),
            srtp: None,
        }
    }

    /// The codec that comes under this payload type, if we understand it.
    #[must_use]
    pub fn codec_of(&self, payload_type: u8) -> Option<Codec> {
        if payload_type == self.receive_type || payload_type == self.payload_type {
            Some(self.codec)
        } else {
            Codec::from_payload_type(payload_type)
        }
    }
}
