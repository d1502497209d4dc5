//! Numbers as English words.

use crate::number_words::{TENS, UNITS};

const SCALES: [(u64, &str); 6] = [
    (1_000_000_000_000_000_000, "quintillion"),
    (1_000_000_000_000_000, "quadrillion"),
    (1_000_000_000_000, "trillion"),
    (1_000_000_000, "billion"),
    (1_000_000, "million"),
    (1_000, "thousand"),
];

fn one(n: u64) -> &'static str {
    usize::try_from(n)
        .ok()
        .and_then(|n| UNITS.get(n))
        .copied()
        .unwrap_or("")
}

/// 0…99.
fn below_hundred(n: u64) -> String {
    if n < 20 {
        return one(n).to_owned();
    }
    let tens = usize::try_from(n / 10 - 2)
        .ok()
        .and_then(|t| TENS.get(t))
        .copied()
        .unwrap_or("");
    if n.is_multiple_of(10) {
        tens.to_owned()
    } else {
        format!("{tens}-{}", one(n % 10))
    }
}

/// `1234` → "one thousand two hundred thirty-four".
pub fn cardinal(n: u64) -> String {
    if n < 100 {
        return below_hundred(n);
    }
    let mut parts = Vec::new();
    let mut rest = n;
    for (scale, name) in SCALES {
        if rest >= scale {
            parts.push(format!("{} {name}", cardinal(rest / scale)));
            rest %= scale;
        }
    }
    if rest >= 100 {
        parts.push(format!("{} hundred", one(rest / 100)));
        rest %= 100;
    }
    if rest > 0 {
        parts.push(below_hundred(rest));
    }
    parts.join(" ")
}

/// `21` → "twenty-first".
pub fn ordinal(n: u64) -> String {
    let words = cardinal(n);
    let at = words.rfind([' ', '-']).map_or(0, |at| at + 1);
    let (head, last) = words.split_at(at);
    let last = match last {
        "one" => "first".to_owned(),
        "two" => "second".to_owned(),
        "three" => "third".to_owned(),
        "five" => "fifth".to_owned(),
        "eight" => "eighth".to_owned(),
        "nine" => "ninth".to_owned(),
        "twelve" => "twelfth".to_owned(),
        _ => match last.strip_suffix('y') {
            Some(stem) => format!("{stem}ieth"),
            None => format!("{last}th"),
        },
    };
    format!("{head}{last}")
}

/// `1998` → "nineteen ninety-eight", `2005` → "two thousand five", `2026` → "twenty twenty-six".
pub fn year(n: u64) -> String {
    let (century, rest) = (n / 100, n % 100);
    match (century, rest) {
        (11..=99, 0) if century.is_multiple_of(10) => cardinal(n),
        (11..=99, 0) => format!("{} hundred", cardinal(century)),
        (20, 1..=9) => cardinal(n),
        (11..=99, 1..=9) => format!("{} oh {}", cardinal(century), one(rest)),
        (11..=99, _) => format!("{} {}", cardinal(century), below_hundred(rest)),
        _ => cardinal(n),
    }
}

/// `1234` → "twelve thirty-four", `204` → "two oh four": house and room numbers.
pub fn house(n: u64) -> String {
    match n {
        0..=99 => cardinal(n),
        100..=999 if n.is_multiple_of(100) => cardinal(n),
        100..=999 if n % 100 < 10 => format!("{} oh {}", one(n / 100), one(n % 100)),
        100..=999 => format!("{} {}", one(n / 100), below_hundred(n % 100)),
        1_000..=9_999 if n.is_multiple_of(1_000) => cardinal(n),
        1_000..=9_999 if n.is_multiple_of(100) => format!("{} hundred", cardinal(n / 100)),
        1_000..=9_999 if n % 100 < 10 => format!("{} oh {}", cardinal(n / 100), one(n % 100)),
        1_000..=9_999 => format!("{} {}", cardinal(n / 100), below_hundred(n % 100)),
        _ => digits(&n.to_string()),
    }
}

/// `407` → "four zero seven"; what is no digit is left out.
pub fn digits(text: &str) -> String {
    text.chars()
        .filter_map(|c| c.to_digit(10))
        .map(|d| one(u64::from(d)))
        .collect::<Vec<_>>()
        .join(" ")
}

