//! Call progress: a fax machine at the other end, and the tones of an exchange. Pure; allocates nothing.
//!
//! ```text
//! frame ─> is it one steady tone, and which? ─> FaxDetector: 1100 Hz for half a second, then silence; 2100 Hz for a second
//!                                           `─> ExchangeDetector: how long on, how long off ─> busy, congestion, ringing, dial tone
//! ```
//! A voice must not be taken for one: a tone holds nearly all the energy of its frames, keeps its level, and has its
//! rhythm. Sources: ITU-T T.30 §4.3.3 (CNG, CED), ITU-T E.180 (tones and their cadences).

use std::f32::consts::TAU;

use crate::frame::{FRAME_SAMPLES, Frame, SAMPLE_RATE_HZ};

/// Weakest level of a frame that can be a tone \[dBov\].
const WEAKEST_DBOV: f32 = -45.0;
/// Share of a frame's energy that a tone holds.
const PURE: f32 = 0.75;
/// The same for the two tones of an exchange, over its band.
const IN_BAND: f32 = 0.85;
/// Frames of a tone differ by at most this \[dB\].
const STEADY_DB: f32 = 3.0;
/// Frames per second.
const PER_S: u32 = 50;

/// What calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fax {
    /// A machine that wants to send: 1100 Hz for half a second, every 3.5 s.
    Calling,
    /// A machine that answers: 2100 Hz for some seconds.
    Answering,
}

/// Listens for fax machines. Call once per frame.
#[derive(Clone, Debug, Default)]
pub struct FaxDetector {
    calling_frames: u32,
    answering_frames: u32,
    /// Silent frames since a calling tone of the right length ended.
    silent_since: Option<u32>,
    told: bool,
}

/// A calling tone lasts 0.5 s ± 15 % \[frames\]; one frame more at each end is cut by it.
const CALLING_FRAMES: std::ops::RangeInclusive<u32> = 20..=30;
/// Then silence: so long makes sure \[frames\]. Music goes on.
const SILENCE_FRAMES: u32 = 40;
/// An answering tone lasts 2.6 to 4 s; so long makes sure \[frames\].
const ANSWERING_FRAMES: u32 = PER_S;

impl FaxDetector {
    /// Takes a frame; tells once what was found.
    pub fn push(&mut self, frame: &Frame) -> Option<Fax> {
        let energy = energy(frame);
        let silent = frame.energy_dbov() < WEAKEST_DBOV;
        // T.30 allows 38 Hz off; one Goertzel of 20 ms sees 25.
        let calling = !silent && is_pure(frame, energy, &[1075.0, 1100.0, 1125.0]);
        let answering = !silent && is_pure(frame, energy, &[2085.0, 2100.0, 2115.0]);
        self.answering_frames = if answering { self.answering_frames + 1 } else { 0 };
        if calling {
            self.calling_frames += 1;
            self.silent_since = None;
        } else {
            let length = std::mem::take(&mut self.calling_frames);
            if CALLING_FRAMES.contains(&length) {
                self.silent_since = Some(0);
            }
            self.silent_since = match self.silent_since {
                Some(frames) if silent => Some(frames + 1),
                // The frame in which the tone ends.
                Some(0) => Some(0).filter(|_| length > 0),
                Some(_) | None => None,
            };
        }
        let found = if self.answering_frames >= ANSWERING_FRAMES {
            Some(Fax::Answering)
        } else if self.silent_since.is_some_and(|frames| frames >= SILENCE_FRAMES) {
            Some(Fax::Calling)
        } else {
            None
        };
        found.filter(|_| !std::mem::replace(&mut self.told, true))
    }
}

/// What an exchange plays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Nobody has dialled.
    Dial,
    /// It rings at the other end.
    Ringback,
    /// The other end is busy.
    Busy,
    /// No way through, or the other end has hung up.
    Congestion,
}

/// Tells an exchange's tones by their rhythm, whatever their exact pitch. Call once per frame.
#[derive(Clone, Debug, Default)]
pub struct ExchangeDetector {
    /// Frames of the tone, or of the pause, that goes on.
    on: u32,
    off: u32,
    level_dbov: f32,
    /// The last tone and the pause after it \[frames\].
    last: Option<(u32, u32)>,
    /// Equal pairs in a row.
    repeats: u32,
    told: Option<Progress>,
}

/// A tone that lasts longer is no beat \[frames\]: 2.5 s.
const DIAL_FRAMES: u32 = 125;
/// Lengths differ by at most this from beat to beat \[frames\].
const JITTER_FRAMES: u32 = 3;
/// Breaks of a tone shorter than this belong to it \[frames\].
const BREAK_FRAMES: u32 = 2;

