//! Completeness: what the words so far say about whether the caller has finished.
//!
//! Silence alone cuts into dictated numbers ("my number is 555 …"), e-mail addresses and thinking pauses, or
//! waits too long after a plain "yes". The endpointer waits longer on [`Completeness::Open`] and shorter on
//! [`Completeness::Finished`]. The text may be a partial transcript. Whisper closes almost anything with a
//! full stop, so a full stop is no evidence.

use crate::{
    intent::ends_call,
    words::{contains, digits_in, is_number, words},
};

/// Lexical evidence on the end of an utterance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completeness {
    /// Nothing is missing: a plain answer, a whole question, a whole number.
    Finished,
    /// Something is under way.
    Open(OpenReason),
    /// The words do not tell.
    Unknown,
}

/// What is under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenReason {
    /// Digits are being dictated.
    Digits,
    /// An e-mail address is being dictated.
    Email,
    /// A word is being spelled.
    Spelling,
    /// The caller is thinking aloud: "um", "let me see".
    Filler,
    /// The last word wants another one: "and", "to", "the".
    Continues,
    /// The last word wants another one, but Whisper put a full stop behind it: "That's what it is."
    Dangling,
    /// The transcript trails off: "…", a dash, a comma.
    TrailsOff,
}

use Completeness::{Finished, Open, Unknown};

/// Sounds and words of thinking.
const FILLERS: &[&str] = &["um", "uh", "er", "erm", "hm", "hmm", "uhm", "umm", "well"];
/// The same in several words, at the end.
const THINKING: &[&[&str]] = &[
    &["let", "me", "see"],
    &["let", "me", "think"],
    &["let", "me", "check"],
    &["let", "me", "look"],
    &["hold", "on"],
    &["hang", "on"],
    &["one", "moment"],
    &["one", "second"],
    &["just", "a", "second"],
    &["just", "a", "moment"],
    &["just", "a", "minute"],
    &["give", "me", "a", "second"],
    &["wait", "a", "minute"],
    &["you", "know"],
    &["i", "mean"],
    &["how", "do", "i", "say"],
];

/// Words that cannot end an utterance, except a question ("Who is it for?").
const WANT_MORE: &[&str] = &[
    "and", "or", "but", "because", "cause", "the", "a", "an", "my", "your", "our", "their", "to", "of",
    "for", "with", "from", "about", "into", "at", "if", "whether", "i'm", "i'd", "i've", "i'll", "we're",
    "we'd", "we've", "we'll", "they're", "it's", "than", "as", "every", "between", "during", "until", "till",
    "since", "without", "i", "called", "named", "plus", "dear", "mister", "mrs", "dr", "doctor", "also",
];

/// Words that rarely end one.
const RATHER_MORE: &[&str] = &[
    "is", "are", "was", "were", "am", "can", "could", "would", "will", "should", "we", "they", "he", "she",
    "in", "on", "by", "that", "which", "when", "where", "who", "very", "really", "so", "like", "need",
    "want", "have", "some", "this", "these", "those", "his", "her", "its", "not", "just",
];

/// Whole utterances that need nothing more.
const ANSWERS: &[&str] = &[
    "yes",
    "yeah",
    "yep",
    "yup",
    "no",
    "nope",
    "nah",
    "ok",
    "okay",
    "sure",
    "of course",
    "certainly",
    "correct",
    "right",
    "that's right",
    "that's correct",
    "that is correct",
    "exactly",
    "fine",
    "that's fine",
    "perfect",
    "great",
    "thanks",
    "thank you",
    "thank you very much",
    "yes please",
    "no thanks",
    "no thank you",
    "yes that's right",
    "yes that's correct",
    "no that's wrong",
    "that's wrong",
    "yes i do",
    "no i don't",
    "yes it is",
    "no it isn't",
    "yes i am",
    "i do",
    "i don't",
    "i don't know",
    "i'm not sure",
    "all right",
    "alright",
    "sounds good",
    "that works",
    "yes that works",
    "mm hmm",
    "uh huh",
    "absolutely",
    "definitely",
    "go ahead",
    "never mind",
    "repeat that please",
    "say that again",
    "say that again please",
    "can you repeat that",
    "sorry what",
    "pardon",
    "excuse me",
    "what",
    "help",
    "monday",
    "tuesday",
    "wednesday",
    "thursday",
    "friday",
    "saturday",
    "sunday",
    "today",
    "tomorrow",
    "operator",
    "speak to a person",
    "talk to a person",
    "talk to a human",
    "speak to a human",
];

