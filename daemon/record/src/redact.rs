//! Redacting: a recording made anew with parts of it silent, and where keys were pressed in the sound.
//!
//! A sealed recording is never changed. What is muted is digital silence of the same length, so that both sides stay
//! aligned and everything else is sample for sample what it was.

use std::{path::Path, sync::atomic::AtomicBool};

use attendant_media::{FRAME_SAMPLES, Frame, frame::frames, tone};

use crate::{Figures, MasterKey, RecordError, Sum, Track, listen::blocks};

/// Frames in a row that make a tone; one alone may be speech.
const LEAST_FRAMES: u64 = 2;
/// Muted on either side of a tone [frames]: the parts of it that fill no whole frame, and its echo.
const AROUND: u64 = 3;
/// Tones closer than this are muted as one [frames]: how many keys there were is nobody's business.
const JOINED: u64 = 25;

/// A channel of a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// Left: the caller.
    Caller,
    /// Right: what the caller heard from us.
    Attendant,
}

/// A part that is to be silent [samples from the start].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Muted {
    /// Where.
    pub side: Side,
    /// First sample.
    pub from: u64,
    /// First sample behind it.
    pub to: u64,
}

/// Where the caller's keys are heard: in-band DTMF with a little around it.
///
/// # Errors
/// [`RecordError`] of the file, [`RecordError::Stopped`].
pub fn tones(path: &Path, master: &MasterKey, stop: &AtomicBool) -> Result<Vec<Muted>, RecordError> {
    let mut runs: Vec<(u64, u64)> = Vec::new();
    let mut at = 0_u64;
    blocks(path, master, stop, |left, _| {
        for frame in frames(left) {
            if tone::key_in(&frame).is_some() {
                match runs.last_mut() {
                    Some((_, end)) if *end == at => *end = at + 1,
                    _ => runs.push((at, at + 1)),
                }
            }
            at += 1;
        }
        Ok(())
    })?;
    runs.retain(|(from, to)| to - from >= LEAST_FRAMES);
    let mut found: Vec<(u64, u64)> = Vec::new();
    for (from, to) in runs {
        let (from, to) = (from.saturating_sub(AROUND), to + AROUND);
        match found.last_mut() {
            Some((_, end)) if from <= *end + JOINED => *end = to,
            _ => found.push((from, to)),
        }
    }
    let samples = |frame: u64| frame.min(at) * FRAME_SAMPLES as u64;
    Ok(found
        .into_iter()
        .map(|(from, to)| Muted {
            side: Side::Caller,
            from: samples(from),
            to: samples(to),
        })
        .collect())
}

/// Copies a recording into a new file (which must not exist) with these parts silent. A recording that was cut becomes one
/// that ends where it was cut.
///
/// # Errors
/// [`RecordError`] of either file, [`RecordError::Stopped`]; then the new file is to be thrown away.
pub fn mute(
    from: &Path,
    to: &Path,
    master: &MasterKey,
    muted: &[Muted],
    stop: &AtomicBool,
) -> Result<(Figures, Sum), RecordError> {
    let mut track = Track::create(to, master)?;
    let (mut at, mut number) = (0_u64, 0_u64);
    let copied = blocks(from, master, stop, |left, right| {
        let heard = silenced(left, Side::Caller, at, muted);
        let sent = silenced(right, Side::Attendant, at, muted);
        for (heard, sent) in heard.chunks(FRAME_SAMPLES).zip(sent.chunks(FRAME_SAMPLES)) {
            track.push(number, &Frame::from_slice(heard), &Frame::from_slice(sent))?;
            number += 1;
        }
        at += left.len() as u64;
        Ok(())
    });
    match copied {
        Ok(()) => track.finish().map_err(|(error, _)| error),
        Err(error) => {
            drop(track);
            Err(error)
        }
    }
}

/// The samples of one side that begin at `at`, silent where they are to be.
fn silenced(samples: &[i16], side: Side, at: u64, muted: &[Muted]) -> Vec<i16> {
    let mut out = samples.to_vec();
    let end = at + samples.len() as u64;
    for part in muted.iter().filter(|part| part.side == side) {
        let (from, to) = (part.from.clamp(at, end), part.to.clamp(at, end));
        if let Some(part) = out.get_mut((from - at) as usize..((to.max(from)) - at) as usize) {
            part.fill(0);
        }
    }
    out
}
