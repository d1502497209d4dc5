//! Speech: what somebody said as a WAV in, the attendant's answer as text and WAV out, by the engines that answer calls.
//!
//! ```text
//! WAV ─> 16 kHz ─> transcript, judged ─> language model with history and context ─> clauses ─> voice ─> turn recorded
//! ```
//! A request takes a line for as long as it lasts, so that calls and programs together never exceed what the box can bear.

use std::{collections::HashSet, sync::Mutex, sync::PoisonError, time::Instant};

use attendant_dialog::History;
use attendant_dialog::guardrails::Hit;
use attendant_media::wav;
use attendant_models::{
    client::{Priority, TranscribeRequest},
    protocol::{ChatMessage, Role},
};
use attendant_store::{NewTurn, SessionId, State, TurnLatencies};
use attendant_turn::{AttemptId, Hearing, Phrase};
use axum::{
    Extension, Json,
    body::Bytes,
    extract::{DefaultBodyLimit, Path, State as Shared},
    http::{HeaderMap, StatusCode, header},
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use serde::Serialize;
use tokio::sync::mpsc;
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{Api, MAX_SPEECH, Problem, access::Caller};
use crate::{
    call::{
        chat_message, guardrail,
        judge::{self, Judged, Moment},
        reply::{self, Event},
    },
    clock,
};

/// Longest a transcript may take, waiting for cores included.
const STT_DEADLINE: std::time::Duration = std::time::Duration::from_secs(15);
/// Rates that speech comes in [Hz].
const RATES_HZ: std::ops::RangeInclusive<u32> = 8_000..=48_000;
/// Samples per millisecond.
const PER_MS: usize = 16;
/// Names the sequences of sessions in the language model, far from those of calls.
const SEQUENCES: u64 = 1 << 48;
/// Room for context and conversation in a prompt [characters], as in a call.
const PROMPT_CHARS: usize = 2_800;
/// Of which the sealed context may take so many.
const CONTEXT_CHARS: usize = 1_500;
/// Turns looked back on; they are cut to the room anyway.
const LOOK_BACK: u32 = 40;
/// Between the reply and what follows it [samples]: 300 ms.
const PAUSE: usize = 300 * PER_MS;
/// Mean amplitude of a frame of 20 ms that may be a voice: −46 dBov.
const VOICE: i64 = 164;
/// Shortest sound that is transcribed [samples]: a second; what is shorter is followed by silence.
const SHORTEST: usize = 1_000 * PER_MS;

/// The routes.
pub fn routes() -> OpenApiRouter<Api> {
    OpenApiRouter::new()
        .routes(routes!(speech))
        .layer(DefaultBodyLimit::max(MAX_SPEECH))
}

/// What the words amount to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum HeardAs {
    /// Something to answer.
    Speech,
    /// The same, and goodbye.
    Farewell,
    /// Somebody spoke, but it was not understood: the reply asks to repeat it, and no turn was taken.
    Unclear,
    /// Nobody spoke: no reply, no turn.
    Nothing,
}

/// The attendant's answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct Spoken {
    /// What the words amount to.
    pub heard_as: HeardAs,
    /// The turn's number, if one was taken.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub turn: Option<u32>,
    /// What was said.
    pub caller_text: String,
    /// The answer.
    pub reply_text: String,
    /// What the attendant says besides: that the time is nearly over.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub notice: Option<String>,
    /// Answer and notice as WAV (16 kHz, 16 bits, mono), in base64; absent when there is none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub audio: Option<String>,
    /// Transcription took [ms].
    pub stt_ms: u32,
    /// All of it took [ms].
    pub total_ms: u32,
    /// Until the session is ended by its timebox [s].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remaining_s: Option<u64>,
}

/// Sessions in which somebody is being answered.
#[derive(Debug, Default)]
pub struct Talking(Mutex<HashSet<i64>>);

/// One of them, until dropped.
struct Talk<'a>(&'a Talking, i64);

impl Talking {
    fn begin(&self, session: SessionId) -> Option<Talk<'_>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(session.get()).then(|| Talk(self, session.get()))
    }
}

impl Drop for Talk<'_> {
    fn drop(&mut self) {
        self.0
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&self.1);
    }
}

/// Gives the sequence back, however the request ends.
struct Sequence<'a>(&'a Api, u64);

