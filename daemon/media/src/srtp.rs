//! SRTP and SRTCP: packets encrypted and authenticated. Source: RFC 3711; suites AES_CM_128_HMAC_SHA1_80 and _32 of
//! RFC 4568 §6.2.
//!
//! ```text
//! SRTP:  | RTP header | payload, encrypted | [MKI] | tag of 10 or 4 octets |
//! SRTCP: | RTCP header, SSRC | rest, encrypted | E, index | [MKI] | tag of 10 octets |
//! ```
//!
//! [`Sealer`] is for what we send, [`Opener`] for what we receive. Both work in place and allocate nothing, making
//! them included. The cipher, the hash and the comparison of tags are RustCrypto's.

mod open;
mod seal;
mod session;
#[cfg(test)]
mod tests;

pub use open::Opener;
pub use seal::Sealer;

use crate::MediaError;
use crate::rtp;
use std::fmt;

/// Octets of master key and master salt, as SDES carries them.
pub const MASTER_OCTETS: usize = KEY_OCTETS + SALT_OCTETS;
const KEY_OCTETS: usize = 16;
const SALT_OCTETS: usize = 14;
/// SRTCP's tag has this length in both suites (RFC 4568 §6.2.2).
const RTCP_TAG_OCTETS: usize = 10;
/// The E flag and the index.
const RTCP_INDEX_OCTETS: usize = 4;
/// Packet type and SSRC of the first packet stay in clear.
const RTCP_CLEAR_OCTETS: usize = 8;
const ENCRYPTED: u32 = 0x8000_0000;
/// Most octets that [`Sealer`] adds.
pub const MAX_OVERHEAD_OCTETS: usize = RTCP_INDEX_OCTETS + RTCP_TAG_OCTETS;

/// Which algorithms, by RFC 4568's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Suite {
    /// `AES_CM_128_HMAC_SHA1_80`.
    Tag80,
    /// `AES_CM_128_HMAC_SHA1_32`.
    Tag32,
}

impl Suite {
    /// Name in `a=crypto`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Suite::Tag80 => "AES_CM_128_HMAC_SHA1_80",
            Suite::Tag32 => "AES_CM_128_HMAC_SHA1_32",
        }
    }

    /// The suite of this name in `a=crypto`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Suite> {
        [Suite::Tag80, Suite::Tag32]
            .into_iter()
            .find(|suite| suite.name().eq_ignore_ascii_case(name))
    }

    fn tag_octets(self) -> usize {
        match self {
            Suite::Tag80 => 10,
            Suite::Tag32 => 4,
        }
    }
}

/// A master key with its salt. Prints as `[redacted]`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct MasterKey {
    octets: [u8; MASTER_OCTETS],
    mki_octets: u8,
}

impl MasterKey {
    /// From the octets of SDES: key, then salt.
    #[must_use]
    pub fn new(octets: [u8; MASTER_OCTETS]) -> MasterKey {
        MasterKey {
            octets,
            mki_octets: 0,
        }
    }

    /// The sender puts a master key identifier of this length into each packet.
    #[must_use]
    pub fn with_mki(self, mki_octets: u8) -> MasterKey {
        MasterKey { mki_octets, ..self }
    }

    /// Length of the identifier in each packet \[octets\].
    #[must_use]
    pub fn mki_octets(&self) -> u8 {
        self.mki_octets
    }

    /// For SDP; nowhere else.
    #[must_use]
    pub fn expose(&self) -> &[u8; MASTER_OCTETS] {
        &self.octets
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// What both sides of a call agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keys {
    /// The algorithms, both ways.
    pub suite: Suite,
    /// What we send with.
    pub local: MasterKey,
    /// What the peer sends with.
    pub remote: MasterKey,
}

/// The first `octets` of `wire`, and the `more` behind them.
fn split(wire: &mut [u8], octets: usize, more: usize) -> Result<(&mut [u8], &mut [u8]), MediaError> {
    let have = wire.len();
    let need = octets + more;
    let whole = wire
        .get_mut(..need)
        .ok_or(MediaError::BufferTooSmall { need, have })?;
    Ok(whole.split_at_mut(octets))
}

/// SSRC and sequence number of an RTP packet.
fn stream_of(packet: &[u8]) -> Result<(u32, u16), MediaError> {
    let Some(&[_, _, s0, s1, _, _, _, _, a, b, c, d]) = packet.first_chunk::<{ rtp::HEADER_OCTETS }>() else {
        return Err(MediaError::MalformedRtp {
            what: "shorter than a header",
        });
    };
    Ok((u32::from_be_bytes([a, b, c, d]), u16::from_be_bytes([s0, s1])))
}

fn rtcp_ssrc(packet: &[u8]) -> Result<u32, MediaError> {
    let Some(&[_, _, _, _, a, b, c, d]) = packet.first_chunk::<RTCP_CLEAR_OCTETS>() else {
        return Err(MediaError::MalformedRtcp {
            what: "shorter than a header",
        });
    };
    Ok(u32::from_be_bytes([a, b, c, d]))
}
