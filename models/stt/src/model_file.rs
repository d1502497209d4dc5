//! Whether a file is a whole Whisper model in ggml format. Looked at before whisper.cpp gets it: a truncated file would
//! load with weights missing from its last tensor, and a wrong one can make it ask for absurd amounts of memory.
//!
//! ```text
//! "lmgg" | 11 hyperparameters [i32] | n_mel, n_fft [i32] | filters [f32] | n [i32], n × (length [u32], bytes)
//!        | tensors: n_dims, name length, type [i32] | dims [i32] | name | data … end of file
//! ```
//! Source: `whisper_model_load` of whisper.cpp 1.8.3, `ggml_type` of ggml.h.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::Path;

/// `ggml` as a little-endian number.
const MAGIC: u32 = 0x6767_6d6c;
/// Most mel bands, filter bins, vocabulary entries and bytes of one: each above any Whisper's, each harmless to read.
const MOST_MEL: i32 = 256;
const MOST_FFT: i32 = 4096;
const MOST_VOCABULARY: i32 = 100_000;
const MOST_NAME: i32 = 256;

/// What is wrong with a model file.
#[derive(Debug, thiserror::Error)]
pub enum ModelFileError {
    /// Missing or unreadable.
    #[error("cannot read it: {0}")]
    Io(#[from] io::Error),
    /// Another kind of file.
    #[error("not a Whisper model in ggml format{0}")]
    Kind(&'static str),
    /// A broken copy or download.
    #[error("truncated: {have} bytes, {want} expected; fetch it again with `attendant models fetch`")]
    Truncated { have: u64, want: u64 },
    /// A broken copy, or of a version we do not know.
    #[error("damaged: {0}")]
    Damaged(&'static str),
}

/// Reads the structure of the file, not the weights.
///
/// # Errors
/// [`ModelFileError`].
pub fn check(path: &Path) -> Result<(), ModelFileError> {
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(ModelFileError::Kind(" (not a file)"));
    }
    walk(&mut BufReader::new(file), metadata.len())
}

fn walk(r: &mut (impl Read + Seek), have: u64) -> Result<(), ModelFileError> {
    let result = walk_inner(r, have);
    match result {
        Err(ModelFileError::Io(e)) if e.kind() == io::ErrorKind::UnexpectedEof => {
            Err(ModelFileError::Truncated { have, want: have + 1 })
        }
        other => other,
    }
}

fn walk_inner(r: &mut (impl Read + Seek), have: u64) -> Result<(), ModelFileError> {
    match r.by_ref().take(4).read_to_end(&mut Vec::new()) {
        Ok(4) => r.seek(SeekFrom::Start(0))?,
        _ => return Err(ModelFileError::Kind(" (empty)")),
    };
    match number(r)? as u32 {
        MAGIC => {}
        // "GGUF"
        0x4655_4747 => return Err(ModelFileError::Kind(" (it is a GGUF: a language model?)")),
        _ => return Err(ModelFileError::Kind("")),
    }
    for _ in 0..11 {
        if !(0..=1_000_000).contains(&number(r)?) {
            return Err(ModelFileError::Damaged("hyperparameters out of range"));
        }
    }
    let (n_mel, n_fft) = (number(r)?, number(r)?);
    if !(1..=MOST_MEL).contains(&n_mel) || !(1..=MOST_FFT).contains(&n_fft) {
        return Err(ModelFileError::Damaged("mel filters out of range"));
    }
    r.seek_relative(i64::from(n_mel) * i64::from(n_fft) * 4)?;
    let vocabulary = number(r)?;
    if !(1..=MOST_VOCABULARY).contains(&vocabulary) {
        return Err(ModelFileError::Damaged("vocabulary out of range"));
    }
    for _ in 0..vocabulary {
        let length = number(r)?;
        if !(0..=MOST_NAME).contains(&length) {
            return Err(ModelFileError::Damaged("vocabulary entry out of range"));
        }
        r.seek_relative(i64::from(length))?;
    }
    tensors(r, have)
}

fn tensors(r: &mut (impl Read + Seek), have: u64) -> Result<(), ModelFileError> {
    let mut at = r.stream_position()?;
    let mut count = 0_u32;
    while at < have {
        let (n_dims, name, kind) = (number(r)?, number(r)?, number(r)?);
        if !(1..=4).contains(&n_dims) || !(1..=MOST_NAME).contains(&name) {
            return Err(ModelFileError::Damaged("tensor header out of range"));
        }
        let mut elements = 1_u64;
        for _ in 0..n_dims {
            let dim = u64::try_from(number(r)?).unwrap_or(0);
            elements = elements
                .checked_mul(dim)
                .filter(|n| (1..1 << 40).contains(n))
                .unwrap_or(0);
        }
        let (block, bytes) = block_size(kind).ok_or(ModelFileError::Damaged("unknown tensor type"))?;
        if elements == 0 || !elements.is_multiple_of(block) {
            return Err(ModelFileError::Damaged("tensor shape out of range"));
        }
        at = r.stream_position()? + name as u64 + elements / block * bytes;
        if at > have {
            return Err(ModelFileError::Truncated { have, want: at });
        }
        r.seek(SeekFrom::Start(at))?;
        count += 1;
    }
    // whisper.cpp itself says so when some are missing, but not when all are.
    if count == 0 {
        Err(ModelFileError::Damaged("no weights"))
    } else {
        Ok(())
    }
}

/// Elements and bytes of one block of a `ggml_type`.
fn block_size(kind: i32) -> Option<(u64, u64)> {
    Some(match kind {
        0 => (1, 4),
        1 => (1, 2),
        2 => (32, 18),
        3 => (32, 20),
        6 => (32, 22),
        7 => (32, 24),
        8 => (32, 34),
        10 => (256, 84),
        11 => (256, 110),
        12 => (256, 144),
        13 => (256, 176),
        14 => (256, 210),
        _ => return None,
    })
}

fn number(r: &mut impl Read) -> io::Result<i32> {
    let mut bytes = [0; 4];
    r.read_exact(&mut bytes)?;
    Ok(i32::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    /// A tiny file of the right shape, with one q8_0 and one f32 tensor.
    fn sample() -> Vec<u8> {
        let mut out = Vec::new();
        let mut put = |n: i32| out.extend_from_slice(&n.to_le_bytes());
        put(MAGIC as i32);
        (0..11).for_each(&mut put);
        put(2);
        put(3);
        (0..6).for_each(&mut put);
        put(1);
        put(3);
        out.extend_from_slice(b"abc");
        for (kind, data) in [(8_i32, 68_usize), (0, 256)] {
            for n in [2, 1, kind, 32, 2] {
                out.extend_from_slice(&n.to_le_bytes());
            }
            out.push(b'w');
            out.resize(out.len() + data, 0);
        }
        out
    }

    fn check_bytes(bytes: &[u8]) -> Result<(), ModelFileError> {
        walk(&mut Cursor::new(bytes), bytes.len() as u64)
    }

    #[test]
    fn accepts_the_whole_and_nothing_less() {
        let whole = sample();
        check_bytes(&whole).unwrap();
        // Where the first tensor ends, the file is well-formed too: whisper.cpp counts the tensors.
        let first_tensor_ends = whole.len() - 256 - 21;
        for cut in (0..whole.len()).filter(|cut| *cut != first_tensor_ends) {
            assert!(check_bytes(&whole[..cut]).is_err(), "{cut} bytes");
        }
    }

    #[test]
    fn says_what_it_is_instead() {
        assert!(
            check_bytes(b"GGUF\x03\0\0\0")
                .unwrap_err()
                .to_string()
                .contains("GGUF")
        );
        assert!(
            check_bytes(b"PK\x03\x04 a zip")
                .unwrap_err()
                .to_string()
                .contains("not a Whisper model")
        );
        assert!(check_bytes(b"").unwrap_err().to_string().contains("empty"));
        assert!(check(Path::new("/")).is_err());
    }

    #[test]
    fn noise_never_panics() {
        let mut bytes = sample();
        for i in 4..bytes.len().min(200) {
            let old = std::mem::replace(&mut bytes[i], 0xff);
            let _ = check_bytes(&bytes);
            bytes[i] = old;
        }
    }
}