impl Drop for Sequence<'_> {
    fn drop(&mut self) {
        self.0.running.house.engines.release(self.1);
    }
}

/// Say something, get the answer.
#[utoipa::path(post, path = "/sessions/{id}/speech", tag = "sessions", params(("id" = String, Path)),
    request_body(content = String, content_type = "audio/wav",
        description = "At most 10 MB and 28 s of speech, 8 to 48 kHz, any number of channels."),
    responses((status = 200, description = "The answer.", body = Spoken)))]
async fn speech(
    Shared(api): Shared<Api>,
    Extension(caller): Extension<Caller>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Json<Spoken>, Problem> {
    let started = Instant::now();
    if !is_wav(&headers) {
        return Err(Problem::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported-media-type",
            "wanted: a WAV file, with Content-Type: audio/wav",
        ));
    }
    let session = api.driven(&caller, &id).await?;
    let longest_ms = api.running.house.config.turn.max_utterance_ms;
    let pcm = tokio::task::spawn_blocking(move || samples(&body, longest_ms))
        .await
        .map_err(|_| Problem::internal())??;
    let head = api.store(move |store| store.session_head(session)).await?;
    if head.state != State::InProgress {
        return Err(attendant_store::StoreError::NotInProgress {
            session,
            state: head.state,
        }
        .into());
    }
    let Some(_talk) = api.shared.talking.begin(session) else {
        return Err(Problem::conflict(
            "under-way",
            "somebody is being answered in this session; one after the other",
        ));
    };
    let Some(_line) = api.running.house.admit() else {
        return Err(Problem::unavailable(
            "no-line",
            "all lines are taken; try again",
            5,
        ));
    };
    api.store(move |store| store.heartbeat(session, clock::unix_ms()))
        .await?;
    let spoken = answer(&api, session, head.turn_count + 1, pcm, started).await?;
    Ok(Json(spoken))
}

fn is_wav(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next()).unwrap_or_default();
    ["audio/wav", "audio/x-wav", "audio/wave", "audio/vnd.wave"]
        .iter()
        .any(|wav| kind.trim().eq_ignore_ascii_case(wav))
}

/// The sound at the house's rate.
fn samples(body: &[u8], longest_ms: u32) -> Result<Vec<i16>, Problem> {
    let sound = wav::parse(body).map_err(|error| Problem::invalid(error.to_string()))?;
    if !RATES_HZ.contains(&sound.rate) {
        return Err(Problem::invalid(format!(
            "{} samples per second; wanted are 8000 to 48000",
            sound.rate
        )));
    }
    if sound.samples.is_empty() || sound.duration_ms() > u64::from(longest_ms) {
        return Err(Problem::invalid(format!(
            "{} ms of sound; wanted are 1 to {longest_ms} ms",
            sound.duration_ms()
        )));
    }
    Ok(sound.to_16k())
}

/// How much of it may be a voice [ms].
fn voiced_ms(pcm: &[i16]) -> u32 {
    let loud = |frame: &&[i16]| {
        let sum: i64 = frame.iter().map(|sample| i64::from(sample.unsigned_abs())).sum();
        sum / frame.len().max(1) as i64 >= VOICE
    };
    pcm.chunks(20 * PER_MS).filter(loud).count() as u32 * 20
}

