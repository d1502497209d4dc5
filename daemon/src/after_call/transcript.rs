//! The final transcript: each turn of a recorded call once more, whole, with the house's own names as a hint.
//!
//! Live, an utterance is transcribed the moment the caller pauses, without a hint, and may be cut; afterwards there is
//! time. What comes out stands beside the live transcript with `source = recording`; where the recogniser is not sure that
//! anything was said, there is none for that turn.

use std::time::Duration;

use attendant_dialog::{cards, heard};
use attendant_models::client::{Engine, Priority, TranscribeRequest};
use attendant_record::{Cut, MasterKey};
use attendant_store::{FinalText, Job, SessionRecord, Source, Turn};

use super::{CALL, FinalTranscript, Trouble, Worker, quietly, recording};
use crate::clock;

/// Longest one turn may take, on one slow core.
const DEADLINE: Duration = Duration::from_secs(60);
/// Heard before and behind an utterance \[ms\]: clocks of call and recording differ a little.
const AROUND_MS: (i64, i64) = (300, 400);
/// Whisper's window \[samples\]: of a longer utterance, its end.
const MOST_SAMPLES: u64 = 28 * 16_000;
/// Longest hint \[characters\].
const MAX_HINT: usize = 300;

/// What was heard in one turn.
#[derive(Debug, Clone)]
pub struct Heard {
    number: u32,
    /// `None`: nothing that is sure.
    text: Option<String>,
    sure: u32,
}

/// Where an utterance is in a recording that began at `started_ms` \[samples\].
pub fn utterance(turn: &Turn, started_ms: i64) -> Option<Cut> {
    let length = i64::from(turn.latencies.utterance_ms.filter(|ms| *ms > 0)?);
    let end = turn.at_ms - started_ms + AROUND_MS.1;
    let samples = |ms: i64| u64::try_from(ms).unwrap_or(0) * 16;
    let to = samples(end);
    let from = samples(end - AROUND_MS.1 - length - AROUND_MS.0);
    (to > from).then_some(Cut { from, to })
}

/// Something went wrong in the call: what was heard may be, too.
fn is_unclear(record: &SessionRecord) -> bool {
    let telling = ["unclear", "apology", "engine_down"];
    record
        .events
        .iter()
        .any(|event| telling.contains(&event.kind.as_str()))
}

impl Worker {
    /// Transcribes what is recorded.
    pub(super) async fn transcript(&mut self, job: &Job, record: &SessionRecord) -> Result<(), Trouble> {
        let section = &self.workshop.config.after_call;
        let (policy, hide_cards) = (section.final_transcript, section.redact_cards);
        if policy == FinalTranscript::Unclear && !is_unclear(record) {
            return Err(Trouble::Nothing("the live transcript is clear"));
        }
        let store = self.workshop.store.clone();
        let (id, turns) = (record.session.id, record.turns.clone());
        let found = self.on_disk({
            let record = record.clone();
            move |store| recording(store, &record)
        });
        let Some((stored, path)) = found.await? else {
            return Err(Trouble::Nothing("there is no recording"));
        };
        let mut heard = match self.heard.take() {
            Some((session, heard)) if session == id => heard,
            _ => Vec::new(),
        };
        let wanted: Vec<(u32, Cut)> = turns
            .iter()
            .filter(|turn| cards::keys_in(&turn.caller_text).is_none())
            .filter(|turn| heard.iter().all(|heard| heard.number != turn.number.get()))
            .filter_map(|turn| Some((turn.number.get(), utterance(turn, stored.started_at_ms)?)))
            .map(|(number, cut)| {
                let from = cut.from.max(cut.to.saturating_sub(MOST_SAMPLES));
                (number, Cut { from, ..cut })
            })
            .collect();
        let spoken = quietly(move |stop| {
            let master = MasterKey::new(store.recordings_key()?);
            let cuts: Vec<Cut> = wanted.iter().map(|(_, cut)| *cut).collect();
            let samples = attendant_record::cuts(&path, &master, stop, &cuts)?;
            let numbers = wanted.into_iter().map(|(number, _)| number);
            Ok(numbers.zip(samples).collect::<Vec<(u32, Vec<i16>)>>())
        })
        .await?;
        for (number, pcm) in spoken {
            heard.push(self.hear(job, number, pcm).await?);
            // Kept, should a call begin: then the rest is all that is left.
            self.heard = Some((id, heard.clone()));
        }
        heard.sort_by_key(|heard| heard.number);
        let texts = finals(heard, hide_cards);
        let job = job.clone();
        self.store(move |store| store.complete_transcript(&job, &texts, clock::unix_ms()))
            .await
    }

