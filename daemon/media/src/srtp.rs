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

use crate::MediaError;
use crate::rtp;
use aes::Aes128;
use aes::cipher::{InnerIvInit, KeyInit, StreamCipher};
use hmac::{Hmac, Mac};
use sha1::Sha1;
use std::fmt;

/// Octets of master key and master salt, as SDES carries them.
pub const MASTER_OCTETS: usize = KEY_OCTETS + SALT_OCTETS;
const KEY_OCTETS: usize = 16;
const SALT_OCTETS: usize = 14;
const AUTH_KEY_OCTETS: usize = 20;
/// SRTCP's tag has this length in both suites (RFC 4568 §6.2.2).
const RTCP_TAG_OCTETS: usize = 10;
/// The E flag and the index.
const RTCP_INDEX_OCTETS: usize = 4;
/// Packet type and SSRC of the first packet stay in clear.
const RTCP_CLEAR_OCTETS: usize = 8;
const ENCRYPTED: u32 = 0x8000_0000;
/// Most octets that [`Sealer`] adds.
pub const MAX_OVERHEAD_OCTETS: usize = RTCP_INDEX_OCTETS + RTCP_TAG_OCTETS;
/// Streams of one peer whose packets are told apart: it changes its SSRC at a transfer, not at every packet.
const STREAMS: usize = 4;

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

/// Session keys of one direction, for RTP or for RTCP.
#[derive(Clone)]
struct Session {
    aes: Aes128,
    mac: Hmac<Sha1>,
    salt: [u8; SALT_OCTETS],
}

impl Session {
    /// `label` is 0 for RTP, 3 for RTCP (§4.3.2); keys are never derived anew (rate 0).
    fn derive(master: &MasterKey, label: u8) -> Session {
        let mut key = [0; KEY_OCTETS];
        let mut auth = [0; AUTH_KEY_OCTETS];
        let mut salt = [0; SALT_OCTETS];
        generate(master, label, &mut key);
        generate(master, label + 1, &mut auth);
        generate(master, label + 2, &mut salt);
        Session {
            aes: Aes128::new(&key.into()),
            mac: hmac_sha1(&auth),
            salt,
        }
    }

    /// Encrypts or decrypts (§4.1.1): the counter starts at salt · 2^16 ⊕ SSRC · 2^64 ⊕ index · 2^16.
    fn apply(&self, ssrc: u32, index: u64, data: &mut [u8]) {
        let mut iv = [0; 16];
        iv[..SALT_OCTETS].copy_from_slice(&self.salt);
        let mix = |place: &mut [u8], octets: &[u8]| {
            for (place, octet) in place.iter_mut().zip(octets) {
                *place ^= octet;
            }
        };
        mix(&mut iv[4..8], &ssrc.to_be_bytes());
        mix(&mut iv[8..14], &index.to_be_bytes()[2..]);
        stream(&self.aes, &iv).apply_keystream(data);
    }

    fn tag(&self, parts: [&[u8]; 2]) -> Hmac<Sha1> {
        let mut mac = self.mac.clone();
        parts.into_iter().for_each(|part| mac.update(part));
        mac
    }
}

type Counter<'a> = ctr::Ctr128BE<&'a Aes128>;

fn stream<'a>(aes: &'a Aes128, iv: &[u8; 16]) -> Counter<'a> {
    Counter::from_core(ctr::CtrCore::inner_iv_init(aes, iv.into()))
}

fn hmac_sha1(key: &[u8; AUTH_KEY_OCTETS]) -> Hmac<Sha1> {
    // A key shorter than the hash's block is padded with zeros to one (RFC 2104 §2).
    let mut block = [0; 64];
    block[..AUTH_KEY_OCTETS].copy_from_slice(key);
    <Hmac<Sha1> as KeyInit>::new(&block.into())
}

/// The key derivation function (§4.3.3).
fn generate(master: &MasterKey, label: u8, out: &mut [u8]) {
    let mut key = [0; KEY_OCTETS];
    key.copy_from_slice(&master.octets[..KEY_OCTETS]);
    let mut iv = [0; 16];
    iv[..SALT_OCTETS].copy_from_slice(&master.octets[KEY_OCTETS..]);
    iv[7] ^= label;
    stream(&Aes128::new(&key.into()), &iv).apply_keystream(out);
}

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

