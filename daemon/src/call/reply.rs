//! The reply pipeline of one attempt: language model → clauses → spoken form → voice.
//!
//! ```text
//!  LLM tokens ──> guard, clause splitter ──> guardrails ──clauses (8)──> spoken form ──> TTS ──> Event::Clause
//!                                                └─ a hit: a sentence of the house in place of the rest
//! ```
//!
//! No clause gets to the voice unchecked, so that none can be played, whether it was written ahead of time or not.
//! The two halves run side by side: while a clause is spoken into its buffer, the next one is being written.
//! Ends in exactly one of [`Event::ReplyDone`] and [`Event::ReplyFailed`]; dropping the task cancels both engines.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use attendant_dialog::{
    ClauseSplitter, Guard, GuardLimits, OutputCheck, Persona, Rules,
    guardrails::{Category, Hit},
    spoken,
};
use attendant_models::{
    client::{EngineError, Engines, GenerateRequest, LlmEvent, Priority, SpeakRequest},
    protocol::{ChatMessage, Stats},
};
use attendant_turn::AttemptId;
use tokio::sync::mpsc;

use super::judge::Judged;
use crate::phrases::PhraseBook;

/// Longest a reply may take as a whole.
const DEADLINE: Duration = Duration::from_secs(20);
/// Longest one clause may take to be spoken.
const CLAUSE_DEADLINE: Duration = Duration::from_secs(6);
/// Longest wait for an engine that is being restarted.
const ENGINE_RETURN: Duration = Duration::from_secs(10);
/// Most tokens of one reply: about three sentences.
const MAX_TOKENS: u32 = 110;
/// Clauses written ahead of the voice.
const CLAUSES_AHEAD: usize = 8;

/// What engine tasks tell the call.
#[derive(Debug)]
pub enum Event {
    /// A transcript, judged.
    Transcript {
        /// Attempt.
        id: AttemptId,
        /// What was said.
        judged: Judged,
        /// The engine took [ms].
        stt_ms: u32,
    },
    /// What the caller has said so far, while still speaking.
    Partial {
        /// The words; possibly none.
        text: String,
    },
    /// How likely the attempt's words end a turn, 0…1.
    Ending {
        /// Attempt.
        id: AttemptId,
        /// By the language model's own expectation.
        probability: f32,
    },
    /// A clause is ready to be played.
    Clause {
        /// Attempt.
        id: AttemptId,
        /// As written.
        text: String,
        /// 16 kHz mono.
        pcm: Arc<Vec<i16>>,
        /// Times since the pipeline began [ms]: first token, first clause written, this clause spoken.
        times: ClauseTimes,
    },
    /// A guardrail held: what follows is a sentence of the house.
    Held {
        /// Attempt.
        id: AttemptId,
        /// The rule.
        hit: Hit,
    },
    /// No more clauses.
    ReplyDone {
        /// Attempt.
        id: AttemptId,
        /// What the model took.
        stats: Stats,
    },
    /// The pipeline broke.
    ReplyFailed {
        /// Attempt.
        id: AttemptId,
        /// Why; holds no caller data.
        error: EngineError,
    },
}

/// When things were ready, since the pipeline began.
#[derive(Debug, Clone, Copy, Default)]
pub struct ClauseTimes {
    /// First token [ms].
    pub first_token_ms: u32,
    /// This clause was written [ms].
    pub written_ms: u32,
    /// The voice took [ms].
    pub tts_ms: u32,
}

/// What to answer.
#[derive(Debug, Clone)]
pub struct Task {
    /// Attempt.
    pub id: AttemptId,
    /// Call, as the engines know it.
    pub call: u64,
    /// Turn, for logs.
    pub turn: u32,
    /// History and what the caller said.
    pub messages: Vec<ChatMessage>,
    /// The caller's turn may not have ended yet.
    pub speculative: bool,
    /// Whether the words sound finished is wanted.
    pub score_ending: bool,
    /// Try again after a failure: wait for the engines first.
    pub retry: bool,
    /// Whose rules and name the reply must not recite.
    pub persona: Persona,
    /// What must not be spoken.
    pub rules: Arc<Rules>,
    /// What the rules say instead, as audio.
    pub phrases: Arc<PhraseBook>,
}

