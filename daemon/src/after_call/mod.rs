//! After the call: what is done with a call once it has ended, and only while no other call is in progress.
//!
//! ```text
//!            ┌──────────────── run (one task) ────────────────┐
//! record ───>│ nobody calls? ─> lease ─> work ─> result, done │──> record
//!            │      ^             │        │                  │
//!            │      └── back <────┴── a call begins (50 ms)   │
//!            └───────────────────┬────────────────────────────┘
//!                 engines, Background, each behind its breaker; thread `after-call`, nice 19
//! ```
//! The queue is in the record ([`attendant_store::Job`]): it survives a restart, and no job is done twice. One job at a
//! time. A call that begins takes everything: the work is dropped (which cancels what the engines do for it), the job goes
//! back and its try does not count.
//!
//! | Job | What | Needs |
//! |---|---|---|
//! | transcript | each turn once more from the recording, with the house's names as a hint; beside the live one | recording, stt |
//! | redaction | card numbers and keys hidden in texts, silent in a recording that takes the place of the first | |
//! | summary | what it was about, what came of it, what is left to do | llm |
//! | quality | figures | |

mod breaker;
mod quality;
mod redaction;
mod summary;
mod transcript;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use attendant_models::client::{Engine, EngineError, Engines};
use attendant_record::RecordError;
use attendant_store::{Job, JobEnd, JobKind, SessionId, SessionRecord, Store, StoreError};
use serde::Deserialize;

use crate::{clock, config::Config};
use breaker::{Breaker, Failed};
use transcript::Heard;

/// How often it is looked whether somebody calls: work gives way within this and the time a cancel takes.
const LOOK: Duration = Duration::from_millis(50);
/// How often it is looked for work while there is none.
const IDLE: Duration = Duration::from_secs(2);
/// Longest one job may take.
const BOUND: Duration = Duration::from_secs(600);
/// A job is somebody else's after this: longer than it may take \[ms\].
const LEASE_MS: i64 = 900_000;
/// First wait after a failure, four times as long after each further one, and the longest \[ms\].
const RETRY_MS: (i64, i64) = (10_000, 3_600_000);
/// A held recording is looked at again after this \[ms\].
const HELD_MS: i64 = 86_400_000;
/// Between two looks for texts to archive.
const ARCHIVING: Duration = Duration::from_secs(3_600);
/// Names this work's sequences in the engines, apart from all calls'.
const CALL: u64 = 1 << 62;

/// Which calls get a final transcript.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FinalTranscript {
    /// None.
    Never,
    /// Those in which something was not understood, or an engine failed.
    Unclear,
    /// All that were recorded.
    #[default]
    Always,
}

/// `[after_call]`.
#[derive(Debug, Clone, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct AfterCallSection {
    /// Work on calls after they have ended.
    pub enabled: bool,
    /// Which calls are transcribed once more, from their recording.
    pub final_transcript: FinalTranscript,
    /// Hide card numbers in texts and recordings.
    pub redact_cards: bool,
    /// Hide keys (four or more) in texts, and their tones in recordings.
    pub redact_keys: bool,
    /// Write summary, outcome and follow-ups.
    pub summary: bool,
    /// Tries before a job is given up.
    pub max_attempts: u32,
    /// Jobs that may wait; calls beyond them get theirs when there is room.
    pub max_waiting: u32,
}

impl Default for AfterCallSection {
    fn default() -> Self {
        Self {
            enabled: true,
            final_transcript: FinalTranscript::default(),
            redact_cards: true,
            redact_keys: true,
            summary: true,
            max_attempts: 6,
            max_waiting: 1_000,
        }
    }
}

impl AfterCallSection {
    /// Checks the bounds.
    ///
    /// # Errors
    /// What would be accepted.
    pub fn check(&self) -> Result<(), String> {
        if !(1..=20).contains(&self.max_attempts) {
            return Err("max_attempts must be 1 to 20".into());
        }
        if !(10..=100_000).contains(&self.max_waiting) {
            return Err("max_waiting must be 10 to 100000".into());
        }
        Ok(())
    }

