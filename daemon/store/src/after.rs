//! What comes of the work after a call: final transcript, summary, quality; and how redaction replaces what was said.
//!
//! Each is stored in the transaction that ends its job ([`Job`]), with its entry in the chain; live transcripts are never
//! overwritten, but for digits that are hidden.

use std::path::PathBuf;

use rusqlite::{Connection, OptionalExtension, Row, params};
use serde::Serialize;

use crate::{
    Job, RecordingSeal, SessionId, Source, Store, StoreError, StoredJob,
    audit::{AuditKind, Hash, Tx, random},
    history, job, life, recording, report, seal,
};

/// Longest final text of a turn [characters], as in the schema.
const MAX_TEXT: usize = 16_000;
/// Longest summary [characters], as in the schema.
const MAX_SUMMARY: usize = 2_000;
/// Most follow-ups, and their length [characters].
const MAX_FOLLOW_UPS: usize = 8;
const MAX_FOLLOW_UP: usize = 300;

/// A turn's words, made afterwards.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct FinalText {
    /// The turn.
    pub number: u32,
    /// Where they come from.
    pub source: Source,
    /// What the caller said.
    pub text: String,
    /// Mean probability of its tokens [‰].
    pub sure: u32,
    /// Digits that were hidden before it was stored.
    pub masked: u32,
}

/// Hides what was said.
impl std::fmt::Debug for FinalText {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FinalText({}, {} ‰)", self.number, self.sure)
    }
}

/// What a call was about.
#[derive(Clone, PartialEq, Eq, Serialize)]
pub struct Summary {
    /// When it was made [Unix ms].
    pub made_at_ms: i64,
    /// Catalog id of the language model; `None`: none was asked.
    pub model: Option<String>,
    /// What came of it, one word.
    pub outcome: String,
    /// A few sentences.
    pub text: String,
    /// What is left to do.
    pub follow_ups: Vec<String>,
}

/// Hides what was said.
impl std::fmt::Debug for Summary {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "Summary({}, {} follow-ups)",
            self.outcome,
            self.follow_ups.len()
        )
    }
}

/// How well a call went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Quality {
    /// Turns.
    pub turns: u32,
    /// Half of them were answered within this [ms].
    pub response_p50_ms: Option<u32>,
    /// 95 of 100 within this [ms].
    pub response_p95_ms: Option<u32>,
    /// Replies the caller cut off.
    pub interruptions: u32,
    /// Times the caller was not understood.
    pub unclear: u32,
    /// Times the caller heard an apology.
    pub apologies: u32,
    /// Times an engine failed.
    pub engine_failures: u32,
    /// Words of the final transcript that the live one was compared with.
    pub words_compared: u32,
    /// How many of those the live one had otherwise.
    pub words_differing: u32,
}

/// All that came of the work after a call, and what is left of it.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct AfterCall {
    /// Final texts by turn.
    pub transcript: Vec<FinalText>,
    /// Summary, outcome, follow-ups.
    pub summary: Option<Summary>,
    /// Figures.
    pub quality: Option<Quality>,
    /// Where the work stands.
    pub jobs: Vec<StoredJob>,
}

/// A turn with its digits hidden: as many characters as before.
#[derive(Clone, PartialEq, Eq)]
pub struct RedactedTurn {
    /// Its number.
    pub number: u32,
    /// What the caller said.
    pub caller_text: String,
    /// The reply.
    pub reply_text: String,
    /// What was heard of it.
    pub heard_text: Option<String>,
}

/// Hides what was said.
impl std::fmt::Debug for RedactedTurn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "RedactedTurn({})", self.number)
    }
}

/// A channel of a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// Left: the caller.
    Caller,
    /// Right: the attendant.
    Attendant,
}

