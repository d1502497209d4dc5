//! Mask: numbers made unreadable in texts that leave the record: exports, reasons, what an error says.

/// Fewest digits that are hidden: 2 are a time or an age, 3 already the end of a card.
const FEWEST: usize = 3;

/// Every digit of a number becomes `*`. A number is three digits or more, with single blanks, dots, hyphens, slashes
/// or brackets between them; digits of any script count.
///
/// ```
/// use attendant_store::mask;
/// assert_eq!(mask::digits("Call +1 (555) 01-00 at 10:30."), "Call +* (***) **-** at 10:30.");
/// assert_eq!(mask::digits("Card 4111 1111 1111 1111"), "Card **** **** **** ****");
/// ```
#[must_use]
pub fn digits(text: &str) -> String {
    let mut masked = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(char::is_numeric) {
        let (before, from) = rest.split_at(start);
        let end = end_of_number(from);
        let (number, after) = from.split_at(end);
        masked.push_str(before);
        if number.chars().filter(|c| c.is_numeric()).count() >= FEWEST {
            masked.extend(number.chars().map(|c| if c.is_numeric() { '*' } else { c }));
        } else {
            masked.push_str(number);
        }
        rest = after;
    }
    masked.push_str(rest);
    masked
}

/// Octets up to the last digit of the number that `text` begins with.
fn end_of_number(text: &str) -> usize {
    let (mut end, mut between) = (0, 0);
    for (at, c) in text.char_indices() {
        if c.is_numeric() {
            end = at + c.len_utf8();
            between = 0;
        } else if between < 2 && matches!(c, ' ' | '\u{a0}' | '.' | '-' | '–' | '/' | '(' | ')') {
            between += 1;
        } else {
            break;
        }
    }
    end
}

/// Hides numbers in every text of a JSON value, but for ids and hashes, which are no numbers of anybody.
pub fn json(value: &mut serde_json::Value) {
    use serde_json::Value;
    match value {
        Value::String(text) => *text = digits(text),
        Value::Array(values) => values.iter_mut().for_each(json),
        Value::Object(fields) => fields
            .iter_mut()
            .filter(|(name, _)| *name != "uuid" && !name.ends_with("sha256"))
            .for_each(|(_, value)| json(value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// A telephone number of which a person can still tell that it is the one they think of: its last two digits.
///
/// ```
/// use attendant_store::mask;
/// assert_eq!(mask::number("+15550142"), "******42");
/// assert_eq!(mask::number("100"), "***");
/// assert_eq!(mask::number("sip:anna@example.org"), "***");
/// ```
#[must_use]
pub fn number(number: &str) -> String {
    let digits: Vec<char> = number.chars().filter(char::is_ascii_digit).collect();
    let plain = number
        .chars()
        .all(|c| c.is_ascii_digit() || matches!(c, '+' | ' ' | '-' | '(' | ')' | '/' | '.'));
    match digits.as_slice() {
        [hidden @ .., a, b] if plain && hidden.len() >= 4 => {
            format!("{}{a}{b}", "*".repeat(hidden.len()))
        }
        _ => "***".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn hides_numbers_and_leaves_words() {
        for (text, want) in [
            ("", ""),
            ("Nine to five", "Nine to five"),
            ("at 9, 10 or 11", "at 9, 10 or 11"),
            ("extension 200", "extension ***"),
            ("4 1 1 1", "* * * *"),
            ("0800-555.0100!", "****-***.****!"),
            ("٠١٢٣", "****"),
            ("sip:+15550100@10.0.0.1", "sip:+********@**.*.*.*"),
            ("room 12 -- 34", "room 12 -- 34"),
        ] {
            assert_eq!(digits(text), want, "{text}");
        }
    }

    #[test]
    fn json_keeps_its_ids() {
        let mut value = serde_json::json!({
            "uuid": "0123", "prompt_sha256": "4567", "caller": "+15550100", "turn_count": 400,
            "turns": [{ "caller_text": "It is 4 5 6.", "heard_text": null }],
        });
        json(&mut value);
        let want = serde_json::json!({
            "uuid": "0123", "prompt_sha256": "4567", "caller": "+********", "turn_count": 400,
            "turns": [{ "caller_text": "It is * * *.", "heard_text": null }],
        });
        assert_eq!(value, want);
    }

    proptest! {
        #[test]
        fn no_three_digits_in_a_row_survive(text in "[0-9 .()a-zü٣-]{0,60}") {
            let masked = digits(&text);
            let mut run = 0;
            for c in masked.chars() {
                run = if c.is_numeric() { run + 1 } else { 0 };
                prop_assert!(run < FEWEST, "{masked}");
            }
            prop_assert_eq!(masked.chars().count(), text.chars().count());
            prop_assert_eq!(digits(&masked), masked);
        }

        #[test]
        fn at_most_two_digits_of_a_number_are_shown(text in "\\PC{0,40}") {
            let shown = number(&text).chars().filter(char::is_ascii_digit).count();
            prop_assert!(shown <= 2);
        }
    }
}
