//! Archive: the texts of old calls in compressed cold files, out of the database and still found by their words.
//!
//! ```text
//! archive/UUID.jsonl.gz:  gzip member │ gzip member │ …     one per session; `zcat` shows them all
//! ```
//! Sessions, figures and the index of words stay in the database; the index holds words, not texts. A turn's seal is over
//! its texts wherever they are, so that verifying reads them here. A file is made as `UUID.new` in the transaction that
//! takes the texts out of the database, and gets its name after it: a stop in between is settled by the next start.

use std::{
    fs::{self, File},
    io::{self, Read, Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use rusqlite::{Connection, OptionalExtension, params};
use serde::{Deserialize, Serialize};

use crate::{
    SessionId, Store, StoreError, Turn,
    audit::{AuditKind, Hash, Tx},
    store::{make_private_directory, private_file},
};

/// Where the cold files are, in the data directory.
pub const ARCHIVE_DIR: &str = "archive";
/// Sessions in one file: so many are taken out of the database in one transaction, which calls wait for, and read again
/// when one of them is erased.
const SESSIONS_PER_FILE: u32 = 100;
/// Calls before the last one archived that are looked at again: they ended later, or were held. What is older and was held
/// stays in the database.
const LOOK_BACK: i64 = 20_000;
/// Longest member unpacked [octets]: the most turns of a session with the longest texts stay far below.
const MAX_MEMBER: u64 = 1 << 30;

/// What an archiving did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Archived {
    /// Sessions whose texts are in a cold file now.
    pub sessions: u32,
    /// Their turns.
    pub turns: u32,
    /// Octets of the file.
    pub octets: u64,
}

/// A turn's texts.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct ColdTurn {
    pub number: u32,
    pub caller_text: String,
    pub reply_text: String,
    pub heard_text: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Member {
    session: String,
    turns: Vec<ColdTurn>,
}

#[derive(Serialize)]
struct Told {
    archive: String,
    sessions: u32,
    turns: u32,
    sha256: String,
}

fn named(directory: &Path, uuid: &str) -> PathBuf {
    directory.join(ARCHIVE_DIR).join(format!("{uuid}.jsonl.gz"))
}

fn unnamed(directory: &Path, uuid: &str) -> PathBuf {
    directory.join(ARCHIVE_DIR).join(format!("{uuid}.new"))
}

impl Store {
    /// Moves the texts of the oldest calls that ended before `before_ms` into a cold file, at most 100 calls at once; those
    /// erased, held, or with work left to do stay. Call again until it says 0.
    ///
    /// # Errors
    /// [`StoreError::Directory`] when the file cannot be written, or of the database; then nothing changed.
    pub fn archive_before(&self, before_ms: i64, now_ms: i64) -> Result<Archived, StoreError> {
        let none = self.read(|db| Ok(due(db, before_ms)?.is_empty()))?;
        if none {
            return Ok(Archived::default());
        }
        let uuid = uuid::Uuid::new_v4().to_string();
        let directory = self.directory();
        let done = self.write(|tx| {
            let mut file = ColdFile::create(directory, &uuid)?;
            let mut done = Archived::default();
            let mut members = Vec::new();
            for (session, name) in due(tx, before_ms)? {
                let turns = warm(tx, session)?;
                done.sessions += 1;
                done.turns += u32::try_from(turns.len()).unwrap_or(u32::MAX);
                members.push((session, file.add(&pack(&Member { session: name, turns })?)?));
            }
            let sum = file.finish()?;
            done.octets = sum.1;
            let archive = insert(tx, &uuid, &sum, now_ms)?;
            for (session, (start, octets)) in members {
                tx.prepare_cached(
                    "INSERT INTO archived (session_id, archive_id, start, octets) VALUES (?1, ?2, ?3, ?4)",
                )?
                .execute(params![session, archive, start, octets])?;
                tx.prepare_cached(
                    "UPDATE turn SET caller_text = '', reply_text = '', heard_text = NULL WHERE session_id = ?1",
                )?
                .execute([session])?;
            }
            let told = Told {
                archive: uuid.clone(),
                sessions: done.sessions,
                turns: done.turns,
                sha256: sum.0.to_string(),
            };
            tx.note(AuditKind::Archive, None, &told, now_ms)?;
            Ok(done)
        });
        // Also after a refusal: then it goes.
        self.settle_archives()?;
        done
    }

    /// Finishes what a stop may have left: gives new cold files their names, removes those that never came to be or that
    /// others took the place of.
    pub(crate) fn settle_archives(&self) -> Result<(), StoreError> {
        let directory = self.directory().join(ARCHIVE_DIR);
        let failed = |source| StoreError::Directory {
            path: directory.clone(),
            source,
        };
        if !directory.is_dir() {
            return Ok(());
        }
        // While nobody else writes: a file without its row is not one that is just being made.
        self.write(|tx| {
            for entry in fs::read_dir(&directory).map_err(failed)? {
                let path = entry.map_err(failed)?.path();
                let name = path
                    .file_name()
                    .and_then(|name| name.to_str())
                    .unwrap_or_default();
                let Some((uuid, kind)) = name.split_once('.') else {
                    continue;
                };
                let state: Option<String> = tx
                    .prepare_cached("SELECT state FROM archive WHERE uuid = ?1")?
                    .query_row([uuid], |row| row.get(0))
                    .optional()?;
                match (state.as_deref(), kind) {
                    (Some("kept"), "new") => {
                        fs::rename(&path, named(self.directory(), uuid)).map_err(failed)?;
                    }
                    (None, "new") | (Some("replaced"), _) => fs::remove_file(&path).map_err(failed)?,
                    _ => {}
                }
            }
            Ok(())
        })
    }
}

/// Calls whose texts may go, oldest first.
fn due(db: &Connection, before_ms: i64) -> Result<Vec<(SessionId, String)>, StoreError> {
    let mut statement = db.prepare_cached(
        "SELECT id, uuid FROM session s WHERE id > (SELECT coalesce(max(session_id), 0) - ?3 FROM archived) \
         AND created_at_ms < ?1 AND ended_at_ms < ?1 AND turn_count > 0 AND erased_at_ms IS NULL \
         AND NOT EXISTS (SELECT 1 FROM archived WHERE session_id = s.id) \
         AND NOT EXISTS (SELECT 1 FROM legal_hold WHERE session_id = s.id) \
         AND NOT EXISTS (SELECT 1 FROM job WHERE session_id = s.id AND state IN ('waiting', 'running')) \
         ORDER BY id LIMIT ?2",
    )?;
    let rows = statement.query_map(params![before_ms, SESSIONS_PER_FILE, LOOK_BACK], |row| {
        Ok((row.get(0)?, row.get(1)?))
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

/// The texts of a session as they stand in the database.
fn warm(db: &Connection, session: SessionId) -> Result<Vec<ColdTurn>, StoreError> {
    let mut statement = db.prepare_cached(
        "SELECT number, caller_text, reply_text, heard_text FROM turn WHERE session_id = ?1 ORDER BY number",
    )?;
    let rows = statement.query_map([session], |row| {
        Ok(ColdTurn {
            number: row.get(0)?,
            caller_text: row.get(1)?,
            reply_text: row.get(2)?,
            heard_text: row.get(3)?,
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

fn insert(tx: &Tx<'_>, uuid: &str, sum: &(Hash, u64), now_ms: i64) -> Result<i64, StoreError> {
    tx.prepare_cached("INSERT INTO archive (uuid, made_at_ms, octets, sha256) VALUES (?1, ?2, ?3, ?4)")?
        .execute(params![uuid, now_ms.max(0), sum.1, sum.0.to_string()])?;
    Ok(tx.last_insert_rowid())
}

/// Where a session's texts are.
struct Place {
    archive: i64,
    uuid: String,
    start: u64,
    octets: u64,
}

fn place(db: &Connection, session: SessionId) -> Result<Option<Place>, StoreError> {
    Ok(db
        .prepare_cached(
            "SELECT a.id, a.uuid, m.start, m.octets FROM archived m JOIN archive a ON a.id = m.archive_id \
             WHERE m.session_id = ?1",
        )?
        .query_row([session], |row| {
            Ok(Place {
                archive: row.get(0)?,
                uuid: row.get(1)?,
                start: row.get(2)?,
                octets: row.get(3)?,
            })
        })
        .optional()?)
}

/// The texts of an archived session; `None` for one whose texts are in the database.
pub(crate) fn texts(
    db: &Connection,
    directory: &Path,
    session: SessionId,
) -> Result<Option<Vec<ColdTurn>>, StoreError> {
    let Some(place) = place(db, session)? else {
        return Ok(None);
    };
    let (path, mut file) = open(directory, &place.uuid)?;
    let member = read(&mut file, place.start, place.octets)
        .and_then(|octets| unpack(&octets))
        .map_err(|_| StoreError::ColdFile { path })?;
    Ok(Some(member.turns))
}

/// Whether a session's texts are in a cold file.
pub(crate) fn is_archived(db: &Connection, session: SessionId) -> Result<bool, StoreError> {
    Ok(place(db, session)?.is_some())
}

/// Puts the texts of an archived session back where its turns are shown.
pub(crate) fn fill(
    db: &Connection,
    directory: &Path,
    session: SessionId,
    turns: &mut [Turn],
) -> Result<(), StoreError> {
    let Some(cold) = texts(db, directory, session)? else {
        return Ok(());
    };
    for turn in turns {
        if let Some(texts) = cold.iter().find(|cold| cold.number == turn.number.get()) {
            turn.caller_text.clone_from(&texts.caller_text);
            turn.reply_text.clone_from(&texts.reply_text);
            turn.heard_text.clone_from(&texts.heard_text);
        }
    }
    Ok(())
}

/// Writes the file of a session anew without it. [`Store::settle_archives`] is due after the commit.
pub(crate) fn leave_out(
    tx: &Tx<'_>,
    directory: &Path,
    session: SessionId,
    now_ms: i64,
) -> Result<(), StoreError> {
    let Some(gone) = place(tx, session)? else {
        return Ok(());
    };
    let others: Vec<(SessionId, u64, u64)> = tx
        .prepare_cached(
            "SELECT session_id, start, octets FROM archived WHERE archive_id = ?1 AND session_id <> ?2 ORDER BY start",
        )?
        .query_map(params![gone.archive, session], |row| {
            Ok((row.get(0)?, row.get(1)?, row.get(2)?))
        })?
        .collect::<Result<_, _>>()?;
    if !others.is_empty() {
        let uuid = uuid::Uuid::new_v4().to_string();
        let (path, mut old) = open(directory, &gone.uuid)?;
        let mut new = ColdFile::create(directory, &uuid)?;
        let mut moved = Vec::new();
        for (session, start, octets) in others {
            let member =
                read(&mut old, start, octets).map_err(|_| StoreError::ColdFile { path: path.clone() })?;
            moved.push((session, new.add(&member)?.0));
        }
        let archive = insert(tx, &uuid, &new.finish()?, now_ms)?;
        for (session, start) in moved {
            tx.prepare_cached("UPDATE archived SET archive_id = ?2, start = ?3 WHERE session_id = ?1")?
                .execute(params![session, archive, start])?;
        }
    }
    tx.prepare_cached("UPDATE archive SET state = 'replaced' WHERE id = ?1")?
        .execute([gone.archive])?;
    Ok(())
}

fn open(directory: &Path, uuid: &str) -> Result<(PathBuf, File), StoreError> {
    let path = named(directory, uuid);
    // Before it has its name.
    let file = File::open(&path).or_else(|_| File::open(unnamed(directory, uuid)));
    match file {
        Ok(file) => Ok((path, file)),
        Err(_) => Err(StoreError::ColdFile { path }),
    }
}

fn read(file: &mut File, start: u64, octets: u64) -> io::Result<Vec<u8>> {
    file.seek(SeekFrom::Start(start))?;
    let mut member = Vec::new();
    file.take(octets).read_to_end(&mut member)?;
    Ok(member)
}

fn unpack(member: &[u8]) -> io::Result<Member> {
    let mut text = Vec::new();
    GzDecoder::new(member).take(MAX_MEMBER).read_to_end(&mut text)?;
    Ok(serde_json::from_slice(&text)?)
}

fn pack(member: &Member) -> Result<Vec<u8>, StoreError> {
    let mut text = serde_json::to_vec(member).map_err(|source| StoreError::Payload { source })?;
    text.push(b'\n');
    let mut packed = GzEncoder::new(Vec::new(), Compression::best());
    packed
        .write_all(&text)
        .and_then(|()| packed.finish())
        .map_err(|source| StoreError::Directory {
            path: PathBuf::from(ARCHIVE_DIR),
            source,
        })
}

/// A cold file being written.
struct ColdFile {
    path: PathBuf,
    file: File,
    octets: u64,
}

impl ColdFile {
    fn create(directory: &Path, uuid: &str) -> Result<ColdFile, StoreError> {
        let path = unnamed(directory, uuid);
        let parent = directory.join(ARCHIVE_DIR);
        match make_private_directory(&parent).and_then(|()| private_file(&path)) {
            Ok(file) => Ok(ColdFile {
                path,
                file,
                octets: 0,
            }),
            Err(source) => Err(StoreError::Directory { path, source }),
        }
    }

    /// Where it begins, and its length.
    fn add(&mut self, member: &[u8]) -> Result<(u64, u64), StoreError> {
        let start = self.octets;
        self.file.write_all(member).map_err(self.failed())?;
        self.octets += member.len() as u64;
        Ok((start, member.len() as u64))
    }

    fn finish(self) -> Result<(Hash, u64), StoreError> {
        self.file.sync_all().map_err(self.failed())?;
        if let Some(directory) = self.path.parent() {
            File::open(directory)
                .and_then(|directory| directory.sync_all())
                .map_err(self.failed())?;
        }
        crate::audit::file_hash(&self.path).map_err(self.failed())
    }

    fn failed(&self) -> impl FnOnce(io::Error) -> StoreError + use<> {
        let path = self.path.clone();
        move |source| StoreError::Directory { path, source }
    }
}
