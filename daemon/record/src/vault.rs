//! Vault: an encrypted file that grows in chunks, so that what was written before a power cut can be read.
//!
//! ```text
//! "ATTDREC1" │ salt, 32 octets │ chunk │ chunk │ … │ last chunk
//! chunk: length of what follows in 4 octets (top bit: the last one) │ ciphertext │ tag, 16 octets
//! ```
//! AES-256-GCM. The file's own key is HKDF-SHA256 of the box's key with the salt; the nonce is the chunk's number, the
//! additional data are header and length, so that chunks cannot be moved, repeated, taken out or put into another file
//! unseen, and a file without its last chunk is known to be cut.

use std::{
    fs::{File, OpenOptions},
    io::{self, BufReader, Read, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    digest::{self, SHA256},
    hkdf::{HKDF_SHA256, Salt},
    rand::{SecureRandom, SystemRandom},
};

use crate::RecordError;

const MAGIC: &[u8; 8] = b"ATTDREC1";
const HEADER_OCTETS: usize = 40;
const TAG_OCTETS: usize = 16;
/// Marks the last chunk's length.
const LAST: u32 = 1 << 31;
/// Longest chunk \[octets\]; a second of two noisy channels is 64 KiB.
const MAX_CHUNK: usize = 1 << 20;

/// The box's key to its recordings; kept in a file outside the database.
#[derive(Clone)]
pub struct MasterKey([u8; 32]);

impl MasterKey {
    /// From 32 secret octets.
    #[must_use]
    pub const fn new(octets: [u8; 32]) -> MasterKey {
        MasterKey(octets)
    }

    fn of_file(&self, header: &[u8; HEADER_OCTETS]) -> Result<LessSafeKey, RecordError> {
        let (_, salt) = header.split_at(MAGIC.len());
        let key = self.derive(salt, b"attendant recording v1")?;
        let key = UnboundKey::new(&AES_256_GCM, &key).map_err(|_| RecordError::Crypto)?;
        Ok(LessSafeKey::new(key))
    }

    /// A key for one purpose (HKDF-SHA256).
    pub(crate) fn derive(&self, salt: &[u8], purpose: &[u8]) -> Result<[u8; 32], RecordError> {
        let derived = Salt::new(HKDF_SHA256, salt).extract(&self.0);
        let mut key = [0; 32];
        derived
            .expand(&[purpose], &AES_256_GCM)
            .and_then(|okm| okm.fill(&mut key))
            .map_err(|_| RecordError::Crypto)?;
        Ok(key)
    }
}

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MasterKey([redacted])")
    }
}

fn nonce(chunk: u64) -> Nonce {
    let mut octets = [0; NONCE_LEN];
    for (to, from) in octets.iter_mut().rev().zip(chunk.to_be_bytes().iter().rev()) {
        *to = *from;
    }
    Nonce::assume_unique_for_key(octets)
}

fn aad(header: &[u8; HEADER_OCTETS], length: u32) -> Aad<Vec<u8>> {
    Aad::from([header.as_slice(), &length.to_be_bytes()].concat())
}

/// SHA-256 of a file and its length, as the audit chain seals them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sum {
    /// Of all octets on the disk.
    pub sha256: [u8; 32],
    /// How many.
    pub octets: u64,
}

/// Writes chunks; each is on the disk when [`VaultWriter::write`] returns.
pub struct VaultWriter {
    path: PathBuf,
    file: File,
    header: [u8; HEADER_OCTETS],
    key: LessSafeKey,
    chunk: u64,
    sum: digest::Context,
    octets: u64,
}

impl VaultWriter {
    /// A new file, private to this user.
    ///
    /// # Errors
    /// [`RecordError::File`] when it exists already or cannot be made, [`RecordError::Crypto`].
    pub fn create(path: &Path, master: &MasterKey) -> Result<VaultWriter, RecordError> {
        let mut header = [0; HEADER_OCTETS];
        let (magic, salt) = header.split_at_mut(MAGIC.len());
        magic.copy_from_slice(MAGIC);
        SystemRandom::new().fill(salt).map_err(|_| RecordError::Crypto)?;
        let key = master.of_file(&header)?;
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(path)
            .map_err(RecordError::file(path))?;
        let mut writer = VaultWriter {
            path: path.to_owned(),
            file,
            header,
            key,
            chunk: 0,
            sum: digest::Context::new(&SHA256),
            octets: 0,
        };
        writer.put(&header)?;
        writer.file.sync_all().map_err(RecordError::file(path))?;
        // The name, too, must survive.
        if let Some(directory) = path.parent() {
            File::open(directory)
                .and_then(|directory| directory.sync_all())
                .map_err(RecordError::file(path))?;
        }
        Ok(writer)
    }

