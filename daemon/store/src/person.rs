//! Personal data: everything of one caller, to be given to them or to be erased.
//!
//! Erasing takes numbers, texts and recordings, and the salts their hashes were made with: what stays in the chain says
//! that something was there, and no more. Sessions, times, counts and latencies stay.

use std::path::Path;

use rusqlite::params;
use serde::Serialize;

use crate::{
    AuditKind, SessionId, SessionRecord, Store, StoreError, StoredRecording, archive, audit::Tx, history,
    job, recording, report,
};

/// Most sessions given at once.
const MAX_SESSIONS: u32 = 10_000;

/// Everything of one session that is somebody's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PersonalRecord {
    /// The session, its turns and events.
    #[serde(flatten)]
    pub record: SessionRecord,
    /// Its recordings.
    pub recordings: Vec<StoredRecording>,
    /// Kept back from erasure.
    pub held: bool,
}

/// What an erasure did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Erasure {
    /// Sessions whose personal data are gone.
    pub sessions: u32,
    /// Recordings that are gone.
    pub recordings: u32,
    /// Sessions kept because of a legal hold.
    pub held: u32,
    /// Sessions kept because they have not ended.
    pub running: u32,
}

#[derive(Serialize)]
struct Erased<'a> {
    what: &'a str,
    turns: u32,
}

impl Store {
    /// Everything of one caller, by their number as it stands in the record; oldest first.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub fn personal_records(&self, caller: &str) -> Result<Vec<PersonalRecord>, StoreError> {
        let sessions = self.sessions_of(caller)?;
        sessions
            .into_iter()
            .map(|id| {
                Ok(PersonalRecord {
                    record: self.session(id)?,
                    recordings: self.recordings(id)?,
                    held: self.read(|db| report::held(db, id))?,
                })
            })
            .collect()
    }

    /// The sessions of one caller (at most 10,000), oldest first.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub fn sessions_of(&self, caller: &str) -> Result<Vec<SessionId>, StoreError> {
        self.read(|db| {
            let mut statement =
                db.prepare_cached("SELECT id FROM session WHERE caller = ?1 ORDER BY id LIMIT ?2")?;
            let rows = statement.query_map(params![caller, MAX_SESSIONS], |row| row.get(0))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Erases everything of one caller, but for what runs or is held. Each session in a transaction of its own, so that
    /// calls in progress do not wait.
    ///
    /// # Errors
    /// [`StoreError`] of the database; what was erased before stays erased.
    pub fn erase_caller(&self, caller: &str, now_ms: i64) -> Result<Erasure, StoreError> {
        let mut done = Erasure::default();
        for session in self.sessions_of(caller)? {
            let files = self.write(|tx| erase_session(tx, self.directory(), session, now_ms, &mut done))?;
            for recording in files {
                self.remove_recording(&recording)?;
            }
        }
        self.settle_archives()?;
        // The log still holds the pages as they were.
        self.empty_log()?;
        Ok(done)
    }
}

/// Erases one session's personal data; the names of recordings whose files are to go after the commit.
fn erase_session(
    tx: &Tx<'_>,
    directory: &Path,
    session: SessionId,
    now_ms: i64,
    done: &mut Erasure,
) -> Result<Vec<String>, StoreError> {
    let (state, _) = crate::life::standing(tx, session)?;
    if !state.is_terminal() {
        done.running += 1;
        return Ok(Vec::new());
    }
    if report::held(tx, session)? {
        done.held += 1;
        return Ok(Vec::new());
    }
    let recordings: Vec<i64> = tx
        .prepare_cached("SELECT id FROM recording WHERE session_id = ?1 AND state = 'sealed'")?
        .query_map([session], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    let files = recordings
        .iter()
        .map(|id| recording::erase(tx, *id, "the caller's data were erased", now_ms))
        .collect::<Result<Vec<String>, StoreError>>()?;
    let turns: u32 = tx
        .prepare_cached(
            "UPDATE session SET caller = NULL, callee = NULL, call_id = NULL, case_key = NULL, salt = NULL, \
             erased_at_ms = ?2 WHERE id = ?1 AND erased_at_ms IS NULL RETURNING turn_count",
        )?
        .query_row(params![session, now_ms.max(0)], |row| row.get(0))?;
    let numbers: Vec<u32> = tx
        .prepare_cached("SELECT number FROM turn WHERE session_id = ?1")?
        .query_map([session], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    if let Some(cold) = archive::texts(tx, directory, session)? {
        for turn in cold {
            history::forget_texts(tx, session, turn.number, &turn.caller_text, &turn.reply_text)?;
        }
        archive::leave_out(tx, directory, session, now_ms)?;
    } else {
        for number in numbers {
            history::forget(tx, session, number)?;
        }
    }
    tx.prepare_cached(
        "UPDATE turn SET caller_text = '', reply_text = '', heard_text = NULL, salt = NULL WHERE session_id = ?1",
    )?
    .execute([session])?;
    tx.prepare_cached("DELETE FROM context WHERE session_id = ?1")?
        .execute([session])?;
    job::give_up(tx, session, "the caller's data were erased", now_ms)?;
    for table in ["transcript", "summary", "archived"] {
        tx.prepare_cached(&format!("DELETE FROM {table} WHERE session_id = ?1"))?
            .execute([session])?;
    }
    tx.prepare_cached("UPDATE session_event SET detail = NULL WHERE session_id = ?1")?
        .execute([session])?;
    crate::stream::erase(tx, session)?;
    // Answers may repeat what was said; which ones, nobody has written down.
    tx.prepare_cached("UPDATE api_answer SET body = NULL WHERE body IS NOT NULL")?
        .execute([])?;
    let erased = Erased {
        what: "personal data",
        turns,
    };
    tx.note(AuditKind::Erasure, Some(session), &erased, now_ms)?;
    done.sessions += 1;
    done.recordings += files.len() as u32;
    Ok(files)
}
