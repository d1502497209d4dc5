//! A call: one actor from answer to clear.
//!
//! ```text
//!                 ┌──────────────── Call (one task) ─────────────────┐
//!  rt-audio ring ─┤ ears ─> TurnMachine ─> actions ─> engines' tasks ├─> events ─┐
//!  SIP dialog   ──┤            ^                                     │           │
//!                 │            └──────────────── <───────────────────┼───────────┘
//!  rt-audio ring <┤ mouth <─ clips (phrases, clauses)                │
//!                 │ recorder ─> store (in order, off this task)      │
//!                 └──────────────────────────────────────────────────┘
//! ```
//!
//! The actor owns everything of the call; it ticks every 10 ms, so that no frame waits longer. Engines work in tasks of
//! their own, which report by a bounded channel and are cancelled by being dropped.

mod consultation;
mod ears;
mod echo;
pub mod guardrail;
mod handoff;
mod hearing;
pub mod judge;
pub mod leg;
pub mod mailbox;
mod mouth;
mod putting_through;
mod quality;
pub(crate) mod recorder;
pub mod reply;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use attendant_dialog::{History, Rules, guardrails::Hit};
use attendant_media::progress::{ExchangeDetector, Fax, FaxDetector};
use attendant_models::client::Engines;
use attendant_rt::{Leg, Rt};
use attendant_sip::{Dialler, DialogEvent, DialogHandle, Established};
use attendant_store::{EventKind, NewTurn, Outcome, SessionKey, Source, Store, TurnLatencies};
use attendant_turn::{Action, AttemptId, EndCause, FrameVoice, Phrase, ReplyProgress, TurnMachine};
use tokio::{sync::mpsc, task::JoinHandle, time::MissedTickBehavior};

use crate::{
    config::Config,
    menu,
    metrics::Metrics,
    phrases::PhraseBook,
    switchboard::{Listed, Request, Switchboard},
};
use ears::Ears;
use echo::EchoCanceller;
pub use guardrail::left_out;
use handoff::{Handoff, Report};
pub(crate) use hearing::chat_message;
use mouth::{Clip, Mouth};
pub use recorder::PromptInForce;
use recorder::Recorder;
use reply::{ClauseTimes, Event};

/// How often the actor looks at its rings.
const TICK: Duration = Duration::from_millis(10);
/// Engine events that may wait for the actor.
const EVENTS: usize = 64;
/// No RTP for this long outside hold: the other end is gone [ms].
const MEDIA_TIMEOUT_MS: u64 = 30_000;
/// Room for the conversation in a prompt [characters]: about 700 tokens, which a sequence holds beside the prefix.
const HISTORY_CHARS: usize = 2_800;
/// What the machine is told of frames that are not the caller's to speak in.
const NO_VOICE: FrameVoice = FrameVoice {
    speech_prob: 0.0,
    level_dbov: -127.0,
};
/// Gain of a ducked reply [‰]: about −10 dB.
const DUCKED: u32 = 300;

/// What all calls share.
#[derive(Clone)]
pub struct House {
    /// Configuration.
    pub config: Arc<Config>,
    /// Engines.
    pub engines: Engines,
    /// Record.
    pub store: Store,
    /// Stock phrases.
    pub phrases: Arc<PhraseBook>,
    /// SHA-256 of the system prompt in force.
    pub prompt_sha256: Arc<str>,
    /// That prompt, for the record of what guardrails held under it.
    pub prompt: PromptInForce,
    /// What does not reach the model, and what of its words is not spoken.
    pub rules: Arc<Rules>,
    /// Figures for monitoring.
    pub metrics: Arc<Metrics>,
    /// Calls in progress.
    pub active: Arc<AtomicUsize>,
    /// Times the voice ran out in mid-clause, over all calls that have ended.
    pub underruns: Arc<AtomicU64>,
    /// Places calls, to consult those who take over.
    pub dialler: Dialler,
    /// Audio of those calls.
    pub rt: Arc<Rt>,
    /// Calls in progress, for whoever asks them for something.
    pub switchboard: Switchboard,
}

