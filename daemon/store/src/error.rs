//! Why the store refused, one variant per decision of the caller.

use std::{io, path::PathBuf};

use crate::{
    SessionId, State,
    audit::{AuditSeq, Finding},
};

/// Why a store operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The data directory or its files cannot be made or opened: say so at start and stop.
    #[error("cannot use {}: {source}; check that it exists and that this user may write there", path.display())]
    Directory {
        /// What could not be used.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another attendant has this directory open: stop that one or use another directory.
    #[error("{} is in use by another running attendant; stop it first, or give this one its own data directory",
        path.display())]
    InUse {
        /// The data directory.
        path: PathBuf,
    },
    /// The database was written by a newer program: never touch it.
    #[error(
        "{} was written by a newer attendant (schema {found}, this program knows {supported}); \
         install that version again, or restore a backup made before the update",
        path.display()
    )]
    TooNew {
        /// The database.
        path: PathBuf,
        /// Its schema version.
        found: u32,
        /// Newest schema version of this program.
        supported: u32,
    },
    /// The database is from before this version, and nobody is here to bring it up to date: start the daemon once.
    #[error("{} is from an earlier version; start this version's daemon once, which brings it up to date", path.display())]
    TooOld {
        /// The database.
        path: PathBuf,
    },
    /// The file is a database, but of another program.
    #[error("{} is a database of another program; move it away or choose another data directory", path.display())]
    NotOurs {
        /// The file.
        path: PathBuf,
    },
    /// There is no database yet, and it was to be read only.
    #[error("{} holds no database yet; it is made when the attendant first runs", path.display())]
    Missing {
        /// The data directory.
        path: PathBuf,
    },
    /// The handle came from `open_read_only`: a bug of the caller.
    #[error("the record was opened for reading only")]
    ReadOnly,
    /// A migration failed and was rolled back: the database is as before.
    #[error("migration {name} failed and was undone: {source}")]
    Migration {
        /// The migration's file name.
        name: &'static str,
        /// Why.
        source: rusqlite::Error,
    },
    /// The file is damaged: restore a backup.
    #[error("the database is damaged ({0}); restore a backup")]
    Damaged(String),
    /// A copy's audit chain is not whole: do not use it; verify the original.
    #[error("the record does not verify: {0}")]
    Unsound(Box<Finding>),
    /// The file is no backup.
    #[error("{} is no backup of an attendant, or was cut off", path.display())]
    NoBackup {
        /// The file.
        path: PathBuf,
    },
    /// The disk is full: nothing was written; the call goes on without its record and an alarm is due.
    #[error("the disk is full; nothing was written")]
    DiskFull,
    /// No such session (answer 404).
    #[error("there is no session {0}")]
    NotFound(SessionId),
    /// Somebody else changed the session first: read it again and decide anew (answer 409).
    #[error("session {session} has version {found}, not {expected}: it was changed meanwhile")]
    Conflict {
        /// The session.
        session: SessionId,
        /// Version the caller knew.
        expected: u64,
        /// Version in the database.
        found: u64,
    },
    /// The session has ended; terminal states are final (answer 409).
    #[error("session {session} has ended ({state}); a terminal state is final")]
    Final {
        /// The session.
        session: SessionId,
        /// Its terminal state.
        state: State,
    },
    /// There is no such transition: a bug of the caller.
    #[error("session {session} cannot go from {from} to {to}")]
    Illegal {
        /// The session.
        session: SessionId,
        /// Its state.
        from: State,
        /// The state asked for.
        to: State,
    },
    /// Turns are taken only in progress: a bug of the caller.
    #[error("session {session} is {state}; turns are recorded only in progress")]
    NotInProgress {
        /// The session.
        session: SessionId,
        /// Its state.
        state: State,
    },
    /// A terminal state other than `completed` needs a reason: a bug of the caller.
    #[error("session {session} cannot end as {state} without a reason")]
    NoReason {
        /// The session.
        session: SessionId,
        /// The state asked for.
        state: State,
    },
    /// The case has a session that has not ended: use that one (answer 409).
    #[error("session {session} of the same case has not ended; there is one at a time")]
    CaseActive {
        /// The session.
        session: SessionId,
    },
    /// The session was to be prepared with nothing: it has failed (answer 422).
    #[error("session {session} failed: its context is empty")]
    EmptyContext {
        /// The session.
        session: SessionId,
    },
    /// As many turns as the session may have (answer 409).
    #[error("session {session} has had all of its {max_turns} turns")]
    TooManyTurns {
        /// The session.
        session: SessionId,
        /// Its bound.
        max_turns: u32,
    },
    /// A retry is for sessions that ended abruptly less than 10 minutes ago, once (answer 409).
    #[error("session {session} cannot be tried again: {why}")]
    NoRetry {
        /// The session.
        session: SessionId,
        /// Why not.
        why: &'static str,
    },
    /// A token's name is taken, empty or too long: choose another.
    #[error("a token needs a name of its own, of 1 to 100 characters")]
    TokenName,
    /// Revoke some first.
    #[error("there are too many tokens; revoke those that nobody uses")]
    TooManyTokens,
    /// As many sessions of other programs as may be active at once (answer 409).
    #[error("{most} sessions are active, which is as many as there may be; end one")]
    TooManySessions {
        /// The bound.
        most: u32,
    },
    /// A streamed call takes no more packets, or cannot go where it was to go (answer 409).
    #[error("the call takes no more packets: it is {state}")]
    StreamEnded {
        /// Its state.
        state: String,
    },
    /// A streamed call has as much sound as it may have (answer 413).
    #[error("the call has as much sound as it may have")]
    StreamFull,
    /// No such recording, or not in the state that is needed (answer 409).
    #[error("recording {id} is not there, or has been sealed or erased")]
    NoRecording {
        /// Its row number.
        id: i64,
    },
    /// The job is somebody else's by now, or was never leased: throw its result away.
    #[error("job {job} is not leased by this worker any more")]
    NotLeased {
        /// The job.
        job: i64,
    },
    /// A legal hold keeps the session as it is: try again when it has ended (answer 409).
    #[error("session {session} is on legal hold; nothing of it may change")]
    Held {
        /// The session.
        session: SessionId,
    },
    /// A cold file is not what was archived, or gone: put it back from where it was copied to.
    #[error("the archive {} is missing or was changed; put the copy back that was made of it", path.display())]
    ColdFile {
        /// The file.
        path: PathBuf,
    },
    /// The audit entry has ended already, or never began: a bug of the caller, or the daemon was restarted meanwhile.
    #[error("audit entry {entry} is not open")]
    NotOpen {
        /// The entry that was to be ended.
        entry: AuditSeq,
    },
    /// What was to be audited cannot be written as JSON: a bug of the caller.
    #[error("an audit entry's payload cannot be written: {source}")]
    Payload {
        /// Why.
        source: serde_json::Error,
    },
    /// What was to be audited is too long or no object: a bug of the caller.
    #[error("an audit entry's payload of {octets} octets is refused; wanted: a JSON object of at most 4000")]
    BadPayload {
        /// Its length.
        octets: usize,
    },
    /// A key file holds something else: put the right one back, or move it away to begin with a new key.
    #[error("{} holds no key (64 hexadecimal digits); put the right one back, or move it away to get a new one", path.display())]
    Key {
        /// The file.
        path: PathBuf,
    },
    /// The text given is no checkpoint.
    #[error(
        "this is no checkpoint: the line '{missing} …' is missing or broken; wanted is what `attendant audit checkpoint` prints"
    )]
    NoCheckpoint {
        /// The line.
        missing: &'static str,
    },
    /// The system has no random numbers: without them nothing can be sealed.
    #[error("the system gives no random numbers")]
    Random,
    /// Anything else SQLite reports: log it; the transaction was rolled back.
    #[error("database: {0}")]
    Sqlite(rusqlite::Error),
}

impl StoreError {
    /// Whether the disk is to blame: full, failing, or gone.
    pub fn is_disk(&self) -> bool {
        use rusqlite::ErrorCode;
        match self {
            StoreError::DiskFull | StoreError::Damaged(_) => true,
            StoreError::Sqlite(error) => matches!(
                error.sqlite_error_code(),
                Some(ErrorCode::SystemIoFailure | ErrorCode::ReadOnly | ErrorCode::CannotOpen)
            ),
            _ => false,
        }
    }
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> StoreError {
        use rusqlite::ErrorCode;
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => StoreError::DiskFull,
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
                StoreError::Damaged(error.to_string())
            }
            Some(_) | None => StoreError::Sqlite(error),
        }
    }
}
