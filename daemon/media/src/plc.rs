//! Packet loss concealment: repeats the last pitch period and fades it out. After ITU-T G.711 Appendix I
//! (1999), at 16 kHz and without its look-ahead: the repair costs no delay, and the joint at the end of the
//! gap is blended instead.
//!
//! ```text
//! played ...~~~~~~|~~~~|          the last period, found by correlation
//!                      |~~~~|~~~~|~~~~|~~ repeated, fading to silence over 60 ms
//!                                   \--\~~~~ blended into the first good frame over 5 ms
//! ```

use crate::frame::{FRAME_SAMPLES, Frame};

/// Shortest period that is sought: 2.5 ms, 400 Hz.
const MIN_PERIOD: usize = 40;
/// Longest period that is sought: 15 ms, 66 Hz.
const MAX_PERIOD: usize = 240;
/// Stretch that is compared: 20 ms.
const WINDOW: usize = 320;
/// Past that is kept.
const HISTORY: usize = WINDOW + MAX_PERIOD;
/// Repeated at full level before the fade starts: 10 ms.
const HOLD: usize = 160;
/// Length of the fade: 50 ms; 60 ms after the loss there is silence.
const FADE: usize = 800;
/// Length of the blend into the first good frame: 5 ms.
const BLEND: usize = 80;

/// Conceals gaps in one stream of frames. Allocates nothing.
#[derive(Clone)]
pub struct Concealer {
    /// What was played last, oldest first.
    history: [i16; HISTORY],
    /// The period being repeated.
    cycle: [i16; MAX_PERIOD],
    period: usize,
    /// Samples made up in this gap; 0: no gap.
    made: usize,
}

impl Concealer {
    /// Nothing played yet: a gap now is silence.
    #[must_use]
    pub fn new() -> Concealer {
        Concealer {
            history: [0; HISTORY],
            cycle: [0; MAX_PERIOD],
            period: MIN_PERIOD,
            made: 0,
        }
    }

    /// A good frame passes through; right after a gap its beginning is blended.
    pub fn good(&mut self, mut frame: Frame) -> Frame {
        if self.made > 0 {
            for (n, sample) in frame.samples.iter_mut().take(BLEND).enumerate() {
                let made = i32::from(self.next_sample());
                let n = n as i32;
                let blended = made * (BLEND as i32 - n) + i32::from(*sample) * n;
                *sample = (blended / BLEND as i32) as i16;
            }
            self.made = 0;
        }
        self.remember(&frame);
        frame
    }

    /// A frame in place of one that is missing.
    pub fn lost(&mut self) -> Frame {
        if self.made == 0 {
            self.find_cycle();
        }
        let mut frame = Frame::SILENCE;
        for sample in &mut frame.samples {
            *sample = self.next_sample();
        }
        self.remember(&frame);
        frame
    }

    fn next_sample(&mut self) -> i16 {
        let sample = i32::from(self.cycle[self.made % self.period]);
        let faded = (self.made.saturating_sub(HOLD)).min(FADE);
        self.made += 1;
        (sample * (FADE - faded) as i32 / FADE as i32) as i16
    }

    fn remember(&mut self, frame: &Frame) {
        self.history.copy_within(FRAME_SAMPLES.., 0);
        self.history[HISTORY - FRAME_SAMPLES..].copy_from_slice(&frame.samples);
    }

    /// The lag at which the last 20 ms look most like what came before.
    fn find_cycle(&mut self) {
        let recent = &self.history[HISTORY - WINDOW..];
        let mut best = (0.0, MIN_PERIOD);
        for lag in MIN_PERIOD..=MAX_PERIOD {
            let past = &self.history[HISTORY - WINDOW - lag..HISTORY - lag];
            // Every second sample is enough to find it.
            let (mut product, mut energy) = (0f32, 1f32);
            for (a, b) in recent.iter().zip(past).step_by(2) {
                product += f32::from(*a) * f32::from(*b);
                energy += f32::from(*b) * f32::from(*b);
            }
            let likeness = if product > 0.0 {
                product * product / energy
            } else {
                0.0
            };
            if likeness > best.0 {
                best = (likeness, lag);
            }
        }
        // Noise has no period: repeat a long stretch of it rather than buzz.
        self.period = if best.0 > 0.0 { best.1 } else { MAX_PERIOD };
        let start = HISTORY - self.period;
        self.cycle[..self.period].copy_from_slice(&self.history[start..]);
        // The cycle's last quarter leads over into its beginning, so that the repetition has no edge.
        let quarter = self.period / 4;
        for n in 0..quarter {
            let place = self.period - quarter + n;
            let before = i32::from(self.history[start - quarter + n]);
            let weight = (n + 1) as i32;
            let total = quarter as i32 + 1;
            let mixed = i32::from(self.cycle[place]) * (total - weight) + before * weight;
            self.cycle[place] = (mixed / total) as i16;
        }
    }
}

impl Default for Concealer {
    fn default() -> Self {
        Concealer::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{frame::frames, resample::snr_db, tone};

    #[test]
    fn a_lost_frame_of_a_steady_voice_is_hardly_missed() {
        // A 160 Hz "voice" with a harmonic.
        let mut sound = vec![0i16; 3200];
        tone::Tone::new(160.0, 480.0, -16.0).fill(&mut sound);
        let mut plc = Concealer::new();
        let mut heard = Vec::new();
        for (n, frame) in frames(&sound).enumerate() {
            heard.extend(if n == 5 { plc.lost() } else { plc.good(frame) }.samples);
        }
        let snr = snr_db(&sound[1600..1760], &heard[1600..1760]);
        assert!(snr > 20.0, "{snr:.1} dB");
        assert_eq!(heard[2400..], sound[2400..]);
    }

    #[test]
    fn a_long_gap_becomes_silent_and_silence_stays_silent() {
        let mut plc = Concealer::new();
        assert_eq!(plc.lost(), Frame::SILENCE);
        plc.good(Frame::from_slice(&tone::sine(300.0, -6.0, 20)));
        let levels: Vec<f32> = (0..6).map(|_| plc.lost().energy_dbov()).collect();
        assert!(levels[0] > -12.0 && levels[2] < levels[0], "{levels:?}");
        assert_eq!(levels[4], crate::level::FLOOR_DBOV);
    }

    #[test]
    fn no_edge_where_the_sound_comes_back() {
        let sound = tone::sine(200.0, -6.0, 400);
        let mut plc = Concealer::new();
        let mut heard = Vec::new();
        for (n, frame) in frames(&sound).enumerate() {
            heard.extend(
                if (8..11).contains(&n) {
                    plc.lost()
                } else {
                    plc.good(frame)
                }
                .samples,
            );
        }
        let steepest = heard
            .windows(2)
            .map(|w| (i32::from(w[0]) - i32::from(w[1])).abs())
            .max()
            .unwrap();
        // A 200 Hz sine at this level climbs at most 1820 a sample.
        assert!(steepest < 4000, "{steepest}");
    }
}
