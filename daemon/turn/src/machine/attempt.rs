//! An attempt: one try at understanding and answering the utterance so far, from its first pause to its commit, and how
//! it ends.

use std::time::Instant;

use super::{Attempt, Stage, TurnMachine, Utterance};
use crate::{
    action::{Action, AttemptId, Completeness, EndCause, Hearing, Phrase},
    config::ms,
};

/// Voice this long without a word was meant to be heard: it is asked about [ms].
const NOTICED_MS: u32 = 600;
/// … this many times in a row; then it is a noise on the line.
const MOST_NOISES: u32 = 2;

impl TurnMachine {
    pub(super) fn start_attempt(&mut self, utterance: Utterance) {
        let id = self.new_attempt_id();
        let (from, to) = (utterance.first_frame, self.frame);
        let voiced_frames = utterance.voiced_frames;
        self.attempt = Some(Attempt {
            id,
            stage: Stage::Transcribing,
            speech_end: utterance.last_voiced_at,
            quiet_since: utterance.last_voiced_at,
            from,
            to,
            voiced_frames,
            thinking: false,
            committed: false,
            clause: false,
            reply_done: false,
            retries: 0,
            fillers: 0,
        });
        self.actions.push_back(Action::Transcribe {
            id,
            from,
            to,
            voiced_frames,
        });
    }

    pub(super) fn new_attempt_id(&mut self) -> AttemptId {
        let id = AttemptId(self.next_attempt);
        self.next_attempt += 1;
        id
    }

    pub(super) fn drop_attempt(&mut self) {
        if let Some(attempt) = self.attempt.take() {
            self.actions.push_back(Action::Drop { id: attempt.id });
        }
    }

    /// When the attempt may be committed, as far as is known now.
    pub(super) fn commit_at(&self, attempt: &Attempt) -> Option<Instant> {
        if attempt.committed {
            return None;
        }
        let hangover_ms = match attempt.stage {
            Stage::Transcribing => return None,
            // Nobody interrupted: what was paused is to go on soon.
            Stage::Heard(Hearing::Backchannel | Hearing::Nothing | Hearing::Unclear) if self.held => {
                self.config.hangover_short_ms
            }
            Stage::Heard(Hearing::Speech(Completeness::Short) | Hearing::Farewell) => {
                self.config.hangover_short_ms
            }
            Stage::Heard(Hearing::Speech(Completeness::Finished)) => self.config.hangover_finished_ms,
            Stage::Heard(Hearing::Speech(Completeness::Open)) => self.config.hangover_open_ms,
            Stage::Heard(
                Hearing::Speech(Completeness::Unknown)
                | Hearing::Backchannel
                | Hearing::Unclear
                | Hearing::Nothing
                | Hearing::Failed,
            ) => self.config.hangover_unknown_ms,
        };
        Some(attempt.speech_end + ms(hangover_ms))
    }

    pub(super) fn check_commit(&mut self, now: Instant) {
        if self
            .attempt
            .and_then(|a| self.commit_at(&a))
            .is_some_and(|at| now >= at)
        {
            self.commit(now);
        }
    }

    pub(super) fn commit(&mut self, now: Instant) {
        let muttered = |a: Attempt| {
            matches!(
                a.stage,
                Stage::Heard(Hearing::Backchannel | Hearing::Nothing | Hearing::Unclear)
            )
        };
        if self.held && self.attempt.is_some_and(muttered) {
            return self.resume();
        }
        let Some(attempt) = &mut self.attempt else { return };
        let open = matches!(
            attempt.stage,
            Stage::Transcribing | Stage::Heard(Hearing::Speech(_) | Hearing::Failed)
        );
        if attempt.committed && open {
            return;
        }
        let id = attempt.id;
        match attempt.stage {
            // The longest utterance was cut here; its answer follows its transcript.
            Stage::Transcribing | Stage::Heard(Hearing::Speech(_) | Hearing::Failed) => {
                attempt.committed = true;
                let think = !attempt.thinking && attempt.stage != Stage::Transcribing;
                attempt.thinking |= think;
                self.actions.push_back(Action::Commit { id });
                if think {
                    self.actions.push_back(Action::Think {
                        id,
                        speculative: false,
                    });
                }
            }
            Stage::Heard(Hearing::Farewell) => {
                self.actions.push_back(Action::Commit { id });
                self.actions.push_back(Action::TurnDone { id });
                self.attempt = None;
                self.utterance = None;
                self.turns += 1;
                self.end(Phrase::Goodbye, EndCause::Farewell, now);
            }
            Stage::Heard(Hearing::Unclear) => {
                self.drop_attempt();
                self.utterance = None;
                self.fail_turn(Phrase::Unclear, now);
            }
            Stage::Heard(Hearing::Nothing | Hearing::Backchannel) => {
                let noticed = attempt.voiced_frames * 20 >= NOTICED_MS;
                self.drop_attempt();
                self.utterance = None;
                // Noise neither answers nor postpones "are you still there?".
                self.idle_since = self.idle_since.or(Some(now));
                if noticed {
                    self.noises += 1;
                    if self.noises <= MOST_NOISES {
                        self.say(Phrase::Unclear);
                    } else {
                        self.ask_still_there(now);
                    }
                }
            }
        }
    }

    /// Something was said and could not be served: a phrase says so, or ends the call when it happens too often.
    pub(super) fn fail_turn(&mut self, phrase: Phrase, now: Instant) {
        self.failed_turns += 1;
        if self.failed_turns >= self.config.max_failed_turns {
            self.end(Phrase::Trouble, EndCause::Trouble, now);
        } else {
            self.say(phrase);
        }
    }

    pub(super) fn give_up(&mut self, now: Instant) {
        self.drop_attempt();
        self.utterance = None;
        self.fail_turn(Phrase::CannotAnswer, now);
    }

    pub(super) fn on_reply_played(&mut self, now: Instant) {
        let Some(attempt) = self.attempt.take() else {
            return;
        };
        self.utterance = None;
        self.count_heard(Some(attempt.id));
        self.actions.push_back(Action::TurnDone { id: attempt.id });
        if self.turns >= self.config.max_turns {
            self.end(Phrase::MaxTurns, EndCause::MaxTurns, now);
        } else {
            self.idle_since = Some(now);
        }
    }
}
