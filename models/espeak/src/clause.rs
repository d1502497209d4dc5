//! Clauses: where a text pauses, and how. Pure.

/// The punctuation that ends a clause; Piper's voices know these as phonemes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Terminator {
    /// `,` and dashes: goes on.
    Comma,
    /// `;`.
    Semicolon,
    /// `:`.
    Colon,
    /// `.`, also where a text just ends.
    Period,
    /// `?`.
    Question,
    /// `!`.
    Exclamation,
}

impl Terminator {
    /// As Piper's phoneme.
    #[must_use]
    pub fn as_char(self) -> char {
        match self {
            Self::Comma => ',',
            Self::Semicolon => ';',
            Self::Colon => ':',
            Self::Period => '.',
            Self::Question => '?',
            Self::Exclamation => '!',
        }
    }

    /// Whether a new sentence begins after it.
    #[must_use]
    pub fn ends_sentence(self) -> bool {
        matches!(self, Self::Period | Self::Question | Self::Exclamation)
    }
}

/// Abbreviations whose dot ends nothing (without that dot, lower case).
const ABBREVIATIONS: &[&str] = &[
    "mr", "mrs", "ms", "dr", "prof", "st", "sr", "jr", "vs", "no", "ave", "blvd", "dept", "ext", "approx",
    "e.g", "i.e", "a.m", "p.m", "u.s",
];

/// Splits `text` into clauses: the words without their punctuation, and what ended them. Clauses without a letter or
/// digit are left out.
#[must_use]
pub fn split(text: &str) -> Vec<(String, Terminator)> {
    let chars: Vec<char> = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    // A line break ends a sentence like a full stop.
    let breaks: Vec<bool> = text.chars().map(|c| c == '\n').collect();
    let mut out: Vec<(String, Terminator)> = Vec::new();
    let mut words = String::new();
    for (i, &c) in chars.iter().enumerate() {
        let terminator = if breaks[i] {
            Some(Terminator::Period)
        } else {
            terminator_at(&chars, i, &words)
        };
        match terminator {
            Some(terminator) => finish(&mut out, &mut words, terminator),
            // Quotes and brackets make espeak pause or spell them out.
            None if matches!(c, '"' | '“' | '”' | '«' | '»' | '(' | ')' | '[' | ']' | '{' | '}') => {
                words.push(' ')
            }
            None => words.push(c),
        }
    }
    // Words left over end as a sentence; without any, the last mark stands ("Sure,").
    if !words.trim().is_empty() {
        finish(&mut out, &mut words, Terminator::Period);
    }
    out
}

fn finish(out: &mut Vec<(String, Terminator)>, words: &mut String, terminator: Terminator) {
    let clause = words.split_whitespace().collect::<Vec<_>>().join(" ");
    words.clear();
    if clause.chars().any(char::is_alphanumeric) {
        out.push((clause, terminator));
    } else if let Some(last) = out.last_mut() {
        // "Really?!", "well...": the strongest mark of a run counts.
        if terminator.ends_sentence() && !last.1.ends_sentence() && clause.is_empty() {
            last.1 = terminator;
        }
    }
}

fn terminator_at(chars: &[char], i: usize, words: &str) -> Option<Terminator> {
    let next = chars.get(i + 1).copied();
    let before = i.checked_sub(1).and_then(|b| chars.get(b)).copied();
    let inside_number =
        before.is_some_and(|c| c.is_ascii_digit()) && next.is_some_and(|c| c.is_ascii_digit());
    match *chars.get(i)? {
        ',' if !inside_number => Some(Terminator::Comma),
        ':' if !inside_number => Some(Terminator::Colon),
        ';' => Some(Terminator::Semicolon),
        '?' => Some(Terminator::Question),
        '!' => Some(Terminator::Exclamation),
        '—' | '…' => Some(Terminator::Comma),
        '–' if !inside_number => Some(Terminator::Comma),
        // A hyphen with spaces around it is a dash.
        '-' if before == Some(' ') && next == Some(' ') => Some(Terminator::Comma),
        '.' if next.is_none_or(|c| !c.is_alphanumeric()) && !is_abbreviated(words, chars.get(i + 1..)?) => {
            Some(Terminator::Period)
        }
        _ => None,
    }
}

/// Whether the dot after `words` belongs to an abbreviation: known, or an initial, with more words to come.
fn is_abbreviated(words: &str, rest: &[char]) -> bool {
    if !rest.iter().any(|c| c.is_alphanumeric()) {
        return false;
    }
    let Some(last) = words.split_whitespace().next_back() else {
        return false;
    };
    let lower = last.to_lowercase();
    let initial = last.chars().count() == 1 && last.chars().all(char::is_uppercase) && last != "I";
    // "ten a.m. Tomorrow": before a capital these end the sentence; "Dr. Smith" does not.
    let dotted = lower.contains('.');
    let capital_follows = rest
        .iter()
        .find(|c| !c.is_whitespace())
        .is_some_and(|c| c.is_uppercase());
    // "no." is a number only before a digit; else it is an answer.
    let digit_follows = rest
        .iter()
        .find(|c| !c.is_whitespace())
        .is_some_and(char::is_ascii_digit);
    match lower.as_str() {
        "no" => digit_follows,
        _ if dotted => !capital_follows && ABBREVIATIONS.contains(&lower.as_str()),
        _ => initial || ABBREVIATIONS.contains(&lower.as_str()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn splits_where_speech_pauses() {
        let cases: &[(&str, &[(&str, char)])] = &[
            ("", &[]),
            ("Hello", &[("Hello", '.')]),
            ("Sure,", &[("Sure", ',')]),
            (
                "Hello there, how may I help?",
                &[("Hello there", ','), ("how may I help", '?')],
            ),
            ("One. Two! Three?", &[("One", '.'), ("Two", '!'), ("Three", '?')]),
            (
                "Costs 1,500 or 3.5 at 10:30.",
                &[("Costs 1,500 or 3.5 at 10:30", '.')],
            ),
            ("Dr. Smith is in.", &[("Dr. Smith is in", '.')]),
            ("J. R. Smith", &[("J. R. Smith", '.')]),
            ("It was I. You know.", &[("It was I", '.'), ("You know", '.')]),
            ("At 10 a.m. we open.", &[("At 10 a.m. we open", '.')]),
            (
                "At 10 a.m. Please come.",
                &[("At 10 a.m", '.'), ("Please come", '.')],
            ),
            ("No. It is not.", &[("No", '.'), ("It is not", '.')]),
            ("Really?!", &[("Really", '?')]),
            ("Well... yes", &[("Well", '.'), ("yes", '.')]),
            (
                "Yes — of course - now",
                &[("Yes", ','), ("of course", ','), ("now", '.')],
            ),
            ("a well-known \"name\" (here)", &[("a well-known name here", '.')]),
            ("line one\nline two", &[("line one", '.'), ("line two", '.')]),
            ("?!., ;", &[]),
        ];
        for (text, want) in cases {
            let got = split(text);
            let got: Vec<(&str, char)> = got.iter().map(|(w, t)| (w.as_str(), t.as_char())).collect();
            assert_eq!(got, *want, "{text}");
        }
    }
}
