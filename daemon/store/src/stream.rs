//! Stream: calls whose sound another program hands in, packet by packet, in any order.
//!
//! ```text
//! in_progress ──end──> processing ──> completed | failed ──a day later──> archived
//! ```
//! The first packet, whichever it is, makes the call and its session in one transaction; of any number of firsts at once one
//! does it. Packets are encrypted before they come here. When the call has ended they become a recording; a day later they
//! go, and only the recording is left.

use std::str::FromStr;

use rusqlite::{
    OptionalExtension, Row, ToSql, params,
    types::{FromSql, FromSqlError, FromSqlResult, ToSqlOutput, ValueRef},
};
use serde::Serialize;

use crate::{
    NewSession, Outcome, SessionId, State, Store, StoreError, TokenId,
    audit::Tx,
    life::{self, Step},
    session::{UnknownWord, stored_as_word},
    token,
};

/// Most octets of one call: an hour at 16 kHz.
const MAX_OCTETS: i64 = 120 << 20;
/// Packets that are no longer needed are kept for so long [ms].
const KEEP_PACKETS_MS: i64 = 24 * 3_600 * 1_000;

/// Where a streamed call stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StreamState {
    /// Takes packets.
    InProgress,
    /// Its packets are becoming a recording.
    Processing,
    /// It is a recording.
    Completed,
    /// It could not become one.
    Failed,
    /// Its packets are gone.
    Archived,
}

impl StreamState {
    const ALL: [StreamState; 5] = [
        StreamState::InProgress,
        StreamState::Processing,
        StreamState::Completed,
        StreamState::Failed,
        StreamState::Archived,
    ];

    /// As stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            StreamState::InProgress => "in_progress",
            StreamState::Processing => "processing",
            StreamState::Completed => "completed",
            StreamState::Failed => "failed",
            StreamState::Archived => "archived",
        }
    }
}

impl FromStr for StreamState {
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<StreamState, UnknownWord> {
        StreamState::ALL
            .into_iter()
            .find(|state| state.as_str() == word)
            .ok_or_else(|| UnknownWord::new(word))
    }
}

stored_as_word!(StreamState);

/// A packet to be kept.
#[derive(Clone)]
pub struct NewPacket {
    /// Who hands it in.
    pub token: TokenId,
    /// The program's name for the call.
    pub call: String,
    /// From 1.
    pub number: u32,
    /// Encrypted.
    pub sealed: Vec<u8>,
    /// The session to be made if this is the first packet.
    pub session: NewSession,
}

/// What became of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PacketTaken {
    /// It was there before, and was not written again.
    pub duplicate: bool,
    /// The call after it.
    pub call: StreamCall,
}

/// A streamed call as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StreamCall {
    /// Row number.
    pub id: i64,
    /// Whose it is.
    pub token: TokenId,
    /// The program's name for it.
    pub call: String,
    /// Its session.
    pub session: SessionId,
    /// The session's public name.
    pub session_uuid: String,
    /// Where it stands.
    pub state: StreamState,
    /// Different packets taken.
    pub packets: u32,
    /// Packets that came again.
    pub duplicates: u32,
    /// Highest number so far; `highest - packets` are missing.
    pub highest: u32,
    /// Why it failed.
    pub reason: Option<String>,
}

impl StreamCall {
    const SELECT: &'static str = "SELECT c.id, c.token_id, c.call_id, c.session_id, s.uuid, c.state, c.packets, c.duplicates, c.highest, \
         c.reason FROM stream_call c JOIN session s ON s.id = c.session_id";

    fn from_row(row: &Row<'_>) -> rusqlite::Result<StreamCall> {
        Ok(StreamCall {
            id: row.get(0)?,
            token: row.get(1)?,
            call: row.get(2)?,
            session: row.get(3)?,
            session_uuid: row.get(4)?,
            state: row.get(5)?,
            packets: row.get(6)?,
            duplicates: row.get(7)?,
            highest: row.get(8)?,
            reason: row.get(9)?,
        })
    }
}

