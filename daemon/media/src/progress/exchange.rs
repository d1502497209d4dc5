//! The tones of an exchange, by their rhythm. Source: ITU-T E.180 (tones and their cadences).

use super::{STEADY_DB, WEAKEST_DBOV, energy, is_in_band};
use crate::frame::Frame;

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
    /// Frames of this pause that are about as loud as the tone: no pause of an exchange.
    loud: u32,
    level_dbov: f32,
    /// The last tone and the pause after it \[frames\], and the pair before that.
    last: Option<(u32, u32)>,
    before: Option<(u32, u32)>,
    /// Equal pairs in a row.
    repeats: u32,
    told: Option<Progress>,
}

/// A tone that lasts longer is no beat, and no note that somebody holds \[frames\]: 5 s.
const DIAL_FRAMES: u32 = 250;
/// Lengths differ by at most this from beat to beat \[frames\].
const JITTER_FRAMES: u32 = 3;
/// Breaks of a tone shorter than this belong to it \[frames\].
const BREAK_FRAMES: u32 = 2;
/// In its pauses the line is quieter than the tone by at least this \[dB\].
const PAUSE_DB: f32 = 10.0;
/// Frames of a pause that may be louder: the tone's two ends, a click.
const LOUD_FRAMES: u32 = 4;

impl ExchangeDetector {
    /// Takes a frame; tells each finding once.
    pub fn push(&mut self, frame: &Frame) -> Option<Progress> {
        let energy = energy(frame);
        let level = frame.energy_dbov();
        let steady = self.on < 2 || (level - self.level_dbov).abs() <= STEADY_DB;
        let tonal = level >= WEAKEST_DBOV && is_in_band(frame, energy);
        if tonal && steady {
            self.handle_tone(level);
        } else {
            // Silence, a voice, or a frame in which the tone ends.
            self.off += 1;
            self.loud += u32::from(level > self.level_dbov - PAUSE_DB);
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
            let paused = self.loud <= LOUD_FRAMES;
            self.repeats = match self.last {
                Some(last) if paused && same(last) => self.repeats + 1,
                Some(_) | None => u32::from(paused),
            };
            self.before = std::mem::replace(&mut self.last, paused.then_some(pair));
            self.on = 0;
        }
        (self.off, self.loud) = (0, 0);
        self.on += 1;
        self.level_dbov = level;
    }

    fn judge(&self) -> Option<Progress> {
        if self.on >= DIAL_FRAMES && self.off == 0 {
            return Some(Progress::Dial);
        }
        // E.180: busy 0.35 to 0.7 s each way, congestion 0.2 to 0.3 s, ringing 0.7 to 2.2 s every 3 to 6 s.
        let (on, off) = self.last?;
        // Britain and Australia ring twice: 0.4 s, a pause of 0.2 s, 0.4 s, a pause of 2 s.
        if matches!(self.before, Some((16..=24, 7..=14))) && matches!((on, off), (16..=24, 80..=120)) {
            return Some(Progress::Ringback);
        }
        match (on, off, self.repeats) {
            (9..=16, 9..=16, 3..) => Some(Progress::Congestion),
            (17..=36, 17..=36, 3..) => Some(Progress::Busy),
            (33..=112, 90..=260, 1..) => Some(Progress::Ringback),
            _ => None,
        }
    }
}
