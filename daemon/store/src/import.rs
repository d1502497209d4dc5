//! Import: calls that ended elsewhere, taken into the record in one transaction.

use rusqlite::params;

use crate::{
    NewSession, NewTurn, Outcome, SessionId, State, Store, StoreError,
    audit::AuditKind,
    life::{self, Step},
};

/// A call that is over.
#[derive(Debug, Clone)]
pub struct FinishedCall {
    /// What is known of it.
    pub session: NewSession,
    /// When it was answered [Unix ms].
    pub started_at_ms: i64,
    /// When it ended [Unix ms].
    pub ended_at_ms: i64,
    /// How.
    pub outcome: Outcome,
    /// Why.
    pub reason: String,
    /// Its turns in order.
    pub turns: Vec<NewTurn>,
}

impl Store {
    /// Takes in calls that are over, all or none. Their entries in the chain have the times of the calls, and follow one
    /// that says they were imported, and when.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub fn import(&self, calls: &[FinishedCall], now_ms: i64) -> Result<Vec<SessionId>, StoreError> {
        self.write(|tx| {
            tx.note(
                AuditKind::Import,
                None,
                &serde_json::json!({ "calls": calls.len() }),
                now_ms,
            )?;
            calls
                .iter()
                .map(|call| {
                    let id = life::create(tx, &call.session, None)?.id;
                    let start = call.started_at_ms;
                    life::step(tx, id, State::Created, &Step::to(State::Ready), start)?;
                    life::step(tx, id, State::Ready, &Step::to(State::InProgress), start)?;
                    for (number, turn) in (1..).zip(&call.turns) {
                        life::insert_turn(tx, id, number, turn)?;
                        life::note_turn(tx, id, number, turn.at_ms)?;
                    }
                    tx.prepare_cached("UPDATE session SET turn_count = ?2 WHERE id = ?1")?
                        .execute(params![id, call.turns.len()])?;
                    let end = Step::end(call.outcome, &call.reason);
                    life::step(tx, id, State::InProgress, &end, call.ended_at_ms)?;
                    Ok(id)
                })
                .collect()
        })
    }
}
