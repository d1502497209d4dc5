//! The top Via of requests over UDP and IPv6, which the library cannot handle.
//!
//! It writes `received` with brackets that it cannot read back, so it takes the host in the Via for the way back: a name is
//! looked up, and at a retransmission this holds up its only reader, all of SIP, until DNS gives up. So the Via shows the
//! library where the datagram came from, and what it said stands in a parameter until the answer leaves.
//! Source: RFC 3261 §18.2 (received), RFC 3581 (rport), RFC 5118 §4.5 (no brackets).

use std::net::SocketAddr;

/// Carries the original sent-by.
const SENT_BY: &str = ";x-sent-by=";

/// Puts `source` into the top Via of a checked request; anything else is left as it is.
pub(crate) fn show_source(message: Vec<u8>, source: SocketAddr) -> Vec<u8> {
    shown(&message, source).unwrap_or(message)
}

fn shown(message: &[u8], source: SocketAddr) -> Option<Vec<u8>> {
    let end = message.windows(4).position(|w| w == b"\r\n\r\n")?;
    // The body may be anything.
    let (head, body) = message.split_at_checked(end)?;
    let head = std::str::from_utf8(head).ok()?;
    if head.starts_with("SIP/") {
        return None;
    }
    let mut at = head.find("\r\n")? + 2;
    loop {
        let line = head.get(at..)?.split("\r\n").next()?;
        let (name, value) = line.split_once(": ")?;
        if name.eq_ignore_ascii_case("via") || name.eq_ignore_ascii_case("v") {
            let (protocol, rest) = value.split_once(' ')?;
            let (sent_by, parameters) = rest.split_at(rest.find([';', ',']).unwrap_or(rest.len()));
            // Parameters of the first hop only; others follow after a comma.
            let (own, others) = parameters.split_at(parameters.find(',').unwrap_or(parameters.len()));
            let (before, after) = (head.get(..at)?, head.get(at + line.len()..)?);
            let shown = format!("{before}{name}: {protocol} {source}{own}{SENT_BY}{sent_by}{others}{after}");
            return Some([shown.as_bytes(), body].concat());
        }
        at += line.len() + 2;
    }
}

/// The top Via of an answer as it is to leave: the host that the request named, and `received` without brackets.
pub(crate) fn restore(via: &str) -> String {
    let (first, others) = via.split_at(via.find(',').unwrap_or(via.len()));
    let Some((before, rest)) = first.split_once(SENT_BY) else {
        return bare_received(via);
    };
    let (sent_by, after) = rest.split_at(rest.find(';').unwrap_or(rest.len()));
    let restored = before.split_once(' ').and_then(|(protocol, rest)| {
        let (source, parameters) = rest.split_at(rest.find(';').unwrap_or(rest.len()));
        let ip = source.parse::<SocketAddr>().ok()?.ip();
        let own: String = parameters
            .split(';')
            .filter(|p| !p.is_empty() && !p.starts_with("received="))
            .map(|p| format!(";{p}"))
            .collect();
        Some(format!("{protocol} {sent_by}{own}{after};received={ip}{others}"))
    });
    restored.unwrap_or_else(|| via.to_string())
}

fn bare_received(via: &str) -> String {
    let Some((before, rest)) = via.split_once("received=[") else {
        return via.to_string();
    };
    let (address, after) = rest.split_at(rest.find([';', ',']).unwrap_or(rest.len()));
    format!("{before}received={}{after}", address.trim_matches(['[', ']']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_is_taken_back() {
        let source: SocketAddr = "[2001:db8::9]:5070".parse().unwrap();
        for (via, want) in [
            (
                "SIP/2.0/UDP c.example;branch=z9;rport",
                "SIP/2.0/UDP c.example;branch=z9;rport;received=2001:db8::9",
            ),
            (
                "SIP/2.0/UDP [2001:db8::1]:5060;branch=z9,SIP/2.0/TCP b;branch=x",
                "SIP/2.0/UDP [2001:db8::1]:5060;branch=z9;received=2001:db8::9,SIP/2.0/TCP b;branch=x",
            ),
            (
                "SIP/2.0/UDP c.example;received=[::1];branch=z9",
                "SIP/2.0/UDP c.example;branch=z9;received=2001:db8::9",
            ),
        ] {
            let mut text =
                format!("BYE sip:a@b SIP/2.0\r\nTo: x\r\nVia: {via}\r\nVia: other\r\n\r\nVia: body")
                    .into_bytes();
            text.push(0xff);
            let mut shown = show_source(text, source);
            assert_eq!(shown.pop(), Some(0xff));
            let shown = String::from_utf8(shown).unwrap();
            assert!(
                shown.starts_with("BYE sip:a@b SIP/2.0\r\nTo: x\r\nVia: SIP/2.0/UDP [2001:db8::9]:5070;"),
                "{shown}"
            );
            assert!(shown.ends_with("\r\nVia: other\r\n\r\nVia: body"), "{shown}");
            let line = shown.lines().nth(2).unwrap().strip_prefix("Via: ").unwrap();
            assert_eq!(restore(line), want);
        }
    }

    #[test]
    fn other_messages_stay_as_they_are() {
        let source: SocketAddr = "[::1]:5060".parse().unwrap();
        for text in [
            "SIP/2.0 200 OK\r\nVia: SIP/2.0/UDP a\r\n\r\n",
            "nonsense",
            "BYE x SIP/2.0\r\nTo: a\r\n\r\n",
        ] {
            assert_eq!(show_source(text.as_bytes().to_vec(), source), text.as_bytes());
        }
        for (via, want) in [
            (
                "SIP/2.0/TCP a;received=[[::1]];rport=5",
                "SIP/2.0/TCP a;received=::1;rport=5",
            ),
            (
                "SIP/2.0/UDP a;received=192.0.2.1",
                "SIP/2.0/UDP a;received=192.0.2.1",
            ),
            (
                "SIP/2.0/UDP [::1]:5060;branch=z",
                "SIP/2.0/UDP [::1]:5060;branch=z",
            ),
        ] {
            assert_eq!(restore(via), want);
        }
    }
}
