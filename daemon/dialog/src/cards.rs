//! Cards: numbers in what was said that nobody should keep, and texts with them hidden.
//!
//! ```text
//! texts of a call ──> numbers, fillers, words ──> runs of numbers (over several turns) ──> Luhn ──> hidden, as long as before
//! ```
//! A card number has 13 to 19 digits of which the last one checks the others (ISO/IEC 7812-1, Luhn). It is said in groups,
//! with "uh" in between, over several turns, as digits or as words ("forty-one eleven", "double five"), and a misheard
//! digit breaks the check: a run of 16 digits or more is hidden without it, since no telephone number is so long
//! (ITU-T E.164: 15). After a card, turns that are nothing but numbers are its expiry and its security code.
//!
//! Hidden is every letter and digit, so that the text keeps its length.

use std::ops::Range;

use crate::number_words;

/// Digits of a card number.
const CARD: std::ops::RangeInclusive<usize> = 13..=19;
/// A run so long is a card, whatever its check digit.
const SURELY: usize = 16;
/// Texts after a card in which bare numbers belong to it.
const AFTERWARDS: usize = 2;
/// Keys that are hidden: fewer are a choice from a menu.
const KEYS: usize = 4;
/// How typed keys stand in a transcript.
const KEYED: (&str, &str) = ("(typed on the keypad: ", ")");

/// What stands in the transcript for keys that were pressed.
#[must_use]
pub fn keyed(digits: &str) -> String {
    format!("{}{digits}{}", KEYED.0, KEYED.1)
}

/// The keys that a transcript says were pressed, if that is all it says.
#[must_use]
pub fn keys_in(text: &str) -> Option<&str> {
    text.strip_prefix(KEYED.0)?.strip_suffix(KEYED.1)
}

/// A text with what must not be kept hidden, and how many digits that were.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hidden {
    /// As many characters as before.
    pub text: String,
    /// Digits hidden; 0: it is as it was.
    pub digits: u32,
}

/// Hides card numbers in what one person said in the turns of a call, in order.
#[must_use]
pub fn hide_cards(texts: &[&str]) -> Vec<Hidden> {
    let tokens: Vec<Vec<Token>> = texts.iter().map(|text| tokens(text)).collect();
    let mut marked: Vec<Vec<bool>> = tokens.iter().map(|tokens| vec![false; tokens.len()]).collect();
    // Numbers in a row, over several texts; a word between two of them ends a run.
    let mut run: Vec<(usize, usize, &str)> = Vec::new();
    for (text, tokens) in tokens.iter().enumerate() {
        for (at, token) in tokens.iter().enumerate() {
            match &token.kind {
                Kind::Number(digits) => run.push((text, at, digits.as_str())),
                Kind::Filler => {}
                Kind::Word => mark_cards(&std::mem::take(&mut run), &mut marked),
            }
        }
    }
    mark_cards(&run, &mut marked);
    let mut since_card = usize::MAX;
    for (tokens, marked) in tokens.iter().zip(&mut marked) {
        since_card = match marked.iter().any(|marked| *marked) {
            true => 0,
            false => since_card.saturating_add(1),
        };
        let bare = tokens.iter().all(|token| !matches!(token.kind, Kind::Word));
        if since_card <= AFTERWARDS && bare {
            for (token, marked) in tokens.iter().zip(marked) {
                *marked |= matches!(token.kind, Kind::Number(_));
            }
        }
    }
    let marks = tokens.iter().zip(marked);
    texts
        .iter()
        .zip(marks)
        .map(|(text, (tokens, marked))| {
            let hidden: Vec<&Token> = tokens
                .iter()
                .zip(marked)
                .filter_map(|(token, marked)| marked.then_some(token))
                .collect();
            cover(text, &hidden)
        })
        .collect()
}

