//! G.722: 16 kHz speech in 64 kbit/s, two sub-bands of adaptive differential PCM. Source: ITU-T G.722 (09/2012);
//! the functions bear the names of its blocks. Mode 1 only (RFC 3551 §4.5.2): eight bits to each pair of samples.
//!
//! ```text
//! 16 kHz --QMF--> low band  (0-4 kHz) --ADPCM 6 bits--\
//!            `--> high band (4-8 kHz) --ADPCM 2 bits---> one octet per 125 µs
//! ```
//!
//! Bit-exact with an independent implementation, libg722, in both directions (see the tests). Allocates nothing.

/// Coefficients of the quadrature mirror filter, one half; the other is its mirror image (table 11).
const QMF: [i32; 12] = [3, -11, 12, 32, -210, 951, 3876, -805, 362, -156, 53, -11];
/// Decision levels of the low band's quantiser (table 14).
const Q6: [i32; 30] = [
    0, 35, 72, 110, 150, 190, 233, 276, 323, 370, 422, 473, 530, 587, 650, 714, 786, 858, 940, 1023, 1121,
    1219, 1339, 1458, 1612, 1765, 1980, 2195, 2557, 2919,
];
/// Low-band codes of negative differences, by decision interval (table 14).
const ILN: [u8; 31] = [
    0, 63, 62, 31, 30, 29, 28, 27, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17, 16, 15, 14, 13, 12, 11, 10, 9, 8,
    7, 6, 5, 4,
];
/// Low-band codes of positive differences.
const ILP: [u8; 31] = [
    0, 61, 60, 59, 58, 57, 56, 55, 54, 53, 52, 51, 50, 49, 48, 47, 46, 45, 44, 43, 42, 41, 40, 39, 38, 37,
    36, 35, 34, 33, 32,
];
/// Low-band difference by the code's upper four bits, in units of the scale factor (table 15).
const QM4: [i32; 16] = [
    0, -20456, -12896, -8968, -6288, -4240, -2584, -1200, 20456, 12896, 8968, 6288, 4240, 2584, 1200, 0,
];
/// Low-band difference by all six bits.
const QM6: [i32; 64] = [
    -136, -136, -136, -136, -24808, -21904, -19008, -16704, -14984, -13512, -12280, -11192, -10232, -9360,
    -8576, -7856, -7192, -6576, -6000, -5456, -4944, -4464, -4008, -3576, -3168, -2776, -2400, -2032, -1688,
    -1360, -1040, -728, 24808, 21904, 19008, 16704, 14984, 13512, 12280, 11192, 10232, 9360, 8576, 7856,
    7192, 6576, 6000, 5456, 4944, 4464, 4008, 3576, 3168, 2776, 2400, 2032, 1688, 1360, 1040, 728, 432, 136,
    -432, -136,
];
/// High-band difference by its two bits (table 16).
const QM2: [i32; 4] = [-7408, -1616, 7408, 1616];
/// Step of the low band's logarithmic scale factor by the code's upper four bits (tables 17 and 18 in one).
const WL: [i32; 16] = [
    -60, 3042, 1198, 538, 334, 172, 58, -30, 3042, 1198, 538, 334, 172, 58, -30, -60,
];
/// Step of the high band's, by its two bits (table 19).
const WH: [i32; 4] = [798, -214, 798, -214];
/// Mantissas of the antilogarithm (table 20).
const ILB: [i32; 32] = [
    2048, 2093, 2139, 2186, 2233, 2282, 2332, 2383, 2435, 2489, 2543, 2599, 2656, 2714, 2774, 2834, 2896,
    2960, 3025, 3091, 3158, 3228, 3298, 3371, 3444, 3520, 3597, 3676, 3756, 3838, 3922, 4008,
];
/// Decision level of the high band's quantiser.
const Q2: i32 = 564;

/// What tells the two bands apart in the scale factor's adaptation.
#[derive(Clone, Copy)]
enum Band {
    Low,
    High,
}

