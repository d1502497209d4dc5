//! Track: frames of both sides in, a FLAC stream in a vault out; and the way back.
//!
//! A chunk holds, in 4 octets, how many samples of each channel it adds, and then FLAC frames; the first adds none and
//! holds the stream's header.

use std::{io::Write, path::Path};

use attendant_media::{FRAME_SAMPLES, Frame};

use crate::{
    RecordError,
    flac::{self, BLOCK},
    vault::{End, MasterKey, Sum, VaultReader, VaultWriter},
};

/// Blocks between two times that the file is brought to the disk: 1 s.
const BLOCKS_PER_CHUNK: u32 = 5;
/// Most silence put in at once \[frames\]: 10 minutes. A frame number further on is a fault, not a gap.
const MAX_GAP: u64 = 30_000;

/// What a recording holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Figures {
    /// Samples of each channel, 16 kHz.
    pub samples: u64,
    /// Frames that never came and stand as silence.
    pub missing: u64,
}

impl Figures {
    /// Length \[ms\].
    #[must_use]
    pub const fn length_ms(&self) -> u64 {
        self.samples / (flac::SAMPLE_RATE_HZ as u64 / 1_000)
    }
}

/// A recording being written. Left is the far party (the caller), right is what it heard from us.
pub struct Track {
    vault: VaultWriter,
    left: Vec<i16>,
    right: Vec<i16>,
    /// Coded, not yet written: so many samples.
    coded: Vec<u8>,
    waiting: u32,
    blocks: u32,
    /// The frame that comes next.
    expected: Option<u64>,
    figures: Figures,
}

impl Track {
    /// Begins a file, which must not exist.
    ///
    /// # Errors
    /// [`RecordError::File`], [`RecordError::Crypto`].
    pub fn create(path: &Path, master: &MasterKey) -> Result<Track, RecordError> {
        let mut vault = VaultWriter::create(path, master)?;
        vault.write(&chunk(0, &flac::header(0)))?;
        Ok(Track {
            vault,
            left: Vec::with_capacity(BLOCK),
            right: Vec::with_capacity(BLOCK),
            coded: Vec::new(),
            waiting: 0,
            blocks: 0,
            expected: None,
            figures: Figures::default(),
        })
    }

    /// Takes what was heard and sent in frame `at` (numbers rise by one every 20 ms; the first may be any). Missing
    /// numbers become silence, earlier ones are dropped. Once a second this waits for the disk.
    ///
    /// # Errors
    /// [`RecordError::File`]: end the recording with [`Track::abandon`].
    pub fn push(&mut self, at: u64, heard: &Frame, sent: &Frame) -> Result<(), RecordError> {
        let expected = *self.expected.get_or_insert(at);
        if at < expected {
            return Ok(());
        }
        let gap = (at - expected).min(MAX_GAP);
        for _ in 0..gap {
            self.frame(&Frame::SILENCE, &Frame::SILENCE)?;
        }
        self.figures.missing += gap;
        self.expected = Some(at + 1);
        self.frame(heard, sent)
    }

    fn frame(&mut self, heard: &Frame, sent: &Frame) -> Result<(), RecordError> {
        self.left.extend_from_slice(&heard.samples);
        self.right.extend_from_slice(&sent.samples);
        self.figures.samples += FRAME_SAMPLES as u64;
        if self.left.len() < BLOCK {
            return Ok(());
        }
        self.code();
        if self.blocks.is_multiple_of(BLOCKS_PER_CHUNK) {
            self.vault.write(&chunk(self.waiting, &self.coded))?;
            self.coded.clear();
            self.waiting = 0;
        }
        Ok(())
    }

    fn code(&mut self) {
        self.coded
            .extend(flac::frame(self.blocks, &self.left, &self.right));
        self.blocks += 1;
        self.waiting += self.left.len() as u32;
        self.left.clear();
        self.right.clear();
    }

    /// What it holds so far.
    #[must_use]
    pub const fn figures(&self) -> Figures {
        self.figures
    }

    /// Octets on the disk.
    #[must_use]
    pub const fn octets(&self) -> u64 {
        self.vault.octets()
    }

    /// Ends the file.
    ///
    /// # Errors
    /// [`RecordError::File`], with what is on the disk all the same.
    pub fn finish(mut self) -> Result<(Figures, Sum), (RecordError, Sum)> {
        if !self.left.is_empty() {
            self.code();
        }
        let sum = self.vault.finish(&chunk(self.waiting, &self.coded))?;
        Ok((self.figures, sum))
    }

    /// Gives up a file that can no longer be written: what is on the disk of it.
    #[must_use]
    pub fn abandon(self) -> Sum {
        self.vault.abandon()
    }
}

/// Decrypts a recording into a FLAC file that any player takes. A file that was cut plays up to the cut.
///
/// # Errors
/// [`RecordError`] of the recording; those of `out` as [`RecordError::File`] of the recording's path.
pub fn export(path: &Path, master: &MasterKey, out: &mut dyn Write) -> Result<(Figures, End), RecordError> {
    // Twice: the header tells how long the stream is.
    let (samples, end) = length(path, master)?;
    let mut reader = VaultReader::open(path, master)?;
    let failed = RecordError::file;
    out.write_all(&flac::header(samples)).map_err(failed(path))?;
    // The header as written first.
    reader.next_chunk()?;
    while let Some(chunk) = reader.next_chunk()? {
        let (_, frames) = parts(&chunk);
        out.write_all(frames).map_err(failed(path))?;
    }
    out.flush().map_err(failed(path))?;
    Ok((Figures { samples, missing: 0 }, end))
}

/// Samples of each channel in a recording.
///
/// # Errors
/// [`RecordError`].
pub fn length(path: &Path, master: &MasterKey) -> Result<(u64, End), RecordError> {
    let mut reader = VaultReader::open(path, master)?;
    let mut samples = 0;
    while let Some(chunk) = reader.next_chunk()? {
        samples += u64::from(parts(&chunk).0);
    }
    Ok((samples, reader.end().unwrap_or(End::Whole)))
}

fn chunk(samples: u32, octets: &[u8]) -> Vec<u8> {
    [&samples.to_be_bytes(), octets].concat()
}

pub(crate) fn parts(chunk: &[u8]) -> (u32, &[u8]) {
    match chunk.split_first_chunk() {
        Some((samples, octets)) => (u32::from_be_bytes(*samples), octets),
        None => (0, &[]),
    }
}
