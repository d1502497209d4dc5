//! Listening: a recording's samples, block by block, and the parts of it that somebody asks for.

use std::{
    io::{self, Read},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use claxon::FlacReader;

use crate::{MasterKey, RecordError, track::parts, vault::VaultReader};

/// The FLAC stream within a vault.
struct Stream {
    vault: VaultReader,
    chunk: Vec<u8>,
    read: usize,
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let (_, octets) = parts(&self.chunk);
            if let Some(rest) = octets.get(self.read..).filter(|rest| !rest.is_empty()) {
                let taken = rest.len().min(buffer.len());
                for (to, from) in buffer.iter_mut().zip(rest) {
                    *to = *from;
                }
                self.read += taken;
                return Ok(taken);
            }
            match self.vault.next_chunk().map_err(io::Error::other)? {
                Some(chunk) => (self.chunk, self.read) = (chunk, 0),
                None => return Ok(0),
            }
        }
    }
}

/// Gives every block of a recording, left and right, 16 kHz, at most [`crate::flac::BLOCK`] samples each; a recording that
/// was cut, up to the cut. Ends early when `stop` becomes true.
///
/// # Errors
/// [`RecordError`] of the file, [`RecordError::Stopped`], or of `take`.
pub fn blocks(
    path: &Path,
    master: &MasterKey,
    stop: &AtomicBool,
    mut take: impl FnMut(&[i16], &[i16]) -> Result<(), RecordError>,
) -> Result<(), RecordError> {
    let stream = Stream {
        vault: VaultReader::open(path, master)?,
        chunk: Vec::new(),
        read: 0,
    };
    let mut flac = FlacReader::new(stream).map_err(|error| decoding(path, error))?;
    let mut blocks = flac.blocks();
    let mut buffer = Vec::new();
    let (mut left, mut right) = (Vec::<i16>::new(), Vec::<i16>::new());
    while let Some(block) = blocks
        .read_next_or_eof(std::mem::take(&mut buffer))
        .map_err(|error| decoding(path, error))?
    {
        if stop.load(Ordering::Relaxed) {
            return Err(RecordError::Stopped);
        }
        if block.channels() != 2 {
            return Err(RecordError::NotOurs {
                path: path.to_owned(),
            });
        }
        // 16 bits each, as they were coded.
        for (side, channel) in [(&mut left, 0), (&mut right, 1)] {
            side.clear();
            side.extend(block.channel(channel).iter().map(|sample| *sample as i16));
        }
        take(&left, &right)?;
        buffer = block.into_buffer();
    }
    Ok(())
}

fn decoding(path: &Path, error: claxon::Error) -> RecordError {
    let source = match error {
        claxon::Error::IoError(source) => source,
        other => io::Error::new(io::ErrorKind::InvalidData, other.to_string()),
    };
    RecordError::File {
        path: path.to_owned(),
        source,
    }
}

/// A part of the caller's side [samples from the start].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// First sample.
    pub from: u64,
    /// First sample behind it.
    pub to: u64,
}

/// What the caller is heard saying in each of these parts; what lies outside the recording is left out.
///
/// # Errors
/// As for reading: [`RecordError`], [`RecordError::Stopped`].
pub fn cuts(
    path: &Path,
    master: &MasterKey,
    stop: &AtomicBool,
    wanted: &[Cut],
) -> Result<Vec<Vec<i16>>, RecordError> {
    let mut found = vec![Vec::new(); wanted.len()];
    let mut at = 0_u64;
    blocks(path, master, stop, |left, _| {
        let end = at + left.len() as u64;
        for (cut, samples) in wanted.iter().zip(&mut found) {
            let (from, to) = (cut.from.clamp(at, end), cut.to.clamp(at, end));
            let part = left.get((from - at) as usize..(to - at) as usize);
            samples.extend_from_slice(part.unwrap_or_default());
        }
        at = end;
        Ok(())
    })?;
    Ok(found)
}
