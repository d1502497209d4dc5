//! Markup: removes what is seen but not said, and brings signs to their plain forms.

/// Plain text on one line: no Markdown, no HTML, no emoji, straight quotes, dashes in two kinds only: `-`
/// within words and ranges, ` – ` for a pause.
pub fn strip(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for line in text.lines() {
        let line = line_content(line);
        if line.is_empty() {
            continue;
        }
        if !plain.is_empty() {
            // A line of a list is a sentence of its own.
            if !plain.ends_with(['.', '!', '?', ',', ';', ':']) {
                plain.push('.');
            }
            plain.push(' ');
        }
        plain.push_str(line);
    }
    signs(&links(&plain))
}

/// A line without its heading, quote, bullet or number mark, table bars and rules.
fn line_content(line: &str) -> &str {
    let mut line = line.trim();
    loop {
        let before = line;
        line = line.trim_start_matches(['#', '>', '|']).trim_start();
        for bullet in ["- ", "* ", "• ", "+ ", "– ", "· "] {
            line = line.strip_prefix(bullet).unwrap_or(line).trim_start();
        }
        // "1. First" and "2) Second", but not "9." alone.
        let number = line.bytes().take_while(u8::is_ascii_digit).count();
        if (1..=2).contains(&number)
            && let Some(rest) = line[number..].strip_prefix(['.', ')'])
            && rest.starts_with(' ')
            && rest.trim_start().starts_with(|c: char| !c.is_ascii_digit())
        {
            line = rest.trim_start();
        }
        if line == before {
            break;
        }
    }
    if line
        .chars()
        .all(|c| matches!(c, '-' | '=' | '_' | '*' | '|' | ':' | ' ' | '~' | '`'))
    {
        ""
    } else {
        line
    }
}

/// `[text](address)` → `text`; `<br>` and other tags go.
fn links(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(['[', '<']) {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        if let Some((label, after)) = link(rest) {
            out.push_str(label);
            rest = after;
        } else if let Some(after) = tag(rest) {
            out.push(' ');
            rest = after;
        } else {
            let sign = rest.chars().next().map_or(0, char::len_utf8);
            out.push_str(&rest[..sign]);
            rest = &rest[sign..];
        }
    }
    out.push_str(rest);
    out
}

fn link(text: &str) -> Option<(&str, &str)> {
    let (label, rest) = text.strip_prefix('[')?.split_once(']')?;
    let (_, after) = rest.strip_prefix('(')?.split_once(')')?;
    Some((label, after))
}

fn tag(text: &str) -> Option<&str> {
    let (name, after) = text.strip_prefix('<')?.split_once('>')?;
    let inner = name.trim_start_matches('/');
    (name.len() <= 40 && inner.starts_with(|c: char| c.is_ascii_alphabetic()) && !name.contains('@'))
        .then_some(after)
}

fn signs(text: &str) -> String {
    let chars: Vec<char> = text.chars().collect();
    let mut out = String::with_capacity(text.len());
    for (at, &c) in chars.iter().enumerate() {
        let before = at
            .checked_sub(1)
            .and_then(|i| chars.get(i))
            .copied()
            .unwrap_or(' ');
        let after = chars.get(at + 1).copied().unwrap_or(' ');
        match c {
            '’' | '‘' | '‛' | '´' => out.push('\''),
            '“' | '”' | '„' | '«' | '»' => out.push('"'),
            '…' => out.push_str("..."),
            '—' | '―' => out.push_str(" – "),
            '–' | '‒' | '−' | '‑' | '‐' => {
                let tight = before.is_alphanumeric() && (after.is_alphanumeric() || "$€£".contains(after));
                let minus = c == '−' && after.is_ascii_digit();
                out.push_str(if tight || minus { "-" } else { " – " });
            }
            '½' => out.push_str(" 1/2"),
            '¼' => out.push_str(" 1/4"),
            '¾' => out.push_str(" 3/4"),
            '⅓' => out.push_str(" 1/3"),
            '⅔' => out.push_str(" 2/3"),
            '²' if before.is_alphabetic() => out.push('2'),
            '×' => out.push_str(if before.is_ascii_digit() && after.is_ascii_digit() {
                "x"
            } else {
                " times "
            }),
            '÷' => out.push_str(" divided by "),
            '≈' => out.push('~'),
            '≤' => out.push_str(" at most "),
            '≥' => out.push_str(" at least "),
            '→' | '⇒' => out.push_str(" to "),
            '™' | '®' | '©' => {}
            '_' if before.is_alphanumeric() && after.is_alphanumeric() => out.push('_'),
            '*' | '_' | '`' | '|' | '\\' | '^' | '{' | '}' => {
                out.push_str(if before.is_alphanumeric() && after.is_alphanumeric() {
                    " "
                } else {
                    ""
                })
            }
            _ if c.is_whitespace() => out.push(' '),
            _ if speakable(c) => out.push(c),
            _ => {}
        }
    }
    out
}

/// Letters, ASCII digits and the marks that the reader knows; emoji, arrows, controls and other digits are
/// not.
fn speakable(c: char) -> bool {
    (c.is_alphabetic() && !matches!(c, 'ª' | 'º'))
        || c.is_ascii_digit()
        || (c.is_ascii_graphic() && !c.is_ascii_alphanumeric())
        || matches!(c, '€' | '£' | '¥' | '¢' | '°' | '\u{300}'..='\u{36f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn removes_what_is_only_seen() {
        for (text, want) in [
            ("**Bold** and *thin* and `code`", "Bold and thin and code"),
            ("# Hours\n- Monday\n- Tuesday", "Hours. Monday. Tuesday"),
            ("1. First\n2. Second", "First. Second"),
            ("See [our page](https://x.com/a).", "See our page."),
            ("Hello 😀 there 👍🏽!", "Hello  there !"),
            ("a<br>b", "a b"),
            ("“It’s”", "\"It's\""),
            ("9–5 and so — well", "9-5 and so  –  well"),
            ("---", ""),
            ("| a | b |", "a  b "),
            ("2½ hours", "2 1/2 hours"),
            ("a_b@c.com", "a_b@c.com"),
        ] {
            assert_eq!(strip(text), want, "{text}");
        }
    }
}