async fn answer(
    api: &Api,
    session: SessionId,
    turn: u32,
    pcm: Vec<i16>,
    started: Instant,
) -> Result<Spoken, Problem> {
    let house = &api.running.house;
    let call = SEQUENCES + session.get().unsigned_abs();
    let at_ms = clock::unix_ms();
    let (history, context) = api
        .store(move |store| Ok((store.last_turns(session, LOOK_BACK)?, store.context(session)?)))
        .await?;
    let context: String = context
        .map(|sealed| sealed.context.content.chars().take(CONTEXT_CHARS).collect())
        .unwrap_or_default();
    let mut conversation = History::new(PROMPT_CHARS - context.chars().count());
    for turn in &history {
        conversation.push_caller(guardrail::recorded_for_the_model(&house.rules, &turn.caller_text));
        conversation.push_reply(turn.heard_text.as_deref().unwrap_or(&turn.reply_text));
    }
    let (audio_ms, voiced_ms) = ((pcm.len() / PER_MS) as u32, voiced_ms(&pcm));
    let mut pcm = pcm;
    pcm.resize(pcm.len().max(SHORTEST), 0);
    let request = TranscribeRequest {
        call,
        turn,
        deadline: STT_DEADLINE,
        language: Some(house.config.language().to_owned()),
        hint: String::new(),
        pcm,
        priority: Priority::Live,
    };
    // Where nobody can have spoken no engine is asked.
    let transcript = match voiced_ms {
        0 => None,
        _ => Some(house.engines.transcribe(request).await?),
    };
    let stt_ms = started.elapsed().as_millis() as u32;
    let moment = Moment {
        audio_ms,
        voiced_ms,
        last_reply: conversation.last_reply().map(str::to_owned),
        into_reply: false,
        ask_model: false,
    };
    let judged = transcript.map_or_else(
        || Judged::wordless(Hearing::Nothing),
        |transcript| judge::judge(&transcript, &moment),
    );
    let heard_as = match judged.hearing {
        Hearing::Farewell => HeardAs::Farewell,
        Hearing::Unclear => HeardAs::Unclear,
        _ if judged.text.is_empty() => HeardAs::Nothing,
        _ => HeardAs::Speech,
    };
    let mut spoken = Spoken {
        heard_as,
        turn: None,
        caller_text: judged.text.clone(),
        reply_text: String::new(),
        notice: None,
        audio: None,
        stt_ms,
        total_ms: 0,
        remaining_s: None,
    };
    let mut out = Vec::new();
    match heard_as {
        HeardAs::Nothing => {}
        HeardAs::Unclear => {
            if let Some((text, pcm)) = house.phrases.get(Phrase::Unclear) {
                spoken.reply_text = text;
                out.extend_from_slice(&pcm);
            }
        }
        HeardAs::Speech | HeardAs::Farewell => {
            let mut messages = Vec::new();
            if !context.trim().is_empty() {
                messages.push(ChatMessage {
                    role: Role::System,
                    content: context,
                });
            }
            messages.extend(
                conversation
                    .messages_with(&judged.text)
                    .into_iter()
                    .map(chat_message),
            );
            // To a goodbye the answer is known.
            let goodbye = (heard_as == HeardAs::Farewell)
                .then(|| house.phrases.get(Phrase::Goodbye))
                .flatten();
            let reply = match goodbye {
                Some((text, pcm)) => Reply {
                    text,
                    pcm: pcm.to_vec(),
                    ..Reply::default()
                },
                None => match house.rules.input(&judged.text) {
                    Some(hit) => declined(api, call, turn, hit).await?,
                    None => reply_to(api, call, turn, messages).await?,
                },
            };
            let latencies = TurnLatencies {
                utterance_ms: Some(audio_ms),
                stt_ms: Some(stt_ms),
                llm_first_token_ms: reply.first.map(|times| times.first_token_ms),
                llm_first_clause_ms: reply.first.map(|times| times.written_ms),
                tts_first_ms: reply.first.map(|times| times.tts_ms),
                response_ms: Some(started.elapsed().as_millis() as u32),
                reply_ms: Some((reply.pcm.len() / PER_MS) as u32),
                ..TurnLatencies::default()
            };
            let taken = NewTurn {
                at_ms,
                caller_text: judged.text,
                reply_text: reply.text.clone(),
                prompt_sha256: Some(house.prompt_sha256.to_string()),
                latencies,
                ..NewTurn::default()
            };
            let (prompt, held) = (house.prompt.clone(), reply.held);
            for hit in &held {
                let (stage, category) = (hit.stage.name(), hit.category.name());
                house.metrics.guardrail(stage, category, "replaced");
            }
            let number = api.store(move |store| {
                let number = store.append_turn(session, &taken)?;
                for one in &held {
                    prompt.note(store, session, Some(number), &guardrail::replaced(one));
                }
                store.heartbeat(session, clock::unix_ms())?;
                Ok(number)
            });
            spoken.turn = Some(number.await?.get());
            spoken.reply_text = reply.text;
            out = reply.pcm;
        }
    }
    if let Some((text, pcm)) = api
        .shared
        .timeboxes
        .take_warning(session)
        .and_then(|warning| house.phrases.get(warning))
    {
        if !out.is_empty() {
            out.extend(std::iter::repeat_n(0, PAUSE));
        }
        out.extend_from_slice(&pcm);
        spoken.notice = Some(text);
    }
    if !out.is_empty() {
        let file = wav::to_bytes(attendant_media::SAMPLE_RATE_HZ, &out);
        spoken.audio = Some(BASE64.encode(file));
    }
    spoken.remaining_s = api.shared.timeboxes.remaining_s(session);
    spoken.total_ms = started.elapsed().as_millis() as u32;
    Ok(spoken)
}

