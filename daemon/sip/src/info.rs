//! Keys by SIP INFO: digits, and the hook flash of an analog telephone behind an adapter. Source: RFC 6086 (INFO); the
//! bodies are what adapters and PBXs write, in no RFC.

use rsipstack::sip::{Header, Request};

/// What was pressed. Never log it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Key {
    Digit(char),
    /// The hook was pressed for a moment.
    Flash,
}

/// The key in an INFO; `Ok(None)`: an INFO without one.
///
/// # Errors
/// A body we do not know: answer 415.
pub(crate) fn read(request: &Request) -> Result<Option<Key>, ()> {
    let content_type = request.headers.iter().find_map(|h| match h {
        Header::ContentType(t) => Some(t.value().to_ascii_lowercase()),
        _ => None,
    });
    let content_type = content_type.as_deref().unwrap_or_default();
    let content_type = content_type.split(';').next().unwrap_or_default().trim();
    let body = String::from_utf8_lossy(&request.body);
    match content_type {
        // Some adapters send it without a body.
        "application/hook-flash" | "application/x-hook-flash" => Ok(Some(Key::Flash)),
        "application/broadsoft" => Ok(body
            .to_ascii_lowercase()
            .contains("flashhook")
            .then_some(Key::Flash)),
        _ if body.trim().is_empty() => Ok(None),
        "application/dtmf-relay" => {
            let signal = body.lines().find_map(|line| {
                let (name, value) = line.split_once('=')?;
                name.trim()
                    .eq_ignore_ascii_case("signal")
                    .then(|| value.trim().to_string())
            });
            Ok(signal.and_then(|s| parse_signal(&s)))
        }
        "application/dtmf" => Ok(parse_signal(body.trim())),
        _ => Err(()),
    }
}

/// `5`, `*`, `a`; 10 to 15 are what some gateways write for `*`, `#` and the letters, 16 for a flash (RFC 4733 §3.2).
fn parse_signal(signal: &str) -> Option<Key> {
    let digit = match signal.to_ascii_lowercase().as_str() {
        "10" => '*',
        "11" => '#',
        "12" => 'A',
        "13" => 'B',
        "14" => 'C',
        "15" => 'D',
        "16" | "hf" | "flash" | "hookflash" | "!" => return Some(Key::Flash),
        _ => {
            let mut chars = signal.chars();
            let digit = chars.next()?.to_ascii_uppercase();
            if chars.next().is_some() || !matches!(digit, '0'..='9' | '*' | '#' | 'A'..='D') {
                return None;
            }
            digit
        }
    };
    Some(Key::Digit(digit))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rsipstack::sip::SipMessage;

    #[test]
    fn signals_become_keys() {
        let cases = [
            ("5", Some(Key::Digit('5'))),
            ("*", Some(Key::Digit('*'))),
            ("11", Some(Key::Digit('#'))),
            ("d", Some(Key::Digit('D'))),
            ("16", Some(Key::Flash)),
            ("hf", Some(Key::Flash)),
            ("17", None),
            ("", None),
            ("55", None),
        ];
        for (signal, want) in cases {
            assert_eq!(parse_signal(signal), want, "{signal}");
        }
    }

    #[test]
    fn bodies_of_several_makers_are_read() {
        let cases = [
            (
                "application/dtmf-relay",
                "Signal=5\r\nDuration=100\r\n",
                Ok(Some(Key::Digit('5'))),
            ),
            ("application/dtmf-relay", "signal= 16", Ok(Some(Key::Flash))),
            ("application/dtmf", "#", Ok(Some(Key::Digit('#')))),
            ("application/hook-flash", "", Ok(Some(Key::Flash))),
            ("application/hook-flash", "signal=hf", Ok(Some(Key::Flash))),
            (
                "application/broadsoft; version=1.0",
                "event flashhook",
                Ok(Some(Key::Flash)),
            ),
            ("text/plain", "5", Err(())),
            ("text/plain", "", Ok(None)),
            ("", "", Ok(None)),
        ];
        for (content_type, body, want) in cases {
            let text = format!(
                "INFO sip:a@h SIP/2.0\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let SipMessage::Request(request) = SipMessage::try_from(text.as_bytes()).unwrap() else {
                panic!("a request");
            };
            assert_eq!(read(&request), want, "{content_type} {body}");
        }
    }
}
