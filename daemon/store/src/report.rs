//! What the admin page asks: the last sessions, one session whole, response times.

use std::path::Path;

use rusqlite::{Connection, OptionalExtension, params};
use serde::Serialize;

use crate::{AfterCall, Event, Session, SessionId, Store, StoreError, Turn, store::open_reader};

/// Most rows a list gives at once.
const MAX_ROWS: u32 = 1_000;
/// Most turns a percentile is taken over.
const MAX_TURNS: u32 = 100_000;

/// A session in a list. Read further fields from `session`.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SessionSummary {
    /// The session itself, with its turn count.
    #[serde(flatten)]
    pub session: Session,
    /// Answer to end [ms]; `None` while it runs or when never answered.
    pub duration_ms: Option<u64>,
    /// Median of what the caller waited per turn [ms].
    pub median_response_ms: Option<u32>,
}

/// A session with all that belongs to it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SessionRecord {
    /// The session itself.
    pub session: Session,
    /// Its turns by number.
    pub turns: Vec<Turn>,
    /// Its events in order.
    pub events: Vec<Event>,
    /// What was made of it afterwards.
    pub after: AfterCall,
}

/// Response times over some turns, by nearest rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Percentiles {
    /// Turns counted.
    pub turns: u32,
    /// Half of the turns were answered within this [ms].
    pub p50_ms: u32,
    /// 95 of 100 were answered within this [ms].
    pub p95_ms: u32,
}

impl Percentiles {
    fn of(mut values: Vec<u32>) -> Option<Percentiles> {
        values.sort_unstable();
        Some(Percentiles {
            turns: u32::try_from(values.len()).unwrap_or(u32::MAX),
            p50_ms: nearest_rank(&values, 50)?,
            p95_ms: nearest_rank(&values, 95)?,
        })
    }
}

/// The smallest value that at least `percent` of all (sorted) do not exceed.
fn nearest_rank(sorted: &[u32], percent: usize) -> Option<u32> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied()
}

impl Store {
    /// The last `limit` sessions (at most 1000), newest first; with `before`, those older than it, for
    /// paging.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub fn list_sessions(
        &self,
        limit: u32,
        before: Option<SessionId>,
    ) -> Result<Vec<SessionSummary>, StoreError> {
        self.read(|db| {
            let sql = format!(
                "SELECT {} FROM session s WHERE s.id < ?1 ORDER BY s.id DESC LIMIT ?2",
                Session::COLUMNS
            );
            let before = before.map_or(i64::MAX, SessionId::get);
            let mut statement = db.prepare_cached(&sql)?;
            let rows = statement.query_map(params![before, limit.min(MAX_ROWS)], Session::from_row)?;
            rows.map(|session| summary(db, session?)).collect()
        })
    }

    /// A session with its turns and events.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], or of the database.
    pub fn session(&self, id: SessionId) -> Result<SessionRecord, StoreError> {
        self.read(|db| record(db, self.directory(), id))
    }

    /// A session without what belongs to it.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], or of the database.
    pub fn session_head(&self, id: SessionId) -> Result<Session, StoreError> {
        self.read(|db| {
            let sql = format!("SELECT {} FROM session s WHERE s.id = ?1", Session::COLUMNS);
            db.prepare_cached(&sql)?
                .query_row([id], Session::from_row)
                .optional()?
                .ok_or(StoreError::NotFound(id))
        })
    }

    /// Turns of a session behind `after` (at most 1000), by number.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub fn turns(&self, id: SessionId, after: u32, limit: u32) -> Result<Vec<Turn>, StoreError> {
        self.read(|db| {
            let sql = format!(
                "SELECT {} FROM turn t LEFT JOIN turn_latency l ON l.session_id = t.session_id AND l.number = t.number \
                 WHERE t.session_id = ?1 AND t.number > ?2 ORDER BY t.number LIMIT ?3",
                Turn::COLUMNS
            );
            let mut statement = db.prepare_cached(&sql)?;
            let rows = statement.query_map(params![id, after, limit.min(MAX_ROWS)], Turn::from_row)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// The last turns of a session (at most 1000), by number.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub fn last_turns(&self, id: SessionId, limit: u32) -> Result<Vec<Turn>, StoreError> {
        let after = self.session_head(id)?.turn_count.saturating_sub(limit);
        self.turns(id, after, limit)
    }

    /// Whether another program keeps the session going, by signs of life.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], or of the database.
    pub fn is_driven(&self, id: SessionId) -> Result<bool, StoreError> {
        self.read(|db| {
            db.prepare_cached("SELECT heartbeat_at_ms IS NOT NULL FROM session WHERE id = ?1")?
                .query_row([id], |row| row.get(0))
                .optional()?
                .ok_or(StoreError::NotFound(id))
        })
    }

    /// The public name of a session.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub fn session_uuid(&self, id: SessionId) -> Result<Option<String>, StoreError> {
        self.read(|db| {
            Ok(db
                .prepare_cached("SELECT uuid FROM session WHERE id = ?1")?
                .query_row([id], |row| row.get(0))
                .optional()?)
        })
    }

    /// The session of a public name.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub fn session_by_uuid(&self, uuid: &str) -> Result<Option<SessionId>, StoreError> {
        self.read(|db| {
            let mut statement = db.prepare_cached("SELECT id FROM session WHERE uuid = ?1")?;
            Ok(statement.query_row([uuid], |row| row.get(0)).optional()?)
        })
    }

    /// What callers waited in the last `turns` turns (at most 100,000) that have a figure; `None` before the
    /// first.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub fn response_percentiles(&self, turns: u32) -> Result<Option<Percentiles>, StoreError> {
        self.read(|db| {
            let mut statement = db.prepare_cached(
                "SELECT response_ms FROM turn_latency WHERE response_ms IS NOT NULL \
                 ORDER BY session_id DESC, number DESC LIMIT ?1",
            )?;
            let values = statement.query_map([turns.min(MAX_TURNS)], |row| row.get(0))?;
            Ok(Percentiles::of(values.collect::<Result<_, _>>()?))
        })
    }

    /// Checks the whole file for damage; reads everything, so it takes seconds on a large one.
    ///
    /// # Errors
    /// [`StoreError::Damaged`] with what SQLite found first.
    pub fn check_integrity(&self) -> Result<(), StoreError> {
        // A connection of its own: pages are shown meanwhile.
        let db = open_reader(self.path())?;
        let verdict: String = db.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        if verdict != "ok" {
            return Err(StoreError::Damaged(verdict));
        }
        let orphans: u32 = db.query_row("SELECT count(*) FROM pragma_foreign_key_check", [], |row| {
            row.get(0)
        })?;
        if orphans > 0 {
            return Err(StoreError::Damaged(format!(
                "{orphans} rows without their session"
            )));
        }
        Ok(())
    }
}

