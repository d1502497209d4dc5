//! Who has the floor: the caller's voice while listening, and while the attendant speaks.

use std::time::Instant;

use super::{TurnMachine, Utterance};
use crate::{
    action::{Action, AttemptId},
    config::ms,
};

/// Frames of audio before the onset that belong to the utterance: soft consonants (200 ms).
const PREROLL_FRAMES: u64 = 10;
/// Voice this long into a reply is an interruption, whatever it says [ms].
const SURELY_INTERRUPTS_MS: u32 = 1_000;

impl TurnMachine {
    /// The reply, or a phrase, is being heard: is the caller interrupting?
    pub(super) fn on_frame_while_speaking(&mut self, now: Instant) {
        let voiced_ms = self.gate.voiced_ms();
        if voiced_ms >= self.config.barge_in_ms {
            self.barge_in(now);
        } else if voiced_ms >= self.config.duck_after_ms {
            if !std::mem::replace(&mut self.ducked, true) {
                self.actions.push_back(Action::Duck);
            }
        } else if self.ducked && self.gate.silent_ms() >= 100 {
            self.ducked = false;
            self.actions.push_back(Action::Unduck);
        }
    }

    pub(super) fn barge_in(&mut self, now: Instant) {
        let too_long = |u: Utterance| now >= u.started_at + ms(self.config.max_utterance_ms);
        let being_answered = self.attempt.is_some_and(|a| a.committed && !a.clause);
        if being_answered && self.utterance.is_some_and(too_long) {
            // The longest utterance goes on over the request for patience.
            return;
        }
        let unanswered = self
            .utterance
            .filter(|_| self.attempt.is_some_and(|a| !a.clause || !a.committed));
        if unanswered.is_some() || self.said {
            self.stop_speaking();
            self.drop_attempt();
        } else {
            self.playing = false;
            self.held = true;
            self.suspended = self.attempt.take();
            self.actions.push_back(Action::Pause);
            if std::mem::take(&mut self.ducked) {
                self.actions.push_back(Action::Unduck);
            }
        }
        let first_frame = self.onset_frame();
        let voiced_frames = self.gate.voiced_ms() / 20;
        // Only a filler was heard so far: what was said before still wants its answer.
        self.utterance = Some(match unanswered {
            Some(u) => Utterance {
                last_voiced_at: now,
                voiced_frames: u.voiced_frames + voiced_frames,
                ..u
            },
            None => Utterance {
                first_frame,
                started_at: now,
                last_voiced_at: now,
                voiced_frames,
            },
        });
    }

    /// Nobody interrupted: what was paused goes on.
    pub(super) fn resume(&mut self) {
        self.drop_attempt();
        self.utterance = None;
        self.held = false;
        self.attempt = self.suspended.take();
        self.said = true;
        self.gate.reset();
        self.actions.push_back(Action::Resume);
    }

    /// It was an interruption: what was paused ends there.
    pub(super) fn abandon_held(&mut self) {
        if !std::mem::take(&mut self.held) {
            return;
        }
        let heard = self
            .suspended
            .take()
            .filter(|a| a.committed && a.clause)
            .map(|a| a.id);
        self.count_heard(heard);
        self.actions.push_back(Action::Stop { id: heard });
    }

    /// A reply of which something was heard counts as a turn.
    pub(super) fn count_heard(&mut self, heard: Option<AttemptId>) {
        if heard.is_some() {
            self.turns += 1;
            self.failed_turns = 0;
            self.asked_still_there = 0;
        }
    }

    /// Stops what is playing or paused; the attempt whose reply it was ends with it.
    pub(super) fn stop_speaking(&mut self) {
        self.abandon_held();
        if !self.playing && !self.said {
            return;
        }
        let heard = self.attempt.take_if(|a| a.committed && a.clause).map(|a| a.id);
        self.count_heard(heard);
        self.playing = false;
        self.said = false;
        self.ducked = false;
        // A phrase that was asked for in this very step is not to be played after the stop.
        self.actions.retain(|a| !matches!(a, Action::Say(_)));
        self.actions.push_back(Action::Stop { id: heard });
        self.actions.push_back(Action::Unduck);
    }

    pub(super) fn onset_frame(&self) -> u64 {
        self.frame
            .saturating_sub(u64::from(self.gate.voiced_ms() / 20) + PREROLL_FRAMES)
    }

    pub(super) fn on_frame_while_listening(&mut self, voiced: bool, now: Instant) {
        let onset = self.gate.voiced_ms() >= self.config.onset_ms;
        if voiced && onset {
            self.end_broken_reply();
        }
        let Some(utterance) = &mut self.utterance else {
            if onset {
                let voiced_frames = self.gate.voiced_ms() / 20;
                let first_frame = self.onset_frame();
                self.utterance = Some(Utterance {
                    first_frame,
                    started_at: now,
                    last_voiced_at: now,
                    voiced_frames,
                });
                self.keys_at = self.keys_at.map(|_| now);
            }
            return;
        };
        if voiced {
            utterance.voiced_frames += 1;
            // One click does not hold the floor; an onset does.
            if onset || self.attempt.is_none() {
                utterance.last_voiced_at = now;
            }
        }
        let utterance = *utterance;
        let too_long = now >= utterance.started_at + ms(self.config.max_utterance_ms);
        // The longest utterance is answered even if it goes on: music does.
        if voiced && onset && !too_long {
            self.drop_attempt();
        }
        if utterance.voiced_frames * 20 >= SURELY_INTERRUPTS_MS {
            self.abandon_held();
        }
        if self.attempt.is_none() && (self.gate.silent_ms() >= self.config.pause_ms || too_long) {
            self.start_attempt(utterance);
        }
        if too_long {
            self.commit(now);
        }
    }

    /// The caller speaks again after a part of a reply whose rest did not come: the turn ends with what was heard.
    pub(super) fn end_broken_reply(&mut self) {
        if let Some(broken) = self.attempt.take_if(|a| a.committed && a.clause) {
            self.utterance = None;
            self.count_heard(Some(broken.id));
            self.actions.push_back(Action::Stop { id: Some(broken.id) });
        }
    }
}