/// A recording made anew with parts of it silent, as its file stands on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replacement {
    /// The recording whose place it takes.
    pub replaces: i64,
    /// Its public name, from [`Store::begin_replacement`].
    pub uuid: String,
    /// What was muted: side, from and to [ms of the recording].
    pub muted: Vec<(Side, u64, u64)>,
    /// The new file.
    pub seal: RecordingSeal,
}

#[derive(Serialize)]
struct Said {
    number: u32,
    source: &'static str,
    sha256: String,
}

#[derive(Serialize)]
struct Sealed {
    outcome: String,
    follow_ups: usize,
    sha256: String,
}

#[derive(Serialize)]
struct Hidden {
    number: u32,
    sha256: String,
}

#[derive(Serialize)]
struct Muted<'a> {
    recording: &'a str,
    replaces: &'a str,
    muted: &'a [(Side, u64, u64)],
}

impl Store {
    /// Stores the final transcript and ends its job. The live one stays beside it.
    ///
    /// # Errors
    /// [`StoreError::NotLeased`] (nothing is stored), or of the database.
    pub fn complete_transcript(&self, job: &Job, texts: &[FinalText], now_ms: i64) -> Result<(), StoreError> {
        self.write(|tx| {
            job::done(tx, job, now_ms)?;
            for text in texts {
                tx.prepare_cached(
                    "INSERT INTO transcript (session_id, number, source, made_at_ms, text, sure, masked, salt) \
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
                )?
                .execute(params![
                    job.session,
                    text.number,
                    text.source,
                    now_ms.max(0),
                    life::cut(&text.text, MAX_TEXT),
                    text.sure.min(1_000),
                    text.masked,
                    random::<16>()?
                ])?;
                let said = Said {
                    number: text.number,
                    source: text.source.as_str(),
                    sha256: hex(seal::transcript(tx, job.session, text.number)?),
                };
                tx.note(AuditKind::Transcript, Some(job.session), &said, now_ms)?;
            }
            Ok(())
        })
    }

