//! Intent: whether the caller ends the call. A rule, and a careful one: hanging up on somebody who stays is
//! worse than one more "anything else?".

use crate::words::{contains, words};

/// Longest utterance that can be a goodbye [words].
const MAX_WORDS: usize = 14;

/// Words that may stand around a goodbye without changing it.
const POLITE: &[&str] = &[
    "thank",
    "thanks",
    "you",
    "very",
    "much",
    "so",
    "okay",
    "ok",
    "no",
    "nope",
    "yes",
    "yeah",
    "alright",
    "all",
    "right",
    "great",
    "perfect",
    "good",
    "lovely",
    "wonderful",
    "have",
    "a",
    "nice",
    "day",
    "one",
    "evening",
    "weekend",
    "night",
    "for",
    "your",
    "the",
    "help",
    "now",
    "then",
    "and",
    "well",
    "cheers",
    "sir",
    "madam",
    "ma'am",
    "oh",
    "um",
    "uh",
    "that",
    "that's",
    "it",
    "just",
    "i",
    "think",
    "guess",
    "really",
    "again",
    "too",
    "see",
    "later",
    "soon",
    "take",
    "care",
    "bye",
    "goodbye",
    "talk",
    "to",
    "i'm",
    "fine",
    "everything",
    "today",
    "be",
    "will",
    "that'll",
    "was",
    "is",
    "else",
    "nothing",
    "anything",
    "don't",
    "need",
    "appreciate",
    "got",
    "what",
    "needed",
    "wanted",
    "know",
    "by",
];

/// What says in so many words that the caller is done.
const DONE: &[&[&str]] = &[
    &["that's", "all"],
    &["that", "is", "all"],
    &["that'll", "be", "all"],
    &["that", "will", "be", "all"],
    &["that", "was", "all"],
    &["that's", "it"],
    &["that's", "everything"],
    &["nothing", "else"],
    &["don't", "need", "anything", "else"],
    &["see", "you", "later"],
    &["see", "you", "soon"],
    &["talk", "to", "you", "later"],
];

/// Words that make a sentence with "bye" in it something else.
const NOT_YET: &[&str] = &[
    "before", "wait", "don't", "not", "how", "why", "when", "where", "who", "which", "spell", "but", "if",
    "first", "question", "said", "told", "say", "says",
];

/// Whether the caller's `text` ends the call. `last_reply` is what was said to them before: "No, thank you."
/// ends the call only after "Anything else?".
pub fn ends_call(text: &str, last_reply: Option<&str>) -> bool {
    let words = words(text);
    if words.is_empty() || words.len() > MAX_WORDS || text.contains('?') {
        return false;
    }
    says_bye(&words) || is_done(&words) || (last_reply.is_some_and(asks_anything_else) && declines(&words))
}

/// "… bye", perhaps with a few polite words behind it.
fn says_bye(words: &[String]) -> bool {
    if words.iter().any(|word| NOT_YET.contains(&word.as_str())) {
        return false;
    }
    let Some(at) = words.iter().rposition(|word| is_bye(word)) else {
        return words.ends_with(&["good".to_owned(), "night".to_owned()]);
    };
    // "I dropped by", "a good buy": only the spelling counts, but a preceding article or verb makes it a
    // thing.
    let before = at
        .checked_sub(1)
        .and_then(|index| words.get(index))
        .map(String::as_str);
    let a_thing = matches!(
        before,
        Some("the" | "a" | "called" | "named" | "word" | "to" | "drop" | "stop")
    );
    !a_thing && words[at + 1..].iter().all(|word| POLITE.contains(&word.as_str()))
}

fn is_bye(word: &str) -> bool {
    matches!(word, "bye" | "goodbye" | "byebye" | "cheerio" | "ciao")
}

/// Nothing but politeness and "that's all".
fn is_done(words: &[String]) -> bool {
    words.iter().all(|word| POLITE.contains(&word.as_str())) && DONE.iter().any(|done| contains(words, done))
}

fn asks_anything_else(reply: &str) -> bool {
    let words = words(reply);
    reply.trim_end().ends_with('?')
        && [
            &["anything", "else"][..],
            &["something", "else"],
            &["any", "other"],
            &["anything", "more"],
        ]
        .iter()
        .any(|phrase| contains(&words, phrase))
}

/// "No." "No, thanks." "I'm good, thank you."
fn declines(words: &[String]) -> bool {
    let refused = matches!(words.first().map(String::as_str), Some("no" | "nope" | "nah"))
        || contains(words, &["i'm", "good"])
        || contains(words, &["i'm", "fine"]);
    refused
        && words.len() <= 8
        && words
            .iter()
            .all(|word| word == "nah" || POLITE.contains(&word.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goodbyes() {
        let cases = [
            "Goodbye.",
            "Bye.",
            "Bye-bye!",
            "Okay, thank you, bye.",
            "Thanks for your help. Goodbye.",
            "That's all, bye.",
            "No, that's all. Thank you very much.",
            "That'll be all, thanks.",
            "No thank you, nothing else.",
            "Alright, have a nice day, bye bye.",
            "Goodbye and thank you.",
            "Great, see you later.",
            "Good night.",
            "That's it, thank you.",
        ];
        for text in cases {
            assert!(ends_call(text, None), "{text}");
        }
    }

    #[test]
    fn not_goodbyes() {
        let cases = [
            "",
            "Thank you.",
            "Thanks a lot.",
            "No.",
            "No, thank you.",
            "Okay.",
            "Before you say goodbye, what are your hours?",
            "Don't say goodbye yet.",
            "How do you spell goodbye?",
            "I would like to say goodbye to my old car.",
            "That's all I know about the noise it makes.",
            "That's it, the blue one with the dent.",
            "Is that all?",
            "Can I stop by tomorrow?",
            "I'd like to buy a car.",
            "Bye, oh wait, one more thing about the invoice.",
            "My name is Bye.  B Y E, and my number is five five five.",
        ];
        for text in cases {
            assert!(!ends_call(text, None), "{text}");
        }
    }

    #[test]
    fn no_means_goodbye_only_after_anything_else() {
        let asked = Some("You are booked for Monday. Is there anything else I can do for you?");
        for text in [
            "No.",
            "No, thank you.",
            "Nope, that's great.",
            "I'm good, thanks.",
            "No, that's all.",
        ] {
            assert!(ends_call(text, asked), "{text}");
        }
        for text in [
            "Yes.",
            "No, I meant Tuesday.",
            "No, what about tyres?",
            "Thank you.",
        ] {
            assert!(!ends_call(text, asked), "{text}");
        }
        assert!(!ends_call("No.", Some("Is Monday at nine all right?")));
    }
}
