//! Audit: what happened, append-only, each entry hashed together with the one before it.
//!
//! ```text
//!  begin ──> complete | fail | timed_out        what stays open over a restart: interrupted
//!  note
//! ```
//! An entry is written in the same transaction as what it records, so that neither is there without the other. The
//! payload is a JSON object without personal data: turns, sessions and recordings stand in it as salted hashes, which
//! tell nothing once the salt has been erased. The latest entry is signed at every transaction (`audit_head`), and that
//! signature is kept from time to time as a [`Checkpoint`], which can leave the box on paper.
//!
//! What this cannot see: the whole directory, key included, put back to an earlier day. An exported checkpoint does
//! (`attendant audit verify --checkpoint FILE`).

mod chain;
mod verify;

use std::{
    cell::{Cell, RefCell},
    fmt,
    ops::Deref,
};

use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use serde::Serialize;

use chain::Link;
pub use chain::{Checkpoint, Hash, KEY_FILE, PUBLIC_KEY_FILE};
pub(crate) use chain::{Hasher, Signer, hex, random, secret};
pub use verify::{Finding, Verification};
pub(crate) use verify::{file_hash, verify_copy};

use crate::{SessionId, Store, StoreError};

/// A checkpoint is kept whenever the chain passes a multiple of this.
const CHECKPOINT_EVERY: i64 = 1_000;
/// Longest payload [octets]; the schema's bound is in characters.
const MAX_PAYLOAD: usize = 4_000;
/// Most entries a list gives at once.
const MAX_ROWS: u32 = 10_000;

/// What an entry is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AuditKind {
    /// The key that signs from here on.
    Key,
    /// The daemon's start and stop.
    Daemon,
    /// Settings in force.
    Settings,
    /// A session's life.
    Session,
    /// A turn.
    Turn,
    /// The sealed context of a session.
    Context,
    /// A call that was not taken.
    Refusal,
    /// A call handed to somebody else.
    Transfer,
    /// A recording.
    Recording,
    /// A guardrail that held.
    Guardrail,
    /// A tool that was used.
    Tool,
    /// Data given away.
    Export,
    /// Personal data erased.
    Erasure,
    /// Data kept back from erasure, or no longer.
    LegalHold,
    /// A copy of the database.
    Backup,
    /// The database came from a copy.
    Restore,
    /// Somebody logged in, or failed to.
    Login,
    /// The program was changed.
    Update,
    /// Calls taken over from elsewhere.
    Import,
    /// What was said, made afterwards from the recording.
    Transcript,
    /// What a call was about.
    Summary,
    /// Digits hidden in texts and recordings.
    Redaction,
    /// Old texts moved to cold files.
    Archive,
    /// Work after a call that could not be done.
    Job,
}

impl AuditKind {
    /// As stored.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            AuditKind::Key => "key",
            AuditKind::Daemon => "daemon",
            AuditKind::Settings => "settings",
            AuditKind::Session => "session",
            AuditKind::Turn => "turn",
            AuditKind::Context => "context",
            AuditKind::Refusal => "refusal",
            AuditKind::Transfer => "transfer",
            AuditKind::Recording => "recording",
            AuditKind::Guardrail => "guardrail",
            AuditKind::Tool => "tool",
            AuditKind::Export => "export",
            AuditKind::Erasure => "erasure",
            AuditKind::LegalHold => "legal_hold",
            AuditKind::Backup => "backup",
            AuditKind::Restore => "restore",
            AuditKind::Login => "login",
            AuditKind::Update => "update",
            AuditKind::Import => "import",
            AuditKind::Transcript => "transcript",
            AuditKind::Summary => "summary",
            AuditKind::Redaction => "redaction",
            AuditKind::Archive => "archive",
            AuditKind::Job => "job",
        }
    }
}

/// How something begun ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AuditEnd {
    /// As it should.
    Complete,
    /// It could not be done.
    Fail,
    /// It took too long.
    TimedOut,
    /// Nobody knows: the program stopped in between.
    Interrupted,
}

impl AuditEnd {
    const fn phase(self) -> &'static str {
        match self {
            AuditEnd::Complete => "complete",
            AuditEnd::Fail => "fail",
            AuditEnd::TimedOut => "timed_out",
            AuditEnd::Interrupted => "interrupted",
        }
    }
}

/// An entry's number in the chain: 1, 2, 3 … without gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct AuditSeq(pub(crate) i64);

