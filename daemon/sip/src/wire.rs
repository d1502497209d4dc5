//! Raw SIP messages, before the library sees them: checked, repaired where the field demands it, or answered.
//!
//! The library drops what it cannot read without a word. Here a request that is wrong gets the answer it deserves, header
//! bytes in Latin-1 become UTF-8, and a datagram without Content-Length gets one. Source: RFC 3261 §7, §8.2, §18.3.

use std::fmt::Write as _;

use rsipstack::sip::{HeadersExt as _, SipMessage, ToTypedHeader as _, typed};

use crate::grammar;

/// Methods we accept, as written into Allow.
pub(crate) const ALLOW: &str = "INVITE, ACK, CANCEL, BYE, OPTIONS, INFO, UPDATE, PRACK, NOTIFY";
/// Extensions we have, as written into Supported.
pub(crate) const SUPPORTED: &str = "timer, 100rel, replaces";
/// What the library's parser knows; anything else is answered 501 here.
const KNOWN_METHODS: &[&str] = &[
    "ACK",
    "BYE",
    "CANCEL",
    "INFO",
    "INVITE",
    "MESSAGE",
    "NOTIFY",
    "OPTIONS",
    "PRACK",
    "PUBLISH",
    "REFER",
    "REGISTER",
    "SUBSCRIBE",
    "UPDATE",
];
/// The library cuts datagrams at this size \[bytes\].
pub(crate) const MAX_MESSAGE: usize = 8192;
/// More header lines than this are refused.
const MAX_HEADERS: usize = 256;

/// How the end of a message is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Framing {
    /// One datagram, one message: the body ends with it.
    Datagram,
    /// Content-Length rules.
    Stream,
}

/// A message fit for the library.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Checked {
    pub bytes: Vec<u8>,
    /// `None` for a response.
    pub request: Option<Request>,
}

/// What the gate needs to know of a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub method: String,
    /// A To tag: the request claims to belong to a dialog.
    pub in_dialog: bool,
    pub head: Head,
}

/// A message unfit for the library.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Rejected {
    /// A request that gets an answer.
    Answer {
        status: u16,
        phrase: &'static str,
        head: Head,
    },
    /// Not worth, or not capable of, an answer.
    Drop(&'static str),
}

/// Start line and unfolded headers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Head {
    start: String,
    headers: Vec<(String, String)>,
}

impl Head {
    fn values(&self, name: &'static str) -> impl Iterator<Item = &str> {
        let is = move |n: &str| n.eq_ignore_ascii_case(name) || compact(n).is_some_and(|full| full == name);
        self.headers
            .iter()
            .filter(move |(n, _)| is(n))
            .map(|(_, value)| value.as_str())
    }

    fn value(&self, name: &'static str) -> Option<&str> {
        self.values(name).next()
    }

    fn method(&self) -> &str {
        self.start.split(' ').next().unwrap_or_default()
    }

    /// A response without state. The same request always gets the same To tag.
    pub fn answer(&self, status: u16, phrase: &str, extra: &str) -> Option<Vec<u8>> {
        self.value("via")?;
        let mut out = format!("SIP/2.0 {status} {phrase}\r\n");
        for via in self.values("via") {
            write!(out, "Via: {via}\r\n").ok()?;
        }
        for (name, shown) in [
            ("from", "From"),
            ("to", "To"),
            ("call-id", "Call-ID"),
            ("cseq", "CSeq"),
        ] {
            let Some(value) = self.value(name) else { continue };
            let tag = if name == "to" && !has_tag(value) {
                format!(";tag={:08x}", self.tag())
            } else {
                String::new()
            };
            write!(out, "{shown}: {value}{tag}\r\n").ok()?;
        }
        write!(out, "{extra}Content-Length: 0\r\n\r\n").ok()?;
        Some(out.into_bytes())
    }

    /// The port an answer goes to when the sender did not ask for the source port (RFC 3261 §18.2.2, RFC 3581 §4).
    pub fn reply_port(&self, source_port: u16) -> u16 {
        let Some(via) = self.value("via") else {
            return source_port;
        };
        let via = via.split(',').next().unwrap_or(via);
        let mut parts = via.split(';');
        let sent_by = parts
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .last()
            .unwrap_or_default();
        if parts.any(|p| p.trim().to_ascii_lowercase().starts_with("rport")) {
            return source_port;
        }
        let after_host = sent_by.rsplit(']').next().unwrap_or(sent_by);
        after_host
            .rsplit_once(':')
            .map_or(Some(5060), |(_, port)| port.parse().ok())
            .unwrap_or(source_port)
    }

