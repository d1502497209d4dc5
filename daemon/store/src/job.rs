//! Jobs: what is left to do after a call; each is done once, whatever stops in between.
//!
//! ```text
//! waiting ──lease──> running ──> done | skipped | failed
//!    ^                  │
//!    `── retry, back ───'   (or its lease ran out, or the daemon was killed)
//! ```
//! One row per session and kind, for ever: that is the idempotency key. Who works on a job holds its lease, a random
//! number; a result is stored in the transaction that ends the job, and only under that lease, so that a worker that was
//! slow, stopped or started twice cannot store a second one.

use std::{fmt, str::FromStr};

use rusqlite::{
    OptionalExtension, Row, ToSql, params,
    types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef},
};
use serde::Serialize;

use crate::{
    SessionId, Store, StoreError,
    audit::{AuditKind, Tx, random},
    session::{UnknownWord, stored_as_word},
};

/// Sessions looked through for new jobs at once.
const LOOK_AT: u32 = 500;
/// Longest reason [characters], as in the schema.
const MAX_WHY: usize = 400;

/// What is done after a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum JobKind {
    /// The final transcript, from the recording.
    Transcript,
    /// Digits hidden in texts and recording.
    Redaction,
    /// Summary, outcome, follow-ups.
    Summary,
    /// How well the call went.
    Quality,
}

impl JobKind {
    /// All, in the order in which they are done: each may build on those before it.
    pub const ALL: [JobKind; 4] = [
        JobKind::Transcript,
        JobKind::Redaction,
        JobKind::Summary,
        JobKind::Quality,
    ];

    /// As stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            JobKind::Transcript => "transcript",
            JobKind::Redaction => "redaction",
            JobKind::Summary => "summary",
            JobKind::Quality => "quality",
        }
    }

    const fn step(self) -> u32 {
        match self {
            JobKind::Transcript => 1,
            JobKind::Redaction => 2,
            JobKind::Summary => 3,
            JobKind::Quality => 4,
        }
    }
}

impl fmt::Display for JobKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for JobKind {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<JobKind, UnknownWord> {
        JobKind::ALL
            .into_iter()
            .find(|kind| kind.as_str() == word)
            .ok_or_else(|| UnknownWord::new(word))
    }
}

stored_as_word!(JobKind);

/// A job that is yours to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Job {
    /// Row number.
    pub id: i64,
    /// The call.
    pub session: SessionId,
    /// What is to be done.
    pub kind: JobKind,
    /// Which try this is, from 1.
    pub attempt: u32,
    lease: [u8; 16],
}

/// How a try ended without a result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JobEnd<'a> {
    /// There is nothing to do, and never will be.
    Skipped(&'a str),
    /// It cannot be done.
    Failed(&'a str),
    /// To be tried again, not before this time [Unix ms].
    Retry(i64, &'a str),
    /// Given back to a live call, or to wait for something: no try at all, not before this time [Unix ms].
    Back(i64),
}

/// A job as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StoredJob {
    /// What is to be done.
    pub kind: JobKind,
    /// `waiting`, `running`, `done`, `skipped` or `failed`.
    pub state: String,
    /// Tries so far.
    pub attempts: u32,
    /// Not before [Unix ms].
    pub next_at_ms: i64,
    /// When it ended [Unix ms].
    pub ended_at_ms: Option<i64>,
    /// Why it was skipped, failed, or has to be tried again.
    pub why: Option<String>,
}

impl StoredJob {
    pub(crate) const COLUMNS: &'static str = "kind, state, attempts, next_at_ms, ended_at_ms, why";

    pub(crate) fn from_row(row: &Row<'_>) -> rusqlite::Result<StoredJob> {
        Ok(StoredJob {
            kind: row.get(0)?,
            state: row.get(1)?,
            attempts: row.get(2)?,
            next_at_ms: row.get(3)?,
            ended_at_ms: row.get(4)?,
            why: row.get(5)?,
        })
    }
}

/// How much is left to do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct JobFigures {
    /// Waiting, those to be tried again included.
    pub waiting: u32,
    /// Under way.
    pub running: u32,
    /// Could not be done.
    pub failed: u32,
}

