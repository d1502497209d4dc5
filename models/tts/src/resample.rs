//! Resampling of a finished piece of audio by a rational factor: polyphase windowed sinc. Pure.
//!
//! Each output sample is the dot product of the input around it with one of L filters, L/M being the reduced ratio
//! (320/441 from 22.05 to 16 kHz). Cheap beside synthesis: 0.2 ms for a second of speech.

/// Taps on each side at the lower of the two rates; with the window below this stops images by 70 dB.
const HALF_TAPS: usize = 24;
/// Passband edge as a share of the lower rate's Nyquist frequency.
const CUTOFF: f64 = 0.94;
/// Kaiser window shape: 70 dB.
const BETA: f64 = 7.0;
/// Most filters (L) kept in memory; any usual pair of rates needs at most 640.
const MOST_PHASES: u32 = 2000;

/// A converter between two rates.
pub struct Resampler {
    up: usize,
    down: usize,
    half: usize,
    /// `up` filters of `2·half` taps each.
    taps: Vec<f32>,
}

impl Resampler {
    /// `None` when the rates have no usable ratio.
    #[must_use]
    pub fn new(from_hz: u32, to_hz: u32) -> Option<Self> {
        if !(4_000..=192_000).contains(&from_hz) || !(4_000..=192_000).contains(&to_hz) {
            return None;
        }
        let divisor = gcd(from_hz, to_hz);
        let (up, down) = (to_hz / divisor, from_hz / divisor);
        if up > MOST_PHASES {
            return None;
        }
        // Going down, the filter gets longer in input samples.
        let scale = (f64::from(to_hz) / f64::from(from_hz)).min(1.0);
        let half = (HALF_TAPS as f64 / scale).ceil() as usize;
        let mut taps = Vec::with_capacity(up as usize * 2 * half);
        for phase in 0..up {
            let offset = f64::from(phase) / f64::from(up);
            let filter: Vec<f64> = (0..2 * half)
                .map(|j| {
                    let x = j as f64 - (half as f64 - 1.0) - offset;
                    sinc(x * scale * CUTOFF) * kaiser(x / half as f64)
                })
                .collect();
            let sum: f64 = filter.iter().sum();
            taps.extend(filter.iter().map(|t| (t / sum) as f32));
        }
        Some(Self {
            up: up as usize,
            down: down as usize,
            half,
            taps,
        })
    }

    /// The whole of `input` at the other rate; beyond its ends there is silence.
    #[must_use]
    pub fn process(&self, input: &[f32]) -> Vec<f32> {
        if self.up == self.down {
            return input.to_vec();
        }
        let length = (input.len() * self.up).div_ceil(self.down);
        let width = 2 * self.half;
        (0..length)
            .map(|n| {
                let position = n * self.down;
                let (centre, phase) = (position / self.up, position % self.up);
                let filter = self
                    .taps
                    .get(phase * width..(phase + 1) * width)
                    .unwrap_or_default();
                // Tap j meets input sample centre + j + 1 − half.
                let skip = self.half.saturating_sub(centre + 1);
                let first = (centre + 1 + skip).saturating_sub(self.half);
                let samples = input.get(first..).unwrap_or_default();
                filter.iter().skip(skip).zip(samples).map(|(t, s)| t * s).sum()
            })
            .collect()
    }
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

fn sinc(x: f64) -> f64 {
    let x = x * std::f64::consts::PI;
    if x.abs() < 1e-9 { 1.0 } else { x.sin() / x }
}

/// Kaiser window at −1…1.
fn kaiser(x: f64) -> f64 {
    if x.abs() >= 1.0 {
        0.0
    } else {
        bessel_i0(BETA * (1.0 - x * x).sqrt()) / bessel_i0(BETA)
    }
}

fn bessel_i0(x: f64) -> f64 {
    let (mut sum, mut term) = (1.0, 1.0);
    for k in 1..40 {
        term *= (x / (2.0 * f64::from(k))).powi(2);
        sum += term;
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tone(hz: f64, rate: f64, samples: usize) -> Vec<f32> {
        (0..samples)
            .map(|i| (std::f64::consts::TAU * hz * i as f64 / rate).sin() as f32)
            .collect()
    }

    fn rms(x: &[f32]) -> f64 {
        (x.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / x.len() as f64).sqrt()
    }

    #[test]
    fn keeps_what_fits_and_stops_what_does_not() {
        let down = Resampler::new(22_050, 16_000).unwrap();
        for (hz, want_db) in [(300.0, 0.0), (3_400.0, 0.0), (7_000.0, 0.0), (9_500.0, -60.0)] {
            let out = down.process(&tone(hz, 22_050.0, 22_050));
            assert_eq!(out.len(), 16_000);
            let db = 20.0 * (rms(&out[1000..15_000]) / std::f64::consts::FRAC_1_SQRT_2).log10();
            if want_db < 0.0 {
                assert!(db < want_db, "{hz} Hz: {db:.1} dB");
            } else {
                assert!(db.abs() < 0.5, "{hz} Hz: {db:.1} dB");
            }
        }
    }

    #[test]
    fn keeps_the_waveform() {
        for (from, to) in [
            (22_050, 16_000),
            (48_000, 16_000),
            (8_000, 16_000),
            (16_000, 16_000),
        ] {
            let out =
                Resampler::new(from, to)
                    .unwrap()
                    .process(&tone(440.0, f64::from(from), from as usize / 4));
            let want = tone(440.0, f64::from(to), out.len());
            let error: Vec<f32> = out.iter().zip(&want).map(|(a, b)| a - b).collect();
            assert!(rms(&error[500..out.len() - 500]) < 0.01, "{from} to {to}");
        }
    }

    #[test]
    fn odd_sizes_and_rates() {
        let down = Resampler::new(22_050, 16_000).unwrap();
        for n in 0..100 {
            assert_eq!(down.process(&vec![0.5; n]).len(), (n * 320).div_ceil(441));
        }
        assert!(Resampler::new(0, 16_000).is_none());
        assert!(Resampler::new(22_051, 16_001).is_none());
    }
}
