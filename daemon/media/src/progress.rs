//! Call progress: who, or what, is at the other end of a line, by its sounds. Pure; allocates nothing.
//!
//! ```text
//! frame ─> is it one steady tone, and which? ─> FaxDetector: 1100 Hz for half a second, then silence; 2100 Hz for a second
//!                    │                       `─> ExchangeDetector: how long on, how long off ─> busy, congestion, ringing, dial tone
//!                    `── no: a voice? how long, how long silent since ─> AnswerDetector: a person, a machine
//! ```
//! A voice must not be taken for a tone: a tone holds nearly all the energy of its frames, keeps its level, and has its
//! rhythm.

mod answer;
mod exchange;
mod fax;
#[cfg(test)]
mod tests;

use std::f32::consts::TAU;

pub use answer::{Answer, AnswerDetector};
pub use exchange::{ExchangeDetector, Progress};
pub use fax::{Fax, FaxDetector};

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

/// Sum of squares.
fn energy(frame: &Frame) -> f32 {
    frame.samples.iter().map(|s| f32::from(*s) * f32::from(*s)).sum()
}

/// Whether one of these frequencies holds nearly all the energy.
fn is_pure(frame: &Frame, energy: f32, frequencies: &[f32]) -> bool {
    frequencies.iter().any(|hz| share(frame, *hz) >= PURE * energy)
}

/// Whether nearly all the energy is where exchanges have their tones.
fn is_in_band(frame: &Frame, energy: f32) -> bool {
    band_share(frame, energy) >= IN_BAND
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
