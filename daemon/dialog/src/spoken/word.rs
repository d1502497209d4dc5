//! Single words: signs dropped, digits within words read.

use super::{letters, numbers};

/// A number that is a name: short ones as numbers, long ones digit by digit.
pub fn name_number(digits: &str) -> String {
    match digits.parse::<u64>() {
        Ok(n) if digits.len() <= 2 && !digits.starts_with('0') => numbers::cardinal(n),
        Ok(_) | Err(_) => numbers::digits(digits),
    }
}

/// `21st`, `1990s`, `80s`, `'90s`.
pub fn ordinal_or_decade(core: &str) -> Option<String> {
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

/// A word without signs; digits within it are read apart: `F150` → "F-one five zero", `5-minute` → "five
/// minute".
pub fn plain(core: &str) -> String {
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
