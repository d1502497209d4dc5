//! Verify: reads the whole chain and everything it vouches for, and names what is not as it was written.
//!
//! A pass in the order of the chain, in as many parts at once as there are cores (each entry is compared with the one
//! before as it is stored), beside a running daemon or on a stopped one's directory.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    path::Path,
    thread,
};

use rusqlite::{Connection, OptionalExtension, Row, types::ValueRef};
use serde::Deserialize;

use super::{
    Checkpoint,
    chain::{Hash, Hasher, Link, from_hex, public_key},
    checkpoint_from_row,
};
use crate::{Store, StoreError, mask, seal, store::open_reader};

/// Findings kept; beyond these they are counted.
const MAX_FINDINGS: usize = 100;

/// Most threads that read; beyond these the disk is what they wait for.
const MAX_THREADS: usize = 4;
/// An entry, columns as [`Entry::read`] reads them.
const ENTRY: &str = "SELECT seq, at_ms, begun, session, kind, phase, payload, hash FROM audit";

/// Something that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Finding {
    /// A row of `audit` was changed.
    #[error("entry {seq} was altered")]
    EntryAltered {
        /// Its number.
        seq: i64,
    },
    /// A row of `audit` was put into another's place.
    #[error("entry {seq} was moved: what belongs there stands as entry {found_at}")]
    EntryMoved {
        /// The place.
        seq: i64,
        /// Where its entry is now.
        found_at: i64,
    },
    /// Rows of `audit` are gone.
    #[error("entry {from} is missing{}", upto(*.from, *.to))]
    EntryMissing {
        /// First that is missing.
        from: i64,
        /// Last.
        to: i64,
    },
    /// Rows of `audit` were added without the key.
    #[error("entry {from} was added by another program: it is not covered by the signed head (entry {head})")]
    EntryUnsigned {
        /// First of them.
        from: i64,
        /// Entry of the head.
        head: i64,
    },
    /// The signed head is gone or false.
    #[error("the signed head of the chain {what}")]
    Head {
        /// What is wrong.
        what: &'static str,
    },
    /// A checkpoint does not fit the chain.
    #[error("the checkpoint at entry {seq} {what}")]
    Checkpoint {
        /// Its entry.
        seq: i64,
        /// What is wrong.
        what: &'static str,
    },
    /// A row of `turn` was changed.
    #[error("turn {number} of session {session} was altered (entry {entry} vouches for another)")]
    TurnAltered {
        /// Session.
        session: i64,
        /// Turn.
        number: i64,
        /// The audit entry.
        entry: i64,
    },
    /// A row of `turn` is gone.
    #[error("turn {number} of session {session} is missing (entry {entry} vouches for it)")]
    TurnMissing {
        /// Session.
        session: i64,
        /// Turn.
        number: i64,
        /// The audit entry.
        entry: i64,
    },
    /// A row of `turn` was added.
    #[error("turn {number} of session {session} was added: no entry vouches for it")]
    TurnAdded {
        /// Session.
        session: i64,
        /// Turn.
        number: i64,
    },
    /// A row of `session` was changed.
    #[error("session {session} was altered: {what} (entry {entry} vouches for another)")]
    SessionAltered {
        /// Session.
        session: i64,
        /// What differs.
        what: &'static str,
        /// The audit entry.
        entry: i64,
    },
    /// A row of `session` is gone.
    #[error("session {session} is missing (entry {entry} vouches for it)")]
    SessionMissing {
        /// Session.
        session: i64,
        /// The audit entry.
        entry: i64,
    },
    /// A row of `session` was added.
    #[error("session {session} was added: no entry vouches for it")]
    SessionAdded {
        /// Session.
        session: i64,
    },
    /// A sealed context was changed.
    #[error("the context of session {session} was altered (entry {entry} vouches for another)")]
    ContextAltered {
        /// Session.
        session: i64,
        /// The audit entry.
        entry: i64,
    },
    /// A recording's file or row was changed.
    #[error(
        "recording {recording} of session {session} was altered: {what} (entry {entry} vouches for another)"
    )]
    RecordingAltered {
        /// Its public name.
        recording: String,
        /// Session.
        session: i64,
        /// What differs.
        what: &'static str,
        /// The audit entry.
        entry: i64,
    },
    /// A recording's file or row is gone.
    #[error("recording {recording} of session {session} is missing (entry {entry} vouches for it)")]
    RecordingMissing {
        /// Its public name.
        recording: String,
        /// Session.
        session: i64,
        /// The audit entry.
        entry: i64,
    },
    /// Personal data are gone and no erasure stands in the chain.
    #[error("data of session {session} were removed without an erasure in the chain")]
    ErasedUnseen {
        /// Session.
        session: i64,
    },
    /// A trigger that protects the record is gone.
    #[error("the database no longer refuses changes: its trigger {name} is {what}")]
    Guard {
        /// Name of the trigger.
        name: String,
        /// Missing or changed.
        what: &'static str,
    },
}

