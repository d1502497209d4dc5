//! Life: sessions and turns as they are written, each with its entry in the audit chain.
//!
//! | Written | Entry |
//! |---|---|
//! | session created | `session` begin, with the seal of what it began with |
//! | context sealed | `context` note, with its seal |
//! | transition | `session` note; a terminal state ends what the creation began |
//! | turn | `turn` note, with its seal |

mod rows;
mod steps;

use rusqlite::{OptionalExtension, params};
use serde::Serialize;

use crate::{
    Context, Driver, EventKind, NewSession, NewTurn, Opened, Outcome, SealedContext, SessionId, SessionKey,
    State, Store, StoreError, TurnNumber,
    audit::{AuditEnd, AuditKind, Hash, Tx, random},
    seal,
};
pub(crate) use rows::{adopt, create, cut, insert_turn, note_turn, required};
use rows::{at, optional, text};
pub(crate) use steps::{Step, standing, step};
use steps::{compare, end_of};

/// Most events kept of one session; a caller leaning on a key must not fill the disk.
const MAX_EVENTS: u32 = 1_000;
/// Longest context [characters], as in the schema.
const MAX_CONTEXT: usize = 200_000;
/// After an abrupt end a session may be tried again for this long [ms].
const RETRY_WITHIN_MS: i64 = 10 * 60 * 1_000;

#[derive(Serialize)]
struct Sealed {
    version: u32,
    sha256: String,
}

