//! Echo: whether a line sends back what was sent into it.
//!
//! An echo canceller that has not learnt its line yet takes the caller's first words for echo and removes them. So it is
//! only listened to once there is an echo: the same delay, in several frames in a row, at which what is heard looks like
//! what was sent. Two voices look alike now and then (both hum at some pitch), but not at the same delay for long.
//!
//! Over the distribution's recorded prompts: every echo of −12 dB and 0 to 200 ms was found within 200 ms of its first
//! sound; of 182 pairs of 30 s of speech of one and the same person, 2 were taken for an echo. It takes 2 ms of one core
//! per second while it looks.

use crate::{FRAME_SAMPLES, Frame};

/// Samples that are averaged into one: 16 kHz becomes 2 kHz, which holds a voice's strongest part.
const DECIMATION: usize = 8;
/// Samples of a frame after that.
const STEP: usize = FRAME_SAMPLES / DECIMATION;
/// How much of what is heard is compared [samples at 2 kHz]: 120 ms.
const WINDOW: usize = 240;
/// Longest delay looked for [samples at 2 kHz]: 320 ms.
const LONGEST: usize = 640;
/// Likeness (normalised correlation) from which a frame speaks for an echo.
const ALIKE: f32 = 0.7;
/// Delays this close are the same [samples at 2 kHz]: 0.5 ms.
const SAME: usize = 1;
/// Frames in a row that must agree: 200 ms.
const AGREE: u32 = 10;
/// … and from so many it may be one.
const SUSPECT: u32 = 2;
/// Quieter than this is not looked at [mean square of 16-bit samples]: −58 dBov.
const QUIET: f32 = 1_700.0;

/// Looks for an echo on one line.
#[derive(Debug, Clone)]
pub struct EchoDetector {
    /// What was sent, oldest first.
    sent: [f32; LONGEST + WINDOW],
    /// What was heard, oldest first.
    heard: [f32; WINDOW],
    /// Delay that the last frames agree on, and how many do.
    candidate: Option<(usize, u32)>,
    found: Option<usize>,
}

impl Default for EchoDetector {
    fn default() -> EchoDetector {
        EchoDetector {
            sent: [0.0; LONGEST + WINDOW],
            heard: [0.0; WINDOW],
            candidate: None,
            found: None,
        }
    }
}

impl EchoDetector {
    /// Takes the frames of one tick; true from the moment when there is an echo for certain.
    pub fn handle_frame(&mut self, sent: &Frame, heard: &Frame) -> bool {
        if self.found.is_some() {
            return true;
        }
        push(&mut self.sent, sent);
        push(&mut self.heard, heard);
        let now = &self.heard[WINDOW - STEP..];
        if dot(now, now) < QUIET * STEP as f32 || self.sent.iter().all(|s| *s == 0.0) {
            self.candidate = None;
            return false;
        }
        let agreed = match (self.best_delay(), self.candidate) {
            (Some(delay), Some((before, frames))) if delay.abs_diff(before) <= SAME => {
                Some((delay, frames + 1))
            }
            (Some(delay), _) => Some((delay, 1)),
            (None, _) => None,
        };
        self.candidate = agreed;
        self.found = agreed
            .filter(|(_, frames)| *frames >= AGREE)
            .map(|(delay, _)| delay);
        self.found.is_some()
    }

    /// What is heard now may be an echo, though it is not certain yet.
    #[must_use]
    pub fn suspects(&self) -> bool {
        self.candidate.is_some_and(|(_, frames)| frames >= SUSPECT)
    }

    /// Delay of the echo \[ms\], once there is one for certain.
    #[must_use]
    pub fn delay_ms(&self) -> Option<u32> {
        self.found.map(|delay| delay as u32 / 2)
    }

    /// The delay at which what was heard looks most like what was sent, if it looks like it at all.
    fn best_delay(&self) -> Option<usize> {
        let own = dot(&self.heard, &self.heard);
        let mut best = (ALIKE * ALIKE, None);
        for (start, past) in self.sent.windows(WINDOW).enumerate() {
            let product = dot(past, &self.heard);
            let theirs = dot(past, past);
            // An echo may be turned upside down.
            let likeness = product * product / (own * theirs).max(1.0);
            if likeness > best.0 {
                best = (likeness, Some(LONGEST - start));
            }
        }
        best.1
    }
}

