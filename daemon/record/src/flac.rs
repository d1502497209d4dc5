//! FLAC: lossless, two channels of 16 bits, in frames that each stand for themselves, so that a file cut anywhere plays
//! up to the cut.
//!
//! Each channel of a frame is a constant (silence costs nothing), or what a fixed predictor of order 0 to 4 gets wrong
//! (Rice-coded in partitions), or the samples as they are. Channels are coded apart: the two ends of a call have
//! nothing in common.
//!
//! Source: RFC 9639.

use crate::bits::{Bits, crc8, crc16};

/// What a player may ask for.
pub const MEDIA_TYPE: &str = "audio/flac";
/// Samples per second \[Hz\]; the house's rate.
pub const SAMPLE_RATE_HZ: u32 = 16_000;
/// Samples of each channel in a frame: 200 ms. 2⁷ · 25, so that it can be cut into partitions.
pub const BLOCK: usize = 3_200;
/// Octets of the stream's header.
pub const HEADER_OCTETS: usize = 42;

/// Most partitions: 2⁴.
const MAX_PARTITION_ORDER: u32 = 4;
/// Largest Rice parameter of 4 bits; 15 is the escape.
const MAX_RICE: u32 = 14;

/// The stream's header; `samples` of each channel, 0 while unknown.
#[must_use]
pub fn header(samples: u64) -> [u8; HEADER_OCTETS] {
    let mut bits = Bits::default();
    for octet in b"fLaC" {
        bits.put(u32::from(*octet), 8);
    }
    // The only metadata block (last: 1), STREAMINFO, 34 octets.
    bits.put(0x80, 8);
    bits.put(34, 24);
    bits.put(BLOCK as u32, 16);
    bits.put(BLOCK as u32, 16);
    // Frame sizes: unknown.
    bits.put(0, 24);
    bits.put(0, 24);
    bits.put(SAMPLE_RATE_HZ, 20);
    bits.put(2 - 1, 3);
    bits.put(16 - 1, 5);
    let samples = samples.min((1 << 36) - 1);
    bits.put((samples >> 32) as u32, 4);
    bits.put(samples as u32, 32);
    // MD5 of the samples: unknown.
    for _ in 0..4 {
        bits.put(0, 32);
    }
    let mut header = [0; HEADER_OCTETS];
    for (to, from) in header.iter_mut().zip(bits.octets()) {
        *to = *from;
    }
    header
}

/// One frame: `left` and `right` of the same length, at most [`BLOCK`]; only the last of a stream may be shorter.
#[must_use]
pub fn frame(number: u32, left: &[i16], right: &[i16]) -> Vec<u8> {
    let length = left.len().min(right.len()).min(BLOCK);
    let mut bits = Bits::default();
    // Sync code, fixed block size.
    bits.put(0b111_1111_1111_1100, 15);
    bits.put(0, 1);
    // Block size in 16 bits at the header's end; 16 kHz.
    bits.put(0b0111, 4);
    bits.put(0b0101, 4);
    // Two channels, coded apart; 16 bits; reserved.
    bits.put(0b0001, 4);
    bits.put(0b100, 3);
    bits.put(0, 1);
    coded_number(&mut bits, number);
    bits.put((length.max(1) - 1) as u32, 16);
    let check = crc8(bits.octets());
    bits.put(u32::from(check), 8);
    for channel in [left, right] {
        subframe(&mut bits, channel.get(..length).unwrap_or(channel));
    }
    bits.align();
    let check = crc16(bits.octets());
    bits.put(u32::from(check), 16);
    bits.into_octets()
}

/// The frame number as UTF-8 would code it, up to 31 bits (RFC 9639 §9.1.5).
fn coded_number(bits: &mut Bits, number: u32) {
    if number < 0x80 {
        bits.put(number, 8);
        return;
    }
    // Octets that follow the first: each carries 6 bits, the first what is left of 6.
    let following = (1..6).find(|n| number < 1 << (5 * n + 6)).unwrap_or(5);
    let first_bits = 6 - following;
    let mark = (0xff << (first_bits + 1)) & 0xff;
    bits.put(mark | (number >> (6 * following) & ((1 << first_bits) - 1)), 8);
    for n in (0..following).rev() {
        bits.put(0x80 | (number >> (6 * n) & 0x3f), 8);
    }
}