impl Store {
    /// Ends what an earlier run left open: every session that is not terminal becomes `terminated`, reason
    /// `interrupted`, and whatever else began is closed as interrupted. Call once at start, before any session is
    /// created. Returns how many sessions there were.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub fn recover(&self, now_ms: i64) -> Result<usize, StoreError> {
        self.remove_erased()?;
        self.settle_archives()?;
        self.write(|tx| {
            let open: Vec<(SessionId, State)> = tx
                .prepare_cached(
                    "SELECT id, state FROM session WHERE state IN ('created', 'ready', 'in_progress') ORDER BY id",
                )?
                .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<Result<_, _>>()?;
            for (session, state) in &open {
                let to = Step {
                    to: State::Terminated,
                    reason: Some("interrupted"),
                    end: AuditEnd::Interrupted,
                };
                step(tx, *session, *state, &to, now_ms)?;
            }
            tx.interrupt_open(at(now_ms))?;
            Ok(open.len())
        })
    }

    /// Records a new session, state `created`, version 1.
    ///
    /// # Errors
    /// [`StoreError::CaseActive`] when its case has one that has not ended, or of the database.
    pub fn create_session(&self, new: &NewSession) -> Result<SessionKey, StoreError> {
        self.write(|tx| match active(tx, new.case.as_deref())? {
            Some(key) => Err(StoreError::CaseActive { session: key.id }),
            None => create(tx, new, None),
        })
    }

    /// The session of the case that has not ended, else a new one: of any number that ask at once, one makes it and
    /// the others get the same.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub fn open_session(&self, new: &NewSession) -> Result<(SessionKey, Opened), StoreError> {
        self.write(|tx| match active(tx, new.case.as_deref())? {
            Some(key) => Ok((key, Opened::Active)),
            None => Ok((create(tx, new, None)?, Opened::New)),
        })
    }

    /// Seals what the attendant is told before the call, and makes the session `ready`. Nothing to tell is no
    /// preparation: then the session fails. Returns the new version.
    ///
    /// # Errors
    /// [`StoreError::EmptyContext`] (the session is then `failed`); else as for [`Store::transition`], and nothing
    /// changed.
    pub fn prepare(
        &self,
        session: SessionId,
        expected_version: u64,
        context: &Context,
        now_ms: i64,
    ) -> Result<u64, StoreError> {
        let content = cut(&context.content, MAX_CONTEXT);
        let prepared = self.write(|tx| {
            let state = compare(tx, session, expected_version)?;
            if !state.may_become(State::Ready) {
                return Err(StoreError::Illegal {
                    session,
                    from: state,
                    to: State::Ready,
                });
            }
            if content.trim().is_empty() {
                let failed = Step::end(Outcome::Failed, "the context is empty");
                step(tx, session, state, &failed, now_ms)?;
                return Ok(None);
            }
            tx.prepare_cached(
                "INSERT INTO context (session_id, version, content, sha256, sealed_at_ms, salt) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
            )?
            .execute(params![
                session,
                context.version.max(1),
                content,
                Hash::of(content.as_bytes()).to_string(),
                at(now_ms),
                random::<16>()?
            ])?;
            let sealed = Sealed {
                version: context.version.max(1),
                sha256: text(seal::context(tx, session)?),
            };
            tx.note(AuditKind::Context, Some(session), &sealed, at(now_ms))?;
            step(tx, session, state, &Step::to(State::Ready), now_ms)?;
            Ok(Some(expected_version + 1))
        })?;
        prepared.ok_or(StoreError::EmptyContext { session })
    }

    /// The context a session was prepared with, if it was.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub fn context(&self, session: SessionId) -> Result<Option<SealedContext>, StoreError> {
        self.read(|db| {
            Ok(db
                .prepare_cached(
                    "SELECT version, content, sha256, sealed_at_ms FROM context WHERE session_id = ?1",
                )?
                .query_row([session], |row| {
                    Ok(SealedContext {
                        context: Context {
                            version: row.get(0)?,
                            content: row.get(1)?,
                        },
                        sha256: row.get(2)?,
                        sealed_at_ms: row.get(3)?,
                    })
                })
                .optional()?)
        })
    }

    /// A new session in place of one that ended abruptly less than 10 minutes ago; each can be tried again once.
    ///
    /// # Errors
    /// [`StoreError::NoRetry`] with why not, [`StoreError::CaseActive`], [`StoreError::NotFound`], or of the database.
    pub fn retry_session(&self, session: SessionId, now_ms: i64) -> Result<SessionKey, StoreError> {
        self.write(|tx| retry(tx, session, now_ms))
    }

    /// Notes a sign of life of the program that keeps the session going.
    ///
    /// # Errors
    /// [`StoreError::Final`], [`StoreError::NotFound`], or of the database.
    pub fn heartbeat(&self, session: SessionId, now_ms: i64) -> Result<(), StoreError> {
        self.write(|tx| {
            let (state, _) = standing(tx, session)?;
            if state.is_terminal() {
                return Err(StoreError::Final { session, state });
            }
            tx.prepare_cached("UPDATE session SET heartbeat_at_ms = ?2 WHERE id = ?1")?
                .execute(params![session, at(now_ms)])?;
            Ok(())
        })
    }

    /// Ends, as `expired`, the sessions of other programs that gave no sign of life for `silence_ms`; returns them.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub fn reap(&self, silence_ms: i64, now_ms: i64) -> Result<Vec<SessionId>, StoreError> {
        let latest = at(now_ms).saturating_sub(silence_ms.max(0));
        self.write(|tx| {
            let silent: Vec<(SessionId, State)> = tx
                .prepare_cached(
                    "SELECT id, state FROM session WHERE state IN ('created', 'ready', 'in_progress') \
                     AND heartbeat_at_ms IS NOT NULL AND heartbeat_at_ms < ?1 ORDER BY id LIMIT 1000",
                )?
                .query_map([latest], |row| Ok((row.get(0)?, row.get(1)?)))?
                .collect::<Result<_, _>>()?;
            for (session, state) in &silent {
                let expired = Step::end(Outcome::Expired, "no sign of life");
                step(tx, *session, *state, &expired, now_ms)?;
            }
            Ok(silent.into_iter().map(|(session, _)| session).collect())
        })
    }

    /// Moves a session from the version the caller knows to another state; returns the new version. A reason is
    /// needed for terminal states other than `completed`. Going to `in_progress` notes the start, a terminal state
    /// the end.
    ///
    /// # Errors
    /// [`StoreError::Conflict`], [`StoreError::Final`], [`StoreError::Illegal`], [`StoreError::NoReason`],
    /// [`StoreError::NotFound`], or of the database; in each case nothing changed.
    pub fn transition(
        &self,
        session: SessionId,
        expected_version: u64,
        to: State,
        reason: Option<&str>,
        now_ms: i64,
    ) -> Result<u64, StoreError> {
        self.write(|tx| {
            let state = compare(tx, session, expected_version)?;
            let to = Step {
                to,
                reason,
                end: end_of(to),
            };
            step(tx, session, state, &to, now_ms)?;
            Ok(expected_version + 1)
        })
    }

    /// Ends a session whatever its version: the first end wins, a later one gets [`StoreError::Final`].
    /// Record the last turn before. Returns the final version.
    ///
    /// # Errors
    /// As for [`Store::transition`], except `Conflict`. A session that was never answered cannot be
    /// `Completed` ([`StoreError::Illegal`]): it is `Terminated`, `Failed` or `Expired`.
    pub fn finish_session(
        &self,
        session: SessionId,
        outcome: Outcome,
        reason: &str,
        now_ms: i64,
    ) -> Result<u64, StoreError> {
        self.write(|tx| {
            let (state, version) = standing(tx, session)?;
            if state.is_terminal() {
                return Err(StoreError::Final { session, state });
            }
            step(tx, session, state, &Step::end(outcome, reason), now_ms)?;
            Ok(version + 1)
        })
    }

    /// Records a turn and its latencies under the session's next number, all or nothing.
    ///
    /// # Errors
    /// [`StoreError::NotInProgress`], [`StoreError::TooManyTurns`], [`StoreError::NotFound`], or of the database; then
    /// no number is used up.
    pub fn append_turn(&self, session: SessionId, turn: &NewTurn) -> Result<TurnNumber, StoreError> {
        self.write(|tx| {
            let (state, _) = standing(tx, session)?;
            if state != State::InProgress {
                return Err(StoreError::NotInProgress { session, state });
            }
            let (number, max_turns): (u32, Option<u32>) = tx
                .prepare_cached(
                    "UPDATE session SET turn_count = turn_count + 1 WHERE id = ?1 RETURNING turn_count, max_turns",
                )?
                .query_row([session], |row| Ok((row.get(0)?, row.get(1)?)))?;
            if let Some(max_turns) = max_turns.filter(|most| number > *most) {
                return Err(StoreError::TooManyTurns { session, max_turns });
            }
            insert_turn(tx, session, number, turn)?;
            note_turn(tx, session, number, turn.at_ms)?;
            Ok(TurnNumber(number))
        })
    }

    /// Notes an event; `detail` must not hold digits or words of the caller. Beyond 1000 of a session they
    /// are dropped.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], or of the database. Terminal sessions take events, too (a BYE may be late).
    pub fn record_event(
        &self,
        session: SessionId,
        kind: EventKind,
        detail: Option<&str>,
        now_ms: i64,
    ) -> Result<(), StoreError> {
        self.write(|tx| insert_event(tx, session, kind, detail, now_ms))
    }
}