impl Store {
    /// Gives the sessions that have ended since the last look their jobs, as long as fewer than `most` wait: what does not
    /// fit is found by a later look. Returns how many sessions got theirs.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub fn queue_jobs(&self, kinds: &[JobKind], most: u32, now_ms: i64) -> Result<u32, StoreError> {
        let nothing_new: bool = self.read(|db| {
            Ok(db
                .prepare_cached(
                    "SELECT NOT EXISTS (SELECT 1 FROM session WHERE id > (SELECT session_id FROM job_floor))",
                )?
                .query_row([], |row| row.get(0))?)
        })?;
        if nothing_new {
            return Ok(0);
        }
        self.write(|tx| {
            let waiting: u32 = tx
                .prepare_cached("SELECT count(*) FROM job WHERE state = 'waiting'")?
                .query_row([], |row| row.get(0))?;
            let room = most.saturating_sub(waiting) / u32::try_from(kinds.len().max(1)).unwrap_or(1);
            let ended: Vec<SessionId> = tx
                .prepare_cached(
                    "SELECT id FROM session s WHERE id > (SELECT session_id FROM job_floor) AND ended_at_ms IS NOT NULL \
                     AND NOT EXISTS (SELECT 1 FROM job WHERE session_id = s.id) AND started_at_ms IS NOT NULL \
                     ORDER BY id LIMIT ?1",
                )?
                .query_map([room.min(LOOK_AT)], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            for session in &ended {
                for kind in kinds {
                    tx.prepare_cached(
                        "INSERT INTO job (session_id, kind, step, created_at_ms, next_at_ms) VALUES (?1, ?2, ?3, ?4, ?4)",
                    )?
                    .execute(params![session, kind, kind.step(), now_ms.max(0)])?;
                }
            }
            // All up to the first session that still runs, or has no jobs yet though it should, need no other look.
            tx.prepare_cached(
                "UPDATE job_floor SET session_id = coalesce( \
                   (SELECT min(id) - 1 FROM session s WHERE id > job_floor.session_id AND (ended_at_ms IS NULL OR \
                     (started_at_ms IS NOT NULL AND NOT EXISTS (SELECT 1 FROM job WHERE session_id = s.id)))), \
                   (SELECT max(id) FROM session), 0)",
            )?
            .execute([])?;
            Ok(u32::try_from(ended.len()).unwrap_or(u32::MAX))
        })
    }

