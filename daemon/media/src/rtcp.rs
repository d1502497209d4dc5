//! RTCP: what both ends tell each other about their streams. Source: RFC 3550 §6.
//!
//! ```text
//! a compound packet of ours: | SR or RR, one report block | SDES: CNAME | [BYE] |
//! of the peer's: any number of packets; read are SR, what reports say of our stream, and BYE
//! ```
//!
//! Pure and without allocation; when to send and what the numbers mean is the realtime thread's.

use crate::MediaError;

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const SOURCE_DESCRIPTION: u8 = 202;
const GOODBYE: u8 = 203;
/// SDES item (§6.5.1).
const CNAME: u8 = 1;
/// Octets of our CNAME: 96 random bits in hexadecimal (RFC 7022 §4.2), which says nothing about anybody.
pub const CNAME_OCTETS: usize = 24;
/// Octets of the largest packet we make: SR with one block, SDES, BYE.
pub const MAX_OCTETS: usize = 8 + 20 + BLOCK_OCTETS + SDES_OCTETS + 8;
const BLOCK_OCTETS: usize = 24;
/// Header, SSRC, item header, CNAME, at least one zero, to a multiple of four.
const SDES_OCTETS: usize = (4 + 4 + 2 + CNAME_OCTETS + 1).next_multiple_of(4);

/// Whether a datagram on a port shared with RTP is RTCP (RFC 5761 §4).
#[must_use]
pub fn is_rtcp(datagram: &[u8]) -> bool {
    matches!(datagram, [flags, 192..=223, ..] if flags >> 6 == 2)
}

/// What we sent (§6.4.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SenderInfo {
    /// Instant of this report, in seconds and 2^-32 seconds, by any steady clock.
    pub ntp: u64,
    /// The same instant on the RTP clock.
    pub timestamp: u32,
    /// Packets sent.
    pub packets: u32,
    /// Octets of payload sent.
    pub octets: u32,
}

/// How one stream is received (§6.4.1).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// The stream.
    pub ssrc: u32,
    /// Lost since the last report \[1/256\].
    pub fraction_lost: u8,
    /// Lost since the beginning \[packets\]; negative with duplicates.
    pub lost: i32,
    /// Extended highest sequence number.
    pub highest: u32,
    /// Interarrival jitter \[RTP clock units\].
    pub jitter: u32,
    /// Middle of the NTP instant of the last SR received; 0: none.
    pub last_sr: u32,
    /// Time since then \[1/65536 s\].
    pub delay: u32,
}

/// A compound packet of ours.
#[derive(Clone, Copy, Debug)]
pub struct Report<'a> {
    /// Our stream.
    pub ssrc: u32,
    /// What we sent, if anything.
    pub sender: Option<SenderInfo>,
    /// How we hear the peer, if we do.
    pub block: Option<Block>,
    /// Our name for this call.
    pub cname: &'a [u8; CNAME_OCTETS],
    /// We leave.
    pub goodbye: bool,
}

impl Report<'_> {
    /// Writes the packet; returns its octets.
    ///
    /// # Errors
    /// [`MediaError::BufferTooSmall`] unless `out` holds [`MAX_OCTETS`].
    pub fn write(&self, out: &mut [u8]) -> Result<usize, MediaError> {
        let have = out.len();
        if have < MAX_OCTETS {
            return Err(MediaError::BufferTooSmall {
                need: MAX_OCTETS,
                have,
            });
        }
        let mut writer = Writer { out, at: 0 };
        let blocks = u8::from(self.block.is_some());
        let kind = if self.sender.is_some() {
            SENDER_REPORT
        } else {
            RECEIVER_REPORT
        };
        let body = if self.sender.is_some() { 20 } else { 0 } + BLOCK_OCTETS * usize::from(blocks);
        writer.header(blocks, kind, 4 + body);
        writer.word(self.ssrc);
        if let Some(sender) = self.sender {
            writer.word((sender.ntp >> 32) as u32);
            writer.word(sender.ntp as u32);
            writer.word(sender.timestamp);
            writer.word(sender.packets);
            writer.word(sender.octets);
        }
        if let Some(block) = self.block {
            writer.word(block.ssrc);
            let lost = block.lost.clamp(-0x80_0000, 0x7f_ffff) as u32 & 0xff_ffff;
            writer.word(u32::from(block.fraction_lost) << 24 | lost);
            writer.word(block.highest);
            writer.word(block.jitter);
            writer.word(block.last_sr);
            writer.word(block.delay);
        }
        writer.header(1, SOURCE_DESCRIPTION, SDES_OCTETS - 4);
        writer.word(self.ssrc);
        writer.octets(&[CNAME, CNAME_OCTETS as u8]);
        writer.octets(self.cname);
        writer.octets(&[0; SDES_OCTETS - 10 - CNAME_OCTETS]);
        if self.goodbye {
            writer.header(1, GOODBYE, 4);
            writer.word(self.ssrc);
        }
        Ok(writer.at)
    }
}

