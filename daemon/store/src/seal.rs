//! Seal: salted hashes of sessions and turns, as they stand in the audit chain.
//!
//! The salt stands in the row itself. Who alters a row cannot find another text with the same hash; who erases it takes
//! the salt along, and the hash that stays in the chain can no longer be tried against numbers or sentences.

use rusqlite::{Connection, OptionalExtension, Row, types::ValueRef};

use crate::{
    SessionId, StoreError,
    archive::ColdTurn,
    audit::{Hash, Hasher},
};

/// A turn by session and number, columns as [`of_turn`] reads them.
pub const TURN: &str = "SELECT salt, session_id, number, at_ms, caller_text, reply_text, heard_text, source, \
     interrupted, prompt_sha256 FROM turn WHERE session_id = ?1 AND number = ?2";

/// The hash of a turn; `None` when it has no salt. An outsider may have written anything into the row, so that nothing
/// is taken for a text that is none.
pub fn of_turn(row: &Row<'_>) -> rusqlite::Result<Option<Hash>> {
    row_hash(row, b"attendant turn v1\0", 10)
}

/// The hash of a turn whose texts are elsewhere; columns as for [`of_turn`].
pub fn of_cold_turn<'a>(row: &'a Row<'_>, texts: &'a ColdTurn) -> rusqlite::Result<Option<Hash>> {
    row_hash_with(row, b"attendant turn v1\0", 10, |column| match column {
        4 => Some(ValueRef::Text(texts.caller_text.as_bytes())),
        5 => Some(ValueRef::Text(texts.reply_text.as_bytes())),
        6 => Some(match &texts.heard_text {
            Some(text) => ValueRef::Text(text.as_bytes()),
            None => ValueRef::Null,
        }),
        _ => None,
    })
}

/// What is known of a session when it begins, columns as [`of_session`] reads them.
pub const SESSION: &str = "SELECT salt, id, uuid, line, direction, caller, callee, call_id, profile, stt_model, \
     llm_model, voice, case_key, max_turns, retry_of, created_at_ms FROM session WHERE id = ?1";

/// The hash of a session's beginning; `None` when it has no salt.
pub fn of_session(row: &Row<'_>) -> rusqlite::Result<Option<Hash>> {
    row_hash(row, b"attendant session v1\0", 16)
}

/// The sealed context of a session, columns as [`of_context`] reads them.
pub const CONTEXT: &str =
    "SELECT salt, session_id, version, content, sealed_at_ms FROM context WHERE session_id = ?1";

/// The hash of a sealed context.
pub fn of_context(row: &Row<'_>) -> rusqlite::Result<Option<Hash>> {
    row_hash(row, b"attendant context v1\0", 5)
}

/// A final transcript by session and turn, columns as [`of_transcript`] reads them.
pub const TRANSCRIPT: &str = "SELECT salt, session_id, number, source, made_at_ms, text, sure, masked FROM transcript \
     WHERE session_id = ?1 AND number = ?2";

/// The hash of a final transcript.
pub fn of_transcript(row: &Row<'_>) -> rusqlite::Result<Option<Hash>> {
    row_hash(row, b"attendant transcript v1\0", 8)
}

/// The summary of a session, columns as [`of_summary`] reads them.
pub const SUMMARY: &str = "SELECT salt, session_id, made_at_ms, model, outcome, text, follow_ups FROM summary WHERE session_id = ?1";

/// The hash of a summary.
pub fn of_summary(row: &Row<'_>) -> rusqlite::Result<Option<Hash>> {
    row_hash(row, b"attendant summary v1\0", 7)
}

/// SHA-256 over a tag, the salt, then each value: its type in one octet (0 NULL, 1 integer, 2 text, 3 other), and the
/// integer in 8 octets or the octets behind their number in 4.
fn row_hash(row: &Row<'_>, tag: &[u8], columns: usize) -> rusqlite::Result<Option<Hash>> {
    row_hash_with(row, tag, columns, |_| None)
}

/// The same with some of the values from elsewhere.
fn row_hash_with<'a>(
    row: &'a Row<'_>,
    tag: &[u8],
    columns: usize,
    instead: impl Fn(usize) -> Option<ValueRef<'a>>,
) -> rusqlite::Result<Option<Hash>> {
    let mut hasher = Hasher::new(tag);
    for column in 0..columns {
        let value = match instead(column) {
            Some(value) => value,
            None => row.get_ref(column)?,
        };
        match value {
            ValueRef::Null if column == 0 => return Ok(None),
            ValueRef::Null => hasher.raw(&[0]),
            ValueRef::Integer(value) => {
                hasher.raw(&[1]);
                hasher.int(value);
            }
            ValueRef::Text(text) => {
                hasher.raw(&[2]);
                hasher.text(text);
            }
            ValueRef::Blob(bytes) => {
                hasher.raw(&[3]);
                hasher.text(bytes);
            }
            ValueRef::Real(value) => {
                hasher.raw(&[3]);
                hasher.text(&value.to_bits().to_be_bytes());
            }
        }
    }
    Ok(Some(hasher.finish()))
}

/// The hash of a stored turn.
pub fn turn(db: &Connection, session: SessionId, number: u32) -> Result<Option<Hash>, StoreError> {
    Ok(db
        .prepare_cached(TURN)?
        .query_row(rusqlite::params![session, number], of_turn)
        .optional()?
        .flatten())
}

/// The hash of a stored session's beginning.
pub fn session(db: &Connection, session: SessionId) -> Result<Option<Hash>, StoreError> {
    Ok(db
        .prepare_cached(SESSION)?
        .query_row([session], of_session)
        .optional()?
        .flatten())
}

/// The hash of a stored final transcript.
pub fn transcript(db: &Connection, session: SessionId, number: u32) -> Result<Option<Hash>, StoreError> {
    Ok(db
        .prepare_cached(TRANSCRIPT)?
        .query_row(rusqlite::params![session, number], of_transcript)
        .optional()?
        .flatten())
}

/// The hash of a stored summary.
pub fn summary(db: &Connection, session: SessionId) -> Result<Option<Hash>, StoreError> {
    Ok(db
        .prepare_cached(SUMMARY)?
        .query_row([session], of_summary)
        .optional()?
        .flatten())
}

/// The hash of a stored context.
pub fn context(db: &Connection, session: SessionId) -> Result<Option<Hash>, StoreError> {
    Ok(db
        .prepare_cached(CONTEXT)?
        .query_row([session], of_context)
        .optional()?
        .flatten())
}