/// What is known of one received stream.
#[derive(Clone, Copy, Default)]
struct Received {
    ssrc: u32,
    /// Highest index so far; none: unused.
    highest: Option<u64>,
    /// Bit n: `highest - n` was received.
    window: u64,
    /// For the choice of the one that must give way.
    used: u64,
}

impl Received {
    /// §3.3.1: the index nearest to the highest one whose lower half is `seq`.
    fn index_of(&self, seq: u16) -> u64 {
        let Some(highest) = self.highest else {
            return u64::from(seq);
        };
        let ahead = seq.wrapping_sub(highest as u16) as i16;
        highest
            .checked_add_signed(i64::from(ahead))
            .unwrap_or(u64::from(seq))
    }

    /// §3.3.2: before the window, or in it and seen.
    fn is_replay(&self, index: u64) -> bool {
        let Some(highest) = self.highest else {
            return false;
        };
        match highest.checked_sub(index) {
            Some(behind @ 0..=63) => self.window >> behind & 1 == 1,
            Some(_) => true,
            None => false,
        }
    }

    fn note(&mut self, index: u64, now: u64) {
        self.used = now;
        let highest = self.highest.unwrap_or(index);
        if index >= highest {
            let ahead = u32::try_from(index - highest).unwrap_or(u32::MAX);
            self.window = self.window.checked_shl(ahead).unwrap_or(0) | 1;
            self.highest = Some(index);
        } else {
            self.window |= 1u64.checked_shl((highest - index) as u32).unwrap_or(0);
        }
    }
}

/// Streams of one kind, by SSRC.
#[derive(Clone, Copy, Default)]
struct Streams {
    streams: [Received; STREAMS],
    packets: u64,
}

impl Streams {
    fn of(&self, ssrc: u32) -> Received {
        let known = self
            .streams
            .iter()
            .find(|s| s.ssrc == ssrc && s.highest.is_some());
        known.copied().unwrap_or(Received {
            ssrc,
            ..Received::default()
        })
    }

    /// An authentic packet of `stream` came; a new stream takes the place of the one unused for longest.
    fn note(&mut self, mut stream: Received, index: u64) {
        self.packets += 1;
        stream.note(index, self.packets);
        let known = self
            .streams
            .iter()
            .position(|s| s.ssrc == stream.ssrc && s.highest.is_some());
        let place = match known {
            Some(place) => self.streams.get_mut(place),
            None => self.streams.iter_mut().min_by_key(|s| s.used),
        };
        if let Some(place) = place {
            *place = stream;
        }
    }
}

/// Checks and decrypts what the peer sends.
pub struct Opener {
    suite: Suite,
    mki_octets: usize,
    rtp: Session,
    rtcp: Session,
    rtp_streams: Streams,
    rtcp_streams: Streams,
}

impl Opener {
    /// With the remote key of an agreement.
    #[must_use]
    pub fn new(suite: Suite, key: &MasterKey) -> Opener {
        Opener {
            suite,
            mki_octets: usize::from(key.mki_octets),
            rtp: Session::derive(key, 0),
            rtcp: Session::derive(key, 3),
            rtp_streams: Streams::default(),
            rtcp_streams: Streams::default(),
        }
    }

    /// Opens the SRTP packet that fills `wire`, in place; gives the octets of the RTP packet.
    ///
    /// # Errors
    /// [`MediaError::Unauthentic`], [`MediaError::MalformedRtp`]; `wire` is then of no use.
    pub fn open_rtp(&mut self, wire: &mut [u8]) -> Result<usize, MediaError> {
        let tag_octets = self.suite.tag_octets();
        let octets = wire.len().checked_sub(tag_octets + self.mki_octets);
        let octets = octets.ok_or(unauthentic("shorter than its tag"))?;
        let (packet, rest) = wire.split_at_mut(octets);
        let tag = rest.get(self.mki_octets..).unwrap_or_default();
        let header_octets = rtp::header_octets(packet)?;
        let (ssrc, seq) = stream_of(packet)?;
        let stream = self.rtp_streams.of(ssrc);
        let index = stream.index_of(seq);
        if stream.is_replay(index) {
            return Err(unauthentic("replayed"));
        }
        let roc = ((index >> 16) as u32).to_be_bytes();
        let checked = self.rtp.tag([packet, &roc]).verify_truncated_left(tag);
        checked.map_err(|_| unauthentic("the tag does not fit"))?;
        self.rtp_streams.note(stream, index);
        self.rtp
            .apply(ssrc, index, packet.get_mut(header_octets..).unwrap_or_default());
        Ok(octets)
    }

