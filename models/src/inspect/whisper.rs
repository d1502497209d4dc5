//! whisper.cpp model files: sizes, vocabulary and tensors walked to the end. The layout is drawn in `ggml`.

use std::io::{Cursor, Read, Seek};

use super::source::{Flaw, Source};
use crate::ggml::{self, Hyperparameters};

/// Bounds what a damaged count can make us do; the largest Whisper has 51,866 tokens and 1,280 channels.
const MAX_TOKENS: u32 = 200_000;
const MAX_NAME_BYTES: u64 = 256;

/// What a file holds.
#[derive(Debug)]
pub struct Whisper {
    /// Its sizes.
    pub sizes: Hyperparameters,
    /// ggml file type, e.g. 7 for q8_0.
    pub ftype: i32,
}

impl Whisper {
    /// The published name for the size.
    pub fn size_name(&self) -> &'static str {
        match (self.sizes.audio_layers, self.is_multilingual()) {
            (4, true) => "tiny",
            (4, false) => "tiny.en",
            (6, true) => "base",
            (6, false) => "base.en",
            (12, true) => "small",
            (12, false) => "small.en",
            (24, true) => "medium",
            (24, false) => "medium.en",
            (32, _) => "large",
            _ => "of unusual size",
        }
    }

    /// Multilingual vocabularies have one token more (whisper.cpp's own test).
    pub fn is_multilingual(&self) -> bool {
        self.sizes.vocabulary >= 51_865
    }

    /// How its matrices are stored.
    pub fn storage_name(&self) -> &'static str {
        match self.ftype {
            0 => "f32",
            1 => "f16",
            2 => "q4_0",
            3 => "q4_1",
            7 => "q8_0",
            8 => "q5_0",
            9 => "q5_1",
            _ => "quantised",
        }
    }

    /// Tensors a file of these sizes has.
    fn tensors(&self) -> i64 {
        11 + 15 * i64::from(self.sizes.audio_layers) + 24 * i64::from(self.sizes.text_layers)
    }
}

/// Reads a file held in memory.
///
/// # Errors
/// [`Flaw`]: cut short, not Whisper, or damaged.
pub fn parse(bytes: &[u8]) -> Result<Whisper, Flaw> {
    parse_source(Source::new(Cursor::new(bytes), bytes.len() as u64)?)
}

/// Reads a file and walks its tensors to the end.
pub(super) fn parse_source<R: Read + Seek>(mut source: Source<R>) -> Result<Whisper, Flaw> {
    if source.u32()? != ggml::MAGIC {
        return Err(Flaw::Wrong("it is no whisper.cpp file".into()));
    }
    let mut values = [0i32; 11];
    for value in &mut values {
        *value = source.u32()? as i32;
    }
    let [
        vocabulary,
        audio_context,
        audio_state,
        audio_heads,
        audio_layers,
        text_context,
        text_state,
        text_heads,
        text_layers,
        mels,
        ftype,
    ] = values;
    let sizes = Hyperparameters {
        vocabulary,
        audio_context,
        audio_state,
        audio_heads,
        audio_layers,
        text_context,
        text_state,
        text_heads,
        text_layers,
        mels,
    };
    let plausible = (1..=200_000).contains(&vocabulary)
        && (1..=100_000).contains(&audio_context)
        && (1..=8192).contains(&audio_state)
        && (1..=100).contains(&audio_layers)
        && (1..=100).contains(&text_layers)
        && text_state == audio_state
        && (1..=512).contains(&mels);
    if !plausible {
        return Err(Flaw::Wrong(
            "it is a ggml file, but not of a Whisper model (another whisper.cpp tool's, or damaged)".into(),
        ));
    }
    let model = Whisper {
        sizes,
        ftype: ftype.rem_euclid(1000),
    };
    skip_filters_and_vocabulary(&mut source, mels)?;
    walk_tensors(&mut source, &model)?;
    Ok(model)
}

fn skip_filters_and_vocabulary<R: Read + Seek>(source: &mut Source<R>, mels: i32) -> Result<(), Flaw> {
    let (bands, bins) = (source.u32()?, source.u32()?);
    if bands != mels as u32 || !(1..=4096).contains(&bins) {
        return Err(Flaw::Wrong("its mel filters are damaged".into()));
    }
    source.skip(4 * u64::from(bands) * u64::from(bins))?;
    let tokens = source.u32()?;
    if tokens > MAX_TOKENS {
        return Err(Flaw::Wrong(format!(
            "it is damaged: {tokens} tokens are impossible"
        )));
    }
    for _ in 0..tokens {
        let length = source.u32()?;
        source.skip(u64::from(length))?;
    }
    Ok(())
}

fn walk_tensors<R: Read + Seek>(source: &mut Source<R>, model: &Whisper) -> Result<(), Flaw> {
    let mut found = 0i64;
    while !source.at_end() {
        let (rank, length, kind) = (source.u32()?, source.u32()?, source.u32()?);
        if rank > 4 || u64::from(length) > MAX_NAME_BYTES {
            return Err(Flaw::Wrong("its tensor table is damaged".into()));
        }
        let mut weights = 1u64;
        for _ in 0..rank {
            weights = weights.saturating_mul(u64::from(source.u32()?));
        }
        let name = source.text(u64::from(length), MAX_NAME_BYTES)?;
        let (block, bytes) = match kind {
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
            _ => {
                return Err(Flaw::Wrong(format!(
                    "tensor '{name}' has the unknown type {kind}"
                )));
            }
        };
        source.skip((weights / block).saturating_mul(bytes))?;
        found += 1;
    }
    if found < model.tensors() {
        return Err(Flaw::Wrong(format!(
            "it is cut short: {found} of {} tensors are there. Copy it again, and check the free space",
            model.tensors()
        )));
    }
    Ok(())
}
