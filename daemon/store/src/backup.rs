//! Backup: a copy of the database made beside a running daemon, compressed, verified, and the way back.
//!
//! ```text
//! snapshot ─(some pages, a pause, …)─> copy ─> integrity, chain ─> gzip ─> attendant-20260131-120000.db.gz
//! ```
//! The copy is of one instant: it holds a read transaction, so that writers go on meanwhile (their pages stay in the log
//! until it is done). Keys and recordings are no part of it: who steals a backup can neither sign nor listen.

use std::{
    fs::{self, File},
    io::{self, BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use ring::digest::{Context, SHA256};
use rusqlite::{
    Connection, OpenFlags,
    backup::{Backup, StepResult},
};
use serde::Serialize;

use crate::{
    AuditEnd, AuditKind, DATABASE_FILE, Store, StoreError, Verification,
    audit::hex,
    migrate,
    store::{LOCK_FILE, make_private_directory, open_reader, private_file},
    time,
};

/// Pages copied between two pauses: 1 MiB.
const PAGES: i32 = 256;
/// The pause: a call's writes and reads come first.
const PAUSE: Duration = Duration::from_millis(5);
/// Octets compressed between two pauses.
const CHUNK: usize = 1 << 20;
/// Largest database that is unpacked from a backup [octets]: a bomb is told from a backup.
const MAX_DATABASE: u64 = 1 << 40;
/// Schema version that brought the chain; an older backup has none to verify.
const FIRST_WITH_CHAIN: u32 = 2;
const PREFIX: &str = "attendant-";
const SUFFIX: &str = ".db.gz";

/// A backup made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Made {
    /// The file.
    pub path: PathBuf,
    /// Its length.
    pub octets: u64,
    /// SHA-256 of the file, hexadecimal.
    pub sha256: String,
    /// Length of the database in it.
    pub database_octets: u64,
    /// Entries of the chain in it, all verified.
    pub entries: u64,
    /// Older ones that were removed.
    pub removed: usize,
}

#[derive(Serialize)]
struct Told {
    sha256: String,
    octets: u64,
    entries: u64,
}

impl Store {
    /// Makes a backup in `to`, checks it, and keeps the newest `keep` (at least 1) there.
    ///
    /// # Errors
    /// [`StoreError::Directory`] when it cannot be written, [`StoreError::Damaged`] or [`StoreError::Unsound`] when the
    /// copy does not verify; then there is no new backup, and no old one was removed.
    pub fn backup(&self, to: &Path, keep: usize, now_ms: i64) -> Result<Made, StoreError> {
        let begun = self.audit_begin(
            AuditKind::Backup,
            None,
            &serde_json::json!({ "keep": keep }),
            now_ms,
        )?;
        let made = self.make_backup(to, keep, now_ms);
        match &made {
            Ok(made) => {
                let told = Told {
                    sha256: made.sha256.clone(),
                    octets: made.octets,
                    entries: made.entries,
                };
                self.audit_end(begun, AuditEnd::Complete, &told, now_ms)?;
            }
            Err(error) => {
                let why = serde_json::json!({ "disk": error.is_disk() });
                self.audit_end(begun, AuditEnd::Fail, &why, now_ms)?;
            }
        }
        made
    }

    fn make_backup(&self, to: &Path, keep: usize, now_ms: i64) -> Result<Made, StoreError> {
        make_private_directory(to).map_err(failed(to))?;
        let name = format!("{PREFIX}{}{SUFFIX}", time::compact(now_ms));
        let path = to.join(&name);
        let copy = Temporary(to.join(format!(".{name}.copy")));
        let packed = Temporary(to.join(format!(".{name}.new")));
        self.copy_to(&copy.0)?;
        let seen = examine(&copy.0)?;
        let database_octets = fs::metadata(&copy.0).map_err(failed(&copy.0))?.len();
        let (octets, sha256) = compress(&copy.0, &packed.0)?;
        fs::rename(&packed.0, &path).map_err(failed(&path))?;
        File::open(to)
            .and_then(|dir| dir.sync_all())
            .map_err(failed(to))?;
        let removed = rotate(to, keep.max(1))?;
        Ok(Made {
            path,
            octets,
            sha256,
            database_octets,
            entries: seen.entries,
            removed,
        })
    }

    /// Copies the database as it is at this instant, a little at a time.
    fn copy_to(&self, path: &Path) -> Result<(), StoreError> {
        let _ = fs::remove_file(path);
        private_file(path).map_err(failed(path))?;
        let from = open_reader(self.path())?;
        // The open transaction keeps the snapshot; without it each write of the daemon would begin the copy anew.
        let snapshot = from.unchecked_transaction()?;
        snapshot.query_row("SELECT count(*) FROM audit_head", [], |_| Ok(()))?;
        let mut to = Connection::open_with_flags(
            path,
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
        )?;
        {
            let backup = Backup::new(&from, &mut to)?;
            while !matches!(backup.step(PAGES)?, StepResult::Done) {
                thread::sleep(PAUSE);
            }
        }
        // A file of its own, without a log beside it.
        to.pragma_update_and_check(None, "journal_mode", "DELETE", |_| Ok(()))?;
        to.close().map_err(|(_, error)| error)?;
        snapshot.finish()?;
        File::open(path)
            .and_then(|file| file.sync_all())
            .map_err(failed(path))
    }

    /// Puts a backup in the place of the database of `directory`, which no daemon may be using. What was there is kept
    /// beside it. Returns where, if there was something, and what the backup holds.
    ///
    /// # Errors
    /// [`StoreError::InUse`]; [`StoreError::NoBackup`], [`StoreError::NotOurs`], [`StoreError::TooNew`],
    /// [`StoreError::Damaged`], [`StoreError::Unsound`] when the file is none that can be used; then nothing changed.
    pub fn restore(
        directory: &Path,
        backup: &Path,
        now_ms: i64,
    ) -> Result<(Option<PathBuf>, Verification), StoreError> {
        make_private_directory(directory).map_err(failed(directory))?;
        let lock_path = directory.join(LOCK_FILE);
        let lock = private_file(&lock_path).map_err(failed(&lock_path))?;
        lock.try_lock().map_err(|_| StoreError::InUse {
            path: directory.to_owned(),
        })?;
        let unpacked = Temporary(directory.join(".restore.db"));
        let sha256 = unpack(backup, &unpacked.0)?;
        let seen = examine(&unpacked.0)?;
        let path = directory.join(DATABASE_FILE);
        let aside = path.is_file().then(|| {
            directory.join(format!(
                "{DATABASE_FILE}.before-restore-{}",
                time::compact(now_ms)
            ))
        });
        if let Some(aside) = &aside {
            set_aside(&path, aside)?;
        }
        fs::rename(&unpacked.0, &path).map_err(failed(&path))?;
        File::open(directory)
            .and_then(|dir| dir.sync_all())
            .map_err(failed(directory))?;
        drop(lock);
        let store = Store::open(directory, now_ms)?;
        let restored = serde_json::json!({ "sha256": sha256, "entries": seen.entries });
        store.audit_note(AuditKind::Restore, None, &restored, now_ms)?;
        Ok((aside, seen))
    }
}

/// Gives a database a second name, so that the next step replaces it in one go: at no instant is there none. Its log must
/// not be left to its successor, whose pages it would overwrite.
fn set_aside(path: &Path, aside: &Path) -> Result<(), StoreError> {
    let old = Connection::open(path)?;
    let emptied = old.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()));
    drop(old);
    for suffix in ["-wal", "-shm"] {
        let beside = |path: &Path| {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            PathBuf::from(name)
        };
        let side = beside(path);
        if side.exists() {
            match &emptied {
                Ok(()) => fs::remove_file(&side),
                // A damaged database does not take its log in; then the log goes along.
                Err(_) => fs::rename(&side, beside(aside)),
            }
            .map_err(failed(&side))?;
        }
    }
    // Not every file system has second names.
    fs::hard_link(path, aside)
        .or_else(|_| fs::rename(path, aside))
        .map_err(failed(aside))
}

