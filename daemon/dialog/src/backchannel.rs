//! Backchannel: what people say while they listen. It asks for nothing, so a reply goes on over it.

use crate::words::words;

/// Longest backchannel [words]: "oh okay I see".
const MAX_WORDS: usize = 4;

/// Words of agreement and attention.
const LISTENING: &[&str] = &[
    "mm",
    "mmm",
    "mhm",
    "mhmm",
    "hm",
    "hmm",
    "mm-hm",
    "mm-hmm",
    "uh-huh",
    "uhhuh",
    "uh",
    "huh",
    "ah",
    "aha",
    "oh",
    "yes",
    "yeah",
    "yep",
    "yup",
    "ok",
    "okay",
    "right",
    "sure",
    "good",
    "great",
    "fine",
    "nice",
    "alright",
    "all",
    "i",
    "see",
    "got",
    "it",
    "understood",
    "of",
    "course",
    "exactly",
    "indeed",
    "really",
    "cool",
    "perfect",
];

/// Whether a few words into a reply only say "I am listening".
pub fn is_backchannel(text: &str) -> bool {
    let said = words(text);
    let lexical = said.iter().filter(|word| !is_vocalisation(word)).count();
    !text.contains('?')
        && !said.is_empty()
        && lexical <= MAX_WORDS
        && said
            .iter()
            .all(|word| LISTENING.contains(&word.as_str()) || is_vocalisation(word))
}

/// "Mm-hm", "aha", "uh-huh", however the recogniser writes it: nothing but hums and breath.
fn is_vocalisation(word: &str) -> bool {
    word.chars().all(|c| matches!(c, 'm' | 'h' | 'u' | 'a')) && !matches!(word, "ham" | "mum" | "am" | "ma")
}

/// Words that take the floor, however short or unclear.
const INTERRUPTING: &[&str] = &[
    "stop", "wait", "no", "not", "sorry", "excuse", "hold", "hang", "but", "actually", "hello", "help",
    "what", "when", "where", "who", "how", "why", "please",
];

/// Whether what was heard into a reply is a cough or a sound of listening that the recogniser took for words: the
/// shorter the voice, the surer it must have been. `avg_logprob`: mean log-probability of the tokens, 0 or less.
pub fn is_mutter(text: &str, avg_logprob: f32, voiced_ms: u32) -> bool {
    let said = words(text);
    let certain = match voiced_ms {
        0..350 => -0.7,
        350..500 if said.len() <= 2 => -0.5,
        350..700 => -1.0,
        _ => return false,
    };
    avg_logprob < certain && !said.iter().any(|word| INTERRUPTING.contains(&word.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mutter_is_short_and_unsure() {
        let cases = [
            ("Oh ha.", -0.58, 440, true),
            ("Up.", -1.2, 160, true),
            ("The cat sat.", -1.3, 480, true),
            ("Stop.", -1.2, 300, false),
            ("Hold on.", -0.9, 440, false),
            ("On Saturday.", -0.3, 440, false),
            ("Something else first.", -1.5, 900, false),
        ];
        for (text, logprob, voiced_ms, want) in cases {
            assert_eq!(is_mutter(text, logprob, voiced_ms), want, "{text:?}");
        }
    }

    #[test]
    fn listening_is_told_from_speaking() {
        for yes in [
            "Mm-hmm.",
            "Yes.",
            "Okay, I see.",
            "Uh-huh.",
            "Right, right.",
            "Yeah",
            "Oh, great.",
            "Got it.",
            "M-M-H-M-M.",
            "Ah, hah.",
            "Umhum.",
        ] {
            assert!(is_backchannel(yes), "{yes:?}");
        }
        for no in [
            "",
            "No.",
            "Stop.",
            "Yes, but when?",
            "Okay, and on Saturday?",
            "Wait.",
            "Really?",
            "I see a problem.",
            "Ham.",
        ] {
            assert!(!is_backchannel(no), "{no:?}");
        }
    }
}