/// How a dictation of digits is announced.
const NUMBER_INTROS: &[&[&str]] = &[
    &["number", "is"],
    &["number's"],
    &["phone", "is"],
    &["mobile", "is"],
    &["cell", "is"],
    &["reach", "me", "at"],
    &["reach", "me", "on"],
    &["call", "me", "at"],
    &["call", "me", "on"],
    &["call", "me", "back", "at"],
    &["call", "me", "back", "on"],
    &["callback", "number"],
    &["phone", "number"],
    &["code", "is"],
    &["account", "is"],
    &["order", "number"],
    &["reference", "number"],
    &["account", "number"],
    &["invoice", "number"],
];

/// Whose numbers are dictated and are no telephone's.
const CODES: &[&str] = &[
    "account",
    "booking",
    "card",
    "case",
    "code",
    "confirmation",
    "contract",
    "customer",
    "insurance",
    "invoice",
    "member",
    "order",
    "pin",
    "policy",
    "reference",
    "serial",
    "ticket",
];

/// What begins a whole question.
const QUESTION_STARTS: &[&str] = &[
    "what", "what's", "when", "when's", "where", "where's", "who", "who's", "why", "how", "how's", "which",
    "do", "does", "did", "is", "are", "can", "could", "would", "will", "have", "has", "should", "may", "am",
    "was", "were",
];

/// Last parts of an e-mail address.
const TLDS: &[&str] = &[
    "com", "org", "net", "edu", "gov", "info", "biz", "io", "co", "uk", "de", "eu", "us", "ca", "au",
];

/// What the words so far say about whether the caller has finished.
pub fn completeness(text: &str) -> Completeness {
    let text = text.trim();
    let spoken = words(text);
    let Some(last) = spoken.last().map(String::as_str) else {
        return Unknown;
    };
    if let Some(verdict) = email(text, &spoken) {
        return verdict;
    }
    if let Some(verdict) = digits(text, &spoken) {
        return verdict;
    }
    if is_spelling(&spoken) {
        return Open(OpenReason::Spelling);
    }
    if text.ends_with("...") || text.ends_with(['…', '-', '–', '—', ',']) {
        return Open(OpenReason::TrailsOff);
    }
    let joined = spoken.join(" ");
    if ANSWERS.contains(&joined.as_str()) {
        return Finished;
    }
    let question = text.ends_with('?');
    if FILLERS.contains(&last) || (!question && THINKING.iter().any(|phrase| ends_with(&spoken, phrase))) {
        return Open(OpenReason::Filler);
    }
    if question {
        // "Can I?" "Are you the?" are cut-offs or echoes; three words make a question.
        let article = matches!(
            last,
            "the" | "a" | "an" | "my" | "your" | "and" | "or" | "but" | "because"
        );
        if article {
            return Open(OpenReason::Continues);
        }
        return if spoken.len() >= 3 && has_question_start(&spoken) {
            Finished
        } else {
            Unknown
        };
    }
    if ends_call(text, None) {
        return Finished;
    }
    let closed = text.ends_with(['.', '!']);
    if WANT_MORE.contains(&last) || (!closed && RATHER_MORE.contains(&last)) {
        return Open(OpenReason::Continues);
    }
    if RATHER_MORE.contains(&last) {
        return Open(OpenReason::Dangling);
    }
    Unknown
}

/// The model expects an end behind the last word at least this often: finished. (Thirty sentences of a bakery's callers:
/// 0.05 to 0.98 where they had finished, at most 0.04 where they stopped in the middle, mostly under 0.005. "I would like
/// to book an appointment" can be both, and lies between.)
const SURE_OF_END: f32 = 0.45;
/// A dangling word is no mistake from here on.
const MAYBE_END: f32 = 0.3;
/// … and less often than this: it goes on.
const SURE_OF_MORE: f32 = 0.02;