/// Whether a legal hold keeps the session.
pub(crate) fn held(db: &Connection, session: SessionId) -> Result<bool, StoreError> {
    Ok(db
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM legal_hold WHERE session_id = ?1)")?
        .query_row([session], |row| row.get(0))?)
}

pub(crate) fn summary(db: &Connection, session: Session) -> Result<SessionSummary, StoreError> {
    Ok(SessionSummary {
        duration_ms: session.duration_ms(),
        median_response_ms: median_response(db, session.id)?,
        session,
    })
}

fn median_response(db: &Connection, session: SessionId) -> Result<Option<u32>, StoreError> {
    let mut statement = db.prepare_cached(
        "SELECT response_ms FROM turn_latency WHERE session_id = ?1 AND response_ms IS NOT NULL ORDER BY response_ms",
    )?;
    let values: Vec<u32> = statement
        .query_map([session], |row| row.get(0))?
        .collect::<Result<_, rusqlite::Error>>()?;
    Ok(nearest_rank(&values, 50))
}

fn record(db: &Connection, directory: &Path, id: SessionId) -> Result<SessionRecord, StoreError> {
    // One read transaction: session, turns and events of the same instant.
    let transaction = db.unchecked_transaction()?;
    let session = transaction
        .prepare_cached(&format!(
            "SELECT {} FROM session s WHERE s.id = ?1",
            Session::COLUMNS
        ))?
        .query_row([id], Session::from_row)
        .optional()?
        .ok_or(StoreError::NotFound(id))?;
    let sql = format!(
        "SELECT {} FROM turn t LEFT JOIN turn_latency l ON l.session_id = t.session_id AND l.number = t.number \
         WHERE t.session_id = ?1 ORDER BY t.number",
        Turn::COLUMNS
    );
    let mut turns: Vec<Turn> = transaction
        .prepare_cached(&sql)?
        .query_map([id], Turn::from_row)?
        .collect::<Result<_, _>>()?;
    crate::archive::fill(&transaction, directory, id, &mut turns)?;
    let events = transaction
        .prepare_cached("SELECT at_ms, kind, detail FROM session_event WHERE session_id = ?1 ORDER BY id")?
        .query_map([id], |row| {
            Ok(Event {
                at_ms: row.get(0)?,
                kind: row.get(1)?,
                detail: row.get(2)?,
            })
        })?
        .collect::<Result<_, _>>()?;
    let after = crate::after::of_session(&transaction, id)?;
    transaction.finish()?;
    Ok(SessionRecord {
        session,
        turns,
        events,
        after,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_by_nearest_rank() {
        type Case = (&'static [u32], Option<(u32, u32)>);
        let cases: &[Case] = &[
            (&[], None),
            (&[7], Some((7, 7))),
            (&[30, 10, 20], Some((20, 30))),
            (&[10, 20, 30, 40], Some((20, 40))),
        ];
        for (values, want) in cases {
            let got = Percentiles::of(values.to_vec()).map(|p| (p.p50_ms, p.p95_ms));
            assert_eq!(got, *want, "{values:?}");
        }
        let hundred = Percentiles::of((1..=100).rev().collect()).expect("some");
        assert_eq!((hundred.turns, hundred.p50_ms, hundred.p95_ms), (100, 50, 95));
    }
}
