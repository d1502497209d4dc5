//! Whisper's mel filterbank, computed instead of downloaded.
//!
//! Slaney's mel scale (linear to 1 kHz, logarithmic above), triangles normalised to equal area: what librosa's
//! `filters.mel(sr=16000, n_fft=400, n_mels=80)` gives, rounded at the same places.
//! Source: M. Slaney, "Auditory Toolbox", 1998; Whisper's `mel_filters.npz` was made that way.

/// Whisper's sampling rate [Hz].
const SAMPLE_RATE_HZ: f64 = 16_000.0;
/// Whisper's Fourier window [samples].
const WINDOW: usize = 400;
/// Frequency bins of a real transform of that window.
pub const BINS: usize = WINDOW / 2 + 1;

/// End of the scale's linear part [Hz].
const KNEE_HZ: f64 = 1000.0;
/// Width of one mel in the linear part [Hz].
const HZ_PER_MEL: f64 = 200.0 / 3.0;
/// Mels at the knee.
const KNEE_MEL: f64 = KNEE_HZ / HZ_PER_MEL;

/// The filterbank, row-major: `bands` rows of [`BINS`] weights.
pub fn filters(bands: usize) -> Vec<f32> {
    let edges = edges_hz(bands);
    let mut weights = vec![0.0f32; bands * BINS];
    for (row, corner) in weights.chunks_exact_mut(BINS).zip(edges.windows(3)) {
        let (low, centre, high) = (corner[0], corner[1], corner[2]);
        let area = 2.0 / (high - low);
        for (bin, weight) in row.iter_mut().enumerate() {
            let hz = bin as f64 * SAMPLE_RATE_HZ / WINDOW as f64;
            let rising = -(low - hz) / (centre - low);
            let falling = (high - hz) / (high - centre);
            // Rounded once before and once after the normalisation, as in the reference.
            let height = if rising < falling { rising } else { falling };
            let triangle = if height < 0.0 { 0.0 } else { height } as f32;
            *weight = (f64::from(triangle) * area) as f32;
        }
    }
    weights
}

/// `bands + 2` corner frequencies [Hz], evenly spaced in mel from 0 to half the sampling rate.
fn edges_hz(bands: usize) -> Vec<f64> {
    let log_step = libm::log(6.4) / 27.0;
    let top_mel = KNEE_MEL + libm::log(SAMPLE_RATE_HZ / 2.0 / KNEE_HZ) / log_step;
    let step = top_mel / (bands + 1) as f64;
    (0..bands + 2)
        .map(|i| {
            let mel = if i == bands + 1 { top_mel } else { i as f64 * step };
            if mel >= KNEE_MEL {
                KNEE_HZ * libm::exp(log_step * (mel - KNEE_MEL))
            } else {
                mel * HZ_PER_MEL
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    #[test]
    fn every_band_has_weight_and_equal_area() {
        let bank = filters(80);
        assert_eq!(bank.len(), 80 * BINS);
        for (band, row) in bank.chunks_exact(BINS).enumerate() {
            assert!(row.iter().any(|w| *w > 0.0), "band {band} is empty");
            assert!(row.iter().all(|w| (0.0..0.1).contains(w)), "band {band}");
        }
    }

    #[test]
    fn equals_the_published_filters() {
        // Digest of Whisper's own mel_filters.npz, array mel_80.
        let bytes: Vec<u8> = filters(80).iter().flat_map(|w| w.to_le_bytes()).collect();
        let digest: String = Sha256::digest(&bytes)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        assert_eq!(
            digest,
            "4f2701b1d287d74a0dc9871026e9519d98cb76426615f2539b0d151a0ae4ec2e"
        );
    }
}
