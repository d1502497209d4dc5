//! Backchannel: what people say while they listen. It asks for nothing, so a reply goes on over it.

use crate::words::words;

/// Longest backchannel [words]: "oh okay I see".
const MAX_WORDS: usize = 4;

/// Words of agreement and attention.
const LISTENING: &[&str] = &[
    "mm", "mmm", "mhm", "mhmm", "hm", "hmm", "mm-hm", "mm-hmm", "uh-huh", "uhhuh", "uh", "huh", "ah", "aha", "oh",
    "yes", "yeah", "yep", "yup", "ok", "okay", "right", "sure", "good", "great", "fine", "nice", "alright", "all",
    "i", "see", "got", "it", "understood", "of", "course", "exactly", "indeed", "really", "cool", "perfect",
];

/// Whether a few words into a reply only say "I am listening".
pub fn is_backchannel(text: &str) -> bool {
    let said = words(text);
    !text.contains('?')
        && (1..=MAX_WORDS).contains(&said.len())
        && said
            .iter()
            .flat_map(|word| word.split('-'))
            .all(|word| LISTENING.contains(&word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listening_is_told_from_speaking() {
        for yes in ["Mm-hmm.", "Yes.", "Okay, I see.", "Uh-huh.", "Right, right.", "Yeah", "Oh, great.", "Got it."] {
            assert!(is_backchannel(yes), "{yes:?}");
        }
        for no in ["", "No.", "Stop.", "Yes, but when?", "Okay, and on Saturday?", "Wait.", "Really?", "I see a problem."] {
            assert!(!is_backchannel(no), "{no:?}");
        }
    }
}
