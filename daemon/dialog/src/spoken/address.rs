//! E-mail and web addresses as one would dictate them.

use super::numbers;

const TLDS: &[&str] = &[
    "com", "org", "net", "edu", "gov", "info", "biz", "io", "co", "uk", "de", "eu", "us", "ca", "au", "app",
    "dev", "shop", "online", "me", "fr", "nl", "ie", "nz", "at", "ch",
];

/// `info@hill-motors.com` → "info at hill dash motors dot com". `None` if it is no address.
pub fn email(core: &str) -> Option<String> {
    let core = core.strip_prefix("mailto:").unwrap_or(core);
    let (local, domain) = core.split_once('@')?;
    let fine =
        |part: &str| !part.is_empty() && part.chars().all(|c| c.is_alphanumeric() || "._-+%".contains(c));
    if !fine(local)
        || !fine(domain)
        || !domain.contains('.')
        || domain.starts_with('.')
        || domain.ends_with('.')
    {
        return None;
    }
    Some(format!(
        "{} at {}",
        segments(local, false),
        segments(domain, true)
    ))
}

/// `https://www.hill.com/hours` → "hill dot com slash hours". `None` if it is no address.
pub fn url(core: &str) -> Option<String> {
    let scheme = ["https://", "http://"]
        .iter()
        .find_map(|scheme| core.strip_prefix(scheme));
    let bare = scheme.unwrap_or(core);
    let www = bare.strip_prefix("www.");
    let bare = www.unwrap_or(bare).trim_end_matches('/');
    let (host, path) = match bare.split_once('/') {
        Some((host, path)) => (host, Some(path)),
        None => (bare, None),
    };
    let marked = scheme.is_some() || www.is_some();
    let (name, tld) = host.rsplit_once('.')?;
    let labels = name
        .split('.')
        .all(|label| !label.is_empty() && label.chars().all(|c| c.is_alphanumeric() || c == '-'));
    let known = TLDS.contains(&tld.to_ascii_lowercase().as_str()) && name.chars().any(char::is_alphabetic);
    if !labels || !(known || (marked && !tld.is_empty() && tld.chars().all(char::is_alphanumeric))) {
        return None;
    }
    let mut words = segments(host, true);
    // A query is nothing to dictate.
    let path = path.map(|path| path.split(['?', '#']).next().unwrap_or(path));
    for part in path
        .iter()
        .flat_map(|path| path.split('/'))
        .filter(|part| !part.is_empty())
    {
        words.push_str(" slash ");
        words.push_str(&segments(part, false));
    }
    Some(words)
}

/// Names, digits and the signs between them.
fn segments(text: &str, domain: bool) -> String {
    let mut words: Vec<String> = Vec::new();
    let mut run = String::new();
    let last_label = text.rfind('.').map_or(0, |at| at + 1);
    for (at, c) in text.char_indices() {
        let sign = match c {
            '.' => "dot",
            '-' => "dash",
            '_' => "underscore",
            '+' => "plus",
            '%' => "percent",
            '@' => "at",
            _ if c.is_alphanumeric() => {
                // Letters and digits are separate runs.
                if run.ends_with(|l: char| l.is_ascii_digit() != c.is_ascii_digit()) {
                    words.push(name(&run, false));
                    run.clear();
                }
                run.push(c);
                continue;
            }
            _ => "",
        };
        if !run.is_empty() {
            words.push(name(&run, domain && at > last_label));
            run.clear();
        }
        if !sign.is_empty() {
            words.push(sign.to_owned());
        }
    }
    if !run.is_empty() {
        words.push(name(&run, domain));
    }
    words.join(" ")
}

/// One run: digits one by one, what cannot be pronounced letter by letter.
fn name(run: &str, tld: bool) -> String {
    if run.bytes().all(|b| b.is_ascii_digit()) {
        return numbers::digits(run);
    }
    let lower = run.to_lowercase();
    let vowels = lower.chars().any(|c| "aeiouy".contains(c)) || !lower.is_ascii();
    let short = lower.chars().count() <= 2;
    let word = matches!(
        lower.as_str(),
        "co" | "me"
            | "my"
            | "go"
            | "we"
            | "us"
            | "it"
            | "hi"
            | "so"
            | "do"
            | "no"
            | "to"
            | "ed"
            | "al"
            | "jo"
            | "bo"
    );
    let spelled_tld = tld
        && matches!(
            lower.as_str(),
            "io" | "uk" | "eu" | "us" | "ca" | "au" | "tv" | "ai"
        );
    if spelled_tld || (!word && (short || (!vowels && lower.chars().count() <= 5))) {
        super::letters(&lower)
    } else {
        lower
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dictates_addresses() {
        for (text, want) in [
            ("info@hill-motors.com", Some("info at hill dash motors dot com")),
            (
                "John.Smith42@gmail.com",
                Some("john dot smith four two at gmail dot com"),
            ),
            ("jd@x.co.uk", Some("J-D at X dot co dot U-K")),
            ("@", None),
            ("a@b", None),
            ("a@b.", None),
        ] {
            assert_eq!(email(text).as_deref(), want, "{text}");
        }
        for (text, want) in [
            ("https://www.hill.com/", Some("hill dot com")),
            (
                "hill.com/opening-hours?x=1",
                Some("hill dot com slash opening dash hours"),
            ),
            ("www.example.museum", Some("example dot museum")),
            ("Hello.World", None),
            ("3.5", None),
            ("a.m", None),
            ("1.de", None),
        ] {
            assert_eq!(url(text).as_deref(), want, "{text}");
        }
    }
}
