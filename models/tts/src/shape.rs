//! From what the voice gives to what a line wants: level, silence, edges, samples. Pure.
//!
//! ```text
//! voice → level (−20 dBov while it speaks) → trim → pause → faded edges → 16-bit
//! ```

/// Sample rate here [Hz].
const RATE_HZ: usize = 16_000;
/// Active speech level aimed at: −20 dBov as RMS of ±1.0 samples (0 dBov is the RMS of a full-scale square wave).
const TARGET_RMS: f32 = 0.1;
/// Highest peak let out: −1 dB.
const PEAK: f32 = 0.89;
/// Most amplification; a voice quieter than this is broken.
const MOST_GAIN: f32 = 8.0;
/// Share of a new part in the voice's level. The level belongs to the voice, so a short "Yes." stays as loud as the
/// rest.
const LEVEL_SHARE: f32 = 0.2;
/// Frame in which speech counts as active [samples]: 20 ms.
const LEVEL_FRAME: usize = RATE_HZ / 50;
/// Frames this far below the loudest are pauses: 25 dB, as power.
const ACTIVE_BELOW_LOUDEST: f32 = 3.2e-3;
/// Frame in which sound is looked for when trimming [samples]: 5 ms.
const TRIM_FRAME: usize = RATE_HZ / 200;
/// Frames below −55 dBov are silence; a soft "f" or "s" is above it. As power.
const SILENCE_POWER: f32 = 3.2e-6;
/// Kept before the first sound [samples]: 10 ms, which the caller waits for.
const LEAD: usize = RATE_HZ * 10 / 1000;
/// Kept after the last sound [samples]: 30 ms.
const MARGIN: usize = RATE_HZ * 30 / 1000;
/// Length of a faded edge [samples]: 5 ms.
const FADE: usize = RATE_HZ / 200;

/// Knows how loud the voice is.
#[derive(Debug, Default)]
pub struct Shaper {
    /// Mean power of active speech so far.
    power: Option<f32>,
}

impl Shaper {
    /// Shapes one part, followed by `pause_ms` of silence after its last sound.
    pub fn shape(&mut self, mut samples: Vec<f32>, pause_ms: u32) -> Vec<i16> {
        for s in &mut samples {
            if !s.is_finite() {
                *s = 0.0;
            }
        }
        let gain = self.gain(&samples);
        for s in &mut samples {
            *s *= gain;
        }
        let mut samples = trimmed(samples);
        if samples.is_empty() {
            return Vec::new();
        }
        fade_edges(&mut samples);
        let pause = (pause_ms as usize * RATE_HZ / 1000).saturating_sub(MARGIN);
        samples.resize(samples.len() + pause, 0.0);
        samples
            .iter()
            .map(|s| (s * 32_767.0).round().clamp(-32_768.0, 32_767.0) as i16)
            .collect()
    }

    fn gain(&mut self, samples: &[f32]) -> f32 {
        let peak = samples.iter().fold(0.0_f32, |m, s| m.max(s.abs()));
        if let Some(new) = active_power(samples) {
            self.power = Some(self.power.map_or(new, |old| old + LEVEL_SHARE * (new - old)));
        }
        let gain = self.power.map_or(1.0, |p| TARGET_RMS / p.sqrt()).min(MOST_GAIN);
        if peak * gain > PEAK { PEAK / peak } else { gain }
    }
}

/// Mean power of the frames in which something is said; `None` in silence.
fn active_power(samples: &[f32]) -> Option<f32> {
    let frames: Vec<f32> = samples.chunks_exact(LEVEL_FRAME).map(power).collect();
    let loudest = frames.iter().copied().fold(0.0, f32::max);
    if loudest < SILENCE_POWER {
        return None;
    }
    let active: Vec<f32> = frames
        .into_iter()
        .filter(|p| *p > loudest * ACTIVE_BELOW_LOUDEST)
        .collect();
    Some(active.iter().sum::<f32>() / active.len() as f32)
}

fn power(frame: &[f32]) -> f32 {
    frame.iter().map(|s| s * s).sum::<f32>() / frame.len() as f32
}