    /// Opens the SRTCP packet that fills `wire`, in place; gives the octets of the RTCP packet.
    ///
    /// # Errors
    /// [`MediaError::Unauthentic`], [`MediaError::MalformedRtcp`]; `wire` is then of no use.
    pub fn open_rtcp(&mut self, wire: &mut [u8]) -> Result<usize, MediaError> {
        let octets = wire
            .len()
            .checked_sub(RTCP_INDEX_OCTETS + self.mki_octets + RTCP_TAG_OCTETS);
        let octets = octets.ok_or(unauthentic("shorter than its tag"))?;
        let (packet, rest) = wire.split_at_mut(octets);
        let tag = rest
            .get(RTCP_INDEX_OCTETS + self.mki_octets..)
            .unwrap_or_default();
        let trailer = *rest
            .first_chunk::<RTCP_INDEX_OCTETS>()
            .ok_or(unauthentic("no index"))?;
        let ssrc = rtcp_ssrc(packet)?;
        let word = u32::from_be_bytes(trailer);
        let index = u64::from(word & !ENCRYPTED);
        let stream = self.rtcp_streams.of(ssrc);
        if stream.is_replay(index) {
            return Err(unauthentic("replayed"));
        }
        let checked = self.rtcp.tag([packet, &trailer]).verify_truncated_left(tag);
        checked.map_err(|_| unauthentic("the tag does not fit"))?;
        self.rtcp_streams.note(stream, index);
        if word & ENCRYPTED != 0 {
            self.rtcp.apply(
                ssrc,
                index,
                packet.get_mut(RTCP_CLEAR_OCTETS..).unwrap_or_default(),
            );
        }
        Ok(octets)
    }
}

