//! Chain: how entries are hashed, how heads and checkpoints are signed. Pure.
//!
//! An entry's hash is SHA-256 over, without separators (integers big-endian, a text as its length in 4 octets and its
//! UTF-8 octets):
//!
//! | Octets | What |
//! |---|---|
//! | 19 | `attendant audit v1\0` |
//! | 32 | hash of the entry before; zeros before the first |
//! | 8 | sequence number |
//! | 8 | time \[Unix ms\] |
//! | 8 | sequence number of the entry that began it; 0: none |
//! | 8 | session number; 0: none |
//! | text | kind |
//! | text | phase |
//! | text | payload, as stored |
//!
//! A signature is ed25519 (RFC 8032) over [`Checkpoint::signed_text`].

use std::{
    fmt,
    fs::{self, File},
    io::Write,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use ring::{
    digest::{self, SHA256},
    rand::{SecureRandom, SystemRandom},
    signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};

use crate::StoreError;

/// The private key: 32 octets in hexadecimal, mode 0600. Never in the database, never in a backup.
pub const KEY_FILE: &str = "audit.key";
/// The public key, for verifying elsewhere.
pub const PUBLIC_KEY_FILE: &str = "audit.pub";

const TAG: &[u8; 19] = b"attendant audit v1\0";

/// A SHA-256.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Hash(pub [u8; 32]);

impl Hash {
    /// Before the first entry.
    pub const NONE: Hash = Hash([0; 32]);

    /// Of `bytes`.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Hash {
        Hash::from_digest(digest::digest(&SHA256, bytes))
    }

    fn from_digest(digest: digest::Digest) -> Hash {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest.as_ref());
        Hash(hash)
    }

    /// From 64 hexadecimal digits.
    #[must_use]
    pub fn from_hex(text: &str) -> Option<Hash> {
        from_hex(text)?.try_into().ok().map(Hash)
    }

    /// From 32 octets.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Hash> {
        bytes.try_into().ok().map(Hash)
    }
}

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl fmt::Debug for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Hashes fields one after the other, so that no two lists of fields hash alike.
pub struct Hasher(digest::Context);

impl Hasher {
    /// Begins with a tag, which keeps hashes of one purpose from serving another.
    #[must_use]
    pub fn new(tag: &[u8]) -> Hasher {
        let mut context = digest::Context::new(&SHA256);
        context.update(tag);
        Hasher(context)
    }

    /// Octets of a fixed number.
    pub fn raw(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// An integer.
    pub fn int(&mut self, value: i64) {
        self.0.update(&value.to_be_bytes());
    }

    /// Octets of any number.
    pub fn text(&mut self, bytes: &[u8]) {
        let length = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        self.0.update(&length.to_be_bytes());
        self.0.update(bytes);
    }

    /// The hash.
    #[must_use]
    pub fn finish(self) -> Hash {
        Hash::from_digest(self.0.finish())
    }
}

/// What an entry's hash covers beside the hash before it. Texts as octets: whatever an outsider wrote must be hashed
/// as it is.
#[derive(Debug, Clone, Copy)]
pub struct Link<'a> {
    /// Sequence number.
    pub seq: i64,
    /// When \[Unix ms\].
    pub at_ms: i64,
    /// Entry that began it; 0: none.
    pub begun: i64,
    /// Session; 0: none.
    pub session: i64,
    /// Kind.
    pub kind: &'a [u8],
    /// Phase.
    pub phase: &'a [u8],
    /// Payload.
    pub payload: &'a [u8],
}

impl Link<'_> {
    /// The entry's hash behind `previous`.
    #[must_use]
    pub fn hash(&self, previous: Hash) -> Hash {
        let mut hasher = Hasher::new(TAG);
        hasher.raw(&previous.0);
        for value in [self.seq, self.at_ms, self.begun, self.session] {
            hasher.int(value);
        }
        for text in [self.kind, self.phase, self.payload] {
            hasher.text(text);
        }
        hasher.finish()
    }
}

/// Where the chain stood at some time, with the box's signature.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Checkpoint {
    /// Last entry covered.
    pub seq: i64,
    /// That entry's time \[Unix ms\].
    pub at_ms: i64,
    /// That entry's hash, which covers all before it.
    pub hash: Hash,
    /// Public key that signed.
    pub key: [u8; 32],
    /// ed25519.
    pub signature: [u8; 64],
}

impl Checkpoint {
    /// What is signed.
    fn signed_text(seq: i64, at_ms: i64, hash: &Hash, key: &[u8; 32]) -> String {
        format!(
            "attendant audit checkpoint 1\nentry {seq}\ntime_ms {at_ms}\nhash {hash}\nkey {}\n",
            hex(key)
        )
    }

    /// Whether the signature is right for the key it names. Whose key that is, is another question.
    #[must_use]
    pub fn signature_is_right(&self) -> bool {
        let text = Checkpoint::signed_text(self.seq, self.at_ms, &self.hash, &self.key);
        UnparsedPublicKey::new(&ED25519, &self.key)
            .verify(text.as_bytes(), &self.signature)
            .is_ok()
    }

