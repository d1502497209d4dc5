//! Clauses: cuts the model's stream into pieces worth speaking, the first one early.
//!
//! The first clause decides how long the caller waits, so it ends at the first comma after two words, before a
//! preposition or conjunction after four, and after eight at the latest: it lasts a second or so, in which the
//! next clause is written and spoken. Later clauses are spoken while others play: whole sentences sound better.
//! A cut never falls into a number, a time, an abbreviation or an address. Where a mark needs the next character
//! to be understood ("3." of "3.5"), the splitter waits for it.

use crate::words::{Stop, full_stop};

/// Most text held back [bytes]; a stream without any mark is cut there at the latest.
const MAX_HELD: usize = 2_000;

/// Words needed before a cut; one row for the first clause, one for the later ones.
struct Rule {
    /// At the end of a sentence.
    sentence: usize,
    /// At a semicolon, colon or dash.
    strong: usize,
    /// At a comma.
    comma: usize,
    /// Before a conjunction without any mark.
    conjunction: usize,
    /// Before a preposition without any mark.
    preposition: usize,
    /// Anywhere.
    longest: usize,
}

const FIRST: Rule = Rule {
    sentence: 2,
    strong: 2,
    comma: 2,
    conjunction: 4,
    preposition: 4,
    longest: 8,
};
const LATER: Rule = Rule {
    sentence: 1,
    strong: 4,
    comma: 7,
    conjunction: 16,
    preposition: usize::MAX,
    longest: 30,
};

/// Words before which one may take breath.
const CONJUNCTIONS: &[&str] = &[
    "and", "but", "or", "so", "because", "which", "where", "when", "while", "if", "although", "though",
    "until", "unless", "then",
];

/// Words before which a first clause may end: "We are open Monday to Friday | from eight in the morning".
const PREPOSITIONS: &[&str] = &[
    "at", "between", "by", "during", "for", "from", "in", "on", "to", "until", "with",
];

/// Splits a stream of text into clauses. One per reply.
#[derive(Debug, Clone, Default)]
pub struct ClauseSplitter {
    held: String,
    spoke: bool,
}

impl ClauseSplitter {
    /// For a new reply.
    pub fn new() -> ClauseSplitter {
        ClauseSplitter::default()
    }

    /// Takes the next piece of the stream; returns the clauses that it completes, trimmed, never empty of
    /// words.
    pub fn push(&mut self, piece: &str) -> Vec<String> {
        self.held.push_str(piece);
        let mut clauses = Vec::new();
        loop {
            let rule = if self.spoke { &LATER } else { &FIRST };
            let Some(end) = find_cut(&self.held, rule) else {
                return clauses;
            };
            let rest = self.held.split_off(end);
            let clause = std::mem::replace(&mut self.held, rest);
            clauses.extend(self.take(&clause));
        }
    }

    /// The stream has ended: what is left, if it has any word.
    pub fn finish(&mut self) -> Option<String> {
        let clause = std::mem::take(&mut self.held);
        let last = self.take(&clause);
        self.spoke = false;
        last
    }

    fn take(&mut self, clause: &str) -> Option<String> {
        let clause = clause.trim();
        let clause = clause.trim_start_matches(['.', ',', ';', ':', '!', '?', ')', '—', '–']);
        let clause = clause
            .trim_end_matches(|c: char| matches!(c, '—' | '–') || c.is_whitespace())
            .trim();
        let says_something = clause.chars().any(char::is_alphanumeric);
        self.spoke |= says_something;
        says_something.then(|| clause.to_owned())
    }
}

