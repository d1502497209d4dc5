//! The handle: opening, and everything that writes.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, TransactionBehavior, params};

use crate::{
    EventKind, NewSession, NewTurn, Outcome, SessionId, SessionKey, Source, State, StoreError, TurnNumber,
    migrate,
};

/// The database's file name in the data directory.
pub const DATABASE_FILE: &str = "attendant.db";
/// Locked while a daemon uses the directory.
const LOCK_FILE: &str = "attendant.lock";
/// Longest wait for another process's lock on the file (a backup, a technician's sqlite3).
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Most events kept of one session; a caller leaning on a key must not fill the disk.
const MAX_EVENTS: u32 = 1_000;
/// Longest text of a turn [characters], as in the schema.
const MAX_TEXT: usize = 16_000;

/// Handle to the record; clones share it. See the crate's page on blocking.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    /// `None` when opened read-only.
    writer: Option<Mutex<Connection>>,
    reader: Mutex<Connection>,
    path: PathBuf,
    /// Holds the directory's lock until the last clone is dropped.
    _lock: Option<File>,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("path", &self.shared.path)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the record in `directory`, making both if missing, and brings the schema up to date.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another daemon has it, [`StoreError::TooNew`] when a newer program
    /// wrote it, and what can go wrong with files.
    pub fn open(directory: &Path) -> Result<Store, StoreError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::Directory { path, source }
        };
        make_private_directory(directory).map_err(failed(directory))?;
        let lock_path = directory.join(LOCK_FILE);
        let lock = private_file(&lock_path).map_err(failed(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(StoreError::InUse {
                    path: directory.to_owned(),
                });
            }
            Err(TryLockError::Error(source)) => return Err(failed(&lock_path)(source)),
        }

        let path = directory.join(DATABASE_FILE);
        // Made by us first, so that it is private from its first byte; SQLite gives its side files the same
        // mode.
        private_file(&path).map_err(failed(&path))?;
        let mut writer = Connection::open_with_flags(
            &path,
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        writer.busy_timeout(BUSY_TIMEOUT)?;
        // Before anything that writes: a newer or foreign database is left as it is.
        migrate::check(&writer, &path)?;
        writer.pragma_update(None, "journal_mode", "WAL")?;
        writer.pragma_update(None, "synchronous", "FULL")?;
        writer.pragma_update(None, "journal_size_limit", 16 << 20)?;
        migrate::run(&mut writer, &path)?;
        writer.pragma_update(None, "foreign_keys", true)?;
        let reader = open_reader(&path)?;
        Ok(Store {
            shared: Arc::new(Shared {
                writer: Some(Mutex::new(writer)),
                reader: Mutex::new(reader),
                path,
                _lock: Some(lock),
            }),
        })
    }

    /// Opens an existing record for reading, beside a running daemon or on a stopped one's directory.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when there is none yet, [`StoreError::TooNew`] and the like as for
    /// [`Store::open`].
    pub fn open_read_only(directory: &Path) -> Result<Store, StoreError> {
        let path = directory.join(DATABASE_FILE);
        if !path.is_file() {
            return Err(StoreError::Missing {
                path: directory.to_owned(),
            });
        }
        let reader = open_reader(&path)?;
        if migrate::check(&reader, &path)? == 0 {
            return Err(StoreError::Missing {
                path: directory.to_owned(),
            });
        }
        Ok(Store {
            shared: Arc::new(Shared {
                writer: None,
                reader: Mutex::new(reader),
                path,
                _lock: None,
            }),
        })
    }

    /// The database file.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Ends what an earlier run left open: every session that is not terminal becomes `terminated`, reason
    /// `interrupted`. Call once at start, before any session is created. Returns how many there were.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub fn recover(&self, now_ms: i64) -> Result<usize, StoreError> {
        self.write(|db| {
            let count = db.execute(
                "UPDATE session SET state = 'terminated', version = version + 1, reason = 'interrupted', \
                 ended_at_ms = ?1 WHERE state IN ('created', 'ready', 'in_progress')",
                [at(now_ms)],
            )?;
            Ok(count)
        })
    }

    /// Records a new session, state `created`, version 1.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub fn create_session(&self, new: &NewSession) -> Result<SessionKey, StoreError> {
        let uuid = uuid::Uuid::new_v4().to_string();
        self.write(|db| {
            db.prepare_cached(
                "INSERT INTO session (uuid, line, direction, caller, callee, call_id, profile, stt_model, llm_model, \
                 voice, created_at_ms) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)",
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
            ])?;
            Ok(SessionKey { id: SessionId::new(db.last_insert_rowid()), uuid: uuid.clone(), version: 1 })
        })
    }

    /// Moves a session on, if it still has `expected_version`; returns its new version. `reason` is needed
    /// for terminal states other than `completed`. Going to `in_progress` notes the start, a terminal state
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
        self.write(|db| {
            let (state, version) = standing(db, session)?;
            if state.is_terminal() {
                return Err(StoreError::Final { session, state });
            }
            if version != expected_version {
                return Err(StoreError::Conflict {
                    session,
                    expected: expected_version,
                    found: version,
                });
            }
            step(db, session, state, to, reason, now_ms)?;
            Ok(version + 1)
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
        self.write(|db| {
            let (state, version) = standing(db, session)?;
            if state.is_terminal() {
                return Err(StoreError::Final { session, state });
            }
            step(db, session, state, outcome.state(), Some(reason), now_ms)?;
            Ok(version + 1)
        })
    }

    /// Records a turn and its latencies under the session's next number, all or nothing.
    ///
    /// # Errors
    /// [`StoreError::NotInProgress`], [`StoreError::NotFound`], or of the database; then no number
    /// is used up.
    pub fn append_turn(&self, session: SessionId, turn: &NewTurn) -> Result<TurnNumber, StoreError> {
        self.write(|db| {
            let (state, _) = standing(db, session)?;
            if state != State::InProgress {
                return Err(StoreError::NotInProgress { session, state });
            }
            let number: u32 = db
                .prepare_cached(
                    "UPDATE session SET turn_count = turn_count + 1 WHERE id = ?1 RETURNING turn_count",
                )?
                .query_row([session], |row| row.get(0))?;
            insert_turn(db, session, number, turn)?;
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
        self.write(|db| {
            standing(db, session)?;
            db.prepare_cached(
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

    /// Runs `work` in one immediate transaction on the writer; an error rolls it back.
    fn write<T>(
        &self,
        work: impl FnOnce(&Transaction<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let Some(writer) = &self.shared.writer else {
            return Err(StoreError::ReadOnly);
        };
        // A panic in an earlier holder rolled its transaction back; the connection is sound.
        let mut db = writer.lock().unwrap_or_else(PoisonError::into_inner);
        let transaction = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let done = work(&transaction)?;
        transaction.commit()?;
        Ok(done)
    }

    /// Runs `work` on the reader.
    pub(crate) fn read<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        work(&self.shared.reader.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let reader = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    reader.busy_timeout(BUSY_TIMEOUT)?;
    Ok(reader)
}

fn standing(db: &Connection, session: SessionId) -> Result<(State, u64), StoreError> {
    db.prepare_cached("SELECT state, version FROM session WHERE id = ?1")?
        .query_row([session], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?
        .ok_or(StoreError::NotFound(session))
}

fn step(
    db: &Connection,
    session: SessionId,
    from: State,
    to: State,
    reason: Option<&str>,
    now_ms: i64,
) -> Result<(), StoreError> {
    if !from.may_become(to) {
        return Err(StoreError::Illegal { session, from, to });
    }
    let reason = optional(reason, 400);
    if reason.is_none() && to.is_terminal() && to != State::Completed {
        return Err(StoreError::NoReason { session, state: to });
    }
    let started = (to == State::InProgress).then_some(at(now_ms));
    let ended = to.is_terminal().then_some(at(now_ms));
    db.prepare_cached(
        "UPDATE session SET state = ?2, version = version + 1, reason = coalesce(?3, reason), \
         started_at_ms = coalesce(?4, started_at_ms), ended_at_ms = ?5 WHERE id = ?1",
    )?
    .execute(params![session, to, reason, started, ended])?;
    Ok(())
}

fn insert_turn(db: &Connection, session: SessionId, number: u32, turn: &NewTurn) -> Result<(), StoreError> {
    let hash = turn.prompt_sha256.as_deref().filter(|hash| is_sha256(hash));
    db.prepare_cached(
        "INSERT INTO turn (session_id, number, at_ms, caller_text, reply_text, heard_text, source, interrupted, \
         prompt_sha256) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
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
    ])?;
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

fn required(text: &str, most: usize) -> String {
    optional(Some(text), most).unwrap_or_else(|| "unknown".to_owned())
}

/// Makes the directory for this user alone; an existing one keeps its mode.
fn make_private_directory(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Opens a file for writing, made for this user alone if missing.
fn private_file(path: &Path) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
}
