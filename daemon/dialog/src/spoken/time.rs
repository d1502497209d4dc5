//! Times of day and dates.

use super::numbers;

/// Half of the day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    /// Before noon.
    Am,
    /// After noon.
    Pm,
}

/// `am`, `p.m.`, `PM`.
pub fn half(word: &str) -> Option<Half> {
    let bare: String = word
        .chars()
        .filter(|c| *c != '.')
        .collect::<String>()
        .to_ascii_lowercase();
    match bare.as_str() {
        "am" => Some(Half::Am),
        "pm" => Some(Half::Pm),
        _ => None,
    }
}

/// A time of day as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time {
    hour: u64,
    minute: Option<u64>,
    half: Option<Half>,
}

impl Time {
    /// `3:30`, `3pm`, `3:30p.m`, `15:30`; a bare `3` only with `next` being am or pm. Also says whether
    /// `next` was used.
    pub fn read(core: &str, next: Option<&str>) -> Option<(Time, bool)> {
        let end = core.find(|c: char| !(c.is_ascii_digit() || c == ':' || c == '.'));
        let (clock, attached) = core.split_at(end.unwrap_or(core.len()));
        let clock = clock.strip_suffix('.').unwrap_or(clock);
        let own = if attached.is_empty() {
            None
        } else {
            Some(half(attached)?)
        };
        let following = if own.is_none() { next.and_then(half) } else { None };
        let half = own.or(following);
        let (hour, minute) = match clock.split_once(':').or_else(|| half.and(clock.split_once('.'))) {
            Some((hour, minute)) if minute.len() == 2 => (hour, Some(minute.parse::<u64>().ok()?)),
            Some(_) => return None,
            None => (clock, None),
        };
        if hour.is_empty() || hour.len() > 2 || (minute.is_none() && half.is_none()) {
            return None;
        }
        let hour = hour.parse::<u64>().ok()?;
        let hours = if half.is_some() { 0..=12 } else { 0..=24 };
        let good = hours.contains(&hour) && minute.is_none_or(|m| m < 60);
        good.then_some((Time { hour, minute, half }, following.is_some()))
    }

    /// "three thirty PM", "nine o'clock", "noon".
    pub fn words(self) -> String {
        let hour = numbers::cardinal(self.hour);
        let half = match (self.hour, self.minute.unwrap_or(0), self.half) {
            (12, 0, Some(Half::Pm)) => return "noon".to_owned(),
            (12, 0, Some(Half::Am)) | (0 | 24, 0, None) => return "midnight".to_owned(),
            // The synthesiser spells these two right only without full stops or spaces.
            (_, _, Some(Half::Am)) => " AM",
            (_, _, Some(Half::Pm)) => " PM",
            (_, _, None) => "",
        };
        match self.minute {
            None | Some(0) if self.half.is_some() => format!("{hour}{half}"),
            None | Some(0) if self.hour > 12 => format!("{hour} hundred"),
            None | Some(0) => format!("{hour} o'clock"),
            Some(minute @ 1..=9) => format!("{hour} oh {}{half}", numbers::cardinal(minute)),
            Some(minute) => format!("{hour} {}{half}", numbers::cardinal(minute)),
        }
    }
}

const MONTHS: [(&str, &[&str]); 12] = [
    ("January", &["jan"]),
    ("February", &["feb"]),
    ("March", &["mar"]),
    ("April", &["apr"]),
    ("May", &[]),
    ("June", &["jun"]),
    ("July", &["jul"]),
    ("August", &["aug"]),
    ("September", &["sep", "sept"]),
    ("October", &["oct"]),
    ("November", &["nov"]),
    ("December", &["dec"]),
];

const WEEKDAYS: [(&str, &[&str]); 7] = [
    ("Monday", &["mon"]),
    ("Tuesday", &["tue", "tues"]),
    ("Wednesday", &["wed"]),
    ("Thursday", &["thu", "thur", "thurs"]),
    ("Friday", &["fri"]),
    ("Saturday", &["sat"]),
    ("Sunday", &["sun"]),
];