/// Whether the model's expectation can add anything: the words alone tell about numbers, addresses and plain answers.
pub fn wants_second_opinion(text: &str, verdict: Completeness) -> bool {
    // A model of language has no opinion on how long a number is.
    if words(text).last().is_some_and(|word| is_number(word)) {
        return false;
    }
    match verdict {
        Unknown => true,
        Finished => text.trim().ends_with('?'),
        Open(reason) => matches!(
            reason,
            OpenReason::Continues | OpenReason::Dangling | OpenReason::TrailsOff
        ),
    }
}

/// The verdict on words, given how likely (0…1) a language model finds it that they end there.
pub fn second_opinion(verdict: Completeness, ending: f32) -> Completeness {
    match verdict {
        // A question mark or a dangling word is evidence by itself; the model only moves it by one step.
        Finished if ending < SURE_OF_MORE => Unknown,
        Open(_) if ending >= MAYBE_END => Unknown,
        Finished | Open(_) => verdict,
        Unknown if ending >= SURE_OF_END => Finished,
        Unknown if ending < SURE_OF_MORE => Open(OpenReason::Continues),
        Unknown => Unknown,
    }
}

fn ends_with(spoken: &[String], phrase: &[&str]) -> bool {
    spoken.len() >= phrase.len() && spoken[spoken.len() - phrase.len()..].iter().eq(phrase)
}

/// A question word at the start, or within "…, what are your hours?".
fn has_question_start(spoken: &[String]) -> bool {
    spoken
        .iter()
        .take(spoken.len() - 2)
        .any(|word| QUESTION_STARTS.contains(&word.as_str()))
}

fn email(text: &str, spoken: &[String]) -> Option<Completeness> {
    let lower = text.to_lowercase();
    let written = lower
        .split_whitespace()
        .rev()
        .take(2)
        .find(|word| word.contains('@'));
    let intro = spoken
        .iter()
        .position(|word| matches!(word.as_str(), "email" | "mail"));
    let mentions = intro.is_some_and(|at| {
        let after = &spoken[at + 1..];
        // "my email is", "the email address is", "you can email me at"
        after
            .iter()
            .any(|word| matches!(word.as_str(), "is" | "it's" | "at" | "to"))
            && !lower.ends_with('?')
    });
    if written.is_none() && !mentions {
        return None;
    }
    let last = spoken.last().map(String::as_str)?;
    let tail = lower.trim_end_matches(['.', ',', '!', '?', ' ']);
    let dotted = TLDS.iter().any(|tld| tail.ends_with(&format!(".{tld}")));
    let spelled = spoken.len() >= 2 && spoken[spoken.len() - 2] == "dot" && TLDS.contains(&last);
    let has_at = lower.contains('@') || contains(spoken, &["at"]);
    if (dotted || spelled) && has_at {
        // ".co" may become ".co.uk".
        return Some(if last == "co" || tail.ends_with(".co") {
            Open(OpenReason::Email)
        } else {
            Finished
        });
    }
    // A sentence that went on after the address, or speaks of mail in passing, is no dictation.
    let under_way = written.is_some()
        || intro.is_some_and(|at| {
            let after = &spoken[at + 1..];
            after.len() <= 14
                && !after
                    .iter()
                    .any(|word| matches!(word.as_str(), "and" | "but" | "please" | "can" | "you"))
        });
    under_way.then_some(Open(OpenReason::Email))
}