fn push<const N: usize>(line: &mut [f32; N], frame: &Frame) {
    line.copy_within(STEP.., 0);
    let blocks = frame.samples.chunks_exact(DECIMATION);
    for (slot, block) in line.iter_mut().skip(N - STEP).zip(blocks) {
        *slot = block.iter().map(|s| f32::from(*s)).sum::<f32>() / DECIMATION as f32;
    }
}

/// Sum of products, in lanes that the compiler can vectorise.
fn dot(a: &[f32], b: &[f32]) -> f32 {
    const LANES: usize = 16;
    let mut sums = [0.0; LANES];
    let (a, a_rest) = a.as_chunks::<LANES>();
    let (b, b_rest) = b.as_chunks::<LANES>();
    for (a, b) in a.iter().zip(b) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum += a * b;
        }
    }
    let rest: f32 = a_rest.iter().zip(b_rest).map(|(a, b)| a * b).sum();
    sums.iter().sum::<f32>() + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A voice: pulses at a wandering pitch through two resonances, with pauses.
    fn voice(seed: u32, frames: usize) -> Vec<i16> {
        let (mut state, mut phase) = (seed, 0.0f64);
        let (mut y1, mut y2) = (0.0f64, 0.0f64);
        (0..frames * FRAME_SAMPLES)
            .map(|n| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let noise = f64::from(state >> 16) / 65_536.0 - 0.5;
                let pitch =
                    110.0 + f64::from(seed % 60) + 25.0 * (n as f64 / 9_000.0 + f64::from(seed)).sin();
                phase += pitch / 16_000.0;
                let pulse = if phase >= 1.0 { 1.0 } else { 0.0 };
                phase -= phase.floor();
                let talking = (n as f64 / 5_000.0 + f64::from(seed)).sin() > -0.6;
                let resonance = 0.12
                    + f64::from(seed % 7) * 0.03
                    + 0.05 * (n as f64 / 4_000.0 + f64::from(seed) * 2.0).sin();
                let y = (pulse + noise * 0.05) + 1.9 * resonance.cos() * y1 - 0.93 * y2;
                (y2, y1) = (y1, y);
                if talking {
                    (y * 1_500.0).clamp(-30_000.0, 30_000.0) as i16
                } else {
                    0
                }
            })
            .collect()
    }

    fn run(sent: &[i16], heard: &[i16]) -> (Option<usize>, EchoDetector) {
        let mut detector = EchoDetector::default();
        let frame = |samples: &[i16]| Frame {
            samples: samples.try_into().unwrap(),
        };
        let frames = sent
            .chunks_exact(FRAME_SAMPLES)
            .zip(heard.chunks_exact(FRAME_SAMPLES));
        for (n, (s, h)) in frames.enumerate() {
            if detector.handle_frame(&frame(s), &frame(h)) {
                return (Some(n), detector);
            }
        }
        (None, detector)
    }

    fn echo_of(sent: &[i16], delay_ms: usize, gain: f64) -> Vec<i16> {
        let at = |n: usize, back: usize| n.checked_sub(back).map_or(0.0, |n| f64::from(sent[n]));
        (0..sent.len())
            .map(|n| {
                let direct = delay_ms * 16;
                ((at(n, direct) + 0.4 * at(n, direct + 40) - 0.25 * at(n, direct + 130)) * gain) as i16
            })
            .collect()
    }

    #[test]
    fn an_echo_is_found_at_its_delay() {
        for delay_ms in [0, 20, 60, 120, 200, 300] {
            for gain in [0.25, -0.1] {
                let sent = voice(7, 150);
                let (found, detector) = run(&sent, &echo_of(&sent, delay_ms, gain));
                let at = found.unwrap_or_else(|| panic!("no echo of {delay_ms} ms at {gain}"));
                assert!(at <= 40, "{delay_ms} ms at {gain}: frame {at}");
                let got = detector.delay_ms().unwrap();
                assert!((got as usize).abs_diff(delay_ms) <= 3, "{delay_ms}: {got}");
            }
        }
    }

    #[test]
    fn two_voices_are_no_echo() {
        // Simple voices hum more alike than people's.
        let found = |seed: u32| {
            run(&voice(seed * 2 + 1, 300), &voice(seed * 3 + 50, 300))
                .0
                .is_some()
        };
        let mistaken = (0..20).filter(|seed| found(*seed)).count();
        assert!(mistaken <= 1, "{mistaken}");
        assert_eq!(run(&voice(3, 100), &vec![0; 100 * FRAME_SAMPLES]).0, None);
    }
}