/// One try at a turn, as the call sees it.
#[derive(Debug, Default)]
struct Attempt {
    text: String,
    /// The text is these keys.
    keys: Option<String>,
    /// What follows when the reply has been heard to its end.
    then: Option<Then>,
    /// Guardrails that held, and what was done.
    held: Vec<(Hit, guardrail::Done)>,
    /// What the words alone say about whether they are all; where the language model may know better.
    verdict: Option<attendant_dialog::Completeness>,
    committed: bool,
    /// Clauses made before the commit.
    buffered: Vec<Clip>,
    reply: String,
    /// Transcribes, or writes and speaks the reply.
    task: Option<Aborting>,
    thought: bool,
    /// End of the caller's speech, as far as this attempt saw it.
    asked_at: Option<Instant>,
    silence_ms: u32,
    utterance_ms: u32,
    committed_at: Option<Instant>,
    first_audio_at: Option<Instant>,
    stt_ms: Option<u32>,
    llm_total_ms: Option<u32>,
    first: Option<ClauseTimes>,
}

/// What follows a reply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// The caller is put through to this target.
    Transfer(usize),
    HangUp,
}

impl Attempt {
    /// End of the caller's speech.
    fn speech_end(&self) -> Option<Instant> {
        self.asked_at
            .map(|at| at - Duration::from_millis(u64::from(self.silence_ms)))
    }
}

/// A task that ends when nobody wants its result any more.
#[derive(Debug)]
struct Aborting(JoinHandle<()>);

impl Drop for Aborting {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Counts a call as active as long as it lives.
pub struct Active(Arc<AtomicUsize>);

impl House {
    /// A line for one more call, if one is free.
    #[must_use]
    pub fn admit(&self) -> Option<Active> {
        let most = self.config.max_calls();
        let more = |active: usize| (active < most).then_some(active + 1);
        self.active
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, more)
            .ok()?;
        Some(Active(self.active.clone()))
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One call in progress.
pub struct Call {
    /// Number of the call within this run of the daemon; names its sequence in the engines.
    id: u64,
    house: House,
    machine: TurnMachine,
    leg: Leg,
    canceller: EchoCanceller,
    ears: Ears,
    mouth: Mouth,
    attempts: HashMap<AttemptId, Attempt>,
    history: History,
    events: mpsc::Receiver<Event>,
    events_in: mpsc::Sender<Event>,
    recorder: Recorder,
    answered: Instant,
    /// The language model reads the history.
    reading: Option<Aborting>,
    /// The utterance so far is being transcribed.
    partial: Option<Aborting>,
    /// Where the latest partial transcript ended [frame].
    partial_to: u64,
    held: bool,
    /// Since when sound is expected: not while we are on hold, or the caller is being put through.
    listening_since: Instant,
    fax: FaxDetector,
    exchange: ExchangeDetector,
    /// The caller's dialog.
    dialog: Option<DialogHandle>,
    /// The caller is being put through.
    handoff: Option<Handoff>,
    requests: mpsc::Receiver<Request>,
    _listed: Listed,
    outcome: Option<(Outcome, &'static str)>,
    _active: Active,
}

impl Call {
    /// A call just answered on `leg`, recorded as `session`.
    #[must_use]
    pub fn new(id: u64, house: House, line: Active, leg: Leg, session: SessionKey) -> Self {
        let (events_in, events) = mpsc::channel(EVENTS);
        let (listed, requests) = house.switchboard.list(id);
        let mut machine = TurnMachine::new(house.config.turn.clone(), Instant::now());
        if house.config.debug.traces.is_some() {
            machine.keep_trace();
        }
        Self {
            id,
            machine,
            leg,
            canceller: EchoCanceller::new(house.config.audio.echo_cancelling),
            ears: Ears::default(),
            mouth: Mouth::default(),
            attempts: HashMap::new(),
            history: History::new(HISTORY_CHARS),
            events,
            events_in,
            recorder: Recorder::new(
                house.store.clone(),
                session,
                &house.config.recording,
                house.prompt.clone(),
            ),
            answered: Instant::now(),
            reading: None,
            partial: None,
            partial_to: 0,
            held: false,
            listening_since: Instant::now(),
            fax: FaxDetector::default(),
            exchange: ExchangeDetector::default(),
            dialog: None,
            handoff: None,
            requests,
            _listed: listed,
            outcome: None,
            _active: line,
            house,
        }
    }

