//! Words for comparing: lower case, without punctuation.

use crate::number_words::{is_spoken_zero, tens, unit};

/// The words of a text, lower case, inner apostrophes kept (`that's`), other punctuation dropped; hyphens
/// split.
pub fn words(text: &str) -> Vec<String> {
    text.split(|c: char| c.is_whitespace() || matches!(c, '-' | '–' | '—' | '/'))
        .map(|word| {
            word.chars()
                .map(|c| if c == '’' { '\'' } else { c })
                .filter(|c| c.is_alphanumeric() || *c == '\'')
                .flat_map(char::to_lowercase)
                .collect::<String>()
                .trim_matches('\'')
                .to_owned()
        })
        .filter(|word| !word.is_empty())
        .collect()
}

/// Whether `words` contains `phrase` as consecutive words.
pub fn contains(words: &[String], phrase: &[&str]) -> bool {
    !phrase.is_empty() && words.windows(phrase.len()).any(|window| window.iter().eq(phrase))
}

/// Whether the (lower-case) word is a number: digits, or a word for one.
pub fn is_number(word: &str) -> bool {
    digits_in(word) > 0
}

/// How many digits a number word stands for when a caller dictates: `seven` 1, `twenty` 2, `555` 3.
pub fn digits_in(word: &str) -> usize {
    if !word.is_empty() && word.bytes().all(|b| b.is_ascii_digit()) {
        return word.len();
    }
    match (unit(word), tens(word)) {
        (Some(0..10), _) => 1,
        (Some(_), _) | (_, Some(_)) => 2,
        (None, None) => usize::from(is_spoken_zero(word)),
    }
}

/// Abbreviations after whose full stop the sentence always goes on.
const NEVER_ENDS: &[&str] = &[
    "dr.", "mr.", "mrs.", "ms.", "prof.", "st.", "no.", "nos.", "e.g.", "i.e.", "vs.", "approx.", "gen.",
    "rev.", "hon.", "capt.", "lt.", "sgt.", "fr.", "mt.", "ft.", "tel.", "ext.", "fig.", "vol.", "jan.",
    "feb.", "mar.", "apr.", "jun.", "jul.", "aug.", "sep.", "sept.", "oct.", "nov.", "dec.", "mon.", "tue.",
    "tues.", "wed.", "thu.", "thur.", "thurs.", "fri.", "incl.", "max.", "min.", "apt.", "ste.",
];

/// Abbreviations that may also end a sentence: it ended if the next word begins with a capital.
const MAY_END: &[&str] = &[
    "a.m.", "p.m.", "etc.", "inc.", "ltd.", "co.", "corp.", "ave.", "rd.", "blvd.", "ln.", "hwy.", "jr.",
    "sr.", "u.s.", "u.k.", "hr.", "hrs.", "mins.", "dept.", "appt.", "km.", "lb.", "lbs.", "oz.", "sq.",
    "ph.d.", "m.d.",
];

/// What a full stop at the end of a word means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// The end of a sentence.
    Sentence,
    /// Part of an abbreviation; the sentence goes on.
    Abbreviation,
    /// Either; the next word tells.
    Either,
}

/// Judges the full stop at the end of `word` (`Dr.`, `p.m.`, `open.`); opening quotes and brackets are
/// ignored.
pub fn full_stop(word: &str) -> Stop {
    let bare = word.trim_start_matches(|c: char| !c.is_alphanumeric());
    let lower = bare.to_lowercase();
    if MAY_END.contains(&lower.as_str()) {
        return Stop::Either;
    }
    // A single capital is an initial: "J. Smith". "I." is a sentence's end.
    let mut letters = bare.chars();
    let initial = matches!((letters.next(), letters.next(), letters.next()), (Some(c), Some('.'), None)
        if c.is_uppercase() && c != 'I');
    if initial || NEVER_ENDS.contains(&lower.as_str()) {
        Stop::Abbreviation
    } else {
        Stop::Sentence
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_and_normalises() {
        assert_eq!(
            words("That’s all – thank-you, BYE!"),
            ["that's", "all", "thank", "you", "bye"]
        );
        assert!(words(" ... ").is_empty());
        assert!(contains(&words("no, that's all."), &["that's", "all"]));
        assert!(!contains(&words("that all's"), &["that's", "all"]));
    }

    #[test]
    fn counts_dictated_digits() {
        for (word, want) in [
            ("555", 3),
            ("seven", 1),
            ("oh", 1),
            ("twenty", 2),
            ("ten", 2),
            ("car", 0),
            ("", 0),
        ] {
            assert_eq!(digits_in(word), want, "{word}");
        }
    }
}
