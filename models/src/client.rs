//! Engines as the calls see them: ask for a transcript, a reply, a spoken clause; get it or a typed refusal.
//!
//! ```text
//! transcribe, speak ──> permit (wait for cores) ──> worker ──> reply
//! generate, prefill ──────────────────────────────> worker ──> tokens
//!                          shell: carries the permit's plan out: freeze, thaw, threads, start
//! ```
//!
//! Dropping a future or a [`Generation`] sends `Cancel`; the permit is given back when the worker is really done.
//! A pause is the kernel's (`SIGSTOP` to the worker): it takes effect in the middle of a chunk, within a millisecond,
//! where the worker's own pause waits for the token or chunk under way.

mod desk;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout_at};

pub use crate::permit::Priority;
pub use crate::protocol::{ChatMessage, Role, Stats};
pub use crate::supervise::{Engine, EngineError, EngineState, EngineStatus, Statuses, WorkerSpec};

use crate::permit::{Task, TaskId};
use crate::protocol::{MAX_PAYLOAD, Request, Response, bytes_to_pcm, pcm_to_bytes};
use crate::supervise::link::{Guard, Pending};
use crate::supervise::{self, Worker};
use desk::{Desk, LlmGuard};

/// The worker keeps its own deadline; ours comes this much later, for a worker that doesn't.
const GRACE: Duration = Duration::from_millis(250);
/// Most tokens of one generation: a spoken reply is far shorter.
pub const MAX_TOKENS: u32 = 1024;
/// Replies of one request that may wait unread: every token of the longest generation.
const TOKEN_REPLIES: usize = MAX_TOKENS as usize + 8;
/// Replies of one request to STT or TTS that may wait unread.
const REPLIES: usize = 128;
/// Deadline of a prefix or prefill, which nobody waits for in silence.
const PREFILL_BOUND: Duration = Duration::from_secs(120);

/// How to run the engines.
#[derive(Debug, Clone)]
pub struct EngineConfig {
    /// Speech to text.
    pub stt: WorkerSpec,
    /// Language model.
    pub llm: WorkerSpec,
    /// Text to speech.
    pub tts: WorkerSpec,
    /// Cores to hand out, at least 1.
    pub cores: u32,
}

/// An utterance to transcribe.
#[derive(Debug, Clone)]
pub struct TranscribeRequest {
    /// For taking turns and logs.
    pub call: u64,
    /// For logs.
    pub turn: u32,
    /// Give up this long after now, waiting included.
    pub deadline: Duration,
    /// ISO 639-1; `None` lets a multilingual model detect it.
    pub language: Option<String>,
    /// Vocabulary hint; may be empty.
    pub hint: String,
    /// 16 kHz mono.
    pub pcm: Vec<i16>,
    /// How urgent.
    pub priority: Priority,
}

/// What was said.
#[derive(Debug, Clone, PartialEq)]
pub struct Transcript {
    /// Empty when nothing was.
    pub text: String,
    /// Mean log-probability of the tokens, ≤ 0.
    pub avg_logprob: f32,
    /// 0…1.
    pub no_speech_prob: f32,
    /// Passes over the audio.
    pub passes: u32,
    /// Audio context of the accepted pass.
    pub audio_ctx: u32,
    /// What it took.
    pub stats: Stats,
    /// Waited for cores [ms].
    pub waited_ms: u32,
}

/// A reply to generate.
#[derive(Debug, Clone)]
pub struct GenerateRequest {
    /// Names the sequence; kept until [`Engines::release`].
    pub call: u64,
    /// For logs.
    pub turn: u32,
    /// Give up this long after now.
    pub deadline: Duration,
    /// The whole history after the shared prefix.
    pub messages: Vec<ChatMessage>,
    /// At most [`MAX_TOKENS`].
    pub max_tokens: u32,
    /// 0 = greedy.
    pub temperature: f32,
    /// Random seed when temperature > 0.
    pub seed: u32,
    /// Ends before any of these.
    pub stop: Vec<String>,
    /// GBNF grammar, if constrained.
    pub grammar: Option<String>,
    /// Whether the caller's last message sounds finished is wanted, too.
    pub score_ending: bool,
    /// How urgent.
    pub priority: Priority,
}

/// Progress of a [`Generation`].
#[derive(Debug, Clone, PartialEq)]
pub enum LlmEvent {
    /// How likely the caller's last message is finished, 0…1; before the first token, where asked for.
    Ending(f32),
    /// Text piece, never empty.
    Token(String),
    /// The end.
    Done(Stats),
}

