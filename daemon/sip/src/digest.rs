//! Digest challenges and credentials in the notation the library reads, and back.
//!
//! The library answers only the first challenge, knows SHA-256 as `SHA256` and wants one single `qop`. So a challenge is
//! rewritten on its way in (the strongest one we can answer, first) and the credentials on their way out.
//! Source: RFC 7616, RFC 8760 §2.4.

use std::fmt::Write as _;

/// Puts the best challenge alone into `values`; leaves them when none can be answered.
///
/// `realm` prefers one realm where several are offered.
pub(crate) fn choose_challenge(values: &[&str], realm: Option<&str>) -> Option<String> {
    let candidates = values.iter().filter_map(|value| Challenge::parse(value));
    // Later entries must be strictly better: the server lists its favourite first.
    let mut best: Option<Challenge> = None;
    for candidate in candidates {
        let rank = |c: &Challenge| (realm.is_some_and(|r| r == c.realm), c.strength);
        if best.as_ref().is_none_or(|b| rank(&candidate) > rank(b)) {
            best = Some(candidate);
        }
    }
    best.map(|challenge| challenge.build())
}

/// Credentials as RFC 7616 writes them.
pub(crate) fn fix_credentials(value: &str) -> String {
    value
        .replace("algorithm=SHA256", "algorithm=SHA-256")
        .replace("qop=\"auth\"", "qop=auth")
        .replace("qop=\"auth-int\"", "qop=auth-int")
}

struct Challenge {
    realm: String,
    nonce: String,
    opaque: Option<String>,
    stale: bool,
    /// 1: MD5, 2: SHA-256.
    strength: u8,
    qop: Option<&'static str>,
}

impl Challenge {
    /// `None`: not digest, incomplete, or an algorithm we do not have.
    fn parse(value: &str) -> Option<Challenge> {
        let (scheme, rest) = value.trim().split_once(char::is_whitespace)?;
        if !scheme.eq_ignore_ascii_case("digest") {
            return None;
        }
        let parameters = parameters(rest);
        let get = |name: &str| {
            parameters
                .iter()
                .find(|(n, _)| n.eq_ignore_ascii_case(name))
                .map(|(_, v)| v.clone())
        };
        let strength = match get("algorithm")
            .as_deref()
            .map(str::to_ascii_uppercase)
            .as_deref()
        {
            None | Some("MD5") => 1,
            Some("SHA-256" | "SHA256") => 2,
            _ => return None,
        };
        let qop = get("qop");
        let offers = |name: &str| {
            qop.as_ref()
                .is_some_and(|q| q.split(',').any(|v| v.trim().eq_ignore_ascii_case(name)))
        };
        let qop = match &qop {
            None => None,
            Some(_) if offers("auth") => Some("auth"),
            Some(_) => return None,
        };
        Some(Challenge {
            realm: get("realm")?,
            nonce: get("nonce")?,
            opaque: get("opaque"),
            stale: get("stale").is_some_and(|s| s.eq_ignore_ascii_case("true")),
            strength,
            qop,
        })
    }

    fn build(&self) -> String {
        let mut out = format!("Digest realm=\"{}\", nonce=\"{}\"", self.realm, self.nonce);
        if let Some(opaque) = &self.opaque {
            let _ = write!(out, ", opaque=\"{opaque}\"");
        }
        if self.stale {
            out.push_str(", stale=true");
        }
        out.push_str(if self.strength == 2 {
            ", algorithm=SHA256"
        } else {
            ", algorithm=MD5"
        });
        if let Some(qop) = self.qop {
            let _ = write!(out, ", qop=\"{qop}\"");
        }
        out
    }
}

/// `name=value, name="quoted, value"`.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once('=') {
        let name = name.trim().trim_start_matches(',').trim().to_string();
        let after = after.trim_start();
        let (value, tail) = match after.strip_prefix('"') {
            Some(quoted) => {
                let Some(end) = closing_quote(quoted) else { break };
                (
                    quoted.get(..end).unwrap_or_default(),
                    quoted.get(end + 1..).unwrap_or_default(),
                )
            }
            None => after.split_once(',').unwrap_or((after, "")),
        };
        found.push((name, value.trim().to_string()));
        rest = tail;
        if found.len() > 32 {
            break;
        }
    }
    found
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(at, c)| {
        let end = c == '"' && !escaped;
        escaped = c == '\\' && !escaped;
        end.then_some(at)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_strongest_challenge_we_can_answer_is_chosen() {
        let md5 = "Digest realm=\"pbx\", nonce=\"n1\", algorithm=MD5, qop=\"auth,auth-int\"";
        let sha = "Digest realm=\"pbx\",nonce=\"n2\",opaque=\"o\",algorithm=SHA-256,qop=\"auth\"";
        let sha512 = "Digest realm=\"pbx\", nonce=\"n3\", algorithm=SHA-512-256";
        let cases: &[(&[&str], Option<&str>)] = &[
            (
                &[md5],
                Some("Digest realm=\"pbx\", nonce=\"n1\", algorithm=MD5, qop=\"auth\""),
            ),
            (
                &[md5, sha],
                Some("Digest realm=\"pbx\", nonce=\"n2\", opaque=\"o\", algorithm=SHA256, qop=\"auth\""),
            ),
            (
                &[sha512, md5],
                Some("Digest realm=\"pbx\", nonce=\"n1\", algorithm=MD5, qop=\"auth\""),
            ),
            (&[sha512], None),
            (&["Basic realm=\"x\""], None),
            (
                &["Digest realm=\"a, b\", nonce=\"x=y\""],
                Some("Digest realm=\"a, b\", nonce=\"x=y\", algorithm=MD5"),
            ),
        ];
        for (values, want) in cases {
            assert_eq!(choose_challenge(values, None).as_deref(), *want, "{values:?}");
        }
    }

    #[test]
    fn the_configured_realm_wins() {
        let a = "Digest realm=\"a\", nonce=\"1\", algorithm=SHA-256";
        let b = "Digest realm=\"b\", nonce=\"2\"";
        assert!(
            choose_challenge(&[a, b], Some("b"))
                .unwrap()
                .contains("realm=\"b\"")
        );
    }

    #[test]
    fn credentials_leave_in_the_notation_of_the_rfc() {
        let fixed = fix_credentials("Digest username=\"u\", algorithm=SHA256, qop=\"auth\", nc=00000001");
        assert_eq!(
            fixed,
            "Digest username=\"u\", algorithm=SHA-256, qop=auth, nc=00000001"
        );
    }

    proptest! {
        #[test]
        fn any_challenge_never_panics(text in ".{0,200}") {
            let _ = choose_challenge(&[&text, &format!("Digest {text}")], None);
        }
    }
}