/// Where the first clause of `text` ends [byte index], if that can be known already.
fn find_cut(text: &str, rule: &Rule) -> Option<usize> {
    let mut words = 0; // complete words before the current position
    let mut word_start = 0;
    let mut word_counts = false; // the current word has a letter or digit
    for (at, c) in text.char_indices() {
        let after = at + c.len_utf8();
        let next = text[after..].chars().next();
        let word = &text[word_start..after];
        let now = words + usize::from(word_counts);
        if c == '\n' {
            if now > 0 {
                return Some(after);
            }
        } else if c.is_whitespace()
            && let Some(cut) = breath(text, word_start, at, after, now, rule)
        {
            return Some(cut);
        }
        if c.is_whitespace() {
            words = now;
            word_counts = false;
            word_start = after;
            continue;
        }
        word_counts |= c.is_alphanumeric();
        let cut = match c {
            '!' | '?' => next.is_none_or(|n| n.is_whitespace()) && now >= rule.sentence && ends_in_word(word),
            '.' | '…' => match next {
                Some(n) if n.is_whitespace() => now >= rule.sentence && sentence_ends(text, word, after)?,
                Some(_) | None => false,
            },
            ',' | ';' | ':' => {
                let needed = if c == ',' { rule.comma } else { rule.strong };
                next.is_some_and(char::is_whitespace) && now >= needed && !joins_digits(text, at, after)?
            }
            '—' | '–' => now >= rule.strong && !joins_digits(text, at, after)?,
            '-' => {
                word == "-"
                    && next.is_some_and(char::is_whitespace)
                    && now >= rule.strong
                    && !joins_digits(text, at, after)?
            }
            '"' | ')' | '”' => {
                // A quotation or bracket that closes after the sentence's mark.
                let inner = word.trim_end_matches(['"', ')', '”']);
                next.is_some_and(char::is_whitespace)
                    && inner.ends_with(['.', '!', '?'])
                    && now >= rule.sentence
                    && full_stop(inner) == Stop::Sentence
            }
            _ => false,
        };
        if cut {
            return Some(after);
        }
        if after >= MAX_HELD {
            return Some(if word_start > 0 { word_start } else { after });
        }
    }
    None
}

/// A cut without any mark, at the space between two words: before a conjunction, or because it gets too long.
fn breath(
    text: &str,
    word_start: usize,
    at: usize,
    after: usize,
    words: usize,
    rule: &Rule,
) -> Option<usize> {
    if words < rule.conjunction.min(rule.preposition) {
        return None;
    }
    let rest = &text[after..];
    let (next, _) = rest.split_once(char::is_whitespace)?; // only a whole word can be judged
    let before = &text[word_start..at];
    let number = |word: &str| word.contains(|c: char| c.is_ascii_digit());
    if number(before) || number(next) || before.ends_with('.') {
        return None;
    }
    let next = next.to_lowercase();
    let conjunction = words >= rule.conjunction && CONJUNCTIONS.contains(&next.as_str());
    let preposition = words >= rule.preposition && PREPOSITIONS.contains(&next.as_str());
    (conjunction || preposition || words >= rule.longest).then_some(after)
}

fn ends_in_word(word: &str) -> bool {
    word.chars().any(char::is_alphanumeric)
}

/// Whether the full stop at the end of `word` ends a sentence; `None` while the next word is needed and not
/// there.
fn sentence_ends(text: &str, word: &str, after: usize) -> Option<bool> {
    // "1. First": the number of a list entry.
    if text[..after].trim_start() == word && word.trim_end_matches('.').bytes().all(|b| b.is_ascii_digit()) {
        return Some(false);
    }
    match full_stop(word) {
        Stop::Sentence => Some(true),
        Stop::Abbreviation => Some(false),
        Stop::Either => Some(text[after..].chars().find(|c| !c.is_whitespace())?.is_uppercase()),
    }
}