/// A clause to speak.
#[derive(Debug, Clone)]
pub struct SpeakRequest {
    /// For taking turns and logs.
    pub call: u64,
    /// For logs.
    pub turn: u32,
    /// Give up this long after now, waiting included.
    pub deadline: Duration,
    /// Spoken form.
    pub text: String,
    /// 1.0 is the voice's own rate.
    pub speed: f32,
    /// How urgent: `Live` while the caller hears nothing, `Background` while earlier clauses play.
    pub priority: Priority,
}

/// A spoken clause.
#[derive(Debug, Clone, PartialEq)]
pub struct Speech {
    /// 16 kHz mono.
    pub pcm: Vec<i16>,
    /// What it took.
    pub stats: Stats,
    /// Waited for cores [ms].
    pub waited_ms: u32,
}

/// The three engines, supervised. Clones share them; when the last one is dropped, the workers end.
#[derive(Clone)]
pub struct Engines {
    inner: Arc<Inner>,
}

struct Inner {
    workers: [Arc<Worker>; 3],
    desk: Arc<Desk>,
    statuses: watch::Sender<Statuses>,
    stop: watch::Sender<bool>,
}

impl Engines {
    /// Starts the workers; returns before they are ready. Must run inside a tokio runtime.
    ///
    /// # Errors
    /// `Start` when a worker's program does not exist or the system has no thread left.
    pub fn start(config: EngineConfig) -> Result<Self, EngineError> {
        let EngineConfig { stt, llm, tts, cores } = config;
        for (engine, spec) in [(Engine::Stt, &stt), (Engine::Llm, &llm), (Engine::Tts, &tts)] {
            exists(&spec.program).map_err(|source| EngineError::Start { engine, source })?;
        }
        let statuses = supervise::initial_statuses();
        let changed = Arc::new(Notify::new());
        let desk = Arc::new(Desk::new(cores, Arc::clone(&changed)));
        let (stop, stopped) = watch::channel(false);
        let loading = {
            let desk = Arc::clone(&desk);
            Box::new(move || -> Guard { Box::new(LlmGuard::new(&desk, Priority::Background)) })
        };
        let spawn = |engine, spec, loading| {
            supervise::spawn(
                engine,
                spec,
                statuses.clone(),
                Arc::clone(&changed),
                loading,
                stopped.clone(),
            )
        };
        let workers = [
            spawn(Engine::Stt, stt, None)?,
            spawn(Engine::Llm, llm, Some(loading))?,
            spawn(Engine::Tts, tts, None)?,
        ];
        tokio::spawn(desk::run(Arc::clone(&desk), workers.clone(), stopped));
        Ok(Self {
            inner: Arc::new(Inner {
                workers,
                desk,
                statuses,
                stop,
            }),
        })
    }

    /// Waits until all engines take requests.
    ///
    /// # Errors
    /// `Down` of the first that does not within `timeout`.
    pub async fn ready(&self, timeout: Duration) -> Result<(), EngineError> {
        let until = Instant::now() + timeout;
        for engine in Engine::ALL {
            self.ready_one(engine, until.saturating_duration_since(Instant::now()))
                .await?;
        }
        Ok(())
    }

