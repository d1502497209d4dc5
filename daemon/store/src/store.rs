//! The handle: opening, reading, writing.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rusqlite::{Connection, OpenFlags, TransactionBehavior};

use crate::{
    StoreError,
    audit::{Signer, Tx},
    life, migrate,
};

/// The database's file name in the data directory.
pub const DATABASE_FILE: &str = "attendant.db";
/// Locked while a daemon uses the directory.
pub(crate) const LOCK_FILE: &str = "attendant.lock";
/// Longest wait for another process's lock on the file (a backup, a technician's sqlite3).
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for a daemon that was killed to be gone: the system takes a moment to tear it down, and its successor
/// may be there before.
const PREDECESSOR: Duration = Duration::from_secs(2);
/// Prepared statements kept per connection: more than there are.
const STATEMENTS: usize = 96;

/// Handle to the record; clones share it. See the crate's page on blocking.
#[derive(Clone)]
pub struct Store {
    shared: Arc<Shared>,
}

struct Shared {
    /// `None` when opened read-only.
    writer: Option<Mutex<Writer>>,
    reader: Mutex<Connection>,
    path: PathBuf,
    /// The last write found the disk full or failing.
    stuck: AtomicBool,
    /// Holds the directory's lock until the last clone is dropped.
    _lock: Option<File>,
}

struct Writer {
    db: Connection,
    signer: Signer,
}