fn digits(text: &str, spoken: &[String]) -> Option<Completeness> {
    let raw_last = text.split_whitespace().last()?;
    let birth = contains(spoken, &["date", "of", "birth"]) || contains(spoken, &["born"]);
    let year = |word: &String| {
        let written = word.len() == 4 && (word.starts_with("19") || word.starts_with("20"));
        (written && is_number(word)) || matches!(word.as_str(), "nineteen" | "twenty" | "thousand")
    };
    if birth && !text.ends_with('?') && !spoken.iter().any(year) {
        return Some(Open(OpenReason::Digits));
    }
    // Times, prices and the like are no dictation.
    let measured = raw_last
        .trim_end_matches(['.', ',', '!', '?'])
        .contains([':', '$', '€', '£', '%', '.']);
    let numeric = |word: &String| is_number(word) || word == "double" || word == "triple";
    // "884. to one." is "eight eight four two one".
    let digit = |(at, word): (usize, &String)| {
        numeric(word) || (sounds_like_digit(word) && at.checked_sub(1).is_some_and(|b| numeric(&spoken[b])))
    };
    let run = spoken
        .iter()
        .enumerate()
        .rev()
        .take_while(|word| digit(*word))
        .count();
    let (before, dictated) = spoken.split_at(spoken.len() - run);
    let announced = NUMBER_INTROS.iter().any(|phrase| contains(before, phrase));
    if run == 0 {
        let intro_ends = NUMBER_INTROS
            .iter()
            .any(|phrase| ends_with(spoken, phrase) && phrase.last() != Some(&"number"))
            || ends_with(spoken, &["number", "it's"])
            // "It is invoice number"
            || (ends_with(spoken, &["number"])
                && spoken.len() <= 5
                && matches!(spoken.first().map(String::as_str), Some("it's" | "it" | "the" | "order" | "invoice")));
        return (intro_ends && !text.ends_with('?')).then_some(Open(OpenReason::Digits));
    }
    if text.ends_with('?') || measured {
        return None;
    }
    let whole = before.is_empty()
        || before
            .iter()
            .all(|word| matches!(word.as_str(), "it's" | "it" | "is" | "yes" | "okay" | "sure"));
    // Their length is the office's own.
    let code = before.iter().any(|word| CODES.contains(&word.as_str()));
    let one_by_one = run >= 2 && dictated.iter().all(|word| digits_in(word) <= 1);
    if !(whole || announced || code || one_by_one || run >= 3 || contains(before, &["ends", "in"])) {
        return None;
    }
    let count: usize = dictated
        .iter()
        .map(|word| multiple(word).unwrap_or_else(|| digits_in(word)))
        .sum::<usize>()
        + dictated
            .iter()
            .filter(|word| sounds_like_digit(word) && digits_in(word) == 0)
            .count();
    let starts_long = dictated
        .first()
        .is_some_and(|word| word.starts_with('1') || word == "one" || word.starts_with('0'));
    let zip = contains(before, &["zip", "code"]) || contains(before, &["zip"]);
    let last_four = contains(before, &["ends", "in"]) || contains(before, &["last", "four"]);
    Some(match count {
        5 if zip => Finished,
        4 if last_four => Finished,
        count if code && count >= 6 => Unknown,
        _ if dictated.last().is_some_and(|word| multiple(word).is_some()) => Open(OpenReason::Digits),
        ..=6 => Open(OpenReason::Digits),
        // A local number; longer ones are never said with a break there.
        7 => Finished,
        10 if !starts_long => Finished,
        11 if starts_long => Finished,
        _ => Unknown,
    })
}

/// What a digit among digits is heard as.
fn sounds_like_digit(word: &str) -> bool {
    matches!(
        word,
        "to" | "too" | "for" | "ate" | "won" | "oh" | "o" | "tree" | "sex"
    )
}

/// "double five" has one digit more than "five".
fn multiple(word: &str) -> Option<usize> {
    match word {
        "double" => Some(1),
        "triple" => Some(2),
        _ => None,
    }
}

/// Single letters at the end, or a letter of the spelling alphabet: "B, R, O", "B as in Bravo".
fn is_spelling(spoken: &[String]) -> bool {
    let letter = |word: &String| {
        let mut chars = word.chars();
        matches!((chars.next(), chars.next()), (Some(c), None) if c.is_alphabetic())
    };
    let run = spoken.iter().rev().take_while(|word| letter(word)).count();
    if run >= 2 {
        return true;
    }
    let as_in = spoken.len() >= 4
        && letter(&spoken[spoken.len() - 4])
        && spoken[spoken.len() - 3] == "as"
        && spoken[spoken.len() - 2] == "in";
    as_in || ends_with(spoken, &["it's", "spelled"]) || ends_with(spoken, &["is", "spelled"])
}

#[cfg(test)]
mod tests {
    use super::*;
    use OpenReason::*;
    use proptest::prelude::*;

    #[test]
    fn the_model_moves_a_verdict_by_what_it_is_sure_of() {
        let cases = [
            ("I'd like a table for Monday.", 0.5, Finished),
            ("I'd like a table.", 0.4, Unknown),
            ("That's what I need.", 0.9, Unknown),
            ("I'd like a birthday.", 0.001, Open(Continues)),
            ("Can you tell me?", 0.001, Unknown),
            ("What time do you open?", 0.9, Finished),
            ("I think that was.", 0.001, Open(Dangling)),
            ("I was there because", 0.0, Open(Continues)),
        ];
        for (text, ending, want) in cases {
            let verdict = completeness(text);
            assert!(wants_second_opinion(text, verdict), "{text:?}");
            assert_eq!(second_opinion(verdict, ending), want, "{text:?}");
        }
        for sure in [
            "Yes.",
            "My number is 555",
            "My customer number is 471928.",
            "My email is john",
            "555-123-4567.",
            "Um.",
        ] {
            assert!(!wants_second_opinion(sure, completeness(sure)), "{sure:?}");
        }
    }