    /// Waits until this engine takes requests: for a retry after `Down`.
    ///
    /// # Errors
    /// `Down` when it does not within `timeout`.
    pub async fn ready_one(&self, engine: Engine, timeout: Duration) -> Result<(), EngineError> {
        let mut statuses = self.inner.statuses.subscribe();
        let ready = statuses.wait_for(|s| s[engine.index()].state == EngineState::Ready);
        match tokio::time::timeout(timeout, ready).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(_)) | Err(_) => self.worker(engine).link().map(drop),
        }
    }

    /// Where the engines stand, by [`Engine::index`].
    #[must_use]
    pub fn status(&self) -> Statuses {
        self.inner.statuses.borrow().clone()
    }

    /// Follows [`Self::status`].
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Statuses> {
        self.inner.statuses.subscribe()
    }

    /// Ends the workers and waits until they have ended.
    pub async fn shutdown(&self) {
        let _ = self.inner.stop.send(true);
        let mut statuses = self.inner.statuses.subscribe();
        let stopped = statuses.wait_for(|all| all.iter().all(|s| s.state == EngineState::Stopped));
        drop(tokio::time::timeout(Duration::from_secs(5), stopped).await);
    }

    /// Transcribes one utterance. Dropping the future cancels.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub async fn transcribe(&self, request: TranscribeRequest) -> Result<Transcript, EngineError> {
        let until = Instant::now() + request.deadline;
        let TranscribeRequest {
            call,
            turn,
            language,
            hint,
            pcm,
            priority,
            ..
        } = request;
        let payload = pcm_to_bytes(&pcm);
        let (mut pending, waited_ms) = self
            .begin_task(Engine::Stt, priority, call, until, &payload, |id, deadline_ms| {
                Request::Transcribe {
                    id,
                    call,
                    turn,
                    deadline_ms,
                    language,
                    hint,
                }
            })
            .await?;
        let mut said = None;
        loop {
            match next(&mut pending, until).await?.0 {
                Response::Transcript {
                    text,
                    avg_logprob,
                    no_speech_prob,
                    passes,
                    audio_ctx,
                    ..
                } => {
                    said = Some((text, avg_logprob, no_speech_prob, passes, audio_ctx));
                }
                Response::Done { stats, .. } => {
                    let (text, avg_logprob, no_speech_prob, passes, audio_ctx) =
                        said.ok_or_else(|| EngineError::Engine("no transcript".to_owned()))?;
                    return Ok(Transcript {
                        text,
                        avg_logprob,
                        no_speech_prob,
                        passes,
                        audio_ctx,
                        stats,
                        waited_ms,
                    });
                }
                _ => return Err(unexpected()),
            }
        }
    }

    /// Speaks one clause. Dropping the future cancels.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub async fn speak(&self, request: SpeakRequest) -> Result<Speech, EngineError> {
        let until = Instant::now() + request.deadline;
        let SpeakRequest {
            call,
            turn,
            text,
            speed,
            priority,
            ..
        } = request;
        let (mut pending, waited_ms) = self
            .begin_task(Engine::Tts, priority, call, until, &[], |id, deadline_ms| {
                Request::Speak {
                    id,
                    call,
                    turn,
                    deadline_ms,
                    text,
                    speed,
                }
            })
            .await?;
        let mut pcm = Vec::new();
        loop {
            match next(&mut pending, until).await? {
                (Response::Audio { .. }, payload) => {
                    pcm.extend(bytes_to_pcm(&payload));
                    if pcm.len() > MAX_PAYLOAD {
                        return Err(EngineError::Engine("endless audio".to_owned()));
                    }
                }
                (Response::Done { stats, .. }, _) => {
                    return Ok(Speech {
                        pcm,
                        stats,
                        waited_ms,
                    });
                }
                _ => return Err(unexpected()),
            }
        }
    }

    /// Generates a reply, streamed. Begins at once; what went wrong comes from [`Generation::next`].
    #[must_use]
    pub fn generate(&self, request: GenerateRequest) -> Generation {
        let until = Instant::now() + request.deadline;
        let GenerateRequest {
            call,
            turn,
            deadline,
            messages,
            temperature,
            seed,
            stop,
            grammar,
            score_ending,
            priority,
            ..
        } = request;
        let max_tokens = request.max_tokens.min(MAX_TOKENS);
        let begun = self.begin_llm(priority, TOKEN_REPLIES, |id| Request::Generate {
            id,
            call,
            turn,
            deadline_ms: millis(deadline),
            messages,
            max_tokens,
            temperature,
            seed,
            stop,
            grammar,
            score_ending,
        });
        Generation {
            state: Some(begun),
            until,
        }
    }

    /// Decodes `messages` into the call's sequence ahead of the reply. Begins at once, so that a reply asked for later
    /// comes later. Dropping the future cancels; what was decoded stays.
    ///
    /// # Errors
    /// See [`EngineError`].
    pub fn prefill(
        &self,
        call: u64,
        messages: Vec<ChatMessage>,
    ) -> impl Future<Output = Result<Stats, EngineError>> + Send + use<> {
        let begun = self.begin_llm(Priority::Speculative, REPLIES, |id| Request::Prefill {
            id,
            call,
            messages,
        });
        async move { done(begun?).await }
    }

    /// Makes `messages` the prefix that all calls share, now and after every restart of the LLM.
    ///
    /// # Errors
    /// `Down` when the LLM is not ready: then it takes the prefix over before it is. `Stale` when a newer prefix
    /// overtook this one. Otherwise see [`EngineError`].
    pub async fn set_prefix(&self, messages: Vec<ChatMessage>) -> Result<Stats, EngineError> {
        let worker = self.worker(Engine::Llm);
        let version = worker.remember_prefix(messages.clone());
        let pending = self.begin_llm(Priority::Speculative, REPLIES, |id| Request::SetPrefix {
            id,
            messages,
        })?;
        let outcome = done(pending).await;
        if worker.prefix_version() == version {
            outcome
        } else {
            Err(EngineError::Stale)
        }
    }

    /// Whether no engine has anything to do: the moment for work that only might be useful.
    #[must_use]
    pub fn idle(&self) -> bool {
        self.inner.desk.state().permit.is_idle()
    }

    /// Tasks that wait for cores, by [`Engine::index`].
    #[must_use]
    pub fn waiting(&self) -> [usize; 3] {
        let state = self.inner.desk.state();
        Engine::ALL.map(|engine| state.permit.waiting(engine))
    }

    /// The call has ended; its sequence is free again.
    pub fn release(&self, call: u64) {
        if let Ok(link) = self.worker(Engine::Llm).link() {
            link.release(call);
        }
    }

    fn worker(&self, engine: Engine) -> &Arc<Worker> {
        &self.inner.workers[engine.index()]
    }

    /// Waits for cores, then sends the request; yields it and how long it waited [ms].
    async fn begin_task(
        &self,
        engine: Engine,
        priority: Priority,
        call: u64,
        until: Instant,
        payload: &[u8],
        request: impl FnOnce(u64, u32) -> Request,
    ) -> Result<(Pending, u32), EngineError> {
        let worker = self.worker(engine);
        worker.link()?;
        let asked = Instant::now();
        let id = worker.next_id();
        let (guard, granted) = self.inner.desk.ask(
            worker,
            Task {
                id: task_id(engine, id),
                engine,
                priority,
                call,
            },
        )?;
        let threads = match timeout_at(until, granted).await {
            Err(_) => return Err(EngineError::Deadline),
            Ok(Err(_)) => return Err(EngineError::Busy),
            Ok(Ok(threads)) => threads,
        };
        let now = Instant::now();
        let request = request(id, millis(until.saturating_duration_since(now)));
        let pending = worker.link()?.begin(
            id,
            &request,
            payload,
            Some(threads),
            REPLIES,
            Some(Box::new(guard)),
        )?;
        Ok((pending, millis(now - asked)))
    }

    fn begin_llm(
        &self,
        priority: Priority,
        replies: usize,
        request: impl FnOnce(u64) -> Request,
    ) -> Result<Pending, EngineError> {
        let worker = self.worker(Engine::Llm);
        let link = worker.link()?;
        let id = worker.next_id();
        let guard = Box::new(LlmGuard::new(&self.inner.desk, priority));
        link.begin(id, &request(id), &[], None, replies, Some(guard))
    }
}

