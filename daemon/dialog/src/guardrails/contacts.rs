//! Contacts: telephone and card numbers and e-mail addresses in a reply, and whether anybody gave them.
//!
//! A number may be spoken when it stands in the house's facts or was said in this very call. Anything else was made up by the
//! model, or comes from where it must not. Digits count however they are said: "555 0142", "five five five, oh one four two".

use crate::number_words;

/// Fewest digits of a number that is looked at: shorter ones are prices, years, times.
const FEWEST: usize = 7;
/// Fewest digits of a piece that a known number may contribute.
const PIECE: usize = 3;
/// Digits in front that may be missing in the house's facts: "+1", "0049".
const PREFIX: usize = 4;
/// Most digits that one number is followed for.
const LONGEST: usize = 40;

/// What a token of a text says about a number under way.
enum Part {
    /// More of it.
    Digits(String),
    /// "twenty": the next unit goes into its last digit.
    Tens(char),
    /// "double", "triple".
    Times(usize),
    /// Neither more nor its end.
    Between,
    /// Its end.
    Other,
}

fn part(token: &str) -> Part {
    let token =
        token.trim_matches(|c: char| matches!(c, ',' | '.' | ';' | '!' | '?' | '"' | '\'' | '(' | ')'));
    if token.is_empty() || matches!(token, "-" | "–" | "+") {
        return Part::Between;
    }
    let bare: String = token
        .chars()
        .filter(|c| !matches!(c, '-' | '–' | '.' | '(' | ')' | '/' | '+'))
        .collect();
    if !bare.is_empty() && bare.bytes().all(|b| b.is_ascii_digit()) {
        return if is_date(token) {
            Part::Other
        } else {
            Part::Digits(bare)
        };
    }
    let word = token.to_lowercase();
    if let Some(value) = number_words::unit(&word) {
        return Part::Digits(value.to_string());
    }
    if let Some(digit) = number_words::tens(&word).and_then(|tens| char::from_digit(tens as u32, 10)) {
        return Part::Tens(digit);
    }
    match word.as_str() {
        zero if number_words::is_spoken_zero(zero) => Part::Digits("0".to_owned()),
        "double" => Part::Times(2),
        "triple" => Part::Times(3),
        "dash" | "hyphen" | "plus" => Part::Between,
        _ => Part::Other,
    }
}

/// `11/21/2026`, `2026-11-21`, `21.11.2026`: two marks, and a group of four digits at one end.
fn is_date(token: &str) -> bool {
    let groups: Vec<usize> = token.split(['/', '-', '.']).map(str::len).collect();
    matches!(groups.as_slice(), [4, 1..=2, 1..=2] | [1..=2, 1..=2, 4 | 2])
}

/// Numbers as they come, over the borders of clauses.
#[derive(Debug, Clone, Default)]
struct Digits {
    run: String,
    times: usize,
    tens: bool,
}

impl Digits {
    /// Takes a token; returns the number that it ends.
    fn push(&mut self, token: &str) -> Option<String> {
        match part(token) {
            Part::Digits(digits) => {
                let times = std::mem::take(&mut self.times).max(1);
                let unit = digits.len() == 1 && digits != "0" && token.chars().any(char::is_alphabetic);
                if std::mem::take(&mut self.tens) && unit {
                    self.run.pop();
                }
                for _ in 0..times {
                    self.run.push_str(&digits);
                }
            }
            Part::Tens(digit) => {
                self.run.push(digit);
                self.run.push('0');
                self.tens = true;
            }
            Part::Times(times) => self.times = times,
            Part::Between => {}
            Part::Other => {
                (self.times, self.tens) = (0, false);
                return (!self.run.is_empty()).then(|| std::mem::take(&mut self.run));
            }
        }
        // What is longer than any number is judged in parts.
        (self.run.len() > LONGEST).then(|| std::mem::take(&mut self.run))
    }
}

fn tokens(text: &str) -> impl Iterator<Item = &str> {
    // "twenty-five" is two words, "555-0142" one number.
    text.split(|c: char| c.is_whitespace() || matches!(c, '—'))
        .flat_map(|token| {
            let spelled = token.chars().any(char::is_alphabetic) && !token.contains('@');
            let parts: Vec<&str> = if spelled {
                token.split('-').collect()
            } else {
                vec![token]
            };
            parts
        })
        .filter(|token| !token.is_empty())
}

/// What may be said: from the house's facts, or from this call.
#[derive(Debug, Clone, Default)]
pub(super) struct Known {
    numbers: Vec<String>,
    /// Lower case, as it is, and once more with "at" and "dot" as signs and nothing between.
    text: String,
}

impl Known {
    pub fn add(&mut self, text: &str) {
        let mut digits = Digits::default();
        self.numbers
            .extend(tokens(text).filter_map(|token| digits.push(token)));
        if !digits.run.is_empty() {
            self.numbers.push(digits.run);
        }
        if text.contains('@') || text.contains('.') || text.contains(" dot ") {
            self.text.push_str(&text.to_lowercase());
            self.text.push(' ');
            self.text.push_str(&squashed(text));
            self.text.push(' ');
        }
    }

