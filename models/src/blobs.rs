//! Content-addressed files: each is named by its sha256, appears whole or not at all, and never changes.
//!
//! ```text
//! write blobs/.new-PID-N  ->  fsync  ->  compare sha256  ->  rename blobs/SHA256  ->  fsync directory
//! ```
//! A power cut leaves at most a `.new-…`, which the next run that holds the lock removes.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use sha2::{Digest, Sha256};

use crate::error::ModelError;

const NEW_PREFIX: &str = ".new-";
const BUFFER_BYTES: usize = 1 << 20;

/// The directory of files.
#[derive(Debug, Clone)]
pub(crate) struct Blobs {
    dir: PathBuf,
}

/// A file that was installed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Blob {
    /// [hex]
    pub sha256: String,
    /// [bytes]
    pub size: u64,
}

impl Blobs {
    pub fn new(store: &Path) -> Blobs {
        Blobs {
            dir: store.join("blobs"),
        }
    }

    /// Where the file with that checksum is, if it is there.
    pub fn path(&self, sha256: &str) -> PathBuf {
        self.dir.join(sha256)
    }

    /// Whether the file is there with that size; quick, does not read it.
    pub fn has(&self, sha256: &str, size: u64) -> bool {
        fs::metadata(self.path(sha256)).is_ok_and(|metadata| metadata.is_file() && metadata.len() == size)
    }

    /// Whether the file is there and is what its name says; reads all of it.
    pub fn is_intact(&self, sha256: &str, size: u64) -> Result<bool, ModelError> {
        Ok(self.has(sha256, size) && sha256_of(&self.path(sha256))? == sha256)
    }

    /// Installs what `write` produces. With `expected`, anything else is refused and thrown away.
    pub fn install(
        &self,
        what: &str,
        expected: Option<&str>,
        write: impl FnOnce(&mut dyn Write) -> Result<(), ModelError>,
    ) -> Result<Blob, ModelError> {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        fs::create_dir_all(&self.dir).map_err(ModelError::io("create", &self.dir))?;
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let new = Unfinished(
            self.dir
                .join(format!("{NEW_PREFIX}{}-{number}", std::process::id())),
        );
        let file = File::create(&new.0).map_err(ModelError::io("create", &new.0))?;
        let mut out = Hashing {
            inner: BufWriter::with_capacity(BUFFER_BYTES, file),
            hash: Sha256::new(),
            size: 0,
        };
        write(&mut out)?;
        let Hashing { inner, hash, size } = out;
        let file = inner
            .into_inner()
            .map_err(|error| ModelError::io("write", &new.0)(error.into_error()))?;
        file.sync_all().map_err(ModelError::io("write", &new.0))?;
        let sha256 = hex(&hash.finalize());
        if let Some(expected) = expected
            && expected != sha256
        {
            return Err(ModelError::Checksum {
                what: what.into(),
                expected: expected.into(),
                found: sha256,
            });
        }
        let target = self.path(&sha256);
        fs::rename(&new.0, &target).map_err(ModelError::io("install", &target))?;
        sync_dir(&self.dir)?;
        Ok(Blob { sha256, size })
    }

    /// Deletes the file with that checksum, if it is there.
    pub fn remove(&self, sha256: &str) -> Result<(), ModelError> {
        let path = self.path(sha256);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(ModelError::io("delete", &path)(error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Removes what interrupted installs left behind. Only with the store's lock held.
    pub fn sweep(&self) {
        for entry in fs::read_dir(&self.dir).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(NEW_PREFIX) {
                // What cannot be removed now is tried again next time.
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// Deletes the temporary file unless it has been renamed.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Not there any more after a successful rename.
        let _ = fs::remove_file(&self.0);
    }
}

struct Hashing<W> {
    inner: W,
    hash: Sha256,
    size: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hash.update(bytes.get(..count).unwrap_or(bytes));
        self.size += count as u64;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// Replaces `path` by `bytes`, whole or not at all.
pub(crate) fn replace(path: &Path, bytes: &[u8]) -> Result<(), ModelError> {
    let dir = path.parent().unwrap_or(Path::new("."));
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new = Unfinished(dir.join(format!(".{name}.new-{}", std::process::id())));
    let mut file = File::create(&new.0).map_err(ModelError::io("create", &new.0))?;
    file.write_all(bytes)
        .and_then(|()| file.sync_all())
        .map_err(ModelError::io("write", &new.0))?;
    fs::rename(&new.0, path).map_err(ModelError::io("replace", path))?;
    sync_dir(dir)
}

/// The checksum of a file [hex].
pub(crate) fn sha256_of(path: &Path) -> Result<String, ModelError> {
    let mut file = File::open(path).map_err(ModelError::io("read", path))?;
    let mut hash = Sha256::new();
    let mut buffer = vec![0; BUFFER_BYTES];
    loop {
        let count = file.read(&mut buffer).map_err(ModelError::io("read", path))?;
        if count == 0 {
            return Ok(hex(&hash.finalize()));
        }
        hash.update(buffer.get(..count).unwrap_or(&buffer));
    }
}

fn sync_dir(dir: &Path) -> Result<(), ModelError> {
    File::open(dir)
        .and_then(|dir| dir.sync_all())
        .map_err(ModelError::io("write", dir))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_file_is_named_by_its_content() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::new(dir.path());
        let blob = blobs
            .install("abc", Some(ABC), |out| {
                out.write_all(b"abc").map_err(ModelError::io("write", dir.path()))
            })
            .unwrap();
        assert_eq!(
            blob,
            Blob {
                sha256: ABC.into(),
                size: 3
            }
        );
        assert!(blobs.has(ABC, 3) && !blobs.has(ABC, 4));
        assert!(blobs.is_intact(ABC, 3).unwrap());
        fs::write(blobs.path(ABC), b"abX").unwrap();
        assert!(blobs.has(ABC, 3) && !blobs.is_intact(ABC, 3).unwrap());
        blobs.remove(ABC).unwrap();
        blobs.remove(ABC).unwrap();
        assert!(!blobs.has(ABC, 3));
    }

    #[test]
    fn a_failed_or_wrong_file_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::new(dir.path());
        let wrong = blobs.install("x", Some(ABC), |out| {
            out.write_all(b"abd").map_err(ModelError::io("write", dir.path()))
        });
        assert!(matches!(wrong, Err(ModelError::Checksum { .. })));
        let failed = blobs.install("x", None, |out| {
            out.write_all(b"half")
                .map_err(ModelError::io("write", dir.path()))?;
            Err(ModelError::Catalog("stop".into()))
        });
        assert!(failed.is_err());
        assert_eq!(names(&dir.path().join("blobs")), Vec::<String>::new());
    }

    #[test]
    fn leftovers_of_a_power_cut_are_swept() {
        let dir = tempfile::tempdir().unwrap();
        let blobs = Blobs::new(dir.path());
        fs::create_dir_all(dir.path().join("blobs")).unwrap();
        fs::write(dir.path().join("blobs/.new-1-0"), b"half").unwrap();
        fs::write(blobs.path(ABC), b"abc").unwrap();
        blobs.sweep();
        assert_eq!(names(&dir.path().join("blobs")), [ABC]);
    }

    #[test]
    fn replacing_is_whole() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index.json");
        replace(&path, b"one").unwrap();
        replace(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(names(dir.path()), ["index.json"]);
    }
}
