//! Hearing: from the caller's frames to words, and from the words to the model that answers them.

use std::time::{Duration, Instant};

use attendant_media::FRAME_SAMPLES;
use attendant_models::client::{Priority, TranscribeRequest};
use attendant_models::protocol::{ChatMessage, Role};
use attendant_turn::{AttemptId, Hearing};

use super::judge::{self, Judged, Moment};
use super::reply::{self, Event};
use super::{Aborting, Call};

/// Longest a transcript may take.
const STT_DEADLINE: Duration = Duration::from_secs(8);
/// Speech before the first partial transcript, and between two [frames]: 800 ms.
const PARTIAL_FRAMES: u64 = 40;
/// Longest speech that is transcribed in part [frames]: 9 s, which one small context holds.
const MOST_PARTIAL_FRAMES: u64 = 450;
/// Longest a partial transcript may take.
const PARTIAL_DEADLINE: Duration = Duration::from_secs(2);

impl Call {
    pub(super) fn transcribe(&mut self, id: AttemptId, from: u64, to: u64, voiced_frames: u32) {
        let longest = u64::from(self.house.config.turn.max_utterance_ms / 20);
        let pcm = self.ears.slice(from.max(to.saturating_sub(longest)), to);
        let voiced_frames = voiced_frames.min((pcm.len() / FRAME_SAMPLES) as u32);
        // The transcript to come knows more.
        self.partial = None;
        let audio_ms = (pcm.len() / 16) as u32;
        let silence_ms = self.house.config.turn.pause_ms;
        let attempt = self.attempts.entry(id).or_default();
        attempt.task = None;
        // A retry transcribes the same speech; its end stays where it was.
        if attempt.asked_at.is_none() {
            attempt.asked_at = Some(Instant::now());
            attempt.silence_ms = silence_ms;
            attempt.utterance_ms = audio_ms;
        }
        let (engines, events) = (self.house.engines.clone(), self.events_in.clone());
        let metrics = self.house.metrics.clone();
        // After a question, "yes" is an answer.
        let into_reply = self
            .mouth
            .paused()
            .is_some_and(|text| !text.trim_end().ends_with('?'));
        let moment = Moment {
            audio_ms,
            voiced_ms: voiced_frames * 20,
            last_reply: self.history.last_reply().map(str::to_owned),
            into_reply,
            ask_model: self.house.config.turn.meaning && self.house.config.turn.speculation,
        };
        let request = TranscribeRequest {
            call: self.id,
            turn: self.machine.turns() + 1,
            deadline: STT_DEADLINE,
            language: Some(self.house.config.language().to_owned()),
            hint: String::new(),
            pcm,
            priority: Priority::Live,
        };
        attempt.task = Some(Aborting(tokio::spawn(async move {
            let started = Instant::now();
            let result = engines.transcribe(request).await;
            let stt_ms = started.elapsed().as_millis() as u32;
            let judged = match result {
                Ok(transcript) => {
                    tracing::debug!(
                        audio_ms,
                        voiced_ms = moment.voiced_ms,
                        logprob = transcript.avg_logprob,
                        no_speech = transcript.no_speech_prob,
                        "heard"
                    );
                    judge::judge(&transcript, &moment)
                }
                Err(error) => {
                    tracing::warn!(%error, "a transcription failed");
                    metrics.engine_error("transcript", &error);
                    // The next try should find the engine back.
                    let _ = engines.ready(STT_DEADLINE).await;
                    Judged::wordless(Hearing::Failed)
                }
            };
            let _ = events.send(Event::Transcript { id, judged, stt_ms }).await;
        })));
    }

    /// While the caller speaks and nobody else needs the engines: transcribes what was said so far.
    pub(super) fn hear_ahead(&mut self) {
        let Some((from, to)) = self.machine.caller_speaks() else {
            return;
        };
        let fresh = to.saturating_sub(from.max(self.partial_to)) >= PARTIAL_FRAMES
            && to.saturating_sub(from) <= MOST_PARTIAL_FRAMES;
        // While a reply is paused, the model may still be writing it.
        let wanted = self.house.config.turn.partials && fresh && self.mouth.paused().is_none();
        if !wanted || !self.house.engines.idle() {
            return;
        }
        self.partial_to = to;
        let (engines, events) = (self.house.engines.clone(), self.events_in.clone());
        let request = TranscribeRequest {
            call: self.id,
            turn: self.machine.turns() + 1,
            deadline: PARTIAL_DEADLINE,
            language: Some(self.house.config.language().to_owned()),
            hint: String::new(),
            pcm: self.ears.slice(from, to),
            priority: Priority::Speculative,
        };
        self.partial = Some(Aborting(tokio::spawn(async move {
            // One that fails is not missed: the final transcript tells what is wrong.
            if let Ok(transcript) = engines.transcribe(request).await {
                drop(
                    events
                        .send(Event::Partial {
                            text: transcript.text,
                        })
                        .await,
                );
            }
        })));
    }

    /// Lets the language model read what was said so far, but for the last word, which may have been cut.
    pub(super) fn read_partial(&mut self, text: &str) {
        let heard = text.trim().rsplit_once(char::is_whitespace);
        // Once the utterance is being transcribed whole, that comes first.
        let wanted = self.partial.take().is_some() && self.mouth.paused().is_none();
        let Some((sure, _)) = heard.filter(|_| wanted) else {
            return;
        };
        self.prefill(self.history.messages_with(sure));
    }

    pub(super) fn think(&mut self, id: AttemptId, speculative: bool) {
        if let Some((text, then)) = self.without_model(id) {
            return self.reply_canned(id, text, then);
        }
        let Some(attempt) = self.attempts.get_mut(&id) else {
            return;
        };
        attempt.task = None;
        let messages = self
            .history
            .messages_with(&attempt.text)
            .into_iter()
            .map(chat_message)
            .collect();
        let task = reply::Task {
            id,
            call: self.id,
            turn: self.machine.turns() + 1,
            messages,
            speculative,
            score_ending: attempt.verdict.is_some(),
            retry: std::mem::replace(&mut attempt.thought, true),
            persona: self.house.config.business.clone(),
            rules: self.house.rules.clone(),
            phrases: self.house.phrases.clone(),
        };
        attempt.task = Some(Aborting(tokio::spawn(reply::run(
            self.house.engines.clone(),
            task,
            self.events_in.clone(),
        ))));
    }

    /// Lets the language model read what was said while nobody waits for it.
    pub(super) fn prefill_history(&mut self) {
        self.prefill(self.history.messages().to_vec());
    }

    fn prefill(&mut self, messages: Vec<attendant_dialog::Message>) {
        let messages: Vec<ChatMessage> = messages.into_iter().map(chat_message).collect();
        let reading = self.house.engines.prefill(self.id, messages);
        self.reading = Some(Aborting(tokio::spawn(async move {
            // What fails here is done, or told, with the next reply.
            drop(reading.await);
        })));
    }
}

pub(crate) fn chat_message(message: attendant_dialog::Message) -> ChatMessage {
    let role = match message.role {
        attendant_dialog::Role::System => Role::System,
        attendant_dialog::Role::User => Role::User,
        attendant_dialog::Role::Assistant => Role::Assistant,
    };
    ChatMessage {
        role,
        content: message.content,
    }
}