/// One band's adaptive predictor and quantiser scale; encoder and decoder hold the same. Index 1 is the newest.
#[derive(Clone)]
struct Adpcm {
    band: Band,
    /// Signal estimate.
    s: i32,
    /// The zeros' part of it.
    sz: i32,
    /// Reconstructed signal.
    r: [i32; 2],
    /// Partially reconstructed signal.
    p: [i32; 2],
    /// Coefficients of the poles.
    a: [i32; 2],
    /// Quantised differences.
    d: [i32; 6],
    /// Coefficients of the zeros.
    b: [i32; 6],
    /// Logarithmic scale factor.
    nb: i32,
    /// Scale factor.
    det: i32,
}

impl Adpcm {
    const fn new(band: Band) -> Adpcm {
        Adpcm {
            band,
            s: 0,
            sz: 0,
            r: [0; 2],
            p: [0; 2],
            a: [0; 2],
            d: [0; 6],
            b: [0; 6],
            nb: 0,
            det: match band {
                Band::Low => 32,
                Band::High => 8,
            },
        }
    }

    /// LOGSCL and SCALEL, LOGSCH and SCALEH.
    fn scale(&mut self, step: i32) {
        let (most, shift) = match self.band {
            Band::Low => (18_432, 8),
            Band::High => (22_528, 10),
        };
        self.nb = (((self.nb * 127) >> 7) + step).clamp(0, most);
        let mantissa = ILB[((self.nb >> 6) & 31) as usize];
        let shift = shift - (self.nb >> 11);
        let linear = if shift < 0 {
            mantissa << -shift
        } else {
            mantissa >> shift
        };
        self.det = linear << 2;
    }

    /// Block 4: takes the quantised difference, predicts the next sample.
    fn adapt(&mut self, d: i32) {
        let r = saturate(self.s + d);
        let p = saturate(self.sz + d);
        let same = |x: i32, y: i32| (x < 0) == (y < 0);
        // UPPOL2, UPPOL1.
        let toward = saturate(self.a[0] << 2);
        let toward = if same(p, self.p[0]) { -toward } else { toward };
        let toward = toward.min(32_767);
        let sign = if same(p, self.p[1]) { 128 } else { -128 };
        let a2 = (sign + (toward >> 7) + ((self.a[1] * 32_512) >> 15)).clamp(-12_288, 12_288);
        let sign = if same(p, self.p[0]) { 192 } else { -192 };
        let most = saturate(15_360 - a2);
        let a1 = saturate(sign + ((self.a[0] * 32_640) >> 15)).clamp(-most, most);
        // UPZERO.
        let step = if d == 0 { 0 } else { 128 };
        for (b, &old) in self.b.iter_mut().zip(&self.d) {
            let step = if same(d, old) { step } else { -step };
            *b = saturate(step + ((*b * 32_640) >> 15));
        }
        // DELAYA.
        self.d.copy_within(..5, 1);
        self.d[0] = d;
        self.r = [r, self.r[0]];
        self.p = [p, self.p[0]];
        self.a = [a1, a2];
        // FILTEP, FILTEZ, PREDIC.
        let poles: i32 =
            saturate(((a1 * saturate(2 * self.r[0])) >> 15) + ((a2 * saturate(2 * self.r[1])) >> 15));
        let zeros: i32 = self
            .b
            .iter()
            .zip(&self.d)
            .map(|(b, d)| (b * saturate(2 * d)) >> 15)
            .sum();
        self.sz = saturate(zeros);
        self.s = saturate(poles + self.sz);
    }
}

/// 16 kHz to octets.
#[derive(Clone)]
pub struct Encoder {
    low: Adpcm,
    high: Adpcm,
    /// The newest 24 samples, oldest first.
    history: [i32; 24],
}

impl Encoder {
    /// At rest.
    #[must_use]
    pub const fn new() -> Encoder {
        Encoder {
            low: Adpcm::new(Band::Low),
            high: Adpcm::new(Band::High),
            history: [0; 24],
        }
    }