fn named(table: &[(&'static str, &[&str])], core: &str) -> Option<(&'static str, bool)> {
    // "may" and "march" are verbs: a name has a capital.
    if !core.starts_with(|c: char| c.is_ascii_uppercase()) {
        return None;
    }
    let lower = core.to_ascii_lowercase();
    table.iter().find_map(|(name, short)| {
        let whole = name.eq_ignore_ascii_case(core);
        (whole || short.contains(&lower.as_str())).then_some((*name, !whole))
    })
}

/// A month's name, and whether it was abbreviated.
pub fn month(core: &str) -> Option<(&'static str, bool)> {
    named(&MONTHS, core)
}

/// A weekday's name, and whether it was abbreviated.
pub fn weekday(core: &str) -> Option<(&'static str, bool)> {
    named(&WEEKDAYS, core)
}

/// Day of a month: `5`, `5th`.
pub fn day(core: &str) -> Option<u64> {
    let digits = core.bytes().take_while(u8::is_ascii_digit).count();
    let (number, suffix) = core.split_at(digits);
    let ordinal = suffix.is_empty() || matches!(suffix, "st" | "nd" | "rd" | "th");
    if !(1..=2).contains(&digits) || !ordinal {
        return None;
    }
    number.parse::<u64>().ok().filter(|day| (1..=31).contains(day))
}

/// A year from 1900 to 2099.
pub fn year(core: &str) -> Option<u64> {
    if core.len() != 4 || !core.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    core.parse::<u64>()
        .ok()
        .filter(|year| (1900..=2099).contains(year))
}

/// `2026-03-05`, `3/5/2026` (month first, unless it cannot be), `3/5/26`. With `short`, also `3/5`.
pub fn numeric_date(core: &str, short: bool) -> Option<String> {
    let number = |text: &str| {
        let good = (1..=4).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        if good { text.parse::<u64>().ok() } else { None }
    };
    let slashes: Vec<&str> = core.split('/').collect();
    let dashes: Vec<&str> = core.split('-').collect();
    let (year, month, day) = match (slashes.as_slice(), dashes.as_slice()) {
        (_, [y, m, d]) if y.len() == 4 && m.len() == 2 && d.len() == 2 => {
            (Some(number(y)?), number(m)?, number(d)?)
        }
        ([first, second], _) if short => month_and_day(None, number(first)?, number(second)?),
        ([first, second, y], _) if y.len() == 4 || y.len() == 2 => {
            let year = number(y)?;
            month_and_day(
                Some(if y.len() == 2 { 2000 + year } else { year }),
                number(first)?,
                number(second)?,
            )
        }
        _ => return None,
    };
    let (name, _) = usize::try_from(month)
        .ok()?
        .checked_sub(1)
        .and_then(|index| MONTHS.get(index))?;
    if !(1..=31).contains(&day) || year.is_some_and(|year| !(1900..=2099).contains(&year)) {
        return None;
    }
    let date = format!("{name} {}", numbers::ordinal(day));
    Some(match year {
        Some(year) => format!("{date}, {}", numbers::year(year)),
        None => date,
    })
}

fn month_and_day(year: Option<u64>, first: u64, second: u64) -> (Option<u64>, u64, u64) {
    if first > 12 {
        (year, second, first)
    } else {
        (year, first, second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_times() {
        for (core, next, want) in [
            ("3:30", None, Some("three thirty")),
            ("3:30", Some("p.m"), Some("three thirty PM")),
            ("3:30pm", None, Some("three thirty PM")),
            ("9am", None, Some("nine AM")),
            ("9", Some("AM"), Some("nine AM")),
            ("9", None, None),
            ("9:00", None, Some("nine o'clock")),
            ("9:05", None, Some("nine oh five")),
            ("17:00", None, Some("seventeen hundred")),
            ("12:00", Some("pm"), Some("noon")),
            ("12am", None, Some("midnight")),
            ("7.30pm", None, Some("seven thirty PM")),
            ("25:00", None, None),
            ("9:75", None, None),
            ("13pm", None, None),
            ("3.5", None, None),
            ("9:3", None, None),
            ("10mm", None, None),
        ] {
            let got = Time::read(core, next).map(|(time, _)| time.words());
            assert_eq!(got.as_deref(), want, "{core} {next:?}");
        }
    }

    #[test]
    fn reads_dates() {
        for (core, short, want) in [
            ("2026-03-05", false, Some("March fifth, twenty twenty-six")),
            ("3/5/2026", false, Some("March fifth, twenty twenty-six")),
            (
                "25/12/2026",
                false,
                Some("December twenty-fifth, twenty twenty-six"),
            ),
            ("3/5/26", false, Some("March fifth, twenty twenty-six")),
            ("3/5", true, Some("March fifth")),
            ("3/5", false, None),
            ("13/32", true, None),
            ("24/7", true, Some("July twenty-fourth")),
            ("a/b/c", true, None),
            ("0/0/2026", true, None),
        ] {
            assert_eq!(numeric_date(core, short).as_deref(), want, "{core}");
        }
        assert_eq!(month("Sept"), Some(("September", true)));
        assert_eq!(month("may"), None);
        assert_eq!(weekday("Thurs"), Some(("Thursday", true)));
        assert_eq!((day("5th"), day("32"), day("5x")), (Some(5), None, None));
    }
}
