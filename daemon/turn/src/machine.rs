//! The turn: from the caller's first voiced frame to the end of the attendant's reply.
//!
//! ```text
//!              onset                pause: Transcribe, Think (speculative)
//!  Listening ─────────> Utterance ──────────────────────────────> Attempt
//!      ^                    ^  caller goes on: Drop                  │ silence long enough for
//!      │                    └────────────────────────────────────────┤ what was said: Commit
//!      │   reply played: TurnDone                                    v
//!      └──────────────────────────── Speaking <───────────────── Committed ── no audio in time: filler,
//!                                       │  ^                                   then give up, re-prompt
//!                 caller's voice: Duck, v  │ "mm-hm", a cough: Resume
//!                                 Pause Held ────────────────────────> Utterance
//!                                           words, or a long voice: Stop
//! ```
//!
//! The owner calls `handle_*`, then drains [`TurnMachine::poll_action`]. An attempt is one try at understanding and
//! answering the utterance so far; its replies are recognised by [`AttemptId`], and late ones are ignored.
//!
//! Invariant: from the end of the caller's speech, the attendant is silent for at most `filler_after_ms` at a time until
//! the turn is answered; after `max_fillers` requests for patience it is given up aloud.

mod attempt;
mod floor;

use std::{collections::VecDeque, time::Instant};

use crate::{
    action::{Action, AttemptId, Completeness, EndCause, Hearing, Phrase, ReplyProgress},
    config::{TurnConfig, ms},
    trace::{self, Step, Timed, Trace},
    voice::{FrameVoice, VoiceGate},
};

/// Silence that ends a digit string typed on the keypad [ms].
const KEY_TIMEOUT_MS: u32 = 1_800;
/// Most digits taken in one string.
const MAX_KEYS: usize = 32;
/// Longest wait for the goodbye to be played before the call is cleared anyway [ms].
const GOODBYE_BOUND_MS: u32 = 15_000;

/// What the caller is saying.
#[derive(Debug, Clone, Copy)]
struct Utterance {
    first_frame: u64,
    started_at: Instant,
    last_voiced_at: Instant,
    voiced_frames: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Transcribing,
    Heard(Hearing),
}

#[derive(Debug, Clone, Copy)]
struct Attempt {
    id: AttemptId,
    stage: Stage,
    /// End of the caller's speech.
    speech_end: Instant,
    /// Utterance range, for a retry.
    from: u64,
    to: u64,
    voiced_frames: u32,
    thinking: bool,
    committed: bool,
    /// A clause of the reply exists.
    clause: bool,
    reply_done: bool,
    retries: u32,
    /// Times the caller was asked for patience in this turn.
    fillers: u32,
    /// The attendant has not been heard since; from here the bound on dead air counts.
    quiet_since: Instant,
}

/// The turn-taking of one call.
#[derive(Debug)]
pub struct TurnMachine {
    config: TurnConfig,
    gate: VoiceGate,
    frame: u64,
    utterance: Option<Utterance>,
    attempt: Option<Attempt>,
    next_attempt: u32,
    /// The attendant's voice is queued or playing.
    playing: bool,
    /// A stock phrase was asked for and has not been seen playing yet.
    said: bool,
    ducked: bool,
    /// What was playing is paused until it is clear whether the caller interrupts.
    held: bool,
    /// Whose reply that is; none when it is a stock phrase.
    suspended: Option<Attempt>,
    /// Both silent since.
    idle_since: Option<Instant>,
    asked_still_there: u32,
    keys: String,
    keys_at: Option<Instant>,
    turns: u32,
    failed_turns: u32,
    /// Voices without a word, in a row.
    noises: u32,
    ends_at: Instant,
    warnings: Vec<(Instant, u32)>,
    ending: Option<(EndCause, Instant)>,
    hung_up: bool,
    actions: VecDeque<Action>,
    trace: Trace,
}