    #[test]
    fn verdicts() {
        let cases: &[(&str, Completeness)] = &[
            ("", Unknown),
            ("...", Unknown),
            ("Yes.", Finished),
            ("No, thank you.", Finished),
            ("That's right.", Finished),
            ("Okay", Finished),
            ("Goodbye.", Finished),
            ("What time do you open?", Finished),
            ("Hi, can you tell me your hours?", Finished),
            ("Who is it for?", Finished),
            ("Where are you from?", Finished),
            ("Are you the?", Open(Continues)),
            ("Hello?", Unknown),
            ("Hello.", Unknown),
            ("I'd like to book an appointment for Monday.", Unknown),
            ("I would like to", Open(Continues)),
            ("I would like to.", Open(Continues)),
            ("I'm calling about my car and", Open(Continues)),
            ("I'm calling because", Open(Continues)),
            ("I need", Open(Continues)),
            ("That's what I need.", Open(Dangling)),
            ("Yes, I.", Open(Continues)),
            ("Do you have the", Open(Continues)),
            ("My name is", Open(Continues)),
            ("I think it is, um", Open(Filler)),
            ("Um.", Open(Filler)),
            ("Let me see.", Open(Filler)),
            ("Hold on.", Open(Filler)),
            ("I wanted to ask...", Open(TrailsOff)),
            ("On Monday,", Open(TrailsOff)),
            ("My number is", Open(Digits)),
            ("My number is.", Open(Digits)),
            ("My phone number is 555", Open(Digits)),
            ("555-123", Open(Digits)),
            ("The reference is 884. to one.", Open(Digits)),
            ("My customer number is 471.", Open(Digits)),
            ("My customer number is 471928.", Unknown),
            ("It is invoice number.", Open(Digits)),
            ("The reference is 88421.", Open(Digits)),
            ("It was order in seven three.", Open(Digits)),
            ("I will come at nine thirty.", Unknown),
            ("My number is 555 0142.", Finished),
            ("The card ends in 42.", Open(Digits)),
            ("The card ends in 4277.", Finished),
            ("I was born on the third of May.", Open(Digits)),
            ("My date of birth is May 3rd, 1984.", Unknown),
            ("It's 555 12", Open(Digits)),
            ("Five five five", Open(Digits)),
            ("My number is five five five, one two", Open(Digits)),
            ("555-123-4567.", Finished),
            ("My number is 555 123 4567.", Finished),
            ("five five five one two three four five six seven", Finished),
            ("1-800-555-1234", Finished),
            ("Oh double seven", Open(Digits)),
            ("My zip code is 62701.", Finished),
            ("At 3:30.", Unknown),
            ("It costs $45.", Unknown),
            ("Can I come at 10?", Finished),
            ("On March 5.", Unknown),
            ("I have a 2019 Honda.", Unknown),
            ("My email is", Open(Email)),
            ("My email is john", Open(Email)),
            ("My email is john at", Open(Email)),
            ("My email is john dot smith at gmail", Open(Email)),
            ("My email is john at gmail dot com.", Finished),
            ("It's john@", Open(Email)),
            ("It's john@gmail.com.", Finished),
            ("john@hillside.co", Open(Email)),
            ("I sent you an email yesterday and nobody answered.", Unknown),
            ("Smith, S M I", Open(Spelling)),
            ("B-R-O-W-N", Open(Spelling)),
            ("B as in Bravo", Open(Spelling)),
        ];
        for (text, want) in cases {
            assert_eq!(completeness(text), *want, "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn never_panics(text in "\\PC{0,120}") {
            completeness(&text);
        }

        #[test]
        fn never_panics_on_words(text in "(my |email |number |is |at |dot |com |five |555 |a |b |double |it's |spelled |@|, |\\? ){0,12}") {
            completeness(&text);
        }
    }
}