    /// Runs the call to its end; `drain` asks it to end politely.
    pub async fn run(mut self, mut dialog: Established, mut drain: tokio::sync::watch::Receiver<bool>) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
        self.dialog = Some(dialog.handle.clone());
        // The greeting.
        self.act();
        while self.outcome.is_none() {
            tokio::select! {
                _ = tick.tick() => self.on_tick(),
                Some(event) = self.events.recv() => self.on_engine(event),
                event = dialog.events.recv() => self.on_dialog(event),
                report = handoff::next_report(&mut self.handoff) => self.on_report(report),
                Some(request) = self.requests.recv() => self.on_request(request),
                Ok(()) = drain.changed() => {
                    if *drain.borrow() {
                        self.outcome = Some((Outcome::Terminated, "the appliance is shutting down"));
                    }
                }
            }
            self.act();
        }
        // One that was not accepted is taken back.
        self.handoff = None;
        let (outcome, reason) = self.outcome.unwrap_or((Outcome::Completed, "ended"));
        if let Err(error) = dialog.handle.bye().await {
            tracing::debug!(call = self.id, %error, "the other end had cleared already");
        }
        self.house.engines.release(self.id);
        self.close_open_turn();
        let stats = self.leg.control.stats();
        self.house.underruns.fetch_add(stats.underruns, Ordering::Relaxed);
        self.house.metrics.call(outcome, self.answered.elapsed(), &stats);
        let agreed = dialog.media.stream;
        let quality = quality::describe(&stats, agreed.codec, agreed.srtp.is_some());
        self.recorder.event(EventKind::LineQuality, Some(&quality));
        self.keep_trace().await;
        self.recorder.finish(outcome, reason).await;
        tracing::info!(
            call = self.id,
            outcome = ?outcome,
            reason,
            turns = self.machine.turns(),
            rx_packets = stats.rx_packets,
            rx_lost = stats.rx_lost,
            underruns = stats.underruns,
            "call ended"
        );
    }

    /// Writes the trace of the turn-taking, where that is wanted.
    async fn keep_trace(&mut self) {
        let Some(dir) = self.house.config.debug.traces.clone() else {
            return;
        };
        let (steps, config) = (self.machine.take_trace(), self.house.config.turn.clone());
        let name = format!("{}-{}", crate::clock::unix_ms(), self.id);
        let written = tokio::task::spawn_blocking(move || crate::replay::write(&dir, &name, &config, &steps));
        if let Ok(Err(error)) = written.await {
            tracing::warn!(call = self.id, %error, "the trace of the call could not be written");
        }
    }

    fn on_tick(&mut self) {
        let now = Instant::now();
        // Who is being put through waits: music on hold is no speech, and silence no absence. Nor is the music that
        // a caller who puts us on hold lets us hear.
        let waits = self.handoff.is_some();
        while let Ok(rx) = self.leg.rx.pop() {
            self.recorder.frame(&rx);
            let (frame, voice) = self.canceller.hear(&rx);
            self.ears.push(&frame);
            let deaf = waits || self.held;
            self.machine
                .handle_frame(if deaf { NO_VOICE } else { voice }, now);
            if self.fax.push(&frame) == Some(Fax::Calling) {
                self.on_fax();
            }
            // As the line brings it: what the canceller leaves of a tone beside our voice has no rhythm.
            if !self.held
                && let Some(tone) = self.exchange.push(&rx.frame)
            {
                self.on_tone(tone);
            }
            if let Some(digit) = rx.digit {
                self.on_digit(digit);
            }
            // Before the next frame: a stop or a transcription belongs to this one.
            self.act();
        }
        self.hear_ahead();
        let played = self.leg.control.played();
        self.mouth.pump(&mut self.leg.tx, played);
        self.note_first_audio(now);
        self.machine
            .handle_playout(waits || self.mouth.playing(played), now);
        self.tell_ringing(now);
        self.machine.handle_timeout(now);
        if self.held || waits {
            self.listening_since = now;
        }
        let age = self.leg.control.stats().last_rx_age_ms;
        let listened = now.saturating_duration_since(self.listening_since);
        if age > MEDIA_TIMEOUT_MS && listened > Duration::from_millis(MEDIA_TIMEOUT_MS) {
            self.outcome = Some((Outcome::Terminated, "no audio from the other end for 30 s"));
        }
    }

