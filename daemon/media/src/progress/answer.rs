//! Who answered a call of ours: a person, a machine, or nobody yet.
//!
//! ```text
//!           a few words, then silence ─> Person
//!  answered ─ words that go on, or a beep behind words ─> Machine ─ its beep ─> Beep
//!           ringing in the sound ─> Ringing (and all over again)
//!           busy, no way through ─> Busy        fax ─> Fax        not a sound ─> Silent
//! ```
//! A person who answers says a word or a sentence and waits; a machine goes on for seconds, or beeps. A short recording
//! that waits like a person is taken for one: who is put through to it loses a sentence, while a person who is taken for
//! a machine is hung up on.

use super::exchange::{ExchangeDetector, Progress};
use super::fax::FaxDetector;
use super::{PER_S, STEADY_DB, WEAKEST_DBOV, energy, is_in_band};
use crate::frame::Frame;

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A person waits for our words.
    Person,
    /// A machine talks.
    Machine,
    /// The machine has beeped: it records from now on.
    Beep,
    /// A gateway has answered for its line, and it still rings there.
    Ringing,
    /// The line is busy, or there is no way through.
    Busy,
    /// A fax machine.
    Fax,
    /// Nobody has said a word.
    Silent,
}

impl Answer {
    /// For the record.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Answer::Person => "a person",
            Answer::Machine => "a machine",
            Answer::Beep => "a machine's beep",
            Answer::Ringing => "ringing",
            Answer::Busy => "a busy tone",
            Answer::Fax => "a fax machine",
            Answer::Silent => "nobody spoke",
        }
    }
}

/// From this speech probability on a frame is voice; a steady line noise scores less.
const VOICE_PROB: f32 = 0.5;
/// Weakest level of a voice \[dBov\].
const WEAKEST_VOICE_DBOV: f32 = -50.0;
/// Voice in a row that is more than a click \[frames\].
const CLICK_FRAMES: u32 = 3;
/// Shortest "yes?" \[frames\].
const WORD_FRAMES: u32 = 6;
/// Voice in "Hello?" and in a name \[frames\]: up to 1.5 s, and the silence after which nothing follows: 0.8 s.
const HELLO_FRAMES: u32 = 3 * PER_S / 2;
const AFTER_HELLO_FRAMES: u32 = 4 * PER_S / 5;
/// The silence after a whole sentence \[frames\]: the beep of a short recording comes within 1.2 s.
const AFTER_SENTENCE_FRAMES: u32 = 6 * PER_S / 5;
/// Voice without such a silence that no person says before they wait \[frames\]: 3 s.
const MACHINE_FRAMES: u32 = 3 * PER_S;
/// Nobody speaks for so long \[frames\]: 4 s; with a tone before, the next ring would have come: 6.5 s.
const SILENT_FRAMES: u32 = 4 * PER_S;
const SILENT_AFTER_TONE_FRAMES: u32 = 13 * PER_S / 2;
/// A tone is one from here on \[frames\]: 140 ms, longer than a vowel keeps its pitch.
const TONE_FRAMES: u32 = 7;
/// A beep that might be a tone of the exchange \[frames\]: shorter than any ringing.
const SHORT_BEEP_FRAMES: std::ops::RangeInclusive<u32> = TONE_FRAMES..=30;
/// Voice before a beep \[frames\]: 0.4 s. A beep alone is a call waiting, or a tone of the exchange.
const BEFORE_BEEP_FRAMES: u32 = 2 * PER_S / 5;

/// Listens to a call of ours from its answer on. Call once per frame.
#[derive(Clone, Debug, Default)]
pub struct AnswerDetector {
    fax: FaxDetector,
    exchange: ExchangeDetector,
    tone: Steady,
    /// Voice in a row.
    run: u32,
    /// Voice of this greeting \[frames\].
    voiced: u32,
    /// Since the last voice or tone \[frames\].
    quiet: u32,
    /// Voice counted since the tone under way began, in case it is none.
    doubtful: u32,
    /// A tone was heard that is not yet known for what it is.
    toned: bool,
    machine: bool,
    beeped: bool,
    /// Nothing more will be found.
    done: bool,
}

impl AnswerDetector {
    /// Takes a frame and how likely somebody speaks in it; tells each finding once. After [`Answer::Ringing`] and
    /// [`Answer::Machine`] more may follow, after the others nothing.
    pub fn push(&mut self, frame: &Frame, speech_prob: f32) -> Option<Answer> {
        if self.done {
            return None;
        }
        let found = self.listen(frame, speech_prob)?;
        match found {
            Answer::Ringing => self.start_again(),
            Answer::Machine => self.machine = true,
            Answer::Person | Answer::Beep | Answer::Busy | Answer::Fax | Answer::Silent => self.done = true,
        }
        Some(found)
    }

