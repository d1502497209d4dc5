//! Grammar that the library overlooks or trips over: white space where nobody writes it, display names without quotes,
//! empty parameters, IPv6 addresses without brackets. Source: RFC 3261 §25.1, RFC 4475 §3.1, RFC 5118 §4.

/// Where in a header value a character stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Place {
    Plain,
    /// Within `"…"`.
    Quoted,
    /// After a backslash within `"…"`.
    Escaped,
    /// Within `<…>`.
    Angle,
}

impl Place {
    /// The place after `c`.
    fn after(self, c: char) -> Place {
        match (self, c) {
            (Place::Plain, '"') | (Place::Escaped, _) => Place::Quoted,
            (Place::Plain, '<') => Place::Angle,
            (Place::Quoted, '\\') => Place::Escaped,
            (Place::Quoted, '"') | (Place::Angle, '>') => Place::Plain,
            (place, _) => place,
        }
    }
}

/// The characters of `value` with their places; a quote or bracket counts as what it opens or closes.
fn places(value: &str) -> impl Iterator<Item = (usize, char, Place)> {
    value.char_indices().scan(Place::Plain, |place, (at, c)| {
        let before = *place;
        *place = before.after(c);
        let here = if before == Place::Plain { *place } else { before };
        Some((at, c, here))
    })
}

/// `value` cut at every plain `separator`.
fn split(value: &str, separator: char) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut from = 0;
    for (at, c, place) in places(value) {
        if place == Place::Plain && c == separator {
            parts.push(value.get(from..at).unwrap_or_default().trim());
            from = at + c.len_utf8();
        }
    }
    parts.push(value.get(from..).unwrap_or_default().trim());
    parts
}

/// Takes out white space around `;`, `,`, `=` and, in a Via, `/`; elsewhere one blank is left of any.
pub(crate) fn tighten(value: &str, is_via: bool) -> String {
    let tight = |c: char| matches!(c, ';' | ',' | '=') || (is_via && c == '/');
    let mut out = String::with_capacity(value.len());
    let mut blank = false;
    let mut last = ' ';
    for (_, c, place) in places(value) {
        if place == Place::Plain && c.is_ascii_whitespace() {
            blank = true;
            continue;
        }
        if blank && !out.is_empty() && !tight(c) && !tight(last) {
            out.push(' ');
        }
        blank = false;
        out.push(c);
        // What is quoted or bracketed is over with its own end.
        last = if place == Place::Plain { c } else { 'x' };
    }
    out
}

/// A From or To with its display name in quotes where it needs them, and without odd white space.
pub(crate) fn repair_address(value: &str) -> String {
    let open = value.find('<');
    let Some((name, rest)) = open.and_then(|at| value.split_at_checked(at)) else {
        return tighten(value, false);
    };
    let name = name.trim();
    if name.contains('"') || name.chars().all(|c| is_token(c) || c.is_ascii_whitespace()) {
        return tighten(value, false);
    }
    let escaped = name.replace('\\', "\\\\");
    tighten(&format!("\"{escaped}\" {rest}"), false)
}

fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-.!%*_+`'~".contains(c)
}

/// Whether quotes and brackets of an address are closed.
pub(crate) fn is_closed(value: &str) -> bool {
    value.chars().fold(Place::Plain, Place::after) == Place::Plain
}

/// Whether a Via has neither empty values nor empty parameters.
pub(crate) fn is_sound_via(value: &str) -> bool {
    split(value, ',').into_iter().all(|hop| {
        split(hop, ';')
            .into_iter()
            .all(|part| !part.is_empty() && !part.starts_with('='))
    })
}

/// Whether a Request-URI is not visibly malformed: no brackets around it, and IPv6 addresses in theirs.
pub(crate) fn is_sound_uri(uri: &str) -> bool {
    if uri.contains(['<', '>', '"']) {
        return false;
    }
    let Some((scheme, rest)) = uri.split_once(':') else {
        return false;
    };
    if !scheme.eq_ignore_ascii_case("sip") && !scheme.eq_ignore_ascii_case("sips") {
        return true;
    }
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    let host = host.split([';', '?']).next().unwrap_or_default();
    match host.strip_prefix('[') {
        Some(v6) => v6.contains(']'),
        None => host.matches(':').count() <= 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_goes_where_it_means_nothing() {
        let cases = [
            (
                "SIP  /   2.0 /UDP    192.0.2.2;branch=390",
                true,
                "SIP/2.0/UDP 192.0.2.2;branch=390",
            ),
            (
                "SIP / 2.0 / TCP  a.example ; branch =  z9 , SIP/2.0/UDP b",
                true,
                "SIP/2.0/TCP a.example;branch=z9,SIP/2.0/UDP b",
            ),
            ("sip:a@b ;   tag    = 19", false, "sip:a@b;tag=19"),
            (
                "\"J  \\\" ; R\"    <sip:a@b ; x> ;  tag = 9",
                false,
                "\"J  \\\" ; R\" <sip:a@b ; x>;tag=9",
            ),
            ("A  B <sip:a@b>", false, "A B <sip:a@b>"),
            ("A / B <sip:a@b>", false, "A / B <sip:a@b>"),
            ("", false, ""),
        ];
        for (value, is_via, want) in cases {
            assert_eq!(tighten(value, is_via), want);
            assert_eq!(tighten(want, is_via), want, "again");
        }
    }

    #[test]
    fn names_get_the_quotes_they_need() {
        let cases = [
            (
                "Bell, Alexander <sip:a@b>;tag=4",
                "\"Bell, Alexander\" <sip:a@b>;tag=4",
            ),
            ("Müller & Co. <sip:a@b>", "\"Müller & Co.\" <sip:a@b>"),
            ("caller<sip:a@b>", "caller<sip:a@b>"),
            ("\"A, B\" <sip:a@b>", "\"A, B\" <sip:a@b>"),
            ("sip:a@b;tag=1", "sip:a@b;tag=1"),
        ];
        for (value, want) in cases {
            assert_eq!(repair_address(value), want);
            assert_eq!(repair_address(want), want, "again");
        }
    }

    #[test]
    fn what_is_malformed_is_seen() {
        assert!(is_closed("\"a \\\" b\" <sip:a@b>") && is_closed("sip:a@b"));
        assert!(!is_closed("\"Mr. J. User <sip:a@b>") && !is_closed("<sip:a@b"));
        assert!(is_sound_via(
            "SIP/2.0/UDP a;branch=1;rport,SIP/2.0/TCP b;x=\";;\""
        ));
        for bad in [
            "SIP/2.0/UDP a;;branch=1",
            "SIP/2.0/UDP a;",
            "SIP/2.0/UDP a,,SIP/2.0/UDP b",
            "SIP/2.0/UDP a;=1",
            "",
        ] {
            assert!(!is_sound_via(bad), "{bad}");
        }
        for good in [
            "sip:a@b",
            "sip:[::1]:5070",
            "sip:a:p@b:5060;x=y:z",
            "sips:a@[2001:db8::1];lr",
            "tel:+1-2",
            "urn:service:sos",
        ] {
            assert!(is_sound_uri(good), "{good}");
        }
        for bad in [
            "<sip:a@b>",
            "sip:2001:db8::10",
            "sip:a@2001:db8::10",
            "sip:[::1",
            "nothing",
        ] {
            assert!(!is_sound_uri(bad), "{bad}");
        }
    }
}