    fn note_first_audio(&mut self, now: Instant) {
        let played = self.leg.control.played();
        for (id, attempt) in &mut self.attempts {
            if attempt.committed && attempt.first_audio_at.is_none() && self.mouth.has_begun(*id, played) {
                attempt.first_audio_at = Some(now);
            }
        }
    }

    fn on_dialog(&mut self, event: Option<DialogEvent>) {
        match event {
            Some(DialogEvent::Media(media)) => {
                if let Err(error) = self.leg.control.set_remote(media.stream) {
                    tracing::warn!(call = self.id, %error, "the other end's change of media could not be followed");
                }
                self.recorder.event(EventKind::MediaChanged, None);
            }
            Some(DialogEvent::Hold(held)) => {
                self.held = held;
                self.exchange = ExchangeDetector::default();
                self.leg.control.hold(held);
                self.recorder
                    .event(if held { EventKind::Hold } else { EventKind::Resume }, None);
            }
            Some(DialogEvent::InfoDigit(digit)) => self.on_digit(digit),
            Some(DialogEvent::Flash) => self.on_flash(),
            Some(DialogEvent::Replaced) => self.recorder.event(EventKind::Replaced, None),
            // A PBX may take the caller along without a word.
            Some(DialogEvent::Bye) | None if self.handoff.is_some() => {
                if self.handoff.as_mut().is_some_and(Handoff::has_succeeded) {
                    self.on_report(Report::Answered);
                } else {
                    self.outcome = Some((Outcome::Completed, "call ended while being put through"));
                }
            }
            Some(DialogEvent::Bye) | None => self.outcome = Some((Outcome::Completed, "caller hung up")),
            Some(DialogEvent::Failed(_)) => {
                self.outcome = Some((Outcome::Terminated, "the connection to the other end was lost"));
            }
        }
    }

    fn on_engine(&mut self, event: Event) {
        let now = Instant::now();
        match event {
            Event::Transcript { id, judged, stt_ms } => {
                if let Some(attempt) = self.attempts.get_mut(&id) {
                    attempt.text = judged.text;
                    attempt.verdict = judged.verdict;
                    attempt.stt_ms = Some(stt_ms);
                }
                self.machine.handle_transcript(id, judged.hearing, now);
            }
            Event::Partial { text } => self.read_partial(&text),
            Event::Ending { id, probability } => {
                let verdict = self.attempts.get(&id).and_then(|attempt| attempt.verdict);
                if let Some(verdict) = verdict {
                    let opinion = attendant_dialog::second_opinion(verdict, probability);
                    tracing::debug!(
                        call = self.id,
                        probability,
                        ?verdict,
                        ?opinion,
                        "does it sound finished"
                    );
                    self.machine
                        .handle_completeness(id, judge::for_the_turn(opinion), now);
                }
            }
            Event::Clause { id, text, pcm, times } => {
                let Some(attempt) = self.attempts.get_mut(&id) else {
                    return;
                };
                attempt.first.get_or_insert(times);
                if !attempt.reply.is_empty() {
                    attempt.reply.push(' ');
                }
                attempt.reply.push_str(&text);
                let clip = Clip {
                    attempt: Some(id),
                    text,
                    pcm,
                };
                if attempt.committed {
                    self.mouth.say(clip);
                } else {
                    attempt.buffered.push(clip);
                }
                self.machine.handle_reply(id, ReplyProgress::Clause, now);
            }
            Event::Held { id, hit } => {
                if let Some(attempt) = self.attempts.get_mut(&id) {
                    attempt.held.push((hit, guardrail::Done::Replaced));
                }
            }
            Event::ReplyDone { id, stats } => {
                if let Some(attempt) = self.attempts.get_mut(&id) {
                    attempt.llm_total_ms = Some(stats.compute_ms);
                }
                self.machine.handle_reply(id, ReplyProgress::Done, now);
            }
            Event::ReplyFailed { id, error } => {
                tracing::warn!(call = self.id, %error, "a reply broke off");
                self.house.metrics.engine_error("reply", &error);
                self.recorder
                    .event(EventKind::EngineDown, Some(&error.to_string()));
                if let Some(attempt) = self.attempts.get_mut(&id) {
                    attempt.reply.clear();
                    attempt.buffered.clear();
                }
                self.machine.handle_reply(id, ReplyProgress::Failed, now);
            }
        }
    }

