//! Writer of whisper.cpp's model files.
//!
//! ```text
//! u32 magic | 11 × i32 hyperparameters | i32 bands, i32 bins, filters f32 | i32 tokens, tokens × (u32 length, bytes)
//! tensors to the end: i32 rank, i32 name length, i32 type, rank × i32 extent (innermost first), name, data
//! ```
//! Source: whisper.cpp 1.8.3, src/whisper.cpp `whisper_model_load`.

use crate::error::ModelError;
use crate::q8_0;

/// "ggml", as whisper.cpp's files begin.
pub const MAGIC: u32 = 0x6767_6d6c;
/// `GGML_FTYPE_MOSTLY_Q8_0` with quantisation version 2 in its thousands.
const FTYPE_Q8_0: i32 = 2007;

/// Whisper's sizes, in the file's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hyperparameters {
    /// Tokens, with the special ones.
    pub vocabulary: i32,
    /// Encoder positions.
    pub audio_context: i32,
    /// Encoder width.
    pub audio_state: i32,
    /// Encoder attention heads.
    pub audio_heads: i32,
    /// Encoder layers.
    pub audio_layers: i32,
    /// Decoder positions.
    pub text_context: i32,
    /// Decoder width.
    pub text_state: i32,
    /// Decoder attention heads.
    pub text_heads: i32,
    /// Decoder layers.
    pub text_layers: i32,
    /// Mel bands.
    pub mels: i32,
}

/// How a tensor is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// Single precision: biases, norms, positions.
    F32,
    /// Half precision: convolutions.
    F16,
    /// Blocks of 32: matrices.
    Q8_0,
}

impl Storage {
    fn type_id(self) -> i32 {
        match self {
            Storage::F32 => 0,
            Storage::F16 => 1,
            Storage::Q8_0 => 8,
        }
    }
}

/// Begins a file: everything before the tensors.
pub fn header(sizes: &Hyperparameters, filters: &[f32], bins: usize, tokens: &[Vec<u8>]) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, MAGIC as i32);
    let Hyperparameters {
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
    } = *sizes;
    for value in [
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
        FTYPE_Q8_0,
        mels,
        bins as i32,
    ] {
        put(&mut out, value);
    }
    filters.iter().for_each(|weight| out.extend(weight.to_le_bytes()));
    put(&mut out, tokens.len() as i32);
    for token in tokens {
        put(&mut out, token.len() as i32);
        out.extend_from_slice(token);
    }
    out
}

/// Appends one tensor; `shape` is outermost first.
///
/// # Errors
/// [`ModelError::Convert`] when the values do not fit the shape, or a row does not fill blocks.
pub fn tensor(
    out: &mut Vec<u8>,
    name: &str,
    shape: &[usize],
    storage: Storage,
    values: &[f32],
) -> Result<(), ModelError> {
    let fail = |reason: &str| ModelError::Convert {
        what: format!("tensor {name}"),
        reason: reason.into(),
    };
    if shape.iter().product::<usize>() != values.len() {
        return Err(fail("its values do not fit its shape"));
    }
    let row = shape.last().copied().unwrap_or(0);
    if storage == Storage::Q8_0 && row % q8_0::BLOCK_WEIGHTS != 0 {
        return Err(fail("its rows are no multiple of 32"));
    }
    put(out, shape.len() as i32);
    put(out, name.len() as i32);
    put(out, storage.type_id());
    for extent in shape.iter().rev() {
        put(out, i32::try_from(*extent).map_err(|_| fail("it is too large"))?);
    }
    out.extend_from_slice(name.as_bytes());
    match storage {
        Storage::F32 => values.iter().for_each(|value| out.extend(value.to_le_bytes())),
        Storage::F16 => values
            .iter()
            .for_each(|value| out.extend(q8_0::f16_bits(*value).to_le_bytes())),
        Storage::Q8_0 => q8_0::quantize_row(values, out),
    }
    Ok(())
}

fn put(out: &mut Vec<u8>, value: i32) {
    out.extend_from_slice(&value.to_le_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tensor_is_laid_out_as_whisper_reads_it() {
        let mut out = Vec::new();
        tensor(&mut out, "ab", &[2, 1], Storage::F32, &[1.0, 2.0]).unwrap();
        let head: Vec<i32> = out.as_chunks::<4>().0[..5]
            .iter()
            .map(|word| i32::from_le_bytes(*word))
            .collect();
        assert_eq!(head, [2, 2, 0, 1, 2]);
        assert_eq!(&out[20..22], b"ab");
        assert_eq!(out.len(), 22 + 8);
    }

    #[test]
    fn refuses_what_does_not_fit() {
        let mut out = Vec::new();
        assert!(tensor(&mut out, "a", &[2, 2], Storage::F32, &[1.0]).is_err());
        assert!(tensor(&mut out, "a", &[2, 16], Storage::Q8_0, &[0.0; 32]).is_err());
        assert!(out.is_empty());
    }
}
