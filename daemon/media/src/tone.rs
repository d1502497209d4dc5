//! Tones: DTMF both ways (generator; Goertzel detector) and the few tones a person expects of a line.
//! Sources: ITU-T Q.23 (frequencies), Q.24 (receiver limits); Goertzel (1958).

use crate::MediaError;
use crate::frame::{FRAME_SAMPLES, Frame, SAMPLE_RATE_HZ};
use crate::level;
use crate::telephone_event::code_of;
use std::f32::consts::TAU;

/// Low group, by row of the keypad \[Hz\].
pub const ROWS_HZ: [f32; 4] = [697.0, 770.0, 852.0, 941.0];
/// High group, by column \[Hz\].
pub const COLUMNS_HZ: [f32; 4] = [1209.0, 1336.0, 1477.0, 1633.0];
const KEYPAD: [[char; 4]; 4] = [
    ['1', '2', '3', 'A'],
    ['4', '5', '6', 'B'],
    ['7', '8', '9', 'C'],
    ['*', '0', '#', 'D'],
];
/// Level of each of the two tones we generate \[dBov\].
const DTMF_LEVEL_DBOV: f32 = -13.0;

/// A sum of up to two sines that goes on from frame to frame. Allocates nothing.
#[derive(Clone, Debug)]
pub struct Tone {
    step: [f32; 2],
    phase: [f32; 2],
    amplitude: f32,
}

impl Tone {
    /// Two frequencies \[Hz\] (0: none), each at `level_dbov`.
    #[must_use]
    pub fn new(first_hz: f32, second_hz: f32, level_dbov: f32) -> Tone {
        let step = [first_hz, second_hz].map(|hz| hz * TAU / SAMPLE_RATE_HZ as f32);
        Tone {
            step,
            phase: [0.0; 2],
            amplitude: level::rms_of_dbov(level_dbov) * std::f32::consts::SQRT_2,
        }
    }

    /// The tone of a key.
    ///
    /// # Errors
    /// [`MediaError::NotADigit`].
    pub fn dtmf(digit: char) -> Result<Tone, MediaError> {
        code_of(digit)?;
        let upper = digit.to_ascii_uppercase();
        for (keys, row_hz) in KEYPAD.iter().zip(ROWS_HZ) {
            for (key, column_hz) in keys.iter().zip(COLUMNS_HZ) {
                if *key == upper {
                    return Ok(Tone::new(row_hz, column_hz, DTMF_LEVEL_DBOV));
                }
            }
        }
        Err(MediaError::NotADigit { digit })
    }

    /// Writes the next samples.
    pub fn fill(&mut self, out: &mut [i16]) {
        for sample in out {
            let mut sum = 0.0;
            for (phase, step) in self.phase.iter_mut().zip(self.step) {
                sum += phase.sin();
                *phase = (*phase + step) % TAU;
            }
            *sample = (sum * self.amplitude) as i16;
        }
    }
}

/// The sound of a key for `ms`, 16 kHz; allocates. Nothing for what is no key.
#[must_use]
pub fn dtmf(digit: char, ms: u32) -> Vec<i16> {
    let Ok(mut tone) = Tone::dtmf(digit) else {
        return Vec::new();
    };
    let mut out = vec![0; samples_in(ms)];
    tone.fill(&mut out);
    out
}

/// A sine for `ms`, 16 kHz; allocates.
#[must_use]
pub fn sine(hz: f32, level_dbov: f32, ms: u32) -> Vec<i16> {
    let mut out = vec![0; samples_in(ms)];
    Tone::new(hz, 0.0, level_dbov).fill(&mut out);
    out
}

/// A short soft beep (440 Hz, 180 ms, faded at both ends): "your turn" and "one moment"; allocates.
#[must_use]
pub fn beep() -> Vec<i16> {
    let mut out = sine(440.0, -24.0, 180);
    let fade = samples_in(20);
    let last = out.len() - 1;
    for n in 0..fade {
        let gain = n as f32 / fade as f32;
        out[n] = (f32::from(out[n]) * gain) as i16;
        out[last - n] = (f32::from(out[last - n]) * gain) as i16;
    }
    out
}

fn samples_in(ms: u32) -> usize {
    (u64::from(ms) * u64::from(SAMPLE_RATE_HZ) / 1000) as usize
}

/// Weakest level of a frame that can be a digit \[dBov\].
const MIN_LEVEL_DBOV: f32 = -45.0;
/// The two tones' least share of the frame's energy. Speech with a strong formant stays below.
const MIN_SHARE: f32 = 0.6;
/// Ratio of powers by which the best of a group must beat the others (6 dB).
const MIN_LEAD: f32 = 4.0;
/// Largest ratio of powers between the groups, either way (9 dB; Q.24 asks for 4 to 8).
const MAX_TWIST: f32 = 8.0;
/// Frames that must agree: a digit of 40 ms covers at least one and a half.
const FRAMES_TO_ACCEPT: u8 = 2;
/// Frames without it that end a digit, so that a dropout does not double it.
const FRAMES_TO_RELEASE: u8 = 2;

/// Finds DTMF in the sound (a line without telephone-events). Allocates nothing.
#[derive(Clone, Debug, Default)]
pub struct DtmfDetector {
    candidate: Option<char>,
    seen: u8,
    /// The digit that is down and was reported.
    down: Option<char>,
    missed: u8,
}

impl DtmfDetector {
    /// Nothing heard yet.
    #[must_use]
    pub fn new() -> DtmfDetector {
        DtmfDetector::default()
    }

