//! Voice activity: earshot wants exactly 256 samples, frames bring 320, so samples wait in between.

use attendant_media::Frame;
use earshot::Detector;

/// What earshot takes at a time: 16 ms at 16 kHz.
const WINDOW: usize = 256;

/// Voice activity of one leg. Allocates when made, never after.
pub struct Vad {
    detector: Box<Detector>,
    window: [i16; WINDOW],
    filled: usize,
}

impl Default for Vad {
    fn default() -> Vad {
        Vad::new()
    }
}

impl Vad {
    /// A fresh one.
    #[must_use]
    pub fn new() -> Vad {
        Vad {
            detector: Detector::default_boxed(),
            window: [0; WINDOW],
            filled: 0,
        }
    }

    /// How likely someone speaks, 0..=1: the likeliest of the one or two windows this frame completes.
    pub fn handle_frame(&mut self, frame: &Frame) -> f32 {
        let mut likeliest = 0f32;
        let mut rest = frame.samples.as_slice();
        while !rest.is_empty() {
            let free = self.window.get_mut(self.filled..).unwrap_or_default();
            let count = free.len().min(rest.len());
            let Some((taken, after)) = rest.split_at_checked(count) else {
                break;
            };
            for (to, from) in free.iter_mut().zip(taken) {
                *to = *from;
            }
            self.filled += count;
            rest = after;
            if self.filled >= WINDOW {
                likeliest = likeliest.max(self.detector.predict_i16(&self.window));
                self.filled = 0;
            }
        }
        likeliest.clamp(0.0, 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_frame_gets_a_verdict_and_silence_is_no_speech() {
        let mut vad = Vad::new();
        for _ in 0..50 {
            let prob = vad.handle_frame(&Frame::SILENCE);
            assert!((0.0..0.3).contains(&prob), "{prob}");
        }
        assert_eq!(vad.filled, 50 * 320 % WINDOW);
    }
}
