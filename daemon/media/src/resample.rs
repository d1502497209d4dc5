//! Resampling: streaming 8 kHz <-> 16 kHz for the line, and any rate to any rate for files.
//!
//! The streaming pair is one half-band FIR, a Kaiser-windowed sinc: flat to 3.4 kHz (the telephone band),
//! 60 dB down from 4.6 kHz, linear phase. Every second tap of a half-band filter is zero, and one phase is the
//! centre tap alone, so a frame costs 160 × 26 multiplications. Delay: 25 samples at 16 kHz, 1.6 ms.
//! Source: Crochiere and Rabiner, Multirate Digital Signal Processing (1983), §4; Kaiser (1974) for the window.

use std::f64::consts::PI;

/// Non-zero taps beside the centre: 51 taps in all.
const SIDE_TAPS: usize = 26;
/// Position of the centre tap, and so the delay \[samples at 16 kHz\].
pub const DELAY_SAMPLES: usize = SIDE_TAPS - 1;
/// Kaiser's shape parameter for about 62 dB of stop band.
const KAISER_BETA: f64 = 5.8;

/// The odd-placed taps of the half-band low-pass (gain 1 at 0 Hz with the centre tap 0.5).
fn side_taps() -> [f32; SIDE_TAPS] {
    let centre = DELAY_SAMPLES as f64;
    let mut taps = [0f64; SIDE_TAPS];
    for (i, tap) in taps.iter_mut().enumerate() {
        let x = 2.0 * i as f64 - centre;
        *tap = 0.5 * sinc(x / 2.0) * kaiser(x / (centre + 1.0));
    }
    // Exactly 0.5 in sum, so that both phases have the same gain: no 8 kHz whistle on a constant.
    let sum: f64 = taps.iter().sum();
    taps.map(|tap| (tap * 0.5 / sum) as f32)
}

/// 8 kHz to 16 kHz, streaming.
pub struct Upsampler {
    taps: [f32; SIDE_TAPS],
    /// The newest input samples, oldest first.
    history: [f32; SIDE_TAPS],
}

impl Upsampler {
    /// A filter at rest.
    #[must_use]
    pub fn new() -> Upsampler {
        Upsampler {
            taps: side_taps().map(|tap| tap * 2.0),
            history: [0.0; SIDE_TAPS],
        }
    }

    /// Two samples out for each one in; stops at the shorter of `input` and half of `output`.
    pub fn process(&mut self, input: &[i16], output: &mut [i16]) {
        for (&sample, pair) in input.iter().zip(output.chunks_exact_mut(2)) {
            self.history.copy_within(1.., 0);
            self.history[SIDE_TAPS - 1] = f32::from(sample);
            let filtered: f32 = self.taps.iter().zip(&self.history).map(|(tap, x)| tap * x).sum();
            pair[0] = clip(filtered);
            // Output 2n + 1 lies on the centre tap alone: the input 12 samples ago.
            pair[1] = clip(self.history[SIDE_TAPS - 1 - DELAY_SAMPLES / 2]);
        }
    }
}

/// 16 kHz to 8 kHz, streaming.
pub struct Downsampler {
    taps: [f32; SIDE_TAPS],
    /// The newest even-placed samples, oldest first.
    even: [f32; SIDE_TAPS],
    /// The newest odd-placed samples, oldest first; the oldest is the one under the centre tap.
    odd: [f32; SIDE_TAPS / 2],
}

impl Downsampler {
    /// A filter at rest.
    #[must_use]
    pub fn new() -> Downsampler {
        Downsampler {
            taps: side_taps(),
            even: [0.0; SIDE_TAPS],
            odd: [0.0; SIDE_TAPS / 2],
        }
    }