    /// Carries out what the turn machine decided.
    fn act(&mut self) {
        while let Some(action) = self.machine.poll_action() {
            match action {
                Action::Transcribe {
                    id,
                    from,
                    to,
                    voiced_frames,
                } => self.transcribe(id, from, to, voiced_frames),
                Action::Keyed { id, digits } => {
                    let text = menu::typed(&digits);
                    let attempt = self.attempts.entry(id).or_default();
                    attempt.text = text;
                    attempt.keys = Some(digits);
                    attempt.asked_at = Some(Instant::now());
                }
                Action::Think { id, speculative } => self.think(id, speculative),
                Action::Commit { id } => self.commit(id),
                Action::Drop { id } => self.drop_attempt(id),
                Action::Say(phrase) => self.say(phrase),
                Action::Pause => self.pause(),
                Action::Resume => self.resume(),
                Action::Duck => self.leg.control.set_gain(DUCKED),
                Action::Unduck => self.leg.control.set_gain(1000),
                Action::Stop { id } => self.stop(id),
                Action::TurnDone { id } => {
                    let then = self.attempts.get(&id).and_then(|attempt| attempt.then);
                    self.end_turn(id, None);
                    match then {
                        Some(Then::Transfer(index)) => self.begin_handoff(index),
                        Some(Then::HangUp) => {
                            self.outcome = Some((Outcome::Completed, "ended by key"));
                        }
                        None => {}
                    }
                }
                Action::HangUp(cause) => self.outcome = Some(outcome(cause)),
            }
        }
    }

    fn commit(&mut self, id: AttemptId) {
        let Some(attempt) = self.attempts.get_mut(&id) else {
            return;
        };
        attempt.committed = true;
        attempt.committed_at = Some(Instant::now());
        for clip in std::mem::take(&mut attempt.buffered) {
            self.mouth.say(clip);
        }
    }

    fn say(&mut self, phrase: Phrase) {
        let Some((text, pcm)) = self.house.phrases.get(phrase) else {
            // The book is complete before the first call; a phrase nobody rendered must not hold the turn.
            tracing::error!(call = self.id, ?phrase, "phrase not in the book");
            self.machine.handle_playout(true, Instant::now());
            return;
        };
        if let Some(kind) = event_of(phrase) {
            self.recorder.event(kind, None);
        }
        self.mouth.say(Clip {
            attempt: None,
            text,
            pcm,
        });
    }

    fn pause(&mut self) {
        let played = self.leg.control.played();
        let epoch = self.mouth.pause(played);
        self.leg.control.flush(epoch);
    }

    fn resume(&mut self) {
        self.mouth.resume();
        if !self.mouth.playing(self.leg.control.played()) {
            // Paused at its very end: the machine must see it end.
            self.machine.handle_playout(true, Instant::now());
        }
    }

