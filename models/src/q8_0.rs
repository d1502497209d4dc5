//! ggml's `q8_0` block quantiser: 32 weights share one half-precision scale.
//!
//! ```text
//! block, 34 bytes: | d: f16 | q[0..32]: i8 |     weight = d · q
//! ```
//! Bit-identical to ggml's reference (`quantize_row_q8_0_ref`), so that converted files have one checksum.
//! Source: whisper.cpp 1.8.3, ggml/src/ggml-quants.c; IEEE 754 binary16.

/// Weights per block.
pub const BLOCK_WEIGHTS: usize = 32;
/// Bytes per block: the scale and 32 signed bytes.
#[cfg(test)]
const BLOCK_BYTES: usize = 34;

/// Appends the quantised `row` to `out`. What does not fill a block is the caller's mistake and is left out;
/// [`crate::ggml`] checks row lengths first.
pub fn quantize_row(row: &[f32], out: &mut Vec<u8>) {
    for block in row.chunks_exact(BLOCK_WEIGHTS) {
        let peak = block.iter().fold(0.0f32, |peak, w| peak.max(w.abs()));
        let scale = peak / 127.0;
        let inverse = if scale == 0.0 { 0.0 } else { 1.0 / scale };
        out.extend_from_slice(&f16_bits(scale).to_le_bytes());
        out.extend(block.iter().map(|w| (w * inverse).round() as i8 as u8));
    }
}

/// Half-precision bits to single precision; exact for every input.
pub fn f32_from_f16(bits: u16) -> f32 {
    let sign = u32::from(bits >> 15) << 31;
    let exponent = u32::from(bits >> 10) & 0x1f;
    let mantissa = u32::from(bits) & 0x3ff;
    match (exponent, mantissa) {
        (0, 0) => f32::from_bits(sign),
        // Subnormal: mantissa · 2^-24, exact in single precision.
        (0, m) => f32::from_bits(sign | (m as f32 * (1.0 / 16_777_216.0)).to_bits()),
        (0x1f, m) => f32::from_bits(sign | 0x7f80_0000 | (m << 13)),
        (e, m) => f32::from_bits(sign | ((e + 112) << 23) | (m << 13)),
    }
}

/// Single precision to half-precision bits, rounding to nearest, ties to even.
pub fn f16_bits(value: f32) -> u16 {
    let bits = value.to_bits();
    let sign = ((bits >> 16) & 0x8000) as u16;
    let magnitude = bits & 0x7fff_ffff;
    if magnitude > 0x7f80_0000 {
        return sign | 0x7e00; // not a number
    }
    if magnitude >= 0x4780_0000 {
        return sign | 0x7c00; // 65536 and above: infinity
    }
    if magnitude >= 0x3880_0000 {
        // Normal: rebias the exponent, round the 13 dropped bits; a carry may reach infinity, as it should.
        let rebased = magnitude - (112 << 23);
        return sign | ((rebased + 0x0fff + ((rebased >> 13) & 1)) >> 13) as u16;
    }
    // Subnormal: adding 0.5 aligns the mantissa so that the addition itself rounds to even.
    let aligned = f32::from_bits(magnitude) + 0.5;
    sign | (aligned.to_bits() - 0x3f00_0000) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_precision_round_trips_every_number() {
        for bits in 0..=u16::MAX {
            let wide = f32_from_f16(bits);
            if !wide.is_nan() {
                assert_eq!(f16_bits(wide), bits, "{bits:#06x} = {wide}");
            }
        }
    }

    #[test]
    fn rounds_to_nearest_even() {
        let cases: &[(f32, u16)] = &[
            (1.0, 0x3c00),
            (-2.0, 0xc000),
            (65504.0, 0x7bff),
            (65519.9, 0x7bff),
            (65520.0, 0x7c00),
            (1.0e9, 0x7c00),
            (2048.0 + 1.0, 0x6800),   // a tie: to even, down
            (2048.0 + 3.0, 0x6802),   // a tie: to even, up
            (5.960_464_5e-8, 0x0001), // smallest subnormal
            (2.0e-8, 0x0000),
            (f32::NAN, 0x7e00),
        ];
        for (value, want) in cases {
            assert_eq!(f16_bits(*value), *want, "{value}");
        }
    }

    #[test]
    fn a_block_keeps_its_peak_and_sign() {
        let mut row = [0.0f32; 32];
        row[0] = -1.27;
        row[1] = 0.635; // 63.5 steps: half away from zero
        row[31] = 0.01;
        let mut out = Vec::new();
        quantize_row(&row, &mut out);
        assert_eq!(out.len(), BLOCK_BYTES);
        let scale = f32_from_f16(u16::from_le_bytes([out[0], out[1]]));
        assert!((scale - 0.01).abs() < 1e-5, "{scale}");
        assert_eq!(out[2] as i8, -127);
        assert!((63..=64).contains(&(out[3] as i8)));
        assert_eq!(out[33] as i8, 1);
    }

    #[test]
    fn zeros_stay_zeros_and_a_tail_is_left_out() {
        let mut out = Vec::new();
        quantize_row(&[0.0; 40], &mut out);
        assert_eq!(out, vec![0u8; BLOCK_BYTES]);
    }
}