fn subframe(bits: &mut Bits, samples: &[i16]) {
    let Some(first) = samples.first() else {
        return;
    };
    if samples.iter().all(|sample| sample == first) {
        // Constant.
        bits.put(0, 8);
        bits.put(word(*first), 16);
        return;
    }
    let best = (0..=4_u32.min(samples.len() as u32 - 1))
        .map(|order| Predicted::of(samples, order))
        .min_by_key(|predicted| predicted.bits);
    match best {
        Some(predicted) if predicted.bits < samples.len() as u64 * 16 => predicted.write(bits, samples),
        _ => {
            // Verbatim.
            bits.put(0b0000_0010, 8);
            for sample in samples {
                bits.put(word(*sample), 16);
            }
        }
    }
}

fn word(sample: i16) -> u32 {
    u32::from(sample.cast_unsigned())
}

/// What a fixed predictor gets wrong, and how to code that.
struct Predicted {
    order: u32,
    /// Folded to be unsigned: 0, -1, 1, -2 … → 0, 1, 2, 3 …
    residual: Vec<u32>,
    partition_order: u32,
    rice: Vec<u32>,
    bits: u64,
}

impl Predicted {
    fn of(samples: &[i16], order: u32) -> Predicted {
        let mut differences: Vec<i32> = samples.iter().map(|sample| i32::from(*sample)).collect();
        // The predictor of order n is the n-th difference (RFC 9639 §9.2.5).
        for n in 1..=order as usize {
            for at in (n..differences.len()).rev() {
                if let [.., before, now] = differences.get_mut(..=at).unwrap_or_default() {
                    *now -= *before;
                }
            }
        }
        let residual: Vec<u32> = differences
            .iter()
            .skip(order as usize)
            .map(|difference| (difference << 1 ^ difference >> 31).cast_unsigned())
            .collect();
        let (partition_order, rice, coded) = (0..=MAX_PARTITION_ORDER)
            .filter(|partitions| {
                samples.len().is_multiple_of(1 << partitions) && samples.len() >> partitions > order as usize
            })
            .map(|partitions| {
                let (mut rice, mut bits) = (Vec::new(), 0);
                for part in partitions_of(&residual, samples.len(), order, partitions) {
                    let (parameter, cost) = best_rice(part);
                    rice.push(parameter);
                    bits += 4 + cost;
                }
                (partitions, rice, bits)
            })
            .min_by_key(|(_, _, bits)| *bits)
            .unwrap_or((0, vec![0], u64::MAX / 2));
        Predicted {
            order,
            residual,
            partition_order,
            rice,
            bits: 8 + u64::from(order) * 16 + 6 + coded,
        }
    }

    fn write(&self, bits: &mut Bits, samples: &[i16]) {
        bits.put((0b00_1000 | self.order) << 1, 8);
        for sample in samples.iter().take(self.order as usize) {
            bits.put(word(*sample), 16);
        }
        // Rice parameters of 4 bits.
        bits.put(0, 2);
        bits.put(self.partition_order, 4);
        let parts = partitions_of(&self.residual, samples.len(), self.order, self.partition_order);
        for (part, rice) in parts.into_iter().zip(&self.rice) {
            bits.put(*rice, 4);
            for value in part {
                bits.put_unary(value >> rice);
                bits.put(*value, *rice);
            }
        }
    }
}

/// The residual's partitions: equal shares of the block, the first less the samples that start the predictor.
fn partitions_of(residual: &[u32], block: usize, order: u32, partitions: u32) -> Vec<&[u32]> {
    let share = block >> partitions;
    let (first, rest) = residual.split_at((share - order as usize).min(residual.len()));
    std::iter::once(first).chain(rest.chunks(share)).collect()
}