/// Removed when dropped, unless it was renamed away.
struct Temporary(PathBuf);

impl Drop for Temporary {
    fn drop(&mut self) {
        for suffix in ["", "-wal", "-shm", "-journal"] {
            let mut name = self.0.clone().into_os_string();
            name.push(suffix);
            let _ = fs::remove_file(name);
        }
    }
}

fn failed(path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |source| StoreError::Directory { path, source }
}

/// Whether a copy is ours, sound, and its chain whole; brings it up to this program's schema. Which key signed it is for
/// people to judge: a new box has a new one.
fn examine(path: &Path) -> Result<Verification, StoreError> {
    let mut db = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    let found = migrate::check(&db, path)?;
    if found == 0 {
        return Err(StoreError::NoBackup {
            path: path.to_owned(),
        });
    }
    let verdict: String = db.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
    if verdict != "ok" {
        return Err(StoreError::Damaged(verdict));
    }
    migrate::run(&mut db, path)?;
    if found < FIRST_WITH_CHAIN {
        return Ok(Verification::default());
    }
    let seen = crate::audit::verify_copy(&db)?;
    match seen.findings.first() {
        Some(finding) => Err(StoreError::Unsound(Box::new(finding.clone()))),
        None => Ok(seen),
    }
}

/// Compresses a file; length and SHA-256 of the result.
fn compress(from: &Path, to: &Path) -> Result<(u64, String), StoreError> {
    let mut plain = File::open(from).map_err(failed(from))?;
    let out = private_file(to).map_err(failed(to))?;
    let mut packed = GzEncoder::new(Summing::new(BufWriter::new(out)), Compression::fast());
    let mut buffer = vec![0; CHUNK];
    loop {
        let read = plain.read(&mut buffer).map_err(failed(from))?;
        let Some(part) = buffer.get(..read).filter(|part| !part.is_empty()) else {
            break;
        };
        packed.write_all(part).map_err(failed(to))?;
        thread::sleep(PAUSE);
    }
    let summing = packed.finish().map_err(failed(to))?;
    let (octets, sha256) = (summing.octets, hex(summing.sum.finish().as_ref()));
    let file = summing
        .inner
        .into_inner()
        .map_err(|error| failed(to)(error.into_error()))?;
    file.sync_all().map_err(failed(to))?;
    Ok((octets, sha256))
}