    /// Takes one frame; gives each digit once, 20 to 40 ms after its start.
    pub fn handle_frame(&mut self, frame: &Frame) -> Option<char> {
        let heard = identify(&frame.samples);
        if heard.is_some() && heard == self.candidate {
            self.seen = self.seen.saturating_add(1);
        } else {
            self.candidate = heard;
            self.seen = u8::from(heard.is_some());
        }
        if self.down.is_some() {
            self.missed = if heard == self.down { 0 } else { self.missed + 1 };
            if self.missed < FRAMES_TO_RELEASE {
                return None;
            }
            self.down = None;
        }
        if self.seen >= FRAMES_TO_ACCEPT {
            self.down = self.candidate;
            self.missed = 0;
            return self.candidate;
        }
        None
    }
}

/// The key whose tone fills a frame, if one does. One frame alone may be speech: see [`DtmfDetector`].
#[must_use]
pub fn key_in(frame: &Frame) -> Option<char> {
    identify(&frame.samples)
}

fn identify(samples: &[i16; FRAME_SAMPLES]) -> Option<char> {
    if level::dbov(samples) < MIN_LEVEL_DBOV {
        return None;
    }
    let total: f32 = samples.iter().map(|&x| f32::from(x) * f32::from(x)).sum();
    let (row, row_power) = strongest(samples, ROWS_HZ)?;
    let (column, column_power) = strongest(samples, COLUMNS_HZ)?;
    let twist = row_power / column_power;
    // A sine of power P over N samples measures N²·A²/4 in Goertzel's terms and N·A²/2 in energy.
    let share = (row_power + column_power) * 2.0 / FRAME_SAMPLES as f32 / total;
    let fits = share >= MIN_SHARE && (1.0 / MAX_TWIST..=MAX_TWIST).contains(&twist);
    fits.then(|| KEYPAD.get(row)?.get(column).copied()).flatten()
}

/// The one of a group that leads clearly, and its power.
fn strongest(samples: &[i16], group_hz: [f32; 4]) -> Option<(usize, f32)> {
    let powers = group_hz.map(|hz| goertzel(samples, hz));
    let (best, &power) = powers.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1))?;
    let clear = powers
        .iter()
        .enumerate()
        .all(|(i, &other)| i == best || other * MIN_LEAD <= power);
    (clear && power > 0.0).then_some((best, power))
}

/// Power at one frequency, squared magnitude of the transform.
#[must_use]
pub fn goertzel(samples: &[i16], hz: f32) -> f32 {
    let coefficient = 2.0 * (TAU * hz / SAMPLE_RATE_HZ as f32).cos();
    let (mut s1, mut s2) = (0f32, 0f32);
    for &sample in samples {
        let s0 = f32::from(sample) + coefficient * s1 - s2;
        s2 = s1;
        s1 = s0;
    }
    s1 * s1 + s2 * s2 - coefficient * s1 * s2
}

/// A voice-like sound for tests: a harmonic-rich tone whose pitch and level move, at -13 dBov.
#[cfg(test)]
pub(crate) fn voice(ms: u32) -> Vec<i16> {
    let (mut phase, mut sound) = (0.0f64, Vec::new());
    for n in 0..ms * 16 {
        let t = f64::from(n) / 16_000.0;
        phase += (140.0 + 30.0 * (t * 5.0).sin()) / 16_000.0;
        let x: f64 = (1..=12)
            .map(|k| (phase * std::f64::consts::TAU * f64::from(k)).sin() / f64::from(k))
            .sum();
        sound.push((x * 5000.0 * (0.6 + 0.4 * (t * 9.0).sin())) as i16);
    }
    sound
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::frames;

    fn detect(sound: &[i16]) -> String {
        let mut detector = DtmfDetector::new();
        frames(sound)
            .filter_map(|frame| detector.handle_frame(&frame))
            .collect()
    }

    #[test]
    fn all_sixteen_digits_at_any_alignment() {
        let digits = "1234567890*#ABCD";
        for lead in [0, 37, 80, 160, 200, 301] {
            let mut sound = vec![0i16; lead];
            for digit in digits.chars() {
                sound.extend(dtmf(digit, 60));
                sound.extend([0; 960]);
            }
            assert_eq!(detect(&sound), digits, "offset {lead}");
        }
    }

    #[test]
    fn survives_the_line() {
        use crate::codec::{Codec, Decoder, Encoder};
        let (mut encoder, mut decoder) = (Encoder::new(Codec::Pcma), Decoder::new(Codec::Pcma));
        let mut sound = Vec::new();
        for digit in "159D".chars() {
            sound.extend(dtmf(digit, 80));
            sound.extend([0; 960]);
        }
        let heard: Vec<i16> = frames(&sound)
            .flat_map(|mut f| {
                let mut octets = [0; 160];
                encoder.encode(&f.samples, &mut octets);
                decoder.decode(&octets, &mut f.samples);
                f.samples
            })
            .collect();
        assert_eq!(detect(&heard), "159D");
    }

    #[test]
    fn the_same_digit_twice_and_one_long() {
        let mut sound = dtmf('7', 100);
        sound.extend([0; 1600]);
        sound.extend(dtmf('7', 2000));
        assert_eq!(detect(&sound), "77");
    }

    #[test]
    fn no_digit_in_single_tones_silence_or_noise() {
        let mut seed = 1u32;
        let noise: Vec<i16> = (0..160_000)
            .map(|_| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (seed >> 18) as i16 - 8192
            })
            .collect();
        for (case, sound) in [
            ("silence", vec![0; 16_000]),
            ("one tone", sine(697.0, -10.0, 1000)),
            ("noise", noise),
            ("beep", beep()),
        ] {
            assert_eq!(detect(&sound), "", "{case}");
        }
    }
}
