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

/// Going on after a pause, so much is repeated [frames]: the word that was cut, and what was ducked (200 ms).
const REPEAT_FRAMES: u32 = 10;

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
    clip: Clip,
    /// Its first frame to be played: not 0 where it goes on after a pause.
    from: u32,
}

impl Fed {
    /// Frames to be played.
    fn frames(&self) -> u32 {
        self.clip.frames().saturating_sub(self.from)
    }

    fn is_played(&self, played: Played) -> bool {
        self.mark < played.mark || (self.mark == played.mark && played.frames_in_mark >= self.frames())
    }
}

/// What the attendant says, and what was heard of it.
#[derive(Debug, Default)]
pub struct Mouth {
    waiting: VecDeque<Clip>,
    /// Frames of the first waiting clip already fed, or to be left out.
    offset: u32,
    /// The first waiting clip has not been fed yet.
    fresh: bool,
    /// Nothing is fed since then.
    paused: Option<Played>,
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
            if self.waiting.is_empty() {
                (self.offset, self.fresh) = (0, true);
            }
            self.waiting.push_back(clip);
        }
    }

    /// Feeds the ring up to its lead; call often.
    pub fn pump(&mut self, ring: &mut rtrb::Producer<TxFrame>, played: Played) {
        if self.paused.is_some() {
            return;
        }
        while let Some(clip) = self.waiting.front() {
            if self.pushed >= played.frames.saturating_sub(self.played_base) + LEAD_FRAMES {
                return;
            }
            if std::mem::take(&mut self.fresh) {
                self.next_mark = self.next_mark.wrapping_add(1).max(1);
                self.fed.push(Fed {
                    mark: self.next_mark,
                    clip: clip.clone(),
                    from: self.offset,
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
                (self.offset, self.fresh) = (0, true);
            }
        }
    }

    /// Whether anything is queued or not yet fully played.
    #[must_use]
    pub fn playing(&self, played: Played) -> bool {
        self.paused.is_none()
            && (!self.waiting.is_empty() || self.fed.last().is_some_and(|f| !f.is_played(played)))
    }

    /// Whether a frame of this reply has been played.
    #[must_use]
    pub fn has_begun(&self, id: AttemptId, played: Played) -> bool {
        self.fed.iter().any(|f| {
            f.clip.attempt == Some(id)
                && (f.mark < played.mark || (f.mark == played.mark && played.frames_in_mark > 0))
        })
    }

    /// Forgets everything queued; returns the epoch from which the ring plays again.
    pub fn stop(&mut self, played: Played) -> u32 {
        self.waiting.clear();
        (self.offset, self.fresh) = (0, true);
        self.fed.clear();
        self.paused = None;
        self.next_epoch(played)
    }

    /// Keeps back everything that has not been played; returns the epoch from which the ring plays again.
    pub fn pause(&mut self, played: Played) -> u32 {
        let cut = self
            .fed
            .iter()
            .position(|f| !f.is_played(played))
            .unwrap_or(self.fed.len());
        let unplayed = self.fed.split_off(cut);
        // The clip being fed stands first in the queue as well.
        if !self.waiting.is_empty() && !self.fresh {
            self.waiting.pop_front();
        }
        (self.offset, self.fresh) = (0, true);
        if let Some(first) = unplayed.first() {
            let reached = if first.mark == played.mark {
                played.frames_in_mark
            } else {
                0
            };
            self.offset = (first.from + reached).saturating_sub(REPEAT_FRAMES);
        }
        for fed in unplayed.into_iter().rev() {
            self.waiting.push_front(fed.clip);
        }
        self.paused = Some(played);
        self.next_epoch(played)
    }

    /// Goes on a moment before the pause.
    pub fn resume(&mut self) {
        self.paused = None;
    }

    /// While paused: the attendant's words under way.
    #[must_use]
    pub fn paused(&self) -> Option<&str> {
        self.paused?;
        Some(self.waiting.front().map_or("", |clip| clip.text.as_str()))
    }

    fn next_epoch(&mut self, played: Played) -> u32 {
        self.pushed = 0;
        self.played_base = played.frames;
        self.epoch = self.epoch.wrapping_add(1);
        self.epoch
    }

    /// What the caller heard of a reply: whole clips as written, a cut one by the share of its frames.
    #[must_use]
    pub fn heard(&self, id: AttemptId, played: Played) -> String {
        let mut heard: Vec<String> = Vec::new();
        let of_it = |clip: &Clip| clip.attempt == Some(id);
        for fed in self.fed.iter().filter(|f| of_it(&f.clip)) {
            if fed.is_played(played) {
                heard.push(fed.clip.text.clone());
            } else if fed.mark == played.mark {
                heard.extend(part_of(&fed.clip, fed.from + played.frames_in_mark));
            }
        }
        // Paused in the middle of a clip.
        if let Some(clip) = self
            .waiting
            .front()
            .filter(|clip| self.paused.is_some() && of_it(clip))
            && self.offset > 0
        {
            heard.extend(part_of(clip, self.offset + REPEAT_FRAMES));
        }
        heard.join(" ")
    }

    /// Forgets what a finished reply had fed, so that the list stays short.
    pub fn forget(&mut self, id: AttemptId) {
        let keep_last = self.fed.last().map(|f| f.mark);
        self.fed
            .retain(|f| f.clip.attempt != Some(id) || Some(f.mark) == keep_last);
    }
}

/// The words of a clip of which this many frames were played; none when it was less than one.
fn part_of(clip: &Clip, frames: u32) -> Option<String> {
    let words: Vec<&str> = clip.text.split_whitespace().collect();
    let share = words.len() * frames as usize / clip.frames().max(1) as usize;
    let part = words.get(..share).unwrap_or(&words).join(" ");
    (!part.is_empty()).then(|| format!("{part}…"))
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
    fn a_pause_goes_on_a_moment_before() {
        let (mut tx, mut rx) = rtrb::RingBuffer::new(256);
        let mut mouth = Mouth::default();
        mouth.say(clip(1, "one two three four", 40));
        mouth.say(clip(1, "five six", 10));
        mouth.pump(&mut tx, played(0, 0, 0));
        let before = played(25, 1, 25);
        mouth.pump(&mut tx, before);
        assert_eq!(mouth.pause(before), 1);
        while rx.pop().is_ok() {}
        assert!(!mouth.playing(before));
        assert_eq!(mouth.paused(), Some("one two three four"));
        assert_eq!(mouth.heard(AttemptId(1), before), "one two…");
        mouth.pump(&mut tx, before);
        assert_eq!(rx.slots(), 0, "paused");
        mouth.say(clip(1, "seven", 5));
        mouth.resume();
        mouth.pump(&mut tx, before);
        assert_eq!(rx.slots() as u64, LEAD_FRAMES);
        assert!(mouth.playing(before));
        // 25 frames of the first clip from frame 15 on, 10 of the second, 5 of the third.
        mouth.pump(&mut tx, played(50, 3, 24));
        assert_eq!(rx.slots(), 40);
        assert_eq!(mouth.heard(AttemptId(1), played(40, 3, 15)), "one two three…");
        assert_eq!(
            mouth.heard(AttemptId(1), played(65, 5, 5)),
            "one two three four five six seven"
        );
        assert!(!mouth.playing(played(65, 5, 5)));
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