    /// Whether the number consists of pieces of known ones; a prefix may be missing.
    fn covers(&self, number: &str, others: &Known) -> bool {
        let known = |piece: &str| {
            self.numbers
                .iter()
                .chain(&others.numbers)
                .any(|one| one.contains(piece))
        };
        // Reached [digits], from the left.
        let mut reached = vec![false; number.len() + 1];
        for start in reached
            .iter_mut()
            .take(PREFIX.min(number.len().saturating_sub(FEWEST)) + 1)
        {
            *start = true;
        }
        for from in 0..number.len() {
            if !reached.get(from).copied().unwrap_or(false) {
                continue;
            }
            for to in from + PIECE..=number.len() {
                let Some(piece) = number.get(from..to).filter(|piece| known(piece)) else {
                    break;
                };
                if let Some(end) = reached.get_mut(from + piece.len()) {
                    *end = true;
                }
            }
        }
        reached.last().copied().unwrap_or(false)
    }

    fn has(&self, text: &str, others: &Known) -> bool {
        self.text.contains(text) || others.text.contains(text)
    }
}

fn squashed(text: &str) -> String {
    text.split_whitespace()
        .map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase())
        .map(|word| match word.as_str() {
            "at" => "@".to_owned(),
            "dot" => ".".to_owned(),
            _ => word,
        })
        .collect()
}

/// What is wrong with a clause.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unknown {
    /// A number of so many digits.
    Number(usize),
    /// An e-mail address.
    Address,
}

/// Follows one reply.
#[derive(Debug, Clone, Default)]
pub(super) struct Contacts {
    digits: Digits,
}

impl Contacts {
    /// Looks at the next clause.
    pub fn check(&mut self, clause: &str, house: &Known, call: &Known) -> Option<Unknown> {
        let bad = |number: &str| number.len() >= FEWEST && !house.covers(number, call);
        for token in tokens(clause) {
            if let Some(number) = self.digits.push(token)
                && bad(&number)
            {
                return Some(Unknown::Number(number.len()));
            }
        }
        // It may go on in the next clause, but what there is of it will have been said.
        if bad(&self.digits.run) {
            return Some(Unknown::Number(self.digits.run.len()));
        }
        unknown_address(clause, house, call).then_some(Unknown::Address)
    }
}

fn unknown_address(clause: &str, house: &Known, call: &Known) -> bool {
    let words: Vec<String> = clause
        .split_whitespace()
        .map(|word| word.trim_matches(|c: char| !c.is_alphanumeric()).to_lowercase())
        .collect();
    let written = words.iter().any(|word| {
        word.split_once('@')
            .is_some_and(|(name, domain)| !name.is_empty() && domain.contains('.') && !house.has(word, call))
    });
    let spoken = words.windows(4).any(|window| match window {
        [at, domain, dot, top] => {
            at == "at"
                && dot == "dot"
                && top.chars().all(char::is_alphabetic)
                && !house.has(&format!("{domain}.{top}"), call)
        }
        _ => false,
    });
    written || spoken
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_given_numbers_and_addresses_are_said() {
        let mut house = Known::default();
        house.add("Call the workshop at +1 555 010 4477, or write to info@hill.com.");
        let mut call = Known::default();
        call.add("My number is five five five, oh one four two.");
        call.add("it's 0170 1234567 and anna dot smith at example dot org");
        let number = |digits| Some(Unknown::Number(digits));
        let cases: &[(&str, Option<Unknown>)] = &[
            ("An oil change costs 79 dollars and takes 45 minutes.", None),
            ("We open from 8:00-18:00, and on Saturday from 9 to 1.", None),
            ("You can come on November 21, 2026, at 9.", None),
            ("That is 11/21/2026 or 2026-11-21.", None),
            ("It costs 1,250 dollars.", None),
            ("The workshop's number is 555 010 4477.", None),
            (
                "That is plus one, five five five, oh one oh, four four seven seven.",
                None,
            ),
            ("I have 555-0142, is that right?", None),
            ("So 555 0142, and 01701234567?", None),
            ("You can call 555 987 6543.", number(10)),
            ("Her number is five five five nine eight seven six.", number(7)),
            ("The card is 4111 1111 1111 1111.", number(16)),
            ("Write to info@hill.com.", None),
            ("Write to maria@hill.com.", Some(Unknown::Address)),
            ("I noted anna.smith@example.org.", None),
            ("Write to peter at example dot com.", Some(Unknown::Address)),
            ("Write to info at hill dot com.", None),
            ("We are at Mill Road.", None),
        ];
        for (clause, want) in cases {
            assert_eq!(
                Contacts::default().check(clause, &house, &call),
                *want,
                "{clause}"
            );
        }
    }

    #[test]
    fn a_number_is_followed_over_clauses() {
        let (house, call) = (Known::default(), Known::default());
        let mut contacts = Contacts::default();
        assert_eq!(
            contacts.check("The number is five five five,", &house, &call),
            None
        );
        assert_eq!(
            contacts.check("nine eight seven six.", &house, &call),
            Some(Unknown::Number(7))
        );
    }

    #[test]
    fn spoken_numbers_are_the_written_ones() {
        let mut digits = Digits::default();
        let text = "double five twenty-five, oh six thirty nineteen end";
        let number: Vec<String> = tokens(text).filter_map(|token| digits.push(token)).collect();
        assert_eq!(number, ["5525063019"]);
    }
}