struct Writer<'a> {
    out: &'a mut [u8],
    at: usize,
}

impl Writer<'_> {
    fn header(&mut self, count: u8, kind: u8, body_octets: usize) {
        let words = (body_octets / 4) as u16;
        let [hi, lo] = words.to_be_bytes();
        self.octets(&[0x80 | count, kind, hi, lo]);
    }

    fn word(&mut self, word: u32) {
        self.octets(&word.to_be_bytes());
    }

    fn octets(&mut self, octets: &[u8]) {
        if let Some(room) = self.out.get_mut(self.at..self.at + octets.len()) {
            room.copy_from_slice(octets);
            self.at += octets.len();
        }
    }
}

/// What a compound packet of the peer's says to us.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// Its stream and the middle 32 bits of its NTP instant, from a sender report.
    pub sender: Option<(u32, u32)>,
    /// How it hears us.
    pub block: Option<Block>,
    /// A stream that has ended.
    pub goodbye: Option<u32>,
}

/// Reads a compound packet; `ours` is our SSRC. Packets of other kinds are skipped.
///
/// # Errors
/// [`MediaError::MalformedRtcp`] unless it is whole (§A.2; a first packet of another kind is tolerated, RFC 5506).
pub fn parse(datagram: &[u8], ours: u32) -> Result<Received, MediaError> {
    let mut received = Received::default();
    let mut rest = datagram;
    if rest.is_empty() {
        return Err(malformed("empty"));
    }
    while !rest.is_empty() {
        let Some((&[flags, kind, hi, lo], after)) = rest.split_first_chunk::<4>() else {
            return Err(malformed("header cut off"));
        };
        if flags >> 6 != 2 {
            return Err(malformed("not version 2"));
        }
        let octets = usize::from(u16::from_be_bytes([hi, lo])) * 4;
        let Some((body, next)) = after.split_at_checked(octets) else {
            return Err(malformed("longer than the datagram"));
        };
        // Padding is allowed in the last packet only; what we read never reaches into it.
        if flags & 0x20 != 0 && !next.is_empty() {
            return Err(malformed("padding in the middle"));
        }
        let count = usize::from(flags & 0x1f);
        match kind {
            SENDER_REPORT => {
                let Some(([ssrc, high, low, _, _, _], blocks)) = words::<6>(body) else {
                    return Err(malformed("sender report cut off"));
                };
                received.sender = Some((ssrc, high << 16 | low >> 16));
                received.block = find_block(blocks, count, ours)?.or(received.block);
            }
            RECEIVER_REPORT => {
                let Some((_, blocks)) = words::<1>(body) else {
                    return Err(malformed("receiver report cut off"));
                };
                received.block = find_block(blocks, count, ours)?.or(received.block);
            }
            GOODBYE if count > 0 => {
                let Some(([ssrc], _)) = words::<1>(body) else {
                    return Err(malformed("goodbye cut off"));
                };
                received.goodbye = Some(ssrc);
            }
            _ => {}
        }
        rest = next;
    }
    Ok(received)
}

fn find_block(blocks: &[u8], count: usize, ours: u32) -> Result<Option<Block>, MediaError> {
    let Some(blocks) = blocks.get(..count * BLOCK_OCTETS) else {
        return Err(malformed("report blocks cut off"));
    };
    let of = |block: &[u8]| -> Option<Block> {
        let ([ssrc, loss, highest, jitter, last_sr, delay], _) = words::<6>(block)?;
        // Sign-extended from 24 bits.
        let lost = (loss << 8) as i32 >> 8;
        Some(Block {
            ssrc,
            fraction_lost: (loss >> 24) as u8,
            lost,
            highest,
            jitter,
            last_sr,
            delay,
        })
    };
    Ok(blocks
        .chunks_exact(BLOCK_OCTETS)
        .filter_map(of)
        .find(|block| block.ssrc == ours))
}