/// Speaks a reply that no model writes; `known` is its audio, where there is some already.
pub async fn canned(
    engines: Engines,
    call: u64,
    id: AttemptId,
    text: String,
    known: Option<Arc<Vec<i16>>>,
    events: mpsc::Sender<Event>,
) {
    let made = match known {
        Some(pcm) => Ok(pcm),
        None => {
            let request = SpeakRequest {
                call,
                turn: 0,
                deadline: CLAUSE_DEADLINE,
                text: spoken(&text),
                speed: 1.0,
                priority: Priority::Live,
            };
            engines.speak(request).await.map(|speech| Arc::new(speech.pcm))
        }
    };
    // A call that has ended takes no events.
    let _ = match made {
        Ok(pcm) => {
            let times = ClauseTimes::default();
            let _ = events.send(Event::Clause { id, text, pcm, times }).await;
            let stats = Stats::default();
            events.send(Event::ReplyDone { id, stats }).await
        }
        Err(error) => events.send(Event::ReplyFailed { id, error }).await,
    };
}

struct Written {
    text: String,
    /// Its audio, where there is some already.
    known: Option<Arc<Vec<i16>>>,
    first_token_ms: u32,
    written_ms: u32,
}

/// The way of a clause to the voice: past the guardrails.
struct Gate<'a> {
    task: &'a Task,
    check: OutputCheck<'a>,
    clauses: mpsc::Sender<Written>,
    events: &'a mpsc::Sender<Event>,
    started: Instant,
    first_token_ms: Option<u32>,
}

/// Whether more of the reply is wanted.
#[derive(Debug, PartialEq, Eq)]
enum More {
    Wanted,
    /// It was cut off, or nobody listens.
    Unwanted,
}

impl Gate<'_> {
    fn elapsed_ms(&self) -> u32 {
        self.started.elapsed().as_millis() as u32
    }

    /// Lets clauses pass up to the first that must not be spoken; in its place goes a sentence of the house.
    async fn pass(&mut self, texts: Vec<String>) -> More {
        for text in texts {
            if let Some(hit) = self.check.clause(&text) {
                self.hold(hit).await;
                return More::Unwanted;
            }
            if self.send(text, None).await == More::Unwanted {
                return More::Unwanted;
            }
        }
        More::Wanted
    }

    /// Tells what held, and says the house's own sentence.
    async fn hold(&mut self, hit: Hit) {
        let text = self.task.rules.sentence(hit.category).to_owned();
        let known = self.task.phrases.get_text(&text).map(|(_, pcm)| pcm);
        let id = self.task.id;
        // The call has ended when nobody listens; the voice's half notices.
        drop(self.events.send(Event::Held { id, hit }).await);
        self.send(text, known).await;
    }

    async fn send(&self, text: String, known: Option<Arc<Vec<i16>>>) -> More {
        let written = Written {
            text,
            known,
            first_token_ms: self.first_token_ms.unwrap_or(0),
            written_ms: self.elapsed_ms(),
        };
        match self.clauses.send(written).await {
            Ok(()) => More::Wanted,
            // The voice failed and tells why.
            Err(_) => More::Unwanted,
        }
    }
}

/// Runs the pipeline and reports to `events`.
pub async fn run(engines: Engines, task: Task, events: mpsc::Sender<Event>) {
    let id = task.id;
    if task.retry {
        // A failure here shows in the first request; no need to tell it twice.
        let _ = engines.ready(ENGINE_RETURN).await;
    }
    let started = Instant::now();
    let (clauses, written) = mpsc::channel(CLAUSES_AHEAD);
    let result = tokio::try_join!(
        write(&engines, &task, started, clauses, &events),
        speak(&engines, &task, written, &events),
    );
    let event = match result {
        Ok((stats, ())) => Event::ReplyDone { id, stats },
        Err(error) => Event::ReplyFailed { id, error },
    };
    // The call has ended when nobody listens.
    let _ = events.send(event).await;
}

