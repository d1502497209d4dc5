//! Frame: one ptime of mono samples, the unit in which audio moves through the house.

use crate::level;

/// Samples per second of every frame between codec and engines \[Hz\].
pub const SAMPLE_RATE_HZ: u32 = 16_000;
/// Samples in a frame: 20 ms at 16 kHz.
pub const FRAME_SAMPLES: usize = 320;
/// Duration of a frame \[ms\].
pub const PTIME_MS: u32 = 20;

/// 20 ms of sound, 16 kHz mono, 320 samples.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Linear PCM.
    pub samples: [i16; FRAME_SAMPLES],
}

impl Frame {
    /// Digital silence.
    pub const SILENCE: Frame = Frame {
        samples: [0; FRAME_SAMPLES],
    };

    /// A frame from the start of `samples`; what is missing is silence, what is too much is left out.
    #[must_use]
    pub fn from_slice(samples: &[i16]) -> Frame {
        let mut frame = Frame::SILENCE;
        for (to, from) in frame.samples.iter_mut().zip(samples) {
            *to = *from;
        }
        frame
    }

    /// Mean level \[dBov\]: 0 is a full-scale square wave, [`level::FLOOR_DBOV`] is silence (RFC 6464 §3).
    #[must_use]
    pub fn energy_dbov(&self) -> f32 {
        level::dbov(&self.samples)
    }

    /// Scales every sample by `permille` / 1000, clipping at full scale.
    pub fn scale(&mut self, permille: u32) {
        if permille == 1000 {
            return;
        }
        let gain = permille.min(8000) as i32;
        for sample in &mut self.samples {
            *sample =
                (i32::from(*sample) * gain / 1000).clamp(i32::from(i16::MIN), i32::from(i16::MAX)) as i16;
        }
    }
}

impl Default for Frame {
    fn default() -> Self {
        Frame::SILENCE
    }
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Frame({:.1} dBov)", self.energy_dbov())
    }
}

/// Cuts any length of sound into frames, the last one padded with silence.
pub fn frames(samples: &[i16]) -> impl Iterator<Item = Frame> + '_ {
    samples.chunks(FRAME_SAMPLES).map(Frame::from_slice)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_pad_the_last_one() {
        let cut: Vec<Frame> = frames(&[7; 330]).collect();
        assert_eq!(cut.len(), 2);
        assert_eq!(cut[1].samples[9], 7);
        assert_eq!(cut[1].samples[10], 0);
    }

    #[test]
    fn scale_clips_instead_of_wrapping() {
        let mut frame = Frame {
            samples: [30_000; FRAME_SAMPLES],
        };
        frame.scale(2000);
        assert_eq!(frame.samples[0], i16::MAX);
        frame.scale(500);
        assert_eq!(frame.samples[0], 16_383);
    }
}