    fn listen(&mut self, frame: &Frame, speech_prob: f32) -> Option<Answer> {
        if self.fax.push(frame).is_some() {
            return Some(Answer::Fax);
        }
        match self.exchange.push(frame) {
            Some(Progress::Ringback) => return Some(Answer::Ringing),
            Some(Progress::Busy | Progress::Congestion | Progress::Dial) => return Some(Answer::Busy),
            None => {}
        }
        let level = frame.energy_dbov();
        let before = self.tone;
        self.tone.push(frame, level);
        if self.tone.frames <= 1 {
            self.doubtful = 0;
        }
        if self.tone.frames < TONE_FRAMES {
            let counted = self.voiced;
            self.handle_voice(speech_prob >= VOICE_PROB && level >= WEAKEST_VOICE_DBOV);
            self.doubtful += self.voiced - counted;
        } else {
            self.voiced = self.voiced.saturating_sub(std::mem::take(&mut self.doubtful));
            (self.run, self.quiet, self.toned) = (0, 0, true);
        }
        let spoken = self.machine || self.voiced >= BEFORE_BEEP_FRAMES;
        self.beeped |= spoken && self.tone.is_beep(&before);
        self.judge()
    }

    fn handle_voice(&mut self, voice: bool) {
        if !voice {
            self.run = 0;
            self.quiet += 1;
            return;
        }
        self.run += 1;
        if self.run < CLICK_FRAMES {
            self.quiet += 1;
        } else {
            self.voiced += if self.run == CLICK_FRAMES { CLICK_FRAMES } else { 1 };
            self.quiet = 0;
        }
    }

    fn judge(&self) -> Option<Answer> {
        if self.machine {
            return self.beeped.then_some(Answer::Beep);
        }
        if self.beeped || self.voiced >= MACHINE_FRAMES {
            return Some(Answer::Machine);
        }
        if self.voiced < WORD_FRAMES {
            let patience = if self.toned {
                SILENT_AFTER_TONE_FRAMES
            } else {
                SILENT_FRAMES
            };
            return (self.quiet >= patience).then_some(Answer::Silent);
        }
        let waits = if self.voiced <= HELLO_FRAMES {
            AFTER_HELLO_FRAMES
        } else {
            AFTER_SENTENCE_FRAMES
        };
        (self.quiet >= waits).then_some(Answer::Person)
    }

    /// It rings: what was heard before was the gateway.
    fn start_again(&mut self) {
        (self.run, self.voiced, self.quiet) = (0, 0, 0);
        self.toned = true;
    }
}

/// A tone under way, of one pitch or of an exchange.
#[derive(Clone, Copy, Debug, Default)]
struct Steady {
    frames: u32,
    level_dbov: f32,
    /// Of a single tone: see [`pitch`].
    pitch: Option<f32>,
    in_band: bool,
}

/// A tone's pitch wavers by at most this, as [`pitch`] measures it: 5 to 20 Hz.
const WAVER: f32 = 0.03;

impl Steady {
    /// The frame goes on with the tone, begins another one, or is none.
    fn push(&mut self, frame: &Frame, level: f32) {
        let energy = energy(frame);
        let pitch = pitch(frame).filter(|_| level >= WEAKEST_DBOV);
        let in_band = level >= WEAKEST_DBOV && is_in_band(frame, energy);
        let same = match (self.pitch, pitch) {
            (Some(first), Some(now)) => (first - now).abs() <= WAVER,
            (Some(_) | None, _) => self.pitch.is_none() && self.in_band && in_band,
        };
        if self.frames > 0 && same && (level - self.level_dbov).abs() <= STEADY_DB {
            self.frames = self.frames.saturating_add(1);
        } else {
            (self.pitch, self.in_band, self.level_dbov) = (pitch, in_band, level);
            self.frames = u32::from(pitch.is_some() || in_band);
        }
    }

    /// Whether a beep was heard just now; `before` is the tone a frame ago. In the band of exchanges only a short tone is
    /// a beep, once it is over.
    fn is_beep(&self, before: &Steady) -> bool {
        let lasted = self.frames == TONE_FRAMES && self.pitch.is_some() && !self.in_band;
        let over = self.frames <= 1 && before.pitch.is_some() && before.in_band;
        lasted || (over && SHORT_BEEP_FRAMES.contains(&before.frames))
    }
}

/// Samples between those that are compared: at 2 kHz the harmonics of a voice lie far apart.
const LAG: usize = 8;
/// Share of the energy that a single sine leaves unexplained at most.
const UNEXPLAINED: f32 = 0.04;

/// The pitch of a frame that holds nothing but one sine, as 2 cos(ω · 8): any sine obeys x(n) + x(n − 16) = that · x(n − 8),
/// and two together do not.
fn pitch(frame: &Frame) -> Option<f32> {
    let at = |n: usize| frame.samples.iter().skip(n).map(|s| f32::from(*s));
    let triples = || at(0).zip(at(LAG)).zip(at(2 * LAG)).map(|((a, b), c)| (a + c, b));
    let (cross, power) = triples().fold((0.0, 0.0), |(cross, power), (sum, middle)| {
        (cross + sum * middle, power + middle * middle)
    });
    if power <= 0.0 {
        return None;
    }
    let slope = cross / power;
    let rest: f32 = triples()
        .map(|(sum, middle)| (sum - slope * middle).powi(2))
        .sum();
    (rest <= UNEXPLAINED * power).then_some(slope)
}