impl ExchangeDetector {
    /// Takes a frame; tells each finding once.
    pub fn push(&mut self, frame: &Frame) -> Option<Progress> {
        let energy = energy(frame);
        let level = frame.energy_dbov();
        let steady = self.on < 2 || (level - self.level_dbov).abs() <= STEADY_DB;
        let tonal = level >= WEAKEST_DBOV && band_share(frame, energy) >= IN_BAND;
        if tonal && steady {
            self.handle_tone(level);
        } else {
            // Silence, a voice, or a frame in which the tone ends.
            self.off += 1;
        }
        let found = self.judge();
        if found.is_some() && found != self.told {
            self.told = found;
            return found;
        }
        None
    }

    fn handle_tone(&mut self, level: f32) {
        if self.off > BREAK_FRAMES && self.on > 0 {
            let pair = (self.on, self.off);
            let same = |(on, off): (u32, u32)| {
                on.abs_diff(pair.0) <= JITTER_FRAMES && off.abs_diff(pair.1) <= JITTER_FRAMES
            };
            self.repeats = if self.last.is_some_and(same) {
                self.repeats + 1
            } else {
                1
            };
            self.last = Some(pair);
            self.on = 0;
        }
        self.off = 0;
        self.on += 1;
        self.level_dbov = level;
    }

    fn judge(&self) -> Option<Progress> {
        if self.on >= DIAL_FRAMES && self.off == 0 {
            return Some(Progress::Dial);
        }
        // E.180: busy 0.35 to 0.7 s each way, congestion 0.2 to 0.3 s, ringing 0.7 to 2.2 s every 3 to 6 s.
        let (on, off) = self.last?;
        match (on, off, self.repeats) {
            (9..=16, 9..=16, 3..) => Some(Progress::Congestion),
            (17..=36, 17..=36, 3..) => Some(Progress::Busy),
            (33..=112, 90..=260, 1..) => Some(Progress::Ringback),
            _ => None,
        }
    }
}

/// Sum of squares.
fn energy(frame: &Frame) -> f32 {
    frame.samples.iter().map(|s| f32::from(*s) * f32::from(*s)).sum()
}

/// Whether one of these frequencies holds nearly all the energy.
fn is_pure(frame: &Frame, energy: f32, frequencies: &[f32]) -> bool {
    frequencies.iter().any(|hz| share(frame, *hz) >= PURE * energy)
}

/// Share of the band in which exchanges have their tones (350 to 650 Hz), of all energy.
fn band_share(frame: &Frame, energy: f32) -> f32 {
    // Bins of a 20 ms frame lie 50 Hz apart: these are orthogonal, and together they are the band.
    let bins = (6..=13).map(|bin| share(frame, bin as f32 * PER_S as f32));
    bins.sum::<f32>() / energy.max(1.0)
}

