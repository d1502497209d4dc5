//! Telephone numbers, digit by digit in groups.

use super::numbers;

/// Longest run of tokens that a number is written in.
const MAX_TOKENS: usize = 6;

/// A number at the head of `tokens` (as written, with punctuation): its words and how many tokens it took.
/// `announced`: the words before speak of a number, so that seven digits in a row are one.
pub fn read(tokens: &[&str], announced: bool) -> Option<(String, usize)> {
    let mut usable = 0;
    for token in tokens.iter().take(MAX_TOKENS) {
        let core = token.trim_end_matches(['.', ',', ';', ':', '!', '?']);
        let fits = core
            .chars()
            .all(|c| c.is_ascii_digit() || matches!(c, '(' | ')' | '+' | '-' | '.'))
            && core.contains(|c: char| c.is_ascii_digit());
        if !fits {
            break;
        }
        usable += 1;
        if core.len() < token.len() {
            break;
        }
    }
    (1..=usable).rev().find_map(|used| {
        let text = tokens.get(..used)?.join(" ");
        Some((words(&text, announced)?, used))
    })
}

fn words(text: &str, announced: bool) -> Option<String> {
    let text = text.trim_end_matches(['.', ',', ';', ':', '!', '?']);
    let groups: Vec<&str> = text
        .split(|c: char| !c.is_ascii_digit())
        .filter(|g| !g.is_empty())
        .collect();
    let sizes: Vec<usize> = groups.iter().map(|group| group.len()).collect();
    let total: usize = sizes.iter().sum();
    let plus = text.starts_with('+') || text.starts_with("(+");
    let bracket = text.starts_with('(');
    let first = groups.first()?;
    let date = sizes == [4, 2, 2] || (sizes.len() == 3 && sizes[2] == 4 && sizes[0] <= 2);
    let is_number = match sizes.as_slice() {
        _ if !(7..=15).contains(&total) => false,
        _ if plus => total >= 8,
        _ if text.contains('.') && sizes.iter().any(|size| *size < 3) => false,
        _ if bracket => sizes.len() >= 2 && (2..=5).contains(&sizes[0]),
        [10] => true,
        [11] => first.starts_with(['0', '1']),
        [7] => announced,
        [3, 4] => true,
        [_, _] => first.starts_with('0') && (9..=11).contains(&total),
        [_, _, _, ..] => {
            !date
                && sizes.iter().all(|size| (1..=4).contains(size))
                && sizes[1..].iter().all(|size| *size >= 2)
        }
        _ => false,
    };
    if !is_number {
        return None;
    }
    let spoken: Vec<String> = match sizes.as_slice() {
        [10] => [&first[..3], &first[3..6], &first[6..]]
            .map(numbers::digits)
            .to_vec(),
        [11] if first.starts_with('1') => [&first[..1], &first[1..4], &first[4..7], &first[7..]]
            .map(numbers::digits)
            .to_vec(),
        _ => groups
            .iter()
            .flat_map(|group| chunks(group))
            .map(numbers::digits)
            .collect(),
    };
    let spoken = spoken.join(", ");
    Some(if plus { format!("plus {spoken}") } else { spoken })
}

/// A long group in pieces that a listener can write down.
fn chunks(group: &str) -> Vec<&str> {
    let size = match group.len() {
        0..=5 => return vec![group],
        8 => 4,
        _ => 3,
    };
    let mut rest = group;
    let mut pieces = Vec::new();
    while rest.len() > size + 1 {
        let (piece, after) = rest.split_at(size);
        pieces.push(piece);
        rest = after;
    }
    pieces.push(rest);
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_as_written() {
        let long = "five five five, one two three, four five six seven";
        for (text, want) in [
            ("555-123-4567", Some(long)),
            ("(555) 123-4567", Some(long)),
            ("555.123.4567", Some(long)),
            ("555 123 4567", Some(long)),
            ("5551234567", Some(long)),
            (
                "1-555-123-4567",
                Some("one, five five five, one two three, four five six seven"),
            ),
            (
                "+1 555 123 4567",
                Some("plus one, five five five, one two three, four five six seven"),
            ),
            (
                "+44 20 7946 0958",
                Some("plus four four, two zero, seven nine four six, zero nine five eight"),
            ),
            (
                "020 7946 0958",
                Some("zero two zero, seven nine four six, zero nine five eight"),
            ),
            (
                "07700 900123",
                Some("zero seven seven zero zero, nine zero zero, one two three"),
            ),
            ("555-0199", Some("five five five, zero one nine nine")),
            ("2026-03-05", None),
            ("1234567", None),
            ("9-5", None),
            ("1.2.3", None),
            ("12345", None),
            ("3,500", None),
        ] {
            let tokens: Vec<&str> = text.split(' ').collect();
            assert_eq!(
                read(&tokens, false).map(|(words, _)| words).as_deref(),
                want,
                "{text}"
            );
        }
        assert!(read(&["1234567"], true).is_some());
        assert_eq!(read(&["555-0199.", "555"], false).map(|(_, used)| used), Some(1));
    }
}
