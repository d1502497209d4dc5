//! Mouth: what the caller is to hear, in order, and how much of it has been heard.
//!
//! Clips wait here and are fed to the audio thread a little ahead of time: far enough that a busy machine never lets the
//! ring run dry, near enough that little is queued when the caller interrupts.

use std::{collections::VecDeque, sync::Arc};

use attendant_media::{FRAME_SAMPLES, Frame};
use attendant_rt::{Played, TxFrame};
use attendant_turn::AttemptId;

/// Frames queued ahead in the ring (600 ms).
const LEAD_FRAMES: u64 = 30;

/// One piece of speech.
#[derive(Debug, Clone)]
pub struct Clip {
    /// The reply it belongs to; `None` for a stock phrase.
    pub attempt: Option<AttemptId>,
    /// What it says, as written.
    pub text: String,
    /// 16 kHz mono.
    pub pcm: Arc<Vec<i16>>,
}

impl Clip {
    fn frames(&self) -> u32 {
        self.pcm.len().div_ceil(FRAME_SAMPLES) as u32
    }
}

/// A clip that has begun to be fed to the ring.
#[derive(Debug)]
struct Fed {
    mark: u32,
    attempt: Option<AttemptId>,
    text: String,
    frames: u32,
}

/// What the attendant says, and what was heard of it.
#[derive(Debug, Default)]
pub struct Mouth {
    waiting: VecDeque<Clip>,
    /// Frames of the first waiting clip already fed.
    offset: u32,
    fed: Vec<Fed>,
    next_mark: u32,
    epoch: u32,
    /// Frames given to the ring in this epoch beyond what was played.
    pushed: u64,
    played_base: u64,
}

impl Mouth {
    /// Queues a clip after those that wait.
    pub fn say(&mut self, clip: Clip) {
        if !clip.pcm.is_empty() {
            self.waiting.push_back(clip);
        }
    }

    /// Feeds the ring up to its lead; call often.
    pub fn pump(&mut self, ring: &mut rtrb::Producer<TxFrame>, played: Played) {
        while let Some(clip) = self.waiting.front() {
            if self.pushed >= played.frames.saturating_sub(self.played_base) + LEAD_FRAMES {
                return;
            }
            if self.offset == 0 {
                self.next_mark = self.next_mark.wrapping_add(1).max(1);
                self.fed.push(Fed {
                    mark: self.next_mark,
                    attempt: clip.attempt,
                    text: clip.text.clone(),
                    frames: clip.frames(),
                });
            }
            let from = self.offset as usize * FRAME_SAMPLES;
            let mut frame = Frame::SILENCE;
            for (to, sample) in frame.samples.iter_mut().zip(clip.pcm.iter().skip(from)) {
                *to = *sample;
            }
            let last = self.offset + 1 >= clip.frames();
            if ring
                .push(TxFrame {
                    frame,
                    epoch: self.epoch,
                    mark: self.next_mark,
                    last,
                })
                .is_err()
            {
                return;
            }
            self.pushed += 1;
            self.offset += 1;
            if last {
                self.waiting.pop_front();
                self.offset = 0;
            }
        }
    }

    /// Whether anything is queued or not yet fully played.
    #[must_use]
    pub fn playing(&self, played: Played) -> bool {
        !self.waiting.is_empty()
            || self
                .fed
                .last()
                .is_some_and(|f| f.mark != played.mark || played.frames_in_mark < f.frames)
    }

    /// Whether a frame of this reply has been played.
    #[must_use]
    pub fn has_begun(&self, id: AttemptId, played: Played) -> bool {
        self.fed.iter().any(|f| {
            f.attempt == Some(id)
                && (f.mark < played.mark || (f.mark == played.mark && played.frames_in_mark > 0))
        })
    }

    /// Forgets everything queued; returns the epoch from which the ring plays again.
    pub fn stop(&mut self, played: Played) -> u32 {
        self.waiting.clear();
        self.offset = 0;
        self.fed.clear();
        self.pushed = 0;
        self.played_base = played.frames;
        self.epoch = self.epoch.wrapping_add(1);
        self.epoch
    }

    /// What the caller heard of a reply: whole clips as written, a cut one by the share of its frames.
    #[must_use]
    pub fn heard(&self, id: AttemptId, played: Played) -> String {
        let mut heard: Vec<String> = Vec::new();
        for fed in self.fed.iter().filter(|f| f.attempt == Some(id)) {
            if fed.mark < played.mark || (fed.mark == played.mark && played.frames_in_mark >= fed.frames) {
                heard.push(fed.text.clone());
            } else if fed.mark == played.mark {
                let words: Vec<&str> = fed.text.split_whitespace().collect();
                let share = words.len() * played.frames_in_mark as usize / fed.frames.max(1) as usize;
                let part = words.get(..share).unwrap_or(&words).join(" ");
                if !part.is_empty() {
                    heard.push(format!("{part}…"));
                }
            }
        }
        heard.join(" ")
    }

    /// Forgets what a finished reply had fed, so that the list stays short.
    pub fn forget(&mut self, id: AttemptId) {
        let keep_last = self.fed.last().map(|f| f.mark);
        self.fed
            .retain(|f| f.attempt != Some(id) || Some(f.mark) == keep_last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clip(id: u32, text: &str, frames: usize) -> Clip {
        Clip {
            attempt: Some(AttemptId(id)),
            text: text.into(),
            pcm: Arc::new(vec![1; frames * FRAME_SAMPLES]),
        }
    }

    fn played(frames: u64, mark: u32, frames_in_mark: u32) -> Played {
        Played {
            frames,
            mark,
            frames_in_mark,
            idle: false,
        }
    }

    #[test]
    fn feeds_ahead_and_tells_what_was_heard() {
        let (mut tx, mut rx) = rtrb::RingBuffer::new(256);
        let mut mouth = Mouth::default();
        mouth.say(clip(1, "one two three four", 40));
        mouth.say(clip(1, "five six", 10));
        mouth.pump(&mut tx, played(0, 0, 0));
        assert_eq!(rx.slots() as u64, LEAD_FRAMES);
        assert!(mouth.playing(played(0, 0, 0)));
        mouth.pump(&mut tx, played(20, 1, 20));
        assert_eq!(rx.slots() as u64, 50);
        assert_eq!(mouth.heard(AttemptId(1), played(20, 1, 20)), "one two…");
        assert_eq!(
            mouth.heard(AttemptId(1), played(45, 2, 5)),
            "one two three four five…"
        );
        let last = std::iter::from_fn(|| rx.pop().ok()).filter(|f| f.last).count();
        assert_eq!(last, 2, "each clip ends with a marked frame");
        assert!(!mouth.playing(played(50, 2, 10)));
    }

    #[test]
    fn a_stop_forgets_what_was_queued() {
        let (mut tx, _rx) = rtrb::RingBuffer::new(256);
        let mut mouth = Mouth::default();
        mouth.say(clip(1, "one two three four", 40));
        mouth.pump(&mut tx, played(0, 0, 0));
        assert_eq!(mouth.stop(played(10, 1, 10)), 1);
        assert!(!mouth.playing(played(10, 1, 10)));
        mouth.say(clip(2, "next", 5));
        mouth.pump(&mut tx, played(10, 1, 10));
        assert!(mouth.playing(played(10, 1, 10)) && !mouth.has_begun(AttemptId(2), played(10, 1, 10)));
        assert!(mouth.has_begun(AttemptId(2), played(11, 2, 1)));
    }
}
