//! Reader: walks the tokens and says each, the most particular reading first.
//!
//! Each reading looks at the tokens from the current one on and either takes some of them or declines. Their
//! order decides what "3/5" or "2026" is, so it is written down in one place: [`Reader::read`].

use super::{
    abbreviations, address, amount, numbers, phone, time,
    time::Time,
    token::{Token, is_range_end},
    word::{name_number, ordinal_or_decade, plain},
};

/// Words that make the number behind them a string of digits.
const CODES: &[&str] = &[
    "extension",
    "ext",
    "code",
    "pin",
    "zip",
    "account",
    "order",
    "invoice",
    "reference",
    "confirmation",
    "flight",
    "ticket",
    "case",
    "number",
];

/// What one reading of the next tokens gives.
struct Reading {
    words: String,
    /// Tokens taken.
    used: usize,
    stop: FullStop,
    /// An opening bracket belongs to the reading: "(555) 123-4567".
    brackets: bool,
}

/// What becomes of the full stop behind a reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FullStop {
    /// It ends the sentence.
    Stays,
    /// It belongs to an abbreviation, and ends the sentence only if that ends here.
    Either,
    /// It belongs to an abbreviation that never ends a sentence ("Dr.").
    Goes,
}

impl Reading {
    fn of(words: impl Into<String>, used: usize) -> Reading {
        Reading {
            words: words.into(),
            used,
            stop: FullStop::Stays,
            brackets: false,
        }
    }

    fn stopping(words: impl Into<String>, used: usize, stop: FullStop) -> Reading {
        Reading {
            stop,
            ..Reading::of(words, used)
        }
    }
}

fn abbreviated(short: bool) -> FullStop {
    if short { FullStop::Either } else { FullStop::Stays }
}

/// Reads tokens into words.
pub struct Reader<'a> {
    tokens: &'a [Token],
    at: usize,
    out: String,
}

