//! Recordings as the record knows them: begun with the call, sealed by the hash of their file, erased when their time is
//! over. Files are written elsewhere; here they are named, compared and removed.
//!
//! ```text
//! recording ──seal──> sealed ──erase──> erased       (the hash stays in the chain)
//! ```

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use rusqlite::{OptionalExtension, Row, params};
use serde::Serialize;

use crate::{
    SessionId, Store, StoreError,
    audit::{AuditEnd, AuditKind, Tx, secret},
    life,
};

/// Where the files are, in the data directory.
pub const RECORDINGS_DIR: &str = "recordings";
/// The key to them: 32 octets in hexadecimal, mode 0600; never in the database, never in a backup.
pub const RECORDINGS_KEY_FILE: &str = "recordings.key";

/// A recording begun.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordingKey {
    /// Row number.
    pub id: i64,
    /// Public name.
    pub uuid: String,
    /// Where to write it; its directory exists.
    pub path: PathBuf,
}

/// What a file turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordingSeal {
    /// Of the file as it is on the disk.
    pub sha256: [u8; 32],
    /// Its length.
    pub octets: u64,
    /// Samples of each channel, 16 kHz.
    pub samples: u64,
    /// Frames that stand as silence.
    pub missing: u64,
    /// Whether it ended as it should.
    pub whole: bool,
}

/// A recording as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct StoredRecording {
    /// Row number.
    pub id: i64,
    /// Public name.
    pub uuid: String,
    /// Its call.
    pub session: SessionId,
    /// `recording`, `sealed` or `erased`.
    pub state: String,
    /// When it began [Unix ms].
    pub started_at_ms: i64,
    /// When it ended [Unix ms].
    pub ended_at_ms: Option<i64>,
    /// When it may be erased [Unix ms].
    pub keep_until_ms: Option<i64>,
    /// Samples of each channel, 16 kHz.
    pub samples: Option<u64>,
    /// Frames that stand as silence.
    pub missing: Option<u64>,
    /// Octets of the file.
    pub octets: Option<u64>,
    /// SHA-256 of the file, hexadecimal.
    pub sha256: Option<String>,
    /// Whether it ended as it should.
    pub whole: Option<bool>,
}

impl StoredRecording {
    const COLUMNS: &'static str = "id, uuid, session_id, state, started_at_ms, ended_at_ms, keep_until_ms, samples, \
         missing, octets, sha256, whole";

    fn from_row(row: &Row<'_>) -> rusqlite::Result<StoredRecording> {
        Ok(StoredRecording {
            id: row.get(0)?,
            uuid: row.get(1)?,
            session: row.get(2)?,
            state: row.get(3)?,
            started_at_ms: row.get(4)?,
            ended_at_ms: row.get(5)?,
            keep_until_ms: row.get(6)?,
            samples: row.get(7)?,
            missing: row.get(8)?,
            octets: row.get(9)?,
            sha256: row.get(10)?,
            whole: row.get(11)?,
        })
    }
}

#[derive(Serialize)]
struct Begun<'a> {
    recording: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    keep_until_ms: Option<i64>,
}

#[derive(Serialize)]
struct Sealed<'a> {
    recording: &'a str,
    sha256: String,
    octets: u64,
    samples: u64,
    missing: u64,
    whole: bool,
}

impl<'a> Sealed<'a> {
    fn of(recording: &'a str, seal: &RecordingSeal) -> Sealed<'a> {
        Sealed {
            recording,
            sha256: crate::audit::hex(&seal.sha256),
            octets: seal.octets,
            samples: seal.samples,
            missing: seal.missing,
            whole: seal.whole,
        }
    }
}

#[derive(Serialize)]
struct Erased<'a> {
    recording: &'a str,
    why: &'a str,
}

/// The file of a recording, in a data directory.
pub(crate) fn file(directory: &Path, uuid: &str) -> PathBuf {
    directory.join(RECORDINGS_DIR).join(format!("{uuid}.rec"))
}

/// Beside the file of a recording that is to take another's place, until it has: a stop in between leaves both.
pub(crate) fn mark(directory: &Path, uuid: &str) -> PathBuf {
    file(directory, uuid).with_extension("redacting")
}

/// The recording has taken its place.
pub(crate) fn unmark(directory: &Path, uuid: &str) -> Result<(), StoreError> {
    remove(&mark(directory, uuid))
}

fn remove(path: &Path) -> Result<(), StoreError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::Directory {
            path: path.to_owned(),
            source: error,
        }),
        _ => Ok(()),
    }
}

impl Store {
    /// The key to the recordings, made when there is none.
    ///
    /// # Errors
    /// [`StoreError::Key`], [`StoreError::Directory`].
    pub fn recordings_key(&self) -> Result<[u8; 32], StoreError> {
        secret(&self.directory().join(RECORDINGS_KEY_FILE))
    }