impl std::fmt::Debug for Store {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("path", &self.shared.path)
            .finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the record in `directory`, making both and the signing key if missing, and brings the schema up to date.
    /// The time is for the audit entry of a new key.
    ///
    /// # Errors
    /// [`StoreError::InUse`] when another daemon has it, [`StoreError::TooNew`] when a newer program
    /// wrote it, and what can go wrong with files.
    pub fn open(directory: &Path, now_ms: i64) -> Result<Store, StoreError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| StoreError::Directory { path, source }
        };
        make_private_directory(directory).map_err(failed(directory))?;
        let lock_path = directory.join(LOCK_FILE);
        let lock = private_file(&lock_path).map_err(failed(&lock_path))?;
        let until = Instant::now() + PREDECESSOR;
        loop {
            match lock.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if Instant::now() < until => thread::sleep(PREDECESSOR / 40),
                Err(TryLockError::WouldBlock) => {
                    return Err(StoreError::InUse {
                        path: directory.to_owned(),
                    });
                }
                Err(TryLockError::Error(source)) => return Err(failed(&lock_path)(source)),
            }
        }

        let path = directory.join(DATABASE_FILE);
        // Made by us first, so that it is private from its first byte; SQLite gives its side files the same
        // mode.
        private_file(&path).map_err(failed(&path))?;
        let mut db = open_writer(&path)?;
        // Before anything that writes: a newer or foreign database is left as it is.
        migrate::check(&db, &path)?;
        db.pragma_update(None, "journal_mode", "WAL")?;
        db.pragma_update(None, "synchronous", "FULL")?;
        db.pragma_update(None, "journal_size_limit", 16 << 20)?;
        migrate::run(&mut db, &path)?;
        db.pragma_update(None, "foreign_keys", true)?;
        let mut writer = Writer {
            db,
            signer: Signer::open(directory)?,
        };
        writer.transact(|tx| life::adopt(tx, now_ms))?;
        let reader = open_reader(&path)?;
        Ok(Store {
            shared: Arc::new(Shared {
                writer: Some(Mutex::new(writer)),
                reader: Mutex::new(reader),
                path,
                stuck: AtomicBool::new(false),
                _lock: Some(lock),
            }),
        })
    }

    /// Opens an existing record for writing beside whoever uses it (a command beside the daemon). Each transaction reads
    /// anew where the audit chain stands, so that both continue the same one.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when there is none yet, [`StoreError::TooOld`] when the daemon of this version has not
    /// yet brought the schema up to date, and as for [`Store::open`].
    pub fn join(directory: &Path) -> Result<Store, StoreError> {
        let path = existing(directory)?;
        let db = open_writer(&path)?;
        let found = migrate::check(&db, &path)?;
        if found < migrate::newest() {
            return Err(StoreError::TooOld { path });
        }
        db.pragma_update(None, "synchronous", "FULL")?;
        db.pragma_update(None, "foreign_keys", true)?;
        let signer = Signer::open(directory)?;
        let reader = open_reader(&path)?;
        Ok(Store {
            shared: Arc::new(Shared {
                writer: Some(Mutex::new(Writer { db, signer })),
                reader: Mutex::new(reader),
                path,
                stuck: AtomicBool::new(false),
                _lock: None,
            }),
        })
    }

    /// Opens an existing record for reading, beside a running daemon or on a stopped one's directory.
    ///
    /// # Errors
    /// [`StoreError::Missing`] when there is none yet, [`StoreError::TooNew`] and the like as for
    /// [`Store::open`].
    pub fn open_read_only(directory: &Path) -> Result<Store, StoreError> {
        let path = existing(directory)?;
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
                stuck: AtomicBool::new(false),
                _lock: None,
            }),
        })
    }

    /// The database file.
    pub fn path(&self) -> &Path {
        &self.shared.path
    }

    /// Length of the database, without its log; 0 when the system does not tell.
    pub fn octets(&self) -> u64 {
        fs::metadata(self.path()).map_or(0, |metadata| metadata.len())
    }

    /// The data directory.
    pub fn directory(&self) -> &Path {
        self.shared.path.parent().unwrap_or(Path::new("."))
    }

    /// Runs `work` in one immediate transaction on the writer; an error rolls it back.
    pub(crate) fn write<T>(
        &self,
        work: impl FnOnce(&Tx<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let Some(writer) = &self.shared.writer else {
            return Err(StoreError::ReadOnly);
        };
        // A panic in an earlier holder rolled its transaction back; the connection is sound.
        let done = writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .transact(work);
        match &done {
            Ok(_) => self.shared.stuck.store(false, Ordering::Relaxed),
            Err(error) if error.is_disk() => self.shared.stuck.store(true, Ordering::Relaxed),
            Err(_) => {}
        }
        done
    }

    /// Whether the last write found room on a working disk. While it did not, take no more calls; those in progress go
    /// on without their record.
    pub fn is_writable(&self) -> bool {
        self.shared.writer.is_some() && !self.shared.stuck.load(Ordering::Relaxed)
    }

    /// Tries a write that changes nothing, to learn whether there is room again.
    ///
    /// # Errors
    /// [`StoreError::DiskFull`], or what else the disk says.
    pub fn probe(&self) -> Result<(), StoreError> {
        self.write(|tx| {
            tx.execute_batch(
                "CREATE TABLE probe (filler BLOB); INSERT INTO probe VALUES (zeroblob(65536)); DROP TABLE probe",
            )?;
            Ok(())
        })
    }

    /// Bounds the database's size [MiB]; beyond it writes fail as on a full disk, so that the system keeps its room.
    ///
    /// # Errors
    /// [`StoreError`] of the database.
    pub fn bound_size(&self, most_mb: u64) -> Result<(), StoreError> {
        self.write(|tx| {
            let page: u64 = tx.pragma_query_value(None, "page_size", |row| row.get(0))?;
            let pages = (most_mb << 20) / page.max(1);
            tx.pragma_update_and_check(None, "max_page_count", pages as i64, |_| Ok(()))?;
            Ok(())
        })
    }

    /// Moves the log's pages into the database and empties it, as far as no reader needs them.
    pub(crate) fn empty_log(&self) -> Result<(), StoreError> {
        let Some(writer) = &self.shared.writer else {
            return Err(StoreError::ReadOnly);
        };
        let writer = writer.lock().unwrap_or_else(PoisonError::into_inner);
        writer
            .db
            .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))?;
        Ok(())
    }

    /// Runs `work` on the reader.
    pub(crate) fn read<T>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        work(&self.shared.reader.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Writer {
    fn transact<T>(&mut self, work: impl FnOnce(&Tx<'_>) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let transaction = self
            .db
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        let tx = Tx::new(transaction, &self.signer);
        let done = work(&tx)?;
        tx.commit()?;
        Ok(done)
    }
}

/// The database of a directory that has one.
fn existing(directory: &Path) -> Result<PathBuf, StoreError> {
    let path = directory.join(DATABASE_FILE);
    if path.is_file() {
        Ok(path)
    } else {
        Err(StoreError::Missing {
            path: directory.to_owned(),
        })
    }
}

fn open_writer(path: &Path) -> Result<Connection, StoreError> {
    let db = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    db.busy_timeout(BUSY_TIMEOUT)?;
    db.set_prepared_statement_cache_capacity(STATEMENTS);
    // What is erased is overwritten, not only forgotten.
    db.pragma_update(None, "secure_delete", true)?;
    Ok(db)
}

pub(crate) fn open_reader(path: &Path) -> Result<Connection, StoreError> {
    let reader = Connection::open_with_flags(
        path,
        OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX,
    )?;
    reader.busy_timeout(BUSY_TIMEOUT)?;
    reader.set_prepared_statement_cache_capacity(STATEMENTS);
    Ok(reader)
}

/// What SQLite has allocated in this process \[octets\]: mostly pages, up to 2 MB for each of a [`Store`]'s two connections.
/// They fill as the database grows, and stay.
#[must_use]
#[allow(unsafe_code)]
pub fn cache_octets() -> usize {
    // SAFETY: has no conditions; it reads a counter under a lock of its own.
    let octets = unsafe { rusqlite::ffi::sqlite3_memory_used() };
    usize::try_from(octets).unwrap_or(0)
}

/// Makes the directory for this user alone; an existing one keeps its mode.
pub(crate) fn make_private_directory(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Opens a file for writing, made for this user alone if missing.
pub(crate) fn private_file(path: &Path) -> std::io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
}
