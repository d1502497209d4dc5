//! Word error rate: what was understood against what was said, after both are written the same way.
//!
//! ```text
//! said       "Please press 1 to re-enter it."   -> please press 1 to re enter it
//! understood "please press one to reenter it"   -> please press 1 to reenter it
//! ```
//!
//! Pure. Numbers are compared digit by digit, because "555 0142", "five five five oh one four two" and "5550142" are
//! the same thing said; contractions are written out; fillers and punctuation do not count.

use attendant_dialog::number_words;

/// Written both ways by careful people, and said the same.
const COMPOUNDS: [(&str, &str); 4] = [
    ("voice mail", "voicemail"),
    ("touch tone", "touchtone"),
    ("black list", "blacklist"),
    ("mail box", "mailbox"),
];

/// Errors in a comparison of words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct WordErrors {
    /// Words substituted, inserted or deleted.
    pub errors: usize,
    /// Words in the reference.
    pub words: usize,
}

impl WordErrors {
    /// Adds another comparison.
    pub fn add(&mut self, other: Self) {
        self.errors += other.errors;
        self.words += other.words;
    }

    /// Errors per word of the reference; `None` when nothing was compared.
    #[must_use]
    pub fn rate(&self) -> Option<f64> {
        (self.words > 0).then(|| self.errors as f64 / self.words as f64)
    }
}

/// Compares what was understood with what was said.
#[must_use]
pub fn compare(said: &str, understood: &str) -> WordErrors {
    let reference = normalise(said);
    WordErrors {
        errors: distance(&reference, &normalise(understood)),
        words: reference.len(),
    }
}

/// Distributes `understood` (in order, any number) over `said` (in order): which of `understood` belong to which of
/// `said`, so that the word errors are fewest. Two turns for one utterance mean that the caller was cut off.
#[must_use]
pub fn align(said: &[&str], understood: &[&str]) -> Vec<Vec<usize>> {
    let references: Vec<_> = said.iter().map(|text| normalise(text)).collect();
    let heard: Vec<_> = understood.iter().map(|text| normalise(text)).collect();
    let turns = heard.len();
    if references.is_empty() {
        return Vec::new();
    }
    // cost[t]: fewest errors with the first t turns given to the utterances so far; from[u][t]: where that began.
    let mut cost = vec![usize::MAX; turns + 1];
    let mut from = Vec::with_capacity(references.len());
    cost[0] = 0;
    for reference in &references {
        let mut best = vec![(usize::MAX, 0); turns + 1];
        for (begin, before) in cost.iter().enumerate().filter(|(_, cost)| **cost < usize::MAX) {
            let mut words = Vec::new();
            for end in begin..=turns {
                if end > begin {
                    words.extend_from_slice(&heard[end - 1]);
                }
                let total = before + distance(reference, &words);
                if total < best[end].0 {
                    best[end] = (total, begin);
                }
            }
        }
        cost = best.iter().map(|(cost, _)| *cost).collect();
        from.push(best);
    }
    let mut out = vec![Vec::new(); references.len()];
    let mut end = turns;
    for (utterance, best) in from.iter().enumerate().rev() {
        let begin = best[end].1;
        out[utterance] = (begin..end).collect();
        end = begin;
    }
    out
}

/// The words of `text`, written the one way.
#[must_use]
pub fn normalise(text: &str) -> Vec<String> {
    let text = text.to_lowercase().replace(['’', '‘', '`'], "'");
    let text = text
        .replace("a.m.", "am")
        .replace("p.m.", "pm")
        .replace("e-mail", "email");
    let mut text = text.replace('%', " percent ");
    for (apart, together) in COMPOUNDS {
        text = text.replace(apart, together);
    }
    let mut words = Vec::new();
    for raw in text.split(|c: char| !(c.is_alphanumeric() || matches!(c, '\'' | '$' | '.' | ',' | ':'))) {
        push_word(raw, &mut words);
    }
    let words: Vec<String> = words
        .into_iter()
        .filter(|w| !matches!(w.as_str(), "um" | "uh" | "uhm" | "er" | "hmm"))
        .collect();
    numbers(&words)
}