    fn stop(&mut self, id: Option<AttemptId>) {
        let played = self.leg.control.played();
        let heard = id.map(|id| self.mouth.heard(id, played));
        let epoch = self.mouth.stop(played);
        self.leg.control.flush(epoch);
        self.recorder.event(EventKind::BargeIn, None);
        if let Some(id) = id {
            self.end_turn(id, Some(heard.unwrap_or_default()));
        }
    }

    /// Writes the turn down; `heard` is what was heard of an interrupted reply.
    fn end_turn(&mut self, id: AttemptId, heard: Option<String>) {
        let Some(mut attempt) = self.attempts.remove(&id) else {
            return;
        };
        attempt.task = None;
        self.mouth.forget(id);
        let interrupted = heard.is_some();
        let said = heard.clone().unwrap_or_else(|| attempt.reply.clone());
        self.history.push_caller(guardrail::for_the_model(&attempt));
        self.history.push_reply(&said);
        self.prefill_history();
        let speech_end = attempt.speech_end();
        let since_end = |at: Option<Instant>| {
            let waited = at?.saturating_duration_since(speech_end?);
            Some(waited.as_millis() as u32)
        };
        let latencies = TurnLatencies {
            utterance_ms: Some(attempt.utterance_ms),
            endpoint_ms: since_end(attempt.committed_at),
            stt_ms: attempt.stt_ms,
            llm_first_token_ms: attempt.first.map(|t| t.first_token_ms),
            llm_first_clause_ms: attempt.first.map(|t| t.written_ms),
            llm_total_ms: attempt.llm_total_ms,
            tts_first_ms: attempt.first.map(|t| t.tts_ms),
            response_ms: since_end(attempt.first_audio_at),
            ..TurnLatencies::default()
        };
        self.house.metrics.turn(&latencies, interrupted);
        let held = self.held_in(&attempt);
        let turn = NewTurn {
            at_ms: crate::clock::unix_ms_at(speech_end),
            caller_text: attempt.text.clone(),
            reply_text: attempt.reply.clone(),
            heard_text: heard,
            source: Some(Source::Realtime),
            interrupted,
            prompt_sha256: Some(self.house.prompt_sha256.to_string()),
            latencies,
        };
        self.recorder.turn(turn, held);
    }

    /// The call ends while a reply is being spoken or prepared: what was said and heard of it is kept.
    fn close_open_turn(&mut self) {
        let played = self.leg.control.played();
        let open: Vec<AttemptId> = self
            .attempts
            .iter()
            .filter(|(_, a)| a.committed && !a.text.is_empty())
            .map(|(id, _)| *id)
            .collect();
        for id in open {
            let heard = self.mouth.heard(id, played);
            self.end_turn(id, Some(heard));
        }
    }
}

/// Phrases that tell something about the session.
fn event_of(phrase: Phrase) -> Option<EventKind> {
    match phrase {
        Phrase::Apology | Phrase::CannotAnswer | Phrase::Trouble => Some(EventKind::Apology),
        Phrase::Unclear => Some(EventKind::Unclear),
        Phrase::StillThere => Some(EventKind::StillThere),
        Phrase::TimeboxWarning { .. } => Some(EventKind::TimeboxWarning),
        Phrase::Greeting
        | Phrase::OneMoment
        | Phrase::Goodbye
        | Phrase::GoodbyeSilence
        | Phrase::MaxTurns
        | Phrase::TimeboxEnd => None,
    }
}

fn outcome(cause: EndCause) -> (Outcome, &'static str) {
    match cause {
        EndCause::Farewell => (Outcome::Completed, "goodbye"),
        EndCause::Silence => (Outcome::Completed, "nobody answered"),
        EndCause::MaxTurns => (Outcome::Completed, "maximum number of turns"),
        EndCause::Timebox => (Outcome::Completed, "longest call reached"),
        EndCause::Trouble => (Outcome::Failed, "too many turns failed"),
    }
}