impl AuditSeq {
    /// The number.
    #[must_use]
    pub const fn get(self) -> i64 {
        self.0
    }

    /// From a number that came from [`AuditSeq::get`]; 0 stands before the first entry.
    #[must_use]
    pub const fn new(seq: i64) -> AuditSeq {
        AuditSeq(seq)
    }
}

impl fmt::Display for AuditSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An entry as stored. Texts, so that an older program can show a newer one's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct AuditEntry {
    /// Its number.
    pub seq: AuditSeq,
    /// When [Unix ms].
    pub at_ms: i64,
    /// As [`AuditKind::as_str`] writes it.
    pub kind: String,
    /// `note`, `begin`, `complete`, `fail`, `timed_out` or `interrupted`.
    pub phase: String,
    /// Of an end: the entry that began it.
    pub begun: Option<AuditSeq>,
    /// The session it belongs to.
    pub session: Option<SessionId>,
    /// A JSON object.
    pub payload: String,
    /// Its hash, 64 hexadecimal digits.
    pub hash: String,
}

impl AuditEntry {
    fn from_row(row: &Row<'_>) -> rusqlite::Result<AuditEntry> {
        let hash: Vec<u8> = row.get(7)?;
        Ok(AuditEntry {
            seq: AuditSeq(row.get(0)?),
            at_ms: row.get(1)?,
            kind: row.get(2)?,
            phase: row.get(3)?,
            begun: row.get::<_, Option<i64>>(4)?.map(AuditSeq),
            session: row.get(5)?,
            payload: row.get(6)?,
            hash: hex(&hash),
        })
    }
}

#[derive(Clone, Copy)]
struct Head {
    seq: i64,
    at_ms: i64,
    hash: Hash,
}

/// A write transaction that may append to the chain. Dropped without [`Tx::commit`] it leaves nothing behind.
pub(crate) struct Tx<'a> {
    db: Transaction<'a>,
    signer: &'a Signer,
    /// Where the chain stands within this transaction, once asked.
    head: RefCell<Option<Head>>,
    appended: Cell<bool>,
}

impl Deref for Tx<'_> {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.db
    }
}