    /// FNV-1a over what identifies the transaction.
    fn tag(&self) -> u32 {
        let mut hash = 0x811c_9dc5_u32;
        for part in ["call-id", "via", "from"] {
            for byte in self.value(part).unwrap_or_default().bytes() {
                hash = (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
            }
        }
        hash
    }
}

/// Checks and repairs one message.
///
/// # Errors
/// [`Rejected`] with the answer it deserves, if any.
pub(crate) fn check(bytes: &[u8], framing: Framing) -> Result<Checked, Rejected> {
    let end = find_head_end(bytes);
    let (head_len, body_at) = end.unwrap_or((bytes.len(), bytes.len()));
    let head_bytes = bytes.get(..head_len).unwrap_or_default();
    let body = bytes.get(body_at..).unwrap_or_default();
    let head = parse_head(head_bytes)?;
    let is_response = head.start.starts_with("SIP/");
    let reject = |status, phrase| {
        if is_response || head.method().eq_ignore_ascii_case("ACK") {
            Rejected::Drop(phrase)
        } else {
            Rejected::Answer {
                status,
                phrase,
                head: head.clone(),
            }
        }
    };
    if bytes.len() > MAX_MESSAGE {
        return Err(reject(513, "Message Too Large"));
    }
    if end.is_none() {
        return Err(reject(400, "Bad Request: no blank line after the headers"));
    }
    let body = match declared_length(&head) {
        Ok(None) if framing == Framing::Datagram => body,
        Ok(None) => body.get(..0).unwrap_or_default(),
        Ok(Some(len)) => body
            .get(..len)
            .ok_or_else(|| reject(400, "Bad Request: body shorter than Content-Length"))?,
        Err(()) => return Err(reject(400, "Bad Request: Content-Length")),
    };
    if !is_response {
        check_request(&head).map_err(|(status, phrase)| reject(status, phrase))?;
    }
    if head_bytes.contains(&0) {
        return Err(reject(400, "Bad Request: NUL in a header"));
    }
    let repaired = rebuild(&head, body);
    let message = SipMessage::try_from(repaired.as_slice()).map_err(|_| reject(400, "Bad Request"))?;
    check_typed(&message).map_err(|phrase| reject(400, phrase))?;
    let request = match &message {
        SipMessage::Request(request) => Some(Request {
            method: request.method.to_string(),
            in_dialog: head.value("to").is_some_and(has_tag),
            head,
        }),
        SipMessage::Response(_) => None,
    };
    Ok(Checked {
        bytes: repaired,
        request,
    })
}

/// Length of the head without its blank line, and where the body starts.
fn find_head_end(bytes: &[u8]) -> Option<(usize, usize)> {
    let crlf = bytes
        .windows(4)
        .position(|w| w == b"\r\n\r\n")
        .map(|at| (at, at + 4));
    let lf = bytes.windows(2).position(|w| w == b"\n\n").map(|at| (at, at + 2));
    match (crlf, lf) {
        (Some(a), Some(b)) => Some(if a.0 <= b.0 { a } else { b }),
        (a, b) => a.or(b),
    }
}

fn parse_head(bytes: &[u8]) -> Result<Head, Rejected> {
    // Latin-1 maps byte for byte onto the first 256 code points.
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text.to_string(),
        Err(_) => bytes.iter().map(|b| char::from(*b)).collect(),
    };
    // Leading blank lines are allowed (RFC 3261 §7.5).
    let mut lines = text
        .split('\n')
        .map(|l| l.strip_suffix('\r').unwrap_or(l))
        .skip_while(|l| l.is_empty());
    let start = lines.next().unwrap_or_default().trim_end().to_string();
    if !start.contains("SIP/") {
        return Err(Rejected::Drop("no SIP start line"));
    }
    let mut head = Head {
        start,
        headers: Vec::new(),
    };
    for line in lines {
        if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = head.headers.last_mut() {
                value.push(' ');
                value.push_str(line.trim());
            }
            continue;
        }
        if head.headers.len() >= MAX_HEADERS {
            return Err(Rejected::Drop("too many headers"));
        }
        if let Some((name, value)) = line.split_once(':') {
            head.headers
                .push((name.trim().to_string(), value.trim().to_string()));
        }
    }
    for (name, value) in &mut head.headers {
        let full = compact(name).map_or_else(|| name.to_ascii_lowercase(), str::to_string);
        match full.as_str() {
            "via" => *value = grammar::tighten(value, true),
            "from" | "to" => *value = grammar::repair_address(value),
            "contact" => *value = grammar::tighten(value, false),
            _ => {}
        }
    }
    Ok(head)
}