    /// Takes the job that is due first, for `lease_ms`: one whose time has come, or whose worker has not been heard of for
    /// that long, of a session whose earlier steps have ended.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub fn lease_job(&self, lease_ms: i64, now_ms: i64) -> Result<Option<Job>, StoreError> {
        let lease = random::<16>()?;
        self.write(|tx| {
            Ok(tx
                .prepare_cached(
                    "UPDATE job SET state = 'running', attempts = attempts + 1, lease = ?1, lease_until_ms = ?2 \
                     WHERE id = (SELECT id FROM job j WHERE \
                       ((state = 'waiting' AND next_at_ms <= ?3) OR (state = 'running' AND lease_until_ms <= ?3)) \
                       AND NOT EXISTS (SELECT 1 FROM job e WHERE e.session_id = j.session_id AND e.step < j.step \
                         AND e.state IN ('waiting', 'running')) \
                       ORDER BY next_at_ms, id LIMIT 1) \
                     RETURNING id, session_id, kind, attempts",
                )?
                .query_row(
                    params![lease, now_ms.max(0).saturating_add(lease_ms), now_ms.max(0)],
                    |row| {
                        Ok(Job {
                            id: row.get(0)?,
                            session: row.get(1)?,
                            kind: row.get(2)?,
                            attempt: row.get(3)?,
                            lease,
                        })
                    },
                )
                .optional()?)
        })
    }

    /// Ends a try that has no result to store.
    ///
    /// # Errors
    /// [`StoreError::NotLeased`] when the job is somebody else's by now, or of the database.
    pub fn end_job(&self, job: &Job, end: &JobEnd<'_>, now_ms: i64) -> Result<(), StoreError> {
        self.write(|tx| match end {
            JobEnd::Skipped(why) => close(tx, job, "skipped", Some(why), now_ms),
            JobEnd::Failed(why) => {
                close(tx, job, "failed", Some(why), now_ms)?;
                let told = serde_json::json!({ "job": job.kind.as_str(), "attempts": job.attempt });
                tx.note(AuditKind::Job, Some(job.session), &told, now_ms)?;
                Ok(())
            }
            JobEnd::Retry(at_ms, why) => wait(tx, job, job.attempt, *at_ms, Some(why)),
            JobEnd::Back(at_ms) => wait(tx, job, job.attempt.saturating_sub(1), *at_ms, None),
        })
    }

    /// Gives back what an earlier run of the daemon was doing. Call once at start; the tries count, so that a job that
    /// brings the daemon down is given up some day. Returns how many there were.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub fn release_jobs(&self) -> Result<usize, StoreError> {
        self.write(|tx| {
            Ok(tx.execute(
                "UPDATE job SET state = 'waiting', lease = NULL, lease_until_ms = NULL WHERE state = 'running'",
                [],
            )?)
        })
    }

    /// The jobs of a session, in their order.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub fn jobs(&self, session: SessionId) -> Result<Vec<StoredJob>, StoreError> {
        self.read(|db| {
            let sql = format!(
                "SELECT {} FROM job WHERE session_id = ?1 ORDER BY step",
                StoredJob::COLUMNS
            );
            let mut statement = db.prepare_cached(&sql)?;
            let rows = statement.query_map([session], StoredJob::from_row)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// How much is left to do.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub fn job_figures(&self) -> Result<JobFigures, StoreError> {
        self.read(|db| {
            let count = |state: &str| -> Result<u32, StoreError> {
                Ok(db
                    .prepare_cached("SELECT count(*) FROM job WHERE state = ?1")?
                    .query_row([state], |row| row.get(0))?)
            };
            Ok(JobFigures {
                waiting: count("waiting")?,
                running: count("running")?,
                failed: count("failed")?,
            })
        })
    }
}

/// Ends a job in the transaction that stores its result.
pub(crate) fn done(tx: &Tx<'_>, job: &Job, now_ms: i64) -> Result<(), StoreError> {
    close(tx, job, "done", None, now_ms)
}

/// Takes from a session what is left to do; a worker that has one of its jobs can no longer store a result.
pub(crate) fn give_up(tx: &Tx<'_>, session: SessionId, why: &str, now_ms: i64) -> Result<(), StoreError> {
    tx.prepare_cached(
        "UPDATE job SET state = 'skipped', lease = NULL, lease_until_ms = NULL, ended_at_ms = ?2, why = ?3 \
         WHERE session_id = ?1 AND state IN ('waiting', 'running')",
    )?
    .execute(params![session, now_ms.max(0), why])?;
    Ok(())
}

fn close(tx: &Tx<'_>, job: &Job, state: &str, why: Option<&str>, now_ms: i64) -> Result<(), StoreError> {
    let why = why.map(cut);
    under_lease(
        tx,
        job,
        "state = ?3, ended_at_ms = ?4, why = ?5",
        &[&state, &now_ms.max(0), &why],
    )
}

fn wait(tx: &Tx<'_>, job: &Job, attempts: u32, at_ms: i64, why: Option<&str>) -> Result<(), StoreError> {
    let why = why.map(cut);
    under_lease(
        tx,
        job,
        "state = 'waiting', attempts = ?3, next_at_ms = ?4, why = coalesce(?5, why)",
        &[&attempts, &at_ms.max(0), &why],
    )
}

/// Changes a job, if it is still under this lease.
fn under_lease(tx: &Tx<'_>, job: &Job, set: &str, values: &[&dyn ToSql]) -> Result<(), StoreError> {
    let sql = format!(
        "UPDATE job SET lease = NULL, lease_until_ms = NULL, {set} WHERE id = ?1 AND lease = ?2 AND state = 'running'"
    );
    let mut all: Vec<&dyn ToSql> = vec![&job.id, &job.lease];
    all.extend(values);
    match tx.prepare_cached(&sql)?.execute(all.as_slice())? {
        0 => Err(StoreError::NotLeased { job: job.id }),
        _ => Ok(()),
    }
}

fn cut(why: &str) -> String {
    crate::life::required(why, MAX_WHY)
}