impl<'a> Reader<'a> {
    /// At the first of `tokens`.
    pub fn new(tokens: &'a [Token]) -> Reader<'a> {
        Reader {
            tokens,
            at: 0,
            out: String::new(),
        }
    }

    /// Reads them all.
    pub fn run(mut self) -> String {
        while let Some(token) = self.tokens.get(self.at) {
            if token.core.is_empty() || token.core.chars().all(|c| matches!(c, '-' | '–' | '/' | '|')) {
                self.pause_or_range();
                continue;
            }
            let reading = self.read();
            let used = reading.used.max(1);
            let lead = if reading.brackets {
                String::new()
            } else {
                token.lead.clone()
            };
            let last = self.tokens.get(self.at + used - 1);
            let tail = last.map(|last| last.tail.clone()).unwrap_or_default();
            let at_end = self.tokens.len() == self.at + used;
            let drops = match reading.stop {
                FullStop::Stays => false,
                // "Mill Rd., Springfield": another mark follows, so the stop was the abbreviation's.
                FullStop::Either => tail.len() > 1 || !self.ends_sentence(self.at + used),
                FullStop::Goes => !at_end,
            };
            let tail = if drops {
                tail.strip_prefix('.').unwrap_or(&tail).to_owned()
            } else {
                tail
            };
            self.emit(&lead, &reading.words, &tail);
            self.at += used;
        }
        self.out.trim().to_owned()
    }

    fn token(&self, offset: usize) -> Option<&Token> {
        self.tokens.get(self.at + offset)
    }

    fn core(&self, offset: usize) -> Option<&str> {
        self.token(offset).map(|token| token.core.as_str())
    }

    /// The next word, if nothing closes between this one and it.
    fn joined(&self, offset: usize) -> Option<&str> {
        let before = self.token(offset.checked_sub(1)?)?;
        let token = self.token(offset)?;
        (before.tail.is_empty() && token.lead.is_empty()).then_some(token.core.as_str())
    }

    fn previous(&self) -> Option<&str> {
        self.at
            .checked_sub(1)
            .and_then(|at| self.tokens.get(at))
            .map(|token| token.core.as_str())
    }

    fn previous_lower(&self) -> String {
        self.previous().unwrap_or_default().to_lowercase()
    }

    /// Whether the token at `index` begins a new sentence (or there is none).
    fn ends_sentence(&self, index: usize) -> bool {
        self.tokens
            .get(index)
            .is_none_or(|token| token.core.starts_with(|c: char| c.is_uppercase()))
    }

    /// A dash or stray mark between words: "to" within a range, otherwise a pause.
    fn pause_or_range(&mut self) {
        let range = matches!(self.core(0), Some("-" | "–"))
            && self.previous().is_some_and(is_range_end)
            && self.core(1).is_some_and(is_range_end)
            && self
                .at
                .checked_sub(1)
                .and_then(|at| self.tokens.get(at))
                .is_some_and(|token| token.tail.is_empty());
        if range {
            self.emit("", "to", "");
        } else {
            let tail = self.token(0).map(|token| token.tail.clone()).unwrap_or_default();
            let mark = tail
                .chars()
                .find(|c| matches!(c, '.' | '!' | '?' | ',' | ';' | ':'))
                .unwrap_or(',');
            let speaks = self.out.ends_with(|c: char| c.is_alphanumeric());
            let dash = self.core(0).is_some_and(|core| !core.is_empty());
            if speaks && (dash || !tail.is_empty()) && (mark != ',' || self.at + 1 < self.tokens.len()) {
                self.out.push(mark);
            }
        }
        self.at += 1;
    }

    fn emit(&mut self, lead: &str, words: &str, tail: &str) {
        if words.is_empty() {
            return;
        }
        if lead.contains(['(', '[']) && self.out.ends_with(|c: char| c.is_alphanumeric()) {
            self.out.push(',');
        }
        if !self.out.is_empty() {
            self.out.push(' ');
        }
        self.out.push_str(words);
        let mark = tail
            .chars()
            .find(|c| matches!(c, '.' | ',' | ';' | ':' | '!' | '?'));
        let strongest = tail.chars().find(|c| matches!(c, '!' | '?')).or(mark);
        match strongest {
            Some(mark) => self.out.push(mark),
            None if tail.contains([')', ']']) && self.at + 1 < self.tokens.len() => self.out.push(','),
            None => {}
        }
    }

    fn read(&self) -> Reading {
        self.addresses()
            .or_else(|| self.known_figure())
            .or_else(|| self.telephone())
            .or_else(|| self.date())
            .or_else(|| self.time_of_day())
            .or_else(|| self.money())
            .or_else(|| self.numeric_reference())
            .or_else(|| self.measure())
            .or_else(|| self.number())
            .or_else(|| self.abbreviation())
            .unwrap_or_else(|| self.word())
    }

    fn addresses(&self) -> Option<Reading> {
        let core = self.core(0)?;
        let words = address::email(core).or_else(|| address::url(core))?;
        Some(Reading::of(words, 1))
    }

    /// "24/7" and other figures with a reading of their own.
    fn known_figure(&self) -> Option<Reading> {
        let core = self
            .core(0)
            .filter(|core| core.contains(|c: char| c.is_ascii_digit()))?;
        Some(Reading::of(abbreviations::expand(core, false, None, None)?, 1))
    }

    fn telephone(&self) -> Option<Reading> {
        let token = self.token(0)?;
        if !token.raw.starts_with(['(', '+'])
            && !token.core.starts_with(|c: char| c.is_ascii_digit() || c == '+')
        {
            return None;
        }
        let raws: Vec<&str> = self
            .tokens
            .get(self.at..)?
            .iter()
            .take(6)
            .map(|token| token.raw.as_str())
            .collect();
        let announced = self.tokens[..self.at].iter().rev().take(4).any(|token| {
            let word = token.core.to_lowercase();
            matches!(
                word.as_str(),
                "call"
                    | "phone"
                    | "number"
                    | "dial"
                    | "telephone"
                    | "tel"
                    | "text"
                    | "fax"
                    | "ring"
                    | "mobile"
                    | "cell"
            )
        });
        let (words, used) = phone::read(&raws, announced)?;
        Some(Reading {
            brackets: true,
            ..Reading::of(words, used)
        })
    }

    fn date(&self) -> Option<Reading> {
        let core = self.core(0)?;
        let near_date = matches!(
            self.previous_lower().as_str(),
            "on" | "by" | "until" | "till" | "since" | "before" | "after" | "date"
        ) || self.previous().is_some_and(|word| time::weekday(word).is_some());
        if let Some(words) = time::numeric_date(core, near_date) {
            return Some(Reading::of(words, 1));
        }
        if let Some((name, short)) = time::month(core) {
            return self.after_month(name, short);
        }
        if let Some((name, short)) = time::weekday(core) {
            return self.weekday(name, short);
        }
        // "5 March", "5th of March"
        let day = time::day(core)?;
        let of = usize::from(self.joined(1) == Some("of"));
        let (name, _) = time::month(self.joined(1 + of)?)?;
        if of == 1 && core.bytes().all(|b| b.is_ascii_digit()) {
            return None; // "3 of May's cars"
        }
        let article = if self.previous_lower() == "the" {
            ""
        } else {
            "the "
        };
        let mut words = format!("{article}{} of {name}", numbers::ordinal(day));
        let mut used = 2 + of;
        if let Some(year) = self.year_at(used) {
            words = format!("{words}, {}", numbers::year(year));
            used += 1;
        }
        Some(Reading::of(words, used))
    }

    fn after_month(&self, name: &str, short: bool) -> Option<Reading> {
        let stop = self.token(0)?.tail.as_str();
        let open = stop.is_empty() || stop == ".";
        let next = self.core(1).filter(|_| open);
        if let Some(day) = next.and_then(time::day)
            && self.joined(2).is_none_or(|after| time::half(after).is_none())
        {
            let mut words = format!("{name} {}", numbers::ordinal(day));
            let mut used = 2;
            if let Some(year) = self.year_at(used) {
                words = format!("{words}, {}", numbers::year(year));
                used += 1;
            }
            return Some(Reading::of(words, used));
        }
        if let Some(year) = next.and_then(time::year) {
            return Some(Reading::of(format!("{name} {}", numbers::year(year)), 2));
        }
        let in_range = self.previous() == Some("to") || self.core(1) == Some("to");
        (!short || stop.starts_with('.') || in_range).then(|| Reading::stopping(name, 1, abbreviated(short)))
    }

    /// A year behind a date: "March 5, 2026".
    fn year_at(&self, offset: usize) -> Option<u64> {
        let before = self.token(offset.checked_sub(1)?)?;
        let token = self.token(offset)?;
        if !(before.tail.is_empty() || before.tail == ",") {
            return None;
        }
        time::year(&token.core)
    }

    fn weekday(&self, name: &str, short: bool) -> Option<Reading> {
        let core = self.core(0)?;
        let tail = &self.token(0)?.tail;
        // "sat" and "sun" are words, too.
        let sure = !short
            || !matches!(core, "Sat" | "Sun")
            || tail.starts_with(['.', ':', ','])
            || self.previous_lower() == "to"
            || self.core(1).is_some_and(|next| {
                next == "to" || next == "closed" || next.starts_with(|c: char| c.is_ascii_digit())
            })
            || self.previous().is_some_and(|word| time::weekday(word).is_some());
        sure.then(|| Reading::stopping(name, 1, abbreviated(short)))
    }

    fn time_of_day(&self) -> Option<Reading> {
        let core = self.core(0)?;
        let (time, took_next) = Time::read(core, self.joined(1))?;
        let used = 1 + usize::from(took_next);
        // "3:30 p.m." at the end of a sentence keeps its full stop; `p.m` shows that there was one.
        let dotted = self
            .core(used - 1)
            .is_some_and(|last| last.ends_with(".m") || last.ends_with(".M"));
        Some(Reading::stopping(time.words(), used, abbreviated(dotted)))
    }

    fn money(&self) -> Option<Reading> {
        let core = self.core(0)?;
        let mut parts = core.split('/');
        let amount = parts.next()?;
        let per = parts.map(amount::per).collect::<Option<Vec<_>>>()?;
        let next = if per.is_empty() { self.joined(1) } else { None };
        let (mut words, took_next) = amount::money(amount, next)?;
        for unit in per {
            words = format!("{words} per {unit}");
        }
        Some(Reading::of(words, 1 + usize::from(took_next)))
    }

    /// Numbers that name a thing: houses, rooms, codes, "No. 5", "#5".
    fn numeric_reference(&self) -> Option<Reading> {
        let core = self.core(0)?;
        if core == "#" && matches!(self.previous_lower().as_str(), "press" | "hit" | "the" | "or") {
            return Some(Reading::of("pound", 1));
        }
        if let Some(number) = core.strip_prefix('#') {
            let words = numbers::ungrouped(number)
                .filter(|n| !n.is_empty())
                .map(|n| name_number(&n))?;
            let already = self.previous_lower() == "number";
            return Some(Reading::of(
                if already { words } else { format!("number {words}") },
                1,
            ));
        }
        let stop = self.token(0)?.tail == ".";
        if matches!(core, "No" | "Nos" | "no") && stop {
            self.core(1)
                .filter(|next| next.starts_with(|c: char| c.is_ascii_digit()))?;
            return Some(Reading::stopping("number", 1, FullStop::Goes));
        }
        if let Some(state) = abbreviations::state(core)
            && self.core(1).is_some_and(is_zip)
        {
            return Some(Reading::of(state.to_owned(), 1));
        }
        if is_zip(core)
            && let Some((zip, more)) = core.split_once('-')
        {
            return Some(Reading::of(
                format!("{}, {}", numbers::digits(zip), numbers::digits(more)),
                1,
            ));
        }
        if core.is_empty() || !core.bytes().all(|b| b.is_ascii_digit()) || core.len() > 12 {
            return None;
        }
        let before = self.previous_lower();
        let code = |word: &str| CODES.contains(&word);
        let coded = code(&before)
            || (matches!(before.as_str(), "is" | "was" | "be")
                && self.tokens[..self.at]
                    .iter()
                    .rev()
                    .skip(1)
                    .take(3)
                    .any(|token| code(&token.core.to_lowercase())));
        let state_before = self
            .previous()
            .is_some_and(|word| abbreviations::state(word).is_some());
        let dialled = core.len() == 3
            && matches!(before.as_str(), "dial" | "call" | "text")
            && !self.joined(1).is_some_and(|next| next.ends_with('s'));
        if dialled || (coded && core.len() >= 3) || (core.len() == 5 && state_before) {
            return Some(Reading::of(numbers::digits(core), 1));
        }
        let room = matches!(
            before.as_str(),
            "room" | "suite" | "apartment" | "apt" | "unit" | "route" | "highway" | "ste" | "bus" | "line"
        );
        let street = core.len() <= 5
            && !self.token(0)?.ends_clause()
            && (1..=3).any(|offset| {
                let capital = self
                    .core(1)
                    .is_some_and(|word| word.starts_with(|c: char| c.is_ascii_uppercase()));
                let open =
                    (1..offset).all(|before| self.token(before).is_some_and(|token| !token.ends_clause()));
                capital && open && self.core(offset).is_some_and(abbreviations::is_street)
            });
        if room || street {
            let number = core.parse::<u64>().ok().filter(|_| !core.starts_with('0'))?;
            return Some(Reading::of(numbers::house(number), 1));
        }
        None
    }

    fn measure(&self) -> Option<Reading> {
        let core = self.core(0)?;
        if let Some(words) = amount::percent(core) {
            return Some(Reading::of(words, 1));
        }
        if self.joined(1) == Some("%")
            && let Some(words) = numbers::written(core)
        {
            return Some(Reading::of(format!("{words} percent"), 2));
        }
        if self.joined(1).is_some_and(|next| next == "sq")
            && self.core(2) == Some("ft")
            && let Some(words) = numbers::written(core)
        {
            return Some(Reading::stopping(
                format!("{words} square feet"),
                3,
                FullStop::Either,
            ));
        }
        let (words, took_next) = amount::measure(core, self.joined(1))?;
        Some(Reading::stopping(
            words,
            1 + usize::from(took_next),
            FullStop::Either,
        ))
    }

    fn number(&self) -> Option<Reading> {
        let core = self.core(0)?;
        let said = |words: String| Some(Reading::of(words, 1));
        if let Some(words) = amount::fraction(core) {
            // "2 1/2"
            let whole = self
                .previous()
                .is_some_and(|word| numbers::written(word).is_some());
            return said(if whole { format!("and {words}") } else { words });
        }
        if let Some(year) = self.bare_year(core) {
            return said(numbers::year(year));
        }
        if let Some(words) = numbers::written(core) {
            return said(words);
        }
        let (sign, rest) = match core.chars().next()? {
            '-' => ("minus ", &core[1..]),
            '+' => ("plus ", &core[1..]),
            '~' => ("about ", &core[1..]),
            '<' => ("less than ", &core[1..]),
            '>' => ("more than ", &core[1..]),
            '=' => ("equals ", &core[1..]),
            _ => ("", core),
        };
        if !sign.is_empty()
            && let Some(words) =
                numbers::written(rest).or_else(|| amount::money(rest, None).map(|(words, _)| words))
        {
            return said(format!("{sign}{words}"));
        }
        if let Some(number) = core.strip_suffix('+')
            && let Some(words) = numbers::written(number)
        {
            return said(format!("{words} plus"));
        }
        ordinal_or_decade(core).and_then(said)
    }

    /// Four digits that are a year: said so, or likely.
    fn bare_year(&self, core: &str) -> Option<u64> {
        let year = time::year(core)?;
        let before = self.previous_lower();
        let said = matches!(
            before.as_str(),
            "in" | "since" | "until" | "till" | "by" | "of" | "year" | "from" | "during" | "after" | "before"
        );
        let counted = self
            .joined(1)
            .is_some_and(|next| next.ends_with('s') && next.starts_with(|c: char| c.is_lowercase()));
        ((said || (1990..=2049).contains(&year)) && !counted).then_some(year)
    }

    fn abbreviation(&self) -> Option<Reading> {
        let token = self.token(0)?;
        let stop = token.tail.starts_with('.');
        let next = if token.tail.is_empty() || token.tail == "." {
            self.core(1)
        } else {
            None
        };
        let long = abbreviations::expand(&token.core, stop, self.previous(), next)?;
        // "Mister Smith": the sentence goes on though a capital follows.
        let goes_on = matches!(
            long,
            "Mister"
                | "Missus"
                | "Miz"
                | "Doctor"
                | "Saint"
                | "Professor"
                | "Mount"
                | "General"
                | "Reverend"
                | "Captain"
                | "Lieutenant"
                | "for example"
                | "that is"
                | "versus"
                | "approximately"
                | "U-S"
                | "U-K"
                | "P-O"
        );
        let stop = match (stop, goes_on) {
            (true, true) => FullStop::Goes,
            (true, false) => FullStop::Either,
            (false, _) => FullStop::Stays,
        };
        Some(Reading::stopping(long, 1, stop))
    }

    fn word(&self) -> Reading {
        let core = self.core(0).unwrap_or_default();
        Reading::of(plain(core), 1)
    }
}

/// `62704` or `62704-1234`.
fn is_zip(text: &str) -> bool {
    let (zip, more) = text.split_once('-').unwrap_or((text, ""));
    zip.len() == 5
        && matches!(more.len(), 0 | 4)
        && zip.bytes().chain(more.bytes()).all(|b| b.is_ascii_digit())
}