fn check_request(head: &Head) -> Result<(), (u16, &'static str)> {
    let mut start = head.start.split(' ');
    let (Some(method), Some(uri), Some(version), None) =
        (start.next(), start.next(), start.next(), start.next())
    else {
        return Err((400, "Bad Request: request line"));
    };
    if !version.eq_ignore_ascii_case("SIP/2.0") {
        return Err((505, "Version Not Supported"));
    }
    for (name, phrase) in [
        ("via", "Bad Request: Via"),
        ("from", "Bad Request: From"),
        ("to", "Bad Request: To"),
        ("call-id", "Bad Request: Call-ID"),
        ("cseq", "Bad Request: CSeq"),
    ] {
        let count = head.values(name).count();
        if count == 0 || (count > 1 && name != "via") {
            return Err((400, phrase));
        }
        let sound = match name {
            "via" => head.values(name).all(grammar::is_sound_via),
            "from" | "to" => head.values(name).all(grammar::is_closed),
            _ => true,
        };
        if !sound {
            return Err((400, phrase));
        }
    }
    let cseq = head.value("cseq").unwrap_or_default();
    let mut cseq = cseq.split_whitespace();
    let number = cseq
        .next()
        .and_then(|n| n.parse::<u32>().ok())
        .filter(|n| *n <= i32::MAX as u32);
    if number.is_none() || cseq.next() != Some(method) || cseq.next().is_some() {
        return Err((400, "Bad Request: CSeq"));
    }
    // Known, but not served, is 405 and comes later (RFC 3261 §8.2.1, §21.5.2).
    if method.is_empty() || !KNOWN_METHODS.contains(&method) {
        return Err((501, "Not Implemented"));
    }
    if !grammar::is_sound_uri(uri) {
        return Err((400, "Bad Request: Request-URI"));
    }
    let scheme = uri.split(':').next().unwrap_or_default();
    if !scheme.eq_ignore_ascii_case("sip")
        && !scheme.eq_ignore_ascii_case("sips")
        && !scheme.eq_ignore_ascii_case("tel")
    {
        return Err((416, "Unsupported URI Scheme"));
    }
    if method == "INVITE" && !accepts_sdp(head) {
        return Err((406, "Not Acceptable: we speak application/sdp"));
    }
    Ok(())
}

/// Whether an answer may carry SDP; without Accept it may (RFC 3261 §20.1).
fn accepts_sdp(head: &Head) -> bool {
    let mut ranges = head
        .values("accept")
        .flat_map(|value| value.split(','))
        .peekable();
    let any = ["application/sdp", "application/*", "*/*"];
    ranges.peek().is_none()
        || ranges.any(|range| {
            let range = range.split(';').next().unwrap_or_default().trim();
            any.iter().any(|a| a.eq_ignore_ascii_case(range))
        })
}

/// What the library would otherwise trip over later, silently.
fn check_typed(message: &SipMessage) -> Result<(), &'static str> {
    let SipMessage::Request(request) = message else {
        return Ok(());
    };
    let via = request.top_via_header().and_then(|via| via.typed());
    if via.is_err() {
        return Err("Bad Request: Via");
    }
    match request.from_header().and_then(|from| from.tag()) {
        Ok(Some(tag)) if !tag.value().is_empty() => {}
        _ => return Err("Bad Request: From tag"),
    }
    if request.from_header().and_then(|h| h.typed()).is_err() {
        return Err("Bad Request: From");
    }
    if request.to_header().and_then(|h| h.typed()).is_err()
        || request.to_header().and_then(|h| h.tag()).is_err()
    {
        return Err("Bad Request: To");
    }
    if request.method == rsipstack::sip::Method::Invite {
        let contact = request
            .contact_header()
            .map(|c| typed::Contact::parse_header_list(c.value()));
        if !matches!(contact, Ok(Ok(list)) if !list.is_empty()) {
            return Err("Bad Request: Contact");
        }
    }
    Ok(())
}

/// `Ok(None)`: no such header.
fn declared_length(head: &Head) -> Result<Option<usize>, ()> {
    let mut values = head.values("content-length");
    let Some(first) = values.next() else {
        return Ok(None);
    };
    if values.any(|v| v != first) || !first.bytes().all(|b| b.is_ascii_digit()) {
        return Err(());
    }
    first.parse().map(Some).map_err(|_| ())
}