impl Store {
    /// Takes packets, all in one transaction: each has its own outcome, and one that is refused leaves the others alone.
    ///
    /// # Errors
    /// [`StoreError`] of the database, for all of them. Of one: [`StoreError::StreamEnded`], [`StoreError::StreamFull`].
    pub fn take_packets(
        &self,
        packets: &[NewPacket],
        now_ms: i64,
    ) -> Result<Vec<Result<PacketTaken, StoreError>>, StoreError> {
        self.write(|tx| {
            packets
                .iter()
                .map(|packet| match take(tx, packet, now_ms.max(0)) {
                    Err(error @ (StoreError::StreamEnded { .. } | StoreError::StreamFull)) => Ok(Err(error)),
                    Err(error) => Err(error),
                    Ok(taken) => Ok(Ok(taken)),
                })
                .collect()
        })
    }

    /// A program's streamed call.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub fn stream_call(&self, token: TokenId, call: &str) -> Result<Option<StreamCall>, StoreError> {
        self.read(|db| {
            let sql = format!("{} WHERE c.token_id = ?1 AND c.call_id = ?2", StreamCall::SELECT);
            Ok(db
                .prepare_cached(&sql)?
                .query_row(params![token, call], StreamCall::from_row)
                .optional()?)
        })
    }

    /// Streamed calls in a state (at most 100), the longest silent first; with `silent_ms`, only those for which nothing
    /// came for so long.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub fn stream_calls(
        &self,
        state: StreamState,
        silent_ms: i64,
        now_ms: i64,
    ) -> Result<Vec<StreamCall>, StoreError> {
        self.read(|db| {
            let sql = format!(
                "{} WHERE c.state = ?1 AND c.last_at_ms <= ?2 ORDER BY c.last_at_ms LIMIT 100",
                StreamCall::SELECT
            );
            let mut statement = db.prepare_cached(&sql)?;
            let rows = statement.query_map(params![state, now_ms - silent_ms], StreamCall::from_row)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// No more packets come: the call is to be processed. Asked again, it says how it is.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub fn end_stream(&self, id: i64, now_ms: i64) -> Result<StreamCall, StoreError> {
        self.write(|tx| {
            tx.prepare_cached(
                "UPDATE stream_call SET state = 'processing', ended_at_ms = ?2, last_at_ms = ?2 \
                 WHERE id = ?1 AND state = 'in_progress'",
            )?
            .execute(params![id, now_ms.max(0)])?;
            one(tx, id)
        })
    }

    /// A packet's content as it was handed in; `None`: it is missing.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub fn packet(&self, id: i64, number: u32) -> Result<Option<Vec<u8>>, StoreError> {
        self.read(|db| {
            Ok(db
                .prepare_cached("SELECT sealed FROM stream_packet WHERE stream_id = ?1 AND number = ?2")?
                .query_row(params![id, number], |row| row.get(0))
                .optional()?)
        })
    }

    /// Processing has ended, well or with a reason; its session ends with it.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub fn finish_stream(
        &self,
        id: i64,
        failed: Option<&str>,
        now_ms: i64,
    ) -> Result<StreamCall, StoreError> {
        self.write(|tx| {
            let call = one(tx, id)?;
            if call.state != StreamState::Processing {
                return Ok(call);
            }
            tx.prepare_cached(
                "UPDATE stream_call SET state = ?2, reason = ?3, last_at_ms = ?4 WHERE id = ?1",
            )?
            .execute(params![
                id,
                if failed.is_some() {
                    StreamState::Failed
                } else {
                    StreamState::Completed
                },
                failed.map(|reason| reason.chars().take(400).collect::<String>()),
                now_ms.max(0)
            ])?;
            let (state, _) = life::standing(tx, call.session)?;
            // A restart may have ended it before.
            if !state.is_terminal() {
                let end = match failed {
                    Some(reason) => Step::end(Outcome::Failed, reason),
                    None => Step::end(Outcome::Completed, "the stream was ended"),
                };
                life::step(tx, call.session, state, &end, now_ms)?;
            }
            one(tx, id)
        })
    }

    /// Removes the packets of calls that were processed a day ago; returns how many calls.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub fn archive_streams(&self, now_ms: i64) -> Result<usize, StoreError> {
        self.write(|tx| {
            let done: Vec<i64> = tx
                .prepare_cached(
                    "SELECT id FROM stream_call WHERE state IN ('completed', 'failed') AND last_at_ms <= ?1 LIMIT 20",
                )?
                .query_map([now_ms - KEEP_PACKETS_MS], |row| row.get(0))?
                .collect::<Result<_, _>>()?;
            for id in &done {
                tx.prepare_cached("DELETE FROM stream_packet WHERE stream_id = ?1")?
                    .execute([id])?;
                tx.prepare_cached("UPDATE stream_call SET state = 'archived' WHERE id = ?1")?
                    .execute([id])?;
            }
            Ok(done.len())
        })
    }
}

