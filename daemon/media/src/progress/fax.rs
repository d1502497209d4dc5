//! Fax machines: one that calls, one that answers. Source: ITU-T T.30 §4.3.3 (CNG, CED).

use super::{PER_S, WEAKEST_DBOV, energy, is_pure};
use crate::frame::Frame;

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