fn upto(from: i64, to: i64) -> String {
    if to > from {
        format!(", and all up to {to}")
    } else {
        String::new()
    }
}

/// What a verification saw.
#[derive(Debug, Clone, Default)]
pub struct Verification {
    /// Entries read.
    pub entries: u64,
    /// Sessions compared.
    pub sessions: u64,
    /// Turns compared.
    pub turns: u64,
    /// Recordings compared, those erased included.
    pub recordings: u64,
    /// Sessions whose personal data were erased, as the chain tells.
    pub erased: u64,
    /// Begun, and not ended yet.
    pub open: u64,
    /// Checkpoints compared, the one given included.
    pub checkpoints: u64,
    /// Where the chain stands.
    pub head: Option<Checkpoint>,
    /// What is wrong, the first in the chain first (at most 100).
    pub findings: Vec<Finding>,
    /// Findings beyond those.
    pub more: u64,
}

impl Verification {
    /// Whether all is as it was written.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        self.findings.is_empty()
    }

    fn find(&mut self, finding: Finding) {
        if self.findings.len() < MAX_FINDINGS {
            self.findings.push(finding);
        } else {
            self.more += 1;
        }
    }
}

#[derive(Deserialize)]
struct TurnPayload {
    number: i64,
    sha256: String,
}

#[derive(Deserialize)]
struct BeginPayload {
    sha256: String,
}

#[derive(Deserialize)]
struct EndPayload {
    to: String,
    version: i64,
    turns: i64,
    reason: Option<String>,
}

#[derive(Deserialize)]
struct RecordingPayload {
    recording: String,
    sha256: Option<String>,
    octets: Option<u64>,
}

#[derive(Deserialize)]
struct KeyPayload {
    public_key: String,
}

impl Store {
    /// Verifies the chain, and with it sessions, turns and the files of recordings; `checkpoint` is one that left the box.
    ///
    /// # Errors
    /// [`StoreError`] of the database, if it cannot be read. What was tampered with is no error but a finding.
    pub fn verify(&self, checkpoint: Option<&Checkpoint>) -> Result<Verification, StoreError> {
        // Connections of their own: seconds of reading must not hold up the pages.
        let db = open_reader(self.path())?;
        if crate::migrate::version(&db)? < crate::migrate::newest() {
            return Err(StoreError::TooOld {
                path: self.path().to_owned(),
            });
        }
        let threads = thread::available_parallelism().map_or(1, |n| n.get().min(MAX_THREADS));
        let seen = self.verify_with(&db, checkpoint, threads)?;
        // Threads read at slightly different instants. What was written or erased in between is no finding: one that
        // stays in a single instant is.
        if !seen.is_sound() && head(&db)? != seen.head {
            return self.verify_with(&db, checkpoint, 1);
        }
        Ok(seen)
    }

    fn verify_with(
        &self,
        db: &Connection,
        checkpoint: Option<&Checkpoint>,
        threads: usize,
    ) -> Result<Verification, StoreError> {
        let snapshot = db.unchecked_transaction()?;
        let new = || Walk::new(self.directory(), checkpoint);
        let last = last(&snapshot)?;
        let share = last / i64::try_from(threads).unwrap_or(1) + 1;
        let mut walk = new();
        thread::scope(|scope| {
            let others: Vec<_> = (1..threads.max(1) as i64)
                .map(|n| (n * share + 1, last.min((n + 1) * share)))
                .filter(|(from, to)| from <= to)
                .map(|(from, to)| {
                    scope.spawn(move || {
                        let db = open_reader(self.path())?;
                        let snapshot = db.unchecked_transaction()?;
                        let mut walk = new();
                        walk.entries(&snapshot, from, to)?;
                        Ok::<_, StoreError>(walk)
                    })
                })
                .collect();
            walk.entries(&snapshot, 1, last.min(share))?;
            for other in others {
                let other = other
                    .join()
                    .unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
                walk.join(other);
            }
            Ok::<_, StoreError>(())
        })?;
        let seen = walk.finish(&snapshot, last)?;
        snapshot.finish()?;
        Ok(seen)
    }
}

