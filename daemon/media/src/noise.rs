//! Comfort noise: what is heard while the peer's voice activity detection sends nothing. Source: RFC 3389.
//!
//! The level is the peer's; of its spectrum only what all lines share is kept: a gentle fall towards high tones.

use crate::MediaError;
use crate::frame::Frame;
use crate::level;

/// Payload type (RFC 3551 table 4).
pub const PAYLOAD_TYPE: u8 = 13;
/// Never louder than that, whatever a peer claims \[dBov\]: it is background.
const LOUDEST_DBOV: f32 = -36.0;
/// Share of the last sample in the next, in 1/1024: a low pass at about 1.2 kHz.
const MEMORY: i32 = 640;
/// The filter's gain at the chosen memory, as root mean square: sqrt((1 - m) / (1 + m)) with m = 640 / 1024.
const FILTER_GAIN: f32 = 0.48;
/// Uniform noise of amplitude 1 has this root mean square: 1 / sqrt(3).
const UNIFORM_RMS: f32 = 0.577;

/// Makes the noise of one stream. Allocates nothing.
#[derive(Clone, Debug)]
pub struct Noise {
    /// Wanted and present amplitude of the unfiltered noise \[sample units\].
    wanted: f32,
    present: f32,
    seed: u32,
    last: i32,
}

/// The level a payload asks for \[dBov\] (§3).
///
/// # Errors
/// [`MediaError::MalformedNoise`] when empty.
pub fn parse(payload: &[u8]) -> Result<f32, MediaError> {
    let &[level, ..] = payload else {
        return Err(MediaError::MalformedNoise);
    };
    Ok(-f32::from(level & 0x7f))
}

impl Noise {
    /// Silent.
    #[must_use]
    pub fn new() -> Noise {
        Noise {
            wanted: 0.0,
            present: 0.0,
            seed: 0x6d2b_79f5,
            last: 0,
        }
    }

    /// The peer told a level \[dBov\].
    pub fn set_level(&mut self, dbov: f32) {
        self.wanted = level::rms_of_dbov(dbov.min(LOUDEST_DBOV)) / FILTER_GAIN / UNIFORM_RMS;
        if dbov <= level::FLOOR_DBOV {
            self.wanted = 0.0;
        }
    }

    /// 20 ms of it; goes over to a new level within the frame.
    pub fn frame(&mut self) -> Frame {
        let mut frame = Frame::SILENCE;
        let count = frame.samples.len() as f32;
        let (from, change) = (self.present, self.wanted - self.present);
        for (n, sample) in (0u16..).zip(&mut frame.samples) {
            // Numerical Recipes' linear congruential generator; its upper half is good enough to listen to.
            self.seed = self.seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let uniform = (self.seed >> 16) as i32 - 32_768;
            let amplitude = from + change * f32::from(n) / count;
            let white = (uniform as f32 * amplitude / 32_768.0) as i32;
            self.last = (white * (1024 - MEMORY) + self.last * MEMORY) / 1024;
            *sample = self.last.clamp(-32_768, 32_767) as i16;
        }
        self.present = self.wanted;
        frame
    }

    /// Fades out over the next frame.
    pub fn stop(&mut self) {
        self.wanted = 0.0;
    }
}

impl Default for Noise {
    fn default() -> Self {
        Noise::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn has_the_level_that_was_asked_for() {
        for (asked, want) in [
            (40u8, -40.0f32),
            (50, -50.0),
            (60, -60.0),
            (0, LOUDEST_DBOV),
            (20, LOUDEST_DBOV),
        ] {
            let mut noise = Noise::new();
            noise.set_level(parse(&[asked, 3, 4]).unwrap());
            noise.frame();
            let samples: Vec<i16> = (0..50).flat_map(|_| noise.frame().samples).collect();
            let level = level::dbov(&samples);
            assert!((level - want).abs() < 1.5, "{asked}: {level:.1}");
        }
        assert!(parse(&[]).is_err());
    }

    #[test]
    fn starts_and_ends_without_an_edge() {
        let mut noise = Noise::new();
        noise.set_level(-40.0);
        let first = noise.frame();
        assert!(
            first.samples[..16].iter().all(|x| x.abs() < 60),
            "{:?}",
            &first.samples[..16]
        );
        noise.stop();
        noise.frame();
        noise.frame();
        assert!(noise.frame().energy_dbov() < -80.0);
        noise.set_level(-127.0);
        noise.frame();
        assert!(noise.frame().energy_dbov() < -80.0);
    }
}
