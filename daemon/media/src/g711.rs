//! G.711: logarithmic 8-bit PCM, µ-law (PCMU) and A-law (PCMA). Source: ITU-T G.711 (11/1988).
//!
//! Decoding is a table made at compile time; encoding finds the segment by counting leading zeros.

/// µ-law: added before the segment is sought, so that every segment is a power of two.
const ULAW_BIAS: i32 = 0x84;
/// µ-law: the largest magnitude that still fits after the bias.
const ULAW_CLIP: i32 = 32_635;

static ULAW_TO_LINEAR: [i16; 256] = table(true);
static ALAW_TO_LINEAR: [i16; 256] = table(false);

const fn table(ulaw: bool) -> [i16; 256] {
    let mut out = [0i16; 256];
    let mut code = 0;
    while code < 256 {
        out[code] = if ulaw {
            expand_ulaw(code as u8)
        } else {
            expand_alaw(code as u8)
        };
        code += 1;
    }
    out
}

const fn expand_ulaw(code: u8) -> i16 {
    let code = !code;
    let segment = (code >> 4) & 0x07;
    let step = (code & 0x0f) as i32;
    let magnitude = (((step << 3) + ULAW_BIAS) << segment) - ULAW_BIAS;
    (if code & 0x80 != 0 { -magnitude } else { magnitude }) as i16
}

const fn expand_alaw(code: u8) -> i16 {
    let code = code ^ 0x55;
    let segment = (code >> 4) & 0x07;
    let step = (code & 0x0f) as i32;
    let magnitude = if segment == 0 {
        (step << 4) + 8
    } else {
        ((step << 4) + 0x108) << (segment - 1)
    };
    (if code & 0x80 != 0 { magnitude } else { -magnitude }) as i16
}

/// One µ-law octet as a sample.
#[must_use]
pub fn ulaw_decode(code: u8) -> i16 {
    ULAW_TO_LINEAR[usize::from(code)]
}

/// One A-law octet as a sample.
#[must_use]
pub fn alaw_decode(code: u8) -> i16 {
    ALAW_TO_LINEAR[usize::from(code)]
}

/// A sample as one µ-law octet.
#[must_use]
pub fn ulaw_encode(sample: i16) -> u8 {
    let wide = i32::from(sample);
    let sign = if wide < 0 { 0x80 } else { 0 };
    let magnitude = wide.abs().min(ULAW_CLIP) + ULAW_BIAS;
    // The bias makes bit 7 the lowest possible leading one: segment 0..=7.
    let segment = 24 - magnitude.leading_zeros();
    let step = (magnitude >> (segment + 3)) & 0x0f;
    !(sign | (segment as u8) << 4 | step as u8)
}

/// A sample as one A-law octet.
#[must_use]
pub fn alaw_encode(sample: i16) -> u8 {
    let wide = i32::from(sample);
    // Negative samples are mirrored at -0.5 (one's complement), as the standard's tables are.
    let (sign, magnitude) = if wide >= 0 { (0x80, wide) } else { (0, !wide) };
    let code = if magnitude < 256 {
        (magnitude >> 4) as u8
    } else {
        let segment = 24 - magnitude.leading_zeros();
        (segment as u8) << 4 | ((magnitude >> (segment + 3)) & 0x0f) as u8
    };
    (sign | code) ^ 0x55
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_codes() {
        // ITU-T G.711 tables 1 and 2: the extremes and zero.
        assert_eq!(ulaw_decode(0x80), 32_124);
        assert_eq!(ulaw_decode(0x00), -32_124);
        assert_eq!(ulaw_decode(0xff), 0);
        assert_eq!(alaw_decode(0xaa), 32_256);
        assert_eq!(alaw_decode(0x2a), -32_256);
        assert_eq!(alaw_decode(0xd5), 8);
        assert_eq!(ulaw_encode(0), 0xff);
        assert_eq!(alaw_encode(0), 0xd5);
        assert_eq!(alaw_encode(i16::MIN), 0x2a);
        assert_eq!(ulaw_encode(i16::MIN), 0x00);
    }

    #[test]
    fn every_code_survives() {
        for code in 0..=255u8 {
            assert_eq!(alaw_encode(alaw_decode(code)), code, "A-law {code:#04x}");
            // µ-law has two zeros; the negative one comes back as the positive one.
            let want = if code == 0x7f { 0xff } else { code };
            assert_eq!(ulaw_encode(ulaw_decode(code)), want, "µ-law {code:#04x}");
        }
    }

    #[test]
    fn every_sample_comes_back_within_half_a_step() {
        for sample in i16::MIN..=i16::MAX {
            // The step is 1/16 of the segment's start; clipping costs a little more at the top.
            let allowed = i32::from(sample).abs() / 16 / 2 + 16;
            for (law, back) in [
                ("µ", ulaw_decode(ulaw_encode(sample))),
                ("A", alaw_decode(alaw_encode(sample))),
            ] {
                let error = (i32::from(back) - i32::from(sample)).abs();
                assert!(error <= allowed, "{law}-law {sample} -> {back}");
            }
        }
    }
}