/// Unpacks a backup; SHA-256 of the packed file.
fn unpack(from: &Path, to: &Path) -> Result<String, StoreError> {
    let no_backup = || StoreError::NoBackup {
        path: from.to_owned(),
    };
    let packed = File::open(from).map_err(failed(from))?;
    let out = private_file(to).map_err(failed(to))?;
    out.set_len(0).map_err(failed(to))?;
    let mut plain = GzDecoder::new(BufReader::new(packed)).take(MAX_DATABASE);
    let mut out = BufWriter::new(out);
    let mut buffer = vec![0; CHUNK];
    loop {
        let read = plain.read(&mut buffer).map_err(|_| no_backup())?;
        let Some(part) = buffer.get(..read).filter(|part| !part.is_empty()) else {
            break;
        };
        out.write_all(part).map_err(failed(to))?;
    }
    let file = out.into_inner().map_err(|error| failed(to)(error.into_error()))?;
    file.sync_all().map_err(failed(to))?;
    Ok(crate::audit::file_hash(from).map_err(failed(from))?.0.to_string())
}

/// Removes all but the newest `keep` backups of a directory; by their names, which are times.
fn rotate(directory: &Path, keep: usize) -> Result<usize, StoreError> {
    let mut backups: Vec<PathBuf> = fs::read_dir(directory)
        .map_err(failed(directory))?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let name = path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default();
            name.strip_prefix(PREFIX)
                .and_then(|rest| rest.strip_suffix(SUFFIX))
                .is_some_and(|stamp| stamp.len() == 15)
        })
        .collect();
    backups.sort();
    let old = backups.len().saturating_sub(keep);
    for path in backups.iter().take(old) {
        fs::remove_file(path).map_err(failed(path))?;
    }
    Ok(old)
}

/// Sums up what passes.
struct Summing<W> {
    inner: W,
    sum: Context,
    octets: u64,
}

impl<W> Summing<W> {
    fn new(inner: W) -> Summing<W> {
        Summing {
            inner,
            sum: Context::new(&SHA256),
            octets: 0,
        }
    }
}

impl<W: Write> Write for Summing<W> {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(octets)?;
        self.sum.update(octets.get(..written).unwrap_or_default());
        self.octets += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}
