//! Ears: what the caller said, kept long enough to transcribe an utterance.

use std::collections::VecDeque;

use attendant_media::{FRAME_SAMPLES, Frame};

/// Frames kept: the longest utterance and its preroll, with room (40 s).
const KEEP_FRAMES: usize = 2_000;

/// The last 40 s of the near end; frames are numbered from 1, as the turn machine counts them.
#[derive(Debug, Default)]
pub struct Ears {
    samples: VecDeque<i16>,
    frames: u64,
}

impl Ears {
    /// Adds the next frame.
    pub fn push(&mut self, frame: &Frame) {
        if self.samples.len() >= KEEP_FRAMES * FRAME_SAMPLES {
            self.samples.drain(..FRAME_SAMPLES);
        }
        self.samples.extend(frame.samples);
        self.frames += 1;
    }

    /// Samples of the frames after `from`, up to and with `to`; what is no longer kept is left out.
    #[must_use]
    pub fn slice(&self, from: u64, to: u64) -> Vec<i16> {
        let oldest = self
            .frames
            .saturating_sub((self.samples.len() / FRAME_SAMPLES) as u64);
        let start = from.max(oldest) - oldest;
        let end = to.min(self.frames).max(oldest) - oldest;
        let index = |frame: u64| {
            usize::try_from(frame)
                .unwrap_or(usize::MAX)
                .saturating_mul(FRAME_SAMPLES)
        };
        let take = index(end).saturating_sub(index(start));
        self.samples
            .iter()
            .skip(index(start))
            .take(take)
            .copied()
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_by_frame_number_and_forgets_the_oldest() {
        let mut ears = Ears::default();
        for n in 1..=2_500 {
            ears.push(&Frame {
                samples: [n; FRAME_SAMPLES],
            });
        }
        let heard = ears.slice(2_498, 2_500);
        assert_eq!(
            (heard.len(), heard.first(), heard.last()),
            (2 * FRAME_SAMPLES, Some(&2_499), Some(&2_500))
        );
        assert_eq!(ears.slice(0, 10), Vec::<i16>::new(), "too old");
        assert_eq!(ears.slice(2_499, 9_999).len(), FRAME_SAMPLES);
    }
}