impl<'a> Tx<'a> {
    pub fn new(db: Transaction<'a>, signer: &'a Signer) -> Tx<'a> {
        Tx {
            db,
            signer,
            head: RefCell::new(None),
            appended: Cell::new(false),
        }
    }

    /// Signs where the chain now stands, and commits.
    pub fn commit(self) -> Result<(), StoreError> {
        if let (true, Some(head)) = (self.appended.get(), *self.head.borrow()) {
            let signed = self.signer.sign(head.seq, head.at_ms, head.hash);
            self.db
                .prepare_cached(
                    "INSERT INTO audit_head (one, seq, at_ms, hash, key, signature) VALUES (1, ?1, ?2, ?3, ?4, ?5) \
                     ON CONFLICT (one) DO UPDATE SET seq = ?1, at_ms = ?2, hash = ?3, key = ?4, signature = ?5",
                )?
                .execute(params![
                    signed.seq,
                    signed.at_ms,
                    signed.hash.0,
                    signed.key,
                    signed.signature
                ])?;
            let last: i64 = self
                .db
                .prepare_cached("SELECT coalesce(max(seq), 0) FROM audit_checkpoint")?
                .query_row([], |row| row.get(0))?;
            if head.seq / CHECKPOINT_EVERY > last / CHECKPOINT_EVERY {
                keep(&self.db, &signed)?;
            }
        }
        self.db.commit()?;
        Ok(())
    }

    pub fn note(
        &self,
        kind: AuditKind,
        session: Option<SessionId>,
        payload: &impl Serialize,
        at_ms: i64,
    ) -> Result<AuditSeq, StoreError> {
        self.append(kind.as_str(), "note", None, session, payload, at_ms)
    }

    pub fn begin(
        &self,
        kind: AuditKind,
        session: Option<SessionId>,
        payload: &impl Serialize,
        at_ms: i64,
    ) -> Result<AuditSeq, StoreError> {
        let seq = self.append(kind.as_str(), "begin", None, session, payload, at_ms)?;
        self.db
            .prepare_cached("INSERT INTO audit_open (seq, kind, session) VALUES (?1, ?2, ?3)")?
            .execute(params![seq.0, kind.as_str(), session])?;
        Ok(seq)
    }

    /// Ends what `begun` began; [`StoreError::NotOpen`] when it has ended already.
    pub fn end(
        &self,
        begun: AuditSeq,
        end: AuditEnd,
        payload: &impl Serialize,
        at_ms: i64,
    ) -> Result<AuditSeq, StoreError> {
        let open: Option<(String, Option<SessionId>)> = self
            .db
            .prepare_cached("DELETE FROM audit_open WHERE seq = ?1 RETURNING kind, session")?
            .query_row([begun.0], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let (kind, session) = open.ok_or(StoreError::NotOpen { entry: begun })?;
        self.append(&kind, end.phase(), Some(begun), session, payload, at_ms)
    }

    /// What began for a session and has not ended.
    pub fn open_of(&self, kind: AuditKind, session: SessionId) -> Result<Option<AuditSeq>, StoreError> {
        let seq = self
            .db
            .prepare_cached("SELECT seq FROM audit_open WHERE session = ?1 AND kind = ?2")?
            .query_row(params![session, kind.as_str()], |row| row.get(0))
            .optional()?;
        Ok(seq.map(AuditSeq))
    }

    /// Ends, as interrupted, whatever is open, but for recordings: those are repaired and sealed first.
    pub fn interrupt_open(&self, at_ms: i64) -> Result<usize, StoreError> {
        let open: Vec<i64> = self
            .db
            .prepare_cached("SELECT seq FROM audit_open WHERE kind <> 'recording' ORDER BY seq")?
            .query_map([], |row| row.get(0))?
            .collect::<Result<_, _>>()?;
        for seq in &open {
            self.end(AuditSeq(*seq), AuditEnd::Interrupted, &Nothing {}, at_ms)?;
        }
        Ok(open.len())
    }

    fn append(
        &self,
        kind: &str,
        phase: &str,
        begun: Option<AuditSeq>,
        session: Option<SessionId>,
        payload: &impl Serialize,
        at_ms: i64,
    ) -> Result<AuditSeq, StoreError> {
        let payload = serde_json::to_string(payload).map_err(|source| StoreError::Payload { source })?;
        if payload.len() > MAX_PAYLOAD || !payload.starts_with('{') {
            return Err(StoreError::BadPayload {
                octets: payload.len(),
            });
        }
        let before = self.head()?;
        let link = Link {
            seq: before.map_or(0, |head| head.seq) + 1,
            at_ms: at_ms.max(0),
            begun: begun.map_or(0, AuditSeq::get),
            session: session.map_or(0, SessionId::get),
            kind: kind.as_bytes(),
            phase: phase.as_bytes(),
            payload: payload.as_bytes(),
        };
        let hash = link.hash(before.map_or(Hash::NONE, |head| head.hash));
        self.db
            .prepare_cached(
                "INSERT INTO audit (seq, at_ms, kind, phase, begun, session, payload, hash) \
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)",
            )?
            .execute(params![
                link.seq,
                link.at_ms,
                kind,
                phase,
                begun.map(AuditSeq::get),
                session,
                payload,
                hash.0
            ])?;
        self.head.replace(Some(Head {
            seq: link.seq,
            at_ms: link.at_ms,
            hash,
        }));
        self.appended.set(true);
        Ok(AuditSeq(link.seq))
    }

    fn head(&self) -> Result<Option<Head>, StoreError> {
        if let Some(head) = *self.head.borrow() {
            return Ok(Some(head));
        }
        let head = self
            .db
            .prepare_cached("SELECT seq, at_ms, hash FROM audit_head")?
            .query_row([], |row| {
                Ok(Head {
                    seq: row.get(0)?,
                    at_ms: row.get(1)?,
                    hash: Hash(row.get(2)?),
                })
            })
            .optional()?;
        self.head.replace(head);
        Ok(head)
    }

    /// Notes the key that signs from here on, if it is another than before.
    pub fn note_key(&self, at_ms: i64) -> Result<(), StoreError> {
        let before: Option<[u8; 32]> = self
            .db
            .query_row("SELECT key FROM audit_head", [], |row| row.get(0))
            .optional()?;
        if before == Some(self.signer.public()) {
            return Ok(());
        }
        let key = KeyPayload {
            public_key: hex(&self.signer.public()),
            before: before.map(|key| hex(&key)),
        };
        self.note(AuditKind::Key, None, &key, at_ms)?;
        Ok(())
    }
}