async fn write(
    engines: &Engines,
    task: &Task,
    started: Instant,
    clauses: mpsc::Sender<Written>,
    events: &mpsc::Sender<Event>,
) -> Result<Stats, EngineError> {
    let mut generation = engines.generate(GenerateRequest {
        call: task.call,
        turn: task.turn,
        deadline: DEADLINE,
        messages: task.messages.clone(),
        max_tokens: MAX_TOKENS,
        temperature: 0.0,
        seed: 1,
        stop: vec![],
        grammar: None,
        score_ending: task.score_ending,
        priority: priority(task),
    });
    let conversation = task.messages.iter().map(|message| message.content.as_str());
    let mut gate = Gate {
        task,
        check: task.rules.output(conversation),
        clauses,
        events,
        started,
        first_token_ms: None,
    };
    let mut splitter = ClauseSplitter::new();
    let mut guard = Guard::new(GuardLimits::default(), &task.persona);
    let mut stats = Stats::default();
    while let Some(event) = generation.next().await {
        let texts = match event? {
            LlmEvent::Token(piece) => {
                let now_ms = gate.elapsed_ms();
                gate.first_token_ms.get_or_insert(now_ms);
                splitter.push(&guard.push(&piece))
            }
            LlmEvent::Ending(probability) => {
                let event = Event::Ending {
                    id: task.id,
                    probability,
                };
                // The call has ended when nobody listens; the voice's half notices.
                drop(events.send(event).await);
                continue;
            }
            LlmEvent::Done(done) => {
                stats = done;
                break;
            }
        };
        if gate.pass(texts).await == More::Unwanted {
            return Ok(stats);
        }
        if guard.trigger().is_some() {
            break;
        }
    }
    // Not needed any more: its sequence is free for the next turn.
    drop(generation);
    let mut rest = splitter.push(&guard.finish());
    match guard.trigger().and_then(|trigger| task.rules.ended(trigger)) {
        // What leads up to it goes with it: half a rule tells as much.
        Some(hit) if hit.category == Category::PromptLeak => gate.hold(hit).await,
        held => {
            if let Some(hit) = held {
                let id = task.id;
                drop(events.send(Event::Held { id, hit }).await);
            }
            rest.extend(splitter.finish());
            gate.pass(rest).await;
        }
    }
    Ok(stats)
}

async fn speak(
    engines: &Engines,
    task: &Task,
    mut written: mpsc::Receiver<Written>,
    events: &mpsc::Sender<Event>,
) -> Result<(), EngineError> {
    let mut first = true;
    while let Some(clause) = written.recv().await {
        let started = Instant::now();
        let pcm = match clause.known {
            Some(pcm) => pcm,
            None => {
                let mut text = spoken(&clause.text);
                if text.trim().is_empty() {
                    continue;
                }
                // Cut without a mark: the voice must not fall as at the end of a sentence.
                if text.ends_with(char::is_alphanumeric) {
                    text.push(',');
                }
                let priority = if first {
                    priority(task)
                } else {
                    Priority::Background
                };
                let request = SpeakRequest {
                    call: task.call,
                    turn: task.turn,
                    deadline: CLAUSE_DEADLINE,
                    text,
                    speed: 1.0,
                    priority,
                };
                Arc::new(engines.speak(request).await?.pcm)
            }
        };
        first = false;
        let times = ClauseTimes {
            first_token_ms: clause.first_token_ms,
            written_ms: clause.written_ms,
            tts_ms: started.elapsed().as_millis() as u32,
        };
        let event = Event::Clause {
            id: task.id,
            text: clause.text,
            pcm,
            times,
        };
        if events.send(event).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

fn priority(task: &Task) -> Priority {
    if task.speculative {
        Priority::Speculative
    } else {
        Priority::Live
    }
}