/// Verifies a copy of the database by itself: recordings and keys are no part of it.
pub fn verify_copy(db: &Connection) -> Result<Verification, StoreError> {
    let snapshot = db.unchecked_transaction()?;
    let mut walk = Walk::new(Path::new(""), None);
    walk.public_key = None;
    walk.files = Files::Elsewhere;
    let last = last(&snapshot)?;
    walk.entries(&snapshot, 1, last)?;
    let seen = walk.finish(&snapshot, last)?;
    snapshot.finish()?;
    Ok(seen)
}

/// Where the files of recordings are.
#[derive(PartialEq, Eq)]
enum Files {
    InDirectory,
    /// With another copy.
    Elsewhere,
}

/// The state of a pass.
struct Walk<'a> {
    seen: Verification,
    directory: &'a Path,
    files: Files,
    public_key: Option<[u8; 32]>,
    given: Option<&'a Checkpoint>,
    /// Keys that the chain itself names.
    keys: HashSet<[u8; 32]>,
    erased: HashSet<i64>,
    /// Sessions found without salt.
    unsalted: HashSet<i64>,
    /// Recordings whose erasure stands in the chain, and those found erased.
    erased_recordings: HashSet<String>,
    gone_recordings: Vec<Finding>,
    begun: HashSet<i64>,
    ended: HashSet<i64>,
    /// Hashes of the entries that a checkpoint or the head vouches for.
    hashes: HashMap<i64, Hash>,
    missed: bool,
}