fn keep(db: &Connection, signed: &Checkpoint) -> Result<(), StoreError> {
    db.prepare_cached(
        "INSERT INTO audit_checkpoint (seq, at_ms, hash, key, signature) VALUES (?1, ?2, ?3, ?4, ?5) \
         ON CONFLICT (seq) DO NOTHING",
    )?
    .execute(params![
        signed.seq,
        signed.at_ms,
        signed.hash.0,
        signed.key,
        signed.signature
    ])?;
    Ok(())
}

/// A payload that says nothing more.
#[derive(Serialize)]
pub(crate) struct Nothing {}

#[derive(Serialize)]
struct KeyPayload {
    public_key: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    before: Option<String>,
}

/// A method of the store that appends one entry, as [`Tx`] does it.
macro_rules! appends {
    ($(#[$doc:meta])* $name:ident, $how:ident) => {
        $(#[$doc])*
        pub fn $name(
            &self,
            kind: AuditKind,
            session: Option<SessionId>,
            payload: &impl Serialize,
            now_ms: i64,
        ) -> Result<AuditSeq, StoreError> {
            self.write(|tx| tx.$how(kind, session, payload, now_ms))
        }
    };
}

impl Store {
    appends! {
        /// Appends one entry. The payload serialises to a JSON object of at most 4000 octets, without personal data.
        ///
        /// # Errors
        /// [`StoreError::BadPayload`], or of the database.
        audit_note, note
    }

    appends! {
        /// Appends the beginning of something that [`Store::audit_end`] ends; if nobody does, the next start does, as
        /// interrupted.
        ///
        /// # Errors
        /// As for [`Store::audit_note`].
        audit_begin, begin
    }

    /// Appends the end of what `begun` began.
    ///
    /// # Errors
    /// [`StoreError::NotOpen`] when it has ended already, else as for [`Store::audit_note`].
    pub fn audit_end(
        &self,
        begun: AuditSeq,
        end: AuditEnd,
        payload: &impl Serialize,
        now_ms: i64,
    ) -> Result<AuditSeq, StoreError> {
        self.write(|tx| tx.end(begun, end, payload, now_ms))
    }

    /// The entries after `after` (at most 10,000 at once), oldest first.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub fn audit_entries(&self, after: AuditSeq, limit: u32) -> Result<Vec<AuditEntry>, StoreError> {
        self.read(|db| {
            let mut statement = db.prepare_cached(
                "SELECT seq, at_ms, kind, phase, begun, session, payload, hash FROM audit \
                 WHERE seq > ?1 ORDER BY seq LIMIT ?2",
            )?;
            let rows = statement.query_map(params![after.0, limit.min(MAX_ROWS)], AuditEntry::from_row)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// Where the chain stands, signed; `None` before the first entry.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub fn checkpoint(&self) -> Result<Option<Checkpoint>, StoreError> {
        self.read(|db| {
            Ok(db
                .prepare_cached("SELECT seq, at_ms, hash, key, signature FROM audit_head")?
                .query_row([], checkpoint_from_row)
                .optional()?)
        })
    }

    /// Keeps where the chain stands, unless that was kept already; returns whether it was.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub fn keep_checkpoint(&self) -> Result<bool, StoreError> {
        let Some(now) = self.checkpoint()? else {
            return Ok(false);
        };
        self.write(|tx| {
            let kept: bool = tx
                .prepare_cached("SELECT EXISTS (SELECT 1 FROM audit_checkpoint WHERE seq = ?1)")?
                .query_row([now.seq], |row| row.get(0))?;
            if !kept {
                keep(tx, &now)?;
            }
            Ok(!kept)
        })
    }

    /// The checkpoints kept (at most 10,000), newest first.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub fn checkpoints(&self, limit: u32) -> Result<Vec<Checkpoint>, StoreError> {
        self.read(|db| {
            let mut statement = db.prepare_cached(
                "SELECT seq, at_ms, hash, key, signature FROM audit_checkpoint ORDER BY seq DESC LIMIT ?1",
            )?;
            let rows = statement.query_map([limit.min(MAX_ROWS)], checkpoint_from_row)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }
}

fn checkpoint_from_row(row: &Row<'_>) -> rusqlite::Result<Checkpoint> {
    Ok(Checkpoint {
        seq: row.get(0)?,
        at_ms: row.get(1)?,
        hash: Hash(row.get(2)?),
        key: row.get(3)?,
        signature: row.get(4)?,
    })
}