    /// One octet for each two samples; stops at the shorter of half of `samples` and `octets`.
    pub fn encode(&mut self, samples: &[i16], octets: &mut [u8]) {
        for (pair, octet) in samples.chunks_exact(2).zip(octets) {
            let (low, high) = self.split(i32::from(pair[0]), i32::from(pair[1]));
            *octet = self.encode_high(high) << 6 | self.encode_low(low);
        }
    }

    /// The transmit QMF.
    fn split(&mut self, first: i32, second: i32) -> (i32, i32) {
        self.history.copy_within(2.., 0);
        self.history[22] = first;
        self.history[23] = second;
        let (mut odd, mut even) = (0, 0);
        for (n, pair) in self.history.chunks_exact(2).enumerate() {
            odd += pair[0] * QMF[n];
            even += pair[1] * QMF[11 - n];
        }
        // The filter's gain is 2^12, its halves are added, and the bands have 15 bits.
        ((even + odd) >> 14, (even - odd) >> 14)
    }

    fn encode_low(&mut self, sample: i32) -> u8 {
        let difference = saturate(sample - self.low.s);
        let magnitude = if difference < 0 { !difference } else { difference };
        let det = self.low.det;
        let interval = (1..30).find(|&n| magnitude < (Q6[n] * det) >> 12).unwrap_or(30);
        let code = if difference < 0 {
            ILN[interval]
        } else {
            ILP[interval]
        };
        let upper = usize::from(code >> 2);
        let quantised = (det * QM4[upper]) >> 15;
        self.low.scale(WL[upper]);
        self.low.adapt(quantised);
        code
    }

    fn encode_high(&mut self, sample: i32) -> u8 {
        let difference = saturate(sample - self.high.s);
        let magnitude = if difference < 0 { !difference } else { difference };
        let det = self.high.det;
        let outer = magnitude >= (Q2 * det) >> 12;
        let code = match (difference < 0, outer) {
            (true, true) => 0,
            (true, false) => 1,
            (false, true) => 2,
            (false, false) => 3,
        };
        self.high.scale(WH[usize::from(code)]);
        self.high.adapt((det * QM2[usize::from(code)]) >> 15);
        code
    }
}

/// Octets to 16 kHz.
#[derive(Clone)]
pub struct Decoder {
    low: Adpcm,
    high: Adpcm,
    history: [i32; 24],
}

impl Decoder {
    /// At rest.
    #[must_use]
    pub const fn new() -> Decoder {
        Decoder {
            low: Adpcm::new(Band::Low),
            high: Adpcm::new(Band::High),
            history: [0; 24],
        }
    }

    /// Two samples for each octet; stops at the shorter of `octets` and half of `samples`.
    pub fn decode(&mut self, octets: &[u8], samples: &mut [i16]) {
        for (&octet, pair) in octets.iter().zip(samples.chunks_exact_mut(2)) {
            let (low, high) = (self.decode_low(octet & 0x3f), self.decode_high(octet >> 6));
            let (first, second) = self.join(low, high);
            pair[0] = first;
            pair[1] = second;
        }
    }

    fn decode_low(&mut self, code: u8) -> i32 {
        let (det, upper) = (self.low.det, usize::from(code >> 2));
        let fine = (det * QM6[usize::from(code)]) >> 15;
        let sample = (self.low.s + fine).clamp(-16_384, 16_383);
        self.low.scale(WL[upper]);
        self.low.adapt((det * QM4[upper]) >> 15);
        sample
    }

    fn decode_high(&mut self, code: u8) -> i32 {
        let difference = (self.high.det * QM2[usize::from(code)]) >> 15;
        let sample = (self.high.s + difference).clamp(-16_384, 16_383);
        self.high.scale(WH[usize::from(code)]);
        self.high.adapt(difference);
        sample
    }