    /// Adds a chunk, and waits until it is on the disk.
    ///
    /// # Errors
    /// [`RecordError::File`]: the disk is full or gone; the file ends with the chunk before.
    pub fn write(&mut self, plain: &[u8]) -> Result<(), RecordError> {
        self.seal(plain, 0)
    }

    /// Octets so far.
    #[must_use]
    pub const fn octets(&self) -> u64 {
        self.octets
    }

    /// Ends the file.
    ///
    /// # Errors
    /// As for [`VaultWriter::write`], with what is on the disk all the same.
    pub fn finish(mut self, plain: &[u8]) -> Result<Sum, (RecordError, Sum)> {
        match self.seal(plain, LAST) {
            Ok(()) => Ok(self.sum()),
            Err(error) => Err((error, self.sum())),
        }
    }

    /// What was written, for a file that could not be ended.
    #[must_use]
    pub fn abandon(self) -> Sum {
        self.sum()
    }

    fn sum(self) -> Sum {
        let mut sha256 = [0; 32];
        sha256.copy_from_slice(self.sum.finish().as_ref());
        Sum {
            sha256,
            octets: self.octets,
        }
    }

    fn seal(&mut self, plain: &[u8], mark: u32) -> Result<(), RecordError> {
        if plain.len() > MAX_CHUNK {
            return Err(RecordError::TooLong { octets: plain.len() });
        }
        let length = (plain.len() + TAG_OCTETS) as u32 | mark;
        let mut sealed = plain.to_vec();
        self.key
            .seal_in_place_append_tag(nonce(self.chunk), aad(&self.header, length), &mut sealed)
            .map_err(|_| RecordError::Crypto)?;
        self.chunk += 1;
        let before = self.octets;
        let chunk = [&length.to_be_bytes(), sealed.as_slice()].concat();
        // In one write: what is hashed is what is there.
        let written = self.file.write_all(&chunk).and_then(|()| self.file.sync_data());
        if let Err(source) = written {
            // Half a chunk is cut off again, as far as the disk still answers.
            let _ = self.file.set_len(before);
            return Err(RecordError::file(&self.path)(source));
        }
        self.sum.update(&chunk);
        self.octets += chunk.len() as u64;
        Ok(())
    }

    fn put(&mut self, octets: &[u8]) -> Result<(), RecordError> {
        self.file
            .write_all(octets)
            .map_err(RecordError::file(&self.path))?;
        self.sum.update(octets);
        self.octets += octets.len() as u64;
        Ok(())
    }
}

/// Where a file ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// With its last chunk.
    Whole,
    /// Without: the power went, or the end was taken off. So many octets are sound.
    Cut {
        /// Octets of header and whole chunks.
        sound: u64,
    },
}

/// Reads chunks.
pub struct VaultReader {
    path: PathBuf,
    file: BufReader<File>,
    header: [u8; HEADER_OCTETS],
    key: LessSafeKey,
    chunk: u64,
    sound: u64,
    end: Option<End>,
}

impl VaultReader {
    /// Opens a file.
    ///
    /// # Errors
    /// [`RecordError::File`], [`RecordError::NotOurs`].
    pub fn open(path: &Path, master: &MasterKey) -> Result<VaultReader, RecordError> {
        let mut file = BufReader::new(File::open(path).map_err(RecordError::file(path))?);
        let mut header = [0; HEADER_OCTETS];
        let not_ours = || RecordError::NotOurs {
            path: path.to_owned(),
        };
        file.read_exact(&mut header).map_err(|_| not_ours())?;
        if !header.starts_with(MAGIC) {
            return Err(not_ours());
        }
        Ok(VaultReader {
            path: path.to_owned(),
            file,
            key: master.of_file(&header)?,
            header,
            chunk: 0,
            sound: HEADER_OCTETS as u64,
            end: None,
        })
    }