/// A number as written: `1,234`, `3.50`, `007`, `.5`. `None` if it is none.
pub fn written(text: &str) -> Option<String> {
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (text, None),
    };
    let plain = ungrouped(whole)?;
    if fraction.is_some_and(|f| f.is_empty() || !f.bytes().all(|b| b.is_ascii_digit())) {
        return None;
    }
    if plain.is_empty() && fraction.is_none() {
        return None;
    }
    let whole = whole_number(if plain.is_empty() { "0" } else { &plain });
    Some(match fraction {
        None => whole,
        Some(fraction) => format!("{whole} point {}", digits(fraction)),
    })
}

/// Digits as a cardinal; with leading zeros, or too many of them, one by one.
fn whole_number(plain: &str) -> String {
    let leading_zero = plain.len() > 1 && plain.starts_with('0');
    match plain.parse::<u64>() {
        Ok(n) if !leading_zero && plain.len() <= 15 => cardinal(n),
        Ok(_) | Err(_) => digits(plain),
    }
}

/// `1,234,567` → `1234567`; `None` when it is no number or wrongly grouped.
pub fn ungrouped(text: &str) -> Option<String> {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return Some(text.to_owned());
    }
    let mut groups = text.split(',');
    let first = groups.next()?;
    let digits = |group: &str| group.bytes().all(|b| b.is_ascii_digit());
    let good = (1..=3).contains(&first.len()) && digits(first);
    (good && groups.all(|group| group.len() == 3 && digits(group))).then(|| text.replace(',', ""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speaks_numbers() {
        for (n, want) in [
            (0, "zero"),
            (7, "seven"),
            (13, "thirteen"),
            (20, "twenty"),
            (21, "twenty-one"),
            (100, "one hundred"),
            (342, "three hundred forty-two"),
            (1_000, "one thousand"),
            (1_005, "one thousand five"),
            (12_345, "twelve thousand three hundred forty-five"),
            (2_000_000, "two million"),
            (
                u64::MAX,
                "eighteen quintillion four hundred forty-six quadrillion seven hundred forty-four trillion seventy-three \
              billion seven hundred nine million five hundred fifty-one thousand six hundred fifteen",
            ),
        ] {
            assert_eq!(cardinal(n), want);
        }
        for (n, want) in [
            (1, "first"),
            (2, "second"),
            (3, "third"),
            (4, "fourth"),
            (5, "fifth"),
            (8, "eighth"),
            (9, "ninth"),
            (12, "twelfth"),
            (20, "twentieth"),
            (21, "twenty-first"),
            (30, "thirtieth"),
            (100, "one hundredth"),
            (101, "one hundred first"),
        ] {
            assert_eq!(ordinal(n), want);
        }
        for (n, want) in [
            (1998, "nineteen ninety-eight"),
            (1900, "nineteen hundred"),
            (1905, "nineteen oh five"),
            (2000, "two thousand"),
            (2005, "two thousand five"),
            (2010, "twenty ten"),
            (2026, "twenty twenty-six"),
        ] {
            assert_eq!(year(n), want);
        }
        for (n, want) in [
            (12, "twelve"),
            (100, "one hundred"),
            (204, "two oh four"),
            (342, "three forty-two"),
            (1234, "twelve thirty-four"),
            (1200, "twelve hundred"),
            (4005, "forty oh five"),
            (12345, "one two three four five"),
        ] {
            assert_eq!(house(n), want);
        }
    }

    #[test]
    fn reads_written_numbers() {
        for (text, want) in [
            ("1,234", Some("one thousand two hundred thirty-four")),
            ("3.5", Some("three point five")),
            ("0.05", Some("zero point zero five")),
            (".5", Some("zero point five")),
            ("007", Some("zero zero seven")),
            ("1,23", None),
            (
                "12,345,678",
                Some("twelve million three hundred forty-five thousand six hundred seventy-eight"),
            ),
            ("1.2.3", None),
            ("", None),
            ("5.", None),
            ("x", None),
        ] {
            assert_eq!(written(text).as_deref(), want, "{text}");
        }
    }
}