fn rebuild(head: &Head, body: &[u8]) -> Vec<u8> {
    let mut out = String::with_capacity(512 + body.len());
    out.push_str(&head.start);
    out.push_str("\r\n");
    for (name, value) in &head.headers {
        if !name.eq_ignore_ascii_case("content-length") && !name.eq_ignore_ascii_case("l") {
            out.push_str(name);
            out.push_str(": ");
            out.push_str(value);
            out.push_str("\r\n");
        }
    }
    out.push_str("Content-Length: ");
    out.push_str(&body.len().to_string());
    out.push_str("\r\n\r\n");
    let mut out = out.into_bytes();
    out.extend_from_slice(body);
    out
}

/// How many bytes the first message of a stream takes; `Ok(None)`: not all there yet.
///
/// # Errors
/// When the stream cannot be brought back into step: close it.
pub(crate) fn frame_length(buffer: &[u8]) -> Result<Option<usize>, Rejected> {
    let Some((head_len, body_at)) = find_head_end(buffer) else {
        return if buffer.len() > MAX_MESSAGE {
            Err(Rejected::Drop("headers too long"))
        } else {
            Ok(None)
        };
    };
    let head = parse_head(buffer.get(..head_len).unwrap_or_default())?;
    let Ok(length) = declared_length(&head) else {
        return Err(Rejected::Answer {
            status: 400,
            phrase: "Bad Request: Content-Length",
            head,
        });
    };
    let total = body_at.saturating_add(length.unwrap_or(0));
    if total > MAX_MESSAGE {
        return Err(Rejected::Answer {
            status: 513,
            phrase: "Message Too Large",
            head,
        });
    }
    Ok((buffer.len() >= total).then_some(total))
}

fn has_tag(value: &str) -> bool {
    let parameters = value.rsplit('>').next().unwrap_or(value);
    parameters.split(';').skip(1).any(|p| {
        let (name, tag) = p.split_once('=').unwrap_or((p, ""));
        name.trim().eq_ignore_ascii_case("tag") && !tag.trim().is_empty()
    })
}