    /// The receive QMF.
    fn join(&mut self, low: i32, high: i32) -> (i16, i16) {
        self.history.copy_within(2.., 0);
        self.history[22] = low + high;
        self.history[23] = low - high;
        let (mut first, mut second) = (0, 0);
        for (n, pair) in self.history.chunks_exact(2).enumerate() {
            second += pair[0] * QMF[n];
            first += pair[1] * QMF[11 - n];
        }
        (saturate(first >> 11) as i16, saturate(second >> 11) as i16)
    }
}

impl Default for Encoder {
    fn default() -> Self {
        Encoder::new()
    }
}

impl Default for Decoder {
    fn default() -> Self {
        Decoder::new()
    }
}

/// To 16 bits.
fn saturate(x: i32) -> i32 {
    x.clamp(-32_768, 32_767)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{resample::snr_db, tone};
    use proptest::prelude::*;

    /// A sound with everything in it: a sweep, noise at rising levels, clipping squares. Made from integers only, so
    /// that any other program can make the same.
    fn material() -> Vec<i16> {
        let mut seed = 12_345u32;
        let mut phase = 0u32;
        (0..32_000u32)
            .map(|n| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                phase = phase.wrapping_add(n * 2000);
                let noise = (seed >> 16) as i32 - 32_768;
                let triangle = ((phase >> 15) as i32 - 65_536).abs() - 32_768;
                let x = match n / 8000 {
                    0 => triangle / 2,
                    1 => noise * (n as i32 % 8000) / 8000,
                    2 => {
                        if n / 37 % 2 == 0 {
                            32_767
                        } else {
                            -32_768
                        }
                    }
                    _ => triangle / 16 + noise / 256,
                };
                x as i16
            })
            .collect()
    }

    /// [`material`], encoded and decoded by libg722 (through its Python package G722 1.2.8).
    const ENCODED: u64 = 0x8599_6e49_8eb2_4bb4;
    const DECODED: u64 = 0xc7b0_478c_e808_5e2d;

    /// FNV-1a.
    fn hash(octets: impl IntoIterator<Item = u8>) -> u64 {
        octets.into_iter().fold(0xcbf2_9ce4_8422_2325, |hash, octet| {
            (hash ^ u64::from(octet)).wrapping_mul(0x100_0000_01b3)
        })
    }

    #[test]
    fn bit_exact_with_an_independent_implementation() {
        let sound = material();
        let mut octets = vec![0; sound.len() / 2];
        Encoder::new().encode(&sound, &mut octets);
        let mut heard = vec![0; sound.len()];
        Decoder::new().decode(&octets, &mut heard);
        let hashes = (hash(octets), hash(heard.iter().flat_map(|x| x.to_le_bytes())));
        assert_eq!(hashes, (ENCODED, DECODED), "{hashes:x?}");
    }

    #[test]
    fn speech_band_tones_survive() {
        for hz in [300.0, 1000.0, 3000.0, 5000.0, 6500.0] {
            let sound = tone::sine(hz, -12.0, 500);
            let mut octets = vec![0; sound.len() / 2];
            let mut heard = vec![0; sound.len()];
            Encoder::new().encode(&sound, &mut octets);
            Decoder::new().decode(&octets, &mut heard);
            // Both filters together delay by 22 samples.
            let snr = snr_db(&sound[2000..7000], &heard[2022..7022]);
            assert!(snr > 12.0, "{hz} Hz: {snr:.1} dB");
        }
    }

    #[test]
    fn silence_stays_silent() {
        let mut octets = [1; 1600];
        let mut heard = [1; 3200];
        Encoder::new().encode(&[0; 3200], &mut octets);
        Decoder::new().decode(&octets, &mut heard);
        assert!(heard.iter().all(|x| x.unsigned_abs() < 8), "{heard:?}");
    }

    proptest! {
        #[test]
        fn random_octets_never_panic(octets in proptest::collection::vec(any::<u8>(), 0..2000)) {
            let mut heard = vec![0; octets.len() * 2];
            Decoder::new().decode(&octets, &mut heard);
            let mut again = vec![0; octets.len()];
            Encoder::new().encode(&heard, &mut again);
        }
    }
}
