//! RTP packets: parse and write. Source: RFC 3550 §5.1.
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//! |V=2|P|X|  CC   |M|     PT      |       sequence number         |
//! |                           timestamp                           |
//! |           synchronization source (SSRC) identifier            |
//! ```

use crate::MediaError;

/// Octets of the fixed header.
pub const HEADER_OCTETS: usize = 12;

/// A sequence number: counts packets, wraps at 65 536, compares by distance (RFC 1982).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct SeqNumber(pub u16);

impl SeqNumber {
    /// The one after this.
    #[must_use]
    pub fn next(self) -> SeqNumber {
        SeqNumber(self.0.wrapping_add(1))
    }

    /// How far this is ahead of `other` (negative: behind), by the shorter way round \[packets\].
    #[must_use]
    pub fn ahead_of(self, other: SeqNumber) -> i32 {
        i32::from(self.0.wrapping_sub(other.0) as i16)
    }
}

/// How far timestamp `a` is ahead of `b` (negative: behind), by the shorter way round \[RTP clock units\].
#[must_use]
pub fn timestamp_ahead(a: u32, b: u32) -> i32 {
    a.wrapping_sub(b) as i32
}

/// The part of the fixed header that varies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Start of a talkspurt or of an event (RFC 3551 §4.1, RFC 4733 §2.2.1).
    pub marker: bool,
    /// Payload type, 0..=127.
    pub payload_type: u8,
    /// Counts packets.
    pub seq: SeqNumber,
    /// Instant of the first sample \[RTP clock units\].
    pub timestamp: u32,
    /// Identity of the sender's clock and sequence.
    pub ssrc: u32,
}

/// A packet as received, borrowing its payload from the datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packet<'a> {
    /// The header.
    pub header: Header,
    /// The payload, without extension and padding.
    pub payload: &'a [u8],
}

impl<'a> Packet<'a> {
    /// Reads one datagram. Contributing sources and the header extension are skipped, padding is removed.
    ///
    /// # Errors
    /// [`MediaError::MalformedRtp`] for anything that is not a whole RTP packet.
    pub fn parse(datagram: &'a [u8]) -> Result<Packet<'a>, MediaError> {
        let Some((fixed, _)) = datagram.split_first_chunk::<HEADER_OCTETS>() else {
            return Err(malformed("shorter than a header"));
        };
        let [
            flags,
            marker_and_type,
            seq_hi,
            seq_lo,
            t0,
            t1,
            t2,
            t3,
            s0,
            s1,
            s2,
            s3,
        ] = *fixed;
        let mut rest = datagram.get(header_octets(datagram)?..).unwrap_or_default();
        if flags & 0x20 != 0 {
            let padding = usize::from(*rest.last().ok_or_else(|| malformed("padding without payload"))?);
            let kept = rest.len().checked_sub(padding).filter(|_| padding > 0);
            rest = kept
                .and_then(|kept| rest.get(..kept))
                .ok_or_else(|| malformed("impossible padding"))?;
        }
        let header = Header {
            marker: marker_and_type & 0x80 != 0,
            payload_type: marker_and_type & 0x7f,
            seq: SeqNumber(u16::from_be_bytes([seq_hi, seq_lo])),
            timestamp: u32::from_be_bytes([t0, t1, t2, t3]),
            ssrc: u32::from_be_bytes([s0, s1, s2, s3]),
        };
        Ok(Packet {
            header,
            payload: rest,
        })
    }

    /// Writes header and payload into `out`; returns the octets written.
    ///
    /// # Errors
    /// [`MediaError::BufferTooSmall`]; nothing is written.
    pub fn write(&self, out: &mut [u8]) -> Result<usize, MediaError> {
        let need = HEADER_OCTETS + self.payload.len();
        let have = out.len();
        let Some((fixed, rest)) = out.split_first_chunk_mut::<HEADER_OCTETS>() else {
            return Err(MediaError::BufferTooSmall { need, have });
        };
        let Some(body) = rest.get_mut(..self.payload.len()) else {
            return Err(MediaError::BufferTooSmall { need, have });
        };
        *fixed = self.header.to_octets();
        body.copy_from_slice(self.payload);
        Ok(need)
    }
}

impl Header {
    /// The fixed header on the wire: version 2, no padding, no extension, no contributing sources.
    #[must_use]
    pub fn to_octets(&self) -> [u8; HEADER_OCTETS] {
        let [seq_hi, seq_lo] = self.seq.0.to_be_bytes();
        let [t0, t1, t2, t3] = self.timestamp.to_be_bytes();
        let [s0, s1, s2, s3] = self.ssrc.to_be_bytes();
        let marker_and_type = (u8::from(self.marker) << 7) | (self.payload_type & 0x7f);
        [
            0x80,
            marker_and_type,
            seq_hi,
            seq_lo,
            t0,
            t1,
            t2,
            t3,
            s0,
            s1,
            s2,
            s3,
        ]
    }
}

/// Octets before the payload: the fixed header, contributing sources, the header extension.
///
/// # Errors
/// [`MediaError::MalformedRtp`] for what is not RTP version 2, is RTCP, or ends within its header.
pub fn header_octets(datagram: &[u8]) -> Result<usize, MediaError> {
    let Some((&[flags, marker_and_type, ..], _)) = datagram.split_first_chunk::<HEADER_OCTETS>() else {
        return Err(malformed("shorter than a header"));
    };
    if flags >> 6 != 2 {
        return Err(malformed("not version 2"));
    }
    // RFC 5761 §4: these values are RTCP's packet types 192..=223 seen through RTP's eyes.
    if (192..=223).contains(&marker_and_type) {
        return Err(malformed("RTCP"));
    }
    let mut octets = HEADER_OCTETS + usize::from(flags & 0x0f) * 4;
    if octets > datagram.len() {
        return Err(malformed("contributing sources cut off"));
    }
    if flags & 0x10 != 0 {
        let Some(&[_, _, hi, lo]) = datagram.get(octets..).and_then(<[u8]>::first_chunk::<4>) else {
            return Err(malformed("header extension cut off"));
        };
        octets += 4 + usize::from(u16::from_be_bytes([hi, lo])) * 4;
        if octets > datagram.len() {
            return Err(malformed("header extension cut off"));
        }
    }
    Ok(octets)
}

fn malformed(what: &'static str) -> MediaError {
    MediaError::MalformedRtp { what }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
            if let Ok(packet) = Packet::parse(&bytes) {
                prop_assert!(packet.payload.len() + HEADER_OCTETS <= bytes.len());
            }
        }

