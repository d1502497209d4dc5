//! Verify: reads the whole chain and everything it vouches for, and names what is not as it was written.
//!
//! A pass in the order of the chain, in as many parts at once as there are cores (each entry is compared with the one
//! before as it is stored), beside a running daemon or on a stopped one's directory.

mod finding;
mod vouched;
mod whole;

use std::{
    collections::{HashMap, HashSet},
    path::Path,
    thread,
};

use rusqlite::{Connection, OptionalExtension, Row, types::ValueRef};

use super::{
    Checkpoint,
    chain::{Hash, Hasher, Link, public_key},
    checkpoint_from_row,
};
use crate::{Store, StoreError, archive::ColdTurn, store::open_reader};
pub use finding::{Finding, Verification};

/// Most threads that read; beyond these the disk is what they wait for.
const MAX_THREADS: usize = 4;
/// An entry, columns as [`Entry::read`] reads them.
const ENTRY: &str = "SELECT seq, at_ms, begun, session, kind, phase, payload, hash FROM audit";

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
    /// Final transcripts and summaries found as they were made.
    transcripts: u64,
    summaries: u64,
    /// Texts of the archived session looked at last.
    cold: Option<(i64, Vec<ColdTurn>)>,
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
            transcripts: 0,
            summaries: 0,
            cold: None,
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
        self.transcripts += other.transcripts;
        self.summaries += other.summaries;
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