/// The Rice parameter that costs the fewest bits, and how many.
fn best_rice(part: &[u32]) -> (u32, u64) {
    let sum: u64 = part.iter().map(|value| u64::from(*value)).sum();
    let mean = sum / (part.len() as u64).max(1);
    // The optimum lies within one of log2 of the mean.
    let near = (64 - mean.leading_zeros()).min(MAX_RICE);
    (near.saturating_sub(2)..=near)
        .map(|rice| {
            let unary: u64 = part.iter().map(|value| u64::from(value >> rice)).sum();
            (rice, unary + part.len() as u64 * (u64::from(rice) + 1))
        })
        .min_by_key(|(_, bits)| *bits)
        .unwrap_or((0, 0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// By another program: left and right.
    fn decode(stream: &[u8]) -> (Vec<i16>, Vec<i16>) {
        let mut reader = claxon::FlacReader::new(stream).expect("header");
        let samples: Vec<i32> = reader.samples().collect::<Result<_, _>>().expect("samples");
        let channel = |n| {
            samples
                .iter()
                .skip(n)
                .step_by(2)
                .map(|s| i16::try_from(*s).expect("16 bits"))
                .collect()
        };
        (channel(0), channel(1))
    }

    fn stream(left: &[i16], right: &[i16]) -> Vec<u8> {
        let mut stream = header(left.len() as u64).to_vec();
        for (n, (left, right)) in (0..).zip(left.chunks(BLOCK).zip(right.chunks(BLOCK))) {
            stream.extend(frame(n, left, right));
        }
        stream
    }

    fn tone(hz: f64, amplitude: f64, length: usize) -> Vec<i16> {
        (0..length)
            .map(|n| (amplitude * (n as f64 * hz * std::f64::consts::TAU / 16_000.0).sin()) as i16)
            .collect()
    }

    #[test]
    fn what_goes_in_comes_out() {
        let mut noise = 1_u32;
        let mut random = |_| {
            noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (noise >> 16) as u16 as i16
        };
        let noise: Vec<i16> = (0..10_000).map(&mut random).collect();
        let extremes: Vec<i16> = (0..10_000)
            .map(|n| if n % 2 == 0 { i16::MIN } else { i16::MAX })
            .collect();
        let silence = vec![0; 10_000];
        let speechlike = tone(440.0, 9_000.0, 10_000);
        for (case, left, right) in [
            ("silence", &silence, &silence),
            ("tone and silence", &speechlike, &silence),
            ("noise", &noise, &noise),
            ("extremes", &extremes, &speechlike),
        ] {
            let (l, r) = decode(&stream(left, right));
            assert!(l == *left && r == *right, "{case}");
        }
        assert!(stream(&silence, &silence).len() < 200, "silence costs nothing");
        assert!(
            stream(&speechlike, &silence).len() < 10_000,
            "half of the samples' octets"
        );
        assert!(
            stream(&noise, &noise).len() < 40_000 + 200,
            "noise is stored as it is"
        );
    }

    #[test]
    fn frame_numbers_are_coded_as_utf8_would() {
        for number in [0, 0x7f, 0x80, 0x7ff, 0x800, 0xd7ff, 0xffff, 0x1_0000, 0x10_ffff] {
            let mut bits = Bits::default();
            coded_number(&mut bits, number);
            let wanted = char::from_u32(number).expect("character").to_string();
            assert_eq!(bits.octets(), wanted.as_bytes(), "{number:x}");
        }
        let mut bits = Bits::default();
        coded_number(&mut bits, 0x7fff_ffff);
        assert_eq!(bits.octets(), [0xfd, 0xbf, 0xbf, 0xbf, 0xbf, 0xbf]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]
        #[test]
        fn any_samples_survive(
            left in prop::collection::vec(prop_oneof![Just(0_i16), -20_i16..20, any::<i16>()], 1..9_000),
            offset in any::<i16>(),
        ) {
            let right: Vec<i16> = left.iter().map(|sample| sample.wrapping_add(offset)).collect();
            let (l, r) = decode(&stream(&left, &right));
            prop_assert!(l == left && r == right);
        }
    }
}
