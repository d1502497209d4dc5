//! A file read forwards with every length checked against what is left.

use std::io::{self, BufReader, Read, Seek, SeekFrom};

/// Why a file is not a whole model.
#[derive(Debug, thiserror::Error)]
pub enum Flaw {
    /// The file ends before its own header says it does.
    #[error(
        "it is cut short: {length} bytes, but it must have at least {needed}. Copy it again, and check the free space"
    )]
    CutShort {
        /// Bytes the file has.
        length: u64,
        /// Bytes it needs to reach the place that is missing.
        needed: u64,
    },
    /// It is whole perhaps, but not what is wanted.
    #[error("{0}")]
    Wrong(String),
    /// The disk or stick failed.
    #[error("it cannot be read: {0}")]
    Read(#[from] io::Error),
}

/// The reader; knows its place and the end.
#[derive(Debug)]
pub struct Source<R> {
    inner: BufReader<R>,
    position: u64,
    length: u64,
}

impl<R: Read + Seek> Source<R> {
    /// Starts at the beginning of `inner`, which has `length` bytes.
    ///
    /// # Errors
    /// When it cannot be rewound.
    pub fn new(mut inner: R, length: u64) -> io::Result<Source<R>> {
        inner.seek(SeekFrom::Start(0))?;
        Ok(Source {
            inner: BufReader::new(inner),
            position: 0,
            length,
        })
    }

    pub fn position(&self) -> u64 {
        self.position
    }

    pub fn length(&self) -> u64 {
        self.length
    }

    pub fn at_end(&self) -> bool {
        self.position >= self.length
    }

    /// Passes over `count` bytes, which must be there.
    pub fn skip(&mut self, count: u64) -> Result<(), Flaw> {
        self.reserve(count)?;
        let mut rest = count;
        while rest > 0 {
            // i64 steps; in practice one.
            let step = rest.min(i64::MAX as u64);
            self.inner.seek_relative(step as i64)?;
            rest -= step;
        }
        self.position += count;
        Ok(())
    }

    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], Flaw> {
        self.reserve(N as u64)?;
        let mut out = [0; N];
        self.inner.read_exact(&mut out)?;
        self.position += N as u64;
        Ok(out)
    }

    pub fn u32(&mut self) -> Result<u32, Flaw> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub fn u64(&mut self) -> Result<u64, Flaw> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// `length` bytes as text, at most `limit`.
    pub fn text(&mut self, length: u64, limit: u64) -> Result<String, Flaw> {
        if length > limit {
            return Err(Flaw::Wrong(format!(
                "a name of {length} bytes in it is impossible: it is damaged"
            )));
        }
        self.reserve(length)?;
        let mut out = vec![0; length as usize];
        self.inner.read_exact(&mut out)?;
        self.position += length;
        Ok(String::from_utf8_lossy(&out).into_owned())
    }

    fn reserve(&self, count: u64) -> Result<(), Flaw> {
        let needed = self.position.saturating_add(count);
        if needed > self.length {
            return Err(Flaw::CutShort {
                length: self.length,
                needed,
            });
        }
        Ok(())
    }
}