    /// The next chunk; `None` at the end, which [`VaultReader::end`] then tells about.
    ///
    /// # Errors
    /// [`RecordError::Damaged`] when a chunk that is there whole is not what was written, or the key is another's;
    /// [`RecordError::File`].
    pub fn next_chunk(&mut self) -> Result<Option<Vec<u8>>, RecordError> {
        if self.end.is_some() {
            return Ok(None);
        }
        let cut = End::Cut { sound: self.sound };
        let mut length = [0; 4];
        if !self.fill(&mut length)? {
            self.end = Some(cut);
            return Ok(None);
        }
        let length = u32::from_be_bytes(length);
        let octets = (length & !LAST) as usize;
        if !(TAG_OCTETS..=MAX_CHUNK + TAG_OCTETS).contains(&octets) {
            return Err(self.damaged());
        }
        let mut sealed = vec![0; octets];
        if !self.fill(&mut sealed)? {
            self.end = Some(cut);
            return Ok(None);
        }
        let opened = self
            .key
            .open_in_place(nonce(self.chunk), aad(&self.header, length), &mut sealed)
            .map(|plain| plain.len());
        let Ok(plain) = opened else {
            return Err(self.damaged());
        };
        sealed.truncate(plain);
        self.chunk += 1;
        self.sound += 4 + octets as u64;
        if length & LAST != 0 {
            // Whatever follows the last chunk was not written by us.
            if self.fill(&mut [0])? {
                return Err(self.damaged());
            }
            self.end = Some(End::Whole);
        }
        Ok(Some(sealed))
    }

    /// How the file ends, once [`VaultReader::next_chunk`] has said that it does (or its last chunk was read).
    #[must_use]
    pub const fn end(&self) -> Option<End> {
        self.end
    }

    fn damaged(&self) -> RecordError {
        RecordError::Damaged {
            path: self.path.clone(),
            sound: self.sound,
        }
    }

    /// Whether there was enough to fill the buffer.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<bool, RecordError> {
        match self.file.read_exact(buffer) {
            Ok(()) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
            Err(error) => Err(RecordError::file(&self.path)(error)),
        }
    }
}

/// After a power cut: takes off what is no whole chunk, and sums up the rest. A file that is whole stays as it is.
///
/// # Errors
/// [`RecordError`]. A file that a power cut tore ends with half a chunk or with octets that never arrived; both are
/// taken off, and so is anything behind them.
pub fn repair(path: &Path, master: &MasterKey) -> Result<(End, Sum), RecordError> {
    let mut reader = VaultReader::open(path, master)?;
    let end = loop {
        match reader.next_chunk() {
            Ok(Some(_)) => {}
            Ok(None) => break reader.end().unwrap_or(End::Cut { sound: reader.sound }),
            Err(RecordError::Damaged { sound, .. }) => break End::Cut { sound },
            Err(error) => return Err(error),
        }
    };
    if let End::Cut { sound } = end {
        let file = OpenOptions::new()
            .write(true)
            .open(path)
            .map_err(RecordError::file(path))?;
        file.set_len(sound)
            .and_then(|()| file.sync_all())
            .map_err(RecordError::file(path))?;
    }
    Ok((end, sum(path)?))
}

