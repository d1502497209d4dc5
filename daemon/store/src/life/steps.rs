//! Steps of a session's life: which may follow which, and how each stands in the chain.

use rusqlite::{Connection, OptionalExtension, params};
use serde::Serialize;

use super::rows::{at, optional};
use crate::{
    Outcome, SessionId, State, StoreError,
    audit::{AuditEnd, AuditKind, Tx},
    mask,
};

#[derive(Serialize)]
struct Stepped<'a> {
    from: &'a str,
    to: &'a str,
    version: u64,
}

#[derive(Serialize)]
struct Ended<'a> {
    from: &'a str,
    to: &'a str,
    version: u64,
    turns: u32,
    reason: Option<String>,
}

pub(crate) fn standing(db: &Connection, session: SessionId) -> Result<(State, u64), StoreError> {
    db.prepare_cached("SELECT state, version FROM session WHERE id = ?1")?
        .query_row([session], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?
        .ok_or(StoreError::NotFound(session))
}

/// The state of a session that has not ended and has the expected version.
pub(super) fn compare(db: &Connection, session: SessionId, expected: u64) -> Result<State, StoreError> {
    let (state, found) = standing(db, session)?;
    if state.is_terminal() {
        return Err(StoreError::Final { session, state });
    }
    if found != expected {
        return Err(StoreError::Conflict {
            session,
            expected,
            found,
        });
    }
    Ok(state)
}

/// Where a session goes.
pub(crate) struct Step<'a> {
    pub(super) to: State,
    pub(super) reason: Option<&'a str>,
    /// How the audit chain calls the end, if it is one.
    pub(super) end: AuditEnd,
}

impl<'a> Step<'a> {
    pub fn to(state: State) -> Step<'a> {
        Step {
            to: state,
            reason: None,
            end: end_of(state),
        }
    }

    pub fn end(outcome: Outcome, reason: &'a str) -> Step<'a> {
        Step {
            to: outcome.state(),
            reason: Some(reason),
            end: end_of(outcome.state()),
        }
    }
}

pub(super) const fn end_of(state: State) -> AuditEnd {
    match state {
        State::Completed | State::Created | State::Ready | State::InProgress => AuditEnd::Complete,
        State::Terminated | State::Failed => AuditEnd::Fail,
        State::Expired => AuditEnd::TimedOut,
    }
}

pub(crate) fn step(
    tx: &Tx<'_>,
    session: SessionId,
    from: State,
    step: &Step<'_>,
    now_ms: i64,
) -> Result<(), StoreError> {
    let to = step.to;
    if !from.may_become(to) {
        return Err(StoreError::Illegal { session, from, to });
    }
    let reason = optional(step.reason, 400);
    if reason.is_none() && to.is_terminal() && to != State::Completed {
        return Err(StoreError::NoReason { session, state: to });
    }
    let started = (to == State::InProgress).then_some(at(now_ms));
    let ended = to.is_terminal().then_some(at(now_ms));
    let version: u64 = tx
        .prepare_cached(
            "UPDATE session SET state = ?2, version = version + 1, reason = coalesce(?3, reason), \
             started_at_ms = coalesce(?4, started_at_ms), ended_at_ms = ?5 WHERE id = ?1 RETURNING version",
        )?
        .query_row(params![session, to, reason, started, ended], |row| row.get(0))?;
    if to.is_terminal() {
        return note_end(tx, session, from, to, step.end, now_ms);
    }
    let stepped = Stepped {
        from: from.as_str(),
        to: to.as_str(),
        version,
    };
    tx.note(AuditKind::Session, Some(session), &stepped, at(now_ms))?;
    Ok(())
}

pub(super) fn note_end(
    tx: &Tx<'_>,
    session: SessionId,
    from: State,
    to: State,
    end: AuditEnd,
    now_ms: i64,
) -> Result<(), StoreError> {
    let ended = tx
        .prepare_cached("SELECT version, turn_count, reason FROM session WHERE id = ?1")?
        .query_row([session], |row| {
            Ok(Ended {
                from: from.as_str(),
                to: to.as_str(),
                version: row.get(0)?,
                turns: row.get(1)?,
                reason: row
                    .get::<_, Option<String>>(2)?
                    .map(|reason| mask::digits(&reason)),
            })
        })?;
    let begun = tx.open_of(AuditKind::Session, session)?;
    // A session whose beginning was taken off the list by an outsider still ends.
    match begun {
        Some(begun) => tx.end(begun, end, &ended, at(now_ms))?,
        None => tx.note(AuditKind::Session, Some(session), &ended, at(now_ms))?,
    };
    Ok(())
}
