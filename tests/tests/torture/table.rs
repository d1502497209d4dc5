//! What each message of RFC 4475 and RFC 5118 deserves from a user agent server that is no registrar.

/// One message and the answers that are right; none: it must not be answered.
pub struct Case {
    /// Directory of `tests/torture`.
    pub rfc: &'static str,
    /// Section of the RFC that tells what is special.
    pub section: &'static str,
    /// File without `.dat`.
    pub name: &'static str,
    /// Right final answers, the best one first.
    pub due: &'static [u16],
    /// Why, or where it differs between transports.
    pub why: &'static str,
}

const fn old(section: &'static str, name: &'static str, due: &'static [u16], why: &'static str) -> Case {
    Case {
        rfc: "rfc4475",
        section,
        name,
        due,
        why,
    }
}

const fn six(section: &'static str, name: &'static str, due: &'static [u16], why: &'static str) -> Case {
    Case {
        rfc: "rfc5118",
        section,
        name,
        due,
        why,
    }
}

/// REGISTER to who is no registrar (RFC 4475 §3.3.7).
const NO_REGISTRAR: &[u16] = &[405];
/// Malformed; answered as RFC 3261 §21.4.1 has it.
const BAD: &[u16] = &[400];
/// A liberal reader may see through it (the RFC says so).
const BAD_OR_READ: &[u16] = &[400, 200];

/// Every message of both RFCs. "In a dialog": it has a To tag we never gave (RFC 3261 §12.2.2).
pub const CASES: &[Case] = &[
    old(
        "3.1.1.1",
        "wsinv",
        &[481],
        "well formed; in a dialog that does not exist",
    ),
    old("3.1.1.2", "intmeth", &[501, 405], "well formed; unknown method"),
    old("3.1.1.3", "esc01", &[200], "well formed call"),
    old("3.1.1.4", "escnull", NO_REGISTRAR, "well formed REGISTER"),
    old(
        "3.1.1.5",
        "esc02",
        &[501],
        "well formed; RE%47IST%45R is not REGISTER",
    ),
    old("3.1.1.6", "lwsdisp", &[200], "no blank before <: to be accepted"),
    old("3.1.1.7", "longreq", &[200], "well formed call"),
    old(
        "3.1.1.8",
        "dblreq",
        NO_REGISTRAR,
        "what follows the body is noise on UDP",
    ),
    old("3.1.1.9", "semiuri", &[200], "user part with semicolons"),
    old(
        "3.1.1.10",
        "transports",
        &[200],
        "unknown transports in lower Vias",
    ),
    old("3.1.1.11", "mpart01", &[405, 501], "MESSAGE is known, not served"),
    old("3.1.1.12", "unreason", &[], "a response"),
    old("3.1.1.13", "noreason", &[], "a response"),
    old("3.1.2.1", "badinv01", BAD, "extra separators in Via"),
    old(
        "3.1.2.2",
        "clerr",
        BAD,
        "Content-Length beyond the end; TCP waits for the rest",
    ),
    old("3.1.2.3", "ncl", BAD, "negative Content-Length"),
    old("3.1.2.4", "scalar02", BAD, "CSeq beyond 2^32"),
    old("3.1.2.5", "scalarlg", &[], "a response; discarded"),
    old("3.1.2.6", "quotbal", BAD, "unterminated quote"),
    old("3.1.2.7", "ltgtruri", BAD, "<> around the Request-URI"),
    old("3.1.2.8", "lwsruri", BAD, "blanks within the Request-URI"),
    old(
        "3.1.2.9",
        "lwsstart",
        BAD_OR_READ,
        "several blanks in the request line",
    ),
    old("3.1.2.10", "trws", BAD_OR_READ, "blanks after the version"),
    old("3.1.2.11", "escruri", BAD_OR_READ, "headers in the Request-URI"),
    old("3.1.2.12", "baddate", &[200, 400], "a Date we do not use"),
    old(
        "3.1.2.13",
        "regbadct",
        &[400, 405],
        "Contact wants <>; and no registrar",
    ),
    old(
        "3.1.2.14",
        "badaspec",
        BAD_OR_READ,
        "blanks within the To address",
    ),
    old("3.1.2.15", "baddn", BAD_OR_READ, "unquoted display name"),
    old("3.1.2.16", "badvers", &[505], "SIP/7.0"),
    old("3.1.2.17", "mismatch01", BAD, "CSeq of another method"),
    old(
        "3.1.2.18",
        "mismatch02",
        &[501, 400],
        "unknown method, CSeq of another",
    ),
    old("3.1.2.19", "bigcode", &[], "a response; dropped"),
    old("3.2.1", "badbranch", BAD_OR_READ, "branch without an identifier"),
    old("3.3.1", "insuf", BAD, "no Call-ID, From, To"),
    old("3.3.2", "unkscm", &[416], "unknown scheme"),
    old("3.3.3", "novelsc", &[416, 404], "a scheme no telephone serves"),
    old(
        "3.3.4",
        "unksm2",
        &[400, 405],
        "To of another scheme; and no registrar",
    ),
    old("3.3.5", "bext01", &[420], "Require: nothing we support"),
    old("3.3.6", "invut", &[415], "body of unknown type"),
    old("3.3.7", "regaut01", NO_REGISTRAR, "REGISTER"),
    old("3.3.8", "multi01", BAD, "several Call-IDs, Tos, Froms, CSeqs"),
    old("3.3.9", "mcl01", BAD, "two Content-Lengths"),
    old("3.3.10", "bcast", &[], "a response"),
    old("3.3.11", "zeromf", &[200], "Max-Forwards 0 binds proxies only"),
    old("3.3.12", "cparam01", NO_REGISTRAR, "REGISTER"),
    old("3.3.13", "cparam02", NO_REGISTRAR, "REGISTER"),
    old("3.3.14", "regescrt", NO_REGISTRAR, "REGISTER"),
    old("3.3.15", "sdp01", &[406, 400], "Accept without application/sdp"),
    old(
        "3.4.1",
        "inv2543",
        &[200, 400],
        "RFC 2543: no From tag, no branch",
    ),
    old("A", "test", &[], "no version, no Via: nowhere to send an answer"),
    six("4.1", "ipv6-good", NO_REGISTRAR, "REGISTER"),
    six("4.2", "ipv6-bad", BAD, "address without []"),
    six("4.3", "port-ambiguous", NO_REGISTRAR, "REGISTER"),
    six("4.4", "port-unambiguous", NO_REGISTRAR, "REGISTER"),
    six(
        "4.5",
        "via-received-param-with-delim",
        &[481],
        "to be read; in a dialog",
    ),
    six(
        "4.5",
        "via-received-param-no-delim",
        &[200],
        "well formed OPTIONS",
    ),
    six("4.6", "ipv6-in-sdp", &[488], "well formed; offers G.726 only"),
    six("4.7", "mult-ip-in-header", &[481], "well formed; in a dialog"),
    six(
        "4.8",
        "mult-ip-in-sdp",
        &[200],
        "well formed call; audio over IPv4",
    ),
    six(
        "4.9",
        "ipv4-mapped-ipv6",
        &[488],
        "well formed; offers G.726 only",
    ),
    six("4.10", "ipv6-bug-abnf-3-colons", &[200, 400], "may be read"),
    six(
        "4.10",
        "ipv6-correct-abnf-2-colons",
        &[200],
        "well formed OPTIONS",
    ),
];