    /// One sample out for each two in; stops at the shorter of half of `input` and `output`.
    pub fn process(&mut self, input: &[i16], output: &mut [i16]) {
        for (pair, out) in input.chunks_exact(2).zip(output) {
            self.even.copy_within(1.., 0);
            self.even[SIDE_TAPS - 1] = f32::from(pair[0]);
            let filtered: f32 = self.taps.iter().zip(&self.even).map(|(tap, x)| tap * x).sum();
            *out = clip(filtered + 0.5 * self.odd[0]);
            self.odd.copy_within(1.., 0);
            self.odd[SIDE_TAPS / 2 - 1] = f32::from(pair[1]);
        }
    }
}

impl Default for Upsampler {
    fn default() -> Self {
        Upsampler::new()
    }
}

impl Default for Downsampler {
    fn default() -> Self {
        Downsampler::new()
    }
}

/// Zero crossings of the sinc on each side, for [`convert`].
const CONVERT_CROSSINGS: f64 = 24.0;
/// The pass band's share of the lower Nyquist frequency, for [`convert`].
const CONVERT_CUTOFF: f64 = 0.94;

/// Any rate to any rate, without delay, for whole recordings; allocates. Windowed sinc, about 70 dB.
/// A rate of 0 gives nothing back.
#[must_use]
pub fn convert(samples: &[i16], from_hz: u32, to_hz: u32) -> Vec<i16> {
    if from_hz == to_hz {
        return samples.to_vec();
    }
    if from_hz == 0 || to_hz == 0 || samples.is_empty() {
        return Vec::new();
    }
    let ratio = f64::from(to_hz) / f64::from(from_hz);
    let cutoff = CONVERT_CUTOFF * ratio.min(1.0);
    let reach = CONVERT_CROSSINGS / cutoff;
    let kernel = |distance: f64| cutoff * sinc(distance * cutoff) * kaiser(distance / reach);
    // One set of taps per phase; the phases repeat every `to / gcd` outputs.
    let divisor = gcd(from_hz, to_hz);
    let (step, phases) = (u64::from(from_hz / divisor), u64::from(to_hz / divisor));
    let side = reach.ceil() as i64;
    let bank: Vec<Vec<f32>> = (0..phases)
        .map(|phase| {
            let offset = phase as f64 / phases as f64;
            let taps: Vec<f64> = (-side..=side + 1).map(|k| kernel(k as f64 - offset)).collect();
            let sum: f64 = taps.iter().sum();
            taps.iter().map(|tap| (tap / sum) as f32).collect()
        })
        .collect();
    let count = (samples.len() as u64 * phases).div_ceil(step);
    (0..count)
        .map(|n| {
            let position = n * step;
            let first = (position / phases) as i64 - side;
            let taps = &bank[(position % phases) as usize];
            let skip = usize::try_from(-first).unwrap_or(0);
            let start = usize::try_from(first).unwrap_or(0);
            let inside = samples.get(start..).unwrap_or_default();
            let sum: f32 = taps
                .iter()
                .skip(skip)
                .zip(inside)
                .map(|(tap, &sample)| tap * f32::from(sample))
                .sum();
            clip(sum)
        })
        .collect()
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn sinc(x: f64) -> f64 {
    if x.abs() < 1e-9 {
        1.0
    } else {
        (PI * x).sin() / (PI * x)
    }
}

/// Kaiser's window at `x` in -1..=1; 0 outside.
fn kaiser(x: f64) -> f64 {
    if x.abs() >= 1.0 {
        0.0
    } else {
        bessel_i0(KAISER_BETA * (1.0 - x * x).sqrt()) / bessel_i0(KAISER_BETA)
    }
}

/// Modified Bessel function of the first kind, order 0, by its power series.
fn bessel_i0(x: f64) -> f64 {
    let (mut sum, mut term) = (1.0, 1.0);
    for k in 1..40 {
        term *= (x / (2.0 * f64::from(k))).powi(2);
        sum += term;
    }
    sum
}

fn clip(x: f32) -> i16 {
    // `as` saturates.
    x.round() as i16
}

/// Signal to noise ratio of `heard` against `sent` \[dB\], gain and offset not compensated. A test's helper.
#[must_use]
pub fn snr_db(sent: &[i16], heard: &[i16]) -> f64 {
    let (mut signal, mut noise) = (0.0, 1e-9);
    for (&a, &b) in sent.iter().zip(heard) {
        signal += f64::from(a).powi(2);
        noise += (f64::from(a) - f64::from(b)).powi(2);
    }
    10.0 * (signal / noise).log10()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sine(hz: f64, rate: f64, samples: usize) -> Vec<i16> {
        (0..samples)
            .map(|n| (12_000.0 * (2.0 * PI * hz * n as f64 / rate).sin()).round() as i16)
            .collect()
    }

    #[test]
    fn upsampled_tones_are_clean() {
        for hz in [100.0, 300.0, 1000.0, 2000.0, 3000.0, 3400.0] {
            let mut out = vec![0i16; 3200];
            let mut up = Upsampler::new();
            // In two pieces: the state must carry over.
            let input = sine(hz, 8000.0, 1600);
            up.process(&input[..160], &mut out[..320]);
            up.process(&input[160..], &mut out[320..]);
            let ideal = sine(hz, 16_000.0, 3200);
            let snr = snr_db(&ideal[500..3000], &out[500 + DELAY_SAMPLES..3000 + DELAY_SAMPLES]);
            assert!(snr > 52.0, "{hz} Hz: {snr:.1} dB");
        }
    }

    #[test]
    fn downsampled_tones_are_clean_and_do_not_alias() {
        for hz in [100.0, 1000.0, 3000.0, 3400.0] {
            let mut out = vec![0i16; 1600];
            Downsampler::new().process(&sine(hz, 16_000.0, 3200), &mut out);
            // 25 samples at 16 kHz are 12.5 at 8 kHz: compare with the ideal at that phase.
            let ideal: Vec<i16> = (0..1600)
                .map(|n| (12_000.0 * (2.0 * PI * hz * (n as f64 - 12.5) / 8000.0).sin()).round() as i16)
                .collect();
            let snr = snr_db(&ideal[200..1500], &out[200..1500]);
            assert!(snr > 52.0, "{hz} Hz: {snr:.1} dB");
        }
        for hz in [4600.0, 5000.0, 6000.0, 7900.0] {
            let mut out = vec![0i16; 1600];
            Downsampler::new().process(&sine(hz, 16_000.0, 3200), &mut out);
            let loudest = out[200..].iter().map(|x| x.unsigned_abs()).max().unwrap_or(0);
            assert!(loudest <= 14, "{hz} Hz leaves {loudest} of 12000");
        }
    }

    #[test]
    fn full_scale_clips_and_does_not_wrap() {
        let mut out = vec![0i16; 640];
        let square: Vec<i16> = (0..320)
            .map(|n| if n / 20 % 2 == 0 { i16::MAX } else { i16::MIN })
            .collect();
        Upsampler::new().process(&square, &mut out);
        // Half periods of 40 samples, delayed by 25: the middle of the second and the third.
        assert!(out[80..90].iter().all(|&x| x < -30_000));
        assert!(out[120..130].iter().all(|&x| x > 30_000));
    }

    #[test]
    fn convert_any_rate() {
        for (from, to) in [
            (22_050, 16_000),
            (8000, 16_000),
            (48_000, 16_000),
            (44_100, 8000),
            (16_000, 48_000),
        ] {
            let input = sine(1000.0, f64::from(from), from as usize / 2);
            let out = convert(&input, from, to);
            let ideal = sine(1000.0, f64::from(to), to as usize / 2);
            assert!(
                (out.len() as i64 - ideal.len() as i64).abs() <= 1,
                "{from} -> {to}"
            );
            let snr = snr_db(&ideal[1000..3000], &out[1000..3000]);
            assert!(snr > 55.0, "{from} -> {to}: {snr:.1} dB");
        }
        assert!(convert(&[1, 2], 0, 16_000).is_empty());
        assert_eq!(convert(&[1, 2], 8000, 8000), [1, 2]);
    }
}