/// The first `N` words, and what follows them.
fn words<const N: usize>(octets: &[u8]) -> Option<([u32; N], &[u8])> {
    let (head, rest) = octets.split_at_checked(N * 4)?;
    let mut words = [0; N];
    for (word, octets) in words.iter_mut().zip(head.chunks_exact(4)) {
        *word = octets.iter().fold(0, |word, &octet| word << 8 | u32::from(octet));
    }
    Some((words, rest))
}

fn malformed(what: &'static str) -> MediaError {
    MediaError::MalformedRtcp { what }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NAME: &[u8; CNAME_OCTETS] = b"0123456789abcdef01234567";

    fn block() -> Block {
        Block {
            ssrc: 9,
            fraction_lost: 64,
            lost: -3,
            highest: 70_000,
            jitter: 80,
            last_sr: 5,
            delay: 6,
        }
    }

    #[test]
    fn what_is_written_reads_back() {
        let sender = SenderInfo {
            ntp: 0x0102_0304_0506_0708,
            timestamp: 1,
            packets: 2,
            octets: 3,
        };
        for (sender, block, goodbye, octets) in [
            (Some(sender), Some(block()), true, MAX_OCTETS),
            (Some(sender), None, false, 28 + SDES_OCTETS),
            (None, Some(block()), false, 32 + SDES_OCTETS),
            (None, None, true, 16 + SDES_OCTETS),
        ] {
            let report = Report {
                ssrc: 7,
                sender,
                block,
                cname: NAME,
                goodbye,
            };
            let mut wire = [0; MAX_OCTETS];
            assert_eq!(report.write(&mut wire).unwrap(), octets);
            assert!(is_rtcp(&wire));
            let received = parse(&wire[..octets], 9).unwrap();
            assert_eq!(received.sender, sender.map(|_| (7, 0x0304_0506)));
            assert_eq!(received.block, block);
            assert_eq!(received.goodbye, goodbye.then_some(7));
            assert_eq!(
                parse(&wire[..octets], 8).unwrap().block,
                None,
                "about somebody else"
            );
            for length in 1..octets {
                let cut = parse(&wire[..length], 9);
                assert!(cut.is_err() || length % 4 == 0, "{length}");
            }
            assert!(report.write(&mut wire[..MAX_OCTETS - 1]).is_err());
        }
    }

    #[test]
    fn the_source_description_has_the_shape_of_the_rfc() {
        let report = Report {
            ssrc: 7,
            sender: None,
            block: None,
            cname: NAME,
            goodbye: false,
        };
        let mut wire = [0xee; MAX_OCTETS];
        let octets = report.write(&mut wire).unwrap();
        let sdes = &wire[8..octets];
        assert_eq!(sdes[..10], [0x81, 202, 0, 8, 0, 0, 0, 7, 1, 24]);
        assert_eq!(&sdes[10..34], NAME);
        assert_eq!(sdes[34..], [0, 0]);
    }

    #[test]
    fn rubbish_is_refused() {
        let cases: &[(&str, &[u8])] = &[
            ("empty", &[]),
            ("header cut off", &[0x80, 201]),
            ("version", &[0x40, 201, 0, 1, 0, 0, 0, 1]),
            ("too long", &[0x80, 201, 0, 2, 0, 0, 0, 1]),
            ("no room for blocks", &[0x9f, 201, 0, 1, 0, 0, 0, 1]),
            (
                "padding first",
                &[0xa0, 201, 0, 1, 0, 0, 0, 1, 0x80, 201, 0, 1, 0, 0, 0, 1],
            ),
            ("short SR", &[0x80, 200, 0, 1, 0, 0, 0, 1]),
        ];
        for (case, datagram) in cases {
            assert!(parse(datagram, 1).is_err(), "{case}");
        }
    }

    proptest! {
        #[test]
        fn random_datagrams_never_panic(kind in 199u8..210, mut bytes in proptest::collection::vec(any::<u8>(), 2..200), ours: u32) {
            bytes[0] = 0x80 | bytes[0] & 0x3f;
            bytes[1] = kind;
            let _ = parse(&bytes, ours);
        }
    }
}