    /// From the text that `Display` writes. Blanks and other lines (a title, a date for people) do not matter.
    ///
    /// # Errors
    /// [`StoreError::NoCheckpoint`] with what is missing.
    pub fn parse(text: &str) -> Result<Checkpoint, StoreError> {
        let field = |name: &'static str| {
            text.lines()
                .find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(' '))
                .map(str::trim)
                .ok_or(StoreError::NoCheckpoint { missing: name })
        };
        let number = |name| {
            field(name)?
                .parse::<i64>()
                .map_err(|_| StoreError::NoCheckpoint { missing: name })
        };
        let bytes = |name| from_hex(field(name)?).ok_or(StoreError::NoCheckpoint { missing: name });
        let wrong = |name| move |_| StoreError::NoCheckpoint { missing: name };
        Ok(Checkpoint {
            seq: number("entry")?,
            at_ms: number("time_ms")?,
            hash: Hash(bytes("hash")?.try_into().map_err(wrong("hash"))?),
            key: bytes("key")?.try_into().map_err(wrong("key"))?,
            signature: bytes("signature")?.try_into().map_err(wrong("signature"))?,
        })
    }
}

/// The text for paper or a USB stick.
impl fmt::Display for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Checkpoint::signed_text(
            self.seq, self.at_ms, &self.hash, &self.key,
        ))?;
        writeln!(f, "signature {}", hex(&self.signature))
    }
}

impl fmt::Debug for Checkpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Checkpoint({}, {})", self.seq, self.hash)
    }
}

/// The box's signing key.
pub struct Signer {
    pair: Ed25519KeyPair,
    public: [u8; 32],
}

impl Signer {
    /// Reads the key of a data directory, or makes it at the first start.
    ///
    /// # Errors
    /// [`StoreError::Directory`], [`StoreError::Key`].
    pub fn open(directory: &Path) -> Result<Signer, StoreError> {
        let seed = secret(&directory.join(KEY_FILE))?;
        let refused = || StoreError::Key {
            path: directory.join(KEY_FILE),
        };
        let pair = Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|_| refused())?;
        let public: [u8; 32] = pair.public_key().as_ref().try_into().map_err(|_| refused())?;
        let text = format!("{}\n", hex(&public));
        let path = directory.join(PUBLIC_KEY_FILE);
        if fs::read_to_string(&path).ok().as_deref() != Some(&text) {
            write_durably(&path, text.as_bytes())?;
        }
        Ok(Signer { pair, public })
    }

    /// The public key.
    pub fn public(&self) -> [u8; 32] {
        self.public
    }

    /// Signs where the chain stands.
    pub fn sign(&self, seq: i64, at_ms: i64, hash: Hash) -> Checkpoint {
        let text = Checkpoint::signed_text(seq, at_ms, &hash, &self.public);
        let mut signature = [0; 64];
        for (to, from) in signature.iter_mut().zip(self.pair.sign(text.as_bytes()).as_ref()) {
            *to = *from;
        }
        Checkpoint {
            seq,
            at_ms,
            hash,
            key: self.public,
            signature,
        }
    }
}

/// The public key of a data directory, if it has one.
pub fn public_key(directory: &Path) -> Option<[u8; 32]> {
    let text = fs::read_to_string(directory.join(PUBLIC_KEY_FILE)).ok()?;
    from_hex(text.trim())?.try_into().ok()
}

/// The 32 secret octets in a file, which is made (mode 0600) when it is missing.
///
/// # Errors
/// [`StoreError::Directory`], [`StoreError::Key`] when the file holds something else.
pub fn secret(path: &Path) -> Result<[u8; 32], StoreError> {
    /// Two that find none at the same time must not each make one: what is sealed with the first would be lost.
    static MAKING: Mutex<()> = Mutex::new(());
    let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    match fs::read_to_string(path) {
        Ok(text) => from_hex(text.trim())
            .and_then(|bytes| bytes.try_into().ok())
            .ok_or_else(|| StoreError::Key {
                path: path.to_owned(),
            }),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let seed: [u8; 32] = random()?;
            write_durably(path, format!("{}\n", hex(&seed)).as_bytes())?;
            Ok(seed)
        }
        Err(source) => Err(StoreError::Directory {
            path: path.to_owned(),
            source,
        }),
    }
}

/// Random octets of the system.
///
/// # Errors
/// [`StoreError::Random`] when the system has none.
pub fn random<const N: usize>() -> Result<[u8; N], StoreError> {
    let mut bytes = [0; N];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| StoreError::Random)?;
    Ok(bytes)
}

/// Writes a private file so that after a power cut it is there whole or not at all.
fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), StoreError> {
    let write = || {
        let temporary = path.with_extension("new");
        let mut file = crate::store::private_file(&temporary)?;
        file.set_len(0)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&temporary, path)?;
        let directory = path.parent().map_or_else(|| PathBuf::from("."), Path::to_owned);
        File::open(directory)?.sync_all()
    };
    write().map_err(|source| StoreError::Directory {
        path: path.to_owned(),
        source,
    })
}

