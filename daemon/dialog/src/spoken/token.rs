//! Tokens: words as written, and ranges taken apart.

use super::{abbreviations, numbers, time, time::Time};

/// A word as written, apart from what opens and closes around it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Token {
    /// As written.
    pub raw: String,
    /// Opening quotes and brackets.
    pub lead: String,
    /// The word itself.
    pub core: String,
    /// Closing quotes, brackets and marks.
    pub tail: String,
}

impl Token {
    pub fn new(raw: &str) -> Token {
        let opening = raw.len() - raw.trim_start_matches(['"', '\'', '(', '[', '{', '<']).len();
        let (lead, rest) = raw.split_at(opening);
        let core = rest.trim_end_matches(['"', '\'', ')', ']', '}', '>', '.', ',', ';', ':', '!', '?']);
        let tail = &rest[core.len()..];
        Token {
            raw: raw.to_owned(),
            lead: lead.to_owned(),
            core: core.to_owned(),
            tail: tail.to_owned(),
        }
    }

    /// Whether a mark closes behind it.
    pub fn ends_clause(&self) -> bool {
        self.tail.contains([',', ';', ':', '!', '?', '.', ')'])
    }
}

/// `9-5` → `9`, `to`, `5`; `$20-30` → `20`, `to`, `$30`. Anything else stays one token.
pub fn split_range(raw: &str) -> Vec<Token> {
    let token = Token::new(raw);
    let whole = |token: Token| vec![token];
    let mut parts = token.core.split('-');
    let (Some(from), Some(to), None) = (parts.next(), parts.next(), parts.next()) else {
        return whole(token);
    };
    // "555-0199", and the postal code "62704-1234".
    let numeric = from.bytes().chain(to.bytes()).all(|b| b.is_ascii_digit());
    let telephone = numeric && matches!((from.len(), to.len()), (3 | 5, 4));
    let known = abbreviations::expand(&token.core, false, None, None).is_some();
    if telephone
        || known
        || !is_range_end(from)
        || !is_range_end(to)
        || !token.lead.trim_start_matches('(').is_empty()
    {
        return whole(token);
    }
    let (mut from, mut to) = (from.to_owned(), to.to_owned());
    if let Some(sign) = from.chars().next().filter(|c| matches!(c, '$' | '€' | '£')) {
        from.remove(0);
        if !to.starts_with(sign) {
            to.insert(0, sign);
        }
    }
    vec![
        Token {
            raw: from.clone(),
            lead: token.lead.clone(),
            core: from,
            tail: String::new(),
        },
        Token {
            raw: "to".to_owned(),
            lead: String::new(),
            core: "to".to_owned(),
            tail: String::new(),
        },
        Token {
            raw: format!("{to}{}", token.tail),
            lead: String::new(),
            core: to,
            tail: token.tail,
        },
    ]
}

/// What may stand at either end of a range: a number, price, time, weekday or month.
pub fn is_range_end(text: &str) -> bool {
    let number = text
        .trim_start_matches(['$', '€', '£'])
        .trim_end_matches(['%', '€']);
    let short = number.len() <= 6 && numbers::written(number).is_some();
    short || Time::read(text, None).is_some() || time::weekday(text).is_some() || time::month(text).is_some()
}
