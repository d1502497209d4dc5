//! Spoken forms: written English as the words that the voice should say.
//!
//! The synthesiser reads "555-0199" as "five hundred fifty-five minus …" and "a.m." as "am". So everything but plain words is
//! written out here: numbers, times, dates, money, telephone numbers in groups, addresses, units, abbreviations; Markdown and
//! emoji go. The result has no digit and no sign left, only words and the marks that make pauses.
//!
//! ```text
//! text --markup::strip--> plain text --tokens--> ranges apart ("9-5" → "9", "to", "5") --Reader--> words
//! ```
//! American reading: month first in "3/5/2026", no "and" in numbers.

mod abbreviations;
mod address;
mod amount;
mod markup;
pub mod numbers;
mod phone;
mod time;

use time::Time;

/// Most text read at once [bytes]; a clause is far shorter. The rest is cut off.
const MAX_BYTES: usize = 20_000;

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

/// The words for `text`.
pub fn spoken(text: &str) -> String {
    let mut end = text.len().min(MAX_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let plain = markup::strip(&text[..end]);
    let tokens: Vec<Token> = plain.split_whitespace().flat_map(split_range).collect();
    Reader {
        tokens: &tokens,
        at: 0,
        out: String::with_capacity(2 * plain.len()),
    }
    .run()
}

/// Letters one by one, as the synthesiser spells them right: `abc` → "A-B-C".
pub(crate) fn letters(word: &str) -> String {
    word.chars()
        .map(|c| c.to_uppercase().to_string())
        .collect::<Vec<_>>()
        .join("-")
}

/// A word as written, apart from what opens and closes around it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Token {
    /// As written.
    raw: String,
    /// Opening quotes and brackets.
    lead: String,
    /// The word itself.
    core: String,
    /// Closing quotes, brackets and marks.
    tail: String,
}