impl TurnMachine {
    /// A call answered at `now`; the greeting is its first action.
    #[must_use]
    pub fn new(config: TurnConfig, now: Instant) -> Self {
        let ends_at = now + ms(config.timebox_s.saturating_mul(1000));
        let mut warnings: Vec<(Instant, u32)> = config
            .timebox_warnings_s
            .iter()
            .map(|&left| {
                (
                    now + ms(config.timebox_s.saturating_sub(left).saturating_mul(1000)),
                    left,
                )
            })
            .collect();
        warnings.sort();
        let mut machine = Self {
            config,
            gate: VoiceGate::default(),
            frame: 0,
            utterance: None,
            attempt: None,
            next_attempt: 1,
            playing: false,
            said: false,
            ducked: false,
            held: false,
            suspended: None,
            idle_since: None,
            asked_still_there: 0,
            keys: String::new(),
            keys_at: None,
            turns: 0,
            failed_turns: 0,
            noises: 0,
            ends_at,
            warnings,
            ending: None,
            hung_up: false,
            actions: VecDeque::new(),
            trace: Trace::new(now),
        };
        machine.say(Phrase::Greeting);
        machine
    }

    /// Next thing to do, if any.
    pub fn poll_action(&mut self) -> Option<Action> {
        let action = self.actions.pop_front();
        if let Some(action) = &action {
            self.trace.note_action(action);
        }
        action
    }

    /// Keeps every step from now on until it is taken; begin before the first one.
    pub fn keep_trace(&mut self) {
        self.trace.keep();
    }

    /// The steps kept since they were last taken.
    pub fn take_trace(&mut self) -> Vec<Timed> {
        self.trace.take()
    }

    /// Turns answered so far.
    #[must_use]
    pub fn turns(&self) -> u32 {
        self.turns
    }

    /// While the caller speaks, and not in a pause between two words: the frames of the utterance so far, from the
    /// first to one past the latest.
    #[must_use]
    pub fn caller_speaks(&self) -> Option<(u64, u64)> {
        let voiced = self.attempt.is_none() && self.gate.silent_ms() == 0;
        let utterance = self.utterance.filter(|_| voiced)?;
        Some((utterance.first_frame, self.frame))
    }

    /// Takes the verdict on one near-end frame; call once per ptime, in order.
    pub fn handle_frame(&mut self, voice: FrameVoice, now: Instant) {
        self.trace.note(now, || Step::Frame(voice));
        self.frame += 1;
        let voiced = self.gate.handle_frame(
            voice,
            self.config.speech_on,
            self.config.speech_off,
            self.config.min_level_dbov,
        );
        if self.ending.is_none() {
            if self.playing || self.said {
                self.on_frame_while_speaking(now);
            } else {
                self.on_frame_while_listening(voiced, now);
            }
        }
        self.check_deadlines(now);
    }

    /// A key pressed by the caller; stops a reply, as a voice would.
    pub fn handle_digit(&mut self, digit: char, now: Instant) {
        self.trace.note(now, || Step::Digit(trace::masked(digit)));
        if self.ending.is_some() {
            return;
        }
        self.stop_speaking();
        self.drop_attempt();
        self.utterance = None;
        self.idle_since = None;
        if digit != '#' && self.keys.len() < MAX_KEYS {
            self.keys.push(digit);
        }
        self.keys_at = Some(now);
        if digit == '#' {
            self.take_keys(now);
        }
    }

    /// The transcript of an attempt.
    pub fn handle_transcript(&mut self, id: AttemptId, hearing: Hearing, now: Instant) {
        self.trace.note(now, || Step::Transcript { id, hearing });
        let retries_allowed = self.config.retries;
        let speculation = self.config.speculation;
        let resume_after_ms = self.config.hangover_short_ms;
        let held = self.held;
        let Some(attempt) = self.attempt_mut(id) else {
            return;
        };
        if attempt.stage != Stage::Transcribing {
            return;
        }
        if hearing == Hearing::Failed {
            if attempt.retries < retries_allowed {
                attempt.retries += 1;
                let again = Action::Transcribe {
                    id,
                    from: attempt.from,
                    to: attempt.to,
                    voiced_frames: attempt.voiced_frames,
                };
                self.actions.push_back(again);
            } else {
                self.give_up(now);
            }
            return;
        }
        attempt.stage = Stage::Heard(hearing);
        let committed = attempt.committed;
        let muttered = matches!(
            hearing,
            Hearing::Nothing | Hearing::Backchannel | Hearing::Unclear
        );
        if held && muttered {
            // "Stop, please" pauses behind its first word: going on waits for a silence.
            let over = committed || now >= attempt.speech_end + ms(resume_after_ms);
            if over {
                self.resume();
            }
            return;
        }
        if matches!(hearing, Hearing::Speech(_)) {
            self.noises = 0;
        } else if committed {
            // The longest utterance had no word.
            self.abandon_held();
            return self.commit(now);
        }
        // The interrupted reply is written down before the next one is thought of.
        self.abandon_held();
        let Some(attempt) = self.attempt_mut(id) else {
            return;
        };
        if matches!(hearing, Hearing::Speech(_)) && (speculation || attempt.committed) {
            attempt.thinking = true;
            let speculative = !attempt.committed;
            self.actions.push_back(Action::Think { id, speculative });
        }
        self.check_deadlines(now);
    }

