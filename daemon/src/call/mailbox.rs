//! Mailbox and forwarding: calls that are answered without the attendant, because `[fallback]` says so. No engine is
//! needed: the announcement was synthesised while there was a voice.
//!
//! ```text
//! voicemail: announcement ─> beep ─> the caller's message, recorded ─> caller hangs up, # , silence, a tone, too long
//! refer:     ringing tone ─> REFER ─> progress ─> the PBX has the caller, or the call ends
//! ```

use std::{sync::Arc, time::Duration};

use attendant_media::progress::{ExchangeDetector, Progress};
use attendant_media::{SAMPLE_RATE_HZ, tone};
use attendant_rt::{Leg, RxFrame};
use attendant_sip::{DialogEvent, Established, TransferProgress};
use attendant_store::{EventKind, Outcome};
use tokio::{sync::watch, time::MissedTickBehavior};

use super::TICK;
use super::mouth::{Clip, Mouth};
use super::recorder::Recorder;

/// From this speech probability on a frame is voice.
const VOICE_PROB: f32 = 0.5;
/// Voice that makes a message \[frames\]: half a second; less is a cough.
const MESSAGE_FRAMES: u32 = 25;
/// A message ends with such a silence \[frames\]: 6 s; before the first word there may be more: 10 s.
const SILENCE_FRAMES: u32 = 300;
const SILENCE_BEFORE_FRAMES: u32 = 500;
/// Longest such a call may last beside its message: the announcement, being on hold.
const BESIDE: Duration = Duration::from_secs(120);
/// Longest a PBX may take to take a caller over.
const PASS_ON: Duration = Duration::from_secs(60);

/// Why a message ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Silence,
    Longest,
    Key,
    /// The exchange plays a tone: the caller has hung up.
    Tone,
}

/// The message as it comes.
#[derive(Debug, Default)]
struct Message {
    longest: u32,
    frames: u32,
    voiced: u32,
    quiet: u32,
    exchange: ExchangeDetector,
}

impl Message {
    fn new(longest: Duration) -> Self {
        Self {
            longest: u32::try_from(longest.as_millis() / 20).unwrap_or(u32::MAX),
            ..Self::default()
        }
    }

    fn push(&mut self, rx: &RxFrame) -> Option<End> {
        self.frames += 1;
        if rx.speech_prob >= VOICE_PROB {
            self.voiced += 1;
            self.quiet = 0;
        } else {
            self.quiet += 1;
        }
        let silence = if self.is_message() {
            SILENCE_FRAMES
        } else {
            SILENCE_BEFORE_FRAMES
        };
        match self.exchange.push(&rx.frame) {
            Some(Progress::Busy | Progress::Congestion | Progress::Dial) => Some(End::Tone),
            Some(Progress::Ringback) | None if rx.digit == Some('#') => Some(End::Key),
            Some(Progress::Ringback) | None if self.quiet >= silence => Some(End::Silence),
            Some(Progress::Ringback) | None if self.frames >= self.longest => Some(End::Longest),
            Some(Progress::Ringback) | None => None,
        }
    }

    fn is_message(&self) -> bool {
        self.voiced >= MESSAGE_FRAMES
    }
}

/// What the caller hears before the beep, and what then is bounded.
pub struct Terms {
    /// 16 kHz mono; `None`: the beep alone.
    pub announcement: Option<Arc<Vec<i16>>>,
    /// Longest message.
    pub longest: Duration,
}

/// Takes a message in an answered call that `recorder` records, and ends the call.
pub async fn take(
    mut call: Established,
    mut leg: Leg,
    recorder: Recorder,
    terms: Terms,
    mut drain: watch::Receiver<bool>,
) {
    let mut mouth = Mouth::default();
    for pcm in terms.announcement.into_iter().chain([Arc::new(tone::beep())]) {
        mouth.say(clip(pcm));
    }
    let mut message = Message::new(terms.longest);
    let (mut speaking, mut held) = (true, false);
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let until = tokio::time::sleep(terms.longest + BESIDE);
    tokio::pin!(until);
    let outcome = loop {
        tokio::select! {
            _ = ticks.tick() => {
                let played = leg.control.played();
                mouth.pump(&mut leg.tx, played);
                speaking = speaking && mouth.playing(played);
                let mut end = None;
                while let Ok(rx) = leg.rx.pop() {
                    recorder.frame(&rx);
                    if !speaking && !held {
                        end = end.or(message.push(&rx));
                    }
                }
                if end.is_some() {
                    break Outcome::Completed;
                }
            }
            event = call.events.recv() => match event {
                None | Some(DialogEvent::Bye) => break Outcome::Completed,
                Some(DialogEvent::Failed(_)) => break Outcome::Terminated,
                Some(DialogEvent::Media(media)) => {
                    if let Err(error) = leg.control.set_remote(media.stream) {
                        tracing::warn!(%error, "a change of media could not be followed");
                    }
                }
                Some(DialogEvent::Hold(now)) => {
                    held = now;
                    leg.control.hold(now);
                }
                Some(DialogEvent::InfoDigit('#')) => break Outcome::Completed,
                Some(DialogEvent::InfoDigit(_) | DialogEvent::Flash | DialogEvent::Replaced) => {}
            },
            () = &mut until => break Outcome::Terminated,
            Ok(()) = drain.changed() => if *drain.borrow() {
                break Outcome::Terminated;
            },
        }
    };
    if let Err(error) = call.handle.bye().await {
        tracing::debug!(%error, "the other end had cleared already");
    }
    let reason = if message.is_message() {
        let detail = format!("{} s", message.frames / 50);
        recorder.event(EventKind::Message, Some(&detail));
        "a message was left"
    } else {
        "no message was left"
    };
    recorder.finish(outcome, reason).await;
}

