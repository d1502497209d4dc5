//! Phonemes by the distribution's `libespeak-ng`: text in, IPA clause by clause out, punctuation kept.
//!
//! ```text
//! text --Clauses--> "Hello there" ',' | "how may I help" '?' --espeak--> "həlˈoʊ ðˈɛɹ" ',' | "hˌaʊ …" '?'
//! ```
//!
//! `espeak_TextToPhonemes` drops the punctuation that ends a clause, and Piper's voices take their prosody from just
//! that. So the text is split here, each clause goes to espeak alone, and its [`Terminator`] stays beside it.
//!
//! The crate stands in for the published `espeak-rs` (same name, [`text_to_phonemes`] and [`ESpeakError`]), whose
//! build downloads sources. The library keeps global state: every call holds one lock.
//! Source: `speak_lib.h` of espeak-ng 1.51.

mod clause;
mod ffi;

pub use clause::{Terminator, split};

/// Why there are no phonemes; the text says what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ESpeakError(pub String);

impl std::error::Error for ESpeakError {}

impl std::fmt::Display for ESpeakError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "espeak-ng: {}", self.0)
    }
}

/// Result of this crate.
pub type ESpeakResult<T> = Result<T, ESpeakError>;

/// One clause as it is spoken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clause {
    /// IPA, never empty, without its terminator.
    pub phonemes: String,
    /// What ended it.
    pub terminator: Terminator,
}

/// The clauses of `text` in IPA; `language` is an espeak voice such as `en-us`. Clauses without any sound are left out.
///
/// # Errors
/// [`ESpeakError`] when the library's data or the voice is missing.
pub fn clauses(text: &str, language: &str) -> ESpeakResult<Vec<Clause>> {
    phonemize(text, language, None)
}

/// The sentences of `text` in IPA with their punctuation, one string each: the published crate's interface.
///
/// # Errors
/// [`ESpeakError`] when the library's data or the voice is missing.
pub fn text_to_phonemes(
    text: &str,
    language: &str,
    phoneme_separator: Option<char>,
) -> ESpeakResult<Vec<String>> {
    let mut sentences = Vec::new();
    let mut current = String::new();
    for clause in phonemize(text, language, phoneme_separator)? {
        if !current.is_empty() {
            current.push(' ');
        }
        current.push_str(&clause.phonemes);
        current.push(clause.terminator.as_char());
        if clause.terminator.ends_sentence() {
            sentences.push(std::mem::take(&mut current));
        }
    }
    if !current.is_empty() {
        sentences.push(current);
    }
    Ok(sentences)
}

fn phonemize(text: &str, language: &str, separator: Option<char>) -> ESpeakResult<Vec<Clause>> {
    let espeak = ffi::Espeak::lock()?;
    espeak.set_voice(language)?;
    let mut out = Vec::new();
    for (words, terminator) in split(text) {
        let phonemes = without_language_switches(&espeak.phonemes(&words, separator)?);
        if !phonemes.is_empty() {
            out.push(Clause { phonemes, terminator });
        }
    }
    Ok(out)
}

/// Removes the marks such as `(de)` that espeak sets around words it reads in another language.
fn without_language_switches(ipa: &str) -> String {
    let mut out = String::with_capacity(ipa.len());
    let mut depth = 0_usize;
    for c in ipa.chars() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            c if depth == 0 => out.push(c),
            _ => {}
        }
    }
    out.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn punctuation_survives() {
        let got = text_to_phonemes("Who are you? I hardly know, sir!", "en-us", None).unwrap();
        assert_eq!(got.len(), 2, "{got:?}");
        assert!(
            got[0].ends_with('?') && got[1].ends_with('!') && got[1].contains(','),
            "{got:?}"
        );
    }

    #[test]
    fn one_word_in_ipa() {
        assert_eq!(text_to_phonemes("test", "en-us", None).unwrap(), ["tˈɛst."]);
        assert_eq!(
            text_to_phonemes("test", "en-us", Some('_')).unwrap(),
            ["t_ˈɛ_s_t."]
        );
    }

    #[test]
    fn marks_of_other_languages_are_removed() {
        assert_eq!(without_language_switches("a (en)b(de) c"), "a b c");
        assert_eq!(without_language_switches("a) b (x"), "a b");
    }

    #[test]
    fn nothing_to_say_is_nothing() {
        for text in ["", "   ", "...", "—", "?!", "\u{1f600}", "\0"] {
            let got = clauses(text, "en-us").unwrap();
            assert!(got.iter().all(|c| !c.phonemes.is_empty()), "{text:?}: {got:?}");
        }
    }

    #[test]
    fn an_unknown_voice_is_an_error() {
        let error = clauses("hello", "xx-none").unwrap_err();
        assert!(error.0.contains("xx-none"), "{error}");
    }

    #[test]
    fn threads_take_turns() {
        let want = clauses("Good morning, how may I help you?", "en-us").unwrap();
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    for _ in 0..50 {
                        assert_eq!(
                            clauses("Good morning, how may I help you?", "en-us").unwrap(),
                            want
                        );
                    }
                });
            }
        });
    }
}