/// Without the silence at both ends, except for a margin; empty when there is no sound.
fn trimmed(mut samples: Vec<f32>) -> Vec<f32> {
    let sounds = |frame: &[f32]| power(frame) > SILENCE_POWER;
    let Some(first) = samples.chunks(TRIM_FRAME).position(sounds) else {
        return Vec::new();
    };
    let last = samples.chunks(TRIM_FRAME).rposition(sounds).unwrap_or(first);
    let end = (last + 1) * TRIM_FRAME + MARGIN;
    // What the voice left out at the end is silence.
    samples.resize(end, 0.0);
    samples.drain(..(first * TRIM_FRAME).saturating_sub(LEAD));
    samples
}

/// Raised cosine, so that no edge clicks.
fn fade_edges(samples: &mut [f32]) {
    let n = FADE.min(samples.len() / 2);
    let window = |i: usize| 0.5 - 0.5 * (std::f32::consts::PI * (i as f32 + 0.5) / n as f32).cos();
    for (i, s) in samples.iter_mut().take(n).enumerate() {
        *s *= window(i);
    }
    for (i, s) in samples.iter_mut().rev().take(n).enumerate() {
        *s *= window(i);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `ms` of a 300 Hz tone with the RMS of `rms`.
    fn tone(rms: f32, ms: usize) -> Vec<f32> {
        (0..RATE_HZ * ms / 1000)
            .map(|i| (std::f32::consts::TAU * 300.0 * i as f32 / RATE_HZ as f32).sin() * rms * 2.0_f32.sqrt())
            .collect()
    }

    fn dbov(pcm: &[i16]) -> f64 {
        let power = pcm
            .iter()
            .map(|s| (f64::from(*s) / 32_768.0).powi(2))
            .sum::<f64>()
            / pcm.len() as f64;
        10.0 * power.log10()
    }

    #[test]
    fn speaks_at_minus_20_dbov() {
        for rms in [0.02, 0.1, 0.4] {
            let out = Shaper::default().shape(tone(rms, 500), 30);
            let level = dbov(&out[1000..7000]);
            assert!((level + 20.0).abs() < 0.3, "{rms}: {level:.1} dBov");
        }
    }

    #[test]
    fn a_voice_keeps_its_own_dynamics() {
        let mut shaper = Shaper::default();
        shaper.shape(tone(0.1, 1000), 30);
        let soft = shaper.shape(tone(0.05, 300), 30);
        let level = dbov(&soft[1000..4000]);
        assert!((-26.0..=-24.0).contains(&level), "{level:.1} dBov");
    }

    #[test]
    fn never_clips() {
        let mut spiky = tone(0.01, 500);
        spiky[4000] = 0.9;
        let out = Shaper::default().shape(spiky, 30);
        let peak = out.iter().map(|s| s.unsigned_abs()).max().unwrap();
        assert!((28_000..=29_300).contains(&peak), "{peak}");
    }

    #[test]
    fn trims_and_pauses() {
        let mut samples = vec![0.0; RATE_HZ / 2];
        samples.extend(tone(0.1, 200));
        samples.resize(samples.len() + RATE_HZ / 2, 0.0);
        let out = Shaper::default().shape(samples, 200);
        // 10 ms, 200 ms of tone, 200 ms of pause; to one frame.
        assert!(
            out.len().abs_diff(RATE_HZ * 410 / 1000) <= 2 * TRIM_FRAME,
            "{}",
            out.len()
        );
        assert_eq!(out.first().copied(), Some(0));
        assert_eq!(out.last().copied(), Some(0));
    }

    #[test]
    fn survives_nothing_and_nonsense() {
        assert!(Shaper::default().shape(Vec::new(), 100).is_empty());
        assert!(Shaper::default().shape(vec![0.0; 5000], 100).is_empty());
        assert!(Shaper::default().shape(vec![f32::NAN; 5000], 100).is_empty());
        let mut short = Shaper::default().shape(vec![0.5; 3], 0);
        short.truncate(1);
        assert_eq!(short.len(), 1);
    }
}
