//! Sealing: what we send, encrypted and authenticated. Source: RFC 3711 §3.3, §3.4.

use hmac::Mac;

use super::session::Session;
use super::{
    ENCRYPTED, MasterKey, RTCP_CLEAR_OCTETS, RTCP_INDEX_OCTETS, RTCP_TAG_OCTETS, Suite, rtcp_ssrc, split,
    stream_of,
};
use crate::MediaError;
use crate::rtp;

/// Encrypts what we send. One key must never seal two streams of the same SSRC: keep it as long as the key.
pub struct Sealer {
    suite: Suite,
    rtp: Session,
    rtcp: Session,
    /// The stream, its rollover counter and its last sequence number.
    ssrc: u32,
    roc: u32,
    last_seq: u16,
    rtcp_index: u32,
}

impl Sealer {
    /// With the local key of an agreement.
    #[must_use]
    pub fn new(suite: Suite, key: &MasterKey) -> Sealer {
        Sealer {
            suite,
            rtp: Session::derive(key, 0),
            rtcp: Session::derive(key, 3),
            ssrc: 0,
            roc: 0,
            last_seq: 0,
            rtcp_index: 0,
        }
    }

    /// Seals the RTP packet in the first `octets` of `wire`; gives the octets to send. Sequence numbers must rise.
    ///
    /// # Errors
    /// [`MediaError::MalformedRtp`], [`MediaError::BufferTooSmall`]; the packet must not be sent.
    pub fn seal_rtp(&mut self, wire: &mut [u8], octets: usize) -> Result<usize, MediaError> {
        let tag_octets = self.suite.tag_octets();
        let (packet, room) = split(wire, octets, tag_octets)?;
        let header_octets = rtp::header_octets(packet)?;
        let (ssrc, seq) = stream_of(packet)?;
        if ssrc != self.ssrc {
            (self.ssrc, self.roc) = (ssrc, 0);
        } else if seq < self.last_seq {
            self.roc = self.roc.wrapping_add(1);
        }
        self.last_seq = seq;
        let index = u64::from(self.roc) << 16 | u64::from(seq);
        self.rtp
            .apply(ssrc, index, packet.get_mut(header_octets..).unwrap_or_default());
        let tag = self
            .rtp
            .tag([packet, &self.roc.to_be_bytes()])
            .finalize()
            .into_bytes();
        room.copy_from_slice(tag.get(..tag_octets).unwrap_or_default());
        Ok(octets + tag_octets)
    }

    /// Seals the compound RTCP packet in the first `octets` of `wire`; gives the octets to send.
    ///
    /// # Errors
    /// [`MediaError::MalformedRtcp`], [`MediaError::BufferTooSmall`]; the packet must not be sent.
    pub fn seal_rtcp(&mut self, wire: &mut [u8], octets: usize) -> Result<usize, MediaError> {
        let (packet, room) = split(wire, octets, RTCP_INDEX_OCTETS + RTCP_TAG_OCTETS)?;
        let ssrc = rtcp_ssrc(packet)?;
        self.rtcp_index = (self.rtcp_index + 1) & !ENCRYPTED;
        let rest = packet.get_mut(RTCP_CLEAR_OCTETS..).unwrap_or_default();
        self.rtcp.apply(ssrc, u64::from(self.rtcp_index), rest);
        let trailer = (ENCRYPTED | self.rtcp_index).to_be_bytes();
        let tag = self.rtcp.tag([packet, &trailer]).finalize().into_bytes();
        for (place, octet) in room.iter_mut().zip(trailer.into_iter().chain(tag)) {
            *place = octet;
        }
        Ok(octets + RTCP_INDEX_OCTETS + RTCP_TAG_OCTETS)
    }
}
