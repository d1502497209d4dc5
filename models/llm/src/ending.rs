//! Whether a message sounds finished: what the model expects behind its last word.
//!
//! Whisper closes almost anything with a full stop, so the transcript's own punctuation is no evidence. The model has
//! read the words anyway; one more row of logits tells how likely a full stop, a question mark or the end of the
//! message comes next, against everything that would go on.

use crate::llama::{Llama, Token};

/// The tokens that end a sentence or a message.
#[derive(Debug)]
pub(crate) struct EndTokens(Vec<usize>);

impl EndTokens {
    pub(crate) fn new(llama: &Llama) -> Self {
        let ends = (0..llama.vocabulary()).filter(|&token| {
            llama.is_end(token) || {
                let piece = llama.piece(token);
                // "." and "?\n", but neither "..." nor ".com".
                matches!(piece.first(), Some(b'.' | b'?' | b'!' | b'\n'))
                    && !piece.starts_with(b"..")
                    && !piece.iter().any(u8::is_ascii_alphanumeric)
            }
        });
        Self(ends.filter_map(|token| usize::try_from(token).ok()).collect())
    }

    /// Index of the last token of the last message in `prompt` that holds a word: what comes behind it is judged.
    pub(crate) fn last_word(&self, llama: &Llama, prompt: &[Token]) -> Option<usize> {
        let end = prompt.iter().rposition(|&token| llama.is_end(token))?;
        let word = |token: &Token| llama.piece(*token).iter().any(u8::is_ascii_alphanumeric);
        let message = prompt.get(..end)?;
        let at = message.iter().rposition(word)?;
        // Nothing but punctuation may lie between; more is another message.
        (message.len() - at <= 4).then_some(at)
    }

    /// How likely one of them comes next, 0…1.
    pub(crate) fn probability(&self, logits: &[f32]) -> f32 {
        let most = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let share = |logit: f32| f64::from((logit - most).exp());
        let all: f64 = logits.iter().copied().map(share).sum();
        let ends: f64 = self
            .0
            .iter()
            .filter_map(|&at| logits.get(at))
            .copied()
            .map(share)
            .sum();
        if all > 0.0 { (ends / all) as f32 } else { 0.0 }
    }
}