/// Hands an answered call to `uri`; how it went, for the log.
///
/// # Errors
/// Why the caller could not be handed over; the call has ended.
pub async fn pass_on(mut call: Established, mut leg: Leg, uri: &str) -> Result<(), &'static str> {
    let mut mouth = Mouth::default();
    // The caller hears that something happens.
    let ring = Arc::new(ringing());
    for _ in 0..PASS_ON.as_secs() / 6 {
        mouth.say(clip(ring.clone()));
    }
    let handle = call.handle.clone();
    let asked = async {
        let Ok(mut progress) = handle.refer(uri).await else {
            return Err("the PBX does not take the caller over");
        };
        while let Some(step) = progress.recv().await {
            match step {
                TransferProgress::Answered => return Ok(()),
                TransferProgress::Failed(_) => return Err("nobody took the caller over"),
                TransferProgress::Gone => return Err("the caller hung up"),
                TransferProgress::Trying | TransferProgress::Ringing => {}
            }
        }
        Err("nothing was heard of the transfer")
    };
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let until = tokio::time::sleep(PASS_ON);
    tokio::pin!(asked, until);
    let passed = loop {
        tokio::select! {
            biased;
            passed = &mut asked => break passed,
            () = &mut until => break Err("nothing was heard of the transfer in time"),
            event = call.events.recv() => if matches!(event, None | Some(DialogEvent::Bye | DialogEvent::Failed(_))) {
                break Err("the call ended during the transfer");
            },
            _ = ticks.tick() => {
                while leg.rx.pop().is_ok() {}
                mouth.pump(&mut leg.tx, leg.control.played());
            }
        }
    };
    if let Err(error) = call.handle.bye().await {
        tracing::debug!(%error, "the other end had cleared already");
    }
    passed
}

fn clip(pcm: Arc<Vec<i16>>) -> Clip {
    Clip {
        attempt: None,
        text: String::new(),
        pcm,
    }
}

/// One ring as North America has it: 440 and 480 Hz for 2 s, then 4 s of silence.
fn ringing() -> Vec<i16> {
    let second = SAMPLE_RATE_HZ as usize;
    let mut ring = vec![0; 6 * second];
    let sound = ring.get_mut(..2 * second).unwrap_or_default();
    tone::Tone::new(440.0, 480.0, -25.0).fill(sound);
    ring
}

#[cfg(test)]
mod tests {
    use attendant_media::{FRAME_SAMPLES, Frame};

    use super::*;

    fn rx(samples: &[i16], speech_prob: f32, digit: Option<char>) -> RxFrame {
        let frame = Frame::from_slice(samples);
        RxFrame {
            frame,
            sent: Frame::SILENCE,
            speech_prob,
            level_dbov: frame.energy_dbov(),
            concealed: false,
            digit,
            at: 0,
        }
    }

    /// One char a second: 'v' voice, '.' silence, 'b' busy tone, '#' the key.
    fn end_of(line: &str, longest_s: u64) -> (Option<(usize, End)>, bool) {
        let mut message = Message::new(Duration::from_secs(longest_s));
        let mut busy = tone::Tone::new(480.0, 620.0, -18.0);
        for (second, what) in line.chars().enumerate() {
            for n in 0..50 {
                let mut samples = [0; FRAME_SAMPLES];
                if what == 'b' && n < 25 {
                    busy.fill(&mut samples);
                }
                let digit = (what == '#' && n == 0).then_some('#');
                let speech_prob = if what == 'v' { 0.9 } else { 0.1 };
                if let Some(end) = message.push(&rx(&samples, speech_prob, digit)) {
                    return (Some((second, end)), message.is_message());
                }
            }
        }
        (None, message.is_message())
    }

    #[test]
    fn a_message_ends_when_nobody_speaks_any_more() {
        for (case, line, want, message) in [
            ("goes on", "vv..vvv...vv", None, true),
            (
                "silence after words",
                "vvv..........",
                Some((8, End::Silence)),
                true,
            ),
            ("nobody speaks", "..............", Some((9, End::Silence)), false),
            ("thinks first", "........vvv...", None, true),
            ("the key", "vvv#", Some((3, End::Key)), true),
            (
                "too long",
                "vvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvvv",
                Some((29, End::Longest)),
                true,
            ),
            (
                "hangs up on an analog line",
                "vvbbbbbb",
                Some((5, End::Tone)),
                true,
            ),
        ] {
            assert_eq!(end_of(line, 30), (want, message), "{case}");
        }
    }
}