    /// Begins the recording of a session; the file is for the caller to write.
    ///
    /// # Errors
    /// [`StoreError::Directory`], [`StoreError::NotFound`], or of the database.
    pub fn begin_recording(
        &self,
        session: SessionId,
        keep_until_ms: Option<i64>,
        now_ms: i64,
    ) -> Result<RecordingKey, StoreError> {
        let uuid = uuid::Uuid::new_v4().to_string();
        let path = file(self.directory(), &uuid);
        let parent = path.parent().unwrap_or(Path::new("."));
        crate::store::make_private_directory(parent).map_err(|source| StoreError::Directory {
            path: parent.to_owned(),
            source,
        })?;
        self.write(|tx| {
            life::standing(tx, session)?;
            tx.prepare_cached(
                "INSERT INTO recording (uuid, session_id, started_at_ms, keep_until_ms) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![uuid, session, now_ms.max(0), keep_until_ms])?;
            let id = tx.last_insert_rowid();
            let begun = Begun {
                recording: &uuid,
                keep_until_ms,
            };
            tx.begin(AuditKind::Recording, Some(session), &begun, now_ms)?;
            Ok(RecordingKey {
                id,
                uuid: uuid.clone(),
                path: path.clone(),
            })
        })
    }

    /// Seals a recording by the hash of its file.
    ///
    /// # Errors
    /// [`StoreError::NoRecording`] when it is not being recorded, or of the database.
    pub fn seal_recording(&self, id: i64, seal: &RecordingSeal, now_ms: i64) -> Result<(), StoreError> {
        self.write(|tx| {
            let (uuid, session): (String, SessionId) = tx
                .prepare_cached(
                    "UPDATE recording SET state = 'sealed', ended_at_ms = ?2, samples = ?3, missing = ?4, octets = ?5, \
                     sha256 = ?6, whole = ?7 WHERE id = ?1 AND state = 'recording' RETURNING uuid, session_id",
                )?
                .query_row(
                    params![
                        id,
                        now_ms.max(0),
                        seal.samples,
                        seal.missing,
                        seal.octets,
                        crate::audit::hex(&seal.sha256),
                        seal.whole
                    ],
                    |row| Ok((row.get(0)?, row.get(1)?)),
                )
                .optional()?
                .ok_or(StoreError::NoRecording { id })?;
            let end = if seal.whole { AuditEnd::Complete } else { AuditEnd::Interrupted };
            match tx.open_of(AuditKind::Recording, session)? {
                Some(begun) => tx.end(begun, end, &Sealed::of(&uuid, seal), now_ms).map(drop),
                // Closed by the start after a power cut.
                None => note_sealed(tx, session, &uuid, seal, now_ms),
            }
        })
    }

    /// Recordings that a stop cut off: to be repaired and sealed at the next start.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub fn open_recordings(&self) -> Result<Vec<RecordingKey>, StoreError> {
        self.read(|db| {
            let mut statement =
                db.prepare_cached("SELECT id, uuid FROM recording WHERE state = 'recording' ORDER BY id")?;
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get::<_, String>(1)?)))?;
            rows.map(|row| {
                let (id, uuid) = row?;
                let path = file(self.directory(), &uuid);
                Ok(RecordingKey { id, uuid, path })
            })
            .collect()
        })
    }

    /// The recordings of a session.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub fn recordings(&self, session: SessionId) -> Result<Vec<StoredRecording>, StoreError> {
        self.read(|db| {
            let sql = format!(
                "SELECT {} FROM recording WHERE session_id = ?1 ORDER BY id",
                StoredRecording::COLUMNS
            );
            let mut statement = db.prepare_cached(&sql)?;
            let rows = statement.query_map([session], StoredRecording::from_row)?;
            Ok(rows.collect::<Result<_, _>>()?)
        })
    }

    /// A recording by its public name, with its file.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub fn recording(&self, uuid: &str) -> Result<Option<(StoredRecording, PathBuf)>, StoreError> {
        self.read(|db| {
            let sql = format!(
                "SELECT {} FROM recording WHERE uuid = ?1",
                StoredRecording::COLUMNS
            );
            let found = db
                .prepare_cached(&sql)?
                .query_row([uuid], StoredRecording::from_row)
                .optional()?;
            Ok(found.map(|recording| {
                let path = file(self.directory(), &recording.uuid);
                (recording, path)
            }))
        })
    }

    /// Octets of all recordings that are kept.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub fn recordings_octets(&self) -> Result<u64, StoreError> {
        self.read(|db| {
            Ok(db
                .prepare_cached("SELECT coalesce(sum(octets), 0) FROM recording WHERE state = 'sealed'")?
                .query_row([], |row| row.get(0))?)
        })
    }

    /// Erases the recordings whose time is over, but for those on legal hold; at most 100 at once. Returns how many.
    ///
    /// # Errors
    /// [`StoreError`] of the database, or [`StoreError::Directory`] when a file cannot be removed.
    pub fn erase_expired_recordings(&self, now_ms: i64) -> Result<usize, StoreError> {
        let expired: Vec<i64> = self.read(|db| {
            let mut statement = db.prepare_cached(
                "SELECT id FROM recording WHERE state = 'sealed' AND keep_until_ms IS NOT NULL AND keep_until_ms <= ?1 \
                 AND session_id NOT IN (SELECT session_id FROM legal_hold) ORDER BY keep_until_ms LIMIT 100",
            )?;
            let rows = statement.query_map([now_ms], |row| row.get(0))?;
            Ok(rows.collect::<Result<_, _>>()?)
        })?;
        for id in &expired {
            let uuid = self.write(|tx| erase(tx, *id, "its time was over", now_ms))?;
            self.remove_recording(&uuid)?;
        }
        Ok(expired.len())
    }

    /// Removes the file of an erased recording: after its row, so that a power cut in between leaves a file too many,
    /// which the next start finds, never a row that tells of a file that is gone.
    pub(crate) fn remove_recording(&self, uuid: &str) -> Result<(), StoreError> {
        remove(&file(self.directory(), uuid))
    }

    /// Keeps a session, or no longer: nothing of it is erased while it is held. The reason is for people.
    ///
    /// # Errors
    /// [`StoreError::NotFound`], or of the database.
    pub fn hold(&self, session: SessionId, reason: Option<&str>, now_ms: i64) -> Result<(), StoreError> {
        self.write(|tx| {
            life::standing(tx, session)?;
            let changed = match reason {
                Some(reason) => tx
                    .prepare_cached(
                        "INSERT INTO legal_hold (session_id, since_ms, reason) VALUES (?1, ?2, ?3) \
                         ON CONFLICT (session_id) DO NOTHING",
                    )?
                    .execute(params![session, now_ms.max(0), life::required(reason, 400)])?,
                None => tx
                    .prepare_cached("DELETE FROM legal_hold WHERE session_id = ?1")?
                    .execute([session])?,
            };
            if changed > 0 {
                let held = serde_json::json!({ "held": reason.is_some() });
                tx.note(AuditKind::LegalHold, Some(session), &held, now_ms)?;
            }
            Ok(())
        })
    }

    /// Removes the files of erased recordings that a power cut left, and of replacements that never took their place.
    pub(crate) fn remove_erased(&self) -> Result<(), StoreError> {
        let directory = self.directory().join(RECORDINGS_DIR);
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::Directory { path, source }
        };
        let entries = match fs::read_dir(&directory) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(failed(&directory)(error)),
        };
        for entry in entries {
            let path = entry.map_err(failed(&directory))?.path();
            let Some(uuid) = path.file_stem().and_then(|stem| stem.to_str()) else {
                continue;
            };
            let row = self.recording(uuid)?;
            if path.extension().is_some_and(|extension| extension == "redacting") {
                if row.is_none() {
                    self.remove_recording(uuid)?;
                }
                remove(&path)?;
            } else if row.is_some_and(|(row, _)| row.state == "erased") {
                remove(&path)?;
            }
        }
        Ok(())
    }
}

/// Notes the seal of a recording that no entry of its own began.
pub(crate) fn note_sealed(
    tx: &Tx<'_>,
    session: SessionId,
    uuid: &str,
    seal: &RecordingSeal,
    now_ms: i64,
) -> Result<(), StoreError> {
    tx.note(
        AuditKind::Recording,
        Some(session),
        &Sealed::of(uuid, seal),
        now_ms,
    )?;
    Ok(())
}

/// Marks a recording as erased; its file, whose name this returns, goes after the commit.
pub(crate) fn erase(tx: &Tx<'_>, id: i64, why: &str, now_ms: i64) -> Result<String, StoreError> {
    let (uuid, session): (String, SessionId) = tx
        .prepare_cached(
            "UPDATE recording SET state = 'erased', erased_at_ms = ?2 WHERE id = ?1 AND state = 'sealed' \
             RETURNING uuid, session_id",
        )?
        .query_row(params![id, now_ms.max(0)], |row| Ok((row.get(0)?, row.get(1)?)))
        .optional()?
        .ok_or(StoreError::NoRecording { id })?;
    let erased = Erased {
        recording: &uuid,
        why,
    };
    tx.note(AuditKind::Erasure, Some(session), &erased, now_ms)?;
    Ok(uuid)
}