fn compact(name: &str) -> Option<&'static str> {
    Some(match name {
        "v" | "V" => "via",
        "f" | "F" => "from",
        "t" | "T" => "to",
        "i" | "I" => "call-id",
        "l" | "L" => "content-length",
        "m" | "M" => "contact",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn invite(replace: &[(&str, &str)]) -> Vec<u8> {
        let mut text =
            "INVITE sip:a@127.0.0.1 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:5070;branch=z9hG4bK1;rport\r\n\
            From: \"X\" <sip:x@127.0.0.1>;tag=1\r\nTo: <sip:a@127.0.0.1>\r\nCall-ID: c1\r\nCSeq: 1 INVITE\r\n\
            Contact: <sip:x@127.0.0.1:5070>\r\nMax-Forwards: 70\r\nContent-Length: 0\r\n\r\n"
                .to_string();
        for (from, to) in replace {
            assert!(text.contains(from), "{from}");
            text = text.replace(from, to);
        }
        text.into_bytes()
    }

    fn status(bytes: &[u8]) -> Option<u16> {
        match check(bytes, Framing::Datagram) {
            Ok(_) => Some(0),
            Err(Rejected::Answer { status, .. }) => Some(status),
            Err(Rejected::Drop(_)) => None,
        }
    }

    #[test]
    fn each_mistake_gets_the_answer_it_deserves() {
        type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], Option<u16>);
        let cases: &[Case] = &[
            ("good", &[], Some(0)),
            ("unknown method", &[("INVITE", "DANCE")], Some(501)),
            ("known, refused later", &[("INVITE", "PUBLISH")], Some(0)),
            (
                "no SDP accepted",
                &[("Max-Forwards: 70", "Accept: text/plain, text/html;q=1")],
                Some(406),
            ),
            (
                "SDP accepted",
                &[("Max-Forwards: 70", "Accept: text/plain, Application/SDP;level=1")],
                Some(0),
            ),
            ("version", &[("SIP/2.0\r\nVia", "SIP/7.0\r\nVia")], Some(505)),
            ("no Call-ID", &[("Call-ID: c1\r\n", "")], Some(400)),
            (
                "two Call-IDs",
                &[("Call-ID: c1\r\n", "Call-ID: c1\r\nCall-ID: c2\r\n")],
                Some(400),
            ),
            ("no From tag", &[(";tag=1", "")], Some(400)),
            ("CSeq of another method", &[("1 INVITE", "1 BYE")], Some(400)),
            ("CSeq too large", &[("1 INVITE", "99999999999 INVITE")], Some(400)),
            (
                "no Contact",
                &[("Contact: <sip:x@127.0.0.1:5070>\r\n", "")],
                Some(400),
            ),
            (
                "negative length",
                &[("Content-Length: 0", "Content-Length: -1")],
                Some(400),
            ),
            (
                "length beyond the body",
                &[("Content-Length: 0", "Content-Length: 99")],
                Some(400),
            ),
            ("odd scheme", &[("INVITE sip:", "INVITE http:")], Some(416)),
            (
                "spaces in the request line",
                &[("INVITE sip", "INVITE  sip")],
                Some(400),
            ),
            (
                "no Via",
                &[("Via: SIP/2.0/UDP 127.0.0.1:5070;branch=z9hG4bK1;rport\r\n", "")],
                Some(400),
            ),
            ("no end", &[("\r\n\r\n", "\r\n")], Some(400)),
        ];
        for (case, replace, want) in cases {
            assert_eq!(status(&invite(replace)), *want, "{case}");
        }
        assert_eq!(status(b"hello"), None);
        assert_eq!(status(&[0xff; 300]), None);
    }

    #[test]
    fn a_body_without_content_length_is_kept() {
        let mut bytes = invite(&[("Content-Length: 0\r\n", "")]);
        bytes.extend_from_slice(b"v=0\r\n");
        let checked = check(&bytes, Framing::Datagram).unwrap();
        assert!(
            String::from_utf8(checked.bytes)
                .unwrap()
                .ends_with("Content-Length: 5\r\n\r\nv=0\r\n")
        );
    }

    #[test]
    fn latin_1_names_become_utf_8() {
        let mut bytes = invite(&[]);
        let at = bytes.iter().position(|b| *b == b'X').unwrap();
        bytes.splice(at..=at, *b"M\xfcller");
        let checked = check(&bytes, Framing::Datagram).unwrap();
        assert!(String::from_utf8(checked.bytes).unwrap().contains("\"Müller\""));
    }

    #[test]
    fn folded_and_compact_headers_are_understood() {
        let bytes = invite(&[
            ("Call-ID: c1", "i: c1"),
            ("To: <sip:a@127.0.0.1>", "To:\r\n <sip:a@127.0.0.1>"),
            ("Via:", "v :"),
        ]);
        assert!(check(&bytes, Framing::Datagram).is_ok());
    }

    #[test]
    fn answers_carry_what_identifies_the_request() {
        let Err(Rejected::Answer { head, .. }) = check(&invite(&[("INVITE", "DANCE")]), Framing::Datagram)
        else {
            panic!("accepted");
        };
        let text = String::from_utf8(head.answer(501, "Not Implemented", "Allow: BYE\r\n").unwrap()).unwrap();
        for part in [
            "SIP/2.0 501",
            "Via: SIP/2.0/UDP 127.0.0.1:5070",
            "Call-ID: c1",
            "CSeq: 1 DANCE",
            "Allow: BYE",
            "To: <sip:a@127.0.0.1>;tag=",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn answers_go_where_the_via_says() {
        let port = |via: &str| {
            Head {
                start: String::new(),
                headers: vec![("Via".into(), via.into())],
            }
            .reply_port(999)
        };
        assert_eq!(port("SIP/2.0/UDP 192.0.2.1:5070;branch=1;rport"), 999);
        assert_eq!(port("SIP/2.0/UDP 192.0.2.1:5070;branch=1"), 5070);
        assert_eq!(port("SIP/2.0/UDP pbx.example;branch=1"), 5060);
        assert_eq!(port("SIP/2.0/UDP [2001:db8::1]:5080;branch=1"), 5080);
    }

    proptest! {
        #[test]
        fn any_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = check(&bytes, Framing::Datagram);
            let _ = frame_length(&bytes);
        }

        #[test]
        fn a_damaged_invite_never_panics(cut in 0usize..300, at in 0usize..300, byte in any::<u8>()) {
            let mut bytes = invite(&[]);
            let len = bytes.len();
            bytes[at % len] = byte;
            bytes.truncate(len - cut % len);
            if let Ok(checked) = check(&bytes, Framing::Datagram) {
                // What passes once passes again unchanged.
                prop_assert_eq!(check(&checked.bytes, Framing::Datagram).unwrap().bytes, checked.bytes);
            }
        }
    }
}