/// Whether a mark stands between digits ("March 5, 2026", "9–5"); `None` while the next character is needed
/// and not there.
fn joins_digits(text: &str, at: usize, after: usize) -> Option<bool> {
    let digit_before = text[..at].trim_end().ends_with(|c: char| c.is_ascii_digit());
    if !digit_before {
        return Some(false);
    }
    Some(text[after..].trim_start().chars().next()?.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds `text` in pieces of `size` characters, as a model would.
    fn split(text: &str, size: usize) -> Vec<String> {
        let mut splitter = ClauseSplitter::new();
        let chars: Vec<char> = text.chars().collect();
        let mut clauses: Vec<String> = chars
            .chunks(size.max(1))
            .flat_map(|piece| splitter.push(&piece.iter().collect::<String>()))
            .collect();
        clauses.extend(splitter.finish());
        clauses
    }

    #[test]
    fn cuts_where_one_breathes() {
        let cases: &[(&str, &[&str])] = &[
            ("Yes.", &["Yes."]),
            ("We are open. Come in.", &["We are open.", "Come in."]),
            (
                "Yes, we are open until six, and on Saturday until one.",
                &["Yes, we are open", "until six, and on Saturday until one."],
            ),
            ("Yes, we do.", &["Yes, we do."]),
            ("Sure! What is your name?", &["Sure! What is your name?"]),
            (
                "Of course! What is your name?",
                &["Of course!", "What is your name?"],
            ),
            ("It costs 3.5 percent. Fine?", &["It costs 3.5 percent.", "Fine?"]),
            (
                "Dr. Smith and Mrs. Jones are here. Wait.",
                &["Dr. Smith and Mrs. Jones are here.", "Wait."],
            ),
            (
                "We open at 9 a.m. and close at 5 p.m. Come early.",
                &["We open at 9 a.m. and close", "at 5 p.m.", "Come early."],
            ),
            (
                "Please come at 3:30 tomorrow. Bye.",
                &["Please come at 3:30 tomorrow.", "Bye."],
            ),
            (
                "Write to info@hill.com. Thank you.",
                &["Write to info@hill.com.", "Thank you."],
            ),
            (
                "It is March 5, 2026, at noon.",
                &["It is March 5, 2026,", "at noon."],
            ),
            (
                "It costs about $1,000 in all, I think.",
                &["It costs about $1,000 in all,", "I think."],
            ),
            ("We are open 9 – 5 today.", &["We are open 9 – 5 today."]),
            (
                "I can help with that — what is it?",
                &["I can help with that", "what is it?"],
            ),
            ("One line\nAnother line", &["One line", "Another line"]),
            (
                "1. First thing to do. 2. Second.",
                &["1. First thing to do.", "2. Second."],
            ),
            (
                "He said \"We are closed.\" I see.",
                &["He said \"We are closed.\"", "I see."],
            ),
            (
                "Ask for J. Smith at the desk. Bye.",
                &["Ask for J. Smith", "at the desk.", "Bye."],
            ),
            ("...", &[]),
            ("Wait... what do you mean?", &["Wait... what do you mean?"]),
        ];
        for (text, want) in cases {
            for size in [1, 2, 3, 7, 1_000] {
                assert_eq!(split(text, size), *want, "{text:?} in pieces of {size}");
            }
        }
    }

    #[test]
    fn the_first_clause_does_not_wait_for_a_mark() {
        let text = "You can bring your car in any morning before nine and we will look at it while you wait here with us";
        assert_eq!(
            split(text, 4),
            [
                "You can bring your car",
                "in any morning before nine and we will look at it while you wait here with us"
            ]
        );
        let endless = "word ".repeat(100);
        let clauses = split(&endless, 5);
        assert_eq!(clauses[0].split(' ').count(), FIRST.longest);
        assert!(
            clauses
                .iter()
                .all(|clause| clause.split(' ').count() <= LATER.longest + 1)
        );
    }

    #[test]
    fn speaks_as_soon_as_it_can() {
        let mut splitter = ClauseSplitter::new();
        assert!(splitter.push("We are open").is_empty());
        assert!(splitter.push(" today").is_empty());
        assert!(splitter.push(".").is_empty(), "could be today.com");
        assert_eq!(splitter.push(" From"), ["We are open today."]);
        assert_eq!(splitter.push(" nine, I think so?"), ["From nine, I think so?"]);
        assert_eq!(splitter.finish(), None);
    }

    proptest! {
        #[test]
        fn loses_no_word(text in "[a-zA-Z0-9 .,;:!?'\"()\n@€–—-]{0,300}", size in 1_usize..20) {
            let letters = |text: &str| text.chars().filter(|c| c.is_alphanumeric()).collect::<String>();
            let joined: String = split(&text, size).concat();
            prop_assert_eq!(letters(&joined), letters(&text));
        }

        #[test]
        fn never_panics(pieces in prop::collection::vec("\\PC{0,30}", 0..30)) {
            let mut splitter = ClauseSplitter::new();
            for piece in &pieces {
                for clause in splitter.push(piece) {
                    prop_assert!(clause.chars().any(char::is_alphanumeric));
                }
            }
            splitter.finish();
        }
    }
}