/// Splits one run of letters, digits and inner punctuation into words, contractions written out.
fn push_word(raw: &str, words: &mut Vec<String>) {
    if let Some(amount) = raw.strip_prefix('$') {
        push_word(amount, words);
        words.push("dollars".into());
        return;
    }
    // "$1,000", "3:30", "3.5", "end.Next": digits and letters on either side of a mark are words of their own,
    // except thousands separators.
    let raw = if raw.starts_with(|c: char| c.is_ascii_digit()) {
        raw.replace(',', "")
    } else {
        raw.to_owned()
    };
    for piece in raw.split(['.', ',', ':', '$']) {
        let piece = piece.trim_matches('\'');
        if piece.is_empty() {
            continue;
        }
        let expanded = match piece {
            "can't" | "cannot" => "can not",
            "won't" => "will not",
            "shan't" => "shall not",
            "let's" => "let us",
            "ok" => "okay",
            "mr" => "mister",
            "dr" => "doctor",
            "gonna" => "going to",
            "wanna" => "want to",
            "o'clock" => "oclock",
            "thanks" => "thank you",
            _ => "",
        };
        if !expanded.is_empty() {
            words.extend(expanded.split(' ').map(str::to_owned));
        } else if let Some(stem) = piece.strip_suffix("n't") {
            words.extend([stem.to_owned(), "not".to_owned()]);
        } else if let Some((stem, tail)) = piece.split_once('\'') {
            let known = matches!(
                stem,
                "it" | "that" | "what" | "there" | "who" | "where" | "he" | "she" | "how" | "here" | "when"
            );
            let tail = match tail {
                "m" => "am",
                "re" => "are",
                "ve" => "have",
                "ll" => "will",
                "d" => "would",
                "s" if known => "is",
                _ => "",
            };
            if tail.is_empty() {
                words.push(piece.replace('\'', ""));
            } else {
                words.extend([stem.to_owned(), tail.to_owned()]);
            }
        } else {
            words.push(piece.to_owned());
        }
    }
}

/// Writes number words and numerals as single digits.
fn numbers(words: &[String]) -> Vec<String> {
    let mut out = Vec::new();
    let mut at = 0;
    while at < words.len() {
        let (value, used) = number(&words[at..]);
        if used > 0 {
            out.extend(value.to_string().chars().map(String::from));
            at += used;
            continue;
        }
        let word = &words[at];
        let next_is_digit = words
            .get(at + 1)
            .is_some_and(|w| unit(w).is_some() || w.starts_with(char::is_numeric));
        let after_digit = out
            .last()
            .is_some_and(|w: &String| w.len() == 1 && w.starts_with(char::is_numeric));
        if matches!(word.as_str(), "oh" | "o") && (after_digit || next_is_digit) {
            out.push("0".into());
        } else if word.chars().all(|c| c.is_ascii_digit()) {
            out.extend(word.chars().map(String::from));
        } else if let Some(ordinal) = ordinal(word) {
            out.extend(ordinal);
        } else {
            // "2nd" was an ordinal; "4x4", "a1": letters and digits apart.
            let mut piece = String::new();
            for c in word.chars() {
                if c.is_ascii_digit() {
                    if !piece.is_empty() {
                        out.push(std::mem::take(&mut piece));
                    }
                    out.push(c.into());
                } else {
                    piece.push(c);
                }
            }
            if !piece.is_empty() {
                out.push(piece);
            }
        }
        at += 1;
    }
    out
}

/// A number spelled in words at the start of `words`, and how many words it takes (0 when there is none).
fn number(words: &[String]) -> (u64, usize) {
    let word = |at: usize| words.get(at).map_or("", String::as_str);
    let (mut total, mut at) = match (tens(word(0)), unit(word(0))) {
        (Some(tens), _) => match unit(word(1)).filter(|u| (1..10).contains(u)) {
            Some(unit) => (tens + unit, 2),
            None => (tens, 1),
        },
        (None, Some(unit)) => (unit, 1),
        (None, None) => return (0, 0),
    };
    for (name, scale) in [("hundred", 100), ("thousand", 1000)] {
        if word(at) == name && total > 0 {
            total *= scale;
            at += 1;
            let skip = usize::from(word(at) == "and");
            let (rest, used) = number(&words[(at + skip).min(words.len())..]);
            if used > 0 && rest < scale {
                return (total + rest, at + skip + used);
            }
        }
    }
    (total, at)
}