        #[test]
        fn nearly_rtp_never_panics(flags in 0x80u8..0xc0, mut bytes in proptest::collection::vec(any::<u8>(), 1..80)) {
            bytes[0] = flags;
            let _ = Packet::parse(&bytes);
        }

        #[test]
        fn round_trips(
            marker: bool,
            payload_type in 0u8..64,
            seq: u16,
            timestamp: u32,
            ssrc: u32,
            payload in proptest::collection::vec(any::<u8>(), 0..320),
        ) {
            let header = Header { marker, payload_type, seq: SeqNumber(seq), timestamp, ssrc };
            let packet = Packet { header, payload: &payload };
            let mut wire = [0u8; 400];
            let octets = packet.write(&mut wire).unwrap();
            prop_assert_eq!(Packet::parse(&wire[..octets]).unwrap(), packet);
        }
    }

    #[test]
    fn extension_sources_and_padding_are_stripped() {
        let mut wire = vec![0xb1, 0x00, 0, 1, 0, 0, 0, 2, 0, 0, 0, 3];
        wire.extend([9; 4]); // one contributing source
        wire.extend([0xbe, 0xde, 0, 1, 1, 2, 3, 4]); // extension of one word
        wire.extend([5, 6, 7]); // payload
        wire.extend([0, 2]); // padding
        assert_eq!(Packet::parse(&wire).unwrap().payload, &[5, 6, 7]);
        wire[28 - 2] = 99;
        let last = wire.len() - 1;
        wire[last] = 200;
        assert!(Packet::parse(&wire).is_err());
        wire[last] = 0;
        assert!(Packet::parse(&wire).is_err());
    }

    #[test]
    fn others_are_refused() {
        assert!(Packet::parse(&[]).is_err());
        assert!(Packet::parse(&[0x80; 11]).is_err());
        assert!(Packet::parse(&[0x00; 20]).is_err(), "STUN");
        let rtcp = [0x80, 200, 0, 6, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0];
        assert!(Packet::parse(&rtcp).is_err());
    }

    #[test]
    fn sequence_wraps() {
        assert_eq!(SeqNumber(2).ahead_of(SeqNumber(65_534)), 4);
        assert_eq!(SeqNumber(65_534).ahead_of(SeqNumber(2)), -4);
        assert_eq!(timestamp_ahead(80, u32::MAX - 79), 160);
    }

    #[test]
    fn small_buffer_is_an_error() {
        let header = Header {
            marker: false,
            payload_type: 0,
            seq: SeqNumber(0),
            timestamp: 0,
            ssrc: 0,
        };
        let packet = Packet {
            header,
            payload: &[1, 2, 3],
        };
        assert!(packet.write(&mut [0; 14]).is_err());
        assert!(packet.write(&mut [0; 3]).is_err());
    }
}