/// Sums up a file.
///
/// # Errors
/// [`RecordError::File`].
pub fn sum(path: &Path) -> Result<Sum, RecordError> {
    let mut file = File::open(path).map_err(RecordError::file(path))?;
    file.seek(SeekFrom::Start(0)).map_err(RecordError::file(path))?;
    let (mut context, mut octets, mut buffer) = (digest::Context::new(&SHA256), 0, vec![0; 64 << 10]);
    loop {
        let read = file.read(&mut buffer).map_err(RecordError::file(path))?;
        let Some(part) = buffer.get(..read).filter(|part| !part.is_empty()) else {
            break;
        };
        context.update(part);
        octets += read as u64;
    }
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(context.finish().as_ref());
    Ok(Sum { sha256, octets })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    const KEY: MasterKey = MasterKey::new([7; 32]);

    fn written(dir: &Path, chunks: &[&[u8]]) -> (PathBuf, Sum) {
        let path = dir.join("a.rec");
        let mut writer = VaultWriter::create(&path, &KEY).expect("create");
        let (last, first) = chunks.split_last().expect("chunks");
        for chunk in first {
            writer.write(chunk).expect("write");
        }
        (path, writer.finish(last).expect("finish"))
    }

    fn read(path: &Path, key: &MasterKey) -> Result<(Vec<Vec<u8>>, End), RecordError> {
        let mut reader = VaultReader::open(path, key)?;
        let mut chunks = Vec::new();
        while let Some(chunk) = reader.next_chunk()? {
            chunks.push(chunk);
        }
        Ok((chunks, reader.end().expect("end")))
    }

    #[test]
    fn what_goes_in_comes_out_and_nobody_else_reads_it() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().expect("dir");
        let (path, sum_told) = written(dir.path(), &[b"hello, this is a secret", b"", b"goodbye"]);
        let (chunks, end) = read(&path, &KEY).expect("read");
        assert_eq!(
            chunks,
            [b"hello, this is a secret".to_vec(), vec![], b"goodbye".to_vec()]
        );
        assert_eq!(end, End::Whole);
        assert_eq!(sum(&path).expect("sum"), sum_told);
        let octets = fs::read(&path).expect("file");
        assert!(!octets.windows(6).any(|w| w == b"secret"));
        assert_eq!(
            fs::metadata(&path).expect("metadata").permissions().mode() & 0o777,
            0o600
        );
        assert!(matches!(
            read(&path, &MasterKey::new([8; 32])),
            Err(RecordError::Damaged { .. })
        ));
        assert!(matches!(
            VaultWriter::create(&path, &KEY),
            Err(RecordError::File { .. })
        ));
    }

    #[test]
    fn a_cut_anywhere_keeps_the_whole_chunks_before_it() {
        let dir = tempfile::tempdir().expect("dir");
        let (path, _) = written(dir.path(), &[b"first", b"second", b"third"]);
        let octets = fs::read(&path).expect("file");
        let starts = [40, 65, 65 + 4 + 6 + 16];
        for cut in 40..octets.len() {
            fs::write(&path, &octets[..cut]).expect("cut");
            let whole = starts.iter().filter(|start| **start <= cut).count() - 1;
            let (chunks, end) = read(&path, &KEY).expect("read");
            assert_eq!(chunks.len(), whole, "cut at {cut}");
            assert_eq!(
                end,
                End::Cut {
                    sound: starts[whole] as u64
                }
            );
            let (end, sum_told) = repair(&path, &KEY).expect("repair");
            assert_eq!(
                (end, sum_told.octets),
                (
                    End::Cut {
                        sound: starts[whole] as u64
                    },
                    starts[whole] as u64
                )
            );
            assert_eq!(read(&path, &KEY).expect("read").0.len(), whole);
        }
        for cut in 0..40 {
            fs::write(&path, &octets[..cut]).expect("cut");
            assert!(matches!(read(&path, &KEY), Err(RecordError::NotOurs { .. })));
        }
    }

    #[test]
    fn every_changed_octet_is_noticed() {
        let dir = tempfile::tempdir().expect("dir");
        let (path, sum_told) = written(dir.path(), &[b"first", b"second"]);
        let octets = fs::read(&path).expect("file");
        for at in 0..octets.len() {
            let mut changed = octets.clone();
            changed[at] ^= 0x10;
            fs::write(&path, &changed).expect("change");
            // A length may now point beyond the end: then the file is no longer whole.
            let noticed = read(&path, &KEY).map_or(true, |(_, end)| end != End::Whole);
            assert!(noticed, "octet {at}");
            assert_ne!(sum(&path).expect("sum").sha256, sum_told.sha256);
        }
        fs::write(&path, [octets.as_slice(), b"more"].concat()).expect("append");
        assert!(read(&path, &KEY).is_err(), "appended");
    }

    #[test]
    fn chunks_cannot_change_places_or_files() {
        let dir = tempfile::tempdir().expect("dir");
        let (path, _) = written(dir.path(), &[b"aaaa", b"bbbb", b"cccc"]);
        let octets = fs::read(&path).expect("file");
        let (head, rest) = octets.split_at(40);
        let chunks: Vec<&[u8]> = rest.chunks(24).collect();
        for order in [[1, 0, 2], [0, 0, 2], [0, 2, 2]] {
            let mixed = [head, chunks[order[0]], chunks[order[1]], chunks[order[2]]].concat();
            fs::write(&path, mixed).expect("mix");
            assert!(read(&path, &KEY).is_err(), "{order:?}");
        }
        let other = dir.path().join("other");
        fs::create_dir(&other).expect("dir");
        let (other, _) = written(&other, &[b"aaaa", b"bbbb", b"cccc"]);
        let other = fs::read(other).expect("file");
        fs::write(&path, [head, &other[40..]].concat()).expect("mix");
        assert!(read(&path, &KEY).is_err(), "another file's chunks");
    }
}