    /// A second opinion on how finished the attempt's words sound, from who understands them.
    pub fn handle_completeness(&mut self, id: AttemptId, completeness: Completeness, now: Instant) {
        self.trace.note(now, || Step::Completeness { id, completeness });
        if let Some(attempt) = self.attempt_mut(id)
            && let Stage::Heard(Hearing::Speech(_)) = attempt.stage
        {
            attempt.stage = Stage::Heard(Hearing::Speech(completeness));
        }
        self.check_deadlines(now);
    }

    /// Progress of an attempt's reply.
    pub fn handle_reply(&mut self, id: AttemptId, progress: ReplyProgress, now: Instant) {
        self.trace.note(now, || Step::Reply { id, progress });
        let retries_allowed = self.config.retries;
        if let Some(held) = self.suspended.as_mut().filter(|held| held.id == id) {
            match progress {
                ReplyProgress::Clause => held.clause = true,
                // What there is of it is played, should it go on.
                ReplyProgress::Done | ReplyProgress::Failed => held.reply_done = true,
            }
            return;
        }
        let Some(attempt) = self.attempt_mut(id) else {
            return;
        };
        match progress {
            ReplyProgress::Clause => attempt.clause = true,
            ReplyProgress::Done if attempt.clause => attempt.reply_done = true,
            // A reply without a word is a failed one.
            ReplyProgress::Done | ReplyProgress::Failed => {
                if attempt.retries < retries_allowed {
                    attempt.retries += 1;
                    let (committed, speculative) = (attempt.committed, !attempt.committed);
                    if committed && attempt.retries == 1 {
                        self.say(Phrase::Apology);
                    }
                    self.actions.push_back(Action::Think { id, speculative });
                } else {
                    self.give_up(now);
                }
            }
        }
        self.check_deadlines(now);
    }

    /// Whether the attendant's voice is queued or playing; call after every tick of playout.
    pub fn handle_playout(&mut self, playing: bool, now: Instant) {
        self.trace.note(now, || Step::Playout(playing));
        if playing {
            self.said = false;
            self.playing = true;
            self.idle_since = None;
            return;
        }
        if self.said {
            return; // Asked for, not yet queued.
        }
        let ended = std::mem::take(&mut self.playing);
        if !ended {
            // A reply whose last clause had been played before it was known to be the last.
            if self.attempt.is_some_and(|a| a.committed && a.reply_done) {
                self.on_reply_played(now);
            }
            return;
        }
        if std::mem::take(&mut self.ducked) {
            self.actions.push_back(Action::Unduck);
        }
        if let Some((cause, _)) = self.ending {
            self.hang_up(cause);
            return;
        }
        self.gate.reset();
        match &mut self.attempt {
            Some(a) if a.committed && a.reply_done => self.on_reply_played(now),
            Some(a) => a.quiet_since = now,
            None => self.idle_since = Some(now),
        }
    }