/// As [`Store::record_event`], within a transaction.
pub(crate) fn insert_event(
    tx: &Tx<'_>,
    session: SessionId,
    kind: EventKind,
    detail: Option<&str>,
    now_ms: i64,
) -> Result<(), StoreError> {
    standing(tx, session)?;
    tx.prepare_cached(
        "INSERT INTO session_event (session_id, at_ms, kind, detail) SELECT ?1, ?2, ?3, ?4 \
         WHERE (SELECT count(*) FROM session_event WHERE session_id = ?1) < ?5",
    )?
    .execute(params![
        session,
        at(now_ms),
        kind.as_str(),
        optional(detail, 1_000),
        MAX_EVENTS
    ])?;
    Ok(())
}

pub(crate) fn retry(tx: &Tx<'_>, session: SessionId, now_ms: i64) -> Result<SessionKey, StoreError> {
    let refused = |why| Err(StoreError::NoRetry { session, why });
    let (state, _) = standing(tx, session)?;
    match state {
        State::Created | State::Ready | State::InProgress => return refused("it has not ended"),
        State::Completed => return refused("it was completed"),
        State::Terminated | State::Failed | State::Expired => {}
    }
    let (new, ended_ms) = tx
        .prepare_cached(
            "SELECT line, direction, caller, callee, profile, stt_model, llm_model, voice, case_key, \
             max_turns, heartbeat_at_ms IS NOT NULL, ended_at_ms FROM session WHERE id = ?1",
        )?
        .query_row([session], |row| {
            let new = NewSession {
                line: row.get(0)?,
                direction: row.get(1)?,
                caller: row.get(2)?,
                callee: row.get(3)?,
                call_id: None,
                profile: row.get(4)?,
                stt_model: row.get(5)?,
                llm_model: row.get(6)?,
                voice: row.get(7)?,
                case: row.get(8)?,
                max_turns: row.get(9)?,
                driver: if row.get(10)? { Driver::Api } else { Driver::Call },
                created_at_ms: now_ms,
            };
            Ok((new, row.get::<_, i64>(11)?))
        })?;
    if now_ms.saturating_sub(ended_ms) >= RETRY_WITHIN_MS {
        return refused("it ended 10 minutes ago or more");
    }
    let tried: bool = tx
        .prepare_cached("SELECT EXISTS (SELECT 1 FROM session WHERE retry_of = ?1)")?
        .query_row([session], |row| row.get(0))?;
    if tried {
        return refused("it has been tried again");
    }
    match active(tx, new.case.as_deref())? {
        Some(key) => Err(StoreError::CaseActive { session: key.id }),
        None => create(tx, &new, Some(session)),
    }
}

/// The session of a case that has not ended.
pub(crate) fn active(tx: &Tx<'_>, case: Option<&str>) -> Result<Option<SessionKey>, StoreError> {
    let Some(case) = optional(case, 200) else {
        return Ok(None);
    };
    Ok(tx
        .prepare_cached(
            "SELECT id, uuid, version FROM session \
             WHERE case_key = ?1 AND state IN ('created', 'ready', 'in_progress')",
        )?
        .query_row([case], |row| {
            Ok(SessionKey {
                id: row.get(0)?,
                uuid: row.get(1)?,
                version: row.get(2)?,
            })
        })
        .optional()?)
}