impl Token {
    fn new(raw: &str) -> Token {
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

    fn ends_clause(&self) -> bool {
        self.tail.contains([',', ';', ':', '!', '?', '.', ')'])
    }
}

/// `9-5` → `9`, `to`, `5`; `$20-30` → `20`, `to`, `$30`. Anything else stays one token.
fn split_range(raw: &str) -> Vec<Token> {
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

fn is_range_end(text: &str) -> bool {
    let number = text
        .trim_start_matches(['$', '€', '£'])
        .trim_end_matches(['%', '€']);
    let short = number.len() <= 6 && numbers::written(number).is_some();
    short || Time::read(text, None).is_some() || time::weekday(text).is_some() || time::month(text).is_some()
}

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

struct Reader<'a> {
    tokens: &'a [Token],
    at: usize,
    out: String,
}

impl Reader<'_> {
    fn run(mut self) -> String {
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

/// A number that is a name: short ones as numbers, long ones digit by digit.
fn name_number(digits: &str) -> String {
    match digits.parse::<u64>() {
        Ok(n) if digits.len() <= 2 && !digits.starts_with('0') => numbers::cardinal(n),
        Ok(_) | Err(_) => numbers::digits(digits),
    }
}

/// `21st`, `1990s`, `80s`, `'90s`.
fn ordinal_or_decade(core: &str) -> Option<String> {
    let end = core.find(|c: char| !(c.is_ascii_digit() || c == ','))?;
    let (number, suffix) = core.split_at(end);
    let n = numbers::ungrouped(number)
        .filter(|n| !n.is_empty())?
        .parse::<u64>()
        .ok()?;
    match suffix {
        "st" | "nd" | "rd" | "th" => Some(numbers::ordinal(n)),
        "s" | "'s" if n.is_multiple_of(10) && ((20..=90).contains(&n) || (1900..=2090).contains(&n)) => {
            let words = if n < 100 {
                numbers::cardinal(n)
            } else {
                numbers::year(n)
            };
            Some(match words.strip_suffix('y') {
                Some(stem) => format!("{stem}ies"),
                None => format!("{words}s"),
            })
        }
        "s" | "'s" => Some(format!("{}s", numbers::cardinal(n))),
        _ => None,
    }
}

/// A word without signs; digits within it are read apart: `F150` → "F-one five zero", `5-minute` → "five minute".
fn plain(core: &str) -> String {
    let sign = match core {
        "&" => "and",
        "+" => "plus",
        "=" => "equals",
        "@" => "at",
        "%" => "percent",
        "#" => "number",
        "~" => "about",
        "<" => "less than",
        ">" => "more than",
        "°" => "degrees",
        "$" => "dollars",
        "€" => "euros",
        "£" => "pounds",
        "¥" => "yen",
        "¢" => "cents",
        _ => "",
    };
    if !sign.is_empty() {
        return sign.to_owned();
    }
    let mut words: Vec<String> = Vec::new();
    for part in core
        .split(['/', '–', '_', '|', '\\', '"'])
        .filter(|part| !part.is_empty())
    {
        if !words.is_empty() && core.contains('/') {
            words.push("or".to_owned());
        }
        let digits = part.contains(|c: char| c.is_ascii_digit());
        if digits {
            words.extend(mixed(part));
        } else {
            let joined = part
                .replace('&', " and ")
                .replace('@', " at ")
                .replace('+', " plus ")
                .replace('%', " percent ");
            let clean: String = joined
                .chars()
                .filter(|c| c.is_alphabetic() || matches!(c, ' ' | '\'' | '-' | '.' | '\u{300}'..='\u{36f}'))
                .collect();
            let clean = clean.trim_matches(['-', '.', ' ', '\'']).to_owned();
            if clean.chars().any(char::is_alphabetic) {
                words.push(clean);
            }
        }
    }
    words.join(" ")
}

/// Letters and digits in one word.
fn mixed(part: &str) -> Vec<String> {
    let mut words: Vec<String> = Vec::new();
    for piece in part
        .split(|c: char| !(c.is_alphanumeric() || matches!(c, '\'' | '.' | ',')))
        .filter(|piece| !piece.is_empty())
    {
        if let Some(number) = numbers::written(piece) {
            words.push(number);
            continue;
        }
        if let Some((a, b)) = piece.split_once('x')
            && let (Some(a), Some(b)) = (numbers::written(a), numbers::written(b))
        {
            words.push(format!("{a} by {b}"));
            continue;
        }
        let mut code = String::new();
        for run in piece
            .as_bytes()
            .chunk_by(|a, b| a.is_ascii_digit() == b.is_ascii_digit())
        {
            // Runs split at ASCII digits, so each is whole UTF-8.
            let run = String::from_utf8_lossy(run);
            let said = if run.starts_with(|c: char| c.is_ascii_digit()) {
                name_number(&run)
            } else {
                let clean: String = run.chars().filter(|c| c.is_alphabetic()).collect();
                let pronounceable = clean.len() > 3 && clean.contains(['A', 'E', 'I', 'O', 'U']);
                if clean.is_empty() {
                    if run.contains('\'') {
                        continue;
                    } else {
                        "point".to_owned()
                    }
                } else if !pronounceable && clean.chars().all(char::is_uppercase) {
                    letters(&clean)
                } else {
                    clean
                }
            };
            if code.ends_with(|c: char| c.is_uppercase()) {
                code.push('-');
            } else if !code.is_empty() {
                code.push(' ');
            }
            code.push_str(&said);
        }
        words.push(code);
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sentences() {
        let cases: &[(&str, &str)] = &[
            ("", ""),
            ("Hello there.", "Hello there."),
            (
                "We open at 9 a.m. and close at 5:30 p.m.",
                "We open at nine AM and close at five thirty PM.",
            ),
            (
                "We close at 5 p.m. Come early.",
                "We close at five PM. Come early.",
            ),
            ("Open 9-5, Mon-Fri.", "Open nine to five, Monday to Friday."),
            (
                "Open 9am–5pm, Mon–Sat",
                "Open nine AM to five PM, Monday to Saturday",
            ),
            ("From 9:00 - 17:00.", "From nine o'clock to seventeen hundred."),
            ("Come at 12:00 pm.", "Come at noon."),
            ("Call 555-0199.", "Call five five five, zero one nine nine."),
            (
                "Call (555) 123-4567 today.",
                "Call five five five, one two three, four five six seven today.",
            ),
            (
                "Call +1 555 123 4567, please.",
                "Call plus one, five five five, one two three, four five six seven, please.",
            ),
            ("It's $49.", "It's forty-nine dollars."),
            (
                "It costs $49.99 per visit.",
                "It costs forty-nine dollars and ninety-nine cents per visit.",
            ),
            ("About $20-30.", "About twenty to thirty dollars."),
            ("That is $45/hour.", "That is forty-five dollars per hour."),
            (
                "Over $1.5 million was paid.",
                "Over one point five million dollars was paid.",
            ),
            (
                "A 15% discount, 10-20% off.",
                "A fifteen percent discount, ten to twenty percent off.",
            ),
            (
                "On March 5, 2026, at noon.",
                "On March fifth, twenty twenty-six, at noon.",
            ),
            ("On March 5th.", "On March fifth."),
            ("Due 2026-03-05.", "Due March fifth, twenty twenty-six."),
            ("Due 3/5/2026.", "Due March fifth, twenty twenty-six."),
            ("On 3/5.", "On March fifth."),
            ("On 5 March 2026.", "On the fifth of March, twenty twenty-six."),
            ("On the 5th of March.", "On the fifth of March."),
            ("On Mon. at 9", "On Monday at nine"),
            ("In Jan. 2026 we moved.", "In January twenty twenty-six we moved."),
            ("Since 1998.", "Since nineteen ninety-eight."),
            ("In 2005 and 2026.", "In two thousand five and twenty twenty-six."),
            ("We have 2000 customers.", "We have two thousand customers."),
            ("1,234 cars", "one thousand two hundred thirty-four cars"),
            (
                "The 21st floor, the 1990s.",
                "The twenty-first floor, the nineteen nineties.",
            ),
            (
                "Dr. Smith lives at 12 Oak St.",
                "Doctor Smith lives at twelve Oak Street.",
            ),
            (
                "We are at 1234 Mill Rd., Springfield, IL 62701.",
                "We are at twelve thirty-four Mill Road, Springfield, Illinois six two seven zero one.",
            ),
            ("Ask for Mr. and Mrs. Jones.", "Ask for Mister and Missus Jones."),
            (
                "St. Mary is on Hill St. near the park.",
                "Saint Mary is on Hill Street near the park.",
            ),
            ("Room 204, suite 1200.", "Room two oh four, suite twelve hundred."),
            (
                "Write to info@hill-motors.com.",
                "Write to info at hill dash motors dot com.",
            ),
            ("See https://www.hill.com/hours!", "See hill dot com slash hours!"),
            (
                "It takes 30 min. or 1 hr.",
                "It takes thirty minutes or one hour.",
            ),
            (
                "It is 5 km away, 20kg.",
                "It is five kilometers away, twenty kilograms.",
            ),
            ("At -3°C.", "At minus three degrees Celsius."),
            ("**We're open** 24/7!", "We're open twenty-four seven!"),
            ("- Monday\n- Tuesday", "Monday. Tuesday"),
            ("1. Oil change\n2. New tires", "Oil change. New tires"),
            ("Sure \u{1F600}!", "Sure!"),
            ("Bread & butter", "Bread and butter"),
            ("Tea/coffee and/or cake", "Tea or coffee and or cake"),
            ("e.g. oil, filters, etc.", "for example oil, filters, et cetera."),
            (
                "No. 5 is alive. No. I mean it.",
                "number five is alive. No. I mean it.",
            ),
            ("Order #12345", "Order number one two three four five"),
            ("Your code is 4071.", "Your code is four zero seven one."),
            ("Use code 4071.", "Use code four zero seven one."),
            ("A 5-minute walk", "A five minute walk"),
            ("A Ford F150", "A Ford F-one five zero"),
            ("4x4 drive", "four by four drive"),
            ("2 1/2 hours", "two and one half hours"),
            ("We (the team) care.", "We, the team, care."),
            ("Yes — of course", "Yes, of course"),
            ("He said \"hi\".", "He said hi."),
            ("What?!", "What?"),
            ("3.5 stars", "three point five stars"),
            ("version 1.2.3", "version one point two point three"),
            ("I am here at 5.", "I am here at five."),
            ("You may come in March.", "You may come in March."),
            ("The cat sat. The sun set.", "The cat sat. The sun set."),
            ("R&D", "R and D"),
            ("100+ reviews", "one hundred plus reviews"),
            ("at 7 o'clock", "at seven o'clock"),
            ("COVID-19", "COVID nineteen"),
            ("007", "zero zero seven"),
            ("$", "dollars"),
            ("$5/person/day", "five dollars per person per day"),
            (
                "Springfield, IL 62704-1234.",
                "Springfield, Illinois six two seven zero four, one two three four.",
            ),
            (
                "Call 911 now, or press #.",
                "Call nine one one now, or press pound.",
            ),
            ("1000s of parts", "one thousands of parts"),
            ("The a.m. shift", "The AM shift"),
            ("On the 23rd St. side", "On the twenty-third Street side"),
            ("It's 6'2\" tall.", "It's six two tall."),
            ("Ask ext. 204.", "Ask extension two zero four."),
            ("A VIN of 1HGCM82", "A VIN of one H-G-C-M-eighty-two"),
            ("...", ""),
            ("Müller's café", "Müller's café"),
        ];
        let mut wrong = Vec::new();
        for (text, want) in cases {
            let got = spoken(text);
            if got != *want {
                wrong.push(format!("{text:?}\n   got {got:?}\n  want {want:?}"));
            }
        }
        assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    }

    proptest! {
        #[test]
        fn leaves_neither_digit_nor_sign(text in "\\PC{0,80}") {
            let words = spoken(&text);
            prop_assert!(!words.contains(|c: char| c.is_ascii_digit() || "*_#`|<>{}[]\\^~$€£%@=+&".contains(c)), "{words:?}");
        }

        #[test]
        fn leaves_neither_digit_nor_sign_of_business(
            text in "([0-9]{1,12}|[0-9]{1,2}:[0-9]{2}|\\$|€|%|-|/|\\.|,|am|p\\.m\\.|March|Mon|St\\.|km|#|\\(|\\)|@|x|th| | ){0,30}"
        ) {
            let words = spoken(&text);
            prop_assert!(!words.contains(|c: char| c.is_ascii_digit() || "*_#`|<>{}[]\\^~$€£%@=+&".contains(c)), "{words:?}");
        }
    }
}
