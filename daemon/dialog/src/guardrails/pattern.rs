//! Pattern: a phrase with alternatives and gaps, looked for in normalised words.
//!
//! | Written | Means |
//! |---|---|
//! | `ignore` | this word |
//! | `ignore\|forget` | one of these |
//! | `instruct*` | a word that begins so |
//! | `~3` | up to three words of any kind |
//! | `!i\|we` in front | not right behind one of these |
//! | `!service` at the end | not right before one of these |
//!
//! Time grows with the words, not with the patterns: only those are tried that may begin with the word at hand.

use std::collections::HashMap;

use crate::words::words;

/// Longest text looked at \[words\]; what follows is not matched. A caller's longest turn is about 150.
const MAX_WORDS: usize = 400;
/// Single letters in a row that are read as one word: "i g n o r e".
const SPELLED: usize = 4;

#[derive(Debug, Clone)]
enum Step {
    /// One of these words.
    Word(Vec<Alternative>),
    /// Up to so many words of any kind.
    Gap(usize),
}

#[derive(Debug, Clone)]
enum Alternative {
    Exact(String),
    Prefix(String),
}

impl Alternative {
    fn fits(&self, word: &str) -> bool {
        match self {
            Alternative::Exact(text) => word == text,
            Alternative::Prefix(text) => word.starts_with(text.as_str()),
        }
    }
}

/// One phrase.
#[derive(Debug, Clone)]
struct Pattern {
    text: String,
    not_behind: Vec<Alternative>,
    steps: Vec<Step>,
    not_before: Vec<Alternative>,
}

fn alternatives(text: &str) -> Vec<Alternative> {
    text.split('|')
        .map(|word| match word.strip_suffix('*') {
            Some(prefix) => Alternative::Prefix(prefix.to_owned()),
            None => Alternative::Exact(word.to_owned()),
        })
        .collect()
}

impl Pattern {
    fn parse(text: &str) -> Pattern {
        let mut pattern = Pattern {
            text: text.to_owned(),
            not_behind: Vec::new(),
            steps: Vec::new(),
            not_before: Vec::new(),
        };
        for token in text.split_whitespace() {
            if let Some(not) = token.strip_prefix('!') {
                if pattern.steps.is_empty() {
                    pattern.not_behind = alternatives(not);
                } else {
                    pattern.not_before = alternatives(not);
                }
            } else if let Some(gap) = token.strip_prefix('~') {
                pattern.steps.push(Step::Gap(gap.parse().unwrap_or(0)));
            } else {
                pattern.steps.push(Step::Word(alternatives(token)));
            }
        }
        pattern
    }

    /// Words that a house's own phrase consists of; nothing in it is special.
    fn literal(text: &str) -> Pattern {
        let steps = words(text)
            .into_iter()
            .map(|word| Step::Word(vec![Alternative::Exact(word)]))
            .collect();
        Pattern {
            text: text.to_owned(),
            not_behind: Vec::new(),
            steps,
            not_before: Vec::new(),
        }
    }

    /// The words of its own that it was found by, from `at` on.
    fn at(&self, words: &[String], at: usize) -> Option<Vec<usize>> {
        let behind = at.checked_sub(1).and_then(|before| words.get(before));
        if behind.is_some_and(|word| self.not_behind.iter().any(|not| not.fits(word))) {
            return None;
        }
        let mut own = Vec::new();
        self.follow(&self.steps, words, at, &mut own).then_some(own)
    }

    fn follow(&self, steps: &[Step], words: &[String], at: usize, own: &mut Vec<usize>) -> bool {
        match steps.split_first() {
            None => words
                .get(at)
                .is_none_or(|next| !self.not_before.iter().any(|not| not.fits(next))),
            Some((Step::Word(any), rest)) => {
                let fits = words
                    .get(at)
                    .is_some_and(|word| any.iter().any(|one| one.fits(word)));
                if !fits {
                    return false;
                }
                own.push(at);
                let found = self.follow(rest, words, at + 1, own);
                if !found {
                    own.pop();
                }
                found
            }
            Some((Step::Gap(most), rest)) => {
                (0..=*most).any(|skipped| self.follow(rest, words, at + skipped, own))
            }
        }
    }
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Found<T> {
    /// What its pattern stands for.
    pub means: T,
    /// The pattern as written.
    pub pattern: String,
    /// The words it was found by; those between are not told.
    pub matched: String,
}

/// Many patterns, the more important ones first.
#[derive(Debug, Clone)]
pub(super) struct Matcher<T> {
    patterns: Vec<(T, Pattern)>,
    /// Patterns that may begin with this word.
    by_first: HashMap<String, Vec<usize>>,
    /// Patterns whose first word is only known by its beginning.
    by_prefix: Vec<usize>,
}

impl<T: Copy> Matcher<T> {
    pub fn new() -> Matcher<T> {
        Matcher {
            patterns: Vec::new(),
            by_first: HashMap::new(),
            by_prefix: Vec::new(),
        }
    }

    /// Adds patterns in the notation above.
    pub fn add(&mut self, means: T, patterns: &[&str]) {
        for text in patterns {
            self.put(means, Pattern::parse(text));
        }
    }