impl<'a> Walk<'a> {
    fn new(directory: &'a Path, given: Option<&'a Checkpoint>) -> Walk<'a> {
        Walk {
            seen: Verification::default(),
            directory,
            files: Files::InDirectory,
            public_key: public_key(directory),
            given,
            keys: HashSet::new(),
            erased: HashSet::new(),
            unsalted: HashSet::new(),
            erased_recordings: HashSet::new(),
            gone_recordings: Vec::new(),
            begun: HashSet::new(),
            ended: HashSet::new(),
            hashes: HashMap::new(),
            missed: false,
        }
    }

    /// Reads the entries `from` to `to`.
    fn entries(&mut self, db: &Connection, from: i64, to: i64) -> Result<(), StoreError> {
        let checkpoints: HashSet<i64> = kept(db)?
            .iter()
            .chain(self.given)
            .map(|checkpoint| checkpoint.seq)
            .chain(head(db)?.map(|head| head.seq))
            .collect();
        let mut previous = match from {
            1 => Some(Hash::NONE),
            _ => hash_of(db, from - 1)?,
        };
        let mut expected = from;
        let mut statement = db.prepare(&format!("{ENTRY} WHERE seq BETWEEN ?1 AND ?2 ORDER BY seq"))?;
        // A number below 1 is no place in the chain; the first part looks at it all the same.
        let mut rows = statement.query([if from == 1 { i64::MIN } else { from }, to])?;
        while let Some(row) = rows.next()? {
            let entry = Entry::read(row)?;
            let seq = entry.link.seq;
            if seq > expected {
                self.missing(expected, seq - 1);
                previous = None;
            }
            if previous.is_some_and(|before| entry.link.hash(before) != entry.hash) {
                let finding = self.why(db, seq, previous)?;
                self.seen.find(finding);
            }
            if checkpoints.contains(&seq) {
                self.hashes.insert(seq, entry.hash);
            }
            self.seen.entries += 1;
            self.vouched(db, &entry)?;
            previous = Some(entry.hash);
            expected = seq.saturating_add(1);
        }
        if expected <= to {
            self.missing(expected, to);
        }
        Ok(())
    }

    fn missing(&mut self, from: i64, to: i64) {
        self.missed = true;
        self.seen.find(Finding::EntryMissing { from, to });
    }

    /// Takes in what was seen of the entries behind those of `self`.
    fn join(&mut self, other: Walk<'_>) {
        let (seen, more) = (&mut self.seen, other.seen);
        seen.entries += more.entries;
        seen.sessions += more.sessions;
        seen.turns += more.turns;
        seen.recordings += more.recordings;
        seen.more += more.more;
        for finding in more.findings {
            seen.find(finding);
        }
        self.keys.extend(other.keys);
        self.hashes.extend(other.hashes);
        self.erased.extend(other.erased);
        self.unsalted.extend(other.unsalted);
        self.erased_recordings.extend(other.erased_recordings);
        self.gone_recordings.extend(other.gone_recordings);
        self.begun.extend(other.begun);
        self.ended.extend(other.ended);
        self.missed |= other.missed;
    }

    /// What only the whole tells.
    fn finish(mut self, db: &Connection, last: i64) -> Result<Verification, StoreError> {
        let mut checkpoints = kept(db)?;
        checkpoints.extend(self.given);
        checkpoints.sort_by_key(|checkpoint| checkpoint.seq);
        for checkpoint in &checkpoints {
            self.compare(checkpoint);
        }
        let head = head(db)?;
        self.judge_head(head, last);
        self.added(db)?;
        let mut unseen: Vec<i64> = self.unsalted.difference(&self.erased).copied().collect();
        unseen.sort_unstable();
        for session in unseen {
            self.seen.find(Finding::ErasedUnseen { session });
        }
        for finding in std::mem::take(&mut self.gone_recordings) {
            let told = matches!(&finding, Finding::RecordingMissing { recording, .. }
                if self.erased_recordings.contains(recording));
            if !told {
                self.seen.find(finding);
            }
        }
        self.guards(db)?;
        self.seen.erased = self.erased.len() as u64;
        self.seen.open = self.begun.difference(&self.ended).count() as u64;
        self.seen.head = head;
        Ok(self.seen)
    }

    /// Why an entry does not follow the one before: another's place, or altered. Only the first is looked for among
    /// all, so that a ruined chain does not take hours.
    fn why(&self, db: &Connection, seq: i64, previous: Option<Hash>) -> Result<Finding, StoreError> {
        let altered = Finding::EntryAltered { seq };
        let Some(previous) = previous.filter(|_| self.seen.findings.is_empty()) else {
            return Ok(altered);
        };
        let mut statement = db.prepare(ENTRY)?;
        let mut rows = statement.query([])?;
        while let Some(row) = rows.next()? {
            let other = Entry::read(row)?;
            let found_at = other.link.seq;
            if found_at != seq && (Link { seq, ..other.link }).hash(previous) == other.hash {
                return Ok(Finding::EntryMoved { seq, found_at });
            }
        }
        Ok(altered)
    }

    fn compare(&mut self, checkpoint: &Checkpoint) {
        self.seen.checkpoints += 1;
        let known = self.keys.contains(&checkpoint.key) || Some(checkpoint.key) == self.public_key;
        let what = match self.hashes.get(&checkpoint.seq) {
            None => "vouches for an entry that is not there: the record was cut off or replaced",
            Some(_) if !checkpoint.signature_is_right() => "has a false signature",
            Some(_) if !known => "was signed with a key that is not this box's",
            Some(hash) if *hash != checkpoint.hash => {
                "vouches for another entry: the record was rewritten after it"
            }
            Some(_) => return,
        };
        self.seen.find(Finding::Checkpoint {
            seq: checkpoint.seq,
            what,
        });
    }

    fn judge_head(&mut self, head: Option<Checkpoint>, last: i64) {
        let Some(head) = head else {
            if last > 0 {
                self.seen.find(Finding::Head { what: "is missing" });
            }
            return;
        };
        if head.seq > last {
            self.missing(last + 1, head.seq);
        }
        if head.seq < last {
            self.seen.find(Finding::EntryUnsigned {
                from: head.seq + 1,
                head: head.seq,
            });
        }
        if !head.signature_is_right() {
            self.seen.find(Finding::Head {
                what: "has a false signature",
            });
        } else if self.public_key.is_some_and(|key| key != head.key) {
            self.seen.find(Finding::Head {
                what: "was signed with another key than the one beside the database (audit.pub)",
            });
        } else if self.hashes.get(&head.seq).is_some_and(|hash| *hash != head.hash) {
            self.seen.find(Finding::Head {
                what: "vouches for another last entry",
            });
        }
    }

    /// What the entry vouches for.
    fn vouched(&mut self, db: &Connection, entry: &Entry<'_>) -> Result<(), StoreError> {
        let (seq, session) = (entry.link.seq, entry.link.session);
        match (entry.link.kind, entry.link.phase) {
            (b"turn", b"note") => self.turn(db, entry)?,
            (b"context", b"note") => self.context(db, entry)?,
            (b"session", b"begin") => self.session_begin(db, entry)?,
            (b"session", b"complete" | b"fail" | b"timed_out" | b"interrupted") => {
                self.session_end(db, entry)?;
            }
            (b"recording", b"complete" | b"interrupted" | b"note") => self.recording(db, entry)?,
            (b"erasure", b"note") => match serde_json::from_slice::<RecordingPayload>(entry.link.payload) {
                Ok(told) => {
                    self.erased_recordings.insert(told.recording);
                }
                Err(_) => {
                    self.erased.insert(session);
                }
            },
            (b"key", b"note") => {
                let key = serde_json::from_slice::<KeyPayload>(entry.link.payload).ok();
                let key: Option<[u8; 32]> = key.and_then(|key| from_hex(&key.public_key)?.try_into().ok());
                self.keys.extend(key);
            }
            _ => {}
        }
        if entry.link.phase == b"begin" {
            self.begun.insert(seq);
        } else if entry.link.begun > 0 && !self.begun.remove(&entry.link.begun) {
            // Begun in an earlier part.
            self.ended.insert(entry.link.begun);
        }
        Ok(())
    }

    fn turn(&mut self, db: &Connection, entry: &Entry<'_>) -> Result<(), StoreError> {
        let (entry_seq, session) = (entry.link.seq, entry.link.session);
        let Ok(told) = serde_json::from_slice::<TurnPayload>(entry.link.payload) else {
            return Ok(());
        };
        let mut statement = db.prepare_cached(seal::TURN)?;
        let found = statement
            .query_row([session, told.number], seal::of_turn)
            .optional()?;
        let number = told.number;
        match found {
            None => self.seen.find(Finding::TurnMissing {
                session,
                number,
                entry: entry_seq,
            }),
            Some(None) => {
                self.seen.turns += 1;
                self.unsalted.insert(session);
            }
            Some(Some(hash)) => {
                self.seen.turns += 1;
                if Hash::from_hex(&told.sha256) != Some(hash) {
                    self.seen.find(Finding::TurnAltered {
                        session,
                        number,
                        entry: entry_seq,
                    });
                }
            }
        }
        Ok(())
    }

    fn recording(&mut self, db: &Connection, entry: &Entry<'_>) -> Result<(), StoreError> {
        let (entry_seq, session) = (entry.link.seq, entry.link.session);
        let Ok(RecordingPayload {
            recording,
            sha256: Some(sha256),
            octets: Some(octets),
        }) = serde_json::from_slice(entry.link.payload)
        else {
            return Ok(());
        };
        self.seen.recordings += 1;
        let row: Option<(String, Option<String>, i64)> = db
            .prepare_cached("SELECT state, sha256, session_id FROM recording WHERE uuid = ?1")?
            .query_row([&recording], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))
            .optional()?;
        let altered = |what| Finding::RecordingAltered {
            recording: recording.clone(),
            session,
            what,
            entry: entry_seq,
        };
        let missing = Finding::RecordingMissing {
            recording: recording.clone(),
            session,
            entry: entry_seq,
        };
        let Some((state, stored, owner)) = row else {
            self.seen.find(missing);
            return Ok(());
        };
        if stored.as_deref() != Some(sha256.as_str()) || owner != session {
            self.seen.find(altered("its row"));
        } else if state == "erased" {
            self.gone_recordings.push(missing);
        } else if self.files == Files::InDirectory {
            match file_hash(&crate::recording::file(self.directory, &recording)) {
                Ok((hash, length)) if length == octets && Hash::from_hex(&sha256) == Some(hash) => {}
                Ok(_) => self.seen.find(altered("its file")),
                // A stop before the first octet leaves no file, and that is what was sealed.
                Err(_) if octets == 0 => {}
                Err(_) => self.gone_recordings.push(missing),
            }
        }
        Ok(())
    }

    fn context(&mut self, db: &Connection, entry: &Entry<'_>) -> Result<(), StoreError> {
        let (entry_seq, session) = (entry.link.seq, entry.link.session);
        let Ok(told) = serde_json::from_slice::<BeginPayload>(entry.link.payload) else {
            return Ok(());
        };
        let found = db
            .prepare_cached(seal::CONTEXT)?
            .query_row([session], seal::of_context)
            .optional()?;
        match found.flatten() {
            None => {
                self.unsalted.insert(session);
            }
            Some(hash) if Hash::from_hex(&told.sha256) != Some(hash) => {
                self.seen.find(Finding::ContextAltered {
                    session,
                    entry: entry_seq,
                });
            }
            Some(_) => {}
        }
        Ok(())
    }

    fn session_begin(&mut self, db: &Connection, entry: &Entry<'_>) -> Result<(), StoreError> {
        let (entry_seq, session) = (entry.link.seq, entry.link.session);
        let Ok(told) = serde_json::from_slice::<BeginPayload>(entry.link.payload) else {
            return Ok(());
        };
        let mut statement = db.prepare_cached(seal::SESSION)?;
        let found = statement.query_row([session], seal::of_session).optional()?;
        match found {
            None => self.seen.find(Finding::SessionMissing {
                session,
                entry: entry_seq,
            }),
            Some(None) => {
                self.seen.sessions += 1;
                self.unsalted.insert(session);
            }
            Some(Some(hash)) => {
                self.seen.sessions += 1;
                if Hash::from_hex(&told.sha256) != Some(hash) {
                    self.seen.find(Finding::SessionAltered {
                        session,
                        what: "what it began with",
                        entry: entry_seq,
                    });
                }
            }
        }
        Ok(())
    }

    fn session_end(&mut self, db: &Connection, entry: &Entry<'_>) -> Result<(), StoreError> {
        let (entry_seq, session) = (entry.link.seq, entry.link.session);
        let Ok(told) = serde_json::from_slice::<EndPayload>(entry.link.payload) else {
            return Ok(());
        };
        let found = db
            .prepare_cached(
                "SELECT state, version, turn_count, reason, ended_at_ms FROM session WHERE id = ?1",
            )?
            .query_row([session], |row| {
                let reason: Option<String> = row.get(3)?;
                let what = if row.get::<_, String>(0)? != told.to || row.get::<_, i64>(1)? != told.version {
                    Some("its state")
                } else if row.get::<_, i64>(2)? != told.turns {
                    Some("its number of turns")
                } else if reason.map(|reason| mask::digits(&reason)) != told.reason {
                    Some("its reason")
                } else if row.get::<_, i64>(4)? != entry.link.at_ms {
                    Some("its end")
                } else {
                    None
                };
                Ok(what)
            })
            .optional()?;
        if let Some(Some(what)) = found {
            self.seen.find(Finding::SessionAltered {
                session,
                what,
                entry: entry_seq,
            });
        }
        Ok(())
    }

    /// Rows that no entry vouches for. Where entries are missing, that is the finding.
    fn added(&mut self, db: &Connection) -> Result<(), StoreError> {
        if self.missed {
            return Ok(());
        }
        let count = |table: &str| -> Result<u64, StoreError> {
            Ok(db.query_row(&format!("SELECT count(*) FROM {table}"), [], |row| row.get(0))?)
        };
        if count("turn")? > self.seen.turns {
            let added = db
                .query_row(
                    "SELECT session_id, number FROM turn t WHERE NOT EXISTS (SELECT 1 FROM audit a \
                     WHERE a.session = t.session_id AND a.kind = 'turn' AND json_extract(a.payload, '$.number') = t.number) \
                     ORDER BY session_id, number LIMIT 1",
                    [],
                    |row| Ok((row.get(0)?, row.get(1)?)),
                )
                .optional()?;
            if let Some((session, number)) = added {
                self.seen.find(Finding::TurnAdded { session, number });
            }
        }
        if count("session")? > self.seen.sessions {
            let added = db
                .query_row(
                    "SELECT id FROM session s WHERE NOT EXISTS (SELECT 1 FROM audit a \
                     WHERE a.session = s.id AND a.kind = 'session' AND a.phase = 'begin') ORDER BY id LIMIT 1",
                    [],
                    |row| row.get(0),
                )
                .optional()?;
            if let Some(session) = added {
                self.seen.find(Finding::SessionAdded { session });
            }
        }
        Ok(())
    }

    /// Whether the triggers are those of a fresh database.
    fn guards(&mut self, db: &Connection) -> Result<(), StoreError> {
        let mut fresh = Connection::open_in_memory()?;
        crate::migrate::run(&mut fresh, Path::new("memory"))?;
        // A newer program's database may have others.
        if crate::migrate::version(db)? != crate::migrate::newest() {
            return Ok(());
        }
        let (wanted, found) = (triggers(&fresh)?, triggers(db)?);
        for (name, sql) in &wanted {
            let what = match found.get(name) {
                None => "missing",
                Some(other) if other != sql => "changed",
                Some(_) => continue,
            };
            self.seen.find(Finding::Guard {
                name: name.clone(),
                what,
            });
        }
        for name in found.keys().filter(|name| !wanted.contains_key(*name)) {
            self.seen.find(Finding::Guard {
                name: name.clone(),
                what: "not ours",
            });
        }
        Ok(())
    }
}