    /// When to call [`handle_timeout`](Self::handle_timeout) next, if ever.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let mut next = vec![self.ends_at];
        if let Some((_, since)) = self.ending {
            next = vec![since + ms(GOODBYE_BOUND_MS)];
        } else {
            next.extend(self.idle_since.map(|t| t + ms(self.config.still_there_after_ms)));
            next.extend(self.keys_at.map(|t| t + ms(KEY_TIMEOUT_MS)));
            next.extend(self.warnings.first().map(|(t, _)| *t));
            next.extend(self.attempt.and_then(|a| self.commit_at(&a)));
            next.extend(
                self.attempt
                    .map(|a| a.quiet_since + ms(self.config.filler_after_ms)),
            );
        }
        if self.hung_up {
            None
        } else {
            next.into_iter().min()
        }
    }

    /// Acts on every deadline that has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.trace.note(now, || Step::Timeout);
        self.check_deadlines(now);
    }

    fn check_deadlines(&mut self, now: Instant) {
        if self.hung_up {
            return;
        }
        if let Some((cause, since)) = self.ending {
            if now >= since + ms(GOODBYE_BOUND_MS) {
                self.hang_up(cause);
            }
            return;
        }
        if now >= self.ends_at {
            self.drop_attempt();
            self.stop_speaking();
            self.end(Phrase::TimeboxEnd, EndCause::Timebox, now);
            return;
        }
        if self.keys_at.is_some_and(|t| now >= t + ms(KEY_TIMEOUT_MS)) {
            self.take_keys(now);
        }
        self.check_commit(now);
        self.check_dead_air(now);
        self.check_idle(now);
    }

    fn attempt_mut(&mut self, id: AttemptId) -> Option<&mut Attempt> {
        self.attempt.as_mut().filter(|a| a.id == id)
    }

    fn say(&mut self, phrase: Phrase) {
        self.abandon_held();
        self.said = true;
        self.idle_since = None;
        self.actions.push_back(Action::Say(phrase));
    }

    fn end(&mut self, phrase: Phrase, cause: EndCause, now: Instant) {
        self.say(phrase);
        self.ending = Some((cause, now));
    }

    fn hang_up(&mut self, cause: EndCause) {
        if !std::mem::replace(&mut self.hung_up, true) {
            self.actions.push_back(Action::HangUp(cause));
        }
    }

    fn check_dead_air(&mut self, now: Instant) {
        let Some(attempt) = &mut self.attempt else { return };
        if self.playing || self.said || (attempt.committed && attempt.clause && attempt.reply_done) {
            return;
        }
        if now < attempt.quiet_since + ms(self.config.filler_after_ms) {
            return;
        }
        if attempt.fillers >= self.config.max_fillers {
            self.give_up(now);
        } else {
            attempt.fillers += 1;
            self.say(Phrase::OneMoment);
        }
    }

    fn check_idle(&mut self, now: Instant) {
        if self.playing
            || self.said
            || self.utterance.is_some()
            || self.attempt.is_some()
            || self.keys_at.is_some()
        {
            return;
        }
        let since = *self.idle_since.get_or_insert(now);
        if let Some(&(at, left_s)) = self.warnings.first()
            && now >= at
        {
            self.warnings.remove(0);
            self.say(Phrase::TimeboxWarning { left_s });
            return;
        }
        if now < since + ms(self.config.still_there_after_ms) {
            return;
        }
        self.ask_still_there(now);
    }

    /// Asks a few times, then takes leave.
    fn ask_still_there(&mut self, now: Instant) {
        if self.asked_still_there >= self.config.still_there_times {
            self.end(Phrase::GoodbyeSilence, EndCause::Silence, now);
        } else {
            self.asked_still_there += 1;
            self.say(Phrase::StillThere);
        }
    }

    fn take_keys(&mut self, now: Instant) {
        let typed_at = self.keys_at.take().unwrap_or(now);
        let digits = std::mem::take(&mut self.keys);
        if digits.is_empty() {
            return;
        }
        let id = self.new_attempt_id();
        self.drop_attempt();
        self.utterance = None;
        self.attempt = Some(Attempt {
            id,
            stage: Stage::Heard(Hearing::Speech(Completeness::Finished)),
            speech_end: typed_at,
            quiet_since: typed_at,
            from: self.frame,
            to: self.frame,
            voiced_frames: 0,
            thinking: true,
            committed: true,
            clause: false,
            reply_done: false,
            retries: 0,
            fillers: 0,
        });
        self.actions.push_back(Action::Keyed { id, digits });
        self.actions.push_back(Action::Commit { id });
        self.actions.push_back(Action::Think {
            id,
            speculative: false,
        });
    }
}

#[cfg(test)]
mod tests;