/// A reply under way. Dropping it cancels.
pub struct Generation {
    state: Option<Result<Pending, EngineError>>,
    until: Instant,
}

impl Generation {
    /// The next piece; `None` after `Done` or an error. Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<LlmEvent, EngineError>> {
        let event = match self.state.as_mut()? {
            Err(_) => match self.state.take() {
                Some(Err(e)) => Err(e),
                Some(Ok(_)) | None => return None,
            },
            Ok(pending) => match next(pending, self.until).await {
                Ok((Response::Token { text, .. }, _)) => Ok(LlmEvent::Token(text)),
                Ok((Response::Ending { probability, .. }, _)) => Ok(LlmEvent::Ending(probability)),
                Ok((Response::Done { stats, .. }, _)) => Ok(LlmEvent::Done(stats)),
                Ok(_) => Err(unexpected()),
                Err(e) => Err(e),
            },
        };
        if !matches!(event, Ok(LlmEvent::Token(_) | LlmEvent::Ending(_))) {
            self.state = None;
        }
        Some(event)
    }
}

async fn next(pending: &mut Pending, until: Instant) -> Result<(Response, Vec<u8>), EngineError> {
    timeout_at(until + GRACE, pending.next())
        .await
        .unwrap_or(Err(EngineError::Deadline))
}

async fn done(mut pending: Pending) -> Result<Stats, EngineError> {
    match next(&mut pending, Instant::now() + PREFILL_BOUND).await?.0 {
        Response::Done { stats, .. } => Ok(stats),
        _ => Err(unexpected()),
    }
}

fn unexpected() -> EngineError {
    EngineError::Engine("unexpected reply".to_owned())
}

fn millis(d: Duration) -> u32 {
    u32::try_from(d.as_millis()).unwrap_or(u32::MAX)
}

fn exists(program: &Path) -> std::io::Result<()> {
    std::fs::metadata(program)
        .map(drop)
        .map_err(|e| std::io::Error::new(e.kind(), format!("{}: {e}", program.display())))
}

/// Request ids are per engine; tasks of the permit are not.
fn task_id(engine: Engine, id: u64) -> TaskId {
    id * 4 + engine.index() as u64
}