/// A row of `audit`, whatever an outsider put into it.
struct Entry<'a> {
    link: Link<'a>,
    hash: Hash,
}

impl<'a> Entry<'a> {
    fn read(row: &'a Row<'_>) -> Result<Entry<'a>, StoreError> {
        let int = |column| match row.get_ref(column)? {
            ValueRef::Integer(value) => Ok::<_, rusqlite::Error>(value),
            ValueRef::Null => Ok(0),
            _ => Ok(i64::MIN),
        };
        let bytes = |column| match row.get_ref(column)? {
            ValueRef::Text(bytes) | ValueRef::Blob(bytes) => Ok::<_, rusqlite::Error>(bytes),
            _ => Ok(&[][..]),
        };
        Ok(Entry {
            link: Link {
                seq: int(0)?,
                at_ms: int(1)?,
                begun: int(2)?,
                session: int(3)?,
                kind: bytes(4)?,
                phase: bytes(5)?,
                payload: bytes(6)?,
            },
            hash: Hash::from_slice(bytes(7)?).unwrap_or(Hash::NONE),
        })
    }
}

/// SHA-256 and length of a file.
pub fn file_hash(path: &Path) -> std::io::Result<(Hash, u64)> {
    use std::io::Read;
    let mut file = std::fs::File::open(path)?;
    let (mut hasher, mut octets, mut buffer) = (Hasher::new(b""), 0, vec![0; 256 << 10]);
    loop {
        let read = file.read(&mut buffer)?;
        let Some(part) = buffer.get(..read).filter(|part| !part.is_empty()) else {
            return Ok((hasher.finish(), octets));
        };
        hasher.raw(part);
        octets += read as u64;
    }
}

