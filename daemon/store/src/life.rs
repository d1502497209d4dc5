//! Life: sessions and turns as they are written, each with its entry in the audit chain.
//!
//! | Written | Entry |
//! |---|---|
//! | session created | `session` begin, with the seal of what it began with |
//! | context sealed | `context` note, with its seal |
//! | transition | `session` note; a terminal state ends what the creation began |
//! | turn | `turn` note, with its seal |

use rusqlite::{Connection, OptionalExtension, params};
use serde::Serialize;

use crate::{
    Context, Driver, EventKind, NewSession, NewTurn, Opened, Outcome, SealedContext, SessionId, SessionKey,
    Source, State, Store, StoreError, TurnNumber,
    audit::{AuditEnd, AuditKind, Hash, Tx, random},
    history, mask, seal,
};

/// Most events kept of one session; a caller leaning on a key must not fill the disk.
const MAX_EVENTS: u32 = 1_000;
/// Longest text of a turn [characters], as in the schema.
const MAX_TEXT: usize = 16_000;
/// Longest context [characters], as in the schema.
const MAX_CONTEXT: usize = 200_000;
/// After an abrupt end a session may be tried again for this long [ms].
const RETRY_WITHIN_MS: i64 = 10 * 60 * 1_000;

#[derive(Serialize)]
struct Begun<'a> {
    line: &'a str,
    direction: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_of: Option<SessionId>,
    sha256: String,
}

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

#[derive(Serialize)]
struct Sealed {
    version: u32,
    sha256: String,
}

#[derive(Serialize)]
struct Said {
    number: u32,
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
        self.write(|tx| {
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
        })
    }
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

fn text(hash: Option<Hash>) -> String {
    hash.unwrap_or(Hash::NONE).to_string()
}

pub(crate) fn standing(db: &Connection, session: SessionId) -> Result<(State, u64), StoreError> {
    db.prepare_cached("SELECT state, version FROM session WHERE id = ?1")?
        .query_row([session], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?
        .ok_or(StoreError::NotFound(session))
}

/// The state of a session that has not ended and has the expected version.
fn compare(db: &Connection, session: SessionId, expected: u64) -> Result<State, StoreError> {
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
    to: State,
    reason: Option<&'a str>,
    /// How the audit chain calls the end, if it is one.
    end: AuditEnd,
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

const fn end_of(state: State) -> AuditEnd {
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

fn note_end(
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
fn at(unix_ms: i64) -> i64 {
    unix_ms.max(0)
}

/// The first `most` characters. SQLite's `length` ends at a NUL, so those go.
fn cut(text: &str, most: usize) -> String {
    text.chars().filter(|c| *c != '\0').take(most).collect()
}

fn optional(text: Option<&str>, most: usize) -> Option<String> {
    text.map(|text| cut(text, most)).filter(|text| !text.is_empty())
}

pub(crate) fn required(text: &str, most: usize) -> String {
    optional(Some(text), most).unwrap_or_else(|| "unknown".to_owned())
}