/// Energy that a sine of `hz` would have to have for what the frame holds of it (Goertzel).
fn share(frame: &Frame, hz: f32) -> f32 {
    let coefficient = 2.0 * (hz * TAU / SAMPLE_RATE_HZ as f32).cos();
    let (mut one, mut two) = (0.0_f32, 0.0_f32);
    for sample in &frame.samples {
        let next = f32::from(*sample) + coefficient * one - two;
        two = one;
        one = next;
    }
    let power = one * one + two * two - coefficient * one * two;
    2.0 * power / FRAME_SAMPLES as f32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tone::Tone;

    /// `(first Hz, second Hz, level, ms)`; 0 Hz is silence.
    fn sound(parts: &[(f32, f32, f32, u32)]) -> Vec<Frame> {
        let mut samples = Vec::new();
        for (first, second, level, ms) in parts {
            let mut part = vec![0; (*ms * 16) as usize];
            if *first > 0.0 {
                Tone::new(*first, *second, *level).fill(&mut part);
            }
            samples.extend(part);
        }
        samples.chunks(FRAME_SAMPLES).map(Frame::from_slice).collect()
    }

    fn fax(frames: &[Frame]) -> Option<Fax> {
        let mut detector = FaxDetector::default();
        frames.iter().find_map(|frame| detector.push(frame))
    }

    fn exchange(frames: &[Frame]) -> Vec<Progress> {
        let mut detector = ExchangeDetector::default();
        frames.iter().filter_map(|frame| detector.push(frame)).collect()
    }

    #[test]
    fn fax_machines_are_found_within_the_tolerances_of_the_standard() {
        for hz in [1062.0, 1080.0, 1100.0, 1120.0, 1138.0] {
            for ms in [425, 500, 575] {
                for level in [-10.0, -25.0, -40.0] {
                    let call = sound(&[(0.0, 0.0, 0.0, 310), (hz, 0.0, level, ms), (0.0, 0.0, 0.0, 3000)]);
                    assert_eq!(fax(&call), Some(Fax::Calling), "{hz} Hz {ms} ms {level} dBov");
                }
            }
        }
        for hz in [2085.0, 2100.0, 2115.0] {
            let answer = sound(&[(0.0, 0.0, 0.0, 110), (hz, 0.0, -15.0, 2600)]);
            assert_eq!(fax(&answer), Some(Fax::Answering), "{hz}");
        }
    }

    #[test]
    fn what_is_no_fax_is_none() {
        let cases: &[(&str, Vec<Frame>)] = &[
            (
                "too short",
                sound(&[(1100.0, 0.0, -15.0, 300), (0.0, 0.0, 0.0, 3000)]),
            ),
            (
                "too long",
                sound(&[(1100.0, 0.0, -15.0, 900), (0.0, 0.0, 0.0, 3000)]),
            ),
            (
                "a melody goes on",
                sound(&[
                    (1100.0, 0.0, -15.0, 500),
                    (880.0, 0.0, -15.0, 500),
                    (0.0, 0.0, 0.0, 2000),
                ]),
            ),
            (
                "another pitch",
                sound(&[(1000.0, 0.0, -15.0, 500), (0.0, 0.0, 0.0, 3000)]),
            ),
            (
                "two tones",
                sound(&[(1100.0, 700.0, -15.0, 500), (0.0, 0.0, 0.0, 3000)]),
            ),
            (
                "too faint",
                sound(&[(1100.0, 0.0, -55.0, 500), (0.0, 0.0, 0.0, 3000)]),
            ),
            ("2100 Hz, but short", sound(&[(2100.0, 0.0, -15.0, 700)])),
            (
                "a key",
                sound(&[(941.0, 1336.0, -13.0, 500), (0.0, 0.0, 0.0, 3000)]),
            ),
            ("silence", sound(&[(0.0, 0.0, 0.0, 5000)])),
        ];
        for (case, frames) in cases {
            assert_eq!(fax(frames), None, "{case}");
        }
    }

    fn beats(first: f32, second: f32, on: u32, off: u32, times: usize) -> Vec<Frame> {
        sound(&[(first, second, -18.0, on), (0.0, 0.0, 0.0, off)].repeat(times))
    }

    #[test]
    fn exchanges_of_several_countries_are_understood() {
        let cases = [
            (
                "busy, North America",
                beats(480.0, 620.0, 500, 500, 5),
                Progress::Busy,
            ),
            ("busy, Europe", beats(425.0, 0.0, 480, 480, 5), Progress::Busy),
            ("busy, Britain", beats(400.0, 0.0, 375, 375, 5), Progress::Busy),
            (
                "congestion, North America",
                beats(480.0, 620.0, 250, 250, 6),
                Progress::Congestion,
            ),
            (
                "congestion, Germany",
                beats(425.0, 0.0, 240, 240, 6),
                Progress::Congestion,
            ),
            (
                "ringing, North America",
                beats(440.0, 480.0, 2000, 4000, 2),
                Progress::Ringback,
            ),
            (
                "ringing, Europe",
                beats(425.0, 0.0, 1000, 4000, 2),
                Progress::Ringback,
            ),
            ("dial tone", beats(350.0, 440.0, 4000, 20, 1), Progress::Dial),
            (
                "dial tone, Europe",
                beats(425.0, 0.0, 4000, 20, 1),
                Progress::Dial,
            ),
        ];
        for (case, frames, want) in cases {
            assert_eq!(exchange(&frames), [want], "{case}");
        }
    }

    /// Vowels in syllables: harmonics of a wavering pitch under a changing formant.
    fn talk(seed: u32, ms: u32) -> Vec<Frame> {
        let mut state = seed;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f64::from(state >> 8) / f64::from(1 << 24)
        };
        let mut samples: Vec<i16> = Vec::new();
        let mut phase = 0.0_f64;
        while samples.len() < (ms * 16) as usize {
            let length = (1_600.0 + 4_800.0 * random()) as usize;
            let (pitch, formant) = (90.0 + 160.0 * random(), 300.0 + 900.0 * random());
            let voiced = random() < 0.75;
            for n in 0..length {
                let t = n as f64 / length as f64;
                let hz = pitch * (1.0 + 0.08 * (t * 6.0).sin());
                phase += hz / 16_000.0;
                let loudness = (std::f64::consts::PI * t).sin() * 6_000.0;
                let mut sum = 0.0;
                for harmonic in 1..20 {
                    let at = hz * f64::from(harmonic);
                    let weight = 1.0 / (1.0 + ((at - formant) / 150.0).powi(2)) + 0.05;
                    sum += weight * (std::f64::consts::TAU * phase * f64::from(harmonic)).sin();
                }
                let noise = random() * 2.0 - 1.0;
                let value = if voiced { sum } else { 0.2 * noise };
                samples.push((value * loudness).clamp(-30_000.0, 30_000.0) as i16);
            }
        }
        samples.chunks(FRAME_SAMPLES).map(Frame::from_slice).collect()
    }

    #[test]
    fn ten_minutes_of_talk_are_neither_fax_nor_exchange() {
        for seed in 0..10 {
            let frames = talk(seed, 60_000);
            assert_eq!(fax(&frames), None, "seed {seed}");
            assert_eq!(exchange(&frames), [], "seed {seed}");
        }
    }
}