#[derive(Default)]
struct Reply {
    text: String,
    /// 16 kHz mono.
    pcm: Vec<i16>,
    first: Option<reply::ClauseTimes>,
    /// Guardrails that held.
    held: Vec<Hit>,
}

/// The sentence of the house in place of what the model is not to answer.
async fn declined(api: &Api, call: u64, turn: u32, hit: Hit) -> Result<Reply, Problem> {
    let house = &api.running.house;
    let text = house.rules.sentence(hit.category).to_owned();
    let known = house.phrases.get_text(&text).map(|(_, pcm)| pcm);
    let (events, told) = mpsc::channel(8);
    let saying = reply::canned(house.engines.clone(), call, AttemptId(turn), text, known, events);
    let mut reply = gathered(saying, told).await?;
    reply.held.push(hit);
    Ok(reply)
}

/// The reply pipeline of a call, gathered.
async fn reply_to(api: &Api, call: u64, turn: u32, messages: Vec<ChatMessage>) -> Result<Reply, Problem> {
    let house = &api.running.house;
    let _sequence = Sequence(api, call);
    let (events, told) = mpsc::channel(8);
    let task = reply::Task {
        id: AttemptId(turn),
        call,
        turn,
        messages,
        speculative: false,
        score_ending: false,
        retry: false,
        persona: house.config.business.clone(),
        rules: house.rules.clone(),
        phrases: house.phrases.clone(),
    };
    gathered(reply::run(house.engines.clone(), task, events), told).await
}

async fn gathered(
    pipeline: impl Future<Output = ()> + Send + 'static,
    mut told: mpsc::Receiver<Event>,
) -> Result<Reply, Problem> {
    let pipeline = tokio::spawn(pipeline);
    let mut reply = Reply::default();
    let outcome = loop {
        match told.recv().await {
            Some(Event::Clause { text, pcm, times, .. }) => {
                if !reply.text.is_empty() {
                    reply.text.push(' ');
                }
                reply.text.push_str(text.trim());
                reply.pcm.extend_from_slice(&pcm);
                reply.first.get_or_insert(times);
            }
            Some(Event::Held { hit, .. }) => reply.held.push(hit),
            Some(Event::ReplyDone { .. }) => break Ok(()),
            Some(Event::ReplyFailed { error, .. }) => break Err(error.into()),
            Some(Event::Transcript { .. } | Event::Partial { .. } | Event::Ending { .. }) => {}
            None => break Err(Problem::internal()),
        }
    };
    pipeline.abort();
    outcome?;
    if reply.text.is_empty() {
        return Err(Problem::unavailable(
            "no-answer",
            "the language model found no answer; try again",
            1,
        ));
    }
    Ok(reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sound_of_a_bearable_length_is_taken() {
        let tone: Vec<i16> = (0..8_000)
            .map(|n| if n % 40 < 20 { 8_000 } else { -8_000 })
            .collect();
        let good = wav::to_bytes(8_000, &tone);
        let pcm = samples(&good, 28_000).expect("a second");
        assert_eq!(pcm.len(), 16_000);
        assert!(voiced_ms(&pcm) >= 960, "{}", voiced_ms(&pcm));
        assert_eq!(voiced_ms(&[0; 16_000]), 0);
        for (case, bad) in [
            ("no WAV", b"hello".to_vec()),
            ("no sound", wav::to_bytes(8_000, &[])),
            ("a rate that swells", wav::to_bytes(1_000, &tone)),
            ("too long", wav::to_bytes(8_000, &vec![0; 8_000 * 29])),
        ] {
            let problem = samples(&bad, 28_000).expect_err(case);
            assert_eq!(problem.status, 422, "{case}");
        }
    }

    #[test]
    fn one_speaks_at_a_time() {
        let talking = Talking::default();
        let session = SessionId::new(3);
        let first = talking.begin(session).expect("free");
        assert!(talking.begin(session).is_none());
        assert!(talking.begin(SessionId::new(4)).is_some());
        drop(first);
        assert!(talking.begin(session).is_some());
    }
}