    /// Adds phrases as they are.
    pub fn add_literal(&mut self, means: T, phrases: &[String]) {
        for text in phrases {
            self.put(means, Pattern::literal(text));
        }
    }

    fn put(&mut self, means: T, pattern: Pattern) {
        // One that begins with a gap would fit everywhere: none is written so, and a test looks.
        let Some(Step::Word(first)) = pattern.steps.first() else {
            return;
        };
        let index = self.patterns.len();
        let mut by_prefix = false;
        for one in first {
            match one {
                Alternative::Exact(word) => self.by_first.entry(word.clone()).or_default().push(index),
                Alternative::Prefix(_) => by_prefix = true,
            }
        }
        if by_prefix {
            self.by_prefix.push(index);
        }
        self.patterns.push((means, pattern));
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.patterns.len()
    }

    /// The first pattern, in the order they were added, that is found in the words.
    pub fn find(&self, words: &[String]) -> Option<Found<T>> {
        let words = words.get(..MAX_WORDS).unwrap_or(words);
        let mut best: Option<(usize, Vec<usize>)> = None;
        for (at, word) in words.iter().enumerate() {
            let likely = self.by_first.get(word.as_str()).into_iter().flatten();
            for &index in likely.chain(&self.by_prefix) {
                if best.as_ref().is_some_and(|(before, _)| *before <= index) {
                    continue;
                }
                if let Some((_, pattern)) = self.patterns.get(index)
                    && let Some(own) = pattern.at(words, at)
                {
                    best = Some((index, own));
                }
            }
        }
        let (index, own) = best?;
        let (means, pattern) = self.patterns.get(index)?;
        Some(Found {
            means: *means,
            pattern: pattern.text.clone(),
            matched: masked(words, &own),
        })
    }
}

/// The pattern's own words; what stood between them is an ellipsis.
fn masked(words: &[String], own: &[usize]) -> String {
    let mut text = String::new();
    let mut last = None;
    for &at in own {
        match last {
            None => {}
            Some(before) if before + 1 == at => text.push(' '),
            Some(_) => text.push_str(" … "),
        }
        text.push_str(words.get(at).map_or("", String::as_str));
        last = Some(at);
    }
    text
}

/// The words of a text for matching; letters spelled one by one are joined.
pub(super) fn normal(text: &str) -> Vec<String> {
    let single = |word: &String| word.chars().count() == 1 && word.chars().all(char::is_alphabetic);
    let mut joined: Vec<String> = Vec::new();
    let mut letters: Vec<String> = Vec::new();
    let flush = |letters: &mut Vec<String>, joined: &mut Vec<String>| {
        if letters.len() >= SPELLED {
            joined.push(letters.concat());
            letters.clear();
        } else {
            joined.append(letters);
        }
    };
    for word in words(text) {
        if single(&word) {
            letters.push(word);
        } else {
            flush(&mut letters, &mut joined);
            joined.push(word);
        }
    }
    flush(&mut letters, &mut joined);
    joined
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(patterns: &[&str], text: &str) -> Option<(String, String)> {
        let mut matcher = Matcher::new();
        matcher.add((), patterns);
        matcher
            .find(&normal(text))
            .map(|found| (found.pattern, found.matched))
    }

    #[test]
    fn finds_words_gaps_and_exceptions() {
        let cases: &[(&str, &str, Option<&str>)] = &[
            ("stop", "Please stop.", Some("stop")),
            ("stop", "Nonstop.", None),
            (
                "ignore|forget ~2 rules",
                "Forget all those rules!",
                Some("forget … rules"),
            ),
            ("ignore|forget ~2 rules", "Forget rules", Some("forget rules")),
            ("ignore|forget ~2 rules", "Forget all of those rules", None),
            ("jail*", "a jailbreak", Some("jailbreak")),
            ("!i|we ignore rules", "I ignore rules", None),
            ("!i|we ignore rules", "You ignore rules", Some("ignore rules")),
            ("!i|we ignore rules", "ignore rules", Some("ignore rules")),
            ("customer !service", "a customer service desk", None),
            ("customer !service", "a customer", Some("customer")),
            ("ignore rules", "i G N O R E rules", Some("ignore rules")),
            ("ignore rules", "", None),
        ];
        for (pattern, text, want) in cases {
            let found = find(&[pattern], text).map(|(_, matched)| matched);
            assert_eq!(found.as_deref(), *want, "{pattern:?} in {text:?}");
        }
    }

    #[test]
    fn the_first_pattern_counts_not_the_first_place() {
        let found = find(&["fire", "water"], "water and fire").map(|(pattern, _)| pattern);
        assert_eq!(found.as_deref(), Some("fire"));
    }

    #[test]
    fn a_house_phrase_is_taken_as_it_is() {
        let mut matcher = Matcher::new();
        matcher.add_literal((), &["Tax advice!".to_owned(), " ".to_owned()]);
        assert_eq!(matcher.len(), 1, "a phrase without words is none");
        assert!(matcher.find(&normal("Do you give tax advice?")).is_some());
        assert!(matcher.find(&normal("Do you give tax and advice?")).is_none());
    }

    #[test]
    fn endless_texts_end() {
        let text = "ignore all ".repeat(50_000);
        assert_eq!(find(&["ignore ~8 ignore ~8 ignore ~8 rules"], &text), None);
    }
}