/// Lower-case hexadecimal.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    let mut text = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        text.push(digit(byte >> 4));
        text.push(digit(byte & 15));
    }
    text
}

/// Octets of hexadecimal digits.
#[must_use]
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |octet: u8| u8::try_from(char::from(octet).to_digit(16)?).ok();
    text.as_bytes()
        .chunks(2)
        .map(|pair| match pair {
            [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn link(payload: &[u8]) -> Link<'_> {
        Link {
            seq: 7,
            at_ms: 1_760_000_000_000,
            begun: 0,
            session: 3,
            kind: b"turn",
            phase: b"note",
            payload,
        }
    }

    #[test]
    fn a_secret_is_made_once_however_many_want_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("some.key");
        let made: Vec<[u8; 32]> = std::thread::scope(|scope| {
            let all: Vec<_> = (0..16).map(|_| scope.spawn(|| secret(&path).unwrap())).collect();
            all.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert!(made.iter().all(|one| *one == made[0]));
        assert_eq!(secret(&path).unwrap(), made[0]);
    }

    #[test]
    fn an_entry_hashes_as_documented() {
        let mut by_hand = b"attendant audit v1\0".to_vec();
        by_hand.extend([0; 32]);
        for value in [7_i64, 1_760_000_000_000, 0, 3] {
            by_hand.extend(value.to_be_bytes());
        }
        for text in ["turn", "note", "{}"] {
            by_hand.extend(u32::try_from(text.len()).expect("short").to_be_bytes());
            by_hand.extend(text.as_bytes());
        }
        assert_eq!(link(b"{}").hash(Hash::NONE), Hash::of(&by_hand));
    }

    #[test]
    fn no_field_can_change_unseen() {
        let same = link(b"{}").hash(Hash::NONE);
        let others = [
            link(b"{ }").hash(Hash::NONE),
            link(b"{}").hash(Hash([1; 32])),
            Link {
                seq: 8,
                ..link(b"{}")
            }
            .hash(Hash::NONE),
            Link {
                at_ms: 8,
                ..link(b"{}")
            }
            .hash(Hash::NONE),
            Link {
                begun: 8,
                ..link(b"{}")
            }
            .hash(Hash::NONE),
            Link {
                session: 8,
                ..link(b"{}")
            }
            .hash(Hash::NONE),
            // The same octets, cut elsewhere.
            Link {
                kind: b"turnn",
                phase: b"ote",
                ..link(b"{}")
            }
            .hash(Hash::NONE),
        ];
        for (n, other) in others.iter().enumerate() {
            assert_ne!(*other, same, "{n}");
        }
    }

    #[test]
    fn a_checkpoint_survives_paper() {
        let dir = tempfile::tempdir().expect("dir");
        let signer = Signer::open(dir.path()).expect("made");
        let again = Signer::open(dir.path()).expect("read");
        assert_eq!(signer.public(), again.public());
        assert_eq!(public_key(dir.path()), Some(signer.public()));
        let checkpoint = signer.sign(42, 1_760_000_000_000, Hash([5; 32]));
        assert!(checkpoint.signature_is_right());
        let text =
            format!(" Box in the cellar, printed on Monday\r\n\r\n{checkpoint}").replace('\n', " \r\n  ");
        assert_eq!(Checkpoint::parse(&text).expect("parse"), checkpoint);
        for (from, to) in [
            ("entry 42", "entry 41"),
            ("hash 05", "hash 06"),
            ("time_ms 1", "time_ms 2"),
        ] {
            let forged = Checkpoint::parse(&text.replace(from, to)).expect("still a checkpoint");
            assert!(!forged.signature_is_right(), "{from}");
        }
        let error = Checkpoint::parse("entry 42\nhash 0505")
            .expect_err("half")
            .to_string();
        assert!(error.contains("time_ms"), "{error}");
    }

    #[test]
    fn a_broken_key_file_is_told_and_left_alone() {
        let dir = tempfile::tempdir().expect("dir");
        fs::write(dir.path().join(KEY_FILE), "not a key").expect("write");
        let error = Signer::open(dir.path()).err().expect("refused").to_string();
        assert!(error.contains(KEY_FILE) && error.contains("64"), "{error}");
        assert_eq!(
            fs::read_to_string(dir.path().join(KEY_FILE)).expect("read"),
            "not a key"
        );
    }

    proptest! {
        #[test]
        fn hexadecimal_goes_both_ways(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
            prop_assert_eq!(from_hex(&hex(&bytes)), Some(bytes));
        }

        #[test]
        fn any_text_is_parsed_or_refused(text in "(entry|hash|key|time_ms|signature| |[0-9a-f]{0,70}|\n|ü){0,40}") {
            let _ = Checkpoint::parse(&text);
        }
    }
}