    /// Stores the summary and ends its job.
    ///
    /// # Errors
    /// As for [`Store::complete_transcript`].
    pub fn complete_summary(&self, job: &Job, summary: &Summary, now_ms: i64) -> Result<(), StoreError> {
        let follow_ups: Vec<String> = summary
            .follow_ups
            .iter()
            .take(MAX_FOLLOW_UPS)
            .map(|text| life::cut(text, MAX_FOLLOW_UP))
            .collect();
        self.write(|tx| {
            job::done(tx, job, now_ms)?;
            tx.prepare_cached(
                "INSERT INTO summary (session_id, made_at_ms, model, outcome, text, follow_ups, salt) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![
                job.session,
                now_ms.max(0),
                summary.model,
                life::required(&summary.outcome, 40),
                life::required(&summary.text, MAX_SUMMARY),
                serde_json::to_string(&follow_ups).map_err(|source| StoreError::Payload { source })?,
                random::<16>()?
            ])?;
            let sealed = Sealed {
                outcome: summary.outcome.clone(),
                follow_ups: follow_ups.len(),
                sha256: hex(seal::summary(tx, job.session)?),
            };
            tx.note(AuditKind::Summary, Some(job.session), &sealed, now_ms)?;
            Ok(())
        })
    }

    /// Stores the figures and ends their job.
    ///
    /// # Errors
    /// As for [`Store::complete_transcript`].
    pub fn complete_quality(&self, job: &Job, quality: &Quality, now_ms: i64) -> Result<(), StoreError> {
        self.write(|tx| {
            job::done(tx, job, now_ms)?;
            tx.prepare_cached(
                "INSERT INTO quality (session_id, made_at_ms, turns, response_p50_ms, response_p95_ms, interruptions, \
                 unclear, apologies, engine_failures, words_compared, words_differing) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
            )?
            .execute(params![
                job.session,
                now_ms.max(0),
                quality.turns,
                quality.response_p50_ms,
                quality.response_p95_ms,
                quality.interruptions,
                quality.unclear,
                quality.apologies,
                quality.engine_failures,
                quality.words_compared,
                quality.words_differing
            ])?;
            Ok(())
        })
    }

    /// Names the file of a recording that is to take another's place. Until [`Store::complete_redaction`] a mark beside it
    /// says that it may be left from a stop, so that the next start removes it.
    ///
    /// # Errors
    /// [`StoreError::Directory`].
    pub fn begin_replacement(&self) -> Result<(String, PathBuf), StoreError> {
        let uuid = uuid::Uuid::new_v4().to_string();
        let path = recording::file(self.directory(), &uuid);
        let mark = recording::mark(self.directory(), &uuid);
        crate::store::private_file(&mark)
            .and_then(|file| file.sync_all())
            .map_err(|source| StoreError::Directory { path: mark, source })?;
        Ok((uuid, path))
    }

    /// Throws the file of a recording away that was to take another's place.
    ///
    /// # Errors
    /// [`StoreError::Directory`].
    pub fn drop_replacement(&self, uuid: &str) -> Result<(), StoreError> {
        self.remove_recording(uuid)?;
        recording::unmark(self.directory(), uuid)
    }

    /// Hides digits in turns, puts a recording in the place of the one it was made from, and ends the job; all or nothing.
    /// The old file goes afterwards.
    ///
    /// # Errors
    /// [`StoreError::Held`] when a legal hold keeps the session as it is, else as for [`Store::complete_transcript`].
    pub fn complete_redaction(
        &self,
        job: &Job,
        turns: &[RedactedTurn],
        recordings: &[Replacement],
        now_ms: i64,
    ) -> Result<(), StoreError> {
        let gone = self.write(|tx| {
            job::done(tx, job, now_ms)?;
            let changes = !turns.is_empty() || !recordings.is_empty();
            if changes && report::held(tx, job.session)? {
                return Err(StoreError::Held { session: job.session });
            }
            for turn in turns {
                hide(tx, job.session, turn, now_ms)?;
            }
            recordings
                .iter()
                .map(|replacement| replace(tx, job.session, replacement, now_ms))
                .collect::<Result<Vec<String>, StoreError>>()
        })?;
        for uuid in &gone {
            self.remove_recording(uuid)?;
        }
        for replacement in recordings {
            recording::unmark(self.directory(), &replacement.uuid)?;
        }
        if !turns.is_empty() {
            // The log still holds the pages as they were.
            self.empty_log()?;
        }
        Ok(())
    }
}

/// Hides the digits of a turn, in the row and in the index of words.
fn hide(tx: &Tx<'_>, session: SessionId, turn: &RedactedTurn, now_ms: i64) -> Result<(), StoreError> {
    let place = history::place(session, turn.number);
    tx.prepare_cached("INSERT INTO redaction (session_id, number, at_ms) VALUES (?1, ?2, ?3)")?
        .execute(params![session, turn.number, now_ms.max(0)])?;
    history::forget(tx, session, turn.number)?;
    tx.prepare_cached(
        "UPDATE turn SET caller_text = ?3, reply_text = ?4, heard_text = ?5, salt = ?6 \
         WHERE session_id = ?1 AND number = ?2",
    )?
    .execute(params![
        session,
        turn.number,
        turn.caller_text,
        turn.reply_text,
        turn.heard_text,
        random::<16>()?
    ])?;
    tx.prepare_cached("INSERT INTO turn_index (rowid, caller_text, reply_text) VALUES (?1, ?2, ?3)")?
        .execute(params![place, turn.caller_text, turn.reply_text])?;
    let hidden = Hidden {
        number: turn.number,
        sha256: hex(seal::turn(tx, session, turn.number)?),
    };
    tx.note(AuditKind::Redaction, Some(session), &hidden, now_ms)?;
    Ok(())
}