fn triggers(db: &Connection) -> Result<BTreeMap<String, String>, StoreError> {
    let mut statement = db.prepare("SELECT name, sql FROM sqlite_schema WHERE type = 'trigger'")?;
    let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn kept(db: &Connection) -> Result<Vec<Checkpoint>, StoreError> {
    let mut statement = db.prepare("SELECT seq, at_ms, hash, key, signature FROM audit_checkpoint")?;
    let rows = statement.query_map([], checkpoint_from_row)?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The chain's last number; 0: none.
fn last(db: &Connection) -> Result<i64, StoreError> {
    Ok(db.query_row("SELECT coalesce(max(seq), 0) FROM audit", [], |row| row.get(0))?)
}

/// The hash of an entry, if it is there.
fn hash_of(db: &Connection, seq: i64) -> Result<Option<Hash>, StoreError> {
    let hash: Option<Vec<u8>> = db
        .query_row("SELECT hash FROM audit WHERE seq = ?1", [seq], |row| row.get(0))
        .optional()?;
    Ok(hash.and_then(|hash| Hash::from_slice(&hash)))
}

fn head(db: &Connection) -> Result<Option<Checkpoint>, StoreError> {
    Ok(db
        .prepare("SELECT seq, at_ms, hash, key, signature FROM audit_head")?
        .query_row([], checkpoint_from_row)
        .optional()?)
}