/// Hides every number of at least `least` digits: where somebody repeats what must not be kept.
#[must_use]
pub fn hide_numbers(text: &str, least: usize) -> Hidden {
    let tokens = tokens(text);
    let (mut hidden, mut run, mut digits) = (Vec::new(), Vec::new(), 0);
    for token in &tokens {
        match &token.kind {
            Kind::Number(number) => {
                digits += number.len();
                run.push(token);
            }
            Kind::Filler => {}
            Kind::Word => {
                if digits >= least {
                    hidden.append(&mut run);
                }
                run.clear();
                digits = 0;
            }
        }
    }
    if digits >= least {
        hidden.append(&mut run);
    }
    cover(text, &hidden)
}

/// Hides the keys that a transcript says were pressed, when they are more than a choice.
#[must_use]
pub fn hide_keys(text: &str) -> Hidden {
    match keys_in(text) {
        Some(keys) if keys.chars().count() >= KEYS => Hidden {
            text: keyed(&"*".repeat(keys.chars().count())),
            digits: u32::try_from(keys.chars().count()).unwrap_or(u32::MAX),
        },
        _ => Hidden {
            text: text.to_owned(),
            digits: 0,
        },
    }
}

#[derive(Debug)]
enum Kind {
    /// Its digits.
    Number(String),
    /// Says nothing, and may stand within a number.
    Filler,
    Word,
}

#[derive(Debug)]
struct Token {
    kind: Kind,
    /// Octets of the text.
    at: Range<usize>,
}

const FILLERS: &[&str] = &[
    "uh", "um", "uhm", "er", "erm", "ah", "hm", "and", "then", "dash", "hyphen", "space", "comma", "okay",
    "ok",
];

/// The words of a text, with what they are as parts of a dictated number.
fn tokens(text: &str) -> Vec<Token> {
    let mut words: Vec<(Range<usize>, String)> = Vec::new();
    let mut open: Option<usize> = None;
    for (at, c) in text.char_indices().chain([(text.len(), ' ')]) {
        if c.is_alphanumeric() || c == '\'' {
            open.get_or_insert(at);
        } else if let Some(from) = open.take() {
            let word = text.get(from..at).unwrap_or_default().to_lowercase();
            words.push((from..at, word));
        }
    }
    let mut tokens = Vec::with_capacity(words.len());
    let mut rest = words.into_iter().peekable();
    while let Some((mut at, word)) = rest.next() {
        let unit = |word: &str| number_words::unit(word).filter(|n| (1..10).contains(n));
        let kind = if let Some(digits) = digits_of(&word) {
            Kind::Number(digits)
        } else if let Some(tens) = number_words::tens(&word) {
            // "forty one" is 41; "forty ten" is 40, 10.
            match rest.next_if(|(_, next)| unit(next).is_some()) {
                Some((range, next)) => {
                    at.end = range.end;
                    Kind::Number(format!("{tens}{}", unit(&next).unwrap_or_default()))
                }
                None => Kind::Number(format!("{tens}0")),
            }
        } else if let Some(times) = times(&word) {
            let digit = |word: &str| digits_of(word).filter(|digits| digits.len() == 1);
            match rest.next_if(|(_, next)| digit(next).is_some()) {
                Some((range, next)) => {
                    at.end = range.end;
                    Kind::Number(digit(&next).unwrap_or_default().repeat(times))
                }
                None => Kind::Word,
            }
        } else if FILLERS.contains(&word.as_str()) {
            Kind::Filler
        } else {
            Kind::Word
        };
        tokens.push(Token { kind, at });
    }
    tokens
}

/// How often the digit after this word is meant.
fn times(word: &str) -> Option<usize> {
    match word {
        "double" => Some(2),
        "triple" => Some(3),
        _ => None,
    }
}