    async fn hear(&mut self, job: &Job, number: u32, pcm: Vec<i16>) -> Result<Heard, Trouble> {
        let audio_ms = (pcm.len() / 16) as u32;
        let config = self.workshop.config.clone();
        let request = TranscribeRequest {
            call: CALL | job.session.get().unsigned_abs(),
            turn: number,
            deadline: DEADLINE,
            language: Some(config.language().to_owned()),
            hint: hint(
                &config.business.business_name,
                &config.business.attendant_name,
                &config.business.business,
            ),
            pcm,
            priority: Priority::Background,
        };
        let engines = self.workshop.engines.clone();
        let transcript = self
            .ask(Engine::Stt, async move { engines.transcribe(request).await })
            .await?;
        let judged = heard::judge(
            &transcript.text,
            transcript.avg_logprob,
            transcript.no_speech_prob,
            audio_ms,
            audio_ms,
        );
        let text = match judged {
            heard::Heard::Speech(text) => Some(text),
            heard::Heard::Unclear | heard::Heard::Nothing => None,
        };
        let sure = (f64::from(transcript.avg_logprob).exp() * 1_000.0).clamp(0.0, 1_000.0) as u32;
        Ok(Heard { number, text, sure })
    }
}

/// What the caller is likely to name.
fn hint(business: &str, attendant: &str, trade: &str) -> String {
    let hint = format!("{attendant} at {business}: {trade}.");
    hint.chars().take(MAX_HINT).collect()
}

/// As they are stored: with card numbers hidden where that is wanted.
fn finals(heard: Vec<Heard>, hide_cards: bool) -> Vec<FinalText> {
    let sure: Vec<(u32, u32, String)> = heard
        .into_iter()
        .filter_map(|heard| Some((heard.number, heard.sure, heard.text?)))
        .collect();
    let said: Vec<&str> = sure.iter().map(|(_, _, text)| text.as_str()).collect();
    let hidden = cards::hide_cards(&said);
    sure.iter()
        .zip(hidden)
        .map(|((number, sure, text), hidden)| FinalText {
            number: *number,
            source: Source::Recording,
            text: if hide_cards { hidden.text } else { text.clone() },
            sure: *sure,
            masked: if hide_cards { hidden.digits } else { 0 },
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cards_are_hidden_before_anything_is_stored() {
        let heard = |number, text: Option<&str>| Heard {
            number,
            text: text.map(str::to_owned),
            sure: 900,
        };
        let said = vec![
            heard(1, Some("My card is 4111 1111")),
            heard(2, None),
            heard(3, Some("1111 1111.")),
            heard(4, Some("Thank you.")),
        ];
        let texts = finals(said.clone(), true);
        let told: Vec<(u32, &str, u32)> = texts
            .iter()
            .map(|text| (text.number, text.text.as_str(), text.masked))
            .collect();
        assert_eq!(
            told,
            [
                (1, "My card is **** ****", 8),
                (3, "**** ****.", 8),
                (4, "Thank you.", 0)
            ]
        );
        assert_eq!(finals(said, false)[0].text, "My card is 4111 1111");
    }
}
