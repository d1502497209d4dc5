//! Rows of sessions and turns as they are written, with their seals; and what was written before there was a chain.

use rusqlite::{Connection, params};
use serde::Serialize;

use super::steps::{end_of, note_end};
use crate::{
    Driver, NewSession, NewTurn, SessionId, SessionKey, Source, State, StoreError,
    audit::{AuditKind, Hash, Tx, random},
    history, mask, seal,
};

/// Longest text of a turn [characters], as in the schema.
const MAX_TEXT: usize = 16_000;

#[derive(Serialize)]
struct Begun<'a> {
    line: &'a str,
    direction: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_of: Option<SessionId>,
    sha256: String,
}

#[derive(Serialize)]
struct Said {
    number: u32,
    sha256: String,
}

/// Begins the audit chain, and takes into it what was recorded before there was one.
pub(crate) fn adopt(tx: &Tx<'_>, now_ms: i64) -> Result<(), StoreError> {
    let begun: bool = tx.query_row("SELECT EXISTS (SELECT 1 FROM audit)", [], |row| row.get(0))?;
    tx.note_key(at(now_ms))?;
    if begun {
        return Ok(());
    }
    let sessions: Vec<SessionId> = tx
        .prepare_cached("SELECT id FROM session ORDER BY id")?
        .query_map([], |row| row.get(0))?
        .collect::<Result<_, _>>()?;
    for session in sessions {
        tx.execute(
            "UPDATE session SET salt = ?2 WHERE id = ?1",
            params![session, random::<16>()?],
        )?;
        note_session(tx, session, now_ms)?;
        let turns: Vec<u32> = tx
            .prepare_cached("SELECT number FROM turn WHERE session_id = ?1 ORDER BY number")?
            .query_map([session], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for number in turns {
            tx.prepare_cached("UPDATE turn SET salt = ?3 WHERE session_id = ?1 AND number = ?2")?
                .execute(params![session, number, random::<16>()?])?;
            note_turn(tx, session, number, now_ms)?;
        }
        let (state, ended): (State, Option<i64>) = tx.query_row(
            "SELECT state, ended_at_ms FROM session WHERE id = ?1",
            [session],
            |row| Ok((row.get(0)?, row.get(1)?)),
        )?;
        if let Some(ended) = ended {
            note_end(tx, session, state, state, end_of(state), ended)?;
        }
    }
    Ok(())
}

pub(crate) fn create(
    tx: &Tx<'_>,
    new: &NewSession,
    retry_of: Option<SessionId>,
) -> Result<SessionKey, StoreError> {
    let uuid = uuid::Uuid::new_v4().to_string();
    let heartbeat = (new.driver == Driver::Api).then_some(at(new.created_at_ms));
    tx.prepare_cached(
        "INSERT INTO session (uuid, line, direction, caller, callee, call_id, profile, stt_model, llm_model, \
         voice, created_at_ms, salt, case_key, max_turns, heartbeat_at_ms, retry_of) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16)",
    )?
    .execute(params![
        uuid,
        required(&new.line, 200),
        new.direction,
        optional(new.caller.as_deref(), 200),
        optional(new.callee.as_deref(), 200),
        optional(new.call_id.as_deref(), 400),
        required(&new.profile, 100),
        optional(new.stt_model.as_deref(), 200),
        optional(new.llm_model.as_deref(), 200),
        optional(new.voice.as_deref(), 200),
        at(new.created_at_ms),
        random::<16>()?,
        optional(new.case.as_deref(), 200),
        new.max_turns.map(|most| most.clamp(1, 10_000)),
        heartbeat,
        retry_of,
    ])?;
    let id = SessionId::new(tx.last_insert_rowid());
    note_session(tx, id, new.created_at_ms)?;
    Ok(SessionKey { id, uuid, version: 1 })
}

fn note_session(tx: &Tx<'_>, session: SessionId, now_ms: i64) -> Result<(), StoreError> {
    let (line, direction, retry_of): (String, String, Option<SessionId>) = tx
        .prepare_cached("SELECT line, direction, retry_of FROM session WHERE id = ?1")?
        .query_row([session], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
    let begun = Begun {
        line: &mask::digits(&line),
        direction: &direction,
        retry_of,
        sha256: text(seal::session(tx, session)?),
    };
    tx.begin(AuditKind::Session, Some(session), &begun, at(now_ms))?;
    Ok(())
}

pub(crate) fn note_turn(tx: &Tx<'_>, session: SessionId, number: u32, now_ms: i64) -> Result<(), StoreError> {
    let said = Said {
        number,
        sha256: text(seal::turn(tx, session, number)?),
    };
    tx.note(AuditKind::Turn, Some(session), &said, at(now_ms))?;
    Ok(())
}

pub(super) fn text(hash: Option<Hash>) -> String {
    hash.unwrap_or(Hash::NONE).to_string()
}

pub(crate) fn insert_turn(
    db: &Connection,
    session: SessionId,
    number: u32,
    turn: &NewTurn,
) -> Result<(), StoreError> {
    let hash = turn.prompt_sha256.as_deref().filter(|hash| is_sha256(hash));
    db.prepare_cached(
        "INSERT INTO turn (session_id, number, at_ms, caller_text, reply_text, heard_text, source, interrupted, \
         prompt_sha256, salt) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10)",
    )?
    .execute(params![
        session,
        number,
        at(turn.at_ms),
        cut(&turn.caller_text, MAX_TEXT),
        cut(&turn.reply_text, MAX_TEXT),
        turn.heard_text.as_deref().map(|text| cut(text, MAX_TEXT)),
        turn.source.unwrap_or(Source::Realtime),
        turn.interrupted,
        hash,
        random::<16>()?,
    ])?;
    db.prepare_cached(
        "INSERT INTO turn_index (rowid, caller_text, reply_text) \
         SELECT ?3, caller_text, reply_text FROM turn WHERE session_id = ?1 AND number = ?2",
    )?
    .execute(params![session, number, history::place(session, number)])?;
    let l = &turn.latencies;
    db.prepare_cached(
        "INSERT INTO turn_latency (session_id, number, utterance_ms, endpoint_ms, stt_ms, llm_first_token_ms, \
         llm_first_clause_ms, llm_total_ms, tts_first_ms, response_ms, reply_ms, barge_in_stop_ms) \
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
    )?
    .execute(params![
        session,
        number,
        l.utterance_ms,
        l.endpoint_ms,
        l.stt_ms,
        l.llm_first_token_ms,
        l.llm_first_clause_ms,
        l.llm_total_ms,
        l.tts_first_ms,
        l.response_ms,
        l.reply_ms,
        l.barge_in_stop_ms,
    ])?;
    Ok(())
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// A clock before 1970 (an unset one counts from there) must not lose the record.
pub(super) fn at(unix_ms: i64) -> i64 {
    unix_ms.max(0)
}

/// The first `most` characters. SQLite's `length` ends at a NUL, so those go.
pub(crate) fn cut(text: &str, most: usize) -> String {
    text.chars().filter(|c| *c != '\0').take(most).collect()
}

pub(super) fn optional(text: Option<&str>, most: usize) -> Option<String> {
    text.map(|text| cut(text, most)).filter(|text| !text.is_empty())
}

pub(crate) fn required(text: &str, most: usize) -> String {
    optional(Some(text), most).unwrap_or_else(|| "unknown".to_owned())
}