/// The digits that a word stands for by itself; digits of any script count.
fn digits_of(word: &str) -> Option<String> {
    if number_words::is_spoken_zero(word) {
        return Some("0".to_owned());
    }
    if let Some(number) = number_words::unit(word) {
        return Some(number.to_string());
    }
    // Fullwidth and other scripts' digits stand ten in a row from a multiple of 16 or 10; the value matters only for Luhn.
    let all: Option<String> = word
        .chars()
        .map(|c| match c.to_digit(10) {
            Some(digit) => char::from_digit(digit, 10),
            None if c.is_numeric() => Some('0'),
            None => None,
        })
        .collect();
    all.filter(|digits| !digits.is_empty())
}

/// Marks the numbers of a run that are cards.
fn mark_cards(run: &[(usize, usize, &str)], marked: &mut [Vec<bool>]) {
    let mut mark = |part: &[(usize, usize, &str)]| {
        for (text, at, _) in part {
            if let Some(marked) = marked.get_mut(*text).and_then(|marked| marked.get_mut(*at)) {
                *marked = true;
            }
        }
    };
    let total: usize = run.iter().map(|(_, _, digits)| digits.len()).sum();
    if (SURELY..=*CARD.end()).contains(&total) {
        return mark(run);
    }
    for from in 0..run.len() {
        let mut digits = String::new();
        for to in from..run.len() {
            digits.extend(run.get(to).map(|(_, _, digits)| *digits));
            if digits.len() > *CARD.end() {
                break;
            }
            if CARD.contains(&digits.len()) && luhn(&digits) {
                mark(run.get(from..=to).unwrap_or_default());
            }
        }
    }
}

/// Whether the last digit checks the others (ISO/IEC 7812-1, annex B).
fn luhn(digits: &str) -> bool {
    let sum: u32 = digits
        .chars()
        .rev()
        .filter_map(|c| c.to_digit(10))
        .zip([1, 2].into_iter().cycle())
        .map(|(digit, times)| {
            let product = digit * times;
            product / 10 + product % 10
        })
        .sum();
    sum.is_multiple_of(10)
}