fn unauthentic(what: &'static str) -> MediaError {
    MediaError::Unauthentic { what }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtp::{Header, Packet, SeqNumber};
    use proptest::prelude::*;

    fn hex(text: &str) -> Vec<u8> {
        let digits: Vec<u8> = text.bytes().filter(|b| !b.is_ascii_whitespace()).collect();
        let octet = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
        digits.chunks(2).map(octet).collect()
    }

    fn master(seed: u8) -> MasterKey {
        MasterKey::new(std::array::from_fn(|n| {
            (n as u8).wrapping_mul(29).wrapping_add(seed)
        }))
    }

    /// RFC 3711 B.3.
    #[test]
    fn session_keys_of_the_rfc() {
        let octets = hex("E1F97A0D3E018BE0D64FA32C06DE4139 0EC675AD498AFEEBB6960B3AABE6");
        let master = MasterKey::new(octets.try_into().unwrap());
        let mut key = [0; 16];
        let mut salt = [0; 14];
        let mut auth = [0; 94];
        generate(&master, 0, &mut key);
        generate(&master, 2, &mut salt);
        generate(&master, 1, &mut auth);
        assert_eq!(key[..], hex("C61E7A93744F39EE10734AFE3FF7A087"));
        assert_eq!(salt[..], hex("30CBBC08863D8C85D49DB34A9AE1"));
        assert_eq!(
            auth[..],
            hex("CEBE321F6FF7716B6FD4AB49AF256A156D38BAA48F0A0ACF3C34E2359E6CDBCEE049646C43D9327AD175578EF7227098
                 6371C10C9A369AC2F94A8C5FBCDDDC256D6E919A48B610EF17C2041E474035766B68642C59BBFC2F34DB60DBDFB2")
        );
    }

    /// RFC 3711 B.2: the keystream for SSRC 0 and index 0, at its beginning and around block 0xff00.
    #[test]
    fn keystream_of_the_rfc() {
        let key: [u8; 16] = hex("2B7E151628AED2A6ABF7158809CF4F3C").try_into().unwrap();
        let session = Session {
            aes: Aes128::new(&key.into()),
            mac: hmac_sha1(&[0; 20]),
            salt: hex("F0F1F2F3F4F5F6F7F8F9FAFBFCFD").try_into().unwrap(),
        };
        let mut stream = vec![0; 0xff02 * 16];
        session.apply(0, 0, &mut stream);
        assert_eq!(
            stream[..32],
            hex("E03EAD0935C95E80E166B16DD92B4EB4 D23513162B02D0F72A43A2FE4A5F97AB")
        );
        assert_eq!(
            stream[0xfeff * 16..],
            hex(
                "EC8CDF7398607CB0F2D21675EA9EA1E4 362B7C3C6773516318A077D7FC5073AE 6A2CC3787889374FBEB4C81B17BA6C44"
            )
        );
    }

    /// RFC 2202, case 1 cut to our key length: HMAC-SHA1 with a key of 20 octets.
    #[test]
    fn hmac_of_the_rfc() {
        let tag = hmac_sha1(&[0x0b; 20])
            .chain_update(b"Hi There")
            .finalize()
            .into_bytes();
        assert_eq!(tag[..], hex("b617318655057264e28bc0b6fb378c8ef146be00"));
    }

    /// A whole packet as libsrtp makes it (its test driver's reference packet, RFC 3711 B.3's master key).
    #[test]
    fn a_packet_of_another_implementation() {
        let octets = hex("e1f97a0d3e018be0d64fa32c06de4139 0ec675ad498afeebb6960b3aabe6");
        let key = MasterKey::new(octets.try_into().unwrap());
        let plain = hex("800f1234decafbadcafebabe abababababababababababababababab");
        let sealed = hex("800f1234decafbadcafebabe 4e55dc4ce79978d88ca4d215949d2402 b78d6acc99ea179b8dbb");
        let mut wire = [0; 64];
        wire[..plain.len()].copy_from_slice(&plain);
        let octets = Sealer::new(Suite::Tag80, &key)
            .seal_rtp(&mut wire, plain.len())
            .unwrap();
        assert_eq!(wire[..octets], sealed);
        let mut wire = sealed.clone();
        let octets = Opener::new(Suite::Tag80, &key).open_rtp(&mut wire).unwrap();
        assert_eq!(wire[..octets], plain);
    }

    fn packet(seq: u16, ssrc: u32, payload: &[u8]) -> ([u8; 300], usize) {
        let header = Header {
            marker: false,
            payload_type: 8,
            seq: SeqNumber(seq),
            timestamp: 7,
            ssrc,
        };
        let mut wire = [0; 300];
        let octets = Packet { header, payload }.write(&mut wire).unwrap();
        (wire, octets)
    }

    fn seal(sealer: &mut Sealer, seq: u16, ssrc: u32, payload: &[u8]) -> Vec<u8> {
        let (mut wire, octets) = packet(seq, ssrc, payload);
        let octets = sealer.seal_rtp(&mut wire, octets).unwrap();
        wire[..octets].to_vec()
    }

    #[test]
    fn the_rollover_counter_follows_through_loss_reordering_and_wraps() {
        for suite in [Suite::Tag80, Suite::Tag32] {
            let key = master(1);
            let (mut sealer, mut opener) = (Sealer::new(suite, &key), Opener::new(suite, &key));
            let mut held: Option<Vec<u8>> = None;
            for n in 0..200_000u32 {
                let seq = 65_000u16.wrapping_add(n as u16);
                let mut wire = seal(&mut sealer, seq, 5, &n.to_be_bytes());
                let mut open = |wire: &mut Vec<u8>, n: u32| {
                    let octets = opener.open_rtp(wire).unwrap();
                    assert_eq!(wire[12..octets], n.to_be_bytes());
                };
                // Some are lost, and some come after the next one, across every wrap.
                match n % 7 {
                    3 => {}
                    5 => held = Some(wire),
                    6 => {
                        open(&mut wire, n);
                        open(&mut held.take().unwrap(), n - 1);
                    }
                    _ => open(&mut wire, n),
                }
            }
        }
    }

    #[test]
    fn replays_forgeries_and_other_keys_are_refused() {
        let (key, suite) = (master(1), Suite::Tag32);
        let (mut sealer, mut opener) = (Sealer::new(suite, &key), Opener::new(suite, &key));
        let wires: Vec<Vec<u8>> = (0..100).map(|seq| seal(&mut sealer, seq, 5, &[1; 20])).collect();
        for wire in &wires {
            opener.open_rtp(&mut wire.clone()).unwrap();
            let again = opener.open_rtp(&mut wire.clone()).unwrap_err();
            assert!(matches!(again, MediaError::Unauthentic { what: "replayed" }));
        }
        // Too old for the window: refused, although never seen.
        assert!(opener.open_rtp(&mut wires[3].clone()).is_err());
        let next = seal(&mut sealer, 100, 5, &[1; 20]);
        for place in 0..next.len() {
            let mut forged = next.clone();
            forged[place] ^= 1;
            assert!(opener.open_rtp(&mut forged).is_err(), "octet {place}");
        }
        assert!(
            Opener::new(suite, &master(2))
                .open_rtp(&mut next.clone())
                .is_err()
        );
        for length in 0..next.len() {
            assert!(opener.open_rtp(&mut next[..length].to_vec()).is_err());
        }
        opener.open_rtp(&mut next.clone()).unwrap();
    }

    #[test]
    fn several_streams_under_one_key() {
        let (key, suite) = (master(3), Suite::Tag80);
        let mut opener = Opener::new(suite, &key);
        for ssrc in 0..10u32 {
            let mut sealer = Sealer::new(suite, &key);
            for seq in [65_534u16, 65_535, 0, 1] {
                let mut wire = seal(&mut sealer, seq, ssrc, &[9; 8]);
                assert_eq!(opener.open_rtp(&mut wire).unwrap(), 20, "{ssrc} {seq}");
                assert_eq!(wire[12..20], [9; 8]);
            }
        }
    }

    #[test]
    fn a_master_key_identifier_is_skipped() {
        let key = master(3);
        let mut wire = seal(&mut Sealer::new(Suite::Tag80, &key), 1, 2, &[9; 8]);
        wire.splice(20..20, [0, 0, 0, 1]);
        assert_eq!(
            Opener::new(Suite::Tag80, &key.with_mki(4))
                .open_rtp(&mut wire)
                .unwrap(),
            20
        );
        assert_eq!(wire[12..20], [9; 8]);
    }

    #[test]
    fn rtcp_both_ways() {
        let key = master(4);
        for suite in [Suite::Tag80, Suite::Tag32] {
            let (mut sealer, mut opener) = (Sealer::new(suite, &key), Opener::new(suite, &key));
            for n in 0..100u8 {
                let mut wire = [0u8; 64];
                wire[..12].copy_from_slice(&[0x80, 201, 0, 2, 0, 0, 0, 9, n, 2, 3, 4]);
                let plain = wire[..12].to_vec();
                let octets = sealer.seal_rtcp(&mut wire, 12).unwrap();
                assert_eq!(octets, 26);
                assert_eq!(wire[..8], plain[..8]);
                assert_ne!(wire[8..12], plain[8..]);
                let replay = wire[..octets].to_vec();
                assert_eq!(opener.open_rtcp(&mut wire[..octets]).unwrap(), 12);
                assert_eq!(wire[..12], plain);
                assert!(opener.open_rtcp(&mut replay.clone()).is_err());
            }
        }
    }

    #[test]
    fn keys_do_not_print() {
        let keys = Keys {
            suite: Suite::Tag80,
            local: master(1),
            remote: master(2),
        };
        assert_eq!(
            format!("{keys:?}"),
            "Keys { suite: Tag80, local: [redacted], remote: [redacted] }"
        );
    }

    proptest! {
        #[test]
        fn random_datagrams_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let mut opener = Opener::new(Suite::Tag32, &master(1).with_mki(2));
            prop_assert!(opener.open_rtp(&mut bytes.clone()).is_err());
            prop_assert!(opener.open_rtcp(&mut bytes.clone()).is_err());
        }
    }
}