fn one(tx: &Tx<'_>, id: i64) -> Result<StreamCall, StoreError> {
    let sql = format!("{} WHERE c.id = ?1", StreamCall::SELECT);
    Ok(tx.prepare_cached(&sql)?.query_row([id], StreamCall::from_row)?)
}

fn take(tx: &Tx<'_>, packet: &NewPacket, now_ms: i64) -> Result<PacketTaken, StoreError> {
    let known = tx
        .prepare_cached("SELECT id, state, octets FROM stream_call WHERE token_id = ?1 AND call_id = ?2")?
        .query_row(params![packet.token, packet.call], |row| {
            Ok((
                row.get::<_, i64>(0)?,
                row.get::<_, StreamState>(1)?,
                row.get::<_, i64>(2)?,
            ))
        })
        .optional()?;
    let id = match known {
        Some((_, state, _)) if state != StreamState::InProgress => {
            return Err(StoreError::StreamEnded {
                state: state.as_str().to_owned(),
            });
        }
        Some((_, _, octets)) if octets + packet.sealed.len() as i64 > MAX_OCTETS => {
            return Err(StoreError::StreamFull);
        }
        Some((id, _, _)) => id,
        None => begin(tx, packet, now_ms)?,
    };
    let written = tx
        .prepare_cached(
            "INSERT INTO stream_packet (stream_id, number, sealed) VALUES (?1, ?2, ?3) \
             ON CONFLICT (stream_id, number) DO NOTHING",
        )?
        .execute(params![id, packet.number, packet.sealed])?;
    let duplicate = written == 0;
    let octets = if duplicate { 0 } else { packet.sealed.len() };
    tx.prepare_cached(
        "UPDATE stream_call SET packets = packets + ?2, duplicates = duplicates + ?3, highest = max(highest, ?4), \
         octets = octets + ?5, last_at_ms = ?6 WHERE id = ?1",
    )?
    .execute(params![
        id,
        u32::from(!duplicate),
        u32::from(duplicate),
        packet.number,
        octets as i64,
        now_ms
    ])?;
    Ok(PacketTaken {
        duplicate,
        call: one(tx, id)?,
    })
}

/// The call and its session.
fn begin(tx: &Tx<'_>, packet: &NewPacket, now_ms: i64) -> Result<i64, StoreError> {
    let key = life::create(tx, &packet.session, None)?;
    token::own(tx, key.id, packet.token)?;
    life::step(tx, key.id, State::Created, &Step::to(State::Ready), now_ms)?;
    life::step(tx, key.id, State::Ready, &Step::to(State::InProgress), now_ms)?;
    tx.prepare_cached(
        "INSERT INTO stream_call (token_id, call_id, session_id, began_at_ms, last_at_ms) VALUES (?1, ?2, ?3, ?4, ?4)",
    )?
    .execute(params![packet.token, packet.call, key.id, now_ms])?;
    Ok(tx.last_insert_rowid())
}

/// Takes the packets of a session whose personal data are erased.
pub(crate) fn erase(tx: &Tx<'_>, session: SessionId) -> Result<(), StoreError> {
    tx.prepare_cached(
        "DELETE FROM stream_packet WHERE stream_id IN (SELECT id FROM stream_call WHERE session_id = ?1)",
    )?
    .execute([session])?;
    Ok(())
}