/// Covers letters and digits of these tokens.
fn cover(text: &str, hidden: &[&Token]) -> Hidden {
    let digits = hidden
        .iter()
        .map(|token| match &token.kind {
            Kind::Number(digits) => digits.len(),
            Kind::Filler | Kind::Word => 0,
        })
        .sum::<usize>();
    let covered = |at: usize| hidden.iter().any(|token| token.at.contains(&at));
    Hidden {
        text: text
            .char_indices()
            .map(|(at, c)| match c.is_alphanumeric() && covered(at) {
                true => '*',
                false => c,
            })
            .collect(),
        digits: u32::try_from(digits).unwrap_or(u32::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn hidden(texts: &[&str]) -> Vec<String> {
        hide_cards(texts).into_iter().map(|hidden| hidden.text).collect()
    }

    #[test]
    fn card_numbers_are_hidden_however_they_are_said() {
        type Case = (&'static [&'static str], &'static [&'static str]);
        let cases: &[Case] = &[
            (
                &["My card is 4111 1111 1111 1111, please."],
                &["My card is **** **** **** ****, please."],
            ),
            (&["4111111111111111"], &["****************"]),
            (&["It's 4111-1111-1111-1111."], &["It's ****-****-****-****."]),
            // 15 digits, 13 digits, 19 digits.
            (&["378282246310005"], &["***************"]),
            (&["4222222222222"], &["*************"]),
            (&["6304000000000000000"], &["*******************"]),
            // In words, with sounds of thinking.
            (
                &["four one one one uh one one one one, one one one one and one one one one"],
                &["**** *** *** *** uh *** *** *** ***, *** *** *** *** and *** *** *** ***"],
            ),
            (
                &["forty-one eleven double one eleven eleven eleven eleven eleven"],
                &["*****-*** ****** ****** *** ****** ****** ****** ****** ******"],
            ),
            // Over several turns, and what comes after.
            (
                &[
                    "It is 4111 1111.",
                    "Uh, 1111 1111.",
                    "12 26",
                    "And 123.",
                    "I live at number 12.",
                ],
                &[
                    "It is **** ****.",
                    "Uh, **** ****.",
                    "** **",
                    "And ***.",
                    "I live at number 12.",
                ],
            ),
            // A digit misheard.
            (&["4111 1111 1111 1112"], &["**** **** **** ****"]),
        ];
        for (said, want) in cases {
            assert_eq!(hidden(said), *want, "{said:?}");
        }
    }

    #[test]
    fn other_numbers_stay() {
        for text in [
            "",
            "Call me at 0049 30 1234 5678.",
            "+1 555 010 0199 or 555 0142",
            "between nine and eleven, 79 dollars",
            "invoice 20251009000",
            "4111 1111 is the first half, and the second half I will tell your colleague",
            "one two three four five six seven eight nine ten",
        ] {
            let found = hide_cards(&[text]);
            assert_eq!((found[0].text.as_str(), found[0].digits), (text, 0));
        }
    }

    #[test]
    fn keys_and_repetitions() {
        assert_eq!(hide_keys(&keyed("1")).digits, 0);
        assert_eq!(hide_keys(&keyed("411")).text, "(typed on the keypad: 411)");
        let pin = hide_keys(&keyed("4711#"));
        assert_eq!(
            (pin.text.as_str(), pin.digits),
            ("(typed on the keypad: *****)", 5)
        );
        assert_eq!(hide_keys("I typed 4711").digits, 0);
        assert_eq!(keys_in(&keyed("12")), Some("12"));
        let reply = hide_numbers("So that is 4111 1111, at 10 o'clock for 79 dollars?", 4);
        assert_eq!(reply.text, "So that is **** ****, at 10 o'clock for 79 dollars?");
        assert_eq!(reply.digits, 8);
    }

    #[test]
    fn the_check_digit() {
        for (digits, want) in [
            ("79927398713", true),
            ("79927398710", false),
            ("4111111111111111", true),
            ("0", true),
            ("5500005555555559", true),
        ] {
            assert_eq!(luhn(digits), want, "{digits}");
        }
    }

    /// A card number with its check digit.
    fn card(prefix: &[u8]) -> String {
        let digits: String = prefix.iter().map(|digit| char::from(b'0' + digit)).collect();
        (0..10)
            .map(|check| format!("{digits}{check}"))
            .find(|card| luhn(card))
            .expect("one of ten")
    }

    proptest! {
        #[test]
        fn no_card_survives_in_groups_of_any_size(
            prefix in prop::collection::vec(0_u8..10, 12..19),
            sizes in prop::collection::vec(1_usize..7, 20),
            turns in 1_usize..4,
        ) {
            let card = card(&prefix);
            let (mut groups, mut rest, mut sizes) = (Vec::new(), card.as_str(), sizes.into_iter().cycle());
            while !rest.is_empty() {
                let (group, more) = rest.split_at(sizes.next().unwrap_or(1).min(rest.len()));
                groups.push(group);
                rest = more;
            }
            let texts: Vec<String> = groups
                .chunks(groups.len().div_ceil(turns))
                .map(|groups| groups.join(" "))
                .collect();
            let said: Vec<&str> = texts.iter().map(String::as_str).collect();
            for hidden in hide_cards(&said) {
                prop_assert!(!hidden.text.contains(char::is_numeric), "{:?} of {said:?}", hidden.text);
            }
        }

        #[test]
        fn any_text_keeps_its_length(texts in prop::collection::vec("\\PC{0,60}", 0..5)) {
            let said: Vec<&str> = texts.iter().map(String::as_str).collect();
            let found = hide_cards(&said);
            prop_assert_eq!(found.len(), said.len());
            for (text, hidden) in said.iter().zip(found) {
                prop_assert_eq!(text.chars().count(), hidden.text.chars().count());
                prop_assert!(hidden.digits > 0 || hidden.text == *text);
            }
        }
    }
}