    /// The jobs of a call.
    fn kinds(&self) -> Vec<JobKind> {
        let wanted = |kind: &JobKind| match kind {
            JobKind::Transcript => self.final_transcript != FinalTranscript::Never,
            JobKind::Redaction => self.redact_cards || self.redact_keys,
            JobKind::Summary => self.summary,
            JobKind::Quality => true,
        };
        JobKind::ALL.into_iter().filter(wanted).collect()
    }
}

/// What the work needs of the house.
#[derive(Clone)]
pub struct Workshop {
    /// The record.
    pub store: Store,
    /// Engines, shared with the calls.
    pub engines: Engines,
    /// Configuration.
    pub config: Arc<Config>,
    /// Calls in progress.
    pub active: Arc<AtomicUsize>,
}

/// Why a job has no result.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    /// Nothing to do, and never will be.
    #[error("{0}")]
    Nothing(&'static str),
    /// It cannot be done; trying again does not help.
    #[error("{0}")]
    Hopeless(&'static str),
    /// An engine's breaker is open: wait for it, no try.
    #[error("{0} rests after failures")]
    Resting(Engine, Duration),
    /// An engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The language model wrote nothing that can be used.
    #[error("the model's answer cannot be used: {0}")]
    Answer(&'static str),
    /// The record.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The recording.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A thread ended without an answer.
    #[error("the work was dropped")]
    Dropped,
    /// It took longer than a job may.
    #[error("it took longer than ten minutes")]
    Late,
}

/// Works until dropped.
pub async fn run(workshop: Workshop) {
    let mut worker = Worker {
        breakers: Engine::ALL.map(|_| Breaker::default()),
        heard: None,
        archived: None,
        workshop,
    };
    match worker.on_disk(|store| store.release_jobs()).await {
        Ok(0) => {}
        Ok(jobs) => tracing::info!(jobs, "work that a stop had cut off goes on"),
        Err(error) => tracing::error!(%error, "the work after calls cannot begin"),
    }
    loop {
        worker.until_nobody_calls().await;
        let worked = match worker.workshop.store.is_writable() {
            true => worker.work().await,
            false => Ok(false),
        };
        match worked {
            Ok(true) => {}
            Ok(false) => tokio::time::sleep(IDLE).await,
            Err(error) => {
                tracing::error!(%error, "the work after calls stands still");
                tokio::time::sleep(IDLE).await;
            }
        }
    }
}

struct Worker {
    workshop: Workshop,
    breakers: [Breaker; 3],
    /// What was heard of a call before another one took the engines: not to be heard again.
    heard: Option<(SessionId, Vec<Heard>)>,
    /// When it was last looked for texts to archive.
    archived: Option<Instant>,
}

impl Worker {
    fn called(&self) -> bool {
        self.workshop.active.load(Ordering::Relaxed) > 0
    }

    async fn until_nobody_calls(&self) {
        while self.called() {
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn until_somebody_calls(active: Arc<AtomicUsize>) {
        while active.load(Ordering::Relaxed) == 0 {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Does one job, if one is due; false when there was nothing to do.
    async fn work(&mut self) -> Result<bool, StoreError> {
        let section = self.workshop.config.after_call.clone();
        if section.enabled {
            let kinds = section.kinds();
            let most = section.max_waiting;
            self.on_disk(move |store| store.queue_jobs(&kinds, most, clock::unix_ms()))
                .await?;
            let leased = self
                .on_disk(|store| store.lease_job(LEASE_MS, clock::unix_ms()))
                .await?;
            if let Some(job) = leased {
                self.one(&job, section.max_attempts).await?;
                return Ok(true);
            }
        }
        self.archive().await
    }

    /// One job from lease to end.
    async fn one(&mut self, job: &Job, max_attempts: u32) -> Result<(), StoreError> {
        let active = self.workshop.active.clone();
        let done = tokio::select! {
            done = tokio::time::timeout(BOUND, self.attempt(job)) => done.unwrap_or(Err(Trouble::Late)),
            () = Self::until_somebody_calls(active) => {
                self.workshop.engines.release(CALL | job.session.get().unsigned_abs());
                return self.end(job, JobEnd::Back(clock::unix_ms())).await;
            }
        };
        self.workshop
            .engines
            .release(CALL | job.session.get().unsigned_abs());
        let Err(trouble) = done else {
            self.heard = None;
            tracing::debug!(session = %job.session, job = %job.kind, "done");
            return Ok(());
        };
        let now = clock::unix_ms();
        let why = trouble.to_string();
        let end = match &trouble {
            Trouble::Nothing(why) => JobEnd::Skipped(why),
            Trouble::Hopeless(why) => JobEnd::Failed(why),
            Trouble::Resting(_, rest) => JobEnd::Back(now + rest.as_millis() as i64),
            Trouble::Store(StoreError::Held { .. }) => JobEnd::Back(now + HELD_MS),
            // Taken away meanwhile: an erasure. There is nothing to end.
            Trouble::Store(StoreError::NotLeased { .. }) => return Ok(()),
            Trouble::Record(RecordError::Damaged { .. } | RecordError::NotOurs { .. }) => {
                JobEnd::Failed(&why)
            }
            _ if job.attempt >= max_attempts => JobEnd::Failed(&why),
            _ => JobEnd::Retry(now + retry_ms(job.attempt), &why),
        };
        match &end {
            JobEnd::Failed(_) => {
                tracing::warn!(session = %job.session, job = %job.kind, why, "given up");
            }
            JobEnd::Retry(..) => {
                tracing::info!(session = %job.session, job = %job.kind, attempt = job.attempt, why, "to be tried again");
            }
            JobEnd::Skipped(_) | JobEnd::Back(_) => {}
        }
        self.end(job, end).await
    }

    async fn end(&self, job: &Job, end: JobEnd<'_>) -> Result<(), StoreError> {
        let store = &self.workshop.store;
        match tokio::task::block_in_place(|| store.end_job(job, &end, clock::unix_ms())) {
            Err(StoreError::NotLeased { .. }) => Ok(()),
            ended => ended,
        }
    }

    /// Does the job and stores its result.
    async fn attempt(&mut self, job: &Job) -> Result<(), Trouble> {
        let session = job.session;
        let record = self.on_disk(move |store| store.session(session)).await?;
        if record.session.erased_at_ms.is_some() {
            return Err(Trouble::Nothing("the caller's data were erased"));
        }
        match job.kind {
            JobKind::Transcript => self.transcript(job, &record).await,
            JobKind::Redaction => self.redaction(job, record).await,
            JobKind::Summary => self.summary(job, &record).await,
            JobKind::Quality => {
                let (job, quality) = (job.clone(), quality::of(&record));
                self.store(move |store| store.complete_quality(&job, &quality, clock::unix_ms()))
                    .await
            }
        }
    }

    /// An engine's answer, past its breaker.
    async fn ask<T>(
        &mut self,
        engine: Engine,
        answer: impl Future<Output = Result<T, EngineError>> + Send,
    ) -> Result<T, Trouble> {
        let breaker = &mut self.breakers[engine.index()];
        if let Some(rest) = breaker.rests(Instant::now()) {
            return Err(Trouble::Resting(engine, rest));
        }
        let answer = answer.await;
        match &answer {
            Ok(_) => breaker.on_success(),
            // What was asked makes no sense to it: not its fault.
            Err(EngineError::BadRequest(_) | EngineError::Stale) => {}
            Err(_) => {
                if breaker.on_failure(Instant::now()) == Failed::Opened {
                    tracing::warn!(%engine, "the engine rests from work after calls: it failed several times in a row");
                }
            }
        }
        Ok(answer?)
    }

    /// Moves old texts into cold files, a hundred calls at a time; true when there may be more.
    async fn archive(&mut self) -> Result<bool, StoreError> {
        let due = self.archived.is_none_or(|at| at.elapsed() >= ARCHIVING);
        let Some(days) = self.workshop.config.storage.archive_after_days.filter(|_| due) else {
            return Ok(false);
        };
        let before = clock::unix_ms() - i64::from(days) * 86_400_000;
        let done = self
            .on_disk(move |store| store.archive_before(before, clock::unix_ms()))
            .await?;
        if done.sessions == 0 {
            self.archived = Some(Instant::now());
            return Ok(false);
        }
        tracing::info!(
            calls = done.sessions,
            octets = done.octets,
            "texts of old calls archived"
        );
        Ok(true)
    }

    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let store = self.workshop.store.clone();
        match tokio::task::spawn_blocking(move || work(&store)).await {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic.into_panic()),
        }
    }

    /// Stores a result.
    async fn store(
        &self,
        work: impl FnOnce(&Store) -> Result<(), StoreError> + Send + 'static,
    ) -> Result<(), Trouble> {
        Ok(self.on_disk(work).await?)
    }
}

/// Wait after a failed try, the first being 1 \[ms\].
fn retry_ms(attempt: u32) -> i64 {
    let (first, longest) = RETRY_MS;
    let times = 4_i64.saturating_pow(attempt.saturating_sub(1).min(20));
    first.saturating_mul(times).min(longest)
}

/// The recording of a call that is kept and sealed, and its file.
fn recording(
    store: &Store,
    record: &SessionRecord,
) -> Result<Option<(attendant_store::StoredRecording, std::path::PathBuf)>, StoreError> {
    let sealed = store
        .recordings(record.session.id)?
        .into_iter()
        .rfind(|recording| recording.state == "sealed" && recording.samples.is_some_and(|n| n > 0));
    match sealed {
        Some(recording) => store.recording(&recording.uuid),
        None => Ok(None),
    }
}

/// Stops the work of a thread when nobody waits for it any more.
struct StopOnDrop(Arc<AtomicBool>);

impl Drop for StopOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Runs `work` on a thread that gets the cores nobody else wants; dropping the future tells it to stop.
async fn quietly<T: Send + 'static>(
    work: impl FnOnce(&AtomicBool) -> Result<T, Trouble> + Send + 'static,
) -> Result<T, Trouble> {
    let stop = Arc::<AtomicBool>::default();
    let _stop_on_drop = StopOnDrop(stop.clone());
    let (answer, answered) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("after-call".into())
        .spawn(move || {
            be_nice();
            // Nobody waits when it was dropped.
            let _ = answer.send(work(&stop));
        })
        .map_err(|_| Trouble::Dropped)?;
    answered.await.unwrap_or(Err(Trouble::Dropped))
}

/// The lowest priority for this thread.
#[allow(unsafe_code, reason = "the standard library has no priorities")]
fn be_nice() {
    // SAFETY: a plain system call without pointers; on Linux 0 means the calling thread.
    let refused = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) } != 0;
    if refused {
        tracing::debug!("the system refuses a lower priority");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_and_end_at_an_hour() {
        let waits: Vec<i64> = (1..=8).map(|attempt| retry_ms(attempt) / 1_000).collect();
        assert_eq!(waits, [10, 40, 160, 640, 2_560, 3_600, 3_600, 3_600]);
        assert_eq!(retry_ms(u32::MAX), 3_600_000);
    }

    #[test]
    fn what_is_not_wanted_is_no_job() {
        let mut section = AfterCallSection::default();
        assert_eq!(section.kinds(), JobKind::ALL);
        section.final_transcript = FinalTranscript::Never;
        section.redact_cards = false;
        section.summary = false;
        assert_eq!(section.kinds(), [JobKind::Redaction, JobKind::Quality]);
        section.redact_keys = false;
        assert_eq!(section.kinds(), [JobKind::Quality]);
    }

    #[tokio::test]
    async fn dropped_work_is_told_to_stop() {
        let (seen, told) = std::sync::mpsc::channel();
        let work = quietly(move |stop| {
            while !stop.load(Ordering::Relaxed) {
                std::thread::sleep(Duration::from_millis(1));
            }
            let _ = seen.send(());
            Ok(())
        });
        let dropped = tokio::time::timeout(Duration::from_millis(20), work).await;
        assert!(dropped.is_err(), "it does not end by itself");
        told.recv_timeout(Duration::from_secs(5)).expect("stopped");
    }
}