/// Puts a recording in another's place; the name of the one whose file is to go after the commit.
fn replace(tx: &Tx<'_>, session: SessionId, new: &Replacement, now_ms: i64) -> Result<String, StoreError> {
    let muted = serde_json::to_string(&new.muted).map_err(|source| StoreError::Payload { source })?;
    let inserted = tx
        .prepare_cached(
            "INSERT INTO recording (uuid, session_id, state, started_at_ms, ended_at_ms, keep_until_ms, samples, missing, \
             octets, sha256, whole, replaces, muted) \
             SELECT ?2, session_id, 'sealed', started_at_ms, ended_at_ms, keep_until_ms, ?3, missing, ?4, ?5, whole, id, ?6 \
             FROM recording WHERE id = ?1 AND session_id = ?7 AND state = 'sealed'",
        )?
        .execute(params![
            new.replaces,
            new.uuid,
            new.seal.samples,
            new.seal.octets,
            crate::audit::hex(&new.seal.sha256),
            muted,
            session
        ])?;
    if inserted == 0 {
        return Err(StoreError::NoRecording { id: new.replaces });
    }
    recording::note_sealed(tx, session, &new.uuid, &new.seal, now_ms)?;
    let old = recording::erase(tx, new.replaces, "a redacted recording took its place", now_ms)?;
    let told = Muted {
        recording: &new.uuid,
        replaces: &old,
        muted: &new.muted,
    };
    tx.note(AuditKind::Redaction, Some(session), &told, now_ms)?;
    Ok(old)
}

/// What the work after a call has come to.
pub(crate) fn of_session(db: &Connection, session: SessionId) -> Result<AfterCall, StoreError> {
    let transcript = db
        .prepare_cached(
            "SELECT number, source, text, sure, masked FROM transcript WHERE session_id = ?1 ORDER BY number",
        )?
        .query_map([session], |row| {
            Ok(FinalText {
                number: row.get(0)?,
                source: row.get(1)?,
                text: row.get(2)?,
                sure: row.get(3)?,
                masked: row.get(4)?,
            })
        })?
        .collect::<Result<_, _>>()?;
    let summary = db
        .prepare_cached(
            "SELECT made_at_ms, model, outcome, text, follow_ups FROM summary WHERE session_id = ?1",
        )?
        .query_row([session], summary_from_row)
        .optional()?;
    let quality = db
        .prepare_cached(
            "SELECT turns, response_p50_ms, response_p95_ms, interruptions, unclear, apologies, engine_failures, \
             words_compared, words_differing FROM quality WHERE session_id = ?1",
        )?
        .query_row([session], |row| {
            Ok(Quality {
                turns: row.get(0)?,
                response_p50_ms: row.get(1)?,
                response_p95_ms: row.get(2)?,
                interruptions: row.get(3)?,
                unclear: row.get(4)?,
                apologies: row.get(5)?,
                engine_failures: row.get(6)?,
                words_compared: row.get(7)?,
                words_differing: row.get(8)?,
            })
        })
        .optional()?;
    let jobs = db
        .prepare_cached(&format!(
            "SELECT {} FROM job WHERE session_id = ?1 ORDER BY step",
            StoredJob::COLUMNS
        ))?
        .query_map([session], StoredJob::from_row)?
        .collect::<Result<_, _>>()?;
    Ok(AfterCall {
        transcript,
        summary,
        quality,
        jobs,
    })
}

fn summary_from_row(row: &Row<'_>) -> rusqlite::Result<Summary> {
    let follow_ups: String = row.get(4)?;
    Ok(Summary {
        made_at_ms: row.get(0)?,
        model: row.get(1)?,
        outcome: row.get(2)?,
        text: row.get(3)?,
        // An outsider may have written anything there; verifying names it.
        follow_ups: serde_json::from_str(&follow_ups).unwrap_or_default(),
    })
}

fn hex(hash: Option<Hash>) -> String {
    hash.unwrap_or(Hash::NONE).to_string()
}
