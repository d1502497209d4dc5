//! Recorder: writes a call's turns and events to the store, in order, off the call's task.
//!
//! A bounded channel leads to one blocking task per call. When it is full (a stalled disk), the call goes on and the loss
//! is counted and logged: a caller must not wait for a disk.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use attendant_rt::RxFrame;
use attendant_store::{
    EventKind, NewGuardrail, NewTurn, Outcome, PromptText, SessionId, SessionKey, Store, StoreError,
    TurnNumber,
};
use tokio::{sync::mpsc, task::JoinHandle};

use crate::{clock, config::RecordingSection, recording::CallRecording};

/// Entries that may wait for the disk: minutes of conversation.
const QUEUE: usize = 256;

/// The prompt in force. Turns name it by its hash; its text is written down when a guardrail first holds under it.
#[derive(Debug, Clone)]
pub struct PromptInForce {
    text: Arc<str>,
    written: Arc<AtomicBool>,
}

impl PromptInForce {
    /// This text, not written down yet.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self {
            text: text.into(),
            written: Arc::default(),
        }
    }

    /// Writes down what held; with it, the first time, this whole text.
    pub fn note(&self, store: &Store, session: SessionId, turn: Option<TurnNumber>, held: &NewGuardrail) {
        let first = !self.written.swap(true, Ordering::AcqRel);
        let text = if first {
            PromptText::Whole
        } else {
            PromptText::Known
        };
        let written = store.record_guardrail(session, turn, held, &self.text, text, clock::unix_ms());
        if told(written).is_none() && first {
            self.written.store(false, Ordering::Release);
        }
    }
}

enum Entry {
    Turn(Box<NewTurn>, Vec<NewGuardrail>),
    Event(EventKind, Option<String>, i64),
}

/// The pen of one call.
pub struct Recorder {
    entries: mpsc::Sender<Entry>,
    writer: JoinHandle<()>,
    lost: Arc<AtomicU32>,
    recording: Option<CallRecording>,
    store: Store,
    session: SessionKey,
}

impl Recorder {
    /// A recorder for a session in progress; it records the sound, too, where that is wanted.
    pub fn new(store: Store, session: SessionKey, sound: &RecordingSection, prompt: PromptInForce) -> Self {
        let (entries, mut queue) = mpsc::channel(QUEUE);
        let (writer_store, id) = (store.clone(), session.id);
        let writer = tokio::task::spawn_blocking(move || {
            while let Some(entry) = queue.blocking_recv() {
                match entry {
                    Entry::Turn(turn, held) => {
                        let number = told(writer_store.append_turn(id, &turn));
                        for one in &held {
                            prompt.note(&writer_store, id, number, one);
                        }
                    }
                    Entry::Event(kind, detail, at) => {
                        told(writer_store.record_event(id, kind, detail.as_deref(), at));
                    }
                }
            }
        });
        Self {
            entries,
            writer,
            lost: Arc::default(),
            recording: CallRecording::start(&store, session.id, sound),
            store,
            session,
        }
    }

    /// Notes an event; `detail` holds no words of the caller.
    pub fn event(&self, kind: EventKind, detail: Option<&str>) {
        self.push(Entry::Event(kind, detail.map(str::to_owned), clock::unix_ms()));
    }

    /// Takes what was heard and sent; never waits.
    pub fn frame(&self, rx: &RxFrame) {
        if let Some(recording) = &self.recording {
            recording.frame(rx);
        }
    }

    /// Writes a turn, and which guardrails held in it.
    pub fn turn(&self, turn: NewTurn, held: Vec<NewGuardrail>) {
        self.push(Entry::Turn(Box::new(turn), held));
    }

    fn push(&self, entry: Entry) {
        if self.entries.try_send(entry).is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits for what is queued, then ends the session.
    pub async fn finish(self, outcome: Outcome, reason: &'static str) {
        drop(self.entries);
        if let Err(error) = self.writer.await {
            tracing::error!(%error, "the recorder failed");
        }
        let lost = self.lost.load(Ordering::Relaxed);
        if lost > 0 {
            tracing::error!(lost, "entries of a call were lost: the disk was too slow");
        }
        let (store, session, recording) = (self.store, self.session.id, self.recording);
        let ended = tokio::task::spawn_blocking(move || {
            if let Some(recording) = recording {
                recording.finish();
            }
            store.finish_session(session, outcome, reason, clock::unix_ms())
        });
        match ended.await {
            Ok(Ok(_)) => {}
            Ok(Err(error)) => tracing::error!(%error, "the session could not be closed"),
            Err(error) => tracing::error!(%error, "the recorder failed"),
        }
    }
}

fn told<T>(result: Result<T, StoreError>) -> Option<T> {
    result
        .inspect_err(|error| tracing::error!(%error, "the record could not be written"))
        .ok()
}