fn unit(word: &str) -> Option<u64> {
    number_words::unit(word).map(|n| n as u64)
}

fn tens(word: &str) -> Option<u64> {
    number_words::tens(word).map(|n| n as u64 * 10)
}

/// "21st" as it is spoken and then written here: twenty (2 0), first.
fn ordinal(word: &str) -> Option<Vec<String>> {
    const ORDINALS: [&str; 19] = [
        "first",
        "second",
        "third",
        "fourth",
        "fifth",
        "sixth",
        "seventh",
        "eighth",
        "ninth",
        "tenth",
        "eleventh",
        "twelfth",
        "thirteenth",
        "fourteenth",
        "fifteenth",
        "sixteenth",
        "seventeenth",
        "eighteenth",
        "nineteenth",
    ];
    let digits = ["st", "nd", "rd", "th"]
        .iter()
        .find_map(|suffix| word.strip_suffix(suffix))?;
    let number: usize = digits.parse().ok()?;
    let name = |n: usize| ORDINALS.get(n.checked_sub(1)?).map(|name| (*name).to_owned());
    match (number, number / 10, number % 10) {
        (20, ..) => Some(vec!["twentieth".into()]),
        (30, ..) => Some(vec!["thirtieth".into()]),
        (21..=31, tens, unit) => Some(vec![tens.to_string(), "0".into(), name(unit)?]),
        (..20, ..) => Some(vec![name(number)?]),
        _ => None,
    }
}

/// Fewest substitutions, insertions and deletions between two rows of words.
fn distance(reference: &[String], hypothesis: &[String]) -> usize {
    let mut row: Vec<usize> = (0..=hypothesis.len()).collect();
    for (i, expected) in reference.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, got) in hypothesis.iter().enumerate() {
            let substitute = diagonal + usize::from(expected != got);
            diagonal = row[j + 1];
            row[j + 1] = substitute.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[hypothesis.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_thing_said_is_no_error() {
        let cases = [
            ("Please press 1 now.", "please press one now"),
            ("555 0142", "five five five oh one four two"),
            ("My number is 555-0142.", "My number is 5550142"),
            ("I'm sorry, that's not valid.", "I am sorry that is not valid"),
            ("You can't send audio.", "You cannot send audio"),
            ("at half past three thirty", "at half past 3:30"),
            ("twenty three people", "23 people"),
            ("It costs $40.", "it costs forty dollars"),
            ("one thousand two hundred and five", "1,205"),
            ("um, well, uh yes", "Well, yes."),
            ("Is it the 21st?", "is it the twenty first"),
            ("Please re-enter", "please re enter"),
            ("your party’s name", "your party's name"),
            ("at 9 a.m.", "at nine AM"),
        ];
        for (said, understood) in cases {
            assert_eq!(normalise(said), normalise(understood), "{said} / {understood}");
        }
    }

    #[test]
    fn errors_are_counted_per_word() {
        assert_eq!(
            compare("what are your opening hours", "what are you opening hours"),
            WordErrors { errors: 1, words: 5 }
        );
        assert_eq!(compare("yes please", ""), WordErrors { errors: 2, words: 2 });
        assert_eq!(compare("", "thank you"), WordErrors { errors: 2, words: 0 });
        assert_eq!(WordErrors::default().rate(), None);
    }

    #[test]
    fn turns_find_their_utterances() {
        let said = [
            "what are your opening hours",
            "my number is five five five one two",
            "thank you",
        ];
        assert_eq!(
            align(
                &said,
                &[
                    "What are your opening hours?",
                    "My number is 555 12",
                    "Thank you."
                ]
            ),
            [vec![0], vec![1], vec![2]]
        );
        assert_eq!(
            align(
                &said,
                &[
                    "what are your opening hours",
                    "my number is 55",
                    "512",
                    "thank you"
                ]
            ),
            [vec![0], vec![1, 2], vec![3]]
        );
        assert_eq!(
            align(&said, &["my number is 55512", "thank you"]),
            [vec![], vec![0], vec![1]]
        );
        assert_eq!(align(&said, &[]), [vec![], vec![], Vec::<usize>::new()]);
        assert!(align(&[], &["hello"]).is_empty());
    }
}
